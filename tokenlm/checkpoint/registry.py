"""The kinds of components that exist, and how each is built from its config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from tokenlm.checkpoint.component import ComponentError, load_component, read_component
from tokenlm.config import from_dict
from tokenlm.models.enhancer import (
    MelEnhancer,
    MelEnhancerConfig,
    VoiceIsolator,
    VoiceIsolatorConfig,
)
from tokenlm.models.flow import FlowConfig, FlowDecoder
from tokenlm.models.fsmn_tokenizer import FSMNTokenizer, FSMNTokenizerConfig
from tokenlm.models.lm import SpeechLM, SpeechLMConfig
from tokenlm.models.onnx_models import (
    OnnxSpeakerConfig,
    OnnxSpeakerEncoder,
    OnnxTokenizer,
    OnnxTokenizerConfig,
)
from tokenlm.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from tokenlm.models.speech_tokenizer import SpeechTokenizer, SpeechTokenizerConfig
from tokenlm.models.token_recognizer import TokenRecognizer, TokenRecognizerConfig
from tokenlm.models.vocoder import HiFT, HiFTConfig, Vocoder, VocoderConfig

KINDS: dict[str, tuple[type, Callable[[Any], nn.Module]]] = {
    "speech_tokenizer": (SpeechTokenizerConfig, SpeechTokenizer),
    "token_recognizer": (TokenRecognizerConfig, TokenRecognizer),
    "speaker_encoder": (SpeakerEncoderConfig, SpeakerEncoder),
    "speech_lm": (SpeechLMConfig, SpeechLM),
    "flow": (FlowConfig, FlowDecoder),
    "vocoder": (VocoderConfig, Vocoder),
    "hift": (HiFTConfig, HiFT),
    "voice_isolator": (VoiceIsolatorConfig, VoiceIsolator),
    "mel_enhancer": (MelEnhancerConfig, MelEnhancer),
    "fsmn_tokenizer": (FSMNTokenizerConfig, FSMNTokenizer),
    "onnx_tokenizer": (OnnxTokenizerConfig, OnnxTokenizer),
    "onnx_speaker_encoder": (OnnxSpeakerConfig, OnnxSpeakerEncoder),
}
"""Config class and model of every kind."""

AnySpeechTokenizer = SpeechTokenizer | FSMNTokenizer | OnnxTokenizer
SPEECH_TOKENIZERS = (SpeechTokenizer, FSMNTokenizer, OnnxTokenizer)
"""The classes of speech tokenizers."""

AnySpeakerEncoder = SpeakerEncoder | OnnxSpeakerEncoder
SPEAKER_ENCODERS = (SpeakerEncoder, OnnxSpeakerEncoder)
"""The classes of speaker encoders."""

ModelT = TypeVar("ModelT", bound=nn.Module)


def read_model_config(folder: str | Path) -> Any:
    """The config of the component in `folder`, without its weights.

    Raises:
        ComponentError: the folder is no component, or of a kind that is not known.
        ConfigError: the config is not one of its kind.
    """
    files = read_component(folder)
    if files.kind not in KINDS:
        raise ComponentError(f"{folder} is of the unknown kind {files.kind!r}.")
    return from_dict(KINDS[files.kind][0], files.config, where=files.config_path)


def load_model(
    folder: str | Path,
    *model_classes: type[ModelT],
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ModelT:
    """Loads the component in `folder`, which must be of one of the classes; frozen, for evaluation.

    Args:
        folder: the component.
        model_classes: the classes that it may have.
        device: where the model is put.
        dtype: the type of its floating-point weights.

    Raises:
        ComponentError: the folder holds another kind, or does not load.
    """
    model = load_component(folder, KINDS, device=device, dtype=dtype)
    if not isinstance(model, model_classes):
        names = " or a ".join(model_class.__name__ for model_class in model_classes)
        raise ComponentError(f"{folder} holds a {type(model).__name__}, but a {names} is needed.")
    return model.requires_grad_(False)
