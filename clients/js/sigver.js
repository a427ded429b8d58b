// A client of sigver for both dialects, with perfect negotiation. sigver.d.ts documents the exports.
// Order: exports, negotiate, Signaling (one role on one key, with reconnects), dialects, sealing, events.

/**
 * @import {
 *   Backoff, Channel, ClientMessage, Dialect, EndCode, End, Emits, IceServer, JoinOptions, Peer, PeerEvents, ServerMessage, SignalingErrorEvent,
 *   SignalingEvents, State,
 * } from "./sigver.js"
 * @typedef {typeof v1} Wire
 * @typedef {{ index?: number, id?: string, ice?: { servers: IceServer[] } }} Arrival
 */

/** @type {typeof import("./sigver.js").open} */
export function open(url, key, options) {
  return new Signaling("open", url, key, options);
}

/** @type {typeof import("./sigver.js").join} */
export function join(url, key, options) {
  if (key === undefined) throw new TypeError("join requires a key");
  return /** @type {any} */ (new Signaling("join", url, key, options));
}

/** @type {typeof import("./sigver.js").meet} */
export function meet(url, key, options) {
  if (key === undefined) throw new TypeError("meet requires a key");
  return /** @type {any} */ (new Signaling("meet", url, key, options));
}

// ---- Negotiation ----

// Variables are named as in the WebRTC specification, section "Perfect negotiation example".
/** @type {typeof import("./sigver.js").negotiate} */
export function negotiate(connection, firstPeer, { onerror = console.error, onend } = {}) {
  const pc = /** @type {RTCPeerConnection} */ (connection);
  let makingOffer = false;
  let ignoreOffer = false;
  /** What was received is handled in order, one after another. @type {Promise<void>} */
  let queue = Promise.resolve();
  /** Counts the connections of the channel. An offer of an earlier one is not answered, because the other side sends it again. */
  let round = 0;
  /** @type {RTCIceCandidateInit[]} */
  const early = [];
  /** @type {Channel} */
  let channel;
  /** @type {unknown[]} */
  let unsubscribe = [];
  /** Where everything goes that is received after the peer has started over. @type {((data: unknown) => void) | undefined} */
  let successor;
  let hasLeft = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let givingUp;
  const ownIceServers = iceServersOf(pc);
  const firstCandidate = new Promise((resolve) => pc.addEventListener("icecandidate", resolve, { once: true }));

  /** @type {[string, (event: any) => void][]} */
  const listeners = [
    ["negotiationneeded", guarded(offer)],
    ["icecandidate", guarded(({ candidate }) => void channel.send({ candidate: candidate && candidate.toJSON() }))],
    ["iceconnectionstatechange", restartFailedIce],
    ["connectionstatechange", considerEnd],
  ];
  for (const [type, listener] of listeners) pc.addEventListener(type, listener);
  listenTo(firstPeer);
  return { stop, attach };

  function stop() {
    for (const [type, listener] of listeners) pc.removeEventListener(type, listener);
    ignore();
  }

  /** @param {Channel} peer */
  function attach(peer) {
    ignore();
    listenTo(peer);
    resume();
  }

  /** @param {Channel} peer */
  function listenTo(peer) {
    channel = peer;
    hasLeft = false;
    unsubscribe = [
      channel.on("back", resume),
      channel.on("back", considerEnd),
      channel.on("away", considerEnd),
      channel.on("leave", () => {
        hasLeft = true;
        considerEnd();
      }),
      channel.on("data", ({ data }) => {
        const receivedIn = round;
        return enqueue(() => {
          if (successor) return successor(data);
          if (!isObject(data)) return;
          const description = isObject(data.sdp) ? data.sdp : data;
          const isDescription = "sdp" in description;
          if (isDescription && isOfAnother(description)) return startOver(data);
          if (pc.signalingState === "closed") return;
          if (isDescription) return applyDescription(/** @type {any} */ (description), receivedIn);
          if ("candidate" in data) return addCandidate(candidateIn(data));
        });
      }),
    ];
  }

  /** Ends a negotiation that cannot succeed any more: the connection is down, and the peer is gone. */
  function considerEnd() {
    const isDown = pc.connectionState === "failed" || (hasLeft && !["connected", "disconnected"].includes(pc.connectionState));
    const isGone = hasLeft || channel.away || handles.get(channel)?.isLasting() === false;
    clearTimeout(givingUp);
    if (isDown && isGone) givingUp = setTimeout(giveUp, hasLeft ? 0 : GIVE_UP_AFTER);
  }

  function giveUp() {
    end();
    // A peer that returns later finds no connection, so it is another one.
    if (channel.away && !hasLeft) handles.get(channel)?.forget();
  }

  function end() {
    stop();
    if (pc.signalingState !== "closed") onend?.();
  }

  /** Whether a description is of another connection than those before: every connection has its own certificate. @param {{ sdp?: unknown }} description */
  function isOfAnother(description) {
    const before = fingerprintsIn(pc.remoteDescription?.sdp);
    const now = fingerprintsIn(description.sdp);
    return handles.has(channel) && before.length > 0 && now.length > 0 && !now.some((fingerprint) => before.includes(fingerprint));
  }

  /** The peer has another connection, which needs another one on this side. @param {unknown} data */
  function startOver(data) {
    const { replace } = /** @type {PeerHandle} */ (handles.get(channel));
    end();
    successor = replace();
    successor(data);
  }

  function ignore() {
    clearTimeout(givingUp);
    for (const off of unsubscribe) if (typeof off === "function") off();
  }

  /** Messages were lost. Each side sends its pending offer again. If there is none, the polite side offers what the other may have missed. */
  function resume() {
    round += 1;
    ignoreOffer = false;
    return enqueue(() => {
      if (makingOffer || successor || pc.signalingState === "closed") return;
      if (pc.signalingState === "have-local-offer") return sendDescription();
      const isConnected = ["connected", "completed"].includes(pc.iceConnectionState);
      if (channel.polite && pc.signalingState === "stable" && pc.localDescription && !isConnected) return offer();
    });
  }

  /** @param {() => Promise<void> | void} step */
  function enqueue(step) {
    return (queue = queue.then(guarded(step)));
  }

  /**
   * Adds the servers of the peer to those of the application, before ICE begins or is restarted. At any other time, Chromium would restart ICE, and
   * would never stop to do so if there is nothing to negotiate yet.
   */
  function useIceServers() {
    const servers = channel.iceServers ?? [];
    if (servers.length === 0) return;
    const urls = new Set(servers.map((server) => String(server.urls)));
    const others = ownIceServers.filter((server) => !urls.has(String(server.urls)));
    pc.setConfiguration?.({ ...pc.getConfiguration(), iceServers: [...others, ...servers] });
  }

  function restartFailedIce() {
    if (pc.iceConnectionState !== "failed") return;
    useIceServers();
    pc.restartIce();
  }

  async function offer() {
    makingOffer = true;
    try {
      if (!pc.localDescription && !pc.remoteDescription) useIceServers();
      await pc.setLocalDescription();
      sendDescription();
    } finally {
      makingOffer = false;
    }
  }

  function sendDescription() {
    if (pc.localDescription) channel.send(pc.localDescription.toJSON());
  }

  /**
   * @param {RTCSessionDescriptionInit} description
   * @param {number} receivedIn
   */
  async function applyDescription(description, receivedIn) {
    const isOffer = description.type === "offer";
    // An offer that was sent twice may be answered twice.
    if (description.type === "answer" && pc.signalingState === "stable") return;
    const isCollision = isOffer && (makingOffer || pc.signalingState === "have-local-offer");
    ignoreOffer = isCollision && !channel.polite;
    if (ignoreOffer) return;
    // Workaround: Chromium never gathers candidates if its first offer is rolled back just as gathering starts.
    if (isCollision && !pc.remoteDescription) await Promise.race([firstCandidate, wait(GATHERING_TIMEOUT)]);
    if (!pc.localDescription && !pc.remoteDescription) useIceServers();
    // Rolls back a pending local offer.
    await pc.setRemoteDescription(description);
    early.splice(0).forEach(guarded(addCandidate));
    if (!isOffer) return;
    await pc.setLocalDescription();
    if (receivedIn === round) sendDescription();
  }

  /** @param {RTCIceCandidateInit | undefined} candidate `undefined` is the end of candidates */
  async function addCandidate(candidate) {
    // The candidate may belong to an ignored offer.
    const mayFail = ignoreOffer;
    if (!pc.remoteDescription && !mayFail) return void early.push(/** @type {any} */ (candidate));
    try {
      await pc.addIceCandidate(candidate);
    } catch (error) {
      if (!mayFail) throw error;
    }
  }

  /**
   * @template Argument
   * @param {(argument: Argument) => Promise<void> | void} step
   * @returns {(argument: Argument) => Promise<void>}
   */
  function guarded(step) {
    return async (argument) => {
      try {
        await step(argument);
      } catch (error) {
        if (pc.signalingState !== "closed") onerror(error);
      }
    };
  }
}

