"""Three real WebSocket clients behind one face, so that each scenario is written once.

Every method blocks, for at most `STEP_S_MAX`. The libraries do their own framing, masking, pongs
and closing handshake: nothing here knows the wire.
"""

import asyncio
import base64
import json
import os
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path

import websocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

Message = str | bytes
CloseStatus = tuple[int, str]

STEP_S_MAX = 15
MESSAGE_BYTES_MAX = 16 << 20


NO_CLOSE: CloseStatus = (1006, "")


class Disconnected(Exception):
    """There is no message, and none will come: the connection is over."""

    def __init__(self, status: CloseStatus = NO_CLOSE):
        super().__init__(status)
        self.status = status


class Client(ABC):
    cursor: str | None
    """The `Throng-Cursor` of the handshake."""

    @abstractmethod
    def send(self, *fragments: Message) -> None:
        """One message, a frame for each fragment; all `str` or all `bytes`."""

    @abstractmethod
    def receive(self) -> Message:
        """The next message; `Disconnected` once there is none and the connection is over."""

    @abstractmethod
    def ping(self, payload: bytes) -> None:
        """Returns when the pong with this payload is there."""

    @abstractmethod
    def idle(self, seconds: float) -> None:
        """Says nothing of its own, but lets the library answer pings."""

    @abstractmethod
    def stop_reading(self) -> None:
        """Until `read_on` nothing is taken from the socket but what the library buffers."""

    @abstractmethod
    def read_on(self) -> None: ...

    @abstractmethod
    def close(self, code: int, reason: str) -> CloseStatus:
        """Starts the closing handshake; what the server answered."""

    @abstractmethod
    def closed(self) -> CloseStatus:
        """Waits for the server to close."""

    @abstractmethod
    def abandon(self) -> None:
        """Frees what the client holds, without ceremony."""


