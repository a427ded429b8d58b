// Tests negotiate with a fake connection, because a real one does not reach these states reliably.

import assert from "node:assert/strict";
import { mock, test } from "node:test";
import * as sigver from "../sigver.js";
import { received } from "./events.mjs";
import { FakeSocket, settled, tick, virtualTest } from "./fake-socket.mjs";

const { negotiate } = sigver;

/** The part of RTCPeerConnection that `negotiate` uses. Calls are pending until `settle`. */
class FakeConnection extends EventTarget {
  signalingState = "stable";
  iceConnectionState = "new";
  connectionState = "new";
  remoteDescription = null;
  localDescription = null;
  configuration = { iceServers: [{ urls: "stun:own" }], bundlePolicy: "balanced" };
  calls = [];
  restarts = 0;

  setLocalDescription = () => this.#call("setLocalDescription");
  setRemoteDescription = (description) => this.#call("setRemoteDescription", description);
  addIceCandidate = (candidate) => this.#call("addIceCandidate", candidate);
  getConfiguration = () => this.configuration;
  setConfiguration = (configuration) => (this.configuration = configuration);
  restartIce = () => (this.restarts += 1);

  #call(what, argument) {
    return new Promise((resolve, reject) => this.calls.push({ what, argument, resolve, reject }));
  }

  get pending() {
    return this.calls.map(({ what }) => what);
  }

  async emit(type, members) {
    this.dispatchEvent(Object.assign(new Event(type), members));
    await idle();
  }

  gather() {
    return this.emit("icecandidate", { candidate: { toJSON: () => CANDIDATE } });
  }

  /** Completes the oldest call and applies `change`, or rejects it if `change` is an error. */
  async settle(what, change = {}) {
    const oldest = this.calls.shift();
    assert.equal(oldest?.what, what);
    if (change instanceof Error) oldest.reject(change);
    else oldest.resolve(void Object.assign(this, change));
    await idle();
    return oldest.argument;
  }
}

class FakePeer {
  iceServers = [];
  listeners = { data: new Set(), back: new Set(), away: new Set(), leave: new Set() };
  messages = [];
  isAway = false;

  constructor(polite) {
    this.polite = polite;
  }

  on(type, listener) {
    this.listeners[type].add(listener);
    return () => this.listeners[type].delete(listener);
  }

  send(data) {
    if (this.tooLarge) throw new RangeError("the message is too large");
    if (!this.isAway) this.messages.push(data);
    return !this.isAway;
  }

  async receive(data) {
    this.listeners.data.forEach((listener) => listener({ data }));
    await idle();
  }

  async comesBack() {
    this.isAway = false;
    this.listeners.back.forEach((listener) => listener({ type: "back" }));
    await idle();
  }

  sent() {
    return this.messages.splice(0);
  }
}

const CANDIDATE = { candidate: "candidate:1 1 UDP 1 192.0.2.1 9 typ host", sdpMid: "0" };
const described = (type, name = type) => ({ type, sdp: `of an ${name}`, toJSON: () => ({ type, sdp: `of an ${name}` }) });
const json = (type, name) => described(type, name).toJSON();
const idle = () => new Promise(setImmediate);

function negotiationTest(name, body) {
  test(name, async () => {
    const failures = [];
    const begin = (polite, change = {}) => {
      const pc = Object.assign(new FakeConnection(), change);
      const peer = new FakePeer(polite);
      const negotiation = negotiate(pc, peer, { onerror: ({ message }) => failures.push(message) });
      return { pc, peer, negotiation };
    };
    await body(begin, () => failures.splice(0));
    assert.deepEqual(failures, []);
  });
}

const OFFERING = { signalingState: "have-local-offer", localDescription: described("offer") };

// ---- Perfect negotiation ----

