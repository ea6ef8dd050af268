"""`throng connect`: in a pseudo-terminal and in pipes, against throng, Node's `ws`, and servers that break the rules."""

import base64
import hashlib
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path

import pytest

from conftest import NODE_ENV, THRONG, eventually

STEP_S_MAX = 60
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# What the line editor and the colours say to the terminal.
SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CTRL_C = "\x03"


class Terminal:
    """The command in a terminal of its own, 200 columns wide."""

    def __init__(self, *arguments: str):
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        self.slave = slave
        self.settings = termios.tcgetattr(slave)
        environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            [THRONG, "connect", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        self.raw, self.seen = "", 0

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self.master], [], [], timeout_s)[0]:
            return False
        self.raw += os.read(self.master, 65536).decode(errors="replace")
        return True

    @property
    def text(self) -> str:
        return SEQUENCES.sub("", self.raw).replace("\r", "\n")

    def expect(self, pattern: str) -> re.Match:
        """The next place that matches, behind the one before."""
        deadline = time.monotonic() + STEP_S_MAX
        while not (found := re.compile(pattern).search(self.text, self.seen)):
            left = deadline - time.monotonic()
            assert left > 0 and self._read(left), f"no {pattern!r} in:\n{self.text}"
        self.seen = found.end()
        return found

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def enter(self, line: str) -> None:
        self.type(line + "\r")

    def exit_status(self) -> int:
        deadline = time.monotonic() + STEP_S_MAX
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end:\n{self.text}"
            self._read(0.02)
        while self._read(0):
            pass
        return self.process.returncode

    def is_as_it_was(self) -> bool:
        return termios.tcgetattr(self.slave) == self.settings

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.slave)
        os.close(self.master)


@pytest.fixture
def terminal():
    """`terminal("ws://...", "--flag")` runs the command."""
    terminals = []

    def terminal(*arguments: str) -> Terminal:
        terminals.append(Terminal(*arguments))
        return terminals[-1]

    yield terminal
    for each in terminals:
        each.end()


def run(*arguments: str, lines: str | bytes = b"") -> subprocess.CompletedProcess:
    """The command in pipes, to its end."""
    lines = lines.encode() if isinstance(lines, str) else lines
    return subprocess.run(
        [THRONG, "connect", *arguments], input=lines, capture_output=True, timeout=STEP_S_MAX
    )


Script = Callable[[socket.socket, bytes], None]


@pytest.fixture
def serve():
    """`serve(script)` listens; the script is given each connection and the request's head. What it gives is the address."""
    listeners = []

    def serve(script: Script) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    peer = listener.accept()[0]
                except OSError:
                    return
                threading.Thread(target=one, args=(peer,), daemon=True).start()

        def one(peer: socket.socket) -> None:
            with peer:
                peer.settimeout(STEP_S_MAX)
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    if not (byte := peer.recv(1)):
                        return
                    head += byte
                try:
                    script(peer, head)
                except OSError:
                    pass  # the client has gone, as it may

        threading.Thread(target=accept, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for listener in listeners:
        # Wakes the thread that accepts.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def switching(head: bytes, *fields: str) -> bytes:
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)[1]
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}",
        *fields,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def sends(*frames: bytes, fields: tuple[str, ...] = (), then_reads: bool = True) -> Script:
    """Upgrades, sends frames as they are, and reads until the client has gone."""

    def script(peer: socket.socket, head: bytes) -> None:
        peer.sendall(switching(head, *fields) + b"".join(frames))
        while then_reads and peer.recv(65536):
            pass

    return script


def text(payload: str | bytes) -> bytes:
    payload = payload.encode() if isinstance(payload, str) else payload
    assert len(payload) < 126
    return bytes([0x81, len(payload)]) + payload


def close(code: int, reason: str = "") -> bytes:
    payload = code.to_bytes(2, "big") + reason.encode()
    return bytes([0x88, len(payload)]) + payload


# In a terminal.


