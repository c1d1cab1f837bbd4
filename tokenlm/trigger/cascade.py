"""The cascade: a stream of sound to decisions whether a phrase was said.

The detector hears everything, on little; the checker hears what the detector proposes. What is
decided, and why, is said with all scores.

Shapes: S samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tokenlm.audio.level import rms_dbfs
from tokenlm.config import ConfigError, read_config, save_config
from tokenlm.models.directedness import DIRECTED, AcousticDirectedness, TextDirectedness
from tokenlm.models.phrase_detector import Detection, PhraseDecoder, PhraseDetector
from tokenlm.trigger.checker import SAMPLE_RATE, Checker, Scored
from tokenlm.trigger.kinds import NetT, load_net

CONFIG_FILE = "trigger.yaml"
DETECTOR, CHECKER, TEXT_TOKENIZER = "phrase_detector", "phrase_checker", "text_tokenizer"
ACOUSTIC, TEXT = "directedness", "text_directedness"
"""Folders of a trigger."""
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Combination:
    """Scores combined into one logit, as a logistic regression fits it."""

    weights: dict[str, float]
    """Of each score; of those that are missing nothing is added."""
    bias: float = 0.0
    threshold: float = 0.0
    """Logit from which the answer is yes."""

    def logit(self, scores: Mapping[str, float]) -> float:
        """Logit of the scores that there are."""
        known = [weight * scores[name] for name, weight in self.weights.items() if name in scores]
        return self.bias + sum(known)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What a phrase must score."""

    detector: float = 0.0
    """Of the detector, from which the checker is asked."""
    checker: Combination = field(
        default_factory=lambda: Combination(weights={"checker": 1.0}, bias=3.0)
    )
    """Of the scores `checker` and `branch`; without training, -3 or better is accepted."""


