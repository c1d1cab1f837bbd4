"""Optimizer, schedule and gradient reduction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from training.config import OptimConfig

_REDUCE_BYTES = 64 * 2**20


def learning_rate(step: int, config: OptimConfig, starts_at: int = 0) -> float:
    """Return the learning rate of one step.

    Args:
        step: Optimizer step, from 0.
        config: Shape of the schedule.
        starts_at: First step of the phase; its warm-up is counted from here.

    Returns:
        Linear from `lr / warmup_steps` to `lr` in the warm-up, then from `lr` to
        `min_ratio * lr`, which `max_steps` and everything after it have; 0 before the phase.
    """
    since_start = step - starts_at
    if since_start < 0:
        return 0.0
    if since_start < config.warmup_steps:
        return config.lr * (since_start + 1) / config.warmup_steps
    if config.decay == "constant":
        return config.lr
    begin = starts_at + config.warmup_steps
    progress = min(1.0, (step - begin) / max(1, config.max_steps - begin))
    share = 1.0 - progress
    if config.decay == "cosine":
        share = 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.lr * (config.min_ratio + (1.0 - config.min_ratio) * share)


def parameter_groups(modules: Sequence[nn.Module], weight_decay: float) -> list[dict]:
    """Sort the trainable parameters into those with and those without weight decay.

    Embeddings, biases, norms and every other parameter with fewer than two dimensions have none.
    """
    undecayed: set[int] = set()
    for root in modules:
        for module in root.modules():
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                undecayed.update(id(p) for p in module.parameters(recurse=False))
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    seen: set[int] = set()
    for root in modules:
        for parameter in root.parameters():
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                groups[parameter.ndim >= 2 and id(parameter) not in undecayed].append(parameter)
    return [
        {"params": params, "weight_decay": weight_decay if decayed else 0.0}
        for decayed, params in groups.items()
        if params
    ]


def make_optimizer(modules: Sequence[nn.Module], config: OptimConfig) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters of `modules`, fused where the device can."""
    groups = parameter_groups(modules, config.weight_decay)
    devices = {p.device.type for group in groups for p in group["params"]}
    return torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=config.fused and devices <= {"cpu", "cuda"},
    )


def optimizer_parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Return all parameters of an optimizer."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Scale the gradients to a norm of at most `max_norm` (0: leave them).

    Returns:
        The norm before, a scalar tensor.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm = torch.nn.utils.get_total_norm(gradients)
    if max_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def reduce_gradients(parameters: Sequence[nn.Parameter], num_ranks: int) -> None:
    """Replace every gradient by its sum over all ranks, in buckets; nothing on one rank.

    The losses are already divided by the global counts, so that the sum is the gradient of the
    global mean. This is plain on purpose: it does not care which methods of a module a loss calls
    or which parameters a phase leaves out.
    """
    if num_ranks == 1:
        return
    for bucket in _buckets(parameters):
        for parameter in bucket:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in bucket if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        pieces = flat.split([gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        nbytes = parameter.numel() * parameter.element_size()
        if bucket and (size + nbytes > _REDUCE_BYTES or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += nbytes
    if bucket:
        yield bucket
