// The demo page: both sides of a chat over a data channel. sigver.js does the signaling.
// Order: page, session (one key), Peer (one connection to another browser), view.

import * as sigver from "./sigver.js";

const query = new URLSearchParams(location.search);
const hash = new URLSearchParams(location.hash.slice(1));
const isOpener = !hash.has("join");

/** Undefined until the form is submitted. `last`: the event that explains the state of the signaling. `problem`: what ended the session. */
let session;

const tokenName = (key) => `sigver token of ${key}`;
const byId = (id) => document.getElementById(id);
const connectForm = byId("connect");
const sendForm = byId("send");
const settings = byId("settings");

// ---- The page ----

function setUp() {
  document.body.dataset.role = isOpener ? "opener" : "joiner";
  const { key, server, ice } = connectForm.elements;
  key.value = hash.get("join") ?? hash.get("open") ?? "";
  key.required = !isOpener;
  server.value = query.get("server") ?? ownServer();
  ice.value = query.get("ice") ?? "";
  byId("share").hidden = !navigator.share;
  byId("local").hidden = !/^(localhost|127\.|\[::1\])/.test(location.hostname);

  connectForm.addEventListener("submit", start);
  // Browsers cannot report an invalid field that is folded away.
  connectForm.addEventListener("invalid", () => (settings.open = true), true);
  sendForm.addEventListener("submit", say);
  byId("copy").addEventListener("click", copyLink);
  // Rejects if the user closes the dialog.
  byId("share").addEventListener("click", () => navigator.share({ url: byId("link").value }).catch(() => {}));
  for (const id of ["stop", "give-up"]) byId(id).addEventListener("click", () => session.signaling.close());
  addEventListener("hashchange", () => location.reload());
  // Otherwise the peers would notice only after a timeout that this page was closed.
  addEventListener("pagehide", closePeers);
  addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
  if (hash.has("join") || hash.has("open")) connectForm.requestSubmit();
}

function ownServer() {
  const scheme = { "http:": "ws:", "https:": "wss:" }[location.protocol];
  // The folder of the page: behind a reverse proxy, the server may be below a path.
  const folder = new URL(".", location).pathname.replace(/\/$/, "");
  return scheme ? `${scheme}//${location.host}${folder}` : "ws://localhost:8000";
}

function start(event) {
  event.preventDefault();
  closePeers();
  session?.signaling?.close();
  for (const id of ["copied", "peers", "chat", "messages"]) byId(id).replaceChildren();
  settings.open = false;
  const { key, server, ice } = Object.fromEntries(new FormData(connectForm));
  try {
    session = begin(key, server, { iceServers: ice ? [{ urls: ice }] : [] });
    // The button disappears.
    if (event.submitter && isOpener) session.signaling.once("opened", () => byId("copy").focus());
  } catch ({ message }) {
    session = { peers: [], problem: `Cannot start: ${message}` };
  }
  render();
}

function closePeers() {
  [...(session?.peers ?? [])].forEach((peer) => peer.leave());
}

function say(event) {
  event.preventDefault();
  const { text } = sendForm.elements;
  session.peers.forEach((peer) => peer.send(text.value));
  showChat("you", text.value);
  text.value = "";
}

function linkTo(key) {
  const { server, ice } = connectForm.elements;
  const link = new URL(location.pathname, location.href);
  if (server.value !== ownServer()) link.searchParams.set("server", server.value);
  if (ice.value) link.searchParams.set("ice", ice.value);
  link.hash = new URLSearchParams({ join: key });
  return link.href;
}

async function copyLink() {
  const link = byId("link");
  link.select();
  // Browsers have the clipboard API only on https and localhost.
  const copied = await navigator.clipboard?.writeText(link.value).then(() => true, () => false) || document.execCommand("copy");
  byId("copied").textContent = copied ? "Copied." : "Selected: copy it with your browser.";
}

// ---- The session ----

function begin(key, server, rtc) {
  // Throws here if an address is invalid, before anybody joins.
  new RTCPeerConnection(rtc).close();
  const { host } = new URL(server);
  const dialect = query.get("dialect") ?? undefined;
  const signaling = isOpener
    ? sigver.open(server, key || undefined, { dialect, takeoverToken: sessionStorage.getItem(tokenName(key)) })
    // The opener may be reloading its page.
    : sigver.join(server, key, { dialect, wait: 5 });
  const self = { signaling, peers: [], host, rtc, count: 0, last: undefined, problem: undefined };

  signaling.on("message", ({ direction, text }) => showMessage(direction, text, parsed(text)));
  signaling.on("opened", ({ key }) => {
    // After a reload, this tab takes its key over, which no other page can.
    if (signaling.takeoverToken) sessionStorage.setItem(tokenName(key), signaling.takeoverToken);
    connectForm.elements.key.value = key;
    byId("link").value = byId("try").href = linkTo(key);
    history.replaceState(null, "", `#${new URLSearchParams({ open: key })}`);
  });
  signaling.on("join", ({ peer }) => {
    // The key has another opener, so connections to the former one are obsolete.
    if (!isOpener) closePeers();
    self.peers.push(new Peer(self, peer));
  });
  signaling.on("error", ({ code, message }) => {
    // `closed` follows these two.
    if (code !== "unreachable" && code !== "rejected") showNote(`Signaling error: ${message}`);
  });
  signaling.on("closed", ({ code }) => {
    self.peers.filter((peer) => !peer.isOpen).forEach((peer) => peer.leave());
    if (code === "key-taken") settings.open = true;
  });
  for (const type of ["opened", "joined", "join", "waiting", "reconnecting", "closed"]) {
    signaling.on(type, (event) => {
      self.last = event;
      render();
    });
  }
  return self;
}

