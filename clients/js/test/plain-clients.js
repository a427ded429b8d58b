// Minimal plain clients, loaded into the browser by run.mjs. Openers resolve when their open was sent. They echo each message of a channel with
// the index of the joiner.

globalThis.plainClients = { openByCounting, openByRelayedIndex, openAndLeaveAtOnce, joinAndBeCalled, joinCandidatesFirst };

/** An opener that assigns indexes by counting join notices and ignores the relayed index. It makes the offer. */
function openByCounting(server, key) {
  const joiners = [];
  const { send, greeted } = connect(server, { type: "open", key }, (message) => {
    if ("from" in message) return joiners[message.from].receive(message);
    const index = joiners.length;
    joiners.push(peer((signal) => send({ ...signal, index })));
    const channel = joiners[index].call();
    channel.onopen = () => channel.send("hello");
    channel.onmessage = echo(index);
  });
  return greeted;
}

/** An opener that ignores join notices and identifies joiners by the relayed index. */
function openByRelayedIndex(server, key) {
  const joiners = new Map();
  const { send, greeted } = connect(server, { type: "open", key }, (message) => {
    const { index } = message;
    if (index === undefined) return;
    if (!joiners.has(index)) joiners.set(index, answerer(index));
    joiners.get(index).receive(message);
  });
  return greeted;

  function answerer(index) {
    return peer((signal) => send({ ...signal, index }), (channel) => (channel.onmessage = echo(index)));
  }
}

/** An opener that leaves when the first joiner joins. */
function openAndLeaveAtOnce(server, key) {
  const { leave, greeted } = connect(server, { type: "open", key }, () => leave());
  return greeted;
}

/** A joiner of `openByCounting`. Sends `lines` after the greeting, and resolves with the echoes. */
function joinAndBeCalled(server, key, lines) {
  return new Promise((resolve, reject) => {
    let from;
    const echoes = [];
    const opener = peer((signal) => send({ ...signal, from }), (channel) => {
      // Sends only after the first message, because in Chromium the channel may not be open yet on the other side.
      channel.onmessage = () => {
        channel.onmessage = ({ data }) => echoes.push(data) === lines.length && resolve(echoes);
        lines.forEach((line) => channel.send(line));
      };
    });
    const { send } = connect(server, { type: "join", key }, (message) => {
      from = message.index;
      opener.receive(message);
    }, reject);
  });
}

/** A joiner that sends its offer after all its candidates. Resolves with the first message it receives. */
function joinCandidatesFirst(server, key) {
  return new Promise((resolve, reject) => {
    let offer;
    const { send } = connect(server, { type: "join", key }, (message) => opener.receive(message), reject);
    const opener = peer((signal) => {
      if (signal.sdp) offer = signal;
      else send(signal.candidate ? signal : offer);
    });
    opener.call().onmessage = ({ data }) => resolve(data);
  });
}

function echo(index) {
  return ({ target, data }) => target.send(`${index} received ${data}`);
}

/** Connects and sends a first message. Messages are sent after the socket is open. */
function connect(server, greeting, received, lost = () => {}) {
  const socket = new WebSocket(server);
  const opened = new Promise((resolve) => (socket.onopen = resolve));
  const send = (message) => opened.then(() => socket.send(JSON.stringify(message)));
  const greeted = send(greeting);
  socket.onmessage = ({ data }) => received(JSON.parse(data));
  socket.onclose = ({ code, reason }) => lost(new Error(`${greeting.type} ${greeting.key}: closed with ${code} ${reason}`));
  return { send, greeted, leave: () => socket.close() };
}

function peer(signal, channelCame = () => {}) {
  const connection = new RTCPeerConnection();
  connection.onicecandidate = ({ candidate }) => signal({ candidate });
  connection.ondatachannel = ({ channel }) => channelCame(channel);
  return { call, receive };

  function call() {
    const channel = connection.createDataChannel("echo");
    describeSelf();
    return channel;
  }

  // Called in the order of arrival. The connection itself applies candidates after pending descriptions.
  async function receive(message) {
    if ("candidate" in message) return connection.addIceCandidate(message.candidate);
    await connection.setRemoteDescription(message);
    if (message.type === "offer") describeSelf();
  }

  async function describeSelf() {
    await connection.setLocalDescription();
    signal(connection.localDescription.toJSON());
  }
}
