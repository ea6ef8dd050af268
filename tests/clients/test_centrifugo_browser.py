"""Centrifugo's official SDK in a real browser, from its package, in JSON and in Protobuf."""

import json

import pytest

from chromium import Chromium, Pages
from conftest import NODE_ENV

pytestmark = pytest.mark.browser

DIST = NODE_ENV / "node_modules" / "centrifuge" / "dist"
JSON = "application/json"

# `next` gives up before the test does.
HELPERS = """
    const WITHIN_MS = 15000;
    const script = document.createElement('script');
    script.src = path;
    await new Promise((resolve, reject) => {
        script.onload = resolve;
        script.onerror = () => reject(new Error(`${path} does not load`));
        document.head.append(script);
    });

    const coder = { encode: new TextEncoder(), decode: new TextDecoder() };
    window.encoded = (value) =>
        protobuf ? coder.encode.encode(JSON.stringify(value)) : value;
    const decoded = (data) => (protobuf ? JSON.parse(coder.decode.decode(data)) : data);

    window.join = (address, channel) => {
        const heard = [];
        let wake = () => {};
        const say = (kind, what) => {
            heard.push({ kind, ...what });
            wake();
        };
        window.next = async () => {
            const until = Date.now() + WITHIN_MS;
            while (heard.length === 0) {
                if (Date.now() > until) throw new Error('nothing is heard');
                await new Promise((resolve) => {
                    wake = resolve;
                    setTimeout(resolve, WITHIN_MS);
                });
            }
            return heard.shift();
        };
        const endpoint = transport
            ? [{ transport, endpoint: `http://${address}/connection/${transport}` }]
            : `ws://${address}/connection/websocket`;
        window.client = new Centrifuge(endpoint, {
            minReconnectDelay: 10,
            maxReconnectDelay: 100,
            emulationEndpoint: `http://${address}/emulation`,
        });
        const subscription = client.newSubscription(channel, { recoverable: true });
        subscription.on('subscribing', ({ code }) => say('subscribing', { code }));
        subscription.on('subscribed', ({ wasRecovering, recovered }) =>
            say('subscribed', { wasRecovering, recovered }),
        );
        subscription.on('publication', ({ data, offset, info }) =>
            say('publication', { data: decoded(data), offset, own: info?.client === id }),
        );
        subscription.subscribe();
        let id;
        client.on('connected', ({ client }) => (id = client));
        client.connect();
    };
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    chromium = Chromium(tmp_path_factory.mktemp("chromium-centrifugo"))
    yield chromium
    chromium.end()


@pytest.fixture(scope="module")
def pages():
    names = ("centrifuge.js", "centrifuge.protobuf.js")
    pages = Pages({f"/{name}": DIST / name for name in names})
    yield pages
    pages.end()


@pytest.fixture(
    params=["json", "protobuf", "http_stream-json", "http_stream-protobuf", "sse-json"]
)
def page(request, chromium, pages):
    tab = chromium.open(pages.origin)
    *transport, form = request.param.split("-")
    protobuf = form == "protobuf"
    tab.run(
        HELPERS,
        path="/centrifuge.protobuf.js" if protobuf else "/centrifuge.js",
        protobuf=protobuf,
        transport=transport[0] if transport else None,
    )
    tab.forget()  # the script's answer
    yield tab
    tab.close()


def join(page, address: str) -> None:
    """Returns once it is subscribed to `t`."""
    page.run("join(address, 't');", address=address)
    assert heard(page)["kind"] == "subscribing"
    assert heard(page) == {"kind": "subscribed", "wasRecovering": False, "recovered": False}


def heard(page) -> dict:
    return page.run("return await next();")


def test_a_page_subscribes_and_publishes(start, page, pages, listen, httpx_client):
    server = start("--client-publish", "--allow-origin", pages.origin)
    bare = listen(server.topic("t"))
    join(page, server.address)
    httpx_client.publish(server.topic("t"), '{"said": "zażółć 🐢"}', Content_Type=JSON)
    said = {"said": "zażółć 🐢"}
    assert heard(page) == {"kind": "publication", "data": said, "offset": 1, "own": False}
    page.run("await client.publish('t', encoded({ said: 'ü', n: [1, null] }));")
    said = {"said": "ü", "n": [1, None]}
    assert heard(page) == {"kind": "publication", "data": said, "offset": 2, "own": True}
    assert [json.loads(bare.receive().data) for _ in range(2)][1] == said
    history = page.run("return (await client.history('t', { limit: -1 })).publications.length;")
    assert history == 2


def test_a_page_may_publish_only_where_clients_may(start, page, pages):
    server = start("--allow-origin", pages.origin)
    join(page, server.address)
    publish = "return await client.publish('t', encoded(1)).then(() => 0, ({ code }) => code);"
    assert page.run(publish) == 103


def test_a_page_that_is_cut_off_misses_nothing(start, page, pages, proxy, httpx_client):
    server = start("--workers", "2", "--allow-origin", pages.origin)
    between = proxy(server)
    join(page, between.address)
    numbers, recoveries = [], 0
    for first in range(0, 120, 30):
        for n in range(first, first + 20):
            httpx_client.publish(server.topic("t"), f"{n}", Content_Type=JSON)
        between.cut()
        for n in range(first + 20, first + 30):
            httpx_client.publish(server.topic("t"), f"{n}", Content_Type=JSON)
        while len(numbers) < first + 30:
            event = heard(page)
            if event["kind"] == "publication":
                numbers.append(event["data"])
                assert event["offset"] == len(numbers)
            elif event["kind"] == "subscribed":
                assert event["recovered"]
                recoveries += 1
    assert numbers == [*range(120)]
    assert recoveries == 4


def test_a_page_of_a_strange_origin_does_not_connect(start, page, pages):
    server = start()
    page.run("join(address, 't');", address=server.address)
    assert page.statuses(1)[0] == 403
