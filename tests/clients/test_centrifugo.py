"""Centrifugo's official SDKs, unmodified: each scenario with each, in JSON and in Protobuf."""

import json
import signal
import time

import pytest

from centrifugo_drivers import CONNECTION, NodeCentrifuge, PythonCentrifuge, Refused, Sdk
from conftest import NODE_ENV, eventually
from drivers import STEP_S_MAX, WebsocketClient

node = pytest.mark.node
TEXT, JSON, BYTES = "text/plain", "application/json", "application/octet-stream"


@pytest.fixture(
    params=[
        "python-json",
        "python-protobuf",
        pytest.param("node-json", marks=node),
        pytest.param("node-protobuf", marks=node),
        pytest.param("node-http_stream-json", marks=node),
        pytest.param("node-http_stream-protobuf", marks=node),
        pytest.param("node-sse-json", marks=node),
    ]
)
def sdk(request):
    """`sdk(address)` connects a client of each kind in turn."""
    language, *transport, form = request.param.split("-")
    clients: list[Sdk] = []

    def sdk(address: str, waits: bool = True) -> Sdk:
        protobuf = form == "protobuf"
        if language == "node":
            clients.append(NodeCentrifuge(address, protobuf, NODE_ENV, *transport))
        else:
            clients.append(PythonCentrifuge(address, protobuf))
        if waits:
            clients[-1].event(CONNECTION, "connecting")
            clients[-1].event(CONNECTION, "connected")
        return clients[-1]

    yield sdk
    for client in clients:
        client.end()


def payload(client: Sdk, number: int, length: int = 0):
    """What this client publishes and hears as this number: in JSON."""
    value = {"n": number, "pad": "x" * length}
    return json.dumps(value).encode() if client.protobuf else value


def number(client: Sdk, publication: dict) -> int:
    data = publication["data"]
    return (json.loads(data) if client.protobuf else data)["n"]


def post(publisher, server, count: int, topic: str = "t", first: int = 0, length: int = 0):
    """Publishes numbers by POST; their cursors."""
    return [
        publisher.publish(
            server.topic(topic), json.dumps({"n": n, "pad": "x" * length}), Content_Type=JSON
        )
        for n in range(first, first + count)
    ]


def position(cursor: str) -> list:
    epoch, offset = cursor.split("-")
    return [epoch, int(offset)]


# --- Connections and subscriptions. ---


def test_a_client_connects_and_disconnects(start, sdk):
    server = start()
    client = sdk(server.address, waits=False)
    client.event(CONNECTION, "connecting")
    id = client.event(CONNECTION, "connected")["client"]
    assert [len(part) for part in id.split("-")] == [8, 4, 4, 4, 12]
    client.disconnect()
    assert client.event(CONNECTION, "disconnected")["code"] == 0  # its own wish
    eventually("the connection is gone", lambda: server.metric("throng_connections") <= 1)
    client.reconnect()
    client.event(CONNECTION, "connecting")
    assert client.event(CONNECTION, "connected")["client"] != id


def test_a_subscription_says_where_it_begins(start, sdk, httpx_client):
    server = start()
    cursors = post(httpx_client, server, 3)
    client = sdk(server.address)
    seen = client.subscribed("t")
    assert seen["position"] == position(cursors[-1])
    assert seen["recoverable"] and seen["positioned"]
    assert not seen["recovered"] and not seen["was_recovering"]
    post(httpx_client, server, 1, first=3)
    assert number(client, client.event("t", "publication")) == 3, "and not what came before it"


def test_without_history_there_is_no_position(start, sdk, httpx_client):
    server = start("--history-size", "0")
    client = sdk(server.address)
    seen = client.subscribed("t")
    assert (seen["position"], seen["recoverable"], seen["positioned"]) == (None, False, False)
    post(httpx_client, server, 1)
    assert client.event("t", "publication")["offset"] == 0
    with pytest.raises(Refused) as refused:
        client.history("t")
    assert refused.value.code == 108


