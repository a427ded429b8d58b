// Loaded into the browser by run.mjs: plain clients other than the page, each as small as it can be.
// Openers resolve when their open has been sent. They echo what they hear on a channel, with the index they have for the joiner.

globalThis.plainClients = { openByCounting, openByRelayedIndex, openAndLeaveAtOnce, joinAndBeCalled, joinCandidatesFirst };

/** Knows a joiner by the place of its join line alone: it speaks first, and never reads the index that the server adds. */
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

/** Knows a joiner by the relayed index alone: it ignores join lines, and a new index is a new joiner. */
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

/** Leaves when the first joiner comes. */
function openAndLeaveAtOnce(server, key) {
  const { leave, greeted } = connect(server, { type: "open", key }, () => leave());
  return greeted;
}

/** The other side of `openByCounting`. Says `lines` once it is greeted; resolves with as many lines as it said. */
function joinAndBeCalled(server, key, lines) {
  return new Promise((resolve, reject) => {
    let from;
    const heard = [];
    const opener = peer((signal) => send({ ...signal, from }), (channel) => {
      // It speaks when it is spoken to: a channel that the other side has made may be open here, and there not yet, in Chromium.
      channel.onmessage = () => {
        channel.onmessage = ({ data }) => heard.push(data) === lines.length && resolve(heard);
        lines.forEach((line) => channel.send(line));
      };
    });
    const { send } = connect(server, { type: "join", key }, (message) => {
      from = message.index;
      opener.receive(message);
    }, reject);
  });
}

/** Sends its offer after all its candidates. Resolves with the first line it hears. */
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
  return ({ target, data }) => target.send(`${index} heard ${data}`);
}

/** What is sent before the socket is open waits for it. */
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

  // Called in the order of arrival; the connection itself lets a candidate wait for the description before it.
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
