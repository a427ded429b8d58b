// Tests the demo page in Chromium against a server.

import assert from "node:assert/strict";
import { browserTest, server } from "./pages.mjs";
import { freePort, startServer } from "./server.mjs";

const DIALECTS = ["v1", "plain"];
const FIVE = [0, 1, 2, 3, 4];

browserTest("chat continues after signaling has ended", async (newPage) => {
  const opener = await newPage();
  const link = await openKey(opener);
  const joiner = await newPage(link);
  await echoFrom(opener);

  const before = numbered("before", 100);
  await sendLines(joiner, before);
  await receives(joiner, "opener", before.map(echoed));
  await receives(opener, "peer 0", before);

  await socketShows(joiner, "closed", /code 1000\b.*Signaling is no longer needed/);
  await opener.getByRole("button", { name: "Stop accepting" }).click();
  await socketShows(opener, "closed", /code 1000\b.*Open chats continue/);
  const latecomer = await newPage(link);
  await alertShows(latecomer, /unknown-key\b.*Nobody has this key open/);

  const afterwards = numbered("afterwards", 100);
  await sendLines(joiner, afterwards);
  await receives(joiner, "opener", [...before, ...afterwards].map(echoed));
  await receives(opener, "peer 0", [...before, ...afterwards]);

  await joiner.goto("about:blank");
  await noteShows(opener, "peer 0 left");
});

