"""The peers: each listens at a port it is given, echoes at /echo, and sends what comes at /pub to all at /sub."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
WORK = TARGET / "peers"
READY_S_MAX = 20
STOP_S_MAX = 10

# A core for each side: nothing migrates, and each core's caches stay one side's.
SERVER_CORE, LOAD_CORE = (["taskset", "-c", "0"], ["taskset", "-c", "1"]) if os.cpu_count() > 1 else ([], [])

OURS, FLOOR = "throng", "bare loop"


class Missing(Exception):
    """A peer cannot be had here, and why."""


class Failed(Exception):
    """A run gave no figures."""


@dataclass
class Peer:
    name: str
    about: str
    prepare: Callable[[], list[str]]
    """Makes it ready, and gives the command: {port}, {heartbeat}, {dir} are filled in."""
    echo: str = "/echo"
    sub: str = "/sub"
    pub: str = "ws /pub"
    ready: str = r"listening on 127\.0\.0\.1:\d+"
    """What it prints; empty: it says nothing, and is ready when it accepts."""
    env: tuple[tuple[str, str], ...] = ()
    rows: str = ""
    """Only those whose name matches."""

    def publish(self, address: str) -> list[str]:
        how, path = self.pub.split()
        return ["--publish-ws", f"ws://{address}{path}"] if how == "ws" else ["--publish-url", f"http://{address}{path}"]


def tool(*command: str, cwd: pathlib.Path = ROOT, **env: str) -> str:
    """Runs one that installs or builds; it is missing if that fails."""
    if not shutil.which(command[0]):
        raise Missing(f"there is no {command[0]}")
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Missing(f"`{' '.join(command[:3])}` failed: {said[-1] if said else 'it says nothing'}")
    return done.stdout


def throng() -> list[str]:
    # Built before, and the bare loop, with the whole workspace: by itself each would be built anew, with other features.
    limit = ["--max-connections", "19000", "--history-size", "1000"]
    return [f"{TARGET}/release/throng", "serve", "--listen", "127.0.0.1:{port}", "--workers", "1", "--echo"] + [
        *("--client-publish", "--ping-interval", "{heartbeat|3600}"),
        *limit,
    ]


def floor() -> list[str]:
    return [f"{TARGET}/release/floor", "serve", "--listen", "127.0.0.1:{port}"]


def node() -> pathlib.Path:
    packages = WORK / "node"
    packages.mkdir(parents=True, exist_ok=True)
    lock = packages / "package-lock.json"
    if not (packages / "node_modules").exists() or lock.read_bytes() != (HERE / "node" / lock.name).read_bytes():
        for name in ("package.json", lock.name):
            shutil.copy(HERE / "node" / name, packages)
        tool("npm", "ci", "--silent", "--no-audit", "--no-fund", cwd=packages)
    return packages


def ws() -> list[str]:
    node()
    return ["node", f"{HERE}/node/ws.mjs", "{port}", "{heartbeat}"]


def bun() -> list[str]:
    binary = node() / "node_modules/.bin/bun"
    tool(str(binary), "--version")
    return [str(binary), f"{HERE}/node/bun.js", "{port}", "{heartbeat}"]


def rust(name: str) -> list[str]:
    target = WORK / "rust"
    tool("cargo", "build", "--release", "--locked", cwd=HERE / "rust", CARGO_TARGET_DIR=str(target))
    return [f"{target}/release/{name}", "{port}", "{heartbeat}"]


def uws() -> list[str]:
    """Compiles our server with the C++ sources that a crate carries."""
    listed = tool("cargo", "metadata", "--format-version", "1", "--locked", "--features", "sources", cwd=HERE / "rust")
    package = next(p for p in json.loads(listed)["packages"] if p["name"] == "libuwebsockets-sys")
    sources = pathlib.Path(package["manifest_path"]).parent / "uWebSockets"
    sockets, build = sources / "uSockets/src", WORK / "uws"
    build.mkdir(parents=True, exist_ok=True)
    common = ["-O3", "-flto", "-DLIBUS_NO_SSL", f"-I{sockets}"]
    files = [str(file) for part in ("*.c", "eventing/*.c", "crypto/*.c") for file in sorted(sockets.glob(part))]
    tool("gcc", *common, "-std=c11", "-c", *files, cwd=build)
    objects = [str(file) for file in build.glob("*.o")]
    main = ["-std=c++20", "-DUWS_NO_ZLIB", f"-I{sources / 'src'}", f"{HERE}/cpp/uws.cpp", *objects, "-o", "uws"]
    tool("g++", *common, *main, cwd=build)
    return [f"{build}/uws", "{port}", "{heartbeat}"]


def go(name: str) -> list[str]:
    binary = WORK / "go" / name
    tool("go", "build", "-mod=readonly", "-o", str(binary), f"./{name}", cwd=HERE / "go")
    return [str(binary), "{port}", "{heartbeat}"]


def nchan() -> list[str]:
    module = pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
    if not (shutil.which("nginx") and module.exists()) and os.geteuid() == 0:
        tool("apt-get", "-q", "update")
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        tool("apt-get", "-qy", "install", "--no-install-recommends", "nginx", "libnginx-mod-nchan", **quiet)
    if not module.exists():
        raise Missing("nginx and libnginx-mod-nchan are not installed, and cannot be without root")
    return ["nginx", "-p", "{dir}", "-c", "{dir}/nchan.conf"]


PEERS = [
    Peer(OURS, "one worker", throng, echo="/", sub="/topics/load", pub="ws /topics/load"),
    Peer("uWebSockets", "the C++ core, from the sources in libuwebsockets-sys 0.0.10, compiled here", uws),
    Peer("bun", "1.4.5, Bun.serve", bun),
    Peer("ws", "8.23.0 with bufferutil 4.1.0, on Node", ws, env=(("NODE_PATH", f"{WORK}/node/node_modules"),)),
    Peer("tokio-tungstenite", "0.30.0, one thread", lambda: rust("tungstenite")),
    Peer("fastwebsockets", "0.10.0 on hyper 1.12.0, one thread", lambda: rust("fastwebsockets")),
    Peer("gws", "lxzan/gws 1.8.9", lambda: go("gws")),
    Peer("gobwas", "gobwas/ws 1.5.0", lambda: go("gobwas")),
    Peer("coder", "coder/websocket 1.8.15", lambda: go("coder")),
    Peer("nchan", "Debian's nginx and nchan, one worker", nchan, echo="", pub="http /pub", ready=""),
    Peer(FLOOR, "bare recv and send, nothing checked: floor serve", floor, rows="idle|echo|broadcast|storm"),
]


@dataclass
class Server:
    """One that runs."""

    address: str
    process: subprocess.Popen


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def filled(text: str, values: dict[str, str]) -> str:
    """{name} by its value; {name|other} by the other where that is 0."""
    one = lambda found: other if (value := values[found[1]]) == "0" and (other := found[3]) else value  # noqa: E731
    return re.sub(r"\{(\w+)(\|(\w+))?\}", one, text)


@contextlib.contextmanager
def running(peer: Peer, command: list[str], heartbeat: int = 0) -> Iterator[Server]:
    """It, until it is ended."""
    port = free_port()
    with tempfile.TemporaryDirectory() as scratch, open(f"{scratch}/log", "w+") as log:
        values = {"port": str(port), "heartbeat": str(heartbeat), "dir": scratch}
        if peer.name == "nchan":
            module = "/usr/lib/nginx/modules/ngx_nchan_module.so"
            conf = (HERE / "nginx/nchan.conf").read_text()
            for name, value in {"PORT": port, "DIR": scratch, "MODULE": module, "HEARTBEAT": heartbeat}.items():
                conf = conf.replace("{" + name + "}", str(value))
            pathlib.Path(scratch, "nchan.conf").write_text(conf)
        words = SERVER_CORE + [filled(word, values) for word in command]
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **dict(peer.env)}
        )
        try:
            deadline = time.monotonic() + READY_S_MAX
            said = lambda: pathlib.Path(log.name).read_text(errors="replace")  # noqa: E731
            while not (re.search(peer.ready, said()) if peer.ready else accepts(port)):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise Failed(f"{peer.name} does not start: {said()[-300:]}")
                time.sleep(0.02)
            yield Server(f"127.0.0.1:{port}", process)
        finally:
            end(process, signal.SIGTERM, STOP_S_MAX)


def end(process: subprocess.Popen, how: signal.Signals, seconds: float) -> None:
    """It has so long to end by itself."""
    process.send_signal(how)  # nothing, to one that has ended
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
