"""The repeated blocks of a model: where its memory is, and where it is cut into pieces."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks(module: nn.Module) -> list[nn.Module]:
    """Return the elements of the outermost module lists, in order: the layers of every stack.

    Lists whose elements are never called, as those of discriminators that hold stacks, are gone
    into.
    """
    found: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, nn.ModuleList) and all(_is_called(block) for block in child):
            found += list(child)
        else:
            found += blocks(child)
    return found


def _is_called(module: nn.Module) -> bool:
    return not isinstance(module, (nn.ModuleList, nn.ModuleDict))


def checkpoint_activations(module: nn.Module) -> int:
    """Let every block forget its activations, and compute them again when it needs them.

    Names of weights do not change. Random draws (dropout) are repeated, so the gradient is the
    same.

    Returns:
        Number of blocks.
    """
    found = blocks(module)
    for block in found:
        # In place of a wrapper, which would rename the weights in checkpoints.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return len(found)
