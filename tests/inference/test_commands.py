"""The verbs of the command line, on a tiny bundle."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from typer.testing import CliRunner, Result

from inference import sinks
from tokenlm.cli import build_app
from tokenlm.synthesis import Voice


def run(*arguments: object, stdin: str | None = None) -> Result:
    words = [str(word) for word in arguments]
    return CliRunner().invoke(build_app(words), words, input=stdin)


def succeeds(*arguments: object, stdin: str | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(*arguments: object, status: int = 2) -> str:
    """What is said about a mistake: one sentence, no traceback."""
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result.stderr


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def test_clone_writes_marked_speech(tiny_bundle: Path, recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    said = succeeds(
        "clone", "Yes, it is.", "--prompt-audio", recording, "--prompt-text", "is it so",
        "-o", path, "--seed", 3, "--bundle", tiny_bundle,
    )  # fmt: skip
    info = soundfile.info(str(path))
    assert info.samplerate == 24_000 and info.frames > 0
    assert str(path) in said and "real-time factor" in said
    with soundfile.SoundFile(str(path)) as file:
        assert "Synthesised" in file.comment
        assert "tiny" in file.comment and "me" in file.comment and "seed 3" in file.comment


def test_clone_is_repeatable_and_takes_its_settings(
    tiny_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    def speak(name: str, *options: object) -> torch.Tensor:
        path = tmp_path / name
        succeeds(
            "clone", "one two", "--prompt-audio", recording, "-o", path,
            "--bundle", tiny_bundle, *options,
        )  # fmt: skip
        return torch.from_numpy(soundfile.read(str(path))[0])

    first = speak("a.wav")
    assert torch.equal(first, speak("b.wav"))
    others = [("--seed", 1), ("--context", "full"), ("--steps", 1), ("--guidance", 0)]
    others += [("--weights", "int8"), ("--weights", "bfloat16")]
    for number, options in enumerate(others):
        assert not torch.equal(first, speak(f"c{number}.wav", *options)), options


def test_text_comes_from_a_file_or_from_standard_input(tiny_bundle: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("yes it is\n", encoding="utf-8")
    base = ("say", "--bundle", tiny_bundle, "--voice", "ann", "-o")
    succeeds(*base, tmp_path / "a.flac", "--text-file", text)
    succeeds(*base, tmp_path / "b.flac", "--text-file", "-", stdin="yes it is\n")
    assert (tmp_path / "a.flac").read_bytes() == (tmp_path / "b.flac").read_bytes()


def test_say_takes_a_voice_of_the_bundle_and_a_file(
    tiny_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    voice = tmp_path / "me.voice"
    told = succeeds(
        "prepare-voice", recording, "--text", "is it so", "-o", voice, "--name", "I",
        "--bundle", tiny_bundle,
    )  # fmt: skip
    assert str(voice) in told
    assert Voice.load(voice).name == "I" and Voice.load(voice).prompt_text == "is it so"
    for number, name in enumerate(["bob", voice]):
        path = tmp_path / f"{number}.wav"
        succeeds("say", "yes", "--voice", name, "-o", path, "--bundle", tiny_bundle)
        assert soundfile.info(str(path)).frames > 0


def test_say_pipes_speech_as_it_is_made(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    base = ("say", "yes it is", "--bundle", tiny_bundle, "-o")
    succeeds(*base, path)
    expected = soundfile.read(str(path), dtype="int16")[0]
    piped = run(*base, "-")
    assert piped.exit_code == 0 and "standard output" in piped.stderr
    assert piped.stdout_bytes[:4] == b"RIFF" and piped.stdout_bytes[44:] == expected.tobytes()
    assert run(*base, "-", "--format", "pcm").stdout_bytes == expected.tobytes()


def test_say_reads_text_as_it_arrives(tiny_bundle: Path, tmp_path: Path) -> None:
    base = ("say", "--bundle", tiny_bundle, "--layout", "one_shot", "-o")
    succeeds(*base, tmp_path / "a.wav", "yes it is.")
    succeeds(*base, tmp_path / "b.wav", "-", stdin="yes it is.\n")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    interleaved = ("say", "-", "--bundle", tiny_bundle, "-o", tmp_path / "c.wav")
    succeeds(*interleaved, stdin="yes it is.")
    assert soundfile.info(str(tmp_path / "c.wav")).frames > 0
    succeeds(*interleaved, "--context", "full", stdin="yes it is.")
    words = [str(word) for word in interleaved]
    broken = CliRunner().invoke(build_app(words), words, input=b"yes \xff it")
    assert broken.exit_code == 2 and "is not UTF-8 text" in broken.stderr


def test_say_plays(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[torch.Tensor] = []

    class Loudspeaker(sinks.Sink):
        def __init__(self, sample_rate: int) -> None:
            assert sample_rate == 24_000

        def write(self, chunk: torch.Tensor) -> None:
            played.append(chunk)

    monkeypatch.setattr(sinks, "PlayerSink", Loudspeaker)
    monkeypatch.setattr(sinks, "check_player", lambda: None)
    monkeypatch.chdir(tmp_path)
    succeeds("say", "yes it is", "--play", "--bundle", tiny_bundle)
    assert len(played) > 1 and list(tmp_path.iterdir()) == []


def test_speed_changes_the_length(tiny_bundle: Path, recording: Path, tmp_path: Path) -> None:
    def frames(*words: object) -> int:
        succeeds(*words, "-o", tmp_path / "a.wav", "--bundle", tiny_bundle)
        return soundfile.info(str(tmp_path / "a.wav")).frames

    for base in (("say", "yes it is"), ("clone", "yes it is", "--prompt-audio", recording)):
        normal, fast = frames(*base), frames(*base, "--speed", 2)
        assert fast == pytest.approx(normal / 2, abs=2000)
        assert run(*base, "--speed", "5").exit_code == 2


def test_convert_keeps_the_length(tiny_bundle: Path, recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    base = ("convert", recording, "-o", path, "--bundle", tiny_bundle)
    succeeds(*base, "--voice", "bob")
    assert soundfile.info(str(path)).duration == pytest.approx(2.0, abs=0.3)
    succeeds(*base, "--prompt-audio", recording)
    assert "either --voice or --prompt-audio" in fails(*base)


def test_voices_lists_names_and_lengths(tiny_bundle: Path) -> None:
    lines = succeeds("voices", "--bundle", tiny_bundle).splitlines()
    assert [line.split()[0] for line in lines] == ["ann", "bob"]
    assert " s " in lines[0]


def test_transcribe_prints_text(tiny_bundle: Path, recording: Path) -> None:
    said = succeeds("transcribe", recording, "--bundle", tiny_bundle).strip()
    assert set(said) <= set(" 'abcdefghijklmnopqrstuvwxyz")


def test_tokens_reports_usage_and_leaves_bad_rows_out(
    tiny_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    shutil.copy(recording, tmp_path / "a.wav")
    rows = [json.dumps({"audio": "a.wav"}), "{broken", json.dumps({"audio": "gone.wav"})]
    manifest = tmp_path / "list.jsonl"
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    result = run("tokens", manifest, recording, "--bundle", tiny_bundle)
    assert result.exit_code == 0
    report = dict(line.split(None, 1) for line in result.stdout.splitlines())
    assert report["recordings"] == "2, 4.0 s"
    assert report["tokens"] == "100" and report["codebook"] == "27"
    assert 0 < float(report["utilisation"]) <= 1
    assert 1 <= float(report["perplexity"].split()[0]) <= 27
    assert "list.jsonl:2" in result.stderr and "gone.wav" in result.stderr
    component = tiny_bundle / "speech_tokenizer"
    assert succeeds("tokens", recording, "--bundle", component).startswith("recordings")


def test_inspect_describes_a_good_bundle(tiny_bundle: Path) -> None:
    told = succeeds("inspect", tiny_bundle)
    for part in ("speech_lm", "flow", "vocoder", "f16", "24000 Hz", "ann, bob", "look-ahead"):
        assert part in told
    # 3 tokens of 40 ms and 2 frames of 20 ms.
    assert "160 ms: flow 120 ms, vocoder 40 ms" in told
    assert "chunks       240, 480, 1000 ms" in told


def test_inspect_finds_altered_missing_and_strange_files(copy: Path) -> None:
    (copy / "demo_prompt.txt").write_text("something else", encoding="utf-8")
    (copy / "notes.txt").write_text("mine", encoding="utf-8")
    told = fails("inspect", copy, status=1)
    assert "error: demo_prompt.txt" in told and "warning: notes.txt" in told
    (copy / "voices" / "ann.voice").write_bytes(b"no voice")
    assert "voices/ann.voice" in fails("inspect", copy, status=1)
    shutil.rmtree(copy / "vocoder")
    assert "vocoder" in fails("inspect", copy, status=1)
    (copy / "bundle.yaml").write_text("name: [", encoding="utf-8")
    assert "bundle.yaml" in fails("inspect", copy, status=1)


def test_inspect_names_parts_that_disagree(copy: Path) -> None:
    config = copy / "flow" / "config.yaml"
    text = config.read_text(encoding="utf-8")
    assert "tokenizer:" in text
    lines = [
        "  tokenizer: '0000000000000000'" if line.strip().startswith("tokenizer:") else line
        for line in text.splitlines()
    ]
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = fails("inspect", copy, status=1)
    assert "speech_lm and flow disagree about the speech tokenizer" in told
    assert "0000000000000000" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("say", "yes", "--voice", "nobody"), "no voice 'nobody'; voices here: ann, bob"),
        (("say", ""), "nothing that can be said"),
        (("say", "🙂"), "nothing that can be said"),
        (("say", "yes", "--text-file", "x.txt"), "either an argument or --text-file"),
        (("say",), "either an argument or --text-file"),
        (("say", "--text-file", "gone.txt"), "gone.txt: No such file"),
        (("say", "yes", "--device", "abacus"), "'abacus' cannot be used: devices are cpu, cuda,"),
        (("say", "yes", "--device", "cuda:0:1"), "'cuda:0:1' cannot be used: devices are"),
        (("say", ""), "the text is empty"),
        (("say", " \n"), "the text is empty"),
        (("say", "?!"), "the text '?!' holds nothing that can be said"),
        (("say", "- -"), "the text '- -' holds nothing that can be said"),
        (("say", "-e"), "No such option: -e; a text that begins with a dash is given behind --"),
        (("say", "yes", "--seed", "soon"), "--seed takes a whole number from 0, or random"),
        (("say", "yes", "--voice", "anne"), "there is no voice 'anne' (did you mean 'ann'?)"),
        (("say", "yes", "--voice", "me.wav"), "me.wav is a recording, not a voice: speak in its"),
        (("say", "yes", "--voice", "me.M4A"), "tokenlm clone --prompt-audio me.M4A"),
        (("convert", "gone.wav", "--prompt-audio", "me.wav"), "gone.wav: there is no such audio"),
        (("transcribe", "gone.wav"), "gone.wav: there is no such audio file"),
        (("prepare-voice", "gone.wav"), "gone.wav: there is no such audio file"),
        (("clone", "yes", "--prompt-audio", "gone.wav"), "gone.wav: there is no such audio file"),
        (("convert", "gone.wav", "--voice", "ann"), "gone.wav: there is no such audio file"),
    ],
)
def test_mistakes_are_told_in_a_sentence_and_nothing_is_written(
    arguments: tuple[str, ...],
    told: str,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in fails(*arguments, "--bundle", tiny_bundle)
    assert list(tmp_path.iterdir()) == []


def test_unusable_outputs_are_told_before_any_work(tiny_bundle: Path, tmp_path: Path) -> None:
    base = ("say", "yes", "--bundle", "no/such/bundle", "-o")
    assert ".wav, .flac, .ogg" in fails(*base, tmp_path / "out.m4a")
    (tmp_path / "file").touch()
    assert "file is no folder" in fails(*base, tmp_path / "file" / "out.wav")
    (tmp_path / "folder.wav").mkdir()
    assert "is a folder" in fails(*base, tmp_path / "folder.wav")
    assert "neither a folder nor the name of a bundle" in fails(*base, tmp_path / "out.wav")
    told = fails("prepare-voice", tmp_path / "a.wav", "-o", tmp_path / "a.txt")
    assert "ends in .voice" in told


def test_options_out_of_range_are_usage_errors(tiny_bundle: Path) -> None:
    for option in (("--steps", "0"), ("--guidance", "-1"), ("--context", "wide"), ("--seed", "-1")):
        assert run("say", "yes", "--bundle", tiny_bundle, *option).exit_code == 2


def test_silent_and_broken_prompts(tiny_bundle: Path, tmp_path: Path) -> None:
    silent, text = tmp_path / "silent.wav", tmp_path / "text.wav"
    soundfile.write(silent, torch.zeros(24_000).numpy(), 24_000)
    text.write_text("this is no sound", encoding="utf-8")
    base = ("clone", "yes", "--bundle", tiny_bundle, "-o", tmp_path / "out.wav", "--prompt-audio")
    assert "is silent" in fails(*base, silent)
    assert "cannot be read as audio" in fails(*base, text)
    assert not (tmp_path / "out.wav").exists()


def speech_of(path: Path) -> torch.Tensor:
    return torch.from_numpy(soundfile.read(str(path))[0])


@pytest.mark.parametrize(
    "text", ["- hello", "-5 degrees", "-5", "-- hello", "--hello there", "—hello"]
)
def test_texts_that_begin_with_a_dash(text: str, tiny_bundle: Path, tmp_path: Path) -> None:
    base = ("--bundle", tiny_bundle)
    succeeds("say", text, "-o", tmp_path / "a.wav", *base)
    succeeds("say", *base, "-o", tmp_path / "b.wav", "--", text)
    (tmp_path / "text").write_text(text, encoding="utf-8")
    succeeds("say", *base, "-o", tmp_path / "c.wav", "--text-file", tmp_path / "text")
    first = speech_of(tmp_path / "a.wav")
    assert torch.equal(first, speech_of(tmp_path / "b.wav"))
    assert torch.equal(first, speech_of(tmp_path / "c.wav"))


def test_values_of_options_may_begin_with_a_dash_too(
    tiny_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    succeeds(
        "clone", "- yes", "--prompt-audio", recording, "--prompt-text", "- is it so", "-o",
        tmp_path / "a.wav", "--bundle", tiny_bundle,
    )  # fmt: skip
    assert (tmp_path / "a.wav").exists()


@pytest.mark.parametrize(("form", "subtype"), [("mp3", "MPEG_LAYER_III"), ("opus", "OPUS")])
def test_speech_as_browsers_like_it(
    form: str, subtype: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"out.{form}"
    base = ("say", "yes it is", "--bundle", tiny_bundle)
    succeeds(*base, "-o", path)
    with soundfile.SoundFile(str(path)) as file:
        assert file.subtype == subtype and "Synthesised" in file.comment
    result = run(*base, "-o", "-", "--format", form)
    assert result.exit_code == 0, result.output
    piped = tmp_path / f"piped.{form}"
    piped.write_bytes(result.stdout_bytes)
    succeeds(*base, "-o", tmp_path / "out.wav")
    length = speech_of(tmp_path / "out.wav").shape[0]
    for made in (path, piped):
        with soundfile.SoundFile(str(made)) as file:
            assert file.subtype == subtype
            assert abs(len(file.read()) - length) < 3000


def test_a_random_seed_is_told(tiny_bundle: Path, tmp_path: Path) -> None:
    base = ("say", "yes it is", "--bundle", tiny_bundle, "-o")
    said = succeeds(*base, tmp_path / "a.wav", "--seed", "random")
    seed = said.rstrip().rpartition("\nseed ")[2]
    succeeds(*base, tmp_path / "b.wav", "--seed", seed)
    assert torch.equal(speech_of(tmp_path / "a.wav"), speech_of(tmp_path / "b.wav"))
    other = succeeds(*base, tmp_path / "c.wav", "--seed", "random")
    assert other.rstrip().rpartition("\nseed ")[2] != seed
    assert "\nseed" not in succeeds(*base, tmp_path / "d.wav")


def test_one_word_of_our_own_can_be_listened_to(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "word.wav"
    samples = 0.3 * torch.sin(torch.arange(2400) * 0.1)
    soundfile.write(str(path), samples.numpy(), 24_000)
    base = ("--bundle", tiny_bundle)
    succeeds("transcribe", path, *base)
    succeeds("convert", path, "--voice", "ann", "-o", tmp_path / "out.wav", *base)
    assert soundfile.info(str(tmp_path / "out.wav")).frames >= 0.3 * 24_000
    assert "at least 0.4 s are needed" in fails("prepare-voice", path, *base)


@pytest.mark.parametrize("device", ["mps", "cuda", "cuda:99"])
def test_a_device_that_is_not_there_is_a_sentence(device: str, tiny_bundle: Path) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        device = "mps:9"
    elif device == "cuda" and torch.cuda.is_available():
        device = "cuda:99"
    told = fails("say", "yes", "--device", device, "--bundle", tiny_bundle)
    assert told.startswith(f"error: the device '{device}' cannot be used")
    assert len(told.splitlines()) == 1 and len(told) < 160


def test_errors_name_no_temporary_file(
    tiny_bundle: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: object, target: object) -> None:
        raise PermissionError(13, "Permission denied", str(source), None, str(target))

    monkeypatch.setattr("os.replace", refused)
    base = ("--bundle", tiny_bundle, "-o")
    told = fails("prepare-voice", recording, *base, tmp_path / "me.voice")
    assert f"{tmp_path / 'me.voice'}: Permission denied" in told and "partial" not in told
    told = fails("say", "yes", *base, tmp_path / "out.wav")
    assert f"{tmp_path / 'out.wav'}: Permission denied" in told and "partial" not in told


def test_say_writes_subtitles(tiny_bundle: Path, tmp_path: Path) -> None:
    base = ("say", "--bundle", tiny_bundle, "-o", tmp_path / "a.wav")
    srt, vtt, listed = (tmp_path / "new" / name for name in ("a.srt", "a.vtt", "a.json"))
    succeeds(*base, "It costs $3, yes. Is it so?", "--srt", srt, "--vtt", vtt, "--json", listed)
    assert srt.read_text(encoding="utf-8").startswith("1\n00:00:00,")
    assert "\nIt costs $3, yes.\n" in srt.read_text(encoding="utf-8")
    assert vtt.read_text(encoding="utf-8").startswith("WEBVTT\n\n00:00:00.")
    found = json.loads(listed.read_text(encoding="utf-8"))
    assert [word["text"] for word in found["words"]] == "It costs $3, yes. Is it so?".split()
    assert found["words"][2]["spoken"] == "three dollars,"
    whole = tmp_path / "whole.json"
    succeeds(*base, "It costs $3, yes. Is it so?", "--context", "full", "--json", whole)
    assert json.loads(whole.read_text(encoding="utf-8")) == found
    succeeds(*base, "-", "--json", whole, stdin="It costs $3, yes. Is it so?")
    piped = json.loads(whole.read_text(encoding="utf-8"))
    assert piped["text"] == found["text"] and len(piped["words"]) == 7


def test_clone_writes_what_say_writes(tiny_bundle: Path, recording: Path, tmp_path: Path) -> None:
    sound, srt, vtt, listed = (tmp_path / f"a.{suffix}" for suffix in ("wav", "srt", "vtt", "json"))
    base = ("clone", "--bundle", tiny_bundle, "--prompt-audio", recording, "-o", sound)
    text = "It <b>costs</b> $3, yes. [pause 0.2s] Is it so?"
    succeeds(*base, text, "--srt", srt, "--vtt", vtt, "--json", listed, "--duration", 4)
    assert soundfile.info(str(sound)).frames == 96_000
    assert "\nIt costs $3, yes.\n" in srt.read_text(encoding="utf-8")
    assert "\nIs it so?\n" in srt.read_text(encoding="utf-8")
    shown = re.sub(r"<[\d:.]+>", "", vtt.read_text(encoding="utf-8"))
    assert "\nIt costs $3, yes.\n" in shown and "\nIs it so?\n" in shown
    assert len(json.loads(listed.read_text(encoding="utf-8"))["words"]) == 7
    # The last subtitle ends with the sound.
    end = re.findall(r"--> 00:00:(\d\d),(\d{3})", srt.read_text(encoding="utf-8"))[-1]
    assert float(".".join(end)) <= 4.0
    assert "is named twice" in fails(*base, text, "--srt", sound)
    assert "is a folder" in fails(*base, text, "--vtt", tmp_path)


def test_subtitles_that_cannot_be_written(tiny_bundle: Path, tmp_path: Path) -> None:
    base = ("say", "yes", "--bundle", tiny_bundle, "-o", tmp_path / "a.wav")
    assert "is a folder" in fails(*base, "--srt", tmp_path)
    assert "is named twice" in fails(*base, "--srt", tmp_path / "x.wav", "-o", tmp_path / "x.wav")
    assert not (tmp_path / "a.wav").exists()


def test_say_takes_a_duration_and_subtitles(tiny_bundle: Path, tmp_path: Path) -> None:
    path, subtitles = tmp_path / "a.wav", tmp_path / "in.srt"
    base = ("say", "--bundle", tiny_bundle, "-o", path)
    succeeds(*base, "the lazy dog", "--duration", 2.5)
    assert soundfile.info(str(path)).frames == 60_000
    succeeds(*base, "-", "--duration", 2.5, stdin="the lazy dog")
    assert soundfile.info(str(path)).frames == 60_000
    assert "either a duration or a speed" in fails(*base, "yes", "--duration", 2, "--speed", 2)
    subtitles.write_text("1\n00:00:01,000 --> 00:00:03,000\nthe lazy dog\n", encoding="utf-8")
    succeeds(*base, "--srt-in", subtitles)
    assert 1.4 < soundfile.info(str(path)).frames / 24_000 <= 3.05
    assert "takes neither a text" in fails(*base, "yes", "--srt-in", subtitles)
    assert "takes no --srt" in fails(*base, "--srt-in", subtitles, "--srt", tmp_path / "b.srt")
    subtitles.write_text("hello\n", encoding="utf-8")
    assert "line 1 of the subtitles" in fails(*base, "--srt-in", subtitles)
    times = ("00:00:00,000 --> 00:00:01,000", "00:00:02,000 --> 00:00:02,020",
             "00:00:03,000 --> 00:00:05,000")  # fmt: skip
    texts = ["it <foo> is", "is it", "<voice name='zoe'>so</voice>"]
    cues = [f"{number}\n{times[number]}\n{texts[number]}\n" for number in range(3)]
    subtitles.write_text("\n".join(cues), encoding="utf-8")
    path.unlink()
    told = fails(*base, "--srt-in", subtitles)
    assert "subtitle 0 at 00:00:00,000" in told and "subtitle 2 at 00:00:03,000" in told
    assert "subtitle 1" not in told
    texts[0], texts[2] = "it is", "so"
    cues = [f"{number}\n{times[number]}\n{texts[number]}\n" for number in range(3)]
    subtitles.write_text("\n".join(cues), encoding="utf-8")
    told = fails(*base, "--srt-in", subtitles)
    kept = tmp_path / "a.wav.lines"
    assert "subtitle 1 at 00:00:02,000 'is it': this text takes about" in told
    assert f"The others are kept in {kept}" in told
    assert not path.exists() and len(list(kept.iterdir())) == 3
    subtitles.write_text(f"{cues[0]}\n{cues[2]}", encoding="utf-8")
    assert f"kept in {kept}" in succeeds(*base, "--srt-in", subtitles)
    assert len(list(kept.iterdir())) == 3 and 70_000 < soundfile.info(str(path)).frames
    subtitles.write_text("\n", encoding="utf-8")
    assert "holds no subtitle" in fails(*base, "--srt-in", subtitles)
