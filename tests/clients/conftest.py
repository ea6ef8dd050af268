"""Starts `throng serve` on a free port for a test, and always ends it; clients of each kind.

THRONG_BIN        the binary (default: target/release/throng)
THRONG_NODE_ENV   the folder whose node_modules has the packages (default: target/test-env/node)
THRONG_CHROMIUM   the browser (default: chromium)
"""

import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

import drivers
import http_drivers
import prometheus
from proxy import Proxy

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).parents[2] / "target")).resolve()
THRONG = Path(os.environ.get("THRONG_BIN", TARGET / "release" / "throng"))
NODE_ENV = Path(os.environ.get("THRONG_NODE_ENV", TARGET / "test-env" / "node"))

START_S_MAX = 10
# Beyond what any test lets the server take: a server that needs longer hangs.
EXIT_S_MAX = 10


def pytest_configure(config):
    config.addinivalue_line("markers", "node: needs Node and its packages")
    config.addinivalue_line("markers", "browser: needs Chromium")
    if not THRONG.exists():
        pytest.exit(f"{THRONG} is missing: cargo build --release", returncode=2)


class Throng:
    """A running server. Its log is a file, because an unread pipe would stall it once full."""

    def __init__(self, log_path: Path, *options: str):
        self.log_path = log_path
        with open(log_path, "w") as log:
            self.process = subprocess.Popen([THRONG, "serve", *options], stderr=log)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def addresses(self, count: int) -> list[str]:
        """Where it listens, once it says so: one log line for each address."""
        deadline = time.monotonic() + START_S_MAX
        while len(found := re.findall(r"listening on (\S+:\d+)", self.log)) < count:
            assert self.process.poll() is None, f"the server did not start:\n{self.log}"
            assert time.monotonic() < deadline, f"no `listening on` in time:\n{self.log}"
            time.sleep(0.01)
        return found

    @property
    def address(self) -> str:
        return self.addresses(1)[0]

    @property
    def url(self) -> str:
        return f"ws://{self.address}/"

    def topic(self, name: str, scheme: str = "http") -> str:
        return f"{scheme}://{self.address}/topics/{name}"

    def series(self) -> dict[prometheus.Series, float]:
        with urllib.request.urlopen(
            f"http://{self.address}/metrics", timeout=START_S_MAX
        ) as answer:
            return prometheus.parse(answer.read().decode())

    def metric(self, name: str) -> float:
        return prometheus.total(self.series(), name)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def exit_status(self, timeout_s: float = EXIT_S_MAX) -> int:
        return self.process.wait(timeout_s)


@pytest.fixture
def start(tmp_path):
    """`start("--option", ...)` runs a server; after the test each is ended and its log checked."""
    servers = []

    def start(
        *options: str, listen: tuple[str, ...] = ("127.0.0.1:0",), echo: bool = True
    ) -> Throng:
        listens = [option for address in listen for option in ("--listen", address)]
        log_path = tmp_path / f"throng-{len(servers)}.log"
        # Short, because tests wait for its end; an option may be given only once.
        drain = () if "--drain" in options else ("--drain", "0.2")
        echoes = ("--echo",) if echo else ()
        server = Throng(log_path, *listens, *drain, *echoes, *options)
        servers.append(server)
        server.addresses(len(listen))
        return server

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()
        print(server.log)  # pytest shows it when the test failed
        assert "panicked" not in server.log, server.log


def eventually(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + drivers.STEP_S_MAX
    while not condition():
        assert time.monotonic() < deadline, f"not within {drivers.STEP_S_MAX} s: {what}"
        time.sleep(0.02)


@pytest.fixture
def killed_and_restarted(start):
    """Ends a server as `kill -9` does, and starts another one in its place."""

    def killed_and_restarted(server: Throng, *options: str) -> Throng:
        server.process.kill()
        server.process.wait()
        return start(*options, listen=(server.address,))

    return killed_and_restarted


class Example:
    """A running program of `examples`, which prints its address."""

    def __init__(self, log_path: Path, name: str, *arguments: str | Path):
        with open(log_path, "w") as log:
            self.process = subprocess.Popen(
                [THRONG.parent / "examples" / name, *arguments], stdout=log, stderr=log
            )
        said = lambda: re.search(r"open http://(\S+)/", log_path.read_text())  # noqa: E731
        eventually(f"{name} listens", lambda: said() is not None)
        self.address = said()[1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(START_S_MAX)


@pytest.fixture
def example(tmp_path):
    """`example("chat", "127.0.0.1:0")` runs one."""
    started = []

    def example(name: str, *arguments: str | Path) -> Example:
        started.append(Example(tmp_path / f"{name}-{len(started)}.log", name, *arguments))
        return started[-1]

    yield example
    for each in started:
        if each.process.poll() is None:
            each.end()


@pytest.fixture
def proxy():
    """`proxy(server)` stands between the server and whoever is given its address."""
    proxies = []

    def proxy(server: Throng | Example, bytes_max=None) -> Proxy:
        proxies.append(Proxy(server.address, bytes_max))
        return proxies[-1]

    yield proxy
    for each in proxies:
        each.end()


@pytest.fixture(
    params=[
        "websockets",
        "websocket-client",
        pytest.param("node-ws", marks=pytest.mark.node),
    ]
)
def connect(request):
    """`connect(url)` opens a client of each kind in turn."""
    open_clients = []

    def connect(url: str) -> drivers.Client:
        match request.param:
            case "websockets":
                client = drivers.Websockets(url)
            case "websocket-client":
                client = drivers.WebsocketClient(url)
            case "node-ws":
                client = drivers.NodeWs(url, NODE_ENV)
        open_clients.append(client)
        return client

    yield connect
    for client in open_clients:
        client.abandon()


@pytest.fixture(
    params=[
        "httpx",
        "http.client",
        pytest.param("node-fetch", marks=pytest.mark.node),
    ]
)
def http(request):
    """An HTTP client of each kind in turn."""
    match request.param:
        case "httpx":
            client = http_drivers.Httpx()
        case "http.client":
            client = http_drivers.StandardLibrary()
        case "node-fetch":
            client = http_drivers.NodeFetch(NODE_ENV)
    yield client
    client.end()


@pytest.fixture
def httpx_client():
    client = http_drivers.Httpx()
    yield client
    client.end()


@pytest.fixture
def listen():
    """`listen(url, last_id)` opens an event stream with `httpx-sse`."""
    streams = []

    def listen(url: str, last_id: str | None = None) -> http_drivers.HttpxSse:
        streams.append(http_drivers.HttpxSse(url, last_id))
        return streams[-1]

    yield listen
    for stream in streams:
        stream.end()


@pytest.fixture
def event_source():
    """`event_source(url)` opens Node's EventSource."""
    sources = []

    def event_source(url: str) -> http_drivers.NodeEventSource:
        sources.append(http_drivers.NodeEventSource(url, NODE_ENV))
        return sources[-1]

    yield event_source
    for source in sources:
        source.end()
