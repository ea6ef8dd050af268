"""Topics with real clients: what any of them publishes reaches all of them, once and in order."""

import base64
import contextlib
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from conftest import NODE_ENV, eventually
from drivers import Disconnected, NodeWs, WebsocketClient, Websockets
from http_drivers import Event, Httpx, HttpxSse, NodeEventSource, NodeFetch

node = pytest.mark.node

# What is posted, and as which type.
TEXT, JSON, BYTES = "text/plain", "application/json", "application/octet-stream"
KINDS = [
    ("zażółć 🐢 \0", TEXT),
    ("", TEXT),
    ("one\r\ntwo\rthree\n\n five ", "text/plain; charset=UTF-8"),
    ("data: no field\nid: 7\n", TEXT),
    ("q=1&r=%20", "application/x-www-form-urlencoded"),
    ('{"a": [1, null, "\\u0007"]}', JSON),
    ('{\n  "pretty": [\n    1\n  ]\n}\n', "application/json; charset=utf-8"),
    ('{"a": 1}', "application/vnd.a+json"),
    ("text, but called bytes", BYTES),
    (b"\x00\xff\x80 not UTF-8", BYTES),
    (b"\x89PNG", "image/png"),
    (b"", BYTES),
    ("guessed to be text", None),
    (b"\xff guessed to be bytes", None),
    ("x" * 60_000, TEXT),
]


def expected(body, content_type):
    """The bare frame, the member of the poll element, and the event's type and data."""
    text = content_type is not None and content_type.startswith(("text/", "application/x-www"))
    if text or (content_type is None and isinstance(body, str)):
        lines = body.replace("\r\n", "\n").replace("\r", "\n")
        return body, ("data", body), ("message", lines)
    if content_type is not None and content_type.startswith(JSON):
        return body, ("data", json.loads(body)), ("message", body)
    data = body.encode() if isinstance(body, str) else body
    coded = base64.b64encode(data).decode()
    return data, ("base64", coded), ("base64", coded)


def publish_all(url: str, count: int, prefix: str = "", publisher=None) -> list[str]:
    """Publishes the numbers up to `count`, one after the other; their cursors."""
    publisher = publisher or Httpx()
    cursors = [publisher.publish(url, f"{prefix}{number}") for number in range(count)]
    publisher.end()
    return cursors


def lengths(seed: int, least: int, most: int):
    """Bytes after which connections are cut."""
    numbers = random.Random(seed)
    while True:
        yield numbers.randint(least, most)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(32) as pool:
        yield pool


# --- What a message is. ---


