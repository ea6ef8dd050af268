// Bun's own server, as its documents have it: its publish/subscribe and heartbeats (both uWebSockets' underneath), no compression.
//
//     bun bun.js PORT HEARTBEAT_SECONDS
const [port, heartbeat] = process.argv.slice(2).map(Number);

// Pings go some time before the idle timeout, as in ../cpp/uws.cpp.
function idleTimeout() {
  for (let timeout = 8; heartbeat && timeout <= 960; timeout++) {
    let margin = 4;
    while (timeout - margin >= margin * 2 && margin < 16) margin *= 2;
    if (timeout - margin === heartbeat) return timeout;
  }
  return 0;
}

const server = Bun.serve({
  hostname: '127.0.0.1',
  port,
  fetch(request, server) {
    const path = new URL(request.url).pathname;
    if (server.upgrade(request, { data: path })) return;
    return new Response('this is for WebSockets', { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    idleTimeout: idleTimeout(),
    sendPings: heartbeat > 0,
    maxPayloadLength: 16 * 1024 * 1024,
    backpressureLimit: 16 * 1024 * 1024,
    open(socket) {
      if (socket.data === '/sub') socket.subscribe('load');
    },
    message(socket, message) {
      if (socket.data === '/echo') socket.send(message);
      else if (socket.data === '/pub') server.publish('load', message);
    },
  },
});
console.log(`listening on 127.0.0.1:${server.port}`);
