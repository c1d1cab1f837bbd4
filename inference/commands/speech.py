"""Verbs that make speech: clone, say, convert."""

from __future__ import annotations

import codecs
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from inference.commands.options import (
    ArrivingTextArgument,
    BundleOption,
    ContextOption,
    DeviceOption,
    DurationOption,
    FormatOption,
    GuidanceOption,
    InstructionOption,
    JsonOption,
    LayoutOption,
    LexiconOption,
    MarkupOption,
    OutputOption,
    ParagraphGapOption,
    PlayOption,
    Precision,
    PromptAudioOption,
    PromptTextOption,
    SayOutputOption,
    SeedOption,
    SentenceGapOption,
    SolverOption,
    SpeedOption,
    SrtOption,
    StepsOption,
    SubtitlesOption,
    TextArgument,
    TextFileOption,
    VttOption,
    WeightsOption,
)
from tokenlm.atomic import atomic_path
from tokenlm.checkpoint.resolve import find_voices, resolve
from tokenlm.console import ProgressBar
from tokenlm.installation import check_device

if TYPE_CHECKING:
    from torch import Tensor

    from tokenlm.synthesis import Synthesizer, Voice
    from tokenlm.synthesis.words import TimedWord
    from tokenlm.text.lexicon import UserLexicon


def clone(
    text: TextArgument = None,
    *,
    prompt_audio: Annotated[
        Path, typer.Option("--prompt-audio", help="Recording of the voice, some seconds of it.")
    ],
    prompt_text: PromptTextOption = None,
    output: OutputOption = Path("out.wav"),
    text_file: TextFileOption = None,
    seed: SeedOption = "0",
    speed: SpeedOption = 1.0,
    bundle: BundleOption = "mini-en",
    context: ContextOption = "default",
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    solver: SolverOption = None,
    instruction: InstructionOption = "",
    lexicon: LexiconOption = None,
    markup: MarkupOption = True,
    sentence_gap: SentenceGapOption = None,
    paragraph_gap: ParagraphGapOption = None,
    device: DeviceOption = "cpu",
    weights: WeightsOption = "float32",
) -> None:
    """Say a text in the voice of a recording."""
    from tokenlm.audio.io import check_recording

    words, number = read_text(text, text_file), read_seed(seed)
    own = read_lexicon(lexicon)
    with ProgressBar("loading") as progress:
        check_output(output)
        check_recording(prompt_audio)
        check_text(words, resolve(bundle))
        synthesizer = load_synthesizer(bundle, device, weights)
        progress.describe("listening")
        voice = synthesizer.prepare_voice(prompt_audio, prompt_text)
        progress.describe("speaking")
        speech, seconds = timed(
            lambda: synthesizer.generate(
                words,
                voice=voice,
                seed=number,
                speed=speed,
                context=context,
                num_steps=steps,
                guidance_scale=guidance,
                solver=solver,
                instruction=instruction,
                lexicon=own,
                markup=markup,
                sentence_gap=sentence_gap,
                paragraph_gap=paragraph_gap,
                on_progress=progress.update,
            )
        )
    write_speech(output, speech, synthesizer, voice=voice, seed=number, seconds=seconds)
    report_seed(seed, number)


