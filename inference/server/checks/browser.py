"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_SECONDS = 60.0
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}


class PageError(RuntimeError):
    """The page does not do what is expected of it, or the browser cannot be used."""


class Page:
    """One page. What happens on it meanwhile is kept in `events`."""

    def __init__(self, connection: ClientConnection) -> None:
        self.events: list[dict[str, Any]] = []
        self._connection = connection
        self._num_calls = 0
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol.

        Raises:
            PageError: the browser refuses it.
        """
        self._num_calls += 1
        number = self._num_calls
        message = {"id": number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message))
        while True:
            answer = json.loads(self._connection.recv(timeout=60))
            if answer.get("id") == number:
                if "error" in answer:
                    raise PageError(f"{method}: {answer['error']}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise PageError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 60.0) -> Any:
        """Waits until an expression is true, and gives its value."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            if time.monotonic() > end:
                told = self.evaluate("document.body.innerText")
                raise PageError(f"in vain for {seconds:g} s: {expression}; the page says: {told}")
            time.sleep(0.05)
        return value

    def text(self, element: str) -> str:
        """Text of an element by its id."""
        return str(self.evaluate(f"document.getElementById('{element}').textContent"))

    def focus(self, element: str) -> None:
        """Puts the focus on an element by its id."""
        self.evaluate(f"document.getElementById('{element}').focus()")

    def press(self, key: str, *, control: bool = False) -> None:
        """Presses a key."""
        facts: dict[str, Any] = {
            "key": key,
            "code": "Space" if key == " " else key,
            "windowsVirtualKeyCode": KEYS[key],
            "modifiers": 2 if control else 0,
        }
        text = {"Enter": "\r", " ": " "}.get(key)
        down = "keyDown" if text and not control else "rawKeyDown"
        extra = {"text": text} if down == "keyDown" else {}
        self.call("Input.dispatchKeyEvent", type=down, **facts, **extra)
        self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def write(self, element: str, text: str) -> None:
        """Writes into a field, in place of what it holds, as keys do."""
        self.focus(element)
        self.evaluate(f"document.getElementById('{element}').select()")
        self.call("Input.insertText", text=text)

    def choose_file(self, element: str, path: Path) -> None:
        """Chooses a file for a file field."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=f"#{element}")["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path.resolve())], nodeId=node)

    def screenshot(self, path: Path) -> None:
        """Writes a picture of the whole page (png)."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def requested(self) -> set[str]:
        """Addresses that the page has asked for."""
        return {
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        }

    def complaints(self) -> list[str]:
        """Errors of scripts, and what the browser complains of."""
        found = []
        for event in self.events:
            facts = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(facts["exceptionDetails"])[:500])
            elif event["method"] == "Log.entryAdded" and facts["entry"]["level"] == "error":
                found.append(f"{facts['entry']['text']} ({facts['entry'].get('url')})")
        return found

    def unnamed(self) -> list[str]:
        """Controls and pictures that a screen reader could not name."""
        roles = {"button", "textbox", "combobox", "spinbutton", "checkbox", "link", "image",
                 "meter", "heading"}  # fmt: skip
        found = []
        for node in self.call("Accessibility.getFullAXTree")["nodes"]:
            role = node.get("role", {}).get("value")
            named = str(node.get("name", {}).get("value", "")).strip()
            if not node.get("ignored") and role in roles and not named:
                found.append(f"{role} {node.get('nodeId')}")
        return found


@contextmanager
def open_page(
    url: str, folder: Path, *, program: str | None = None, microphone: Path | None = None
) -> Iterator[Page]:
    """A page of a fresh browser.

    Args:
        url: its address.
        folder: for the files of the browser, and for downloads.
        program: the browser, by default the first of `NAMES` that there is.
        microphone: a wav file to be heard in place of a microphone, which is allowed.

    Raises:
        PageError: there is no browser, or it does not start.
    """
    command = program or next((name for name in NAMES if shutil.which(name)), None)
    if command is None:
        raise PageError("there is no Chromium here: apt-get install chromium")
    profile = folder / "profile"
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
               "--disable-component-update", "--disable-background-networking", "--no-first-run",
               "--disable-dev-shm-usage", "--window-size=1100,1400", "--mute-audio",
               f"--user-data-dir={profile}"]  # fmt: skip
    if microphone is not None:
        options += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
                    f"--use-file-for-fake-audio-capture={microphone.resolve()}"]  # fmt: skip
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen([command, *options, "about:blank"], stdout=log, stderr=log)
    try:
        port = _port(profile / "DevToolsActivePort", process, folder)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            target = next(item for item in json.load(answer) if item["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None) as connection:
            page = Page(connection)
            page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
            page.call("Page.navigate", url=url)
            page.wait("document.readyState === 'complete'")
            yield page
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(path: Path, process: subprocess.Popen[bytes], folder: Path) -> int:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if path.is_file() and (lines := path.read_text().splitlines()):
            return int(lines[0])
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise PageError(f"the browser does not start: {(folder / 'browser.log').read_text()[-1000:]}")
