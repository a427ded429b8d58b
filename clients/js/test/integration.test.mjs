// Tests sigver.js in Node.js: against the server, against servers that send invalid messages, and with fake sockets and connections.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, mock, test } from "node:test";
import { WebSocket, WebSocketServer } from "ws";
import { join, negotiate, open } from "../sigver.js";
import { startServer } from "./server.mjs";

const DEADLINE = 30_000;
const DIALECTS = ["v1", "plain"];
const PAIRINGS = DIALECTS.flatMap((opener) => DIALECTS.map((joiner) => [opener, joiner]));
const QUICK = { first: 20, slow: 20, limit: 100 };

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
    assert.equal((await next(toKicked, "leave")).code, "left");
    assert.equal(toKicked.send({}), false);
    opener.kick(toKicked);
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
    assert.equal((await next(peer, "leave")).code, "opener-left");

    const second = start(open, first.key);
    await next(second, "opened");
    await until(joiner, "join");
    assert.equal(joiner.state, "open");
    assert.equal(peer.send({}), false, "the earlier peer has left");
  });
}

serverTest("kick by a plain opener emits an error", async (start) => {
  const opener = start(open, "no kick", { dialect: "plain" });
  await isOpen(opener);
  start(join, "no kick");
  const { peer } = await next(opener, "join");
  opener.kick(peer);
  assert.equal((await next(opener, "error")).code, "not-in-plain");
  assert(peer.send({}));
});

serverTest("v1 opener is notified of a leave, and its closed key can be opened again", async (start) => {
  const opener = start(open, "leaves");
  await next(opener, "opened");
  const joiner = start(join, "leaves");
  const { peer } = await next(opener, "join");
  joiner.close();
  joiner.close();
  assert.equal((await next(joiner, "closed")).code, "done");
  assert.equal((await next(peer, "leave")).code, "left");
  opener.close();
  await next(opener, "closed");
  assert.equal(opener.state, "closed");
  await next(start(open, "leaves"), "opened");
});

