// Tests open, join and meet in virtual time, against a WebSocket that the test controls.

import assert from "node:assert/strict";
import { mock, test } from "node:test";
import * as sigver from "../sigver.js";
import { received } from "./events.mjs";
import { FakeSocket, RANDOM, settled, tick, virtualTest } from "./fake-socket.mjs";

const url = "ws://fake";
const start = (ask, options, key = "tea") => sigver[ask](url, key, { WebSocket: FakeSocket, id: "me", ...options });
const opened = { type: "opened", key: "tea", token: "t" };
const joined = { type: "joined", index: 0, id: "opener" };

function accept(reply = opened, subprotocol = "sigver.v1") {
  FakeSocket.last.open(subprotocol);
  if (subprotocol === "sigver.v1") FakeSocket.last.receive(reply);
}

function startOpen(options) {
  const opener = start("open", options);
  accept();
  return opener;
}

function startJoined(options) {
  const joiner = start("join", options);
  accept(joined);
  return joiner;
}

/** Loses the connection, and lets the client try again. */
function reconnect(delay = 1_000) {
  FakeSocket.last.end(1006);
  tick(delay);
}

const lastSent = () => FakeSocket.last.sent.at(-1);

// ---- Subprotocols and dialects ----

virtualTest("client offers both dialects, or the one in the options, and its token", () => {
  const offered = (ask, options) => (start(ask, options), FakeSocket.last.protocols);
  assert.deepEqual(offered("open"), ["sigver.v1", "sigver.plain"]);
  assert.deepEqual(offered("open", { dialect: "v1" }), ["sigver.v1"]);
  assert.deepEqual(offered("join", { dialect: "plain" }), ["sigver.plain"]);
  assert.deepEqual(offered("meet"), ["sigver.v1"]);
  assert.deepEqual(offered("join", { token: "secret" }), ["sigver.v1", "sigver.plain", "sigver.bearer.secret"]);
});

virtualTest("client uses the dialect that the server echoes", () => {
  const plain = sigver.open(url, undefined, { WebSocket: FakeSocket });
  FakeSocket.last.open("sigver.plain");
  assert.equal(plain.dialect, "plain");
  assert.deepEqual(FakeSocket.last.sent, [{ type: "open", key: plain.key }]);
  assert.match(plain.key, /^[0-9a-f]{32}$/);

  const v1 = sigver.open(url, undefined, { WebSocket: FakeSocket });
  FakeSocket.last.open("sigver.v1");
  assert.equal(v1.dialect, "v1");
  assert.deepEqual(FakeSocket.last.sent, [{ type: "open", id: v1.id }]);
  assert.match(v1.id, /^[0-9a-f]{32}$/);
});

virtualTest("client speaks the dialect that it has offered first if the runtime hides the echo", () => {
  for (const [dialect, spoken] of [["v1", "v1"], ["plain", "plain"], [undefined, "v1"]]) {
    const opener = start("open", { dialect });
    FakeSocket.last.open("");
    assert.equal(opener.dialect, spoken);
  }
});

test("invalid arguments throw", () => {
  const options = { WebSocket: FakeSocket };
  assert.throws(() => sigver.join(url, undefined, options), TypeError);
  assert.throws(() => sigver.meet(url, undefined, options), TypeError);
  assert.throws(() => sigver.join(url, "", options), TypeError);
  assert.throws(() => sigver.open(url, 5, options), TypeError);
  assert.throws(() => sigver.open(url, "tea", { WebSocket: null }), /option WebSocket/);
  for (const wrong of [{ dialect: "v2" }, { id: "" }, { id: 5 }, { wait: -1 }, { wait: 1.5 }, { secret: "too short" }, { secret: 5 }, { takeoverToken: 5 }]) {
    assert.throws(() => sigver.join(url, "tea", { ...options, ...wrong }), TypeError, JSON.stringify(wrong));
  }
  assert.throws(() => sigver.meet(url, "tea", { ...options, dialect: "plain" }), TypeError);
});

virtualTest("error of the WebSocket constructor is thrown, and no timer is left", () => {
  class Refuses {
    constructor() {
      throw new SyntaxError("no such scheme");
    }
  }
  assert.throws(() => start("open", { WebSocket: Refuses }), SyntaxError);
  tick(60_000);
});

// ---- url and token as functions ----

virtualTest("functions for url and token are called before each attempt", async () => {
  const calls = [];
  sigver.open(async () => `ws://fake/${calls.push("url")}`, "tea", { WebSocket: FakeSocket, token: () => `t${calls.push("token")}` });
  await settled();
  assert.deepEqual([FakeSocket.last.url, FakeSocket.last.protocols.at(-1)], ["ws://fake/1", "sigver.bearer.t2"]);
  accept();
  reconnect();
  await settled();
  assert.deepEqual([FakeSocket.last.url, FakeSocket.last.protocols.at(-1)], ["ws://fake/3", "sigver.bearer.t4"]);
});

virtualTest("token function that fails or never returns counts as a failed attempt", async () => {
  let answer = () => Promise.reject(new Error("logged out"));
  const opener = start("open", { token: () => answer() });
  await settled();
  assert.deepEqual(received(opener, "reconnecting").map(({ code, reason }) => [code, reason]), [["lost", "logged out"]]);
  answer = () => new Promise(() => {});
  tick(1_000);
  tick(10_000);
  assert.equal(received(opener, "reconnecting").length, 1);
  answer = () => "fresh";
  tick(30_000);
  await settled();
  assert.equal(FakeSocket.last.protocols.at(-1), "sigver.bearer.fresh");
  assert.equal(FakeSocket.made, 1);
});

