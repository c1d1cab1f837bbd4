"""What each section lets the judges hear, and what is measured without them.

Shapes: S samples, N tokens, E embedding channels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenlm.audio.io import load_audio
from tokenlm.audio.mel import MelSpectrogram
from tokenlm.models.speech_tokenizer import codebook_usage
from tokenlm.modules.noise import mix
from tokenlm.synthesis.synthesizer import Synthesizer
from tokenlm.synthesis.voice import Voice
from training.data.manifest import Utterance, by_speaker
from training.evaluation.error_rate import char_errors
from training.evaluation.figure import Figure, ratio_figure
from training.evaluation.judges import SAMPLE_RATE, VoiceJudge
from training.evaluation.parts import Parts
from training.evaluation.prompts import Prompt
from training.evaluation.speaker_score import equal_error_interval, equal_error_rate, pair_scores
from training.evaluation.testset import Item, TestSet

Track = Callable[[Iterable[Any]], Iterator[Any]]
"""Goes through a list and shows how far it is."""


def speak_original(item: Item) -> Tensor:
    """The engine's own reading (S,) at `SAMPLE_RATE`."""
    return load_audio(item.original.audio, SAMPLE_RATE)


class Speaker:
    """Speaks items with the components; each method gives a waveform (S,) at `sample_rate`."""

    def __init__(self, parts: Parts, seed: int) -> None:
        self.parts = parts
        self.seed = seed
        self._synthesizer = Synthesizer(parts)
        self._voices: dict[str, Voice] = {}

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in hertz."""
        return self.parts.vocoder.config.mel.sample_rate

    def voice(self, prompt: Utterance) -> Voice:
        """The voice of a prompt, with its text."""
        if prompt.id not in self._voices:
            self._voices[prompt.id] = self._synthesizer.prepare_voice(prompt.audio, prompt.text)
        return self._voices[prompt.id]

    def say(self, text: str, prompt: Prompt, index: int) -> Tensor:
        """A text in the voice of a prompt that is given as samples.

        Args:
            text: what is said.
            prompt: of the voice, made once for each name.
            index: place of the text in the test set, which its seed follows from.
        """
        if prompt.name not in self._voices:
            self._voices[prompt.name] = self._synthesizer.prepare_voice(
                prompt.waveform, prompt.text, sample_rate=prompt.sample_rate, name=prompt.name
            )
        seed = mix(self.seed, index)
        return self._synthesizer.generate(text, voice=self._voices[prompt.name], seed=seed)

    def clone(self, item: Item) -> Tensor:
        """The sentence of an item in the voice of its prompt."""
        seed = mix(self.seed, item.index)
        return self._synthesizer.generate(
            item.original.text, voice=self.voice(item.prompt), seed=seed
        )

    def resynthesize(self, item: Item) -> Tensor:
        """The tokens of the original, rendered in the voice of the prompt: the chain but the LM."""
        seed = mix(self.seed, item.index)
        return self._synthesizer.convert(
            item.original.audio, voice=self.voice(item.prompt), seed=seed
        )

    @torch.inference_mode()
    def copy(self, item: Item) -> Tensor:
        """The mel of the original, made to sound by the vocoder."""
        vocoder = self.parts.vocoder
        waveform = load_audio(item.original.audio, self.sample_rate)
        mel = MelSpectrogram(vocoder.config.mel)(waveform[None])
        return vocoder(mel.to(self.parts.device))[0].cpu()


@torch.inference_mode()
def measure_tokenizer(
    parts: Parts, test_set: TestSet, num_items: int, seed: int, track: Track
) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Character error of the tokenizer's own ASR through its codes, and how these are used."""
    tokenizer, recognizer = parts.speech_tokenizer, parts.token_recognizer
    rate = tokenizer.config.mel.sample_rate
    rows, tokens = [], []
    for recording in track(_spread(test_set.recordings, num_items)):
        waveform = load_audio(recording.audio, rate).to(parts.device)
        found, _ = tokenizer.encode(waveform[None])
        heard = recognizer.transcribe(found)[0]
        count = char_errors(recording.text, heard)
        tokens.append(found[0].cpu())
        rows.append(
            {
                "section": "tokenizer",
                "group": test_set.name,
                "original": recording.id,
                "speaker": recording.speaker,
                "text": recording.text,
                "heard": heard,
                "errors": count.errors,
                "characters": count.length,
            }
        )
    all_tokens = torch.cat(tokens)
    size = tokenizer.config.codebook_size
    figures = [
        ratio_figure(
            "tokenizer",
            test_set.name,
            "char_error_rate",
            [float(row["errors"]) for row in rows],
            [float(row["characters"]) for row in rows],
            seed=seed,
            note="of the tokenizer's own ASR through its codes",
        )
    ]
    for name, value in codebook_usage(all_tokens, size).items():
        figures.append(
            Figure(
                section="tokenizer",
                group=test_set.name,
                name=name,
                value=value,
                num_items=len(rows),
                note=f"{len(all_tokens):,} tokens, codebook of {size:,}",
            )
        )
    return figures, rows


