"""The commands and the JavaScript of README, as they stand: each does what is said of it."""

import contextlib
import json
import queue
import re
import secrets
import shlex
import subprocess
import threading
from pathlib import Path

import pytest

from conftest import NODE_ENV, eventually
from drivers import STEP_S_MAX

README = Path(__file__).parents[2] / "README.md"
ADDRESS = "127.0.0.1:8080"
CURSOR = r"[A-Za-z0-9]{8}-\d+"


def blocks(title: str, language: str) -> list[str]:
    """Of a section."""
    section = README.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def curl_lines(title: str) -> dict[str, str]:
    """Comment to line."""
    lines = [
        line
        for block in blocks(title, "sh")
        for line in block.splitlines()
        if line.startswith("curl ")
    ]
    assert all(ADDRESS in line for line in lines), lines
    return {line.partition(" # ")[2].strip(): line for line in lines}


class Shell:
    """Types lines of the README, with the address of a running server."""

    def __init__(self, address: str):
        self.address = address

    def start(self, line: str, **words: str) -> subprocess.Popen:
        for old, new in {ADDRESS: self.address, **words}.items():
            assert old in line, f"{old} is not in: {line}"
            line = line.replace(old, new)
        return subprocess.Popen(
            ["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, line: str, **words: str) -> str:
        output, errors = self.start(line, **words).communicate(timeout=STEP_S_MAX)
        assert output, f"{line} printed nothing but {errors}"
        return output


def answer(printed: str) -> tuple[int, str, list]:
    """Status, cursor and messages of what `curl -i` printed."""
    head, _, body = printed.partition("\n\n")
    cursor = re.search(rf"^Throng-Cursor: ({CURSOR})$", head, re.MULTILINE)
    assert cursor, printed
    return int(head.split()[1]), cursor[1], json.loads(body) if body else []


def test_each_line_does_what_its_comment_says(start):
    server = start(echo=False)
    shell = Shell(server.address)
    lines = curl_lines("Quick start")

    publish = lines.pop("publish; the answer is its cursor")
    cursors = []

    def published() -> str:
        (cursor,) = re.fullmatch(rf'\{{"id":"({CURSOR})"\}}\n', shell.run(publish)).groups()
        cursors.append(cursor)
        return cursor

    published()

    # It says where it starts as soon as it listens.
    listener = shell.start(lines.pop("listen, as an EventSource does"))
    heard = [listener.stdout.readline() for _ in range(3)]
    assert re.fullmatch(r"retry: \d+\n", heard[0])
    assert heard[1:] == [f"id: {cursors[-1]}\n", "\n"]
    heard_id = published()
    assert [listener.stdout.readline() for _ in range(3)] == [
        f"id: {heard_id}\n",
        "data: hello\n",
        "\n",
    ]

    long_poll = lines.pop("long poll: the next message, or 204")
    waiting = shell.start(long_poll)
    # It may not wait yet when the first is published.
    eventually("it has the next message", lambda: published() and waiting.poll() is not None)
    status, cursor, messages = answer(waiting.communicate()[0])
    assert (status, messages) == (200, [{"id": cursor, "data": "hello"}])
    assert cursor in cursors
    status, cursor, messages = answer(shell.run(long_poll, **{"wait=30": "wait=1"}))
    assert (status, cursor, messages) == (204, cursors[-1], [])

    status, cursor, messages = answer(shell.run(lines.pop("poll: what is kept")))
    assert (status, cursor) == (200, cursors[-1])
    assert messages == [{"id": id, "data": "hello"} for id in cursors]

    go_on = lines.pop("go on from a Throng-Cursor")
    waiting = shell.start(go_on, CURSOR=cursor)
    next_id = published()
    status, cursor, messages = answer(waiting.communicate(timeout=STEP_S_MAX)[0])
    assert (status, cursor, messages) == (200, next_id, [{"id": next_id, "data": "hello"}])
    status, cursor, messages = answer(shell.run(go_on, CURSOR=cursors[0]))
    assert (status, [message["id"] for message in messages]) == (200, cursors[1:])

    assert lines == {}, "there are lines in the README that nothing here knows"
    server.signal()
    heard = listener.communicate(timeout=STEP_S_MAX)[0]
    assert heard.count("data: hello\n") == len(cursors) - 2  # all but the first, and one above


SDKS = "With Centrifugo's SDKs"


class Script:
    """JavaScript of the README under Node, with the address of a running server."""

    def __init__(self, source: str, address: str, folder: Path):
        (folder / "node_modules").symlink_to(NODE_ENV / "node_modules")
        # What Node 22 has of its own.
        (folder / "websocket.cjs").write_text("globalThis.WebSocket ??= require('ws');")
        (folder / "news.mjs").write_text(source.replace(ADDRESS, address))
        self.process = subprocess.Popen(
            ["node", "--require", "./websocket.cjs", "news.mjs"],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def prints(self) -> str:
        return self.lines.get(timeout=STEP_S_MAX)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.node
def test_the_javascript_hears_what_the_commands_publish(
    start, killed_and_restarted, tmp_path, monkeypatch
):
    (serve,) = [
        line for block in blocks(SDKS, "sh") for line in block.splitlines() if " -- serve " in line
    ]
    command = shlex.split(serve)
    assert any("export THRONG_API_KEY=" in block for block in blocks(SDKS, "sh"))
    monkeypatch.setenv("THRONG_API_KEY", secrets.token_hex(32))
    options = command[command.index("serve") + 1 :]
    server = start(*options, echo=False)
    shell, lines = Shell(server.address), curl_lines(SDKS)
    source = blocks(SDKS, "js")[0]
    with contextlib.closing(Script(source, server.address, tmp_path)) as script:
        assert script.prints() == "1 { from: 'JavaScript' }"
        answer = json.loads(shell.run(lines.pop("the server API")))
        assert answer["result"]["offset"] == 2
        assert script.prints() == "2 { n: 1 }"
        publish = lines.pop("the topic's URL")
        assert re.fullmatch(CURSOR, json.loads(shell.run(publish))["id"])
        assert script.prints() == "3 { n: 2 }"
        present = json.loads(shell.run(lines.pop("who is there")))
        assert len(present["clients"]) == 1, present
        assert lines == {}, "there are lines in the README that nothing here knows"
        killed_and_restarted(server, *options)
        assert script.prints() == "what was missed is no longer kept"
        shell.run(publish)
        assert script.prints() == "1 { n: 2 }"
