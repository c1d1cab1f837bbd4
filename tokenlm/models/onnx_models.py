"""Speech tokenizers and speaker encoders that come as an ONNX graph.

Shapes: B batch, S samples, T frames, N tokens, E embedding channels. The graph is kept as bytes
among the weights of its component, so that a bundle stays a folder of configs and safetensors. It
is run by onnxruntime (the extra `onnx`), on the GPU where it lies if the installed one can use it
(onnxruntime-gpu), else on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenlm.audio.fbank import FbankConfig, KaldiFbank
from tokenlm.audio.mel import WhisperMel, WhisperMelConfig
from tokenlm.models.fingerprint import fingerprint
from tokenlm.models.fsmn_tokenizer import FRAMES_PER_TOKEN, NUM_LEVELS, encode_recordings

_TYPES = {"tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(float)": np.float32}


class OnnxGraph(nn.Module):
    """A graph as a buffer of bytes; its session is opened when it is first run."""

    graph: Tensor

    def __init__(self, num_bytes: int) -> None:
        super().__init__()
        self.register_buffer("graph", torch.zeros(num_bytes, dtype=torch.uint8))
        self._session: Any = None
        self._device: torch.device | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}  # a copy opens its own

    def session(self) -> Any:
        """The session of onnxruntime.

        Raises:
            ImportError: onnxruntime is not installed.
            ValueError: the bytes are no graph that it reads.
        """
        if self._session is None or self._device != self.graph.device:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3
            try:
                self._session = onnxruntime.InferenceSession(
                    self.graph.cpu().numpy().tobytes(),
                    options,
                    providers=providers(self.graph.device, onnxruntime.get_available_providers()),
                )
            except Exception as error:  # the library has kinds of its own
                raise ValueError(f"the ONNX graph cannot be opened: {error}") from error
            self._device = self.graph.device
        return self._session

    def run(self, frames: Tensor, num_frames: int) -> Tensor:
        """The first output for `frames`, which are the input of three axes.

        An input of one axis, where there is one, gets their number.

        Raises:
            ValueError: the graph has other inputs.
        """
        session = self.session()
        feeds, array = {}, frames.detach().cpu().float().numpy()
        is_fed = False
        for item in session.get_inputs():
            if len(item.shape) == 3 and item.type == "tensor(float)" and not is_fed:
                self._check_sizes(item.name, item.shape, array.shape)
                feeds[item.name] = array
                is_fed = True
            elif len(item.shape) == 1 and item.type in _TYPES:
                feeds[item.name] = np.array([num_frames], dtype=_TYPES[item.type])
            else:
                raise ValueError(
                    f"the ONNX graph has an input {item.name} of the shape {item.shape} and the "
                    f"type {item.type}, which is neither frames nor their number"
                )
        if not is_fed:
            raise ValueError("the ONNX graph has no input of three axes, which frames would be")
        return torch.from_numpy(np.asarray(session.run(None, feeds)[0]))

    def _check_sizes(
        self, name: str, wanted: Sequence[int | str | None], given: Sequence[int]
    ) -> None:
        """Checks the axes whose size a graph fixes; others have a name or nothing."""
        if any(isinstance(a, int) and a > 0 and a != b for a, b in zip(wanted, given, strict=True)):
            raise ValueError(
                f"the ONNX graph takes {name} of the shape {list(wanted)}, the frames have "
                f"{list(given)}: is it the graph of another model?"
            )


def providers(device: torch.device, available: Sequence[str]) -> list[Any]:
    """What of onnxruntime runs a graph that lies on a device, the first that can.

    Args:
        device: of the graph.
        available: names that the installed onnxruntime has.
    """
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in available:
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    return providers


def read_graph(data: bytes) -> dict[str, Tensor]:
    """The state dict of a model around a graph with these bytes."""
    return {"graph.graph": torch.frombuffer(bytearray(data), dtype=torch.uint8)}


@dataclass(frozen=True, kw_only=True)
class OnnxTokenizerConfig:
    """Facts of an `OnnxTokenizer` that its graph does not say."""

    mel: WhisperMelConfig = field(default_factory=WhisperMelConfig)
    num_digits: int = 8
    """Digits of a code, of three levels each."""
    num_bytes: int
    """Size of the graph."""
    window_seconds: float = 30.0
    """Longer recordings are encoded in windows of this length."""
    overlap_seconds: float = 4.0
    """Overlap of neighbouring windows, of which each gives up half."""

    def __post_init__(self) -> None:
        if self.num_bytes < 1:
            raise ValueError("num_bytes must be positive: the graph is empty")
        if not 0 <= self.overlap_seconds < self.window_seconds / 2:
            raise ValueError("overlap_seconds must be less than half of window_seconds")

    @property
    def token_rate(self) -> int:
        """Tokens per second."""
        return round(self.mel.frame_rate / FRAMES_PER_TOKEN)

    @property
    def samples_per_token(self) -> int:
        """Samples of one token."""
        return self.mel.hop_length * FRAMES_PER_TOKEN

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of each digit."""
        return (NUM_LEVELS,) * self.num_digits

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return NUM_LEVELS**self.num_digits


