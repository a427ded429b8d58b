// Tests sigver.js in Node.js, with the class of `ws`: against the server, and against servers that send invalid messages.

import assert from "node:assert/strict";
import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocket, WebSocketServer } from "ws";
import { join, meet, open } from "../sigver.js";
import { next, received, until } from "./events.mjs";
import { startServer } from "./server.mjs";

const DEADLINE = 30_000;
const DIALECTS = ["v1", "plain"];
const PAIRINGS = DIALECTS.flatMap((opener) => DIALECTS.map((joiner) => [opener, joiner]));
const QUICK = { first: 20, slow: 20, limit: 100 };
const SECRET = "sixteen bytes or more";

let server;

before(async () => (server = await startServer()), { timeout: DEADLINE });
after(() => server?.stop(), { timeout: DEADLINE });

// ---- Against the server ----

for (const [one, other] of PAIRINGS) {
  serverTest(`${one} opener, ${other} joiners: data arrives at its recipient`, async (start) => {
    const opener = start(open, undefined, { dialect: one });
    const { key } = await isOpen(opener);
    assert.match(key, /^[0-9a-f]{32}$/);
    assert.equal(opener.key, key);
    assert.equal(opener.dialect, one);

    for (const index of [0, 1, 2]) {
      const joiner = start(join, key, { dialect: other });
      const [{ peer: toOpener }, { peer: toJoiner }] = await Promise.all([next(joiner, "join"), next(opener, "join")]);
      assert.equal(toJoiner.index, index);
      assert.equal(toOpener.index, other === "v1" ? index : undefined);
      assert.deepEqual([toOpener.polite, toJoiner.polite], [true, false]);

      const offer = { type: "offer", sdp: "v=0\r\n", nested: { index: "é\ud83d\ude00" } };
      assert(toOpener.send(offer));
      assert.deepEqual((await next(toJoiner, "data")).data, offer);
      const answer = { type: "answer", sdp: "v=0\r\n" };
      assert(toJoiner.send({ toJSON: () => answer }));
      const { data } = await next(toOpener, "data");
      // A v1 joiner receives the complete frame of a plain opener.
      assert.deepEqual(data, one === "plain" && other === "v1" ? { ...answer, index } : answer);
    }
  });
}

serverTest("v1 peers receive any JSON, plain peers receive objects only", async (start) => {
  const opener = start(open, "any JSON");
  await next(opener, "opened");
  const joiner = start(join, "any JSON");
  const [{ peer: toOpener }, { peer: toJoiner }] = await Promise.all([next(joiner, "join"), next(opener, "join")]);
  const values = [null, 0, "text", [1, [2]], { index: 7, key: "k", type: "open" }];
  values.forEach((value) => toOpener.send(value));
  for (const value of values) assert.deepEqual((await next(toJoiner, "data")).data, value);
  assert.throws(() => toOpener.send(undefined), TypeError);

  const plain = start(join, "any JSON", { dialect: "plain" });
  const [{ peer: fromPlain }, { peer: toPlain }] = await Promise.all([next(plain, "join"), next(opener, "join")]);
  toPlain.send("text");
  assert.equal((await next(opener, "error")).code, "not-an-object");
  fromPlain.send("text");
  assert.equal((await next(plain, "error")).code, "not-an-object");
  fromPlain.send({ type: "open", key: "k" });
  assert.equal((await next(plain, "error")).code, "not-in-plain");
  fromPlain.send({ index: 7 });
  assert.deepEqual((await next(toPlain, "data")).data, {});
});

