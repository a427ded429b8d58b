// Types and documentation of sigver.js. PROTOCOL.md of the server defines the dialects and codes. No type of the DOM library is needed.

/**
 * Opens a key. Emits `join` for each joiner. If `key` is omitted, a key that is hard to guess is generated, by the server in v1 and by the
 * client in plain, and is passed with `opened`.
 *
 * Returns immediately. Throws the errors of `new WebSocket(url)`, and a `TypeError` for invalid arguments.
 */
export function open(url: Url, key?: string, options?: Options): Signaling;

/** Joins a key. Emits `join` with the opener as the peer. Returns and throws like `open`. */
export function join(url: Url, key: string, options?: JoinOptions): Signaling & WithKey;

/**
 * Opens the key if nobody has it open, otherwise joins it: for peers that have not agreed on who opens the key. When the opener leaves, the
 * others meet again, and one of them becomes the opener. Requires v1. Returns and throws like `open`.
 */
export function meet(url: Url, key: string, options?: Options): Signaling & WithKey;

/**
 * Implements the perfect negotiation of the WebRTC specification, with trickle ICE: sends descriptions and candidates of `pc` to the peer, and
 * applies those that it receives. Both sides may add tracks and channels at any time, even at the same time, and while the server is away: what
 * could not be sent is sent when the peer is back. Restarts ICE when it has failed. Adds `peer.iceServers` to
 * the configuration of `pc` when ICE begins and when it is restarted.
 *
 * Sends `{type, sdp}` and `{candidate}`, and ignores any other data. Does not close `pc`. If both sides make their first offer at the same
 * time, the polite side answers after it has gathered its first candidate, or after half a second, to work around a bug in Chromium.
 */
export function negotiate(pc: PeerConnection, peer: Channel, options?: NegotiateOptions): Negotiation;

export interface NegotiateOptions {
  /** Called if `pc` rejects a description or candidate, or if a description is too large to send. Default: `console.error`. */
  onerror?: (error: any) => void;
  /**
   * Called once when the connection will not come back. Close it, and forget the peer: if it returns, it is another `Peer`. Either the
   * connection has failed for ten seconds while the peer is away, or it is down and the peer emits `leave`, or the peer has another connection
   * now, as after a reload; then `join` follows. Not called for a connection that this side closes.
   */
  onend?: () => void;
}

export interface Negotiation {
  /** Ends the negotiation. The connection stays as it is. */
  stop(): void;
  /** Continues with another channel, for example with the new `Peer` of a plain opener that is back. Sends a pending offer again. */
  attach(peer: Channel): void;
}

export type Dialect = "v1" | "plain";

/** A value, or a function that is called before each attempt to connect. */
export type Provided<Value> = Value | (() => Value | Promise<Value>);

/** An address with the scheme `ws:` or `wss:`: a string or a `URL`. */
export type Url = Provided<string | { readonly href: string }>;

export interface Options {
  /** The bearer token for a server that requires one. Use a function if tokens expire. */
  token?: Provided<string | undefined>;
  /**
   * Seals signaling end to end: a server that does not have the secret cannot read or change what peers send. Both sides need the same secret,
   * of at least 16 random bytes: a string, which counts in UTF-8, or bytes. Never send it to the server.
   */
  secret?: string | Uint8Array;
  /**
   * The name by which peers recognize this side after a reconnect: 1 to 64 bytes of UTF-8. It is neither checked nor secret. Default: random.
   * If you set it, use another one after each reload of the page, because its connections are gone then.
   */
  id?: string;
  /**
   * The `takeoverToken` of a `Signaling` that had the key open before, for example before a reload of the page. If the server does not know yet that
   * its connection is lost, `open` and `meet` take the key over, instead of being refused with `key-taken`. Whoever has the token can do so:
   * keep it in `sessionStorage`, and show it to nobody. Not in plain.
   */
  takeoverToken?: string | null;
  /** The only dialect to use. Default: v1 if the server supports it, else plain. */
  dialect?: Dialect;
  /** Maximum number of consecutive retries before `closed`. 0 disables retries. Default: 8 before the first success, then no limit. */
  retries?: number;
  backoff?: Partial<Backoff>;
  /** Maximum size of a message in bytes, envelope included: `send` throws if it is exceeded. Default: 65,536, the limit of the server. */
  maxMessageBytes?: number;
  /** Calls `close()` when aborted. */
  signal?: Signal;
  /** A class with the interface of the browsers' `WebSocket`. Default: the global one. Node.js before 22 has none; use that of the package `ws`. */
  WebSocket?: WebSocketClass;
}

export interface JoinOptions extends Options {
  /**
   * Seconds to wait at first if nobody has the key open, at most 120. Default: 0, which ends with `unknown-key` at once. After a reconnect, a joiner
   * waits for as long as it takes. Not in plain.
   */
  wait?: number;
}

/**
 * Delays between retries, in milliseconds. Each delay is random between zero and a bound: the time since the first failure with the same
 * cause, but at least `first` or `slow`, and at most `limit`.
 */