class OnnxTokenizer(nn.Module):
    """Waveform at 16 kHz to speech tokens, by a graph that takes the mel of Whisper.

    The graph has an input (1, num_mels, T) and may have one (1,) for the number of frames; its
    first output holds the codes. So the tokenizers of CosyVoice 2 and 3 are published. The mel is
    tested against reference numbers; no codes of a published graph were compared with others.
    """

    def __init__(self, config: OnnxTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = WhisperMel(config.mel)
        self.graph = OnnxGraph(config.num_bytes)

    @property
    def fingerprint(self) -> str:
        """Hash of the configuration and the graph; whatever is made of tokens carries it."""
        return fingerprint(self.config, self.state_dict())

    @torch.inference_mode()
    def encode(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Speech tokens (B, N) of recordings (B, S), and the number of valid ones (B,).

        Raises:
            ValueError: a waveform is shorter than one token, or the graph is not a tokenizer.
        """
        return encode_recordings(self._encode_one, self.config, waveform, lengths)

    def _encode_one(self, waveform: Tensor) -> Tensor:
        mel = self.mel(waveform[None])
        codes = self.graph.run(mel.transpose(1, 2), mel.shape[1]).flatten()
        tokens, size = codes.long(), self.config.codebook_size
        is_whole = bool((tokens == codes).all())
        if not is_whole or not tokens.numel() or tokens.min() < 0 or tokens.max() >= size:
            raise ValueError("the ONNX graph gives numbers that are no codes: is it a tokenizer?")
        # The last token may be one of fewer frames, or be left out.
        if abs(tokens.shape[0] - mel.shape[1] / FRAMES_PER_TOKEN) > 1:
            raise ValueError(
                f"the ONNX graph gives {tokens.shape[0]} codes for {mel.shape[1]} frames, not one "
                f"for {FRAMES_PER_TOKEN}: is it a tokenizer of another rate?"
            )
        return tokens.to(waveform.device)


def _speaker_bank() -> FbankConfig:
    return FbankConfig(subtract_mean=True)


@dataclass(frozen=True, kw_only=True)
class OnnxSpeakerConfig:
    """Facts of an `OnnxSpeakerEncoder` that its graph does not say."""

    mel: FbankConfig = field(default_factory=_speaker_bank)
    """The filter bank that it listens to."""
    embedding_dim: int = 192
    max_seconds: float = 30.0
    """Of a longer recording the start is listened to."""
    num_bytes: int
    """Size of the graph."""

    def __post_init__(self) -> None:
        if self.num_bytes < 1:
            raise ValueError("num_bytes must be positive: the graph is empty")


class OnnxSpeakerEncoder(nn.Module):
    """Waveform at 16 kHz to an embedding, by a graph that takes Kaldi's filter bank.

    The graph has one input (1, T, num_mels) of any name, the bank with its mean over time taken
    out, and its first output holds the embedding. That is how CAM++ (`campplus.onnx`) is published.
    The bank is tested against reference numbers, this interface on graphs made by hand; no
    embedding of the published graph was ever compared with one from elsewhere.
    """

    def __init__(self, config: OnnxSpeakerConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = KaldiFbank(config.mel)
        self.graph = OnnxGraph(config.num_bytes)

    @torch.inference_mode()
    def embed_recording(self, waveform: Tensor) -> Tensor:
        """Embedding (E,) of one recording (S,), of the length that the graph gives it.

        Raises:
            ValueError: it is shorter than a frame, or the graph gives another size.
        """
        mel = self.config.mel
        if waveform.shape[0] < mel.win_length:
            raise ValueError(f"{waveform.shape[0]} samples are too few to tell who speaks")
        waveform = waveform[: int(self.config.max_seconds * mel.sample_rate)]
        bank = self.mel(waveform[None])
        embedding = self.graph.run(bank, bank.shape[1]).flatten()
        if embedding.shape[0] != self.config.embedding_dim:
            raise ValueError(
                f"the ONNX graph gives {embedding.shape[0]} numbers, a speaker embedding here has "
                f"{self.config.embedding_dim}"
            )
        return embedding.to(waveform.device)
