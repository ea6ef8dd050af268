// A small server on Node's `ws`: echoes what it does not understand, keeps topics in memory, and publishes
// what comes by WebSocket or POST. It can be told to misbehave, so that the load generator's audit is audited too.
//
//   node peer.mjs [--lose N] [--double N] [--swap N] [--gap N]     every Nth delivery; prints its port
//                 [--late MS]                                      all of them, by so much
//
// {"subscribe": topic}             from a subscriber
// {"publish": topic, "data": any}  from a publisher
// POST /publish/topic              the same

import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { join } from 'node:path';

// `import` knows no search path, and the package lives outside the source tree.
const { WebSocketServer } = createRequire(join(process.env.THRONG_NODE_ENV, '/'))('ws');

const option = (name) => Number(process.argv[process.argv.indexOf(`--${name}`) + 1] || 0) * process.argv.includes(`--${name}`);
const every = { lose: option('lose'), double: option('double'), swap: option('swap'), gap: option('gap') };
const due = (kind, count) => every[kind] > 0 && count % every[kind] === 0;

const topics = new Map();
const subscribers = (topic) => topics.get(topic) ?? topics.set(topic, new Set()).get(topic);

function deliver(socket, message) {
  const count = (socket.count = (socket.count ?? 0) + 1);
  if (due('lose', count)) return;
  if (due('gap', count)) {
    socket.send('{"gap":{}}');
    return;
  }
  if (due('swap', count)) {
    socket.held = message;
    return;
  }
  socket.send(message);
  if (due('double', count)) socket.send(message);
  if (socket.held) {
    socket.send(socket.held);
    socket.held = undefined;
  }
}

const late = option('late');
const publish = (topic, data) => {
  const toAll = () => subscribers(topic).forEach((socket) => deliver(socket, JSON.stringify({ topic, data })));
  if (late) setTimeout(toAll, late);
  else toAll();
};

function understand(socket, text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    return false;
  }
  if (message?.subscribe) subscribers(message.subscribe).add(socket);
  else if (message?.publish) publish(message.publish, message.data);
  else return false;
  return true;
}

const http = createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    publish(request.url.split('/')[2], Buffer.concat(parts).toString());
    response.end('{}');
  });
});

// A backlog for whoever opens hundreds at a time; as many connections as there are descriptors.
const server = new WebSocketServer({ server: http, clientTracking: false, perMessageDeflate: false });
server.on('connection', (socket) => {
  socket.on('message', (data, binary) => {
    if (binary || !understand(socket, data.toString())) socket.send(data, { binary });
  });
  socket.on('close', () => topics.forEach((set) => set.delete(socket)));
  socket.on('error', () => socket.terminate());
});
http.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => console.log(http.address().port));
setTimeout(() => process.exit(0), 300_000).unref();
