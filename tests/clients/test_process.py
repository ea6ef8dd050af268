"""What the process as a whole promises: signals, heartbeats, plain HTTP, metrics."""

import base64
import contextlib
import json
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

import prometheus
from conftest import Throng

READ_S_MAX = 10
PING, CLOSE = 0x89, 0x88


def get(server: Throng, path: str):
    return urllib.request.urlopen(f"http://{server.address}{path}", timeout=READ_S_MAX)


def upgraded(server: Throng) -> socket.socket:
    """A socket past its handshake that from here on says only what the test says."""
    host, _, port = server.address.rpartition(":")
    raw = socket.create_connection((host, int(port)), READ_S_MAX)
    key = base64.b64encode(bytes(16)).decode()
    raw.sendall(
        f"GET / HTTP/1.1\r\nHost: {server.address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += raw.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return raw


def read_frame(raw: socket.socket) -> tuple[int, bytes]:
    """The next frame, which must be a short one: the first byte (FIN and opcode), the payload."""
    first, length = read_exactly(raw, 2)
    assert length < 126, "a server's control frame is short and unmasked"
    return first, read_exactly(raw, length)


def read_exactly(raw: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = raw.recv(count - len(data))
        assert part, f"the server hung up after {data!r}"
        data += part
    return data


def test_a_silent_client_is_pinged_and_then_closed_with_ping_timeout(start):
    server = start("--ping-interval", "1", "--pong-timeout", "1")
    with upgraded(server) as raw:
        started = time.monotonic()
        assert read_frame(raw)[0] == PING
        # The first comes after a random half to whole interval, so that phases are spread.
        assert 0.4 < time.monotonic() - started < 1.6
        assert read_frame(raw) == (CLOSE, (1011).to_bytes(2, "big") + b"ping timeout")
        assert 1.4 < time.monotonic() - started < 3.2
        with contextlib.suppress(ConnectionResetError):
            assert raw.recv(1) == b""


def test_a_client_that_talks_is_not_pinged(start):
    """Any byte counts as life: a ping is for whoever is silent for the whole interval."""
    server = start("--ping-interval", "1", "--pong-timeout", "1")
    masked_empty_pong = bytes([0x8A, 0x80, 0, 0, 0, 0])  # unsolicited, so it gets no answer
    with upgraded(server) as raw:
        for _ in range(12):
            raw.sendall(masked_empty_pong)
            time.sleep(0.25)
        raw.setblocking(False)
        with pytest.raises(BlockingIOError):
            raw.recv(1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_an_idle_server_at_once_with_status_0(start, number):
    server = start("--drain", "30")
    server.signal(number)
    assert server.exit_status(timeout_s=2) == 0


def test_a_draining_server_does_not_wait_for_a_client_that_ignores_its_close(start):
    server = start("--close-timeout", "0.5")
    with upgraded(server) as raw:
        server.signal()
        assert read_frame(raw)[1][:2] == (1001).to_bytes(2, "big")
        assert server.exit_status(timeout_s=5) == 0


def test_a_second_signal_ends_it_at_once(start):
    server = start("--drain", "30", "--close-timeout", "30")
    with upgraded(server):
        server.signal()
        with pytest.raises(subprocess.TimeoutExpired):
            server.exit_status(timeout_s=0.5)
        server.signal()
        server.exit_status(timeout_s=2)


def test_it_listens_on_every_address_it_is_given(start):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    server = start(listen=("127.0.0.1:0", "127.0.0.2:0", "[::1]:0"))
    for address in server.addresses(3):
        url = f"http://{address}/healthz"
        assert urllib.request.urlopen(url, timeout=READ_S_MAX).status == 200


def test_healthz_says_ok(start):
    with get(start(), "/healthz") as response:
        assert response.status == 200
        assert response.read().strip() == b"ok"


def test_a_browser_at_a_websocket_url_is_told_to_upgrade(start):
    server = start()
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(server, "/chat")
    assert refused.value.code == 426
    assert refused.value.headers["Upgrade"] == "websocket"
    assert refused.value.headers["Sec-WebSocket-Version"] == "13"
    assert refused.value.headers["Content-Type"].startswith("application/problem+json")
    problem = json.load(refused.value)
    assert {"type", "title", "status", "detail", "code"} <= problem.keys()
    assert problem["status"] == 426
    assert "refused" in server.log


def scrape(server: Throng) -> dict[prometheus.Series, float]:
    with get(server, "/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return prometheus.parse(response.read().decode())


def test_metrics_are_strict_prometheus_text_and_counters_only_grow(start, connect):
    server = start()
    before = scrape(server)
    client = connect(server.url)
    client.send("counted")
    client.receive()
    after = scrape(server)
    counters = {series for series in before if series[0].endswith("_total")}
    assert counters and counters <= after.keys()
    assert all(after[series] >= before[series] for series in counters)
    assert any(after[series] > before[series] for series in counters)


def test_the_admin_port_tells_workers_apart_in_strict_text(start):
    server = start("--admin", "127.0.0.1:0", "--workers", "2")
    assert server.address
    deadline = time.monotonic() + READ_S_MAX
    while not (found := re.search(r"the admin port is http://(\S+)", server.log)):
        assert time.monotonic() < deadline, server.log
        time.sleep(0.01)
    with urllib.request.urlopen(f"http://{found[1]}/metrics?workers", timeout=READ_S_MAX) as answer:
        samples = prometheus.parse(answer.read().decode())
    assert ("throng_worker_busy_seconds_total", 'worker="1"') in samples
    buckets = [value for (name, _), value in samples.items() if name == "throng_loop_turn_seconds_bucket"]
    assert buckets == sorted(buckets) and buckets[-1] == samples["throng_loop_turn_seconds_count", ""]


def test_the_connection_gauge_follows_the_clients(start, connect):
    """The scrape is a connection itself, in every sample alike."""
    server = start()
    idle = prometheus.total(scrape(server), "throng_connections")

    def wait_for(count: float) -> None:
        deadline = time.monotonic() + READ_S_MAX
        while (seen := prometheus.total(scrape(server), "throng_connections")) != count:
            assert time.monotonic() < deadline, f"{seen} connections instead of {count}"
            time.sleep(0.05)

    clients = [connect(server.url) for _ in range(3)]
    wait_for(idle + 3)
    clients.pop().close(1000, "")
    wait_for(idle + 2)
    clients.pop().abandon()
    wait_for(idle + 1)