def say(
    text: ArrivingTextArgument = None,
    *,
    voice: Annotated[
        str | None,
        typer.Option(
            "--voice",
            help="Voice of the bundle, a voice file, or a mixture: ann:0.7+bob:0.3.",
            show_default="the first",
        ),
    ] = None,
    output: SayOutputOption = None,
    play: PlayOption = False,
    form: FormatOption = "wav",
    srt: SrtOption = None,
    vtt: VttOption = None,
    json: JsonOption = None,
    srt_in: SubtitlesOption = None,
    text_file: TextFileOption = None,
    seed: SeedOption = "0",
    speed: SpeedOption = 1.0,
    duration: DurationOption = None,
    bundle: BundleOption = "mini-en",
    context: ContextOption = "default",
    layout: LayoutOption = "auto",
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    solver: SolverOption = None,
    instruction: InstructionOption = "",
    lexicon: LexiconOption = None,
    markup: MarkupOption = True,
    sentence_gap: SentenceGapOption = None,
    paragraph_gap: ParagraphGapOption = None,
    device: DeviceOption = "cpu",
    weights: WeightsOption = "float32",
) -> None:
    """Say a text in a voice of the bundle, or in one that `prepare-voice` made.

    The speech is played (--play), written to a file (-o out.wav) or to standard output (-o -), the
    first and the last while it is being made. Text may be piped in: `… | tokenlm say - --play`.
    Subtitles are spoken at their times: `tokenlm say --srt-in film.srt -o film.wav`.
    """
    from inference.sinks import check_player
    from inference.subtitles import dub, read_srt, to_json, to_srt, to_vtt

    arrives = text == "-" and text_file is None
    subtitles = None
    if srt_in is not None:
        if text is not None or text_file is not None or duration is not None or speed != 1.0:
            raise ValueError("--srt-in takes neither a text nor a --duration or --speed.")
        if srt is not None or vtt is not None or json is not None:
            raise ValueError("--srt-in has its times: it takes no --srt, --vtt or --json.")
        subtitles = read_srt(read_text(None, str(srt_in)))
        if not subtitles:
            raise ValueError(f"{srt_in} holds no subtitle that can be said.")
        words = subtitles[0].text
    else:
        words = "" if arrives else read_text(text, text_file)
    number = read_seed(seed)
    own = read_lexicon(lexicon)
    if output is None and not play:
        output = Path("out.wav")
    to_pipe = output is not None and str(output) == "-"
    listings = [
        (path, write)
        for path, write in ((srt, to_srt), (vtt, to_vtt), (json, to_json))
        if path is not None
    ]
    files = [path for path, _ in listings]
    files += [Path(path) for path in (output, text_file, srt_in) if path and str(path) != "-"]
    for path in files:
        if sum(path.resolve() == other.resolve() for other in files) > 1:
            raise ValueError(f"{path} is named twice: each file needs a name of its own.")
    with ProgressBar("loading") as progress:
        if output is not None and not to_pipe:
            check_output(output)
        for path, _ in listings:
            check_writable(path)
        if play:
            check_player()
        folder = resolve(bundle)
        if voice is not None:
            find_voices(folder, voice)
        if not arrives:
            check_text(words, folder)
        synthesizer = load_synthesizer(bundle, device, weights)
        chosen = _choose_voice(synthesizer, voice, None, None)
        options: dict[str, Any] = {
            "voice": chosen,
            "seed": number,
            "speed": speed,
            "context": context,
            "layout": layout,
            "num_steps": steps,
            "guidance_scale": guidance,
            "solver": solver,
            "instruction": instruction,
            "lexicon": own,
            "markup": markup,
            "sentence_gap": sentence_gap,
            "paragraph_gap": paragraph_gap,
            "word_times": bool(listings),
            "duration": duration,
        }
        pieces: list[str] = []
        timed_words: list[TimedWord] = []
        progress.describe("speaking")
        start = time.perf_counter()
        is_whole = context == "full" or solver not in (None, "euler")
        if subtitles is not None:
            del options["duration"], options["speed"]
            chunks = dub(synthesizer, subtitles, **options)
        elif is_whole or (arrives and duration is not None):
            words = "".join(arriving_text()) if arrives else words
            speak = synthesizer.generate
            chunks = iter([speak(words, on_progress=progress.update, **options)])
        elif arrives:
            chunks = synthesizer.stream(_kept(arriving_text(), pieces), **options)
        else:
            chunks = synthesizer.stream(words, **options)
        with_words = _keep_words(chunks, timed_words)
        num_samples = _pour(with_words, synthesizer, chosen, number, play, output, form)
        seconds = time.perf_counter() - start
    for path, write in listings:
        with atomic_path(path) as temporary:
            temporary.write_text(write("".join(pieces) or words, timed_words), encoding="utf-8")
    if output is not None:
        target = "standard output" if to_pipe else output
        report(target, num_samples / synthesizer.sample_rate, seconds, error_stream=to_pipe)
    unlisted = getattr(chunks, "unlisted_words", []) if own else []
    if unlisted:
        typer.echo(f"in no lexicon, said by rule: {' '.join(unlisted)}", err=True)
    report_seed(seed, number, error_stream=to_pipe)