def test_who_does_not_ask_for_recovery_gets_none(start, sdk, proxy, httpx_client):
    server = start()
    between = proxy(server)
    client = sdk(between.address)
    seen = client.subscribed("t", recoverable=False)
    assert (seen["position"], seen["recoverable"]) == (None, False)
    between.cut()
    seen = client.resubscribed("t")
    assert not seen["was_recovering"] and not seen["recovered"]


def test_who_unsubscribes_hears_no_more_and_may_come_back(start, sdk, httpx_client):
    server = start()
    client = sdk(server.address)
    client.subscribed("t")
    client.subscribed("other")
    post(httpx_client, server, 1)
    assert number(client, client.event("t", "publication")) == 0
    client.unsubscribe("t")
    assert client.event("t", "unsubscribed")["code"] == 0  # its own wish
    # Unsubscribing is not waited for; this is behind it.
    client.history("t")
    post(httpx_client, server, 1, first=1)
    post(httpx_client, server, 1, "other", first=7)
    assert number(client, client.event("other", "publication")) == 7
    # It comes back to where it was.
    client.subscribe("t")
    client.event("t", "subscribing")
    assert client.event("t", "subscribed")["recovered"]
    assert number(client, client.event("t", "publication")) == 1


def test_one_connection_holds_100_subscriptions(start, sdk, httpx_client):
    server = start("--workers", "2")
    client = sdk(server.address)
    channels = [f"channel:{n}" for n in range(100)]
    for channel in channels:
        client.subscribe(channel)
    for channel in channels:
        client.event(channel, "subscribing")
        client.event(channel, "subscribed")
    for n, channel in enumerate(channels):
        post(httpx_client, server, 1, channel, first=n)
    for n, channel in enumerate(channels):
        assert number(client, client.event(channel, "publication")) == n


def test_a_subscription_too_many_is_refused_with_106(start, sdk, httpx_client):
    server = start()
    client = sdk(server.address)
    for n in range(128):
        client.subscribe(f"{n}")
    for n in range(128):
        client.event(f"{n}", "subscribing")
        client.event(f"{n}", "subscribed")
    client.subscribe("128")  # behind the others: without a WebSocket each comes by a request of its own
    client.event("128", "subscribing")
    assert client.event("128", "unsubscribed")["code"] == 106
    client.unsubscribe("0")
    client.event("0", "unsubscribed")
    client.subscribed("128")
    post(httpx_client, server, 1, "128")
    assert number(client, client.event("128", "publication")) == 0


@pytest.mark.parametrize("channel", ["two words", "ż", "x" * 256], ids=["space", "UTF-8", "long"])
def test_a_channel_that_can_be_no_topic_is_refused_with_107(start, sdk, channel):
    client = sdk(start("--client-publish").address)
    client.subscribe(channel)
    client.event(channel, "subscribing")
    assert client.event(channel, "unsubscribed")["code"] == 107
    with pytest.raises(Refused) as refused:
        client.publish(channel, payload(client, 0))
    assert refused.value.code == 107
    with pytest.raises(Refused) as refused:
        client.history(channel)
    assert refused.value.code == 107
    client.subscribed("x" * 255)


# --- Publications. ---


def test_a_client_hears_what_was_posted(start, sdk, httpx_client):
    client = sdk((server := start()).address)
    client.subscribed("kinds")
    for body, content_type, value, raw in [
        ("zażółć 🐢 \0", TEXT, "zażółć 🐢 \0", "zażółć 🐢 \0".encode()),
        ("a\r\nb\n", TEXT, "a\r\nb\n", b"a\r\nb\n"),
        ("", TEXT, "", b""),
        ('{"a": [1, null, "\\u0007"]}', JSON, {"a": [1, None, "\x07"]}, None),
        ('{\r\n  "pretty": [\n    1\n  ]\n}\n', JSON, {"pretty": [1]}, None),
        ("7", JSON, 7, b"7"),
        (b"\x00\xff\x80", BYTES, {"base64": "AP+A"}, b"\x00\xff\x80"),
        (b"", BYTES, {"base64": ""}, b""),
        ("x" * 60_000, TEXT, "x" * 60_000, b"x" * 60_000),
    ]:
        cursor = httpx_client.publish(server.topic("kinds"), body, Content_Type=content_type)
        heard = client.event("kinds", "publication")
        expected = (body.encode() if raw is None else raw) if client.protobuf else value
        assert heard["data"] == expected
        assert (heard["offset"], heard["client"]) == (position(cursor)[1], None)


