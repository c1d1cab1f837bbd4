"""The language models of CosyVoice 2 and 3: `llm.pt` and `SpeechLM`.

Their classes after the codes are in another order than ours (codes, eos, fill, the rest), and
CosyVoice 3 keeps the start of the sequence and the turn of speech among them.

Interleaved speech is decoded in the layout that these weights were trained with, which the
inference of the reference leaves in places (`Plan`): nothing shows that they are better off so. To
compare numbers with it, `decoded_as_reference` in the config of the LM follows the reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from tokenlm.checkpoint.key_table import KeyTable, Rule, WeightsError, sizes_of
from tokenlm.models.lm import BackboneConfig, SpeechLMConfig

Version = Literal[2, 3]

TIED_HEAD = "llm.model.lm_head.weight"
_TEXT_TABLE = "llm.model.model.embed_tokens.weight"
_LAYER = re.compile(r"llm\.model\.model\.layers\.(\d+)\.")


def class_order(version: Version, codebook_size: int, num_classes: int) -> tuple[int, ...]:
    """Their number of each class of ours."""
    # Codes, then eos, fill, and for version 3 sos and turn of speech.
    special = (0, 2) if version == 2 else (1, 3, 0, 2)
    first = [codebook_size + offset for offset in special]
    rest = [index for index in range(codebook_size, num_classes) if index not in first]
    return (*range(codebook_size), *first, *rest)


def lm_config(
    version: Version,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    head_dim: int = 64,
    rope_theta: float = 1_000_000.0,
    rms_norm_eps: float = 1e-6,
) -> SpeechLMConfig:
    """The config that the shapes of `llm.pt` belong to.

    What no shape says is that of the published models by default.

    Args:
        version: of CosyVoice.
        shapes: shape of every key.
        head_dim: channels of an attention head.
        rope_theta: base of the wavelengths of the rotary positions.
        rms_norm_eps: of every norm.

    Raises:
        WeightsError: keys that the config is read from are missing, or of another shape.
    """
    layer = "llm.model.model.layers.0."
    axes = {
        _TEXT_TABLE: 1,
        layer + "self_attn.q_proj.weight": 0,
        layer + "self_attn.k_proj.weight": 0,
        layer + "mlp.gate_proj.weight": 0,
        "speech_embedding.weight": 0,
    }
    hidden_size, query_size, key_size, inner_size, num_classes = sizes_of(shapes, axes, "llm.pt")
    reserved = 3 if version == 2 else 200
    if num_classes <= reserved or query_size % head_dim or key_size % head_dim:
        raise WeightsError(
            f"llm.pt: {num_classes} speech classes and attention of {query_size} and {key_size} "
            f"channels are not those of CosyVoice {version}, which has {reserved} classes besides "
            f"its codes and heads of {head_dim} channels."
        )
    layers = {match[1] for key in shapes if (match := _LAYER.match(key))}
    return SpeechLMConfig(
        backbone=BackboneConfig(
            model_type="qwen2",
            vocab_size=shapes[_TEXT_TABLE][0],
            hidden_size=hidden_size,
            intermediate_size=inner_size,
            num_layers=len(layers),
            num_heads=query_size // head_dim,
            num_kv_heads=key_size // head_dim,
            rope_theta=rope_theta,
            rms_norm_eps=rms_norm_eps,
            max_positions=32_768,
        ),
        codebook_size=num_classes - reserved,
        extra_classes=reserved - 2,
        any_special_ends=True,
        specials_in_speech_table=version == 3,
        head_bias=version == 2,
    )


def lm_table(version: Version, config: SpeechLMConfig) -> KeyTable:
    """Keys of `llm.pt` without its tied head, and ours."""
    order = class_order(version, config.codebook_size, config.num_classes)
    rules = [
        Rule("llm.model.model.*{rest}", "backbone.*{rest}"),
        Rule("llm_decoder.{part}", "head.{part}", order),
        Rule("speech_embedding.weight", "speech_embedding.weight", order),
    ]
    if version == 2:
        rules.append(Rule("llm_embedding.weight", "special_embedding.weight"))
    return KeyTable(rules)


def lm_to_ours(
    version: Version, config: SpeechLMConfig, state: Mapping[str, Tensor], where: str = "llm.pt"
) -> dict[str, Tensor]:
    """The weights of `llm.pt` under our names.

    Its head over text ids is that of the text model that it grew from, the transpose of the text
    table, and is not used; it is left out here and made again on the way back.
    """
    rest = {key: tensor for key, tensor in state.items() if key != TIED_HEAD}
    return lm_table(version, config).to_ours(rest, where)


def lm_to_theirs(
    version: Version, config: SpeechLMConfig, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Our weights as `llm.pt` has them."""
    theirs = lm_table(version, config).to_theirs(state)
    return theirs | {TIED_HEAD: theirs[_TEXT_TABLE]}