class Websockets(Client):
    """Python `websockets`, on an event loop that runs all the time, as in an application."""

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def __init__(self, url: str):
        self.socket = self._await(self._connect(url))
        self.cursor = self.socket.response.headers.get("Throng-Cursor")

    async def _connect(self, url: str):
        return await connect(url, max_size=MESSAGE_BYTES_MAX, ping_interval=None, proxy=None)

    def _await(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(STEP_S_MAX)

    def send(self, *fragments):
        self._await(self.socket.send(fragments[0] if len(fragments) == 1 else fragments))

    def receive(self):
        try:
            return self._await(self.socket.recv())
        except ConnectionClosed as error:
            close = error.rcvd
            raise Disconnected((close.code, close.reason) if close else NO_CLOSE) from error

    def ping(self, payload):
        async def pong():
            await (await self.socket.ping(payload))

        self._await(pong())

    def idle(self, seconds):
        time.sleep(seconds)

    def stop_reading(self):
        pass  # the library stops by itself with 16 messages that nobody asks for

    def read_on(self):
        pass

    def close(self, code, reason):
        self._await(self.socket.close(code, reason))
        return self._received()

    def closed(self):
        try:
            raise AssertionError(f"a message instead of a close: {self.receive()!r:.100}")
        except Disconnected:
            return self._received()

    def _received(self):
        close = self.socket.protocol.close_rcvd
        assert close is not None, "the connection ended without a close frame"
        return int(close.code), close.reason

    def abandon(self):
        async def abort():
            self.socket.transport.abort()
            await self.socket.wait_closed()

        self._await(abort())


class WebsocketClient(Client):
    """Python `websocket-client`: blocking, so that it answers pings only while it reads."""

    OPCODES = {str: websocket.ABNF.OPCODE_TEXT, bytes: websocket.ABNF.OPCODE_BINARY}

    def __init__(self, url: str):
        self.socket = websocket.create_connection(url, timeout=STEP_S_MAX)
        self.cursor = self.socket.headers.get("throng-cursor")

    def send(self, *fragments):
        for index, fragment in enumerate(fragments):
            opcode = websocket.ABNF.OPCODE_CONT if index else self.OPCODES[type(fragment)]
            fin = int(index == len(fragments) - 1)
            fragment = fragment.encode() if isinstance(fragment, str) else fragment
            self.socket.send_frame(websocket.ABNF.create_frame(fragment, opcode, fin))

    def receive(self):
        try:
            opcode, data = self.socket.recv_data()
        except (websocket.WebSocketConnectionClosedException, ConnectionError) as error:
            raise Disconnected from error
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise Disconnected((int.from_bytes(data[:2], "big"), data[2:].decode()))
        return data.decode() if opcode == websocket.ABNF.OPCODE_TEXT else data

    def ping(self, payload):
        self.socket.ping(payload)
        opcode, frame = self.socket.recv_data_frame(control_frame=True)
        assert (opcode, frame.data) == (websocket.ABNF.OPCODE_PONG, payload)

    def idle(self, seconds):
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                opcode, _ = self.socket.recv_data_frame(control_frame=True)
                assert opcode == websocket.ABNF.OPCODE_PING
            except websocket.WebSocketTimeoutException:
                pass
        self.socket.settimeout(STEP_S_MAX)

    def stop_reading(self):
        pass  # it reads only in `receive`

    def read_on(self):
        pass

    def close(self, code, reason):
        self.socket.send_close(code, reason.encode())
        return self._status(self.socket.recv_frame())  # which sends no second close

    def closed(self):
        _, frame = self.socket.recv_data_frame()
        return self._status(frame)

    def _status(self, frame):
        assert frame.opcode == websocket.ABNF.OPCODE_CLOSE, f"a message instead of a close: {frame}"
        try:
            raise AssertionError(f"bytes after the close: {self.socket.recv()!r:.100}")
        except websocket.WebSocketConnectionClosedException:
            return int.from_bytes(frame.data[:2], "big"), frame.data[2:].decode()

    def abandon(self):
        self.socket.shutdown()


class Node:
    """A script of ours under Node, which takes JSON lines and answers each with one."""

    def __init__(self, script: str, node_env: Path):
        self.process = subprocess.Popen(
            ["node", Path(__file__).with_name(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"THRONG_NODE_ENV": str(node_env)},
        )

    def do(self, op: str, **arguments) -> dict:
        # Node keeps the time: it answers within STEP_S_MAX, with an error if need be.
        command = {"op": op, "timeout_ms": STEP_S_MAX * 1000, **arguments}
        print(json.dumps(command), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline() or '{"error": "node ended"}')
        assert "error" not in answer, f"{op}: {answer['error']}"
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


class NodeWs(Client):
    """Node `ws`, which reads all the time."""

    def __init__(self, url: str, node_env: Path):
        self.node = Node("node_ws.mjs", node_env)
        self._do = self.node.do
        self.cursor = self._do("connect", url=url).get("cursor")

    @staticmethod
    def _encode(message: Message) -> dict:
        data = message.encode() if isinstance(message, str) else message
        return {"text": isinstance(message, str), "base64": base64.b64encode(data).decode()}

    def send(self, *fragments):
        self._do("send", fragments=[self._encode(fragment) for fragment in fragments])

    def receive(self):
        answer = self._do("receive")
        if "over" in answer:
            raise Disconnected(tuple(answer["over"]))
        data = base64.b64decode(answer["base64"])
        return data.decode() if answer["text"] else data

    def ping(self, payload):
        pong = self._do("ping", **self._encode(payload))
        assert base64.b64decode(pong["base64"]) == payload

    def idle(self, seconds):
        time.sleep(seconds)

    def stop_reading(self):
        self._do("pause")

    def read_on(self):
        self._do("resume")

    def close(self, code, reason):
        self._do("close", code=code, reason=reason)
        return self.closed()

    def closed(self):
        answer = self._do("closed")
        return answer["code"], answer["reason"]

    def abandon(self):
        self.node.end()