@torch.inference_mode()
def measure_speaker_encoder(
    parts: Parts,
    test_sets: list[TestSet],
    num_recordings: int,
    seed: int,
    track: Track,
    judge: VoiceJudge | None = None,
) -> list[Figure]:
    """Equal error rate over pairs of recordings of held-out speakers.

    Within a test set every speaker counts, warps of one person too; over all sets together, pairs
    of different speakers are those of different persons.

    Args:
        parts: with the speaker encoder.
        test_sets: whose recordings are compared.
        num_recordings: of each speaker.
        seed: of the intervals.
        track: shows how far it is.
        judge: measured on the same recordings, for comparison.
    """
    encoder = parts.speaker_encoder
    rate = encoder.config.mel.sample_rate
    chosen = [
        (test_set.name, row)
        for test_set in test_sets
        for indices in by_speaker(test_set.recordings).values()
        for row in _spread([test_set.recordings[index] for index in indices], num_recordings)
    ]
    own, others = [], []
    for _, row in track(chosen):
        own.append(encoder.embed_recording(load_audio(row.audio, rate).to(parts.device)).cpu())
        if judge is not None:
            others.append(judge(load_audio(row.audio, SAMPLE_RATE).numpy()))
    found = {"": np.stack([embedding.numpy() for embedding in own])}
    if others:
        found["judge_"] = np.stack(others)
    figures = []
    for prefix, embeddings in found.items():
        for test_set in test_sets:
            within = [i for i, (name, _) in enumerate(chosen) if name == test_set.name]
            figures += _error_figures(
                test_set.name,
                f"{prefix}equal_error_rate",
                embeddings[within],
                [chosen[i][1].speaker for i in within],
                None,
                seed,
            )
        persons = [str(row.extra.get("person", row.speaker)) for _, row in chosen]
        if len(set(persons)) > 1:
            figures += _error_figures(
                "all",
                f"{prefix}equal_error_rate_between_persons",
                embeddings,
                [row.speaker for _, row in chosen],
                persons,
                seed,
            )
    return figures


def _error_figures(
    group: str,
    name: str,
    embeddings: np.ndarray,
    speakers: list[str],
    persons: list[str] | None,
    seed: int,
) -> list[Figure]:
    if len(set(speakers)) < 2:
        return []
    same, different = pair_scores(embeddings, speakers)
    if persons is not None:
        different = pair_scores(embeddings, persons)[1]
        low = high = None
    else:
        low, high = equal_error_interval(embeddings, speakers, seed=seed)
    rate, threshold = equal_error_rate(same, different)
    note = (
        f"{len(set(speakers))} speakers; same {same.mean():.3f}, different "
        f"{different.mean():.3f}, threshold {threshold:.3f}"
    )
    return [
        Figure(
            section="speaker_encoder",
            group=group,
            name=name,
            value=rate,
            low=low,
            high=high,
            num_items=len(speakers),
            note=note,
        )
    ]


def measure_speed(speaker: Speaker, test_set: TestSet, num_items: int, track: Track) -> Figure:
    """Seconds of work for a second of speech, on all cores, prompt already prepared."""
    items = test_set.items[:num_items]
    threads = torch.get_num_threads()
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    try:
        speaker.clone(items[0])  # The first call pays for what is loaded lazily.
        worked = spoken = 0.0
        for item in track(items):
            speaker.voice(item.prompt)
            start = time.perf_counter()
            waveform = speaker.clone(item)
            worked += time.perf_counter() - start
            spoken += waveform.shape[0] / speaker.sample_rate
    finally:
        torch.set_num_threads(threads)
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return Figure(
        section="real_time_factor",
        group=test_set.name,
        name="real_time_factor",
        value=worked / max(spoken, 1e-9),
        num_items=len(items),
        note=f"{spoken:.0f} s of speech, one sentence at a time, {cores} cores{load}",
    )


def _spread(recordings: list[Utterance], num: int) -> list[Utterance]:
    """`num` recordings, evenly over the list, so that no speaker is left out."""
    if len(recordings) <= num:
        return recordings
    return [recordings[index * len(recordings) // num] for index in range(num)]
