// A session in any runtime: `sigver` and `ws` are those that the empty project has installed. Arguments: the URLs of the server, of one that requires a token,
// and of one that the test kills and starts again when this program prints "ready"; the code of a missing token; "ws" to use that package.

import * as sigver from "sigver";

const [url, guarded, fragile, codeWithoutToken, needsWs] = globalThis.Deno?.args ?? process.argv.slice(2);
const options = needsWs === "ws" ? { WebSocket: (await import("ws")).WebSocket } : {};
const next = (source, type) => new Promise((resolve) => source.once(type, resolve));
const fail = (message) => {
  throw new Error(message);
};

// Data and sealed data in both directions.
for (const secret of [undefined, "sixteen bytes or more"]) {
  const opener = await sigver.open(url, undefined, { ...options, secret }).ready;
  const joiner = await sigver.join(url, opener.key, { ...options, secret }).ready;
  const [{ peer: toJoiner }, { peer: toOpener }] = await Promise.all([next(opener, "join"), next(joiner, "join")]);
  toJoiner.on("data", ({ data }) => toJoiner.send([data]));
  toOpener.send("hello");
  const { data } = await next(toOpener, "data");
  if (JSON.stringify(data) !== '["hello"]') fail(`received ${JSON.stringify(data)}`);
  joiner.close();
  await next(toJoiner, "away");
  opener.close();
  if ((await next(opener, "closed")).code !== "done") fail("not done");
}

// close() while connecting.
const connecting = sigver.open(url, "tea", options);
connecting.close();
await next(connecting, "closed");
if (connecting.state !== "closed") fail(connecting.state);

// A server that cannot be reached.
const nobody = sigver.open("ws://127.0.0.1:9", "tea", { ...options, retries: 1, backoff: { first: 10 } });
if ((await next(nobody, "closed")).code !== "unreachable") fail("not unreachable");

// A server that requires a token.
await sigver.open(guarded, undefined, { ...options, token: () => "a-token-of-more-than-sixteen-bytes" }).ready;
const stranger = sigver.open(guarded, "coffee", { ...options, retries: 0 });
const { code, status } = await next(stranger, "closed");
if (code !== codeWithoutToken || (code === "rejected" && status !== 401)) fail(`${code} ${status}`);

// A server that is killed and comes back.
const opener = await sigver.open(fragile, "phoenix", options).ready;
const joiner = await sigver.join(fragile, "phoenix", options).ready;
const [{ peer: toJoiner }, { peer: toOpener }] = await Promise.all([next(opener, "join"), next(joiner, "join")]);
let joins = 0;
for (const side of [opener, joiner]) side.on("join", () => (joins += 1));
const back = Promise.all([next(toJoiner, "back"), next(toOpener, "back")]);
console.log("ready");
await back;
toOpener.send("again");
if ((await next(toJoiner, "data")).data !== "again" || joins !== 0) fail(`${joins} more joins`);
opener.close();
joiner.close();
await Promise.all([next(opener, "closed"), next(joiner, "closed")]);
console.log("done");
if (globalThis.Deno) Deno.exit(0);
else process.exit(0);
