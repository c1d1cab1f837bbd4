"""Decoding of speech tokens: any number of sequences in one batch, each at its own place.

Sequences of the LM are not batched as those of flow and vocoder are (`modules.streaming.batched`,
which leaves caches with their streams): a step adds one token to each, and reads all of them in one
padded attention of each layer, so their keys and values lie together for as long as they live, one
row each.

Sampling is pure functions on tensors, batched, with the draws given.

Shapes: B sequences, P new positions, V speech classes, W tokens of history; R rows of the cache,
H key-value heads, C capacity (positions), L positions filled, E channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenlm.models.lm.guards import MAX_TOKENS, GuardConfig, TokenMonitor
from tokenlm.models.lm.layout import InputSequence, Layout, LayoutName, eos_class, one_shot_prefix
from tokenlm.models.lm.model import SpeechLM
from tokenlm.modules.exact import to_float64, uniform_draws
from tokenlm.modules.low_rank import Additions, adapted
from tokenlm.modules.streaming import State

# --- Sampling ---


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is chosen.

    Repetition-aware sampling (VALL-E 2, Chen et al., 2024): a token that was drawn too often of
    late is replaced by one draw from the whole distribution without it.
    """

    temperature: float = 1.0
    top_k: int = 25
    """Most likely classes that are kept; 0 keeps all."""
    top_p: float = 0.8
    """Probability that the kept classes hold together; the one that crosses it is kept."""
    repetition_window: int = 10
    """Tokens that are looked back at; 0 turns repetition-aware sampling off."""
    repetition_threshold: float = 0.1
    """Share of the window from which on a token counts as repeated."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must not be negative, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.repetition_window < 0 or not 0 <= self.repetition_threshold <= 1:
            raise ValueError("repetition_window must not be negative, its threshold in [0, 1]")


def truncate(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Probabilities (B, V) of `logits` (B, V) after top-k and top-p, summing to 1."""
    probabilities = logits.softmax(dim=-1)
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    # A class is kept as long as those before it have not reached top_p.
    keep = ordered.cumsum(dim=-1) - ordered < config.top_p
    if config.top_k:
        keep &= torch.arange(logits.shape[-1], device=logits.device) < config.top_k
    keep[:, 0] = True
    kept = torch.zeros_like(probabilities).scatter(-1, order, ordered * keep)
    return kept / kept.sum(dim=-1, keepdim=True)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Classes (B,) of distributions (B, V) at the points `uniform` (B,) in [0, 1)."""
    cumulative = to_float64(probabilities).cumsum(dim=-1)
    point = to_float64(uniform)[:, None] * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, point, right=True)[:, 0].to(probabilities.device)
    # Rounding may leave the point behind the last class that has any probability.
    last = probabilities.shape[-1] - 1 - (probabilities > 0).flip(-1).to(torch.int8).argmax(-1)
    return torch.minimum(index, last)


def sample(
    logits: Tensor,
    history: Tensor,
    uniforms: Tensor,
    config: SamplingConfig,
    *,
    forbidden: Tensor | None = None,
) -> Tensor:
    """The next token of every sequence.

    Args:
        logits: (B, V).
        history: (B, W) tokens before, newest last, -1 where there is none.
        uniforms: (B, 2) numbers in [0, 1): for the draw, and for the second one of
            repetition-aware sampling.
        config: how to sample; a temperature of 0 takes the most likely class.
        forbidden: (B, V) True for classes that must not be drawn.

    Returns:
        (B,) class indices.
    """
    logits = logits.float()
    if forbidden is not None:
        logits = logits.masked_fill(forbidden, -torch.inf)
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / config.temperature
    # The most likely class comes first, as in the reference: a small number draws a likely class.
    ordered, order = truncate(logits, config).sort(dim=-1, descending=True, stable=True)
    chosen = order.gather(-1, draw(ordered, uniforms[:, 0])[:, None])[:, 0]
    window = config.repetition_window
    if window == 0 or history.shape[1] == 0:
        return chosen
    count = (history[:, -window:] == chosen[:, None]).sum(dim=-1)
    repeated = count >= max(window * config.repetition_threshold, 1)
    if repeated.device.type == "cpu" and not bool(repeated.any()):
        return chosen  # on a GPU the answer would have to be waited for
    without = logits.scatter(-1, chosen[:, None], -torch.inf)
    # With a single class allowed there is nothing else to draw.
    possible = without.isfinite().any(dim=-1)
    second = draw(without.nan_to_num(neginf=-1e30).softmax(dim=-1), uniforms[:, 1])
    return torch.where(repeated & possible, second, chosen)


# --- Keys and values ---

BLOCK_POSITIONS = 256
"""Rows grow by so many positions at once, so that few steps copy them."""


@dataclass
class KeyValues(State):
    """Keys and values of the start of a sequence, apart from any cache."""

    keys: list[Tensor]
    """Of each layer (1, H, L, E)."""
    values: list[Tensor]
    """Of each layer (1, H, L, E)."""


class CacheRow:
    """The row of one sequence in a `KeyValueCache`, until `release`."""

    def __init__(self, cache: KeyValueCache, index: int) -> None:
        self.cache = cache
        self.index = index
        self.length = 0

    @torch.inference_mode()
    def start(self, prefix: KeyValues | None = None) -> None:
        """Resets the row to the positions of `prefix`, by default none."""
        self.length = 0
        if prefix is not None and prefix.keys:
            length = prefix.keys[0].shape[2]
            self.cache.reserve(length)
            for layer, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
                self.cache.keys[layer][self.index, :, :length] = keys[0]
                self.cache.values[layer][self.index, :, :length] = values[0]
            self.length = length

    @torch.inference_mode()
    def snapshot(self) -> KeyValues:
        """A copy of what the row holds."""
        row = slice(self.index, self.index + 1)
        return KeyValues(
            keys=[keys[row, :, : self.length].clone() for keys in self.cache.keys],
            values=[values[row, :, : self.length].clone() for values in self.cache.values],
        )

    def release(self) -> None:
        """Removes the row; its memory is freed at once."""
        self.cache.remove(self)


class KeyValueCache:
    """Rows of keys and values that can be read together.

    Rows may have different lengths, come and go at any time, and any of them can be read by one
    call of the model. There are exactly as many rows as sequences.
    """

    def __init__(self, model: SpeechLM) -> None:
        backbone = model.config.backbone
        weight = model.head.weight
        empty = weight.new_zeros(0, backbone.num_kv_heads, 0, backbone.channels_per_head)
        self.keys = [empty for _ in range(backbone.num_layers)]
        """Of each layer (R, H, C, E)."""
        self.values = [empty for _ in range(backbone.num_layers)]
        self.rows: list[CacheRow] = []

    @property
    def num_bytes(self) -> int:
        """Memory that the rows hold."""
        return sum(
            part.numel() * part.element_size() for part in (*self.keys, *self.values) if self.rows
        )

    @torch.inference_mode()
    def add(self, prefix: KeyValues | None = None) -> CacheRow:
        """A new row behind the others, which starts with `prefix`."""
        row = CacheRow(self, len(self.rows))
        self._map(lambda part: torch.cat([part, part.new_zeros(1, *part.shape[1:])]))
        self.rows.append(row)
        try:
            row.start(prefix)
        except BaseException:
            self.remove(row)
            raise
        return row

    @torch.inference_mode()
    def remove(self, row: CacheRow) -> None:
        """Removes a row; those behind it move up. May be called again."""
        if row not in self.rows:
            return
        index = row.index
        self._map(lambda part: torch.cat([part[:index], part[index + 1 :]]))
        self.rows.remove(row)
        for other in self.rows[index:]:
            other.index -= 1
        if not self.rows:
            self._map(lambda part: part[:, :, :0].clone())

    @torch.inference_mode()
    def reserve(self, num_positions: int) -> None:
        """Makes room for `num_positions` in every row."""
        capacity = self.keys[0].shape[2]
        if num_positions > capacity:
            missing = -(-(num_positions - capacity) // BLOCK_POSITIONS) * BLOCK_POSITIONS
            self._map(lambda part: torch.nn.functional.pad(part, (0, 0, 0, missing)))

    @torch.inference_mode()
    def arrange(self, rows: Sequence[CacheRow]) -> None:
        """Moves `rows` to the front, in this order, so that a `RowsView` can batch them."""
        for target, row in enumerate(rows):
            if row.index == target:
                continue
            other, source = self.rows[target], row.index
            parts = [*self.keys, *self.values]
            # What may fail for want of memory comes before the first write.
            swapped = [part[[source, target]] for part in parts]
            for part, pair in zip(parts, swapped, strict=True):
                part[[target, source]] = pair
            self.rows[target], self.rows[source] = row, other
            row.index, other.index = target, source

    def _map(self, function: Any) -> None:
        """Replaces all parts or, where that fails, none."""
        keys = [function(part) for part in self.keys]
        values = [function(part) for part in self.values]
        self.keys, self.values = keys, values


class RowsView:
    """Some neighbouring rows, as the `Cache` that a backbone reads and fills."""

    def __init__(self, cache: KeyValueCache, rows: Sequence[CacheRow], num_new: int) -> None:
        """A view of neighbouring rows, each of which will grow by P = `num_new` positions."""
        self._cache = cache
        self._rows = rows
        self._span = slice(rows[0].index, rows[0].index + len(rows))
        self.lengths = [row.length for row in rows]
        self._end = max(self.lengths) + num_new
        cache.reserve(self._end)
        device = cache.keys[0].device
        starts = torch.tensor(self.lengths, device=device)
        self.positions = starts[:, None] + torch.arange(num_new, device=device)
        """(B, P)"""
        places = torch.arange(self._end, device=device)
        self.mask = (places[None, None] <= self.positions[:, :, None])[:, None]
        """(B, 1, P, L) True where a new position may look."""
        self._index = torch.arange(len(rows), device=device)[:, None]

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Stores new keys and values (B, H, P, E) of a layer; those of all positions."""
        all_keys = self._cache.keys[layer][self._span]
        all_values = self._cache.values[layer][self._span]
        first, num_new = self.lengths[0], keys.shape[2]
        if all(length == first for length in self.lengths):
            all_keys[:, :, first : first + num_new] = keys
            all_values[:, :, first : first + num_new] = values
        else:
            all_keys[self._index, :, self.positions] = keys.transpose(1, 2)
            all_values[self._index, :, self.positions] = values.transpose(1, 2)
        return all_keys[:, :, : self._end], all_values[:, :, : self._end]

    def advance(self) -> None:
        """Counts the new positions as part of the rows."""
        for row in self._rows:
            row.length += self.positions.shape[1]