def test_a_subscriber_gets_what_was_posted(start, connect, http):
    """Whole and in chunks."""
    server = start()
    bare = connect(server.topic("kinds", "ws"))
    framed = connect(server.topic("kinds", "ws") + "?frames=json")
    assert bare.cursor == framed.cursor
    assert bare.cursor.endswith("-0")
    for body, content_type in KINDS:
        headers = {"Content_Type": content_type} if content_type else {}
        message, element, _ = expected(body, content_type)
        for chunk_bytes in (None, len(body) // 5 or 3):
            if chunk_bytes and content_type is None:
                continue  # libraries differ in the type that they give a stream
            cursor = http.publish(server.topic("kinds"), body, chunk_bytes, **headers)
            assert bare.receive() == message
            assert json.loads(framed.receive()) == {"id": cursor, element[0]: element[1]}


def test_a_listener_gets_what_was_posted(start, listen, httpx_client):
    server = start()
    stream = listen(server.topic("kinds"))
    for body, content_type in KINDS:
        headers = {"Content_Type": content_type} if content_type else {}
        cursor = httpx_client.publish(server.topic("kinds"), body, **headers)
        assert stream.receive() == Event(*expected(body, content_type)[2], cursor)
    fields = stream.response.headers
    assert fields["Content-Type"] == "text/event-stream"
    assert fields["Cache-Control"] == "no-store, no-transform"
    assert fields["X-Accel-Buffering"] == "no"
    assert 1000 <= stream.retry_ms <= 5000


@node
def test_an_event_source_gets_what_was_posted(start, event_source, httpx_client):
    server = start()
    source = event_source(server.topic("kinds"))
    for body, content_type in KINDS:
        headers = {"Content_Type": content_type} if content_type else {}
        cursor = httpx_client.publish(server.topic("kinds"), body, **headers)
        assert source.receive() == Event(*expected(body, content_type)[2], cursor)


def test_a_poll_gets_what_was_posted(start, http):
    server = start()
    url = server.topic("kinds")
    elements = []
    for body, content_type in KINDS:
        headers = {"Content_Type": content_type} if content_type else {}
        name, value = expected(body, content_type)[1]
        elements.append({"id": http.publish(url, body, **headers), name: value})
    answer = http.request("GET", url)
    assert (answer.status, answer.json) == (200, elements)
    assert answer.cursor == elements[-1]["id"] == http.request("HEAD", url).cursor
    assert answer.headers["cache-control"] == "no-store"
    assert {"Accept", "Origin"} <= set(answer.headers["vary"].split(", "))
    answer = http.request("GET", f"{url}?since={elements[2]['id']}&limit=3")
    assert (answer.json, answer.cursor) == (elements[3:6], elements[5]["id"])


def test_what_is_no_message_is_refused_and_reaches_nobody(start, listen, http):
    server = start()
    stream = listen(server.topic("t"))
    for body, headers, status, code in [
        ('{"a": [1}', {"Content-Type": JSON}, 400, "bad_message"),
        (b"\xff", {"Content-Type": TEXT}, 400, "bad_message"),
        ("x", {"Content-Type": "text/plain; charset=latin1"}, 415, "media_type"),
        ("x", {"Content-Type": TEXT, "Content-Encoding": "gzip"}, 415, "media_type"),
        (b"x" * 65_537, {"Content-Type": BYTES}, 413, "body_too_large"),
    ]:
        answer = http.request("POST", server.topic("t"), body, headers)
        assert (answer.status, answer.json["code"]) == (status, code), answer
        assert answer.headers["content-type"] == "application/problem+json"
    http.publish(server.topic("t"), "fine")
    assert stream.receive().data == "fine"


def test_a_publisher_keeps_its_connection(start, http):
    server = start()
    before = server.metric("throng_accepted_total")
    for number in range(20):
        http.publish(server.topic("t"), f"{number}", chunk_bytes=3 if number % 2 else None)
    # The second is the reader of the metric itself.
    assert server.metric("throng_accepted_total") - before == 2
    assert len(http.request("GET", server.topic("t")).json) == 20


def test_a_repeated_key_publishes_nothing_new(start, listen, http):
    server = start()
    stream = listen(server.topic("t"))
    first = http.publish(server.topic("t"), "first", Idempotency_Key="a")
    assert http.publish(server.topic("t"), "again", Idempotency_Key="a") == first
    assert http.publish(server.topic("t"), "other key", Idempotency_Key="b") != first
    assert http.publish(server.topic("other"), "other topic", Idempotency_Key="a") != first
    http.publish(server.topic("t"), "no key")
    assert [stream.receive().data for _ in range(3)] == ["first", "other key", "no key"]
    assert [element["data"] for element in http.request("GET", server.topic("other")).json] == [
        "other topic"
    ]


def test_a_key_that_many_use_at_once_publishes_one_message(start, httpx_client, pool):
    server = start("--workers", "4")
    url = server.topic("t")

    def publish(number: int) -> str:
        publisher = Httpx()
        cursor = publisher.publish(url, f"{number}", Idempotency_Key="race")
        publisher.end()
        return cursor

    cursors = set(pool.map(publish, range(16)))
    assert len(cursors) == 1
    assert [element["id"] for element in httpx_client.request("GET", url).json] == [*cursors]


def test_clients_publish_where_they_may(start, connect):
    server = start("--client-publish", "--workers", "2")
    one, other = (connect(server.topic("t", "ws")) for _ in range(2))
    one.send("hello")
    other.send(b"\x00\xff")
    heard = {one.receive(), one.receive()}
    assert heard == {other.receive(), other.receive()} == {"hello", b"\x00\xff"}


def test_clients_are_closed_with_1008_where_they_may_not_publish(start, connect, httpx_client):
    server = start()
    client = connect(server.topic("t", "ws"))
    client.send("hello")
    code, reason = client.closed()
    assert code == 1008
    assert "POST" in reason
    assert httpx_client.request("GET", server.topic("t")).json == []


# --- Who was away. ---


def test_a_subscriber_that_is_cut_off_misses_nothing(start, connect, proxy, pool):
    server = start("--workers", "4")
    between = proxy(server, lengths(seed=1, least=600, most=4000))
    published = pool.submit(publish_all, server.topic("t"), 300)
    elements, since = [], "earliest"
    while len(elements) < 300:
        client = connect(f"ws://{between.address}/topics/t?frames=json&since={since}")
        with contextlib.suppress(Disconnected):
            while len(elements) < 300:
                elements.append(json.loads(client.receive()))
                since = elements[-1]["id"]
        client.abandon()
    assert [element["data"] for element in elements] == [f"{number}" for number in range(300)]
    assert [element["id"] for element in elements] == published.result()
    assert len(between.requests) > 3, "it was not cut"


def test_a_listener_that_is_cut_off_misses_nothing(start, listen, proxy, pool):
    server = start("--workers", "4")
    between = proxy(server, lengths(seed=2, least=1, most=2000))
    # From where it began, even if it was cut before it heard of a message.
    last_id = listen(server.topic("t")).cursor
    published = pool.submit(publish_all, server.topic("t"), 300)
    events = []
    while len(events) < 300:
        with contextlib.suppress(Disconnected):
            stream = listen(f"http://{between.address}/topics/t", last_id)
            assert stream.cursor == last_id
            while len(events) < 300:
                events.append(stream.receive())
                last_id = events[-1].id
    assert [(event.type, event.data) for event in events] == [
        ("message", f"{number}") for number in range(300)
    ]
    assert [event.id for event in events] == published.result()
    assert len(between.requests) > 5, "it was not cut"


def test_long_polls_miss_nothing(start, http, pool):
    server = start("--workers", "4")
    url = server.topic("t")
    cursor = http.request("HEAD", url).cursor
    published = pool.submit(publish_all, url, 500)
    elements, turn = [], 0
    while len(elements) < 500:
        turn += 1
        headers = {"Prefer": "wait=10"} if turn % 2 else {}
        wait = "" if headers else "&wait=10"
        limit = turn % 7 + 1
        query = f"?since={cursor}{wait}&limit={limit}"
        answer = http.request("GET", url + query, headers=headers)
        assert answer.status == 200
        assert 0 < len(answer.json) <= limit
        elements += answer.json
        cursor = answer.cursor
        assert cursor == elements[-1]["id"]
    assert [element["data"] for element in elements] == [f"{number}" for number in range(500)]
    assert [element["id"] for element in elements] == published.result()


def test_long_polls_that_are_cut_off_miss_nothing(start, proxy, pool):
    server = start("--workers", "4")
    between = proxy(server, lengths(seed=3, least=1, most=3000))
    reader = Httpx()
    cursor = reader.request("HEAD", server.topic("t")).cursor
    published = pool.submit(publish_all, server.topic("t"), 300)
    elements = []
    while len(elements) < 300:
        url = f"http://{between.address}/topics/t?since={cursor}&wait=10&limit=5"
        with contextlib.suppress(httpx.TransportError):
            answer = reader.request("GET", url)
            elements += answer.json
            cursor = answer.cursor
    reader.end()
    assert [element["data"] for element in elements] == [f"{number}" for number in range(300)]
    assert [element["id"] for element in elements] == published.result()
    assert len(between.requests) > 5, "it was not cut"


def test_a_long_poll_ends_with_204_and_its_cursor(start, http):
    server = start()
    cursor = http.publish(server.topic("t"), "before")
    began = time.monotonic()
    answer = http.request("GET", server.topic("t") + "?wait=1")
    assert (answer.status, answer.body, answer.cursor) == (204, b"", cursor)
    assert 0.9 < time.monotonic() - began < 10


def test_a_listener_may_say_in_three_ways_where_it_was(start, listen):
    server = start()
    url = server.topic("t")
    a, b, c, head = publish_all(url, 4)
    for last_id, query, at in [
        (a, f"?last_event_id={b}&since={c}", a),
        (None, f"?last_event_id={b}&since={c}", b),
        ("", f"?last_event_id={b}&since={c}", b),
        ("", f"?last_event_id=&since={c}", c),
        (None, f"?since={c}", c),
        (None, "?since=earliest", a.removesuffix("1") + "0"),
        (None, "?since=latest", head),
        (None, "", head),
    ]:
        stream = listen(url + query, last_id)
        assert stream.cursor == at, (last_id, query)
        if at != head:
            offset = int(at.split("-")[1])
            assert stream.receive() == Event("message", f"{offset}", [a, b, c, head][offset])
    told = listen(url, 'no "cursor').receive()
    assert (told.type, json.loads(told.data)["gap"]["since"]) == ("gap", 'no "cursor')


def test_heartbeats_are_comments(start, httpx_client):
    server = start("--ping-interval", "1")
    headers = {"Accept": "text/event-stream"}
    with httpx_client.client.stream("GET", server.topic("t"), headers=headers) as response:
        lines = response.iter_lines()
        began = time.monotonic()
        first = [next(lines) for _ in range(3)]
        beats = [next(line for line in lines if line) for _ in range(2)]
        assert first[0].startswith("retry: ") and first[1].startswith("id: ") and first[2] == ""
        assert all(beat.startswith(":") for beat in beats)
        assert 1 < time.monotonic() - began < 10
        publish_all(server.topic("t"), 1, "still here ")
        assert next(line for line in lines if line.startswith("data")) == "data: still here 0"


@node
def test_an_event_source_comes_back_by_itself(start, event_source, proxy, httpx_client):
    """Cut off in the middle of a burst, and while it is away there is more."""
    server = start("--workers", "4")
    between = proxy(server)
    source = event_source(f"http://{between.address}/topics/t")
    cursors = [httpx_client.publish(server.topic("t"), "0")]
    events = [source.receive()]
    cursors += [httpx_client.publish(server.topic("t"), f"{number}") for number in range(1, 200)]
    between.cut()
    cursors += [httpx_client.publish(server.topic("t"), f"{number}") for number in range(200, 300)]
    events += [source.receive() for _ in range(299)]
    assert events == [Event("message", f"{number}", id) for number, id in enumerate(cursors)]
    first, second = between.requests
    assert b"last-event-id" not in first.lower()
    assert b"last-event-id: " in second.lower()


@node
def test_an_event_source_is_told_of_a_gap_after_a_restart(
    start, event_source, httpx_client, killed_and_restarted
):
    server = start()
    source = event_source(server.topic("t"))
    old = httpx_client.publish(server.topic("t"), "lost with the server")
    assert source.receive() == Event("message", "lost with the server", old)
    server = killed_and_restarted(server)
    publisher = Httpx()
    cursor = publisher.publish(server.topic("t"), "new")
    publisher.end()
    resumed = cursor.removesuffix("1") + "0"
    gap = source.receive()
    assert (gap.type, gap.id) == ("gap", resumed)
    assert json.loads(gap.data) == {"gap": {"since": old, "resumed": resumed}}
    assert source.receive() == Event("message", "new", cursor)


# --- What is no longer kept. ---


@pytest.fixture(params=["too old", "another epoch", "ahead"])
def gap(request, start, killed_and_restarted):
    """A server, a cursor that it cannot resume, and where it does instead: two messages follow."""
    options = ("--workers", "4", "--history-size", "2")
    server = start(*options)
    cursors = publish_all(server.topic("t"), 5)
    match request.param:
        case "too old":
            return server, cursors[1], cursors[2]
        case "another epoch":
            server = killed_and_restarted(server, *options)
            new = publish_all(server.topic("t"), 5)
            return server, cursors[3], new[2]
        case "ahead":
            return server, cursors[4] + "0", cursors[2]


def test_a_gap_is_told(connect, gap):
    server, since, resumed = gap
    url = server.topic("t", "ws")
    bare = connect(f"{url}?since={since}")
    assert bare.closed() == (4410, f"gap: resume at {resumed}")
    again = connect(f"{url}?since={resumed}")
    assert [again.receive() for _ in range(2)] == ["3", "4"]
    framed = connect(f"{url}?frames=json&since={since}")
    elements = [json.loads(framed.receive()) for _ in range(3)]
    assert elements[0] == {"gap": {"since": since, "resumed": resumed}}
    assert [element["data"] for element in elements[1:]] == ["3", "4"]
    assert bare.cursor == framed.cursor == resumed


def test_a_gap_is_told_over_http(gap, listen, httpx_client):
    server, since, resumed = gap
    told = {"gap": {"since": since, "resumed": resumed}}
    for wait in ("", "&wait=10"):
        began = time.monotonic()
        answer = httpx_client.request("GET", f"{server.topic('t')}?since={since}{wait}")
        assert time.monotonic() - began < 5, "it is answered at once"
        assert answer.json[0] == told
        assert [element["data"] for element in answer.json[1:]] == ["3", "4"]
        assert answer.cursor == answer.json[2]["id"]
    stream = listen(server.topic("t"), since)
    first = stream.receive()
    assert (stream.cursor, first.type, first.id) == (resumed, "gap", resumed)
    assert json.loads(first.data) == told
    assert [stream.receive().data for _ in range(2)] == ["3", "4"]


def test_without_history_only_who_is_there_hears(start, connect, listen, httpx_client):
    server = start("--history-size", "0", "--workers", "4")
    early = connect(server.topic("t", "ws"))
    before = httpx_client.publish(server.topic("t"), "before")
    missed = httpx_client.publish(server.topic("t"), "missed")
    late = listen(server.topic("t"), before)
    told = late.receive()
    assert (told.type, told.id) == ("gap", missed)
    assert httpx_client.request("GET", server.topic("t")).json == []
    after = httpx_client.publish(server.topic("t"), "after")
    assert late.receive() == Event("message", "after", after)
    assert [early.receive() for _ in range(3)] == ["before", "missed", "after"]


def test_a_cursor_is_good_on_every_transport(start, connect, listen, httpx_client):
    server = start("--workers", "4")
    cursors = publish_all(server.topic("t"), 5)
    answer = httpx_client.request("GET", server.topic("t") + "?limit=1")
    assert (answer.json[0]["data"], answer.cursor) == ("0", cursors[0])
    event = listen(server.topic("t"), answer.cursor).receive()
    assert (event.data, event.id) == ("1", cursors[1])
    framed = connect(server.topic("t", "ws") + f"?frames=json&since={event.id}")
    element = json.loads(framed.receive())
    assert element == {"id": cursors[2], "data": "2"}
    bare = connect(server.topic("t", "ws") + f"?since={element['id']}")
    assert bare.cursor == cursors[2]
    assert [bare.receive() for _ in range(2)] == ["3", "4"]


# --- Who does not read. ---

SMALL = ("--workers", "1", "--history-size", "5", "--history-bytes", "1000000")


def publish_until_lagged(server, publisher, brisk) -> int:
    """Publishes until somebody lags, which holds up nobody else; the number of messages."""
    count = 0

    def lagged() -> bool:
        nonlocal count
        publisher.publish(server.topic("t"), f"{count} ".ljust(60_000, "x"))
        assert brisk.receive().startswith(f"{count} ")
        count += 1
        return server.metric("throng_lagged_total") > 0

    eventually("a subscriber that does not read lags", lagged)
    return count


def test_a_subscriber_that_does_not_read_is_closed_with_1013(start, connect, httpx_client):
    server = start(*SMALL)
    stalled, brisk = (connect(server.topic("t", "ws")) for _ in range(2))
    stalled.stop_reading()
    count = publish_until_lagged(server, httpx_client, brisk)
    stalled.read_on()
    numbers = []
    with pytest.raises(Disconnected) as over:
        while True:
            numbers.append(int(stalled.receive().split()[0]))
    assert over.value.status[0] == 1013
    assert numbers == list(range(len(numbers))), "what came before is whole"
    assert len(numbers) < count
    httpx_client.publish(server.topic("t"), "last")
    assert brisk.receive() == "last"


def test_a_listener_that_does_not_read_is_ended_and_told_of_the_gap(start, listen, httpx_client):
    server = start(*SMALL)
    stalled, brisk = listen(server.topic("t")), Websockets(server.topic("t", "ws"))
    count = publish_until_lagged(server, httpx_client, brisk)
    brisk.abandon()
    events = []
    with pytest.raises(Disconnected):
        while True:
            events.append(stalled.receive())
    numbers = [int(event.data.split()[0]) for event in events]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) < count
    last_id = events[-1].id if events else stalled.cursor
    again = listen(server.topic("t"), last_id)
    told = again.receive()
    assert told.type == "gap"
    assert json.loads(told.data)["gap"] == {"since": last_id, "resumed": told.id}
    kept = [int(again.receive().data.split()[0]) for _ in range(5)]
    assert kept == list(range(count - 5, count))


