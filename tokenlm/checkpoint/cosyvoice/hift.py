"""The vocoders of CosyVoice 2 and 3: keys of `hift.pt` and ours.

Their convolutions are kept as a gain and a direction (weight norm), in one of two spellings; ours
are plain, so that nothing is multiplied out at each call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from tokenlm.checkpoint.cosyvoice.flow import flow_mel
from tokenlm.checkpoint.key_table import KeyTable, Rule, refuse, sizes_of
from tokenlm.models.vocoder.hift import HiFTConfig

Version = Literal[2, 3]

PREFIX = "generator."
"""Prefix of the keys of a file that was saved whole after adversarial training."""

_SPELLINGS = (
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    (".weight_g", ".weight_v"),
)
_PLAIN = re.compile(r"source_downs\.|m_source\.|f0_predictor\.classifier\.")


def fold_weight_norm(state: Mapping[str, Tensor], where: str = "hift.pt") -> dict[str, Tensor]:
    """A state dict whose gains and directions are multiplied into weights.

    Raises:
        WeightsError: one of the two is missing, they do not fit each other, or a weight is there in
            more than one spelling.
    """
    folded, missing, other, twice = {}, [], [], []
    for key, tensor in state.items():
        for gain_end, direction_end in _SPELLINGS:
            if key.endswith(gain_end):
                stem = key.removesuffix(gain_end)
                direction = state.get(stem + direction_end)
                if direction is None:
                    missing.append(stem + direction_end)
                elif direction.ndim < 2 or tensor.numel() != direction.shape[0]:
                    other.append(f"{key} {tuple(tensor.shape)} for {tuple(direction.shape)}")
                elif stem + ".weight" in state or stem + ".weight" in folded:
                    twice.append(stem + ".weight")
                else:
                    # The norm runs over all axes but the first, for transposed ones as well.
                    norm = direction.flatten(1).norm(dim=1)
                    scale = (tensor.flatten() / norm).view(-1, *[1] * (direction.ndim - 1))
                    folded[stem + ".weight"] = direction * scale
                break
            if key.endswith(direction_end):
                if key.removesuffix(direction_end) + gain_end not in state:
                    missing.append(key.removesuffix(direction_end) + gain_end)
                break
        else:
            folded[key] = tensor
    refuse(where, {"missing": missing, "of another shape": other, "there twice": twice})
    return folded


def unfold_weight_norm(
    state: Mapping[str, Tensor], spelling: Literal["parametrized", "old"] = "parametrized"
) -> dict[str, Tensor]:
    """A state dict whose convolutions are a gain and a direction each, those of the source not."""
    gain_end, direction_end = _SPELLINGS[0 if spelling == "parametrized" else 1]
    unfolded = {}
    for key, tensor in state.items():
        if key.endswith(".weight") and tensor.ndim == 3 and not _PLAIN.match(key):
            stem = key.removesuffix(".weight")
            unfolded[stem + gain_end] = tensor.flatten(1).norm(dim=1).view(-1, 1, 1)
            unfolded[stem + direction_end] = tensor
        else:
            unfolded[key] = tensor
    return unfolded


def hift_table(config: HiFTConfig) -> KeyTable:
    """Keys of `hift.pt` after weight norm is folded, and ours."""
    rules = [
        Rule("m_source.l_linear.{p}", "source.mix.{p}"),
        Rule("f0_predictor.classifier.{p}", "pitch.head.{p}"),
        Rule("conv_pre.{p}", "embed.conv.{p}"),
        Rule("conv_post.{p}", "post.conv.{p}"),
        Rule("ups.{i}.{p}", "stages.{i}.upsample.conv.{p}"),
        Rule("source_downs.{i}.{p}", "stages.{i}.source.conv.{p}"),
        *_block_rules("source_resblocks.{i}.", "stages.{i}.source_block."),
    ]
    # Indices count the activations between the convolutions of the pitch network, too.
    rules += [
        Rule(f"f0_predictor.condnet.{2 * index}.{{p}}", f"pitch.convs.{index}.conv.{{p}}")
        for index in range(5)
    ]
    # Residual blocks are counted through all stages.
    kernels = len(config.block_kernels)
    for number in range(kernels * len(config.upsample_rates)):
        stage, block = divmod(number, kernels)
        rules += _block_rules(f"resblocks.{number}.", f"stages.{stage}.blocks.{block}.")
    return KeyTable(rules)


def hift_to_ours(
    config: HiFTConfig, state: Mapping[str, Tensor], where: str = "hift.pt"
) -> dict[str, Tensor]:
    """The weights of `hift.pt` under our names."""
    stripped = {key.removeprefix(PREFIX): tensor for key, tensor in state.items()}
    return hift_table(config).to_ours(fold_weight_norm(stripped, where), where)


def hift_to_theirs(
    config: HiFTConfig,
    state: Mapping[str, Tensor],
    spelling: Literal["parametrized", "old"] = "parametrized",
) -> dict[str, Tensor]:
    """Our weights as `hift.pt` has them."""
    return unfold_weight_norm(hift_table(config).to_theirs(state), spelling)


def hift_config(version: Version, shapes: Mapping[str, tuple[int, ...]]) -> HiFTConfig:
    """The config that the shapes of `hift.pt` belong to.

    Raises:
        WeightsError: keys that the config is read from are missing, or of another shape.
    """
    shapes = {key.removeprefix(PREFIX): shape for key, shape in shapes.items()}

    def size(name: str) -> int:
        return sizes_of(shapes, {name + ".bias": 0}, "hift.pt")[0]

    return HiFTConfig(
        mel=flow_mel(version),
        is_causal=version == 3,
        dim=size("conv_pre"),
        pitch_dim=size("f0_predictor.condnet.0"),
        num_harmonics=sizes_of(shapes, {"m_source.l_linear.weight": 1}, "hift.pt")[0],
    )


def _block_rules(theirs: str, ours: str) -> list[Rule]:
    return [
        Rule(theirs + "convs1.{j}.{p}", ours + "first.{j}.conv.{p}"),
        Rule(theirs + "convs2.{j}.{p}", ours + "second.{j}.conv.{p}"),
        Rule(theirs + "activations1.{j}.alpha", ours + "first_activations.{j}.alpha"),
        Rule(theirs + "activations2.{j}.alpha", ours + "second_activations.{j}.alpha"),
    ]
