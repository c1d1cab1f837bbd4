"""The page of the server in a headless Chromium, used as a person with a keyboard would.

`scripts/page_test` runs this alone, with another bundle if it is told one, and keeps the pictures.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import soundfile
from playwright.sync_api import Browser, Page, expect, sync_playwright
from running_server import running_server

from tokenlm.checkpoint import resolve

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome")
     if (path := shutil.which(name))), None,
)  # fmt: skip
BUNDLE = os.environ.get("PAGE_TEST_BUNDLE", "mini-en")
TEXT = "This page speaks while it is still being made, and it shows what it says."
SPEECH_MS = 120_000
"""Time for speech on a busy machine."""
NUM_COLOURS = """(canvas) => {
    const { width, height } = canvas;
    const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
    const colours = new Set();
    for (let i = 0; i < data.length; i += 4) {
        colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    }
    return colours.size;
}"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)"
    ),
]


@pytest.fixture(scope="module")
def prompt() -> Path:
    return resolve(BUNDLE) / "demo_prompt.wav"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("server"), "--bundle", BUNDLE) as (address, _):
        yield address


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("PAGE_TEST_OUTPUT")
    return Path(folder) if folder else tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def browser(prompt: Path) -> Iterator[Browser]:
    """A browser that hears the prompt in place of a microphone."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--mute-audio", "--use-fake-ui-for-media-stream",
                  "--use-fake-device-for-media-stream",
                  f"--use-file-for-fake-audio-capture={prompt.resolve()}"],
        )  # fmt: skip
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page, loaded. Scripts may not fail, and nothing may be requested from elsewhere."""
    context = browser.new_context(base_url=url, viewport={"width": 1100, "height": 1400})
    found = context.new_page()
    requested: set[str] = set()
    problems: list[str] = []
    found.on("request", lambda request: requested.add(request.url))
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("console", lambda message: problems.append(message.text)
             if message.type == "error" else None)  # fmt: skip
    found.goto("/")
    expect(found.locator("#voice option").first).to_be_attached()
    yield found
    context.close()
    outside = {address for address in requested if not is_inside(address, url)}
    assert not outside
    # Of the test of a refusal.
    assert not [problem for problem in problems if "status of 400" not in problem]


def is_inside(address: str, url: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("blob", "data", "about") or parts.netloc == urlsplit(url).netloc


def speak(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#speak", "Enter")


def test_every_control_is_reached_by_the_tabulator_key(page: Page) -> None:
    page.evaluate("document.activeElement.blur()")
    reached: list[str] = []
    for _ in range(20):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "(({id, className, textContent}) => id || className || textContent)"
            "(document.activeElement)"
        )
        if name in reached:
            break
        reached.append(str(name))
    wanted = ["skip", "text", "voice", "speed", "seed", "speak", "record", "file", "name",
              "ref-text", "who", "agreed", "add"]  # fmt: skip
    assert [name for name in reached if name in wanted] == wanted


def test_speech_is_shown_before_it_is_complete_and_downloaded(page: Page, pictures: Path) -> None:
    page.fill("#text", TEXT)
    page.press("#text", "Control+Enter")
    expect(page.locator("#status")).to_have_text("Speaking…", timeout=SPEECH_MS)
    expect(page.locator("#first")).to_have_text(re.compile(r" ms$"), timeout=SPEECH_MS)
    assert page.inner_text("#total") == "–", "the first sound came when all was made"
    expect(page.locator("#said mark")).to_have_text(re.compile(r"^\w+[,.]?$"), timeout=SPEECH_MS)
    assert page.inner_text("#said") == TEXT
    page.screenshot(path=pictures / "speaking.png", full_page=True)
    expect(page.locator("#status")).to_have_text(re.compile("^Done"), timeout=SPEECH_MS)
    expect(page.locator("#said mark")).to_have_count(0)
    assert page.locator("#wave").evaluate(NUM_COLOURS) > 1
    assert page.locator("#mel").evaluate(NUM_COLOURS) > 100
    for name in ("first", "length", "total", "factor", "dry"):
        assert page.inner_text(f"#{name}") != "–", name
    page.screenshot(path=pictures / "spoken.png", full_page=True)
    with page.expect_download() as download:
        page.press("#download", "Enter")
    assert download.value.suggested_filename == "speech.wav"
    with soundfile.SoundFile(str(download.value.path())) as file:
        shown = float(page.inner_text("#length").split()[0])
        assert abs(file.frames / file.samplerate - shown) < 0.02
        assert "Synthesised" in file.comment


def test_speech_is_cancelled(page: Page) -> None:
    speak(page, " ".join([TEXT] * 12))
    expect(page.locator("#status")).to_have_text("Speaking…")
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Cancelled.")
    expect(page.locator("#speak")).to_be_focused()
    end = time.monotonic() + 20
    while page.request.get("/health").json()["live_streams"]:
        assert time.monotonic() < end


def test_a_refusal_is_a_sentence(page: Page) -> None:
    speak(page, "…")
    expect(page.locator("#status")).to_have_class(re.compile(r"\bbad\b"))
    assert page.inner_text("#status").endswith(".")


@pytest.mark.parametrize("name", ["recorded", "uploaded"])
def test_a_voice_is_added_with_consent_and_deleted(
    page: Page, prompt: Path, pictures: Path, name: str
) -> None:
    if name == "recorded":
        page.press("#record", "Enter")
        long_enough = re.compile(r"^(3\.[5-9]|[4-9])")  # seconds
        expect(page.locator("#recorded")).to_have_text(long_enough, timeout=30_000)
        page.keyboard.press("Enter")
        expect(page.locator("#voice-status")).to_have_text("Recorded.")
    else:
        page.set_input_files("#file", prompt)
        expect(page.locator("#recorded")).to_have_text("A file is chosen.")
    page.fill("#name", name)
    page.fill("#who", "A speaker of the test")
    page.press("#add", "Enter")
    assert page.locator("#voice-form:invalid").count() == 1, "a voice without consent is sent"
    page.press("#agreed", " ")
    page.press("#add", "Enter")
    expect(page.locator("#voice")).to_have_value(name, timeout=SPEECH_MS)
    page.screenshot(path=pictures / f"{name}.png", full_page=True)
    speak(page, "This is a new voice.")
    expect(page.locator("#status")).to_have_text(re.compile("^Done"), timeout=SPEECH_MS)
    page.press("#delete-voice", "Enter")
    expect(page.locator("#status")).to_have_text(re.compile(f"{name} is deleted"))
    expect(page.locator("#voice")).to_be_focused()


def test_nothing_sticks_out_of_a_narrow_screen(page: Page, pictures: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.screenshot(path=pictures / "narrow.png", full_page=True)


def test_everything_has_a_name_for_screen_readers(page: Page) -> None:
    roles = {"button", "textbox", "combobox", "spinbutton", "checkbox", "link", "image", "meter",
             "heading"}  # fmt: skip
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    seen = {
        str(node.get("name", {}).get("value", "")).strip()
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in roles
    }
    assert len(seen) > 10 and "" not in seen
