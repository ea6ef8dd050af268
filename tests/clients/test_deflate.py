"""Compression as real clients negotiate it."""

import json
from pathlib import Path

import pytest

# The one that cannot.
PLAIN = "WebsocketClient"
WORDS = json.dumps([{"symbol": f"S{n % 7}", "price": n * 31 % 97 + 0.25} for n in range(400)])
CONTEXT = Path(__file__).parent.parent / "configs" / "compression.toml"


@pytest.mark.parametrize("options", [("--compression",), ("--config", str(CONTEXT))])
def test_a_client_that_can_compresses_both_ways(start, connect, options):
    server = start(*options)
    client = connect(server.url)
    for message in [WORDS, "short", "", WORDS, WORDS.encode(), b"\x00" * 65_536, WORDS]:
        client.send(message)
        assert client.receive() == message
    client.send(WORDS[:1000], WORDS[1000:1010], WORDS[1010:])
    assert client.receive() == WORDS
    client.ping(b"still there?")
    assert client.close(1000, "done") == (1000, "")
    assert server.metric("throng_opened_compressed_total") == (type(client).__name__ != PLAIN)


@pytest.mark.parametrize("options", [("--compression",), ("--config", str(CONTEXT))])
def test_a_publication_reaches_those_who_compress(start, connect, options):
    server = start(*options, "--client-publish")
    readers = [connect(server.topic("t", "ws")) for _ in range(3)]
    for message in [WORDS, "short", WORDS, WORDS.encode()]:
        readers[0].send(message)
        assert [reader.receive() for reader in readers] == [message] * 3


def test_a_message_over_the_limit_is_too_big_however_short_it_was_made(start, connect):
    client = connect(start("--compression").url)
    client.send("x" * 65_537)
    assert client.closed()[0] == 1009
