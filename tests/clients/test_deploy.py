"""What is shipped in `deploy/`, as it is shipped: behind a real nginx and a real HAProxy with two servers, and the files for
systemd, Docker and Kubernetes held against the real binary.

Clients come from addresses of their own on loopback, so that they are not taken for the proxy."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import httpx_sse
import pytest
import websocket
import yaml

from centrifugo_drivers import PythonCentrifuge
from conftest import START_S_MAX, THRONG, Throng, eventually
from drivers import STEP_S_MAX
from test_hostile import free_port, tool

DEPLOY = Path(__file__).parents[2] / "deploy"
CLIENT = "127.0.0.5"
OTHER = "127.0.0.6"
DIRECT = "127.0.0.9"
"""Who asks a server itself: not a proxy's address."""

NGINX = """
daemon off;
pid DIRECTORY/nginx.pid;
error_log stderr warn;
events {}
http {
    access_log off;
    client_body_temp_path DIRECTORY/body;
    proxy_temp_path DIRECTORY/proxy;
    fastcgi_temp_path DIRECTORY/fastcgi;
    uwsgi_temp_path DIRECTORY/uwsgi;
    scgi_temp_path DIRECTORY/scgi;
    include DIRECTORY/throng.conf;
}
"""
"""What stands around deploy/nginx.conf: nothing that it does not say itself, but for places to write to."""

TRUST = {
    "nginx": ["--proxy-trusted", "127.0.0.1", "--proxy-header", "X-Forwarded-For"],
    "haproxy": ["--proxy-trusted", "127.0.0.1", "--proxy-protocol"],
}


@dataclass
class Fleet:
    """Two servers behind a proxy."""

    proxy: str
    address: str
    servers: list[Throng]
    process: subprocess.Popen

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://{self.address}{path}"

    @property
    def log(self) -> str:
        return "\n".join(server.log for server in self.servers)

    def home(self, topic: str) -> Throng:
        """The server that has this topic's messages."""
        having = [server for server in self.servers if direct(server, f"/topics/{topic}?since=earliest").json()]
        assert len(having) == 1, having
        return having[0]


def direct(server: Throng, path: str) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=DIRECT), timeout=STEP_S_MAX) as http:
        return http.get(f"http://{server.address}{path}")


def client(source: str = CLIENT) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(local_address=source), timeout=STEP_S_MAX)


def open_websocket(fleet: Fleet, path: str, source: str = CLIENT) -> websocket.WebSocket:
    host, _, port = fleet.address.rpartition(":")
    raw = socket.create_connection((host, int(port)), STEP_S_MAX, source_address=(source, 0))
    return websocket.create_connection(fleet.url(path, "ws"), socket=raw, timeout=STEP_S_MAX)


