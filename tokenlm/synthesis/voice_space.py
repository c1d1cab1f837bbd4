"""Voices that nobody has: mixtures of voices, and voices designed by their attributes.

A flow takes the speaker from an embedding and from a prompt. The embedding of a mixture is the mean
of those of its parts; that of a designed voice comes from a linear model of the embeddings of the
training voices, given their attributes (pitch, brightness, age). As a prompt the flow renders the
tokens of a voice that there is with the new embedding, so that the prompt sounds like the voice.

Shapes: E speaker channels, A attributes, K residual directions, V voices.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from tokenlm.atomic import atomic_path
from tokenlm.modules.exact import mix as mix_seed
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.voice import Voice, VoiceError, flow_prompt

FILE = "voice_space.safetensors"
"""In the folder of a bundle."""
FORMAT_VERSION = 1
METADATA_KEY = "tokenlm_voice_space"
RIDGE = 0.05
"""Regularisation of the linear model, in variances of an attribute."""
MAX_RESIDUALS = 16
"""Directions in which designed voices differ besides their attributes."""
RESIDUAL_SHARE = 0.7
"""Of the deviation of training voices in these directions."""
MAX_VALUE = 3.0
"""Standard deviations that an attribute may be away from the mean voice."""
MIN_VOICES = 4


@dataclass(frozen=True, kw_only=True)
class VoiceAttribute:
    """An attribute of the voices that a bundle was trained with."""

    name: str
    mean: float
    """Of the training voices, in its unit."""
    deviation: float
    """Standard deviation, in its unit."""
    unit: str = ""
    num_voices: int = 0
    """Training voices whose value is known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VoiceSpace:
    """A linear model of speaker embeddings, given attributes in standard deviations."""

    attributes: tuple[VoiceAttribute, ...]
    mean: Tensor
    """(E,) embedding of the mean voice."""
    directions: Tensor
    """(A, E) by how much an embedding moves with a standard deviation of each attribute."""
    correlation: Tensor
    """(A, A) of the attributes."""
    residuals: Tensor
    """(K, E) directions, times their standard deviation, in which voices differ otherwise."""
    source: str = ""
    """Where the voices come from."""

    @property
    def names(self) -> list[str]:
        """Names of the attributes."""
        return [attribute.name for attribute in self.attributes]

    @classmethod
    def fit(
        cls, embeddings: Tensor, attributes: Mapping[str, Tensor], *, source: str = ""
    ) -> VoiceSpace:
        """Fits the model by ridge regression.

        Args:
            embeddings: (V, E), one of each voice.
            attributes: (V,) values of each attribute, NaN where they are not known. Those that are
                known of fewer than `MIN_VOICES` voices or do not differ are left out.
            source: where the voices come from.

        Raises:
            VoiceError: there are too few voices, or no attribute is left.
        """
        embeddings = functional.normalize(embeddings.double(), dim=1)
        if embeddings.shape[0] < MIN_VOICES:
            raise VoiceError(
                f"a voice space needs at least {MIN_VOICES} voices, not {len(embeddings)}."
            )
        kept, columns = [], []
        for name, values in attributes.items():
            known = values.double()[values.isfinite()]
            if known.shape[0] < MIN_VOICES or float(known.std()) < 1e-6:
                continue
            mean, deviation = float(known.mean()), float(known.std())
            kept.append(
                VoiceAttribute(
                    name=name, mean=mean, deviation=deviation, num_voices=int(known.shape[0])
                )
            )
            columns.append(((values.double() - mean) / deviation).nan_to_num(0.0))
        if not kept:
            raise VoiceError("no attribute is known of enough voices, or all voices are alike.")
        mean = embeddings.mean(dim=0)
        scores = torch.stack(columns, dim=1)
        count, size = scores.shape
        gram = scores.T @ scores / count
        weights = torch.linalg.solve(
            gram + RIDGE * torch.eye(size, dtype=gram.dtype),
            scores.T @ (embeddings - mean) / count,
        )
        rest = embeddings - mean - scores @ weights
        _, strengths, axes = torch.linalg.svd(rest, full_matrices=False)
        number = min(MAX_RESIDUALS, count - 1)
        residuals = axes[:number] * (strengths[:number, None] / count**0.5)
        scale = gram.diagonal().clamp(min=1e-9).sqrt()
        return cls(
            attributes=tuple(kept),
            mean=mean.float().contiguous(),
            directions=weights.float().contiguous(),
            correlation=(gram / (scale[:, None] * scale)).float().contiguous(),
            residuals=residuals.float().contiguous(),
            source=source,
        )

    def values(self, wanted: Mapping[str, float]) -> Tensor:
        """Values (A,) of all attributes: those that are wanted, and the likeliest others.

        Raises:
            VoiceError: there is no such attribute, or a value is out of range.
        """
        self.check(wanted)
        values = torch.zeros(len(self.attributes), dtype=torch.float32)
        if not wanted:
            return values
        known = torch.tensor([self.names.index(name) for name in wanted])
        given = torch.tensor([float(value) for value in wanted.values()], dtype=torch.float32)
        among = self.correlation[known][:, known] + 0.1 * torch.eye(len(known))
        values = self.correlation[:, known] @ torch.linalg.solve(among, given)
        values[known] = given
        return values

    def check(self, wanted: Mapping[str, float]) -> None:
        """Checks the names and values of attributes; see `values`."""
        for name, value in wanted.items():
            if name not in self.names:
                raise VoiceError(
                    f"the voices of this bundle have no attribute {name!r}; there is: "
                    f"{', '.join(self.names)}."
                )
            if not abs(value) <= MAX_VALUE:
                raise VoiceError(
                    f"{name} is from {-MAX_VALUE:g} to {MAX_VALUE:g} standard deviations, not "
                    f"{value}."
                )

    def design(self, wanted: Mapping[str, float], *, seed: int) -> Tensor:
        """Embedding (E,) of a new voice; the same attributes and seed give the same.

        Args:
            wanted: attributes in standard deviations from the mean voice.
            seed: of what makes it a voice of its own.

        Raises:
            VoiceError: see `values`.
        """
        values = self.values(wanted)
        generator = torch.Generator().manual_seed(mix_seed(seed, 0xD0CE))
        draws = torch.randn(len(self.residuals), generator=generator, dtype=torch.float32)
        own = RESIDUAL_SHARE * draws.clamp(-2, 2) @ self.residuals
        return functional.normalize(self.mean + values @ self.directions + own, dim=0)

    def move(self, embedding: Tensor, changes: Mapping[str, float]) -> Tensor:
        """Embedding (E,) of a voice with some attributes changed, the others kept.

        Args:
            embedding: (E,) of the voice.
            changes: in standard deviations.

        Raises:
            VoiceError: see `values`.
        """
        self.check(changes)
        moved = functional.normalize(embedding, dim=0)
        for name, change in changes.items():
            moved = moved + change * self.directions[self.names.index(name)]
        return functional.normalize(moved, dim=0)

    def estimate(self, embedding: Tensor) -> Tensor:
        """Likeliest values (A,) of the attributes of a voice, in standard deviations.

        Args:
            embedding: (E,) of the voice.
        """
        directions, residuals = self.directions.double(), self.residuals.double()
        joint = self.correlation.double() @ directions
        spread = directions.T @ joint + residuals.T @ residuals
        spread += 1e-2 * spread.diagonal().mean() * torch.eye(len(spread), dtype=spread.dtype)
        away = functional.normalize(embedding, dim=0).double() - self.mean.double()
        return (joint @ torch.linalg.solve(spread, away)).float()

    def save(self, path: str | Path) -> None:
        """Writes the model to one safetensors file, whole or not at all."""
        facts = {
            "format_version": FORMAT_VERSION,
            "attributes": [asdict(attribute) for attribute in self.attributes],
            "source": self.source,
        }
        tensors = {
            name: getattr(self, name).contiguous()
            for name in ("mean", "directions", "correlation", "residuals")
        }
        data = save(tensors, metadata={METADATA_KEY: json.dumps(facts)})
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)

    @classmethod
    def load(cls, path: str | Path) -> VoiceSpace:
        """Reads what `save` wrote.

        Raises:
            VoiceError: the file cannot be read, or its parts do not fit.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                facts = json.loads((file.metadata() or {})[METADATA_KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if facts["format_version"] != FORMAT_VERSION:
                raise VoiceError(f"{path} is of format {facts['format_version']}.")
            space = cls(
                attributes=tuple(VoiceAttribute(**row) for row in facts["attributes"]),
                source=str(facts["source"]),
                **{name: tensor.float() for name, tensor in tensors.items()},
            )
        except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise VoiceError(f"{path} is no voice space, or is damaged: {error}") from error
        count, size = len(space.attributes), space.mean.shape[0]
        shapes = (space.directions.shape, space.correlation.shape, space.residuals.shape[1:])
        if shapes != ((count, size), (count, count), (size,)):
            raise VoiceError(f"{path}: its parts do not fit one another.")
        return space


def mix_voices(components: Components, parts: Sequence[tuple[Voice, float]], *, name: str) -> Voice:
    """A voice between others.

    Args:
        components: the models.
        parts: voices and their weights, which are positive; only their ratios count.
        name: of the result.

    Returns:
        The voice itself, where there is only one.

    Raises:
        VoiceError: a weight is not positive.
    """
    total = sum(weight for _, weight in parts)
    if not parts or not all(weight > 0 for _, weight in parts) or not total < float("inf"):
        raise VoiceError("the weights of a mixture of voices are positive numbers.")
    voices = {voice.digest: voice for voice, _ in parts}
    if len(voices) == 1:
        return parts[0][0]
    embedding = torch.stack(
        [weight / total * functional.normalize(v.speaker_embedding, dim=0) for v, weight in parts]
    ).sum(dim=0)
    offsets = [
        weight / total * voice.mel_offset for voice, weight in parts if voice.mel_offset is not None
    ]
    carrier = max(parts, key=lambda part: part[1])[0]
    return render_voice(
        components,
        replace(carrier, mel_offset=torch.stack(offsets).sum(dim=0) if offsets else None),
        functional.normalize(embedding, dim=0),
        name=name,
    )


@torch.inference_mode()
def render_voice(
    components: Components,
    carrier: Voice,
    embedding: Tensor,
    *,
    name: str,
    description: str = "",
) -> Voice:
    """A voice with an embedding of its own.

    Args:
        components: the models.
        carrier: the voice whose prompt is said again in the new one.
        embedding: (E,) of the new voice.
        name: of the new voice.
        description: of the new voice.
    """
    generation = components.generation
    unprompted = replace(
        carrier,
        prompt_tokens=carrier.prompt_tokens[:0],
        prompt_mel=carrier.prompt_mel[:0],
        speaker_embedding=embedding,
    )
    mel = carrier.prompt_mel
    if carrier.prompt_tokens.shape[0]:
        mel = components.flow.generate(
            carrier.prompt_tokens[None].to(components.device),
            **flow_prompt(unprompted, components.device),
            seed=carrier.seed,
            context=components.flow.default_context,
            num_steps=generation.num_steps,
            guidance_scale=generation.guidance_scale,
        )[0].cpu()
    if carrier.mel_offset is not None:
        mel = mel + carrier.mel_offset
    return replace(
        carrier,
        name=name,
        description=description,
        speaker_embedding=embedding.clone(),
        prompt_mel=mel.half().float().clone(),
    )