def convert(
    source: Annotated[Path, typer.Argument(help="Recording to say again.")],
    *,
    voice: Annotated[
        str | None,
        typer.Option(
            "--voice", help="Voice of the bundle, a voice file, or a mixture: ann:0.7+bob:0.3."
        ),
    ] = None,
    prompt_audio: PromptAudioOption = None,
    prompt_text: PromptTextOption = None,
    output: OutputOption = Path("out.wav"),
    seed: SeedOption = "0",
    bundle: BundleOption = "mini-en",
    context: ContextOption = "default",
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    solver: SolverOption = None,
    device: DeviceOption = "cpu",
    weights: WeightsOption = "float32",
) -> None:
    """Convert a recording to another voice."""
    from tokenlm.audio.io import check_recording

    if (voice is None) == (prompt_audio is None):
        raise ValueError("give the new voice as either --voice or --prompt-audio.")
    number = read_seed(seed)
    with ProgressBar("loading") as progress:
        check_output(output)
        check_recording(source)
        if voice is not None:
            find_voices(resolve(bundle), voice)
        if prompt_audio is not None:
            check_recording(prompt_audio)
        synthesizer = load_synthesizer(bundle, device, weights)
        chosen = _choose_voice(synthesizer, voice, prompt_audio, prompt_text)
        progress.describe("speaking")
        speech, seconds = timed(
            lambda: synthesizer.convert(
                source,
                voice=chosen,
                seed=number,
                context=context,
                num_steps=steps,
                guidance_scale=guidance,
                solver=solver,
            )
        )
    write_speech(output, speech, synthesizer, voice=chosen, seed=number, seconds=seconds)
    report_seed(seed, number)


def load_synthesizer(
    bundle: str,
    device: str = "cpu",
    weights: Precision = "float32",
    *,
    dtype: str = "float32",
    lexicon: Path | None = None,
) -> Synthesizer:
    """Loads a bundle on a device, its large models in a precision.

    Args:
        bundle: its name, folder or id on the hub.
        device: where the models run.
        weights: precision of the large models.
        dtype: what the large models compute in, see `Synthesizer.from_pretrained`.
        lexicon: file of pronunciations for all requests.

    Raises:
        ValueError: there is no such bundle or device.
    """
    folder = resolve(bundle)
    check_device(device, by_name=True)
    # Mistakes are reported before this: importing torch takes a second.
    from tokenlm.synthesis import Synthesizer
    from tokenlm.synthesis.acceleration import accelerate

    synthesizer = Synthesizer.from_pretrained(folder, device=device, dtype=dtype, lexicon=lexicon)
    accelerate(synthesizer.components, weights=weights)
    return synthesizer


def check_output(path: Path, also: Sequence[str] = ()) -> None:
    """Checks that a sound file can be written to `path`, before any work is done for it.

    Args:
        path: of the file.
        also: suffixes that the verb writes besides those of sound files.

    Raises:
        ValueError: it has another suffix, or is a folder, or its folder cannot be written to.
    """
    from tokenlm.audio.io import WRITABLE_SUFFIXES

    suffixes = (*also, *WRITABLE_SUFFIXES)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: sound is written to files that end in {', '.join(suffixes)}.")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Checks that a file can be written to `path`.

    Raises:
        ValueError: it is a folder, or its folder cannot be written to.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise ValueError(f"{path}: {folder} is no folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: there is no permission to write to {folder}.")


def check_text(text: str, folder: Path) -> None:
    """Checks that there is something to say, before any work is done for it.

    Args:
        text: as it was written.
        folder: the bundle, whose text tokenizer names the normalizer.

    Raises:
        ValueError: the text holds nothing that can be said.
    """
    if any(letter.isalnum() for letter in text):
        return
    if not text.strip():
        raise ValueError("the text is empty: it holds nothing that can be said.")
    from tokenlm.text.normalize import frontend
    from tokenlm.text.tokenizer_config import read_tokenizer_config

    normalizer = read_tokenizer_config(folder / "text_tokenizer").normalizer
    if not frontend(normalizer).normalize(text):
        raise ValueError(f"the text {text.strip()[:40]!r} holds nothing that can be said.")


def timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What `work` returns, and the seconds that it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def write_speech(
    path: Path,
    speech: Tensor,
    synthesizer: Synthesizer,
    *,
    voice: Voice,
    seed: int,
    seconds: float,
) -> None:
    """Writes synthesised speech, marked as such, and reports length and time.

    Args:
        path: sound file.
        speech: (S,) at the rate of the synthesizer.
        synthesizer: what made it.
        voice: whose voice it is in.
        seed: of its draws.
        seconds: time that it took to make.
    """
    from tokenlm.audio.io import save_audio

    rate = synthesizer.sample_rate
    save_audio(path, speech, rate, comment=provenance_comment(synthesizer, voice.name, seed))
    report(path, speech.shape[0] / rate, seconds)


