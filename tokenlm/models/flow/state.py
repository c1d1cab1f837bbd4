"""What a stream of the flow remembers, and streams that run together.

Shapes: B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenlm.models.flow.encoder import EncoderState
from tokenlm.models.flow.estimator import EstimatorState
from tokenlm.modules.context import Context
from tokenlm.modules.conv import ConvState
from tokenlm.modules.streaming import State
from tokenlm.modules.transformer import stack_ragged, unstack_ragged


@dataclass
class FlowState(State):
    """What a stream remembers: caches of the encoder and of every solver step."""

    encoder: EncoderState
    steps: list[EstimatorState]
    """With guidance two rows for each item, with and without condition."""
    speaker: Tensor
    """(B, speaker_condition_dim)"""
    pending: Tensor
    """(B, fewer than a chunk and its look-ahead) tokens that do not fill a chunk yet."""
    fed_tokens: int
    """Tokens given to the encoder after the prompt."""
    next_frame: int
    """Number of the next frame to render, counted from the end of the prompt."""
    guidance_scale: float
    context: Context


def join_states(states: Sequence[FlowState]) -> FlowState:
    """One state of several streams that stand at different places, for the next chunk only.

    Its context has no prompt: the prompts differ in length, and are given apart.
    """
    first = states[0]
    steps = [
        EstimatorState(
            position=ConvState(past=torch.cat([step.position.past for step in column])),
            transformer=stack_ragged([step.transformer for step in column]),
        )
        for column in zip(*(state.steps for state in states), strict=True)
    ]
    encoders = [state.encoder for state in states]
    encoder = EncoderState(
        lookahead=type(encoders[0].lookahead).stack([part.lookahead for part in encoders]),
        smooth=ConvState.stack([part.smooth for part in encoders]),
        transformer=stack_ragged([part.transformer for part in encoders]),
        upsample=ConvState.stack([part.upsample for part in encoders]),
    )
    return FlowState(
        encoder=encoder,
        steps=steps,
        speaker=torch.cat([state.speaker for state in states]),
        pending=first.pending[:, :0],
        fed_tokens=0,
        next_frame=0,
        guidance_scale=first.guidance_scale,
        context=first.context.pinned(0),
    )


def part_states(
    joined: FlowState,
    states: Sequence[FlowState],
    frames_per_token: int,
    patch_frames: int,
    num_frames: int,
) -> None:
    """Gives every stream its part of `joined` back, `num_frames` further on."""
    count = len(states)
    contexts = [state.context for state in states]
    patched = [context.scaled(frames_per_token).divided(patch_frames) for context in contexts]
    for number, step in enumerate(joined.steps):
        pasts = step.position.past.chunk(count)
        caches = unstack_ragged(step.transformer, patched)
        for state, past, cache in zip(states, pasts, caches, strict=True):
            state.steps[number] = EstimatorState(
                position=ConvState(past=past.clone()), transformer=cache
            )
    encoder = joined.encoder
    parts = zip(
        encoder.lookahead.unstack(),
        encoder.smooth.unstack(),
        unstack_ragged(encoder.transformer, contexts),
        encoder.upsample.unstack(),
        strict=True,
    )
    for state, (lookahead, smooth, transformer, upsample) in zip(states, parts, strict=True):
        state.encoder = EncoderState(
            lookahead=lookahead.clone(),
            smooth=smooth.clone(),
            transformer=transformer,
            upsample=upsample.clone(),
        )
        state.next_frame += num_frames
