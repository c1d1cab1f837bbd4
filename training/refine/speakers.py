"""Who speaks: the same voice within a clip, and groups of clips of one voice.

Shapes: E embedding channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

Embed = Callable[[Tensor], Tensor]
"""Waveform (S,) at 16 kHz to a unit vector (E,)."""


def load_encoder(folder: Path, device: str = "cpu") -> tuple[Embed, str]:
    """Return what the speaker encoder of a component folder hears, and a name of its weights.

    Args:
        folder: The component.
        device: Where it computes; vectors come back to the CPU.

    Raises:
        ValueError: If there is no speaker encoder.
    """
    from tokenlm.checkpoint.registry import SPEAKER_ENCODERS, load_model
    from tokenlm.models.onnx_models import OnnxSpeakerEncoder
    from training.data.precompute import encoder_digest

    encoder = load_model(folder, *SPEAKER_ENCODERS, device=device)

    def embed(waveform: Tensor) -> Tensor:
        waveform = waveform.to(device)
        if isinstance(encoder, OnnxSpeakerEncoder):  # gives it any length
            return torch.nn.functional.normalize(encoder.embed_recording(waveform), dim=0).cpu()
        lengths = torch.tensor([waveform.shape[0]], device=device)
        return encoder(waveform[None], lengths)[0].cpu()

    return embed, encoder_digest(encoder)


def consistency(waveform: Tensor, embed: Embed) -> float:
    """Cosine of the embeddings of both halves of a clip."""
    middle = waveform.shape[0] // 2
    return float(embed(waveform[:middle]) @ embed(waveform[middle:]))


def group_voices(embeddings: Sequence[Tensor], threshold: float = 0.6) -> list[int]:
    """Group clips by voice: each joins the group whose mean is the most alike, or begins one.

    Args:
        embeddings: Unit vectors (E,).
        threshold: Least cosine with the mean of a group.

    Returns:
        Number of the group of each clip, from 0 in the order of their first clips.
    """
    sums: list[Tensor] = []
    groups = []
    for vector in embeddings:
        found = -1
        if sums:
            means = torch.nn.functional.normalize(torch.stack(sums), dim=1)
            alike = means @ vector
            best = int(alike.argmax())
            found = best if float(alike[best]) >= threshold else -1
        if found < 0:
            found = len(sums)
            sums.append(torch.zeros_like(vector))
        sums[found] = sums[found] + vector
        groups.append(found)
    return groups
