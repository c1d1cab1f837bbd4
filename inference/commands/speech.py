"""Verbs that make speech: clone, say, convert."""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from inference.commands.options import (
    ArrivingTextArgument,
    CachePrecision,
    ConsentBundleOption,
    EnhanceOption,
    FormatOption,
    ForOthersOption,
    LayoutOption,
    OutputOption,
    PlayOption,
    Precision,
    PromptAudioOption,
    PromptTextOption,
    RenderingOptions,
    SayOutputOption,
    SubtitlesOption,
    TextArgument,
    TextFileOption,
    TextOptions,
    WhoOption,
    takes_options,
)
from tokenlm.atomic import write_text
from tokenlm.checkpoint.resolve import find_voices, resolve
from tokenlm.console import ProgressBar
from tokenlm.installation import check_device

if TYPE_CHECKING:
    from torch import Tensor

    from tokenlm.synthesis import Synthesizer, Voice
    from tokenlm.synthesis.words import TimedWord


@takes_options
def clone(
    text: TextArgument = None,
    *,
    prompt_audio: Annotated[
        Path, typer.Option("--prompt-audio", help="Recording of the voice, some seconds of it.")
    ],
    prompt_text: PromptTextOption = None,
    enhance: EnhanceOption = False,
    output: OutputOption = Path("out.wav"),
    text_file: TextFileOption = None,
    for_others: ForOthersOption = False,
    consent_bundle: ConsentBundleOption = "",
    who: WhoOption = None,
    options: TextOptions,
) -> None:
    """Say a text in the voice of a recording."""
    from tokenlm.audio.io import check_recording

    words, arguments = read_text(text, text_file), options.arguments()
    with ProgressBar("loading") as progress:
        check_output(output)
        _check_files(options, output, text_file, prompt_audio)
        check_recording(prompt_audio)
        check_text(words, resolve(options.bundle))
        synthesizer = load_synthesizer(options.bundle, options.device, options.weights)
    if for_others:
        from inference.commands.consent import spoken_consent
        from inference.consent.settings import ConsentConfig

        spoken_consent(synthesizer, prompt_audio, who, ConsentConfig(bundle=consent_bundle))
    with ProgressBar("listening") as progress:
        voice = synthesizer.prepare_voice(prompt_audio, prompt_text, enhance=enhance)
        progress.describe("speaking")
        speech, seconds = timed(
            lambda: synthesizer.generate(
                words, voice=voice, on_progress=progress.update, **arguments
            )
        )
    number = arguments["seed"]
    write_speech(output, speech, synthesizer, voice=voice, seed=number, seconds=seconds)
    length = speech.shape[0] / synthesizer.sample_rate
    _write_listings(options, words, _words_of(speech), length)
    report_seed(options.seed, number)


@takes_options
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
    srt_in: SubtitlesOption = None,
    text_file: TextFileOption = None,
    layout: LayoutOption = "auto",
    options: TextOptions,
) -> None:
    """Say a text in a voice of the bundle, or in one that `prepare-voice` made.

    The speech is played (--play), written to a file (-o out.wav) or to standard output (-o -), the
    first and the last while it is being made. Text may be piped in: `… | tokenlm say - --play`.
    Subtitles are spoken at their times: `tokenlm say --srt-in film.srt -o film.wav`.
    """
    from inference.sinks import check_player
    from inference.subtitles import SubtitleError, dub, read_srt

    arrives = text == "-" and text_file is None
    subtitles = None
    if srt_in is not None:
        has_text = text is not None or text_file is not None
        if has_text or options.duration is not None or options.speed != 1.0:
            raise ValueError("--srt-in takes neither a text nor a --duration or --speed.")
        if options.listings:
            raise ValueError("--srt-in has its times: it takes no --srt, --vtt or --json.")
        subtitles = read_srt(read_text(None, str(srt_in)))
        if not subtitles:
            raise ValueError(f"{srt_in} holds no subtitle that can be said.")
        words = ""
    else:
        words = "" if arrives else read_text(text, text_file)
    arguments = options.arguments()
    if output is None and not play:
        output = Path("out.wav")
    to_pipe = output is not None and str(output) == "-"
    with ProgressBar("loading") as progress:
        if output is not None and not to_pipe:
            check_output(output)
        _check_files(options, output, text_file, srt_in)
        if play:
            check_player()
        folder = resolve(options.bundle)
        if voice is not None:
            find_voices(folder, voice)
        if not arrives and subtitles is None:
            check_text(words, folder)
        synthesizer = load_synthesizer(options.bundle, options.device, options.weights)
        chosen = _choose_voice(synthesizer, voice, None, None)
        arguments |= {"voice": chosen, "layout": layout}
        kept: Path | None = None
        pieces: list[str] = []
        timed_words: list[TimedWord] = []
        progress.describe("speaking")
        start = time.perf_counter()
        is_whole = options.context == "full" or options.solver not in (None, "euler")
        if subtitles is not None:
            del arguments["duration"], arguments["speed"]
            if output is not None and not to_pipe:
                kept = output.with_name(f"{output.name}.lines")
                check_folder(kept)
            chunks = dub(
                synthesizer,
                subtitles,
                folder=kept,
                comment=provenance_comment(synthesizer, chosen.name, arguments["seed"]),
                on_progress=progress.update,
                **arguments,
            )
        elif is_whole or (arrives and options.duration is not None):
            words = "".join(arriving_text()) if arrives else words
            speak = synthesizer.generate
            chunks = iter([speak(words, on_progress=progress.update, **arguments)])
        elif arrives:
            chunks = synthesizer.stream(_kept(arriving_text(), pieces), **arguments)
        else:
            chunks = synthesizer.stream(words, **arguments)
        with_words = _keep_words(chunks, timed_words)
        number = arguments["seed"]
        try:
            num_samples = _pour(with_words, synthesizer, chosen, number, play, output, form)
        except SubtitleError as error:
            if kept is None:
                raise
            advice = f"The others are kept in {kept}: mend these, and give the command again."
            raise SubtitleError([*error.mistakes, advice]) from error
        except KeyboardInterrupt:
            if kept is None:
                raise
            again = f" with --seed {number}" if options.seed == "random" else ""
            raise KeyboardInterrupt(
                f"what is finished is kept in {kept}, and the same command{again} goes on from "
                f"there. {output} is written when all is."
            ) from None
        seconds = time.perf_counter() - start
    length = num_samples / synthesizer.sample_rate
    _write_listings(options, "".join(pieces) or words, timed_words, length)
    if output is not None:
        target = "standard output" if to_pipe else output
        report(target, length, seconds, error_stream=to_pipe)
    if kept is not None:
        typer.echo(f"the speech of each subtitle is kept in {kept}")
    unlisted = getattr(chunks, "unlisted_words", []) if arguments["lexicon"] else []
    if unlisted:
        typer.echo(f"in no lexicon, said by rule: {' '.join(unlisted)}", err=True)
    report_seed(options.seed, number, error_stream=to_pipe)


