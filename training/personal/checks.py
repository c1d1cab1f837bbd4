"""Checks of a take: what is wrong with a recording of a sentence, why, and what helps.

Shapes: S samples, E embedding channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from tokenlm.audio.noise import reverberation_seconds, speech_levels, window_levels
from tokenlm.audio.resample import resample
from tokenlm.text.normalize import frontend
from training.personal.config import TakeConfig
from training.refine.measures import (
    bandwidth_hz,
    clipped_share,
    measure_sound,
    word_disagreement,
)
from training.refine.recognisers import RATE, Recogniser
from training.refine.segment import normalise_level, silero_windows
from training.refine.speakers import Embed
from training.refine.steps import spoken_words

Outcome = Literal["fine", "enhance", "again"]
"""Fine as it is; good enough to be enhanced; to be recorded again."""
OUTCOMES: dict[Outcome, str] = {
    "fine": "fine",
    "enhance": "fine to enhance",
    "again": "record again",
}
"""The outcomes, the best first, and how they are read."""
_WINDOW_SECONDS = 0.03
_LOUD_DB = 8.0
"""Below the loudest part: where a sentence begins and ends, for what is heard around it."""
_HEAD_SECONDS, _TAIL_SECONDS = 0.15, 0.3
"""Left out next to the sentence: soft first sounds, and those that die away."""
_MIN_PIECE_SECONDS = 0.3
_PIECE_DBFS = -26.0
"""Level at which what is around a sentence is listened to."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check says of a take."""

    check: str
    """Name of the check, such as `noise`."""
    outcome: Outcome
    value: float | None
    """What was measured, in the unit that the reason names; None for what is no number."""
    reason: str
    """What is so, in plain words."""
    hint: str = ""
    """What helps; empty where all is fine."""


@dataclass(frozen=True, kw_only=True)
class TakeReport:
    """All findings of a take."""

    findings: tuple[Finding, ...]
    heard: str = ""
    """What was read, as a recogniser spells it."""
    embedding: tuple[float, ...] = ()
    """Speaker embedding (E,); empty where there is no encoder."""
    encoder: str = ""
    """Name of the encoder's weights."""

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of all checks."""
        order = list(OUTCOMES)
        worst = max((order.index(found.outcome) for found in self.findings), default=0)
        return order[worst]

    @property
    def problems(self) -> list[Finding]:
        """The findings that are not fine, the worst first."""
        order = list(OUTCOMES)
        found = [one for one in self.findings if one.outcome != "fine"]
        return sorted(found, key=lambda one: -order.index(one.outcome))

    def __str__(self) -> str:
        lines = [OUTCOMES[self.outcome]]
        lines += [f"  {one.check}: {one.reason}; {one.hint}" for one in self.problems]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the token recogniser of a bundle read in a take."""

    error_rate: float
    """Errors per phone or letter of the sentence."""
    num_words: int
    """Words of the sentence."""
    missing: int
    """Those that were not read."""
    heard: str
    """In its own spelling."""


Read = Callable[[Tensor, int, str], Reading | None]
"""Waveform (S,), its rate in Hz and the sentence; None where the sentence cannot be checked."""


