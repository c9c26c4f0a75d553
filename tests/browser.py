"""A page in headless Chromium, without a package: its DOM at rest (`dom_of`), or driven by its DevTools (`Browser`).

https://chromedevtools.github.io/devtools-protocol: messages are JSON, ended by a zero byte, on descriptors 3 and 4.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")

_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)
_LAUNCHER = """
import fcntl, os, sys
ours = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for number, wanted in zip(ours, (3, 4)):
    os.dup2(number, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""
_KEYS = {"Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9, " ": 32}


def dom_of(page: Path, folder: Path, fragment: str = "", milliseconds: int = 120_000) -> str:
    """The page's DOM after so much virtual time; `folder` keeps the browser's profile."""
    command = [
        str(CHROMIUM),
        *_QUIET,
        f"--virtual-time-budget={milliseconds}",
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
        page.as_uri() + fragment,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


class Browser:
    """One tab. `said`: console messages and errors of the pages; `asked`: addresses that they requested."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._number, self._session, self._waiting = 0, "", b""
        self.said: list[str] = []
        self.asked: list[str] = []
        self._events: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """One command and its answer; what is reported in between is kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        left = json.dumps(message).encode() + b"\0"
        while left:
            left = left[os.write(self._write, left) :]
        while (answer := self._next()).get("id") != self._number:
            self._keep(answer)
        assert "error" not in answer, (method, answer["error"])
        found: dict[str, Any] = answer["result"]
        return found

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            more = os.read(self._read, 1 << 16)
            assert more, "the browser has gone"
            self._waiting += more
        message, _, self._waiting = self._waiting.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _keep(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method", ""), event.get("params", {})
        self._events.append(method)
        if method == "Runtime.consoleAPICalled":
            self.said.append(f"{parameters['type']}: {parameters['args']}")
        elif method == "Runtime.exceptionThrown":
            self.said.append(str(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.said.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.asked.append(parameters["request"]["url"])

    def open(self, address: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page in a window of that size and wait until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self._events.clear()
        self.call("Page.navigate", url=address)
        while "Page.loadEventFired" not in self._events:
            self._keep(self._next())

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page (a promise is waited for)."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The expression's value, once it is one that counts as true; looked at every frame for twenty seconds."""
        found = self.ask(
            f"""new Promise((done) => {{
              const end = performance.now() + 20000;
              const look = () => {{
                const found = {expression};
                if (found || performance.now() > end) done(found); else setTimeout(look, 16);
              }};
              look();
            }})"""
        )
        assert found, f"never came true: {expression}"
        return found

    def press(self, *keys: str) -> None:
        """Keys one after the other, as a keyboard sends them."""
        for key in keys:
            code = _KEYS.get(key, ord(key.upper()[0]))
            text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
            common = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
            self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def picture(self, out: Path, whole: bool = True) -> None:
        """A PNG of the page, whole or what the window shows."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        out.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty `profile` folder, ended at the end."""
    (from_test, to_browser), (from_browser, to_test) = os.pipe(), os.pipe()
    command = [str(CHROMIUM), *_QUIET, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER, str(from_test), str(to_test), *command],
        pass_fds=(from_test, to_test),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(from_test)
    os.close(to_test)
    try:
        yield Browser(to_browser, from_browser)
    finally:
        process.terminate()
        process.wait(20)
        os.close(to_browser)
        os.close(from_browser)