@dataclass(frozen=True, kw_only=True)
class TriggerConfig:
    """What a trigger is besides its nets; `trigger.yaml` of its folder."""

    format_version: int = FORMAT_VERSION
    phrases: tuple[str, ...]
    """The most important first."""
    thresholds: dict[str, Thresholds] = field(default_factory=dict)
    """Of each phrase."""
    before_seconds: float = 0.5
    """What the checker hears before a detection."""
    after_seconds: float = 0.3
    """And behind it."""
    end_silence_seconds: float = 0.7
    """Speech that follows a phrase ends where it stays quiet for this long."""
    end_quiet_db: float = 15.0
    """How far below the level of the phrase quiet is."""
    max_speech_seconds: float = 10.0
    """Speech that follows a phrase is cut here."""
    directed: Combination = field(
        default_factory=lambda: Combination(weights={"acoustic": 1.0, "text": 1.0})
    )
    """Of the logits `acoustic` and `text` that speech is meant for the device; used where the
    trigger has nets that tell."""
    provenance: dict[str, str] = field(default_factory=dict)
    """How it was trained."""

    def __post_init__(self) -> None:
        if not self.phrases:
            raise ConfigError("a trigger needs a phrase")
        missing = [phrase for phrase in self.phrases if phrase not in self.thresholds]
        if missing:
            raise ConfigError(f"thresholds: there are none of the phrase {missing[0]!r}")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided of something that the detector proposed."""

    phrase: str
    is_accepted: bool
    reason: str
    """In words, why."""
    start_seconds: float
    """Of the phrase in the stream, most likely."""
    end_seconds: float
    scores: dict[str, float]
    """`detector`, `checker`, `branch` where there is one, and the `logit` of their combination."""


@dataclass(frozen=True, kw_only=True)
class SpeechEnd:
    """The end of what was said behind an accepted phrase."""

    seconds: float
    """In the stream."""
    reason: str
    """In words, what ended it."""
    is_directed: bool | None = None
    """Whether it was meant for the device; None where the trigger has no net that tells."""
    scores: dict[str, float] = field(default_factory=dict)
    """`acoustic` and `text` where there are such nets, and the `logit` of their combination."""


Event = Decision | SpeechEnd


class Trigger:
    """The nets and thresholds of a trigger; `stream` hears with them."""

    def __init__(
        self,
        detector: PhraseDetector,
        checker: Checker,
        config: TriggerConfig,
        *,
        acoustic: AcousticDirectedness | None = None,
        text: TextDirectedness | None = None,
        transcribe: Callable[[Tensor], str] | None = None,
    ) -> None:
        """Takes the parts.

        Args:
            detector: proposes.
            checker: disposes.
            config: phrases and thresholds.
            acoustic: tells by the sound whether speech is meant for the device.
            text: tells by the words; it is asked where there is `transcribe`, too.
            transcribe: text of a recording (S,) at 16 kHz.

        Raises:
            ValueError: the detector was trained on other phrases.
        """
        if set(detector.config.phrases) != set(config.phrases):
            raise ValueError(
                f"the detector knows {', '.join(detector.config.phrases)}, but the trigger is for "
                + ", ".join(config.phrases)
            )
        self.detector, self.checker, self.config = detector.eval(), checker, config
        self.acoustic, self.text, self.transcribe = acoustic, text, transcribe

    @classmethod
    def load(
        cls, folder: str | Path, *, transcribe: Callable[[Tensor], str] | None = None
    ) -> Trigger:
        """Reads a trigger that `tokenlm trigger train` wrote.

        Args:
            folder: of the trigger.
            transcribe: see `Trigger`.

        Raises:
            ValueError: the folder holds none, or one of another version.
        """
        folder = Path(folder)
        path = folder / CONFIG_FILE
        if not path.is_file():
            raise ConfigError(
                f"{folder} is no trigger: it has no {CONFIG_FILE}; "
                'make one with: tokenlm trigger train "hey token" -o FOLDER'
            )
        config = read_config(TriggerConfig, path)
        if config.format_version != FORMAT_VERSION:
            raise ConfigError(
                f"{path} has format_version {config.format_version}, but this version of tokenlm "
                f"reads {FORMAT_VERSION}."
            )
        return cls(
            load_net(folder / DETECTOR, PhraseDetector),
            Checker.load(folder / CHECKER, folder / TEXT_TOKENIZER),
            config,
            acoustic=_optional(folder / ACOUSTIC, AcousticDirectedness),
            text=_optional(folder / TEXT, TextDirectedness),
            transcribe=transcribe,
        )

    def directedness(self, waveform: Tensor, text: str | None = None) -> dict[str, float]:
        """Logits of the nets that tell whether speech is meant for the device, and of both.

        Args:
            waveform: (S,) the phrase and what followed, at 16 kHz.
            text: its words; None has them transcribed, if there is what does.

        Returns:
            Empty where the trigger has no such nets.
        """
        scores: dict[str, float] = {}
        if self.acoustic is not None and len(waveform) >= _MIN_ACOUSTIC:
            with torch.inference_mode():
                logit = self.acoustic(waveform[None], torch.tensor([len(waveform)]))
            scores["acoustic"] = float(logit[0])
        if self.text is not None and (text is not None or self.transcribe is not None):
            if text is None:
                assert self.transcribe is not None
                text = self.transcribe(waveform)
            chance = min(max(self.text.classify(text)[DIRECTED], 1e-6), 1 - 1e-6)
            scores["text"] = math.log(chance / (1 - chance))
        return {**scores, "logit": self.config.directed.logit(scores)} if scores else {}

    def save_config(self, folder: str | Path) -> None:
        """Writes `trigger.yaml` into the folder of the nets."""
        save_config(self.config, Path(folder) / CONFIG_FILE)

    def stream(self) -> TriggerStream:
        """Hears one stream."""
        return TriggerStream(self)

    def decide(self, waveform: Tensor, detection: Detection, offset: float) -> Decision:
        """Has the checker hear what the detector proposed.

        Longer phrases are asked first: whoever says "hey token" says "token", too.

        Args:
            waveform: (S,) around the detection.
            detection: in the stream.
            offset: second of the stream at which the waveform begins.
        """
        order = sorted(self.config.phrases, key=lambda phrase: -len(phrase))
        scored = dict(zip(order, self.checker.score_all(waveform, order), strict=True))
        decisions = [
            self._decision(phrase, scored[phrase], detection, offset)
            for phrase in order
            if phrase == detection.phrase or detection.phrase in phrase
        ]
        accepted = [decision for decision in decisions if decision.is_accepted]
        own = [decision for decision in decisions if decision.phrase == detection.phrase]
        return (accepted or own)[0]

    def _decision(
        self, phrase: str, scored: Scored, detection: Detection, offset: float
    ) -> Decision:
        limits = self.config.thresholds[phrase]
        scores = {"checker": scored.log_probability}
        if phrase == detection.phrase:
            scores["detector"] = detection.score
        if scored.branch_log_probability is not None:
            scores["branch"] = scored.branch_log_probability
        logit = limits.checker.logit(scores)
        is_accepted = logit >= limits.checker.threshold
        compared = f"{logit:.2f}, {limits.checker.threshold:.2f} or more is accepted"
        has_place = scored.end_seconds > 0
        return Decision(
            phrase=phrase,
            is_accepted=is_accepted,
            reason=(
                f"the checker heard it ({compared})"
                if is_accepted
                else f"the checker did not hear it ({compared})"
            ),
            start_seconds=offset + scored.start_seconds if has_place else detection.start_seconds,
            end_seconds=offset + scored.end_seconds if has_place else detection.end_seconds,
            scores={**scores, "logit": logit},
        )


def _optional(folder: Path, net_class: type[NetT]) -> NetT | None:
    return load_net(folder, net_class) if folder.is_dir() else None


class TriggerStream:
    """One stream of sound on its way through a trigger.

    The last seconds are kept, so that the checker can hear what the detector has found. Results do
    not depend on how the samples are cut into pieces.
    """

    def __init__(self, trigger: Trigger) -> None:
        """Begins a stream."""
        self.trigger, config = trigger, trigger.config
        settings = trigger.detector.config
        self.decoder = PhraseDecoder(
            settings, [config.thresholds[phrase].detector for phrase in settings.phrases]
        )
        self._state = trigger.detector.init_state(1)
        self._pending = torch.zeros(0)
        self._kept, self._dropped = torch.zeros(0), 0
        self._keep_samples = round((config.max_speech_seconds + 6.0) * SAMPLE_RATE)
        self._waiting: list[Detection] = []
        self._free_seconds = 0.0
        self._ending: _EndOfSpeech | None = None

    @property
    def seconds(self) -> float:
        """What has been heard."""
        return (self._dropped + len(self._kept)) / SAMPLE_RATE

    def push(self, samples: Tensor) -> list[Event]:
        """Takes the next samples (S,) at 16 kHz; gives what has been decided."""
        samples = torch.nan_to_num(samples.float()).clamp(-1.0, 1.0)
        joined = torch.cat([self._pending, samples])
        whole = len(joined) // BLOCK_SAMPLES * BLOCK_SAMPLES
        self._pending = joined[whole:]
        events: list[Event] = []
        for block in joined[:whole].split(BLOCK_SAMPLES) if whole else ():
            events += self._push(block)
        return events

    def finish(self) -> list[Event]:
        """Gives what is left to decide when the stream ends."""
        events = self._push(self._pending) if len(self._pending) else []
        self._pending = self._pending[:0]
        self._waiting += self.decoder.finish()
        events += self._decide(is_last=True)
        if self._ending is not None:
            events.append(self._ended(self._ending, self.seconds, "the stream ended"))
            self._ending = None
        return events

    def _ended(self, ending: _EndOfSpeech, seconds: float, reason: str) -> SpeechEnd:
        low = max(round(ending.start_seconds * SAMPLE_RATE) - self._dropped, 0)
        high = max(round(seconds * SAMPLE_RATE) - self._dropped, 0)
        scores = self.trigger.directedness(self._kept[low:high])
        threshold = self.trigger.config.directed.threshold
        return SpeechEnd(
            seconds=seconds,
            reason=reason,
            is_directed=scores["logit"] >= threshold if scores else None,
            scores=scores,
        )

    def _interrupted(self, ending: _EndOfSpeech, phrase: Decision) -> SpeechEnd:
        """The end of what another phrase follows: where that begins, or it was quiet before."""
        start = max(phrase.start_seconds, self._free_seconds)
        end = ending.push(self._kept, self._dropped)
        if end is None or end[0] > start:
            end = start, "another phrase was accepted"
        return self._ended(ending, *end)

    def _push(self, samples: Tensor) -> list[Event]:
        self._kept = torch.cat([self._kept, samples])
        with torch.inference_mode():
            posteriors = self.trigger.detector(samples[None], self._state)[0]
        self._waiting += self.decoder.push(posteriors)
        events = self._decide(is_last=False)
        if self._ending is not None:
            end = self._ending.push(self._kept, self._dropped)
            if end is not None:
                events.append(self._ended(self._ending, *end))
                self._ending = None
        spare = len(self._kept) - self._keep_samples
        if spare > 0:
            self._kept, self._dropped = self._kept[spare:], self._dropped + spare
        return events

    def _decide(self, *, is_last: bool) -> list[Event]:
        config, events = self.trigger.config, []
        while self._waiting:
            # Of phrases that end together the longest is decided, which decides the others.
            self._waiting.sort(key=lambda found: (found.end_seconds, -len(found.phrase)))
            found = self._waiting[0]
            if not is_last and self.seconds < found.end_seconds + _TOGETHER_SECONDS:
                break
            group = [
                other
                for other in self._waiting
                if other.start_seconds < found.end_seconds + config.after_seconds
            ]
            found = max(group, key=lambda other: (len(other.phrase), other.score))
            if not is_last and self.seconds < found.end_seconds + config.after_seconds:
                break
            self._waiting = [other for other in self._waiting if other not in group]
            if found.start_seconds < self._free_seconds:
                continue
            decision = self._heard(group, found)
            if decision.is_accepted and self._ending is not None:
                events.append(self._interrupted(self._ending, decision))
            events.append(decision)
            if decision.is_accepted:
                self._free_seconds = max(decision.end_seconds, found.end_seconds)
                self._ending = _EndOfSpeech(config, decision, self._kept, self._dropped)
        return events

    def _heard(self, group: Sequence[Detection], longest: Detection) -> Decision:
        config = self.trigger.config
        first = min(other.start_seconds for other in group) - config.before_seconds
        last = max(other.end_seconds for other in group) + config.after_seconds
        low = max(round(first * SAMPLE_RATE) - self._dropped, 0)
        high = max(round(last * SAMPLE_RATE) - self._dropped, 0)
        waveform, offset = self._kept[low:high], (self._dropped + low) / SAMPLE_RATE
        decision = self.trigger.decide(waveform, longest, offset)
        for other in sorted(group, key=lambda found: -len(found.phrase)):
            if not decision.is_accepted and other is not longest:
                shorter = self.trigger.decide(waveform, other, offset)
                decision = shorter if shorter.is_accepted else decision
        return decision


BLOCK_SAMPLES = 5120
"""What is taken at once, 320 ms, however the samples come: in smaller pieces the calls of the net's
layers cost more than what they compute."""
_MIN_ACOUSTIC = SAMPLE_RATE // 10
_TOGETHER_SECONDS = 0.35
"""Detections that come within this are of one utterance."""


class _EndOfSpeech:
    """The rule that ends what is said behind a phrase.

    The level of every 10 ms, smoothed over 100 ms, is compared with that of the phrase: where it
    stays `end_quiet_db` below for `end_silence_seconds`, speech has ended where that began; and
    after `max_speech_seconds` in any case.
    """

    def __init__(self, config: TriggerConfig, phrase: Decision, kept: Tensor, dropped: int) -> None:
        self._config = config
        self.start_seconds = phrase.start_seconds
        self._begin = round(phrase.end_seconds * SAMPLE_RATE)
        low = max(round(phrase.start_seconds * SAMPLE_RATE) - dropped, 0)
        self._level = rms_dbfs(kept[low : max(self._begin - dropped, low + 1)])
        self._at = self._begin
        self._quiet_from: int | None = None

    def push(self, kept: Tensor, dropped: int) -> tuple[float, str] | None:
        """Second of the stream at which speech ended, and why; None while it goes on."""
        config, hop, window = self._config, SAMPLE_RATE // 100, SAMPLE_RATE // 10
        low = max(self._at - dropped, 0)
        if len(kept) - low < window:
            return None
        powers = kept[low:].double().unfold(0, window, hop).square().mean(dim=1)
        is_loud = powers > 10 ** ((self._level - config.end_quiet_db) / 10)
        for loud in is_loud.tolist():
            if loud:
                self._quiet_from = None
            elif self._quiet_from is None:
                self._quiet_from = self._at
            quiet = 0 if self._quiet_from is None else self._at - self._quiet_from
            if self._quiet_from is not None and quiet >= config.end_silence_seconds * SAMPLE_RATE:
                return self._quiet_from / SAMPLE_RATE, "it stayed quiet"
            if self._at - self._begin >= config.max_speech_seconds * SAMPLE_RATE:
                return self._at / SAMPLE_RATE, "the longest time was up"
            self._at += hop
        return None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a trigger made of a whole recording."""

    events: tuple[Event, ...]
    reason: str
    """In words: what was accepted, or why nothing was."""
    notes: tuple[str, ...]
    """What is unusual in the sound."""

    @property
    def accepted(self) -> tuple[Decision, ...]:
        """The phrases that were accepted."""
        return tuple(e for e in self.events if isinstance(e, Decision) and e.is_accepted)