serverTest("v1 opener that was lost opens its reserved key again", async (start) => {
  const opener = start(open, "reserved");
  await next(opener, "opened");
  const joiner = start(join, "reserved");
  await next(joiner, "join");
  await next(opener, "join");
  sockets.get(opener)().terminate();
  await next(opener, "opened");
  assert.deepEqual(received(opener, "reconnecting").map(({ code }) => code), ["lost"], "no key-taken");
  // The joiner joins again, or stays if the server had not noticed the loss.
  const [{ peer: toOpener }, { peer: toJoiner }] = await Promise.all([until(joiner, "join"), until(opener, "join")]);
  toJoiner.send("again");
  assert.equal((await next(toOpener, "data")).data, "again");
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
      // During shutdown, the server closes clients one after another, and notifies v1 openers that are still connected.
      assert.match((await next(toJoiner, "leave")).code, /^(lost|left)$/);
      assert.match((await next(toOpener, "leave")).code, /^(lost|opener-left)$/);
      assert.equal((await next(opener, "reconnecting")).code, "lost");
      own = await startServer(own.port);

      const { peer } = await next(opener, "join");
      assert.equal(peer.index, 0);
      opener.kick(toJoiner);
      assert.equal(toJoiner.send({}), false, "the earlier peer has left, even if the new one has its index");
      peer.send({ again: true });
      const { peer: again } = await until(joiner, "join");
      assert.equal((await next(again, "data")).data.again, true);
      assert.equal(opener.key, "phoenix");
      assert.equal(joiner.state, "open");
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

test("invalid arguments throw", () => {
  const url = "ws://127.0.0.1:9";
  assert.throws(() => join(url, undefined, { WebSocket }), TypeError);
  assert.throws(() => join(url, "", { WebSocket }), TypeError);
  assert.throws(() => open(url, 5, { WebSocket }), TypeError);
  assert.throws(() => open(url, "tea", { WebSocket: null }), /option WebSocket/);
  assert.throws(() => open(url, "tea", { WebSocket, dialect: "v2" }), TypeError);
  assert.throws(() => open("nowhere", "tea", { WebSocket }), SyntaxError);
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

// ---- With fake sockets and a fake clock ----

/** A socket that the test controls. `FakeSocket.last` is the newest. */
class FakeSocket {
  static made = 0;
  static last;
  sent = [];

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    FakeSocket.made += 1;
    FakeSocket.last = this;
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closedWith = code;
  }

  open(protocol) {
    this.protocol = protocol;
    this.onopen();
  }

  receive(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  end(code, reason = "") {
    this.onclose?.({ code, reason });
  }

  accept() {
    this.open("sigver.v1");
    this.receive({ type: "opened", key: "tea" });
  }
}

fakeSocketTest("client offers both dialects, or the one in the options", () => {
  const offered = (dialect) => (open("ws://fake", "tea", { WebSocket: FakeSocket, dialect }), FakeSocket.last.protocols);
  assert.deepEqual(offered(), ["sigver.v1", "sigver.plain"]);
  assert.deepEqual(offered("v1"), ["sigver.v1"]);
  assert.deepEqual(offered("plain"), ["sigver.plain"]);
});

fakeSocketTest("client uses the dialect that the server echoes", () => {
  const opener = open("ws://fake", undefined, { WebSocket: FakeSocket });
  FakeSocket.last.open("sigver.plain");
  assert.equal(opener.dialect, "plain");
  assert.deepEqual(FakeSocket.last.sent, [{ type: "open", key: opener.key }]);

  const other = open("ws://fake", undefined, { WebSocket: FakeSocket });
  FakeSocket.last.open("sigver.v1");
  assert.equal(other.dialect, "v1");
  assert.deepEqual(FakeSocket.last.sent, [{ type: "open" }]);
});

fakeSocketTest("generated key is opened again after a reconnect", () => {
  open("ws://fake", undefined, { WebSocket: FakeSocket });
  FakeSocket.last.accept();
  FakeSocket.last.end(1006);
  mock.timers.tick(1_000);
  FakeSocket.last.open("sigver.v1");
  assert.deepEqual(FakeSocket.last.sent, [{ type: "open", key: "tea" }]);
});

fakeSocketTest("opener shows its newest token when it opens its key again", () => {
  const opener = open("ws://fake", "tea", { WebSocket: FakeSocket });
  const shown = [];
  for (const token of ["first", "second", "third"]) {
    FakeSocket.last.open("sigver.v1");
    shown.push(FakeSocket.last.sent[0].token);
    FakeSocket.last.receive({ type: "opened", key: "tea", token });
    FakeSocket.last.end(1006);
    mock.timers.tick(1_000);
  }
  assert.deepEqual(shown, [undefined, "first", "second"]);
  assert.deepEqual(received(opener, "opened")[0], { type: "opened", key: "tea" }, "the token is secret");
  FakeSocket.last.open("sigver.plain");
  assert.deepEqual(FakeSocket.last.sent, [{ type: "open", key: "tea" }]);
});

fakeSocketTest("takeover of a lost connection gives both sides new peers", () => {
  const opener = open("ws://fake", "tea", { WebSocket: FakeSocket });
  FakeSocket.last.open("sigver.v1");
  FakeSocket.last.receive({ type: "opened", key: "tea", token: "t", joiners: [{ index: 3, id: "bob" }, { index: 5 }] });
  assert.deepEqual(received(opener, "join").map(({ peer }) => peer.index), [3, 5]);
  FakeSocket.last.receive({ type: "closed", code: "taken-over" });
  assert.equal(received(opener, "closed")[0].code, "taken-over");

  const joiner = join("ws://fake", "tea", { WebSocket: FakeSocket });
  FakeSocket.last.open("sigver.v1");
  FakeSocket.last.receive({ type: "joined", index: 3 });
  FakeSocket.last.receive({ type: "reopened" });
  const [{ peer: before }, { peer: after }] = received(joiner, "join");
  assert.equal(received(before, "leave")[0].code, "left");
  assert.deepEqual([before.send(1), after.send(2), after.index], [false, true, 3]);
  assert.deepEqual(FakeSocket.last.sent.at(-1), { type: "send", data: 2 });
});

fakeSocketTest("messages and codes of later versions are accepted", () => {
  for (const [ask, accepted] of [[open, { type: "opened", key: "tea" }], [join, { type: "joined", index: 0 }]]) {
    const start = () => (FakeSocket.last = undefined, ask("ws://fake", "tea", { WebSocket: FakeSocket }));
    const ends = start();
    FakeSocket.last.open("sigver.v1");
    FakeSocket.last.receive({ type: "later" });
    FakeSocket.last.receive({ ...accepted, later: true });
    FakeSocket.last.receive({ type: "error", code: "later", message: "a request failed" });
    assert.deepEqual(received(ends, "error").map(({ code }) => code), ["later"]);
    assert.equal(ends.state, "open");
    FakeSocket.last.receive({ type: "closed", code: "later" });
    assert.deepEqual(received(ends, "closed"), [{ type: "closed", code: "refused", reason: "later" }]);

    const refused = start();
    FakeSocket.last.open("sigver.v1");
    FakeSocket.last.receive({ type: "error", code: "later", message: "not today" });
    assert.deepEqual(received(refused, "closed"), [{ type: "closed", code: "refused", reason: "not today" }]);
  }
});

fakeSocketTest("retry delays are random below a bound that doubles up to 30 s and is reset by success", () => {
  const opener = open("ws://fake", "tea", { WebSocket: FakeSocket });
  const bounds = [];
  opener.on("reconnecting", ({ delay }) => bounds.push(delay / 0.75));
  for (let failure = 0; failure < 7; failure += 1) {
    const made = FakeSocket.made;
    FakeSocket.last.end(1006);
    mock.timers.tick(bounds.at(-1) * 0.75 - 1);
    assert.equal(FakeSocket.made, made, "no retry before the delay has passed");
    mock.timers.tick(1);
    assert.equal(FakeSocket.made, made + 1);
  }
  FakeSocket.last.accept();
  FakeSocket.last.end(1001, "server shutting down");
  assert.deepEqual(bounds, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 1_000]);
});

fakeSocketTest("refusals by a plain server do not reset the retry delays", () => {
  const joiner = join("ws://fake", "tea", { WebSocket: FakeSocket });
  const bounds = [];
  joiner.on("reconnecting", ({ delay }) => bounds.push(delay / 0.75));
  FakeSocket.last.open("sigver.plain");
  FakeSocket.last.end(4001, "opener left");
  for (const reason of ["key is unknown", "key is unknown", "key is unknown"]) {
    mock.timers.tick(30_000);
    FakeSocket.last.open("sigver.plain");
    FakeSocket.last.end(1008, reason);
  }
  assert.deepEqual(bounds, [5_000, 10_000, 20_000, 30_000]);
});

fakeSocketTest("option retries limits the attempts", () => {
  const opener = open("ws://fake", "tea", { WebSocket: FakeSocket, retries: 2 });
  for (let attempt = 0; attempt < 3; attempt += 1) {
    FakeSocket.last.end(1006);
    mock.timers.tick(30_000);
  }
  assert.deepEqual([FakeSocket.made, opener.state], [3, "closed"]);
  assert.equal(received(opener, "closed")[0].code, "lost");

  const withoutRetries = open("ws://fake", "tea", { WebSocket: FakeSocket, retries: 0 });
  FakeSocket.last.end(1006);
  assert.equal(withoutRetries.state, "closed");
});

fakeSocketTest("close during a delay or an attempt stops retries", () => {
  const opener = open("ws://fake", "tea", { WebSocket: FakeSocket });
  FakeSocket.last.end(1006);
  opener.close();
  mock.timers.tick(30_000);
  assert.deepEqual([FakeSocket.made, opener.state], [1, "closed"]);

  const other = open("ws://fake", "tea", { WebSocket: FakeSocket });
  other.close();
  assert.deepEqual([FakeSocket.last.closedWith, other.state], [1000, "closing"]);
  FakeSocket.last.end(1006);
  assert.deepEqual([FakeSocket.made, other.state], [2, "closed"]);

  const inEvent = open("ws://fake", "tea", { WebSocket: FakeSocket });
  inEvent.on("reconnecting", () => inEvent.close());
  FakeSocket.last.end(1006);
  mock.timers.tick(30_000);
  assert.deepEqual([FakeSocket.made, inEvent.state], [3, "closed"]);
});

const LOST = [[1001, "server shutting down"], [1006], [1011], [1012], [1013, "reading too slowly"], [1008, "no sign of life"]];
const FINAL = [
  [1002, "broken WebSocket framing", "refused"], [1003, "", "refused"], [1007, "", "refused"], [1009, "", "refused"],
  [1008, "no open or join in time", "refused"], [1000, "", "refused"], [4003, "kicked by the opener", "kicked"],
];

for (const subprotocol of ["sigver.v1", "sigver.plain"]) {
  fakeSocketTest(`${subprotocol}: only temporary close codes are retried`, () => {
    for (const [status, reason] of LOST) {
      const opener = openFake(subprotocol);
      FakeSocket.last.end(status, reason);
      assert.equal(opener.state, "reconnecting", `after ${status}`);
      assert.equal(received(opener, "reconnecting")[0].code, "lost");
    }
    for (const [status, reason, code] of FINAL) {
      const opener = openFake(subprotocol);
      FakeSocket.last.end(status, reason);
      const [closed] = received(opener, "closed");
      assert.deepEqual(closed, { type: "closed", code, reason, status });
    }
  });

  fakeSocketTest(`${subprotocol}: key-taken is retried only by a client that had the key`, () => {
    const refuse = () => {
      FakeSocket.last.open(subprotocol);
      if (subprotocol === "sigver.v1") FakeSocket.last.receive({ type: "error", code: "key-taken", message: "taken", key: "tea" });
      else FakeSocket.last.end(1008, "key is taken");
    };
    const stranger = open("ws://fake", "tea", { WebSocket: FakeSocket });
    refuse();
    assert.equal(stranger.state, "closed");

    const owner = openFake(subprotocol);
    FakeSocket.last.end(1006);
    for (let attempt = 0; attempt < 10; attempt += 1) {
      mock.timers.tick(30_000);
      refuse();
      assert.equal(owner.state, "reconnecting");
    }
    mock.timers.tick(30_000);
    FakeSocket.last.open(subprotocol);
    FakeSocket.last.receive({ type: "opened", key: "tea" });
    assert.equal(owner.state, "open");
  });
}

for (const [code, reason] of [["too-many-joiners", "too many joiners on the key"], ["too-many-attempts", "too many attempts at keys"]]) {
  fakeSocketTest(`${code} is retried`, () => {
    const joiner = join("ws://fake", "tea", { WebSocket: FakeSocket });
    FakeSocket.last.open("sigver.v1");
    FakeSocket.last.receive({ type: "error", code, message: "full", key: "tea" });
    assert.deepEqual(received(joiner, "reconnecting").map((event) => event.code), [code]);
    const plain = join("ws://fake", "tea", { WebSocket: FakeSocket });
    FakeSocket.last.open("sigver.plain");
    FakeSocket.last.end(1013, reason);
    assert.deepEqual(received(plain, "reconnecting").map((event) => event.code), [code]);
  });
}

fakeSocketTest("peers leave once when the connection is lost", () => {
  const opener = openFake("sigver.v1");
  FakeSocket.last.receive({ type: "join", index: 0 });
  const [{ peer }] = received(opener, "join");
  for (let loss = 0; loss < 2; loss += 1) {
    FakeSocket.last.end(1006);
    mock.timers.tick(1_000);
    FakeSocket.last.accept();
    assert.equal(peer.send({}), false);
    opener.kick(peer);
    assert.deepEqual(FakeSocket.last.sent, [{ type: "open", key: "tea" }]);
  }
  assert.deepEqual(received(peer, "leave"), [{ type: "leave", code: "lost" }]);
});

fakeSocketTest("up to 100 events are queued in order for the first listener", () => {
  const opener = openFake("sigver.v1");
  FakeSocket.last.receive({ type: "join", index: 0 });
  for (let data = 0; data < 200; data += 1) FakeSocket.last.receive({ type: "data", index: 0, data });
  FakeSocket.last.receive({ type: "leave", index: 0 });
  const [{ peer }] = received(opener, "join");
  assert.deepEqual(received(peer, "data").map(({ data }) => data), Array.from({ length: 100 }, (_, data) => data));
  assert.equal(received(peer, "leave").length, 1);
  assert.equal(received(peer, "data").length, 0);
});

fakeSocketTest("removed listener is not called", () => {
  const opener = openFake("sigver.v1");
  const indexes = [];
  const stop = opener.on("join", ({ peer }) => indexes.push(peer.index));
  FakeSocket.last.receive({ type: "join", index: 0 });
  stop();
  FakeSocket.last.receive({ type: "join", index: 1 });
  assert.deepEqual(indexes, [0]);
});

// ---- Negotiation with a fake connection, because a real one does not reach these states reliably ----

/** The part of RTCPeerConnection that `negotiate` uses. Calls are pending until `settle`. */
class FakeConnection extends EventTarget {
  signalingState = "stable";
  remoteDescription = null;
  localDescription = null;
  calls = [];

  setLocalDescription = () => this.#call("setLocalDescription");
  setRemoteDescription = (description) => this.#call("setRemoteDescription", description);
  addIceCandidate = (candidate) => this.#call("addIceCandidate", candidate);

  #call(what, argument) {
    return new Promise((resolve, reject) => this.calls.push({ what, argument, resolve, reject }));
  }

  /** Emits a candidate. */
  async gather() {
    this.dispatchEvent(Object.assign(new Event("icecandidate"), { candidate: { toJSON: () => CANDIDATE } }));
    await new Promise(setImmediate);
  }

  /** Completes the oldest call and applies `change`, or rejects it if `change` is an error. */
  async settle(what, change = {}) {
    const oldest = this.calls.shift();
    assert.equal(oldest?.what, what);
    if (change instanceof Error) oldest.reject(change);
    else oldest.resolve(void Object.assign(this, change));
    await new Promise(setImmediate);
    return oldest.argument;
  }
}

const described = (type) => ({ type, sdp: `of an ${type}`, toJSON: () => ({ type, sdp: `of an ${type}` }) });
const CANDIDATE = { candidate: "candidate:1 1 UDP 1 192.0.2.1 9 typ host", sdpMid: "0" };

negotiationTest("offer during setLocalDescription is a collision", async ({ start, receive, sent }) => {
  for (const polite of [false, true]) {
    const pc = start(polite);
    pc.dispatchEvent(new Event("negotiationneeded"));
    receive(described("offer"));
    await pc.settle("setLocalDescription", { signalingState: "have-local-offer", localDescription: described("offer") });
    assert.deepEqual(sent(), [{ type: "offer", sdp: "of an offer" }]);
    await pc.gather();
    assert.deepEqual(sent(), [{ candidate: CANDIDATE }]);
    assert.deepEqual(pc.calls.map(({ what }) => what), polite ? ["setRemoteDescription"] : []);
  }
});

negotiationTest("first offer is rolled back after the first candidate, later ones immediately", async ({ start, receive }) => {
  const pc = start(true);
  pc.signalingState = "have-local-offer";
  receive(described("offer"));
  receive({ candidate: CANDIDATE });
  await new Promise(setImmediate);
  assert.deepEqual(pc.calls, []);
  await pc.gather();
  await pc.settle("setRemoteDescription", { remoteDescription: described("offer") });
  assert.deepEqual(pc.calls.map(({ what }) => what), ["addIceCandidate", "setLocalDescription"]);
  receive(described("offer"));
  assert.equal(pc.calls.at(-1).what, "setRemoteDescription");
});

negotiationTest("first offer is rolled back after a timeout without candidates", async ({ start, receive }) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const pc = start(true);
    pc.signalingState = "have-local-offer";
    receive(described("offer"));
    mock.timers.tick(499);
    await new Promise(setImmediate);
    assert.deepEqual(pc.calls, []);
    mock.timers.tick(1);
    await new Promise(setImmediate);
    await pc.settle("setRemoteDescription");
  } finally {
    mock.timers.reset();
  }
});