def test_both_kinds_of_client_meet_on_a_topic(start, sdk, httpx_client):
    server = start("--client-publish", "--workers", "2")
    bare = WebsocketClient(server.topic("a%2Fb:c", "ws"))
    framed = WebsocketClient(server.topic("a%2Fb:c", "ws") + "?frames=json")
    speaker, listener = sdk(server.address), sdk(server.address)
    for client in (speaker, listener):
        client.subscribed("a/b:c")
    said = {"text": "zażółć 🐢 \0\n", "n": [1, None]}
    speaker.publish("a/b:c", json.dumps(said).encode() if speaker.protobuf else said)
    for client in (speaker, listener):
        heard = client.event("a/b:c", "publication")
        assert (json.loads(heard["data"]) if client.protobuf else heard["data"]) == said
        assert len(heard["client"]) == 36
    message = bare.receive()
    assert isinstance(message, str) and json.loads(message) == said
    assert json.loads(framed.receive())["data"] == said
    if speaker.protobuf:
        for raw in (b"\x00\xff no JSON", b"nor this"):
            speaker.publish("a/b:c", raw)
            assert listener.event("a/b:c", "publication")["data"] == raw
            assert bare.receive() == raw
    # And back.
    for message, value in [("text", "text"), (b"\xff", {"base64": "/w=="})]:
        bare.send(message)
        raw = message.encode() if isinstance(message, str) else message
        heard = listener.event("a/b:c", "publication")["data"]
        assert heard == (raw if listener.protobuf else value)
    assert httpx_client.request("GET", server.topic("a%2Fb:c")).json[0]["data"] == said
    bare.abandon()
    framed.abandon()


@node
def test_both_formats_and_both_sdks_meet_on_a_topic(start):
    server = start("--client-publish", "--workers", "2")
    clients = [
        kind(server.address, protobuf, *more)
        for kind, *more in ((NodeCentrifuge, NODE_ENV), (PythonCentrifuge,))
        for protobuf in (False, True)
    ]
    clients += [
        NodeCentrifuge(server.address, protobuf, NODE_ENV, transport)
        for transport, protobuf in (("http_stream", False), ("http_stream", True), ("sse", False))
    ]
    for client in clients:
        client.subscribed("t")
    for n, speaker in enumerate(clients):
        speaker.publish("t", payload(speaker, n))
        heard = [client.event("t", "publication") for client in clients]
        assert [number(*each) for each in zip(clients, heard, strict=True)] == [n] * 7
        assert len({each["client"] for each in heard}) == 1
        assert {each["offset"] for each in heard} == {n + 1}
    for client in clients:
        client.end()


def test_clients_publish_only_where_they_may(start, sdk, httpx_client):
    server = start()
    client = sdk(server.address)
    client.subscribed("t")
    with pytest.raises(Refused) as refused:
        client.publish("t", payload(client, 0))
    assert refused.value.code == 103
    assert httpx_client.request("GET", server.topic("t")).json == []
    post(httpx_client, server, 1, first=1)
    assert number(client, client.event("t", "publication")) == 1


# --- History. ---


def test_history_is_read_from_either_end_and_from_a_position(start, sdk, httpx_client):
    server = start()
    cursors = post(httpx_client, server, 10)
    epoch, head = position(cursors[-1])
    client = sdk(server.address)
    for options, expected in [
        ({}, range(10)),
        ({"limit": 0}, []),
        ({"limit": 3}, range(3)),
        ({"limit": 100}, range(10)),
        ({"reverse": True}, range(9, -1, -1)),
        ({"reverse": True, "limit": 3}, range(9, 6, -1)),
        ({"since": (epoch, 0)}, range(10)),
        ({"since": (epoch, 4)}, range(4, 10)),
        ({"since": ("", 4)}, range(4, 10)),
        ({"since": (epoch, 4), "limit": 2}, range(4, 6)),
        ({"since": (epoch, 10)}, []),
        ({"since": (epoch, 4), "reverse": True}, range(2, -1, -1)),
    ]:
        publications, at = client.history("t", **options)
        assert at == (epoch, head), options
        assert [number(client, each) for each in publications] == [*expected], options
        assert [each["offset"] for each in publications] == [n + 1 for n in expected], options


