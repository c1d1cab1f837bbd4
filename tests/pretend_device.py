"""A device that this machine has not: its numbers are computed on the CPU, its rules are kept.

As on a GPU, an operation on tensors of two devices is an error; as on MPS, so is float64 unless a
test says otherwise. Each operation is counted, so that a test can see where something ran, and so
is each that makes the CPU wait for the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from tokenlm.modules import exact

backend_registration._setup_privateuseone_for_python_backend("pretend")  # type: ignore[attr-defined]
torch.pretend.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]  # type: ignore[attr-defined]
DEVICE = torch.device("pretend", 0)


class PretendTensor(Tensor):
    """A tensor on the device."""

    _own: Tensor

    @staticmethod
    def __new__(cls, own: Tensor) -> PretendTensor:
        if own.dtype == torch.float64 and not _Rules.has_float64:
            raise TypeError("the device has no float64")
        with torch.inference_mode(False):  # views of such a tensor are not allowed in Python
            made = Tensor._make_wrapper_subclass(
                cls, own.shape, strides=own.stride(), storage_offset=own.storage_offset(),
                dtype=own.dtype, device=DEVICE, requires_grad=own.requires_grad,
            )  # fmt: skip
        made._own = own
        return made

    def __init__(self, own: Tensor) -> None:
        pass

    def __repr__(self, **_: Any) -> str:
        return f"PretendTensor({self._own})"

    def tolist(self) -> list[Any]:
        COUNTS[WAITS] = COUNTS.get(WAITS, 0) + 1
        return self._own.tolist()

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["_own"], None

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})


class _Rules:
    """Of the device, while it is used."""

    has_float64 = False


WAITS = "waits"
COUNTS: dict[str, int] = {}
"""Operations on the device, by name, since `pretend` began; `WAITS` are those whose result the CPU
has to wait for."""
_ASKS = {
    "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero", "aten::unique",
    "aten::_unique2", "aten::masked_select",
}  # fmt: skip
_MIXES = {"aten::copy_", "aten::_to_copy", "aten::set_", "aten::lift_fresh", "aten::to"}


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    if name == "aten::_has_compatible_shallow_copy_type":
        return False
    leaves = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    on_device = any(isinstance(leaf, PretendTensor) for leaf in leaves)
    if on_device:
        COUNTS[name] = COUNTS.get(name, 0) + 1
        strangers = [leaf for leaf in leaves if not isinstance(leaf, PretendTensor) and leaf.ndim]
        indexed = name in ("aten::index.Tensor", "aten::index", "aten::index_put_")
        if strangers and name not in _MIXES and not indexed:
            raise RuntimeError(f"{name}: tensors on two devices")
    every = tree_flatten((args, kwargs))[0]
    wanted = next((leaf for leaf in every if isinstance(leaf, torch.device)), None)
    to_device = on_device if wanted is None else wanted.type == DEVICE.type
    is_boolean_index = name in ("aten::index", "aten::index_put_") and any(
        isinstance(leaf, PretendTensor) and leaf.dtype == torch.bool
        for leaf in tree_flatten(args[1])[0]
    )
    comes_back = (
        name in ("aten::copy_", "aten::_to_copy", "aten::to") and on_device and not to_device
    )
    if comes_back or is_boolean_index or (on_device and name in _ASKS):
        COUNTS[WAITS] = COUNTS.get(WAITS, 0) + 1
    if torch.float64 in every and to_device and not _Rules.has_float64:
        raise TypeError("Cannot convert a tensor to float64: the device has no float64")

    def unwrap(leaf: Any) -> Any:
        if isinstance(leaf, torch.device):
            return torch.device("cpu")
        return leaf._own if isinstance(leaf, PretendTensor) else leaf

    given, named = tree_map(unwrap, args), tree_map(unwrap, kwargs)
    if name == "aten::_conj":  # the mark of a conjugated view would be lost on its way
        func = torch.ops.aten.conj_physical.default
    found = func(*given, **named)
    if name == "aten::copy_" or name.endswith("_") and not name.endswith("__") and args:
        return args[0]
    if not to_device:
        return found

    def wrap(leaf: Any) -> Any:
        return PretendTensor(leaf) if isinstance(leaf, Tensor) else leaf

    return tree_map(wrap, found)


class _Factories(TorchDispatchMode):
    """Makes tensors on the device, which no operation on one would."""

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})


class _Transform(TorchFunctionMode):
    """`torch.stft` turns its result around in place, which a tensor of the device cannot: here it
    is made of operations that give new tensors."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if func is not torch.stft or not isinstance(args[0], PretendTensor):
            return func(*args, **named)
        waveform, size = args
        hop = named["hop_length"]
        assert named["win_length"] is None and named.get("pad_mode", "reflect") == "reflect"
        padded = functional.pad(waveform, (size // 2, size // 2), mode="reflect")
        frames = padded.unfold(-1, size, hop) * named["window"]
        return torch.fft.rfft(frames).transpose(-1, -2)


@contextmanager
def pretend(*, has_float64: bool = False) -> Iterator[dict[str, int]]:
    """Inside, the device `pretend` can be used; gives the counts of its operations."""
    COUNTS.clear()
    _Rules.has_float64 = has_float64
    exact.has_float64.cache_clear()
    # `torch.tensor` makes its tensor on the CPU and then moves it, where the mode sees it.
    before = torch._C._only_lift_cpu_tensors()  # type: ignore[attr-defined]
    torch._C._set_only_lift_cpu_tensors(True)  # type: ignore[attr-defined]
    try:
        with _Transform(), _Factories():
            yield COUNTS
    finally:
        torch._C._set_only_lift_cpu_tensors(before)  # type: ignore[attr-defined]
        _Rules.has_float64 = False
        exact.has_float64.cache_clear()
