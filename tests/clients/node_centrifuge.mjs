// Node's `centrifuge` as a test client; the official SDK of Centrifugo.

import { Queue, packages, run } from './node_driver.mjs';

let client, encode, decode;

// By channel; what happens to the connection is under ''.
const events = new Map();
const queue = (channel) => events.get(channel) ?? events.set(channel, new Queue()).get(channel);

// What the server refuses is an answer; that the SDK itself fails is an error.
const answer = (promise, result = () => ({})) =>
  promise.then(result, (error) => {
    if (error.code === undefined) throw error;
    return { refused: error.code };
  });

const publication = ({ data, offset, info }) => ({
  kind: 'publication',
  data: decode(data),
  offset: offset ?? 0,
  client: info?.client ?? null,
});

function watch(emitter, channel, kinds) {
  for (const kind of kinds) {
    emitter.on(kind, ({ code, reason, client }) =>
      queue(channel).push({ kind, code, reason, client }),
    );
  }
}

await run({
  // Without a transport `address` is taken by WebSocket.
  connect({ address, transport, protobuf }) {
    const { Centrifuge } = packages(protobuf ? 'centrifuge/build/protobuf' : 'centrifuge');
    encode = protobuf ? (data) => Buffer.from(data, 'base64') : (data) => data;
    decode = protobuf ? (data) => Buffer.from(data).toString('base64') : (data) => data;
    const endpoint = transport
      ? [{ transport, endpoint: `http://${address}/connection/${transport}` }]
      : `ws://${address}/connection/websocket`;
    client = new Centrifuge(endpoint, {
      websocket: packages('ws'), // Node 18 has none of its own
      eventsource: packages('eventsource').EventSource,
      fetch,
      readableStream: ReadableStream,
      emulationEndpoint: `http://${address}/emulation`,
      minReconnectDelay: 10,
      maxReconnectDelay: 100,
    });
    watch(client, '', ['connecting', 'connected', 'disconnected']);
    client.connect();
    return {};
  },
  subscribe({ channel, ...options }) {
    const known = client.getSubscription(channel);
    const subscription =
      known ??
      client.newSubscription(channel, {
        minResubscribeDelay: 10,
        maxResubscribeDelay: 100,
        ...options,
      });
    if (!known) {
      watch(subscription, channel, ['subscribing', 'unsubscribed']);
      subscription.on('error', ({ error }) =>
        queue(channel).push({ kind: 'error', code: error.code, reason: error.message }),
      );
      subscription.on('subscribed', (context) => {
        const { recoverable, positioned, wasRecovering, recovered, streamPosition } = context;
        const { epoch, offset } = streamPosition ?? {};
        queue(channel).push({
          kind: 'subscribed',
          recoverable,
          positioned,
          was_recovering: wasRecovering,
          recovered,
          position: streamPosition ? [epoch, offset] : null,
        });
      });
      subscription.on('publication', (context) => queue(channel).push(publication(context)));
    }
    subscription.subscribe();
    return {};
  },
  unsubscribe({ channel }) {
    client.getSubscription(channel).unsubscribe();
    return {};
  },
  next: ({ channel }) => queue(channel).next(),
  publish: ({ channel, data }) => answer(client.publish(channel, encode(data))),
  history: ({ channel, since, ...options }) => {
    if (since) options.since = { epoch: since[0], offset: since[1] };
    return answer(client.history(channel, options), ({ publications, epoch, offset }) => ({
      publications: publications.map(publication),
      position: [epoch, offset],
    }));
  },
  disconnect() {
    client.disconnect();
    return {};
  },
  reconnect() {
    client.connect();
    return {};
  },
});
