"""The judge of speakers: the voice encoder whose weights the package resemblyzer brings along.

Only its weights are read: the package itself imports a voice activity detector and an audio
library that this needs not. The network is that of Wan et al. (2018), "Generalized end-to-end
loss for speaker verification": three LSTM layers over windows of 1.6 s of mel power.

Shapes: S samples, W windows, T frames, E embedding channels.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tokenlm.audio.filterbank import mel_filterbank
from tokenlm.audio.frames import spectrum
from tokenlm.audio.level import rms_dbfs, trim_silence
from training.evaluation.judges import SAMPLE_RATE, JudgeError, require

N_FFT = 400
HOP_LENGTH = 160
NUM_MELS = 40
NUM_CHANNELS = 256
WINDOW_FRAMES = 160
STEP_FRAMES = 77
MIN_COVERAGE = 0.75
"""A last window with less sound in it is left out."""
LEVEL_DBFS = -30.0
"""The network hears power, not its logarithm, so every recording is brought to this level."""


class VoiceEncoder(nn.Module):
    """Recording to embedding; a function of the recording alone."""

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(NUM_MELS, NUM_CHANNELS, 3, batch_first=True)
        self.linear = nn.Linear(NUM_CHANNELS, NUM_CHANNELS)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        filters = mel_filterbank(SAMPLE_RATE, N_FFT, NUM_MELS).T.contiguous()
        self.register_buffer("filters", filters, persistent=False)

    @classmethod
    def load(cls) -> VoiceEncoder:
        """Load the weights from the installed package.

        Raises:
            JudgeError: it is not installed, or has no weights where they should be.
        """
        require("resemblyzer")
        spec = find_spec("resemblyzer")
        if spec is None or spec.origin is None:
            raise JudgeError("The installed resemblyzer is not whole: install it again.")
        path = Path(spec.origin).parent / "pretrained.pt"
        if not path.is_file():
            raise JudgeError(f"The installed resemblyzer has no {path.name}: install it again.")
        state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        encoder = cls()
        # The rest of the file is the scale and offset of the training loss.
        encoder.load_state_dict({key: state[key] for key in encoder.state_dict()})
        return encoder.eval().requires_grad_(False)

    @torch.inference_mode()
    def forward(self, windows: Tensor) -> Tensor:
        """Unit embeddings (W, E) of mel power (W, T, NUM_MELS)."""
        _, (hidden, _) = self.lstm(windows)
        return nn.functional.normalize(self.linear(hidden[-1]).relu(), dim=-1)

    @torch.inference_mode()
    def embed(self, samples: np.ndarray) -> np.ndarray:
        """Embedding (E,) of a recording (S,) at 16 kHz: the mean over its windows.

        A silent or empty recording, which has no speaker, gives that of silence.
        """
        waveform = trim_silence(torch.as_tensor(samples).float(), SAMPLE_RATE)
        level = rms_dbfs(waveform)
        if np.isfinite(level):
            waveform = waveform * 10.0 ** ((LEVEL_DBFS - level) / 20.0)
        num_frames = waveform.shape[0] // HOP_LENGTH + 1
        starts = [0]
        while starts[-1] + STEP_FRAMES + MIN_COVERAGE * WINDOW_FRAMES <= num_frames:
            starts.append(starts[-1] + STEP_FRAMES)
        missing = (starts[-1] + WINDOW_FRAMES) * HOP_LENGTH - waveform.shape[0]
        waveform = nn.functional.pad(waveform, (N_FFT // 2, max(missing, 0) + N_FFT // 2))
        bins = spectrum(waveform[None], self.window, N_FFT, HOP_LENGTH)[0]
        power = bins.abs().square() @ self.filters
        windows = torch.stack([power[start : start + WINDOW_FRAMES] for start in starts])
        return nn.functional.normalize(self(windows).mean(dim=0), dim=-1).numpy()
