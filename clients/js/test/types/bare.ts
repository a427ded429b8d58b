// Checked by tsc, not run: sigver.d.ts needs no type but those of the language.

import * as sigver from "../../sigver.js";

// @ts-expect-error: there is neither the DOM nor Node.js.
export declare const outside: URL;

export const signaling: sigver.Signaling = sigver.join("ws://localhost:8000", "tea");
signaling.on("join", ({ peer }) => peer.send(1));