/** Returns the kind of the state, and the state in one line. */
function describe({ signaling, peers, host, last, problem }) {
  if (problem) return ["bad", problem];
  const { state } = signaling;
  const end = ENDS[last?.code];
  const open = peers.filter((peer) => peer.isOpen);
  if (open.length > 0) {
    if (open.every((peer) => peer.isInterrupted)) return ["busy", "The connection is interrupted. Trying to restore it…"];
    const connected = open.length > 1 ? `Connected to ${open.length} people.` : "Connected.";
    // Joiners do not need signaling any more.
    if (!isOpener || state === "open") return ["good", connected];
    if (state === "reconnecting") return ["good", `${connected} Reconnecting to the server. The chat goes on.`];
    return ["good", `${connected} ${end ?? "Nobody else can join."}`];
  }
  if (state === "closing" || state === "closed") {
    if (last?.code === "refused") return ["bad", `The server rejected the request: ${last.reason.replaceAll("`", "")}.`];
    return end ? ["bad", end] : ["off", isOpener ? "Stopped. Nobody can join." : "Stopped."];
  }
  if (peers.some((peer) => !peer.isHidden)) return ["busy", "Connecting to the other browser…"];
  if (state === "open" && isOpener) return ["busy", "Waiting for someone to join…"];
  const isAlone = state === "open" || last?.type === "waiting" || ["opener-left", "unknown-key"].includes(last?.code);
  if (isAlone) return ["busy", signaling.role ? "The opener has left. Waiting for it to return…" : "Nobody has this key open. Waiting for the opener…"];
  if (state === "connecting") return ["busy", `Connecting to ${host}…`];
  return ["bad", `${last.code === "key-taken" ? "The server still holds the key for the lost connection." : end} Trying again…`];
}

const ENDS = {
  lost: "The signaling server cannot be reached.",
  unreachable: "No signaling server answers at this address, or it does not accept this page.",
  rejected: "The signaling server does not accept this page.",
  "key-taken": "Somebody else has this key open. Choose another key.",
  "unknown-key": "Nobody has this key open. Ask for a new link.",
  "too-many-joiners": "Too many people have joined this key.",
  "too-many-attempts": "Too many keys were tried from your address.",
  "opener-left": "The opener has left.",
  kicked: "The opener has removed you.",
  "not-allowed": "The signaling server does not allow you to use this key.",
  "token-expired": "Your access to the signaling server has expired.",
  "taken-over": "This key is open in another tab now.",
  refused: "The signaling server rejected a message from this page.",
};

// ---- One connection to another browser ----

class Peer {
  #session;
  #peer;
  #label;
  #connection;
  #channel;
  #row;
  #wasOpen = false;

  constructor(session, peer) {
    this.#session = session;
    this.#peer = peer;
    this.#label = isOpener ? `peer ${session.count++}` : "opener";
    this.#row = addPeerRow(this.#label, () => {
      session.signaling.kick(peer);
      this.leave("was kicked");
    });
    this.#connection = new RTCPeerConnection({ iceServers: [...session.rtc.iceServers, ...peer.iceServers] });
    this.#connection.oniceconnectionstatechange = () => this.#update();
    this.#connection.onconnectionstatechange = () => this.#update();
    this.#connection.ondatachannel = ({ channel }) => this.#adopt(channel);
    sigver.negotiate(this.#connection, peer, {
      onerror: (error) => showNote(`Invalid signaling data from ${this.#label}: ${error.message}`),
      onend: () => this.leave(this.#wasOpen && "left"),
    });
    peer.on("away", () => this.#update());
    peer.on("back", () => this.#update());
    peer.on("leave", () => this.isOpen || this.leave());
    // The joiner creates the channel, so it sends the offer.
    if (!isOpener) this.#adopt(this.#connection.createDataChannel("chat"));
    this.#update();
  }

  get isOpen() {
    return this.#channel?.readyState === "open";
  }

  get isInterrupted() {
    return ["disconnected", "failed"].includes(this.#connection.iceConnectionState);
  }

  /** A peer that left the server before it was connected may be back soon. */
  get isHidden() {
    return this.#peer.away && !this.isOpen;
  }

  send(text) {
    if (this.isOpen) this.#channel.send(text);
  }

  /** Ends the connection. `how` is shown in the chat. */
  leave(how) {
    const { peers } = this.#session;
    if (!peers.includes(this)) return;
    peers.splice(peers.indexOf(this), 1);
    this.#connection.close();
    this.#row.remove();
    if (how) showNote(`${this.#label} ${how}`);
    render();
  }

  #adopt(channel) {
    this.#channel = channel;
    // A channel created by the other side may be open already, and Chromium then does not always emit `open`.
    if (channel.readyState === "open") queueMicrotask(() => this.#opened());
    else channel.onopen = () => this.#opened();
    channel.onmessage = ({ data }) => showChat(this.#label, data);
    channel.onclose = () => this.leave("left");
  }

  #opened() {
    this.#wasOpen = true;
    showNote(`${this.#label} is connected`);
    this.#update();
  }

  #update() {
    if (this.#connection.connectionState === "failed") this.#failed();
    const away = this.isOpen ? "left (not needed)" : "left";
    showPeer(this.#row, this.isHidden, [
      this.#peer.away ? away : "connected", this.#connection.iceConnectionState, this.#channel?.readyState ?? "none",
    ]);
    render();
  }

  #failed() {
    // `negotiate` restarts ICE, or calls `onend`.
    if (this.#wasOpen) return;
    this.leave("cannot be reached. Browsers on different networks need a STUN or TURN server.");
    if (isOpener) return;
    this.#session.problem = "The opener cannot be reached. Browsers on different networks need a STUN or TURN server.";
    this.#session.signaling.close();
  }
}

// ---- View. Data from peers is inserted as text, never as markup ----

function render() {
  const { signaling, peers, host, last, problem } = session;
  const state = signaling?.state ?? "closed";
  const talking = peers.some((peer) => peer.isOpen);
  const ended = Boolean(problem) || (state === "closed" && !talking);
  document.body.dataset.stage = ended ? "ended" : "live";

  const [kind, words] = describe(session);
  byId("state").dataset.state = kind;
  show("alert", kind === "bad" ? words : "");
  show("status", kind === "bad" ? "" : words);
  show("begin", !ended ? "Start over" : isOpener ? "Open the key again" : "Try again");
  const key = connectForm.elements.key.value;
  show("summary", `${key ? `Key ${key.length > 16 ? `${key.slice(0, 8)}…` : key}` : "New key"}${host ? ` on ${host}` : ""}`);

  sendForm.firstElementChild.disabled = !talking;
  byId("talk").hidden = ended && byId("chat").childElementCount === 0;
  byId("invitation").hidden = !isOpener || !signaling?.role || state === "closed";
  byId("give-up").hidden = isOpener || ended || talking || (state !== "reconnecting" && last?.type !== "waiting");
}

/** Screen readers announce each change, so the same text is not inserted again. */
function show(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

function showMessage(direction, text, message) {
  const way = { out: "\u2191 ", in: "\u2193 " }[direction];
  const summary = element("summary", {}, element("time", {}, clock.format()), way, meaningOf(message));
  const wrappable = text.replaceAll(',"', ', "').replaceAll("\\r\\n", "\\r\\n\n");
  // Descriptions and candidates are long, so they are collapsed.
  append(byId("messages"), element("li", {}, element("details", { open: text.length < 150 }, summary, element("pre", {}, wrappable))));
}

function parsed(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

function meaningOf(message) {
  const { type, index } = message;
  switch (type) {
    case "open": return message.key === undefined ? "Request a new key" : "Open this key";
    case "opened": return "Key opened";
    case "join": return "key" in message ? "Join this key" : index === undefined ? "A peer joined with the next index" : `Peer ${index} joined`;
    case "joined": return `Joined as peer ${index}`;
    case "waiting": return `Wait for the opener, at most ${message.wait} s`;
    case "ping":
    case "pong": return "Check of the connection";
    case "leave": return `Peer ${index} left the server`;
    case "kick": return `Kick peer ${index}`;
    case "reopened": return "The opener is back on another connection";
    case "closed": return ENDS[message.code] ?? message.code;
    case "error": return `Error: ${message.code}`;
    case "offer": return "SDP offer";
    case "answer": return "SDP answer";
    case "send":
    case "data": return meaningOf(Object(message.data)) + (index === undefined ? "" : `, ${type === "send" ? "to" : "from"} peer ${index}`);
  }
  if (!("candidate" in message)) return "Unknown message";
  // The end of candidates is null or an empty candidate, depending on the browser.
  return message.candidate?.candidate ? "ICE candidate" : "End of ICE candidates";
}

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

function addPeerRow(label, onclick) {
  const kick = isOpener ? [element("button", { type: "button", className: "secondary small", onclick }, "Kick")] : [];
  const row = element("tr", {},
    element("th", { scope: "row" }, label), element("td"), element("td"), element("td"), element("td", {}, ...kick));
  byId("peers").append(row);
  return row;
}

function showPeer(row, hidden, states) {
  row.hidden = hidden;
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

/** Keeps the end of the list in view, unless the reader has scrolled back. */
function append(list, item) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 50;
  list.append(item);
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

setUp();
