"""A Chromium without a window, driven by its DevTools protocol, and the pages that it opens."""

import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

from websockets.sync.client import connect

START_S_MAX = 30
STEP_S_MAX = 20
MESSAGE_BYTES_MAX = 16 << 20

OPTIONS = (
    "--headless",
    "--remote-debugging-port=0",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-quic",
    "--no-first-run",
    # It is to talk to nobody but us.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Chromium:
    def __init__(self, profile: Path, *more: str):
        program = os.environ.get("THRONG_CHROMIUM", "chromium")
        assert shutil.which(program), f"{program} is missing: apt install chromium"
        # Its sandbox refuses to run as root.
        sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
        self.log_path = profile / "chromium.log"
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(
                [program, *OPTIONS, *more, *sandbox, f"--user-data-dir={profile}", "about:blank"],
                stdout=log,
                stderr=log,
            )
        try:
            self.address = self._address(profile / "DevToolsActivePort")
        except BaseException:
            self.end()
            raise

    def _address(self, port_file: Path) -> str:
        deadline = time.monotonic() + START_S_MAX
        while True:
            # The second line is written last.
            lines = port_file.read_text().splitlines() if port_file.exists() else []
            if len(lines) >= 2:
                return f"127.0.0.1:{lines[0]}"
            log = self.log_path.read_text()
            assert self.process.poll() is None, f"Chromium ended:\n{log}"
            assert time.monotonic() < deadline, f"Chromium did not start:\n{log}"
            time.sleep(0.02)

    def open(self, url: str) -> "Tab":
        request = urllib.request.Request(
            f"http://{self.address}/json/new?about:blank", method="PUT"
        )
        with urllib.request.urlopen(request, timeout=STEP_S_MAX) as answer:
            target = json.load(answer)
        closing = f"http://{self.address}/json/close/{target['id']}"
        return Tab(target["webSocketDebuggerUrl"], closing, url)

    def end(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STEP_S_MAX)
        self.process.kill()
        self.process.wait()


class Tab:
    def __init__(self, debugger_url: str, closing: str, url: str):
        self.closing = closing
        self.held = contextlib.ExitStack()
        self.socket = self.held.enter_context(
            connect(debugger_url, max_size=MESSAGE_BYTES_MAX, open_timeout=STEP_S_MAX, proxy=None)
        )
        self.commands = 0
        self.events: list[tuple[str, dict]] = []
        """What the browser reported: a method and its parameters each."""
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        self.until(
            f"the page is {url}",
            lambda: any(
                parameters["frame"]["url"].startswith(url)
                for parameters in self._reported("Page.frameNavigated")
            ),
        )
        self.run(
            "if (document.readyState !== 'complete') await new Promise((end) => (onload = end));"
        )
        self.forget()

    def call(self, method: str, **parameters) -> dict:
        self.commands += 1
        id = self.commands
        self.socket.send(json.dumps({"id": id, "method": method, "params": parameters}))
        while (message := self._receive()).get("id") != id:
            pass
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def _receive(self) -> dict:
        message = json.loads(self.socket.recv(STEP_S_MAX))
        if "method" in message:
            self.events.append((message["method"], message["params"]))
        return message

    def until(self, what: str, condition) -> None:
        """Takes reports until they meet the condition."""
        while not condition():
            try:
                self._receive()
            except TimeoutError:
                raise AssertionError(f"nothing within {STEP_S_MAX} s: {what}") from None

    def _reported(self, method: str) -> list[dict]:
        return [parameters for name, parameters in self.events if name == method]

    def run(self, script: str, **values):
        """What the body of an async function returns; `values` are its variables."""
        variables = "".join(
            f"const {name} = {json.dumps(value)};" for name, value in values.items()
        )
        expression = f"(async () => {{ {variables} {script} }})()"
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if failure := result.get("exceptionDetails"):
            raise AssertionError(failure.get("exception", {}).get("description", failure["text"]))
        return result["result"].get("value")

    def requested(self) -> list[str]:
        """The URLs that the page asked for so far, but for those of WebSockets."""
        return [
            parameters["request"]["url"]
            for parameters in self._reported("Network.requestWillBeSent")
        ]

    def statuses(self, count: int) -> list[int]:
        """Of all answers over HTTP and refused WebSockets so far, once there are `count`.

        Also of those that the page may not see.
        """

        def seen() -> list[int]:
            http = [
                parameters["statusCode"]
                for parameters in self._reported("Network.responseReceivedExtraInfo")
            ]
            upgrades = [
                re.search(r"response code: (\d+)", parameters["errorMessage"])
                for parameters in self._reported("Network.webSocketFrameError")
            ]
            return http + [int(found[1]) for found in upgrades if found]

        self.until(f"{count} answers", lambda: len(seen()) >= count)
        return seen()

    def forget(self) -> None:
        self.events.clear()

    def close(self) -> None:
        # Not by `Page.close`, which a page that is being navigated refuses.
        with self.held, contextlib.suppress(OSError):
            urllib.request.urlopen(self.closing, timeout=STEP_S_MAX).close()


class Pages:
    """A web server whose every page is blank, beside `scripts`: by path, the files."""

    def __init__(self, scripts: dict[str, Path] | None = None):
        class Blank(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = b"<!doctype html><title>blank</title><link rel=icon href=data:,>"
                content_type = "text/html"
                if script := (scripts or {}).get(self.path):
                    body, content_type = script.read_bytes(), "text/javascript"
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Blank)
        self.origin = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()
