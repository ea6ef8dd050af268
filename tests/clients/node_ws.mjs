// Node's `ws` as a test client.

import { Queue, packages, run } from './node_driver.mjs';

const WebSocket = packages('ws');

const encoded = (data) => ({ base64: Buffer.from(data).toString('base64') });

const [opened, messages, pongs, closes] = [new Queue(), new Queue(), new Queue(), new Queue()];
let socket, cursor;

await run({
  connect({ url }) {
    socket = new WebSocket(url);
    socket.on('upgrade', ({ headers }) => (cursor = headers['throng-cursor']));
    socket.on('open', () => opened.push({ cursor }));
    socket.on('message', (data, binary) => messages.push({ text: !binary, ...encoded(data) }));
    socket.on('pong', (data) => pongs.push(encoded(data)));
    socket.on('close', (code, reason) => {
      closes.push({ code, reason: reason.toString() });
      messages.push({ over: [code, reason.toString()] });
    });
    socket.on('error', (error) => opened.push({ error: error.message })); // then comes the close
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
  pause() {
    socket.pause();
    return {};
  },
  resume() {
    socket.resume();
    return {};
  },
  ping({ base64 }) {
    socket.ping(Buffer.from(base64, 'base64'));
    return pongs.next();
  },
  close({ code, reason }) {
    socket.close(code, reason);
    return {};
  },
  closed: () => closes.next(),
});
socket?.terminate();
