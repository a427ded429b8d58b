// The demo page: both sides of a chat over a data channel. sigver.js does the signaling.
// Order: page, key, Peer (one connection to another browser), view.

import * as sigver from "./sigver.js";

const query = new URLSearchParams(location.search);
const invitation = new URLSearchParams(location.hash.slice(1)).get("join");
const role = invitation === null ? "opener" : "joiner";
let session = { peers: [] };

const byId = (id) => document.getElementById(id);
const connectForm = byId("connect");
const sendForm = byId("send");

// ---- The page ----

function setUp() {
  document.body.dataset.role = role;
  document.body.dataset.dialect = query.get("dialect") ?? "v1";
  fillIn(connectForm.elements);
  connectForm.addEventListener("submit", onConnect);
  sendForm.addEventListener("submit", onSend);
  byId("copy").addEventListener("click", copyLink);
  byId("stop").addEventListener("click", stop);
  addEventListener("hashchange", () => location.reload());
  // Otherwise the peers would notice only after a timeout that this page was closed.
  addEventListener("pagehide", closePeers);
  if (role === "joiner") connectForm.requestSubmit();
}

function fillIn({ key, server, ice }) {
  key.value = invitation ?? "";
  key.required = role === "joiner";
  server.value = query.get("server") ?? ownServer();
  ice.value = query.get("ice") ?? "";
}

function ownServer() {
  const scheme = { "http:": "ws:", "https:": "wss:" }[location.protocol];
  // The folder of the page: behind a reverse proxy, the server may be below a path.
  const folder = new URL(".", location).pathname.replace(/\/$/, "");
  return scheme ? `${scheme}//${location.host}${folder}` : "ws://localhost:8000";
}

function onConnect(event) {
  event.preventDefault();
  const { key, server, ice } = Object.fromEntries(new FormData(connectForm));
  closePeers();
  clearView();
  try {
    session = begin(key, server, rtcConfiguration(ice));
  } catch (error) {
    showAlert(error.message);
  }
  showControls();
}

function rtcConfiguration(ice) {
  const configuration = { iceServers: ice ? [{ urls: ice }] : [] };
  // Throws here if the address is invalid, before anybody joins.
  new RTCPeerConnection(configuration).close();
  return configuration;
}

function onSend(event) {
  event.preventDefault();
  const { text } = sendForm.elements;
  session.peers.forEach((peer) => peer.send(text.value));
  showChat("you", text.value);
  text.value = "";
}

function closePeers() {
  session.peers.forEach((peer) => peer.close());
}

function stop() {
  endSignaling({
    opener: "No more joiners are accepted. Open chats continue without signaling.",
    joiner: "This page no longer retries.",
  }[role]);
}

function endSignaling(farewell) {
  session.farewell = farewell;
  showNote(farewell);
  session.signaling.close();
  showControls();
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
    // Browsers allow clipboard access only on https and localhost.
    byId("copied").textContent = "Selected: copy it with your browser.";
  }
}

// ---- The key ----

function begin(key, server, rtc) {
  const options = { dialect: query.get("dialect") ?? undefined };
  const signaling = role === "opener" ? sigver.open(server, key || undefined, options) : sigver.join(server, key, options);
  const peers = [];
  showSocket("connecting", `to ${server}`);

  signaling.on("message", ({ direction, text }) => showMessage(direction, text));
  signaling.on("opened", ({ key }) => {
    connectForm.elements.key.value = key;
    byId("link").value = linkTo(key);
    connected();
  });
  signaling.on("joined", connected);
  signaling.on("join", ({ peer }) => {
    if (role === "opener") showNote(`peer ${peer.index} joined`);
    // Another opener, so connections to the former one are obsolete.
    else peers.splice(0).forEach((former) => former.close());
    peers.push(new Peer(signaling, peer, rtc));
  });
  signaling.on("error", ({ code, message }) => {
    // `closed` follows these two.
    if (code !== "unreachable" && code !== "rejected") showNote(`Signaling error: ${message}`);
  });
  signaling.on("reconnecting", (end) => showEnd("reconnecting", "after", `${RETRY_REASONS[end.code] ?? ENDS[end.code]} ${nextTry(end)}`, end));
  signaling.on("closed", (end) => showEnd("closed", "with", session.farewell ?? ENDS[end.code], end));
  return { signaling, peers };

  function connected() {
    document.body.dataset.dialect = signaling.dialect;
    byId("alert").replaceChildren();
    showSocket("open", `to ${server}`);
    showControls();
  }
}

