// The demo page and sigver.js in a real browser, against a real server. Needs Chromium (CHROMIUM, or /usr/bin/chromium); without
// it the test fails.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { freePort, startServer } from "./server.mjs";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const DIALECTS = ["v1", "plain"];
const DEADLINE = 60_000;
const WAIT = 40_000;
const FIVE = [0, 1, 2, 3, 4];

const CHROMIUM_FLAGS = [
  "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  // Addresses as they are, not hidden behind multicast DNS names, which not every machine can look up.
  "--disable-features=WebRtcHideLocalIpsWithMdns",
  "--allow-loopback-in-peer-connection",
];

// Chromium offers the address of the default route. Where there is none it must be allowed to look at every interface.
const ONLY_LOOPBACK = Object.values(networkInterfaces()).flat().every((address) => address.internal);
const PERMISSIONS = ONLY_LOOPBACK ? ["microphone"] : [];

let server;
let browser;

before(async () => {
  server = await startServer();
  browser = await startBrowser();
}, { timeout: DEADLINE });

after(async () => {
  await browser?.close();
  await server?.stop();
}, { timeout: DEADLINE });

browserTest("two pages chat, and go on when signaling is over", async (newPage) => {
  const opener = await newPage();
  const link = await openKey(opener);
  const joiner = await newPage(link);
  await echoFrom(opener);

  const before = numbered("before", 100);
  await say(joiner, before);
  await hears(joiner, "opener", before.map(echoed));
  await hears(opener, "peer 0", before);

  await socketShows(joiner, "closed", /code 1000\b.*signaling is no longer needed/);
  await opener.getByRole("button", { name: "Stop accepting" }).click();
  await socketShows(opener, "closed", /code 1000\b.*Open chats go on/);
  const latecomer = await newPage(link);
  await alertShows(latecomer, /unknown-key\b.*nobody has this key open/);

  const afterwards = numbered("afterwards", 100);
  await say(joiner, afterwards);
  await hears(joiner, "opener", [...before, ...afterwards].map(echoed));
  await hears(opener, "peer 0", [...before, ...afterwards]);

  await joiner.goto("about:blank");
  await opener.getByText("peer 0 left").waitFor();
});