@dataclass(frozen=True, kw_only=True)
class TakeChecker:
    """Checks takes. What is not given is not checked."""

    config: TakeConfig = field(default_factory=TakeConfig)
    read: Read | None = None
    """Compares words by a bundle's token recogniser."""
    recognise: Recogniser | None = None
    """Compares words by a recogniser with a vocabulary; then `read` is not asked."""
    embed: Embed | None = None
    """Tells persons apart."""
    encoder: str = ""
    """Name of the weights of `embed`."""

    def check(
        self,
        waveform: Tensor,
        sample_rate: int,
        text: str,
        others: Sequence[Sequence[float]] = (),
        *,
        usual_rate: int | None = None,
    ) -> TakeReport:
        """Check a take.

        Args:
            waveform: (S,) as it was recorded, neither levelled nor resampled.
            sample_rate: In Hz.
            text: The sentence that was to be read; words are not compared with an empty one.
            others: Embeddings (E,) of the other takes of the person, by the same encoder.
            usual_rate: Rate of the other takes in Hz; None where there are none.
        """
        config = self.config
        empty = _sound(waveform, sample_rate, config)
        if empty is not None:
            return TakeReport(findings=(empty,))
        findings = [
            *_levels(waveform, sample_rate, config),
            _clipping(waveform, config),
            _bandwidth(waveform, sample_rate, config),
            *_echo(waveform, sample_rate, config),
            _ends(waveform, sample_rate, config),
        ]
        if usual_rate is not None:
            findings.append(_rate(sample_rate, usual_rate))
        if config.detector == "silero":
            findings.append(_background(waveform, sample_rate, config))
        heard = ""
        if text.strip() and (self.recognise or self.read):
            found, heard = self._words(waveform, sample_rate, text)
            findings += [found] if found else []
        embedding: tuple[float, ...] = ()
        if self.embed is not None:
            vector = self.embed(resample(waveform, sample_rate, RATE))
            embedding = tuple(round(float(value), 5) for value in vector)
            findings += _person(vector, others, config)
        return TakeReport(
            findings=tuple(findings), heard=heard, embedding=embedding, encoder=self.encoder
        )

    def _words(self, waveform: Tensor, sample_rate: int, text: str) -> tuple[Finding | None, str]:
        hint = "read the sentence as it stands, or skip it"
        config = self.config
        if self.recognise is not None:
            heard = self.recognise(resample(waveform, sample_rate, RATE))
            error = word_disagreement([spoken_words(text), spoken_words(heard)]) or 0.0
            is_wrong = error > config.max_word_error
            reason = f"{error:.0%} of the words differ; heard: {heard.strip() or 'nothing'!r}"
        else:
            assert self.read is not None
            reading = self.read(waveform, sample_rate, text)
            if reading is None:
                return None, ""
            heard, error = reading.heard, reading.error_rate
            lost = reading.missing / max(reading.num_words, 1)
            # A recogniser that reads the other words well can be believed about those.
            is_partial = lost > config.max_missing_share and (
                error - lost <= config.max_other_error * (1 - lost)
            )
            is_wrong = error > config.max_read_error or is_partial
            reason = f"{error:.0%} of its sounds differ from the sentence"
            if reading.missing:
                reason += f", {reading.missing} of {reading.num_words} words are not heard"
        outcome: Outcome = "again" if is_wrong else "fine"
        return _finding("words", outcome, error, reason, hint), heard


def _finding(
    check: str, outcome: Outcome, value: float | None, reason: str, hint: str = ""
) -> Finding:
    return Finding(
        check=check,
        outcome=outcome,
        value=None if value is None or not math.isfinite(value) else value,
        reason=reason,
        hint="" if outcome == "fine" else hint,
    )


def _at_least(value: float, fine: float, usable: float) -> Outcome:
    return "fine" if value >= fine else "enhance" if value >= usable else "again"


def _at_most(value: float, fine: float, usable: float) -> Outcome:
    return _at_least(-value, -fine, -usable)


def _sound(waveform: Tensor, sample_rate: int, config: TakeConfig) -> Finding | None:
    """Say that there is nothing to check."""
    seconds = waveform.shape[0] / sample_rate
    if seconds < config.min_seconds:
        return _finding(
            "speech", "again", seconds, f"the take is only {seconds:.2f} s long",
            "press the key before you begin, and again when you are done",
        )  # fmt: skip
    if seconds > config.max_seconds:
        return _finding(
            "speech", "again", seconds,
            f"the take is {seconds:.0f} s long, more than {config.max_seconds:g} s",
            "record one sentence, or slice long recordings with `tokenlm personal import`",
        )  # fmt: skip
    level = speech_levels(waveform, sample_rate).speech_db
    if level < config.silent_dbfs:
        shown = f"only {level:.0f} dBFS" if math.isfinite(level) else "nothing"
        return _finding(
            "speech", "again", level, f"no speech is heard ({shown} above the noise)",
            "look whether the right microphone is chosen, and is not muted",
        )  # fmt: skip
    return None