virtualTest("close while a token is fetched makes no connection", async () => {
  let give;
  const opener = start("open", { token: () => new Promise((resolve) => (give = resolve)) });
  await settled();
  opener.close();
  give("late");
  await settled();
  assert.deepEqual([opener.state, FakeSocket.made], ["closed", 0]);
});

virtualTest("expired token that is no function ends signaling", () => {
  for (const expire of [() => FakeSocket.last.receive({ type: "closed", code: "token-expired" }), () => FakeSocket.last.end(4004, "token expired")]) {
    const opener = startOpen({ token: "fixed" });
    expire();
    assert.equal(received(opener, "closed")[0].code, "token-expired");
  }
});

virtualTest("expired token is replaced by a token function on a new connection", async () => {
  const opener = start("open", { token: () => "fresh" });
  await settled();
  accept();
  const first = FakeSocket.last;
  first.receive({ type: "closed", code: "token-expired" });
  assert.equal(received(opener, "reconnecting")[0].code, "token-expired");
  tick(1_000);
  await settled();
  assert.notEqual(FakeSocket.last, first);
  accept();
  assert.equal(opener.state, "open");
});

// ---- Liveness ----

virtualTest("silent connection is pinged after 25 s and replaced 10 s later", () => {
  const opener = startOpen();
  tick(24_999);
  assert.equal(lastSent().type, "open");
  tick(1);
  assert.deepEqual(lastSent(), { type: "ping" });
  FakeSocket.last.receive({ type: "pong" });
  tick(25_000);
  assert.equal(FakeSocket.last.sent.filter(({ type }) => type === "ping").length, 2);
  tick(9_999);
  assert.equal(opener.state, "open");
  tick(1);
  assert.equal(opener.state, "reconnecting");
  assert.equal(received(opener, "reconnecting")[0].code, "lost");
  assert.equal(FakeSocket.last.closedWith, 1000);
  tick(1_000);
  assert.equal(FakeSocket.made, 2, "the close event of the dead socket is not awaited");
});

virtualTest("each frame postpones the ping", () => {
  const opener = startOpen();
  for (let frame = 0; frame < 5; frame += 1) {
    tick(24_000);
    FakeSocket.last.receive({ type: "later" });
  }
  assert.deepEqual([FakeSocket.last.sent.length, opener.state], [1, "open"]);
});

virtualTest("plain connection is not pinged", () => {
  const opener = start("open", { dialect: "plain" });
  FakeSocket.last.open("sigver.plain");
  tick(300_000);
  assert.deepEqual([FakeSocket.last.sent.length, opener.state], [1, "open"]);
});

for (const event of ["online", "visibilitychange"]) {
  virtualTest(`${event} pings at once, or ends the wait for the next attempt`, () => {
    const [page, page_document] = [new EventTarget(), Object.assign(new EventTarget(), { visibilityState: "visible" })];
    const undo = globals({
      addEventListener: page.addEventListener.bind(page), removeEventListener: page.removeEventListener.bind(page), document: page_document,
    });
    const happens = () => (event === "online" ? page : page_document).dispatchEvent(new Event(event));
    try {
      const opener = startOpen();
      tick(5_000);
      happens();
      assert.deepEqual(lastSent(), { type: "ping" });
      tick(10_000);
      assert.equal(opener.state, "reconnecting");
      assert.equal(FakeSocket.made, 1);
      happens();
      assert.equal(FakeSocket.made, 2, "without the delay");
      tick(9_000);
      assert.equal(FakeSocket.made, 2, "the attempt goes on");
      accept();

      page_document.visibilityState = "hidden";
      if (event === "visibilitychange") {
        happens();
        assert.deepEqual(lastSent().type, "open");
      }
      page_document.visibilityState = "visible";
      opener.close();
      FakeSocket.last.end(1000);
      happens();
      assert.equal(lastSent().type, "open", "no listener is left");
      assert.equal(FakeSocket.made, 2);
    } finally {
      undo();
    }
  });
}

function globals(values) {
  const before = Object.keys(values).map((name) => [name, globalThis[name]]);
  Object.assign(globalThis, values);
  return () => before.forEach(([name, value]) => (globalThis[name] = value));
}

virtualTest("handshake without an answer is given up after 10 s", () => {
  const opener = start("open");
  tick(9_999);
  assert.equal(opener.state, "connecting");
  tick(1);
  assert.deepEqual(received(opener, "reconnecting").map(({ code, reason }) => [code, reason]), [["lost", "the server did not answer"]]);
  assert.equal(FakeSocket.last.closedWith, 1000);
});

virtualTest("open without an answer is given up after 10 s", () => {
  const opener = start("open");
  FakeSocket.last.open();
  tick(10_000);
  assert.match(received(opener, "reconnecting")[0].reason, /accepted the connection/);
});

// ---- close ----

virtualTest("close ends at once while connecting, while reconnecting, and before the start", () => {
  const connecting = start("open");
  connecting.close();
  assert.deepEqual([connecting.state, FakeSocket.last.closedWith], ["closed", 1000]);
  FakeSocket.last.onopen();
  FakeSocket.last.onerror({});

  const reconnecting = startOpen();
  FakeSocket.last.end(1006);
  reconnecting.close();
  assert.equal(reconnecting.state, "closed");
  assert.equal(received(reconnecting, "closed")[0].code, "done");

  const again = startOpen();
  reconnect();
  again.close();
  assert.equal(again.state, "closed", "while the second attempt connects");

  const aborted = start("open", { signal: AbortSignal.abort() });
  assert.equal(aborted.state, "closed");
  const made = FakeSocket.made;
  tick(300_000);
  assert.equal(FakeSocket.made, made);
});