/** Timeout for the first candidate, in milliseconds. */
const GATHERING_TIMEOUT = 500;
/** A connection that has failed for so many milliseconds is given up if the peer is away. */
const GIVE_UP_AFTER = 10_000;

/** @param {unknown} sdp @returns {string[]} */
function fingerprintsIn(sdp) {
  return String(sdp ?? "").match(/^a=fingerprint:.*$/gm) ?? [];
}

/** @param {number} milliseconds */
function wait(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** @param {RTCPeerConnection} pc */
function iceServersOf(pc) {
  return pc.getConfiguration?.().iceServers ?? [];
}

/**
 * Returns the candidate in any of the forms that clients send: `{candidate: RTCIceCandidateInit}`, the init itself, its text, with or without
 * `sdpMid` (libdatachannel: `mid`). `null` and the empty candidate are the end of candidates.
 * @param {any} data
 * @returns {RTCIceCandidateInit | undefined}
 */
function candidateIn(data) {
  if (isObject(data.candidate)) return candidateIn(data.candidate);
  const { sdpMid = data.mid, sdpMLineIndex, usernameFragment } = data;
  const candidate = String(data.candidate ?? "").replace(/^a=/, "");
  const hasPlace = sdpMid != null || sdpMLineIndex != null;
  if (!candidate && !hasPlace) return undefined;
  // Without a place, it belongs to the first section, and with BUNDLE to all.
  return { candidate, sdpMid, sdpMLineIndex: hasPlace ? sdpMLineIndex : 0, usernameFragment };
}

// ---- One role ----

/** Times are in milliseconds. */
const HANDSHAKE_TIMEOUT = 10_000;
const PING_AFTER = 25_000;
const PONG_TIMEOUT = 10_000;
const CLOSE_TIMEOUT = 2_000;
/** A peer that has been away for this long is forgotten. */
const AWAY_TIMEOUT = 120_000;
const MAX_AWAY = 1_000;
/** For so long, the server may hold the key for the lost connection: until it detects the loss, and then for the reservation. */
const TAKEN_TIMEOUT = 105_000;
/** The longest time for which the server lets a join wait, in seconds. */
const MAX_WAIT = 120;
const FIRST_RETRIES = 8;
const MAX_MESSAGE_BYTES = 65_536;
/** @type {Backoff} */
const BACKOFF = { first: 1_000, slow: 5_000, limit: 30_000 };

const REFUSALS = new Set(["key-taken", "unknown-key", "too-many-joiners", "too-many-attempts", "not-allowed"]);
const ROLE_ENDS = new Set(["opener-left", "kicked", "taken-over", "token-expired"]);
/** Errors that are not about a request for a role. */
const SEND_ERRORS = new Set(["no-role", "wrong-role", "no-index", "unknown-index", "not-an-object"]);
/** Errors that follow if a peer leaves while a message to it is in transit. */
const RACES = new Set(["no-role", "unknown-index"]);

class Signaling {
  /** @type {"open" | "join" | "meet"} */ #ask;
  /** @type {JoinOptions & { url: any }} */ #options;
  /** @type {string | undefined} */ #key;
  /** @type {string[]} */ #subprotocols;
  /** @type {any} */ #WebSocket;
  /** @type {Promise<CryptoKey> | undefined} */ #secret;

  /** @type {State} */ #state = "connecting";
  /** @type {"opener" | "joiner" | undefined} */ #role;
  /** @type {Wire | undefined} */ #wire;
  /** @type {any} */ #socket;
  #isConnected = false;
  /** Identifies the current attempt to connect. @type {object | undefined} */ #attempt;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #deadline;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retry;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #silence;
  #failures = 0;
  /** When each cause of failures began. @type {Map<string, number>} */ #troubles = new Map();
  #hadRole = false;
  #hasWaited = false;
  /** @type {string | undefined} */ #takeoverToken;

  /** The present peers: the joiners of an opener by index, the opener of a joiner by `undefined`. @type {Map<number | undefined, Entry>} */
  #present = new Map();
  /** The present peers and those that may come back, in the order in which they joined. @type {Set<Entry>} */ #peers = new Set();
  /** @type {Map<string, Entry>} */ #byId = new Map();

  /** @type {Emitter<SignalingEvents>} */ #events = emitter();
  /** @type {(error?: Error) => void} */ #settleReady = () => {};
  #wake = () => this.#checkPath();
  #shown = () => globalThis.document.visibilityState === "visible" && this.#checkPath();
  #abort = () => this.close();

  on = this.#events.on;
  once = this.#events.once;

  /**
   * @param {"open" | "join" | "meet"} ask
   * @param {any} url
   * @param {string | undefined} key
   * @param {JoinOptions} [options]
   */
  constructor(ask, url, key, options = {}) {
    const { dialect, id = randomHex(), takeoverToken, wait = 0, secret, signal, WebSocket = globalThis.WebSocket } = options;
    if (key !== undefined && (typeof key !== "string" || key === "")) throw new TypeError("key must be a non-empty string");
    if (typeof id !== "string" || id === "") throw new TypeError("id must be a non-empty string");
    if (takeoverToken != null && typeof takeoverToken !== "string") throw new TypeError("takeoverToken must be a string");
    if (!isIndex(wait)) throw new TypeError("wait must be a non-negative integer");
    if (!WebSocket) throw new TypeError("no global WebSocket: pass a class as the option WebSocket");
    this.id = id;
    this.ready = new Promise((resolve, reject) => (this.#settleReady = (error) => (error ? reject(error) : resolve(this))));
    // Using `ready` is optional.
    this.ready.catch(() => {});
    this.#ask = ask;
    this.#options = { ...options, url };
    this.#key = key;
    this.#takeoverToken = takeoverToken ?? undefined;
    this.#subprotocols = subprotocols(ask, dialect);
    this.#WebSocket = WebSocket;
    this.#secret = secret === undefined ? undefined : importSecret(secret);
    if (signal?.aborted) this.close();
    else this.#connectNow();
  }

  get state() {
    return this.#state;
  }

  get role() {
    return this.#role;
  }

  get dialect() {
    return this.#wire?.dialect;
  }

  get key() {
    return this.#key;
  }

  get takeoverToken() {
    return this.#role === "opener" ? this.#takeoverToken : undefined;
  }

  get peers() {
    return [...this.#peers].map(({ peer }) => peer);
  }

  /** @param {unknown} data */
  broadcast(data) {
    return [...this.#present.values()].filter(({ peer }) => peer.send(data)).length;
  }

  /** @param {Peer} peer */
  kick(peer) {
    const entry = this.#present.get(peer.index);
    const isKickable = this.#state === "open" && this.#role === "opener" && this.dialect === "v1" && entry?.peer === peer;
    return isKickable && this.#send({ type: "kick", index: /** @type {number} */ (peer.index) });
  }

  close() {
    if (this.#state === "closing" || this.#state === "closed") return;
    this.#state = "closing";
    if (!this.#isConnected) return this.#finish({ code: "done", reason: "" });
    clearTimeout(this.#retry);
    clearTimeout(this.#silence);
    clearTimeout(this.#deadline);
    // Some sockets wait much longer for the close frame of the server.
    this.#deadline = setTimeout(() => this.#finish({ code: "done", reason: "" }), CLOSE_TIMEOUT);
    this.#socket.onmessage = null;
    this.#socket.close(1000);
  }

  // ---- Connecting ----

  #connectNow() {
    try {
      this.#connect();
    } catch (error) {
      clearTimeout(this.#deadline);
      throw error;
    }
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#shown);
    this.#options.signal?.addEventListener("abort", this.#abort);
  }

  #connect() {
    const { url, token } = this.#options;
    this.#expect("the server did not answer");
    if (typeof url !== "function" && typeof token !== "function") return this.#dial(url, token);
    const attempt = (this.#attempt = {});
    Promise.all([url, token].map(async (value) => (typeof value === "function" ? value() : value)))
      .then(([url, token]) => attempt === this.#attempt && this.#dial(url, token))
      .catch((error) => attempt === this.#attempt && this.#end({ code: "lost", reason: String(error?.message ?? error) }));
  }

  /**
   * @param {unknown} url
   * @param {unknown} token
   */
  #dial(url, token) {
    const subprotocols = token == null ? this.#subprotocols : [...this.#subprotocols, `sigver.bearer.${token}`];
    const socket = new this.#WebSocket(String(url), subprotocols);
    socket.onopen = () => {
      this.#isConnected = true;
      this.#wire = (socket.protocol || subprotocols[0]) === "sigver.v1" ? v1 : plain(this.#ask);
      this.#requestRole();
    };
    socket.onmessage = (/** @type {any} */ { data }) => this.#receive(data);
    // If a handshake fails, Node.js 22 emits no `close`.
    socket.onerror = (/** @type {any} */ event) => this.#isConnected || this.#end(failedHandshake(event?.message));
    socket.onclose = (/** @type {any} */ { code, reason }) => this.#end(this.#isConnected ? endOf(code, reason) : failedHandshake(reason));
    // The class of `ws` has the response of the server.
    socket.on?.("unexpected-response", async (/** @type {any} */ request, /** @type {any} */ response) => {
      socket.onerror = () => {};
      const text = await textOf(response);
      request.destroy();
      if (socket === this.#socket) this.#end(httpError(response.statusCode, text || response.statusMessage));
    });
    this.#socket = socket;
  }

  #requestRole() {
    const { id } = this;
    const key = /** @type {string} */ (this.#key);
    const isPlain = this.#wire?.dialect === "plain";
    if (isPlain) clearTimeout(this.#deadline);
    else this.#expect("the server accepted the connection, but did not answer");
    this.#hasWaited = false;
    if (this.#ask === "join") {
      const wait = this.#hadRole ? MAX_WAIT : this.#options.wait || undefined;
      this.#send({ type: "join", key, wait, id });
    } else {
      if (isPlain) this.#key ??= randomHex();
      this.#send({ type: this.#ask, key: /** @type {string} */ (this.#key), token: this.#takeoverToken, id });
    }
  }

  /** Ends the attempt if the server sends nothing. @param {string} reason */
  #expect(reason) {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#end({ code: "lost", reason }), HANDSHAKE_TIMEOUT);
  }

  /** The network or the visibility of the page has changed, so the connection may be dead, or a retry may succeed. */
  #checkPath() {
    if (this.#isConnected) this.#ping();
    else if (this.#retry) this.#tryAgain();
  }

  #heard() {
    clearTimeout(this.#deadline);
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#ping(), PING_AFTER);
  }

  #ping() {
    if (this.dialect !== "v1" || this.#state === "closing") return;
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#end({ code: "lost", reason: "the server did not answer a ping" }), PONG_TIMEOUT);
    this.#send({ type: "ping" });
  }

  // ---- Messages ----

  /** Returns whether the message was sent. @param {ClientMessage} message */
  #send(message) {
    const wire = /** @type {Wire} */ (this.#wire);
    const text = wire.encode(message);
    if (typeof text !== "string") {
      this.#events.emit(text);
      return false;
    }
    this.#socket.send(text);
    this.#events.emit({ type: "message", direction: "out", text });
    const implied = wire.implied(message);
    if (implied) this.#handle(implied);
    return true;
  }

  /** @param {string} text */
  #receive(text) {
    this.#events.emit({ type: "message", direction: "in", text });
    if (this.dialect === "v1") this.#heard();
    let message;
    try {
      message = /** @type {Wire} */ (this.#wire).decode(text);
    } catch (error) {
      return this.#events.emit({ type: "error", code: "malformed", message: String(error) });
    }
    if (message) this.#handle(message);
  }

  /** @param {ServerMessage} message */
  #handle(message) {
    switch (message.type) {
      case "opened":
        return this.#ask !== "join" && this.#opened(message);
      case "joined":
        return this.#ask !== "open" && this.#joined(message);
      case "waiting":
        this.#hasWaited = message.wait * 1_000 >= this.#backoff.slow;
        this.#away().forEach((entry) => this.#forgetLater(entry));
        return this.#events.emit({ type: "waiting", wait: message.wait });
      case "join":
        return this.#role === "opener" && this.#arrive(message.index, message);
      case "leave":
        return this.#depart(this.#present.get(message.index), "left");
      case "reopened":
        return this.#reopened(message);
      case "data":
        return this.#dataFrom(this.#present.get(message.index), message.data);
      case "closed":
        return this.#end(ROLE_ENDS.has(message.code) ? { code: message.code, reason: "" } : { code: "refused", reason: message.code }, true);
      case "error":
        return this.#failed(message);
    }
  }

  /** @param {Extract<ServerMessage, { type: "opened" }>} message */
  #opened({ key, token, joiners = [] }) {
    this.#key = key;
    this.#takeoverToken = token;
    this.#accepted("opener");
    this.#events.emit({ type: "opened", key });
    // The joiners of a connection that the server did not know to be lost.
    joiners.forEach((joiner) => this.#arrive(joiner.index, joiner, this.#withoutId(joiner)));
    for (const entry of this.#away()) entry.id === undefined ? this.#forget(entry) : this.#forgetLater(entry);
  }

  /** @param {Extract<ServerMessage, { type: "joined" }>} message */
  #joined(message) {
    this.#accepted("joiner");
    this.#takeoverToken = undefined;
    this.#events.emit({ type: "joined", key: /** @type {string} */ (this.#key) });
    // The key has one opener. Peers that have met may change their roles.
    const others = this.#away().filter(({ id }) => id === undefined || id !== message.id);
    for (const entry of others) this.#ask === "join" ? this.#forget(entry) : this.#forgetLater(entry);
    this.#arrive(undefined, message);
  }

  /** @param {Extract<ServerMessage, { type: "reopened" }>} message */
  #reopened({ id }) {
    const opener = this.#present.get(undefined);
    if (!opener) return;
    const arrival = { index: opener.index, id, ice: { servers: opener.iceServers } };
    if (id === undefined || id !== opener.id) this.#forget(opener);
    this.#arrive(undefined, arrival);
  }

  /** @param {Extract<ServerMessage, { type: "error" }>} message */
  #failed(message) {
    const { code } = message;
    if (this.#state === "open") return RACES.has(code) || this.#events.emit(message);
    // Messages of the previous role may have crossed its end.
    if (SEND_ERRORS.has(code)) return;
    if (code === "key-taken" && this.#ask === "meet" && this.#takeoverToken !== undefined) {
      // Another peer is the opener now.
      this.#takeoverToken = undefined;
      return this.#requestRole();
    }
    this.#end({ code: REFUSALS.has(code) ? /** @type {EndCode} */ (code) : "refused", reason: message.message }, true);
  }

  /** @param {"opener" | "joiner"} role */
  #accepted(role) {
    this.#state = "open";
    this.#role = role;
    if (this.dialect === "v1") this.#succeeded();
    this.#settleReady();
  }

  #succeeded() {
    this.#hadRole = true;
    this.#failures = 0;
    this.#troubles.clear();
  }

  // ---- Peers ----

  /**
   * @param {number | undefined} place
   * @param {Arrival} arrival
   * @param {Entry} [known]
   */
  #arrive(place, { index, id, ice }, known = id === undefined ? undefined : this.#byId.get(id)) {
    const entry = known ?? this.#newEntry(id);
    // The server may not have noticed yet that the previous connection of this peer is lost.
    if (this.#present.get(entry.place) === entry) this.#present.delete(entry.place);
    clearTimeout(entry.timer);
    entry.timer = undefined;
    this.#peers.add(entry);
    this.#present.set(place, entry);
    if (id !== undefined) this.#byId.set(id, entry);
    Object.assign(entry, { place, index, isAway: false, isPolite: this.#role === "joiner", iceServers: ice?.servers ?? [] });
    if (this.#secret) this.#seal(entry, this.#secret);
    if (known) entry.emit({ type: "back" });
    else this.#events.emit({ type: "join", peer: entry.peer });
  }

  /** @param {string | undefined} id */
  #newEntry(id) {
    /** @type {any} */
    const entry = { id, place: undefined, index: undefined, isAway: false, isPolite: false, iceServers: [], seal: undefined, timer: undefined };
    this.#givePeer(entry);
    return /** @type {Entry} */ (entry);
  }

  /** Gives an entry a new peer. @param {Entry} entry */
  #givePeer(entry) {
    const { peer } = Object.assign(entry, peerOf(entry, (data) => this.#sendTo(entry, data)));
    const isCurrent = () => entry.peer === peer && this.#peers.has(entry);
    handles.set(peer, {
      isLasting: () => entry.id !== undefined,
      forget: () => isCurrent() && this.#forget(entry),
      replace: () => {
        if (isCurrent()) this.#replace(entry);
        return (data) => entry.emit({ type: "data", data });
      },
    });
  }

  /** The client behind a peer has started over. @param {Entry} entry */
  #replace(entry) {
    const { emit } = entry;
    this.#givePeer(entry);
    emit({ type: "leave" });
    this.#events.emit({ type: "join", peer: entry.peer });
  }

  /**
   * @param {Entry | undefined} entry
   * @param {"left" | EndCode} code
   */
  #depart(entry, code) {
    if (!entry) return;
    this.#present.delete(entry.place);
    entry.isAway = true;
    entry.emit({ type: "away", code });
    if (this.#state !== "open") return;
    if (entry.id === undefined) this.#forget(entry);
    else this.#forgetLater(entry);
    if (this.#peers.size - this.#present.size > MAX_AWAY) this.#forget(this.#away()[0]);
  }

  /** @param {Entry} entry */
  #forgetLater(entry) {
    if (entry.isAway) entry.timer ??= setTimeout(() => this.#forget(entry), AWAY_TIMEOUT);
  }

  /** @param {Entry} entry */
  #forget(entry) {
    clearTimeout(entry.timer);
    entry.timer = undefined;
    this.#peers.delete(entry);
    if (this.#present.get(entry.place) === entry) this.#present.delete(entry.place);
    if (entry.id !== undefined && this.#byId.get(entry.id) === entry) this.#byId.delete(entry.id);
    entry.isAway = true;
    entry.emit({ type: "leave" });
  }

  /** After a takeover, joiners without an id are recognized by their index, which they have kept. @param {{ index: number, id?: string }} joiner */
  #withoutId({ index, id }) {
    return id === undefined ? this.#away().find((entry) => entry.id === undefined && entry.place === index) : undefined;
  }

  #away() {
    return [...this.#peers].filter(({ isAway }) => isAway);
  }

  /** @param {Entry} entry */
  #isPresent(entry) {
    return this.#state === "open" && !entry.isAway;
  }

  /**
   * @param {Entry} entry
   * @param {unknown} data
   */
  #sendTo(entry, data) {
    const json = JSON.stringify(data);
    if (json === undefined) throw new TypeError("data cannot be serialized as JSON");
    /** @type {ClientMessage} */
    const message = { type: "send", index: entry.place, data: this.#secret ? sealedSize(json) : data };
    this.#checkSize(message);
    if (!this.#isPresent(entry)) return false;
    if (!entry.seal) return this.#send(message);
    entry.seal.send(json);
    return true;
  }

  /**
   * @param {Entry | undefined} entry
   * @param {unknown} data
   */
  #dataFrom(entry, data) {
    if (!entry) return;
    if (entry.seal) entry.seal.receive(data);
    else if (isSealed(data)) this.#sealError("a peer seals its messages: this side needs the same option `secret`");
    else entry.emit({ type: "data", data });
  }

  /** @param {ClientMessage} message */
  #checkSize(message) {
    const text = (this.#wire ?? v1).encode(message);
    const { maxMessageBytes = MAX_MESSAGE_BYTES } = this.#options;
    const bytes = typeof text === "string" ? utf8(text).length : 0;
    if (bytes > maxMessageBytes) throw new RangeError(`the message has ${bytes} bytes: the limit is ${maxMessageBytes}`);
  }

  /**
   * @param {Entry} entry
   * @param {Promise<CryptoKey>} secret
   */
  #seal(entry, secret) {
    const seal = sealing(secret, this.#role === "opener", /** @type {string} */ (this.#key), {
      transmit: (data) => entry.seal === seal && this.#isPresent(entry) && this.#send({ type: "send", index: entry.place, data }),
      deliver: (data) => entry.seal === seal && entry.emit({ type: "data", data }),
      renew: () => entry.seal === seal && entry.emit({ type: "back" }),
      reject: (message) => this.#sealError(message),
    });
    entry.seal = seal;
    seal.greet();
  }

  /** @param {string} message */
  #sealError(message) {
    this.#events.emit({ type: "error", code: "not-sealed", message });
  }

  // ---- The end of a role or an attempt ----

  get #backoff() {
    return { ...BACKOFF, ...this.#options.backoff };
  }

  /**
   * @param {End} end
   * @param {boolean} [keepsSocket] In v1, the connection may outlive the role.
   */
  #end(end, keepsSocket = false) {
    if (this.#state === "closed") return;
    if (this.#state === "closing") return this.#finish({ ...end, code: "done" });
    // In plain, a role counts as accepted until it is refused.
    if (this.#state === "open" && !REFUSALS.has(end.code)) this.#succeeded();
    if (!this.#mayRetry(end)) return this.#finish(this.#hadRole || end.code !== "lost" ? end : { ...end, code: "unreachable" });

    clearTimeout(this.#deadline);
    if (!keepsSocket || end.code === "token-expired") this.#dropSocket();
    this.#state = "reconnecting";
    const delay = this.#delay(end.code);
    this.#failures += 1;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#tryAgain(), delay);
    this.#departAll(end.code);
    // A listener may have called `close`.
    if (this.#retry) this.#events.emit({ type: "reconnecting", .../** @type {any} */ (end), delay });
  }

  /** @param {End} end */
  #mayRetry({ code }) {
    const { retries = this.#hadRole ? Infinity : FIRST_RETRIES, token, url } = this.#options;
    if (this.#failures >= retries) return false;
    switch (code) {
      case "lost":
      case "opener-left":
      case "too-many-joiners":
      case "too-many-attempts":
        return true;
      case "key-taken":
        return this.#hadRole && this.#troubleFor(code) < TAKEN_TIMEOUT;
      case "unknown-key":
        return this.#hadRole || this.#ask === "meet";
      case "token-expired":
        return typeof token === "function" || typeof url === "function";
      default:
        return false;
    }
  }

  /** Returns the time since the first failure with this cause. @param {string} cause */
  #troubleFor(cause) {
    const now = Date.now();
    const since = this.#troubles.get(cause) ?? now;
    this.#troubles.set(cause, since);
    return now - since;
  }

  /** @param {string} cause */
  #delay(cause) {
    const isJoin = this.#ask === "join" && this.dialect === "v1";
    // The server lets the join wait for the opener.
    if (isJoin && (cause === "opener-left" || (cause === "unknown-key" && this.#hasWaited))) return 0;
    const { first, slow, limit } = this.#backoff;
    const isQuick = cause === "lost" || cause === "token-expired" || (cause === "opener-left" && this.#ask === "meet");
    // Clients that lost the same server come back one by one, and at the latest after twice the time that it was away.
    return Math.random() * Math.min(limit, Math.max(isQuick ? first : slow, this.#troubleFor(cause)));
  }

  #tryAgain() {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    if (this.#socket) return this.#requestRole();
    try {
      this.#connect();
    } catch (error) {
      this.#end({ code: "lost", reason: String(error) });
    }
  }

  /** @param {EndCode} code */
  #departAll(code) {
    this.#peers.forEach((entry) => {
      clearTimeout(entry.timer);
      entry.timer = undefined;
    });
    [...this.#present.values()].forEach((entry) => this.#depart(entry, code));
  }

  #dropSocket() {
    clearTimeout(this.#silence);
    this.#attempt = undefined;
    this.#isConnected = false;
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = undefined;
    socket.onmessage = socket.onclose = null;
    // Without a listener, the class of `ws` throws errors.
    socket.onerror = () => {};
    socket.onopen = () => socket.close(1000);
    socket.close(1000);
  }

  /** @param {End} end */
  #finish(end) {
    clearTimeout(this.#deadline);
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#dropSocket();
    this.#state = "closed";
    this.#options.signal?.removeEventListener("abort", this.#abort);
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#shown);
    this.#departAll(end.code);
    this.#peers.clear();
    if (end.code === "unreachable" || end.code === "rejected") this.#events.emit({ type: "error", code: end.code, message: end.reason });
    this.#events.emit({ type: "closed", ...end });
    this.#settleReady(Object.assign(new Error(end.reason ? `${end.code}: ${end.reason}` : end.code), end));
  }
}

/**
 * @typedef {{
 *   id: string | undefined, place: number | undefined, index: number | undefined, isAway: boolean, isPolite: boolean, iceServers: IceServer[],
 *   seal: ReturnType<typeof sealing> | undefined, timer: ReturnType<typeof setTimeout> | undefined, peer: Peer,
 *   emit: Emitter<PeerEvents>["emit"],
 * }} Entry
 */

/**
 * What `negotiate` may do with a peer. `isLasting`: whether the peer is the same after a reconnect. `replace` returns a function that passes data to
 * the new peer.
 * @typedef {{ isLasting: () => boolean, forget: () => void, replace: () => (data: unknown) => void }} PeerHandle
 */

/** @type {WeakMap<object, PeerHandle>} */
const handles = new WeakMap();

/**
 * @param {Entry} entry
 * @param {(data: unknown) => boolean} send
 * @returns {Pick<Entry, "peer" | "emit">}
 */
function peerOf(entry, send) {
  /** @type {Emitter<PeerEvents>} */
  const { on, once, emit } = emitter();
  /** @returns {boolean} */
  const isReplaced = () => entry.peer !== peer;
  /** @type {Peer} */
  const peer = Object.freeze({
    id: entry.id,
    get index() {
      return entry.index;
    },
    get polite() {
      return entry.isPolite;
    },
    get away() {
      return entry.isAway || isReplaced();
    },
    get iceServers() {
      return entry.iceServers;
    },
    on,
    once,
    send: (/** @type {unknown} */ data) => !isReplaced() && send(data),
  });
  return { peer, emit };
}

/** @type {Record<string, EndCode>} By close code, or by code and text if the code is ambiguous. */
const ENDS = {
  // Deno has 0 for 1006.
  0: "lost", 1001: "lost", 1005: "lost", 1006: "lost", 1011: "lost", 1012: "lost", 1013: "lost",
  "1008 no sign of life": "lost", "1008 no open or join in time": "lost",
  "1008 key is taken": "key-taken", "1008 key is unknown": "unknown-key", "1008 not allowed": "not-allowed",
  "1013 too many joiners on the key": "too-many-joiners", "1013 too many attempts at keys": "too-many-attempts",
  4001: "opener-left", 4003: "kicked", 4004: "token-expired",
};

/**
 * @param {number} status
 * @param {string} reason
 * @returns {End}
 */
function endOf(status, reason) {
  return { code: ENDS[`${status} ${reason}`] ?? ENDS[status] ?? "refused", reason, status };
}

/** Some runtimes have the HTTP status in the text. @type {(text: string | undefined) => End} */
function failedHandshake(text) {
  const [, status] = /status code: ([345]\d\d)\b/.exec(text ?? "") ?? [];
  return status ? httpError(Number(status), /** @type {string} */ (text)) : { code: "lost", reason: text || "the connection failed" };
}

/**
 * @param {number} status
 * @param {string} text
 * @returns {End}
 */
function httpError(status, text) {
  const isTemporary = status >= 500 || status === 408 || status === 429;
  return { code: isTemporary ? "lost" : "rejected", reason: `HTTP ${status}: ${text.trim()}`, status };
}

/** @param {any} response */
async function textOf(response) {
  let text = "";
  try {
    for await (const chunk of response) {
      text += chunk;
      if (text.length > 1_000) break;
    }
  } catch {
    // The connection was lost before the end of the text.
  }
  return text;
}

function randomHex() {
  return Array.from(random(16), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {number} length */
function random(length) {
  return crypto.getRandomValues(new Uint8Array(length));
}

// ---- The dialects: texts from and to the messages of sigver.v1 ----

/**
 * @param {"open" | "join" | "meet"} ask
 * @param {Dialect | undefined} dialect
 */
function subprotocols(ask, dialect) {
  if (ask === "meet" && dialect === "plain") throw new TypeError("the plain dialect does not support meet");
  switch (dialect) {
    case undefined: return ask === "meet" ? ["sigver.v1"] : ["sigver.v1", "sigver.plain"];
    case "v1": return ["sigver.v1"];
    case "plain": return ["sigver.plain"];
    default: throw new TypeError(`unknown dialect: ${dialect}`);
  }
}

/** Checks the members of each message from the server. @type {Record<string, (message: any) => boolean>} */
const CHECKS = {
  opened: ({ key, token = "", joiners = [] }) => typeof key === "string" && typeof token === "string" && Array.isArray(joiners) && joiners.every(isArrival),
  joined: (message) => isArrival(message),
  join: (message) => isArrival(message),
  waiting: ({ wait }) => isIndex(wait),
  leave: ({ index }) => isIndex(index),
  data: (message) => (message.index === undefined || isIndex(message.index)) && "data" in message,
  reopened: ({ id = "" }) => typeof id === "string",
  closed: ({ code }) => typeof code === "string",
  error: ({ code, message }) => typeof code === "string" && typeof message === "string",
};

const v1 = {
  dialect: /** @type {Dialect} */ ("v1"),

  /** @type {(message: ClientMessage) => string | SignalingErrorEvent} */
  encode: (message) => JSON.stringify(message),

  /** Returns `undefined` for messages that a later version may add. @type {(text: string) => ServerMessage | undefined} */
  decode(text) {
    const message = objectIn(text);
    if (typeof message.type !== "string") throw new TypeError("not a message of sigver.v1");
    if (!Object.hasOwn(CHECKS, message.type)) return undefined;
    if (!CHECKS[message.type](message)) throw new TypeError(`not a valid ${message.type} of sigver.v1`);
    return /** @type {any} */ (message);
  },

  /** Returns the reply that a plain server omits. @type {(message: ClientMessage) => ServerMessage | undefined} */
  implied: () => undefined,
};

/**
 * @param {"open" | "join" | "meet"} ask
 * @returns {Wire}
 */
function plain(ask) {
  let joins = 0;
  return {
    dialect: "plain",

    encode(message) {
      switch (message.type) {
        case "open":
        case "join":
          return JSON.stringify({ type: message.type, key: message.key });
        case "send": {
          const data = JSON.parse(JSON.stringify(message.data));
          if (!isObject(data)) return refusal("not-an-object", "the plain dialect carries JSON objects only");
          if (isControl(data)) return refusal("not-in-plain", "the server would handle data with a `key` and the `type` open or join as a request");
          return JSON.stringify({ ...data, index: message.index });
        }
        default:
          return refusal("not-in-plain", `the plain dialect does not support ${message.type}`);
      }
    },

    decode(text) {
      const { index, ...data } = objectIn(text);
      if (ask === "join") return { type: "data", data };
      if (isIndex(index)) return { type: "data", index, data };
      // Data from a joiner always has its index. Only the join notice has none.
      if (index === undefined && data.type === "join") return { type: "join", index: joins++ };
      throw new TypeError("neither a join notice nor data with an index");
    },

    implied(message) {
      if (message.type === "open") return { type: "opened", key: /** @type {string} */ (message.key) };
      // A plain joiner does not receive its index.
      if (message.type === "join") return { type: "joined", index: /** @type {any} */ (undefined) };
    },
  };
}

/** @type {(code: SignalingErrorEvent["code"], message: string) => SignalingErrorEvent} */
function refusal(code, message) {
  return { type: "error", code, message };
}

/** @param {Record<string, unknown>} data */
function isControl(data) {
  return (data.type === "open" || data.type === "join") && "key" in data;
}

/** @type {(text: string) => Record<string, any>} */
function objectIn(text) {
  const value = JSON.parse(text);
  if (!isObject(value)) throw new TypeError("not an object");
  return value;
}

/** @type {(value: unknown) => value is Record<string, unknown>} */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param {unknown} value */
function isIndex(value) {
  return Number.isSafeInteger(value) && /** @type {number} */ (value) >= 0;
}

/** @param {any} value */
function isArrival(value) {
  if (!isObject(value)) return false;
  const { index, id = "", ice } = /** @type {any} */ (value);
  return isIndex(index) && typeof id === "string" && (ice === undefined || (isObject(ice) && Array.isArray(ice.servers)));
}

// ---- Sealing. README.md, section "Seal signaling", specifies it ----

const MAX_GREETINGS = 8;

/** @param {string | Uint8Array} secret */
function importSecret(secret) {
  const bytes = typeof secret === "string" ? utf8(secret) : secret;
  if (!(bytes instanceof Uint8Array) || bytes.length < 16) throw new TypeError("secret must have at least 16 bytes");
  if (!globalThis.crypto?.subtle) throw new TypeError("secret requires Web Crypto, which browsers have on https: and localhost only");
  return crypto.subtle.importKey("raw", /** @type {any} */ (bytes), "HKDF", false, ["deriveKey"]);
}

/**
 * Seals the messages of one pairing. Both sides send a nonce first. The keys depend on both nonces, so that no message of another pairing is
 * accepted, and a message that its own side has sent is not either.
 * @param {Promise<CryptoKey>} secret
 * @param {boolean} isOpener
 * @param {string} key
 * @param {{ transmit: (data: object) => void, deliver: (data: unknown) => void, renew: () => void, reject: (message: string) => void }} to
 */
function sealing(secret, isOpener, key, { transmit, deliver, renew, reject }) {
  const nonce = random(16);
  const seen = new Set([encode64(nonce)]);
  /** @typedef {{ own: CryptoKey, other: CryptoKey, sent: number, next: number }} Session */
  /** @type {(session: Promise<Session>) => void} */
  let begin;
  /** @type {Promise<Session>} */
  let session = new Promise((resolve) => (begin = resolve));
  let isGreeted = false;
  /** @type {Promise<unknown>} */
  let sending = Promise.resolve();
  /** @type {Promise<unknown>} */
  let receiving = Promise.resolve();

  return {
    greet: () => transmit({ sealed: { nonce: encode64(nonce) } }),

    /** @param {string} json */
    send(json) {
      sending = sending.then(async () => {
        const current = await session;
        const counter = current.sent++;
        const box = await crypto.subtle.encrypt({ name: "AES-GCM", iv: iv(counter) }, current.own, utf8(json));
        transmit({ sealed: { counter, box: encode64(new Uint8Array(box)) } });
      });
    },

    /** @param {unknown} data */
    receive(data) {
      receiving = receiving.then(() => unseal(data)).catch((error) => reject(error.message));
    },
  };

  /** @param {any} data */
  async function unseal(data) {
    if (!isSealed(data)) throw new Error("a message is not sealed");
    const { nonce, counter, box } = data.sealed;
    if (nonce !== undefined) return greeted(nonce);
    // A message to the previous connection of this side.
    if (!isGreeted) return;
    const current = await session;
    if (!isIndex(counter) || counter < current.next) throw new Error("a sealed message was replayed");
    let text;
    try {
      text = await crypto.subtle.decrypt({ name: "AES-GCM", iv: iv(counter) }, current.other, decode64(box));
    } catch {
      throw new Error("a message is not sealed with this secret, or was changed");
    }
    current.next = counter + 1;
    deliver(JSON.parse(new TextDecoder().decode(text)));
  }

  /** A side that has replaced its connection sends another nonce. @param {unknown} other */
  function greeted(other) {
    if (typeof other !== "string" || other.length !== 24 || seen.has(other)) throw new Error("a nonce is invalid or was replayed");
    if (seen.size > MAX_GREETINGS) throw new Error("too many nonces");
    seen.add(other);
    const nonces = isOpener ? [nonce, decode64(other)] : [decode64(other), nonce];
    const derived = derive(nonces);
    if (!isGreeted) {
      isGreeted = true;
      return begin(derived);
    }
    session = derived;
    // What was sealed for the previous nonce is lost.
    renew();
  }

  /** @param {Uint8Array[]} nonces That of the opener, that of the joiner. */
  async function derive([ofOpener, ofJoiner]) {
    const salt = new Uint8Array([...ofOpener, ...ofJoiner]);
    const keyOf = async (/** @type {boolean} */ opener, /** @type {KeyUsage} */ usage) => {
      const info = utf8(`sigver.seal.v1 ${opener ? "opener" : "joiner"} ${key}`);
      return crypto.subtle.deriveKey({ name: "HKDF", hash: "SHA-256", salt, info }, await secret, { name: "AES-GCM", length: 256 }, false, [usage]);
    };
    return { own: await keyOf(isOpener, "encrypt"), other: await keyOf(!isOpener, "decrypt"), sent: 0, next: 0 };
  }
}

/** The 96-bit counter of AES-GCM. @param {number} counter */
function iv(counter) {
  const bytes = new Uint8Array(12);
  new DataView(bytes.buffer).setBigUint64(4, BigInt(counter));
  return bytes;
}

/** @param {any} data */
function isSealed(data) {
  return isObject(data) && isObject(data.sealed);
}

/** Returns a message as large as the sealed text, with the largest counter. @param {string} json */
function sealedSize(json) {
  const bytes = utf8(json).length + 16;
  return { sealed: { counter: Number.MAX_SAFE_INTEGER, box: "=".repeat(4 * Math.ceil(bytes / 3)) } };
}

/** @param {string} text */
function utf8(text) {
  return new TextEncoder().encode(text);
}

/** @param {Uint8Array} bytes */
function encode64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

/** @param {string} text */
function decode64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// ---- Events ----

/** The maximum number of queued events per type: more than one negotiation emits. */
const MAX_EARLY_EVENTS = 100;

/**
 * @template {{ [Type in keyof Events]: { type: Type } }} Events
 * @typedef {Emits<Events> & { emit(event: Events[keyof Events]): void }} Emitter
 */

/**
 * @template {{ [Type in keyof Events]: { type: Type } }} Events
 * @returns {Emitter<Events>}
 */
function emitter() {
  /** @type {Map<PropertyKey, Set<(event: any) => void>>} */
  const listeners = new Map();
  /** @type {Map<PropertyKey, any[]>} */
  const early = new Map();

  /**
   * @param {PropertyKey} type
   * @param {(event: any) => void} listener
   * @param {boolean} isOnce
   */
  function add(type, listener, isOnce) {
    const others = listeners.get(type) ?? new Set();
    const off = () => void others.delete(added);
    const added = (/** @type {any} */ event) => {
      if (isOnce) off();
      dispatch(listener, event);
    };
    listeners.set(type, others.add(added));
    for (const event of early.get(type) ?? []) if (others.has(added)) added(event);
    early.delete(type);
    return off;
  }

  return {
    on: (type, listener) => add(type, listener, false),
    once: (type, listener) => add(type, listener, true),

    emit(event) {
      const current = listeners.get(event.type);
      if (current) return [...current].forEach((listener) => listener(event));
      // Nobody reads an old log of messages.
      if (event.type === "message") return;
      const waiting = early.get(event.type) ?? [];
      if (waiting.length < MAX_EARLY_EVENTS) early.set(event.type, [...waiting, event]);
    },
  };
}

/** Calls a listener. If it throws, the error is reported without affecting other listeners. @type {(listener: (event: any) => void, event: any) => void} */
function dispatch(listener, event) {
  try {
    listener(event);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
