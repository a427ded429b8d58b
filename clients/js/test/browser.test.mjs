// Tests sigver.js in Chromium, with real connections and without the demo.

import assert from "node:assert/strict";
import ts from "typescript";
import { browserTest, server } from "./pages.mjs";
import { startServer } from "./server.mjs";
import { ofPackage, ofProject } from "./snippets.mjs";

/** Opens a page in which `sigver` is the client, and the example runs against `url`. */
async function runSnippet(newPage, { code, language }, { hash = "", url = server.url, then = "" } = {}) {
  const page = await newPage(`${server.demo}#${hash}`);
  await page.setContent(`<script type="importmap">{"imports":{"sigver":"${server.demo}sigver.js"}}</script>`);
  const script = language === "ts" ? ts.transpile(code, { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ES2022 }) : code;
  const logs = [];
  page.on("console", (message) => logs.push(message.text()));
  const logged = async (words) => {
    while (!logs.some((text) => words.test(text))) await new Promise((resolve) => setTimeout(resolve, 20));
    return logs.find((text) => words.test(text));
  };
  await page.addScriptTag({ type: "module", content: `${script.replaceAll("ws://localhost:8000", url)}\n${then}` });
  return { page, logged };
}

for (const [name, snippets] of [["package", ofPackage], ["project", ofProject]]) {
  browserTest(`first example in the README of the ${name} works, joiner first, restart included`, async (newPage, t) => {
    let own = await startServer();
    t.after(() => own.stop());
    const joiner = await runSnippet(newPage, snippets.joiner, { url: own.url, then: "globalThis.signaling = signaling;" });
    const opener = await runSnippet(newPage, snippets.opener, { url: own.url, then: "globalThis.signaling = signaling;" });
    await joiner.logged(/^you said hello$/);
    const { port } = own;
    await own.stop("SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    own = await startServer(port);
    for (const { page } of [opener, joiner]) {
      const joins = await page.evaluate(async () => {
        let joins = 0;
        signaling.on("join", () => (joins += 1));
        while (signaling.state !== "open" || signaling.peers.length === 0 || signaling.peers[0].away) await new Promise((resolve) => setTimeout(resolve, 20));
        return [joins, signaling.peers.length];
      });
      assert.deepEqual(joins, [0, 1]);
    }
  });
}

browserTest("example that ends a connection works", async (newPage) => {
  const key = "the end";
  const then = (ask) => `
    const signaling = sigver.${ask}("${server.url}", "${key}", { wait: 60 });
    signaling.on("join", ({ peer }) => {
      globalThis.connection = connect(peer, () => console.log("ended"));
      connection.createDataChannel("chat", { negotiated: true, id: 0 }).onopen = () => console.log("channel");
    });`;
  const [opener, joiner] = [await runSnippet(newPage, ofPackage.end, { then: then("open") }), await runSnippet(newPage, ofPackage.end, { then: then("join") })];
  await opener.logged(/^channel$/);
  await joiner.logged(/^channel$/);
  await joiner.page.close();
  await opener.logged(/^ended$/);
});

browserTest("example of a room works for three, also after its opener has left", async (newPage) => {
  const then = "globalThis.say = say; globalThis.channels = channels; globalThis.room = room;";
  const people = [];
  for (let count = 0; count < 3; count += 1) people.push(await runSnippet(newPage, ofPackage.room, { then }));
  const isComplete = async (people) => {
    const opener = people.find(({ role }) => role === "opener");
    return opener?.open === people.length - 1 && people.every(({ open }) => open > 0);
  };
  const state = ({ page }) => page.evaluate(() => ({ role: room.state === "open" ? room.role : undefined, open: [...channels.keys()].filter(({ away }) => !away).length }));
  const complete = async (people) => {
    while (!(await isComplete(await Promise.all(people.map(state))))) await new Promise((resolve) => setTimeout(resolve, 50));
  };
  const talk = async (people, round) => {
    for (const [number, { page }] of people.entries()) await page.evaluate((text) => say(text), `${round} ${number}`);
    for (const { logged } of people) for (const number of people.keys()) await logged(new RegExp(`^${round} ${number}$`));
  };
  await complete(people);
  await talk(people, "first");
  const states = await Promise.all(people.map(state));
  const [opener] = people.splice(states.findIndex(({ role }) => role === "opener"), 1);
  await opener.page.close();
  await complete(people);
  await talk(people, "second");
});

browserTest("peer with a new connection and the same id is connected again", async (newPage) => {
  const then = (ask) => `
    const signaling = sigver.${ask}("${server.url}", "again", { id: "${ask}" });
    signaling.on("join", ({ peer }) => {
      connect(peer, () => console.log("ended")).createDataChannel("chat", { negotiated: true, id: 0 }).onopen = () => console.log("channel " + ++count);
    });
    let count = 0;`;
  const opener = await runSnippet(newPage, ofPackage.end, { then: then("open") });
  const joiner = await runSnippet(newPage, ofPackage.end, { then: then("join") });
  await joiner.logged(/^channel 1$/);
  await opener.logged(/^channel 1$/);
  await joiner.page.close();
  const again = await runSnippet(newPage, ofPackage.end, { then: then("join") });
  await opener.logged(/^ended$/);
  await opener.logged(/^channel 2$/);
  await again.logged(/^channel \d$/);
});

browserTest("example that seals signaling works", async (newPage) => {
  const then = "signaling.on('join', ({ peer }) => peer.on('data', ({ data }) => console.log(JSON.stringify(data)))); globalThis.signaling = signaling;";
  const opener = await runSnippet(newPage, ofPackage.seal, { then });
  const [, hash] = (await opener.logged(/^others join at #/)).split("#");
  const joiner = await runSnippet(newPage, ofPackage.seal, { hash, then });
  await joiner.page.waitForFunction(() => signaling.peers.length > 0);
  assert.equal(await joiner.page.evaluate(() => signaling.broadcast("sealed hello")), 1);
  await opener.logged(/^"sealed hello"$/);
});

browserTest("colliding negotiations reach a stable state", async (newPage) => {
  const page = await newPage(server.demo);
  const { errors, collisions, channels, states } = await page.evaluate(collide, 20);
  assert.deepEqual(errors, []);
  assert.deepEqual(states, ["stable", "stable"]);
  assert(collisions > 0, "no collisions");
  assert.deepEqual(channels, [40, 40]);
});

browserTest("renegotiation during a restart is completed, and the connection goes on", async (newPage, t) => {
  let own = await startServer();
  t.after(() => own.stop());
  const [opener, joiner] = [await newPage(server.demo), await newPage(server.demo)];
  await opener.evaluate(call, ["open", own.url]);
  await joiner.evaluate(call, ["join", own.url]);
  for (const page of [opener, joiner]) await page.waitForFunction(() => calls.length === 1 && calls[0].channel.readyState === "open");
  const { port } = own;
  await own.stop("SIGKILL");
  for (const page of [opener, joiner]) {
    await page.waitForFunction(() => signaling.state === "reconnecting");
    await page.evaluate(() => calls[0].pc.addTransceiver("audio"));
  }
  await opener.waitForFunction(() => calls[0].pc.signalingState === "have-local-offer");
  own = await startServer(port);
  for (const page of [opener, joiner]) {
    await page.waitForFunction(() => calls[0].pc.signalingState === "stable" && calls[0].pc.getTransceivers().length === 2
      && calls[0].pc.getTransceivers().every(({ mid }) => mid !== null));
    assert.deepEqual(await page.evaluate(() => [calls.length, calls[0].channel.readyState, calls[0].pc.connectionState, errors]), [1, "open", "connected", []]);
  }
});

browserTest("offer that was made while there was no server connects afterwards", async (newPage, t) => {
  let own = await startServer();
  t.after(() => own.stop());
  const [opener, joiner] = [await newPage(server.demo), await newPage(server.demo)];
  await opener.evaluate(call, ["open", own.url, true]);
  await joiner.evaluate(call, ["join", own.url, true]);
  for (const page of [opener, joiner]) await page.waitForFunction(() => calls.length === 1);
  const { port } = own;
  await own.stop("SIGKILL");
  for (const page of [opener, joiner]) await page.waitForFunction(() => signaling.state === "reconnecting");
  // Both offer, so that the offers collide when the server is back.
  for (const page of [opener, joiner]) await page.evaluate(() => calls[0].start());
  own = await startServer(port);
  for (const page of [opener, joiner]) await page.waitForFunction(() => calls.length === 1 && calls[0].channel.readyState === "open");
});

browserTest("servers that the operator hands out are used without another negotiation", async (newPage, t) => {
  const own = await startServer(0, ["--ice", "stun:127.0.0.1:19302"]);
  t.after(() => own.stop());
  const page = await newPage(server.demo);
  const { sent, servers } = await page.evaluate(async (url) => {
    const sigver = await import("/sigver.js");
    const sent = [];
    const opener = await sigver.open(url).ready;
    const joiner = sigver.join(url, opener.key);
    for (const side of [opener, joiner]) side.on("message", ({ direction, text }) => direction === "out" && sent.push(JSON.parse(text).data?.type));
    const connections = [];
    const connect = (peer) => {
      const pc = new RTCPeerConnection();
      connections.push(pc);
      sigver.negotiate(pc, peer);
      return pc;
    };
    opener.on("join", ({ peer }) => connect(peer));
    await new Promise((resolve) => joiner.on("join", ({ peer }) => (connect(peer).createDataChannel("chat").onopen = resolve)));
    // A negotiation would begin at once.
    await new Promise((resolve) => setTimeout(resolve, 500));
    return { sent: sent.filter(Boolean), servers: connections.map((pc) => pc.getConfiguration().iceServers.map(({ urls }) => String(urls))) };
  }, own.url);
  assert.deepEqual(sent, ["offer", "answer"]);
  assert.deepEqual(servers, [["stun:127.0.0.1:19302"], ["stun:127.0.0.1:19302"]]);
});

/** In a page: opens or joins a key, and connects to each peer with a channel that both sides create. */
async function call([ask, url, isLater]) {
  const sigver = await import("/sigver.js");
  Object.assign(globalThis, { calls: [], errors: [], signaling: sigver[ask](url, "call", { wait: 60 }) });
  signaling.on("join", ({ peer }) => {
    const pc = new RTCPeerConnection();
    sigver.negotiate(pc, peer, { onerror: (error) => errors.push(String(error)) });
    const one = { pc, start: () => (one.channel = pc.createDataChannel("chat", { negotiated: true, id: 0 })) };
    if (!isLater) one.start();
    calls.push(one);
  });
}

/** Two connections that add channels and restart ICE at the same time, `rounds` times, over slow, ordered signaling. */
async function collide(rounds) {
  const { negotiate } = await import("/sigver.js");
  const errors = [];
  let collisions = 0;
  const sides = [false, true].map((polite) => ({ polite, pc: new RTCPeerConnection(), listeners: [], channels: 0 }));
  sides.forEach((side, number) => {
    const other = sides[1 - number];
    let queue = Promise.resolve();
    negotiate(side.pc, {
      polite: side.polite,
      on: (type, listener) => type === "data" && side.listeners.push(listener),
      send: (data) => {
        queue = queue.then(() => new Promise((resolve) => setTimeout(resolve, Math.random() * 5))).then(() => {
          if (data.type === "offer" && other.pc.signalingState === "have-local-offer") collisions += 1;
          other.listeners.forEach((listener) => listener({ data }));
        });
      },
    }, { onerror: (error) => errors.push(String(error)) });
    side.pc.ondatachannel = () => (side.channels += 1);
  });

  for (let round = 0; round < rounds; round += 1) {
    for (const { pc } of sides) {
      // Each transceiver requires a new description. Additional channels do not.
      pc.addTransceiver("audio");
      pc.createDataChannel("one");
      pc.createDataChannel("two");
      if (round % 5 === 4) pc.restartIce();
    }
    await settled();
  }
  await until(() => sides.every(({ channels }) => channels === 2 * rounds));
  return {
    errors, collisions,
    channels: sides.map(({ channels }) => channels),
    states: sides.map(({ pc }) => pc.signalingState),
  };

  function settled() {
    return until(() => sides.every(({ pc }) => pc.signalingState === "stable" && pc.getTransceivers().every(({ mid }) => mid !== null)));
  }

  async function until(isTrue) {
    while (!isTrue() && errors.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
