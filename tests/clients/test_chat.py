"""The chat of `examples`, in a real browser."""

import pytest

from chromium import Chromium
from conftest import eventually

pytestmark = pytest.mark.browser


@pytest.fixture
def chats(example):
    return lambda address="127.0.0.1:0": example("chat", address)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    chromium = Chromium(tmp_path_factory.mktemp("chromium-chat"))
    yield chromium
    chromium.end()


def enter(tab, name: str, room: str) -> None:
    tab.run("at('name').value = name; at('enter').requestSubmit();", name=name)
    eventually("it is connected", lambda: tab.run("return !at('join').hidden"))
    tab.run("at('room').value = room; at('join').requestSubmit();", room=room)


def say(tab, text: str) -> None:
    tab.run("at('text').value = text; at('say').requestSubmit();", text=text)


def lines(tab) -> list[str]:
    return tab.run("return [...document.querySelectorAll('#lines p')].map((p) => p.textContent)")


def hears(tab, expected: list[str]) -> None:
    eventually(f"the page shows {expected}", lambda: lines(tab) == expected)


def test_people_talk_come_late_and_come_back(chats, chromium):
    chat = chats()
    ada = chromium.open(f"http://{chat.address}/")
    enter(ada, "ada", "hall")
    say(ada, "is <b>anybody</b> here?")
    hears(ada, ["joined hall", "ada: is <b>anybody</b> here?"])
    # Who comes late sees what was said before.
    bob = chromium.open(f"http://{chat.address}/")
    enter(bob, "bob", "hall")
    hears(bob, ["joined hall", "ada: is <b>anybody</b> here?"])
    say(bob, "I am")
    hears(ada, ["joined hall", "ada: is <b>anybody</b> here?", "bob: I am"])
    # Another room is another topic.
    enter_room = "at('room').value = 'attic'; at('join').requestSubmit();"
    bob.run(enter_room)
    say(bob, "quiet here")
    hears(bob, ["joined attic", "bob: quiet here"])
    # A connection that is lost comes back to where it was: nothing is missing, nothing comes twice.
    ada.run("socket.close();")
    bob.run("select('hall');")
    say(bob, "are you gone?")
    before = ["joined hall", "ada: is <b>anybody</b> here?", "bob: I am"]
    hears(ada, [*before, "joined hall", "bob: are you gone?"])
    # A server that was killed has forgotten what was said: the gap is told.
    chat.kill()
    chats(chat.address)
    gone = "some messages are no longer kept"
    eventually("the gap is told", lambda: gone in lines(ada))
    say(ada, "we are back")
    eventually("both are back", lambda: "ada: we are back" in lines(bob))