def arriving_text() -> Iterator[str]:
    """Pieces of standard input, as they arrive.

    Raises:
        ValueError: they are not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    read = getattr(sys.stdin.buffer, "read1", sys.stdin.buffer.read)
    try:
        while data := read(4096):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError("standard input is not UTF-8 text.") from error


def _kept(pieces: Iterator[str], kept: list[str]) -> Iterator[str]:
    """The pieces of a text, which are also appended to a list."""
    for piece in pieces:
        kept.append(piece)
        yield piece


def _keep_words(chunks: Iterator[Tensor], words: list[TimedWord]) -> Iterator[Tensor]:
    """Chunks of speech, whose words are appended to a list."""
    from tokenlm.synthesis.words import Speech

    for chunk in chunks:
        if isinstance(chunk, Speech):
            words += chunk.words
        yield chunk


def _pour(
    chunks: Iterator[Tensor],
    synthesizer: Synthesizer,
    voice: Voice,
    seed: int,
    play: bool,
    output: Path | None,
    form: Literal["wav", "pcm", "flac", "mp3", "opus"],
) -> int:
    """Writes chunks of speech to all outputs; returns the number of samples."""
    from inference.sinks import FileSink, PipeSink, PlayerSink

    rate, num_samples = synthesizer.sample_rate, 0
    with ExitStack() as stack:
        sinks = []
        if play:
            sinks.append(stack.enter_context(PlayerSink(rate)))
        if output is not None and str(output) == "-":
            comment = provenance_comment(synthesizer, voice.name, seed)
            sinks.append(stack.enter_context(PipeSink(sys.stdout.buffer, rate, form, comment)))
        elif output is not None:
            comment = provenance_comment(synthesizer, voice.name, seed)
            sinks.append(stack.enter_context(FileSink(output, rate, comment)))
        for chunk in chunks:
            num_samples += chunk.shape[0]
            for sink in sinks:
                sink.write(chunk)
    return num_samples


def provenance_comment(synthesizer: Synthesizer, voice: str, seed: int) -> str:
    """Metadata of a file about its origin; `voice` is a name."""
    from tokenlm import __version__

    bundle = synthesizer.components.manifest.name
    return (
        f"Synthesised speech, not a recording: tokenlm {__version__}, bundle {bundle}, "
        f"voice {voice}, seed {seed}"
    )


def report(target: object, length: float, seconds: float, *, error_stream: bool = False) -> None:
    """Prints how long the speech is, and how long it took.

    Args:
        target: where it was written.
        length: of the speech, in seconds.
        seconds: that it took.
        error_stream: whether to print there.
    """
    factor = seconds / length if length else 0.0
    typer.echo(
        f"{target}: {length:.2f} s of speech in {seconds:.2f} s (real-time factor {factor:.2f})",
        err=error_stream,
    )


def read_seed(text: str) -> int:
    """The seed of the option --seed.

    Raises:
        ValueError: it is neither a number nor `random`.
    """
    if text == "random":
        return secrets.randbelow(1 << 31)
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"--seed takes a whole number from 0, or random, not {text!r}.")
    return int(text)


def report_seed(option: str, number: int, *, error_stream: bool = False) -> None:
    """Prints the seed where `option` asked for a random one."""
    if option == "random":
        typer.echo(f"seed {number}", err=error_stream)


def _choose_voice(
    synthesizer: Synthesizer,
    name: str | None,
    prompt_audio: Path | None,
    prompt_text: str | None,
) -> Voice:
    if prompt_audio is not None:
        return synthesizer.prepare_voice(prompt_audio, prompt_text)
    if name is None:
        if not synthesizer.voices:
            raise ValueError("the bundle has no voices: use clone with a recording.")
        name = synthesizer.voices[0]
    return synthesizer.voice(name)


def read_lexicon(path: Path | None) -> UserLexicon | None:
    """The lexicon of the option --lexicon.

    Raises:
        LexiconError: it cannot be read.
    """
    if path is None:
        return None
    from tokenlm.text.lexicon import UserLexicon

    return UserLexicon.load(path)


def read_text(text: str | None, text_file: str | None) -> str:
    """The text of the argument, of a file or of standard input."""
    if (text is None) == (text_file is None):
        raise ValueError("give the text as either an argument or --text-file.")
    if text is not None:
        return text
    assert text_file is not None
    data = sys.stdin.buffer.read() if text_file == "-" else Path(text_file).read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{text_file} is not UTF-8 text.") from error
