// sigver.js without a browser: against the real server, against servers that talk nonsense, and with sockets and connections that the
// test plays.

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
  serverTest(`${one} opener, ${other} joiners: everything arrives, at whom it is for`, async (start) => {
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
      // A plain opener's frame is told to a v1 joiner whole.
      assert.deepEqual(data, one === "plain" && other === "v1" ? { ...answer, index } : answer);
    }
  });
}

serverTest("between v1 peers any JSON passes; a plain one is given objects only", async (start) => {
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
  serverTest(`${dialect}: refusals have the same codes`, async (start) => {
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

  serverTest(`${dialect}: who is kicked is told and does not come back; the others stay`, async (start) => {
    const opener = start(open, `kick ${dialect}`);
    await next(opener, "opened");
    const [kicked, stays] = [start(join, opener.key, { dialect }), start(join, opener.key, { dialect: "v1" })];
    const peers = [(await next(opener, "join")).peer, (await next(opener, "join")).peer];
    const { peer: atStays } = await next(stays, "join");
    // Which of the two came first is theirs to settle.
    const [toStays] = peers.filter(({ index }) => index === atStays.index);
    const [toKicked] = peers.filter(({ index }) => index !== atStays.index);

    opener.kick(toKicked);
    assert.equal((await next(kicked, "closed")).code, "kicked");
    assert.equal((await next(toKicked, "leave")).code, "left");
    assert.equal(toKicked.send({}), false);
    opener.kick(toKicked);
    toStays.send({ still: "here" });
    assert.deepEqual((await next(atStays, "data")).data, { still: "here" });
    assert.deepEqual(waiting(opener, "error"), []);
  });

  serverTest(`${dialect}: a joiner whose opener closes comes back when it does`, async (start) => {
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
    assert.equal(peer.send({}), false, "the peer of before is another");
  });
}

serverTest("a plain opener cannot kick, and is told so", async (start) => {
  const opener = start(open, "no kick", { dialect: "plain" });
  await isOpen(opener);
  start(join, "no kick");
  const { peer } = await next(opener, "join");
  opener.kick(peer);
  assert.equal((await next(opener, "error")).code, "not-in-plain");
  assert(peer.send({}));
});

serverTest("a joiner that leaves is told to a v1 opener, and its key is free for the next", async (start) => {
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

for (const [one, other] of PAIRINGS) {
  for (const signal of ["SIGTERM", "SIGKILL"]) {
    test(`${one} opener, ${other} joiner: both come back to a server that ended by ${signal}`, { timeout: DEADLINE }, async (t) => {
      let own = await startServer();
      t.after(() => own.stop());
      const start = starter(t, own.url);
      const opener = start(open, "phoenix", { dialect: one });
      await isOpen(opener);
      const joiner = start(join, "phoenix", { dialect: other });
      const [{ peer: toOpener }, { peer: toJoiner }] = await Promise.all([next(joiner, "join"), next(opener, "join")]);

      await own.stop(signal);
      // A server that shuts down closes its clients one after the other, and tells a v1 opener of those before it.
      assert.match((await next(toJoiner, "leave")).code, /^(lost|left)$/);
      assert.match((await next(toOpener, "leave")).code, /^(lost|opener-left)$/);
      assert.equal((await next(opener, "reconnecting")).code, "lost");
      own = await startServer(own.port);

      const { peer } = await next(opener, "join");
      assert.equal(peer.index, 0);
      opener.kick(toJoiner);
      assert.equal(toJoiner.send({}), false, "the joiner of before has the same index, and is another");
      peer.send({ again: true });
      const { peer: again } = await until(joiner, "join");
      assert.equal((await next(again, "data")).data.again, true);
      assert.equal(opener.key, "phoenix");
      assert.equal(joiner.state, "open");
    });
  }
}

serverTest("an AbortSignal closes, also before anything has begun", async (start) => {
  const controller = new AbortController();
  const opener = start(open, "aborted", { signal: controller.signal });
  await next(opener, "opened");
  controller.abort();
  assert.equal((await next(opener, "closed")).code, "done");
  const stillborn = start(open, "aborted", { signal: controller.signal });
  assert.equal((await next(stillborn, "closed")).code, "done");
  const hasty = start(open, "aborted");
  hasty.close();
  assert.equal((await next(hasty, "closed")).code, "done");
  await next(start(open, "aborted"), "opened");
});

test("arguments that can never be right are thrown", () => {
  const url = "ws://127.0.0.1:9";
  assert.throws(() => join(url, undefined, { WebSocket }), TypeError);
  assert.throws(() => join(url, "", { WebSocket }), TypeError);
  assert.throws(() => open(url, 5, { WebSocket }), TypeError);
  assert.throws(() => open(url, "tea", { WebSocket: null }), /option WebSocket/);
  assert.throws(() => open(url, "tea", { WebSocket, dialect: "v2" }), TypeError);
  assert.throws(() => open("nowhere", "tea", { WebSocket }), SyntaxError);
});

// ---- Against a server that talks nonsense ----

const NONSENSE = [
  "", "{", "null", "5", "[]", "{}", '{"type":5}', '{"type":"constructor"}', '{"type":"__proto__"}', '{"type":"offer"}',
  '{"type":"joined","index":"0"}', '{"type":"joined","index":-1}', '{"type":"join","index":null}', '{"type":"join","index":1.5}',
  '{"type":"data"}', '{"type":"data","index":[],"data":1}', '{"type":"opened"}', '{"type":"closed","code":{}}', '{"type":"error"}',
  '{"index":{}}', '{"type":"leave"}', Buffer.from([0, 1, 2]),
];

for (const dialect of DIALECTS) {
  for (const [ask, acceptance] of [[open, '{"type":"opened","key":"tea"}'], [join, '{"type":"joined","index":0}']]) {
    test(`${dialect}: nonsense is an error event for whoever asked to ${ask.name}, and nothing worse`, { timeout: DEADLINE }, async (t) => {
      const nonsense = new WebSocketServer({ host: "127.0.0.1", port: 0 });
      t.after(() => nonsense.close());
      await once(nonsense, "listening");
      nonsense.on("connection", (socket) => socket.on("message", () => {
        if (dialect === "v1") socket.send(acceptance);
        NONSENSE.forEach((text) => socket.send(text));
        // Of nobody that has come.
        socket.send('{"type":"data","index":99,"data":{}}');
        socket.send('{"type":"leave","index":99}');
        socket.close(1008, "the end");
      }));
      const signaling = starter(t, `ws://127.0.0.1:${nonsense.address().port}`)(ask, "tea", { dialect });
      const { code, status } = await next(signaling, "closed");
      assert.deepEqual([code, status], ["refused", 1008]);
      const errors = waiting(signaling, "error");
      assert(errors.length > 0 && errors.every(({ code }) => code === "malformed"));
    });
  }
}

// ---- With sockets and a clock that the test plays ----

/** A socket that does what the test says. The newest one is `PlayedSocket.last`. */
class PlayedSocket {
  static made = 0;
  static last;
  sent = [];

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    PlayedSocket.made += 1;
    PlayedSocket.last = this;
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closedWith = code;
  }

  opens(protocol) {
    this.protocol = protocol;
    this.onopen();
  }

  says(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  ends(code, reason = "") {
    this.onclose?.({ code, reason });
  }

  accepts() {
    this.opens("sigver.v1");
    this.says({ type: "opened", key: "tea" });
  }
}

playedTest("both dialects are offered, or the one that was chosen", () => {
  const offered = (dialect) => (open("ws://played", "tea", { WebSocket: PlayedSocket, dialect }), PlayedSocket.last.protocols);
  assert.deepEqual(offered(), ["sigver.v1", "sigver.plain"]);
  assert.deepEqual(offered("v1"), ["sigver.v1"]);
  assert.deepEqual(offered("plain"), ["sigver.plain"]);
});

playedTest("what is spoken is what was echoed", () => {
  const opener = open("ws://played", undefined, { WebSocket: PlayedSocket });
  PlayedSocket.last.opens("sigver.plain");
  assert.equal(opener.dialect, "plain");
  assert.deepEqual(PlayedSocket.last.sent, [{ type: "open", key: opener.key }]);

  const other = open("ws://played", undefined, { WebSocket: PlayedSocket });
  PlayedSocket.last.opens("sigver.v1");
  assert.equal(other.dialect, "v1");
  assert.deepEqual(PlayedSocket.last.sent, [{ type: "open" }]);
});

playedTest("a key that the server made is opened again under its name", () => {
  open("ws://played", undefined, { WebSocket: PlayedSocket });
  PlayedSocket.last.accepts();
  PlayedSocket.last.ends(1006);
  mock.timers.tick(1_000);
  PlayedSocket.last.opens("sigver.v1");
  assert.deepEqual(PlayedSocket.last.sent, [{ type: "open", key: "tea" }]);
});

playedTest("waits are random below a bound that doubles from one second to thirty, and starts anew", () => {
  const opener = open("ws://played", "tea", { WebSocket: PlayedSocket });
  const bounds = [];
  opener.on("reconnecting", ({ delay }) => bounds.push(delay / 0.75));
  for (let failure = 0; failure < 7; failure += 1) {
    const made = PlayedSocket.made;
    PlayedSocket.last.ends(1006);
    mock.timers.tick(bounds.at(-1) * 0.75 - 1);
    assert.equal(PlayedSocket.made, made, "not a moment too early");
    mock.timers.tick(1);
    assert.equal(PlayedSocket.made, made + 1);
  }
  PlayedSocket.last.accepts();
  PlayedSocket.last.ends(1001, "server shutting down");
  assert.deepEqual(bounds, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 1_000]);
});

playedTest("refusals of a plain server do not start the waits anew", () => {
  const joiner = join("ws://played", "tea", { WebSocket: PlayedSocket });
  const bounds = [];
  joiner.on("reconnecting", ({ delay }) => bounds.push(delay / 0.75));
  PlayedSocket.last.opens("sigver.plain");
  PlayedSocket.last.ends(4001, "opener left");
  for (const reason of ["key is unknown", "key is unknown", "key is unknown"]) {
    mock.timers.tick(30_000);
    PlayedSocket.last.opens("sigver.plain");
    PlayedSocket.last.ends(1008, reason);
  }
  assert.deepEqual(bounds, [5_000, 10_000, 20_000, 30_000]);
});

playedTest("attempts can be bounded", () => {
  const opener = open("ws://played", "tea", { WebSocket: PlayedSocket, retries: 2 });
  for (let attempt = 0; attempt < 3; attempt += 1) {
    PlayedSocket.last.ends(1006);
    mock.timers.tick(30_000);
  }
  assert.deepEqual([PlayedSocket.made, opener.state], [3, "closed"]);
  assert.equal(waiting(opener, "closed")[0].code, "lost");

  const resigned = open("ws://played", "tea", { WebSocket: PlayedSocket, retries: 0 });
  PlayedSocket.last.ends(1006);
  assert.equal(resigned.state, "closed");
});

playedTest("closed while it waits or tries, it tries no more", () => {
  const opener = open("ws://played", "tea", { WebSocket: PlayedSocket });
  PlayedSocket.last.ends(1006);
  opener.close();
  mock.timers.tick(30_000);
  assert.deepEqual([PlayedSocket.made, opener.state], [1, "closed"]);

  const other = open("ws://played", "tea", { WebSocket: PlayedSocket });
  other.close();
  assert.deepEqual([PlayedSocket.last.closedWith, other.state], [1000, "closing"]);
  PlayedSocket.last.ends(1006);
  assert.deepEqual([PlayedSocket.made, other.state], [2, "closed"]);

  const inEvent = open("ws://played", "tea", { WebSocket: PlayedSocket });
  inEvent.on("reconnecting", () => inEvent.close());
  PlayedSocket.last.ends(1006);
  mock.timers.tick(30_000);
  assert.deepEqual([PlayedSocket.made, inEvent.state], [3, "closed"]);
});

const LOST = [[1001, "server shutting down"], [1006], [1011], [1012], [1013, "reading too slowly"], [1008, "no sign of life"]];
const FINAL = [
  [1002, "broken WebSocket framing", "refused"], [1003, "", "refused"], [1007, "", "refused"], [1009, "", "refused"],
  [1008, "no open or join in time", "refused"], [1000, "", "refused"], [4003, "kicked by the opener", "kicked"],
];

for (const subprotocol of ["sigver.v1", "sigver.plain"]) {
  playedTest(`${subprotocol}: which codes are worth trying again`, () => {
    for (const [status, reason] of LOST) {
      const opener = openedPlayed(subprotocol);
      PlayedSocket.last.ends(status, reason);
      assert.equal(opener.state, "reconnecting", `after ${status}`);
      assert.equal(waiting(opener, "reconnecting")[0].code, "lost");
    }
    for (const [status, reason, code] of FINAL) {
      const opener = openedPlayed(subprotocol);
      PlayedSocket.last.ends(status, reason);
      const [closed] = waiting(opener, "closed");
      assert.deepEqual(closed, { type: "closed", code, reason, status });
    }
  });

  playedTest(`${subprotocol}: a taken key is final at first, and tried again after an own loss`, () => {
    const refuse = () => {
      PlayedSocket.last.opens(subprotocol);
      if (subprotocol === "sigver.v1") PlayedSocket.last.says({ type: "error", code: "key-taken", message: "taken", key: "tea" });
      else PlayedSocket.last.ends(1008, "key is taken");
    };
    const stranger = open("ws://played", "tea", { WebSocket: PlayedSocket });
    refuse();
    assert.equal(stranger.state, "closed");

    const owner = openedPlayed(subprotocol);
    PlayedSocket.last.ends(1006);
    for (let attempt = 0; attempt < 10; attempt += 1) {
      mock.timers.tick(30_000);
      refuse();
      assert.equal(owner.state, "reconnecting");
    }
    mock.timers.tick(30_000);
    PlayedSocket.last.opens(subprotocol);
    PlayedSocket.last.says({ type: "opened", key: "tea" });
    assert.equal(owner.state, "open");
  });
}

playedTest("a full key is tried again from the first", () => {
  const joiner = join("ws://played", "tea", { WebSocket: PlayedSocket });
  PlayedSocket.last.opens("sigver.v1");
  PlayedSocket.last.says({ type: "error", code: "too-many-joiners", message: "full", key: "tea" });
  assert.equal(joiner.state, "reconnecting");
  const plain = join("ws://played", "tea", { WebSocket: PlayedSocket });
  PlayedSocket.last.opens("sigver.plain");
  PlayedSocket.last.ends(1013, "too many joiners on the key");
  assert.deepEqual(waiting(plain, "reconnecting").map(({ code }) => code), ["too-many-joiners"]);
});

playedTest("who was there before a loss is not there after it, and has left once", () => {
  const opener = openedPlayed("sigver.v1");
  PlayedSocket.last.says({ type: "join", index: 0 });
  const [{ peer }] = waiting(opener, "join");
  for (let loss = 0; loss < 2; loss += 1) {
    PlayedSocket.last.ends(1006);
    mock.timers.tick(1_000);
    PlayedSocket.last.accepts();
    assert.equal(peer.send({}), false);
    opener.kick(peer);
    assert.deepEqual(PlayedSocket.last.sent, [{ type: "open", key: "tea" }]);
  }
  assert.deepEqual(waiting(peer, "leave"), [{ type: "leave", code: "lost" }]);
});

playedTest("what comes before a first listener waits for it, in order, and not without bound", () => {
  const opener = openedPlayed("sigver.v1");
  PlayedSocket.last.says({ type: "join", index: 0 });
  for (let data = 0; data < 200; data += 1) PlayedSocket.last.says({ type: "data", index: 0, data });
  PlayedSocket.last.says({ type: "leave", index: 0 });
  const [{ peer }] = waiting(opener, "join");
  assert.deepEqual(waiting(peer, "data").map(({ data }) => data), Array.from({ length: 100 }, (_, data) => data));
  assert.equal(waiting(peer, "leave").length, 1);
  assert.equal(waiting(peer, "data").length, 0);
});

playedTest("a listener can be taken away, and hears nothing more", () => {
  const opener = openedPlayed("sigver.v1");
  const heard = [];
  const stop = opener.on("join", ({ peer }) => heard.push(peer.index));
  PlayedSocket.last.says({ type: "join", index: 0 });
  stop();
  PlayedSocket.last.says({ type: "join", index: 1 });
  assert.deepEqual(heard, [0]);
});

// ---- Negotiation, of a connection that the test plays. In real ones these moments cannot be hit at will ----

/** As much of an RTCPeerConnection as `negotiate` uses. What it is asked to do waits for `settle`. */
class PlayedConnection extends EventTarget {
  signalingState = "stable";
  remoteDescription = null;
  localDescription = null;
  asked = [];

  setLocalDescription = () => this.#ask("setLocalDescription");
  setRemoteDescription = (description) => this.#ask("setRemoteDescription", description);
  addIceCandidate = (candidate) => this.#ask("addIceCandidate", candidate);

  #ask(what, argument) {
    return new Promise((resolve, reject) => this.asked.push({ what, argument, resolve, reject }));
  }

  /** Finds its first candidate. */
  async gathers() {
    this.dispatchEvent(Object.assign(new Event("icecandidate"), { candidate: { toJSON: () => CANDIDATE } }));
    await new Promise(setImmediate);
  }

  /** Does the oldest thing asked for, which leads to `change`; or fails at it. */
  async settle(what, change = {}) {
    const oldest = this.asked.shift();
    assert.equal(oldest?.what, what);
    if (change instanceof Error) oldest.reject(change);
    else oldest.resolve(void Object.assign(this, change));
    await new Promise(setImmediate);
    return oldest.argument;
  }
}

const described = (type) => ({ type, sdp: `of an ${type}`, toJSON: () => ({ type, sdp: `of an ${type}` }) });
const CANDIDATE = { candidate: "candidate:1 1 UDP 1 192.0.2.1 9 typ host", sdpMid: "0" };

negotiationTest("an offer that comes while an own one is being made is a collision", async ({ start, says, sent }) => {
  for (const polite of [false, true]) {
    const pc = start(polite);
    pc.dispatchEvent(new Event("negotiationneeded"));
    says(described("offer"));
    await pc.settle("setLocalDescription", { signalingState: "have-local-offer", localDescription: described("offer") });
    assert.deepEqual(sent(), [{ type: "offer", sdp: "of an offer" }]);
    await pc.gathers();
    assert.deepEqual(sent(), [{ candidate: CANDIDATE }]);
    assert.deepEqual(pc.asked.map(({ what }) => what), polite ? ["setRemoteDescription"] : []);
  }
});

negotiationTest("a first offer is not taken back before candidates are gathered for it, a later one is at once", async ({ start, says }) => {
  const pc = start(true);
  pc.signalingState = "have-local-offer";
  says(described("offer"));
  says({ candidate: CANDIDATE });
  await new Promise(setImmediate);
  assert.deepEqual(pc.asked, []);
  await pc.gathers();
  await pc.settle("setRemoteDescription", { remoteDescription: described("offer") });
  assert.deepEqual(pc.asked.map(({ what }) => what), ["addIceCandidate", "setLocalDescription"]);
  says(described("offer"));
  assert.equal(pc.asked.at(-1).what, "setRemoteDescription");
});

negotiationTest("a first offer is taken back in the end if no candidate comes", async ({ start, says }) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const pc = start(true);
    pc.signalingState = "have-local-offer";
    says(described("offer"));
    mock.timers.tick(499);
    await new Promise(setImmediate);
    assert.deepEqual(pc.asked, []);
    mock.timers.tick(1);
    await new Promise(setImmediate);
    await pc.settle("setRemoteDescription");
  } finally {
    mock.timers.reset();
  }
});

negotiationTest("candidates of an ignored offer may fail, later ones may not", async ({ start, says, errors }) => {
  const pc = start(false);
  Object.assign(pc, { signalingState: "have-local-offer", remoteDescription: described("answer") });
  says(described("offer"));
  says({ candidate: CANDIDATE });
  says(described("answer"));
  says({ candidate: CANDIDATE });
  await pc.settle("addIceCandidate", new Error("of the ignored offer"));
  await pc.settle("setRemoteDescription", { signalingState: "stable" });
  await pc.settle("addIceCandidate", new Error("of the answer"));
  assert.deepEqual(errors(), ["of the answer"]);
});

negotiationTest("candidates that come early are kept, those of an ignored offer are not", async ({ start, says, sent, errors }) => {
  const pc = start(false);
  pc.signalingState = "have-local-offer";
  says(described("offer"));
  says({ candidate: { candidate: "of the ignored offer" } });
  await pc.settle("addIceCandidate", new Error("no description yet"));
  says(described("answer"));
  says({ candidate: CANDIDATE });
  says({ candidate: null });
  assert.deepEqual(pc.asked.map(({ what }) => what), ["setRemoteDescription"]);
  await pc.settle("setRemoteDescription", { signalingState: "stable", remoteDescription: described("answer") });
  assert.deepEqual(await pc.settle("addIceCandidate"), CANDIDATE);
  assert.equal(await pc.settle("addIceCandidate"), undefined, "the end of candidates");
  assert.deepEqual([pc.asked, sent(), errors()], [[], [], []]);
});

negotiationTest("an answer that is being set makes room for the next offer", async ({ start, says, sent }) => {
  const pc = start(false);
  pc.signalingState = "have-local-offer";
  says(described("answer"));
  says(described("offer"));
  await pc.settle("setRemoteDescription", { signalingState: "stable" });
  await pc.settle("setRemoteDescription", { signalingState: "have-remote-offer" });
  await pc.settle("setLocalDescription", { signalingState: "stable", localDescription: described("answer") });
  assert.deepEqual(sent(), [{ type: "answer", sdp: "of an answer" }]);
});

negotiationTest("what a connection cannot use is told once, and data of others is none of its business", async ({ start, says, errors }) => {
  const pc = start(true);
  [null, 5, "text", [], {}, { type: "offer" }, { chat: "hello" }].forEach(says);
  assert.deepEqual(pc.asked, []);
  says({ type: "answer", sdp: "nonsense" });
  await pc.settle("setRemoteDescription", new Error("no answer was due"));
  assert.deepEqual(errors(), ["no answer was due"]);
  says(described("offer"));
  pc.signalingState = "closed";
  await pc.settle("setRemoteDescription", new Error("closed"));
  says(described("offer"));
  assert.deepEqual([pc.asked, errors()], [[], []]);
});

// ---- Setting up and listening ----

function serverTest(name, body) {
  test(name, { timeout: DEADLINE }, (t) => body(starter(t, server.url)));
}

/** Starts clients that are closed when the test is over. */
function starter(t, url) {
  const started = [];
  t.after(() => started.forEach((signaling) => signaling.close()));
  return (ask, key, options) => {
    let socket;
    class Watched extends WebSocket {
      constructor(...args) {
        super(...args);
        socket = this;
      }
    }
    const signaling = ask(url, key, { WebSocket: Watched, backoff: QUICK, ...options });
    sockets.set(signaling, () => socket);
    started.push(signaling);
    return signaling;
  };
}

/** The socket that a client has now. */
const sockets = new WeakMap();

/** `opened`, and certain: a plain server does not answer an open, but a pong follows the handling of what was sent before its ping. */
async function isOpen(opener) {
  const event = await next(opener, "opened");
  const socket = sockets.get(opener)();
  socket.ping();
  await once(socket, "pong");
  return event;
}

function playedTest(name, body) {
  test(name, () => {
    mock.timers.enable({ apis: ["setTimeout"] });
    mock.method(Math, "random", () => 0.75);
    PlayedSocket.made = 0;
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
        const pc = new PlayedConnection();
        const channel = { polite, on: (_, heard) => (listener = heard), send: (data) => messages.push(data) };
        negotiate(pc, channel, { onerror: ({ message }) => failures.push(message) });
        return pc;
      },
      says: (data) => listener({ data }),
      sent: () => messages.splice(0),
      errors: () => failures.splice(0),
    });
  });
}

function openedPlayed(subprotocol) {
  const opener = open("ws://played", "tea", { WebSocket: PlayedSocket });
  PlayedSocket.last.opens(subprotocol);
  if (subprotocol === "sigver.v1") PlayedSocket.last.says({ type: "opened", key: "tea" });
  return opener;
}

/** The events of one type that a test has not looked at yet. @type {WeakMap<object, Map<string, { events: any[], wake: () => void }>>} */
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

/** The events of a type that have come so far. */
function waiting(source, type) {
  return inbox(source, type).events.splice(0);
}

/** The next event of a type. */
async function next(source, type) {
  const box = inbox(source, type);
  while (box.events.length === 0) await new Promise((resolve) => (box.wake = resolve));
  return box.events.shift();
}

/** The newest event of a type, once there is one whose state still holds: attempts that fail again are passed over. */
async function until(source, type) {
  for (;;) {
    const event = await next(source, type);
    if (source.state === "open" && inbox(source, type).events.length === 0) return event;
  }
}