def test_a_terminal_shows_text_bytes_pings_and_the_close(start, terminal):
    client = terminal(start().url)
    client.expect(r"connected to ws://127\.0\.0\.1:\d+/ in ")
    client.enter("żółw 🐢")
    client.expect(r"→ \d+\.\d{3} text 12 B\n")
    client.expect(r"← \d+\.\d{3} text 12 B  żółw 🐢")
    client.enter("//not a command")
    client.expect(r"← \S+ text 14 B  /not a command")
    client.enter("/binary 00 ff 41")
    client.expect(r"→ \S+ binary 3 B\s+00000000  00 ff 41 +\|\.\.A\|")
    client.expect(r"← \S+ binary 3 B\s+00000000  00 ff 41 +\|\.\.A\|")
    client.enter("/ping there?")
    client.expect(r"→ \S+ ping 6 B  there\?")
    client.expect(r"← \S+ pong 6 B, round trip [\d.]+ (us|ms|s)  there\?")
    client.enter("/nonsense")
    client.expect(r"there is no command /nonsense")
    client.enter("/help")
    client.expect(r"/close \[CODE\] \[REASON\]")
    client.enter("/close 4000 that is all")
    client.expect(r'→ \S+ close 13 B, 4000 the application\'s own code: "that is all"')
    client.expect(r"closed by this side: 4000 .*; the server answered")
    assert client.exit_status() == 0
    assert client.is_as_it_was()


def test_history_is_a_key_away_and_frames_leave_the_line_alone(start, terminal):
    server = start("--client-publish")
    client = terminal(server.topic("t", "ws"))
    client.expect("connected to")
    client.enter("first")
    client.expect(r"← \S+ text 5 B  first")
    client.type("half a l")
    client.expect("half a l")
    assert run(server.topic("t"), "--post", "from elsewhere").returncode == 0
    client.expect(r"← \S+ text 14 B  from elsewhere\s+> half a l")
    client.enter("ine")
    client.expect(r"← \S+ text 11 B  half a line")
    client.enter("\x1b[A\x1b[A")
    client.expect(r"← \S+ text 5 B  first")


def test_ctrl_c_closes_with_1000_and_a_second_one_ends(start, serve, terminal):
    client = terminal(start().url)
    client.expect("connected to")
    client.expect("> ")  # the editor reads keys from here on
    client.type(CTRL_C)
    client.expect("closed by this side: 1000 normal closure; the server answered")
    assert client.exit_status() == 0
    assert client.is_as_it_was()

    got = []

    def deaf(peer: socket.socket, head: bytes) -> None:
        peer.sendall(switching(head))
        while data := peer.recv(1000):
            got.append(data)

    client = terminal(f"ws://{serve(deaf)}/")
    client.expect("connected to")
    client.expect("> ")  # the editor reads keys from here on
    client.type(CTRL_C)
    client.expect("close 2 B, 1000 normal closure")
    client.type(CTRL_C)
    assert client.exit_status() in (0, 130)  # 0 where it took the second one too long to come
    assert client.is_as_it_was()
    eventually("the peer has read the Close", lambda: got)
    assert got[0][0] == 0x88


def test_a_server_that_does_not_answer_a_close_is_left(serve, terminal):
    client = terminal(f"ws://{serve(sends())}/")
    client.expect("connected to")
    client.enter("/close")
    client.expect("closed by this side with 1000, which the server did not answer")
    assert client.exit_status() == 0


