"""The rows: each is one kind of work. It gives figures by name, and what is to be said of them."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from peers import LOAD_CORE, STOP_S_MAX, TARGET, Failed, Peer, Server, end, running

RUN_S_MAX = 180
KEPT_UP = 0.98  # of what was offered: only then the next higher rate is tried


@dataclass
class Sizes:
    connections: int
    storm: int
    echo_s: float
    tail_s: float  # of echoes at a rate
    broadcast_s: float
    rates: tuple[int, ...]
    stalled_s: float
    heartbeat: int  # seconds; short, so that one of each connection's fits into a row: what counts is the cost of one
    rounds: int


FULL = Sizes(
    connections=18_000, storm=15_000, echo_s=2, tail_s=1.5, broadcast_s=2, rates=(1, 50, 300, 1000, 3000), stalled_s=10,
    heartbeat=8, rounds=3,
)  # fmt: skip
QUICK = Sizes(
    connections=300, storm=300, echo_s=0.6, tail_s=0.6, broadcast_s=0.6, rates=(5, 50), stalled_s=2, heartbeat=8, rounds=1
)


@dataclass
class Result:
    figures: dict[str, float] = field(default_factory=dict)
    limited: list[str] = field(default_factory=list)
    """Figures that were measured while somebody else than the server was the limit."""
    notes: list[str] = field(default_factory=list)
    behind_at: int | None = None
    """The rate of broadcasts that it could not keep up with; it is not asked for that again."""

    def add(self, figures: dict[str, float], report: dict, what: str = "", part: str = "measured", others: bool = True) -> None:
        """Takes figures, and whatever the report says against them; `what` tells one measurement of a row from another."""
        self.figures |= figures
        limits = {"generator": "generator saturated", "machine_by_generator": "generator saturated"}
        limits |= {"others": "others busy"} if others else {}
        limit = limits.get(report["verdict"][part])
        if limit:
            self.limited += figures
        self.note(*[limit] * bool(limit), *report["problems"], what=what)

    def note(self, *notes: str, what: str = "") -> None:
        self.notes += [f"{what}: {note}" if what else note for note in notes]


def load(*arguments: str) -> dict:
    """Runs the generator, and gives its report."""
    with beside(*arguments) as (process, report):
        try:
            process.wait(RUN_S_MAX)
        except subprocess.TimeoutExpired:
            raise Failed(f"no end within {RUN_S_MAX} s") from None
        return report()


@contextlib.contextmanager
def beside(*arguments: str, nice: int = 0) -> Iterator[tuple[subprocess.Popen, Callable[[], dict]]]:
    """The generator while it runs, and what gives its report after its end; it is ended early by SIGINT."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file, tempfile.TemporaryFile("w+") as said:
        command = [*LOAD_CORE, "nice", "-n", str(nice), f"{TARGET}/release/throng-load", *arguments]
        process = subprocess.Popen([*command, "--threads", "1", "-q", "--json", file.name], stdout=said, stderr=said)

        def report() -> dict:
            if text := pathlib.Path(file.name).read_text():
                return json.loads(text)
            said.seek(0)
            raise Failed((said.read().strip() or "no report").splitlines()[-1])

        try:
            yield process, report
        finally:
            end(process, signal.SIGINT, RUN_S_MAX)


def watched(peer: Peer, server: Server) -> list[str]:
    """nginx has a worker below its master."""
    pid = server.process.pid
    if peer.name != "nchan":
        return ["--pid", str(pid)]
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [word for child in [str(pid), *children] for word in ("--pid", child)]


def many(count: int) -> list[str]:
    return ["-c", str(count), "--pending", "64"]


def row_idle(peer: Peer, command: list[str], sizes: Sizes) -> Result:
    result = Result()
    with running(peer, command) as server:
        url = f"ws://{server.address}{peer.sub}"
        report = load("idle", url, *many(sizes.connections), "--hold", "1", *watched(peer, server))
    result.figures["idle, bytes a connection"] = report["memory"]["server_user"]
    handshakes = {
        "handshake, us of CPU": report["opening"]["server_cpu_us"],
        "handshakes/s": report["opening"]["handshakes_per_second"],
    }
    result.add(handshakes, report, part="opening")
    return result


