// Checked by tsc, not run: valid and invalid uses of sigver.d.ts in a page, whose types have the DOM.

import * as sigver from "../../sigver.js";
import type {
  Channel, ClientMessage, ClosedEvent, EndCode, Options, Peer, PeerEvents, ServerMessage, Signaling, SignalingEvents, SignalingFailure,
} from "../../sigver.js";

const url = "ws://localhost:8000";
const options: Options = {
  dialect: "v1", retries: 3, backoff: { first: 10 }, signal: AbortSignal.timeout(1), WebSocket, id: "alice", token: "t",
  secret: "0123456789abcdef", maxMessageBytes: 1_000,
};
const opener = sigver.open(url, undefined, options);
const joiner = sigver.join(new URL(url), "tea", { wait: 10, secret: new Uint8Array(16) });
const meeter = sigver.meet(() => url, "tea", { token: async () => "fresh" });

// ---- Calls ----

sigver.open(url);
sigver.open(async () => new URL(url), "tea", {});
// @ts-expect-error: a joiner needs a key.
sigver.join(url);
// @ts-expect-error: so does a meeter.
sigver.meet(url);
// @ts-expect-error: a key is a string.
sigver.open(url, 5);
// @ts-expect-error: no such dialect.
sigver.open(url, "tea", { dialect: "v2" });
// @ts-expect-error: no such option.
sigver.open(url, "tea", { retry: 3 });
// @ts-expect-error: an opener does not wait.
sigver.open(url, "tea", { wait: 3 });
// @ts-expect-error: not a class.
sigver.open(url, "tea", { WebSocket: "ws" });
// @ts-expect-error: a token is a string.
sigver.open(url, "tea", { token: () => 5 });

// ---- Events: one `on` for all roles, whose types infer ----

const either = Math.random() < 0.5 ? sigver.open(url) : sigver.join(url, "tea");
const stop: () => void = either.on("join", async ({ peer }) => {
  const index: number | undefined = peer.index;
  const sent: boolean = peer.send({ index });
  peer.on("data", ({ data }) => {
    // @ts-expect-error: received data is unknown.
    data.sdp;
  });
  peer.once("away", ({ code }) => code === "left");
  peer.on("back", () => peer.away);
  peer.on("leave", ({ type }) => type);
  const kicked: boolean = either.kick(peer);
  return sent && kicked;
});
stop();
either.on("closed", ({ code, reason, status }) => `${code} ${reason} ${status?.toFixed()}`);
either.once("opened", ({ key }) => key.length);
either.on("joined", ({ key }) => key.length);
either.on("waiting", ({ wait }) => wait.toFixed());
either.on("error", ({ code }) => {
  // @ts-expect-error: no such code.
  code === "taken";
});
either.on("reconnecting", ({ code, delay, status }) => {
  const numbers: (number | undefined)[] = [delay, status];
  // @ts-expect-error: kicked clients do not reconnect.
  return code === "kicked" || numbers;
});
either.on("message", ({ direction }) => direction === "in");
// @ts-expect-error: no such event.
either.on("open", () => {});
// @ts-expect-error: a peer has no such event.
opener.peers[0].on("join", () => {});
// @ts-expect-error: read-only.
opener.state = "open";
// @ts-expect-error: an opener's key may not be generated yet.
const generated: string = opener.key;
const joined: string = joiner.key + meeter.key;
const ready: Promise<Signaling> = opener.ready;
const count: number = opener.broadcast({ hello: "all" });
const peers: Peer[] = either.peers;
opener.ready.catch((failure: SignalingFailure) => failure.code === "unreachable");

function ofSignaling(event: SignalingEvents[keyof SignalingEvents]): unknown {
  switch (event.type) {
    case "opened":
    case "joined": return event.key;
    case "join": return event.peer.index;
    case "waiting": return event.wait;
    case "error": return event.message;
    case "reconnecting": return event.delay;
    case "closed": return describe(event);
    case "message": return event.text;
    default: return never(event);
  }
}

function ofPeer(event: PeerEvents[keyof PeerEvents]): unknown {
  switch (event.type) {
    case "data": return event.data;
    case "away": return event.code;
    case "back":
    case "leave": return event.type;
    default: return never(event);
  }
}

function describe({ code }: ClosedEvent): string {
  const words: Record<EndCode, string> = {
    done: "", lost: "", unreachable: "", rejected: "", "key-taken": "", "unknown-key": "", "too-many-joiners": "", "too-many-attempts": "",
    "not-allowed": "", "token-expired": "", "opener-left": "", kicked: "", "taken-over": "", refused: "",
  };
  return words[code];
}

// ---- Negotiation ----

declare const pc: RTCPeerConnection;
declare const peer: Peer;
const channel: Channel = { polite: true, send: (data) => JSON.stringify(data), on: () => () => {} };

const negotiation = sigver.negotiate(pc, peer);
negotiation.attach(peer);
negotiation.stop();
sigver.negotiate(pc, channel, { onerror: (error) => console.log(error) });
// @ts-expect-error: `polite` is required.
sigver.negotiate(pc, { send: channel.send, on: channel.on });
// @ts-expect-error: an opener is not a peer.
sigver.negotiate(pc, opener);
// @ts-expect-error: not a connection.
sigver.negotiate({}, peer);

// ---- sigver.v1 on the wire ----

const requests: ClientMessage[] = [
  { type: "open" }, { type: "open", key: "tea" }, { type: "join", key: "tea" }, { type: "send", index: 0, data: null },
  { type: "send", data: [] }, { type: "kick", index: 0 }, { type: "close" }, { type: "leave" }, { type: "ping" },
  { type: "open", key: "tea", token: "5f0e", id: "alice" }, { type: "join", key: "tea", wait: 60 }, { type: "meet", key: "tea" },
];
const typed: ClientMessage<{ sdp: string }> = { type: "send", data: { sdp: "" } };
// @ts-expect-error: the data is of another type.
const mistyped: ClientMessage<{ sdp: string }> = { type: "send", data: { sdp: 0 } };
// @ts-expect-error: no key.
const keyless: ClientMessage = { type: "join" };
// @ts-expect-error: no index.
const indexless: ClientMessage = { type: "kick" };
// @ts-expect-error: a message from the server.
const reversed: ClientMessage = { type: "opened", key: "tea" };

function contentOf(message: ServerMessage<string>): string | number | undefined {
  switch (message.type) {
    case "opened": return message.key;
    case "waiting": return message.wait;
    case "reopened": return message.id;
    case "pong": return undefined;
    case "joined":
    case "join":
    case "leave": return message.index;
    case "data": return message.data;
    case "closed": return message.code;
    case "error": return message.code === "key-taken" ? message.key : message.message;
    default: return never(message);
  }
}

function never(nothing: never): never {
  throw nothing;
}

export {
  contentOf, count, generated, indexless, joined, keyless, mistyped, ofPeer, ofSignaling, peers, ready, requests, reversed, typed,
};
