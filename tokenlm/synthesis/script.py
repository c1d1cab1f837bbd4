"""Speaking a script: line by line, at even loudness, with what has been made kept in a folder.

The sound of a line depends on the line and on the options alone, never on its neighbours. So a line
can be made again, or changed, and all others stay as they are; and a script that was interrupted
goes on where it was.

Shapes: S samples.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenlm.arguments import check_number
from tokenlm.audio.io import load_audio, save_audio
from tokenlm.audio.level import SPEECH_LUFS, even_out
from tokenlm.synthesis.adapters import VoiceModels
from tokenlm.synthesis.session import Progress, Session, SpeechCancelled
from tokenlm.synthesis.synthesizer import Synthesizer, choose_seed
from tokenlm.synthesis.voice import Voice
from tokenlm.text.markup import Style
from tokenlm.text.script import ScriptError, ScriptLine

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Of kept lines: part of their names, so that a change of how they are made makes them again."""


@dataclass(frozen=True)
class SpokenLine:
    """A line of a script as it is heard."""

    number: int
    """Of the line, from 1."""
    line: ScriptLine
    waveform: Tensor
    """(S,) at even loudness, and the silence after it."""
    start_sample: int
    """Where it begins in the speech."""
    is_kept: bool
    """Whether it had been made before."""


def speak_script(
    synthesizer: Synthesizer,
    lines: Sequence[ScriptLine],
    *,
    voice: Voice | str | None = None,
    seed: int | None = 0,
    speed: float = 1.0,
    folder: str | Path | None = None,
    comment: str | None = None,
    on_progress: Progress | None = None,
    **options: Any,
) -> Iterator[SpokenLine]:
    """Speaks a script, one line after the other; joined, the waveforms are the whole speech.

    Args:
        synthesizer: what speaks.
        lines: of the script.
        voice: of lines that name none; default the bundle's first.
        seed: of lines that have none.
        speed: of all lines, which their own is a factor of.
        folder: where finished lines are kept, as flac files of 16 bits, and looked for; default
            nowhere.
        comment: written to the metadata of these files.
        on_progress: called with the share that is done, by the length of the texts.
        options: as for `Synthesizer.generate`: context, sampling, num_steps, guidance_scale,
            solver, lexicon, sentence_gap, paragraph_gap, guards.

    Returns:
        An iterator of the lines.

    Raises:
        ScriptError: a line cannot be spoken; it is named. All lines are checked before the first is
            spoken.
    """
    default_seed = choose_seed(seed)
    checked = list(_checked(synthesizer, lines, voice, default_seed, speed, options, warns=True))
    return _speak(synthesizer, checked, folder, comment, on_progress)


@dataclass(frozen=True)
class _Request:
    """A line, and what makes a session for it."""

    line: ScriptLine
    new_session: Callable[[], Session]
    key: str
    """Digest of all that its sound depends on."""


def check_lines(
    synthesizer: Synthesizer,
    lines: Sequence[ScriptLine],
    *,
    voice: Voice | str | None = None,
    seed: int = 0,
    speed: float = 1.0,
    should_stop: Callable[[], bool] = lambda: False,
    **options: Any,
) -> None:
    """Checks that lines can be spoken, and logs nothing; arguments as for `speak_script`.

    Raises:
        ScriptError: one cannot; it is named.
        SpeechCancelled: `should_stop`, which is asked after each line, said so.
    """
    for _ in _checked(synthesizer, lines, voice, seed, speed, options, warns=False):
        if should_stop():
            raise SpeechCancelled("the script was cancelled.")


def _checked(
    synthesizer: Synthesizer,
    lines: Sequence[ScriptLine],
    voice: Voice | str | None,
    seed: int,
    speed: float,
    options: dict[str, Any],
    *,
    warns: bool,
) -> Iterator[_Request]:
    if not lines:
        raise ScriptError("the script has no lines.")
    check_number("speed", speed)
    find_voice = options.get("find_voice") or synthesizer.voice
    voices: dict[str, Voice | str | None] = {"": voice}
    for number, line in enumerate(lines, start=1):
        # Each line is read once to be checked and once to be spoken: one of them warns.
        def new_session(line: ScriptLine = line, *, warns: bool = False) -> Session:
            if line.voice not in voices:
                voices[line.voice] = find_voice(line.voice)
            session = synthesizer.new_session(
                voice=voices[line.voice],
                seed=seed if line.seed is None else line.seed,
                speed=speed * line.speed,
                instruction=line.style,
                markup=line.markup,
                **options,
            )
            session.text.read(line.text, warns=warns)
            return session

        try:
            session = new_session(warns=warns)
        except ValueError as error:
            raise ScriptError(f"line {number} ({_shown(line.text)}): {error}") from error
        key = sound_key(synthesizer, session, line.text, line.markup)
        session.close()
        yield _Request(line, new_session, key)


