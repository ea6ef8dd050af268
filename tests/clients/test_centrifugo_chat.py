"""The chat of `examples` on Centrifugo's official SDK, in a real browser."""

import subprocess

import pytest

from chromium import Chromium
from conftest import NODE_ENV, START_S_MAX, THRONG, eventually

pytestmark = pytest.mark.browser

SDK = NODE_ENV / "node_modules" / "centrifuge" / "dist" / "centrifuge.js"
GAP = "Some messages may be missing here: the server no longer has them."


@pytest.fixture
def chats(example):
    return lambda address="127.0.0.1:0": example("centrifugo_chat", address, SDK)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    chromium = Chromium(tmp_path_factory.mktemp("chromium-centrifugo-chat"))
    yield chromium
    chromium.end()


@pytest.fixture
def enter(chromium):
    """`enter(address, "ada")` opens a page and has ada enter the hall."""
    tabs = []

    def enter(address: str, name: str, room: str = "hall", before: str = ""):
        tab = chromium.open(f"http://{address}/")
        tabs.append(tab)
        tab.run(before)
        tab.run(
            "at('name').value = name; at('room').value = room; at('enter').requestSubmit();",
            name=name,
            room=room,
        )
        eventually("it knows who is here", lambda: f"{name} (you)" in " ".join(members(tab)))
        return tab

    yield enter
    for tab in tabs:
        tab.close()


def say(tab, *texts: str) -> None:
    for text in texts:
        tab.run("at('text').value = text; at('say').requestSubmit();", text=text)


def lines(tab) -> list[str]:
    """`AUTHOR: TEXT`, and the notes between."""
    return tab.run("""
        return [...document.querySelectorAll('#lines li')].map((li) =>
            [...li.childNodes].map((part) => part.textContent).join(': '));
    """)


def members(tab) -> list[str]:
    return tab.run("return [...document.querySelectorAll('#members li')].map((li) => li.innerText)")


def state(tab) -> str:
    return tab.run("return at('state').textContent")


def shows(tab, expected: list[str]) -> None:
    eventually(f"the page shows {expected}", lambda: lines(tab) == expected)


def has(tab, expected: list[str]) -> None:
    eventually(f"{expected} are here", lambda: members(tab) == expected)


def test_people_see_each_other_come_talk_and_go(chats, enter):
    chat = chats()
    ada = enter(chat.address, "ada")
    has(ada, ["ada (you)"])
    assert state(ada) == "connected"
    bob = enter(chat.address, "Żółw7")
    has(ada, ["ada (you)", "Żółw7"])
    has(bob, ["ada", "Żółw7 (you)"])
    markup = "<img src=x onerror=\"document.title = 'run'\"> & <b>bold</b>"
    say(ada, markup)
    say(bob, "hello")
    shows(bob, [f"ada: {markup}", "Żółw7: hello"])
    shows(ada, [f"ada: {markup}", "Żółw7: hello"])
    assert ada.run("return document.querySelectorAll('#lines .own').length") == 1
    # A user may have two windows; another room is another channel.
    second = enter(chat.address, "ada")
    has(bob, ["ada ×2", "Żółw7 (you)"])
    has(enter(chat.address, "eve", room="attic"), ["eve (you)"])
    second.run("at('leave').click();")
    has(bob, ["ada", "Żółw7 (you)"])
    bob.run("location.href = 'about:blank';")
    has(ada, ["ada (you)"])
    for tab in (ada, second):
        assert tab.run("return document.title") == "throng chat"
        assert all(url.startswith(f"http://{chat.address}/") for url in tab.requested())


def test_who_comes_late_sees_what_was_said(chats, enter):
    chat = chats()
    ada = enter(chat.address, "ada")
    said = [f"{n}" for n in range(60)]
    say(ada, *said)
    shows(ada, [f"ada: {text}" for text in said])
    bob = enter(chat.address, "bob")
    shows(bob, [f"ada: {text}" for text in said[10:]])
    say(ada, "there you are")
    shows(bob, [f"ada: {text}" for text in [*said[10:], "there you are"]])