negotiationTest("offer during setLocalDescription is a collision", async (begin) => {
  for (const polite of [false, true]) {
    const { pc, peer } = begin(polite);
    await pc.emit("negotiationneeded");
    await peer.receive(described("offer"));
    await pc.settle("setLocalDescription", OFFERING);
    assert.deepEqual(peer.sent(), [json("offer")]);
    await pc.gather();
    assert.deepEqual(peer.sent(), [{ candidate: CANDIDATE }]);
    assert.deepEqual(pc.pending, polite ? ["setRemoteDescription"] : []);
  }
});

negotiationTest("first offer is rolled back after the first candidate, later ones immediately", async (begin) => {
  const { pc, peer } = begin(true, OFFERING);
  await peer.receive(described("offer"));
  await peer.receive({ candidate: CANDIDATE });
  assert.deepEqual(pc.calls, []);
  await pc.gather();
  await pc.settle("setRemoteDescription", { signalingState: "have-remote-offer", remoteDescription: described("offer") });
  await pc.settle("setLocalDescription", { signalingState: "stable", localDescription: described("answer") });
  assert.deepEqual(pc.pending, ["addIceCandidate"], "after the description that it belongs to");
  await pc.settle("addIceCandidate");
  Object.assign(pc, OFFERING);
  await peer.receive(described("offer"));
  assert.deepEqual(pc.pending, ["setRemoteDescription"]);
});

negotiationTest("first offer is rolled back after a timeout without candidates", async (begin) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const { pc, peer } = begin(true, OFFERING);
    await peer.receive(described("offer"));
    mock.timers.tick(499);
    await idle();
    assert.deepEqual(pc.calls, []);
    mock.timers.tick(1);
    await idle();
    await pc.settle("setRemoteDescription");
  } finally {
    mock.timers.reset();
  }
});

negotiationTest("errors of candidates are ignored only for an ignored offer", async (begin, errors) => {
  const { pc, peer } = begin(false, { ...OFFERING, remoteDescription: described("answer") });
  await peer.receive(described("offer"));
  await peer.receive({ candidate: CANDIDATE });
  await pc.settle("addIceCandidate", new Error("of the ignored offer"));
  await peer.receive(described("answer"));
  await peer.receive({ candidate: CANDIDATE });
  await pc.settle("setRemoteDescription", { signalingState: "stable" });
  await pc.settle("addIceCandidate", new Error("of the answer"));
  assert.deepEqual(errors(), ["of the answer"]);
});

negotiationTest("candidates before the first description are kept for it", async (begin) => {
  const { pc, peer } = begin(false, OFFERING);
  await peer.receive({ candidate: CANDIDATE });
  await peer.receive({ candidate: null });
  assert.deepEqual(pc.calls, []);
  await peer.receive(described("answer"));
  await pc.settle("setRemoteDescription", { signalingState: "stable", remoteDescription: described("answer") });
  assert.deepEqual(await pc.settle("addIceCandidate"), { ...CANDIDATE, sdpMLineIndex: undefined, usernameFragment: undefined });
  assert.equal(await pc.settle("addIceCandidate"), undefined, "the end of candidates");
});

negotiationTest("offer behind an answer is no collision", async (begin) => {
  const { pc, peer } = begin(false, OFFERING);
  await peer.receive(described("answer"));
  await peer.receive(described("offer"));
  await pc.settle("setRemoteDescription", { signalingState: "stable", localDescription: described("offer") });
  await pc.settle("setRemoteDescription", { signalingState: "have-remote-offer" });
  await pc.settle("setLocalDescription", { signalingState: "stable", localDescription: described("answer") });
  assert.deepEqual(peer.sent(), [json("answer")]);
});

negotiationTest("rejected descriptions are reported once, other data is ignored", async (begin, errors) => {
  const { pc, peer } = begin(true);
  for (const data of [null, 5, "text", [], {}, { type: "offer" }, { chat: "hello" }]) await peer.receive(data);
  assert.deepEqual(pc.calls, []);
  await peer.receive({ type: "offer", sdp: "nonsense" });
  await pc.settle("setRemoteDescription", new Error("nonsense"));
  assert.deepEqual(errors(), ["nonsense"]);
  await peer.receive(described("offer"));
  pc.signalingState = "closed";
  await pc.settle("setRemoteDescription", new Error("closed"));
  await peer.receive(described("offer"));
  assert.deepEqual(pc.calls, []);
});

