"""Decoding of speech tokens with a cache, many sequences at once.

Shapes: B batch, L positions, V speech classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from tokenlm.models.lm.layout import SPEECH, Layout, eos_class, fill_class, one_shot_prefix
from tokenlm.models.lm.model import LayoutBatch, SpeechLM
from tokenlm.models.lm.sampling import SamplingConfig, sample
from tokenlm.modules.noise import uniform_draws


@dataclass(frozen=True, kw_only=True)
class SpeechRequest:
    """What one sequence is to say."""

    text_tokens: Sequence[int]
    prompt_text_tokens: Sequence[int] = ()
    prompt_tokens: Sequence[int] = ()
    """Speech tokens of the prompt."""
    seed: int = 0
    segment: int = 0
    """Number of the text segment within its request; with `seed` it fixes all draws."""

    @property
    def prefix(self) -> Layout:
        """What the model goes on from. Prompt text and text are tokenised apart and joined."""
        return one_shot_prefix([*self.prompt_text_tokens, *self.text_tokens], self.prompt_tokens)


def length_bounds(model: SpeechLM, request: SpeechRequest) -> tuple[int, int]:
    """Fewest and most speech tokens of a request, from the length of its text."""
    config = model.config
    length = len(request.text_tokens)
    fewest = int(length * config.min_speech_per_text)
    # A floor for one-word texts, whose length varies most.
    most = max(int(length * config.max_speech_per_text), 25)
    return fewest, most


@torch.inference_mode()
def generate_speech(
    model: SpeechLM,
    requests: Sequence[SpeechRequest],
    sampling: SamplingConfig,
    *,
    on_step: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Speech tokens of every request, without the prompt's and without eos.

    Args:
        model: in evaluation mode.
        requests: decoded together.
        sampling: how tokens are chosen.
        on_step: called with the number of tokens so far after each step, for a progress bar.
    """
    if not requests:
        return []
    device = model.head.weight.device
    bounds = [length_bounds(model, request) for request in requests]
    tokens: list[list[int]] = [[] for _ in requests]
    alive = [True] * len(requests)
    for step, logits_of in enumerate(_decode(model, requests, tokens)):
        forbidden = _forbidden(model, tokens, bounds).to(device)
        uniforms = torch.tensor(
            [
                uniform_draws(request.seed, request.segment, len(row), 2)
                for request, row in zip(requests, tokens, strict=True)
            ],
            device=device,
        )
        history = _history(requests, tokens, sampling.repetition_window).to(device)
        chosen = sample(logits_of, history, uniforms, sampling, forbidden=forbidden).tolist()
        for index, token in enumerate(chosen):
            if not alive[index]:
                tokens[index].append(0)
            elif token >= eos_class(model.config.codebook_size):
                alive[index] = False
                bounds[index] = (len(tokens[index]), len(tokens[index]))
                tokens[index].append(0)
            else:
                tokens[index].append(token)
                if len(tokens[index]) >= bounds[index][1]:
                    alive[index] = False
        if on_step is not None:
            on_step(step + 1)
        if not any(alive):
            break
    return [row[:most] for row, (_, most) in zip(tokens, bounds, strict=True)]


def _decode(
    model: SpeechLM, requests: Sequence[SpeechRequest], tokens: list[list[int]]
) -> Iterator[Tensor]:
    """Yields logits (B, V); the caller appends one token to each row of `tokens` in between."""
    device = model.head.weight.device
    prefix = LayoutBatch.from_layouts([r.prefix for r in requests], left=True).to(device)
    cache = DynamicCache(config=model.backbone.config)
    embeddings = model.embed(prefix.kinds, prefix.ids)
    mask = prefix.mask.long()
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    is_padded = not bool(prefix.mask.all())
    while True:
        hidden = model.backbone(
            inputs_embeds=embeddings,
            attention_mask=mask if is_padded else None,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        yield model.head(hidden[:, -1])
        latest = torch.tensor([[row[-1]] for row in tokens], device=device)
        embeddings = model.embed(torch.full_like(latest, SPEECH), latest)
        mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], dim=1)
        positions = positions[:, -1:] + 1


def _forbidden(model: SpeechLM, tokens: list[list[int]], bounds: list[tuple[int, int]]) -> Tensor:
    size = model.config.codebook_size
    forbidden = torch.zeros(len(tokens), model.config.num_classes, dtype=torch.bool)
    if not model.config.any_special_ends:
        # Fill belongs to the interleaved layout alone.
        forbidden[:, fill_class(size) :] = True
    for index, (row, (fewest, _)) in enumerate(zip(tokens, bounds, strict=True)):
        forbidden[index, eos_class(size)] = len(row) < fewest
    return forbidden


def _history(requests: Sequence[SpeechRequest], tokens: list[list[int]], window: int) -> Tensor:
    rows = []
    for request, row in zip(requests, tokens, strict=True):
        recent = [*request.prompt_tokens[-window:], *row][-window:] if window else []
        rows.append([-1] * (window - len(recent)) + list(recent))
    return torch.tensor(rows, dtype=torch.long).view(len(rows), window)
