"""Drives the page of a server in a headless browser, as a person with a keyboard would.

    scripts/page_test [--output FOLDER] [--bundle NAME]

Checks what the page shows and does, and leaves pictures of it in the folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import soundfile

from inference.server.checks.browser import Page, PageError, open_page
from inference.server.checks.running import running_server
from tokenlm.checkpoint import resolve

TEXT = "This page speaks while it is still being made, and it shows what it says."
LONG_TEXT = " ".join([TEXT] * 12)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the check; returns the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/page_test", description=__doc__)
    parser.add_argument("--bundle", default="mini-en", help="name of a bundle or its folder")
    parser.add_argument("--output", type=Path, default=Path("page_test"), help="for the pictures")
    parser.add_argument("--browser", help="program of the browser")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    prompt = resolve(options.bundle) / "demo_prompt.wav"
    with (
        tempfile.TemporaryDirectory() as name,
        running_server(Path(name), "--bundle", options.bundle) as (url, _),
        open_page(url, Path(name), program=options.browser, microphone=prompt) as page,
    ):
        try:
            check(page, url, prompt, Path(name), options.output)
        except PageError as error:
            page.screenshot(options.output / "failed.png")
            print(f"failed: {error}", file=sys.stderr)
            return 1
    print(f"all as it should be; pictures in {options.output}")
    return 0


def check(page: Page, url: str, prompt: Path, folder: Path, output: Path) -> None:
    """Everything that a person would do.

    Raises:
        PageError: something is not as it should be.
    """
    page.wait("document.getElementById('voice').options.length > 0")
    _say("loaded", page.text("about"))
    _check_keyboard(page)
    _check_speaking(page, output)
    _check_download(page, folder)
    _check_cancelling(page)
    _check_refusal(page)
    _check_voice(page, prompt, record=True)
    page.screenshot(output / "voice.png")
    _check_voice(page, prompt, record=False)
    _check_phone(page, output)
    unnamed = page.unnamed()
    _expect(not unnamed, f"controls without a name: {unnamed}")
    outside = {found for found in page.requested() if not _is_inside(found, url)}
    _expect(not outside, f"the page asks elsewhere: {outside}")
    expected = "status of 400"  # of the refusal above
    complaints = [told for told in page.complaints() if expected not in told]
    _expect(not complaints, f"the browser complains: {complaints}")


def _check_keyboard(page: Page) -> None:
    """Every control is reached with the tabulator key, in the order in which it is seen."""
    page.evaluate("document.activeElement.blur()")
    reached: list[str] = []
    for _ in range(20):
        page.press("Tab")
        name = page.evaluate("document.activeElement.id || document.activeElement.className")
        if name in reached:
            break
        reached.append(str(name))
    wanted = ["skip", "text", "voice", "speed", "seed", "speak", "record", "file", "name",
              "ref-text", "who", "agreed", "add"]  # fmt: skip
    _expect([name for name in reached if name in wanted] == wanted, f"the keys reach {reached}")
    _say("keyboard", f"{len(reached)} controls in order")


def _check_speaking(page: Page, output: Path) -> None:
    page.write("text", TEXT)
    page.press("Enter", control=True)
    # It is heard and drawn before it is complete.
    page.wait("document.getElementById('status').textContent === 'Speaking…'")
    page.wait("document.getElementById('first').textContent.endsWith(' ms')")
    early = page.text("total")
    page.screenshot(output / "speaking.png")
    page.wait("document.getElementById('status').textContent.startsWith('Done')", 120)
    _expect(early == "–", "the first sound came when all was made")
    for canvas in ("wave", "mel"):
        num_colours = page.evaluate(
            f"""(() => {{
                const canvas = document.getElementById('{canvas}');
                const {{ width, height }} = canvas;
                const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
                const seen = new Set();
                for (let i = 0; i < data.length; i += 4) {{
                    seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
                }}
                return seen.size;
            }})()"""
        )
        _expect(num_colours > (1 if canvas == "wave" else 100), f"{canvas} is empty")
    for name in ("first", "length", "total", "factor", "dry"):
        _say(name, page.text(name))
        _expect(page.text(name) != "–", f"{name} is not shown")
    page.screenshot(output / "spoken.png")


def _check_download(page: Page, folder: Path) -> None:
    page.focus("download")
    page.press("Enter")
    path = folder / "speech.wav"
    end = time.monotonic() + 20
    while not path.is_file():
        _expect(time.monotonic() < end, "nothing is downloaded")
        time.sleep(0.1)
    with soundfile.SoundFile(str(path)) as file:
        shown = float(page.text("length").split()[0])
        _expect(
            abs(file.frames / file.samplerate - shown) < 0.02, "the download has another length"
        )
        _expect("Synthesised" in file.comment, "the download does not say what it is")
        _say("download", f"{path.name}, {file.frames} samples, {file.comment!r}")


def _check_cancelling(page: Page) -> None:
    page.write("text", LONG_TEXT)
    page.focus("speak")
    page.press("Enter")
    page.wait("document.getElementById('status').textContent === 'Speaking…'")
    page.press("Escape")
    page.wait("document.getElementById('status').textContent === 'Cancelled.'")
    _expect(page.evaluate("document.activeElement.id") == "speak", "the keys have lost their place")
    live = "fetch('health').then((r) => r.json()).then((h) => h.live_streams === 0)"
    page.wait(live, 20)
    _say("cancelled", "the server has no live stream any more")


def _check_refusal(page: Page) -> None:
    page.write("text", "…")
    page.focus("speak")
    page.press("Enter")
    page.wait("document.getElementById('status').classList.contains('bad')")
    told = page.text("status")
    _expect(told.endswith("."), f"a refusal is told as {told!r}")
    _say("refused", told)


def _check_voice(page: Page, prompt: Path, *, record: bool) -> None:
    name = "recorded" if record else "uploaded"
    if record:
        page.focus("record")
        page.press("Enter")
        page.wait("parseFloat(document.getElementById('recorded').textContent) > 3.5", 30)
        page.press("Enter")
        page.wait("document.getElementById('voice-status').textContent === 'Recorded.'")
    else:
        page.choose_file("file", prompt)
        page.wait("document.getElementById('recorded').textContent === 'A file is chosen.'")
    page.write("name", name)
    page.write("who", "A speaker of the test")
    if not page.evaluate("document.getElementById('agreed').checked"):
        # Without consent the form is not sent.
        page.focus("add")
        page.press("Enter")
        _expect(
            page.evaluate("document.querySelector('#voice-form:invalid') !== null"),
            "a voice without consent is sent",
        )
        page.focus("agreed")
        page.press(" ")
    page.focus("add")
    page.press("Enter")
    page.wait(f"document.getElementById('voice').value === '{name}'", 120)
    _say(name, page.text("voice-status"))
    page.write("text", "This is a new voice.")
    page.focus("speak")
    page.press("Enter")
    page.wait("document.getElementById('status').textContent.startsWith('Done')", 120)
    page.focus("delete-voice")
    page.press("Enter")
    page.wait(f"document.getElementById('status').textContent.includes('{name} is deleted')")
    _expect(page.evaluate("document.activeElement.id") == "voice", "the keys have lost their place")


def _check_phone(page: Page, output: Path) -> None:
    """Nothing sticks out of a narrow screen."""
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1,
              mobile=True)  # fmt: skip
    width = page.evaluate("document.documentElement.scrollWidth")
    _expect(width <= 360, f"on a screen of 360 points the page is {width} wide")
    page.screenshot(output / "narrow.png")
    page.call("Emulation.clearDeviceMetricsOverride")


def _is_inside(address: str, url: str) -> bool:
    found = urlsplit(address)
    return found.scheme in ("blob", "data", "about") or found.netloc == urlsplit(url).netloc


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise PageError(problem)


def _say(what: str, told: str) -> None:
    print(f"{what:<10} {told}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
