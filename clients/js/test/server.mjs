// The server that the tests talk to: SIGVER_BIN, or target/release/sigver-server; without it they fail.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const SIGVER_BIN = process.env.SIGVER_BIN ?? fileURLToPath(new URL("../../../target/release/sigver-server", import.meta.url));

/** On a free port, or on that of a server that has ended. */
export async function startServer(port = 0, flags = []) {
  assert(existsSync(SIGVER_BIN), `no server at ${SIGVER_BIN}: cargo build --release -p sigver-server, or set SIGVER_BIN`);
  const child = spawn(SIGVER_BIN, ["--listen", `127.0.0.1:${port}`, "--demo", ...flags], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { RUST_LOG: "error", ...process.env, SIGVER_BIN: undefined },
  });
  const killed = () => child.kill("SIGKILL");
  process.once("exit", killed);
  const address = await announcedAddress(child);
  const stop = async (signal) => {
    process.off("exit", killed);
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill(signal);
    await exited;
  };
  return { demo: `http://${address}/`, url: `ws://${address}`, port: Number(address.split(":")[1]), stop };
}

function announcedAddress(child) {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`the server ended with code ${code} before it listened`)));
    createInterface({ input: child.stdout }).on("line", (line) => {
      const announced = /^sigver-server listening on (127\.0\.0\.1:\d+)$/.exec(line);
      if (announced) resolve(announced[1]);
    });
  });
}

export async function freePort() {
  const listener = createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  listener.close();
  await once(listener, "close");
  return port;
}