for (const dialect of DIALECTS) {
  serverTest(`${dialect}: refusals have the same codes in both dialects`, async (start) => {
    const opener = start(open, `refused ${dialect}`);
    await next(opener, "opened");
    const second = start(open, opener.key, { dialect });
    const lost = start(join, "never opened", { dialect });
    assert.equal((await next(second, "closed")).code, "key-taken");
    assert.equal((await next(lost, "closed")).code, "unknown-key");
    assert.deepEqual([opener.state, second.state, lost.state], ["open", "closed", "closed"]);
    const tooLong = start(open, "k".repeat(257), { dialect });
    const { code, status, reason } = await next(tooLong, "closed");
    assert.deepEqual([code, status, reason], ["refused", 1007, "`key` over the length limit"]);
  });

  serverTest(`${dialect}: kicked joiner is closed and does not retry, others stay`, async (start) => {
    const opener = start(open, `kick ${dialect}`);
    await next(opener, "opened");
    const [kicked, stays] = [start(join, opener.key, { dialect }), start(join, opener.key, { dialect: "v1" })];
    const peers = [(await next(opener, "join")).peer, (await next(opener, "join")).peer];
    const { peer: atStays } = await next(stays, "join");
    // The order of the two joins is not defined.
    const [toStays] = peers.filter(({ index }) => index === atStays.index);
    const [toKicked] = peers.filter(({ index }) => index !== atStays.index);

    opener.kick(toKicked);
    assert.equal((await next(kicked, "closed")).code, "kicked");
    assert.equal((await next(toKicked, "away")).code, "left");
    assert.deepEqual([toKicked.send({}), opener.kick(toKicked)], [false, false]);
    toStays.send({ still: "here" });
    assert.deepEqual((await next(atStays, "data")).data, { still: "here" });
    assert.deepEqual(received(opener, "error"), []);
  });

  serverTest(`${dialect}: joiner rejoins after its opener has reopened the key`, async (start) => {
    const first = start(open, `back ${dialect}`);
    await next(first, "opened");
    const joiner = start(join, first.key, { dialect });
    const { peer } = await next(joiner, "join");
    await next(first, "join");
    first.close();
    assert.equal((await next(first, "closed")).code, "done");
    assert.equal((await next(joiner, "reconnecting")).code, "opener-left");
    assert.equal((await next(peer, "away")).code, "opener-left");

    const second = start(open, first.key);
    await next(second, "opened");
    await until(joiner, "join");
    assert.equal(joiner.state, "open");
    assert.equal(peer.send({}), false, "another opener is another peer");
    assert.equal(received(peer, "leave").length, 1);
  });
}

serverTest("v1 opener is notified of a leave, and its closed key can be opened again", async (start) => {
  const opener = start(open, "leaves");
  await next(opener, "opened");
  const joiner = start(join, "leaves");
  const { peer } = await next(opener, "join");
  joiner.close();
  joiner.close();
  assert.equal((await next(joiner, "closed")).code, "done");
  assert.equal((await next(peer, "away")).code, "left");
  opener.close();
  await next(opener, "closed");
  assert.equal(opener.state, "closed");
  await next(start(open, "leaves"), "opened");
});

serverTest("v1 opener that was lost takes its key back, and its joiner stays the same peer", async (start) => {
  const opener = start(open, "reserved");
  await next(opener, "opened");
  const joiner = start(join, "reserved");
  const [{ peer: toOpener }, { peer: toJoiner }] = await Promise.all([next(joiner, "join"), next(opener, "join")]);
  sockets.get(opener)().terminate();
  await Promise.all([next(toJoiner, "back"), next(toOpener, "back")]);
  assert.deepEqual(received(opener, "reconnecting").map(({ code }) => code), ["lost"], "no key-taken");
  toJoiner.send("again");
  assert.equal((await next(toOpener, "data")).data, "again");
  assert.deepEqual([received(opener, "join"), received(joiner, "join")], [[], []]);
});

serverTest("v1 opener takes its key over while the server holds it for its silent connection", async (start) => {
  const opener = start(open, "takeover");
  const joiner = start(join, "takeover", { wait: 10 });
  const [{ peer: toOpener }, { peer: toJoiner }] = await Promise.all([next(joiner, "join"), next(opener, "join")]);
  // As if the path had been lost: the server is not told.
  const silent = sockets.get(opener)();
  const end = silent.onclose;
  silent.close = () => {};
  end({ code: 1006, reason: "" });
  await Promise.all([next(toJoiner, "back"), next(toOpener, "back")]);
  toOpener.send("to the new connection");
  assert.equal((await next(toJoiner, "data")).data, "to the new connection");
  assert.equal(toJoiner.index, 0);
  assert.deepEqual([received(toOpener, "away"), received(joiner, "reconnecting")], [[], []], "the joiner was not disconnected");
  silent.terminate();
});