# --- Decoding ---

PREFILL_POSITIONS = 64
"""Positions that a sequence with more to read than its last token reads at once, at most."""


@dataclass(frozen=True)
class Prefix:
    """A prefilled prompt, from which many sequences start."""

    sequence: InputSequence
    """Up to the text to be said. Copy it before it is continued."""
    key_values: KeyValues


class UnconditionalBranch:
    """The same speech without its text, for classifier-free guidance.

    It is read in the one-shot layout, whatever that of the text is: text dropout trains that one.
    """

    def __init__(
        self,
        model: SpeechLM,
        cache: KeyValueCache,
        prompt_tokens: Sequence[int],
        additions: Additions | None = None,
    ) -> None:
        self.additions = additions
        self.sequence = model.sequence("one_shot", prompt_tokens=prompt_tokens)
        self.sequence.end_text()
        self.row = cache.add()
        self.row.start(None)
        self.logits: Tensor | None = None


class SegmentTokens:
    """The speech tokens of one segment as they come: what may be next, and when they end.

    Who draws them is another question: `Decoding` reads the LM here, an LLM server elsewhere.

    Args:
        model: the LM, for its config.
        sequence: its text so far; more may be added to it at any time.
        sampling: how tokens are chosen.
        seed: with `segment` it fixes all draws.
        segment: number of the text segment within its request.
        forced: speech tokens that replace those that are drawn; the speech ends with them.
        guards: the causal ones apply; None has length bounds alone.
    """

    def __init__(
        self,
        model: SpeechLM,
        sequence: InputSequence,
        *,
        sampling: SamplingConfig,
        seed: int,
        segment: int = 0,
        forced: Sequence[int] | None = None,
        guards: GuardConfig | None = None,
    ) -> None:
        self.sequence = sequence
        self.sampling = sampling
        self.seed, self.segment = seed, segment
        self.tokens: list[int] = []
        """Speech tokens so far, without the prompt's and without eos."""
        self.is_done = forced is not None and not forced
        self.model = model
        self._forced = forced
        self._is_bounded = guards is None or guards.length_bounds
        self._monitor = TokenMonitor(guards) if guards is not None else None

    @property
    def can_step(self) -> bool:
        """Whether the next token can be decoded: neither done nor waiting for text."""
        return not self.is_done and self.sequence.predicts

    @property
    def bounds(self) -> tuple[int, int]:
        """Fewest and most speech tokens, from the length of the text."""
        if not self._is_bounded:
            return 0, MAX_TOKENS
        return speech_bounds(self.model, self.sequence.num_text)

    def end(self) -> None:
        """Ends the speech."""
        self.is_done = True

    def history(self) -> list[int]:
        """Tokens of the repetition window, -1 where there is none."""
        window = self.sampling.repetition_window
        prompt = self.sequence.prompt_tokens[-window:] if len(self.tokens) < window else []
        recent = [*prompt, *self.tokens[-window:]][-window:] if window else []
        return [-1] * (window - len(recent)) + recent

    @property
    def guarded(self) -> list[int]:
        """Codes that the guards forbid now."""
        return [] if self._monitor is None else [*self._monitor.forbidden]

    def forbidden(self) -> list[int]:
        """Classes that must not be drawn now."""
        eos = eos_class(self.model.config.codebook_size)
        kept = [*self.forbidden_specials, *self.guarded]
        if not self.sequence.is_past_tos:
            return [eos, *kept]
        return kept if len(self.tokens) >= self.bounds[0] else [eos, *kept]

    @property
    def forbidden_specials(self) -> range:
        """Classes besides codes and eos that must not be drawn until `<tos>`, or at all.

        Fill belongs to the interleaved layout; where any special class ends the speech, eos alone
        is kept from ending it too soon.
        """
        config = self.model.config
        if self.sequence.is_past_tos and config.any_special_ends:
            return range(0)
        return range(eos_class(config.codebook_size) + 1, config.num_classes)

    def accept(self, token: int) -> None:
        """Appends the token that was drawn, or ends the speech."""
        if self._forced is not None:
            token = self._forced[len(self.tokens)]
        elif token >= eos_class(self.model.config.codebook_size):
            self.end()
            return
        self.tokens.append(token)
        self.sequence.add_speech(token)
        if self._monitor is not None:
            self._monitor.push(token)
        if self._forced is not None:
            has_ended = len(self.tokens) >= len(self._forced)
        else:
            is_long = self.sequence.is_past_tos and len(self.tokens) >= self.bounds[1]
            has_ended = is_long or (self._monitor is not None and self._monitor.is_lost)
        if has_ended:
            self.end()


