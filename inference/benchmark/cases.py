"""What models are asked to see how their answers change: of a synthesizer, or reference numbers.

Reference numbers are files `NAME.safetensors` (weights, inputs, outputs) with `NAME.json` beside
them (sizes), for small models of the architectures of CosyVoice 2 and 3.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from inference.benchmark.subject import Subject
from tokenlm.checkpoint.cosyvoice.flow import flow_config, flow_to_ours
from tokenlm.checkpoint.cosyvoice.lm import class_order, lm_config, lm_to_ours
from tokenlm.models.flow import FlowDecoder
from tokenlm.models.lm import SpeechLM
from tokenlm.models.lm.layout import one_shot
from tokenlm.models.lm.model import LayoutBatch
from tokenlm.modules.context import FULL_CONTEXT, Context

Version = Literal[2, 3]
LM_FILES: dict[Version, str] = {2: "lm", 3: "cv3_lm"}
FLOW_FILES: dict[Version, str] = {2: "flow_cfm", 3: "cv3_flow"}


@dataclass(frozen=True)
class Case:
    """A model, what it is asked, and the answer where it is known."""

    name: str
    model: nn.Module
    run: Callable[[nn.Module], dict[str, Tensor]]
    """Outputs by name; the last axis of logits is that of classes."""
    expected: dict[str, Tensor] | None = None
    """Reference numbers."""


def subject_cases(subject: Subject, num_tokens: int) -> Iterator[Case]:
    """The language model and the flow of a synthesizer, on its first tokens in its voice."""
    components, voice = subject.synthesizer.components, subject.voice
    tokens = list(subject.tokens[:num_tokens])
    text = components.text_tokenizer.encode(voice.prompt_text)
    layout = one_shot(text, tokens, components.flow.config.codebook_size)
    batch = LayoutBatch.from_layouts([layout])
    yield Case("language model", components.speech_lm, lambda model: {"logits": model(batch)})
    settings = components.generation

    def render(flow: Any) -> dict[str, Tensor]:
        mel = flow.generate(
            torch.tensor(tokens)[None],
            prompt_tokens=voice.prompt_tokens[None],
            prompt_mel=voice.prompt_mel[None],
            speaker_embedding=voice.speaker_embedding[None],
            seed=0,
            prompt_seed=voice.seed,
            context=flow.config.default_context,
            num_steps=settings.num_steps,
            guidance_scale=settings.guidance_scale,
        )
        return {"mel": mel}

    yield Case("flow", components.flow, render)


def golden_cases(folder: Path) -> Iterator[Case]:
    """The language models and flows that a folder has reference numbers of.

    Raises:
        ValueError: it has none.
    """
    names = [*LM_FILES.values(), *FLOW_FILES.values()]
    if not any((folder / f"{name}.json").is_file() for name in names):
        raise ValueError(f"{folder} has none of {', '.join(f'{name}.json' for name in names)}")
    for files, make in ((LM_FILES, _lm_case), (FLOW_FILES, _flow_case)):
        for version, name in files.items():
            if (folder / f"{name}.json").is_file():
                facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
                tensors = load_file(folder / f"{name}.safetensors")
                yield make(name, version, facts["hyper_parameters"], tensors)


def _weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "weights."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _shapes(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(weight.shape) for key, weight in weights.items()}


def _lm_case(name: str, version: Version, sizes: Any, tensors: dict[str, Tensor]) -> Case:
    """Logits of the batch of one-shot layouts, where they are valid."""
    weights = _weights(tensors)
    config = lm_config(
        version,
        _shapes(weights),
        head_dim=sizes["hidden"] // sizes["heads"],
        rope_theta=sizes["rope_theta"],
        rms_norm_eps=sizes["rms_eps"],
    )
    model = SpeechLM(config)
    model.load_state_dict(lm_to_ours(version, config, weights))
    order = torch.tensor(class_order(version, config.codebook_size, config.num_classes))

    def part(of: str, row: int) -> list[int]:
        if f"in.uni.{of}" not in tensors:
            return []
        length = int(tensors[f"in.uni.{of}_len"][row])
        return tensors[f"in.uni.{of}"][row, :length].tolist()

    layouts = [
        one_shot(
            part("text", row),
            part("speech", row),
            config.codebook_size,
            instruction=part("instruct", row),
        )
        for row in range(tensors["in.uni.text"].shape[0])
    ]
    batch = LayoutBatch.from_layouts(layouts)

    def run(model: nn.Module) -> dict[str, Tensor]:
        return {"logits": model(batch)[batch.mask]}

    # Their classes stand in another order than ours.
    expected = tensors["out.uni.logits"][batch.mask][:, order]
    return Case(name, model.eval().requires_grad_(False), run, {"logits": expected})


def _flow_case(name: str, version: Version, sizes: Any, tensors: dict[str, Tensor]) -> Case:
    """Mels with the full and the chunked context, of speech that has ended and that goes on."""
    weights, estimator = _weights(tensors), sizes["estimator"]
    config = flow_config(version, _shapes(weights), num_heads=estimator["heads"])
    model = FlowDecoder(config)
    model.load_state_dict(flow_to_ours(version, weights))
    noise = tensors["in.noise"][0].T
    model.initial_noise = (  # type: ignore[method-assign]
        lambda _seed, _prompt_seed, _frames, start, count: noise[start : start + count]
    )
    chunk = Context(chunk_frames=estimator["static_chunk_size"] // config.frames_per_token)
    contexts = {"full": FULL_CONTEXT, "chunk": chunk}

    def render(model: Any, context: Context, *, has_ended: bool) -> Tensor:
        return model.generate(
            tensors["in.token"],
            prompt_tokens=tensors["in.prompt_token"],
            prompt_mel=tensors["in.prompt_feat"],
            speaker_embedding=tensors["in.embedding"],
            seed=0,
            context=context,
            num_steps=sizes["n_timesteps"],
            guidance_scale=sizes["cfg_rate"],
            has_ended=has_ended,
        ).mT

    def run(model: nn.Module) -> dict[str, Tensor]:
        return {
            f"{context}_{end}.mel": render(model, contexts[context], has_ended=end == "final")
            for context in contexts
            for end in ("final", "partial")
        }

    names = [f"{context}_{end}.mel" for context in contexts for end in ("final", "partial")]
    expected = {name: tensors[f"out.{name}"] for name in names}
    return Case(name, model.eval().requires_grad_(False), run, expected)
