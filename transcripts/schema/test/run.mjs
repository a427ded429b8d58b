// Validates the schemas against the meta-schemas of JSON Schema and AsyncAPI with independent validators, and compares the two documents.
// tests/schema.rs compares the schemas with the server.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { Parser, fromFile } from "@asyncapi/parser";
import Ajv from "ajv/dist/2020.js";

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const read = (name) => JSON.parse(readFileSync(path(name), "utf8"));
const dialects = { v1: "sigver.v1.json", plain: "sigver.plain.json" };
const strict = { strict: true, strictTypes: true, strictTuples: true };
const names = (references) => references.map(({ $ref }) => $ref.split("/").at(-1));
const asyncapi = read("asyncapi.json");

for (const [dialect, file] of Object.entries(dialects)) {
  const schema = read(file);
  const isMessage = ([, definition]) => definition.examples && (definition.type === "object" || definition.const);
  const messages = Object.entries(schema.$defs).filter(isMessage);

  test(`${file} is a schema of 2020-12, and strict`, () => {
    const ajv = new Ajv(strict);
    assert.ok(ajv.validateSchema(schema), ajv.errorsText());
    ajv.addSchema(schema, dialect);
    for (const [name, definition] of Object.entries(schema.$defs)) {
      assert.ok(definition.title && definition.description, `${name} says what it is`);
      const validate = ajv.getSchema(`${dialect}#/$defs/${name}`);
      for (const example of definition.examples ?? []) assert.ok(validate(example), `${name}: ${ajv.errorsText(validate.errors)}`);
    }
    assert.ok(messages.length >= 7);
  });

  test(`the AsyncAPI document has the messages of ${file}`, () => {
    const channel = asyncapi.channels[dialect];
    for (const [name, definition] of messages) {
      const { title, payload, examples } = channel.messages[name];
      assert.equal(title, definition.title);
      assert.deepEqual(payload, { $ref: `${file}#/$defs/${name}` });
      assert.deepEqual(examples.map((example) => example.payload), definition.examples);
    }
    assert.equal(Object.keys(channel.messages).length, messages.length);
  });

  test(`the AsyncAPI document has the roles of ${file}`, () => {
    const roles = { NoRole: "no-role", Waiting: "waiting", Opener: "opener", Joiner: "joiner" };
    const operations = Object.keys(asyncapi.operations).filter((name) => name.startsWith(dialect));
    const expected = Object.entries(roles).flatMap(([role, name]) => [
      [`${dialect}From${role}`, "receive", schema.$defs[`${name}-to-server`]],
      [`${dialect}To${role}`, "send", schema.$defs[`server-to-${name}`]],
    ]).filter(([, , definition]) => definition);
    for (const [name, action, definition] of expected) {
      assert.equal(asyncapi.operations[name].action, action);
      assert.deepEqual(names(asyncapi.operations[name].messages), names(definition.anyOf ?? definition.oneOf));
    }
    assert.deepEqual(operations.sort(), expected.map(([name]) => name).sort());
  });
}

test("asyncapi.json is an AsyncAPI document", async () => {
  const { document, diagnostics } = await fromFile(new Parser(), path("asyncapi.json")).parse();
  const faults = diagnostics.filter(({ severity }) => severity < 2); // errors and warnings
  assert.deepEqual(faults.map(({ message, path }) => `${path.join(".")}: ${message}`), []);
  assert.equal(document.allChannels().length, 2);
  // That the references lead somewhere, and that what they lead to was read.
  for (const message of document.allMessages()) assert.equal(message.payload().json().title, message.title());
});