def listen(trigger: Trigger, waveform: Tensor, *, pieces: Iterable[Tensor] | None = None) -> Report:
    """Decides on a whole recording.

    Args:
        trigger: what listens.
        waveform: (S,) mono at 16 kHz; of any length, level and content.
        pieces: the same samples, cut as a stream brings them; None cuts nothing.

    Returns:
        Events in the order of the stream, and a reason, whatever the recording holds.
    """
    stream = trigger.stream()
    events: list[Event] = []
    for piece in (waveform,) if pieces is None else pieces:
        events += stream.push(piece)
    events += stream.finish()
    accepted = [e for e in events if isinstance(e, Decision) and e.is_accepted]
    refused = [e for e in events if isinstance(e, Decision) and not e.is_accepted]
    notes = describe_sound(waveform)
    if accepted:
        reason = "heard " + " and ".join(f'"{decision.phrase}"' for decision in accepted)
    elif refused:
        reason = f'"{refused[0].phrase}" was proposed, but {refused[0].reason}'
    elif notes and notes[0] in (_TOO_SHORT, _SILENT):
        reason = notes[0]
    else:
        best = dict(zip(trigger.detector.config.phrases, stream.decoder.best, strict=True))
        phrase = max(best, key=lambda name: best[name])
        limit = trigger.config.thresholds[phrase].detector
        shown = "no score" if math.isinf(best[phrase]) else f"{best[phrase]:.2f} of {limit:.2f}"
        reason = f'the detector did not hear "{phrase}" (at best {shown})'
    return Report(events=tuple(events), reason=reason, notes=notes)


_TOO_SHORT = "the recording is shorter than any phrase"
_SILENT = "the recording is silent"


def describe_sound(waveform: Tensor) -> tuple[str, ...]:
    """What is unusual in a recording (S,) at 16 kHz: short, silent, clipped, a narrow band."""
    notes = []
    samples = torch.nan_to_num(waveform.float())
    if len(samples) < 0.3 * SAMPLE_RATE:
        notes.append(_TOO_SHORT)
        return tuple(notes)
    if rms_dbfs(samples) < -65.0:
        notes.append(_SILENT)
        return tuple(notes)
    peak = float(samples.abs().max())
    at_peak = samples.abs() >= (1 - 1e-6) * peak
    share = float((at_peak[1:] & at_peak[:-1]).float().mean())  # in a row: a tone peaks in one
    if share > 0.005:
        notes.append(f"{share:.1%} of the samples are clipped")
    spectrum = torch.fft.rfft(samples[: 30 * SAMPLE_RATE]).abs().square()
    high = spectrum[len(spectrum) * 9 // 16 :].sum() / spectrum.sum().clamp(min=1e-12)
    if float(high) < 1e-6:
        notes.append("there is nothing above 4.5 kHz, as over a telephone")
    return tuple(notes)
