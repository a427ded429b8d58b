// Tests negotiate with a fake connection, because a real one does not reach these states reliably.

import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { negotiate } from "../sigver.js";

/** The part of RTCPeerConnection that `negotiate` uses. Calls are pending until `settle`. */
class FakeConnection extends EventTarget {
  signalingState = "stable";
  iceConnectionState = "new";
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
  listeners = { data: new Set(), back: new Set() };
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
