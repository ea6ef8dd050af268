// Node's `fetch`, and the `eventsource` package, as test clients.

import { Queue, packages, run } from './node_driver.mjs';

const { EventSource } = packages('eventsource');

const events = new Queue();
let source;

// One at a time, so that each is a chunk of its own.
async function* pieces(bytes, size) {
  for (let at = 0; at < bytes.length; at += size) {
    yield bytes.subarray(at, at + size);
    await new Promise(setImmediate);
  }
}

await run({
  async request({ method, url, headers, base64, text, chunk_bytes }) {
    const bytes = base64 === undefined ? undefined : Buffer.from(base64, 'base64');
    const body = chunk_bytes ? pieces(bytes, chunk_bytes) : text ? bytes.toString() : bytes;
    const response = await fetch(url, { method, headers, body, duplex: 'half' });
    const answer = Buffer.from(await response.arrayBuffer());
    return {
      status: response.status,
      headers: Object.fromEntries(response.headers),
      base64: answer.toString('base64'),
    };
  },
  listen({ url }) {
    source = new EventSource(url);
    const kept = ({ type, data, lastEventId }) => events.push({ type, data, id: lastEventId });
    for (const type of ['message', 'base64', 'gap']) source.addEventListener(type, kept);
    return new Promise((resolve) => source.addEventListener('open', () => resolve({}), { once: true }));
  },
  event: () => events.next(),
});
source?.close();