def _levels(waveform: Tensor, sample_rate: int, config: TakeConfig) -> list[Finding]:
    """Level of the speech, and noise: over it, and in the room."""
    levels = speech_levels(waveform, sample_rate)
    level, snr = levels.speech_db, levels.snr_db
    offset = config.calibration_db
    shown = f"the speech has {level:.0f} dBFS"
    if offset is not None:
        shown += f", {level + offset:.0f} dB SPL at the microphone"
    quieter = "move away from what hums or roars, and closer to the microphone"
    findings = [
        _finding(
            "level", "fine" if level >= config.fine_level_dbfs else "enhance", level, shown,
            "turn the microphone up, or come closer to it",
        ),
        _finding(
            "noise", _at_least(snr, config.fine_snr_db, config.usable_snr_db), snr,
            f"the speech is {snr:.0f} dB louder than the noise", quieter,
        ),
    ]  # fmt: skip
    if offset is not None:
        room = levels.noise_db + offset
        outcome = _at_most(room, config.fine_room_spl_db, config.usable_room_spl_db)
        reason = f"the noise of the room is {room:.0f} dB SPL"
        hint = "shut windows and doors, or choose a quieter room"
        findings.append(_finding("room", outcome, room, reason, hint))
    return findings


def _clipping(waveform: Tensor, config: TakeConfig) -> Finding:
    share = clipped_share(waveform)
    return _finding(
        "clipping", _at_most(share, config.fine_clipped_share, config.usable_clipped_share), share,
        f"{share:.3%} of the samples are cut off at the top",
        "turn the microphone down, or speak from further away",
    )  # fmt: skip


def _bandwidth(waveform: Tensor, sample_rate: int, config: TakeConfig) -> Finding:
    found = bandwidth_hz(waveform, sample_rate)
    return _finding(
        "bandwidth", _at_least(found, config.fine_bandwidth_hz, config.usable_bandwidth_hz), found,
        f"the sound reaches up to {found:.0f} Hz",
        "a microphone with a cable hears more than a wireless headset in a call",
    )  # fmt: skip


def _echo(waveform: Tensor, sample_rate: int, config: TakeConfig) -> list[Finding]:
    if speech_levels(waveform, sample_rate).snr_db < config.min_echo_snr_db:
        return []
    seconds = reverberation_seconds(waveform, sample_rate)
    if seconds is None:
        return []
    return [
        _finding(
            "echo", _at_most(seconds, config.fine_echo_seconds, config.usable_echo_seconds),
            seconds, f"the room echoes for about {seconds:.1f} s",
            "come closer to the microphone; curtains, carpets, beds and open wardrobes help",
        )
    ]  # fmt: skip


def _ends(waveform: Tensor, sample_rate: int, config: TakeConfig) -> Finding:
    """Words that were cut: there a take is loud, and louder than its noise."""
    found = measure_sound(waveform, sample_rate, "")
    levels = window_levels(waveform, sample_rate)
    loudest = float(torch.quantile(levels, 0.95))
    noise = speech_levels(waveform, sample_rate).noise_db
    cut = [
        (name, level)
        for name, level in (("start", found.start_edge_db), ("end", found.end_edge_db))
        if level > config.max_edge_db and loudest + level > noise + config.min_edge_above_noise_db
    ]
    if not cut:
        worst = max(found.start_edge_db, found.end_edge_db)
        return _finding("ends", "fine", worst, "start and end are whole")
    names = " and ".join(name for name, _ in cut)
    return _finding(
        "ends", "again", max(level for _, level in cut), f"a word is cut at the {names}",
        "wait half a second after you start recording, and before you stop",
    )  # fmt: skip


