"""Judging speech: whatever was said in a voice, against the text, the prompt and the original.

Shapes: S samples, E embedding channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenlm.audio.io import load_audio, save_audio
from tokenlm.audio.resample import resample
from training.data.manifest import Utterance
from training.evaluation.error_rate import ErrorCount, is_catastrophic, word_errors
from training.evaluation.figure import Figure, mean_figure, ratio_figure
from training.evaluation.judges import SAMPLE_RATE, VoiceJudge
from training.evaluation.speaker_score import hardest, nearest, similarity
from training.evaluation.testset import Item, TestSet

Submit = Callable[[np.ndarray], Future[str]]
"""Samples (S,) at 16 kHz to what the judge of words hears in them, when it is done."""
Advance = Callable[[], None]
"""Called after each utterance."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the judges say of one utterance."""

    item: Item
    heard: str
    count: ErrorCount
    embedding: np.ndarray
    """(E,)"""
    seconds: float


def keep_audio(
    folder: Path | None, group: str, section: str, name: str, waveform: Tensor, sample_rate: int
) -> None:
    """Write speech (S,) that was judged to a wav file of its test set and section.

    A folder of None keeps nothing.
    """
    if folder is not None:
        path = folder / group / section / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_audio(path, waveform, sample_rate)


class Jury:
    """The judges, and what they have said of prompts and originals."""

    def __init__(
        self,
        submit: Submit,
        embed: VoiceJudge,
        *,
        num_candidates: int = 6,
        audio_folder: Path | None = None,
        seed: int = 0,
    ) -> None:
        """Take the judges.

        Args:
            submit: the judge of words.
            embed: the judge of speakers.
            num_candidates: voices among which the nearest is looked for.
            audio_folder: keeps what was judged, as wav files; None keeps nothing.
            seed: of the intervals.
        """
        self.submit = submit
        self.embed = embed
        self.num_candidates = num_candidates
        self.audio_folder = audio_folder
        self.seed = seed
        self._prompts: dict[Path, np.ndarray] = {}

    def voice_of(self, recording: Utterance) -> np.ndarray:
        """Embedding (E,) of a prompt."""
        if recording.audio not in self._prompts:
            samples = load_audio(recording.audio, SAMPLE_RATE).numpy()
            self._prompts[recording.audio] = self.embed(samples)
        return self._prompts[recording.audio]

    def judge(
        self,
        section: str,
        test_set: TestSet,
        speak: Callable[[Item], Tensor],
        sample_rate: int,
        spoken: Advance,
        judged: Advance,
    ) -> list[Judged]:
        """Let the judges hear every item.

        Args:
            section: what is judged.
            test_set: the items.
            speak: gives the waveform (S,) of an item; an empty one counts as silence.
            sample_rate: of the waveforms, in hertz.
            spoken: called when an item has been spoken.
            judged: called when an item has been judged.
        """
        waiting: list[tuple[Item, Future[str], np.ndarray, float]] = []
        for item in test_set.items:
            waveform = speak(item)
            seconds = waveform.shape[0] / sample_rate
            keep_audio(
                self.audio_folder,
                test_set.name,
                section,
                f"{item.index:03d}",
                waveform,
                sample_rate,
            )
            if waveform.shape[0] < sample_rate // 10:
                missing = sample_rate // 10 - waveform.shape[0]
                waveform = torch.nn.functional.pad(waveform, (0, missing))
            samples = resample(waveform, sample_rate, SAMPLE_RATE).numpy()
            future = self.submit(samples)
            future.add_done_callback(lambda _: judged())
            waiting.append((item, future, self.embed(samples), seconds))
            spoken()
        return [
            Judged(
                item=item,
                heard=future.result(),
                count=word_errors(item.original.text, future.result()),
                embedding=embedding,
                seconds=seconds,
            )
            for item, future, embedding, seconds in waiting
        ]

    def score(
        self,
        section: str,
        test_set: TestSet,
        judged: list[Judged],
        originals: list[Judged] | None,
        others: Mapping[str, Utterance],
    ) -> tuple[list[Figure], list[dict[str, Any]]]:
        """Figures and rows of what was judged.

        Args:
            section: what was judged.
            test_set: the items.
            judged: one for each item, in order.
            originals: the engine's own readings, in order; None where these are judged.
            others: prompts of further voices, which fill up the candidates for the nearest voice.
        """
        candidates = self._candidates(test_set, others)
        rows = []
        for index, spoken in enumerate(judged):
            own = originals[index] if originals is not None else None
            rows.append(self._row(section, test_set.name, spoken, own, candidates))
        return self._figures(section, test_set.name, rows), rows

    def _candidates(
        self, test_set: TestSet, others: Mapping[str, Utterance]
    ) -> dict[str, dict[str, np.ndarray]]:
        """For each voice, itself and the others among which it has to be found."""
        own = {speaker: self.voice_of(row) for speaker, row in test_set.prompts.items()}
        # The warps of a single person are too alike to be told apart by any judge: an unheard
        # person has to be found among the others, the most similar ones.
        rest = {name: self.voice_of(row) for name, row in others.items()} or own
        return {
            speaker: {
                speaker: embedding,
                **{
                    name: rest[name]
                    for name in hardest(speaker, embedding, rest, self.num_candidates - 1)
                },
            }
            for speaker, embedding in own.items()
        }

    def _row(
        self,
        section: str,
        group: str,
        spoken: Judged,
        original: Judged | None,
        candidates: dict[str, dict[str, np.ndarray]],
    ) -> dict[str, Any]:
        item = spoken.item
        speaker = item.prompt.speaker
        found = nearest(spoken.embedding, candidates[speaker])
        row = {
            "section": section,
            "group": group,
            "item": item.index,
            "original": item.original.id,
            "prompt": item.prompt.id,
            "speaker": speaker,
            "text": item.original.text,
            "heard": spoken.heard,
            "errors": spoken.count.errors,
            "words": spoken.count.length,
            "seconds": round(spoken.seconds, 3),
            "similarity": round(similarity(spoken.embedding, self.voice_of(item.prompt)), 4),
            "nearest": found,
            "num_candidates": len(candidates[speaker]),
        }
        if original is not None:
            row["original_errors"] = original.count.errors
            row["similarity_to_original"] = round(
                similarity(spoken.embedding, original.embedding), 4
            )
            row["catastrophic"] = is_catastrophic(spoken.count, original.count)
        return row

    def _figures(self, section: str, group: str, rows: list[dict[str, Any]]) -> list[Figure]:
        seed = self.seed

        def values(key: str) -> list[float]:
            return [float(row[key]) for row in rows]

        figures = [
            ratio_figure(
                section, group, "word_error_rate", values("errors"), values("words"), seed=seed
            ),
        ]
        if "original_errors" in rows[0]:
            figures += [
                ratio_figure(
                    section,
                    group,
                    "word_errors_over_original",
                    values("errors"),
                    values("original_errors"),
                    seed=seed,
                    note="word errors over those of the engine's own reading",
                ),
                mean_figure(
                    section,
                    group,
                    "catastrophic_failure_rate",
                    values("catastrophic"),
                    seed=seed,
                    note="word error rate above 0.5 and 0.5 above the engine's own",
                ),
                mean_figure(
                    section,
                    group,
                    "similarity_to_original",
                    values("similarity_to_original"),
                    seed=seed,
                ),
            ]
        num = max(row["num_candidates"] for row in rows)
        return [
            *figures,
            mean_figure(
                section,
                group,
                "speaker_similarity",
                values("similarity"),
                seed=seed,
                note="cosine to the prompt by resemblyzer, not comparable with published tables",
            ),
            mean_figure(
                section,
                group,
                "nearest_voice_rate",
                [float(row["nearest"] == row["speaker"]) for row in rows],
                seed=seed,
                note=f"share whose nearest of {num} prompts is their own",
            ),
        ]