@pytest.fixture(params=["nginx", "haproxy"])
def fleet(request, start, tmp_path):
    """`fleet("--flag", ..., change={"75s": "3s"})` starts all three; what `change` names is replaced in the proxy's
    configuration."""
    program = tool(request.param)
    running = []
    shared = tempfile.mkdtemp(prefix="throng-")
    os.chmod(shared, 0o755)

    def fleet(*flags: str, change: dict[str, str] | None = None, sockets: bool = False) -> Fleet:
        trust = [*TRUST[request.param], "--log-level", "debug"]
        if sockets:
            trust[1] = "unix"
        paths = [Path(shared) / f"{name}.sock" for name in "ab"]
        # As deploy/throng.toml has it: nginx's workers are somebody else.
        more = [[f"--listen=unix:{path}", "--listen-mode", "0666"] if sockets else [] for path in paths]
        servers = [start(*trust, *flags, *more[index], echo=False) for index in range(2)]
        address = f"127.0.0.1:{free_port()}"
        shipped = DEPLOY / {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[request.param]
        config = shipped.read_text()
        at = [server.address for server in servers]
        if sockets:
            at = [{"nginx": "unix:", "haproxy": "unix@"}[request.param] + str(path) for path in paths]
        places = dict(zip(["127.0.0.1:8081", "127.0.0.1:8082"], at))
        if request.param == "nginx":
            places["listen 80;"] = f"listen {address};"
        else:
            # As many as there may be descriptors where this runs.
            places |= {"bind :80": f"bind {address}", "maxconn 50000": "maxconn 1000"}
        for here, there in {**places, **(change or {})}.items():
            assert here in config, f"{here} is not in {shipped.name}"
            config = config.replace(here, there)
        if request.param == "nginx":
            (tmp_path / "throng.conf").write_text(config)
            config = NGINX.replace("DIRECTORY", str(tmp_path))
        path = tmp_path / "proxy"
        path.write_text(config)
        options = ["-p", tmp_path, "-c", path] if request.param == "nginx" else ["-db", "-f", path]
        with open(tmp_path / "proxy.log", "w") as log:
            process = subprocess.Popen([program, *options], stdout=log, stderr=log)
        running.append(process)
        made = Fleet(request.param, address, servers, process)

        def serves() -> bool:
            assert process.poll() is None, (tmp_path / "proxy.log").read_text()
            with contextlib.suppress(httpx.TransportError), client() as http:
                return http.get(made.url("/healthz")).status_code == 200
            return False

        eventually(f"{request.param} serves", serves)
        return made

    yield fleet
    for process in running:
        process.terminate()
        process.wait(STEP_S_MAX)
    shutil.rmtree(shared)


def test_every_transport_works(fleet):
    fleet = fleet()
    with client() as http, client() as stream, client() as poll:
        assert http.post(fleet.url("/topics/t"), content="first").status_code == 200
        frames = open_websocket(fleet, "/topics/t?frames=json")
        with httpx_sse.connect_sse(stream, "GET", fleet.url("/topics/t")) as source:
            events = source.iter_sse()
            assert next(events).retry is not None
            answers = []
            waiting = threading.Thread(target=lambda: answers.append(poll.get(fleet.url("/topics/t?since=latest&wait=30"))))
            waiting.start()
            home = fleet.home("t")
            eventually("the long poll waits", lambda: 'transport="long_poll"} 1' in direct(home, "/metrics").text)
            # A large body, which no proxy is to keep to itself.
            published = "x" * 40_000
            assert http.post(fleet.url("/topics/t"), content=published).status_code == 200
            assert next(events).data == published, "it comes while the stream is open"
            assert json.loads(frames.recv())["data"] == published
            waiting.join(STEP_S_MAX)
            assert [element["data"] for element in answers[0].json()] == [published]
    frames.close()
    for _ in range(2):
        sdk = PythonCentrifuge(fleet.address, protobuf=False)
        sdk.subscribed("c")
        sdk.end()


def test_the_proxy_comes_through_unix_domain_sockets(fleet, tmp_path):
    fleet = fleet(sockets=True)
    with client() as http:
        assert http.post(fleet.url("/topics/t"), content="x").status_code == 200
        assert http.get(fleet.url("/topics/t?since=what")).status_code == 400
    eventually("the refusal is logged", lambda: re.search(rf"refused peer={re.escape(CLIENT)}\b.*bad_parameter", fleet.log))
    frames = open_websocket(fleet, "/topics/t?since=earliest")
    assert frames.recv() == "x"
    frames.close()


def test_what_the_operator_asks_is_not_for_everybody(fleet):
    fleet = fleet()
    with client() as http:
        for path in ["/metrics", "/readyz"]:
            assert http.get(fleet.url(path)).status_code == 404
    assert direct(fleet.servers[0], "/readyz").status_code == 200


def test_clients_have_their_own_addresses_and_cannot_have_others(fleet):
    fleet = fleet("--max-connections-per-address", "2")
    lies = {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
    with client() as http:
        assert http.get(fleet.url("/topics/t?since=what"), headers=lies).status_code == 400
    eventually("the refusal is logged", lambda: re.search(rf"refused peer={re.escape(CLIENT)}\b.*bad_parameter", fleet.log))
    sockets = [open_websocket(fleet, "/topics/t") for _ in range(2)]
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        open_websocket(fleet, "/topics/t")
    assert refused.value.status_code == 429
    other = open_websocket(fleet, "/topics/t", OTHER)
    for each in [*sockets, other]:
        each.close()
    for source in [CLIENT, OTHER]:
        eventually("it is logged who has gone", lambda: re.search(rf"closed .*peer={re.escape(source)}\b", fleet.log))
    assert "192.0.2.1" not in fleet.log


def test_silence_is_shorter_than_the_proxys_patience(fleet):
    """All of it a 25th as long: heartbeats of 1 s, and a proxy that waits for 3 s."""
    fleet = fleet("--ping-interval", "1", "--pong-timeout", "1", change={"75s": "3s"})
    frames = open_websocket(fleet, "/topics/t")
    said = []
    # This library answers pings only while it reads.
    reading = threading.Thread(target=lambda: said.append(frames.recv()))
    reading.start()
    with client() as http, client() as stream:
        with httpx_sse.connect_sse(stream, "GET", fleet.url("/topics/t")) as source:
            events = source.iter_sse()
            next(events)
            time.sleep(7)
            assert http.post(fleet.url("/topics/t"), content="still here").status_code == 200
            # To this library a comment is an event without data.
            assert next(event.data for event in events if event.data) == "still here"
            reading.join(STEP_S_MAX)
            assert said == ["still here"]
    frames.close()


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(ms|s|m|h)?", text).groups()
    return float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, None: 1}[unit]


def setting(name: str) -> float:
    """A default of the server's, in seconds."""
    shown = json.loads(subprocess.check_output([THRONG, "config", "show", "--json"]))
    return seconds(shown[name]["value"])


@pytest.mark.parametrize(
    "file, pattern",
    [("nginx.conf", r"proxy_(?:read|send)_timeout (\S+);"), ("haproxy.cfg", r"timeout (?:client|server|tunnel) (\S+)")],
)
def test_the_proxies_are_more_patient_than_the_servers_defaults(file, pattern):
    found = [seconds(text) for text in re.findall(pattern, (DEPLOY / file).read_text())]
    silence = setting("throng.ping_interval") + setting("throng.pong_timeout")
    assert len(found) >= 2 and all(time > max(silence, 60) for time in found), found


@dataclass
class Record:
    """What one client was told, in order: numbers, and gaps."""

    name: str
    said: list[int | str] = field(default_factory=list)

    def check(self, acknowledged: list[int]) -> None:
        """Everything that was acknowledged once it listened came, in order, or something was said to be missing there."""
        first = next(each for each in self.said if each != "gap")
        expected = [number for number in acknowledged if number > first]
        last, gap = first, False
        for each in self.said[self.said.index(first) + 1 :]:
            if each == "gap":
                gap = True
                continue
            assert each > last or gap, f"{self.name}: {each} after {last}: {self.said}"
            missed = [number for number in expected if last < number < each]
            assert gap or not missed, f"{self.name}: {missed} are lost, and nothing was said: {self.said}"
            last, gap = each, False
        assert last == acknowledged[-1], f"{self.name}: {self.said[-5:]}, not {acknowledged[-5:]}"


class Reader(threading.Thread):
    """Reads until the last number has come, and comes back to where it was whenever it is cut off."""

    def __init__(self, fleet: Fleet, last: int):
        super().__init__(daemon=True)
        self.fleet, self.last, self.record = fleet, last, Record(type(self).__name__)
        self.cursor: str | None = None
        self.has_begun = threading.Event()
        self.error: BaseException | None = None

    def run(self):
        deadline = time.monotonic() + 3 * STEP_S_MAX
        try:
            while not self.is_done and time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError, OSError, websocket.WebSocketException):
                    self.read()
                time.sleep(0.02)
        except BaseException as error:
            self.error = error

    @property
    def is_done(self) -> bool:
        return bool(self.record.said) and self.record.said[-1] == self.last

    @property
    def since(self) -> str:
        return f"since={self.cursor}" if self.cursor else "since=earliest"

    def take(self, element: dict) -> None:
        if "gap" in element:
            self.record.said.append("gap")
            self.cursor = element["gap"]["resumed"]
        else:
            self.record.said.append(int(element["data"]))
            self.cursor = element["id"]
            self.has_begun.set()