@takes_options
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
    options: RenderingOptions,
) -> None:
    """Convert a recording to another voice."""
    from tokenlm.audio.io import check_recording

    if (voice is None) == (prompt_audio is None):
        raise ValueError("give the new voice as either --voice or --prompt-audio.")
    arguments = options.arguments()
    with ProgressBar("loading") as progress:
        check_output(output)
        check_recording(source)
        if voice is not None:
            find_voices(resolve(options.bundle), voice)
        if prompt_audio is not None:
            check_recording(prompt_audio)
        synthesizer = load_synthesizer(options.bundle, options.device, options.weights)
        chosen = _choose_voice(synthesizer, voice, prompt_audio, prompt_text)
        progress.describe("speaking")
        speech, seconds = timed(lambda: synthesizer.convert(source, voice=chosen, **arguments))
    number = arguments["seed"]
    write_speech(output, speech, synthesizer, voice=chosen, seed=number, seconds=seconds)
    report_seed(options.seed, number)


def load_synthesizer(
    bundle: str,
    device: str = "cpu",
    weights: Precision = "float32",
    *,
    caches: CachePrecision = "float32",
    dtype: str = "float32",
    lexicon: Path | None = None,
) -> Synthesizer:
    """Loads a bundle on a device, its large models in a precision.

    Args:
        bundle: its name, folder or id on the hub.
        device: where the models run.
        weights: precision of the large models.
        caches: precision of the caches of the flow.
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
    accelerate(synthesizer.components, weights=weights, caches=caches)
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
    check_folder(path.absolute().parent)


def check_folder(path: Path) -> None:
    """Checks that files can be written to a folder, which need not be there yet.

    Raises:
        ValueError: it, or what it would be made in, is no folder or cannot be written to.
    """
    whole = path.absolute()
    folder = next(parent for parent in (whole, *whole.parents) if parent.exists())
    if not folder.is_dir():
        raise ValueError(f"{path}: {folder} is no folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: there is no permission to write to {folder}.")


def _check_files(options: TextOptions, *others: Path | str | None) -> None:
    """Checks that the listings of words can be written, and that no file has two uses.

    Args:
        options: name the listings.
        others: files that the verb reads or writes besides; "-" and None are none.

    Raises:
        ValueError: a file is named twice, is a folder, or lies in one that cannot be written to.
    """
    files = [*options.listings, *(Path(path) for path in others if path and str(path) != "-")]
    for path in files:
        if sum(path.resolve() == other.resolve() for other in files) > 1:
            raise ValueError(f"{path} is named twice: each file needs a name of its own.")
    for path in options.listings:
        check_writable(path)


def _write_listings(
    options: TextOptions, text: str, words: Sequence[TimedWord], seconds: float
) -> None:
    """Writes words and their times.

    Args:
        options: name the files.
        text: that was spoken.
        words: of it.
        seconds: length of the speech.
    """
    from inference.subtitles import to_json, to_srt, to_vtt

    for path, make in ((options.srt, to_srt), (options.vtt, to_vtt), (options.json, to_json)):
        if path is not None:
            write_text(path, make(text, words, seconds))


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
    for chunk in chunks:
        words += _words_of(chunk)
        yield chunk


def _words_of(chunk: Tensor) -> Sequence[TimedWord]:
    """Words of a waveform (S,); none where they were not timed."""
    from tokenlm.synthesis.words import Speech

    return chunk.words if isinstance(chunk, Speech) else ()


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
