"""Find the speech tokens of silence: `python -m training.silence MANIFEST`.

The silent-run cap of `GuardConfig` has to know which codes stand for silence. Silence is what is
quiet beside the loudest part of its recording; a code is silent if it nearly always stands there.

Shapes: S samples, N tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from tokenlm.audio.io import load_audio
from training.data.manifest import read_manifest

SAMPLE_RATE = 16_000
QUIET_DB = -40.0
"""Below the loudest token of a recording."""
MIN_SHARE = 0.8
"""Share of a code's places that must be quiet."""
MIN_COUNT = 10
"""A rarer code says too little about itself."""


def quiet_tokens(waveform: Tensor, num_tokens: int) -> Tensor:
    """Which tokens of a recording are quiet.

    Args:
        waveform: (S,), cut into as many equal parts as there are tokens.
        num_tokens: N.

    Returns:
        (N,) True where quiet.
    """
    size = waveform.shape[0] // num_tokens
    power = waveform[: size * num_tokens].view(num_tokens, size).square().mean(dim=1)
    return power < power.max() * 10 ** (QUIET_DB / 10)


def find_silent_tokens(recordings: Iterable[tuple[Sequence[int], Tensor]]) -> list[int]:
    """Codes of silence.

    Args:
        recordings: speech tokens, and which of them are quiet (N,).
    """
    quiet: dict[int, int] = {}
    total: dict[int, int] = {}
    for tokens, is_quiet in recordings:
        for token, hit in zip(tokens, is_quiet.tolist(), strict=True):
            total[token] = total.get(token, 0) + 1
            quiet[token] = quiet.get(token, 0) + hit
    return sorted(
        token
        for token, count in total.items()
        if count >= MIN_COUNT and quiet[token] >= MIN_SHARE * count
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.silence", description=__doc__)
    parser.add_argument("manifest", type=Path, help="manifest with speech tokens")
    parser.add_argument("--limit", type=int, default=2000, help="recordings that are looked at")
    options = parser.parse_args(arguments)
    try:
        rows = read_manifest(options.manifest, strict=True).utterances
        chosen = [row for row in rows if row.speech_tokens]
        if not chosen:
            raise ValueError(
                f"{options.manifest} has no speech tokens; write them with: "
                "tokenlm precompute --tokenizer"
            )
        step = max(len(chosen) // max(options.limit, 1), 1)
        found = find_silent_tokens(
            (
                row.speech_tokens or (),
                quiet_tokens(load_audio(row.audio, SAMPLE_RATE), len(row.speech_tokens or ())),
            )
            for row in chosen[::step]
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"guards: {{silent_tokens: {found}}}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