def row_echo(peer: Peer, command: list[str], sizes: Sizes) -> Result:
    result = Result()
    for size, name in ((64, "64 B"), (1024, "1 KB"), (65_000, "64 KB")):
        if not peer.echo:
            break
        with running(peer, command) as server:
            url = f"ws://{server.address}{peer.echo}"
            common = ["-c", "100", "--binary", "--size", str(size), *watched(peer, server)]
            report = load("echo", url, "--duration", str(sizes.echo_s), *common)
            rate = report["echo"]["answered_per_second"]
            figures = {f"echo {name}, us of CPU": report["measured"]["server_cpu_us_each"], f"echo {name}, /s": rate}
            result.add(figures, report, name)
            if size == 64:
                # Half of what it does itself: every server is as far from its own limit.
                report = load("echo", url, "--duration", str(sizes.tail_s), "--rate", f"{rate / 2:.0f}", *common)
                figures = {"echo 64 B at half its rate, p99 us": report["echo"]["latency_us"]["p99"]}
                result.add(figures, report, "64 B at half its rate")
    return result


def row_broadcast(peer: Peer, command: list[str], sizes: Sizes) -> Result:
    result = Result()
    for rate in sizes.rates:
        with running(peer, command) as server:
            lasts = ["--rate", str(rate), "--duration", str(sizes.broadcast_s), "--drain", "3"]
            url, publish = f"ws://{server.address}{peer.sub}", peer.publish(server.address)
            report = load("fanout", url, *publish, *many(sizes.connections), *lasts, *watched(peer, server))
        delivered = report["fanout"]["delivered_per_second"]
        figures = {
            f"broadcast {rate}/s, us of CPU a delivery": report["measured"]["server_cpu_us_each"],
            f"broadcast {rate}/s, deliveries/s": delivered,
            f"broadcast {rate}/s, ms to the last": report["fanout"]["latency_us"]["max"] / 1000,
        }
        offered = rate * sizes.connections
        kept_up = delivered >= KEPT_UP * offered and report["fanout"]["delivered"] >= KEPT_UP * report["fanout"]["expected"]
        # What is missing of a load that is too high says nothing else than that.
        result.add(figures, report if kept_up else report | {"problems": []}, f"{rate}/s")
        if not kept_up:
            result.note(f"could not keep up at {rate}/s ({offered:,} deliveries/s offered), and was not asked for it again")
            result.behind_at = rate
            break
    return result


def row_isolation(peer: Peer, command: list[str], sizes: Sizes) -> Result:
    result = Result()
    if not peer.echo:
        return result
    with running(peer, command) as server:
        pid, url = str(server.process.pid), f"ws://{server.address}{peer.sub}"
        publish = [*peer.publish(server.address), "--rate", "2", "--duration", str(RUN_S_MAX), "--drain", "1", "--pid", pid]
        # It steps aside for the echoes, whose time is what counts.
        with beside("fanout", url, *publish, *many(sizes.connections), nice=19) as (broadcasts, _):
            wait_for_connections(server, sizes.connections, broadcasts)
            time.sleep(1)  # Broadcasts begin a second after the last came in.
            common = ["-c", "20", "--rate", "500", "--duration", str(sizes.echo_s), *watched(peer, server)]
            report = load("echo", f"ws://{server.address}{peer.echo}", *common)
            if broadcasts.poll() is not None:
                raise Failed("the broadcasts were over before the echoes")
    # To this report the broadcasts' generator is one of the others.
    result.add({"echo beside broadcasts, p99 us": report["echo"]["latency_us"]["p99"]}, report, others=False)
    return result


def wait_for_connections(server: Server, count: int, process: subprocess.Popen) -> None:
    """Until the server has so many sockets; with private tables, in the table of any of its threads."""
    deadline = time.monotonic() + RUN_S_MAX
    tasks = lambda pid: pathlib.Path(f"/proc/{pid}/task").iterdir()  # noqa: E731
    children = pathlib.Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    pids = [str(server.process.pid), *children]
    while max(len(os.listdir(task / "fd")) for pid in pids for task in tasks(pid)) < count:
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failed("the subscribers did not come in")
        time.sleep(0.1)


