"""Sound: files, sample rates, levels, and what the models see of it.

Most names are imported when first used: looking at a file needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# At once: its name is that of its module, which would take its place.
from tokenlm.audio.resample import resample

if TYPE_CHECKING:
    from tokenlm.audio.fbank import FbankConfig, KaldiFbank
    from tokenlm.audio.io import AudioError, load_audio, save_audio
    from tokenlm.audio.level import high_pass, is_silent, rms_dbfs, trim_silence
    from tokenlm.audio.mel import MelConfig, MelSpectrogram, WhisperMel, WhisperMelConfig

_NAMES = {
    "fbank": ("FbankConfig", "KaldiFbank"),
    "io": ("AudioError", "load_audio", "save_audio"),
    "level": ("high_pass", "is_silent", "rms_dbfs", "trim_silence"),
    "mel": ("MelConfig", "MelSpectrogram", "WhisperMel", "WhisperMelConfig"),
}
"""Names of each module."""
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


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
