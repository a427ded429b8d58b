// The types of sigver.js, and what everything there means. The dialects and codes are those of PROTOCOL.md.

/**
 * Opens a key: whoever joins it is met with `join`. Without a key, one that is hard to guess is made: by the server in v1, here in
 * plain. `opened` tells it. The key is kept over a reconnection.
 *
 * Returns at once; throws only what `new WebSocket(url)` throws, and a `TypeError` for an argument that can never be right.
 */
export function open(url: string | URL, key?: string, options?: Options): Opener;

/** Joins a key: its opener is met with `join`. Returns and throws as `open` does. */
export function join(url: string | URL, key: string, options?: Options): Joiner;

/**
 * Perfect negotiation of the WebRTC specification, with trickle ICE: from now on whatever `pc` needs described is described to the
 * other side, and what the other side says of itself is given to `pc`. Both sides may add tracks and channels at any time, also at once.
 *
 * Sends `{type, sdp}` and `{candidate}`, and takes no notice of any other data. Never closes `pc`. Where both sides begin with an offer at
 * the same moment, the polite one answers when its first candidate is gathered, or after half a second: Chromium needs that.
 */
export function negotiate(pc: RTCPeerConnection, channel: Channel, options?: NegotiateOptions): void;

export interface NegotiateOptions {
  /** Told of descriptions and candidates that `pc` cannot use. Default: `console.error`. */
  onerror?: (error: unknown) => void;
}

export type Dialect = "v1" | "plain";

export interface Options {
  /** Speaks this one only. Left out: v1 where the server knows it, else plain. */
  dialect?: Dialect;
  /** How often in a row to try again before `closed`; 0 never tries again. Default: `Infinity`. */
  retries?: number;
  backoff?: Partial<Backoff>;
  /** To abort is to `close()`. */
  signal?: AbortSignal;
  /** A class like the browsers' `WebSocket`, where there is no global one: Node.js before 22, with the class of the package `ws`. */
  WebSocket?: WebSocketClass;
}

/** In milliseconds. Each wait is random between zero and a bound, which doubles with every failure in a row. */
export interface Backoff {
  /** The first bound after a lost connection. Default: 1,000. */
  first: number;
  /** The first bound after a refusal, or when the opener left. Default: 5,000. */
  slow: number;
  /** No bound is larger. Default: 30,000. */
  limit: number;
}

export type WebSocketClass = new (url: string, protocols: string[]) => {
  readonly protocol: string;
  send(text: string): void;
  close(code: number): void;
};

/**
 * `connecting` until the role is there for the first time, and `reconnecting` until it is there again. `closing` after `close()`,
 * until the server knows. Nothing leads out of `closed`.
 */
export type State = "connecting" | "open" | "reconnecting" | "closing" | "closed";

/** Events that come before the first listener of their type wait for it: 100 of each type. */
export interface Emits<Event extends { type: string }> {
  /** Returns a function that ends the listening. */
  on<Type extends Event["type"]>(type: Type, listener: (event: Extract<Event, { type: Type }>) => void): () => void;
}

interface Signaling<Event extends { type: string }> extends Emits<Event> {
  readonly state: State;
  /** `undefined` until the first connection is there. */
  readonly dialect: Dialect | undefined;
  /** Gives the role up, for good. Connections between peers go on. */
  close(): void;
}

export interface Opener extends Signaling<OpenerEvent> {
  /** `undefined` until `opened`, if it was left out. */
  readonly key: string | undefined;
  /** Ends a joiner's role. In plain it is an `error`; for one that is gone already it is nothing. */
  kick(peer: Peer<number>): void;
}

export interface Joiner extends Signaling<JoinerEvent> {
  readonly key: string;
}

/** What `negotiate` needs. A `Peer` is one. */
export interface Channel {
  /** In a collision of offers this side takes back its own. Of two sides one is polite. */
  readonly polite: boolean;
  send(data: object): unknown;
  on(type: "data", listener: (event: { data: unknown }) => void): unknown;
}