def test_history_since_what_is_no_longer_known_is_refused_with_112(start, sdk, httpx_client):
    server = start("--history-size", "5")
    epoch, _ = position(post(httpx_client, server, 10)[-1])
    client = sdk(server.address)
    assert [number(client, each) for each in client.history("t")[0]] == [*range(5, 10)]
    assert len(client.history("t", since=(epoch, 5))[0]) == 5
    for since in [(epoch, 4), (epoch, 11), ("otherone", 7), ("no epoch of ours", 7)]:
        with pytest.raises(Refused) as refused:
            client.history("t", since=since)
        assert refused.value.code == 112, since


def test_history_is_300_publications_at_most(start, sdk, httpx_client):
    server = start()
    post(httpx_client, server, 320)
    client = sdk(server.address)
    for limit in (-1, 301, 2**31 - 1):
        publications, _ = client.history("t", limit=limit)
        assert [number(client, each) for each in publications] == [*range(300)], limit


# --- Who was away. ---


def test_nothing_is_lost_while_the_connection_is_cut_again_and_again(
    start, sdk, proxy, httpx_client
):
    server = start("--workers", "2")
    between = proxy(server)
    client = sdk(between.address)
    seen = client.subscribed("t")
    epoch, _ = seen["position"]
    heard = []
    for first in range(0, 300, 25):
        # Some of them are on their way when it is cut, and some come while it is away.
        cursors = post(httpx_client, server, 15, first=first)
        heard += client.publications("t", max(0, first + 10 - len(heard)))
        between.cut()
        cursors += post(httpx_client, server, 10, first=first + 15)
        assert all(position(cursor)[0] == epoch for cursor in cursors)
    heard += client.publications("t", 300 - len(heard))
    assert [number(client, each) for each in heard] == [*range(300)]
    assert [each["offset"] for each in heard] == [*range(1, 301)]
    assert len(between.requests) > 10, "it was not cut"
    post(httpx_client, server, 1, first=300)
    assert [number(client, each) for each in client.publications("t", 1)] == [300]