negotiationTest("errors of candidates are ignored only for an ignored offer", async ({ start, receive, errors }) => {
  const pc = start(false);
  Object.assign(pc, { signalingState: "have-local-offer", remoteDescription: described("answer") });
  receive(described("offer"));
  receive({ candidate: CANDIDATE });
  receive(described("answer"));
  receive({ candidate: CANDIDATE });
  await pc.settle("addIceCandidate", new Error("of the ignored offer"));
  await pc.settle("setRemoteDescription", { signalingState: "stable" });
  await pc.settle("addIceCandidate", new Error("of the answer"));
  assert.deepEqual(errors(), ["of the answer"]);
});

negotiationTest("early candidates are queued, except those of an ignored offer", async ({ start, receive, sent, errors }) => {
  const pc = start(false);
  pc.signalingState = "have-local-offer";
  receive(described("offer"));
  receive({ candidate: { candidate: "of the ignored offer" } });
  await pc.settle("addIceCandidate", new Error("no description yet"));
  receive(described("answer"));
  receive({ candidate: CANDIDATE });
  receive({ candidate: null });
  assert.deepEqual(pc.calls.map(({ what }) => what), ["setRemoteDescription"]);
  await pc.settle("setRemoteDescription", { signalingState: "stable", remoteDescription: described("answer") });
  assert.deepEqual(await pc.settle("addIceCandidate"), CANDIDATE);
  assert.equal(await pc.settle("addIceCandidate"), undefined, "the end of candidates");
  assert.deepEqual([pc.calls, sent(), errors()], [[], [], []]);
});

