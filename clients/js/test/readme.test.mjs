// Checks the types of the examples in the READMEs, and runs those for Node.js. browser.test.mjs runs the others.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { startServer } from "./server.mjs";
import { ofPackage, ofProject } from "./snippets.mjs";

const run = promisify(execFile);
const folder = fileURLToPath(new URL("snippets/", import.meta.url));
const tsc = fileURLToPath(new URL("../node_modules/typescript/bin/tsc", import.meta.url));

/** In a folder of the package, `sigver` is the package itself. */
function write(files) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  for (const [name, text] of Object.entries(files)) writeFileSync(`${folder}${name}`, text);
}

test("examples have correct types", { timeout: 120_000 }, async () => {
  const files = {};
  for (const [page, snippets] of Object.entries({ package: ofPackage, project: ofProject })) {
    for (const [name, { language, code }] of Object.entries(snippets)) files[`${page}-${name}.${language === "js" ? "mts" : "ts"}`] = code;
  }
  assert(Object.keys(files).length >= 7);
  const options = { strict: true, noEmit: true, target: "es2022", module: "nodenext", lib: ["es2022", "dom"], types: ["node"] };
  write({ ...files, "tsconfig.json": JSON.stringify({ compilerOptions: options, files: Object.keys(files) }) });
  const { stdout } = await run(process.execPath, [tsc, "-p", folder]).catch((error) => error);
  assert.equal(stdout, "");
  // A mistake would be found.
  write({ ...files, "wrong.mts": ofPackage.opener.code.replace("({ peer })", "({ pear })"), "tsconfig.json": JSON.stringify({ compilerOptions: options, files: ["wrong.mts"] }) });
  await assert.rejects(run(process.execPath, [tsc, "-p", folder]));
});

test("first examples are the same in both READMEs, and have at most a dozen lines", () => {
  for (const name of ["opener", "joiner"]) {
    assert.equal(ofProject[name].code, ofPackage[name].code);
    assert(ofPackage[name].code.trimEnd().split("\n").length <= 12);
  }
});

test("example for Node.js echoes", { timeout: 60_000 }, async (t) => {
  const server = await startServer();
  t.after(() => server.stop());
  write({ "node.mjs": `${ofPackage.node.code.replaceAll("ws://localhost:8000", server.url)}\njoiner.peers[0].on("data", () => setImmediate(() => process.exit()));` });
  const { stdout } = await run(process.execPath, [`${folder}node.mjs`]);
  assert.equal(stdout, "{ echo: 'hello' }\n");
});
