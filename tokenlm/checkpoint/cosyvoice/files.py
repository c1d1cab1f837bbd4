"""Files as they were published, or as a download that went wrong left them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from tokenlm.checkpoint.key_table import WeightsError, listed, refuse

_POINTER = b"version https://git-lfs.github.com"
_PARALLEL = "module."
"""Prefix of the keys of a model that was saved within `DataParallel`."""
_PROGRESS = ("epoch", "step")
"""What checkpoints of training keep beside the weights."""


def broken_downloads(paths: Iterable[Path]) -> tuple[set[str], list[str]]:
    """Names of files that hold nothing, or only the address of their content, and sentences."""
    empty, pointers = [], []
    for path in paths:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
        if not start:
            empty.append(str(path))
        elif start == _POINTER:
            pointers.append(str(path))
    problems = []
    if empty:
        problems.append(f"empty: {listed(empty)}; download them again")
    if pointers:
        problems.append(
            f"only pointers of git-lfs: {listed(pointers)}; run `git lfs pull` in that folder, or "
            "download them one by one"
        )
    return {Path(path).name for path in empty + pointers}, [f"{text}." for text in problems]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a file; nothing in it is run.

    Raises:
        WeightsError: it cannot be read, or holds other things than tensors.
    """
    is_archive = zipfile.is_zipfile(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise WeightsError(f"{path} {_unreadable(path, is_archive, error)}.") from error
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{path} holds no weights.")
    state = {key: value for key, value in state.items() if key not in _PROGRESS}
    odd = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise WeightsError(
            f"{path} holds things that are no weights: {listed(odd)}. Save the state dict of the "
            "model alone."
        )
    if all(str(key).startswith(_PARALLEL) for key in state):
        state = {str(key).removeprefix(_PARALLEL): value for key, value in state.items()}
    refuse(path, {"no floating-point numbers": [
        str(key) for key, value in state.items() if not value.is_floating_point()
    ]})  # fmt: skip
    return {str(key): value for key, value in state.items()}


def check_finite(state: dict[str, Tensor], where: object) -> None:
    """Checks that weights are numbers.

    Raises:
        WeightsError: some are not; all of them are named.
    """
    names = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    refuse(where, {"not finite (under our names)": names})


def damaged_part(path: Path) -> str | None:
    """The first part of an archive of weights that has not its checksum; None where all have.

    Torch does not check them when it reads, and need not write them.
    """
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _unreadable(path: Path, is_archive: bool, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if is_archive:
        return "is damaged, or holds objects that are no weights: download it again"
    if start == b"PK\x03\x04":
        return "ends too early: download it again"
    reason = str(error).split(". ")[0].splitlines() or ["it ends too early"]
    return f"cannot be read as weights: {reason[0]}: download it again"
