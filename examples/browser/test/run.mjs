// The demo page in a real browser, against a real server. Needs Chromium (CHROMIUM, or /usr/bin/chromium) and the
// server (SIGVER_BIN, or target/release/sigver); without them it fails.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const SIGVER_BIN = process.env.SIGVER_BIN ?? here("../../../target/release/sigver");
const DEADLINE = 30_000;
const WAIT = 20_000;
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
  await alertShows(latecomer, /code 1008\b/);

  const afterwards = numbered("afterwards", 100);
  await say(joiner, afterwards);
  await hears(joiner, "opener", [...before, ...afterwards].map(echoed));
  await hears(opener, "peer 0", [...before, ...afterwards]);

  await joiner.goto("about:blank");
  await opener.getByText("peer 0 left").waitFor();
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
  assert.deepEqual(await opener.locator("#chat .note").allTextContents(), ["peer 0 is connected"]);
});

browserTest("a key that is taken is refused in plain words", async (newPage) => {
  const first = await newPage();
  await openKey(first, "taken");
  const second = await newPage(server.demo);
  await second.getByLabel("Key").fill("taken");
  await second.getByRole("button", { name: "Open the key" }).click();

  await alertShows(second, /code 1008 "key is taken"\. .*somebody has this key open already/);
  await socketShows(first, "open", /./);
});

browserTest("a key that nobody has opened is refused in plain words", async (newPage) => {
  const joiner = await newPage(`${server.demo}#join=nobody`);
  await alertShows(joiner, /code 1008 "key is unknown"\. .*nobody has this key open/);
});

browserTest("a joiner whose opener leaves before the channel is open is told so", async (newPage) => {
  const opener = await newPage(server.demo);
  await opener.evaluate((url) => plainClients.openAndLeaveAtOnce(url, "fickle"), server.url);
  const joiner = await newPage(`${server.demo}#join=fickle`);
  await alertShows(joiner, /code 4001 "opener left"\. The opener is gone/);
});

browserTest("a server that is not there is told in plain words", async (newPage) => {
  const joiner = await newPage(`${server.demo}?server=ws://127.0.0.1:${await freePort()}#join=any`);
  await alertShows(joiner, /code 1006\. .*Is a signaling server running/);
});

// ---- The demo page, driven as a person would, through what it shows ----

async function openKey(page, key) {
  await page.goto(server.demo);
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

// ---- Browser and server ----

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
      await body(newPage);
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

async function startServer() {
  assert(existsSync(SIGVER_BIN), `no server at ${SIGVER_BIN}: cargo build --release -p sigver-server, or set SIGVER_BIN`);
  const child = spawn(SIGVER_BIN, ["--listen", "127.0.0.1:0", "--demo"], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { RUST_LOG: "warn", ...process.env },
  });
  process.once("exit", () => child.kill());
  const address = await announcedAddress(child);
  return { demo: `http://${address}/`, url: `ws://${address}`, stop: () => stop(child) };
}

function announcedAddress(child) {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`the server ended with code ${code} before it listened`)));
    createInterface({ input: child.stdout }).on("line", (line) => {
      const announced = /^sigver listening on (127\.0\.0\.1:\d+)$/.exec(line);
      if (announced) resolve(announced[1]);
    });
  });
}

async function freePort() {
  const listener = createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  listener.close();
  await once(listener, "close");
  return port;
}

async function stop(child) {
  if (child.exitCode !== null) return;
  const exited = once(child, "exit");
  child.kill();
  await exited;
}

function here(path) {
  return fileURLToPath(new URL(path, import.meta.url));
}
