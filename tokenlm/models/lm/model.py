"""Speech language model: a causal LM that reads text and writes speech tokens.

Shapes: B batch, L positions, D channels, V speech classes (codes, eos, fill).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tokenlm.models.lm.backbone import (
    Backbone,
    BackboneConfig,
    PackedItems,
    pretrained_backbone,
)
from tokenlm.models.lm.layout import (
    IGNORE,
    SPECIAL,
    SPEECH,
    TEXT,
    InputSequence,
    Layout,
    LayoutName,
)

NUM_SPECIAL_CLASSES = 2
"""eos and fill."""


@dataclass(frozen=True, kw_only=True)
class SpeechLMConfig:
    """Sizes of a `SpeechLM`, and what it was trained to do."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    codebook_size: int = 625
    token_rate: int = 25
    """Speech tokens per second, as the speech tokenizer writes them."""
    block_text_tokens: int = 5
    """m of the interleaved layout."""
    block_speech_tokens: int = 15
    """n of the interleaved layout."""
    decoded_as_reference: bool = False
    """Whether speech in the interleaved layout is decoded with the deviations of the inference of
    CosyVoice, and not as all weights are trained; see `InputSequence`."""
    min_speech_per_text: float = 2.0
    """Fewest speech tokens for each text token."""
    max_speech_per_text: float = 20.0
    """Most speech tokens for each text token."""
    extra_classes: int = 0
    """Classes after eos and fill that other systems reserve."""
    any_special_ends: bool = False
    """Whether every class that is no code ends one-shot speech, as it does in CosyVoice; otherwise
    eos alone does, and the others are never drawn."""
    specials_in_speech_table: bool = False
    """Whether sos and the turn of speech are the first two extra rows of the speech table, and not
    a table of their own."""
    head_bias: bool = True

    def __post_init__(self) -> None:
        if self.token_rate < 1:
            raise ValueError(f"token_rate must be at least 1, got {self.token_rate}")
        if self.block_text_tokens < 1 or self.block_speech_tokens < 1:
            raise ValueError("blocks of the interleaved layout must hold at least 1 token")
        if not 0 <= self.min_speech_per_text < self.max_speech_per_text:
            raise ValueError(
                f"min_speech_per_text {self.min_speech_per_text} must be less than "
                f"max_speech_per_text {self.max_speech_per_text}"
            )
        if self.extra_classes < (2 if self.specials_in_speech_table else 0):
            raise ValueError(
                "extra_classes must not be negative, and at least 2 with specials_in_speech_table, "
                f"got {self.extra_classes}"
            )

    @property
    def num_classes(self) -> int:
        """Codes, eos, fill, and what else is reserved."""
        return self.codebook_size + NUM_SPECIAL_CLASSES + self.extra_classes


@dataclass
class LayoutBatch:
    """Layouts padded to one length."""

    kinds: Tensor
    """(B, L)"""
    ids: Tensor
    """(B, L)"""
    targets: Tensor
    """(B, L), IGNORE where padded."""
    mask: Tensor
    """(B, L) True where valid."""
    packed: PackedItems | None = None
    """Where the layouts of packed rows lie; None where a row is a layout."""
    positions: Tensor | None = None
    """(B, L) place within the layout, where rows are packed."""

    @classmethod
    def from_layouts(cls, layouts: Sequence[Layout], *, left: bool = False) -> LayoutBatch:
        """Pads behind the sequences, or before them (`left`) to generate from them."""
        length = max(len(layout) for layout in layouts)

        def padded(values: list[int], value: int) -> list[int]:
            padding = [value] * (length - len(values))
            return padding + values if left else values + padding

        return cls(
            kinds=torch.tensor([padded(layout.kinds, SPECIAL) for layout in layouts]),
            ids=torch.tensor([padded(layout.ids, 0) for layout in layouts]),
            targets=torch.tensor([padded(layout.targets, IGNORE) for layout in layouts]),
            mask=torch.tensor([padded([1] * len(layout), 0) for layout in layouts]).bool(),
        )

    @classmethod
    def in_rows(cls, layouts: Sequence[Layout], row_sizes: Sequence[int]) -> LayoutBatch:
        """Lay several layouts behind one another into each row.

        Args:
            layouts: all layouts, row by row.
            row_sizes: number of layouts of every row.
        """
        assert sum(row_sizes) == len(layouts), f"{len(layouts)} layouts in rows of {row_sizes}"
        rows, start = [], 0
        for size in row_sizes:
            rows.append(layouts[start : start + size])
            start += size
        joined = [
            Layout(
                kinds=[kind for layout in row for kind in layout.kinds],
                ids=[index for layout in row for index in layout.ids],
                targets=[target for layout in row for target in layout.targets],
            )
            for row in rows
        ]
        batch = cls.from_layouts(joined)
        sizes = [[len(layout) for layout in row] for row in rows]
        batch.packed = PackedItems.of_rows(sizes, batch.ids.shape[1])
        batch.positions = torch.zeros_like(batch.ids)
        for number, row in enumerate(sizes):
            places = torch.cat([torch.arange(size) for size in row])
            batch.positions[number, : len(places)] = places
        return batch

    def to(self, device: torch.device | str) -> LayoutBatch:
        """The batch on another device."""
        return LayoutBatch(
            self.kinds.to(device),
            self.ids.to(device),
            self.targets.to(device),
            self.mask.to(device),
            None if self.packed is None else self.packed.to(device),
            None if self.positions is None else self.positions.to(device),
        )