class EventStream(Reader):
    def read(self):
        headers = {"Last-Event-ID": self.cursor} if self.cursor else {}
        with client() as http:
            with httpx_sse.connect_sse(http, "GET", self.fleet.url("/topics/t?since=earliest"), headers=headers) as source:
                if source.response.status_code != 200:
                    return
                for event in source.iter_sse():
                    if event.event == "gap":
                        self.take(json.loads(event.data))
                    elif event.data:
                        self.take({"data": event.data, "id": event.id})
                    if self.is_done:
                        return


class WebSocket(Reader):
    def read(self):
        socket_ = open_websocket(self.fleet, f"/topics/t?frames=json&{self.since}")
        try:
            while not self.is_done:
                text = socket_.recv()
                if not text:
                    return
                self.take(json.loads(text))
        finally:
            socket_.close()


class LongPoll(Reader):
    def read(self):
        with client() as http:
            while not self.is_done:
                answer = http.get(self.fleet.url(f"/topics/t?wait=2&{self.since}"))
                if answer.status_code not in (200, 204):
                    return
                for element in answer.json() if answer.status_code == 200 else []:
                    self.take(element)


class Publisher:
    """Publishes numbers, each until it is acknowledged."""

    def __init__(self, fleet: Fleet):
        self.fleet, self.http, self.acknowledged = fleet, client(OTHER), []

    def publish(self, number: int) -> None:
        deadline = time.monotonic() + STEP_S_MAX
        while True:
            with contextlib.suppress(httpx.TransportError):
                headers = {"Idempotency-Key": str(number), "Content-Type": "text/plain"}
                answer = self.http.post(self.fleet.url("/topics/t"), content=str(number), headers=headers)
                if answer.status_code == 200:
                    return self.acknowledged.append(number)
            assert time.monotonic() < deadline, f"{number} is not taken"
            time.sleep(0.01)


