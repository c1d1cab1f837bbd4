"""Writes speech tokens into a manifest.

    python -m training.precompute --tokenizer FOLDER MANIFEST OUTPUT

The rows of OUTPUT carry `speech_tokens` and the fingerprint of the tokenizer; its audio paths are
made relative to its own folder. Written all at once at the end, after a progress bar.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from tokenlm.audio.io import AudioError
from tokenlm.checkpoint.registry import SPEECH_TOKENIZERS, AnySpeechTokenizer, load_model
from training.data.collate import pad_waveforms
from training.data.dataset import UtteranceDataset
from training.data.manifest import Utterance, write_manifest


def add_speech_tokens(
    dataset: UtteranceDataset, tokenizer: AnySpeechTokenizer, *, max_seconds_per_batch: float = 60.0
) -> list[Utterance]:
    """The rows of `dataset` with speech tokens, in order.

    A recording that cannot be read, or is shorter than a token, is reported and left out.
    """
    order = sorted(range(len(dataset)), key=lambda index: dataset.durations[index])
    batches: list[list[int]] = [[]]
    for index in order:
        if (len(batches[-1]) + 1) * dataset.durations[index] > max_seconds_per_batch:
            batches.append([])
        batches[-1].append(index)
    fingerprint, shortest = tokenizer.fingerprint, tokenizer.config.samples_per_token
    rows: dict[int, Utterance] = {}
    device = next(iter(tokenizer.state_dict().values())).device
    for batch in track([batch for batch in batches if batch], "speech tokens"):
        waveforms = {index: _waveform(dataset, index, shortest) for index in batch}
        found = {index: waveform for index, waveform in waveforms.items() if waveform is not None}
        if not found:
            continue
        waveform, lengths = pad_waveforms([*found.values()])
        tokens, counts = tokenizer.encode(waveform.to(device), lengths.to(device))
        for index, row, count in zip(found, tokens.tolist(), counts.tolist(), strict=True):
            rows[index] = replace(
                dataset.utterances[index],
                speech_tokens=tuple(row[:count]),
                tokenizer=fingerprint,
            )
    return [rows[index] for index in sorted(rows)]


def _waveform(dataset: UtteranceDataset, index: int, shortest: int) -> Tensor | None:
    name = dataset.utterances[index].id
    try:
        waveform = dataset.waveform(index)
    except AudioError as error:
        print(f"utterance {name!r} is left out: {error}", file=sys.stderr)
        return None
    if waveform.shape[0] < shortest:
        print(f"utterance {name!r} is left out: it is shorter than a token", file=sys.stderr)
        return None
    return waveform


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.precompute", description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="component folder")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    try:
        tokenizer = load_model(options.tokenizer, *SPEECH_TOKENIZERS)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dataset = UtteranceDataset(
            options.manifest, tokenizer.config.mel.sample_rate, min_seconds=0.04
        )
        write_manifest(options.output, add_speech_tokens(dataset, tokenizer.to(device)))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
