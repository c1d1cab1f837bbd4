"""How an LLM server draws speech tokens as we do: pure functions of a row of logits.

The server runs this in a logits processor (`inference.remote.vllm_logits`); requests carry
`DrawOptions`. It adds the bias of the head, leaves speech classes alone, and draws with the numbers
that belong to the token's place, so that the same seed says the same as here. The row that comes
back has one finite entry: whatever the engine samples with, it takes that.

Shapes: M merged ids, V speech classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenlm.checkpoint.llm_folder import read_bias, read_facts
from tokenlm.config import from_dict
from tokenlm.models.lm.decoding import SamplingConfig, sample
from tokenlm.models.lm.layout import eos_class
from tokenlm.models.lm.vocabulary import MergedVocabulary
from tokenlm.modules.exact import mix, uniform_draws

ARGUMENT = "tokenlm"
"""Extra argument of a request (`vllm_xargs`) that holds `DrawOptions` as JSON."""
NUM_IDENTITY_TOKENS = 6


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """What a request asks of the draws of its tokens."""

    sampling: SamplingConfig = SamplingConfig()
    seed: int = 0
    segment: int = 0
    step: int = 0
    """Number of the request's first token within its segment."""
    eos_from: int = 0
    """Tokens of the request before which eos must not be drawn."""
    forbidden: tuple[int, ...] = ()
    """Classes that must not be drawn at all."""
    history: tuple[int, ...] = ()
    """Speech tokens before the request that repetition is looked for in, -1 for none."""
    identify: bool = False
    """Whether to answer `identity_tokens` of the model in place of speech."""

    def to_json(self) -> str:
        """The options as JSON, the value of the argument `ARGUMENT` of a request."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> DrawOptions:
        """What a request carries.

        Raises:
            ValueError: it is something else.
        """
        return from_dict(cls, json.loads(text), where=f"the argument {ARGUMENT}")


def identity_tokens(fingerprint: str, codebook_size: int) -> list[int]:
    """Codes by which a server says which model it has."""
    number = int(fingerprint, 16)
    return [mix(number, place) % codebook_size for place in range(NUM_IDENTITY_TOKENS)]


class SpeechRows:
    """The draws of one exported model."""

    def __init__(self, folder: str | Path) -> None:
        """Reads the vocabulary and the bias of an exported model.

        Args:
            folder: what `export_llm` wrote.

        Raises:
            ValueError: it is another folder.
        """
        facts = read_facts(folder)
        if facts is None:
            raise ValueError(f"{folder} is no exported speech LM.")
        self.facts: dict[str, Any] = facts
        self.vocabulary = MergedVocabulary(**facts["vocabulary"])
        self.bias = read_bias(folder, facts)

    def speech_logits(self, row: Tensor) -> Tensor:
        """Logits (V,) of the speech classes, float32, out of a row (M,)."""
        first = self.vocabulary.speech_offset
        speech = row[first : first + self.vocabulary.num_classes].float()
        if self.bias is None:
            return speech
        self.bias = self.bias.to(row.device)
        return speech + self.bias

    def restrict(self, row: Tensor) -> Tensor:
        """A row (M,) with the bias added, in which only codes and what ends speech can be drawn."""
        speech, eos = self.speech_logits(row), eos_class(self.vocabulary.codebook_size)
        ends = self.vocabulary.end_classes
        restricted = torch.full_like(row, -torch.inf)
        first = self.vocabulary.speech_offset
        restricted[first : first + eos] = speech[:eos].to(row.dtype)
        kept = slice(first + ends.start, first + ends.stop)
        restricted[kept] = speech[ends.start : ends.stop].to(row.dtype)
        return restricted

    def draw(self, row: Tensor, output_ids: Sequence[int], options: DrawOptions) -> Tensor:
        """A row (M,) in which one id is left: the one that is drawn.

        Args:
            row: logits of the engine.
            output_ids: ids that the request has answered so far.
            options: of the request.
        """
        chosen = torch.full_like(row, -torch.inf)
        token = self._token(row, output_ids, options)
        chosen[self.vocabulary.speech_offset + token] = 0.0
        return chosen

    def _token(self, row: Tensor, output_ids: Sequence[int], options: DrawOptions) -> int:
        count, size = len(output_ids), self.vocabulary.codebook_size
        if options.identify:
            codes = identity_tokens(self.facts["speech_lm"], size)
            return codes[count % len(codes)]
        speech = self.speech_logits(row)
        forbidden = torch.zeros(1, speech.shape[0], dtype=torch.bool, device=row.device)
        # An error here would end the engine for everyone: what is no class is passed over.
        forbidden[0, [index for index in options.forbidden if 0 <= index < len(speech)]] = True
        forbidden[0, eos_class(size)] |= count < options.eos_from
        window = options.sampling.repetition_window
        new = [index - self.vocabulary.speech_offset for index in output_ids]
        history = [*options.history, *new][-window:] if window else []
        uniforms = uniform_draws(options.seed, options.segment, options.step + count, 2)
        chosen = sample(
            speech[None],
            torch.tensor(history, dtype=torch.long, device=row.device)[None],
            torch.tensor([uniforms], dtype=torch.float32, device=row.device),
            options.sampling,
            forbidden=forbidden,
        )
        return int(chosen)
