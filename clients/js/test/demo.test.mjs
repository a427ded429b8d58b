// Tests the demo page in Chromium against a server. Writes screenshots to the folder `screenshots`.

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { browserTest, server } from "./pages.mjs";
import { freePort, startServer } from "./server.mjs";

const DIALECTS = ["v1", "plain"];
const FIVE = [0, 1, 2, 3, 4];
const VIEWPORTS = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 800 } };
const NOBODY = "Nobody has this key open. Ask for a new link.";

browserTest("chat continues after signaling has ended", async (newPage) => {
  const opener = await newPage();
  const link = await openKey(opener);
  const joiner = await newPage(link);
  await echoFrom(opener);

  const before = numbered("before", 100);
  await sendLines(joiner, before);
  await receives(joiner, "opener", before.map(echoed));
  await receives(opener, "peer 0", before);

  await opener.getByRole("button", { name: "Stop accepting" }).click();
  await stateShows(opener, "good", "Connected. Nobody else can join.");
  assert(await opener.locator("#invitation").isHidden());
  const latecomer = await newPage(link);
  await stateShows(latecomer, "bad", NOBODY);
  await stateShows(joiner, "good", "Connected.");

  const afterwards = numbered("afterwards", 100);
  await sendLines(joiner, afterwards);
  await receives(joiner, "opener", [...before, ...afterwards].map(echoed));
  await receives(opener, "peer 0", [...before, ...afterwards]);

  await joiner.goto("about:blank");
  await noteShows(opener, "peer 0 left");
  await stateShows(opener, "off", "Stopped. Nobody can join.");
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

browserTest("page shows present peers and all messages", async (newPage) => {
  const opener = await newPage();
  const link = await openKey(opener);
  const joiner = await newPage(link);
  await noteShows(opener, "peer 0 is connected");
  await noteShows(joiner, "opener is connected");
  await stateShows(opener, "good", "Connected.");
  assert.deepEqual(await rows(opener), ["peer 0 connected connected open Kick"]);
  await joiner.close();
  await noteShows(opener, "peer 0 left");
  await stateShows(opener, "busy", "Waiting for someone to join…");
  assert.deepEqual(await rows(opener), []);

  // A joiner that sends nothing.
  const silent = await newPage(server.demo);
  await silent.evaluate(joinAndStay, keyOf(link));
  await stateShows(opener, "busy", "Connecting to the other browser…");
  assert.deepEqual(await rows(opener), ["peer 1 connected new none Kick"]);
  await silent.close();
  await stateShows(opener, "busy", "Waiting for someone to join…");
  assert.deepEqual(await rows(opener), []);

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
  await stateShows(refused, "bad", "The opener has removed you.");
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
  await stateShows(opener, "good", "Connected. Reconnecting to the server. The chat goes on.");
  await sendLines(joiner, ["without"]);
  await receives(opener, "peer 0", ["before", "without"]);

  own = await startServer(own.port);
  await stateShows(opener, "good", "Connected.");
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
  assert.deepEqual(await opener.locator("#chat .note").allTextContents(), ["peer 0 is connected"]);
});

for (const dialect of DIALECTS) {
  browserTest(`${dialect}: a refusal is one line that says what to do`, async (newPage) => {
    const key = `taken ${dialect}`;
    const first = await newPage();
    await openKey(first, key);
    const second = await newPage(`${server.demo}?dialect=${dialect}`);
    await submitKey(second, key);
    await stateShows(second, "bad", "Somebody else has this key open. Choose another key.");
    await stateShows(first, "busy", "Waiting for someone to join…");
    // The form is open again.
    await second.getByLabel("Key", { exact: true }).fill("k".repeat(300));
    await second.getByRole("button", { name: "Open the key again" }).click();
    await stateShows(second, "bad", "The server rejected the request: key over the length limit.");

    const joiner = await newPage(`${server.demo}?dialect=${dialect}#join=nobody`);
    await stateShows(joiner, "bad", NOBODY);
    assert.equal((await joiner.getByRole("status").allTextContents()).join(""), "");
    assert(await joiner.locator("#talk").isHidden());
    const opener = await newPage();
    await openKey(opener, "nobody");
    await joiner.getByRole("button", { name: "Try again" }).click();
    await stateShows(joiner, "good", "Connected.");
  });

  browserTest(`${dialect}: joiner whose opener left waits until stopped`, async (newPage) => {
    const key = `fickle ${dialect}`;
    const opener = await newPage(server.demo);
    await opener.evaluate(([url, key]) => plainClients.openAndLeaveAtOnce(url, key), [server.url, key]);
    const joiner = await newPage(`${server.demo}?dialect=${dialect}#join=${key}`);
    await stateShows(joiner, "busy", "The opener has left. Waiting for it to return…");
    await joiner.getByRole("button", { name: "Stop trying" }).click();
    await stateShows(joiner, "off", "Stopped.");
    assert(await joiner.getByRole("button", { name: "Stop trying" }).isHidden());
  });

  browserTest(`${dialect}: after a reload of the opener the chat comes back under the same link`, async (newPage) => {
    const opener = await newPage();
    const link = await openKey(opener, "", { dialect });
    const joiner = await newPage(link);
    await sendLines(joiner, ["before"]);
    await receives(opener, "peer 0", ["before"]);

    await opener.reload();
    for (const page of [opener, joiner]) await stateShows(page, "good", "Connected.");
    assert.equal(await opener.getByLabel("Link to join").inputValue(), link);
    await sendLines(joiner, ["after"]);
    await receives(opener, "peer 0", ["after"]);
    await joiner.reload();
    await stateShows(joiner, "good", "Connected.");
  });
}

browserTest("opener takes its key back with its token", async (newPage) => {
  const opener = await newPage();
  const link = await openKey(opener);
  const saved = await opener.evaluate(() => ({ ...sessionStorage }));
  const stranger = await newPage(opener.url());
  await stateShows(stranger, "bad", "Somebody else has this key open. Choose another key.");

  const duplicate = await newPage();
  await duplicate.addInitScript((saved) => Object.assign(sessionStorage, saved), saved);
  await duplicate.goto(opener.url());
  await stateShows(duplicate, "busy", "Waiting for someone to join…");
  await stateShows(opener, "bad", "This key is open in another tab now.");
  const joiner = await newPage(link);
  await sendLines(joiner, ["hello"]);
  await receives(duplicate, "peer 0", ["hello"]);
});

browserTest("Copy, Share and the new tab have the link", async (newPage) => {
  const opener = await newPage();
  await opener.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await opener.addInitScript(() => (navigator.share = async ({ url }) => (globalThis.shared = url)));
  const link = await openKey(opener);
  await opener.getByRole("button", { name: "Copy" }).click();
  await opener.getByRole("status").getByText("Copied.").waitFor();
  assert.equal(await opener.evaluate(() => navigator.clipboard.readText()), link);
  await opener.getByRole("button", { name: "Share" }).click();
  assert.equal(await opener.evaluate(() => shared), link);

  const [tab] = await Promise.all([opener.context().waitForEvent("page"), opener.getByRole("link", { name: "new tab" }).click()]);
  await sendLines(tab, ["hello"]);
  await receives(opener, "peer 0", ["hello"]);
});

browserTest("Copy works without the clipboard API, and Share is hidden", async (newPage) => {
  const opener = await newPage();
  await opener.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await opener.addInitScript(() => {
    globalThis.clipboard = navigator.clipboard;
    for (const name of ["clipboard", "share"]) Object.defineProperty(navigator, name, { value: undefined });
  });
  const link = await openKey(opener);
  assert(await opener.locator("#share").isHidden());
  await opener.getByRole("button", { name: "Copy" }).click();
  await opener.getByRole("status").getByText("Copied.").waitFor();
  assert.equal(await opener.evaluate(() => clipboard.readText()), link);
});

browserTest("messages of peers are shown as text", async (newPage) => {
  const opener = await newPage();
  const joiner = await newPage(await openKey(opener));
  const markup = "<img src=x onerror=alert(1)> & <b>bold</b>";
  await sendLines(joiner, [markup]);
  await receives(opener, "peer 0", [markup]);
  assert.equal(await opener.locator("#chat :is(img, span b)").count(), 0);
});

browserTest("keyboard is enough", async (newPage) => {
  const opener = await newPage(server.demo);
  await tabTo(opener, "begin");
  await opener.keyboard.press("Enter");
  await opener.waitForFunction(() => document.activeElement.id === "copy");
  const joiner = await newPage(await opener.getByLabel("Link to join").inputValue());
  await stateShows(opener, "good", "Connected.");
  await opener.getByLabel("Message", { exact: true }).focus();
  await opener.keyboard.type("hello");
  await opener.keyboard.press("Enter");
  await receives(joiner, "opener", ["hello"]);
  await tabTo(opener, "settings");
  await opener.keyboard.press("Enter");
  await opener.getByLabel("Key", { exact: true }).fill("another key");
  await opener.keyboard.press("Enter");
  await stateShows(opener, "busy", "Waiting for someone to join…");
  assert.match(await opener.locator("#summary").textContent(), /^Key another key on /);
});

browserTest("page works below a path", async (newPage) => {
  const opener = await newPage();
  await opener.context().route(/^http:.*\/below\//, (route) => {
    const [, name] = /below\/([^?]*)/.exec(route.request().url());
    return route.fulfill({ path: here(`../../../examples/browser/${name || "index.html"}`) });
  });
  const link = await openKey(opener, "", { demo: `${server.demo}below/` });
  assert.match(link, /\/below\/#join=/);
  const joiner = await newPage(link);
  await sendLines(joiner, ["hello"]);
  await receives(opener, "peer 0", ["hello"]);
});

for (const [device, viewport] of Object.entries(VIEWPORTS)) {
  for (const colorScheme of ["light", "dark"]) {
    browserTest(`${device}, ${colorScheme}: the link and the chat are in view`, async (newPage) => {
      const show = async (url) => {
        const page = await newPage();
        await page.addInitScript(() => (navigator.share = async () => {}));
        await page.setViewportSize(viewport);
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        if (url) await page.goto(url);
        return page;
      };
      const shoot = async (page, name, options) => {
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), viewport.width, `${name} scrolls horizontally`);
        await page.screenshot({ path: here(`screenshots/${device}-${colorScheme}-${name}.png`), ...options });
      };
      const opener = await show(server.demo);
      await shoot(opener, "1-start");
      const link = await openKey(opener);
      await inView(opener, ["#status", "#link", "#copy", "#share", "#chat", "#send"], viewport);
      await shoot(opener, "2-opened");

      const joiner = await show(link);
      await sendLines(joiner, ["Hello! Is this really without a server?"]);
      await receives(opener, "peer 0", ["Hello! Is this really without a server?"]);
      await sendLines(opener, ["Yes: the messages go from browser to browser."]);
      await receives(joiner, "opener", ["Yes: the messages go from browser to browser."]);
      for (const page of [opener, joiner]) await inView(page, ["#status", "#chat", "#send"], viewport);
      await shoot(opener, "3-chat");
      await shoot(joiner, "4-joined");
      await shoot(opener, "5-whole", { fullPage: true });
      await opener.locator("#settings summary").click();
      await shoot(opener, "6-change");

      const lost = await show(`${server.demo}#join=nobody`);
      await stateShows(lost, "busy", "Nobody has this key open. Waiting for the opener…");
      await stateShows(lost, "bad", NOBODY);
      await inView(lost, ["#alert", "#begin"], viewport);
      await shoot(lost, "7-unknown-key");
    });
  }
}