negotiationTest("description that is too large to send is reported", async (begin, errors) => {
  const { pc, peer } = begin(true);
  peer.tooLarge = true;
  await pc.emit("negotiationneeded");
  await pc.settle("setLocalDescription", OFFERING);
  assert.deepEqual(errors(), ["the message is too large"]);
});

// ---- Shapes of candidates and descriptions ----

const TEXT = CANDIDATE.candidate;
const SHAPES = [
  ["wrapped", { candidate: CANDIDATE }, CANDIDATE],
  ["RTCIceCandidateInit", CANDIDATE, CANDIDATE],
  ["with an index only", { candidate: TEXT, sdpMLineIndex: 1 }, { candidate: TEXT, sdpMLineIndex: 1 }],
  ["with a null sdpMid", { candidate: { candidate: TEXT, sdpMid: null, sdpMLineIndex: 1 } }, { candidate: TEXT, sdpMid: null, sdpMLineIndex: 1 }],
  ["text without a section", { candidate: TEXT }, { candidate: TEXT, sdpMLineIndex: 0 }],
  ["wrapped without a section", { candidate: { candidate: TEXT } }, { candidate: TEXT, sdpMLineIndex: 0 }],
  ["with a= and mid", { type: "candidate", candidate: `a=${TEXT}`, mid: "audio" }, { candidate: TEXT, sdpMid: "audio" }],
  ["with a username fragment", { candidate: { ...CANDIDATE, usernameFragment: "u" } }, { ...CANDIDATE, usernameFragment: "u" }],
  ["null", { candidate: null }, undefined],
  ["empty text", { candidate: "" }, undefined],
  ["wrapped empty text", { candidate: { candidate: "" } }, undefined],
  ["end of one section", { candidate: { candidate: "", sdpMid: "0" } }, { candidate: "", sdpMid: "0" }],
];

for (const [name, data, expected] of SHAPES) {
  negotiationTest(`candidate is understood: ${name}`, async (begin) => {
    const { pc, peer } = begin(true, { remoteDescription: described("offer") });
    await peer.receive(data);
    const given = await pc.settle("addIceCandidate");
    assert.deepEqual(given && JSON.parse(JSON.stringify(given)), expected);
  });
}

negotiationTest("description inside `sdp` is understood", async (begin) => {
  const { pc, peer } = begin(true);
  await peer.receive({ sdp: json("offer") });
  assert.deepEqual(await pc.settle("setRemoteDescription"), json("offer"));
});

// ---- Reconnects ----

negotiationTest("offer made while the peer was away is sent when it is back", async (begin) => {
  for (const polite of [false, true]) {
    const { pc, peer } = begin(polite);
    peer.isAway = true;
    await pc.emit("negotiationneeded");
    await pc.settle("setLocalDescription", OFFERING);
    assert.deepEqual(peer.sent(), []);
    await peer.comesBack();
    assert.deepEqual(peer.sent(), [json("offer")]);
    await peer.receive(described("answer"));
    await pc.settle("setRemoteDescription", { signalingState: "stable" });
  }
});

negotiationTest("offer in the making when the peer comes back is sent once", async (begin) => {
  const { pc, peer } = begin(true, { localDescription: described("answer"), iceConnectionState: "checking" });
  await pc.emit("negotiationneeded");
  await peer.comesBack();
  assert.deepEqual(pc.pending, ["setLocalDescription"]);
  await pc.settle("setLocalDescription", OFFERING);
  assert.deepEqual(peer.sent(), [json("offer")]);
});

