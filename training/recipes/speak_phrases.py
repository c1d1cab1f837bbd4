"""Speak the phrases of a trigger, and what sounds close to them, by the engines of a corpus.

    scripts/speak_phrases "hey token" token --config configs/data/natural.yaml --output FOLDER \
        --train 400 --heldout 80 teacher=FOLDER

What is spoken already is kept, so that more can be asked for later. Manifests `train.jsonl`
(training speakers of the config) and `heldout.jsonl` (its held-out speakers, other commands, other
close texts), for `tokenlm trigger train` and `tokenlm trigger evaluate`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from rapidfuzz.distance import Levenshtein

from tokenlm.checkpoint import packaged_configs, resolve
from tokenlm.config import load_config
from tokenlm.console import show_logs, track
from tokenlm.text.tokenizers import PhonemeTokenizer
from training.data.phrases import (
    COMMANDS,
    HELDOUT_COMMANDS,
    close_phrases,
    draw_text,
    normal_phrase,
)
from training.recipes.corpus.build import read_shard, speak_shard
from training.recipes.corpus.config import CorpusConfig
from training.recipes.corpus.plan import Shard, Utterance
from training.recipes.corpus.speakers import VirtualSpeaker, heldout_speakers, training_speakers

SHARD_SIZE = 20


def plan_phrases(
    phrases: Sequence[str], config: CorpusConfig, split: str, count: int, seed: int = 0
) -> list[Shard]:
    """What is to be spoken for one split; speakers take turns in a drawn order.

    Args:
        phrases: of the trigger, the most important first.
        config: who speaks.
        split: "train" or "heldout".
        count: utterances.
        seed: of texts, speakers and rates.

    Raises:
        ValueError: the config has no speakers for the split.
    """
    rng = random.Random(f"{split}:{seed}")
    tokenizer = PhonemeTokenizer.from_folder(Path(resolve("mini-en")) / "text_tokenizer")
    phrases = [normal_phrase(phrase) for phrase in phrases]
    words = _similar_words(phrases, config.word_lists)
    close = {
        # Of each close text one split alone has it.
        phrase: [
            text
            for place, text in enumerate(close_phrases(phrase, tokenizer, words, count=60))
            if (place % 4 == 3) == (split == "heldout")
        ]
        for phrase in phrases
    }
    speakers: list[VirtualSpeaker] = []
    people = [person for person in config.people if not person.foreign]
    for person in people:
        found = training_speakers(person) if split == "train" else heldout_speakers(person)
        speakers += found
    if not speakers:
        raise ValueError(f"the config has no speakers for the split {split}")
    rng.shuffle(speakers)
    commands = COMMANDS if split == "train" else HELDOUT_COMMANDS
    lines = [
        Utterance(
            id=f"{split}-{number:05d}",
            text=draw_text(rng, phrases, close, commands),
            speaker=speakers[number % len(speakers)],
            stretch=1 / rng.choice((0.8, 0.9, 1.0, 1.0, 1.1, 1.25)),
        )
        for number in range(count)
    ]
    return [
        Shard(
            name=f"{split}-{start // SHARD_SIZE:04d}",
            manifest=split,
            utterances=tuple(lines[start : start + SHARD_SIZE]),
        )
        for start in range(0, count, SHARD_SIZE)
    ]


def _similar_words(phrases: Sequence[str], lists: Sequence[Path]) -> list[str]:
    """Words of the lists that are spelt somewhat like a word of a phrase."""
    parts = {part for phrase in phrases for part in phrase.split()}
    lines = [path.read_text(encoding="utf-8").split() for path in lists if path.exists()]
    words = [word for line in lines for word in line if word.isalpha() and word.islower()]
    return [word for word in words if any(Levenshtein.distance(word, p) <= 2 for p in parts)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 after a mistake that was explained in a sentence."""
    parser = argparse.ArgumentParser(
        prog="speak_phrases",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="+", metavar="PHRASE or key=value")
    parser.add_argument("--config", type=Path, default=packaged_configs() / "data/corpus.yaml")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--train", type=int, default=400, help="utterances of training speakers")
    parser.add_argument("--heldout", type=int, default=80, help="of held-out speakers")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    show_logs()
    try:
        overrides = [word for word in given.words if "=" in word]
        phrases = [word for word in given.words if "=" not in word]
        config = load_config(CorpusConfig, given.config, overrides)
        for split, count in (("train", given.train), ("heldout", given.heldout)):
            shards = plan_phrases(phrases, config, split, count, given.seed) if count else []
            given.output.mkdir(parents=True, exist_ok=True)
            (given.output / "shards").mkdir(exist_ok=True)
            rows = []
            for shard in track(shards, split):
                done = read_shard(shard, given.output)
                rows += speak_shard(shard, config, given.output) if done is None else done
                lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
                path = given.output / f"{split}.jsonl"
                path.write_text("".join(lines), encoding="utf-8")
            print(f"{given.output / split}.jsonl: {len(rows)} utterances")
    except ValueError as error:
        print(f"speak_phrases: {error}", file=sys.stderr)
        return 1
    return 0
