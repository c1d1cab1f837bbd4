"""Adapters over one bundle: loaded when a voice needs them, dropped under a memory limit.

Low-rank additions to linear layers of the LM and the flow are applied to the rows of a batch
(`tokenlm.modules.low_rank`): streams of several adapters, and of none, are computed together over
the weights of the bundle. Any other change makes a model of its own, and streams are batched with
those of the same adapter.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenlm.checkpoint.adapter import (
    CONFIG_FILE,
    Adapter,
    AdapterError,
    PartChange,
    check_part,
    read_adapter,
)
from tokenlm.checkpoint.bundle import BundleManifest
from tokenlm.checkpoint.registry import load_model
from tokenlm.models.flow import FlowDecoder
from tokenlm.models.lm import SpeechLM
from tokenlm.models.vocoder import HiFT, Vocoder
from tokenlm.modules.attention import CachePrecision, keep_caches_in
from tokenlm.modules.low_rank import Additions, hook_layers
from tokenlm.modules.quantised import (
    Precision,
    QuantisedLinear,
    num_model_bytes,
    quantise_model,
)

MAX_BYTES = 1 << 30
"""Default memory limit of an `AdapterStore`."""
WEIGHT = ".weight"
_SHARED_LAYERS = ("position",)
"""Layers that compute something once for all rows of a batch: relative positions."""

_CLASSES: dict[str, tuple[type[nn.Module], ...]] = {
    "speech_lm": (SpeechLM,),
    "flow": (FlowDecoder,),
    "vocoder": (Vocoder, HiFT),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class VoiceModels:
    """What a voice is spoken with: the models of the bundle, or those of its adapter."""

    speech_lm: SpeechLM
    flow: FlowDecoder
    vocoder: Vocoder | HiFT
    additions: dict[str, Additions] = field(default_factory=dict)
    """Of the LM and of the flow, by component."""
    adapter: str = ""
    """Digest of the adapter; empty where there is none."""

    changes_lm: bool = False
    """Whether the LM speaks otherwise than that of the bundle."""
    num_bytes: int = 0
    """Memory beside that of the bundle."""


class AdapterStore:
    """The adapters that are loaded over a bundle. Thread-safe.

    An adapter is found by its folder, or by the name under which it was loaded. One whose folder
    has been replaced is read again. Those that were dropped or evicted are read again when a voice
    names their folder; streams that speak with them keep them until they end.
    """

    def __init__(
        self, base: VoiceModels, manifest: BundleManifest, folder: Path, dtype: torch.dtype
    ) -> None:
        """Create an empty store.

        Args:
            base: the models of the bundle.
            manifest: of the bundle.
            folder: of the bundle, from which models of an adapter's own are made.
            dtype: of the LM and the flow.
        """
        self.max_bytes = MAX_BYTES
        """Most memory; the adapter that was used last stays whatever its size is."""
        self.weights: Precision = "float32"
        """Of the linear layers of models of an adapter's own, as of those of the bundle."""
        self.caches: CachePrecision = "float32"
        """Of their flows."""
        self._base, self._manifest, self._folder, self._dtype = base, manifest, folder, dtype
        self._loaded: OrderedDict[Path, tuple[object, VoiceModels]] = OrderedDict()
        self._names: dict[str, Path] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "_lock"}
        return state | {"_loaded": OrderedDict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    @property
    def names(self) -> list[str]:
        """Names under which adapters were loaded."""
        return sorted(self._names)

    @property
    def num_bytes(self) -> int:
        """Memory of all that are loaded."""
        return sum(models.num_bytes for _, models in self._loaded.values())

    def load(self, folder: str | Path, name: str = "") -> str:
        """Load an adapter under a name, by default its own.

        Raises:
            AdapterError: it cannot be read, or was learned on another bundle.
        """
        path = Path(folder).expanduser().resolve()
        adapter = read_adapter(path)
        name = name or adapter.config.name
        with self._lock:
            self._put(path, adapter)
            self._names[name] = path
        return name

    def drop(self, name: str | Path) -> None:
        """Free an adapter, given by the name it was loaded under or its folder.

        Raises:
            AdapterError: there is none.
        """
        with self._lock:
            named = self._names.pop(str(name), None)  # may have been evicted
            path = named or Path(name).expanduser().resolve()
            loaded = self._loaded.pop(path, None)
            if named is None and loaded is None and path not in self._names.values():
                known = ", ".join(self.names) or "none"
                raise AdapterError(f"no adapter {str(name)!r} is loaded; there is: {known}.")

    def models(self, adapter: str) -> VoiceModels:
        """The models of an adapter, given by name or folder; loaded where they are not.

        Raises:
            AdapterError: there is none, or it cannot be used with this bundle.
        """
        path = self._names.get(adapter) or Path(adapter).expanduser().resolve()
        with self._lock:
            version = _version(path)
            known = self._loaded.get(path)
            if known is None or known[0] != version:
                return self._put(path, read_adapter(path))
            self._loaded.move_to_end(path)
            return known[1]

    def _put(self, path: Path, adapter: Adapter) -> VoiceModels:
        """Make the models of an adapter and keep them; with the lock held."""
        version = _version(path)
        adapter.check_base(self._manifest, path)
        models = self._make(path, adapter)
        self._loaded[path] = version, models
        self._loaded.move_to_end(path)
        while len(self._loaded) > 1 and self.num_bytes > self.max_bytes:
            self._loaded.popitem(last=False)
        return models

    def _make(self, path: Path, adapter: Adapter) -> VoiceModels:
        own: dict[str, nn.Module] = {}
        additions: dict[str, Additions] = {}
        num_bytes = 0
        for component, part in adapter.parts.items():
            base: nn.Module = getattr(self._base, component)
            where = f"{path}: {component}"
            rows = self._rows(component, base, part, where)
            if rows is not None:
                additions[component] = rows
                num_bytes += rows.num_bytes
            else:
                model = own[component] = self._own_model(component, part, where)
                num_bytes += num_model_bytes(model)
        models: dict[str, Any] = {
            name: own.get(name, getattr(self._base, name)) for name in _CLASSES
        }
        return VoiceModels(
            **models,
            additions=additions,
            adapter=adapter.digest,
            changes_lm="speech_lm" in adapter.parts,
            num_bytes=num_bytes,
        )

    def _rows(
        self, component: str, base: nn.Module, part: PartChange, where: str
    ) -> Additions | None:
        """The changes as additions to rows, where they are such, else None.

        Compiled layers have none.
        """
        if component == "vocoder" or part.values:
            return None
        layers = {
            f"{name}{WEIGHT}": layer
            for name, layer in base.named_modules()
            if isinstance(layer, nn.Linear | QuantisedLinear) and not name.endswith(_SHARED_LAYERS)
        }
        if not layers.keys() >= part.additions.keys():
            return None
        if any(getattr(layer, "_compiled_call_impl", None) for layer in base.modules()):
            return None  # a compiled model would be compiled again for each batch
        shapes = {
            name: torch.Size([layer.out_features, layer.in_features])
            for name, layer in layers.items()
        }
        check_part(part, shapes, where)
        device = next(base.parameters()).device
        pairs = {
            name.removesuffix(WEIGHT): (down.to(device, self._dtype), up.to(device, self._dtype))
            for name, (down, up) in part.additions.items()
        }
        hook_layers(base, [*pairs])
        return Additions(pairs)

    def _own_model(self, component: str, part: PartChange, where: str) -> nn.Module:
        """A model with the changes, made from the files of the bundle."""
        dtype = torch.float32 if component == "vocoder" else self._dtype
        device = next(getattr(self._base, component).parameters()).device
        model = load_model(self._folder / component, *_CLASSES[component])
        state = model.state_dict()
        check_part(part, {name: tensor.shape for name, tensor in state.items()}, where)
        model.load_state_dict(part.apply(state))
        model.to(device=device, dtype=dtype)
        if isinstance(model, FlowDecoder):
            keep_caches_in(model.estimator, self.caches)
        return model if component == "vocoder" else quantise_model(model, self.weights)


def _version(path: Path) -> object:
    """Changes when the folder of an adapter is replaced."""
    try:
        found = (path / CONFIG_FILE).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