virtualTest("close waits for the server at most two seconds", () => {
  const opener = startOpen();
  opener.close();
  opener.close();
  assert.deepEqual([opener.state, FakeSocket.last.closedWith], ["closing", 1000]);
  FakeSocket.last.receive({ type: "join", index: 0 });
  assert.deepEqual(received(opener, "join"), []);
  tick(1_999);
  assert.equal(opener.state, "closing");
  tick(1);
  assert.equal(opener.state, "closed");

  const answered = startOpen();
  answered.close();
  FakeSocket.last.end(1000);
  assert.deepEqual(received(answered, "closed").map(({ code }) => code), ["done"]);
});

virtualTest("close in a listener of reconnecting or away stops the retry", () => {
  for (const type of ["reconnecting", "away"]) {
    const opener = startOpen();
    FakeSocket.last.receive({ type: "join", index: 0, id: "joiner" });
    const [{ peer }] = received(opener, "join");
    (type === "away" ? peer : opener).on(type, () => opener.close());
    const { made } = FakeSocket;
    FakeSocket.last.end(1006);
    tick(300_000);
    assert.deepEqual([FakeSocket.made, opener.state], [made, "closed"]);
    assert.equal(received(opener, "closed").length, 1);
  }
});

virtualTest("AbortSignal closes", () => {
  const controller = new AbortController();
  const opener = start("open", { signal: controller.signal });
  controller.abort();
  assert.equal(opener.state, "closed");
});

// ---- ready ----

virtualTest("ready resolves with the signaling, and rejects if closed comes first", async () => {
  const opener = start("open");
  accept();
  assert.equal(await opener.ready, opener);

  const refused = start("open");
  accept({ type: "error", code: "key-taken", message: "taken", key: "tea" });
  await assert.rejects(refused.ready, { name: "Error", message: "key-taken: taken", code: "key-taken" });

  const done = start("open");
  done.close();
  await assert.rejects(done.ready, { code: "done" });
});

virtualTest("ready that nobody uses causes no unhandled rejection", async () => {
  const unhandled = [];
  const listener = (error) => unhandled.push(error);
  process.on("unhandledRejection", listener);
  start("open").close();
  await settled();
  await settled();
  process.off("unhandledRejection", listener);
  assert.deepEqual(unhandled, []);
});

// ---- Attempts and back-off ----

virtualTest("attempts are finite before the first success, and end with what was the matter", () => {
  const opener = start("open");
  let attempts = 0;
  while (opener.state !== "closed") {
    FakeSocket.last.fail("connect ECONNREFUSED");
    attempts += 1;
    tick(30_000);
  }
  assert.equal(attempts, 9);
  assert.deepEqual(received(opener, "error"), [{ type: "error", code: "unreachable", message: "connect ECONNREFUSED" }]);
  assert.deepEqual(received(opener, "closed"), [{ type: "closed", code: "unreachable", reason: "connect ECONNREFUSED" }]);
});

virtualTest("attempts are not limited after the first success, except by the option", () => {
  const opener = startOpen();
  for (let attempt = 0; attempt < 50; attempt += 1) reconnect(30_000);
  assert.equal(opener.state, "reconnecting");

  const limited = startOpen({ retries: 2 });
  for (let loss = 0; loss < 3; loss += 1) {
    reconnect(30_000);
    reconnect(30_000);
    accept();
  }
  assert.equal(limited.state, "open", "a success resets the count");
  for (let attempt = 0; attempt < 3; attempt += 1) reconnect(30_000);
  assert.equal(received(limited, "closed")[0].code, "lost");

  const none = start("open", { retries: 0 });
  FakeSocket.last.end(1006);
  assert.equal(received(none, "closed")[0].code, "unreachable");
});

virtualTest("delays are random up to the time since the loss, from 1 s to 30 s, and start again after a success", () => {
  const opener = startOpen();
  const bounds = [];
  opener.on("reconnecting", ({ delay }) => bounds.push(Math.round(delay / RANDOM)));
  for (let failure = 0; failure < 12; failure += 1) {
    const { made } = FakeSocket;
    FakeSocket.last.end(1006);
    tick(Math.floor(bounds.at(-1) * RANDOM) - 1);
    assert.equal(FakeSocket.made, made, "no retry before the delay has passed");
    tick(2);
    assert.equal(FakeSocket.made, made + 1);
  }
  bounds.slice(0, 5).forEach((bound, attempt) => assert(Math.abs(bound - [1_000, 1_000, 1_500, 2_625, 4_594][attempt]) < 10, `${bounds}`));
  assert.equal(bounds.at(-1), 30_000);
  accept();
  FakeSocket.last.end(1001, "server shutting down");
  assert.equal(bounds.at(-1), 1_000);
});

virtualTest("causes do not share a back-off", () => {
  const opener = startOpen();
  for (let failure = 0; failure < 10; failure += 1) reconnect(30_000);
  received(opener, "reconnecting");
  FakeSocket.last.open();
  FakeSocket.last.receive({ type: "error", code: "key-taken", message: "taken", key: "tea" });
  assert.deepEqual(received(opener, "reconnecting").map(({ code, delay }) => [code, delay / RANDOM]), [["key-taken", 5_000]]);
});

