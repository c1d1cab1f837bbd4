"""Whole segments at once: what `generate` does and a stream does step by step.

Shapes: S samples, N tokens, T mel frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tokenlm.audio.joining import SegmentJoiner
from tokenlm.audio.tempo import MelTempo
from tokenlm.models.lm.cache import KeyValueCache
from tokenlm.models.lm.decoding import Decoding, SpeechRequest, decode_step
from tokenlm.models.lm.guards import GuardConfig
from tokenlm.models.lm.sampling import SamplingConfig
from tokenlm.modules.noise import mix
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.fitting import add_offset
from tokenlm.synthesis.guards import speak_checked
from tokenlm.synthesis.prompt_cache import PromptCache
from tokenlm.synthesis.rendering import RenderSettings
from tokenlm.synthesis.text import Script
from tokenlm.synthesis.voice import Voice

Progress = Callable[[float], None]
"""Called with the share that is done, from 0 to 1."""

SEGMENTS_AT_ONCE = 8
"""Text segments that the LM decodes in one batch."""
WHOLE_TOKENS = 500
"""Longer speech is rendered chunk by chunk, so that memory stays flat."""


def write_segments(
    components: Components,
    prompts: PromptCache,
    script: Script,
    voice: Voice,
    seed: int,
    sampling: SamplingConfig,
    on_progress: Progress | None = None,
    *,
    guards: GuardConfig | None = None,
    forced_tokens: Sequence[Sequence[int]] | None = None,
    instruction: str = "",
) -> list[list[int]]:
    """Speech tokens of every segment of a finished script, some segments at once.

    Args:
        components: the models.
        prompts: prompt states of voices.
        script: the text.
        voice: whose prompt the LM goes on from.
        seed: of all draws.
        sampling: how tokens are drawn.
        on_progress: called with the share that is done, up to one half.
        guards: what watches over the LM; None has the guards of the bundle.
        forced_tokens: of every segment; the model works as always, and these are written.
        instruction: what the LM is told before each of them.
    """
    guards = guards or components.generation.guards
    prefix = prompts.prefix(voice, script.layout, instruction)

    def speak(requests: Sequence[SpeechRequest]) -> list[list[int]]:
        cache = KeyValueCache(components.speech_lm)
        decodings = []
        for request in requests:
            sequence = prefix.sequence.copy()
            sequence.add_text(request.text_tokens)
            sequence.end_text()
            decodings.append(
                Decoding(
                    components.speech_lm,
                    cache,
                    sequence,
                    sampling=sampling,
                    seed=request.seed,
                    segment=request.segment,
                    key_values=prefix.key_values,
                    forced=None if forced_tokens is None else forced_tokens[request.segment],
                    guards=guards,
                )
            )
        while alive := [decoding for decoding in decodings if decoding.can_step]:
            decode_step(components.speech_lm, alive)
        return [decoding.tokens for decoding in decodings]

    requests = [
        SpeechRequest(text_tokens=part.tokens, seed=seed, segment=number)
        for number, part in enumerate(script.segments)
    ]
    texts = [part.text for part in script.segments]
    spoken: list[list[int]] = []
    for start in range(0, len(requests), SEGMENTS_AT_ONCE):
        batch = requests[start : start + SEGMENTS_AT_ONCE]
        if guards.needs_recognizer and forced_tokens is None:
            own = texts[start : start + SEGMENTS_AT_ONCE]
            checked = speak_checked(batch, own, speak, components.read_back, guards)
            spoken += [segment.tokens for segment in checked]
        else:
            spoken += speak(batch)
        if on_progress is not None:
            on_progress(0.5 * len(spoken) / len(requests))
    return spoken


def join_segments(
    components: Components,
    prompts: PromptCache,
    tokens: Sequence[list[int]],
    pauses: Sequence[float],
    voice: Voice,
    seed: int,
    settings: RenderSettings,
    on_progress: Progress | None = None,
) -> Tensor:
    """Waveform (S,) of the speech tokens of all segments, with the pauses before each."""
    joiner = SegmentJoiner(components.manifest.sample_rate)
    pieces = [torch.zeros(0, dtype=torch.float32)]
    for number, (row, pause) in enumerate(zip(tokens, pauses, strict=True)):
        if row:
            pieces.append(joiner.pause(pause / settings.speed))
            waveform = render_segment(components, prompts, row, voice, mix(seed, number), settings)
            pieces.append(joiner.push(waveform, final=True))
        if on_progress is not None:
            on_progress(0.5 + 0.5 * (number + 1) / len(tokens))
    return torch.cat(pieces)


@torch.no_grad()
def render_segment(
    components: Components,
    prompts: PromptCache,
    tokens: list[int],
    voice: Voice,
    seed: int,
    settings: RenderSettings,
) -> Tensor:
    """Waveform (S,) of the speech tokens of one segment."""
    device = components.device
    tensor = torch.tensor([tokens], device=device)
    # Without a window, caches would take more memory than the whole does.
    if len(tokens) <= WHOLE_TOKENS or settings.context.left_frames is None:
        mel = components.flow.generate(
            tensor,
            prompt_tokens=voice.prompt_tokens[None].to(device),
            prompt_mel=voice.prompt_mel[None].to(device),
            speaker_embedding=voice.speaker_embedding[None].to(device),
            seed=seed,
            prompt_seed=voice.seed,
            context=settings.context,
            num_steps=settings.num_steps,
            guidance_scale=settings.guidance_scale,
        )
    else:
        mel = _render_in_chunks(components, prompts, tensor, voice, seed, settings)
    mel = MelTempo(settings.speed).push(add_offset(mel, voice), final=True)
    return components.vocoder(mel)[0].cpu()


def _render_in_chunks(
    components: Components,
    prompts: PromptCache,
    tokens: Tensor,
    voice: Voice,
    seed: int,
    settings: RenderSettings,
) -> Tensor:
    """Mel (1, T, M) of long speech, rendered as a stream is: equal, with bounded memory."""
    # Any: each kind of flow has a state of its own.
    flow: Any = components.flow
    state = prompts.flow_state(voice, settings.context, settings.num_steps, settings.guidance_scale)
    pieces = [flow.step(part, state, seed=seed) for part in tokens.split(100, dim=1)]
    return torch.cat([*pieces, flow.step(tokens[:, :0], state, seed=seed, flush=True)], dim=1)