negotiationTest("offer during setRemoteDescription of an answer is no collision", async ({ start, receive, sent }) => {
  const pc = start(false);
  pc.signalingState = "have-local-offer";
  receive(described("answer"));
  receive(described("offer"));
  await pc.settle("setRemoteDescription", { signalingState: "stable" });
  await pc.settle("setRemoteDescription", { signalingState: "have-remote-offer" });
  await pc.settle("setLocalDescription", { signalingState: "stable", localDescription: described("answer") });
  assert.deepEqual(sent(), [{ type: "answer", sdp: "of an answer" }]);
});

negotiationTest("rejected descriptions are reported once, other data is ignored", async ({ start, receive, errors }) => {
  const pc = start(true);
  [null, 5, "text", [], {}, { type: "offer" }, { chat: "hello" }].forEach(receive);
  assert.deepEqual(pc.calls, []);
  receive({ type: "answer", sdp: "nonsense" });
  await pc.settle("setRemoteDescription", new Error("no answer was due"));
  assert.deepEqual(errors(), ["no answer was due"]);
  receive(described("offer"));
  pc.signalingState = "closed";
  await pc.settle("setRemoteDescription", new Error("closed"));
  receive(described("offer"));
  assert.deepEqual([pc.calls, errors()], [[], []]);
});