class Decoding(SegmentTokens):
    """One sequence that is being decoded, by `decode_step`.

    Args:
        model: in evaluation mode.
        cache: where its keys and values are kept.
        sequence, sampling, seed, segment, forced, guards: as for `SegmentTokens`.
        key_values: of the positions before those of `sequence` that are pending (see `Prefix`).
        row: a row of the cache to take over.
        additions: of an adapter, to the model.
    """

    def __init__(
        self,
        model: SpeechLM,
        cache: KeyValueCache,
        sequence: InputSequence,
        *,
        sampling: SamplingConfig,
        seed: int,
        segment: int = 0,
        forced: Sequence[int] | None = None,
        key_values: KeyValues | None = None,
        row: CacheRow | None = None,
        guards: GuardConfig | None = None,
        additions: Additions | None = None,
    ) -> None:
        super().__init__(
            model,
            sequence,
            sampling=sampling,
            seed=seed,
            segment=segment,
            forced=forced,
            guards=guards,
        )
        self.additions = additions
        self.logits: Tensor | None = None
        """(V,) behind the last position that was read, before any guidance."""
        self.guidance_scale = guards.guidance_scale if guards is not None else 0.0
        self.unconditional: UnconditionalBranch | None = None
        self.row = row if row is not None else cache.add()
        try:
            self.row.start(key_values)
            if self.guidance_scale and not self.is_done:
                self.unconditional = UnconditionalBranch(
                    model, cache, sequence.prompt_tokens, additions
                )
        except BaseException:
            if row is None:
                self.row.release()
            raise

    @property
    def is_prefilled(self) -> bool:
        """Whether no position is pending, so that a token can be drawn."""
        return all(len(branch.sequence.pending) == 0 for branch in self.branches)

    @property
    def branches(self) -> list[Decoding | UnconditionalBranch]:
        """The sequences that the next token depends on."""
        return [self] if self.unconditional is None else [self, self.unconditional]

    def close(self) -> None:
        """Frees the rows of the cache."""
        self.end()
        self.row.release()

    def end(self) -> None:
        """Ends the speech; its row stays until `close`, or whoever gave it, frees it."""
        super().end()
        if self.unconditional is not None:
            self.unconditional.row.release()
            self.unconditional = None

    def accept(self, token: int) -> None:
        """Appends the token that was drawn, or ends the speech."""
        count = len(self.tokens)
        super().accept(token)
        if self.unconditional is not None and len(self.tokens) > count:
            self.unconditional.sequence.add_speech(self.tokens[-1])