virtualTest("option backoff changes the bounds", () => {
  const opener = startOpen({ backoff: { first: 10, slow: 20, limit: 40 } });
  const delays = [];
  opener.on("reconnecting", ({ delay }) => delays.push(delay / RANDOM));
  for (let failure = 0; failure < 20; failure += 1) reconnect(Math.ceil(delays.at(-1) ?? 0) + 8);
  assert.equal(delays[0], 10);
  assert.equal(Math.max(...delays), 40);
});

const LOST = [
  [0], [1001, "server shutting down"], [1005], [1006], [1011], [1012], [1013, "reading too slowly"], [1008, "no sign of life"], [1008, "no open or join in time"],
];
const FINAL = [
  [1002, "broken WebSocket framing", "refused"], [1003, "", "refused"], [1007, "", "refused"], [1009, "", "refused"], [1000, "", "refused"],
  [4003, "kicked by the opener", "kicked"], [4005, "closed by the operator", "refused"], [1008, "not allowed", "not-allowed"], [4999, "later", "refused"],
];

for (const subprotocol of ["sigver.v1", "sigver.plain"]) {
  virtualTest(`${subprotocol}: only temporary close codes are retried`, () => {
    for (const [status, reason] of LOST) {
      const opener = start("open");
      accept(opened, subprotocol);
      FakeSocket.last.end(status, reason);
      assert.equal(opener.state, "reconnecting", `after ${status}`);
      assert.equal(received(opener, "reconnecting")[0].code, "lost");
    }
    for (const [status, reason, code] of FINAL) {
      const opener = start("open");
      accept(opened, subprotocol);
      FakeSocket.last.end(status, reason);
      assert.deepEqual(received(opener, "closed"), [{ type: "closed", code, reason, status }]);
    }
  });

  virtualTest(`${subprotocol}: key-taken is retried for 105 s, and only by a client that had the key`, () => {
    const refuse = () => {
      FakeSocket.last.open(subprotocol);
      if (subprotocol === "sigver.v1") FakeSocket.last.receive({ type: "error", code: "key-taken", message: "taken", key: "tea" });
      else FakeSocket.last.end(1008, "key is taken");
    };
    const stranger = start("open");
    refuse();
    assert.equal(received(stranger, "closed")[0].code, "key-taken");

    const owner = start("open");
    accept(opened, subprotocol);
    reconnect();
    refuse();
    const began = Date.now();
    const retry = () => {
      tick(30_000);
      if (subprotocol === "sigver.plain") refuse();
      else FakeSocket.last.receive({ type: "error", code: "key-taken", message: "taken", key: "tea" });
    };
    while (owner.state === "reconnecting") retry();
    assert.equal(received(owner, "closed")[0].code, "key-taken");
    assert(Date.now() - began >= 105_000 && Date.now() - began < 140_000);
  });
}

virtualTest("plain: refusals do not reset the back-off", () => {
  const joiner = start("join");
  const bounds = [];
  joiner.on("reconnecting", ({ delay }) => bounds.push(delay / RANDOM));
  FakeSocket.last.open("sigver.plain");
  FakeSocket.last.end(4001, "opener left");
  for (let attempt = 0; attempt < 3; attempt += 1) {
    tick(bounds.at(-1) * RANDOM);
    FakeSocket.last.open("sigver.plain");
    FakeSocket.last.end(1008, "key is unknown");
  }
  assert.deepEqual(bounds.slice(0, 3), [5_000, 5_000, 5_000]);
  assert(bounds[3] > 5_000, `${bounds}`);
});

virtualTest("refused request is repeated on the same connection", () => {
  for (const code of ["too-many-joiners", "too-many-attempts"]) {
    const joiner = start("join");
    accept({ type: "error", code, message: "full", key: "tea" });
    const { made } = FakeSocket;
    assert.deepEqual(received(joiner, "reconnecting").map((event) => event.code), [code]);
    tick(5_000);
    assert.deepEqual([FakeSocket.made, FakeSocket.last.sent.length], [made, 2]);
    FakeSocket.last.receive(joined);
    assert.equal(joiner.state, "open");

    const plain = start("join");
    FakeSocket.last.open("sigver.plain");
    FakeSocket.last.end(1013, { "too-many-joiners": "too many joiners on the key", "too-many-attempts": "too many attempts at keys" }[code]);
    assert.deepEqual(received(plain, "reconnecting").map((event) => event.code), [code]);
    plain.close();
  }
});

// ---- Rejected handshakes ----

virtualTest("rejected handshake is an error, then closed, where the runtime shows the status", () => {
  const texts = {
    "Invalid status code: 401": 401,
    "WebSocket connection to 'ws://fake/' failed: Expected 101 status code: 403": 403,
    "Invalid status code: 431": 431,
  };
  for (const [text, status] of Object.entries(texts)) {
    const opener = startOpen();
    reconnect();
    FakeSocket.last.fail(text);
    assert.deepEqual(received(opener, "error").map(({ code }) => code), ["rejected"]);
    assert.deepEqual(received(opener, "closed").map(({ code, status }) => [code, status]), [["rejected", status]]);
  }
  const busy = start("open");
  FakeSocket.last.fail("Invalid status code: 503");
  assert.deepEqual(received(busy, "reconnecting").map(({ code, status }) => [code, status]), [["lost", 503]]);
});