negotiationTest("polite side offers again if candidates may have been lost", async (begin) => {
  const stable = { localDescription: described("answer"), remoteDescription: described("offer") };
  for (const [polite, change, offers] of [
    [true, { ...stable, iceConnectionState: "checking" }, true],
    [true, { ...stable, iceConnectionState: "connected" }, false],
    [true, { ...stable, iceConnectionState: "completed" }, false],
    [false, { ...stable, iceConnectionState: "checking" }, false],
    [true, {}, false],
  ]) {
    const { pc, peer } = begin(polite, change);
    await peer.comesBack();
    assert.deepEqual(pc.pending, offers ? ["setLocalDescription"] : []);
  }
});

negotiationTest("offer from before a reconnect is not answered, because it is sent again", async (begin) => {
  const { pc, peer } = begin(true);
  await peer.receive(described("offer"));
  await peer.comesBack();
  await peer.receive(described("offer"));
  for (const expected of [[], [json("answer")]]) {
    await pc.settle("setRemoteDescription", { signalingState: "have-remote-offer", remoteDescription: described("offer") });
    await pc.settle("setLocalDescription", { signalingState: "stable", localDescription: described("answer"), iceConnectionState: "connected" });
    assert.deepEqual(peer.sent(), expected);
  }
});

negotiationTest("second answer to an offer that was sent twice is ignored", async (begin) => {
  const { pc, peer } = begin(false, OFFERING);
  await peer.receive(described("answer"));
  await peer.receive(described("answer"));
  await pc.settle("setRemoteDescription", { signalingState: "stable" });
  assert.deepEqual(pc.calls, []);
});

negotiationTest("attach continues with another peer and stops listening to the first", async (begin) => {
  const { pc, peer, negotiation } = begin(true, OFFERING);
  const other = new FakePeer(true);
  negotiation.attach(other);
  await idle();
  assert.deepEqual([peer.sent(), other.sent()], [[], [json("offer")]]);
  await peer.receive(described("answer"));
  assert.deepEqual(pc.calls, []);
  await other.receive(described("answer"));
  await pc.settle("setRemoteDescription");
});

negotiationTest("stop removes all listeners", async (begin) => {
  const { pc, peer, negotiation } = begin(true, { localDescription: described("offer") });
  negotiation.stop();
  await pc.emit("negotiationneeded");
  await pc.gather();
  await pc.emit("iceconnectionstatechange", Object.assign(pc, { iceConnectionState: "failed" }) && {});
  await peer.receive(described("offer"));
  await peer.comesBack();
  assert.deepEqual([pc.calls, peer.sent(), pc.restarts], [[], [], 0]);
});

negotiationTest("failed ICE is restarted", async (begin) => {
  const { pc } = begin(true);
  for (const iceConnectionState of ["checking", "connected", "disconnected"]) {
    Object.assign(pc, { iceConnectionState });
    await pc.emit("iceconnectionstatechange");
  }
  assert.equal(pc.restarts, 0);
  pc.iceConnectionState = "failed";
  await pc.emit("iceconnectionstatechange");
  assert.equal(pc.restarts, 1);
});

// ---- ICE servers ----

const turn = (credential) => ({ urls: ["turn:given"], username: "u", credential });

negotiationTest("servers of the peer are added to those of the application when ICE begins", async (begin) => {
  for (const start of ["offer", "answer"]) {
    const configuration = { iceServers: [{ urls: "stun:own" }, turn("stale")], bundlePolicy: "balanced" };
    const { pc, peer } = begin(true, { configuration });
    peer.iceServers = [turn("first")];
    assert.equal(pc.configuration, configuration, "Chromium would begin to negotiate");
    if (start === "offer") await pc.emit("negotiationneeded");
    else await peer.receive(described("offer"));
    assert.deepEqual(pc.configuration, { iceServers: [{ urls: "stun:own" }, turn("first")], bundlePolicy: "balanced" });
  }
  const { pc } = begin(true);
  await pc.emit("negotiationneeded");
  assert.deepEqual(pc.configuration.iceServers, [{ urls: "stun:own" }]);
});

