"""Decoding of speech tokens step by step: many sequences together, each at its own place.

Shapes: B sequences, P positions read at once, V speech classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenlm.models.lm.cache import CacheRow, KeyValueCache, KeyValues, RowsView
from tokenlm.models.lm.guards import MAX_TOKENS, GuardConfig, TokenMonitor
from tokenlm.models.lm.guidance import guide
from tokenlm.models.lm.layout import eos_class
from tokenlm.models.lm.model import SpeechLM
from tokenlm.models.lm.plan import Plan
from tokenlm.models.lm.sampling import SamplingConfig, sample
from tokenlm.modules.noise import uniform_draws

READ_POSITIONS = 64
"""A sequence with more to read than its last token reads so many positions at once, at most."""


@dataclass(frozen=True)
class Prefix:
    """What the LM has read of a prompt, as the start of many sequences."""

    plan: Plan
    """Not to be changed: copy it."""
    key_values: KeyValues


class Unguided:
    """The same speech as it would go on without text, for classifier-free guidance.

    It is read in the one-shot layout, whatever that of the text is: text dropout trains that one.
    """

    def __init__(self, model: SpeechLM, cache: KeyValueCache, prompt_tokens: Sequence[int]) -> None:
        self.plan = Plan("one_shot", block_text=1, block_speech=1, prompt_tokens=prompt_tokens)
        self.plan.end_text()
        self.row = cache.add()
        self.row.start(None)
        self.logits: Tensor | None = None


class Decoding:
    """One sequence that is being written; `decode_step` moves it on.

    Args:
        model: in evaluation mode.
        cache: where its keys and values are kept.
        plan: its text so far; more may be added to it at any time.
        sampling: how tokens are chosen.
        seed: with `segment` it fixes all draws.
        segment: number of the text segment within its request.
        forced: speech tokens to write in place of those that are drawn; the speech ends with them.
        key_values: what has been read already (a `Prefix`), in place of the plan's start.
        row: a row of the cache to take over.
        guards: the causal ones watch over it; None has length bounds alone.
    """

    def __init__(
        self,
        model: SpeechLM,
        cache: KeyValueCache,
        plan: Plan,
        *,
        sampling: SamplingConfig,
        seed: int,
        segment: int = 0,
        forced: Sequence[int] | None = None,
        key_values: KeyValues | None = None,
        row: CacheRow | None = None,
        guards: GuardConfig | None = None,
    ) -> None:
        self.plan = plan
        self.sampling = sampling
        self.seed, self.segment = seed, segment
        self.tokens: list[int] = []
        """Speech tokens so far, without the prompt's and without eos."""
        self.is_done = forced is not None and not forced
        self.logits: Tensor | None = None
        """(V,) behind the last position that was read, before any guidance."""
        self.model = model
        self.guidance_scale = guards.guidance_scale if guards is not None else 0.0
        self.unguided: Unguided | None = None
        self._forced = forced
        self._is_bounded = guards is None or guards.length_bounds
        self._monitor = TokenMonitor(guards) if guards is not None else None
        self.row = row if row is not None else cache.add()
        try:
            self.row.start(key_values)
            if self.guidance_scale and not self.is_done:
                self.unguided = Unguided(model, cache, plan.prompt_tokens)
        except BaseException:
            if row is None:
                self.row.release()
            raise

    @property
    def can_step(self) -> bool:
        """Whether the next token can be written: neither done nor waiting for text."""
        return not self.is_done and self.plan.predicts

    @property
    def has_read(self) -> bool:
        """Whether the model has read all that is known, so that a token can be drawn."""
        return all(len(track.plan.pending) == 0 for track in self.tracks)

    @property
    def bounds(self) -> tuple[int, int]:
        """Fewest and most speech tokens, from the length of the text."""
        if not self._is_bounded:
            return 0, MAX_TOKENS
        return speech_bounds(self.model, self.plan.num_text)

    @property
    def tracks(self) -> list[Decoding | Unguided]:
        """What the model has to read for the next token."""
        return [self] if self.unguided is None else [self, self.unguided]

    def close(self) -> None:
        """Frees the rows of the cache."""
        self.end()
        self.row.release()

    def end(self) -> None:
        """The speech ends here; the row that was given, or its own, stays."""
        self.is_done = True
        if self.unguided is not None:
            self.unguided.row.release()
            self.unguided = None

    def history(self) -> list[int]:
        """The tokens that the repetition window sees, -1 where there is none."""
        window = self.sampling.repetition_window
        said = self.plan.prompt_tokens[-window:] if len(self.tokens) < window else []
        recent = [*said, *self.tokens[-window:]][-window:] if window else []
        return [-1] * (window - len(recent)) + recent

    def forbidden(self) -> list[int]:
        """Classes that must not be drawn now."""
        config = self.model.config
        eos = eos_class(config.codebook_size)
        watched = [] if self._monitor is None else [*self._monitor.forbidden]
        others = list(range(eos + 1, config.num_classes))
        if not self.plan.has_turned:
            return [eos, *others, *watched]
        # Fill belongs to the interleaved layout; where any special class ends the speech, eos alone
        # is kept from ending it too soon.
        kept = [] if config.any_special_ends else [*others]
        kept += watched
        return kept if len(self.tokens) >= self.bounds[0] else [eos, *kept]

    def accept(self, token: int) -> None:
        """Takes the token that was drawn."""
        if self._forced is not None:
            token = self._forced[len(self.tokens)]
        elif token >= eos_class(self.model.config.codebook_size):
            self.end()
            return
        self.tokens.append(token)
        self.plan.add_speech(token)
        if self.unguided is not None:
            self.unguided.plan.add_speech(token)
        if self._monitor is not None:
            self._monitor.push(token)
        if self._forced is not None:
            has_ended = len(self.tokens) >= len(self._forced)
        else:
            is_long = self.plan.has_turned and len(self.tokens) >= self.bounds[1]
            has_ended = is_long or (self._monitor is not None and self._monitor.is_lost)
        if has_ended:
            self.end()


