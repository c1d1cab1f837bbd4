"""The microphone, by the package sounddevice (extra `record`)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK_SECONDS = 0.1


class MicrophoneError(ValueError):
    """There is no such device, or it may not be used."""


class Microphone:
    """Records from a device, at the device's own rate.

    Attributes:
        sample_rate: In Hz.
    """

    def __init__(self, device: str | None = None) -> None:
        """Open the device.

        Args:
            device: Number or part of the name of the device; None takes the system's.

        Raises:
            ModuleNotFoundError: sounddevice is not installed.
            MicrophoneError: There is no such device, or it may not be used.
        """
        import sounddevice  # pyright: ignore[reportMissingImports]

        self._blocks: list[np.ndarray] = []
        self.has_gaps = False
        """Whether samples of the take were lost, because the computer was too slow."""
        self._is_recording = False
        chosen: int | str | None = device
        if device is not None and device.isdecimal():
            chosen = int(device)
        try:
            self.sample_rate = round(
                sounddevice.query_devices(chosen, "input")["default_samplerate"]
            )
            self._stream: Any = sounddevice.InputStream(
                samplerate=self.sample_rate, device=chosen, channels=1, dtype="float32",
                callback=self._take,
            )  # fmt: skip
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError, OSError) as error:
            raise MicrophoneError(
                f"the microphone cannot be used: {error}. Look whether one is connected and this "
                "program may use it, or record with another program."
            ) from error

    def _take(self, block: np.ndarray, frames: int, time: Any, status: Any) -> None:
        if self._is_recording:
            self._blocks.append(block[:, 0].copy())
            self.has_gaps = self.has_gaps or bool(getattr(status, "input_overflow", False))

    def start(self) -> None:
        """Begin a take."""
        self._blocks, self.has_gaps = [], False
        self._is_recording = True

    def stop(self) -> Tensor:
        """End the take; returns its samples (S,), which may be none."""
        self._is_recording = False
        blocks, self._blocks = self._blocks, []
        return torch.from_numpy(np.concatenate(blocks)) if blocks else torch.zeros(0)

    def blocks(self) -> Iterator[Tensor]:
        """Samples (S,) as they come, about ten times a second, without end."""
        self.start()
        while True:
            time.sleep(BLOCK_SECONDS)
            blocks, self._blocks = self._blocks, []
            if blocks:
                yield torch.from_numpy(np.concatenate(blocks))

    def __enter__(self) -> Microphone:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.stop()
        self._stream.close()
