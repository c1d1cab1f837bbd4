"""Voices that nobody has: mixtures of voices, and voices designed by their attributes.

A flow takes the speaker from an embedding and from a prompt. The embedding of a mixture is the mean
of those of its parts; that of a designed voice comes from a linear model of the embeddings of the
training voices, given their attributes (pitch, brightness, age). As a prompt the flow renders the
tokens of a voice that there is with the new embedding, so that the prompt sounds like the voice.

Shapes: E speaker channels, A attributes, K residual directions, V voices.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from tokenlm.arguments import is_number
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
            if not (is_number(value) and abs(value) <= MAX_VALUE):
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
        VoiceError: a weight is not positive, or a voice is spoken by an adapter.
    """
    total = sum(weight for _, weight in parts)
    if not parts or not all(weight > 0 for _, weight in parts) or not total < float("inf"):
        raise VoiceError("the weights of a mixture of voices are positive numbers.")
    if len({(voice.digest, voice.adapter) for voice, _ in parts}) == 1:
        return parts[0][0]
    for voice, _ in parts:
        check_untuned(voice)
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


def check_untuned(voice: Voice) -> None:
    """Checks that another voice can be made of a voice.

    Raises:
        VoiceError: it is spoken by an adapter, which has learned this voice alone.
    """
    if voice.adapter:
        raise VoiceError(
            f"the voice {voice.name!r} is spoken by an adapter, which cannot be mixed with others "
            "or changed."
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
        consent=None,  # what somebody agreed to is about another voice
        speaker_embedding=embedding.clone(),
        prompt_mel=mel.half().float().clone(),
    )


# --- Descriptions, such as "a calm older man", as values of attributes ---
#
# Each word that is known moves attributes by some standard deviations of the voices of a bundle;
# words such as "very" and "slightly" change by how much, and "not" and "less" the direction.

Moves = dict[str, float]

ATTRIBUTES = {
    "pitch": "how high the voice is",
    "brightness": "how much of the sound is in high frequencies",
    "liveliness": "how much the pitch moves",
    "age": "how old the speaker sounds",
    "sex": "from male (below 0) to female (above 0)",
}
"""Attributes of voices, in units of standard deviations from the mean voice."""


def _table(*rows: tuple[str, Moves]) -> dict[str, Moves]:
    return {word: moves for words, moves in rows for word in words.split()}


DESCRIPTIVE_WORDS = _table(
    ("man male masculine gentleman guy he his", {"sex": -1.0}),
    ("woman female feminine lady she her", {"sex": 1.0}),
    ("boy", {"sex": -0.7, "age": -1.8, "pitch": 1.0}),
    ("girl", {"sex": 1.0, "age": -1.8, "pitch": 1.2}),
    ("child kid childlike", {"age": -2.0, "pitch": 1.5}),
    ("grandfather grandpa", {"sex": -1.0, "age": 2.0}),
    ("grandmother grandma", {"sex": 1.0, "age": 2.0}),
    ("androgynous neutral", {"sex": 0.0}),
    ("old older elderly aged senior mature", {"age": 1.5}),
    ("middle-aged", {"age": 0.6}),
    ("young younger youthful teenage teenager", {"age": -1.3}),
    ("deep low lower bass baritone low-pitched", {"pitch": -1.5}),
    ("high higher high-pitched squeaky soprano", {"pitch": 1.5}),
    ("tenor", {"pitch": 0.4, "sex": -1.0}),
    ("bright brighter crisp sharp clear tinny thin shrill", {"brightness": 1.4}),
    ("dark darker warm warmer mellow muffled soft round rich velvety", {"brightness": -1.4}),
    ("calm calmer monotone monotonous flat serious relaxed bored sober even", {"liveliness": -1.4}),
    ("gentle quiet sleepy soothing", {"liveliness": -1.0, "brightness": -0.6}),
    ("lively livelier animated expressive excited energetic cheerful", {"liveliness": 1.4}),
    ("enthusiastic dramatic happy melodic sing-song", {"liveliness": 1.4}),
)
"""What words say of a voice."""
_SCALES = {
    **dict.fromkeys(("very", "really", "extremely", "quite", "strongly", "much"), 1.5),
    **dict.fromkeys(("slightly", "somewhat", "bit", "little", "rather", "fairly", "mildly"), 0.5),
    **dict.fromkeys(("not", "less", "without", "never", "isn't", "no"), -0.8),
}
_PASSED_OVER = frozenset(
    "a an the of with and but who whose voice voiced speaker speaking speaks sounding sounds sound "
    "person one that is in very-like like tone kind".split()
)
_WORD = re.compile(r"[a-z]+(?:[-'][a-z]+)*")


class DescriptionError(ValueError):
    """A description of which no word is understood."""


@dataclass(frozen=True)
class Description:
    """What is understood of a description."""

    attributes: Moves
    """Value of each attribute that is mentioned."""
    ignored: list[str] = field(default_factory=list)
    """Words that are not understood."""


def read_description(text: str) -> Description:
    """The attributes that a description mentions.

    Args:
        text: in English, in any case.

    Raises:
        DescriptionError: no word of it is understood.
    """
    found: dict[str, list[float]] = {}
    ignored: list[str] = []
    scale = 1.0
    for word in _words(text):
        if word in _SCALES:
            scale *= _SCALES[word]
        elif word in DESCRIPTIVE_WORDS:
            for name, value in DESCRIPTIVE_WORDS[word].items():
                found.setdefault(name, []).append(scale * value)
            scale = 1.0
        elif word not in _PASSED_OVER:
            ignored.append(word)
            scale = 1.0
    if not found:
        known = ", ".join(sorted(DESCRIPTIVE_WORDS)[:: max(len(DESCRIPTIVE_WORDS) // 12, 1)])
        raise DescriptionError(
            f"nothing of the description {text[:60]!r} is understood; words such as: {known}."
        )
    # Of several words about one thing the strongest counts: an elderly lady is not twice female.
    return Description({name: max(values, key=abs) for name, values in found.items()}, ignored)


def _words(text: str) -> list[str]:
    words = []
    for word in _WORD.findall(text.lower()):
        words += [word] if word in DESCRIPTIVE_WORDS or word in _SCALES else word.split("-")
    return words