for (const one of DIALECTS) {
  for (const other of DIALECTS) {
    browserTest(`a ${one} page opens, a ${other} page joins`, async (newPage) => {
      const opener = await newPage();
      const link = new URL(await openKey(opener, "", { dialect: one }));
      assert.match(link.hash, /^#join=[0-9a-f]{32}$/, "a key was made");
      link.searchParams.set("dialect", other);
      const joiner = await newPage(link.href);
      await say(joiner, ["hello"]);
      await hears(opener, "peer 0", ["hello"]);
      await say(opener, ["goodbye"]);
      await hears(joiner, "opener", ["goodbye"]);
      assert.match(await firstMessage(opener), one === "v1" ? /^\{"type":"open"\}$/ : /^\{"type":"open", "key":"[0-9a-f]{32}"\}$/);
    });
  }
}

browserTest("who comes and goes is shown, and every message", async (newPage) => {
  const opener = await newPage();
  const link = await openKey(opener);
  const joiner = await newPage(link);
  await noteShows(opener, "peer 0 has come");
  await noteShows(opener, "peer 0 is connected");
  await noteShows(joiner, "opener is connected");
  await serverColumnShows(opener, "gone");
  await joiner.close();
  await noteShows(opener, "peer 0 left");

  // One that stays on the server, and never says a word.
  const silent = await newPage(server.demo);
  await silent.evaluate(joinAndStay, keyOf(link));
  await noteShows(opener, "peer 1 has come");
  await serverColumnShows(opener, "here");
  await silent.close();
  await noteShows(opener, "peer 1 is gone, and was never connected");

  const own = await messages(opener);
  for (const words of ["I want to own a key: make me one", "The key is yours", "Somebody joined: peer 0", "What I can do: an offer, from peer 0",
    "Agreed: an answer, to peer 0", "An address to try: a candidate, from peer 0", "Peer 0 is gone from the server"]) {
    assert(own.includes(words), `${words}: not among ${own.join("; ")}`);
  }
});

browserTest("who is sent away is told so", async (newPage) => {
  const opener = await newPage();
  const link = await openKey(opener);
  const joiner = await newPage(server.demo);
  const ended = joiner.evaluate(joinAndStay, keyOf(link)).then(() => joiner.evaluate(() => globalThis.ended));
  await noteShows(opener, "peer 0 has come");
  await opener.getByRole("button", { name: "Send away" }).click();
  await noteShows(opener, "peer 0 was sent away");
  assert.equal(await ended, "kicked");

  const strict = await newPage(server.demo);
  await strict.evaluate(async () => {
    const { open } = await import("/sigver.js");
    const opener = open(`ws://${location.host}`, "strict");
    opener.on("join", ({ peer }) => opener.kick(peer));
    await new Promise((resolve) => opener.on("opened", resolve));
  });
  const refused = await newPage(`${server.demo}#join=strict`);
  await alertShows(refused, /closed with kicked\. The opener has sent you away\./);
});

browserTest("a server that ends and comes back: the chat goes on, and somebody new can come", async (newPage, t) => {
  let own = await startServer();
  t.after(() => own.stop());
  const opener = await newPage();
  const link = await openKey(opener, "", { demo: own.demo });
  const joiner = await newPage(link);
  await say(joiner, ["before"]);
  await hears(opener, "peer 0", ["before"]);

  await own.stop("SIGKILL");
  await alertShows(opener, /reconnecting after code 1006\. .*The next try is in \d+ s\./);
  await say(joiner, ["without"]);
  await hears(opener, "peer 0", ["before", "without"]);

  own = await startServer(own.port);
  await socketShows(opener, "open", /./);
  assert.equal(await opener.getByLabel("Link to join").inputValue(), link);
  const newcomer = await newPage(link);
  await say(newcomer, ["I am new"]);
  await opener.getByText("I am new").waitFor();
  await say(opener, ["to both"]);
  await hears(joiner, "opener", ["to both"]);
  await hears(newcomer, "opener", ["to both"]);
});

browserTest("what the README shows works", async (newPage) => {
  const [, shown] = /```js\n(.*?)```/s.exec(readFileSync(here("../README.md"), "utf8"));
  const content = shown.replace("./sigver.js", "/sigver.js").replaceAll("ws://localhost:8000", server.url);
  const run = async (hash) => {
    const page = await newPage(`${server.demo}#${hash}`);
    const told = (words) => page.waitForEvent("console", { predicate: (message) => message.text().startsWith(words) });
    const [address, heard] = [told("others join at /#"), told("hello, too")];
    // Whichever a side waits for in vain ends with its page.
    for (const event of [address, heard]) event.catch(() => {});
    await page.addScriptTag({ type: "module", content });
    return { address, heard };
  };
  const opener = await run("");
  const joiner = await run((await opener.address).text().split("#")[1]);
  await joiner.heard;
});

browserTest("what the first page of the project shows works", async (newPage) => {
  const blocks = readFileSync(here("../../../README.md"), "utf8").matchAll(/```js\n(.*?)```/gs);
  const [opens, joins] = [...blocks].map(([, shown]) => shown.replaceAll("ws://localhost:8000", server.url));
  const [opener, joiner] = [await newPage(server.demo), await newPage(server.demo)];
  const asked = opener.waitForEvent("websocket").then((socket) => socket.waitForEvent("framesent"));
  await Promise.all([asked, opener.addScriptTag({ type: "module", content: opens })]);
  await Promise.all([
    joiner.waitForEvent("console", (message) => message.text() === "you said hello"),
    joiner.addScriptTag({ type: "module", content: joins }),
  ]);
});

browserTest("negotiations that collide over and over end in agreement", async (newPage) => {
  const page = await newPage(server.demo);
  const { errors, collisions, channels, states } = await page.evaluate(collide, 20);
  assert.deepEqual(errors, []);
  assert.deepEqual(states, ["stable", "stable"]);
  assert(collisions > 0, "nothing collided");
  assert.deepEqual(channels, [40, 40]);
});

browserTest("five join one key at once, and its opener speaks to all", async (newPage) => {
  const opener = await newPage();
  const link = await openKey(opener);
  const joiners = await Promise.all(FIVE.map(() => newPage()));
  await Promise.all(joiners.map((joiner) => joiner.goto(link)));
  await opener.getByText(/^peer \d is connected$/).nth(4).waitFor();

  await Promise.all(joiners.map((joiner, name) => say(joiner, [`I am ${name}`])));
  const names = await Promise.all(FIVE.map((index) => firstLine(opener, `peer ${index}`)));
  assert.deepEqual(names.sort(), FIVE.map((name) => `I am ${name}`));

  await say(opener, ["to all of you"]);
  await Promise.all(joiners.map((joiner) => hears(joiner, "opener", ["to all of you"])));
});

browserTest("five join at once an opener that counts join lines", async (newPage) => {
  const opener = await newPage(server.demo);
  const joiners = await Promise.all(FIVE.map(() => newPage(server.demo)));
  await opener.evaluate((url) => plainClients.openByCounting(url, "counting"), server.url);

  const heard = await Promise.all(joiners.map((joiner, name) =>
    joiner.evaluate(([url, lines]) => plainClients.joinAndBeCalled(url, "counting", lines), [server.url, numbered(name, 20)])));
  eachHeardItsOwnEcho(heard);
});

browserTest("five join at once an opener that reads the relayed index", async (newPage) => {
  const opener = await newPage(server.demo);
  const joiners = await Promise.all(FIVE.map(() => newPage()));
  await opener.evaluate((url) => plainClients.openByRelayedIndex(url, "relayed"), server.url);

  await Promise.all(joiners.map((joiner) => joiner.goto(`${server.demo}#join=relayed`)));
  const heard = await Promise.all(joiners.map(async (joiner, name) => {
    await say(joiner, numbered(name, 20));
    return linesFrom(joiner, "opener", 20);
  }));
  eachHeardItsOwnEcho(heard);
});

browserTest("candidates that come before the offer are kept for it", async (newPage) => {
  const opener = await newPage();
  await openKey(opener, "early");
  const joiner = await newPage(server.demo);
  const heard = joiner.evaluate((url) => plainClients.joinCandidatesFirst(url, "early"), server.url);
  await say(opener, ["kept"]);
  assert.equal(await heard, "kept");
  assert.deepEqual(await opener.locator("#chat .note").allTextContents(), ["peer 0 has come", "peer 0 is connected"]);
});

const REFUSALS = {
  v1: { taken: /closed with key-taken "`key` is taken: another opener has it"\. .*somebody/, unknown: /unknown-key "`key` is unknown.*"\. .*nobody/ },
  plain: { taken: /closed with code 1008 "key is taken"\. .*somebody/, unknown: /closed with code 1008 "key is unknown"\. .*nobody/ },
};

for (const dialect of DIALECTS) {
  browserTest(`${dialect}: refusals are told in plain words`, async (newPage) => {
    const key = `taken ${dialect}`;
    const first = await newPage();
    await openKey(first, key);
    const second = await newPage(`${server.demo}?dialect=${dialect}`);
    await second.getByLabel("Key").fill(key);
    await second.getByRole("button", { name: "Open the key" }).click();
    await alertShows(second, REFUSALS[dialect].taken);
    await socketShows(first, "open", /./);

    const joiner = await newPage(`${server.demo}?dialect=${dialect}#join=nobody`);
    await alertShows(joiner, REFUSALS[dialect].unknown);

    await second.getByLabel("Key").fill("k".repeat(300));
    await second.getByRole("button", { name: "Open the key" }).click();
    await alertShows(second, /closed with code 1007 "`key` over the length limit"\. The server objects/);
  });

  browserTest(`${dialect}: a joiner whose opener leaves before the channel is open is told so, and can stop`, async (newPage) => {
    const key = `fickle ${dialect}`;
    const opener = await newPage(server.demo);
    await opener.evaluate(([url, key]) => plainClients.openAndLeaveAtOnce(url, key), [server.url, key]);
    const joiner = await newPage(`${server.demo}?dialect=${dialect}#join=${key}`);
    await alertShows(joiner, /The opener is gone, or accepts nobody new\. The next try is in \d+ s\./);
    await joiner.getByRole("button", { name: "Stop trying" }).click();
    await socketShows(joiner, "closed", /This page does not try any longer/);
  });
}

browserTest("an unknown dialect is told in plain words", async (newPage) => {
  await alertShows(await newPage(`${server.demo}?dialect=v9#join=any`), /no dialect of sigver: v9/);
});

browserTest("a server that is not there is told in plain words", async (newPage) => {
  const joiner = await newPage(`${server.demo}?server=ws://127.0.0.1:${await freePort()}#join=any`);
  await alertShows(joiner, /code 1006\. .*Is a signaling server running/);
});

// ---- The demo page, driven as a person would, through what it shows ----

async function openKey(page, key, { demo = server.demo, dialect } = {}) {
  await page.goto(dialect ? `${demo}?dialect=${dialect}` : demo);
  if (key) await page.getByLabel("Key").fill(key);
  await page.getByRole("button", { name: "Open the key" }).click();
  await socketShows(page, "open", /./);
  return page.getByLabel("Link to join").inputValue();
}

/** Waits for the channel, then sends the lines through the form. */
async function say(page, lines) {
  await page.locator("#say fieldset:enabled").waitFor();
  await page.evaluate((lines) => {
    const form = document.querySelector("#say");
    for (const line of lines) {
      form.elements.text.value = line;
      form.requestSubmit();
    }
  }, lines);
}

/** Makes a page reply to every line it shows from now on. */
async function echoFrom(page) {
  await page.evaluate(() => {
    const form = document.querySelector("#say");
    const reply = (item) => {
      if (!item.dataset.from || item.dataset.from === "you") return;
      form.elements.text.value = `echo of ${item.lastChild.textContent}`;
      form.requestSubmit();
    };
    new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach(reply)))
      .observe(document.querySelector("#chat"), { childList: true });
  });
}

