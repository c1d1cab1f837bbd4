"""A voice: what is kept of a prompt recording, small enough to be mailed.

Shapes: N prompt tokens, T prompt mel frames, M mel bins, E speaker channels.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tokenlm.atomic import atomic_path

FORMAT_VERSION = 1

METADATA_KEY = "tokenlm_voice"
"""Entry of the file's metadata that holds all facts, as JSON."""


class VoiceError(ValueError):
    """A recording or file that no voice can be made of; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A prepared prompt. Made by `Synthesizer.prepare_voice`, or loaded."""

    name: str
    prompt_text: str
    """What the prompt says, normalised; empty where that is not known."""
    prompt_tokens: Tensor
    """(N,) speech tokens."""
    prompt_mel: Tensor
    """(T, M) log-mel."""
    speaker_embedding: Tensor
    """(E,)"""
    tokenizer: str
    """Fingerprint of the speech tokenizer that made the tokens."""
    description: str = ""
    mel_offset: Tensor | None = None
    """(M,) added to the log-mel of all that the voice says; None adds nothing."""

    def __post_init__(self) -> None:
        tensors = (self.prompt_tokens, self.prompt_mel, self.speaker_embedding)
        if tuple(tensor.ndim for tensor in tensors) != (1, 2, 1):
            raise VoiceError(
                "a voice needs prompt_tokens (N,), prompt_mel (T, M) and speaker_embedding (E,)"
            )
        if self.prompt_tokens.is_floating_point() or bool((self.prompt_tokens < 0).any()):
            raise VoiceError("the prompt_tokens of a voice are numbers of codes, 0 and up")
        if not (self.prompt_mel.isfinite().all() and self.speaker_embedding.isfinite().all()):
            raise VoiceError("a voice holds numbers that are not finite")
        offset = self.mel_offset
        if offset is not None and (
            offset.shape != self.prompt_mel.shape[1:] or not offset.isfinite().all()
        ):
            raise VoiceError("the mel_offset of a voice is one finite number for each mel bin")

    @property
    def seed(self) -> int:
        """Seed of the noise under the prompt, a function of the prompt alone."""
        digest = hashlib.sha256(self.prompt_tokens.to(torch.int64).numpy().tobytes())
        digest.update(self.speaker_embedding.half().numpy().tobytes())
        return int.from_bytes(digest.digest()[:7], "big")

    @property
    def digest(self) -> str:
        """Hash of all that the models see of the voice; its name is not among it."""
        digest = hashlib.sha256(f"{self.tokenizer}\n{self.prompt_text}\n".encode())
        for tensor in (self.prompt_tokens.to(torch.int64), self.prompt_mel, self.speaker_embedding):
            digest.update(tensor.contiguous().numpy().tobytes())
        if self.mel_offset is not None:
            digest.update(self.mel_offset.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Writes the voice to one safetensors file, whole or not at all."""
        tensors = {
            "prompt_tokens": self.prompt_tokens.to(torch.int32),
            "prompt_mel": self.prompt_mel.to(torch.float16).contiguous(),
            "speaker_embedding": self.speaker_embedding.to(torch.float32).contiguous(),
        }
        if self.mel_offset is not None:
            tensors["mel_offset"] = self.mel_offset.to(torch.float32).contiguous()
        facts = {
            "name": self.name,
            "prompt_text": self.prompt_text,
            "tokenizer": self.tokenizer,
            "description": self.description,
        }
        # A single entry: the library writes several in any order, and files would differ by chance.
        facts = {"format_version": FORMAT_VERSION, **facts}
        data = save(tensors, metadata={METADATA_KEY: json.dumps(facts)})
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)

    @classmethod
    def load(cls, path: str | Path) -> Voice:
        """Reads a voice.

        Raises:
            VoiceError: there is no such file, or it is not a voice.
        """
        if not Path(path).is_file():
            raise VoiceError(f"{path}: there is no such voice file.")
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError) as error:
            raise VoiceError(f"{path} is not a voice file, or is damaged: {error}") from error
        if METADATA_KEY not in metadata:
            raise VoiceError(f"{path} is not a voice file.")
        try:
            facts = json.loads(metadata[METADATA_KEY])
            if facts["format_version"] != FORMAT_VERSION:
                raise VoiceError(
                    f"it is of format {facts['format_version']}; this version of tokenlm reads "
                    f"{FORMAT_VERSION}"
                )
            return cls(
                name=str(facts["name"]),
                prompt_text=str(facts["prompt_text"]),
                tokenizer=str(facts["tokenizer"]),
                description=str(facts.get("description", "")),
                prompt_tokens=tensors["prompt_tokens"].long(),
                prompt_mel=tensors["prompt_mel"].float(),
                speaker_embedding=tensors["speaker_embedding"].float(),
                mel_offset=tensors.get("mel_offset"),
            )
        except VoiceError as error:
            raise VoiceError(f"{path}: {error}") from error
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise VoiceError(f"{path} is not a complete voice file: {error}") from error
