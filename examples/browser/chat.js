// Both sides of a chat over a data channel, as clients of sigver's plain protocol.
// Top-down: the page, the opener, the joiner; then Signaling (the socket), Peer (one connection), and what is shown.

const invitation = new URLSearchParams(location.hash.slice(1)).get("join");
const role = invitation === null ? "opener" : "joiner";
const begin = { opener: openKey, joiner: joinKey }[role];
let session = { signaling: null, peers: [] };

const byId = (id) => document.getElementById(id);
const connectForm = byId("connect");
const sayForm = byId("say");

// ---- The page ----

function setUp() {
  document.body.dataset.role = role;
  fillIn(connectForm.elements);
  connectForm.addEventListener("submit", onConnect);
  sayForm.addEventListener("submit", onSay);
  byId("copy").addEventListener("click", copyLink);
  byId("stop").addEventListener("click", stopAccepting);
  addEventListener("hashchange", () => location.reload());
  // Else the others would learn only from a timeout that this page is gone.
  addEventListener("pagehide", closePeers);
  if (role === "joiner") connectForm.requestSubmit();
}

function fillIn({ key, server, ice }) {
  const query = new URLSearchParams(location.search);
  key.value = invitation ?? suggestKey();
  server.value = query.get("server") ?? ownServer();
  ice.value = query.get("ice") ?? "";
}

function suggestKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function ownServer() {
  const scheme = { "http:": "ws:", "https:": "wss:" }[location.protocol];
  return scheme ? `${scheme}//${location.host}` : "ws://localhost:8000";
}

function onConnect(event) {
  event.preventDefault();
  const { key, server, ice } = Object.fromEntries(new FormData(connectForm));
  closePeers();
  clearView();
  try {
    session = begin({ key, server, rtc: rtcConfiguration(ice) });
  } catch (error) {
    showTrouble(error.message);
  }
  showControls();
}

function rtcConfiguration(ice) {
  const configuration = { iceServers: ice ? [{ urls: ice }] : [] };
  // A bad address throws here, and not only when somebody joins.
  new RTCPeerConnection(configuration).close();
  return configuration;
}

function onSay(event) {
  event.preventDefault();
  const { text } = sayForm.elements;
  session.peers.forEach((peer) => peer.say(text.value));
  showChat("you", text.value);
  text.value = "";
}

function closePeers() {
  session.peers.forEach((peer) => peer.close());
}

function stopAccepting() {
  session.signaling.close("Nobody new can join. Open chats go on: they do not need signaling.");
}

function linkTo(key) {
  const { server, ice } = connectForm.elements;
  const link = new URL(location.pathname, location.href);
  if (server.value !== ownServer()) link.searchParams.set("server", server.value);
  if (ice.value) link.searchParams.set("ice", ice.value);
  link.hash = `join=${encodeURIComponent(key)}`;
  return link.href;
}

async function copyLink() {
  byId("link").select();
  try {
    await navigator.clipboard.writeText(byId("link").value);
    byId("copied").textContent = "Copied.";
  } catch {
    // Browsers give the clipboard to https and localhost only.
    byId("copied").textContent = "Selected: copy it with your browser.";
  }
}

// ---- The opener: owns the key, answers every joiner ----

function openKey({ key, server, rtc }) {
  // The n-th join line announces index n-1, which is its place in this list.
  const peers = [];
  const signaling = new Signaling(server, {
    opened() {
      signaling.send({ type: "open", key });
      byId("link").value = linkTo(key);
    },
    received(message) {
      // What a joiner sends always arrives with its index; the join line alone has none.
      if ("index" in message) peers[message.index]?.receive(message);
      else peers.push(expectJoiner(peers.length));
    },
  });
  return { signaling, peers };

  function expectJoiner(index) {
    return new Peer(`peer ${index}`, rtc, { signal: (message) => signaling.send({ ...message, index }) });
  }
}

// ---- The joiner: makes the offer, for it is the one who arrives ----