negotiationTest("new servers of the peer are used when failed ICE is restarted", async (begin) => {
  const { pc, peer } = begin(true, { localDescription: described("offer"), remoteDescription: described("answer"), iceConnectionState: "connected" });
  peer.iceServers = [turn("second")];
  await peer.comesBack();
  await pc.emit("negotiationneeded");
  assert.deepEqual(pc.configuration.iceServers, [{ urls: "stun:own" }], "ICE is not restarted while it works");
  pc.iceConnectionState = "failed";
  await pc.emit("iceconnectionstatechange");
  assert.deepEqual([pc.configuration.iceServers, pc.restarts], [[{ urls: "stun:own" }, turn("second")], 1]);
});

// ---- The end ----

/** An opener whose joiner `friend` is negotiated with. */
function beginWithFriend() {
  const opener = sigver.open("ws://fake", "tea", { WebSocket: FakeSocket, id: "me" });
  FakeSocket.last.open();
  FakeSocket.last.receive({ type: "opened", key: "tea", token: "t" });
  FakeSocket.last.receive({ type: "join", index: 0, id: "friend" });
  const [{ peer }] = received(opener, "join");
  const pc = new FakeConnection();
  const events = [];
  const negotiation = negotiate(pc, peer, { onend: () => events.push("end") });
  peer.on("leave", () => events.push("leave"));
  const become = async (connectionState) => {
    pc.connectionState = connectionState;
    pc.dispatchEvent(new Event("connectionstatechange"));
    await settled();
  };
  return { opener, peer, pc, events, negotiation, become };
}

const serverSends = (message) => FakeSocket.last.receive(message);
const withFingerprint = (type, fingerprint) => ({ type, sdp: `v=0\r\na=fingerprint:sha-256 ${fingerprint}\r\n` });

virtualTest("connection that has failed for ten seconds ends if its peer is away, which is another one when it returns", async () => {
  const { opener, peer, events, become } = beginWithFriend();
  await become("failed");
  tick(60_000);
  assert.deepEqual(events, [], "the peer is here: ICE is restarted");
  serverSends({ type: "leave", index: 0 });
  tick(9_999);
  assert.deepEqual(events, []);
  tick(1);
  assert.deepEqual(events, ["end", "leave"]);
  serverSends({ type: "join", index: 1, id: "friend" });
  const [joined] = received(opener, "join");
  assert.equal(joined.peer.id, "friend");
  assert.notEqual(joined.peer, peer);
  assert.deepEqual([peer.away, joined.peer.away], [true, false]);
  tick(600_000);
  assert.deepEqual(events, ["end", "leave"]);
});

virtualTest("connection does not end if it or its peer is back in time", async () => {
  const { opener, events, become } = beginWithFriend();
  serverSends({ type: "leave", index: 0 });
  await become("failed");
  tick(9_000);
  await become("connected");
  tick(9_000);
  await become("failed");
  tick(9_000);
  serverSends({ type: "join", index: 1, id: "friend" });
  tick(60_000);
  assert.deepEqual(events, []);
  assert.deepEqual(received(opener, "join"), []);
});

virtualTest("connection of a peer that has left ends when it is down", async () => {
  const { events, become } = beginWithFriend();
  await become("connected");
  serverSends({ type: "leave", index: 0 });
  tick(120_000);
  assert.deepEqual(events, ["leave"]);
  await become("disconnected");
  tick(60_000);
  assert.deepEqual(events, ["leave"]);
  await become("failed");
  tick(0);
  assert.deepEqual(events, ["leave", "end"]);
});

virtualTest("stopped negotiation does not end", async () => {
  const { events, negotiation, become } = beginWithFriend();
  serverSends({ type: "leave", index: 0 });
  await become("failed");
  negotiation.stop();
  tick(120_000);
  assert.deepEqual(events, ["leave"]);
});