MESSAGES = 400


def test_a_drained_node_loses_nothing_unnoticed(fleet):
    """Its clients resume on the other, which is another process: they are told of a gap, and miss nothing without one."""
    fleet = fleet("--drain-delay", "2", "--drain", "1.5", "--history-size", "1000")
    publisher = Publisher(fleet)
    publisher.publish(0)
    readers = [kind(fleet, MESSAGES) for kind in [EventStream, EventStream, WebSocket, WebSocket, LongPoll, LongPoll]]
    for reader in readers:
        reader.start()
    for reader in readers:
        assert reader.has_begun.wait(STEP_S_MAX), reader.record
    drained = fleet.home("t")
    ended = None
    for number in range(1, MESSAGES + 1):
        if number == 50:
            drained.signal(signal.SIGTERM)
        if number == MESSAGES:
            # The last is for all who have come to the other one.
            ended = drained.exit_status(STEP_S_MAX)
        publisher.publish(number)
        time.sleep(0.01)
    for reader in readers:
        reader.join(3 * STEP_S_MAX)
        if reader.error:
            raise reader.error
    assert ended == 0, drained.log
    for reader in readers:
        reader.record.check(publisher.acknowledged)
        assert "gap" in reader.record.said, f"{reader.record.name} did not come to the other one: {reader.record.said[-3:]}"
    publisher.http.close()


def test_sessions_are_told_what_they_may_have_missed(fleet):
    """Centrifugo's SDK comes back by itself, and its subscription says that it was not recovered."""
    fleet = fleet("--drain-delay", "1", "--drain", "0.5", "--history-size", "1000", "--client-publish", "--force-recovery")
    sdk = PythonCentrifuge(fleet.address, protobuf=False)
    assert sdk.subscribed("c")
    sdk.publish("c", {"n": 1})
    assert sdk.publications("c", 1)[0]["data"] == {"n": 1}
    home = fleet.home("c")
    home.signal(signal.SIGTERM)
    again = sdk.resubscribed("c")
    assert not again["recovered"], again
    sdk.publish("c", {"n": 2})
    assert sdk.publications("c", 1)[0]["data"] == {"n": 2}
    assert home.exit_status(STEP_S_MAX) == 0
    sdk.end()


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "throng.service").read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def end_s(delay_s: float, drain_s: float) -> float:
    """How long the end of a server takes at most."""
    return delay_s + drain_s + setting("throng.close_timeout") + 0.5