function joinKey({ key, server, rtc }) {
  const signaling = new Signaling(server, {
    opened() {
      signaling.send({ type: "join", key });
      opener.offer();
    },
    received: (message) => opener.receive(message),
  });
  const opener = new Peer("opener", rtc, {
    signal: (message) => signaling.send(message),
    connected: () => signaling.close("The channel is open: signaling is no longer needed."),
  });
  return { signaling, peers: [opener] };
}

// ---- The socket to the signaling server ----

class Signaling {
  #socket;
  #farewell;

  constructor(url, { opened, received }) {
    this.#socket = new WebSocket(url);
    showSocket("connecting", `to ${url}`);
    this.#socket.onopen = () => {
      showSocket("open", `to ${url}`);
      opened();
      showControls();
    };
    this.#socket.onmessage = ({ data }) => {
      showMessage("in", data);
      received(JSON.parse(data));
    };
    this.#socket.onclose = ({ code, reason }) => this.#closed(code, reason);
  }

  get state() {
    return ["connecting", "open", "closing", "closed"][this.#socket.readyState];
  }

  send(message) {
    // Candidates are still found after the channel is open; by then nobody needs them.
    if (this.state !== "open") return;
    const text = JSON.stringify(message);
    this.#socket.send(text);
    showMessage("out", text);
  }

  close(farewell) {
    if (this.state === "closed") return;
    this.#farewell = farewell;
    this.#socket.close(1000);
    showSocket("closing", "");
    showNote(farewell);
    showControls();
  }

  #closed(code, reason) {
    const words = this.#farewell ?? closeInWords(code);
    showSocket("closed", `with code ${code}${reason && ` "${reason}"`}. ${words}`);
    if (!this.#farewell) showTrouble(byId("socket").textContent);
    showControls();
  }
}

function closeInWords(code) {
  const words = {
    1000: "The server said goodbye.",
    1001: "The server is shutting down.",
    1006: "There was no connection, or it broke. Is a signaling server running at this address, and has it room?",
    1007: "The server could not read that. Is the key too long?",
    1008: {
      opener: "The server refuses: somebody has this key open already. Choose another.",
      joiner: "The server refuses: nobody has this key open, or not any more. Ask for a new link.",
    }[role],
    1009: "A message was too big for the server.",
    1013: "Too many have joined this key, or this browser reads too slowly. Try again later.",
    4001: "The opener is gone, or accepts nobody new.",
  };
  return words[code] ?? "The server objects to what this page sent.";
}

// ---- One connection to another browser ----

class Peer {
  #label;
  #connection;
  #channel;
  #signal;
  #connected;
  #row;
  #left = false;
  #markDescribed;
  // addIceCandidate is an error before setRemoteDescription: candidates that come early wait for this.
  #described = new Promise((resolve) => (this.#markDescribed = resolve));

  constructor(label, rtc, { signal, connected = () => {} }) {
    this.#label = label;
    this.#signal = signal;
    this.#connected = connected;
    this.#row = addPeerRow(label);
    this.#connection = new RTCPeerConnection(rtc);
    this.#connection.onicecandidate = ({ candidate }) => this.#signal({ candidate });
    this.#connection.oniceconnectionstatechange = () => this.#show();
    this.#connection.onconnectionstatechange = () => this.#connectionChanged();
    this.#connection.ondatachannel = ({ channel }) => this.#adopt(channel);
    this.#show();
  }

  offer() {
    this.#adopt(this.#connection.createDataChannel("chat"));
    return this.#describeSelf();
  }

  async receive(message) {
    try {
      if ("candidate" in message) await this.#addCandidate(message.candidate);
      else await this.#describeRemote(message);
    } catch (error) {
      if (!this.#left) showNote(`${this.#label} sent what this browser cannot use: ${error.message}`);
    }
  }

  get isOpen() {
    return this.#channel?.readyState === "open";
  }

  say(text) {
    if (this.isOpen) this.#channel.send(text);
  }

  close() {
    this.#left = true;
    this.#connection.close();
    this.#show();
  }

  async #describeSelf() {
    await this.#connection.setLocalDescription();
    this.#signal(this.#connection.localDescription.toJSON());
  }

