// Tests that run in pages of the server, each in a browser context of its own.

import assert from "node:assert/strict";
import { networkInterfaces } from "node:os";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { startBrowser, usePageFiles } from "./browser.mjs";
import { startServer } from "./server.mjs";

const DEADLINE = 60_000;
const WAIT = 40_000;

// Chromium offers the address of the default route. Without one, it needs permission to enumerate all interfaces.
const ONLY_LOOPBACK = Object.values(networkInterfaces()).flat().every((address) => address.internal);
const PERMISSIONS = ONLY_LOOPBACK ? ["microphone"] : [];

export let server;
let browser;

before(async () => {
  server = await startServer();
  browser = await startBrowser();
}, { timeout: DEADLINE });

after(async () => {
  await browser?.close();
  await server?.stop();
}, { timeout: DEADLINE });

/** A test with its own browser context. It fails if a page throws. */
export function browserTest(name, body) {
  test(name, { timeout: DEADLINE }, async (t) => {
    const context = await browser.newContext({ permissions: PERMISSIONS });
    t.after(() => context.close());
    context.setDefaultTimeout(WAIT);
    const errors = [];
    context.on("weberror", (event) => errors.push(event.error()));
    await context.addInitScript({ path: here("plain-clients.js") });
    await usePageFiles(context);

    const newPage = async (url) => {
      const page = await context.newPage();
      if (url) await page.goto(url);
      return page;
    };
    try {
      await body(newPage, t);
    } catch (error) {
      for (const page of context.pages()) t.diagnostic(`${page.url()} shows:\n${await page.innerText("body")}`);
      throw new AggregateError([error, ...errors], error.message);
    }
    assert.deepEqual(errors, [], "a page threw");
  });
}

function here(path) {
  return fileURLToPath(new URL(path, import.meta.url));
}