browserTest("unknown dialect is shown as an alert", async (newPage) => {
  await stateShows(await newPage(`${server.demo}?dialect=v9#join=any`), "bad", "Cannot start: unknown dialect: v9");
});

browserTest("unreachable server is shown as an alert", async (newPage) => {
  const joiner = await newPage(`${server.demo}?server=ws://127.0.0.1:${await freePort()}#join=any`);
  await stateShows(joiner, "bad", "The signaling server cannot be reached. Trying again…");
  await stateShows(joiner, "bad", "No signaling server answers at this address, or it does not accept this page.");
});

// ---- Helpers that use the demo page through its controls ----

async function openKey(page, key, { demo = server.demo, dialect } = {}) {
  await page.goto(dialect ? `${demo}?dialect=${dialect}` : demo);
  await submitKey(page, key);
  await page.locator("#invitation").waitFor();
  await stateShows(page, "busy", "Waiting for someone to join…");
  return page.getByLabel("Link to join").inputValue();
}

async function submitKey(page, key) {
  if (key) {
    await page.getByText("Options").click();
    await page.getByLabel("Key", { exact: true }).fill(key);
  }
  await page.getByRole("button", { name: "Open the key" }).click();
}

/** Presses Tab until this element, or a part of it, has the focus. */
async function tabTo(page, id) {
  for (let presses = 0; presses < 30; presses += 1) {
    await page.keyboard.press("Tab");
    if (await page.evaluate((id) => document.activeElement.closest(`#${id}`) !== null, id)) return;
  }
  assert.fail(`Tab does not reach ${id}`);
}

