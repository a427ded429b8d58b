// Checked by tsc, not run: valid and invalid uses of sigver.d.ts.

import { join, negotiate, open } from "../sigver.js";
import type {
  Channel, ClientMessage, ClosedEvent, EndCode, JoinerEvent, OpenerEvent, Options, Peer, ServerMessage,
} from "../sigver.js";

const options: Options = { dialect: "v1", retries: 3, backoff: { first: 10 }, signal: AbortSignal.timeout(1), WebSocket };
const opener = open("ws://localhost:8000", undefined, options);
const joiner = join(new URL("ws://localhost:8000"), "tea");

// ---- Calls ----

open("ws://localhost:8000");
open("ws://localhost:8000", "tea", {});
// @ts-expect-error: a joiner needs a key.
join("ws://localhost:8000");
// @ts-expect-error: a key is a string.
open("ws://localhost:8000", 5);
// @ts-expect-error: no such dialect.
open("ws://localhost:8000", "tea", { dialect: "v2" });
// @ts-expect-error: no such option.
open("ws://localhost:8000", "tea", { retry: 3 });
// @ts-expect-error: not a class.
open("ws://localhost:8000", "tea", { WebSocket: "ws" });

// ---- Events ----

const stop: () => void = opener.on("join", async ({ peer }) => {
  const index: number = peer.index;
  const sent: boolean = peer.send({ index });
  peer.on("data", ({ data }) => {
    // @ts-expect-error: received data is unknown.
    data.sdp;
  });
  peer.on("leave", ({ code }) => code === "left");
  opener.kick(peer);
  return sent;
});
stop();

opener.on("opened", ({ key }) => key.length);
opener.on("error", ({ code }) => {
  // @ts-expect-error: no such code.
  code === "taken";
});
opener.on("reconnecting", ({ code, delay, status }) => {
  const numbers: (number | undefined)[] = [delay, status];
  // @ts-expect-error: kicked clients do not reconnect.
  return code === "kicked" || numbers;
});
opener.on("message", ({ direction }) => direction === "in");
// @ts-expect-error: no such event.
opener.on("joined", () => {});
// @ts-expect-error: joiners have no such event.
joiner.on("opened", () => {});
// @ts-expect-error: joiners cannot kick.
joiner.kick;
// @ts-expect-error: read-only.
opener.state = "open";
// @ts-expect-error: an opener's key may not be generated yet.
const generated: string = opener.key;
const joined: string = joiner.key;

joiner.on("join", ({ peer }) => {
  // @ts-expect-error: a plain joiner has no index.
  const index: number = peer.index;
  // @ts-expect-error: kick requires an index.
  opener.kick(peer);
  return index;
});

function ofOpener(event: OpenerEvent): string | number {
  switch (event.type) {
    case "opened": return event.key;
    case "join": return event.peer.index;
    case "error": return event.message;
    case "reconnecting": return event.delay;
    case "closed": return event.reason;
    case "message": return event.text;
    default: return never(event);
  }
}

function ofJoiner(event: JoinerEvent): string {
  // @ts-expect-error: not every event has a code.
  event.code;
  return event.type === "closed" ? describe(event) : event.type;
}

function describe({ code }: ClosedEvent): string {
  const words: Record<EndCode, string> = {
    done: "", lost: "", "key-taken": "", "unknown-key": "", "too-many-joiners": "", "too-many-attempts": "", "opener-left": "", kicked: "",
    "taken-over": "", refused: "",
  };
  return words[code];
}

// ---- Negotiation ----

declare const pc: RTCPeerConnection;
declare const peer: Peer;
const channel: Channel = { polite: true, send: (data) => JSON.stringify(data), on: () => () => {} };

negotiate(pc, peer);
negotiate(pc, channel, { onerror: (error) => console.log(error) });
// @ts-expect-error: `polite` is required.
negotiate(pc, { send: channel.send, on: channel.on });
// @ts-expect-error: an opener is not a peer.
negotiate(pc, opener);

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

export { contentOf, joined, keyless, mistyped, indexless, ofJoiner, ofOpener, reversed, requests, typed, generated };
