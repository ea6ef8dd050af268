"""Centrifugo's official SDKs behind one face: Node's `centrifuge` and Python's `centrifuge-python`.

What a channel's data is depends on the format: JSON clients have values, Protobuf clients bytes.
"""

import asyncio
import base64
import queue
import signal
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import centrifuge

from drivers import STEP_S_MAX, Node

Position = tuple[str, int]

CONNECTION = ""
"""Under which the events of the connection itself are, beside those of the channels."""

RECONNECT_S = (0.01, 0.1)


class Refused(Exception):
    """The server's error code."""

    @property
    def code(self) -> int:
        return self.args[0]


class Sdk(ABC):
    protobuf: bool

    @abstractmethod
    def subscribe(self, channel: str, recoverable: bool = True) -> None:
        """Asks for it; what comes of it is an event."""

    @abstractmethod
    def unsubscribe(self, channel: str) -> None: ...

    @abstractmethod
    def publish(self, channel: str, data: Any) -> None:
        """`Refused` if the server does not want it."""

    @abstractmethod
    def history(
        self, channel: str, limit: int = -1, since: Position | None = None, reverse: bool = False
    ) -> tuple[list[dict], Position]:
        """Publications, and the position of the head."""

    @abstractmethod
    def disconnect(self) -> None: ...

    @abstractmethod
    def reconnect(self) -> None: ...

    @abstractmethod
    def stop_reading(self) -> None: ...

    @abstractmethod
    def read_on(self) -> None: ...

    @abstractmethod
    def end(self) -> None: ...

    @abstractmethod
    def _next(self, channel: str) -> dict: ...

    def event(self, channel: str, *kinds: str) -> dict:
        """The next event, which must be of these kinds."""
        event = self._next(channel)
        assert event["kind"] in kinds, f"{channel or 'connection'}: {kinds} expected, not {event}"
        return event

    def subscribed(self, channel: str, recoverable: bool = True) -> dict:
        self.subscribe(channel, recoverable)
        self.event(channel, "subscribing")
        return self.event(channel, "subscribed")

    def resubscribed(self, channel: str) -> dict:
        """Passes over the ends of a subscription, and what was still under way before them."""
        while (event := self._next(channel))["kind"] != "subscribed":
            assert event["kind"] in ("subscribing", "publication", "error"), event
        return event

    def publications(self, channel: str, count: int) -> list[dict]:
        """Whatever happened to the connection between them."""
        found: list[dict] = []
        while len(found) < count:
            event = self.event(channel, "publication", "subscribing", "subscribed", "error")
            if event["kind"] == "publication":
                found.append(event)
        return found


class NodeCentrifuge(Sdk):
    def __init__(self, address: str, protobuf: bool, node_env: Path, transport: str | None = None):
        """By WebSocket, unless another transport is named."""
        self.protobuf = protobuf
        self.node = Node("node_centrifuge.mjs", node_env)
        self.node.do("connect", address=address, transport=transport, protobuf=protobuf)

    def _do(self, op: str, **arguments) -> dict:
        answer = self.node.do(op, **arguments)
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer

    def _decoded(self, event: dict) -> dict:
        if self.protobuf and "data" in event:
            event["data"] = base64.b64decode(event["data"])
        return event

    def subscribe(self, channel, recoverable=True):
        self._do("subscribe", channel=channel, recoverable=recoverable)

    def unsubscribe(self, channel):
        self._do("unsubscribe", channel=channel)

    def publish(self, channel, data):
        coded = base64.b64encode(data).decode() if self.protobuf else data
        self._do("publish", channel=channel, data=coded)

    def history(self, channel, limit=-1, since=None, reverse=False):
        answer = self._do("history", channel=channel, limit=limit, since=since, reverse=reverse)
        epoch, offset = answer["position"]
        return [self._decoded(each) for each in answer["publications"]], (epoch, offset)

    def disconnect(self):
        self._do("disconnect")

    def reconnect(self):
        self._do("reconnect")

    def stop_reading(self):
        self.node.process.send_signal(signal.SIGSTOP)

    def read_on(self):
        self.node.process.send_signal(signal.SIGCONT)

    def end(self):
        self.node.end()

    def _next(self, channel):
        return self._decoded(self._do("next", channel=channel))