def test_the_configuration_is_one():
    subprocess.run([THRONG, "config", "check", DEPLOY / "throng.toml"], check=True)
    shown = json.loads(subprocess.check_output([THRONG, "config", "show", "--json", "--config", DEPLOY / "throng.toml"]))
    value = lambda name: seconds(shown[name]["value"])  # noqa: E731
    needed = end_s(value("throng.drain_delay"), value("shutdown.timeout"))
    assert seconds(unit()["TimeoutStopSec"][0]) > needed


def test_the_unit_is_verified_and_hardened(tmp_path):
    analyze = tool("systemd-analyze")
    text = (DEPLOY / "throng.service").read_text().replace("/usr/bin/throng", str(THRONG))
    path = tmp_path / "throng.service"
    path.write_text(text)
    verified = subprocess.run([analyze, "verify", path], capture_output=True, text=True)
    assert verified.returncode == 0 and not verified.stderr, verified.stderr
    rated = subprocess.run([analyze, "security", "--offline=yes", path], capture_output=True, text=True)
    exposure = float(re.search(r"exposure level for \S+ (\d+\.\d)", rated.stdout)[1])
    assert exposure < 2, rated.stdout


def calls(analyze: str, names: str) -> set[str]:
    """The system calls that a line of SystemCallFilter= names, its sets resolved."""
    found, left = set(), names.split()
    while left:
        name = left.pop()
        if name.startswith("@"):
            told = subprocess.run([analyze, "syscall-filter", name], capture_output=True, text=True, check=True)
            left += [line.strip() for line in told.stdout.splitlines()[1:] if line.strip() and "#" not in line]
        else:
            found.add(name)
    return found


def allowed_calls(analyze: str) -> set[str]:
    """What the unit's filter leaves."""
    allowed: set[str] = set()
    for line in unit()["SystemCallFilter"]:
        if line.startswith("~"):
            allowed -= calls(analyze, line[1:])
        else:
            allowed |= calls(analyze, line)
    return allowed


def test_the_unit_lets_through_what_a_server_does(start, tmp_path):
    """Every system call of a server that serves, reloads and drains is held against the unit's filter."""
    strace, allowed = tool("strace"), allowed_calls(tool("systemd-analyze"))
    socket_path, trace = tmp_path / "s", tmp_path / "trace"
    command = [strace, "-f", "-qq", "-o", trace, THRONG, "serve", "--listen", f"unix:{socket_path}"]
    command += ["--listen", "127.0.0.1:0", "--drain", "0.2", "--compression", "--pin", "--public-metrics", "true"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, stderr=log)
    log_text = lambda: (tmp_path / "log").read_text()  # noqa: E731
    eventually("it listens", lambda: re.search(r"listening on (\d\S+:\d+)", log_text()))
    address = re.search(r"listening on (\d\S+:\d+)", log_text())[1]
    assert "no private descriptor tables" not in log_text()
    for _ in range(5):
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=START_S_MAX) as answer:
            assert answer.status == 200
    local = httpx.Client(transport=httpx.HTTPTransport(uds=str(socket_path)), timeout=STEP_S_MAX)
    assert local.post("http://localhost/topics/t", content="x").status_code == 200
    local.close()
    ws = websocket.create_connection(f"ws://{address}/topics/t?since=earliest", timeout=STEP_S_MAX)
    assert ws.recv() == "x"
    child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    subprocess.run(["kill", "-TERM", str(child)], check=True)
    assert process.wait(STEP_S_MAX) == 0, log_text()
    used = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    assert {"unshare", "epoll_wait", "accept4", "bind"} <= used
    # systemd makes the process itself; these are from before.
    assert used - allowed <= {"execve"}, sorted(used - allowed)