export interface Backoff {
  /** After a lost connection. Default: 1,000. */
  first: number;
  /** After a refusal. Default: 5,000. */
  slow: number;
  /** Default: 30,000. */
  limit: number;
}

/** An `AbortSignal`. */
export interface Signal {
  readonly aborted: boolean;
  addEventListener(type: "abort", listener: () => void): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

export type WebSocketClass = new (url: string, protocols: string[]) => {
  readonly protocol: string;
  send(text: string): void;
  close(code: number): void;
};

/**
 * `connecting` at first, `reconnecting` after a failed attempt or a lost role until the role is accepted, `closing` after `close()` for at most
 * two seconds. `closed` is final.
 */
export type State = "connecting" | "open" | "reconnecting" | "closing" | "closed";

/** Events without a listener are queued for the first listener of their type, up to 100 per type; not `message`. */
export interface Emits<Events> {
  /** Adds a listener. Returns a function that removes it. */
  on<Type extends keyof Events>(type: Type, listener: (event: Events[Type]) => void): () => void;
  /** Adds a listener for one event. Returns a function that removes it. */
  once<Type extends keyof Events>(type: Type, listener: (event: Events[Type]) => void): () => void;
}

/** One role on one key. The role is kept over reconnects. */
export interface Signaling extends Emits<SignalingEvents> {
  readonly state: State;
  /** `undefined` until the first role is accepted. It may change only for `meet`. */
  readonly role: "opener" | "joiner" | undefined;
  /** `undefined` until `opened`, if no key was passed to `open`. */
  readonly key: string | undefined;
  /** The name by which peers recognize this side. */
  readonly id: string;
  /** For the option of this name. `undefined` if this side is not the opener, and in plain. Changes with each `opened`. */
  readonly takeoverToken: string | undefined;
  /** `undefined` until the first connection is open. */
  readonly dialect: Dialect | undefined;
  /** The peers that have joined and not left, also those that are away. Empty when `closed`. */
  readonly peers: Peer[];
  /** Resolves when the role is accepted for the first time. Rejects with a `SignalingFailure` if `closed` comes first. */
  readonly ready: Promise<this & WithKey>;
  /** Sends to all peers that are not away. Returns their number. Throws like `Peer.send`. */
  broadcast(data: unknown): number;
  /** Ends a joiner's role. Returns false if this side is not the opener, if the joiner has left, and in plain. */
  kick(peer: Peer): boolean;
  /** Ends signaling. Connections between peers continue. `closed` follows within two seconds. */
  close(): void;
}

export interface WithKey {
  readonly key: string;
}

/** The error of `ready`. */
export interface SignalingFailure extends Error, End {}

/** The channel that `negotiate` requires. A `Peer` is one. */
export interface Channel {
  /** If offers collide, the polite side rolls back its own. Exactly one side must be polite. */
  readonly polite: boolean;
  readonly iceServers?: readonly IceServer[];
  /** True if the other side cannot be reached at the moment. */
  readonly away?: boolean;
  /** May lose data if the other side is away, and must emit `back` later. */
  send(data: object): unknown;
  /** Returns a function that removes the listener. A channel may emit `data` and `back` only. */
  on(type: "data" | "back" | "away" | "leave", listener: (event: any) => unknown): unknown;
}

/** The other side: a joiner for its opener, the opener for a joiner. In v1, it is the same object after a reconnect of either side. */
export interface Peer extends Emits<PeerEvents> {
  /** The name that the peer has given itself. It is not authenticated. `undefined` in plain. */
  readonly id: string | undefined;
  /** The joiner's index, on both sides. May change when the peer is back. `undefined` for a plain joiner, which does not receive its index. */
  readonly index: number | undefined;
  /** Whether this side is the polite one. Joiners are. */
  readonly polite: boolean;
  /** True if the peer cannot be reached through the server at the moment. */
  readonly away: boolean;
  /**
   * The STUN and TURN servers that the operator of the server has configured. `negotiate` uses them. Their credentials expire, and are new when
   * the peer is back. Empty in plain.
   */
  readonly iceServers: IceServer[];
  /**
   * Sends any value that can be serialized as JSON. Throws a `TypeError` if it cannot, and a `RangeError` if it is larger than
   * `maxMessageBytes`. Returns false if the peer is away: nothing is queued for it.
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

/** The part of an `RTCPeerConnection` that `negotiate` uses. */
export interface PeerConnection {
  readonly signalingState: string;
  readonly iceConnectionState: string;
  readonly connectionState?: string;
  readonly localDescription: { readonly type: string; toJSON(): any } | null;
  readonly remoteDescription: { readonly sdp: string } | null;
  setLocalDescription(): Promise<void>;
  setRemoteDescription(description: any): Promise<void>;
  addIceCandidate(candidate?: any): Promise<void>;
  restartIce(): void;
  getConfiguration(): { iceServers?: any[] };
  setConfiguration?(configuration: any): void;
  addEventListener(type: any, listener: (event: any) => void, options?: any): void;
  removeEventListener(type: any, listener: (event: any) => void): void;
}

export interface PeerEvents {
  data: DataEvent;
  away: AwayEvent;
  back: BackEvent;
  leave: LeaveEvent;
}

export interface DataEvent {
  type: "data";
  data: unknown;
}

/**
 * The peer cannot be reached through the server: it has left, or it or this side has lost the connection to the server. An `RTCPeerConnection` to
 * it is not affected. A plain opener does not receive this event for joiners that leave.
 */
export interface AwayEvent {
  type: "away";
  code: "left" | EndCode;
}

/**
 * The peer can be reached again, or has replaced its connection to the server. Messages may have been lost meanwhile. `negotiate` sends again what it
 * has to.
 */
export interface BackEvent {
  type: "back";
}

/**
 * The peer has been away for two minutes, while this side was connected; or it was away and has no `id`; or `negotiate` has ended. No event
 * follows: if it returns, it is another `Peer`. An `RTCPeerConnection` to it is not affected.
 */
export interface LeaveEvent {
  type: "leave";
}

export interface SignalingEvents {
  opened: OpenedEvent;
  joined: JoinedEvent;
  join: JoinEvent;
  waiting: WaitingEvent;
  error: SignalingErrorEvent;
  reconnecting: ReconnectingEvent;
  closed: ClosedEvent;
  message: SignalingMessageEvent;
}

/** This side has opened the key. Emitted again after a reconnect. In plain, it means only that the open was sent. */
export interface OpenedEvent {
  type: "opened";
  key: string;
}

/** This side has joined the key. Emitted again after a reconnect. In plain, it means only that the join was sent. */
export interface JoinedEvent {
  type: "joined";
  key: string;
}

/** A peer is here that was not here before. It is emitted once for each `Peer`, not again when it is back. */
export interface JoinEvent {
  type: "join";
  peer: Peer;
}

/** Nobody has the key open. `joined` follows when somebody opens it. */
export interface WaitingEvent {
  type: "waiting";
  /** The seconds for which the server waits. */
  wait: number;
}

/**
 * A request was refused, or a message was invalid; the state has not changed. If the server cannot be reached (`unreachable`) or rejects the
 * handshake (`rejected`), `closed` follows.
 */
export interface SignalingErrorEvent {
  type: "error";
  code: ServerError["code"] | LocalErrorCode;
  message: string;
  key?: string;
  index?: number;
}

/**
 * `malformed`: a message from the server is invalid. `not-in-plain`: the plain dialect does not support the request. `not-sealed`: a message from a
 * peer was dropped, because it is not sealed with the same secret, or was changed or replayed.
 */
export type LocalErrorCode = "malformed" | "not-in-plain" | "not-sealed" | "unreachable" | "rejected";

/** The connection or the role was lost or refused. It is requested again after `delay` milliseconds. */
export interface ReconnectingEvent extends End {
  type: "reconnecting";
  code: Exclude<EndCode, "done" | "kicked" | "taken-over" | "refused" | "unreachable" | "rejected" | "not-allowed">;
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
  /** The text of the server, or of this client if the server has sent none, or "". */
  reason: string;
  /** The close code of the connection, or the HTTP status of a rejected handshake, where the runtime shows it. */
  status?: number;
}

/** Why a role ended or was refused. Both dialects have the same codes. */
export type EndCode =
  /** `close()` was called. */
  | "done"
  /** The connection to the server failed or was lost. Retried. */
  | "lost"
  /** As `lost`, but this side has never been connected, and the retries are used up. In a browser, the token or the origin may be wrong. */
  | "unreachable"
  /** The server, or a proxy, has rejected the handshake: `status` 401 is a wrong token, 403 a wrong origin, 431 too many cookies. */
  | "rejected"
  /** Another client has the key. Retried for 105 seconds if this side has had it before. */
  | "key-taken"
  /** Nobody has the key open. Retried if this side has had it before, and by `meet`. */
  | "unknown-key"
  /** The key has as many joiners as the server allows. Retried. */
  | "too-many-joiners"
  /** This side, or its address, has made too many attempts at keys. Retried. */
  | "too-many-attempts"
  /** The token does not allow this role at this key. */
  | "not-allowed"
  /** The token has expired. Retried if `token` or `url` is a function. */
  | "token-expired"
  /** The opener left. Retried, because it may return. */
  | "opener-left"
  | "kicked"
  /** Another connection took the key over with the takeover token of this one. */
  | "taken-over"
  /** The server closed the connection because of an invalid message from this side, or for a reason unknown to `sigver.js`. */
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
  | { type: "closed"; code: "opener-left" | "kicked" | "taken-over" | "token-expired" }
  | { type: "pong" }
  | ServerError;

export type ServerError =
  | { type: "error"; code: "key-taken" | "unknown-key" | "too-many-joiners" | "too-many-attempts"; message: string; key: string }
  | { type: "error"; code: "not-allowed"; message: string; key?: string }
  | { type: "error"; code: "unknown-index" | "not-an-object"; message: string; index?: number }
  | { type: "error"; code: "has-role" | "no-role" | "wrong-role" | "no-index"; message: string };
