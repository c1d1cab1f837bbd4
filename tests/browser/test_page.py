"""The page of the server in a headless Chromium, used as a person with a keyboard would.

`scripts/page_test` runs this alone, with another bundle if it is told one, and keeps the pictures.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect, sync_playwright
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
expect.set_options(timeout=30_000)  # milliseconds; the browser has its share of such a machine
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
def strict_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that asks for spoken consent, as it does where others reach it."""
    folder = tmp_path_factory.mktemp("strict")
    words = ("--bundle", BUNDLE, "--set", "consent.policy=required")
    with running_server(folder, *words) as (address, _):
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
    with opened(browser, url) as found:
        yield found


@contextmanager
def opened(browser: Browser, url: str) -> Iterator[Page]:
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
    # Of the tests of refusals.
    refusals = ("status of 400", "status of 403")
    assert not [problem for problem in problems if not any(told in problem for told in refusals)]


def is_inside(address: str, url: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("blob", "data", "about") or parts.netloc == urlsplit(url).netloc


def speak(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#speak", "Enter")


def test_every_control_is_reached_by_the_tabulator_key(page: Page) -> None:
    page.evaluate("document.activeElement.blur()")
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name = page.evaluate(
            """(() => {
                const { id, name, className, textContent } = document.activeElement;
                const line = document.activeElement.closest("#script-lines fieldset legend ~ *");
                const own = id || name || className || textContent;
                return line ? `${line.parentElement.firstElementChild.textContent} ${own}` : own;
            })()"""
        )
        if name in reached:
            break
        reached.append(str(name))
    in_line = ["text", "voice", "speed", "seed", "pause", "hear speaks", "vary speaks", "remove"]
    wanted = ["skip", "text", "voice", "speed", "seed", "speak",
              *(f"Line {number} {name}" for number in (1, 2) for name in in_line),
              "speak-script", "add-line", "record", "file", "name", "ref-text", "who", "agreed",
              "add"]  # fmt: skip
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


def test_length_and_pauses_are_asked_for(page: Page) -> None:
    page.get_by_text("How it is said").click()
    assert page.locator("#instructions-row").is_hidden()  # this bundle follows none
    page.fill("#duration", "3.2")
    speak(page, "It is a [pause 0.5s] lamp.")
    done = page.locator("#status")
    expect(done).to_have_text("Done: 3.20 seconds of speech.", timeout=SPEECH_MS)
    page.fill("#duration", "")
    page.uncheck("#markup")
    page.fill("#sentence-gap", "2.5")
    speak(page, "Yes. [No.]")
    expect(page.locator("#said")).to_have_text("Yes. [No.]", timeout=SPEECH_MS)
    expect(done).to_have_text(re.compile("^Done"), timeout=SPEECH_MS)
    assert 2.9 < float(page.inner_text("#length").split()[0]) < 6.0


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


def spoken(page: Page, text: str) -> FilePayload:
    """A file of what the first voice of the bundle says, in place of a person."""
    voice = page.locator("#voice option").first.get_attribute("value")
    body = {"input": text, "voice": voice, "response_format": "wav"}
    response = page.request.post("/v1/audio/speech", data=body, timeout=SPEECH_MS)
    assert response.ok, response.text()
    return {"name": "said.wav", "mimeType": "audio/wav", "buffer": response.body()}


def test_a_voice_is_added_with_spoken_consent(
    browser: Browser, strict_url: str, pictures: Path
) -> None:
    """What the microphone hears is not the sentence, so it is refused; the right one is taken."""
    with opened(browser, strict_url) as page:
        told = page.locator("#voice-status")
        expect(page.locator("#spoken")).to_be_visible()
        expect(page.locator("#stated")).to_be_hidden()
        page.set_input_files("#file", spoken(page, " ".join([TEXT] * 2)))
        page.fill("#name", "spoken")
        page.fill("#who", "Ann Example")
        page.press("#add", "Enter")
        expect(told).to_have_text("Draw the sentence of consent first.")
        expect(page.locator("#draw")).to_be_focused()
        page.keyboard.press("Enter")
        sentence = page.locator("#sentence")
        expect(sentence).to_have_text(re.compile(r"^I, Ann Example, let tokenlm copy my voice\. "))
        page.press("#add", "Enter")
        expect(told).to_have_text("Record the sentence of consent first.")
        page.keyboard.press("Enter")
        seconds = re.compile(r"^(3\.[5-9]|[4-9])")
        expect(page.locator("#sentence-recorded")).to_have_text(seconds, timeout=30_000)
        page.keyboard.press("Enter")
        expect(told).to_have_text("Recorded.")
        page.press("#add", "Enter")
        expect(told).to_have_text(re.compile("not accepted: .*not heard to say"), timeout=SPEECH_MS)
        expect(sentence).to_have_text("Draw another sentence, and say that one.")
        page.screenshot(path=pictures / "refused.png", full_page=True)
        page.press("#draw", "Enter")
        expect(sentence).to_have_text(re.compile("^I, Ann Example"))
        page.set_input_files("#sentence-file", spoken(page, sentence.inner_text()))
        page.press("#add", "Enter")
        # It is listened to, and then the voice is made.
        expect(page.locator("#voice")).to_have_value("spoken", timeout=4 * SPEECH_MS)
        page.screenshot(path=pictures / "consent.png", full_page=True)


def line_of(page: Page, number: int) -> Locator:
    return page.get_by_role("group", name=f"Line {number}", exact=True)


def downloaded(page: Page, link: str) -> tuple[np.ndarray, int, str]:
    """Samples, rate and comment of what a link gives."""
    with page.expect_download() as download:
        page.press(link, "Enter")
    with soundfile.SoundFile(str(download.value.path())) as file:
        return file.read(dtype="float32"), file.samplerate, file.comment


def wait_for_script(page: Page, told: str) -> None:
    expect(page.locator("#script-status")).to_have_text(told, timeout=SPEECH_MS)


def test_a_line_of_a_script_is_made_again_and_the_rest_is_kept(page: Page, pictures: Path) -> None:
    asked: list[list[dict[str, object]]] = []
    page.on("request", lambda request: asked.append(request.post_data_json["input"])
            if request.method == "POST" else None)  # fmt: skip
    first, second = line_of(page, 1), line_of(page, 2)
    first.get_by_label("Text").fill("Is it so?")
    second.get_by_label("Text").fill("It is.")
    first.get_by_label("Pause").fill("2")
    assert first.get_by_label("Voice").input_value() != second.get_by_label("Voice").input_value()
    second.get_by_label("Text").press("Control+Enter")
    expect(page.locator("#said mark")).to_have_text(re.compile("Is it so"), timeout=SPEECH_MS)
    wait_for_script(page, "Done: 2 of 2 lines made, 0 kept.")
    seconds = [float(line.locator(".state").inner_text().split()[0]) for line in (first, second)]
    page.screenshot(path=pictures / "script.png", full_page=True)
    whole, rate, comment = downloaded(page, "#download-script")
    assert abs(len(whole) / rate - sum(seconds) - 2.0 - 0.4) < 0.02
    voices = ", ".join(line.get_by_label("Voice").input_value() for line in (first, second))
    assert "Synthesised" in comment and f"voice {voices}, seed 0" in comment
    start = round((seconds[0] + 2.0) * rate)  # of the second line, within half a hundredth
    assert not whole[start - round(1.98 * rate) : start - round(0.02 * rate)].any()

    second.get_by_role("button", name="Another take").press("Enter")
    wait_for_script(page, "Done: 1 of 1 lines made, 0 kept.")
    assert second.get_by_label("Seed").input_value() == "1"
    changed, _, comment = downloaded(page, "#download-script")
    kept = start - round(0.02 * rate)
    assert np.array_equal(changed[:kept], whole[:kept]) and "seed 0, 1" in comment
    assert not np.array_equal(changed[kept:], whole[kept:])
    assert [len(lines) for lines in asked] == [2, 1] and asked[1][0]["seed"] == 1

    # A pause is changed without any speech; a text makes its line again, and that alone.
    first.get_by_label("Pause").fill("3")
    first.get_by_label("Pause").press("Tab")
    longer, _, _ = downloaded(page, "#download-script")
    assert len(longer) - len(changed) == rate
    first.get_by_label("Text").fill("Is it?")
    first.get_by_label("Text").press("Tab")
    expect(first.locator(".state")).to_have_text("Changed since it was spoken.")
    expect(page.locator("#download-script")).to_be_hidden()
    page.press("#speak-script", "Enter")
    wait_for_script(page, "Done: 1 of 2 lines made, 1 kept.")
    assert [len(lines) for lines in asked] == [2, 1, 1] and asked[2][0]["text"] == "Is it?"
    expect(page.locator("#download-script")).to_be_visible()


def test_lines_of_a_script_are_added_and_removed(page: Page) -> None:
    page.press("#add-line", "Enter")
    third = line_of(page, 3).get_by_label("Text")
    expect(third).to_be_focused()
    page.press("#speak-script", "Enter")  # it has no text yet
    expect(third).to_be_focused()
    assert page.inner_text("#script-status") == ""
    third.fill("<foo>")
    page.press("#speak-script", "Enter")
    expect(page.locator("#script-status")).to_have_text(re.compile("[Ll]ine 3.*<foo>.*"))
    expect(page.locator("#script-status")).to_have_class(re.compile(r"\bbad\b"))
    second = line_of(page, 2).get_by_label("Text").input_value()
    line_of(page, 1).get_by_role("button", name="Remove").press("Enter")
    expect(line_of(page, 1).get_by_label("Text")).to_be_focused()
    assert line_of(page, 1).get_by_label("Text").input_value() == second
    line_of(page, 2).get_by_role("button", name="Remove").press("Enter")
    expect(line_of(page, 1).get_by_label("Text")).to_be_focused()
    line_of(page, 1).get_by_role("button", name="Remove").press("Enter")
    expect(page.locator("#script-status")).to_have_text("A script has at least one line.")
    expect(page.locator("#script-lines li")).to_have_count(1)


def test_a_script_that_is_cancelled_keeps_its_lines(page: Page) -> None:
    line_of(page, 1).get_by_label("Text").fill("Yes.")
    line_of(page, 2).get_by_label("Text").fill(" ".join([TEXT] * 12))
    page.press("#speak-script", "Enter")
    expect(line_of(page, 1).locator(".state")).to_have_text(re.compile(" s$"), timeout=SPEECH_MS)
    page.keyboard.press("Escape")
    wait_for_script(page, "Cancelled.")
    expect(line_of(page, 2).locator(".state")).to_have_text("Not spoken yet.")
    line_of(page, 2).get_by_label("Text").fill("It is.")
    page.press("#speak-script", "Enter")
    wait_for_script(page, "Done: 1 of 2 lines made, 1 kept.")


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
