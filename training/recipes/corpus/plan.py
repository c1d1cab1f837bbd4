"""What is to be said by whom: the whole corpus as a list, a function of the configuration."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tokenlm.checkpoint import packaged_configs
from training.data.exclusion import Exclusion, evaluation_exclusion, spoken_key
from training.recipes.corpus.config import CorpusConfig
from training.recipes.corpus.sentences import chosen_from, documentation, fortunes, wordnet_examples
from training.recipes.corpus.speakers import VirtualSpeaker, heldout_speakers, training_speakers
from training.rl.texts import counted_texts
from training.rl.texts.grammar import TextGrammar
from training.rl.texts.hard_texts import harden

Draw = Callable[[random.Random], str]
"""Draws a text; the same generator state gives the same text."""

HARD_NAMES_SHARE = 0.35
"""Share of the lines of `train_hard` that are about names of people and places."""
COUNTED_SHARE = 0.3
"""Share of the lines of `train_hard` that are counts, letters, short answers and the like."""
MAX_DRAWS = 1000
"""Texts that are drawn for one line until one is not excluded."""


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One line to be spoken."""

    id: str
    """Unique name, also that of the audio file."""
    text: str
    """Words and punctuation."""
    speaker: VirtualSpeaker
    """Who says it."""
    stretch: float
    """Duration relative to the speaker's ordinary pace."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Utterances that are made and recorded together."""

    name: str
    """Unique name, `<manifest>-<number>`."""
    manifest: str
    """Manifest that the utterances go to."""
    utterances: tuple[Utterance, ...]
    """What is spoken."""

    def fingerprint(self) -> str:
        """Hash of everything that is to be spoken."""
        data = json.dumps([asdict(utterance) for utterance in self.utterances], sort_keys=True)
        return hashlib.sha256(data.encode()).hexdigest()[:16]


def plain_text(text: str) -> str:
    """A text of letters, commas and full stops: at questions some voices of festival break off."""
    letters = re.sub(r"[^A-Za-z,.?! ]", " ", text)
    return " ".join(re.sub(r"[?!]", ".", letters).split())


def read_sentences(path: Path) -> list[str]:
    """Sentences of a file, one per line; blank lines and lines that begin with # are left out.

    A relative path is taken from the folder that holds `configs/`.

    Raises:
        ValueError: there is no such file, or a sentence occurs twice.
    """
    if not path.is_absolute():
        path = packaged_configs().parent / path
    if not path.exists():
        raise ValueError(f"there is no file of held-out sentences at {path}")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    sentences = [line for line in lines if line and not line.startswith("#")]
    keys = [spoken_key(sentence) for sentence in sentences]
    if len(set(keys)) != len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(f"{path}: held-out sentences occur twice: {twice[:3]}")
    return sentences


TEXT_KINDS: dict[str, Callable[[TextGrammar], Draw]] = {
    "grammar": lambda grammar: grammar.draw,
    "hard": lambda grammar: lambda rng: _hard_text(grammar, rng),
    "wordnet": lambda grammar: chosen_from(wordnet_examples()),
    "fortunes": lambda grammar: chosen_from(fortunes()),
    "documentation": lambda grammar: chosen_from(documentation()),
    "counted": lambda grammar: counted_texts.draw,
}
"""Kinds of texts by name: each becomes a draw when a corpus asks for it."""


def text_source(weights: Mapping[str, float], grammar: TextGrammar) -> Draw:
    """Draws of texts of several kinds.

    Args:
        weights: how often each kind is drawn, beside the others.
        grammar: where the kinds that are made come from.

    Raises:
        ValueError: there is no such kind, all weights are 0, or the machine has nothing to read.
    """
    unknown = sorted(set(weights) - set(TEXT_KINDS))
    if unknown:
        raise ValueError(f"texts: there is no kind {unknown[0]}; there are {', '.join(TEXT_KINDS)}")
    draws = {name: TEXT_KINDS[name](grammar) for name, weight in weights.items() if weight > 0}
    if not draws:
        raise ValueError("texts: at least one kind needs a weight above 0")
    if len(draws) == 1:
        return next(iter(draws.values()))
    shares = [weights[name] for name in draws]
    return lambda rng: rng.choices(list(draws.values()), shares)[0](rng)