def speech_bounds(model: SpeechLM, num_text: int) -> tuple[int, int]:
    """Fewest and most speech tokens for a text of `num_text` tokens."""
    fewest = int(num_text * model.config.min_speech_per_text)
    # A second at least: the length of one-word texts varies most.
    most = max(int(num_text * model.config.max_speech_per_text), model.config.token_rate)
    return fewest, most


@torch.inference_mode()
def prefill(model: SpeechLM, sequence: InputSequence, additions: Additions | None = None) -> Prefix:
    """Reads all positions of a sequence whose text has not come yet."""
    assert sequence.needs_text
    sequence = sequence.copy()
    row = KeyValueCache(model).add()
    kinds, ids = sequence.take()
    _read(model, [row], [kinds], [ids], [additions])
    return Prefix(sequence=sequence, key_values=row.snapshot())


def decode(
    model: SpeechLM, decodings: Sequence[Decoding], on_step: Callable[[int], None] | None = None
) -> None:
    """Decodes sequences whose text is complete to their end, all in one batch.

    Args:
        model: of all sequences.
        decodings: the sequences; they share one cache.
        on_step: called with the number of steps so far after each of them.
    """
    step = 0
    while active := [decoding for decoding in decodings if decoding.can_step]:
        decode_step(model, active)
        step += 1
        if on_step is not None:
            on_step(step)


