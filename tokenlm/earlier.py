"""Kinds of components that earlier versions wrote, and what they are now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class EarlierKind:
    """How a component of an earlier kind reads today."""

    kind: str
    added: Mapping[str, Any]
    """Keys that its config did not have, and what they are for it."""
    values: Mapping[tuple[str, Any], Any] = field(default_factory=dict)
    """Present value of a key and a value of its config."""
    prefixes: Mapping[str, str] = field(default_factory=dict)
    """Present start of the names of weights, by the earlier one."""


EARLIER_KINDS = {
    # The flows of CosyVoice 2 and 3, before they were configurations of `FlowDecoder`.
    "cosyvoice_flow": EarlierKind(
        kind="flow",
        added={
            "speaker_condition_dim": 80,
            "patch_frames": 1,
            "mel_mean": 0.0,
            "mel_std": 1.0,
            "num_steps": 10,
            "chunks_from": "prompt_start",
            "chunk_step_tokens": [],
        },
        values={("estimator", "dit"): "f5_dit"},
        prefixes={"embedding.": "encoder.embedding.", "project.": "encoder.project."},
    ),
}


def present_kind(kind: str) -> str:
    """The name of a kind in this version."""
    return EARLIER_KINDS[kind].kind if kind in EARLIER_KINDS else kind


def present_config(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a component of `kind` as one of the present kind, both plain data."""
    earlier = EARLIER_KINDS.get(kind)
    if earlier is None:
        return dict(config)
    known = {
        key: earlier.values.get((key, value), value) if isinstance(value, str) else value
        for key, value in config.items()
    }
    return {**earlier.added, **known}


def present_weights(kind: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a component of `kind` by their present names."""
    earlier = EARLIER_KINDS.get(kind)
    prefixes = {} if earlier is None else earlier.prefixes
    renamed = {}
    for name, weight in state.items():
        old = next((old for old in prefixes if name.startswith(old)), "")
        renamed[prefixes.get(old, "") + name.removeprefix(old)] = weight
    return renamed