async function hears(page, from, expected) {
  assert.deepEqual(await linesFrom(page, from, expected.length), expected);
}

async function firstLine(page, from) {
  return (await linesFrom(page, from, 1))[0];
}

/** All lines that the page shows from one sender, once there are at least `count`. */
async function linesFrom(page, from, count) {
  const lines = page.locator(`#chat [data-from="${from}"] span`);
  await lines.nth(count - 1).waitFor();
  return lines.allTextContents();
}

async function socketShows(page, state, words) {
  await page.locator(`#socket[data-state="${state}"]`, { hasText: words }).waitFor();
}

async function alertShows(page, words) {
  await page.getByRole("alert").filter({ hasText: words }).waitFor();
}

async function noteShows(page, words) {
  await page.locator("#chat .note").getByText(words, { exact: true }).waitFor();
}

/** Of the newest peer. */
async function serverColumnShows(page, words) {
  await page.locator("#peers tr:last-child td").first().getByText(words, { exact: true }).waitFor();
}

async function messages(page) {
  return page.locator("#messages :is(div, summary)").allTextContents();
}

async function firstMessage(page) {
  return page.locator("#messages pre").first().textContent();
}

function keyOf(link) {
  return new URLSearchParams(new URL(link).hash.slice(1)).get("join");
}