serverTest("joiner that comes first waits for its opener", async (start) => {
  const joiner = start(join, "patience", { wait: 60 });
  assert.equal((await next(joiner, "waiting")).wait, 60);
  start(open, "patience");
  await joiner.ready;
  assert.equal(joiner.peers.length, 1);
});

serverTest("those who meet have one opener, and another one when it leaves", async (start) => {
  const all = await Promise.all([0, 1, 2].map((number) => start(meet, "square", { id: `number ${number}` }).ready));
  const openers = all.filter(({ role }) => role === "opener");
  assert.equal(openers.length, 1);
  const joiners = all.filter(({ role }) => role === "joiner");
  const former = await Promise.all(joiners.map((joiner) => next(joiner, "join")));
  openers[0].close();
  await Promise.all(joiners.map((joiner) => next(joiner, "reconnecting")));
  const [opener] = await Promise.race(joiners.map(async (joiner) => [joiner, await next(joiner, "opened")]));
  const [joiner] = joiners.filter((one) => one !== opener);
  const [{ peer: toJoiner }, { peer: toOpener }] = await Promise.all([next(opener, "join"), next(joiner, "join")]);
  assert.deepEqual([toJoiner.id, toOpener.id, opener.role, joiner.role], [joiner.id, opener.id, "opener", "joiner"]);
  assert(former.every(({ peer }) => peer !== toJoiner && peer !== toOpener));
});

for (const [one, other] of PAIRINGS) {
  serverTest(`${one} opener, ${other} joiner: sealed data arrives, and the server relays no content`, async (start) => {
    const opener = start(open, `sealed ${one} ${other}`, { dialect: one, secret: SECRET });
    await isOpen(opener);
    const joiner = start(join, opener.key, { dialect: other, secret: SECRET });
    const texts = [opener, joiner].map((side) => inbound(side));
    const [{ peer: toOpener }, { peer: toJoiner }] = await Promise.all([next(joiner, "join"), next(opener, "join")]);
    toOpener.send(["private", 1]);
    assert.deepEqual((await next(toJoiner, "data")).data, ["private", 1]);
    toJoiner.send("private, too");
    assert.equal((await next(toOpener, "data")).data, "private, too");
    assert(texts.every((list) => list.length > 0 && !list.join().includes("private")));
  });
}

function inbound(side) {
  const texts = [];
  side.on("message", ({ direction, text }) => direction === "in" && texts.push(text));
  return texts;
}

serverTest("message at the maximum size arrives, and a larger one throws", async (start) => {
  const opener = start(open, "large");
  await next(opener, "opened");
  const joiner = start(join, "large");
  const [{ peer: toOpener }, { peer: toJoiner }] = await Promise.all([next(joiner, "join"), next(opener, "join")]);
  const envelope = JSON.stringify({ type: "send", data: "" }).length;
  const largest = "x".repeat(65_536 - envelope);
  assert.throws(() => toOpener.send(`${largest}x`), RangeError);
  assert.equal(toOpener.send(largest), true);
  assert.equal((await next(toJoiner, "data")).data, largest);
  assert.equal(joiner.state, "open");
});

for (const [one, other] of PAIRINGS) {
  for (const signal of ["SIGTERM", "SIGKILL"]) {
    test(`${one} opener, ${other} joiner: both reconnect after ${signal} and a restart of the server`, { timeout: DEADLINE }, async (t) => {
      let own = await startServer();
      t.after(() => own.stop());
      const start = starter(t, own.url);
      const opener = start(open, "phoenix", { dialect: one });
      await isOpen(opener);
      const joiner = start(join, "phoenix", { dialect: other });
      const [{ peer: toOpener }, { peer: toJoiner }] = await Promise.all([next(joiner, "join"), next(opener, "join")]);

      await own.stop(signal);
      await Promise.all([next(toJoiner, "away"), next(toOpener, "away")]);
      assert.equal((await next(opener, "reconnecting")).code, "lost");
      own = await startServer(own.port);

      // A plain peer has no id, so it cannot be recognized.
      const isSame = one === "v1" && other === "v1";
      const again = isSame
        ? (await Promise.all([next(toOpener, "back"), next(toJoiner, "back")]), { toOpener, toJoiner })
        : { toJoiner: (await next(opener, "join")).peer, toOpener: (await until(joiner, "join")).peer };
      if (!isSame) assert.equal(toJoiner.send({}), false, "the earlier peer has left, even if the new one has its index");
      again.toJoiner.send({ again: true });
      assert.equal((await next(again.toOpener, "data")).data.again, true);
      assert.deepEqual([opener.key, joiner.state], ["phoenix", "open"]);
      if (isSame) assert.deepEqual([received(opener, "join"), received(joiner, "join")], [[], []]);
    });
  }
}

