"""The nets of a trigger as components, apart from those that speaking loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from tokenlm.checkpoint.component import (
    ComponentError,
    load_component,
    load_state,
    read_component,
    read_state,
)
from tokenlm.config import from_dict
from tokenlm.models.directedness import (
    AcousticDirectedness,
    AcousticDirectednessConfig,
    TextDirectedness,
    TextDirectednessConfig,
)
from tokenlm.models.phrase_checker import PhraseChecker, PhraseCheckerConfig
from tokenlm.models.phrase_detector import PhraseDetector, PhraseDetectorConfig
from tokenlm.modules.palette import unpack_state

TRIGGER_KINDS: dict[str, tuple[type, Callable[[Any], nn.Module]]] = {
    "directedness": (AcousticDirectednessConfig, AcousticDirectedness),
    "text_directedness": (TextDirectednessConfig, TextDirectedness),
    "phrase_checker": (PhraseCheckerConfig, PhraseChecker),
    "phrase_detector": (PhraseDetectorConfig, PhraseDetector),
}
"""Config class and net of every kind."""

NetT = TypeVar("NetT", bound=nn.Module)


def load_net(folder: str | Path, net_class: type[NetT]) -> NetT:
    """Loads the net in `folder`, frozen, for evaluation.

    Raises:
        ComponentError: the folder holds another kind, or does not load.
    """
    files = read_component(folder)
    bits = files.config.get("palette_bits", 0)
    if files.kind == "phrase_detector" and bits:
        config = from_dict(PhraseDetectorConfig, files.config, where=files.config_path)
        net: nn.Module = PhraseDetector(config)
        load_state(net, unpack_state(read_state(files.state_path), bits), where=files.state_path)
        net = net.eval()
    else:
        net = load_component(folder, TRIGGER_KINDS)
    if not isinstance(net, net_class):
        raise ComponentError(
            f"{folder} holds a {type(net).__name__}, but a {net_class.__name__} is needed."
        )
    return net.requires_grad_(False)
