// Node's `ws`, as its README has it: no compression, `bufferutil` beside it, a loop over clients to broadcast, a sweep of pings.
//
//     node ws.mjs PORT HEARTBEAT_SECONDS      with NODE_PATH at the packages
import { createRequire } from 'node:module';

const { WebSocketServer, WebSocket } = createRequire(`${process.env.NODE_PATH}/`)('ws');
const [port, heartbeat] = process.argv.slice(2).map(Number);
const subscribers = new Set();

const server = new WebSocketServer({ host: '127.0.0.1', port, backlog: 4096, perMessageDeflate: false, clientTracking: false });
server.on('connection', (socket, { url }) => {
  socket.on('error', () => {});
  if (url === '/echo') socket.on('message', (data, binary) => socket.send(data, { binary }));
  else if (url === '/pub') {
    socket.on('message', (data, binary) => {
      for (const each of subscribers) if (each.readyState === WebSocket.OPEN) each.send(data, { binary });
    });
  } else {
    socket.isAlive = true;
    socket.on('pong', heard);
    subscribers.add(socket);
    socket.on('close', () => subscribers.delete(socket));
  }
});
server.on('listening', () => console.log(`listening on 127.0.0.1:${port}`));

function heard() {
  this.isAlive = true;
}

if (heartbeat) {
  setInterval(() => {
    for (const socket of subscribers) {
      if (!socket.isAlive) socket.terminate();
      socket.isAlive = false;
      socket.ping();
    }
  }, heartbeat * 1000);
}