serverTest("AbortSignal closes, even if it was aborted before the start", async (start) => {
  const controller = new AbortController();
  const opener = start(open, "aborted", { signal: controller.signal });
  await next(opener, "opened");
  controller.abort();
  assert.equal((await next(opener, "closed")).code, "done");
  const aborted = start(open, "aborted", { signal: controller.signal });
  assert.equal((await next(aborted, "closed")).code, "done");
  const closed = start(open, "aborted");
  closed.close();
  assert.equal((await next(closed, "closed")).code, "done");
  await next(start(open, "aborted"), "opened");
});

// ---- Restarts and lost paths ----

test("200 pairs are back after the server was killed and away for 4 s, and no pair meets twice", { timeout: 120_000 }, async (t) => {
  let own = await startServer();
  t.after(() => own.stop());
  const start = starter(t, own.url, {});
  const openers = Array.from({ length: 200 }, (_, number) => start(open, `pair ${number}`));
  await Promise.all(openers.map(({ ready }) => ready));
  const joiners = openers.map(({ key }) => start(join, key));
  const peers = (await Promise.all([...openers, ...joiners].map((side) => next(side, "join")))).map(({ peer }) => peer);
  let joins = 0;
  [...openers, ...joiners].forEach((side) => side.on("join", () => (joins += 1)));
  const dues = new Map();
  [...openers, ...joiners].forEach((side) => side.on("reconnecting", ({ delay }) => dues.set(side, Date.now() + delay)));

  await own.stop("SIGKILL");
  await sleep(4_000);
  const delays = peers.map((peer) => next(peer, "back").then(() => Date.now()));
  own = await startServer(own.port);
  const began = Date.now();
  const slowest = Math.max(...(await Promise.all(delays))) - began;
  t.diagnostic(`all pairs were back ${slowest} ms after the server`);
  // The delays decide, not the load of the machine.
  assert(Math.max(...dues.values()) - began < 10_000);
  assert.deepEqual([joins, peers.flatMap((peer) => received(peer, "leave"))], [0, []]);
  assert.deepEqual([...openers, ...joiners].map(({ peers }) => peers.length), Array(400).fill(1));
  const data = peers.map((peer) => next(peer, "data"));
  [...openers, ...joiners].forEach((side) => side.broadcast(side.key));
  assert.deepEqual((await Promise.all(data)).map(({ data }) => data), [...openers, ...joiners].map(({ key }) => key));
});

test("something that accepts connections and never answers is given up", { timeout: DEADLINE }, async (t) => {
  const listener = createServer((socket) => socket.on("error", () => {})).listen(0, "127.0.0.1");
  t.after(() => listener.close());
  await once(listener, "listening");
  const opener = starter(t, `ws://127.0.0.1:${listener.address().port}`)(open, "tea", { retries: 0 });
  assert.deepEqual(await next(opener, "closed"), { type: "closed", code: "unreachable", reason: "the server did not answer" });
});

// ---- Rejected handshakes: `ws` shows the response ----