virtualTest("failed handshake is retried whatever the close code", () => {
  for (const code of [0, 1000, 1002, 1006]) {
    const opener = startOpen();
    reconnect();
    FakeSocket.last.end(code);
    assert.equal(opener.state, "reconnecting", `after ${code}`);
  }
});

// ---- Keys and tokens ----

virtualTest("opener shows its newest token when it opens its key again", () => {
  const opener = sigver.open(url, undefined, { WebSocket: FakeSocket, id: "me" });
  const shown = [];
  for (const token of ["first", "second", "third"]) {
    FakeSocket.last.open();
    shown.push(FakeSocket.last.sent[0]);
    FakeSocket.last.receive({ type: "opened", key: "tea", token });
    reconnect();
  }
  assert.deepEqual(shown, [
    { type: "open", id: "me" }, { type: "open", key: "tea", token: "first", id: "me" }, { type: "open", key: "tea", token: "second", id: "me" },
  ]);
  assert.deepEqual(received(opener, "opened")[0], { type: "opened", key: "tea" }, "the token is secret");
  FakeSocket.last.open("sigver.plain");
  assert.deepEqual(FakeSocket.last.sent, [{ type: "open", key: "tea" }]);
});

virtualTest("joiner waits for its opener on the same connection, for as long as it takes", () => {
  const joiner = startJoined();
  assert.deepEqual(FakeSocket.last.sent, [{ type: "join", key: "tea", id: "me" }]);
  FakeSocket.last.receive({ type: "closed", code: "opener-left" });
  assert.deepEqual(received(joiner, "reconnecting").map(({ code, delay }) => [code, delay]), [["opener-left", 0]]);
  for (let wait = 0; wait < 3; wait += 1) {
    tick(0);
    assert.deepEqual(lastSent(), { type: "join", key: "tea", wait: 120, id: "me" });
    FakeSocket.last.receive({ type: "waiting", key: "tea", wait: 120 });
    FakeSocket.last.receive({ type: "error", code: "unknown-key", message: "nobody", key: "tea" });
  }
  assert.deepEqual(received(joiner, "waiting"), Array(3).fill({ type: "waiting", wait: 120 }));
  assert.deepEqual(received(joiner, "reconnecting").map(({ delay }) => delay), [0, 0, 0]);
  tick(0);
  FakeSocket.last.receive(joined);
  assert.deepEqual([joiner.state, FakeSocket.made], ["open", 1]);
});

virtualTest("unknown key is refused at once, or after the wait in the options", () => {
  const joiner = start("join");
  accept({ type: "error", code: "unknown-key", message: "nobody", key: "tea" });
  assert.equal(received(joiner, "closed")[0].code, "unknown-key");

  const patient = start("join", { wait: 30 });
  FakeSocket.last.open();
  assert.equal(lastSent().wait, 30);
  FakeSocket.last.receive({ type: "waiting", key: "tea", wait: 30 });
  FakeSocket.last.receive({ type: "error", code: "unknown-key", message: "nobody", key: "tea" });
  assert.equal(received(patient, "closed")[0].code, "unknown-key");
});

virtualTest("server that does not let a joiner wait is not asked without a delay", () => {
  const joiner = startJoined();
  FakeSocket.last.receive({ type: "closed", code: "opener-left" });
  tick(0);
  FakeSocket.last.receive({ type: "error", code: "unknown-key", message: "nobody", key: "tea" });
  const delays = () => received(joiner, "reconnecting").map(({ code, delay }) => [code, delay / RANDOM]);
  assert.deepEqual(delays(), [["opener-left", 0], ["unknown-key", 5_000]]);
  tick(5_000);
  FakeSocket.last.receive({ type: "waiting", key: "tea", wait: 120 });
  FakeSocket.last.receive({ type: "error", code: "unknown-key", message: "nobody", key: "tea" });
  tick(0);
  FakeSocket.last.receive({ type: "error", code: "unknown-key", message: "nobody", key: "tea" });
  assert.deepEqual(delays().map(([, delay]) => delay > 0), [false, true], "an earlier wait does not count");
});

virtualTest("errors of earlier messages do not end a request", () => {
  const joiner = startJoined();
  const [{ peer }] = received(joiner, "join");
  FakeSocket.last.receive({ type: "closed", code: "opener-left" });
  tick(0);
  for (const code of ["no-role", "unknown-index", "not-an-object"]) FakeSocket.last.receive({ type: "error", code, message: "late" });
  assert.equal(joiner.state, "reconnecting");
  FakeSocket.last.receive(joined);
  assert.equal(peer.send(1), true);
  FakeSocket.last.receive({ type: "error", code: "unknown-index", message: "gone" });
  assert.deepEqual(received(joiner, "error"), [], "a peer may leave while a message to it is in transit");
});

// ---- meet ----

virtualTest("meet opens or joins, and takes the other role when the opener has left", () => {
  const meeter = start("meet");
  FakeSocket.last.open();
  assert.deepEqual(FakeSocket.last.sent, [{ type: "meet", key: "tea", id: "me" }]);
  FakeSocket.last.receive(joined);
  assert.equal(meeter.role, "joiner");
  const [{ peer }] = received(meeter, "join");
  assert.deepEqual([peer.polite, peer.index], [true, 0]);

  FakeSocket.last.receive({ type: "closed", code: "opener-left" });
  tick(1_000);
  assert.deepEqual(lastSent(), { type: "meet", key: "tea", id: "me" });
  FakeSocket.last.receive(opened);
  assert.equal(meeter.role, "opener");
  FakeSocket.last.receive({ type: "join", index: 0, id: "opener" });
  assert.deepEqual(received(meeter, "join"), [], "the former opener has joined: it is the same peer");
  assert.deepEqual(received(peer, "back").length, 1);
  assert.deepEqual([peer.polite, peer.away], [false, false]);
});

