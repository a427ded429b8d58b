// A sigver client for both dialects, with perfect negotiation. sigver.d.ts documents the exports.
// Order: exports, Signaling (one role on one key, with reconnects), dialects, events.

/**
 * @import {
 *   Backoff, ClientMessage, Dialect, Emits, End, EndCode, IceServer, OpenerEvent, Options, PeerEvent, ServerMessage, SignalingErrorEvent, State,
 * } from "./sigver.js"
 * @typedef {ReturnType<typeof v1>} Wire
 * @typedef {{ peer: { index: number | undefined, iceServers: IceServer[] }, emit: (event: PeerEvent) => void }} Entry
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

// Variables are named as in the WebRTC specification, section "Perfect negotiation example".
/** @type {typeof import("./sigver.js").negotiate} */
export function negotiate(pc, channel, { onerror = console.error } = {}) {
  let makingOffer = false;
  let ignoreOffer = false;
  let isSettingRemoteAnswerPending = false;
  /** @type {(RTCIceCandidateInit | null)[]} */
  const early = [];
  const firstCandidate = new Promise((resolve) => pc.addEventListener("icecandidate", resolve, { once: true }));

  pc.addEventListener("negotiationneeded", guarded(async () => {
    makingOffer = true;
    try {
      await sendDescription();
    } finally {
      makingOffer = false;
    }
  }));
  pc.addEventListener("icecandidate", ({ candidate }) => channel.send({ candidate: candidate && candidate.toJSON() }));
  channel.on("data", guarded(({ data }) => {
    if (pc.signalingState === "closed" || !isObject(data)) return;
    if ("sdp" in data) return applyDescription(/** @type {any} */ (data));
    if ("candidate" in data) return addCandidate(/** @type {any} */ (data.candidate));
  }));

  async function sendDescription() {
    await pc.setLocalDescription();
    if (pc.localDescription) channel.send(pc.localDescription.toJSON());
  }

  /** @param {RTCSessionDescriptionInit} description */
  async function applyDescription(description) {
    const isOffer = description.type === "offer";
    const readyForOffer = !makingOffer && (pc.signalingState === "stable" || isSettingRemoteAnswerPending);
    const isCollision = isOffer && !readyForOffer;
    ignoreOffer = isCollision && !channel.polite;
    if (ignoreOffer) return;
    // Workaround: Chromium never gathers candidates if its first offer is rolled back just as gathering starts.
    if (isCollision && !pc.remoteDescription) await Promise.race([firstCandidate, wait(GATHERING_TIMEOUT)]);
    isSettingRemoteAnswerPending = description.type === "answer";
    try {
      // Rolls back a pending local offer.
      await pc.setRemoteDescription(description);
    } finally {
      isSettingRemoteAnswerPending = false;
    }
    early.splice(0).forEach(guarded(addCandidate));
    if (isOffer) await sendDescription();
  }

  /** @param {RTCIceCandidateInit | null} candidate */
  async function addCandidate(candidate) {
    // The candidate may belong to an ignored offer.
    const mayFail = ignoreOffer;
    if (!pc.remoteDescription && !mayFail) {
      early.push(candidate);
      return;
    }
    try {
      // `undefined` is the end of candidates.
      await pc.addIceCandidate(candidate ?? undefined);
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

/** @param {number} milliseconds */
function wait(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// ---- One role ----

/** @type {Backoff} */
const BACKOFF = { first: 1_000, slow: 5_000, limit: 30_000 };
const REFUSALS = new Set(["key-taken", "unknown-key", "too-many-joiners", "too-many-attempts"]);
const ROLE_ENDS = new Set(["opener-left", "kicked", "taken-over"]);
const RETRYABLE = new Set(["lost", "opener-left", "too-many-joiners", "too-many-attempts"]);

class Signaling {
  /** @type {"open" | "join"} */ #role;
  /** @type {string} */ #url;
  /** @type {string | undefined} */ #key;
  /** @type {string[]} */ #subprotocols;
  /** @type {number} */ #retries;
  /** @type {Backoff} */ #backoff;
  /** @type {AbortSignal | undefined} */ #signal;
  /** @type {any} */ #WebSocket;

  /** @type {State} */ #state = "connecting";
  /** @type {Wire | undefined} */ #wire;
  /** @type {WebSocket | undefined} */ #socket;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #failures = 0;
  #hadRole = false;
  /** Opens the key again after a lost connection: the server reserves the key for it. @type {string | undefined} */
  #token;
  /** The joiners of an opener by index; the opener of a joiner by `undefined`. @type {Map<number | undefined, Entry>} */
  #peers = new Map();
  /** @type {Emitter<OpenerEvent>} */ #events = emitter();
  #abort = () => this.close();

  on = this.#events.on;

  /**
   * @param {"open" | "join"} role
   * @param {string | URL} url
   * @param {string | undefined} key
   * @param {Options} [options]
   */
  constructor(role, url, key, { dialect, retries = Infinity, backoff, signal, WebSocket = globalThis.WebSocket } = {}) {
    if (key !== undefined && (typeof key !== "string" || key === "")) throw new TypeError("key must be a non-empty string");
    if (!WebSocket) throw new TypeError("no global WebSocket: pass a class as the option WebSocket");
    this.#role = role;
    this.#url = String(url);
    this.#key = key;
    this.#subprotocols = subprotocols(dialect);
    this.#retries = retries;
    this.#backoff = { ...BACKOFF, ...backoff };
    this.#WebSocket = WebSocket;
    this.#signal = signal;
    if (signal?.aborted) this.close();
    else this.#connect();
    signal?.addEventListener("abort", this.#abort);
  }

  get state() {
    return this.#state;
  }

  get dialect() {
    return this.#wire?.dialect;
  }

  get key() {
    return this.#key;
  }

  /** @param {import("./sigver.js").Peer<number>} peer */
  kick(peer) {
    if (this.#isCurrent(peer, peer.index)) this.#send({ type: "kick", index: peer.index });
  }

  close() {
    if (this.#state === "closing" || this.#state === "closed") return;
    this.#state = "closing";
    clearTimeout(this.#timer);
    if (!this.#socket) return this.#end({ code: "done", reason: "" });
    this.#socket.onmessage = null;
    this.#socket.close(1000);
  }

  #connect() {
    /** @type {WebSocket} */
    const socket = new this.#WebSocket(this.#url, this.#subprotocols);
    socket.onopen = () => this.#requestRole(socket.protocol);
    socket.onmessage = ({ data }) => this.#receive(data);
    // A close event with details follows. Without a listener, the class of `ws` throws the error.
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }) => this.#end(endOf(code, reason));
    this.#socket = socket;
  }

  /** @param {string} subprotocol */
  #requestRole(subprotocol) {
    this.#wire = subprotocol === "sigver.v1" ? v1(this.#role) : plain(this.#role);
    if (this.#role === "open") {
      const isPlain = this.#wire.dialect === "plain";
      if (isPlain) this.#key ??= generateKey();
      this.#send({ type: "open", key: this.#key, token: isPlain ? undefined : this.#token });
    } else {
      this.#send({ type: "join", key: /** @type {string} */ (this.#key) });
    }
  }

  /** @param {ClientMessage} message */
  #send(message) {
    const wire = /** @type {Wire} */ (this.#wire);
    const text = wire.encode(message);
    if (typeof text !== "string") return this.#events.emit(text);
    this.#socket?.send(text);
    this.#events.emit({ type: "message", direction: "out", text });
    const implied = wire.implied(message);
    if (implied) this.#handle(implied);
  }

  /** @param {string} text */
  #receive(text) {
    this.#events.emit({ type: "message", direction: "in", text });
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
        this.#key = message.key;
        this.#token = message.token;
        this.#accepted();
        this.#events.emit({ type: "opened", key: message.key });
        // The joiners of a connection that the server did not know to be lost.
        return message.joiners?.forEach(({ index, ice }) => this.#addPeer(index, index, ice?.servers));
      case "joined":
        this.#accepted();
        return this.#addPeer(undefined, message.index, message.ice?.servers);
      case "join":
        return this.#addPeer(message.index, message.index, message.ice?.servers);
      case "leave":
        this.#peers.get(message.index)?.emit({ type: "leave", code: "left" });
        return this.#peers.delete(message.index);
      case "reopened":
        return this.#replaceOpener();
      case "data":
        return this.#peers.get(message.index)?.emit({ type: "data", data: message.data });
      case "closed":
        return this.#end(ROLE_ENDS.has(message.code) ? { code: message.code, reason: "" } : { code: "refused", reason: message.code });
      case "error":
        if (this.#state === "open") return this.#events.emit(message);
        return this.#end({ code: REFUSALS.has(message.code) ? /** @type {EndCode} */ (message.code) : "refused", reason: message.message });
    }
  }

  #accepted() {
    // `close()` may have been called before the reply arrived.
    if (this.#state !== "closing") this.#state = "open";
  }

  /** The opener is on a new connection, so it has a new peer for this side. */
  #replaceOpener() {
    const opener = this.#peers.get(undefined);
    if (!opener) return;
    this.#peers.clear();
    opener.emit({ type: "leave", code: "left" });
    this.#addPeer(undefined, opener.peer.index, opener.peer.iceServers);
  }

  /**
   * @param {number | undefined} place
   * @param {number | undefined} index
   * @param {IceServer[]} [iceServers]
   */
  #addPeer(place, index, iceServers = []) {
    /** @type {Emitter<PeerEvent>} */
    const { on, emit } = emitter();
    const peer = Object.freeze({
      index,
      polite: this.#role === "join",
      iceServers,
      on,
      /** @param {unknown} data */
      send: (data) => {
        if (JSON.stringify(data) === undefined) throw new TypeError("data cannot be serialized as JSON");
        const isCurrent = this.#isCurrent(peer, place);
        if (isCurrent) this.#send({ type: "send", index: place, data });
        return isCurrent;
      },
    });
    this.#peers.set(place, { peer, emit });
    this.#events.emit({ type: "join", peer: /** @type {any} */ (peer) });
  }

  /**
   * @param {object} peer
   * @param {number | undefined} place
   */
  #isCurrent(peer, place) {
    return this.#state === "open" && this.#peers.get(place)?.peer === peer;
  }

  // A role and its socket end together. Each attempt uses a new socket.
  /** @param {End} end */
  #end(end) {
    // In plain, a role counts as accepted until it is refused.
    if (this.#state === "open" && !REFUSALS.has(end.code)) {
      this.#hadRole = true;
      this.#failures = 0;
    }
    if (this.#state === "closing") end = { ...end, code: "done" };
    this.#dropSocket();
    const peers = [...this.#peers.values()];
    this.#peers.clear();
    if (this.#shouldRetry(end)) this.#retryLater(end);
    else this.#finish(end);
    peers.forEach(({ emit }) => emit({ type: "leave", code: end.code }));
  }

  #dropSocket() {
    if (!this.#socket) return;
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close(1000);
    this.#socket = undefined;
  }

  /** @param {End} end */
  #shouldRetry({ code }) {
    // After a lost connection, a refusal may be temporary: the server may not have detected the loss, or the opener may still be reconnecting.
    const isRetryable = RETRYABLE.has(code) || (this.#hadRole && REFUSALS.has(code));
    return isRetryable && this.#failures < this.#retries;
  }

  /** @param {End} end */
  #retryLater(end) {
    const { first, slow, limit } = this.#backoff;
    const bound = Math.min(limit, (end.code === "lost" ? first : slow) * 2 ** this.#failures);
    const delay = Math.random() * bound;
    this.#failures += 1;
    this.#state = "reconnecting";
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#events.emit({ type: "reconnecting", .../** @type {any} */ (end), delay });
  }

  /** @param {End} end */
  #finish(end) {
    this.#state = "closed";
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#events.emit({ type: "closed", ...end });
  }
}

/** @type {Record<string, EndCode>} By close code, or by code and text if the code is ambiguous. */
const ENDS = {
  1001: "lost", 1006: "lost", 1011: "lost", 1012: "lost", 1013: "lost", "1008 no sign of life": "lost",
  "1008 key is taken": "key-taken", "1008 key is unknown": "unknown-key", "1013 too many joiners on the key": "too-many-joiners",
  "1013 too many attempts at keys": "too-many-attempts",
  4001: "opener-left", 4003: "kicked",
};

/**
 * @param {number} status
 * @param {string} reason
 * @returns {End}
 */
function endOf(status, reason) {
  return { code: ENDS[`${status} ${reason}`] ?? ENDS[status] ?? "refused", reason, status };
}

function generateKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---- The dialects: texts from and to the messages of sigver.v1 ----

/** @param {Dialect | undefined} dialect */
function subprotocols(dialect) {
  switch (dialect) {
    case undefined: return ["sigver.v1", "sigver.plain"];
    case "v1": return ["sigver.v1"];
    case "plain": return ["sigver.plain"];
    default: throw new TypeError(`unknown dialect: ${dialect}`);
  }
}

/** Checks for the messages that each role may receive. @type {Record<string, Record<string, (message: any) => boolean>>} */
const CHECKS = {
  open: {
    opened: ({ key, token = "", joiners = [] }) => typeof key === "string" && typeof token === "string" && isPeers(joiners),
    join: ({ index, ice }) => isIndex(index) && isIce(ice),
    leave: ({ index }) => isIndex(index),
    data: (message) => isIndex(message.index) && "data" in message,
    closed: ({ code }) => typeof code === "string",
    error: ({ code, message }) => typeof code === "string" && typeof message === "string",
  },
  join: {
    joined: ({ index, ice }) => isIndex(index) && isIce(ice),
    data: (message) => message.index === undefined && "data" in message,
    reopened: () => true,
    closed: ({ code }) => typeof code === "string",
    error: ({ code, message }) => typeof code === "string" && typeof message === "string",
  },
};

/** @param {"open" | "join"} role */
function v1(role) {
  const checks = CHECKS[role];
  return {
    dialect: /** @type {Dialect} */ ("v1"),

    /** @type {(message: ClientMessage) => string | SignalingErrorEvent} */
    encode: (message) => JSON.stringify(message),

    /** Returns `undefined` for messages that a later version may add. @type {(text: string) => ServerMessage | undefined} */
    decode(text) {
      const message = objectIn(text);
      if (typeof message.type === "string" && !Object.hasOwn(checks, message.type)) return undefined;
      if (!Object.hasOwn(checks, message.type) || !checks[message.type](message)) throw new TypeError("not a message of sigver.v1");
      return /** @type {any} */ (message);
    },

    /** Returns the reply that a plain server omits. @type {(message: ClientMessage) => ServerMessage | undefined} */
    implied: () => undefined,
  };
}

/**
 * @param {"open" | "join"} role
 * @returns {Wire}
 */
function plain(role) {
  let joins = 0;
  return {
    dialect: "plain",

    encode(message) {
      switch (message.type) {
        case "open":
        case "join":
          return JSON.stringify(message);
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
      if (role === "join") return { type: "data", data };
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

/** @param {unknown} value */
function isPeers(value) {
  return Array.isArray(value) && value.every((peer) => isObject(peer) && isIndex(peer.index) && isIce(peer.ice));
}

/** @param {any} value */
function isIce(value) {
  return value === undefined || (isObject(value) && Array.isArray(value.servers));
}

// ---- Events ----

/** The maximum number of queued events per type: more than one negotiation emits. */
const MAX_EARLY_EVENTS = 100;

/**
 * @template {{ type: string }} Event
 * @typedef {Emits<Event> & { emit(event: Event): void }} Emitter
 */

/**
 * @template {{ type: string }} Event
 * @returns {Emitter<Event>}
 */
function emitter() {
  /** @type {Map<string, Set<(event: any) => void>>} */
  const listeners = new Map();
  /** @type {Map<string, any[]>} */
  const early = new Map();

  return {
    on(type, listener) {
      const others = listeners.get(type) ?? new Set();
      listeners.set(type, others.add(listener));
      early.get(type)?.forEach((event) => dispatch(listener, event));
      early.delete(type);
      return () => void others.delete(listener);
    },

    emit(event) {
      const current = listeners.get(event.type);
      if (current) return [...current].forEach((listener) => dispatch(listener, event));
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
