"""Topics in a real browser: EventSource, fetch and WebSocket in pages of this and other origins."""

import json

import pytest

from chromium import Chromium, Pages
from conftest import eventually
from http_drivers import Httpx

pytestmark = pytest.mark.browser

# What the pages' scripts share. `take` gives up before the test does, and says what came.
HELPERS = """
    const WITHIN_MS = 15000;

    window.Inbox = class {
        #items = [];
        #wake = () => {};
        push(item) {
            this.#items.push(item);
            this.#wake();
        }
        async take(count) {
            const until = Date.now() + WITHIN_MS;
            while (this.#items.length < count) {
                const left = until - Date.now();
                const got = `${this.#items.length} of ${count}: ${JSON.stringify(this.#items)}`;
                if (left <= 0) throw new Error(got);
                await new Promise((resolve) => {
                    this.#wake = resolve;
                    setTimeout(resolve, left);
                });
            }
            return this.#items.splice(0, count);
        }
    };

    window.listen = (url) => {
        const source = new EventSource(url);
        source.heard = new Inbox();
        source.opened = new Inbox();
        source.failed = new Inbox();
        const keep = ({ type, data, lastEventId: id }) => source.heard.push({ type, data, id });
        for (const kind of ['message', 'base64', 'gap']) source.addEventListener(kind, keep);
        source.onopen = () => source.opened.push('open');
        source.onerror = () => source.failed.push(source.readyState);
        return source;
    };

    window.dial = (url) => {
        const socket = new WebSocket(url);
        socket.binaryType = 'arraybuffer';
        socket.heard = new Inbox();
        socket.opened = new Inbox();
        socket.closed = new Inbox();
        socket.onopen = () => socket.opened.push('open');
        socket.onclose = ({ code, reason, wasClean }) =>
            socket.closed.push({ code, reason, wasClean });
        socket.onmessage = ({ data }) =>
            socket.heard.push(typeof data === 'string' ? data : [...new Uint8Array(data)]);
        return socket;
    };
"""


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    chromium = Chromium(tmp_path_factory.mktemp("chromium"))
    yield chromium
    chromium.end()


@pytest.fixture(scope="session")
def pages():
    pages = Pages()
    yield pages
    pages.end()


@pytest.fixture
def page(chromium, pages):
    """`page()` opens one of another origin than any throng's, `page(url)` that one."""
    tabs = []

    def page(url: str = pages.origin):
        tabs.append(chromium.open(url))
        tabs[-1].run(HELPERS)
        return tabs[-1]

    yield page
    for tab in tabs:
        tab.close()


def published(server, topic: str, *messages: str) -> list[dict]:
    """Publishes, and what an EventSource must hear of it."""
    client = Httpx()
    events = []
    for message in messages:
        cursor = client.publish(server.topic(topic), message, Content_Type="text/plain")
        events.append({"type": "message", "data": message, "id": cursor})
    client.end()
    return events


def kept(server, topic: str) -> list:
    client = Httpx()
    elements = client.request("GET", server.topic(topic)).json
    client.end()
    return [element.get("data", element.get("base64")) for element in elements]


# --- Whose pages may talk to the server. ---

# Each is what a page of any site can do without asking; all send the page's Origin.
SMUGGLERS = {
    "fetch": "await fetch(url, {method: 'POST', body: 'smuggled'}).catch(() => 0);",
    "fetch without CORS": "await fetch(url, {method: 'POST', body: 'smuggled', mode: 'no-cors'});",
    "fetch with a preflight": """
        const headers = {'Content-Type': 'application/json', 'Idempotency-Key': 'a'};
        await fetch(url, {method: 'POST', body: '"smuggled"', headers}).catch(() => 0);
    """,
    "beacon": "navigator.sendBeacon(url, 'smuggled');",
    "form": """
        document.body.innerHTML = `<iframe name=hidden></iframe>
            <form method=post enctype=text/plain target=hidden action="${url}">
            <input name=smuggled></form>`;
        document.forms[0].submit();
    """,
}