virtualTest("page takes its key over after a reload, with the token of the page before", () => {
  for (const ask of ["open", "meet"]) {
    const before = start(ask);
    assert.equal(before.takeoverToken, undefined);
    accept();
    assert.equal(before.takeoverToken, "t");
    const after = start(ask, { takeoverToken: before.takeoverToken });
    assert.equal(after.takeoverToken, undefined, "not opened yet");
    accept({ ...opened, token: "t2", joiners: [{ index: 4, id: "friend" }] });
    assert.deepEqual(FakeSocket.last.sent, [{ type: ask, key: "tea", token: "t", id: "me" }]);
    assert.equal(after.takeoverToken, "t2");
    assert.deepEqual(received(after, "join").map(({ peer }) => peer.id), ["friend"]);
  }
});

virtualTest("takeover token may be absent, and is neither sent by joiners nor in plain", () => {
  start("open", { takeoverToken: null });
  accept();
  assert.deepEqual(lastSent(), { type: "open", key: "tea", id: "me" });
  const joiner = start("join", { takeoverToken: "t" });
  accept(joined);
  assert.deepEqual(lastSent(), { type: "join", key: "tea", id: "me" });
  assert.equal(joiner.takeoverToken, undefined);
  const plain = start("open", { takeoverToken: "t" });
  accept(undefined, "sigver.plain");
  assert.deepEqual(lastSent(), { type: "open", key: "tea" });
  assert.equal(plain.takeoverToken, undefined);
});

virtualTest("meet whose token is refused meets again without it", () => {
  const meeter = start("meet");
  accept();
  reconnect();
  FakeSocket.last.open();
  assert.deepEqual(lastSent(), { type: "meet", key: "tea", token: "t", id: "me" });
  FakeSocket.last.receive({ type: "error", code: "key-taken", message: "taken", key: "tea" });
  assert.deepEqual(lastSent(), { type: "meet", key: "tea", id: "me" });
  FakeSocket.last.receive(joined);
  assert.deepEqual([meeter.role, meeter.state], ["joiner", "open"]);
});

virtualTest("meet of a reserved key is retried", () => {
  const meeter = start("meet");
  accept({ type: "error", code: "unknown-key", message: "reserved", key: "tea" });
  assert.equal(received(meeter, "reconnecting")[0].code, "unknown-key");
});

// ---- Peers over reconnects ----

virtualTest("joiner that comes back is the same peer, without a second join", () => {
  const opener = startOpen();
  FakeSocket.last.receive({ type: "join", index: 0, id: "bob" });
  const [{ peer }] = received(opener, "join");
  assert.deepEqual([peer.id, peer.index, peer.away], ["bob", 0, false]);
  FakeSocket.last.receive({ type: "leave", index: 0 });
  assert.deepEqual(received(peer, "away"), [{ type: "away", code: "left" }]);
  assert.deepEqual([peer.away, peer.send(1), opener.kick(peer), opener.broadcast(1)], [true, false, false, 0]);
  tick(119_999);
  FakeSocket.last.receive({ type: "join", index: 1, id: "bob" });
  assert.deepEqual(received(peer, "back"), [{ type: "back" }]);
  assert.deepEqual([peer.index, peer.away, opener.peers], [1, false, [peer]]);
  peer.send("again");
  assert.deepEqual(lastSent(), { type: "send", index: 1, data: "again" });
  tick(120_000);
  assert.deepEqual([received(opener, "join"), received(peer, "leave")], [[], []]);
});

virtualTest("joiner that is away for two minutes leaves, and is another peer afterwards", () => {
  const opener = startOpen();
  FakeSocket.last.receive({ type: "join", index: 0, id: "bob" });
  const [{ peer }] = received(opener, "join");
  FakeSocket.last.receive({ type: "leave", index: 0 });
  assert.deepEqual(opener.peers, [peer]);
  tick(20_000);
  FakeSocket.last.receive({ type: "pong" });
  for (let second = 20; second < 120; second += 20) {
    tick(20_000);
    FakeSocket.last.receive({ type: "pong" });
  }
  assert.deepEqual(received(peer, "leave"), [{ type: "leave" }]);
  assert.deepEqual(opener.peers, []);
  FakeSocket.last.receive({ type: "join", index: 1, id: "bob" });
  assert.notEqual(received(opener, "join")[0].peer, peer);
});

virtualTest("peers do not leave while this side is disconnected", () => {
  const opener = startOpen();
  FakeSocket.last.receive({ type: "join", index: 0, id: "bob" });
  const [{ peer }] = received(opener, "join");
  for (let attempt = 0; attempt < 20; attempt += 1) reconnect(30_000);
  assert.deepEqual(received(peer, "away"), [{ type: "away", code: "lost" }]);
  accept();
  tick(20_000);
  FakeSocket.last.receive({ type: "join", index: 0, id: "bob" });
  assert.deepEqual([received(peer, "back").length, received(peer, "leave").length, received(opener, "join").length], [1, 0, 0]);
});