# Says something and hears it before it asks for the history.
TALKS_FIRST = """
    const create = Centrifuge.prototype.newSubscription;
    Centrifuge.prototype.newSubscription = function (...given) {
        const subscription = create.apply(this, given);
        const history = subscription.history.bind(subscription);
        subscription.history = async (options) => {
            const heard = new Promise((resolve) => subscription.once('publication', resolve));
            await subscription.publish({ text: 'meanwhile' });
            await heard;
            return history(options);
        };
        return subscription;
    };
"""


def test_what_comes_before_the_history_stands_behind_it_once(chats, enter, proxy):
    chat = chats()
    between = proxy(chat)
    bob = enter(chat.address, "bob")
    say(bob, "one", "two")
    shows(bob, ["bob: one", "bob: two"])
    ada = enter(between.address, "ada", before=TALKS_FIRST)
    expected = ["bob: one", "bob: two", "ada: meanwhile"]
    shows(ada, expected)
    between.lets_in = False
    chat.kill()
    chats(chat.address)
    shows(bob, [*expected, GAP])
    say(bob, "three")
    shows(bob, [*expected, GAP, "bob: three"])
    between.lets_in = True
    shows(ada, [*expected, GAP, "bob: three", "ada: meanwhile"])


def test_a_page_that_was_cut_off_shows_what_it_missed(chats, enter, proxy):
    chat = chats()
    between = proxy(chat)
    ada, bob = enter(between.address, "ada"), enter(chat.address, "bob")
    expected = []
    for round in range(3):
        say(bob, f"before {round}")
        expected.append(f"bob: before {round}")
        shows(ada, expected)
        between.lets_in = False
        between.cut()
        eventually("it says so", lambda: state(ada) == "connection lost, trying again")
        has(bob, ["bob (you)"])
        missed = [f"missed {round}.{n}" for n in range(5)]
        say(bob, *missed)
        expected += [f"bob: {text}" for text in missed]
        shows(bob, expected)
        assert lines(ada) == expected[:-5]
        between.lets_in = True
        shows(ada, expected)
        assert state(ada) == "connected"
        has(ada, ["ada (you)", "bob"])
        has(bob, ["ada", "bob (you)"])


def test_a_page_that_missed_more_than_is_kept_says_so(chats, enter, proxy):
    chat = chats()
    between = proxy(chat)
    ada, bob = enter(between.address, "ada"), enter(chat.address, "bob")
    say(bob, "before")
    shows(ada, ["bob: before"])
    between.lets_in = False
    between.cut()
    has(bob, ["bob (you)"])
    # One more than the 200 that are kept.
    bob.run("for (let n = 0; n < 201; n++) await subscription.publish({ text: `${n}` });")
    between.lets_in = True
    shows(ada, ["bob: before", GAP, *(f"bob: {n}" for n in range(151, 201))])


def test_a_page_says_that_the_server_has_forgotten(chats, enter, proxy):
    chat = chats()
    between = proxy(chat)
    ada, bob = enter(between.address, "ada"), enter(chat.address, "bob")
    say(ada, "before")
    shows(bob, ["ada: before"])
    between.lets_in = False
    chat.kill()
    chats(chat.address)
    shows(bob, ["ada: before", GAP])
    say(bob, "I am back first")
    shows(bob, ["ada: before", GAP, "bob: I am back first"])
    assert lines(ada) == ["ada: before"]
    # What was said since is kept, and comes behind the gap.
    between.lets_in = True
    shows(ada, ["ada: before", GAP, "bob: I am back first"])
    has(ada, ["ada (you)", "bob"])
    say(ada, "so am I")
    shows(ada, ["ada: before", GAP, "bob: I am back first", "ada: so am I"])
    shows(bob, ["ada: before", GAP, "bob: I am back first", "ada: so am I"])


def test_a_name_that_is_none_gets_no_token(chats, chromium):
    chat = chats()
    page = chromium.open(f"http://{chat.address}/")
    page.run(
        "at('enter').noValidate = true; at('name').value = 'a b'; at('enter').requestSubmit();"
    )
    eventually("it is told", lambda: state(page) == "not connected: unauthorized")
    page.close()


def test_without_the_sdk_it_says_how_to_get_it(tmp_path):
    program = [THRONG.parent / "examples" / "centrifugo_chat", "127.0.0.1:0"]
    ended = subprocess.run(
        program, cwd=tmp_path, capture_output=True, text=True, timeout=START_S_MAX
    )
    assert ended.returncode == 1
    assert "npm install --no-save --prefix target centrifuge@5" in ended.stderr
