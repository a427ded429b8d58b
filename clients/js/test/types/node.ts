// Checked by tsc, not run: uses of sigver.d.ts in a Node.js project, whose types do not have the DOM.

import { WebSocket } from "ws";
import * as sigver from "../../sigver.js";

// @ts-expect-error: the types of this project have no DOM. If this fails, the test proves nothing.
export declare const fromDom: RTCPeerConnection;

const signaling = sigver.open(new URL("ws://localhost:8000"), undefined, { WebSocket, signal: AbortSignal.timeout(1_000) });
signaling.on("join", ({ peer }) => peer.send({ hello: peer.index }));
signaling.on("closed", ({ code }) => console.log(code));
export const key: Promise<string | undefined> = signaling.ready.then(({ key }) => key);

/** A connection of a library for Node.js. */
export function call(pc: sigver.PeerConnection, peer: sigver.Peer): sigver.Negotiation {
  return sigver.negotiate(pc, peer);
}