virtualTest("joiner whose lost connection the server has not noticed is the same peer", () => {
  const opener = startOpen();
  FakeSocket.last.receive({ type: "join", index: 0, id: "bob" });
  FakeSocket.last.receive({ type: "join", index: 1, id: "bob" });
  const [{ peer }, ...others] = received(opener, "join");
  assert.deepEqual([others, peer.index, received(peer, "back").length], [[], 1, 1]);
  FakeSocket.last.receive({ type: "data", index: 0, data: "of the lost connection" });
  FakeSocket.last.receive({ type: "leave", index: 0 });
  assert.deepEqual([received(peer, "data"), received(peer, "away"), peer.send(1)], [[], [], true]);
});

virtualTest("opener that comes back is the same peer of its joiner, another opener is not", () => {
  const joiner = startJoined();
  const [{ peer }] = received(joiner, "join");
  reconnect();
  accept(joined);
  assert.deepEqual([received(joiner, "join"), received(peer, "back").length], [[], 1]);
  reconnect();
  accept({ type: "joined", index: 0, id: "another" });
  const [{ peer: other }] = received(joiner, "join");
  assert.deepEqual([other.id, received(peer, "leave").length, peer.send(1), other.send(1)], ["another", 1, false, true]);
  assert.deepEqual(joiner.peers, [other]);
});

virtualTest("takeover keeps the joiners, with and without an id", () => {
  const opener = startOpen();
  for (const joiner of [{ index: 0, id: "bob" }, { index: 1 }, { index: 2 }, { index: 3, id: "eve" }]) FakeSocket.last.receive({ type: "join", ...joiner });
  const [bob, one, two, eve] = received(opener, "join").map(({ peer }) => peer);
  reconnect();
  accept({ ...opened, joiners: [{ index: 0, id: "bob" }, { index: 1 }, { index: 4, id: "new" }, { index: 5 }] });
  assert.deepEqual(received(opener, "join").map(({ peer }) => peer.index), [4, 5]);
  for (const peer of [bob, one]) assert.deepEqual([received(peer, "back").length, peer.away], [1, false]);
  assert.deepEqual([received(two, "leave").length, received(eve, "leave").length, eve.away], [1, 0, true]);
  assert.deepEqual(opener.peers.map(({ index }) => index), [0, 1, 3, 4, 5]);
});

virtualTest("reopened with the same id is a peer that is back, otherwise a new peer", () => {
  const joiner = startJoined();
  const [{ peer }] = received(joiner, "join");
  FakeSocket.last.receive({ type: "reopened", id: "opener" });
  assert.deepEqual([received(peer, "back").length, received(joiner, "join")], [1, []]);
  FakeSocket.last.receive({ type: "reopened" });
  const [{ peer: after }] = received(joiner, "join");
  assert.deepEqual([peer.send(1), after.send(2), after.index, received(peer, "leave").length], [false, true, 0, 1]);
  assert.deepEqual(lastSent(), { type: "send", data: 2 });
});

virtualTest("at most 1,000 peers that are away are remembered", () => {
  const opener = startOpen();
  for (let index = 0; index < 1_100; index += 1) {
    FakeSocket.last.receive({ type: "join", index, id: `joiner ${index}` });
    FakeSocket.last.receive({ type: "leave", index });
  }
  assert.equal(opener.peers.length, 1_000);
});

virtualTest("closed signaling has no peers, and they are away", () => {
  const opener = startOpen();
  FakeSocket.last.receive({ type: "join", index: 0, id: "bob" });
  const [{ peer }] = received(opener, "join");
  FakeSocket.last.receive({ type: "closed", code: "taken-over" });
  assert.equal(received(opener, "closed")[0].code, "taken-over");
  assert.deepEqual([opener.peers, received(peer, "away"), peer.send(1)], [[], [{ type: "away", code: "taken-over" }], false]);
  tick(300_000);
  assert.deepEqual(received(peer, "leave"), []);
});

virtualTest("kick is for present joiners of a v1 opener only", () => {
  const opener = startOpen();
  FakeSocket.last.receive({ type: "join", index: 0, id: "bob" });
  const [{ peer }] = received(opener, "join");
  assert.equal(opener.kick(peer), true);
  assert.deepEqual(lastSent(), { type: "kick", index: 0 });
  const joiner = startJoined();
  assert.equal(joiner.kick(received(joiner, "join")[0].peer), false);
  assert.equal(opener.kick({ ...peer }), false);
  const plain = start("open");
  FakeSocket.last.open("sigver.plain");
  FakeSocket.last.receive({ type: "join" });
  assert.equal(plain.kick(received(plain, "join")[0].peer), false);
});

// ---- Messages ----

virtualTest("broadcast sends to all peers that are present", () => {
  const opener = startOpen();
  for (const index of [0, 1, 2]) FakeSocket.last.receive({ type: "join", index, id: `joiner ${index}` });
  FakeSocket.last.receive({ type: "leave", index: 1 });
  assert.equal(opener.broadcast("all"), 2);
  assert.deepEqual(FakeSocket.last.sent.slice(-2), [{ type: "send", index: 0, data: "all" }, { type: "send", index: 2, data: "all" }]);
});