# --- Web pages' requests. ---


def test_a_preflight_says_what_pages_may_send(start, http):
    page = "https://app.example.com"
    server = start("--allow-origin", page)
    asked = {
        "Origin": page,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,idempotency-key,last-event-id,prefer",
    }
    answer = http.request("OPTIONS", server.topic("t"), headers=asked)
    assert answer.status == 204
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert set(asked["Access-Control-Request-Headers"].split(",")) <= set(allowed)
    assert {"GET", "POST"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    answers = [
        answer,
        http.request("POST", server.topic("t"), "hello", {"Origin": page}),
        http.request("GET", server.topic("t"), headers={"Origin": page}),
        http.request("GET", server.topic("t") + "?since=no", headers={"Origin": page}),
    ]
    assert [answer.status for answer in answers] == [204, 200, 200, 400]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == page
        assert "Throng-Cursor" in answer.headers["access-control-expose-headers"]
        assert "Origin" in answer.headers["vary"]


def test_a_page_from_elsewhere_is_refused(start, http):
    server = start("--allow-origin", "https://app.example.com")
    elsewhere = {"Origin": "https://app.example.com.evil.example"}
    for method, body, more in [
        ("OPTIONS", None, {"Access-Control-Request-Method": "POST"}),
        ("POST", "smuggled", {"Content-Type": TEXT}),
        ("GET", None, {"Accept": "text/event-stream"}),
        ("GET", None, {}),
    ]:
        answer = http.request(method, server.topic("t"), body, elsewhere | more)
        assert (answer.status, answer.json["code"]) == (403, "origin_forbidden")
        assert "access-control-allow-origin" not in answer.headers
    assert http.request("GET", server.topic("t")).json == []


# --- All of them together. ---


def read_frames(client, count: int) -> list[str]:
    messages = [client.receive() for _ in range(count)]
    client.abandon()
    return messages


def read_elements(client, count: int) -> list[str]:
    return [json.loads(frame)["data"] for frame in read_frames(client, count)]


def read_events(stream, count: int) -> list[str]:
    messages = [stream.receive().data for _ in range(count)]
    stream.end()
    return messages


def read_polls(client, url: str, cursor: str, count: int) -> list[str]:
    messages = []
    while len(messages) < count:
        answer = client.request("GET", f"{url}?wait=10&since={cursor}")
        if answer.status != 204:
            messages += [element["data"] for element in answer.json]
        cursor = answer.cursor
    client.end()
    return messages


@pytest.mark.parametrize("with_node", [False, pytest.param(True, marks=node)])
def test_everybody_sees_the_same_in_the_same_order(start, pool, with_node):
    server = start("--workers", "4")
    each = 60
    # Everybody is there before anything is published: a poll asks from its cursor.
    reads, publishers = [], []
    for topic in ("a", "b%2F%25c", "d"):
        http, ws = server.topic(topic), server.topic(topic, "ws")
        first = Httpx()
        cursor = first.request("HEAD", http).cursor
        reads += [
            (http, read_frames, Websockets(ws)),
            (http, read_elements, WebsocketClient(f"{ws}?frames=json")),
            (http, read_events, HttpxSse(http)),
            (http, read_polls, first, http, cursor),
        ]
        publishers += [(http, "x", Httpx()), (http, "y", Httpx())]
        if with_node:
            reads += [
                (http, read_elements, NodeWs(f"{ws}?frames=json", NODE_ENV)),
                (http, read_events, NodeEventSource(http, NODE_ENV)),
            ]
            publishers.append((http, "z", NodeFetch(NODE_ENV)))
    prefixes = {prefix for _, prefix, _ in publishers}
    count = len(prefixes) * each
    all_seen = [(http, pool.submit(read, *client, count)) for http, read, *client in reads]
    published = [
        pool.submit(publish_all, http, each, prefix, client) for http, prefix, client in publishers
    ]
    for publisher in published:
        publisher.result()
    poll = Httpx()
    for http, seen in all_seen:
        kept = [element["data"] for element in poll.request("GET", http).json]
        assert len(kept) == count
        for prefix in prefixes:  # what one publisher says stays in order
            own = [message for message in kept if message.startswith(prefix)]
            assert own == [f"{prefix}{number}" for number in range(each)]
        assert seen.result() == kept
    poll.end()
