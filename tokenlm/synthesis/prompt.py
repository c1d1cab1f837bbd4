"""From a recording to a `Voice`.

Shapes: S samples, N tokens, T mel frames.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tokenlm.audio.io import load_audio
from tokenlm.audio.level import high_pass, is_silent, rms_dbfs, trim_silence
from tokenlm.audio.mel import MelSpectrogram
from tokenlm.audio.resample import resample
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.fitting import fit_voice
from tokenlm.synthesis.voice import Voice, VoiceError
from tokenlm.text.frontend import frontend

LEVEL_DBFS = -22.0
"""Level of the training corpus; prompts are brought to it."""
MIN_SECONDS = 0.4
"""A shorter prompt, silence cut off, says too little about a voice."""

_log = logging.getLogger(__name__)


def read_recording(source: str | Path | Tensor, sample_rate: int | None, target: int) -> Tensor:
    """A recording (S,) at `target` Hz, from a file or from samples (S,) at `sample_rate`.

    Raises:
        AudioError: the file cannot be read.
        VoiceError: samples of another shape, not finite, or without their rate.
    """
    if not isinstance(source, Tensor):
        return load_audio(source, target)
    if sample_rate is None:
        raise VoiceError("samples need their sample_rate.")
    if source.ndim != 1 or source.shape[0] == 0:
        raise VoiceError(f"a recording has the shape (samples,), not {tuple(source.shape)}.")
    if not source.isfinite().all():
        raise VoiceError("the recording holds samples that are not finite numbers.")
    return resample(source.float(), sample_rate, target)


def clean_recording(
    waveform: Tensor, sample_rate: int, name: str, *, is_padded: bool = False
) -> Tensor:
    """Cuts silence off both ends, takes out rumble, and sets the level.

    Args:
        waveform: (S,).
        sample_rate: in hertz.
        name: what error messages call the recording.
        is_padded: whether a recording that is too short gets silence around it. A single word can
            be listened to, though it says too little about a voice.

    Raises:
        VoiceError: the recording is silent, or too short.
    """
    # Without its mean first, the ends of the recording would be steps, and ring in the filter.
    waveform = high_pass(waveform - waveform.mean(), sample_rate)
    if is_silent(waveform, -70.0):
        raise VoiceError(f"{name} is silent.")
    waveform = trim_silence(waveform, sample_rate)
    seconds = waveform.shape[0] / sample_rate
    if seconds < MIN_SECONDS and not is_padded:
        raise VoiceError(
            f"{name} holds only {seconds:.2f} s of sound; at least {MIN_SECONDS} s are needed."
        )
    gain = 10.0 ** ((LEVEL_DBFS - rms_dbfs(waveform)) / 20.0)
    waveform = (waveform * gain).clamp(-1.0, 1.0)
    missing = max(round(MIN_SECONDS * sample_rate) - waveform.shape[0], 0)
    return functional.pad(waveform, (missing // 2, missing - missing // 2))


def quietest_cut(waveform: Tensor, sample_rate: int, limit_seconds: float) -> Tensor:
    """The first `limit_seconds` of a recording (S,), cut in its last pause before that."""
    limit = int(limit_seconds * sample_rate)
    if waveform.shape[0] <= limit:
        return waveform
    size = sample_rate // 20
    start = limit // 2
    energy = waveform[start:limit].unfold(0, size, size).square().mean(dim=-1)
    # Later cuts are better as long as they are as quiet as any.
    quiet = torch.nonzero(energy <= 4.0 * energy.min() + 1e-8)[-1, 0]
    return waveform[: start + int(quiet) * size + size // 2]


def prepare_voice(
    components: Components,
    source: str | Path | Tensor,
    prompt_text: str | None,
    *,
    sample_rate: int | None = None,
    name: str | None = None,
) -> Voice:
    """Makes a voice of a recording; see `Synthesizer.prepare_voice`."""
    components.check_tokenizer()
    mel_config = components.flow.config.mel
    tokenizer = components.speech_tokenizer
    called = name or (Path(source).stem if not isinstance(source, Tensor) else "voice")
    title = "the recording" if isinstance(source, Tensor) else str(source)
    rate = mel_config.sample_rate
    whole = clean_recording(read_recording(source, sample_rate, rate), rate, title)
    waveform = quietest_cut(whole, rate, components.generation.max_prompt_seconds)
    normalize = frontend(components.text_tokenizer.config.normalizer).normalize
    text = normalize(prompt_text or "")
    if prompt_text and not text:
        raise VoiceError(f"the prompt text {prompt_text[:40]!r} holds nothing that can be said.")
    if text and waveform.shape[0] < whole.shape[0]:
        _log.warning(
            "%s is longer than %.0f s: only its start is used, without its text",
            title,
            components.generation.max_prompt_seconds,
        )
        text = ""
    listening = resample(waveform, rate, tokenizer.config.mel.sample_rate).to(components.device)
    tokens = tokenizer.encode(listening[None])[0][0]
    factor = components.flow.config.frames_per_token
    with torch.inference_mode():
        mel = MelSpectrogram(mel_config)(waveform[None])[0]
        count = min(mel.shape[0] // factor, tokens.shape[0])
        embedding = components.speaker_encoder.embed_recording(listening)
    voice = Voice(
        name=called,
        prompt_text=text,
        prompt_tokens=tokens[:count].cpu().clone(),
        # To the precision of a voice file: a voice speaks alike before and after it is saved.
        prompt_mel=mel[: count * factor].half().float().clone(),
        speaker_embedding=embedding.cpu().clone(),
        tokenizer=components.fingerprint,
    )
    generation = components.generation
    return fit_voice(
        components.flow,
        voice,
        generation.voice_fit,
        context=components.flow.config.default_context,
        num_steps=generation.num_steps,
        guidance_scale=generation.guidance_scale,
        device=components.device,
    )


def check_voice(components: Components, voice: Voice) -> None:
    """Checks that a voice can be used with a bundle.

    Raises:
        VoiceError: it was made with another speech tokenizer, or its sizes are not those of the
            flow.
    """
    if voice.tokenizer != components.fingerprint:
        raise VoiceError(
            f"the voice {voice.name!r} was made with the speech tokenizer {voice.tokenizer}, "
            f"but this bundle has {components.fingerprint}: prepare it again."
        )
    flow = components.flow.config
    num_tokens = voice.prompt_tokens.shape[0]
    fits = (
        voice.prompt_mel.shape == (num_tokens * flow.frames_per_token, flow.mel.num_mels)
        and voice.speaker_embedding.shape == (flow.speaker_dim,)
        and (num_tokens == 0 or int(voice.prompt_tokens.max()) < flow.codebook_size)
    )
    if not fits:
        raise VoiceError(
            f"the voice {voice.name!r} does not fit the flow of this bundle: prepare it again."
        )