@pytest.mark.parametrize("smuggler", SMUGGLERS)
def test_a_page_of_another_origin_cannot_publish(start, page, smuggler):
    server, tab = start(), page()
    tab.run(SMUGGLERS[smuggler], url=server.topic("t"))
    assert tab.statuses(1) == [403]
    assert kept(server, "t") == []


def test_a_page_of_another_origin_cannot_read(start, page):
    server, tab = start(), page()
    published(server, "t", "secret")
    failed = tab.run(
        "return await fetch(url).then(() => 'read', (error) => error.name);", url=server.topic("t")
    )
    assert failed == "TypeError"
    assert tab.statuses(1) == [403]
    tab.forget()
    closed = "const source = listen(url); return (await source.failed.take(1))[0];"
    assert tab.run(closed, url=server.topic("t") + "?since=earliest") == 2  # for good
    assert tab.statuses(1) == [403]
    tab.forget()
    refused = """
        const socket = dial(url);
        const [{code}] = await socket.closed.take(1);
        return [code, await socket.opened.take(0)];
    """
    assert tab.run(refused, url=server.topic("t", "ws") + "?since=earliest") == [1006, []]
    assert tab.statuses(1) == [403]


def test_a_page_of_its_own_origin_needs_no_leave(start, page):
    server = start()
    tab = page(f"http://{server.address}/healthz")
    assert tab.run("return location.origin;") == f"http://{server.address}"
    script = """
        const source = listen('/topics/t');
        const socket = dial(`ws://${location.host}/topics/t`);
        await Promise.all([source.opened.take(1), socket.opened.take(1)]);
        const answer = await fetch('/topics/t', {method: 'POST', body: 'hello'});
        const {id} = await answer.json();
        return [answer.status, id, await source.heard.take(1), await socket.heard.take(1)];
    """
    status, id, events, frames = tab.run(script)
    assert status == 200
    assert events == [{"type": "message", "data": "hello", "id": id}]
    assert frames == ["hello"]


# --- EventSource. ---


def test_an_event_source_hears_each_kind_of_message(start, page, pages):
    server, tab = start("--allow-origin", pages.origin), page()
    tab.run("window.source = listen(url); await source.opened.take(1);", url=server.topic("t"))
    client = Httpx()
    posted = [
        ("zażółć\r\n🐢 \n\n", "text/plain", "message", "zażółć\n🐢 \n\n"),
        ("", "text/plain", "message", ""),
        ('{"a": 1}', "application/json", "message", '{"a": 1}'),
        (b"\x00\xff", "image/png", "base64", "AP8="),
        ("x" * 60_000, "text/plain", "message", "x" * 60_000),
    ]
    expected = [
        {
            "type": kind,
            "data": data,
            "id": client.publish(server.topic("t"), body, Content_Type=type),
        }
        for body, type, kind, data in posted
    ]
    client.end()
    assert tab.run(f"return source.heard.take({len(posted)});") == expected


def test_an_event_source_that_is_cut_off_comes_back_and_misses_nothing(start, page, pages, proxy):
    """In the middle of a burst, and also before it heard anything: where it began has an id too."""
    server, tab = start("--allow-origin", pages.origin, "--workers", "4"), page()
    between = proxy(server)
    tab.run(
        """
        window.busy = listen(url + 'busy');
        window.quiet = listen(url + 'quiet');
        await Promise.all([busy.opened.take(1), quiet.opened.take(1)]);
        """,
        url=f"http://{between.address}/topics/",
    )
    busy = published(server, "busy", *[f"{number}" for number in range(200)])
    between.cut()
    busy += published(server, "busy", *[f"{number}" for number in range(200, 300)])
    quiet = published(server, "quiet", "first")
    assert tab.run("return [await busy.heard.take(300), await quiet.heard.take(1)];") == [
        busy,
        quiet,
    ]
    again = between.requests[2:]
    assert len(between.requests[:2]) == len(again) == 2
    assert all(b"last-event-id: " in request.lower() for request in again)
    after = published(server, "busy", "after"), published(server, "quiet", "after")
    assert tab.run("return [await busy.heard.take(1), await quiet.heard.take(1)];") == [*after]