// ---- Sent into a page: sigver.js without the demo ----

/** Resolves when it has joined; `ended` when it is over, with how. */
async function joinAndStay(key) {
  const { join } = await import("/sigver.js");
  const joiner = join(`ws://${location.host}`, key);
  globalThis.ended = new Promise((resolve) => joiner.on("closed", ({ code }) => resolve(code)));
  await new Promise((resolve) => joiner.on("join", resolve));
}

/** Two connections that add channels and restart ICE at the same moments, `rounds` times, over signaling that is slow and in order. */
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
      on: (_, listener) => side.listeners.push(listener),
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
      // Media needs a new description every time, a further channel does not.
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

// ---- Lines and echoes ----

function numbered(name, count) {
  return Array.from({ length: count }, (_, number) => `${name}: ${number}`);
}

function echoed(line) {
  return `echo of ${line}`;
}

/** `heard[n]` is what the n-th page heard: its own lines in order, from an opener that knows it by an index of its own. */
function eachHeardItsOwnEcho(heard) {
  const indexes = heard.map(([line]) => Number(line.split(" ")[0]));
  assert.deepEqual([...indexes].sort(), FIVE);
  heard.forEach((lines, name) =>
    assert.deepEqual(lines, numbered(name, 20).map((line) => `${indexes[name]} heard ${line}`)));
}

// ---- The browser ----

/** A test that opens pages in a context of its own, and fails if one of them throws. */
function browserTest(name, body) {
  test(name, { timeout: DEADLINE }, async (t) => {
    const context = await browser.newContext({ permissions: PERMISSIONS });
    t.after(() => context.close());
    context.setDefaultTimeout(WAIT);
    const errors = [];
    context.on("weberror", (event) => errors.push(event.error()));
    await context.addInitScript({ path: here("plain-clients.js") });

    const newPage = async (url) => {
      const page = await context.newPage();
      if (url) await page.goto(url);
      return page;
    };
    try {
      await body(newPage, t);
    } catch (error) {
      for (const page of context.pages()) t.diagnostic(`${page.url()} showed:\n${await page.innerText("body")}`);
      throw new AggregateError([error, ...errors], error.message);
    }
    assert.deepEqual(errors, [], "a page threw");
  });
}

async function startBrowser() {
  assert(existsSync(CHROMIUM), `no Chromium at ${CHROMIUM}: install it, or set CHROMIUM`);
  return chromium.launch({
    executablePath: CHROMIUM,
    // Chromium's own sandbox cannot start as root.
    chromiumSandbox: process.getuid() !== 0,
    args: CHROMIUM_FLAGS,
  });
}

function here(path) {
  return fileURLToPath(new URL(path, import.meta.url));
}
