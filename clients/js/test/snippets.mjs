// The examples of the READMEs.

import { readFileSync } from "node:fs";

const EXAMPLE = /<!-- example: (\S+) -->\n```(js|ts)\n(.*?)```/gs;

/** Returns the marked examples of a page by name, and fails if one is not marked. */
export function snippetsOf(url) {
  const text = readFileSync(url, "utf8");
  const examples = [...text.matchAll(EXAMPLE)].map(([, name, language, code]) => [name, { language, code }]);
  const fences = text.match(/^```(js|ts)$/gm) ?? [];
  if (examples.length === 0 || examples.length !== fences.length) throw new Error(`${url}: ${fences.length} examples, ${examples.length} are marked`);
  return Object.fromEntries(examples);
}

export const ofPackage = snippetsOf(new URL("../README.md", import.meta.url));
export const ofProject = snippetsOf(new URL("../../../README.md", import.meta.url));