for (const one of DIALECTS) {
  for (const other of DIALECTS) {
    browserTest(`a ${one} page opens, a ${other} page joins`, async (newPage) => {
      const opener = await newPage();
      const link = new URL(await openKey(opener, "", { dialect: one }));
      assert.match(link.hash, /^#join=[0-9a-f]{32}$/, "a generated key");
      link.searchParams.set("dialect", other);
      const joiner = await newPage(link.href);
      await sendLines(joiner, ["hello"]);
      await receives(opener, "peer 0", ["hello"]);
      await sendLines(opener, ["goodbye"]);
      await receives(joiner, "opener", ["goodbye"]);
      assert.match(await firstMessage(opener), one === "v1" ? /^\{"type":"open", "id":"[0-9a-f]{32}"\}$/ : /^\{"type":"open", "key":"[0-9a-f]{32}"\}$/);
    });
  }
}

browserTest("page shows joins, leaves and all messages", async (newPage) => {
  const opener = await newPage();
  const link = await openKey(opener);
  const joiner = await newPage(link);
  await noteShows(opener, "peer 0 joined");
  await noteShows(opener, "peer 0 is connected");
  await noteShows(joiner, "opener is connected");
  await serverColumnShows(opener, "left");
  await joiner.close();
  await noteShows(opener, "peer 0 left");

  // A joiner that sends nothing.
  const silent = await newPage(server.demo);
  await silent.evaluate(joinAndStay, keyOf(link));
  await noteShows(opener, "peer 1 joined");
  await serverColumnShows(opener, "connected");
  await silent.close();
  await noteShows(opener, "peer 1 left before it was connected");

  const own = await messages(opener);
  for (const words of ["Request a new key", "Key opened", "Peer 0 joined", "SDP offer, from peer 0", "SDP answer, to peer 0",
    "ICE candidate, from peer 0", "Peer 0 left the server"]) {
    assert(own.includes(words), `${words}: not in ${own.join("; ")}`);
  }
});

browserTest("kicked joiner is closed with code kicked", async (newPage) => {
  const opener = await newPage();
  const link = await openKey(opener);
  const joiner = await newPage(server.demo);
  const ended = joiner.evaluate(joinAndStay, keyOf(link)).then(() => joiner.evaluate(() => globalThis.ended));
  await noteShows(opener, "peer 0 joined");
  await opener.getByRole("button", { name: "Kick" }).click();
  await noteShows(opener, "peer 0 was kicked");
  assert.equal(await ended, "kicked");

  const strict = await newPage(server.demo);
  await strict.evaluate(async () => {
    const { open } = await import("/sigver.js");
    const opener = open(`ws://${location.host}`, "strict");
    opener.on("join", ({ peer }) => opener.kick(peer));
    await new Promise((resolve) => opener.on("opened", resolve));
  });
  const refused = await newPage(`${server.demo}#join=strict`);
  await alertShows(refused, /closed with kicked\. The opener has kicked you\./);
});

browserTest("after a server restart the chat continues and new joiners can connect", async (newPage, t) => {
  let own = await startServer();
  t.after(() => own.stop());
  const opener = await newPage();
  const link = await openKey(opener, "", { demo: own.demo });
  const joiner = await newPage(link);
  await sendLines(joiner, ["before"]);
  await receives(opener, "peer 0", ["before"]);

  await own.stop("SIGKILL");
  await alertShows(opener, /reconnecting after (code 1006|lost ".*")\. .*Next attempt in \d+ s\./);
  await sendLines(joiner, ["without"]);
  await receives(opener, "peer 0", ["before", "without"]);

  own = await startServer(own.port);
  await socketShows(opener, "open", /./);
  assert.equal(await opener.getByLabel("Link to join").inputValue(), link);
  const newcomer = await newPage(link);
  await sendLines(newcomer, ["I am new"]);
  await opener.getByText("I am new").waitFor();
  await sendLines(opener, ["to both"]);
  await receives(joiner, "opener", ["to both"]);
  await receives(newcomer, "opener", ["to both"]);
});

browserTest("five pages join one key at the same time and receive from its opener", async (newPage) => {
  const opener = await newPage();
  const link = await openKey(opener);
  const joiners = await Promise.all(FIVE.map(() => newPage()));
  await Promise.all(joiners.map((joiner) => joiner.goto(link)));
  await opener.getByText(/^peer \d is connected$/).nth(4).waitFor();

  await Promise.all(joiners.map((joiner, name) => sendLines(joiner, [`I am ${name}`])));
  const names = await Promise.all(FIVE.map((index) => firstLine(opener, `peer ${index}`)));
  assert.deepEqual(names.sort(), FIVE.map((name) => `I am ${name}`));

  await sendLines(opener, ["to all of you"]);
  await Promise.all(joiners.map((joiner) => receives(joiner, "opener", ["to all of you"])));
});

browserTest("five pages join an opener that counts join notices", async (newPage) => {
  const opener = await newPage(server.demo);
  const joiners = await Promise.all(FIVE.map(() => newPage(server.demo)));
  await opener.evaluate((url) => plainClients.openByCounting(url, "counting"), server.url);

  const received = await Promise.all(joiners.map((joiner, name) =>
    joiner.evaluate(([url, lines]) => plainClients.joinAndBeCalled(url, "counting", lines), [server.url, numbered(name, 20)])));
  checkEchoes(received);
});

browserTest("five pages join an opener that reads the relayed index", async (newPage) => {
  const opener = await newPage(server.demo);
  const joiners = await Promise.all(FIVE.map(() => newPage()));
  await opener.evaluate((url) => plainClients.openByRelayedIndex(url, "relayed"), server.url);

  await Promise.all(joiners.map((joiner) => joiner.goto(`${server.demo}#join=relayed`)));
  const received = await Promise.all(joiners.map(async (joiner, name) => {
    await sendLines(joiner, numbered(name, 20));
    return linesFrom(joiner, "opener", 20);
  }));
  checkEchoes(received);
});

browserTest("candidates before the offer are kept", async (newPage) => {
  const opener = await newPage();
  await openKey(opener, "early");
  const joiner = await newPage(server.demo);
  const received = joiner.evaluate((url) => plainClients.joinCandidatesFirst(url, "early"), server.url);
  await sendLines(opener, ["kept"]);
  assert.equal(await received, "kept");
  assert.deepEqual(await opener.locator("#chat .note").allTextContents(), ["peer 0 joined", "peer 0 is connected"]);
});

const REFUSALS = {
  v1: { taken: /closed with key-taken "`key` is taken: another opener has it"\. .*already open/, unknown: /unknown-key "`key` is unknown.*"\. .*Nobody/ },
  plain: { taken: /closed with code 1008 "key is taken"\. .*already open/, unknown: /closed with code 1008 "key is unknown"\. .*Nobody/ },
};

for (const dialect of DIALECTS) {
  browserTest(`${dialect}: refusals are shown as an alert`, async (newPage) => {
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
    await alertShows(second, /closed with code 1007 "`key` over the length limit"\. The server rejected/);
  });

  browserTest(`${dialect}: joiner whose opener left retries until stopped`, async (newPage) => {
    const key = `fickle ${dialect}`;
    const opener = await newPage(server.demo);
    await opener.evaluate(([url, key]) => plainClients.openAndLeaveAtOnce(url, key), [server.url, key]);
    const joiner = await newPage(`${server.demo}?dialect=${dialect}#join=${key}`);
    await alertShows(joiner, /The opener left, or no longer accepts joiners\. Next attempt in \d+ s\./);
    await joiner.getByRole("button", { name: "Stop retrying" }).click();
    await socketShows(joiner, "closed", /This page no longer retries/);
  });
}

browserTest("unknown dialect is shown as an alert", async (newPage) => {
  await alertShows(await newPage(`${server.demo}?dialect=v9#join=any`), /unknown dialect: v9/);
});

browserTest("unreachable server is shown as an alert", async (newPage) => {
  const joiner = await newPage(`${server.demo}?server=ws://127.0.0.1:${await freePort()}#join=any`);
  await alertShows(joiner, /reconnecting after lost "the connection failed"\. .*Is a signaling server running/);
  await alertShows(joiner, /closed with unreachable "the connection failed"\. No signaling server answers/);
});

// ---- Helpers that use the demo page through its controls ----

async function openKey(page, key, { demo = server.demo, dialect } = {}) {
  await page.goto(dialect ? `${demo}?dialect=${dialect}` : demo);
  if (key) await page.getByLabel("Key").fill(key);
  await page.getByRole("button", { name: "Open the key" }).click();
  await socketShows(page, "open", /./);
  return page.getByLabel("Link to join").inputValue();
}

/** Waits for the channel, then sends the lines through the form. */
async function sendLines(page, lines) {
  await page.locator("#send fieldset:enabled").waitFor();
  await page.evaluate((lines) => {
    const form = document.querySelector("#send");
    for (const line of lines) {
      form.elements.text.value = line;
      form.requestSubmit();
    }
  }, lines);
}

/** Makes a page reply to every line it shows from now on. */
async function echoFrom(page) {
  await page.evaluate(() => {
    const form = document.querySelector("#send");
    const reply = (item) => {
      if (!item.dataset.from || item.dataset.from === "you") return;
      form.elements.text.value = `echo of ${item.lastChild.textContent}`;
      form.requestSubmit();
    };
    new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach(reply)))
      .observe(document.querySelector("#chat"), { childList: true });
  });
}

