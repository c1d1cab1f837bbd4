"""Writes speech tokens into a manifest.

    python -m training.precompute --tokenizer FOLDER MANIFEST OUTPUT

The rows of OUTPUT carry `speech_tokens` and the fingerprint of the tokenizer; its audio paths are
made relative to its own folder. Written all at once at the end, after a progress bar. What cannot
be used is set aside in a rejects file beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tokenlm.audio.io import AudioError
from tokenlm.checkpoint.registry import SPEECH_TOKENIZERS, AnySpeechTokenizer, load_model
from tokenlm.console import track
from training.data.collate import pad_waveforms
from training.data.dataset import UtteranceDataset
from training.data.manifest import Utterance, read_manifest, write_manifest
from training.data.rejects import Reject, Rejects
from training.data.shards.build import DURATION_TOLERANCE

SetAside = Callable[[Utterance, str], None]
"""Takes an utterance that cannot be used, and the reason."""


def add_speech_tokens(
    dataset: UtteranceDataset,
    tokenizer: AnySpeechTokenizer,
    set_aside: SetAside,
    *,
    max_seconds_per_batch: float = 60.0,
) -> list[Utterance]:
    """The rows of `dataset` with speech tokens, in order.

    A recording that cannot be read, is shorter than a token or not as long as its row says goes to
    `set_aside`, and is left out.
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
        waveforms = {index: _waveform(dataset, index, shortest, set_aside) for index in batch}
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


def _waveform(
    dataset: UtteranceDataset, index: int, shortest: int, set_aside: SetAside
) -> Tensor | None:
    row = dataset.utterances[index]
    try:
        waveform = dataset.waveform(index)
    except AudioError as error:
        set_aside(row, str(error))
        return None
    seconds = waveform.shape[0] / dataset.sample_rate
    if waveform.shape[0] < shortest:
        set_aside(row, f"{row.audio} is shorter than a token.")
    elif abs(seconds - row.duration) > DURATION_TOLERANCE:
        set_aside(row, f"'duration' is {row.duration:.2f} s, but {row.audio} has {seconds:.2f} s.")
    else:
        return waveform
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.precompute", description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="component folder")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--max-rejects", type=float, default=0.05, help="share of rows that may be bad"
    )
    options = parser.parse_args(arguments)
    try:
        tokenizer = load_model(options.tokenizer, *SPEECH_TOKENIZERS)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        manifest = read_manifest(options.manifest)
        rejects = Rejects(
            options.output.with_suffix(".rejects.jsonl"),
            options.max_rejects,
            num_expected=len(manifest.utterances) + len(manifest.bad_rows),
        )
        for bad in manifest.bad_rows:
            rejects.reject(Reject(str(manifest.path), bad.line, bad.reason))
        lines = {
            row.id: line for row, line in zip(manifest.utterances, manifest.lines, strict=True)
        }

        def set_aside(row: Utterance, reason: str) -> None:
            rejects.reject(Reject(str(manifest.path), lines[row.id], reason))

        dataset = UtteranceDataset(
            manifest.utterances, tokenizer.config.mel.sample_rate, min_seconds=0.04
        )
        rows = add_speech_tokens(dataset, tokenizer.to(device), set_aside)
        rejects.accept(len(dataset) + len(manifest.bad_rows) - rejects.num_seen)
        write_manifest(options.output, rows)
        print(rejects.report())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