const ENDS = {
  lost: "The connection failed or was lost. Is a signaling server running at this address, and below its connection limit?",
  unreachable: "No signaling server answers at this address, or it does not accept this page.",
  rejected: "The signaling server does not accept this page.",
  "key-taken": "This key is already open. Choose another key.",
  "unknown-key": "Nobody has this key open. Ask for a new link.",
  "too-many-joiners": "This key has too many joiners.",
  "too-many-attempts": "Your address has tried too many keys.",
  "opener-left": "The opener left, or no longer accepts joiners.",
  kicked: "The opener has kicked you.",
  "not-allowed": "The signaling server does not allow you to use this key.",
  "token-expired": "Your access to the signaling server has expired.",
  "taken-over": "Another page has taken this key over.",
  refused: "The server rejected a message from this page.",
};

/** The meaning of refusals for a client that has had the key. */
const RETRY_REASONS = {
  "key-taken": "The server has not yet detected that the previous connection was lost, and still holds its key.",
  "unknown-key": ENDS["opener-left"],
};

function nextTry({ delay }) {
  return `Next attempt in ${Math.ceil(delay / 1000)} s.`;
}

// ---- One connection to another browser ----

class Peer {
  #label;
  #connection;
  #channel;
  #row;
  #isAway = false;
  #left = false;

  constructor(signaling, peer, rtc) {
    this.#label = role === "opener" ? `peer ${peer.index}` : "opener";
    this.#row = addPeerRow(this.#label, () => {
      // The plain dialect has no kick.
      signaling.kick(peer);
      this.#leave("was kicked");
    });
    this.#connection = new RTCPeerConnection(rtc);
    this.#connection.oniceconnectionstatechange = () => this.#show();
    this.#connection.onconnectionstatechange = () => this.#connectionChanged();
    this.#connection.ondatachannel = ({ channel }) => this.#adopt(channel);
    sigver.negotiate(this.#connection, peer, {
      onerror: (error) => showNote(`invalid signaling data from ${this.#label}: ${error.message}`),
    });
    peer.on("away", () => this.#leftServer());
    peer.on("back", () => {
      this.#isAway = false;
      this.#show();
    });
    // The joiner creates the channel, so it sends the offer.
    if (role === "joiner") this.#adopt(this.#connection.createDataChannel("chat"));
    this.#show();
  }

  get isOpen() {
    return this.#channel?.readyState === "open";
  }

  send(text) {
    if (this.isOpen) this.#channel.send(text);
  }

  close() {
    this.#left = true;
    this.#connection.close();
    this.#show();
  }

  #adopt(channel) {
    this.#channel = channel;
    // A channel created by the other side may be open already, and Chromium then does not always emit `open`.
    if (channel.readyState === "open") queueMicrotask(() => this.#channelOpened());
    else channel.onopen = () => this.#channelOpened();
    channel.onmessage = ({ data }) => showChat(this.#label, data);
    channel.onclose = () => this.#leave("left");
    this.#show();
  }

  #channelOpened() {
    showNote(`${this.#label} is connected`);
    this.#show();
    if (role === "joiner") endSignaling("The channel is open. Signaling is no longer needed.");
  }

  #leftServer() {
    this.#isAway = true;
    // Without an offer, the browsers cannot connect. With one, they may still connect without the server. `connectionState` is no indication:
    // it lags behind, and a joiner disconnects from the server as soon as its channel is open.
    if (role === "opener" && session.signaling.state === "open" && !this.#connection.remoteDescription) this.#leave("left before it was connected");
    this.#show();
  }

  #connectionChanged() {
    this.#show();
    if (this.#connection.connectionState !== "failed") return;
    this.#leave("cannot be reached. Browsers on different networks need a STUN or TURN server.");
  }

  #leave(how) {
    if (this.#left) return;
    this.close();
    showNote(`${this.#label} ${how}`);
  }

  #show() {
    showPeer(this.#row, [
      this.#isAway ? "left" : "connected",
      this.#connection.iceConnectionState,
      this.#connection.connectionState,
      this.#channel?.readyState ?? "none",
    ], this.#left);
    showControls();
  }
}

