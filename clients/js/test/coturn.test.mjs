// Tests in Chromium that pages connect through coturn with the credentials that they get from sigver. TURNSERVER sets the program (default:
// turnserver in PATH). Needs an address that is not loopback, on which coturn listens.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { startBrowser, usePageFiles } from "./browser.mjs";
import { freePort, startServer } from "./server.mjs";

const TURNSERVER = process.env.TURNSERVER ?? "turnserver";
const DEADLINE = 60_000;

const address = Object.values(networkInterfaces()).flat().find(({ family, internal }) => family === "IPv4" && !internal)?.address;

let folder;
let coturn;
let turn;
let browser;

before(async () => {
  assert(address, "this machine has only loopback addresses");
  folder = mkdtempSync(join(tmpdir(), "sigver-coturn-"));
  writeFileSync(join(folder, "secret"), "north star\n");
  const port = await freePort();
  turn = `turn:${address}:${port}?transport=udp`;
  coturn = await startCoturn(port);
  browser = await startBrowser();
}, { timeout: DEADLINE });

after(async () => {
  await browser?.close();
  coturn?.kill();
  if (folder) rmSync(folder, { recursive: true });
}, { timeout: DEADLINE });

test("two pages of the demo connect through coturn", { timeout: DEADLINE }, async (t) => {
  const server = await startSigver(t, []);
  const context = await relayOnly(t);
  const [opener, joiner] = [await context.newPage(), await context.newPage()];
  await opener.goto(server.demo);
  await opener.getByRole("button", { name: "Open the key" }).click();
  await opener.waitForFunction(() => document.querySelector("#link").value);
  await joiner.goto(await opener.locator("#link").inputValue());
  for (const page of [opener, joiner]) await page.locator("#send fieldset:enabled").waitFor();
  await say(joiner, "through the relay");
  await opener.getByText("through the relay").waitFor();
  for (const page of [opener, joiner]) assert.deepEqual(await selectedCandidates(page), ["relay"]);
});

test("coturn rejects credentials that have expired", { timeout: DEADLINE }, async (t) => {
  const server = await startSigver(t, ["--turn-ttl", "1"]);
  const context = await relayOnly(t);
  const page = await context.newPage();
  await page.goto(server.demo);
  const ice = await page.evaluate(iceFrom, server.url);
  assert.equal(ice.ttl, 1);
  // coturn compares whole seconds.
  await sleep(3_000);
  const { candidates, errors } = await page.evaluate(gather, ice.servers);
  assert.deepEqual(candidates, []);
  assert(errors.includes(401), `401 is not among ${errors}`);
});

async function startCoturn(port) {
  const flags = [
    "--listening-ip", address, "--relay-ip", address, "--listening-port", port, "--min-port", 49152, "--max-port", 49999,
    "--use-auth-secret", "--static-auth-secret", "north star", "--realm", "sigver.example", "--allow-loopback-peers",
    "--no-tls", "--no-dtls", "--no-cli", "--no-stdout-log", "--pidfile", join(folder, "pid"),
    "--userdb", join(folder, "db"), "-n",
  ];
  const child = spawn(TURNSERVER, flags.map(String), { stdio: "ignore" });
  process.once("exit", () => child.kill());
  await Promise.race([
    answered(port),
    once(child, "exit").then(([code]) => assert.fail(`coturn ended with code ${code}`)),
  ]);
  return child;
}

/** Sends binding requests (RFC 8489 section 6) until one is answered. */
async function answered(port) {
  const socket = createSocket("udp4");
  const request = Buffer.from("000100002112a4420123456789abcdef01234567", "hex");
  const timer = setInterval(() => socket.send(request, port, address), 50);
  await once(socket, "message");
  clearInterval(timer);
  socket.close();
}

async function startSigver(t, flags) {
  const server = await startServer(0, ["--turn", turn, "--turn-secret-file", join(folder, "secret"), ...flags]);
  t.after(() => server.stop());
  return server;
}

/** Returns a context whose pages use no candidate but those of TURN servers. */
async function relayOnly(t) {
  const context = await browser.newContext();
  t.after(() => context.close());
  await usePageFiles(context);
  await context.addInitScript(() => {
    globalThis.connections = [];
    globalThis.RTCPeerConnection = class extends RTCPeerConnection {
      constructor(configuration) {
        super({ ...configuration, iceTransportPolicy: "relay" });
        connections.push(this);
      }
    };
  });
  return context;
}

async function say(page, text) {
  await page.evaluate((text) => {
    const form = document.querySelector("#send");
    form.elements.text.value = text;
    form.requestSubmit();
  }, text);
}

/** Returns the types of the local candidates that the page's open connections have selected. */
function selectedCandidates(page) {
  return page.evaluate(async () => {
    const types = [];
    for (const connection of connections.filter(({ connectionState }) => connectionState === "connected")) {
      const stats = await connection.getStats();
      for (const { type, selectedCandidatePairId } of stats.values()) {
        if (type === "transport") types.push(stats.get(stats.get(selectedCandidatePairId).localCandidateId).candidateType);
      }
    }
    return types;
  });
}

/** In a page: pairs two sockets and returns the `ice` of the joiner. */
function iceFrom(url) {
  const connect = () => new Promise((resolve) => {
    const socket = new WebSocket(url, "sigver.v1");
    socket.onopen = () => resolve(socket);
  });
  const reply = (socket, request) => new Promise((resolve) => {
    socket.onmessage = ({ data }) => resolve(JSON.parse(data));
    socket.send(JSON.stringify(request));
  });
  return (async () => {
    const [opener, joiner] = [await connect(), await connect()];
    const { key } = await reply(opener, { type: "open" });
    return (await reply(joiner, { type: "join", key })).ice;
  })();
}

/** In a page: gathers candidates from these servers, and returns their types and the error codes. */
function gather(iceServers) {
  return new Promise((resolve) => {
    const connection = new RTCPeerConnection({ iceServers });
    const [candidates, errors] = [[], []];
    connection.onicecandidateerror = ({ errorCode }) => errors.push(errorCode);
    connection.onicecandidate = ({ candidate }) => candidate?.candidate && candidates.push(candidate.type);
    connection.onicegatheringstatechange = () => connection.iceGatheringState === "complete" && resolve({ candidates, errors });
    connection.createDataChannel("chat");
    connection.setLocalDescription();
  });
}