def row_stalled(peer: Peer, command: list[str], sizes: Sizes) -> Result:
    # Each of the slow ones is sent 8 MB, of which the kernel takes up to 4.3 MB on loopback: what is beyond is the server's.
    count, result = 200, Result()
    with running(peer, command) as server:
        slow = [*many(count), "--slow-share", "0.5", "--rate", "50", "--size", "16384"]
        lasts = ["--duration", str(sizes.stalled_s), "--drain", "3"]
        url, publish = f"ws://{server.address}{peer.sub}", peer.publish(server.address)
        report = load("slow", url, *publish, *slow, *lasts, *watched(peer, server))
    open_at = next(sample for sample in report["samples"] if sample["open"] == count)
    grown = max(sample["server_bytes"] for sample in report["samples"]) - open_at["server_bytes"]
    # Disconnecting them, or leaving messages out, is one of the ways to be safe from them: what it was is said.
    result.add({"stalled readers, KB each": grown / (count / 2) / 1024}, report | {"problems": []})
    losses = report["connections"]["losses"] or "none"
    missing = report["slow"]["lost"] if report["slow"] else 0
    result.note(f"connections lost: {losses}; messages missing at slow readers without a word: {'some' if missing else 'none'}")
    result.note(*["the others lost messages, too"] * bool(report["fanout"]["lost"]))
    return result


def row_storm(peer: Peer, command: list[str], sizes: Sizes) -> Result:
    result = Result()
    with running(peer, command) as server:
        count = ["-c", str(sizes.storm), "--pending", "1000"]
        report = load("storm", f"ws://{server.address}{peer.sub}", *count, *watched(peer, server))
    last = report["storm"]["rounds"][0]
    result.add({"storm, s to the last": last["last_seconds"]}, report)
    result.note(*["not all came back"] * (last["came_back"] != last["dropped"]))
    return result


def row_heartbeats(peer: Peer, command: list[str], sizes: Sizes) -> Result:
    result = Result()
    with running(peer, command, sizes.heartbeat) as server:
        lasts = ["--hold", str(sizes.heartbeat + 2)]
        report = load("idle", f"ws://{server.address}{peer.sub}", *many(sizes.connections), *lasts, *watched(peer, server))
    pings = report["measured"]["pings"]
    if not pings:
        result.note("no heartbeats came")
        return result
    spent = report["measured"]["server_cores"] * report["measured"]["seconds"]
    result.add({"heartbeat, us of CPU": spent / pings * 1e6}, report)
    return result


def row_shutdown(peer: Peer, command: list[str], sizes: Sizes) -> Result:
    result = Result()
    with running(peer, command) as server:
        url, pids = f"ws://{server.address}{peer.sub}", watched(peer, server)
        with beside("idle", url, *many(sizes.connections), "--hold", str(RUN_S_MAX), *pids) as (clients, report):
            wait_for_connections(server, sizes.connections, clients)
            time.sleep(1)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            try:
                server.process.wait(STOP_S_MAX)
                result.figures["shutdown, s until it is gone"] = time.monotonic() - began
            except subprocess.TimeoutExpired:
                result.note(f"still there {STOP_S_MAX} s after SIGTERM")
            time.sleep(0.5)
            end(clients, signal.SIGINT, RUN_S_MAX)
            losses = report()["connections"]["losses"]
    seen = ", ".join(f"{count:,} {how}" for how, count in losses.items()) or "nothing"
    result.note(f"what the clients saw: {seen}")
    return result


Row = Callable[[Peer, list[str], Sizes], Result]

ROWS: dict[str, Row] = {
    "idle": row_idle,
    "echo": row_echo,
    "broadcast": row_broadcast,
    "isolation": row_isolation,
    "stalled": row_stalled,
    "storm": row_storm,
    "heartbeats": row_heartbeats,
    "shutdown": row_shutdown,
}

# Memory, and what becomes of connections, does not scatter.
FIRST_ROUND_ONLY = {"stalled", "shutdown"}