def test_an_event_source_is_told_of_a_gap_after_a_restart(start, page, pages, killed_and_restarted):
    options = ("--allow-origin", pages.origin)
    server, tab = start(*options), page()
    tab.run("window.source = listen(url); await source.opened.take(1);", url=server.topic("t"))
    old = published(server, "t", "lost with the server")
    assert tab.run("return source.heard.take(1);") == old
    server = killed_and_restarted(server, *options)
    new = published(server, "t", "new")
    gap, *rest = tab.run("return source.heard.take(2);")
    resumed = new[0]["id"].removesuffix("1") + "0"
    assert (gap["type"], gap["id"]) == ("gap", resumed)
    assert json.loads(gap["data"]) == {"gap": {"since": old[0]["id"], "resumed": resumed}}
    assert rest == new


# --- fetch. ---


def test_a_page_polls_on_from_the_cursor_that_it_reads(start, page, pages):
    server, tab = start("--allow-origin", pages.origin, "--workers", "4"), page()
    tab.run(
        """
        let answer = await fetch(url, {method: 'HEAD'});
        window.polled = (async () => {
            const elements = [];
            while (elements.length < 200) {
                const since = answer.headers.get('Throng-Cursor');
                answer = await fetch(`${url}?wait=10&since=${since}`);
                if (answer.status !== 200) throw new Error(`status ${answer.status}`);
                elements.push(...await answer.json());
            }
            return elements;
        })();
        """,
        url=server.topic("t"),
    )
    expected = published(server, "t", *[f"{number}" for number in range(200)])
    elements = tab.run("return window.polled;")
    assert elements == [{"id": event["id"], "data": event["data"]} for event in expected]


def test_a_poll_whose_time_is_up_shows_the_page_its_cursor(start, page, pages):
    server, tab = start("--allow-origin", "*"), page()
    last = published(server, "t", "before")[0]["id"]
    script = """
        const answer = await fetch(url, {headers: {Prefer: 'wait=1'}});
        return [answer.status, answer.headers.get('Throng-Cursor'), await answer.text()];
    """
    assert tab.run(script, url=server.topic("t") + "?since=latest") == [204, last, ""]


def test_a_page_posts_what_pages_post(start, page, pages):
    server, tab = start("--allow-origin", pages.origin), page()
    script = """
        const post = async (body, headers = {}) => {
            const answer = await fetch(url, {method: 'POST', body, headers});
            const {id} = await answer.json();
            return [answer.status, id === answer.headers.get('Throng-Cursor')];
        };
        return [
            await post('żółw'),
            await post(JSON.stringify({a: [1]}), {'Content-Type': 'application/json'}),
            await post(new Uint8Array([0, 255])),
            await post(new Blob(['blob'], {type: 'image/png'})),
            await post(new URLSearchParams({q: 'a b'})),
            await post('once', {'Idempotency-Key': 'key'}),
            await post('twice', {'Idempotency-Key': 'key'}),
        ];
    """
    assert tab.run(script, url=server.topic("t")) == [[200, True]] * 7
    messages = ["żółw", {"a": [1]}, "AP8=", "YmxvYg==", "q=a+b", "once"]
    assert kept(server, "t") == messages
    assert tab.run("return navigator.sendBeacon(url, 'bye');", url=server.topic("t"))
    eventually("the beacon is there", lambda: kept(server, "t") == [*messages, "bye"])


def test_a_page_can_read_why_it_was_refused(start, page, pages):
    server, tab = start("--allow-origin", pages.origin), page()
    script = """
        const headers = {'Content-Type': 'application/json'};
        const answer = await fetch(url, {method: 'POST', body: '{', headers});
        return [answer.status, (await answer.json()).code];
    """
    assert tab.run(script, url=server.topic("t")) == [400, "bad_message"]


