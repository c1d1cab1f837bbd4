"""Compares sampling settings of a bundle on validation texts, by its own recogniser on tokens.

    python -m training.sampling_search --bundle FOLDER --manifest corpus/validation.tokens.jsonl

Settings chosen like this owe nothing to the judges or to the held-out sentences. Every text is
spoken in the voice of another utterance of its speaker; nothing is rendered, so a setting takes
seconds. The line "recorded" is what the recogniser makes of the real tokens: the best to hope for.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import torch

from tokenlm.checkpoint import resolve
from tokenlm.models.lm import SamplingConfig
from tokenlm.models.lm.decoding import SpeechRequest, generate_speech
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.text import add_final_mark
from tokenlm.text.alphabet import known_characters
from tokenlm.text.frontend import frontend
from training.data.manifest import Utterance, read_manifest

LOST = 0.5
"""Character error from which on a text counts as lost."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well texts were spoken under one setting."""

    char_error_rate: float
    lost: float
    """Share of the texts with a character error above `LOST`."""
    length_ratio: float
    """Spoken tokens over recorded ones."""


def pick_pairs(rows: Sequence[Utterance], count: int) -> list[tuple[Utterance, Utterance]]:
    """(prompt, target) pairs of one speaker each, at most `count`, prompts of at least 2 s.

    Raises:
        ValueError: no speaker has two utterances that would do.
    """
    by_speaker: dict[str, list[Utterance]] = {}
    for row in rows:
        by_speaker.setdefault(row.speaker, []).append(row)
    pairs = [
        (prompt, target)
        for same in by_speaker.values()
        for target in same
        for prompt in [next((r for r in same if r is not target and r.duration >= 2.0), None)]
        if prompt is not None
    ]
    if not pairs:
        raise ValueError("the manifest has no speaker with two utterances, one of 2 s or more")
    return pairs[:: max(len(pairs) // count, 1)][:count]


def score(
    components: Components,
    pairs: Sequence[tuple[Utterance, Utterance]],
    sampling: SamplingConfig | None,
    *,
    with_prompt: bool = False,
    seed: int = 0,
) -> Score:
    """Speaks the targets and reads them back; `sampling` None reads the recorded tokens."""
    read = frontend(components.text_tokenizer.config.normalizer).normalize
    spoken = [list(target.speech_tokens or ()) for _, target in pairs]
    recorded = sum(map(len, spoken))
    if sampling is not None:
        encode = components.text_tokenizer.encode
        requests = [
            SpeechRequest(
                text_tokens=encode(add_final_mark(read(target.text))),  # as synthesis gives it
                prompt_text_tokens=encode(read(prompt.text)) if with_prompt else (),
                prompt_tokens=(prompt.speech_tokens or ()) if with_prompt else (),
                seed=seed,
                segment=number,
            )
            for number, (prompt, target) in enumerate(pairs)
        ]
        spoken = generate_speech(components.speech_lm, requests, sampling)
    recognizer = components.token_recognizer
    heard = [recognizer.transcribe(torch.tensor([row]))[0] if row else "" for row in spoken]
    alphabet = recognizer.config.alphabet
    references = [known_characters(read(target.text), alphabet) for _, target in pairs]
    errors = [jiwer.cer(*both) for both in zip(references, heard, strict=True)]
    return Score(
        char_error_rate=float(jiwer.cer(references, heard)),
        lost=sum(error > LOST for error in errors) / len(errors),
        length_ratio=sum(map(len, spoken)) / max(recorded, 1),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.sampling_search", description=__doc__)
    parser.add_argument("--bundle", default="mini-en")
    parser.add_argument("--manifest", type=Path, required=True, help="rows with speech tokens")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.4, 0.6, 0.8, 1.0])
    parser.add_argument("--top-p", type=float, nargs="+", default=[0.8, 0.95])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        components = Components(resolve(options.bundle))
        _ = components.token_recognizer  # a bundle without says so before anything is spoken
        pairs = pick_pairs(read_manifest(options.manifest).utterances, options.items)
        stored = {pair[1].tokenizer for pair in pairs}
        if stored != {components.fingerprint}:
            raise ValueError(
                f"{options.manifest} holds tokens of {sorted(map(str, stored))}, the bundle's "
                f"tokenizer is {components.fingerprint}"
            )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(pairs)} texts", f"{'character error':>44}", f"{'lost':>8}", f"{'length':>8}")
    _tell("recorded", score(components, pairs, None))
    settings = itertools.product((False, True), options.temperatures, options.top_p)
    for with_prompt, temperature, top_p in settings:
        if temperature == 0 and top_p != options.top_p[0]:
            continue
        sampling = SamplingConfig(temperature=temperature, top_p=top_p, repetition_window=0)
        found = score(components, pairs, sampling, with_prompt=with_prompt, seed=options.seed)
        prompt = "after a prompt" if with_prompt else "text alone"
        _tell(f"{prompt}, temperature {temperature}, top_p {top_p}", found)
    return 0


def _tell(name: str, found: Score) -> None:
    numbers = f"{found.char_error_rate:.3f}   {found.lost:.3f}   {found.length_ratio:.3f}"
    print(f"{name:<45} {numbers}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
