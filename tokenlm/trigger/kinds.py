"""The nets of a trigger as components, apart from those of a bundle: speaking loads none of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from tokenlm.checkpoint.component import ComponentError, load_component
from tokenlm.models.phrase_checker import PhraseChecker, PhraseCheckerConfig

TRIGGER_KINDS: dict[str, tuple[type, Callable[[Any], nn.Module]]] = {
    "phrase_checker": (PhraseCheckerConfig, PhraseChecker),
}
"""Config class and net of every kind."""

NetT = TypeVar("NetT", bound=nn.Module)


def load_net(folder: str | Path, net_class: type[NetT]) -> NetT:
    """Loads the net in `folder`, frozen, for evaluation.

    Raises:
        ComponentError: the folder holds another kind, or does not load.
    """
    net = load_component(folder, TRIGGER_KINDS)
    if not isinstance(net, net_class):
        raise ComponentError(
            f"{folder} holds a {type(net).__name__}, but a {net_class.__name__} is needed."
        )
    return net.requires_grad_(False)
