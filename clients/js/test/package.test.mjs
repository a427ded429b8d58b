// Tests the npm package as users install it.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));
const tool = (path) => join(root, "node_modules", path);
const read = (path) => readFileSync(join(root, path), "utf8");

test("package has the client, its types and its documents, and no dependency", { timeout: 60_000 }, async () => {
  const { stdout } = await run("npm", ["pack", "--dry-run", "--json"], { cwd: root });
  const [{ files }] = Object.values(JSON.parse(stdout)).flat();
  const names = files.map(({ path }) => path).sort();
  assert.deepEqual(names, ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "package.json", "sigver.d.ts", "sigver.js"]);
  const { dependencies, peerDependencies } = JSON.parse(read("package.json"));
  assert.deepEqual([dependencies, peerDependencies], [undefined, undefined]);
});

test("publint and arethetypeswrong find nothing", { timeout: 120_000 }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "sigver-pack-"));
  t.after(() => rmSync(folder, { recursive: true }));
  await run("npm", ["pack", "--pack-destination", folder], { cwd: root });
  const tarball = join(folder, `sigver-${JSON.parse(read("package.json")).version}.tgz`);
  await run(process.execPath, [tool("publint/src/cli.js"), "--strict", root]);
  // The package is for ES modules only.
  await run(process.execPath, [tool("@arethetypeswrong/cli/dist/index.js"), "--profile", "esm-only", tarball]);
});

test("licenses are those of the project", () => {
  for (const name of ["LICENSE-MIT", "LICENSE-APACHE"]) assert.equal(read(name), read(`../../${name}`));
});

test("lock files name no registry but npm's", () => {
  for (const file of ["package-lock.json", "test/runtimes/package-lock.json"]) {
    const hosts = [...read(file).matchAll(/"resolved": "([^"]*)"/g)].map(([, url]) => new URL(url).host);
    assert.deepEqual([...new Set(hosts)].filter((host) => host !== "registry.npmjs.org"), []);
  }
});
