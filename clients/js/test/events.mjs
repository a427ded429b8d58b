// Records the events of signaling objects and peers, so that a test can wait for them.

/** Events that the test has not consumed, by source and type. @type {WeakMap<object, Map<string, { events: any[], wake: () => void }>>} */
const inboxes = new WeakMap();

function inbox(source, type) {
  const ofSource = inboxes.get(source) ?? new Map();
  inboxes.set(source, ofSource);
  if (!ofSource.has(type)) {
    const box = { events: [], wake() {} };
    ofSource.set(type, box);
    source.on(type, (event) => {
      box.events.push(event);
      box.wake();
    });
  }
  return ofSource.get(type);
}

/** Returns the events of a type emitted so far that were not returned before. */
export function received(source, type) {
  return inbox(source, type).events.splice(0);
}

/** Waits for the next event of a type. */
export async function next(source, type) {
  const box = inbox(source, type);
  while (box.events.length === 0) await new Promise((resolve) => (box.wake = resolve));
  return box.events.shift();
}

/** Waits for the newest event of a type while the client is open. Skips attempts that failed again. */
export async function until(source, type) {
  for (;;) {
    const event = await next(source, type);
    if (source.state === "open" && inbox(source, type).events.length === 0) return event;
  }
}
