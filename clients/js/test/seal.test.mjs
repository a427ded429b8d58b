// Tests sealing against known answers of another implementation, and against a server that changes, replays and reflects messages.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterEach, mock, test } from "node:test";
import * as sigver from "../sigver.js";
import { next, received } from "./events.mjs";
import { FakeSocket, settled } from "./fake-socket.mjs";

const { nonces, vectors } = JSON.parse(readFileSync(new URL("seal-vectors.json", import.meta.url), "utf8"));
const SECRET = "sixteen bytes or more";

/** Web Crypto works in other threads. This counts what it has not finished. */
let working = 0;
for (const name of ["importKey", "deriveKey", "encrypt", "decrypt"]) {
  const original = crypto.subtle[name].bind(crypto.subtle);
  crypto.subtle[name] = async (...args) => {
    working += 1;
    try {
      return await original(...args);
    } finally {
      working -= 1;
    }
  };
}

const started = [];
afterEach(() => {
  started.splice(0).forEach(({ signaling, socket }) => {
    signaling.close();
    socket.end(1000);
  });
});

/** Waits until everything that was sent or received is sealed or opened. */
async function worked() {
  do await settled();
  while (working > 0);
}

/** One side, connected to a server that the test plays. */
async function side(role, options) {
  const signaling = sigver[role === "opener" ? "open" : "join"]("ws://fake", options.key ?? "tea", { WebSocket: FakeSocket, id: role, ...options });
  const socket = FakeSocket.last;
  started.push({ signaling, socket });
  socket.open();
  if (role === "opener") {
    socket.receive({ type: "opened", key: options.key ?? "tea", token: "t" });
    socket.receive({ type: "join", index: 0, id: "joiner" });
  } else {
    socket.receive({ type: "joined", index: 0, id: "opener" });
  }
  const { peer } = await next(signaling, "join");
  const place = role === "opener" ? { index: 0 } : {};
  return {
    signaling, peer, socket,
    relay: (data) => socket.receive({ type: "data", ...place, data }),
    data: () => received(peer, "data").map(({ data }) => data),
    errors: () => received(signaling, "error").map(({ code }) => code),
    sent: () => socket.sent.splice(0).filter(({ type }) => type === "send").map(({ data }) => data),
  };
}

/** Two sides that have exchanged their nonces. */
async function pair(options = { secret: SECRET }) {
  const [opener, joiner] = [await side("opener", options), await side("joiner", options)];
  for (const [from, to] of [[opener, joiner], [joiner, opener]]) from.sent().forEach(to.relay);
  return [opener, joiner];
}

/** Delivers all that was sent, and returns it. */
async function relayed(from, to) {
  await worked();
  const messages = from.sent();
  messages.forEach(to.relay);
  await worked();
  return messages;
}

for (const { secret, key, from, messages } of vectors) {
  test(`known answers: ${key}, from the ${from}`, async () => {
    const mine = (role) => {
      const fixed = Buffer.from(nonces[role], "base64");
      return mock.method(crypto, "getRandomValues", (array) => (array.set(fixed), array));
    };
    const other = from === "opener" ? "joiner" : "opener";
    let fixed = mine(from);
    const sender = await side(from, { secret, key });
    fixed.mock.restore();
    fixed = mine(other);
    const recipient = await side(other, { secret, key });
    fixed.mock.restore();

    assert.deepEqual(sender.sent(), [{ sealed: { nonce: nonces[from] } }]);
    sender.relay({ sealed: { nonce: nonces[other] } });
    recipient.relay({ sealed: { nonce: nonces[from] } });
    messages.slice(0, 2).forEach(({ data }) => sender.peer.send(JSON.parse(data)));
    await worked();
    assert.deepEqual(sender.sent(), messages.slice(0, 2).map(({ counter, box }) => ({ sealed: { counter, box } })));

    for (const { counter, box } of messages) recipient.relay({ sealed: { counter, box } });
    await worked();
    assert.deepEqual(recipient.data(), messages.map(({ data }) => JSON.parse(data)));
    assert.deepEqual(recipient.errors(), []);
  });
}

