"""Sound: files, sample rates, levels, and what the models see of it."""

from __future__ import annotations

from tokenlm.audio.fbank import FbankConfig, KaldiFbank
from tokenlm.audio.io import AudioError, load_audio, save_audio
from tokenlm.audio.level import high_pass, is_silent, rms_dbfs, trim_silence
from tokenlm.audio.mel import MelConfig, MelSpectrogram, WhisperMel, WhisperMelConfig
from tokenlm.audio.resample import resample

__all__ = [
    "AudioError",
    "FbankConfig",
    "KaldiFbank",
    "MelConfig",
    "MelSpectrogram",
    "WhisperMel",
    "WhisperMelConfig",
    "high_pass",
    "is_silent",
    "load_audio",
    "resample",
    "rms_dbfs",
    "save_audio",
    "trim_silence",
]
