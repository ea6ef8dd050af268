"""Who may come in from a real browser: strangers' pages with their readers' cookies, and tokens."""

import base64
import hashlib
import hmac
import json
import time

import pytest

from chromium import Chromium, Pages
from http_drivers import Httpx
from test_browser import HELPERS

pytestmark = pytest.mark.browser

CONFIG = """
[client.token]
hmac_secret_key = "secret"
[http_api]
key = "key"
[throng]
token_cookie = "sid"
[[channel.namespaces]]
name = "users"
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_client = true
"""


def token(**claims) -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    text = f"{head}.{part(json.dumps({'sub': '42', **claims}).encode())}"
    return f"{text}.{part(hmac.digest(b'secret', text.encode(), hashlib.sha256))}"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """One for which `evil.example` is this machine, as for the victim of DNS rebinding."""
    rules = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    chromium = Chromium(tmp_path_factory.mktemp("chromium"), rules)
    yield chromium
    chromium.end()


@pytest.fixture(scope="module")
def pages():
    pages = Pages()
    yield pages
    pages.end()


@pytest.fixture
def page(chromium):
    tabs = []

    def page(url: str):
        tabs.append(chromium.open(url))
        tabs[-1].run(HELPERS)
        return tabs[-1]

    yield page
    for tab in tabs:
        tab.close()


@pytest.fixture
def guarded(start, tmp_path):
    """Servers whose users come with a cookie."""
    config = tmp_path / "throng.toml"
    config.write_text(CONFIG)
    return lambda *options: start("--config", str(config), *options)


def signed_in(page, server):
    """A page of the server's own, whose reader has a cookie that browsers send wherever they can."""
    tab = page(f"http://{server.address}/healthz")
    tab.run(
        "document.cookie = `sid=${sid}; path=/; SameSite=None; Secure`;"
        "if (!document.cookie.includes(sid)) throw new Error('no cookie');",
        sid=token(),
    )
    return tab


def kept(server) -> list:
    client = Httpx()
    elements = client.request("GET", server.topic("users:a"), headers={"X-API-Key": "key"}).json
    client.end()
    return [element["data"] for element in elements]


SOCKET = """
    const socket = dial(url);
    return await Promise.race([
        socket.opened.take(1).then(() => 'opened'),
        socket.closed.take(1).then(([{code}]) => code),
    ]);
"""


def test_the_reader_of_its_own_page_is_let_in_by_the_cookie(guarded, page):
    server = guarded()
    tab = signed_in(page, server)
    assert tab.run(SOCKET, url=server.topic("users:a", "ws")) == "opened"
    script = """
        const source = listen('/topics/users:a');
        await source.opened.take(1);
        const {status} = await fetch('/topics/users:a', {method: 'POST', body: 'mine'});
        return [status, (await source.heard.take(1))[0].data];
    """
    assert tab.run(script) == [200, "mine"]
    tab.run("document.cookie = 'sid=; path=/; Max-Age=0';")
    assert tab.run(SOCKET, url=server.topic("users:a", "ws")) == 1006


def stranger(pages, name: str) -> str:
    """A page of another origin: of the same site for browsers, which ports do not part, or of another one."""
    return pages.origin.replace("127.0.0.1", name) + "/"


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_strangers_page_cannot_use_its_readers_cookie(guarded, page, pages, name):
    server = guarded()
    signed_in(page, server)
    tab = page(stranger(pages, name))
    assert tab.run(SOCKET, url=server.topic("users:a", "ws")) == 1006
    assert tab.statuses(1) == [403]
    for mode in ["cors", "no-cors"]:
        tab.forget()
        tab.run(
            "await fetch(url, {method: 'POST', body: 'stolen', mode, credentials: 'include'})"
            ".catch(() => 0);",
            url=server.topic("users:a"),
            mode=mode,
        )
        assert tab.statuses(1) == [403]
    tab.forget()
    tab.run(
        """
        document.body.innerHTML = `<iframe name=hidden></iframe>
            <form method=post enctype=text/plain target=hidden action="${url}">
            <input name=stolen></form>`;
        document.forms[0].submit();
        """,
        url=server.topic("users:a"),
    )
    assert tab.statuses(1) == [403]
    assert kept(server) == []


def test_a_get_of_another_site_with_the_cookie_is_refused(guarded, page, pages):
    """A link has no Origin, and takes the cookie with it: there it is Fetch Metadata that tells."""
    server = guarded()
    signed_in(page, server)
    tab = page(stranger(pages, "localhost"))
    url = server.topic("users:a")
    tab.run("location.href = url;", url=url)
    assert tab.statuses(1) == [403]
    arrived = lambda: any(frame["frame"]["url"] == url for frame in tab._reported("Page.frameNavigated"))  # noqa: E731
    tab.until("it is shown", arrived)
    # That it came with the cookie shows in the reason: without one it would be an anonymous client.
    assert "reason=cookie_origin" in server.log


def test_an_origin_that_is_allowed_may_use_the_cookie(guarded, page, pages):
    """That shows that the browser sends it along from a page of another port."""
    server = guarded("--allow-origin", pages.origin)
    signed_in(page, server)
    assert page(pages.origin).run(SOCKET, url=server.topic("users:a", "ws")) == "opened"


def test_a_pages_web_socket_brings_its_token_as_a_subprotocol(guarded, page, pages):
    server = guarded("--allow-origin", pages.origin)
    tab = page(pages.origin)
    tab.run("document.cookie = 'sid=; path=/; Max-Age=0';")
    script = """
        const socket = new WebSocket(url, ['throng', `bearer.${token}`]);
        const code = await new Promise((end) => {
            socket.onopen = () => end(0);
            socket.onclose = ({code}) => end(code);
        });
        const expired = code === 0 && new Promise((end) => (socket.onclose = end));
        window.ended = expired && expired.then(({code, reason, wasClean}) => [code, reason, wasClean]);
        return [code, socket.protocol];
    """
    url = server.topic("users:a", "ws")
    assert tab.run(script, url=url, token=token()) == [0, "throng"]
    assert tab.run(script, url=url, token=token(sub="43") + "x") == [1006, ""]
    assert tab.run(script, url=url, token=token(exp=int(time.time()) + 2)) == [0, "throng"]
    code, reason, clean = tab.run("return await window.ended;")
    assert (code, clean) == (3005, True)
    assert reason.startswith("token expired: resume at ")
    assert "eyJ" not in server.log


def test_a_page_whose_name_means_this_machine_cannot_reach_a_server_that_asks_nobody(start, page):
    """DNS rebinding: for the browser the page is of the server's own origin."""
    server = start()
    port = server.address.rsplit(":", 1)[1]
    tab = page(f"http://evil.example:{port}/healthz")
    assert tab.run("return location.origin;") == f"http://evil.example:{port}"
    script = """
        const posted = await fetch('/topics/users:a', {method: 'POST', body: 'rebound'});
        const read = await fetch('/topics/users:a');
        const source = listen('/topics/users:a');
        await source.failed.take(1);
        return [posted.status, (await posted.json()).code, read.status, source.readyState];
    """
    assert tab.run(script) == [421, "host_forbidden", 421, 2]
    assert tab.run(SOCKET, url=f"ws://evil.example:{port}/topics/users:a") == 1006
    open_server = start("--open")
    port = open_server.address.rsplit(":", 1)[1]
    assert page(f"http://evil.example:{port}/healthz").run("return (await fetch('/topics/a')).status;") == 200