def _rate(sample_rate: int, usual_rate: int) -> Finding:
    if sample_rate == usual_rate:
        return _finding(
            "rate", "fine", sample_rate, f"recorded at {sample_rate} Hz like the others"
        )
    return _finding(
        "rate", "again", sample_rate,
        f"recorded at {sample_rate} Hz, the other takes at {usual_rate} Hz",
        "the microphone or its settings have changed: choose those of the other takes",
    )  # fmt: skip


def _background(waveform: Tensor, sample_rate: int, config: TakeConfig) -> Finding:
    """Speech before and after the sentence. What is said at the same time is not noticed."""
    levels = window_levels(waveform, sample_rate)
    loud = torch.nonzero(levels >= torch.quantile(levels, 0.95) - _LOUD_DB)[:, 0]
    size = _WINDOW_SECONDS * sample_rate
    first = int((int(loud[0]) * _WINDOW_SECONDS - _HEAD_SECONDS) * sample_rate)
    last = int(((int(loud[-1]) + 1) * _WINDOW_SECONDS + _TAIL_SECONDS) * sample_rate)
    seconds = 0.0
    for piece in (waveform[: max(first, 0)], waveform[last:]):
        if piece.shape[0] >= _MIN_PIECE_SECONDS * sample_rate:
            louder = normalise_level(piece, _PIECE_DBFS)
            speech = silero_windows(louder, sample_rate, int(piece.shape[0] / size))
            seconds += float(speech.sum()) * _WINDOW_SECONDS
    if seconds <= config.max_other_voice_seconds:
        return _finding("background", "fine", seconds, "nobody else is heard")
    return _finding(
        "background", "again", seconds,
        f"somebody is heard for {seconds:.1f} s before or after the sentence",
        "turn off radio and television, or wait until the others have finished",
    )  # fmt: skip


def _person(vector: Tensor, others: Sequence[Sequence[float]], config: TakeConfig) -> list[Finding]:
    if len(others) < config.num_known_takes:
        return []
    known = torch.nn.functional.normalize(torch.tensor(others).mean(dim=0), dim=0)
    alike = float(torch.nn.functional.normalize(vector.float().cpu(), dim=0) @ known)
    reason = f"the voice is {alike:.2f} like that of the other takes (1 is the same)"
    outcome: Outcome = "fine" if alike >= config.min_speaker_similarity else "again"
    hint = "all takes are to be read by one person, in their usual voice"
    return [_finding("person", outcome, alike, reason, hint)]


def bundle_checker(
    bundle: str = "mini-en", *, recogniser: str = "", config: TakeConfig | None = None
) -> TakeChecker:
    """A checker with the models of a bundle.

    Args:
        bundle: Name, folder or hub id; its token recogniser compares words, its speaker encoder
            persons. One without a token recogniser compares no words.
        recogniser: Compares words in its place, such as `whisper:FOLDER`
            (`training.refine.recognisers`).
        config: Thresholds.

    Raises:
        ValueError: The bundle or the recogniser cannot be loaded.
    """
    from tokenlm.synthesis import Synthesizer
    from training.refine.recognisers import make_recogniser
    from training.refine.speakers import load_encoder

    synthesizer = Synthesizer.from_pretrained(bundle)
    components = synthesizer.components
    normalize = frontend(components.text_tokenizer.config.normalizer).normalize

    def read(waveform: Tensor, sample_rate: int, text: str) -> Reading | None:
        tokens = synthesizer.tokenize(waveform, sample_rate=sample_rate)
        score = components.read_back([normalize(text)], [tokens])[0]
        if score is None:
            return None
        heard = components.token_recognizer.transcribe(torch.tensor([tokens]))[0]
        return Reading(
            error_rate=score.error_rate,
            num_words=len(components.read_back.encode_words(normalize(text))),
            missing=score.words.missing,
            heard=heard,
        )

    embed, encoder = load_encoder(components.folder / "speaker_encoder")
    return TakeChecker(
        config=config or TakeConfig(),
        read=read if components.has_token_recognizer else None,
        recognise=make_recogniser(recogniser) if recogniser else None,
        embed=embed,
        encoder=encoder,
    )
