"""Real HTTP clients behind one face, and two real clients of event streams.

As in `drivers`, every method blocks for at most `STEP_S_MAX`.
"""

import base64
import http.client
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import httpx_sse

from drivers import STEP_S_MAX, Disconnected, Node

Body = str | bytes


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """With lower-case names."""
    body: bytes

    @property
    def cursor(self) -> str:
        return self.headers["throng-cursor"]

    @property
    def json(self):
        return json.loads(self.body)


class HttpClient(ABC):
    """Keeps its connections alive, as its library does by default, for as long as it lives."""

    @abstractmethod
    def request(
        self,
        method: str,
        url: str,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        chunk_bytes: int | None = None,
    ) -> Answer:
        """With `chunk_bytes` the body is a stream, which leaves in chunks of that size at most."""

    def publish(self, url: str, body: Body, chunk_bytes: int | None = None, **headers: str) -> str:
        """The message's cursor. Header names are written with underscores."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.request("POST", url, body, fields, chunk_bytes)
        assert answer.status == 200, answer
        assert answer.json == {"id": answer.cursor}
        return answer.cursor

    @abstractmethod
    def end(self) -> None: ...


def pieces(data: Body, size: int):
    data = data.encode() if isinstance(data, str) else data
    for at in range(0, len(data), size):
        yield data[at : at + size]


class Httpx(HttpClient):
    def __init__(self):
        self.client = httpx.Client(timeout=STEP_S_MAX, trust_env=False)

    def request(self, method, url, body=None, headers=None, chunk_bytes=None):
        content = pieces(body, chunk_bytes) if chunk_bytes else body
        response = self.client.request(method, url, content=content, headers=headers)
        fields = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, fields, response.content)

    def end(self):
        self.client.close()


class StandardLibrary(HttpClient):
    """Python's `http.client`: one connection to each server."""

    def __init__(self):
        self.connections = {}

    def request(self, method, url, body=None, headers=None, chunk_bytes=None):
        _, address, path, query, _ = urlsplit(url)
        connection = self.connections.get(address)
        if connection is None:
            connection = http.client.HTTPConnection(address, timeout=STEP_S_MAX)
            self.connections[address] = connection
        fields = dict(headers or {})
        if chunk_bytes:
            body, fields = pieces(body, chunk_bytes), {**fields, "Transfer-Encoding": "chunked"}
        elif isinstance(body, str):
            body = body.encode()
        target = f"{path}?{query}" if query else path
        connection.request(method, target, body, fields, encode_chunked=chunk_bytes is not None)
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())

    def end(self):
        for connection in self.connections.values():
            connection.close()


class NodeFetch(HttpClient):
    def __init__(self, node_env: Path):
        self.node = Node("node_http.mjs", node_env)

    def request(self, method, url, body=None, headers=None, chunk_bytes=None):
        data = {}
        if body is not None:
            plain = body.encode() if isinstance(body, str) else body
            data["base64"] = base64.b64encode(plain).decode()
            data["text"] = isinstance(body, str)
        if chunk_bytes:
            data["chunk_bytes"] = chunk_bytes
        answer = self.node.do(
            "request", method=method, url=url, headers=dict(headers or {}), **data
        )
        return Answer(answer["status"], answer["headers"], base64.b64decode(answer["base64"]))

    def end(self):
        self.node.end()


@dataclass(frozen=True)
class Event:
    type: str
    data: str
    id: str


class HttpxSse:
    """`httpx-sse`, which leaves it to its user to come back with the last event's id."""

    def __init__(self, url: str, last_id: str | None = None):
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        self.client = httpx.Client(timeout=STEP_S_MAX, trust_env=False)
        self.context = httpx_sse.connect_sse(self.client, "GET", url, headers=headers)
        try:
            source = self.context.__enter__()
            self.response = source.response
            self.events = source.iter_sse()
            first = next(self.events)
        except (httpx.TransportError, StopIteration) as error:
            self.client.close()
            raise Disconnected from error
        assert first.retry is not None and first.data == "", first
        self.retry_ms = first.retry
        self.cursor = first.id
        """The position that the stream starts from."""

    def receive(self) -> Event:
        try:
            event = next(self.events)
        except (httpx.TransportError, StopIteration) as error:
            raise Disconnected from error
        return Event(event.event, event.data, event.id)

    def end(self):
        self.client.close()


class NodeEventSource:
    """The `eventsource` package, which comes back by itself.

    It takes no id from a block without data, as HTML says it should: until its first event it has
    none to come back with.
    """

    def __init__(self, url: str, node_env: Path):
        self.node = Node("node_http.mjs", node_env)
        self.node.do("listen", url=url)

    def receive(self) -> Event:
        return Event(**self.node.do("event"))

    def end(self):
        self.node.end()