  async #describeRemote(description) {
    await this.#connection.setRemoteDescription(description);
    this.#markDescribed();
    if (description.type === "offer") await this.#describeSelf();
  }

  async #addCandidate(candidate) {
    await this.#described;
    await this.#connection.addIceCandidate(candidate);
  }

  #adopt(channel) {
    this.#channel = channel;
    channel.onopen = () => this.#channelOpened();
    channel.onmessage = ({ data }) => showChat(this.#label, data);
    channel.onclose = () => this.#leave("left");
    this.#show();
  }

  #channelOpened() {
    showNote(`${this.#label} is connected`);
    this.#show();
    this.#connected();
  }

  #connectionChanged() {
    this.#show();
    if (this.#connection.connectionState !== "failed") return;
    this.#leave("cannot be reached: no path was found, or it broke. On another network you need a STUN or TURN server.");
  }

  #leave(how) {
    if (this.#left) return;
    this.close();
    showNote(`${this.#label} ${how}`);
  }

  #show() {
    showPeer(this.#row, [
      this.#connection.iceConnectionState,
      this.#connection.connectionState,
      this.#channel?.readyState ?? "none",
    ]);
    showControls();
  }
}

// ---- What is shown. Text of others goes in as text, never as markup ----

function showControls() {
  const socket = session.signaling?.state ?? "closed";
  const talking = session.peers.some((peer) => peer.isOpen);
  connectForm.firstElementChild.disabled = socket !== "closed" || talking;
  sayForm.firstElementChild.disabled = !talking;
  byId("invitation").hidden = socket !== "open";
  byId("stop").disabled = socket !== "open";
}

function clearView() {
  for (const id of ["trouble", "copied", "peers", "chat", "messages"]) byId(id).replaceChildren();
}

function showTrouble(text) {
  byId("trouble").textContent = `Signaling: ${text}`;
}

function showSocket(state, words) {
  const socket = byId("socket");
  socket.dataset.state = state;
  socket.replaceChildren(element("b", {}, state), ` ${words}`);
}

function showMessage(direction, text) {
  const message = JSON.parse(text);
  const way = { out: "\u2191 you \u2192 server", in: "\u2193 server \u2192 you" }[direction];
  const item = element("li", {},
    element("time", {}, clock.format()),
    element("span", { className: "way" }, way),
    ...explained(message, text));
  item.dataset.direction = direction;
  append(byId("messages"), item);
}

function explained(message, text) {
  const json = element("pre", {}, wrappable(text));
  const meaning = meaningOf(message);
  // Session descriptions are long: folded, they leave the course of events in sight.
  if ("sdp" in message) return [element("details", {}, element("summary", {}, meaning), json)];
  return [element("div", {}, meaning), json];
}

/** The text as it passed, but for a space after commas and a line break after each one that is written \r\n. */
function wrappable(json) {
  return json.replaceAll(',"', ', "').replaceAll("\\r\\n", "\\r\\n\n");
}

function meaningOf(message) {
  // The end of candidates is null, or a candidate without text: browsers differ.
  if ("candidate" in message) return message.candidate?.candidate ? "An address to try: a candidate" : "No more candidates";
  switch (message.type) {
    case "open": return "I want to own this key (no reply means yes)";
    case "join": return "key" in message ? "I want to meet whoever opened this key" : "Somebody joined: the next index is theirs";
    case "offer": return "What I can do: an offer";
    case "answer": return "Agreed: an answer";
    default: return "Something this page does not know";
  }
}

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

function addPeerRow(label) {
  const name = element("th", { scope: "row" }, label);
  const row = element("tr", {}, name, element("td"), element("td"), element("td"));
  byId("peers").append(row);
  return row;
}

function showPeer(row, states) {
  states.forEach((state, place) => {
    const cell = row.cells[place + 1];
    cell.textContent = cell.dataset.state = state;
  });
}

function showChat(from, text) {
  const line = element("li", {}, element("b", {}, from), element("span", {}, text));
  line.dataset.from = from;
  append(byId("chat"), line);
}

function showNote(text) {
  append(byId("chat"), element("li", { className: "note" }, text));
}

function append(list, item) {
  list.append(item);
  list.scrollTop = list.scrollHeight;
}

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

setUp();