def sound_key(synthesizer: Synthesizer, session: Session, *facts: str | float) -> str:
    """Digest of all that the sound of a request depends on: the name of the file that keeps it.

    Args:
        synthesizer: what speaks.
        session: of the request, with its whole text.
        facts: what it depends on besides, and the text as it was written.
    """
    settings = session.settings
    known = [
        FORMAT_VERSION,
        json.dumps(synthesizer.components.manifest.files, sort_keys=True),
        *facts,
        settings.instruction,
        settings.seed,
        _spoken_by(settings.render.voice, settings.render.models),
        [repr(part) for part in _parts(session)],
        repr((settings.sampling, settings.guards)),
        repr([getattr(settings.render, name) for name in _RENDERING]),
    ]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


_RENDERING = ("context", "num_steps", "guidance_scale", "solver", "speed")


def _parts(session: Session) -> list[tuple[Any, ...]]:
    """What of the segments decides on the sound, such as the lexicon and the gaps."""
    segments = session.text.segments
    return [
        (
            part.tokens,
            part.pause_seconds,
            asdict(part.style),
            _spoken_by(session.voice_of(part.style), session.models_of(part.style)),
        )
        for part in segments
    ] + [(session.text.lead_seconds,)]


def _spoken_by(voice: Voice, models: VoiceModels) -> str:
    """Digest of a voice and of its adapter; of the voice alone where it has none."""
    return f"{voice.digest} {models.adapter}" if models.adapter else voice.digest


def _speak(
    synthesizer: Synthesizer,
    requests: Sequence[_Request],
    folder: str | Path | None,
    comment: str | None,
    on_progress: Progress | None,
) -> Iterator[SpokenLine]:
    rate, num_samples, num_done = synthesizer.sample_rate, 0, 0
    # What is kept takes no time, so it counts for nothing in what is left.
    paths = [_path(folder, request) for request in requests]
    sizes = [
        0 if path is not None and path.is_file() else len(request.line.text)
        for path, request in zip(paths, requests, strict=True)
    ]
    total = max(sum(sizes), 1)
    for number, (request, path, size) in enumerate(zip(requests, paths, sizes, strict=True), 1):
        is_kept = size == 0

        def report(share: float, done: int = num_done, size: int = size) -> None:
            if on_progress is not None:
                on_progress((done + share * size) / total)

        waveform = load_audio(path, rate) if path is not None and is_kept else None
        if waveform is None:
            waveform = _speak_line(request.new_session(), rate, report)
            if path is not None:
                save_audio(path, waveform, rate, comment=comment)
                waveform = load_audio(path, rate)
        num_done += size
        report(0.0, num_done)
        pause = torch.zeros(round(request.line.pause * rate), dtype=torch.float32)
        start, spoken = num_samples, torch.cat([waveform, pause])
        num_samples += spoken.shape[0]
        yield SpokenLine(number, request.line, spoken, start, is_kept)


def _path(folder: str | Path | None, request: _Request) -> Path | None:
    return None if folder is None else Path(folder) / f"{request.key}.flac"


def _speak_line(session: Session, sample_rate: int, on_progress: Progress) -> Tensor:
    waveform = session.generate(on_progress)
    return even_line(waveform, sample_rate, session.speech_tokens, session.styles)


def even_line(
    waveform: Tensor,
    sample_rate: int,
    speech_tokens: Sequence[Sequence[int]],
    styles: Sequence[Style],
) -> Tensor:
    """A line (S,) as loud as all others, but for the volumes that its markup asks for.

    Args:
        waveform: (S,) of the line.
        sample_rate: in hertz.
        speech_tokens: of its segments.
        styles: of its segments.
    """
    sizes = [len(tokens) for tokens in speech_tokens]
    weighted = [
        size * 10.0 ** (style.volume / 10.0) for size, style in zip(sizes, styles, strict=True)
    ]
    asked = 10.0 * math.log10(max(sum(weighted) / max(sum(sizes), 1), 1e-10))
    return even_out(waveform, sample_rate, SPEECH_LUFS + asked)


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 40 else f"{line[:39]}…")
