"""The decoder-only transformer of the language model: Qwen2, Qwen3 or Llama.

It is written here because importing `transformers` takes longer than saying a sentence. Names of
weights are those of the library's models, and the results are equal bit by bit. The library is
imported for weights of the hub and for scaled rotary positions only.

Rows may hold several packed items, none of which sees another. A mask over whole rows would do, but
its work grows with the square of the row, most of it for pairs that do not see one another. So the
items are taken out of their rows, those of similar length attend as a padded batch, and are put
back.

Shapes: B batch of rows, P new positions, L positions that are looked at (or of a row), D channels,
H heads, E channels of a head; G packed items of a group, Q positions of its longest item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

_INITIAL_STD = 0.02
FULLEST = 0.75
"""A packed item is put beside a longer one if it has at least this share of its length."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Architecture of the backbone, enough to build it without any file."""

    model_type: Literal["qwen2", "qwen3", "llama"] = "qwen2"
    vocab_size: int = 512
    """Text ids, those of the text tokenizer."""
    hidden_size: int = 256
    intermediate_size: int = 704
    num_layers: int = 6
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int | None = None
    """Channels of an attention head; None is hidden_size / num_heads."""
    rope_theta: float = 10_000.0
    rope_type: str = "default"
    """Scaling of rotary positions, as `transformers` calls it: llama3, yarn, linear, …"""
    rope_settings: dict[str, float] = field(default_factory=dict)
    """Parameters of that scaling, by the names of `transformers`."""
    rms_norm_eps: float = 1e-6
    max_positions: int = 4096
    attention_dropout: float = 0.0

    @property
    def channels_per_head(self) -> int:
        """Channels of an attention head."""
        return self.head_dim or self.hidden_size // self.num_heads

    def to_transformers(self) -> Any:
        """The configuration object of `transformers`."""
        options = {
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "max_position_embeddings": self.max_positions,
            "attention_dropout": self.attention_dropout,
            "head_dim": self.channels_per_head,
            "rope_parameters": {
                "rope_type": self.rope_type,
                "rope_theta": self.rope_theta,
                **{k: int(v) if k in _WHOLE else v for k, v in self.rope_settings.items()},
            },
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        }
        from transformers import AutoConfig

        return AutoConfig.for_model(self.model_type, **options)

    @classmethod
    def from_transformers(cls, config: Any) -> BackboneConfig:
        """The architecture that a configuration of `transformers` describes.

        Raises:
            ValueError: a family that is not supported, or something in it that is not.
        """
        families = ("qwen2", "qwen3", "llama")
        if config.model_type not in families:
            raise ValueError(
                f"a backbone of the family {config.model_type!r} is not supported; valid: "
                + ", ".join(families)
            )
        rope = dict(getattr(config, "rope_parameters", None) or {})
        theta = float(rope.pop("rope_theta", getattr(config, "rope_theta", 10_000.0)))
        rope_type = rope.pop("rope_type", "default")
        if not all(isinstance(value, (int, float)) for value in rope.values()):
            raise ValueError(f"rotary positions scaled by {rope} are not supported")
        own = cls(
            model_type=config.model_type,
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_layers=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None),
            rope_theta=theta,
            rope_type=rope_type,
            rope_settings=rope,
            rms_norm_eps=config.rms_norm_eps,
            max_positions=config.max_position_embeddings,
            attention_dropout=getattr(config, "attention_dropout", 0.0),
        )
        # A bundle holds this description alone: another model would be built from it.
        built = own.to_transformers()
        for name in _FIXED:
            value, expected = getattr(config, name, None), getattr(built, name, None)
            if value != expected:
                raise ValueError(
                    f"a {config.model_type} backbone with {name} = {value} is not supported, only "
                    f"with {expected}"
                )
        return own


_FIXED = ("attention_bias", "mlp_bias", "use_sliding_window", "hidden_act")
"""Settings that vary within a family elsewhere, and must be the family's default here."""
_WHOLE = ("original_max_position_embeddings",)
"""Settings of rotary positions that are whole numbers."""


@dataclass(frozen=True)
class PackedItems:
    """Where the items of packed rows lie, of all rows laid behind one another."""

    places: tuple[Tensor, ...]
    """For each group (G, Q) int64: the positions of its items, with any position behind them."""
    back: Tensor
    """(B, L) int64: where each position stands in all groups laid behind one another; padding
    gets any place."""

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int]], length: int) -> PackedItems:
        """Find the groups.

        Args:
            rows: sizes of the items of each row.
            length: L.
        """
        items = [
            (size, number * length + sum(row[:place]))
            for number, row in enumerate(rows)
            for place, size in enumerate(row)
        ]
        items.sort(key=lambda item: -item[0])
        groups: list[list[tuple[int, int]]] = []
        for item in items:
            if not groups or item[0] < FULLEST * groups[-1][0][0]:
                groups.append([])
            groups[-1].append(item)
        back = torch.zeros(len(rows) * length, dtype=torch.long)
        places, done = [], 0
        for group in groups:
            longest = torch.arange(group[0][0])
            sizes, starts = torch.tensor(group).T[:, :, None]
            is_own = longest < sizes
            # Padding reads the first position of its own item: it is behind whatever may see it.
            places.append(starts + longest * is_own)
            own = torch.arange(done, done + is_own.numel()).view_as(is_own)[is_own]
            back[places[-1][is_own]] = own
            done += is_own.numel()
        return cls(tuple(places), back.view(len(rows), length))

    def to(self, device: torch.device | str) -> PackedItems:
        """The same on another device."""
        return PackedItems(tuple(group.to(device) for group in self.places), self.back.to(device))


