// Types and documentation of sigver.js. PROTOCOL.md defines the dialects and codes.

/**
 * Opens a key. Emits `join` for each joiner. If `key` is omitted, a key that is hard to guess is generated, by the server in v1 and by the
 * client in plain, and is passed with `opened`. After a reconnect, the same key is opened again. In v1, the server reserves it for this side
 * for a while.
 *
 * Returns immediately. Throws the errors of `new WebSocket(url)`, and a `TypeError` for invalid arguments.
 */
export function open(url: string | URL, key?: string, options?: Options): Opener;

/** Joins a key. Emits `join` with the opener as the peer. Returns and throws like `open`. */
export function join(url: string | URL, key: string, options?: Options): Joiner;

/**
 * Implements the perfect negotiation of the WebRTC specification, with trickle ICE: sends descriptions and candidates of `pc` to the other
 * side, and applies those that it receives. Both sides may add tracks and channels at any time, even at the same time.
 *
 * Sends `{type, sdp}` and `{candidate}`, and ignores any other data. Does not close `pc`. If both sides make their first offer at the same
 * time, the polite side answers after it has gathered its first candidate, or after half a second, to work around a bug in Chromium.
 */
export function negotiate(pc: RTCPeerConnection, channel: Channel, options?: NegotiateOptions): void;

export interface NegotiateOptions {
  /** Called if `pc` rejects a description or candidate. Default: `console.error`. */
  onerror?: (error: unknown) => void;
}

export type Dialect = "v1" | "plain";

export interface Options {
  /** The only dialect to use. Default: v1 if the server supports it, else plain. */
  dialect?: Dialect;
  /** Maximum number of consecutive retries before `closed`. 0 disables retries. Default: `Infinity`. */
  retries?: number;
  backoff?: Partial<Backoff>;
  /** Calls `close()` when aborted. */
  signal?: AbortSignal;
  /** A class with the interface of the browsers' `WebSocket`. Default: the global one. Node.js before 22 has none; use that of the package `ws`. */
  WebSocket?: WebSocketClass;
}

/** Delays between retries, in milliseconds. Each delay is random between zero and a bound, which doubles with each consecutive failure. */
export interface Backoff {
  /** The first bound after a lost connection. Default: 1,000. */
  first: number;
  /** The first bound after a refusal, or after the opener left. Default: 5,000. */
  slow: number;
  /** The maximum bound. Default: 30,000. */
  limit: number;
}

export type WebSocketClass = new (url: string, protocols: string[]) => {
  readonly protocol: string;
  send(text: string): void;
  close(code: number): void;
};

/**
 * `connecting` until the first role is accepted, `reconnecting` until it is accepted again, `closing` after `close()` until the connection is
 * closed. `closed` is final.
 */
export type State = "connecting" | "open" | "reconnecting" | "closing" | "closed";

/** Events without a listener are queued for the first listener of their type, up to 100 per type. */
export interface Emits<Event extends { type: string }> {
  /** Adds a listener. Returns a function that removes it. */
  on<Type extends Event["type"]>(type: Type, listener: (event: Extract<Event, { type: Type }>) => void): () => void;
}

interface Signaling<Event extends { type: string }> extends Emits<Event> {
  readonly state: State;
  /** `undefined` until the first connection is open. */
  readonly dialect: Dialect | undefined;
  /** Ends signaling. Connections between peers continue. */
  close(): void;
}

export interface Opener extends Signaling<OpenerEvent> {
  /** `undefined` until `opened`, if no key was passed. */
  readonly key: string | undefined;
  /** Ends a joiner's role. In plain, emits an `error`. Does nothing if the joiner has left. */
  kick(peer: Peer<number>): void;
}

export interface Joiner extends Signaling<JoinerEvent> {
  readonly key: string;
}

/** The channel that `negotiate` requires. A `Peer` is one. */
export interface Channel {
  /** If offers collide, the polite side rolls back its own. Exactly one side must be polite. */
  readonly polite: boolean;
  send(data: object): unknown;
  on(type: "data", listener: (event: { data: unknown }) => void): unknown;
}

/** The other side: a joiner for its opener, the opener for a joiner. After a reconnect, it is a new `Peer`. */
export interface Peer<Index extends number | undefined = number | undefined> extends Emits<PeerEvent> {
  /** The joiner's index, on both sides. `undefined` for a plain joiner, which does not receive its index. */
  readonly index: Index;
  /** True for joiners. */
  readonly polite: boolean;
  /**
   * The STUN and TURN servers that the operator of the server has configured, for the `iceServers` of an `RTCPeerConnection` to this peer.
   * Credentials in it expire, so use it at once. Empty in plain.
   */
  readonly iceServers: IceServer[];
  /**
   * Sends any value that can be serialized as JSON. Throws a `TypeError` if it cannot. Returns false if the peer has left.
   *
   * In plain, and to a plain peer, data must be an object, and must not have a member `index`, which the protocol uses. A v1 joiner receives
   * the `index` that a plain opener must write.
   */
  send(data: unknown): boolean;
}