def by_model(decodings: Sequence[Decoding]) -> dict[SpeechLM, list[Decoding]]:
    """Decodings of each model: most adapters share that of the bundle, some have their own."""
    groups: dict[SpeechLM, list[Decoding]] = {}
    for decoding in decodings:
        groups.setdefault(decoding.model, []).append(decoding)
    return groups


@torch.inference_mode()
def decode_step(
    model: SpeechLM, decodings: Sequence[Decoding], *, max_positions: int | None = None
) -> None:
    """Decodes the next token of every sequence; all of them share one cache and can step.

    Sequences that have read everything but their last token are batched; those that have more to
    read (a start, a block of text) are prefilled one by one, in chunks of `PREFILL_POSITIONS`.
    Chunks do not depend on which other sequences there are, so neither do numbers.

    Where it fails, each sequence is as it was before, or further on as it would be anyway: the step
    can be tried again, with all of them or with each alone.

    Args:
        model: of all sequences.
        decodings: the sequences.
        max_positions: limit of prefilled positions; sequences that are not ready by then go on in
            the next step and get no token in this one. The first of `decodings` come first.
    """
    assert all(decoding.can_step for decoding in decodings)
    branches = [branch for decoding in decodings for branch in decoding.branches]
    short = [item for item in branches if len(item.sequence.pending) == 1]
    if short:
        short[0].row.cache.arrange([item.row for item in short])
        _read_on(model, short, 1)
    num_read = 0
    for item in branches:
        while pending := len(item.sequence.pending):
            if max_positions is not None and num_read >= max_positions:
                break
            count = min(pending, PREFILL_POSITIONS)
            _read_on(model, [item], count)
            num_read += count
    _choose([decoding for decoding in decodings if decoding.is_prefilled])


def _read_on(
    model: SpeechLM, branches: Sequence[Decoding | UnconditionalBranch], count: int
) -> None:
    """Reads the next `count` positions of sequences with neighbouring rows."""
    positions = [item.sequence.peek(count) for item in branches]
    logits = _read(
        model,
        [item.row for item in branches],
        [kinds for kinds, _ in positions],
        [ids for _, ids in positions],
        [item.additions for item in branches],
    )
    for item, row in zip(branches, logits, strict=True):
        item.sequence.drop(count)
        item.logits = row