/** Checks that the elements are visible without scrolling. */
async function inView(page, selectors, { width, height }) {
  for (const selector of selectors) {
    const box = await page.locator(selector).boundingBox();
    assert(box && box.x >= 0 && box.y >= 0 && box.x + box.width <= width && box.y + box.height <= height, `${selector}: ${JSON.stringify(box)}`);
  }
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

/** Waits for the line of the state. A bad state is an alert. */
async function stateShows(page, kind, words) {
  const line = page.locator(`#state[data-state="${kind}"]`).getByRole(kind === "bad" ? "alert" : "status");
  await line.getByText(words, { exact: true }).waitFor();
}

async function noteShows(page, words) {
  await page.locator("#chat .note").getByText(words, { exact: true }).waitFor();
}

/** Returns the visible rows of the connections. */
async function rows(page) {
  const texts = await page.locator("#peers tr:not([hidden])").allInnerTexts();
  return texts.map((text) => text.replaceAll(/\s+/g, " "));
}

async function messages(page) {
  return page.locator("#messages summary").evaluateAll((items) => items.map((item) => item.lastChild.textContent));
}

async function firstMessage(page) {
  return page.locator("#messages pre").first().textContent();
}

function here(path) {
  return fileURLToPath(new URL(path, import.meta.url));
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
