"""The chat of `examples`, in a real browser."""

import re
import signal
import subprocess

import pytest

from chromium import Chromium
from conftest import START_S_MAX, THRONG, eventually

pytestmark = pytest.mark.browser

CHAT = THRONG.parent / "examples" / "chat"


class Chat:
    def __init__(self, log_path, address: str = "127.0.0.1:0"):
        self.log_path = log_path
        with open(log_path, "w") as log:
            self.process = subprocess.Popen([CHAT, address], stdout=log, stderr=log)
        said = lambda: re.search(r"open http://(\S+)/", log_path.read_text())  # noqa: E731
        eventually("the chat listens", lambda: said() is not None)
        self.address = said()[1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(START_S_MAX)


@pytest.fixture
def chats(tmp_path):
    started = []

    def start(address: str = "127.0.0.1:0") -> Chat:
        started.append(Chat(tmp_path / f"chat-{len(started)}.log", address))
        return started[-1]

    yield start
    for chat in started:
        if chat.process.poll() is None:
            chat.end()


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
