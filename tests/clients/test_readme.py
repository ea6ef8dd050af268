"""The `curl` lines of README's quick start, as they stand: each does what its comment says."""

import json
import re
import subprocess
from pathlib import Path

from conftest import eventually
from drivers import STEP_S_MAX

README = Path(__file__).parents[2] / "README.md"
ADDRESS = "127.0.0.1:8080"
CURSOR = r"[A-Za-z0-9]{8}-\d+"


def quick_start() -> dict[str, str]:
    """Comment to line."""
    section = README.read_text().split("\n## Quick start\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("curl ")]
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
    lines = quick_start()

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
