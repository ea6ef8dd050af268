// Node's `ws` as a test client: one JSON command a line on stdin, one JSON answer a line on stdout.
// What the socket says is queued by kind, so that an answer never depends on when it was asked for.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

// `import` knows no search path, and the package lives outside the source tree.
const WebSocket = createRequire(join(process.env.THRONG_NODE_ENV, '/'))('ws');

const encoded = (data) => ({ base64: Buffer.from(data).toString('base64') });

class Queue {
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

const [opened, messages, pongs, closes] = [new Queue(), new Queue(), new Queue(), new Queue()];
let socket;

const commands = {
  connect({ url }) {
    socket = new WebSocket(url);
    socket.on('open', () => opened.push({}));
    socket.on('message', (data, binary) => messages.push({ text: !binary, ...encoded(data) }));
    socket.on('pong', (data) => pongs.push(encoded(data)));
    socket.on('close', (code, reason) => closes.push({ code, reason: reason.toString() }));
    socket.on('error', (error) => [opened, messages].forEach((queue) => queue.push({ error: error.message })));
    return opened.next();
  },
  send({ fragments }) {
    fragments.forEach(({ text, base64 }, index) => {
      const fin = index === fragments.length - 1;
      socket.send(Buffer.from(base64, 'base64'), { binary: !text, fin });
    });
    return {};
  },
  receive: () => messages.next(),
  ping({ base64 }) {
    socket.ping(Buffer.from(base64, 'base64'));
    return pongs.next();
  },
  close({ code, reason }) {
    socket.close(code, reason);
    return {};
  },
  closed: () => closes.next(),
};

const timeout = (ms) =>
  new Promise((resolve) => setTimeout(resolve, ms, { error: `nothing within ${ms} ms` }).unref());

for await (const line of createInterface({ input: process.stdin })) {
  const { op, timeout_ms, ...parameters } = JSON.parse(line);
  const answer = await Promise.race([commands[op](parameters), timeout(timeout_ms)]);
  console.log(JSON.stringify(answer));
}
socket?.terminate();