test("sealed messages arrive in order, and the server sees no content", async () => {
  const [opener, joiner] = await pair();
  for (let number = 0; number < 20; number += 1) joiner.peer.send({ private: number });
  opener.peer.send("reply");
  const seen = [...(await relayed(joiner, opener)), ...(await relayed(opener, joiner))];
  assert.deepEqual(opener.data(), Array.from({ length: 20 }, (_, number) => ({ private: number })));
  assert.deepEqual(joiner.data(), ["reply"]);
  assert.equal(seen.length, 21);
  assert(!/private|reply/.test(JSON.stringify(seen)));
});

test("messages sent before the nonce of the peer are sealed when it arrives", async () => {
  const [opener, joiner] = [await side("opener", { secret: SECRET }), await side("joiner", { secret: SECRET })];
  assert.equal(joiner.peer.send("early"), true);
  opener.sent().forEach(joiner.relay);
  await relayed(joiner, opener);
  assert.deepEqual(opener.data(), ["early"]);
});

test("replayed message is refused", async () => {
  const [opener, joiner] = await pair();
  ["first", "second"].forEach((data) => joiner.peer.send(data));
  const messages = await relayed(joiner, opener);
  messages.forEach(opener.relay);
  await worked();
  assert.deepEqual([opener.data(), opener.errors()], [["first", "second"], ["not-sealed", "not-sealed"]]);
});

test("reflected message and reflected nonce are refused", async () => {
  const [opener, joiner] = await pair();
  joiner.peer.send("mine");
  (await relayed(joiner, opener)).forEach(joiner.relay);
  await worked();
  assert.deepEqual([joiner.data(), joiner.errors()], [[], ["not-sealed"]]);

  const alone = await side("joiner", { secret: SECRET });
  alone.peer.send("to itself");
  alone.sent().forEach(alone.relay);
  await worked();
  assert.deepEqual([alone.sent(), alone.errors()], [[], ["not-sealed"]]);
});

test("changed, unsealed and malformed messages are refused", async () => {
  const [opener, joiner] = await pair();
  joiner.peer.send({ type: "offer", sdp: "v=0" });
  await worked();
  const [{ sealed }] = joiner.sent();
  const changed = Buffer.from(sealed.box, "base64");
  changed[0] ^= 1;
  const wrong = [
    { sealed: { ...sealed, box: changed.toString("base64") } }, { sealed: { ...sealed, counter: 1 } }, { sealed: { ...sealed, counter: -1 } },
    { sealed: { ...sealed, counter: "0" } }, { sealed: { counter: 0 } }, { sealed: { counter: 0, box: "%" } }, { sealed: {} }, { sealed: { nonce: 5 } },
    { sealed: { nonce: "short" } }, { sealed: 5 }, { type: "offer", sdp: "v=0" }, null, "text",
  ];
  wrong.forEach(opener.relay);
  await worked();
  assert.deepEqual([opener.data(), opener.errors()], [[], wrong.map(() => "not-sealed")]);
  opener.relay({ sealed });
  await worked();
  assert.deepEqual(opener.data(), [{ type: "offer", sdp: "v=0" }], "the message itself is still accepted");
});

test("another secret, key or pairing opens nothing", async () => {
  for (const [mine, theirs] of [[{ secret: SECRET }, { secret: "another secret of 16 bytes" }], [{ secret: SECRET }, { secret: SECRET, key: "coffee" }]]) {
    const [opener, joiner] = [await side("opener", mine), await side("joiner", theirs)];
    for (const [from, to] of [[opener, joiner], [joiner, opener]]) from.sent().forEach(to.relay);
    joiner.peer.send("private");
    await relayed(joiner, opener);
    assert.deepEqual([opener.data(), opener.errors()], [[], ["not-sealed"]]);
  }

  const [opener, joiner] = await pair();
  joiner.peer.send("of the first pairing");
  const recorded = await relayed(joiner, opener);
  const [later] = await pair();
  recorded.forEach(later.relay);
  await worked();
  assert.deepEqual([later.data(), later.errors()], [[], ["not-sealed"]]);
});

