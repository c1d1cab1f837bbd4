"""The rewards of a run, as its config names them.

Shapes: S samples, E embedding channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tokenlm.audio.resample import resample
from tokenlm.checkpoint.resolve import resolve
from tokenlm.modules.context import FULL_CONTEXT
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.read_back import ReadBack
from tokenlm.text.frontend import NormalizerName
from training.evaluation.config import DEFAULT
from training.evaluation.judges import SAMPLE_RATE, load_recognizer
from training.rl.rewards import (
    Answer,
    DurationReward,
    Reward,
    SimilarityReward,
    TokenAsrReward,
    TokenLikelihoodReward,
    WaveformAsrReward,
    word_error,
    written_error,
)


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Weights of the rewards in their geometric mean; 0 turns one off."""

    token_asr: float = 1.0
    """Error of the tokens, in phones or characters, read by the stage's `token_recognizer`."""
    token_likelihood: float = 0.0
    """Likelihood of the text by the same recogniser: finer than its errors, and never satisfied."""
    duration: float = 0.5
    """Length of the speech beside that of its text."""
    waveform_asr: float = 0.0
    """Word error of the sound, of texts that stay as they are written the character error; needs
    `bundle` and `recognizer`."""
    similarity: float = 0.0
    """Likeness of the sound to the voice; needs `bundle`."""
    recognizer: str = ""
    """Recogniser of `waveform_asr`, such as transformers:NAME; it can judge nothing afterwards."""
    bundle: str | None = None
    """Bundle whose flow and vocoder make the sound."""
    voice: str | None = None
    """Voice of the bundle, or file of one; default its first."""
    similarity_floor: float = 0.3
    """Cosine of the bundle's speaker encoder that is worth nothing."""
    max_failed_share: float = 0.1
    """Share of failed rewards above which the run stops."""

    def __post_init__(self) -> None:
        words = (self.token_asr, self.token_likelihood, self.waveform_asr)
        weights = (*words, self.duration, self.similarity)
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError("weights of rewards must not be negative, and one must be above 0")
        if (self.waveform_asr or self.similarity) and self.bundle is None:
            raise ValueError("waveform_asr and similarity need a bundle that makes the sound")
        if self.waveform_asr and not self.recognizer:
            raise ValueError("waveform_asr needs a recognizer")
        if self.recognizer == DEFAULT:
            raise ValueError(f"{DEFAULT} is the judge of tokenlm evaluate, and is no reward")
        if not 0 <= self.max_failed_share <= 1:
            raise ValueError(f"max_failed_share must be in [0, 1], got {self.max_failed_share}")
        if not -1 <= self.similarity_floor < 1:
            raise ValueError(f"similarity_floor must be in [-1, 1), got {self.similarity_floor}")


class RewardSet:
    """The rewards that are on, by name."""

    def __init__(
        self,
        config: RewardConfig,
        read_back: ReadBack | None,
        lengths: Sequence[tuple[int, int]],
        normalizer: NormalizerName = "english",
    ) -> None:
        """Load what the rewards need.

        Args:
            config: which are on.
            read_back: by the recogniser of the stage.
            lengths: text and speech tokens of the corpus, for the prior of durations.
            normalizer: what the texts went through.

        Raises:
            ValueError: something is missing.
        """
        self.rewards: dict[str, Reward] = {}
        self.judges = [config.recognizer] if config.waveform_asr else []
        """Recognisers that can no longer judge what was rewarded by them."""
        readers = {"token_asr": TokenAsrReward, "token_likelihood": TokenLikelihoodReward}
        for name, reader in readers.items():
            if not getattr(config, name):
                continue
            if read_back is None:
                raise ValueError(
                    f"the reward {name} reads tokens: give the ASR half of the tokenizer as "
                    "token_recognizer=FOLDER."
                )
            self.rewards[name] = reader(read_back)
        if config.duration:
            self.rewards["duration"] = DurationReward.fit(lengths)
        self._similarity: SimilarityReward | None = None
        self._sound: Sound | None = None
        if config.bundle is not None:
            sound = self._sound = Sound(config.bundle, config.voice)
            self._similarity = SimilarityReward(
                sound.render, sound.embed, sound.target, config.similarity_floor
            )
            if config.waveform_asr:
                transcribe = load_recognizer(config.recognizer)
                error = word_error if normalizer == "english" else written_error
                self.rewards["waveform_asr"] = WaveformAsrReward(sound.render, transcribe, error)
            if config.similarity:
                self.rewards["similarity"] = self._similarity
        self.weights = {name: float(getattr(config, name)) for name in self.rewards}

    def to(self, device: torch.device) -> None:
        """Move what makes the sound; the stage moves its recogniser itself."""
        if self._sound is not None:
            self._sound.to(device)

    def __call__(self, answers: Sequence[Answer]) -> dict[str, list[float | None]]:
        """Values of every reward, by name."""
        return {name: reward(answers) for name, reward in self.rewards.items()}

    @property
    def render_similarity(self) -> Callable[[Sequence[int]], float | None] | None:
        """Likeness of tokens to the voice; None where nothing makes a sound."""
        reward = self._similarity
        if reward is None:
            return None
        return lambda tokens: reward([Answer(text="", num_text_tokens=0, tokens=tuple(tokens))])[0]


class Sound:
    """The chain behind the LM, in one voice."""

    def __init__(self, bundle: str, voice: str | None) -> None:
        """Load a bundle.

        Raises:
            ValueError: there is no such bundle or voice.
        """
        self._synthesizer = Synthesizer.from_pretrained(
            bundle if Path(bundle).exists() else resolve(bundle)
        )
        names = self._synthesizer.voices
        if voice is None and not names:
            raise ValueError(
                f"the bundle {bundle} has no voice that a reward could speak in: prepare one "
                "(tokenlm prepare-voice) and give it as rewards.voice=FILE.voice."
            )
        self._voice = self._synthesizer.voice(voice or names[0])

    def to(self, device: torch.device) -> None:
        """Move the parts that are used here."""
        parts = self._synthesizer.components
        parts.device = device
        for part in (parts.flow, parts.vocoder, parts.speaker_encoder):
            part.to(device)

    @torch.no_grad()
    def render(self, tokens: Sequence[int]) -> Tensor:
        """Waveform (S,) at 16 kHz of speech tokens."""
        voice, parts = self._voice, self._synthesizer.components
        mel = parts.flow.generate(
            torch.tensor([list(tokens)], device=parts.device),
            seed=0,
            prompt_tokens=voice.prompt_tokens[None].to(parts.device),
            prompt_mel=voice.prompt_mel[None].to(parts.device),
            speaker_embedding=voice.speaker_embedding[None].to(parts.device),
            prompt_seed=voice.seed,
            context=FULL_CONTEXT,
            num_steps=parts.generation.num_steps,
            guidance_scale=parts.generation.guidance_scale,
        )
        waveform = parts.vocoder(mel)[0].cpu()
        return resample(waveform, self._synthesizer.sample_rate, SAMPLE_RATE)

    @torch.no_grad()
    def embed(self, waveform: Tensor) -> Tensor:
        """Embedding (E,) of a waveform (S,) at 16 kHz, by the bundle's own encoder."""
        encoder = self._synthesizer.components.speaker_encoder
        rate = encoder.config.mel.sample_rate
        resampled = resample(waveform, SAMPLE_RATE, rate)
        return encoder.embed_recording(resampled.to(self._synthesizer.components.device)).cpu()

    @property
    def target(self) -> Tensor:
        """Embedding (E,) of the voice."""
        return self._voice.speaker_embedding