class Cache(Protocol):
    """Keeps the keys and values of earlier positions."""

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Stores those of new positions (B, H, P, E); those of all positions (B, H, L, E)."""
        ...


class BackboneOutput(NamedTuple):
    """Output of a backbone."""

    last_hidden_state: Tensor
    """(B, P, D)"""


class Backbone(nn.Module):
    """Embeddings to hidden states, each position seeing those before it."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config, number) for number in range(config.num_layers))
        self.norm = _RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = _rotary_positions(config)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INITIAL_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def keep_packed_attention_eager(self) -> None:
        """Excludes attention to packed items from compilation.

        The number of groups and their shapes vary from batch to batch: each would be compiled.
        """
        eager = cast("Callable[..., Tensor]", torch.compiler.disable(attend_packed))
        for module in self.modules():
            if isinstance(module, _Attention):
                module.attend_packed = eager

    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        packed: PackedItems | None = None,
    ) -> BackboneOutput:
        """Hidden states of further positions.

        Args:
            input_ids: (B, P) text ids, or
            inputs_embeds: (B, P, D) embeddings.
            attention_mask: (B, L) 1 where valid, each position then sees those before it; or
                (B, 1 or H, P, L), True where a position may look or what is added to the scores.
            position_ids: (B, P); None counts from 0.
            cache: of the positions before, or None.
            packed: the items of packed rows, each of which sees itself alone.

        Returns:
            The states behind the last norm.
        """
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = torch.arange(hidden.shape[1], device=hidden.device)[None]
        if attention_mask is not None and attention_mask.ndim == 2:
            attention_mask = _causal_mask(attention_mask)
        cosines, sines = self.rotary_emb(hidden, position_ids)
        turns = cosines[:, None], sines[:, None]
        for layer in self.layers:
            hidden = layer(hidden, turns, attention_mask, cache, packed)
        return BackboneOutput(self.norm(hidden))


class _Layer(nn.Module):
    """Attention and a gated feed-forward network, each behind a norm and beside a way around it."""

    def __init__(self, config: BackboneConfig, number: int) -> None:
        super().__init__()
        self.self_attn = _Attention(config, number)
        self.mlp = _GatedNetwork(config)
        self.input_layernorm = _RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = _RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        hidden: Tensor,
        turns: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: Cache | None,
        packed: PackedItems | None,
    ) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), turns, mask, cache, packed)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class _Attention(nn.Module):
    """Grouped attention: several heads of queries share one of keys and values."""

    def __init__(self, config: BackboneConfig, number: int) -> None:
        super().__init__()
        self.number = number
        self.dropout = config.attention_dropout
        self.channels = config.channels_per_head
        size, has_bias = config.hidden_size, config.model_type == "qwen2"
        wide, narrow = config.num_heads * self.channels, config.num_kv_heads * self.channels
        self.q_proj = nn.Linear(size, wide, bias=has_bias)
        self.k_proj = nn.Linear(size, narrow, bias=has_bias)
        self.v_proj = nn.Linear(size, narrow, bias=has_bias)
        self.o_proj = nn.Linear(wide, size, bias=False)
        is_normed = config.model_type == "qwen3"
        eps = config.rms_norm_eps
        self.q_norm = _RMSNorm(self.channels, eps) if is_normed else None
        self.k_norm = _RMSNorm(self.channels, eps) if is_normed else None
        self.attend_packed: Callable[..., Tensor] = attend_packed

    def forward(
        self,
        hidden: Tensor,
        turns: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: Cache | None,
        packed: PackedItems | None,
    ) -> Tensor:
        query = self.q_proj(hidden).unflatten(-1, (-1, self.channels))
        key = self.k_proj(hidden).unflatten(-1, (-1, self.channels))
        value = self.v_proj(hidden).unflatten(-1, (-1, self.channels)).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = _turned(query.transpose(1, 2), turns), _turned(key.transpose(1, 2), turns)
        if cache is not None:
            key, value = cache.update(key, value, self.number)
        dropout = self.dropout if self.training else 0.0
        scale = self.channels**-0.5
        if packed is not None:
            attended = self.attend_packed(query, key, value, packed, dropout, scale)
        else:
            attended = attend(query, key, value, mask, dropout, scale)
        return self.o_proj(attended.flatten(2))