def speech_bounds(model: SpeechLM, num_text: int) -> tuple[int, int]:
    """Fewest and most speech tokens for a text of `num_text` tokens."""
    fewest = int(num_text * model.config.min_speech_per_text)
    # A second at least: the length of one-word texts varies most.
    most = max(int(num_text * model.config.max_speech_per_text), model.config.token_rate)
    return fewest, most


@torch.inference_mode()
def read_prefix(model: SpeechLM, plan: Plan) -> Prefix:
    """Reads all that is known of a sequence whose text has not come yet."""
    assert plan.needs_text
    plan = plan.copy()
    row = KeyValueCache(model).add()
    kinds, ids = plan.take()
    _read(model, [row], [kinds], [ids])
    return Prefix(plan=plan, key_values=row.snapshot())


@torch.inference_mode()
def decode_step(
    model: SpeechLM, decodings: Sequence[Decoding], *, max_positions: int | None = None
) -> None:
    """Writes the next token of every sequence; all of them share one cache and can step.

    Sequences that have read everything but their last token go through the model together; those
    that have more to read (a start, a block of text) go each alone, in pieces of `READ_POSITIONS`.
    The pieces are always the same, so that numbers do not depend on who else is there.

    Where it fails, each sequence is as it was before, or further on as it would be anyway: the step
    can be tried again, with all of them or with each alone.

    Args:
        model: of all sequences.
        decodings: the sequences.
        max_positions: when so many positions have been read besides the last tokens, whoever is
            not ready goes on in the next step and writes nothing in this one. The first of
            `decodings` read first.
    """
    assert all(decoding.can_step for decoding in decodings)
    tracks = [track for decoding in decodings for track in decoding.tracks]
    short = [item for item in tracks if len(item.plan.pending) == 1]
    if short:
        short[0].row.cache.arrange([item.row for item in short])
        _read_on(model, short, 1)
    num_read = 0
    for item in tracks:
        while pending := len(item.plan.pending):
            if max_positions is not None and num_read >= max_positions:
                break
            count = min(pending, READ_POSITIONS)
            _read_on(model, [item], count)
            num_read += count
    _choose([decoding for decoding in decodings if decoding.has_read])


def _read_on(model: SpeechLM, tracks: Sequence[Decoding | Unguided], count: int) -> None:
    """Reads the next `count` positions of sequences whose rows lie together."""
    positions = [item.plan.peek(count) for item in tracks]
    logits = _read(
        model,
        [item.row for item in tracks],
        [kinds for kinds, _ in positions],
        [ids for _, ids in positions],
    )
    for item, row in zip(tracks, logits, strict=True):
        item.plan.drop(count)
        item.logits = row


_CACHE_ARGUMENT: dict[type, str] = {}


def _cache_argument(backbone: torch.nn.Module) -> str:
    """The library has given this argument a new name."""
    kind = type(backbone)
    if kind not in _CACHE_ARGUMENT:
        names = inspect.signature(backbone.forward).parameters
        _CACHE_ARGUMENT[kind] = "cache" if "cache" in names else "past_key_values"
    return _CACHE_ARGUMENT[kind]


def _read(
    model: SpeechLM, rows: Sequence[CacheRow], kinds: list[list[int]], ids: list[list[int]]
) -> Tensor:
    """Reads P positions in each of neighbouring rows; logits (B, V) after the last."""
    device = model.head.weight.device
    view = RowsView(rows[0].cache, rows, len(ids[0]))
    embeddings = model.embed(torch.tensor(kinds, device=device), torch.tensor(ids, device=device))
    hidden = model.backbone(
        inputs_embeds=embeddings,
        attention_mask=view.mask,
        position_ids=view.positions,
        use_cache=True,
        **{_cache_argument(model.backbone): view},
    ).last_hidden_state
    logits = model.head(hidden[:, -1])
    view.advance()  # last of all: what fails has read nothing
    return logits


def _guided_logits(decoding: Decoding) -> Tensor:
    """Logits (V,) that the next token is drawn from."""
    other = decoding.unguided
    assert decoding.logits is not None
    if other is None:
        return decoding.logits
    assert other.logits is not None
    return guide(decoding.logits, other.logits, decoding.guidance_scale)


def _choose(decodings: Sequence[Decoding]) -> None:
    """Draws a token for each, those of equal settings together."""
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
