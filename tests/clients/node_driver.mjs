// What the Node clients share: one JSON command a line on stdin, one JSON answer a line on stdout.
// What a client hears is queued by kind, so that an answer never depends on when it was asked for.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

// `import` knows no search path, and the packages live outside the source tree.
export const packages = createRequire(join(process.env.THRONG_NODE_ENV, '/'));

export class Queue {
  #items = [];
  #waiting = [];

  push(item) {
    const waiting = this.#waiting.shift();
    if (waiting) waiting(item);
    else this.#items.push(item);
  }

  next() {
    if (this.#items.length > 0) return this.#items.shift();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

const timeout = (ms) =>
  new Promise((resolve) => setTimeout(resolve, ms, { error: `nothing within ${ms} ms` }).unref());

// Does what stdin says, until it ends.
export async function run(commands) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { op, timeout_ms, ...parameters } = JSON.parse(line);
    const failed = (error) => ({ error: `${error.message}: ${error.cause?.message ?? 'no cause'}` });
    const done = (async () => commands[op](parameters))().catch(failed);
    console.log(JSON.stringify(await Promise.race([done, timeout(timeout_ms)])));
  }
}