class _GatedNetwork(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class _RMSNorm(nn.Module):
    """Scales by the root of the mean square, which is taken in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * scaled.to(x.dtype)


class _RotaryPositions(nn.Module):
    """Cosines and sines that queries and keys are turned by (Su et al., 2021)."""

    inv_freq: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        size = config.channels_per_head
        steps = torch.arange(0, size, 2, dtype=torch.float32) / size
        self.register_buffer("inv_freq", 1.0 / config.rope_theta**steps, persistent=False)

    def forward(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Of positions (B, P), both (B, P, E) in the type of `x`."""
        with torch.autocast(positions.device.type, enabled=False):
            angles = positions[..., None].float() * self.inv_freq.float()
            angles = torch.cat([angles, angles], dim=-1)
            return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def _rotary_positions(config: BackboneConfig) -> nn.Module:
    """Those of the library where positions are scaled.

    Raises:
        ValueError: the library does not know that scaling.
    """
    if config.rope_type == "default":
        return _RotaryPositions(config)
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    if config.rope_type not in ROPE_INIT_FUNCTIONS:
        known = ", ".join(["default", *ROPE_INIT_FUNCTIONS])
        raise ValueError(f"rope_type {config.rope_type!r} is not known; valid: {known}")
    return LlamaRotaryEmbedding(config.to_transformers())


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Attention of groups of heads: each head of keys and values serves several of queries.

    Args:
        query: (B, H, P, E)
        key: (B, its own H, L, E)
        value: as `key`.
        mask: (B, 1 or H, P, L) True where a position may look, or what is added to the scores;
            None lets each position see those up to its own.
        dropout: of the weights.
        scale: of the scores; None is that of E channels.

    Returns:
        (B, P, H, E)
    """
    num_heads, length = query.shape[1], query.shape[2]
    group = num_heads // key.shape[1]
    # Without a mask the kernels share keys themselves; with one they would fall back to a slow way.
    shares = group > 1 and mask is None and query.device.type != "mps"
    stands_in_row = group > 1 and mask is not None and mask.shape[1] == 1 and length == 1
    if stands_in_row and not torch.compiler.is_compiling():
        # The heads of a group stand in for positions: no key is copied.
        query = query.unflatten(1, (-1, group)).flatten(2, 3)
    elif group > 1 and not shares:
        key, value = (part.repeat_interleave(group, dim=1) for part in (key, value))
    attended = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        scale=scale,
        is_causal=mask is None and length > 1,
        enable_gqa=shares,
    )
    if attended.shape[1] != num_heads:
        attended = attended.reshape(attended.shape[0], num_heads, length, -1)
    return attended.transpose(1, 2)


def attend_packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: PackedItems,
    dropout: float,
    scale: float | None,
) -> Tensor:
    """Causal attention within the items: `attend` of each as if it were alone.

    Args:
        query: (B, H, P, E)
        key: (B, its own H, P, E)
        value: as `key`.
        packed: the items.
        dropout: of the weights.
        scale: of the scores.

    Returns:
        (B, P, H, E)
    """
    flat = [part.transpose(1, 2).flatten(0, 1) for part in (query, key, value)]
    outputs = []
    for places in packed.places:
        own, keys, values = (_take(part, places).transpose(1, 2) for part in flat)
        outputs.append(attend(own, keys, values, None, dropout, scale).flatten(0, 1))
    return _take(torch.cat(outputs), packed.back)


def _take(rows: Tensor, places: Tensor) -> Tensor:
    # The gradient of brackets sorts the places first; that of this adds row by row.
    return rows.index_select(0, places.flatten()).unflatten(0, places.shape)


def _turned(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Turns pairs of channels of `x` (B, H, P, E); a pair is half of the channels apart."""
    cosine, sine = turns
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine


def _causal_mask(valid: Tensor) -> Tensor:
    """(B, 1, L, L), True where a position may look.

    One of padding looks at itself, as softmax over nothing is not a number.
    """
    length = valid.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
    own = torch.eye(length, dtype=torch.bool, device=valid.device)
    return ((before & valid.bool()[:, None]) | own)[:, None]


def pretrained_backbone(name: str) -> Backbone:
    """A backbone with weights of the hub, or of a folder.

    Raises:
        ValueError: a family that is not supported, or something in its architecture that is not.
    """
    from transformers import AutoModel

    library: Any = AutoModel.from_pretrained(name)
    config = BackboneConfig.from_transformers(library.config)
    with torch.random.fork_rng(devices=[]):  # its random weights are replaced
        backbone = Backbone(config)
    backbone.load_state_dict(library.state_dict(), assign=True)
    return backbone