class PythonCentrifuge(Sdk):
    """On an event loop of its own, which runs all the time, as in an application."""

    def __init__(self, address: str, protobuf: bool, token: str = ""):
        self.protobuf = protobuf
        self.events: dict[str, queue.Queue] = {}
        self.lock = threading.Lock()
        self.may_read = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        minimum, maximum = RECONNECT_S

        async def connect():
            self.client = centrifuge.Client(
                f"ws://{address}/connection/websocket",
                events=_connection_events(self),
                token=token,
                use_protobuf=protobuf,
                min_reconnect_delay=minimum,
                max_reconnect_delay=maximum,
                proxy=None,
            )
            await self.client.connect()

        self._await(connect())

    def _await(self, coroutine):
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(STEP_S_MAX)
        except centrifuge.ReplyError as error:
            raise Refused(error.code) from error

    def _queue(self, channel: str) -> queue.Queue:
        with self.lock:
            return self.events.setdefault(channel, queue.Queue())

    def _next(self, channel):
        try:
            return self._queue(channel).get(timeout=STEP_S_MAX)
        except queue.Empty:
            raise AssertionError(f"nothing within {STEP_S_MAX} s: {channel}") from None

    def say(self, channel: str, kind: str, **what) -> None:
        self._queue(channel).put({"kind": kind, **what})

    def subscribe(self, channel, recoverable=True):
        async def subscribe():
            minimum, maximum = RECONNECT_S
            subscription = self.client.get_subscription(channel) or self.client.new_subscription(
                channel,
                events=_subscription_events(self, channel),
                recoverable=recoverable,
                min_resubscribe_delay=minimum,
                max_resubscribe_delay=maximum,
            )
            await subscription.subscribe()

        self._await(subscribe())

    def unsubscribe(self, channel):
        self._await(self.client.get_subscription(channel).unsubscribe())

    def publish(self, channel, data):
        self._await(self.client.publish(channel, data))

    def history(self, channel, limit=-1, since=None, reverse=False):
        position = since and centrifuge.StreamPosition(epoch=since[0], offset=since[1])
        result = self._await(self.client.history(channel, limit, position, reverse))
        publications = [_publication(each, self.protobuf) for each in result.publications]
        return publications, (result.epoch, result.offset)

    def rpc(self, method, data):
        return self._await(self.client.rpc(method, data)).data

    def disconnect(self):
        self._await(self.client.disconnect())

    def reconnect(self):
        self._await(self.client.connect())

    def stop_reading(self):
        self.may_read.clear()
        self.loop.call_soon_threadsafe(self.may_read.wait, STEP_S_MAX)

    def read_on(self):
        self.may_read.set()

    def end(self):
        self.may_read.set()

        async def end():
            await self.client.disconnect()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        self._await(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(STEP_S_MAX)
        self.loop.close()


def _publication(publication, protobuf: bool) -> dict:
    # To this SDK empty bytes are none: Protobuf does not write them.
    data = b"" if protobuf and publication.data is None else publication.data
    return {
        "kind": "publication",
        "data": data,
        "offset": publication.offset,
        "client": publication.info.client if publication.info else None,
    }


def _connection_events(sdk: PythonCentrifuge) -> centrifuge.ClientEventHandler:
    class Events(centrifuge.ClientEventHandler):
        async def on_connecting(self, ctx):
            sdk.say(CONNECTION, "connecting", code=ctx.code, reason=ctx.reason)

        async def on_connected(self, ctx):
            sdk.say(CONNECTION, "connected", client=ctx.client)

        async def on_disconnected(self, ctx):
            sdk.say(CONNECTION, "disconnected", code=ctx.code, reason=ctx.reason)

        # Of channels that the server subscribed it to.

        async def on_subscribed(self, ctx):
            at = ctx.stream_position
            sdk.say(
                ctx.channel,
                "subscribed",
                recoverable=ctx.recoverable,
                positioned=ctx.positioned,
                position=[at.epoch, at.offset] if at else None,
                data=ctx.data,
            )

        async def on_unsubscribed(self, ctx):
            sdk.say(ctx.channel, "unsubscribed")

        async def on_publication(self, ctx):
            sdk.say(ctx.channel, **_publication(ctx.pub, sdk.protobuf))

    return Events()


def _subscription_events(
    sdk: PythonCentrifuge, channel: str
) -> centrifuge.SubscriptionEventHandler:
    class Events(centrifuge.SubscriptionEventHandler):
        async def on_subscribing(self, ctx):
            sdk.say(channel, "subscribing", code=ctx.code, reason=ctx.reason)

        async def on_subscribed(self, ctx):
            at = ctx.stream_position
            sdk.say(
                channel,
                "subscribed",
                recoverable=ctx.recoverable,
                positioned=ctx.positioned,
                was_recovering=ctx.was_recovering,
                recovered=ctx.recovered,
                position=[at.epoch, at.offset] if at else None,
            )

        async def on_unsubscribed(self, ctx):
            sdk.say(channel, "unsubscribed", code=ctx.code, reason=ctx.reason)

        async def on_publication(self, ctx):
            sdk.say(channel, **_publication(ctx.pub, sdk.protobuf))

        async def on_error(self, ctx):
            sdk.say(channel, "error", code=ctx.code, reason=str(ctx.error))

    return Events()
