"""Make the synthetic corpus that the embedded voice is trained on.

    scripts/make_corpus --config configs/data/corpus.yaml --output corpus --jobs 2

Run it again after an interruption: what is finished is kept. `key=value` arguments override the
configuration. `--check` measures a corpus instead of making it; it fails where texts of test sets
(`configs/eval`) are among those that are trained on, by post-training, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tokenlm.checkpoint import packaged_configs
from tokenlm.config import load_config
from tokenlm.console import show_logs
from training.recipes.corpus.build import build_corpus
from training.recipes.corpus.check import check_corpus
from training.recipes.corpus.config import CorpusConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words of the command line, None for those of the process.

    Returns:
        0; 1 after a mistake that was explained in a sentence; 130 after an interruption.
    """
    parser = argparse.ArgumentParser(
        prog="make_corpus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, default=packaged_configs() / "data/corpus.yaml")
    parser.add_argument("--output", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--jobs", type=int, default=1, help="processes that speak")
    parser.add_argument("--check", action="store_true", help="measure a corpus; make nothing")
    parser.add_argument(
        "--post-training",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="with --check: a manifest, or texts one per line, of post-training; repeatable",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    given = parser.parse_args(arguments)
    show_logs()
    try:
        if given.jobs < 1:
            raise ValueError(f"--jobs must be 1 or more, got {given.jobs}")
        config = load_config(CorpusConfig, given.config, given.overrides)
        if given.check:
            figures = check_corpus(
                given.output, post_training=given.post_training, test_sets=config.test_sets
            )
            print(json.dumps(figures, indent=2))
            for name in ("evaluation_texts_in_training", "texts_of_other_splits_in_train"):
                if figures[name]:
                    raise ValueError(f"{figures[name]} {name.replace('_', ' ')}: see above")
        else:
            for manifest, count in build_corpus(config, given.output, jobs=given.jobs).items():
                print(f"{given.output / manifest}.jsonl: {count} utterances")
    except ValueError as error:
        print(f"make_corpus: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make_corpus: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0
