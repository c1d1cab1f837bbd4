"""The flows of CosyVoice 2 and 3: keys of `flow.pt` and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from tokenlm.audio.mel import MelConfig
from tokenlm.checkpoint.key_table import KeyTable, Rule, WeightsError, sizes_of
from tokenlm.models.flow import FlowConfig, cosyvoice_flow_config

Version = Literal[2, 3]

ROTATION = "decoder.estimator.rotary_embed.inv_freq"


def _relative_rules(theirs: str, ours: str) -> list[Rule]:
    block, mine = theirs + ".{i}.", ours + ".layers.{i}."
    attention = {
        "linear_q.{p}": "query.{p}",
        "linear_k.{p}": "key.{p}",
        "linear_v.{p}": "value.{p}",
        "linear_out.{p}": "out.{p}",
        "linear_pos.weight": "position.weight",
        "pos_bias_u": "content_bias",
        "pos_bias_v": "position_bias",
    }
    rules = [Rule(f"{block}self_attn.{a}", f"{mine}attention.{b}") for a, b in attention.items()]
    return rules + [
        Rule(block + "feed_forward.w_1.{p}", mine + "feed_forward.0.{p}"),
        Rule(block + "feed_forward.w_2.{p}", mine + "feed_forward.2.{p}"),
        Rule(block + "norm_ff.{p}", mine + "feed_forward_norm.{p}"),
        Rule(block + "norm_mha.{p}", mine + "attention_norm.{p}"),
    ]


def lookahead_rules(theirs: str, ours: str) -> list[Rule]:
    """Keys of the look-ahead layer."""
    return [
        Rule(theirs + "conv1.{p}", ours + "ahead.conv.{p}"),
        Rule(theirs + "conv2.{p}", ours + "back.conv.{p}"),
    ]


def encoder_rules(theirs: str = "encoder.", ours: str = "encoder.") -> list[Rule]:
    """Keys of the conformer encoder of CosyVoice 2."""
    return [
        Rule(theirs + "embed.out.{i}.{p}", ours + "embed.{i}.{p}"),
        Rule(theirs + "up_embed.out.{i}.{p}", ours + "up_embed.{i}.{p}"),
        Rule(theirs + "up_layer.conv.{p}", ours + "upsample.conv.{p}"),
        Rule(theirs + "after_norm.{p}", ours + "norm.{p}"),
        *lookahead_rules(theirs + "pre_lookahead_layer.", ours + "lookahead."),
        *_relative_rules(theirs + "encoders", ours + "blocks"),
        *_relative_rules(theirs + "up_encoders", ours + "up_blocks"),
    ]


def encoder_table() -> KeyTable:
    """Keys of the encoder alone."""
    return KeyTable(encoder_rules("encoder.", ""))


def _unet_level(theirs: str, ours: str) -> list[Rule]:
    resnet, mine = theirs + "0.", ours + "resnet."
    block, my_block = theirs + "1.{j}.", ours + "blocks.{j}."
    return [
        Rule(resnet + "block1.block.0.{p}", mine + "first.conv.conv.{p}"),
        Rule(resnet + "block1.block.2.{p}", mine + "first.norm.{p}"),
        Rule(resnet + "mlp.1.{p}", mine + "time.{p}"),
        Rule(resnet + "block2.block.0.{p}", mine + "second.conv.conv.{p}"),
        Rule(resnet + "block2.block.2.{p}", mine + "second.norm.{p}"),
        Rule(resnet + "res_conv.{p}", mine + "residual.{p}", pointwise=True),
        Rule(block + "norm1.{p}", my_block + "attention_norm.{p}"),
        Rule(block + "attn1.to_q.weight", my_block + "attention.query.weight"),
        Rule(block + "attn1.to_k.weight", my_block + "attention.key.weight"),
        Rule(block + "attn1.to_v.weight", my_block + "attention.value.weight"),
        Rule(block + "attn1.to_out.0.{p}", my_block + "attention.out.{p}"),
        Rule(block + "norm3.{p}", my_block + "feed_forward_norm.{p}"),
        Rule(block + "ff.net.0.proj.{p}", my_block + "feed_forward.0.{p}"),
        Rule(block + "ff.net.2.{p}", my_block + "feed_forward.2.{p}"),
    ]


def unet_rules(theirs: str, ours: str) -> list[Rule]:
    """Keys of the estimator of CosyVoice 2."""
    return [
        Rule(theirs + "time_mlp.linear_1.{p}", ours + "time.layers.0.{p}"),
        Rule(theirs + "time_mlp.linear_2.{p}", ours + "time.layers.2.{p}"),
        *_unet_level(theirs + "down_blocks.0.", ours + "down."),
        Rule(theirs + "down_blocks.0.2.{p}", ours + "down.conv.conv.{p}"),
        *_unet_level(theirs + "mid_blocks.{i}.", ours + "mid.{i}."),
        *_unet_level(theirs + "up_blocks.0.", ours + "up."),
        Rule(theirs + "up_blocks.0.2.{p}", ours + "up.conv.conv.{p}"),
        Rule(theirs + "final_block.block.0.{p}", ours + "final.conv.conv.{p}"),
        Rule(theirs + "final_block.block.2.{p}", ours + "final.norm.{p}"),
        Rule(theirs + "final_proj.{p}", ours + "project.{p}", pointwise=True),
    ]


def unet_table() -> KeyTable:
    """Keys of the estimator of CosyVoice 2 alone."""
    return KeyTable(unet_rules("decoder.estimator.", ""))


def dit_rules(theirs: str, ours: str) -> list[Rule]:
    """Keys of the estimator of CosyVoice 3, without the table of its rotation."""
    block, mine = theirs + "transformer_blocks.{i}.", ours + "blocks.{i}."
    return [
        Rule(theirs + "input_embed.proj.{p}", ours + "embed.{p}"),
        Rule(theirs + "input_embed.conv_pos_embed.conv1.0.{p}", ours + "position.0.conv.{p}"),
        Rule(theirs + "input_embed.conv_pos_embed.conv2.0.{p}", ours + "position.1.conv.{p}"),
        Rule(theirs + "time_embed.time_mlp.{i}.{p}", ours + "time.layers.{i}.{p}"),
        Rule(block + "attn_norm.linear.{p}", mine + "modulation.{p}"),
        Rule(block + "attn.to_q.{p}", mine + "attention.query.{p}"),
        Rule(block + "attn.to_k.{p}", mine + "attention.key.{p}"),
        Rule(block + "attn.to_v.{p}", mine + "attention.value.{p}"),
        Rule(block + "attn.to_out.0.{p}", mine + "attention.out.{p}"),
        Rule(block + "ff.ff.0.0.{p}", mine + "feed_forward.0.{p}"),
        Rule(block + "ff.ff.2.{p}", mine + "feed_forward.2.{p}"),
        Rule(theirs + "norm_out.linear.{p}", ours + "final_modulation.{p}"),
        Rule(theirs + "proj_out.{p}", ours + "project.{p}"),
    ]


def dit_table() -> KeyTable:
    """Keys of the estimator of CosyVoice 3 alone."""
    return KeyTable(dit_rules("decoder.estimator.", ""))


def flow_table(version: Version) -> KeyTable:
    """Keys of `flow.pt`, without the table of the rotation that version 3 has in it."""
    rules = [
        Rule("input_embedding.weight", "encoder.embedding.weight"),
        Rule("spk_embed_affine_layer.{p}", "speaker.{p}"),
    ]
    if version == 2:
        rules += [
            Rule("encoder_proj.{p}", "encoder.project.{p}"),
            *encoder_rules("encoder.", "encoder."),
            *unet_rules("decoder.estimator.", "estimator."),
        ]
    else:
        rules += [
            *lookahead_rules("pre_lookahead_layer.", "encoder.lookahead."),
            *dit_rules("decoder.estimator.", "estimator."),
        ]
    return KeyTable(rules)


def flow_to_ours(
    version: Version, state: Mapping[str, Tensor], where: str = "flow.pt"
) -> dict[str, Tensor]:
    """The weights of `flow.pt` under our names.

    Raises:
        WeightsError: keys that are not known, or a rotation other than ours.
    """
    rest = dict(state)
    frequencies = rest.pop(ROTATION, None) if version == 3 else None
    if frequencies is not None:
        expected = _frequencies(2 * frequencies.numel())
        is_row = frequencies.ndim == 1
        if not (is_row and torch.allclose(frequencies.float(), expected, atol=1e-6)):
            raise WeightsError(f"{where}: {ROTATION} is not the rotation of base 10000.")
    return flow_table(version).to_ours(rest, where)


def flow_to_theirs(
    version: Version, state: Mapping[str, Tensor], head_dim: int = 64
) -> dict[str, Tensor]:
    """Our weights as `flow.pt` has them; `head_dim` is that of the DiT of version 3."""
    theirs = flow_table(version).to_theirs(state)
    return theirs if version == 2 else theirs | {ROTATION: _frequencies(head_dim)}


def _frequencies(head_dim: int) -> Tensor:
    return 10_000.0 ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)


def flow_config(
    version: Version,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    encoder_heads: int | None = None,
    num_heads: int | None = None,
) -> FlowConfig:
    """The config that the shapes of `flow.pt` belong to.

    Args:
        version: of CosyVoice.
        shapes: shape of every key.
        encoder_heads: heads of the conformer; default read from the shapes.
        num_heads: heads of the estimator; default those of full size, no shape says it.

    Raises:
        WeightsError: keys that the config is read from are missing, or of another shape.
    """

    def size(key: str, axis: int = 0) -> int:
        return sizes_of(shapes, {key: axis}, "flow.pt")[0]

    def count(pattern: str) -> int:
        indices = {match[1] for key in shapes if (match := re.match(pattern, key))}
        return len(indices)

    estimator = "decoder.estimator."
    codebook_size = size("input_embedding.weight")
    speaker_dim = size("spk_embed_affine_layer.weight", 1)
    if version == 2:
        heads = num_heads or 8
        inner = size(estimator + "mid_blocks.0.1.0.attn1.to_q.weight")
        return cosyvoice_flow_config(
            mel=flow_mel(2),
            codebook_size=codebook_size,
            speaker_dim=speaker_dim,
            encoder="conformer",
            encoder_dim=size("input_embedding.weight", 1),
            encoder_hidden_dim=size("encoder.encoders.0.feed_forward.w_1.weight"),
            encoder_layers=count(r"encoder\.encoders\.(\d+)\."),
            encoder_up_layers=count(r"encoder\.up_encoders\.(\d+)\."),
            encoder_heads=encoder_heads or size("encoder.encoders.0.self_attn.pos_bias_u"),
            lookahead_tokens=size("encoder.pre_lookahead_layer.conv1.weight", 2) - 1,
            estimator="unet",
            dim=size(estimator + "final_proj.weight", 1),
            num_heads=heads,
            head_dim=inner // heads,
            blocks_per_level=count(r"decoder\.estimator\.mid_blocks\.0\.1\.(\d+)\."),
            num_mid_levels=count(r"decoder\.estimator\.mid_blocks\.(\d+)\."),
        )
    heads = num_heads or 16
    dim = size(estimator + "proj_out.weight", 1)
    return cosyvoice_flow_config(
        mel=flow_mel(3),
        codebook_size=codebook_size,
        speaker_dim=speaker_dim,
        encoder="lookahead",
        encoder_hidden_dim=size("pre_lookahead_layer.conv1.weight"),
        lookahead_tokens=size("pre_lookahead_layer.conv1.weight", 2) - 1,
        estimator="f5_dit",
        dim=dim,
        num_layers=count(r"decoder\.estimator\.transformer_blocks\.(\d+)\."),
        num_heads=heads,
        head_dim=size(estimator + "transformer_blocks.0.attn.to_q.weight") // heads,
        expansion=size(estimator + "transformer_blocks.0.ff.ff.0.0.weight") / dim,
    )


def flow_mel(version: Version) -> MelConfig:
    """The mel of flow and vocoder: that of version 3 goes up to half the sample rate."""
    return MelConfig(
        sample_rate=24_000,
        n_fft=1920,
        win_length=1920,
        hop_length=480,
        num_mels=80,
        fmin=0.0,
        fmax=8000.0 if version == 2 else None,
    )
