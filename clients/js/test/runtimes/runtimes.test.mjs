// Installs the packed package into an empty project, and uses it in other runtimes, in a web worker and in bundles.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import * as esbuild from "esbuild";
import * as vite from "vite";
import { startBrowser } from "../browser.mjs";
import { startServer } from "../server.mjs";

const run = promisify(execFile);
const DEADLINE = 120_000;
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const bin = (path) => here(`node_modules/${path}`);

let project;
let server;
let guarded;
let browser;
let files;

before(async () => {
  // Outside the repository, so that nothing but the package is found.
  project = mkdtempSync(join(tmpdir(), "sigver-project-"));
  const { stdout } = await run("npm", ["pack", "--silent", "--pack-destination", project], { cwd: here("../..") });
  writeFileSync(join(project, "package.json"), '{ "private": true, "type": "module" }');
  await run("npm", ["install", "--silent", "--no-audit", "--no-fund", "--offline", join(project, stdout.trim())], { cwd: project });
  cpSync(here("apps"), project, { recursive: true });
  for (const name of ["ws", "react", "react-dom", "scheduler"]) symlinkSync(bin(name), join(project, "node_modules", name));
  server = await startServer();
  writeFileSync(join(project, "tokens"), "a-token-of-more-than-sixteen-bytes\n", { mode: 0o600 });
  guarded = await startServer(0, ["--token-file", join(project, "tokens")]);
  browser = await startBrowser();
  files = await serve(project);
}, { timeout: DEADLINE });

after(async () => {
  await browser?.close();
  await server?.stop();
  await guarded?.stop();
  files?.close();
  if (project) rmSync(project, { recursive: true });
}, { timeout: DEADLINE });

// ---- Runtimes ----

const RUNTIMES = {
  "Node.js 20 with ws": { command: [bin("node-20/bin/node")], version: /^v20\./, ws: true },
  // Their own WebSocket hides the response to a handshake.
  "Node.js 22": { command: [bin("node-22/bin/node")], version: /^v22\./, codeWithoutToken: "unreachable" },
  "Node.js 24": { command: [bin("node-24/bin/node")], version: /^v24\./, codeWithoutToken: "unreachable" },
  Deno: { command: [bin(".bin/deno"), "run", "--quiet", "--allow-all"], version: /^deno 2\./ },
  Bun: { command: [bin(".bin/bun")], version: /^1\./ },
};

for (const [name, { command, version, ws, codeWithoutToken = "rejected" }] of Object.entries(RUNTIMES)) {
  test(`${name}: session, sealing, close while connecting, unreachable server, token, restart`, { timeout: DEADLINE }, async (t) => {
    const { stdout } = await run(command[0], ["--version"]);
    assert.match(stdout, version);
    let fragile = await startServer();
    t.after(() => fragile.stop());
    const [program, ...flags] = command;
    const child = spawn(program, [...flags, "session.mjs", server.url, guarded.url, fragile.url, codeWithoutToken, ...(ws ? ["ws"] : [])], {
      cwd: project, stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    t.after(() => child.kill("SIGKILL"));
    const lines = [];
    for await (const line of createInterface({ input: child.stdout })) {
      lines.push(line);
      if (line !== "ready") continue;
      await fragile.stop("SIGKILL");
      // So long that the first attempts fail.
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      fragile = await startServer(fragile.port);
    }
    assert.equal(await ended, 0);
    assert.deepEqual(lines, ["ready", "done"]);
  });
}

// ---- Chromium ----

const IMPORT_MAP = '<script type="importmap">{"imports":{"sigver":"/node_modules/sigver/sigver.js"}}</script>';

test("Chromium: page without a bundler", { timeout: DEADLINE }, async (t) => {
  writeFileSync(join(project, "plain.html"), `${IMPORT_MAP}<script type="module" src="page.js"></script>`);
  assert.equal(await connected(t, "plain.html"), "you said hello");
});

test("Chromium: web worker in a bundle of esbuild", { timeout: DEADLINE }, async (t) => {
  await esbuild.build({
    absWorkingDir: project, entryPoints: ["page.js", "worker.js"], outdir: "built", bundle: true, format: "esm", minify: true, logLevel: "error",
  });
  writeFileSync(join(project, "built.html"), '<script type="module" src="built/page.js"></script>');
  const page = await open(t, "built.html");
  assert.equal(await page.evaluate(() => connected), "you said hello");
  const answer = await page.evaluate(async () => {
    const { askWorker } = await import("/built/page.js");
    return askWorker(new Worker(`built/worker.js${location.search}`, { type: "module" }));
  });
  assert.equal(answer, "hello from a worker");
});

test("Chromium: bundle of Vite", { timeout: DEADLINE }, async (t) => {
  await viteBuild("vite-app", "page.js");
  assert.equal(await connected(t, "vite-app/dist/index.html"), "you said hello");
});

test("Chromium: React in StrictMode connects each pair once, restart included", { timeout: DEADLINE }, async (t) => {
  await viteBuild("react-app", "react.jsx");
  let own = await startServer();
  t.after(() => own.stop());
  const at = (name, role) => open(t, "react-app/dist/index.html", `name=${name}&key=strict&${role}`, own);
  const [ann, bob] = [await at("ann", "open"), await at("bob", "join")];
  const exchange = async (count) => {
    for (const [page, other, name] of [[ann, bob, "ann"], [bob, ann, "bob"]]) {
      await page.getByRole("button").click();
      await other.locator(`li:nth-of-type(${count})`).getByText(`from ${name}`).waitFor();
    }
    for (const page of [ann, bob]) assert.equal(await page.locator("li").count(), count);
  };
  for (const page of [ann, bob]) await page.waitForFunction(() => openChannels === 1);
  await exchange(1);
  const { port } = own;
  await own.stop("SIGKILL");
  for (const page of [ann, bob]) await page.locator('main[data-state="reconnecting"]').waitFor();
  await exchange(2);
  own = await startServer(port);
  for (const page of [ann, bob]) await page.locator('main[data-state="open"]').waitFor();
  await exchange(3);
  for (const page of [ann, bob]) assert.equal(await page.evaluate(() => connections), 1);
});

async function viteBuild(name, entry) {
  const root = join(project, name);
  mkdirSync(root);
  cpSync(join(project, entry), join(root, entry));
  writeFileSync(join(root, "index.html"), `<body><script type="module" src="/${entry}"></script></body>`);
  await vite.build({ root, base: "./", configFile: false, logLevel: "error" });
}

async function open(t, path, query = "", { url } = server) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  page.on("pageerror", (error) => t.diagnostic(String(error)));
  await page.goto(`http://127.0.0.1:${files.address().port}/${path}?server=${url.slice("ws://".length)}&${query}`);
  return page;
}

async function connected(t, path) {
  return (await open(t, path)).evaluate(() => connected);
}

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript" };

/** Serves the files of a folder. */
async function serve(folder) {
  const listener = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    try {
      const content = readFileSync(join(folder, pathname));
      response.writeHead(200, { "Content-Type": TYPES[extname(pathname)] ?? "application/octet-stream" }).end(content);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
  return listener;
}