async function receives(page, from, expected) {
  assert.deepEqual(await linesFrom(page, from, expected.length), expected);
}

async function firstLine(page, from) {
  return (await linesFrom(page, from, 1))[0];
}

/** Waits for `count` lines from a sender, and returns all of them. */
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

/** Waits for the state of the newest peer in the column "Server". */
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

// ---- Functions that run in a page and use sigver.js without the demo ----

/** Resolves when it has joined. `ended` resolves with the code of `closed`. */
async function joinAndStay(key) {
  const { join } = await import("/sigver.js");
  const joiner = join(`ws://${location.host}`, key);
  globalThis.ended = new Promise((resolve) => joiner.on("closed", ({ code }) => resolve(code)));
  await new Promise((resolve) => joiner.on("join", resolve));
}

// ---- Lines and echoes ----

function numbered(name, count) {
  return Array.from({ length: count }, (_, number) => `${name}: ${number}`);
}

function echoed(line) {
  return `echo of ${line}`;
}

/** Checks that each page has received its own lines in order, from an opener that assigned it a unique index. */
function checkEchoes(received) {
  const indexes = received.map(([line]) => Number(line.split(" ")[0]));
  assert.deepEqual([...indexes].sort(), FIVE);
  received.forEach((lines, name) =>
    assert.deepEqual(lines, numbered(name, 20).map((line) => `${indexes[name]} received ${line}`)));
}
