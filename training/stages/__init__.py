"""The stages of training; each is one module with a config and a task."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.config import RunConfig
    from training.loop.task import Task

STAGES: dict[str, tuple[str, str]] = {
    "speech_tokenizer": ("SpeechTokenizerStageConfig", "SpeechTokenizerTask"),
    "token_recognizer": ("TokenRecognizerStageConfig", "TokenRecognizerTask"),
    "speaker_encoder": ("SpeakerEncoderStageConfig", "SpeakerEncoderTask"),
    "directedness": ("DirectednessStageConfig", "DirectednessTask"),
    "text_directedness": ("TextDirectednessStageConfig", "TextDirectednessTask"),
    "phrase_checker": ("PhraseCheckerStageConfig", "PhraseCheckerTask"),
    "phrase_detector": ("PhraseDetectorStageConfig", "PhraseDetectorTask"),
    "speech_lm": ("SpeechLMStageConfig", "SpeechLMTask"),
    "dpo": ("DPOStageConfig", "DPOTask"),
    "grpo": ("GRPOStageConfig", "GRPOTask"),
    "token_reward": ("TokenRewardStageConfig", "TokenRewardTask"),
    "flow": ("FlowStageConfig", "FlowTask"),
    "vocoder": ("VocoderStageConfig", "VocoderTask"),
    "hift": ("HiFTStageConfig", "HiFTTask"),
    "voice_isolator": ("VoiceIsolatorStageConfig", "VoiceIsolatorTask"),
    "mel_enhancer": ("MelEnhancerStageConfig", "MelEnhancerTask"),
}
"""Names of the config and the task class in `training.stages.<stage>`, by stage."""


def stage_classes(stage: str) -> tuple[type[RunConfig], type[Task]]:
    """Import a stage and return its config class and its task class."""
    config_name, task_name = STAGES[stage]
    module = import_module(f"training.stages.{stage}")
    return getattr(module, config_name), getattr(module, task_name)
