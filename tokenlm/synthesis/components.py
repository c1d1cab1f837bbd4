"""The components of a bundle, loaded and checked against one another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from tokenlm.checkpoint.bundle import BundleError, BundleManifest, read_manifest
from tokenlm.checkpoint.component import read_component
from tokenlm.checkpoint.registry import load_model
from tokenlm.config import from_dict
from tokenlm.models.flow import FlowDecoder
from tokenlm.models.lm import SamplingConfig, SpeechLM
from tokenlm.models.speaker_encoder import SpeakerEncoder
from tokenlm.models.speech_tokenizer import SpeechTokenizer
from tokenlm.models.token_recognizer import TokenRecognizer
from tokenlm.models.vocoder import Vocoder
from tokenlm.text.tokenizer import TextTokenizer

ModelT = TypeVar("ModelT", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings of generation that fit the weights of a bundle."""

    sampling: SamplingConfig = SamplingConfig()
    num_steps: int = 6
    """Solver steps of the flow."""
    guidance_scale: float = 0.7
    """Guidance of the flow."""
    max_segment_characters: int = 160
    """Longer sentences are cut at commas or between words."""
    max_prompt_seconds: float = 10.0
    """Longer prompts are cut."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")
        if self.guidance_scale < 0:
            raise ValueError(f"guidance_scale must not be negative, got {self.guidance_scale}")


class Components:
    """What a bundle holds. The parts that read recordings are loaded when first used."""

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        """Loads the parts that speak.

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
        self.speech_lm = self._load("speech_lm", SpeechLM)
        self.flow = self._load("flow", FlowDecoder)
        self.vocoder = self._load("vocoder", Vocoder)
        self.text_tokenizer = TextTokenizer.from_folder(folder / "text_tokenizer")
        self._check()

    @cached_property
    def speech_tokenizer(self) -> SpeechTokenizer:
        """The speech tokenizer."""
        return self._load("speech_tokenizer", SpeechTokenizer)

    @cached_property
    def token_recognizer(self) -> TokenRecognizer:
        """The ASR half of the tokenizer."""
        return self._load("token_recognizer", TokenRecognizer)

    @cached_property
    def speaker_encoder(self) -> SpeakerEncoder:
        """The speaker encoder."""
        return self._load("speaker_encoder", SpeakerEncoder)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the speech tokenizer that all parts were trained with."""
        return str(self._facts("flow").get("tokenizer", ""))

    def _load(self, name: str, model_class: type[ModelT]) -> ModelT:
        if name not in self.manifest.components:
            raise BundleError(f"{self.folder} has no component {name!r}.")
        return load_model(self.folder / name, model_class, device=self.device)

    def _facts(self, name: str) -> dict[str, Any]:
        return read_component(self.folder / name).extra

    def _check(self) -> None:
        speech, flow, vocoder = self.speech_lm.config, self.flow.config, self.vocoder.config
        if speech.codebook_size != flow.codebook_size:
            raise BundleError(
                f"{self.folder}: speech_lm writes {speech.codebook_size} codes, but flow reads "
                f"{flow.codebook_size}."
            )
        if flow.mel != vocoder.mel:
            raise BundleError(f"{self.folder}: flow and vocoder have different mels.")
        if vocoder.mel.sample_rate != self.manifest.sample_rate:
            raise BundleError(
                f"{self.folder}: the vocoder gives {vocoder.mel.sample_rate} Hz, but bundle.yaml "
                f"says {self.manifest.sample_rate}."
            )
        tokenizers = {name: self._facts(name).get("tokenizer") for name in ("speech_lm", "flow")}
        if tokenizers["speech_lm"] != tokenizers["flow"]:
            raise BundleError(
                f"{self.folder}: speech_lm was trained with tokens of the speech tokenizer "
                f"{tokenizers['speech_lm']}, flow with those of {tokenizers['flow']}."
            )
        if self.text_tokenizer.vocab_size > speech.backbone.vocab_size:
            raise BundleError(
                f"{self.folder}: text_tokenizer has {self.text_tokenizer.vocab_size} pieces, but "
                f"speech_lm knows {speech.backbone.vocab_size}."
            )

    def check_tokenizer(self) -> None:
        """Checks that the speech tokenizer is the one that flow and LM were trained with.

        Raises:
            BundleError: it is another one.
        """
        found = self.speech_tokenizer.fingerprint
        if found != self.fingerprint:
            raise BundleError(
                f"{self.folder}: the speech tokenizer has the fingerprint {found}, but flow was "
                f"trained with {self.fingerprint}."
            )
