"""Trains the text tokenizer on the normalised texts of a manifest.

python -m training.text_tokenizer --vocab-size 192 MANIFEST OUTPUT_FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tokenlm.text.normalize import normalize
from tokenlm.text.tokenizer import TextTokenizer
from training.data.manifest import read_manifest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.text_tokenizer", description=__doc__)
    parser.add_argument("--vocab-size", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    try:
        rows = read_manifest(options.manifest).utterances
        texts = [normalize(row.text) for row in rows]
        tokenizer = TextTokenizer.train(texts, options.vocab_size, seed=options.seed)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tokenizer.save(options.output)
    pieces = sum(len(tokenizer.encode(text)) for text in texts)
    characters = sum(len(text) for text in texts)
    print(f"{tokenizer.vocab_size} pieces, {characters / max(pieces, 1):.2f} characters each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
