"""Attacks by tools that were made for that, and through the proxies that stand in front."""

import contextlib
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

import drivers
from conftest import Throng, eventually

READ_S_MAX = 10
# Debian keeps daemons where only root's PATH looks.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CROWD = 5000
# The tool takes longer over each connection the more it has.
TOOLS = 5
ATTACK_S = 20
# What the server is given of it: time for a head, and again for a body; time for a client to read something.
HEAD_TIMEOUT_S = 8
WRITE_TIMEOUT_S = 3


def tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=PATH)
    if not found:
        pytest.skip(f"SKIPPED: {name} is missing (apt install {name})")
    return found


def request(address: str, sent: bytes) -> bytes:
    """Sends bytes on a connection of its own; everything that comes back until the end or a second of silence."""
    host, _, port = address.rpartition(":")
    received = b""
    with socket.create_connection((host, int(port)), READ_S_MAX) as raw:
        raw.sendall(sent)
        raw.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := raw.recv(65536):
                received += part
    return received


def slowhttptest(server: Throng, *mode: str) -> list[float]:
    """Attacks with CROWD connections, all at once. Its probes find out whether others are served, and a client beside it
    gets its echoes in time. Gives how many connections the server had, again and again until the end."""
    each = str(CROWD // TOOLS)
    command = [tool("slowhttptest"), *mode, "-c", each, "-r", each, "-l", str(ATTACK_S), "-p", "2"]
    started = time.monotonic()
    attacks = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(TOOLS)
    ]
    client, latencies, connections, most = drivers.Websockets(server.url), [], [], 0
    before = resident_bytes(server)
    try:
        while any(attack.poll() is None for attack in attacks):
            asked = time.monotonic()
            assert asked - started < 2 * ATTACK_S, "the attack does not end"
            client.send("not disturbed")
            assert client.receive() == "not disturbed"
            latencies.append(time.monotonic() - asked)
            connections.append(server.metric("throng_connections"))
            most = max(most, resident_bytes(server))
            time.sleep(0.02)
    finally:
        client.abandon()
        for attack in attacks:
            attack.kill()
    said = [re.sub(r"\x1b\[[0-9;]*m", "", attack.communicate()[0]) for attack in attacks]
    latencies.sort()
    p50, p99 = (latencies[len(latencies) * percent // 100] for percent in (50, 99))
    figures = f"{p50 * 1e3:.2f} | {p99 * 1e3:.2f} | {(most - before) / 2**20:.1f} | {time.monotonic() - started:.1f}"
    print(*(text[-1000:] for text in said), f"| slowhttptest {mode[0]}, {CROWD} connections | {figures} |", sep="\n")
    assert p99 < 1
    assert set(re.findall(r"service available: +(\w+)", "".join(said))) == {"YES"}, said
    # Whether all were there at once is the tools' pace, which on a busy machine is slower than the server's timeouts.
    assert server.metric("throng_accepted_total") >= CROWD and max(connections) >= CROWD // 4, connections[::20]
    return connections


def resident_bytes(server: Throng) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


@pytest.mark.parametrize(
    "mode, refused",
    [
        # Slowloris: a field every second, the head never ends.
        (["-H"], "head_timeout"),
        # R-U-Dead-Yet: the body is announced, and a little of it comes every second.
        (["-B", "-s", "8192"], "body_timeout"),
    ],
    ids=["heads", "bodies"],
)
def test_slow_requests_are_ended_in_time(start, mode, refused):
    server = start("--head-timeout", str(HEAD_TIMEOUT_S))
    slowhttptest(server, *mode, "-i", "1", "-u", server.topic("t"))
    told = request(server.address, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").decode()
    assert f'throng_refused_total{{reason="{refused}"}} {CROWD}\n' in told
    eventually("nobody is left", lambda: server.metric("throng_connections") <= 1)


def test_slow_readers_are_reset_in_time(start):
    server = start("--write-timeout", str(WRITE_TIMEOUT_S), "--history-size", "20")
    head = b"POST /topics/big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 60000\r\n\r\n"
    for _ in range(2):
        assert b" 200 " in request(server.address, head + b"x" * 60000)
    # Windows of 512 to 1,024 bytes, of which 32 are read every 5 s; 120 KB are asked for three times on each connection.
    mode = ["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"]
    connections = slowhttptest(server, *mode, "-u", server.topic("big"))
    # Long before the end: the client here, who asks, and the tools' probes.
    assert max(connections[-50:]) <= 2 + TOOLS, connections[::20]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(params=["nginx", "haproxy"])
def guarded(request, start, tmp_path):
    """A server behind a proxy that lets nobody at /topics/secret: the server, and the proxy's address."""
    program = tool(request.param)
    server = start("--history-size", "10")
    address = f"127.0.0.1:{free_port()}"
    name = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[request.param]
    config = (Path(__file__).parent / name).read_text()
    for placeholder, value in {"LISTEN": address, "SERVER": server.address, "DIRECTORY": str(tmp_path)}.items():
        config = re.sub(rf"\b{placeholder}\b", value, config)
    path = tmp_path / name
    path.write_text(config)
    flags = ["-p", tmp_path, "-c", path] if request.param == "nginx" else ["-db", "-f", path]
    with open(tmp_path / "proxy.log", "w") as log:
        process = subprocess.Popen([program, *flags], stdout=log, stderr=log)
    deadline = time.monotonic() + READ_S_MAX
    while True:
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "proxy.log").read_text()
        host, _, port = address.rpartition(":")
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection((host, int(port)), 1):
            break
        time.sleep(0.02)
    yield server, address
    process.terminate()
    process.wait(READ_S_MAX)


UPGRADE = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
SECRET = (
    b"GET /topics/secret HTTP/1.1\r\nHost: localhost\r\n\r\n"
    b"POST /topics/secret HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nforged"
)


@pytest.mark.parametrize(
    "change, status",
    [
        ({"Sec-WebSocket-Version": "777"}, 426),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Protocol": "a, a"}, 400),
        ({"Origin": "http://evil.test"}, 403),
        # This one comes in, and what follows is taken for frames.
        ({}, 101),
    ],
    ids=["version", "key", "no key", "subprotocol", "origin", "none"],
)
def test_no_failed_upgrade_opens_a_way_past_the_proxy(guarded, change, status):
    server, address = guarded
    published = request(
        server.address,
        b"POST /topics/secret HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 10\r\n\r\nwell kept!",
    )
    assert b" 200 " in published.splitlines()[0]
    assert b"403 Forbidden" in request(address, SECRET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    fields = {name: value for name, value in (UPGRADE | change).items() if value is not None}
    head = "GET /chat HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    # In one piece, and once the proxy knows what the server thinks of the upgrade.
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), READ_S_MAX) as raw:
        raw.sendall(head.encode())
        answer = raw.recv(65536)
        with contextlib.suppress(ConnectionError):
            raw.sendall(SECRET)
            raw.settimeout(1)
            with contextlib.suppress(TimeoutError):
                while part := raw.recv(65536):
                    answer += part
    for answer in (answer, request(address, head.encode() + SECRET)):
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
        assert b"well kept!" not in answer
    kept = request(server.address, b"GET /topics/secret HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert b"well kept!" in kept and b"forged" not in kept