/** The other side: a joiner at its opener, the opener at a joiner. Who comes back after a loss is another `Peer`. */
export interface Peer<Index extends number | undefined = number | undefined> extends Emits<PeerEvent> {
  /** The joiner's number at the opener, on both sides; a plain joiner is not told its own. */
  readonly index: Index;
  /** Joiners are. */
  readonly polite: boolean;
  /**
   * Sends anything that has a JSON text, and throws a `TypeError` if there is none. False if the peer is gone.
   *
   * In plain, and to a plain peer, only objects pass, and `index` is no name for a member: it is the protocol's own. A v1 joiner sees
   * the one that a plain opener has to write.
   */
  send(data: unknown): boolean;
}

export type PeerEvent = DataEvent | LeaveEvent;

export interface DataEvent {
  type: "data";
  data: unknown;
}

/**
 * Signaling with this peer is over: it left, or was lost with the connection to the server. An `RTCPeerConnection` to it goes on.
 * A plain opener is not told of joiners that leave.
 */
export interface LeaveEvent {
  type: "leave";
  code: "left" | EndCode;
}

export type OpenerEvent = OpenedEvent | JoinEvent<number> | SignalingEvent;
export type JoinerEvent = JoinEvent<number | undefined> | SignalingEvent;
export type SignalingEvent = SignalingErrorEvent | ReconnectingEvent | ClosedEvent | SignalingMessageEvent;

/** The key is open, also again after a reconnection. In plain it means that nothing is known to the contrary. */
export interface OpenedEvent {
  type: "opened";
  key: string;
}

/** At the opener: a joiner has come. At a joiner: it has joined, and the peer is the opener. */
export interface JoinEvent<Index extends number | undefined> {
  type: "join";
  peer: Peer<Index>;
}

/** Something that was asked for was not done, or something that came was not understood. Nothing has changed. */
export interface SignalingErrorEvent {
  type: "error";
  code: ServerError["code"] | LocalErrorCode;
  message: string;
  key?: string;
  index?: number;
}

/** `malformed`: the server said what is not of the dialect. `not-in-plain`: the plain dialect has no words for it. */
export type LocalErrorCode = "malformed" | "not-in-plain";

/** The role is lost, and will be asked for again in `delay` milliseconds. */
export interface ReconnectingEvent extends End {
  type: "reconnecting";
  code: Exclude<EndCode, "done" | "kicked" | "refused">;
  delay: number;
}

/** It is over; no event follows. */
export interface ClosedEvent extends End {
  type: "closed";
}

/** A text as it went over the wire, to watch. */
export interface SignalingMessageEvent {
  type: "message";
  direction: "in" | "out";
  text: string;
}

export interface End {
  code: EndCode;
  /** The server's words, or "". */
  reason: string;
  /** The close code, if it was the socket that ended. */
  status?: number;
}

/** Why a role ended or was not given, in the same words for both dialects. */
export type EndCode =
  /** `close()` was called. */
  | "done"
  /** No connection to the server, or none any more, and it is worth trying again. */
  | "lost"
  /** Refusals of an open or a join. The first two are tried again only if this side once had the key. */
  | "key-taken" | "unknown-key" | "too-many-joiners"
  /** A joiner's opener is gone. Tried again: it may come back. */
  | "opener-left"
  | "kicked"
  /** The server closed for what this side sent; it would do so again. */
  | "refused";

// ---- sigver.v1 on the wire, for whoever writes another client ----

export type ClientMessage<Data = unknown> =
  | { type: "open"; key?: string }
  | { type: "join"; key: string }
  | { type: "send"; index?: number; data: Data }
  | { type: "kick"; index: number }
  | { type: "close" }
  | { type: "leave" };

export type ServerMessage<Data = unknown> =
  | { type: "opened"; key: string }
  | { type: "joined"; index: number }
  | { type: "join"; index: number }
  | { type: "leave"; index: number }
  /** With an `index` to an opener, without to a joiner. */
  | { type: "data"; index?: number; data: Data }
  | { type: "closed"; code: "opener-left" | "kicked" }
  | ServerError;

export type ServerError =
  | { type: "error"; code: "key-taken" | "unknown-key" | "too-many-joiners"; message: string; key: string }
  | { type: "error"; code: "unknown-index" | "not-an-object"; message: string; index?: number }
  | { type: "error"; code: "has-role" | "no-role" | "wrong-role" | "no-index"; message: string };