class SpeechLM(nn.Module):
    """Text and speech tokens to the distribution of the next speech token."""

    def __init__(self, config: SpeechLMConfig, backbone: Backbone | None = None) -> None:
        """Builds the model; `backbone` is one with weights, in place of a random one."""
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone) if backbone is None else backbone
        dim = config.backbone.hidden_size
        self.special_embedding = None if config.specials_in_speech_table else nn.Embedding(2, dim)
        self.speech_embedding = nn.Embedding(config.num_classes, dim)
        self.head = nn.Linear(dim, config.num_classes, bias=config.head_bias)
        for table in (self.special_embedding, self.speech_embedding):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles `forward`, see `torch.nn.Module.compile`."""
        self.backbone.keep_packed_attention_eager()
        super().compile(*args, **kwargs)

    @classmethod
    def from_backbone(cls, name: str, config: SpeechLMConfig) -> SpeechLM:
        """A model on pretrained text weights.

        Args:
            name: hub id or folder of a causal LM of the Qwen2, Qwen3 or Llama family.
            config: its `backbone` is replaced by the architecture of the weights.

        Raises:
            ValueError: a family that is not supported.
        """
        backbone = pretrained_backbone(name)
        return cls(replace(config, backbone=backbone.config), backbone)

    def embed(self, kinds: Tensor, ids: Tensor) -> Tensor:
        """Embeddings (B, L, D) of positions given by kind and id, both (B, L)."""
        text = self.backbone.embed_tokens(torch.where(kinds == TEXT, ids, 0))
        speech = self.speech_embedding(torch.where(kinds == SPEECH, ids, 0))
        special_ids = torch.where(kinds > SPEECH, ids, 0)
        if self.special_embedding is not None:
            special = self.special_embedding(special_ids)
        else:
            first = self.config.codebook_size + NUM_SPECIAL_CLASSES
            special = self.speech_embedding(special_ids + first)
        kind = kinds[..., None]
        return torch.where(kind == TEXT, text, torch.where(kind == SPEECH, speech, special))

    def sequence(
        self,
        layout: LayoutName,
        *,
        prompt_text: Sequence[int] = (),
        prompt_tokens: Sequence[int] = (),
    ) -> InputSequence:
        """An input sequence that begins with a prompt, whose text may be empty."""
        config = self.config
        return InputSequence(
            layout,
            block_text=config.block_text_tokens,
            block_speech=config.block_speech_tokens,
            prompt_text=prompt_text,
            prompt_tokens=prompt_tokens,
            as_reference=config.decoded_as_reference,
        )

    def forward(self, batch: LayoutBatch, attention_bias: Tensor | None = None) -> Tensor:
        """Logits (B, L, V) of whole sequences, for training.

        Args:
            batch: sequences, padded behind; packed ones see nothing of their neighbours.
            attention_bias: (B, L, L) added to the attention scores of all heads, for every query
                and key.
        """
        mask: Tensor | None = batch.mask.long()
        if attention_bias is not None:
            length = batch.mask.shape[1]
            visible = torch.ones(length, length, dtype=torch.bool, device=batch.mask.device).tril()
            visible = visible & batch.mask[:, None]
            mask = attention_bias.masked_fill(~visible, torch.finfo(torch.float32).min)[:, None]
        if batch.packed is not None:
            assert attention_bias is None, "a bias is made for one layout a row"
            mask = None  # packed items see themselves alone
        hidden = self.backbone(
            inputs_embeds=self.embed(batch.kinds, batch.ids),
            attention_mask=mask,
            position_ids=batch.positions,
            packed=batch.packed,
        ).last_hidden_state
        return self.head(hidden)
