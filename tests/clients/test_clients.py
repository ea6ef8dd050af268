"""What every client must be able to do: each test runs once with each of them."""

import signal
import time

import pytest

MIB = 1 << 20


@pytest.mark.parametrize(
    "message",
    [
        "hello",
        "żółw 🐢 \0",
        "",
        b"\x00\xff\x80 not UTF-8",
        b"",
        "a" * 125,
        "a" * 126,
        b"b" * 65_536,
    ],
    ids=lambda message: f"{type(message).__name__}-{len(message)}",
)
def test_a_message_comes_back_as_it_was(start, connect, message):
    client = connect(start().url)
    client.send(message)
    assert client.receive() == message


@pytest.mark.parametrize(
    "message", ["ü" * (MIB // 2), bytes(range(256)) * (MIB // 256)], ids=["text", "binary"]
)
def test_a_mebibyte_comes_back_when_the_limit_allows_it(start, connect, message):
    client = connect(start("--max-message", str(MIB)).url)
    client.send(message)
    assert client.receive() == message
    client.send("and the connection lives on")
    assert client.receive() == "and the connection lives on"


def test_messages_come_back_in_order(start, connect):
    client = connect(start().url)
    messages = [f"{n} " + "x" * (n * 37 % 3000) for n in range(500)]
    for message in messages:
        client.send(message)
    assert [client.receive() for _ in messages] == messages


@pytest.mark.parametrize(
    "fragments",
    [
        ("a", "", "c"),
        (b"\x00", b"\xff", b""),
        tuple("🐢" * n for n in range(1, 40)),
        (b"z" * 40_000, b"y" * 25_536),
    ],
    ids=["text", "binary", "many", "large"],
)
def test_a_fragmented_message_comes_back_whole(start, connect, fragments):
    client = connect(start().url)
    client.send(*fragments)
    assert client.receive() == type(fragments[0])().join(fragments)


def test_a_ping_is_answered_with_its_payload(start, connect):
    client = connect(start().url)
    for payload in (b"are you there", b"\xff" * 125):
        client.ping(payload)


def test_a_client_that_answers_pings_stays(start, connect):
    """The silent one that does not is in test_process.py, at the same settings."""
    client = connect(start("--ping-interval", "1", "--pong-timeout", "1").url)
    client.idle(4.5)
    client.send("still here")
    assert client.receive() == "still here"


@pytest.mark.parametrize("code, reason", [(1000, "done"), (1001, ""), (4321, "über")])
def test_the_server_echoes_a_close(start, connect, code, reason):
    client = connect(start().url)
    answered_code, answered_reason = client.close(code, reason)
    assert answered_code == code
    assert answered_reason in ("", reason)  # RFC 6455, section 5.5.1 asks for the code only


def test_sigterm_closes_with_going_away_and_exits_with_0(start, connect):
    server = start()
    clients = [connect(server.url) for _ in range(3)]
    server.signal()
    assert [client.closed()[0] for client in clients] == [1001] * 3
    assert server.exit_status() == 0


@pytest.mark.parametrize("size", [65_537, 768 << 10])
def test_a_message_over_the_limit_is_closed_with_too_big(start, connect, size):
    """Also while the client is still sending: the close must not be lost to a reset.

    Up to 1 MiB, that is: the server discards no more than that before it gives a peer up.
    """
    client = connect(start().url)
    client.send("before")
    client.send(b"x" * size)
    assert client.receive() == "before"
    assert client.closed()[0] == 1009


def test_nobody_gets_what_is_anothers(start, connect):
    """Stopped while they send, the server finds all of it in one turn of its loop."""
    server = start("--workers", "1")
    clients = [connect(server.url) for _ in range(8)]
    messages = [f"{n} " * (1 if n % 2 else 5000) for n in range(8)]
    for _ in range(3):
        server.signal(signal.SIGSTOP)
        for client, message in zip(clients, messages, strict=True):
            client.send(message)
        server.signal(signal.SIGCONT)
        assert [client.receive() for client in clients] == messages


def test_a_client_that_vanishes_harms_nobody(start, connect):
    server = start()
    stays, vanishes = connect(server.url), connect(server.url)
    vanishes.send(b"x" * 60_000)
    vanishes.abandon()
    time.sleep(0.1)
    stays.send("unharmed")
    assert stays.receive() == "unharmed"