# --- WebSocket. ---


def test_a_web_socket_hears_and_publishes(start, page, pages):
    server = start("--allow-origin", pages.origin, "--client-publish", "--workers", "4")
    tab = page()
    script = """
        const [bare, framed] = [dial(url), dial(url + '?frames=json')];
        await Promise.all([bare.opened.take(1), framed.opened.take(1)]);
        bare.send('text');
        const first = [await bare.heard.take(1), await framed.heard.take(1)];
        framed.send(new Uint8Array([0, 255]));
        const second = [await bare.heard.take(1), await framed.heard.take(1)];
        bare.close(1000, 'done');
        return [...first, ...second, await bare.closed.take(1)];
    """
    text, text_framed, bytes_, bytes_framed, closed = tab.run(script, url=server.topic("t", "ws"))
    assert text == ["text"]
    assert json.loads(text_framed[0])["data"] == "text"
    assert bytes_ == [[0, 255]]
    assert json.loads(bytes_framed[0])["base64"] == "AP8="
    assert (closed[0]["code"], closed[0]["wasClean"]) == (1000, True)


@pytest.mark.parametrize("window", [None, 12])
def test_a_web_socket_compresses(start, page, pages, tmp_path, window):
    config = tmp_path / "throng.toml"
    config.write_text(f"[throng]\ncompression_context = {window}\n" if window else "")
    options = ("--allow-origin", pages.origin, "--client-publish", "--compression")
    server = start(*options, "--config", str(config))
    script = """
        const words = JSON.stringify([...Array(300).keys()].map((n) => ({ price: (n * 31) % 97 })));
        const [bare, framed] = [dial(url), dial(url + '?frames=json')];
        await Promise.all([bare.opened.take(1), framed.opened.take(1)]);
        for (let n = 0; n < 5; n++) bare.send(words);
        const heard = [await bare.heard.take(5), await framed.heard.take(5)];
        const same = [
            heard[0].every((text) => text === words),
            heard[1].every((text) => JSON.parse(text).data === words),
        ];
        return [bare.extensions, ...same];
    """
    extensions, *same = page().run(script, url=server.topic("t", "ws"))
    assert same == [True, True]
    contexts = extensions.count("no_context_takeover")
    assert extensions.startswith("permessage-deflate") and contexts == (0 if window else 2)
    assert server.metric("throng_opened_compressed_total") == 2


def test_a_web_socket_that_was_away_resumes_or_is_told_of_the_gap(start, page, pages):
    server, tab = start("--allow-origin", pages.origin, "--history-size", "2"), page()
    ids = [event["id"] for event in published(server, "t", *"01234")]
    script = """
        const [lost, framed, resumed] = [bare + ids[0], json + ids[0], bare + ids[2]].map(dial);
        return [
            await lost.closed.take(1), await framed.heard.take(3), await resumed.heard.take(2),
        ];
    """
    url = server.topic("t", "ws")
    values = {"bare": f"{url}?since=", "json": f"{url}?frames=json&since=", "ids": ids}
    lost, framed, resumed = tab.run(script, **values)
    assert lost == [{"code": 4410, "reason": f"gap: resume at {ids[2]}", "wasClean": True}]
    assert [json.loads(frame) for frame in framed] == [
        {"gap": {"since": ids[0], "resumed": ids[2]}},
        {"id": ids[3], "data": "3"},
        {"id": ids[4], "data": "4"},
    ]
    assert resumed == ["3", "4"]


def test_a_web_socket_is_told_when_the_server_goes(start, page, pages):
    server, tab = start("--allow-origin", pages.origin), page()
    tab.run("window.socket = dial(url); await socket.opened.take(1);", url=server.topic("t", "ws"))
    server.signal()
    (closed,) = tab.run("return socket.closed.take(1);")
    assert (closed["code"], closed["wasClean"]) == (1001, True)
    assert server.exit_status() == 0