// ---- Helpers ----

function serverTest(name, body) {
  test(name, { timeout: DEADLINE }, (t) => body(starter(t, server.url)));
}

/** Returns a function that starts clients, which are closed after the test. */
function starter(t, url) {
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
    const signaling = ask(url, key, { WebSocket: RecordedSocket, backoff: QUICK, ...options });
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

function fakeSocketTest(name, body) {
  test(name, () => {
    mock.timers.enable({ apis: ["setTimeout"] });
    mock.method(Math, "random", () => 0.75);
    FakeSocket.made = 0;
    try {
      body();
    } finally {
      mock.timers.reset();
      mock.restoreAll();
    }
  });
}

function negotiationTest(name, body) {
  test(name, { timeout: DEADLINE }, async () => {
    let listener;
    const messages = [];
    const failures = [];
    await body({
      start(polite) {
        const pc = new FakeConnection();
        const channel = { polite, on: (_, added) => (listener = added), send: (data) => messages.push(data) };
        negotiate(pc, channel, { onerror: ({ message }) => failures.push(message) });
        return pc;
      },
      receive: (data) => listener({ data }),
      sent: () => messages.splice(0),
      errors: () => failures.splice(0),
    });
  });
}

function openFake(subprotocol) {
  const opener = open("ws://fake", "tea", { WebSocket: FakeSocket });
  FakeSocket.last.open(subprotocol);
  if (subprotocol === "sigver.v1") FakeSocket.last.receive({ type: "opened", key: "tea" });
  return opener;
}

/** Events that the test has not consumed, by type. @type {WeakMap<object, Map<string, { events: any[], wake: () => void }>>} */
const inboxes = new WeakMap();

function inbox(source, type) {
  const ofSource = inboxes.get(source) ?? new Map();
  inboxes.set(source, ofSource);
  if (!ofSource.has(type)) {
    const box = { events: [], wake() {} };
    ofSource.set(type, box);
    source.on(type, (event) => {
      box.events.push(event);
      box.wake();
    });
  }
  return ofSource.get(type);
}

/** Returns the events of a type emitted so far. */
function received(source, type) {
  return inbox(source, type).events.splice(0);
}

/** Waits for the next event of a type. */
async function next(source, type) {
  const box = inbox(source, type);
  while (box.events.length === 0) await new Promise((resolve) => (box.wake = resolve));
  return box.events.shift();
}

/** Waits for the newest event of a type while the client is open. Skips attempts that failed again. */
async function until(source, type) {
  for (;;) {
    const event = await next(source, type);
    if (source.state === "open" && inbox(source, type).events.length === 0) return event;
  }
}
