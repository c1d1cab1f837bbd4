"""Editing of recordings: words are replaced, inserted or left out, and all else stays as it is.

The words of a recording are found in time by the CTC outputs of the token recogniser. The LM reads
the new text and goes on with the speech tokens before the edit; from what it says the new words are
taken. The flow renders them between mel that is known on both sides (Le et al., 2023, Voicebox),
and the waveform is cross-faded into the recording within `FADE_SECONDS` of the edit.

Shapes: C channels, S samples, N tokens, T mel frames, M mel bins.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from tokenlm.arguments import check_kind
from tokenlm.audio.level import high_pass, is_silent, rms_dbfs, sound_span
from tokenlm.audio.mel import MelSpectrogram
from tokenlm.audio.recording import Recording
from tokenlm.audio.resample import resample
from tokenlm.audio.splicing import channel_gains, common_channel, splice
from tokenlm.models.lm.decoding import Decoding, KeyValueCache, SamplingConfig, decode
from tokenlm.modules.exact import mix
from tokenlm.synthesis.alignment import SegmentAligner
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.guards import ReadBack, attempt_seed
from tokenlm.synthesis.rendering import RenderSettings
from tokenlm.synthesis.text import SegmentedText, add_final_mark
from tokenlm.synthesis.voice import LEVEL_DBFS, MIN_SECONDS, add_offset
from tokenlm.synthesis.words import Placement, TimedWord, WordTimer
from tokenlm.text.normalize import frontend
from tokenlm.text.tokenizers import TextTokenizer

logger = logging.getLogger(__name__)

MAX_SECONDS = 300.0
"""Longest recording that is edited."""
NUM_ATTEMPTS = 4
"""Times that the LM says new words; the attempt that is read back best is taken."""
LEFT_TOKENS, RIGHT_TOKENS = 150, 100
"""Most tokens of the recording that the flow is shown before and behind new ones."""
MIN_LEFT_WORDS = 6
"""Words before the new ones that the LM reads at least, where there are so many."""
LEAD_TOKENS = 8
"""Most quiet before the first word of a recording that the LM goes on with."""
EDGE_SECONDS = 0.2
"""Quiet around the speech that is edited with it."""
MAX_LEVEL_STEP = 0.35
"""Most that new words are louder or softer than the rest, in log-mel; 3 dB."""
FLOOR_SHARE = 0.05
"""Share of the frames of a recording that count as its background."""
MIN_OVERLAP_SECONDS = 0.03
"""Least of a word that lies in a span for the word to be said again."""
MAX_MISREAD = 0.5
"""Share of the units of a text that are read otherwise above which a warning is logged."""
_NO_LETTER = re.compile(r"[\W_]+")

Side = Literal["before", "after", "at"]


class EditError(ValueError):
    """An edit that cannot be made; the message says why."""


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """What is to be done; exactly one of the fields besides `occurrence`."""

    replace: tuple[str, str] | None = None
    """Words of the recording, and what is said in their place."""
    insert: tuple[Side, str | float, str] | None = None
    """Before or after which words, or at which second, and what is said there."""
    delete: str | None = None
    """Words of the recording."""
    span: tuple[float, float] | None = None
    """Seconds, the words of which are said again."""
    continue_with: str | None = None
    """What is said after the last word."""
    occurrence: int | None = None
    """Which of several occurrences of the words, from 1; None where there is one."""

    def __post_init__(self) -> None:
        kinds = ("replace", "insert", "delete", "span", "continue_with")
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise EditError(
                f"one edit is made at a time, one of {', '.join(kinds)}; "
                f"there {'is none' if not given else 'are ' + ' and '.join(given)}."
            )
        self._check_kinds()
        by_words = self.replace or self.delete or (self.insert and self.insert[0] != "at")
        if self.occurrence is not None:
            check_kind("occurrence", self.occurrence, int)
        if self.occurrence is not None and (not by_words or self.occurrence < 1):
            raise EditError("occurrence is a number from 1, for edits that name words.")
        if self.insert is not None and self.insert[0] not in ("before", "after", "at"):
            raise EditError(f"words are inserted before, after or at, not {self.insert[0]!r}.")
        if self.span is not None:
            start, end = self.span
            if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
                raise EditError(f"a span is two rising seconds, not {start:g} to {end:g}.")

    def _check_kinds(self) -> None:
        """Checks that each field holds what it should, as a caller may have got it wrong."""
        for name, kinds in (
            ("replace", (str, str)),
            ("insert", (str, str | float | int, str)),
            ("span", (float | int, float | int)),
        ):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, tuple | list) or len(value) != len(kinds):
                raise EditError(f"{name} has {len(kinds)} parts, and not {value!r}.")
            for part, kind in zip(value, kinds, strict=True):
                if not isinstance(part, kind):
                    raise EditError(f"{name} cannot hold {part!r}.")
        for name in ("delete", "continue_with"):
            value = getattr(self, name)
            if not isinstance(value, str | None):
                raise EditError(f"{name} is words, not {value!r}.")


@dataclass(frozen=True, kw_only=True)
class EditedRecording:
    """A recording, a span of which was synthesised."""

    recording: Recording
    """In the format of the one that was edited."""
    start_seconds: float
    end_seconds: float
    """Where the span is. Up to 50 ms outside of it there are cross-fades; all else is as it was
    recorded, to the bit."""
    replaced: tuple[float, float]
    """Seconds of the recording in whose place the span is."""
    text: str
    """What is said now."""
    provenance: str
    """A sentence about the origin of the span, which `save` writes to the metadata."""

    @property
    def waveform(self) -> Tensor:
        """(C, S) float32."""
        return self.recording.waveform

    @property
    def sample_rate(self) -> int:
        """In hertz."""
        return self.recording.sample_rate

    def save(self, path: str | Path) -> None:
        """Writes a file in the format of the recording, whole or not at all.

        Raises:
            AudioError: the suffix is that of another format, or the file cannot be written.
        """
        self.recording.save(path, comment=self.provenance)


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the models see of a recording."""

    waveform: Tensor
    """(C, S) as recorded."""
    gains: Tensor
    """(C,) of the channels."""
    decibels: float
    """By which the models get it louder."""
    first_seconds: float
    """Where the first token begins."""
    tokens: list[int]
    mel: Tensor
    """(T, M) log-mel of the tokens."""
    token_rate: int

    def token_at(self, seconds: float) -> float:
        """Place on the axis of the tokens."""
        return (seconds - self.first_seconds) * self.token_rate


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A part of the recording that is replaced, and by which text."""

    start: float
    end: float
    """In tokens. Equal where nothing is left out."""
    text: str
    """The whole of the new text."""
    new: tuple[int, int] | None
    """Characters of it that are said anew; None where there are none, and the sound is mended."""
    growth: int = 0
    """Characters that the text is longer than it was."""
    is_silent: bool = False
    """Whether the span is to be silent."""


class Editor:
    """Makes one edit; see `Synthesizer.edit`."""

    def __init__(
        self,
        components: Components,
        read: Callable[[str], SegmentedText],
        text_tokenizer: TextTokenizer,
        settings: RenderSettings,
        sampling: SamplingConfig,
        seed: int,
    ) -> None:
        """Creates it.

        Args:
            components: the models.
            read: makes segments of a text, with its written words.
            text_tokenizer: with the pronunciations of the request.
            settings: of the flow; the voice is that of the recording.
            sampling: of the LM.
            seed: of all draws.
        """
        self._components, self._read, self._settings = components, read, settings
        self._text_tokenizer, self._sampling, self._seed = text_tokenizer, sampling, seed
        self._read_back = ReadBack(components.token_recognizer, text_tokenizer)
        self._token_rate = components.flow.config.token_rate
        self._silent = components.generation.guards.silent_tokens
        self._rules = frontend(text_tokenizer.config.normalizer).rules

    def edit(
        self, recording: Recording, analysis: Analysis, request: EditRequest, text: str
    ) -> EditedRecording:
        """The edited recording.

        Raises:
            EditError: the words are not there, or it is not clear which are meant.
        """
        words = self.time_words(analysis, text)
        cut = plan_cut(request, words, text, analysis)
        start, end = self._borders(cut, analysis)
        if cut.is_silent:
            new = [_quietest(analysis, start, end, self._components)] * (end - start)
        elif cut.new is None:
            # A token on either side is rendered again, so that one leads to the other.
            start, end = max(start - 1, 0), min(end + 1, len(analysis.tokens))
            new = analysis.tokens[start : start + 1] + analysis.tokens[end - 1 : end]
        else:
            new = self._say(cut, words, analysis, start, end)
        return self._render(recording, analysis, cut, start, end, new)

    def time_words(self, analysis: Analysis, text: str) -> list[TimedWord]:
        """The words of a text, and when the recording says them."""
        segments = self._read(text)
        assert segments.written is not None
        words = [word for segment in segments.segments for word in segment.words]
        score = self._read_back([" ".join(words)], [analysis.tokens])[0]
        if score is not None and score.error_rate > MAX_MISREAD:
            logger.warning(
                "the text may not be what the recording says: %.0f %% of it is read otherwise",
                100 * min(score.error_rate, 1.0),
            )
        timer = WordTimer(
            self._read_back,
            segments.written,
            silent_tokens=self._silent,
            token_rate=self._token_rate,
            # Nobody says more than twelve words a second.
            words_at=lambda _, count: words if count is None else words[: count // 2 + 8],
        )
        timer.add(0, analysis.tokens, is_last=True)
        first = analysis.first_seconds
        timer.place(0, Placement(token_seconds=first, sample_seconds=0.0, speed=1.0))
        return timer.take(math.inf)

    def _borders(self, cut: Cut, analysis: Analysis) -> tuple[int, int]:
        """Tokens between which the recording is cut: the nearest, or a quieter neighbour."""
        factor = self._components.flow.frames_per_token
        level, count = analysis.mel.mean(dim=1), len(analysis.tokens)

        def nearest(place: float) -> int:
            def cost(token: int) -> float:
                around = level[max(token * factor - 1, 0) : token * factor + 1]
                return (float(around.mean()) if len(around) else 0.0) + abs(token - place)

            middle = round(place)
            near = range(max(middle - 1, 0), min(middle + 1, count) + 1)
            return min(near, key=cost)

        if cut.is_silent:
            start, end = max(math.floor(cut.start), 0), min(math.ceil(cut.end), count)
            return start, max(end, start + 1)
        start = nearest(cut.start)
        if cut.start == cut.end:
            return start, start
        return start, max(nearest(cut.end), min(start + 1, count))

    # -- tokens

    def _say(
        self, cut: Cut, words: Sequence[TimedWord], analysis: Analysis, start: int, end: int
    ) -> list[int]:
        """Speech tokens of the new words, between the tokens `start` and `end`."""
        window = Window.of(
            self._read(cut.text), cut, self._components.generation.max_segment_characters
        )
        tokens = analysis.tokens
        left = tokens[self._first_token(window, words, analysis, start) : start]
        last = [w for w in words if w.text_end == window.last_character - cut.growth]
        right: list[int] = []  # where the window ends with the edit, what follows is not read back
        if window.num_right and last:
            right = tokens[end : max(math.ceil(analysis.token_at(last[-1].end_seconds)), end)]
        scored = []
        for attempt, said in enumerate(self._decode(window, left)):
            new = self._new_tokens(window, left, said)
            if not new:
                continue
            score = self._read_back([self._rules.join(window.words)], [[*left, *new, *right]])[0]
            badness: tuple[float, ...] = (0.0,)
            if score is not None:
                badness = score.words.total, score.error_rate, score.ctc_loss
            scored.append((badness, attempt, new))
        if not scored:
            raise EditError(
                "the new words could not be said here: try another seed, or more words around them."
            )
        badness, attempt, new = min(scored)
        logger.info("%d new tokens, attempt %d, read back with %s", len(new), attempt, badness)
        return new

    def _first_token(
        self, window: Window, words: Sequence[TimedWord], analysis: Analysis, start: int
    ) -> int:
        """The first token before `start` that the LM goes on with."""
        first = [w.start_seconds for w in words if w.text_start == window.first_character]
        if window.num_left == 0 or not first:
            return max(start - LEAD_TOKENS, 0)
        place = min(math.floor(analysis.token_at(first[0])), start)
        is_start = window.first_character == words[0].text_start
        return max(place - LEAD_TOKENS if is_start else place, 0)

    def _decode(self, window: Window, left: list[int]) -> list[list[int]]:
        """What the LM says behind the tokens `left`, in several attempts."""
        model, encode = self._components.speech_lm, self._text_tokenizer.encode
        ids = encode(add_final_mark(self._rules.join(window.words)))
        known = self._rules.join(window.words[: window.num_left])
        split = min(len(encode(known)), len(ids) - 1) if known else 0
        cache = KeyValueCache(model)
        decodings = []
        for attempt in range(NUM_ATTEMPTS):
            sequence = model.sequence("one_shot", prompt_text=ids[:split], prompt_tokens=left)
            sequence.add_text(ids[split:])
            sequence.end_text()
            decodings.append(
                Decoding(
                    model,
                    cache,
                    sequence,
                    sampling=self._sampling,
                    seed=attempt_seed(self._seed, attempt),
                    guards=self._components.generation.guards,
                )
            )
        decode(model, decodings)
        return [decoding.tokens for decoding in decodings]

    def _new_tokens(self, window: Window, left: list[int], said: list[int]) -> list[int]:
        """Those of what was said that say the new words."""
        if not said:
            return []
        aligner = SegmentAligner(self._read_back, self._silent, self._token_rate)
        aligner.add([*left, *said], lambda _: window.words, is_last=True)
        last = window.num_left + window.num_new - 1
        span = aligner.spans[last]
        assert span is not None
        stop = math.ceil(span[1]) + 1
        if window.num_right and (behind := aligner.spans[last + 1]) is not None:
            is_apart = behind[0] - span[1] >= 1.0
            stop = math.ceil(span[1]) if is_apart else round((span[1] + behind[0]) / 2)
        return said[: max(stop - len(left), 0)]

    # -- sound

    @torch.inference_mode()
    def _render(
        self,
        recording: Recording,
        analysis: Analysis,
        cut: Cut,
        start: int,
        end: int,
        new: list[int],
    ) -> EditedRecording:
        components, settings = self._components, self._settings
        factor, rate = components.flow.frames_per_token, recording.sample_rate
        first, last = max(start - LEFT_TOKENS, 0), min(end + RIGHT_TOKENS, len(analysis.tokens))
        num_left, num_new, num_right = start - first, len(new), last - end
        tokens = [*analysis.tokens[first:start], *new, *analysis.tokens[end:last]]
        mel = torch.cat(
            [
                analysis.mel[first * factor : start * factor],
                analysis.mel.new_zeros(num_new * factor, analysis.mel.shape[1]),
                analysis.mel[end * factor : last * factor],
            ]
        )
        is_known = torch.ones(len(tokens), dtype=torch.bool)
        is_known[num_left : num_left + num_new] = False
        device = components.device
        rendered = components.flow.infill(
            torch.tensor([tokens], device=device),
            mel[None].to(device),
            is_known[None].to(device),
            speaker_embedding=settings.voice.speaker_embedding[None].to(device),
            seed=mix(self._seed, len(new)),
            num_steps=settings.num_steps,
            guidance_scale=settings.guidance_scale,
            method=settings.solver,
        )
        frames = slice(num_left * factor, (num_left + num_new) * factor)
        span = rendered[:, frames]
        if not components.flow.config.infills:
            span = add_offset(span, settings.voice)
        if cut.new is not None:
            span = fit_level(span, analysis.mel.to(span))
        rendered[:, frames] = fit_background(span, analysis.mel.to(span))
        # The vocoder gets a second before the span, and half of one behind it.
        skipped = max(num_left - self._token_rate, 0)
        kept = num_left + num_new + min(num_right, self._token_rate // 2)
        sound = components.vocoder(rendered[:, skipped * factor : kept * factor])[0].float().cpu()
        sound = sound * 10.0 ** (-analysis.decibels / 20.0)
        sound = resample(sound, components.manifest.sample_rate, rate)

        def samples(num_tokens: float) -> int:
            return round(num_tokens * rate / self._token_rate)

        origin = round(analysis.first_seconds * rate)
        piece = splice(
            analysis.waveform,
            analysis.gains,
            origin + samples(start),
            min(origin + samples(end), len(recording.samples)),
            sound,
            samples(num_left - skipped),
            samples(num_left - skipped + num_new),
            rate,
        )
        edited = recording.with_samples(piece.first, piece.waveform, piece.last)
        return EditedRecording(
            recording=edited,
            start_seconds=piece.start / rate,
            end_seconds=piece.end / rate,
            replaced=(
                (origin + samples(start)) / rate,
                min((origin + samples(end)) / rate, recording.seconds),
            ),
            text=cut.text,
            provenance=(
                f"Edited: {piece.start / rate:.3f} to {piece.end / rate:.3f} s are synthesised "
                f"speech, bundle {components.manifest.name}, seed {self._seed}"
            ),
        )


# -- what the models see of a recording


@torch.inference_mode()
def analyse(components: Components, recording: Recording) -> Analysis:
    """Tokens and mel of a recording.

    Raises:
        EditError: it is too long, silent, or too short.
    """
    if recording.seconds > MAX_SECONDS:
        raise EditError(
            f"the recording lasts {recording.seconds:.0f} s; at most {MAX_SECONDS:.0f} s are "
            "edited: cut it first."
        )
    mel_config, tokenizer = components.flow.config.mel, components.speech_tokenizer
    waveform = recording.waveform
    if waveform.shape[1] < MIN_SECONDS * recording.sample_rate:
        raise EditError(
            f"the recording lasts {recording.seconds:.2f} s; at least {MIN_SECONDS} s are needed."
        )
    gains, rate = channel_gains(waveform), mel_config.sample_rate
    speech = resample(common_channel(waveform, gains), recording.sample_rate, rate)
    speech = high_pass(speech - speech.mean(), rate)
    if is_silent(speech, -70.0):
        raise EditError("the recording is silent.")
    first, last = sound_span(speech, rate, pad_seconds=EDGE_SECONDS)
    speech = speech[first:last]
    if speech.shape[0] < MIN_SECONDS * rate:
        raise EditError(
            f"the recording holds only {speech.shape[0] / rate:.2f} s of sound; at least "
            f"{MIN_SECONDS} s are needed."
        )
    decibels = LEVEL_DBFS - rms_dbfs(speech)
    speech = (speech * 10.0 ** (decibels / 20.0)).clamp(-1.0, 1.0)
    slow = resample(speech, rate, tokenizer.config.mel.sample_rate).to(components.device)
    tokens = tokenizer.encode(slow[None])[0][0].tolist()
    mel = MelSpectrogram(mel_config)(speech[None])[0]
    factor = components.flow.frames_per_token
    count = min(mel.shape[0] // factor, len(tokens))
    return Analysis(
        waveform=waveform,
        gains=gains,
        decibels=decibels,
        first_seconds=first / rate,
        tokens=tokens[:count],
        mel=mel[: count * factor],
        token_rate=components.flow.config.token_rate,
    )


def _quietest(analysis: Analysis, start: int, end: int, components: Components) -> int:
    """The token in the quietest place outside of the tokens `start` to `end`."""
    factor = components.flow.frames_per_token
    level = analysis.mel.unflatten(0, (-1, factor)).mean(dim=(1, 2))
    level[start:end] = math.inf
    return analysis.tokens[int(level.argmin())]


def fit_level(span: Tensor, mel: Tensor) -> Tensor:
    """A span (1, T', M) that is about as loud as the recording (T, M), where both are loud."""

    def loudness(mel: Tensor) -> Tensor:
        level = torch.logsumexp(2 * mel, dim=-1) / 2
        return level[level >= level.quantile(0.5)].mean()

    step = loudness(span[0]) - loudness(mel)
    return span - (step - step.clamp(-MAX_LEVEL_STEP, MAX_LEVEL_STEP))


def fit_background(span: Tensor, mel: Tensor) -> Tensor:
    """A span (1, T', M) with what is always there in the recording (T, M), such as its noise."""
    return torch.maximum(span, mel.quantile(FLOOR_SHARE, dim=0))


# -- which part of the recording is replaced


def plan_cut(
    request: EditRequest, words: Sequence[TimedWord], text: str, analysis: Analysis
) -> Cut:
    """What is to be replaced, and by which text.

    Args:
        request: what is to be done.
        words: of the recording.
        text: of the recording.
        analysis: of the recording.

    Raises:
        EditError: the words are not there, or it is not clear which are meant.
    """
    if not words:
        raise EditError("no words were found in the recording.")

    def cut(start: float, end: float, place: slice, new: str, said: slice | None) -> Cut:
        """Replaces seconds of the recording and a place in its text, of `new` what is said."""
        return Cut(
            start=analysis.token_at(start),
            end=analysis.token_at(end),
            text=text[: place.start] + new + text[place.stop :],
            new=None if said is None else (place.start + said.start, place.start + said.stop),
            growth=len(new) - (place.stop - place.start),
        )

    if request.replace is not None:
        old, new = request.replace
        first, last = find_words(words, old, request.occurrence)
        said = _check_words(new) + ("" if _marks(new) else _marks(words[last].text))
        place = slice(words[first].text_start, words[last].text_end)
        start, end = words[first].start_seconds, words[last].end_seconds
        return cut(start, end, place, said, slice(0, len(said)))
    if request.delete is not None:
        first, last = find_words(words, request.delete, request.occurrence)
        if first == 0 and last == len(words) - 1:
            raise EditError("nothing would be left of the recording.")
        if last + 1 < len(words):
            start, end = words[first].start_seconds, words[last + 1].start_seconds
            place = slice(words[first].text_start, words[last + 1].text_start)
            return cut(start, end, place, "", None)
        start, end = words[first - 1].end_seconds, words[last].end_seconds
        place = slice(words[first - 1].text_end, words[last].text_end)
        final = "" if _marks(words[first - 1].text) else _marks(words[last].text)
        return cut(start, end, place, final, None)
    if request.insert is not None:
        side, anchor, new = request.insert
        said = _check_words(new)
        if side == "at":
            number, seconds = _nearest_gap(words, anchor)
            is_after = number == len(words)
            word = words[number - 1 if is_after else number]
        else:
            first, last = find_words(words, str(anchor), request.occurrence)
            is_after = side == "after"
            word = words[last if is_after else first]
            seconds = word.end_seconds if is_after else word.start_seconds
        if not is_after:
            place = slice(word.text_start, word.text_start)
            return cut(seconds, seconds, place, f"{said} ", slice(0, len(said)))
        # A sentence goes on: its final mark moves behind the new words.
        final = _marks(word.text)
        if _marks(new) or not any(mark in ".!?" for mark in final):
            final = ""
        place = slice(word.text_end - len(final), word.text_end)
        return cut(seconds, seconds, place, f" {said}{final}", slice(1, 1 + len(said) + len(final)))
    if request.continue_with is not None:
        said = _check_words(request.continue_with)
        place = slice(words[-1].text_end, len(text))
        end = words[-1].end_seconds
        return cut(end, end, place, f" {said}", slice(1, 1 + len(said)))
    assert request.span is not None
    return _plan_span(request.span, words, text, analysis)


def _plan_span(
    span: tuple[float, float], words: Sequence[TimedWord], text: str, analysis: Analysis
) -> Cut:
    start, end = span
    total = analysis.first_seconds + len(analysis.tokens) / analysis.token_rate
    if start >= total or end <= analysis.first_seconds:
        raise EditError(
            f"the span {start:g} to {end:g} s lies outside of the speech, which is from "
            f"{analysis.first_seconds:.2f} to {total:.2f} s."
        )
    if end - start < MIN_OVERLAP_SECONDS:
        raise EditError(f"a span lasts at least {MIN_OVERLAP_SECONDS:g} s.")
    inside = [
        number
        for number, word in enumerate(words)
        if min(word.end_seconds, end) - max(word.start_seconds, start) >= MIN_OVERLAP_SECONDS
    ]
    first_token, last_token = analysis.token_at(start), analysis.token_at(end)
    if not inside:
        return Cut(start=first_token, end=last_token, text=text, new=None, is_silent=True)
    first, last = words[inside[0]], words[inside[-1]]
    return Cut(
        start=min(first_token, analysis.token_at(first.start_seconds)),
        end=max(last_token, analysis.token_at(last.end_seconds)),
        text=text,
        new=(first.text_start, last.text_end),
    )


def find_words(
    words: Sequence[TimedWord], phrase: str, occurrence: int | None = None
) -> tuple[int, int]:
    """The first and the last of the words that a phrase names, however its letters are written.

    Raises:
        EditError: they are not there, or several times, and it is not said which are meant.
    """
    wanted = [bare for part in phrase.split() if (bare := _bare(part))]
    if not wanted:
        raise EditError(f"{phrase!r} names no words of the recording.")
    count = len(wanted)
    names = [{_bare(word.text), _bare(word.spoken)} for word in words]
    found = [
        first
        for first in range(len(words) - count + 1)
        if all(part in name for part, name in zip(wanted, names[first:], strict=False))
    ]
    if not found:
        said = " ".join(word.text for word in words)
        shown = said if len(said) <= 300 else f"{said[:300]}…"
        raise EditError(f"the recording does not say {phrase!r}; it says: {shown}")
    if occurrence is None and len(found) > 1:
        places = "; ".join(
            f"{number}: at {words[first].start_seconds:.2f} s, in "
            f"'{' '.join(word.text for word in words[max(first - 2, 0) : first + count + 2])}'"
            for number, first in enumerate(found, start=1)
        )
        raise EditError(
            f"the recording says {phrase!r} {len(found)} times; give the occurrence. {places}."
        )
    if occurrence is not None and occurrence > len(found):
        raise EditError(
            f"the recording says {phrase!r} {len(found)} time{'s' * (len(found) > 1)}, there is no "
            f"occurrence {occurrence}."
        )
    first = found[(occurrence or 1) - 1]
    return first, first + count - 1


def _nearest_gap(words: Sequence[TimedWord], place: str | float) -> tuple[int, float]:
    """Number of the word before which a second lies, and the nearest second between two words."""
    try:
        seconds = float(place)
    except ValueError:
        raise EditError(f"a place is a number of seconds, not {place!r}.") from None
    if not 0 <= seconds < math.inf:
        raise EditError(f"a place is a number of seconds from 0, not {seconds:g}.")
    ends = [0.0, *(word.end_seconds for word in words)]
    starts = [*(word.start_seconds for word in words), words[-1].end_seconds]
    nearest = [max(min(seconds, start), end) for end, start in zip(ends, starts, strict=True)]
    number = min(range(len(nearest)), key=lambda gap: abs(nearest[gap] - seconds))
    return number, nearest[number]


def _bare(word: str) -> str:
    return _NO_LETTER.sub("", word).casefold()


def _marks(text: str) -> str:
    """The marks that a text ends with."""
    return text[len(text.rstrip(",.?!;:…")) :]


def _check_words(text: str) -> str:
    """The words themselves, without spaces around them.

    Raises:
        EditError: there are none.
    """
    if not any(letter.isalnum() for letter in text):
        raise EditError(f"the new words {text!r} hold nothing that can be said.")
    return " ".join(text.split())


@dataclass(frozen=True, kw_only=True)
class Window:
    """The words that the LM reads: new ones, and some of the recording on both sides."""

    words: list[str]
    """As they are said."""
    num_left: int
    num_right: int
    """Words of the recording before the new ones, and behind them."""
    first_character: int
    last_character: int
    """Where they stand in the new text."""

    @property
    def num_new(self) -> int:
        """Words that are said anew."""
        return len(self.words) - self.num_left - self.num_right

    @classmethod
    def of(cls, segments: SegmentedText, cut: Cut, max_characters: int) -> Window:
        """The window around the new words of a cut.

        Args:
            segments: of the new text.
            cut: that has new words.
            max_characters: most of a text that the LM reads at once.

        Raises:
            EditError: nothing of the new words can be said, or they are too long.
        """
        assert cut.new is not None and segments.written is not None
        written = segments.written
        places = [written.written[owner] for owner in written.owners]
        words = [word for segment in segments.segments for word in segment.words]
        ends = [*accumulate(len(segment.words) for segment in segments.segments)]
        if [word.strip() for word in words] != written.spoken:  # an overlong word was split
            words = written.spoken
            ends = [len(words)]
        new = [n for n, own in enumerate(places) if own.start < cut.new[1] and own.end > cut.new[0]]
        if not new:
            raise EditError("the new words hold nothing that can be said.")
        start, end = new[0], new[-1] + 1
        length = sum(len(word.strip()) + 1 for word in words[start:end])
        if length > max_characters:
            raise EditError(
                f"the new words have {length} characters as they are said; at most "
                f"{max_characters} are said in one edit: make several."
            )
        borders = [0, *ends]
        first = max(border for border in borders if border <= start)
        first = max(min(first, start - MIN_LEFT_WORDS), 0)
        last = min((border for border in borders if border >= end), default=len(words))
        # What is too much is left out, in turns at both ends.
        while sum(len(word.strip()) + 1 for word in words[first:last]) > max_characters:
            if start - first >= last - end:
                first += 1
            else:
                last -= 1
        return cls(
            words=words[first:last],
            num_left=start - first,
            num_right=last - end,
            first_character=places[first].start,
            last_character=places[last - 1].end,
        )