FILTERED = """
import errno, os, sys
import pyseccomp as seccomp

# RestrictNamespaces=yes: whatever makes a namespace.
namespaces = seccomp.SyscallFilter(seccomp.ALLOW)
for flag in [0x80, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000]:
    namespaces.add_rule(seccomp.ERRNO(errno.EPERM), "unshare", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
# SystemCallFilter=: nothing but these. systemd itself needs no more than to start the program.
calls = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
for name in {*sys.argv[1].split(","), "execve"}:
    try:
        calls.add_rule(seccomp.ALLOW, name)
    except (OSError, ValueError):
        pass  # another architecture's
namespaces.load()
calls.load()
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_server_runs_as_ever_under_the_units_filter(tmp_path):
    command = [sys.executable, "-c", FILTERED, ",".join(sorted(allowed_calls(tool("systemd-analyze"))))]
    command += [THRONG, "serve", "--listen", "127.0.0.1:0", "--listen", f"unix:{tmp_path / 's'}", "--drain", "0.2", "--pin"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, stderr=log)
    said = lambda: (tmp_path / "log").read_text()  # noqa: E731
    try:
        eventually("it listens", lambda: re.search(r"listening on (\d\S+:\d+)", said()) or process.poll() is not None)
        address = re.search(r"listening on (\d\S+:\d+)", said())[1]
        assert "Seccomp:\t2" in Path(f"/proc/{process.pid}/status").read_text(), "there is a filter"
        assert "WARN" not in said(), said()
        ws = websocket.create_connection(f"ws://{address}/topics/t", timeout=STEP_S_MAX)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "s"))) as local:
            assert local.post("http://localhost/topics/t", content="x").status_code == 200
        assert ws.recv() == "x"
        process.send_signal(signal.SIGTERM)
        assert process.wait(STEP_S_MAX) == 0, said()
    finally:
        process.kill()
    assert "WARN" not in said() and not (tmp_path / "s").exists(), said()


def manifests() -> dict[str, dict]:
    return {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def test_the_manifest_fits_the_binary(start, monkeypatch):
    found = manifests()
    assert set(found) == {"Deployment", "Service", "PodDisruptionBudget"}
    template = found["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    for selector in [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ]:
        assert selector.items() <= labels.items()
    pod = template["spec"]
    container = pod["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    given = dict(flag.removeprefix("--").split("=", 1) for flag in container["args"])
    assert int(given["listen"].rpartition(":")[2]) == ports["http"]
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    needed = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed += end_s(seconds(given["drain-delay"]), seconds(given["drain"]))
    assert pod["terminationGracePeriodSeconds"] > needed
    secrets = {each["name"] for each in container["env"] if "secretKeyRef" in each["valueFrom"]}
    assert secrets == {"THRONG_TOKEN_SECRET", "THRONG_API_KEY"}
    for name in secrets:
        monkeypatch.setenv(name, "not so secret")
    # The command line as it is, but for the port, which is free here.
    flags = [flag for flag in container["args"] if not flag.startswith(("--listen", "--drain="))]
    server = start(*flags, "--drain", "0.2", echo=False)
    for probe, status in [("readinessProbe", 200), ("livenessProbe", 200)]:
        http = container[probe]["httpGet"]
        assert ports[http["port"]] == ports["http"]
        assert direct(server, http["path"]).status_code == status
    server.signal(signal.SIGTERM)
    ready, alive = (container[probe]["httpGet"]["path"] for probe in ["readinessProbe", "livenessProbe"])
    eventually("it is not ready any more", lambda: direct(server, ready).status_code == 503)
    assert direct(server, alive).status_code == 200, "and alive"
    assert server.exit_status() == 0


def test_the_images_command_line_is_one(start):
    text = (DEPLOY / "Dockerfile").read_text()
    lines = dict(re.findall(r"^(ENTRYPOINT|CMD|EXPOSE|STOPSIGNAL) (.*)$", text, re.MULTILINE))
    command = json.loads(lines["ENTRYPOINT"]) + json.loads(lines["CMD"])
    assert command[:2] == ["/usr/bin/throng", "serve"] and lines["STOPSIGNAL"] == "SIGTERM"
    assert f"COPY --from=build /throng/target/release/throng {command[0]}" in text
    listen = command[command.index("--listen") + 1]
    assert listen.rpartition(":")[2] == lines["EXPOSE"]
    flags = command[2:]
    del flags[flags.index("--listen") : flags.index("--listen") + 2]
    server = start(*flags, echo=False)
    assert direct(server, "/healthz").status_code == 200
    drain = seconds(flags[flags.index("--drain") + 1])
    assert end_s(0, drain) < 10, "docker stop waits for 10 s"