for (const subprotocol of ["sigver.v1", "sigver.plain"]) {
  virtualTest(`${subprotocol}: message over the maximum size throws and is not sent`, () => {
    const opener = start("open");
    accept(opened, subprotocol);
    FakeSocket.last.receive(subprotocol === "sigver.v1" ? { type: "join", index: 0, id: "bob" } : { type: "join" });
    const [{ peer }] = received(opener, "join");
    const wire = (length) => ({ text: "é".repeat(length) });
    const overhead = Buffer.byteLength(JSON.stringify(subprotocol === "sigver.v1" ? { type: "send", index: 0, data: wire(0) } : { ...wire(0), index: 0 }));
    const fits = Math.floor((65_536 - overhead) / 2);
    assert.equal(peer.send(wire(fits)), true);
    const { length } = FakeSocket.last.sent;
    assert.throws(() => peer.send(wire(fits + 1)), RangeError);
    assert.throws(() => opener.broadcast(wire(fits + 1)), RangeError);
    assert.equal(FakeSocket.last.sent.length, length);
  });
}

virtualTest("option maxMessageBytes follows a server with another limit", () => {
  const joiner = startJoined({ maxMessageBytes: 100 });
  const [{ peer }] = received(joiner, "join");
  assert.throws(() => peer.send("x".repeat(100)), RangeError);
  assert.throws(() => peer.send(undefined), TypeError);
  assert.equal(peer.send("x"), true);
});

virtualTest("server from the future: unknown messages, codes and members are ignored", () => {
  for (const [ask, accepted] of [["open", opened], ["join", joined], ["meet", joined]]) {
    const signaling = start(ask);
    FakeSocket.last.open();
    FakeSocket.last.receive({ type: "welcome", version: 9 });
    FakeSocket.last.receive({ ...accepted, later: { nested: true } });
    assert.equal(signaling.state, "open");
    FakeSocket.last.receive({ type: "constructor" });
    FakeSocket.last.receive({ type: "__proto__" });
    if (signaling.role === "opener") FakeSocket.last.receive({ type: "join", index: 0, id: "bob", region: "eu", ice: { servers: [], policy: "relay" } });
    const [{ peer }] = received(signaling, "join");
    const index = signaling.role === "opener" ? { index: 0 } : {};
    FakeSocket.last.receive({ type: "data", data: "hello", at: 5, ...index });
    assert.deepEqual(received(peer, "data"), [{ type: "data", data: "hello" }]);
    FakeSocket.last.receive({ type: "error", code: "quota", message: "a request failed", retry: 5 });
    assert.deepEqual(received(signaling, "error").map(({ code }) => code), ["quota"]);
    assert.equal(signaling.state, "open");
    FakeSocket.last.receive({ type: "closed", code: "moved", to: "ws://elsewhere" });
    assert.deepEqual(received(signaling, "closed"), [{ type: "closed", code: "refused", reason: "moved" }]);

    const refused = start(ask);
    accept({ type: "error", code: "quota", message: "not today" });
    assert.deepEqual(received(refused, "closed"), [{ type: "closed", code: "refused", reason: "not today" }]);
  }
});

virtualTest("invalid messages of the server are errors, and change nothing", () => {
  const opener = startOpen();
  const invalid = [{}, { type: 5 }, { type: "join", index: "0" }, { type: "join", index: 0, id: 5 }, { type: "join", index: 0, ice: [] }, { type: "leave" },
    { type: "data", index: 0 }, { type: "opened", key: "tea", joiners: [{}] }, { type: "closed" }, { type: "error" }, { type: "waiting" }];
  for (const message of invalid) FakeSocket.last.receive(message);
  assert.deepEqual(received(opener, "error").map(({ code }) => code), invalid.map(() => "malformed"));
  assert.deepEqual([opener.state, opener.peers], ["open", []]);
});

// ---- Listeners ----

virtualTest("up to 100 events are queued in order for the first listener", () => {
  const opener = startOpen();
  FakeSocket.last.receive({ type: "join", index: 0, id: "bob" });
  for (let data = 0; data < 200; data += 1) FakeSocket.last.receive({ type: "data", index: 0, data });
  FakeSocket.last.receive({ type: "leave", index: 0 });
  const [{ peer }] = received(opener, "join");
  assert.deepEqual(received(peer, "data").map(({ data }) => data), Array.from({ length: 100 }, (_, data) => data));
  assert.equal(received(peer, "away").length, 1);
  assert.deepEqual(received(opener, "message"), [], "messages are not queued");
});

virtualTest("removed listener is not called, and that of once is called once", () => {
  const opener = startOpen();
  const indexes = [];
  const once = [];
  FakeSocket.last.receive({ type: "join", index: 0, id: "zero" });
  FakeSocket.last.receive({ type: "join", index: 1, id: "one" });
  opener.once("join", ({ peer }) => once.push(peer.index));
  const off = opener.on("join", ({ peer }) => indexes.push(peer.index));
  const never = opener.once("join", () => once.push("removed"));
  never();
  opener.once("join", ({ peer }) => once.push(peer.index));
  FakeSocket.last.receive({ type: "join", index: 2, id: "two" });
  off();
  FakeSocket.last.receive({ type: "join", index: 3, id: "three" });
  assert.deepEqual([once, indexes], [[0, 2], [2]]);
});

virtualTest("listener that throws does not affect the others, and its error is reported", () => {
  const reports = [];
  mock.method(globalThis, "queueMicrotask", (report) => reports.push(report));
  const opener = startOpen();
  opener.on("join", () => {
    throw new Error("of a listener");
  });
  const indexes = [];
  opener.on("join", ({ peer }) => indexes.push(peer.index));
  FakeSocket.last.receive({ type: "join", index: 0, id: "bob" });
  assert.deepEqual(indexes, [0]);
  assert.equal(reports.length, 1);
  assert.throws(reports[0], /of a listener/);
});
