// The browser of the tests. CHROMIUM sets it (default: /usr/bin/chromium).

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

const CHROMIUM_FLAGS = [
  "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  // Candidates contain addresses, not multicast DNS names, which some machines cannot resolve.
  "--disable-features=WebRtcHideLocalIpsWithMdns,LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets,LocalNetworkAccessChecksWebRTC",
  "--allow-loopback-in-peer-connection",
];

export async function startBrowser() {
  assert(existsSync(CHROMIUM), `Chromium not found at ${CHROMIUM}: install it or set CHROMIUM`);
  return chromium.launch({
    executablePath: CHROMIUM,
    // Chromium's sandbox cannot start as root.
    chromiumSandbox: process.getuid() !== 0,
    args: CHROMIUM_FLAGS,
  });
}

/** With PAGE_FILES, the page comes from its folder, and not from the server, into which it is built. */
export async function usePageFiles(context) {
  if (!process.env.PAGE_FILES) return;
  for (const name of ["index.html", "chat.js", "sigver.js"]) {
    const path = fileURLToPath(new URL(`../../../examples/browser/${name}`, import.meta.url));
    await context.route(({ pathname }) => pathname === (name === "index.html" ? "/" : `/${name}`), (route) => route.fulfill({ path }));
  }
}