def plan_corpus(config: CorpusConfig, grammar: TextGrammar) -> list[Shard]:
    """Plan the whole corpus.

    Args:
        config: what to make.
        grammar: where texts come from.

    Returns:
        Shards in the order of work: some training shards first, then the small splits, the foreign
        people and the hard lines, then the rest. Each shard is a representative mix of its split.

    No line but those of the held-out speakers is an evaluation text (`training.data.exclusion`),
    and none that is trained on is one of the validation split.

    Raises:
        ValueError: there is no file of held-out sentences, or of a test set, or the grammar gives
            nothing but their texts.
    """
    sentences = read_sentences(config.heldout_sentences)
    exclusion = evaluation_exclusion((*config.test_sets, config.heldout_sentences))
    drawn = _Drawn(exclusion)
    speakers, weights = _weighted_speakers(config, foreign=False)
    validation = _free_utterances(
        "validation", config.num_validation, speakers, weights, grammar, config, drawn, fresh=True
    )
    train = _free_utterances("train", config.num_train, speakers, weights, grammar, config, drawn)
    foreign: list[Utterance] = []
    if config.num_foreign:
        others, shares = _weighted_speakers(config, foreign=True)
        foreign = _free_utterances(
            "foreign", config.num_foreign, others, shares, grammar, config, drawn, draw=_plain_text
        )
    hard = _free_utterances(
        "hard", config.num_hard, speakers, weights, grammar, config, drawn, draw=_hard_text
    )
    small = list(_shards("validation", validation, config.shard_size))
    manifests = sorted({p.heldout_manifest for p in config.people if p.heldout_formants})
    for manifest in manifests:
        rows = _heldout_utterances(manifest, sentences, config)
        small += _shards(manifest, rows, config.shard_size)
    small += _shards("train_foreign", foreign, config.shard_size)
    small += _shards("train_hard", hard, config.shard_size)
    large = list(_shards("train", train, config.shard_size))
    head = -(-config.refresh_every // config.shard_size)
    return large[:head] + small + large[head:]


def all_speakers(config: CorpusConfig) -> list[VirtualSpeaker]:
    """Every virtual speaker of a configuration; of foreign people only where they speak at all.

    Raises:
        ValueError: two speakers have one name.
    """
    speakers = [
        speaker
        for person in config.people
        if config.num_foreign or not person.foreign
        for speaker in (*training_speakers(person), *heldout_speakers(person))
    ]
    names = [speaker.name for speaker in speakers]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"two virtual speakers are named alike: {', '.join(twice[:5])}")
    return speakers


def _weighted_speakers(
    config: CorpusConfig, *, foreign: bool
) -> tuple[list[VirtualSpeaker], list[float]]:
    speakers: list[VirtualSpeaker] = []
    weights: list[float] = []
    for person in config.people:
        if person.foreign != foreign:
            continue
        own = training_speakers(person)
        speakers += own
        weights += [person.share / max(len(own), 1)] * len(own)
    return speakers, weights


def _free_utterances(
    split: str,
    count: int,
    speakers: Sequence[VirtualSpeaker],
    weights: Sequence[float],
    grammar: TextGrammar,
    config: CorpusConfig,
    drawn: _Drawn,
    *,
    fresh: bool = False,
    draw: Callable[[TextGrammar, random.Random], str] | None = None,
) -> list[Utterance]:
    source = partial(draw, grammar) if draw else text_source(config.texts, grammar)
    utterances = []
    for index in range(count):
        rng = random.Random(f"{config.seed}:{split}:{index}")
        speaker = rng.choices(speakers, weights)[0]
        text = drawn.draw(partial(source, rng), keep=fresh)
        utterances.append(_utterance(f"{split}-{index:06d}", text, speaker, rng, config))
    return utterances


class _Drawn:
    """Draws texts that are neither evaluation texts nor kept for validation."""

    def __init__(self, exclusion: Exclusion) -> None:
        self._exclusion = exclusion
        self._kept: set[str] = set()

    def draw(self, draw: Callable[[], str], *, keep: bool) -> str:
        """Draw a text; `keep` lets no later one be the same."""
        for _ in range(MAX_DRAWS):
            text = draw()
            key = spoken_key(text)
            if key in self._kept or self._exclusion.excludes(text):
                continue
            if keep:
                self._kept.add(key)
            return text
        raise ValueError(
            f"{MAX_DRAWS} texts in a row are evaluation texts or of the validation split, such as "
            f"{text!r}: the grammar has too few others"
        )


def _plain_text(grammar: TextGrammar, rng: random.Random) -> str:
    return plain_text(grammar.draw(rng))


def _hard_text(grammar: TextGrammar, rng: random.Random) -> str:
    """A counted text, an ordinary text made harder, or a line with names, half of them harder."""
    if rng.random() < COUNTED_SHARE:
        return counted_texts.draw(rng)
    named = rng.random() < HARD_NAMES_SHARE
    text = grammar.draw(rng, "proper_utterance" if named else "utterance")
    if named and rng.random() < 0.5:
        return text
    return harden(text, grammar.draw(rng), rng)


def _heldout_utterances(
    manifest: str, sentences: Sequence[str], config: CorpusConfig
) -> list[Utterance]:
    """Held-out speakers take turns at a shuffled list, so that together they cover it."""
    people = [person for person in config.people if person.heldout_manifest == manifest]
    speakers = [speaker for person in people for speaker in heldout_speakers(person)]
    rng = random.Random(f"{config.seed}:{manifest}")
    order = rng.sample(range(len(sentences)), len(sentences))
    count = min(config.num_heldout_per_speaker, len(sentences))
    utterances = []
    for turn in range(count):
        for number, speaker in enumerate(speakers):
            text = sentences[order[(number * count + turn) % len(order)]]
            name = f"{manifest}-{len(utterances):06d}"
            utterances.append(_utterance(name, text, speaker, rng, config))
    return utterances


def _utterance(
    name: str, text: str, speaker: VirtualSpeaker, rng: random.Random, config: CorpusConfig
) -> Utterance:
    rates = next(
        person.rates
        for person in config.people
        if (person.engine, person.name) == (speaker.engine, speaker.person)
    )
    if rates:
        rate = rng.choice(rates)
    else:
        rate = rng.uniform(1 - config.rate_spread, 1 + config.rate_spread)
    return Utterance(id=name, text=text, speaker=speaker, stretch=round(1 / rate, 4))


def _shards(manifest: str, utterances: Sequence[Utterance], size: int) -> Iterable[Shard]:
    for number, start in enumerate(range(0, len(utterances), size)):
        yield Shard(
            name=f"{manifest}-{number:05d}",
            manifest=manifest,
            utterances=tuple(utterances[start : start + size]),
        )