// ---- View. Data from peers is inserted as text, never as markup ----

function showControls() {
  const socket = session.signaling?.state ?? "closed";
  const talking = session.peers.some((peer) => peer.isOpen);
  connectForm.firstElementChild.disabled = socket !== "closed" || talking;
  sendForm.firstElementChild.disabled = !talking;
  byId("invitation").hidden = socket !== "open";
  byId("stop").disabled = socket !== "open" && socket !== "reconnecting";
}

function clearView() {
  for (const id of ["alert", "copied", "peers", "chat", "messages"]) byId(id).replaceChildren();
}

function showAlert(text) {
  byId("alert").textContent = `Signaling: ${text}`;
}

function showSocket(state, words) {
  const socket = byId("socket");
  socket.dataset.state = state;
  socket.replaceChildren(element("b", {}, state), ` ${words}`);
}

function showEnd(state, preposition, words, { code, status, reason }) {
  const exactly = `${status ? `code ${status}` : code}${reason && ` "${reason}"`}`;
  showSocket(state, `${preposition} ${exactly}. ${words}`);
  if (code !== "done") showAlert(byId("socket").textContent);
  showControls();
}

function showMessage(direction, text) {
  const way = { out: "\u2191 you \u2192 server", in: "\u2193 server \u2192 you" }[direction];
  const item = element("li", {},
    element("time", {}, clock.format()),
    element("span", { className: "way" }, way),
    ...explained(text));
  item.dataset.direction = direction;
  append(byId("messages"), item);
}

function explained(text) {
  const message = parsed(text);
  const json = element("pre", {}, wrappable(text));
  // Session descriptions are long, so they are collapsed.
  if ("sdp" in Object(message.data ?? message)) {
    return [element("details", {}, element("summary", {}, meaningOf(message)), json)];
  }
  return [element("div", {}, meaningOf(message)), json];
}

function parsed(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

/** Returns the text with a space after commas and a line break after each escaped one, so that it wraps. */
function wrappable(json) {
  return json.replaceAll(',"', ', "').replaceAll("\\r\\n", "\\r\\n\n");
}

function meaningOf(message) {
  switch (message.type) {
    case "open": return describeOpen(message);
    case "opened": return "Key opened";
    case "join": return "key" in message ? "Join this key" : describeJoin(message);
    case "joined": return `Joined as peer ${message.index}`;
    case "waiting": return `Waiting for the opener, at most ${message.wait} s`;
    case "ping": return "Is the connection alive?";
    case "pong": return "The connection is alive";
    case "leave": return `Peer ${message.index} left the server`;
    case "kick": return `Kick peer ${message.index}`;
    case "reopened": return "The opener is back on another connection";
    case "closed": return ENDS[message.code] ?? message.code;
    case "error": return `Error: ${message.message}`;
    case "offer": return "SDP offer";
    case "answer": return "SDP answer";
    case "send":
    case "data": return meaningOf(Object(message.data)) + envelope(message);
  }
  if (!("candidate" in message)) return "Unknown message";
  // The end of candidates is null or an empty candidate, depending on the browser.
  return message.candidate?.candidate ? "ICE candidate" : "End of ICE candidates";
}

function describeOpen({ key }) {
  if (key === undefined) return "Request a new key";
  return document.body.dataset.dialect === "plain" ? "Open this key (no reply if accepted)" : "Open this key";
}

function describeJoin({ index }) {
  return index === undefined ? "A peer joined with the next index" : `Peer ${index} joined`;
}

function envelope({ type, index }) {
  return index === undefined ? "" : `, ${type === "send" ? "to" : "from"} peer ${index}`;
}

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

function addPeerRow(label, kick) {
  const button = element("button", { type: "button", onclick: kick }, "Kick");
  const row = element("tr", {},
    element("th", { scope: "row" }, label),
    element("td"), element("td"), element("td"), element("td"),
    element("td", { className: "for-opener" }, button));
  byId("peers").append(row);
  return row;
}

function showPeer(row, states, isOver) {
  states.forEach((state, place) => {
    const cell = row.cells[place + 1];
    cell.textContent = cell.dataset.state = state;
  });
  row.querySelector("button").disabled = isOver;
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