test("wrong token, wrong origin and too many cookies are an error, then closed; a right token opens", { timeout: DEADLINE }, async (t) => {
  const folder = mkdtempSync(path(tmpdir(), "sigver-token-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const [file, token] = [path(folder, "tokens"), "a-token-of-more-than-sixteen-bytes"];
  writeFileSync(file, `${token}\n`);
  chmodSync(file, 0o600);
  const own = await startServer(0, ["--token-file", file, "--allow-origin", "https://app.example"]);
  t.after(() => own.stop());
  const start = starter(t, own.url);
  const withHeaders = (headers) => class extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols, { headers });
    }
  };
  for (const [status, options] of [
    [401, {}], [401, { token: "wrong" }],
    [403, { token, WebSocket: withHeaders({ Origin: "https://evil.example" }) }],
    [431, { token, WebSocket: withHeaders({ Cookie: "c".repeat(20_000) }) }],
  ]) {
    const refused = start(open, "tea", options);
    const [error, closed] = [await next(refused, "error"), await next(refused, "closed")];
    assert.deepEqual([error.code, closed.code, closed.status], ["rejected", "rejected", status]);
    assert.match(closed.reason, new RegExp(`^HTTP ${status}: \\S`));
  }
  await start(open, "tea", { token: async () => token }).ready;
});

test("server over its connection limit is tried again, and named in the end", { timeout: DEADLINE }, async (t) => {
  const own = await startServer(0, ["--connections", "1"]);
  t.after(() => own.stop());
  const start = starter(t, own.url);
  await start(open, "first").ready;
  const second = start(open, "second", { retries: 2 });
  const { code, status, reason } = await next(second, "closed");
  assert.deepEqual([code, status], ["unreachable", 503]);
  assert.match(reason, /^HTTP 503: \S/);
  assert.equal(received(second, "reconnecting").length, 2);
});

// ---- Against a server that sends invalid messages ----

const INVALID = [
  "", "{", "null", "5", "[]", "{}", '{"type":5}', '{"type":"constructor"}', '{"type":"__proto__"}', '{"type":"offer"}',
  '{"type":"joined","index":"0"}', '{"type":"joined","index":-1}', '{"type":"join","index":null}', '{"type":"join","index":1.5}',
  '{"type":"data"}', '{"type":"data","index":[],"data":1}', '{"type":"opened"}', '{"type":"closed","code":{}}', '{"type":"error"}',
  '{"index":{}}', '{"type":"leave"}', Buffer.from([0, 1, 2]),
];

for (const dialect of DIALECTS) {
  for (const [ask, acceptance] of [[open, '{"type":"opened","key":"tea"}'], [join, '{"type":"joined","index":0}']]) {
    test(`${dialect} ${ask.name}: invalid messages emit malformed errors`, { timeout: DEADLINE }, async (t) => {
      const invalidServer = new WebSocketServer({ host: "127.0.0.1", port: 0 });
      t.after(() => invalidServer.close());
      await once(invalidServer, "listening");
      invalidServer.on("connection", (socket) => socket.on("message", () => {
        if (dialect === "v1") socket.send(acceptance);
        INVALID.forEach((text) => socket.send(text));
        // From an unknown peer.
        socket.send('{"type":"data","index":99,"data":{}}');
        socket.send('{"type":"leave","index":99}');
        socket.close(1008, "the end");
      }));
      const signaling = starter(t, `ws://127.0.0.1:${invalidServer.address().port}`)(ask, "tea", { dialect });
      const { code, status } = await next(signaling, "closed");
      assert.deepEqual([code, status], ["refused", 1008]);
      const errors = received(signaling, "error");
      assert(errors.length > 0 && errors.every(({ code }) => code === "malformed"));
    });
  }
}

// ---- Helpers ----

function serverTest(name, body) {
  test(name, { timeout: DEADLINE }, (t) => body(starter(t, server.url)));
}

/** Returns a function that starts clients, which are closed after the test. */
function starter(t, url, defaults = { backoff: QUICK }) {
  const started = [];
  t.after(() => started.forEach((signaling) => signaling.close()));
  return (ask, key, options) => {
    let socket;
    class RecordedSocket extends WebSocket {
      constructor(...args) {
        super(...args);
        socket = this;
      }
    }
    const signaling = ask(url, key, { WebSocket: RecordedSocket, ...defaults, ...options });
    sockets.set(signaling, () => socket);
    started.push(signaling);
    return signaling;
  };
}

/** The current socket of each client. */
const sockets = new WeakMap();

/** Waits for `opened`, and until the server has handled the open. A plain server does not acknowledge it, but its pong follows. */
async function isOpen(opener) {
  const event = await next(opener, "opened");
  const socket = sockets.get(opener)();
  socket.ping();
  await once(socket, "pong");
  return event;
}