@pytest.mark.parametrize("length", [100, 3000, 20_000])
def test_more_than_16_kib_are_recovered(start, sdk, httpx_client, length):
    """The reply holds a part, the rest follows, and so does what is published meanwhile."""
    server = start("--workers", "2")
    client = sdk(server.address)
    client.subscribed("t")
    count = max(8, 40_000 // length)
    client.disconnect()
    post(httpx_client, server, count, length=length)
    client.reconnect()
    post(httpx_client, server, 8, first=count, length=length)
    assert client.event("t", "subscribing")
    seen = client.event("t", "subscribed")
    assert seen["recovered"] and seen["was_recovering"]
    heard = [client.event("t", "publication") for _ in range(count + 8)]
    assert [number(client, each) for each in heard] == [*range(count + 8)]


def test_a_killed_server_has_forgotten_and_its_clients_go_on(
    start, sdk, killed_and_restarted, httpx_client
):
    server = start()
    post(httpx_client, server, 3)
    client = sdk(server.address)
    before = client.subscribed("t")
    server = killed_and_restarted(server)
    cursor = post(httpx_client, server, 1, first=3)[0]
    seen = client.resubscribed("t")
    assert seen["was_recovering"] and not seen["recovered"]
    assert seen["position"][0] == position(cursor)[0] != before["position"][0]
    # The new server's first message came before or behind the subscription.
    n = seen["position"][1]
    post(httpx_client, server, 1, first=4)
    heard = client.publications("t", 2 - n)
    assert [number(client, each) for each in heard] == [*range(3 + n, 5)]


def test_who_was_away_for_too_long_is_told(start, sdk, httpx_client):
    server = start("--history-size", "5")
    client = sdk(server.address)
    client.subscribed("t")
    for missed, recovered in [(5, True), (6, False), (5, True)]:
        client.disconnect()
        cursors = post(httpx_client, server, missed)
        client.reconnect()
        client.event("t", "subscribing")
        seen = client.event("t", "subscribed")
        assert (seen["was_recovering"], seen["recovered"]) == (True, recovered)
        if recovered:
            heard = [client.event("t", "publication") for _ in range(5)]
            assert [number(client, each) for each in heard] == [*range(5)]
        else:
            assert seen["position"] == position(cursors[-1])
    post(httpx_client, server, 1, first=9)
    assert number(client, client.event("t", "publication")) == 9


def test_a_draining_server_sends_its_clients_to_the_next(start, sdk, httpx_client):
    server = start()
    client = sdk(server.address)
    client.subscribed("t")
    server.signal(signal.SIGTERM)
    assert client.event(CONNECTION, "connecting")["code"] == 3001
    assert server.exit_status() == 0
    server = start(listen=(server.address,))
    seen = client.resubscribed("t")
    assert seen["was_recovering"] and not seen["recovered"]
    post(httpx_client, server, 1)
    assert number(client, client.event("t", "publication")) == 0


# --- Who reads slowly. ---

SMALL = ("--history-size", "10", "--history-bytes", "600000")


def publish_until_lagged(server, publisher) -> int:
    """Until the client took nothing of more than what is kept; the number of messages."""
    deadline = time.monotonic() + STEP_S_MAX
    count, idle, before = 0, 0, -1
    while idle < 3:
        assert time.monotonic() < deadline, "a client that does not read takes all the same"
        post(publisher, server, 10, first=count, length=60_000)
        count += 10
        sent = server.metric("throng_sent_bytes_total")
        # Answers and metrics are counted, too, but no message is.
        idle = idle + 1 if sent - before < 60_000 else 0
        before = sent
    return count


@pytest.mark.parametrize("policy", ["disconnect", "skip"])
def test_a_client_that_does_not_read_is_told(start, sdk, httpx_client, policy):
    """What it hears before is whole, and it goes on behind the gap."""
    server = start(*SMALL, "--slow", policy)
    client = sdk(server.address)
    client.subscribed("t")
    client.stop_reading()
    count = publish_until_lagged(server, httpx_client)
    client.read_on()
    numbers = []
    while (event := client.event("t", "publication", "subscribing"))["kind"] == "publication":
        numbers.append(number(client, event))
    assert numbers == [*range(len(numbers))]
    assert len(numbers) < count
    if policy == "disconnect":
        assert client.event(CONNECTION, "connecting")["code"] == 3008
        client.event(CONNECTION, "connected")
    else:
        assert event["code"] == 2500
    seen = client.event("t", "subscribed")
    assert seen["was_recovering"] and not seen["recovered"]
    post(httpx_client, server, 1, first=count)
    assert number(client, client.event("t", "publication")) == count
    assert server.metric("throng_lagged_total") == 1


# --- Nothing is left behind. ---


def held_bytes(server) -> float:
    """What the server has allocated, but for what it remembers of the latest ends."""
    series = server.series()
    return series["throng_allocated_bytes", ""] - series["throng_memory_bytes", 'purpose="recent_closes"']


def test_connecting_1000_times_leaves_nothing_behind(start, sdk):
    server = start("--workers", "1")
    client = sdk(server.address)
    client.subscribe("t")

    def again(count: int) -> float:
        for _ in range(count):
            client.event("t", "subscribing")
            client.event("t", "subscribed")
            client.disconnect()
            client.event(CONNECTION, "disconnected")
            client.reconnect()
            client.event(CONNECTION, "connecting")
            client.event(CONNECTION, "connected")
        return held_bytes(server)

    before = again(200)
    # Sessions that are left behind would be 200,000 with their subscriptions.
    assert again(800) - before < 100_000
    client.disconnect()
    # The one is the reader of the metric.
    eventually("all are gone", lambda: server.metric("throng_connections") == 1)
    assert server.metric("throng_accepted_total") > 1000
