"""Trains a text tokenizer: pieces of spelling on the texts of a manifest, or phones on a lexicon.

python -m training.text_tokenizer pieces --vocab-size 192 MANIFEST OUTPUT_FOLDER
python -m training.text_tokenizer phonemes LEXICON OUTPUT_FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from tokenlm.text.normalize import normalize
from tokenlm.text.pronunciation import read_lexicon
from tokenlm.text.tokenizers import SentencePieceTokenizer
from training.data.exclusion import evaluation_exclusion
from training.data.manifest import read_manifest
from training.pronouncer import train_phoneme_tokenizer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.text_tokenizer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    pieces = kinds.add_parser("pieces", help="pieces of words, by sentencepiece")
    pieces.add_argument("--vocab-size", type=int, required=True)
    pieces.add_argument("--seed", type=int, default=0)
    pieces.add_argument("manifest", type=Path)
    pieces.add_argument("output", type=Path)
    phonemes = kinds.add_parser("phonemes", help="phones, by a lexicon in the CMU format")
    phonemes.add_argument("--epochs", type=int, default=10)
    phonemes.add_argument("--seed", type=int, default=0)
    phonemes.add_argument("lexicon", type=Path)
    phonemes.add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    torch.set_flush_denormal(True)
    try:
        if options.kind == "pieces":
            _train_pieces(options.manifest, options.output, options.vocab_size, options.seed)
        else:
            _train_phonemes(options.lexicon, options.output, options.epochs, options.seed)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _train_pieces(manifest: Path, output: Path, vocab_size: int, seed: int) -> None:
    exclusion = evaluation_exclusion()
    rows = read_manifest(manifest).utterances
    texts = [normalize(row.text) for row in rows if not exclusion.excludes(row.text)]
    tokenizer = SentencePieceTokenizer.train(texts, vocab_size, seed=seed)
    tokenizer.save(output)
    pieces = sum(len(tokenizer.encode(text)) for text in texts)
    characters = sum(len(text) for text in texts)
    print(f"{tokenizer.vocab_size} pieces, {characters / max(pieces, 1):.2f} characters each")


def _train_phonemes(path: Path, output: Path, num_epochs: int, seed: int) -> None:
    lexicon = read_lexicon(path)
    tokenizer = train_phoneme_tokenizer(lexicon, num_epochs=num_epochs, seed=seed)
    tokenizer.save(output)
    right = 1 - len(tokenizer.lexicon) / len(lexicon)
    print(
        f"{tokenizer.vocab_size} ids; the rules say {right:.1%} of {len(lexicon)} words, "
        f"the lexicon keeps the other {len(tokenizer.lexicon)}"
    )


if __name__ == "__main__":
    sys.exit(main())
