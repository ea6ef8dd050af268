// An echo server on Node's `ws`, for test_connect.py: prints its port, and ends with its standard input.
//
//   node node_server.mjs PACKAGES
//
// /echo      each message goes back as it came; pings are answered by `ws`
// /close     closes with 4321 after the first message
// /refuse    a 401 without a problem document
import { createRequire } from 'node:module';
import { createServer } from 'node:http';

const require = createRequire(`${process.argv[2]}/node_modules/`);
const { WebSocketServer } = require('ws');

const http = createServer((_, response) => response.writeHead(426).end('this is for WebSockets'));
const server = new WebSocketServer({ noServer: true, perMessageDeflate: { threshold: 0 } });

http.on('upgrade', (request, socket, head) => {
  if (request.url === '/refuse') {
    socket.end('HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 9\r\n\r\nwho there');
    return;
  }
  server.handleUpgrade(request, socket, head, (client) => {
    client.ping('from node');
    client.on('message', (data, isBinary) => {
      if (request.url === '/close') client.close(4321, 'that is all');
      else client.send(data, { binary: isBinary });
    });
  });
});

http.listen(0, '127.0.0.1', () => console.log(http.address().port));
process.stdin.resume().on('end', () => process.exit(0));
