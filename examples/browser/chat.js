// Both sides of a chat over a data channel. sigver.js does the signaling; what is here is the page.
// Top-down: the page, the key, Peer (one connection to another browser), and what is shown.

import { join, negotiate, open } from "./sigver.js";

const query = new URLSearchParams(location.search);
const invitation = new URLSearchParams(location.hash.slice(1)).get("join");
const role = invitation === null ? "opener" : "joiner";
let session = { peers: [] };

const byId = (id) => document.getElementById(id);
const connectForm = byId("connect");
const sayForm = byId("say");

// ---- The page ----

function setUp() {
  document.body.dataset.role = role;
  document.body.dataset.dialect = query.get("dialect") ?? "v1";
  fillIn(connectForm.elements);
  connectForm.addEventListener("submit", onConnect);
  sayForm.addEventListener("submit", onSay);
  byId("copy").addEventListener("click", copyLink);
  byId("stop").addEventListener("click", stop);
  addEventListener("hashchange", () => location.reload());
  // Else the others would learn only from a timeout that this page is gone.
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
  // The page's folder: behind a proxy the server may be below a path.
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

function stop() {
  endSignaling({
    opener: "Nobody new can join. Open chats go on: they do not need signaling.",
    joiner: "This page does not try any longer.",
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
    // Browsers give the clipboard to https and localhost only.
    byId("copied").textContent = "Selected: copy it with your browser.";
  }
}

// ---- The key: opened or joined, it brings peers ----

function begin(key, server, rtc) {
  const options = { dialect: query.get("dialect") ?? undefined };
  const signaling = role === "opener" ? open(server, key || undefined, options) : join(server, key, options);
  const peers = [];
  showSocket("connecting", `to ${server}`);

  signaling.on("message", ({ direction, text }) => showMessage(direction, text));
  signaling.on("opened", ({ key }) => {
    connectForm.elements.key.value = key;
    byId("link").value = linkTo(key);
    connected();
  });
  signaling.on("join", ({ peer }) => {
    if (role === "opener") {
      showNote(`peer ${peer.index} has come`);
    } else {
      // It came back to an opener with which it had got nowhere.
      peers.splice(0).forEach((former) => former.close());
      connected();
    }
    peers.push(new Peer(signaling, peer, rtc));
  });
  signaling.on("error", ({ code, message }) => {
    // Who has just left may be sent something still.
    if (code !== "unknown-index") showNote(`The server and this page do not understand each other: ${message}`);
  });
  signaling.on("reconnecting", (end) => showEnd("reconnecting", "after", `${AGAIN[end.code] ?? ENDS[end.code]} ${nextTry(end)}`, end));
  signaling.on("closed", (end) => showEnd("closed", "with", session.farewell ?? ENDS[end.code], end));
  return { signaling, peers };

  function connected() {
    document.body.dataset.dialect = signaling.dialect;
    byId("trouble").replaceChildren();
    showSocket("open", `to ${server}`);
    showControls();
  }
}

const ENDS = {
  lost: "There was no connection, or it broke. Is a signaling server running at this address, and has it room?",
  "key-taken": "The server refuses: somebody has this key open already. Choose another.",
  "unknown-key": "The server refuses: nobody has this key open, or not any more. Ask for a new link.",
  "too-many-joiners": "The server refuses: too many have joined this key.",
  "opener-left": "The opener is gone, or accepts nobody new.",
  kicked: "The opener has sent you away.",
  refused: "The server objects to what this page sent.",
};

/** What it means to somebody who had the key. */
const AGAIN = {
  "key-taken": "The server has not noticed yet that this page was gone, and takes its key for taken.",
  "unknown-key": ENDS["opener-left"],
};

function nextTry({ delay }) {
  return `The next try is in ${Math.ceil(delay / 1000)} s.`;
}

// ---- One connection to another browser ----

class Peer {
  #label;
  #connection;
  #channel;
  #row;
  #atServer = true;
  #left = false;

  constructor(signaling, peer, rtc) {
    this.#label = role === "opener" ? `peer ${peer.index}` : "opener";
    this.#row = addPeerRow(this.#label, () => {
      // The plain protocol cannot send anybody away from the server.
      if (signaling.dialect === "v1") signaling.kick(peer);
      this.#leave("was sent away");
    });
    this.#connection = new RTCPeerConnection(rtc);
    this.#connection.oniceconnectionstatechange = () => this.#show();
    this.#connection.onconnectionstatechange = () => this.#connectionChanged();
    this.#connection.ondatachannel = ({ channel }) => this.#adopt(channel);
    negotiate(this.#connection, peer, {
      onerror: (error) => showNote(`${this.#label} sent what this browser cannot use: ${error.message}`),
    });
    peer.on("leave", () => this.#leftServer());
    // The joiner makes the channel, and so the offer, for it is the one who arrives.
    if (role === "joiner") this.#adopt(this.#connection.createDataChannel("chat"));
    this.#show();
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

  #adopt(channel) {
    this.#channel = channel;
    // One that the other side has made may be open already, and Chromium then does not always say so.
    if (channel.readyState === "open") queueMicrotask(() => this.#channelOpened());
    else channel.onopen = () => this.#channelOpened();
    channel.onmessage = ({ data }) => showChat(this.#label, data);
    channel.onclose = () => this.#leave("left");
    this.#show();
  }

  #channelOpened() {
    showNote(`${this.#label} is connected`);
    this.#show();
    if (role === "joiner") endSignaling("The channel is open: signaling is no longer needed.");
  }

  #leftServer() {
    this.#atServer = false;
    // Without an offer nothing can come of it; with one the browsers may find each other without the server. The connection's state says
    // less: it lags behind, and a joiner leaves as soon as its channel is open.
    if (role === "opener" && !this.#connection.remoteDescription) this.#leave("is gone, and was never connected");
    this.#show();
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
      this.#atServer ? "here" : "gone",
      this.#connection.iceConnectionState,
      this.#connection.connectionState,
      this.#channel?.readyState ?? "none",
    ], this.#left);
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
  byId("stop").disabled = socket !== "open" && socket !== "reconnecting";
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

function showEnd(state, preposition, words, { code, status, reason }) {
  const exactly = `${status ? `code ${status}` : code}${reason && ` "${reason}"`}`;
  showSocket(state, `${preposition} ${exactly}. ${words}`);
  if (code !== "done") showTrouble(byId("socket").textContent);
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
  // Session descriptions are long: folded, they leave the course of events in sight.
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

/** The text as it passed, but for a space after commas and a line break after each one that is written \r\n. */
function wrappable(json) {
  return json.replaceAll(',"', ', "').replaceAll("\\r\\n", "\\r\\n\n");
}

function meaningOf(message) {
  switch (message.type) {
    case "open": return wish(message);
    case "opened": return "The key is yours";
    case "join": return "key" in message ? "I want to meet whoever opened this key" : arrival(message);
    case "joined": return `You have joined: the opener knows you as peer ${message.index}`;
    case "leave": return `Peer ${message.index} is gone from the server`;
    case "kick": return `Send peer ${message.index} away`;
    case "closed": return ENDS[message.code];
    case "error": return `That was not done: ${message.message}`;
    case "offer": return "What I can do: an offer";
    case "answer": return "Agreed: an answer";
    case "send":
    case "data": return meaningOf(Object(message.data)) + envelope(message);
  }
  if (!("candidate" in message)) return "Something this page does not know";
  // The end of candidates is null, or a candidate without text: browsers differ.
  return message.candidate?.candidate ? "An address to try: a candidate" : "No more candidates";
}

function wish({ key }) {
  if (key === undefined) return "I want to own a key: make me one";
  return document.body.dataset.dialect === "plain" ? "I want to own this key (no reply means yes)" : "I want to own this key";
}

function arrival({ index }) {
  return index === undefined ? "Somebody joined: the next index is theirs" : `Somebody joined: peer ${index}`;
}

function envelope({ type, index }) {
  return index === undefined ? "" : `, ${type === "send" ? "to" : "from"} peer ${index}`;
}

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

function addPeerRow(label, sendAway) {
  const button = element("button", { type: "button", onclick: sendAway }, "Send away");
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