def _read(
    model: SpeechLM,
    rows: Sequence[CacheRow],
    kinds: list[list[int]],
    ids: list[list[int]],
    additions: Sequence[Additions | None],
) -> Tensor:
    """Reads P positions in each of neighbouring rows; logits (B, V) after the last."""
    device = model.head.weight.device
    view = RowsView(rows[0].cache, rows, len(ids[0]))
    embeddings = model.embed(torch.tensor(kinds, device=device), torch.tensor(ids, device=device))
    with adapted(additions) if any(additions) else nullcontext():
        hidden = model.backbone(
            inputs_embeds=embeddings,
            attention_mask=view.mask,
            position_ids=view.positions,
            cache=view,
        ).last_hidden_state
        logits = model.head(hidden[:, -1])
    view.advance()  # last of all: what fails has read nothing
    return logits


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance of the LM by its text (Ho & Salimans, 2022); logits (B, V).

    Text dropout in training teaches the model to go on with speech that has no text, as
    `<sos> <tos> speech`. Guidance makes stronger what the text adds to that.

    Args:
        conditional: (B, V) logits with the text.
        unconditional: (B, V) logits without it.
        scale: 0 leaves the first as they are; the convention is that of the flow's guidance.
    """
    with_text = conditional.float().log_softmax(dim=-1)
    without = unconditional.float().log_softmax(dim=-1)
    return (1.0 + scale) * with_text - scale * without


def _guided_logits(decoding: Decoding) -> Tensor:
    """Logits (V,) that the next token is drawn from."""
    other = decoding.unconditional
    assert decoding.logits is not None
    if other is None:
        return decoding.logits
    assert other.logits is not None
    return guide(decoding.logits, other.logits, decoding.guidance_scale)


def _choose(decodings: Sequence[Decoding]) -> None:
    """Draws a token for each, batched by equal settings."""
    groups: dict[SamplingConfig, list[Decoding]] = {}
    for item in decodings:
        groups.setdefault(item.sampling, []).append(item)
    for sampling, group in groups.items():
        logits = torch.stack([_guided_logits(item) for item in group])
        forbidden = torch.zeros(logits.shape, dtype=torch.bool)
        for row, item in zip(forbidden, group, strict=True):
            row[item.forbidden()] = True
        history = torch.tensor([item.history() for item in group], dtype=torch.long)
        uniforms = [uniform_draws(item.seed, item.segment, len(item.tokens), 2) for item in group]
        chosen = sample(
            logits,
            history.view(len(group), -1).to(logits.device),
            torch.tensor(uniforms, dtype=torch.float32, device=logits.device),
            sampling,
            forbidden=forbidden.to(logits.device),
        )
        for item, token in zip(group, chosen.cpu().tolist(), strict=True):
            item.accept(token)


@dataclass(frozen=True, kw_only=True)
class SpeechRequest:
    """A text to be decoded into speech tokens. Prompt text and text are tokenised apart."""

    text_tokens: Sequence[int]
    prompt_text_tokens: Sequence[int] = ()
    prompt_tokens: Sequence[int] = ()
    """Speech tokens of the prompt."""
    seed: int = 0
    segment: int = 0
    """Number of the text segment within its request; with `seed` it fixes all draws."""

    layout: LayoutName = "one_shot"

    @property
    def prefix(self) -> Layout:
        """Prompt and text in the one-shot layout, up to the first token to be decoded."""
        return one_shot_prefix([*self.prompt_text_tokens, *self.text_tokens], self.prompt_tokens)

    def sequence(self, model: SpeechLM) -> InputSequence:
        """Its input sequence, with the whole text."""
        sequence = model.sequence(
            self.layout, prompt_text=self.prompt_text_tokens, prompt_tokens=self.prompt_tokens
        )
        sequence.add_text(self.text_tokens)
        sequence.end_text()
        return sequence


@torch.inference_mode()
def generate_speech(
    model: SpeechLM,
    requests: Sequence[SpeechRequest],
    sampling: SamplingConfig,
    *,
    guards: GuardConfig | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Speech tokens of every request, without the prompt's and without eos.

    Args:
        model: in evaluation mode.
        requests: decoded in one batch.
        sampling: how tokens are chosen.
        guards: the causal ones apply to every sequence; None has length bounds alone.
        on_step: called with the number of steps so far after each of them.
    """
    cache = KeyValueCache(model)
    decodings = [
        Decoding(
            model,
            cache,
            request.sequence(model),
            sampling=sampling,
            seed=request.seed,
            segment=request.segment,
            guards=guards,
        )
        for request in requests
    ]
    decode(model, decodings, on_step)
    return [decoding.tokens for decoding in decodings]