def test_what_a_hostile_server_sends_does_nothing_to_the_terminal(serve, terminal):
    clear, title, c1 = "\x1b[2J", "\x1b]0;owned\x07", "\x9b31m"
    evil = f"{clear}{title}{c1}\u202egnp.exe\r\n"
    address = serve(
        sends(
            text(evil),
            b"\x89\x08" + (clear + clear).encode(),
            b"\x82\x04" + clear.encode(),
            close(4000, evil),
            fields=("Sec-WebSocket-Extensions: ", f"Throng-Cursor: {c1}"),
        )
    )
    client = terminal(f"ws://{address}/")
    client.expect(r"text \d+ B  \\x1b\[2J\\x1b\]0;owned\\x07\\u\{9b\}31m\\u\{202e\}gnp.exe\\r\\n")
    client.expect(r"closed by the server: 4000 .*\\x1b\[2J")
    assert client.exit_status() == 3
    for part in (clear, "\x1b]0;", "\x9b", "\u202e", "\x07"):
        assert part not in client.raw, repr(client.raw)

    def refuses(peer: socket.socket, _: bytes) -> None:
        body = f'{{"detail":"{evil}"}}'.encode("unicode_escape")
        peer.sendall(
            b"HTTP/1.1 403 No\r\nContent-Type: application/problem+json\r\nWWW-Authenticate: \xc2\x9b31m\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    client = terminal(f"ws://{serve(refuses)}/")
    client.expect("refused: 403 No")
    assert client.exit_status() == 1
    for part in (clear, "\x1b]0;", "\x9b", "\u202e", "\x07"):
        assert part not in client.raw, repr(client.raw)


@pytest.mark.node
def test_node_ws_is_spoken_with(terminal):
    script = Path(__file__).parent / "node_server.mjs"
    node = subprocess.Popen(
        ["node", script, NODE_ENV], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        address = f"127.0.0.1:{int(node.stdout.readline())}"
        client = terminal(f"ws://{address}/echo", "--compression", "--time", "none")
        client.expect(r"connected to .*, permessage-deflate")
        client.expect(r"← ping 9 B  from node")
        client.expect(r"→ pong 9 B  from node")
        client.enter("again and again and again and again")
        client.expect(r"→ text 35 B, compressed to \d+ B")
        client.expect(r"← text 35 B, compressed \d+ B  again and again and again and again")
        client.enter("/binary 000102")
        client.expect(r"← binary 3 B.*\s+00000000  00 01 02")
        client.enter("/ping")
        client.expect(r"← pong 0 B, round trip ")
        client.enter("/close")
        client.expect("closed by this side: 1000")
        assert client.exit_status() == 0

        client = terminal(f"ws://{address}/close")
        client.enter("x")
        client.expect('closed by the server: 4321 the application\'s own code: "that is all"')
        assert client.exit_status() == 3

        refused = run(f"ws://{address}/refuse")
        said = refused.stderr.decode()
        assert refused.returncode == 1
        for part in ("401 Unauthorized", "who there", "WWW-Authenticate: Bearer", "--token-file"):
            assert part in said, said
        assert "426" in run(f"http://{address}/").stderr.decode()
    finally:
        node.stdin.close()
        node.wait(STEP_S_MAX)


def test_an_event_stream_does_nothing_to_the_terminal_either(serve, terminal):
    """In chunks, as Node's servers send theirs."""
    evil = "\x1b[2J\x9b31m\u202e"

    def script(peer: socket.socket, head: bytes) -> None:
        assert b"\r\nAccept: text/event-stream\r\n" in head
        body = f"retry: 700\nid: {evil}\n\nevent: {evil}\ndata: {evil}\ndata: two\n\ndata: last\n\n".encode()
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:50], body[50:]))
        peer.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        )

    client = terminal(f"http://{serve(script)}/")
    client.expect(r"listening to http://")
    client.expect(r"id \\x1b\[2J\\u\{9b\}31m\\u\{202e\}, retry after 700 ms")
    client.expect(r"event `\\x1b\[2J.*` \d+ B  \\x1b\[2J\\u\{9b\}31m\\u\{202e\}\\ntwo")
    client.expect(r"event 4 B  last")
    client.expect("the server ended the stream")
    assert client.exit_status() == 0
    for part in ("\x1b[2J", "\x9b", "\u202e"):
        assert part not in client.raw, repr(client.raw)


# In pipes.