/** An `RTCIceServer`. */
export interface IceServer {
  urls: string[];
  username?: string;
  credential?: string;
}

export type PeerEvent = DataEvent | LeaveEvent;

export interface DataEvent {
  type: "data";
  data: unknown;
}

/**
 * Signaling with this peer has ended: it left, or the connection to the server was lost. An `RTCPeerConnection` to it is not affected.
 * A plain opener does not receive this event for joiners that leave.
 */
export interface LeaveEvent {
  type: "leave";
  code: "left" | EndCode;
}

export type OpenerEvent = OpenedEvent | JoinEvent<number> | SignalingEvent;
export type JoinerEvent = JoinEvent<number | undefined> | SignalingEvent;
export type SignalingEvent = SignalingErrorEvent | ReconnectingEvent | ClosedEvent | SignalingMessageEvent;

/** The key is open. Emitted again after a reconnect. In plain, it means only that the open was sent. */
export interface OpenedEvent {
  type: "opened";
  key: string;
}

/** For the opener: a joiner has joined. For a joiner: it has joined, and the peer is the opener. */
export interface JoinEvent<Index extends number | undefined> {
  type: "join";
  peer: Peer<Index>;
}

/** A request was refused, or a message from the server was invalid. The state has not changed. */
export interface SignalingErrorEvent {
  type: "error";
  code: ServerError["code"] | LocalErrorCode;
  message: string;
  key?: string;
  index?: number;
}

/** `malformed`: a message from the server is invalid. `not-in-plain`: the plain dialect does not support the request. */
export type LocalErrorCode = "malformed" | "not-in-plain";

/** The role was lost or refused. It is requested again after `delay` milliseconds. */
export interface ReconnectingEvent extends End {
  type: "reconnecting";
  code: Exclude<EndCode, "done" | "kicked" | "taken-over" | "refused">;
  delay: number;
}

/** Signaling has ended. No event follows. */
export interface ClosedEvent extends End {
  type: "closed";
}

/** A text that was sent or received, for debugging. */
export interface SignalingMessageEvent {
  type: "message";
  direction: "in" | "out";
  text: string;
}

export interface End {
  code: EndCode;
  /** The text of the server, or "". */
  reason: string;
  /** The close code, if the connection was closed. */
  status?: number;
}

/** Why a role ended or was refused. Both dialects have the same codes. */
export type EndCode =
  /** `close()` was called. */
  | "done"
  /** The connection to the server failed or was lost. Retried. */
  | "lost"
  /** An open or a join was refused. The first two are retried only if this side has had the key before. */
  | "key-taken" | "unknown-key" | "too-many-joiners"
  /** This side, or its address, has made too many attempts at keys. Retried. */
  | "too-many-attempts"
  /** The opener left. Retried, because it may return. */
  | "opener-left"
  | "kicked"
  /** Another connection took the key over with the token of this one. Not retried. */
  | "taken-over"
  /** The server closed the connection because of an invalid message from this side, or for a reason unknown to `sigver.js`. Not retried. */
  | "refused";

// ---- Messages of sigver.v1, for other clients ----

export type ClientMessage<Data = unknown> =
  | { type: "open"; key?: string; token?: string; id?: string }
  /** `wait`: seconds. */
  | { type: "join"; key: string; wait?: number; id?: string }
  | { type: "meet"; key: string; token?: string; id?: string }
  | { type: "send"; index?: number; data: Data }
  | { type: "kick"; index: number }
  | { type: "close" }
  | { type: "leave" }
  | { type: "ping" };

/** The ICE servers for one side of a pairing; credentials are valid for `ttl` seconds. */
export interface Ice {
  servers: IceServer[];
  ttl?: number;
}

export type ServerMessage<Data = unknown> =
  /** `joiners` is present after a takeover with a `token`, if there are joiners. */
  | { type: "opened"; key: string; token?: string; joiners?: { index: number; id?: string; ice?: Ice }[] }
  | { type: "waiting"; key: string; wait: number }
  /** `id` is that of the opener, here and in `reopened`. */
  | { type: "joined"; index: number; id?: string; ice?: Ice }
  | { type: "join"; index: number; id?: string; ice?: Ice }
  | { type: "leave"; index: number }
  /** Has an `index` if sent to an opener, none if sent to a joiner. */
  | { type: "data"; index?: number; data: Data }
  /** For a joiner: another connection has taken the opener's role over. */
  | { type: "reopened"; id?: string }
  | { type: "closed"; code: "opener-left" | "kicked" | "taken-over" }
  | { type: "pong" }
  | ServerError;

export type ServerError =
  | { type: "error"; code: "key-taken" | "unknown-key" | "too-many-joiners" | "too-many-attempts"; message: string; key: string }
  | { type: "error"; code: "unknown-index" | "not-an-object"; message: string; index?: number }
  | { type: "error"; code: "has-role" | "no-role" | "wrong-role" | "no-index"; message: string };
