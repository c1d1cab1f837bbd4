"""The components of a bundle, loaded and checked against one another."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import torch
from torch import nn

from tokenlm.arguments import check_kind, is_number
from tokenlm.checkpoint.bundle import BundleError, BundleManifest, read_manifest
from tokenlm.checkpoint.component import read_component
from tokenlm.checkpoint.registry import (
    KINDS,
    SPEAKER_ENCODERS,
    SPEECH_TOKENIZERS,
    AnySpeakerEncoder,
    AnySpeechTokenizer,
    load_model,
    read_model_config,
)
from tokenlm.config import from_dict
from tokenlm.models.enhancer import MelEnhancer, VoiceIsolator
from tokenlm.models.flow import FlowDecoder
from tokenlm.models.lm import GuardConfig, SamplingConfig, SpeechLM
from tokenlm.models.token_recognizer import TokenRecognizer
from tokenlm.models.vocoder import HiFT, Vocoder
from tokenlm.synthesis.adapters import AdapterStore, VoiceModels
from tokenlm.synthesis.guards import ReadBack
from tokenlm.text.pronunciation import Respeller, UserLexicon
from tokenlm.text.tokenizers import TextTokenizer, load_text_tokenizer

ModelT = TypeVar("ModelT", bound=nn.Module)

Solver = Literal[
    "euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams",
    "adaptive_heun", "bosh3", "dopri5", "dopri8", "fehlberg2",
]  # fmt: skip
"""Methods that integrate the flow; all but "euler" are those of `torchdiffeq`. The first line has
fixed steps, `num_steps` of them."""

PRONUNCIATIONS_FILE = "pronunciations.txt"
"""In the folder of a bundle: a lexicon for all that it says."""

_LAZY_COMPONENTS: dict[str, tuple[type[nn.Module], ...]] = {
    "speech_tokenizer": SPEECH_TOKENIZERS,
    "token_recognizer": (TokenRecognizer,),
    "speaker_encoder": SPEAKER_ENCODERS,
    "voice_isolator": (VoiceIsolator,),
    "mel_enhancer": (MelEnhancer,),
}
"""Classes of the components that are loaded when first used."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How voices are fitted to their prompts; by default not at all."""

    num_steps: int = 0
    """Gradient steps on the speaker embedding; 0 leaves it as the speaker encoder gives it."""
    num_draws: int = 4
    """Points of the flow in each step."""
    learning_rate: float = 0.03
    """Of Adam; the embedding has the length 1."""
    offset_share: float = 0.0
    """Share of the mean log-mel difference between prompt and rendering that is added to speech."""
    max_offset: float = 1.0
    """Root mean square of the offset, in log-mel, above which a voice is not fitted. A voice is
    rendered nearer than that; a larger difference is noise or a narrow band of the recording."""
    offset_tokens: int = 10
    """Prompt tokens at which half of that share is added: short prompts say little."""

    def __post_init__(self) -> None:
        if self.num_steps < 0 or self.num_draws < 1:
            raise ValueError(
                "num_steps of a fit must be at least 0 and num_draws at least 1, got "
                f"{self.num_steps} and {self.num_draws}"
            )
        if self.learning_rate <= 0 or self.max_offset <= 0 or self.offset_tokens < 0:
            raise ValueError(
                "learning_rate and max_offset of a fit must be positive and offset_tokens not "
                f"negative, got {self.learning_rate}, {self.max_offset} and {self.offset_tokens}"
            )
        if not 0 <= self.offset_share <= 1:
            raise ValueError(f"offset_share must be between 0 and 1, got {self.offset_share}")


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings of generation that fit the weights of a bundle."""

    sampling: SamplingConfig = SamplingConfig()
    guards: GuardConfig = GuardConfig()
    """Of the LM."""
    prompt_in_lm: bool = True
    """Whether the LM continues the prompt's text and tokens (in-context cloning). Without it the
    voice comes from the flow alone, and a small LM has less to lose its place in."""
    num_steps: int = 6
    """Solver steps of the flow."""
    guidance_scale: float = 0.7
    """Guidance of the flow."""
    solver: Solver = "euler"
    """Solver of the flow for whole speech. Streams always use Euler steps."""
    max_segment_characters: int = 160
    """Longer sentences are cut at commas or between words."""
    max_prompt_seconds: float = 10.0
    """Longer prompts are cut."""
    voice_fit: FitConfig = FitConfig()
    """How voices are fitted to their prompts when they are prepared."""
    instruction: str = ""
    """Text that the LM reads before all other, as it was trained to."""
    instruction_end: str = ""
    """What ends the instruction of a request, such as how to speak; empty where the LM was not
    trained to follow any."""

    def __post_init__(self) -> None:
        is_whole = isinstance(self.num_steps, int) and not isinstance(self.num_steps, bool)
        if not is_whole or self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1 and whole, got {self.num_steps}")
        if not (is_number(self.guidance_scale) and 0 <= self.guidance_scale < math.inf):
            raise ValueError(
                f"guidance_scale must be a number, 0 or more, got {self.guidance_scale}"
            )
        if self.max_segment_characters < 20 or self.max_prompt_seconds < 1:
            raise ValueError(
                "max_segment_characters must be at least 20 and max_prompt_seconds at least 1, "
                f"got {self.max_segment_characters} and {self.max_prompt_seconds}"
            )

    def check_instruction(self, instruction: str) -> str:
        """The instruction of a request without spaces around it and `instruction_end`.

        Raises:
            ValueError: the LM was not trained to follow any, or it is no text.
        """
        check_kind("instruction", instruction, str)
        text = instruction.strip()
        if text and not self.instruction_end:
            raise ValueError("this bundle cannot follow instructions; leave them out.")
        return text.removesuffix(self.instruction_end).strip()


def check_solver(solver: str) -> Solver:
    """The solver itself.

    Raises:
        ValueError: there is none of that name.
    """
    for known in get_args(Solver):
        if solver == known:
            return known
    raise ValueError(f"solver must be one of {', '.join(get_args(Solver))}, got {solver!r}")


def floating_type(dtype: str | torch.dtype) -> torch.dtype:
    """The type of that name.

    Raises:
        ValueError: models do not run in it.
    """
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype in types.values():
        return cast("torch.dtype", dtype)
    if dtype not in types:
        raise ValueError(f"dtype must be one of {', '.join(types)}, got {dtype!r}")
    return types[str(dtype)]


class Components:
    """The components of a bundle. Those that analyse recordings are loaded when first used."""

    speech_lm: SpeechLM
    flow: FlowDecoder
    vocoder: Vocoder | HiFT

    def __init__(
        self,
        folder: Path,
        device: str | torch.device = "cpu",
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Loads the parts that speak.

        Args:
            folder: the bundle.
            device: where the models run.
            dtype: what the language model and the flow are kept and compute in. The vocoder and the
                parts that analyse recordings are small, and stay in float32.

        Raises:
            BundleError: a part is missing, or two parts disagree; both are named.
            ComponentError: a part does not load.
        """
        self.folder = folder
        self.device = torch.device(device)
        self.manifest: BundleManifest = read_manifest(folder)
        self.generation = from_dict(
            GenerationConfig, self.manifest.generation, where=folder / "bundle.yaml"
        )
        self.speech_lm = self._load("speech_lm", SpeechLM, dtype=dtype)
        self.flow = self._load("flow", FlowDecoder, dtype=dtype)
        self.vocoder = self._load("vocoder", Vocoder, HiFT)
        self.text_tokenizer = load_text_tokenizer(folder / "text_tokenizer")
        self._check()
        if (folder / PRONUNCIATIONS_FILE).is_file():
            self.add_lexicon(UserLexicon.load(folder / PRONUNCIATIONS_FILE))

    @classmethod
    def from_models(
        cls,
        models: Mapping[str, nn.Module],
        text_tokenizer: TextTokenizer,
        manifest: BundleManifest,
        *,
        folder: Path,
        fingerprint: str = "",
    ) -> Components:
        """Components that lie in no folder, such as untrained models that are to be measured.

        Args:
            models: by name; at least speech_lm, flow and vocoder.
            text_tokenizer: of the LM.
            manifest: what the bundle would say of itself.
            folder: where its voices are looked for.
            fingerprint: of the speech tokenizer.
        """
        self = cls.__new__(cls)
        self.folder, self.manifest, self.text_tokenizer = folder, manifest, text_tokenizer
        self.generation = from_dict(GenerationConfig, manifest.generation, where=folder)
        self.__dict__["fingerprint"] = fingerprint
        for name, model in models.items():
            self.__dict__[name] = model.eval().requires_grad_(False)
        self.device = next(models["flow"].parameters()).device
        return self

    lexicon = UserLexicon()
    """Pronunciations for all requests, which win over those of the text tokenizer."""
    respeller: Respeller | None = None
    """Writes the words of this lexicon."""

    def add_lexicon(self, lexicon: UserLexicon) -> None:
        """Adds pronunciations for all requests; before the first of them.

        Raises:
            LexiconError: the text tokenizer has no phones, or not all of these.
        """
        if lexicon:
            self.lexicon |= lexicon
            self.text_tokenizer, self.respeller = self.text_tokenizer.with_lexicon(self.lexicon)

    @property
    def base_models(self) -> VoiceModels:
        """The models that speak without an adapter."""
        return VoiceModels(speech_lm=self.speech_lm, flow=self.flow, vocoder=self.vocoder)

    @cached_property
    def adapters(self) -> AdapterStore:
        """The adapters that are loaded over the bundle."""
        return AdapterStore(self.base_models, self.manifest, self.folder, self.flow.dtype)

    def models(self, adapter: str = "") -> VoiceModels:
        """What speaks with an adapter, given by its name or folder; without one the bundle.

        Raises:
            AdapterError: it cannot be read, or was learned on another bundle.
        """
        return self.adapters.models(adapter) if adapter else self.base_models

    @cached_property
    def speech_tokenizer(self) -> AnySpeechTokenizer:
        """The speech tokenizer."""
        return self._load("speech_tokenizer", *SPEECH_TOKENIZERS)

    @property
    def has_token_recognizer(self) -> bool:
        """Whether the bundle has a token recogniser."""
        return "token_recognizer" in self.manifest.components

    @cached_property
    def token_recognizer(self) -> TokenRecognizer:
        """The ASR half of the tokenizer.

        Raises:
            BundleError: the bundle has none, as imported ones.
        """
        if not self.has_token_recognizer:
            raise BundleError(
                f"{self.folder} has no component 'token_recognizer', which reads speech tokens: "
                "imported bundles come without. The stage token_recognizer trains one for their "
                "tokens, and `tokenlm export bundle` adds it (docs/fine-tune.md). Until then "
                "transcribe with another bundle (--bundle mini-en), and turn off the guards that "
                "read back (max_attempts, num_candidates)."
            )
        return self._load("token_recognizer", TokenRecognizer)

    @cached_property
    def read_back(self) -> ReadBack:
        """Compares speech tokens with texts.

        Raises:
            BundleError: the bundle has no token recogniser.
        """
        return ReadBack(self.token_recognizer, self.text_tokenizer)

    @cached_property
    def speaker_encoder(self) -> AnySpeakerEncoder:
        """The speaker encoder."""
        return self._load("speaker_encoder", *SPEAKER_ENCODERS)

    @cached_property
    def voice_isolator(self) -> VoiceIsolator:
        """What takes noise and other voices out of recordings.

        Raises:
            BundleError: the bundle has none.
        """
        require_enhancer(self.manifest.components, str(self.folder))
        return self._load("voice_isolator", VoiceIsolator)

    @cached_property
    def mel_enhancer(self) -> MelEnhancer | None:
        """What mends mels of recordings; None where the bundle does without it."""
        if "mel_enhancer" not in self.manifest.components:
            return None
        return self._load("mel_enhancer", MelEnhancer)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the speech tokenizer that all parts were trained with."""
        return str(self._facts("flow").get("tokenizer", ""))

    def _load(
        self, name: str, *model_classes: type[ModelT], dtype: torch.dtype = torch.float32
    ) -> ModelT:
        if name not in self.manifest.components:
            raise BundleError(f"{self.folder} has no component {name!r}.")
        return load_model(self._path(name), *model_classes, device=self.device, dtype=dtype)

    def _path(self, name: str) -> Path:
        """Folder of a part."""
        return self.folder / name

    def _facts(self, name: str) -> dict[str, Any]:
        return read_component(self._path(name)).extra

    def _config(self, name: str) -> Any:
        """The config of a part that is not loaded yet; None where the bundle does without it.

        Those of the kinds that a part may be of have the same facts.
        """
        if name not in self.manifest.components:
            return None
        config = read_model_config(self._path(name))
        kind = read_component(self._path(name)).kind
        if KINDS[kind][1] not in _LAZY_COMPONENTS[name]:
            names = " or a ".join(known.__name__ for known in _LAZY_COMPONENTS[name])
            raise BundleError(f"{self._path(name)} is a {kind}, but a {names} is needed.")
        return config

    def _agree(self, fact: str, first: tuple[str, object], second: tuple[str, object]) -> None:
        if first[1] != second[1]:
            raise BundleError(
                f"{self.folder}: {first[0]} and {second[0]} disagree about the {fact}: "
                f"{first[1]} and {second[1]}."
            )

    def _check(self) -> None:
        speech, flow, vocoder = self.speech_lm.config, self.flow.config, self.vocoder.config
        self._agree(
            "codebook size", ("speech_lm", speech.codebook_size), ("flow", flow.codebook_size)
        )
        self._agree("token rate", ("speech_lm", speech.token_rate), ("flow", flow.token_rate))
        self._agree("mel", ("flow", flow.mel), ("vocoder", vocoder.mel))
        self._agree(
            "sample rate",
            ("vocoder", vocoder.mel.sample_rate),
            ("bundle.yaml", self.manifest.sample_rate),
        )
        self._agree(
            "speech tokenizer that they were trained with",
            ("speech_lm", self._facts("speech_lm").get("tokenizer")),
            ("flow", self._facts("flow").get("tokenizer")),
        )
        if self.text_tokenizer.vocab_size > speech.backbone.vocab_size:
            raise BundleError(
                f"{self.folder}: text_tokenizer has {self.text_tokenizer.vocab_size} pieces, but "
                f"speech_lm knows {speech.backbone.vocab_size}."
            )
        tokenizer = self._config("speech_tokenizer")
        if tokenizer is not None:
            mine = "speech_tokenizer"
            self._agree(
                "codebook size", (mine, tokenizer.codebook_size), ("flow", flow.codebook_size)
            )
            self._agree("token rate", (mine, tokenizer.token_rate), ("flow", flow.token_rate))
        recognizer = self._config("token_recognizer")
        if recognizer is not None:
            mine, size = "token_recognizer", math.prod(recognizer.levels)
            self._agree("codebook size", (mine, size), ("flow", flow.codebook_size))
            if tokenizer is not None:
                self._agree(
                    "levels", ("speech_tokenizer", tokenizer.levels), (mine, recognizer.levels)
                )
            known = self._facts(mine).get("tokenizer")
            if known:  # older ones do not say
                self._agree(
                    "speech tokenizer that they were trained with",
                    (mine, known),
                    ("flow", self.fingerprint),
                )
        speaker = self._config("speaker_encoder")
        if speaker is not None:
            self._agree(
                "size of a speaker embedding",
                ("speaker_encoder", speaker.embedding_dim),
                ("flow", flow.speaker_dim),
            )
            if tokenizer is not None:
                self._agree(
                    "sample rate",
                    ("speaker_encoder", speaker.mel.sample_rate),
                    ("speech_tokenizer", tokenizer.mel.sample_rate),
                )

        enhancer = self._config("mel_enhancer")
        if enhancer is not None:
            self._agree("mel", ("mel_enhancer", enhancer.mel), ("vocoder", vocoder.mel))
            isolator = self._config("voice_isolator")
            if isolator is not None:
                self._agree(
                    "sample rate",
                    ("voice_isolator", isolator.sample_rate),
                    ("mel_enhancer", enhancer.mel.sample_rate),
                )

    def check_tokenizer(self) -> None:
        """Checks that the speech tokenizer is the one that flow and LM were trained with.

        Raises:
            BundleError: it is another one.
        """
        self._agree(
            "fingerprint of the speech tokenizer",
            ("speech_tokenizer", self.speech_tokenizer.fingerprint),
            ("flow", self.fingerprint),
        )


def require_enhancer(names: Collection[str], where: str) -> None:
    """Checks that there is an enhancer among the components of these names.

    Raises:
        BundleError: there is none.
    """
    if "voice_isolator" not in names:
        raise BundleError(
            f"{where} has no component 'voice_isolator', which takes noise out of recordings. The "
            "stage voice_isolator trains one, and `tokenlm export bundle` adds it "
            "(docs/enhance.md)."
        )