def test_lines_go_in_and_payloads_come_out(start):
    server = start()
    lines = [f"{n} żółw \\ " + "x" * (n % 300) for n in range(3000)]
    ended = run(
        server.url, "--raw", "--count", str(len(lines)), lines="".join(f"{line}\n" for line in lines)
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.decode().splitlines() == lines
    assert ended.stderr == b""


def test_a_pipe_of_more_than_fits_anywhere_waits_for_nobody(start):
    """Both sides send 40 MB to each other before either is done."""
    message = "y" * 60_000
    ended = run(start().url, "--raw", "--count", "700", lines=f"{message}\n" * 700)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.decode() == f"{message}\n" * 700


def test_slashes_of_a_pipe_are_text_unless_they_are_asked_for(start):
    server = start()
    assert run(server.url, "--raw", "--count", "1", lines="/ping\n").stdout == b"/ping\n"
    ended = run(server.url, "--slash", "--time", "none", lines="/ping x\n")
    assert b"pong 1 B, round trip" in ended.stdout
    executed = run(server.url, "-x", "/ping", "-x", "hello", "--time", "none")
    assert b"pong 0 B, round trip" in executed.stdout and "← text 5 B  hello" in executed.stdout.decode()
    wrong = run(server.url, "-x", "/nonsense")
    assert wrong.returncode == 2 and b"no command /nonsense" in wrong.stderr
    assert run(server.url, lines=b"\xff\n").returncode == 2


def test_it_stays_as_long_as_it_is_told(start):
    server = start()
    began = time.monotonic()
    assert run(server.url, "--linger", "0", lines="x\n").returncode == 0
    assert run(server.url, "--linger", "1.5", lines="x\n").returncode == 0
    assert time.monotonic() - began >= 1.5
    waiting = subprocess.Popen(
        [THRONG, "connect", server.url, "--linger", "forever"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert b"connected to" in waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(STEP_S_MAX) == 0
    assert b"closed by this side: 1000" in waiting.stderr.read()


def test_a_reader_that_goes_away_ends_it(start):
    server = start("--client-publish")
    command = f"{THRONG} connect {server.topic('t', 'ws')} --raw --linger forever <&0 | head -n 1"
    shell = subprocess.Popen(
        ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    for n in range(3):
        shell.stdin.write(f"{n}\n")
        shell.stdin.flush()
    assert shell.stdout.readline() == "0\n"
    deadline = time.monotonic() + STEP_S_MAX
    while shell.poll() is None:
        assert time.monotonic() < deadline
        try:
            shell.stdin.write("more\n")
            shell.stdin.flush()
        except BrokenPipeError:
            pass
        time.sleep(0.05)


def test_frames_and_json_are_shown_as_they_are_asked_for(serve):
    frames = (b"\x01\x02he", b"\x89\x01?", b"\x80\x03llo", text('{"b":1,"a":[true]}'), close(1000))
    address = serve(sends(*frames))
    shown = run(f"ws://{address}/", "--time", "none").stdout.decode()
    assert "← text 5 B, 2 fragments  hello\n" in shown and "frame" not in shown
    shown = run(f"ws://{address}/", "--time", "none", "--frames", "--hide-pings").stdout.decode()
    assert "← frame: text 2 B, more to come  he\n" in shown
    assert "← frame: continuation 3 B, the last  llo\n" in shown
    assert "ping" not in shown
    shown = run(f"ws://{address}/", "--time", "none", "--pretty").stdout.decode()
    assert '← text 18 B\n    {\n      "b": 1,\n      "a": [\n        true\n      ]\n    }\n' in shown
    quiet = run(f"ws://{address}/", "--time", "none", "--quiet", "--linger", "forever")
    assert quiet.stdout.decode().count("\n") == 2 and quiet.stderr == b"", quiet
    shown = run(f"ws://{address}/", "--max-show", "3", "--time", "clock").stdout.decode()
    assert re.search(r'← \d\d:\d\d:\d\d\.\d{3}Z text 18 B  \{"b\n +\.\.\. and 15 B more', shown), shown


def test_compression_is_offered_and_shown(start):
    server = start("--compression")
    line = '{"symbol":"S1","price":31.25}' * 20
    ended = run(server.url, "--compression", "--count", "1", lines=line + "\n")
    assert b"permessage-deflate" in ended.stderr
    shown = ended.stdout.decode()
    assert re.search(r"→ \S+ text 580 B, compressed to \d\d B  ", shown), shown
    assert re.search(r"← \S+ text 580 B, compressed \d\d B  ", shown), shown
    plain = run(start().url, "--compression", "--count", "1", lines=line + "\n")
    assert b"the server declined" in plain.stderr


# Closing, and what goes wrong.


@pytest.mark.parametrize(
    "frame, status, words",
    [
        (close(1000), 0, "closed by the server: 1000 normal closure"),
        (b"\x88\x00", 0, "closed by the server: no code given"),
        (close(1001, "bye"), 3, '1001 going away: "bye"'),
        (close(1013), 3, "1013 try again later"),
        (close(3501), 3, "3501 bad request"),
        (close(4410, "gap: resume at abcdefgh-7"), 3, "4410 some messages are no longer kept"),
    ],
    ids=["1000", "none", "1001", "1013", "3501", "4410"],
)
def test_close_codes_are_said_in_words(serve, frame, status, words):
    ended = run(f"ws://{serve(sends(frame))}/", "--linger", "forever")
    assert (ended.returncode, words in ended.stderr.decode()) == (status, True), ended.stderr


@pytest.mark.parametrize(
    "frame, code, words",
    [
        (b"\x81\x82\0\0\0\0hi", 1002, "a server's frame is masked (RFC 6455, section 5.1)"),
        (b"\xc1\x02hi", 1002, "a reserved bit is set and no extension was agreed on (RFC 6455, section 5.2)"),
        (b"\x81\x01\xff", 1007, "text is not UTF-8 (RFC 6455, section 8.1)"),
        (b"\x09\x00", 1002, "a control frame is fragmented (RFC 6455, section 5.5)"),
        (b"\x88\x02\x03\xed", 1002, "the close code may not be sent (RFC 6455, section 7.4)"),
    ],
    ids=["masked", "reserved", "utf-8", "fragmented", "1005"],
)
def test_a_server_that_breaks_the_protocol_is_told_and_said_to(serve, frame, code, words):
    got = []

    def script(peer: socket.socket, head: bytes) -> None:
        peer.sendall(switching(head) + text("before") + frame)
        while data := peer.recv(1000):
            got.append(data)

    ended = run(f"ws://{serve(script)}/", "--linger", "forever")
    assert ended.returncode == 3
    assert f"the server broke the protocol: {words}; closed with {code}" in ended.stderr.decode()
    assert "before" in ended.stdout.decode()
    frame = b"".join(got)
    key, payload = frame[2:6], frame[6:8]
    assert frame[:2] == b"\x88\x82"
    assert bytes(a ^ b for a, b in zip(key, payload, strict=False)) == code.to_bytes(2, "big")


def test_a_connection_lost_is_said_to_be(serve):
    ended = run(f"ws://{serve(sends(text('x'), then_reads=False))}/", "--linger", "forever")
    assert ended.returncode == 3
    assert b"connection lost without a close (1006)" in ended.stderr


def test_a_refused_upgrade_is_explained(start):
    server = start()
    ended = run(server.url, "--origin", "http://evil.example")
    said = ended.stderr.decode()
    assert ended.returncode == 1 and ended.stdout == b""
    for part in ("403 Forbidden", "pages of this origin may not talk to this server", "origin_forbidden", "--origin"):
        assert part in said, said
    said = run(f"http://{server.address}/", "--poll").stderr.decode()
    assert "426 Upgrade Required" in said and "upgrade_required" in said
    old = run(server.url, "-H", "Sec-WebSocket-Version: 8")
    assert old.returncode == 1 and b"Sec-WebSocket-Version: 13" in old.stderr


def test_tls_is_refused_with_what_to_do():
    for url in ("wss://example.com/a", "https://example.com/a"):
        ended = run(url)
        said = ended.stderr.decode()
        assert ended.returncode == 2
        assert "TLS" in said and "socat" in said and "127.0.0.1:8443/a" in said


def test_a_server_that_is_none_is_told(serve):
    def tls(peer: socket.socket, _: bytes) -> None:
        peer.sendall(b"\x15\x03\x01\x00\x02\x02\x46")

    def ssh(peer: socket.socket, _: bytes) -> None:
        peer.sendall(b"SSH-2.0-x\r\n")

    def mistaken(peer: socket.socket, head: bytes) -> None:
        peer.sendall(switching(head).replace(b"Accept: ", b"Accept: A"))

    def silent(peer: socket.socket, _: bytes) -> None:
        peer.recv(1)

    for script, words in [
        (tls, "speaks TLS"),
        (ssh, "is not HTTP/1.1"),
        (mistaken, "does not belong to the key"),
        (silent, "no answer within 500.0 ms"),
    ]:
        ended = run(f"ws://{serve(script)}/", "--timeout", "0.5")
        assert (ended.returncode, words in ended.stderr.decode()) == (1, True), ended.stderr

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    ended = run(f"ws://127.0.0.1:{port}/")
    assert ended.returncode == 1 and f"nobody listens on 127.0.0.1:{port}" in ended.stderr.decode()
    ended = run("ws://no-such-host.invalid/")
    assert ended.returncode == 1 and b"no-such-host.invalid" in ended.stderr
    for arguments in [("ws://127.0.0.1:x/",), ("gopher://a/",), ("ws://a/", "--since", "7"), ()]:
        assert run(*arguments).returncode == 2, arguments


def test_redirects_are_named_and_followed_when_it_is_wished(start, serve):
    server, heads = start(), []

    def moved(peer: socket.socket, head: bytes) -> None:
        heads.append(head)
        peer.sendall(
            f"HTTP/1.1 307 Moved\r\nLocation: {server.url}\r\nContent-Length: 0\r\n\r\n".encode()
        )

    address = serve(moved)
    named = run(f"ws://{address}/")
    assert named.returncode == 1 and f"Location: {server.url}" in named.stderr.decode()
    followed = run(f"ws://{address}/", "--location", "--raw", "--count", "1", lines="hello\n")
    assert (followed.returncode, followed.stdout) == (0, b"hello\n")
    run(f"ws://{address}/", "--location", "--bearer", "s3cret", "--linger", "0")
    assert b"s3cret" in heads[-1] and b"s3cret" not in server.log.encode()


def test_headers_and_tokens_reach_the_server(serve, tmp_path):
    heads = []

    def script(peer: socket.socket, head: bytes) -> None:
        heads.append(head.decode())
        peer.sendall(switching(head, "Sec-WebSocket-Protocol: b") + close(1000))
        peer.recv(100)

    address = serve(script)
    (token := tmp_path / "token").write_text("abc.def\n")
    ended = run(
        f"ws://{address}/p?token=in-the-url",
        *("-H", "X-One: 1", "-H", "user-agent: mine", "--subprotocol", "a,b", "--origin", "http://o"),
        *("--token-file", str(token)),
    )
    assert ended.returncode == 0, ended.stderr
    for line in ("X-One: 1", "user-agent: mine", "Sec-WebSocket-Protocol: a, b", "Origin: http://o"):
        assert f"\r\n{line}\r\n" in heads[0], heads[0]
    assert "\r\nAuthorization: Bearer abc.def\r\n" in heads[0] and "User-Agent" not in heads[0]
    said = ended.stderr.decode()
    assert "subprotocol b" in said and "warning: `token` in the URL" in said


def test_an_ipv6_literal_is_an_address(start):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    server = start(listen=("[::1]:0",))
    ended = run(server.url, "--raw", "--count", "1", lines="six\n")
    assert (ended.returncode, ended.stdout) == (0, b"six\n"), ended.stderr


# Topics.


def test_a_topic_is_published_polled_and_listened_to(start):
    server = start()
    url = server.topic("t")
    for message in ("one", "two"):
        published = run(url, "--post", message)
        assert published.returncode == 0 and b"cursor " in published.stderr
    assert run(url, "--post", "-", lines=b"\x00\xff").returncode == 0  # neither text nor JSON: bytes
    polled = run(url, "--poll", "--time", "none")
    assert polled.returncode == 0
    ids = re.findall(r"id (\S+)", polled.stdout.decode())
    assert len(ids) == 3 and "← text 3 B, id " in polled.stdout.decode()
    assert "binary 2 B" in polled.stdout.decode() and "00 ff" in polled.stdout.decode()
    assert run(url, "--poll", "--raw", "--since", ids[1]).stdout == b"\x00\xff"
    assert run(url, "--wait", "30", "--since", ids[0], "--raw", "--count", "2").stdout == b"two\n\x00\xff"
    heard = run(url, "--since", "earliest", "--count", "3", "--time", "none")
    assert heard.returncode == 0, heard.stderr
    shown = heard.stdout.decode()
    assert f"← event 3 B, id {ids[0]}  one\n" in shown and "00000000  00 ff" in shown
    over = run(server.topic("t", "ws") + "?frames=json", "--since", ids[0], "--count", "2", "--raw", "--linger", "forever")
    assert b'"data":"two"' in over.stdout and over.returncode == 0


def test_a_gap_is_said_aloud(start):
    server = start("--history-size", "2")
    url = server.topic("t")
    first = run(url, "--post", "0").stderr.decode()
    for n in range(1, 5):
        run(url, "--post", str(n))
    cursor = re.search(r"cursor (\S+)", first)[1]
    for how in (("--poll",), ("--wait", "1", "--count", "2"), ("--sse", "--count", "2")):
        ended = run(url, "--since", cursor, *how)
        assert "a gap: " in ended.stderr.decode(), (how, ended.stderr)
        assert "  4\n" in ended.stdout.decode()
    bare = run(server.topic("t", "ws"), "--since", cursor, "--linger", "forever")
    assert bare.returncode == 3 and b"4410 some messages are no longer kept" in bare.stderr
    back = run(server.topic("t", "ws"), "--since", cursor, "--reconnect", "--raw", "--count", "2", "--linger", "forever")
    assert (back.returncode, back.stdout) == (0, b"3\n4\n"), back.stderr


@pytest.mark.parametrize("how", ["json", "sse", "wait"])
def test_it_comes_back_and_misses_nothing(serve, start, how):
    """Through a server that is cut off after each message."""
    server = start()
    url = server.topic("t")
    cut = []

    def through(peer: socket.socket, head: bytes) -> None:
        host, port = server.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), STEP_S_MAX) as behind:
            behind.sendall(head)
            while data := behind.recv(65536):
                peer.sendall(data)
                if b'"data"' in data or b"data:" in data:
                    cut.append(data)
                    return

    address = serve(through)
    flags = {"json": ("ws", "?frames=json", ()), "sse": ("http", "", ("--sse",)), "wait": ("http", "", ("--wait", "20"))}
    scheme, query, more = flags[how]
    client = subprocess.Popen(
        [THRONG, "connect", f"{scheme}://{address}/topics/t{query}", *more]
        + ["--reconnect", "--raw", "--count", "4", "--linger", "forever", "--since", "earliest"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    for n in range(4):
        assert run(url, "--post", f"message {n}").returncode == 0
    out = client.communicate(timeout=STEP_S_MAX)[0].decode()
    assert client.returncode == 0
    assert re.findall(r"message \d", out) == [f"message {n}" for n in range(4)]
    assert len(cut) > 1 or how == "wait"
