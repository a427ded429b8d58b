// A WebSocket that the test controls, and a clock that the test turns.

import { mock, test } from "node:test";

/** `FakeSocket.last` is the newest. */
export class FakeSocket {
  static made = 0;
  static last;
  sent = [];
  closedWith = undefined;

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    FakeSocket.made += 1;
    FakeSocket.last = this;
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closedWith = code;
  }

  open(protocol = "sigver.v1") {
    this.protocol = protocol;
    this.onopen();
  }

  receive(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  end(code, reason = "") {
    this.onclose?.({ code, reason });
  }

  /** Fails as Node.js 22 does: without `close`. */
  fail(message) {
    this.onerror({ message });
  }
}

export const RANDOM = 0.75;

/** A test in virtual time, in which every random delay is three quarters of its bound. */
export function virtualTest(name, body) {
  test(name, async () => {
    mock.timers.enable({ apis: ["setTimeout", "Date"] });
    mock.method(Math, "random", () => RANDOM);
    FakeSocket.made = 0;
    FakeSocket.last = undefined;
    try {
      await body();
    } finally {
      mock.timers.reset();
      mock.restoreAll();
    }
  });
}

export function tick(milliseconds) {
  mock.timers.tick(milliseconds);
}

/** Waits until promises and callbacks that are due have run. */
export function settled() {
  return new Promise(setImmediate);
}