test("peer without a secret delivers nothing that is sealed", async () => {
  const [opener, joiner] = [await side("opener", {}), await side("joiner", { secret: SECRET })];
  await relayed(joiner, opener);
  assert.deepEqual([opener.data(), opener.errors()], [[], ["not-sealed"]]);
  opener.peer.send("not sealed");
  await relayed(opener, joiner);
  assert.deepEqual([joiner.data(), joiner.errors()], [[], ["not-sealed"]]);
});

test("both sides use new nonces after a reconnect, and messages of the previous connection are dropped", async () => {
  const [opener, joiner] = await pair();
  joiner.peer.send("before");
  await worked();
  const [late] = joiner.sent();
  // The opener has taken its role over.
  joiner.socket.receive({ type: "reopened", id: "opener" });
  opener.socket.receive({ type: "leave", index: 0 });
  opener.socket.receive({ type: "join", index: 0, id: "joiner" });
  opener.relay(late);
  const [greeting] = joiner.sent();
  opener.relay(greeting);
  opener.sent().forEach(joiner.relay);
  joiner.peer.send("after");
  opener.peer.send("after, too");
  await relayed(joiner, opener);
  await relayed(opener, joiner);
  assert.deepEqual([opener.data(), joiner.data()], [["after"], ["after, too"]]);
  assert.deepEqual([opener.errors(), joiner.errors()], [[], []]);
});

test("peer that sends another nonce gets new keys, and a nonce that was used gets none", async () => {
  const [opener, joiner] = [await side("opener", { secret: SECRET }), await side("joiner", { secret: SECRET })];
  const [first] = joiner.sent();
  opener.relay(first);
  joiner.socket.receive({ type: "reopened", id: "opener" });
  joiner.sent().forEach(opener.relay);
  opener.sent().forEach(joiner.relay);
  await worked();
  assert.equal(received(opener.peer, "back").length, 1, "what was sealed for the first nonce is lost");
  joiner.peer.send("hello");
  opener.peer.send("hello, too");
  await relayed(joiner, opener);
  const [box] = await relayed(opener, joiner);
  assert.deepEqual([opener.data(), joiner.data(), opener.errors()], [["hello"], ["hello, too"], []]);

  // With the first keys and the first counter again, AES-GCM would be broken.
  opener.relay(first);
  opener.peer.send("hello, too");
  await worked();
  const [again] = opener.sent();
  assert.deepEqual(opener.errors(), ["not-sealed"]);
  assert.deepEqual([box.sealed.counter, again.sealed.counter], [0, 1]);
  for (let number = 0; number < 10; number += 1) opener.relay({ sealed: { nonce: Buffer.alloc(16, number).toString("base64") } });
  await worked();
  assert(opener.errors().length > 0, "the number of nonces is limited");
});

test("last message before a peer leaves is delivered", async () => {
  const [opener, joiner] = await pair();
  joiner.peer.send("goodbye");
  await worked();
  joiner.sent().forEach(opener.relay);
  opener.socket.receive({ type: "leave", index: 0 });
  await worked();
  assert.deepEqual(opener.data(), ["goodbye"]);
});

test("sealed message over the maximum size throws", async () => {
  const [opener, joiner] = await pair();
  const fits = (data) => {
    try {
      return joiner.peer.send(data);
    } catch (error) {
      assert(error instanceof RangeError);
      return false;
    }
  };
  let [low, high] = [0, 70_000];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (fits("x".repeat(middle))) low = middle;
    else high = middle;
  }
  assert(low > 48_000 && low < 49_200, `${low}`);
  const sealed = await relayed(joiner, opener);
  assert(sealed.length > 0);
  for (const data of sealed) assert(JSON.stringify({ type: "send", data }).length <= 65_536);
});