virtualTest("failed connection to a plain peer, whose end nobody reports, ends", async () => {
  const opener = sigver.open("ws://fake", "tea", { WebSocket: FakeSocket });
  FakeSocket.last.open("sigver.plain");
  FakeSocket.last.receive({ type: "join" });
  const pc = Object.assign(new FakeConnection(), { connectionState: "failed" });
  let ends = 0;
  negotiate(pc, received(opener, "join")[0].peer, { onend: () => (ends += 1) });
  pc.dispatchEvent(new Event("connectionstatechange"));
  tick(9_999);
  assert.equal(ends, 0);
  tick(1);
  assert.equal(ends, 1);
});

for (const type of ["offer", "answer"]) {
  virtualTest(`peer whose ${type} is of another connection is another peer, which gets what follows`, async () => {
    const { opener, peer, pc, events } = beginWithFriend();
    Object.assign(pc, { signalingState: type === "offer" ? "stable" : "have-local-offer", remoteDescription: withFingerprint("answer", "AA") });
    const description = withFingerprint(type, "BB");
    serverSends({ type: "data", index: 0, data: description });
    serverSends({ type: "data", index: 0, data: { candidate: CANDIDATE } });
    await settled();
    assert.deepEqual(events, ["end", "leave"]);
    assert.deepEqual(pc.calls, [], "the old connection is left alone");
    const [joined] = received(opener, "join");
    assert.notEqual(joined.peer, peer);
    assert.equal(joined.peer.id, "friend");
    assert.deepEqual(opener.peers, [joined.peer]);
    pc.signalingState = "closed";
    serverSends({ type: "data", index: 0, data: "more" });
    assert.deepEqual(received(joined.peer, "data").map(({ data }) => data), [description, { candidate: CANDIDATE }, "more"]);
    const sent = FakeSocket.last.sent.length;
    assert.deepEqual([peer.send("lost"), joined.peer.send("hi")], [false, true]);
    assert.deepEqual(FakeSocket.last.sent.slice(sent), [{ type: "send", index: 0, data: "hi" }]);
    serverSends({ type: "leave", index: 0 });
    serverSends({ type: "join", index: 1, id: "friend" });
    assert.equal(received(joined.peer, "back").length, 1);
    assert.deepEqual([received(peer, "back"), received(opener, "join")], [[], []]);
  });
}

virtualTest("peer that connects again after this side has closed the connection is another peer", async () => {
  const { opener, peer, pc, events } = beginWithFriend();
  Object.assign(pc, { signalingState: "closed", remoteDescription: withFingerprint("answer", "AA") });
  serverSends({ type: "data", index: 0, data: withFingerprint("offer", "AA") });
  serverSends({ type: "data", index: 0, data: { candidate: CANDIDATE } });
  await settled();
  assert.deepEqual([events, received(opener, "join")], [[], []], "that is about the closed connection");
  serverSends({ type: "data", index: 0, data: withFingerprint("offer", "BB") });
  await settled();
  assert.deepEqual(events, ["leave"]);
  const [joined] = received(opener, "join");
  assert.notEqual(joined.peer, peer);
  assert.deepEqual(received(joined.peer, "data").map(({ data }) => data), [withFingerprint("offer", "BB")]);
});

virtualTest("peer that negotiates again on the same connection stays the same", async () => {
  const { opener, pc, events } = beginWithFriend();
  pc.remoteDescription = withFingerprint("answer", "AA");
  serverSends({ type: "data", index: 0, data: withFingerprint("offer", "AA") });
  await settled();
  assert.deepEqual(pc.pending, ["setRemoteDescription"]);
  assert.deepEqual([events, received(opener, "join")], [[], []]);
});

negotiationTest("channel of the application decides itself what another connection means", async (begin) => {
  const { pc, peer } = begin(true, { remoteDescription: withFingerprint("answer", "AA") });
  await peer.receive(withFingerprint("offer", "BB"));
  assert.deepEqual(pc.pending, ["setRemoteDescription"]);
});
