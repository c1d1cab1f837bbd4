"""Key tables: how the weights of another system are called here, and the way back.

Every key of a file has to be matched by one rule. What no rule knows is an error that names it, so
that nothing is dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_NUM_LISTED = 12


class WeightsError(ValueError):
    """Weights that are not those of the system they are said to be of; the message names them."""


@dataclass(frozen=True)
class Rule:
    """One pattern of keys. `{name}` matches any part between dots, the same on both sides.

    A part that is written `*{name}` may hold dots.
    """

    theirs: str
    ours: str
    order: tuple[int, ...] | None = None
    """Row of theirs that each row of ours is; None leaves rows as they are."""
    pointwise: bool = False
    """Whether theirs is a convolution of one frame (out, in, 1) and ours a linear layer (out, in);
    other shapes, such as biases, stay as they are."""

    def has_rows_of(self, tensor: Tensor) -> bool:
        """Whether the rows of a tensor are as many as are to be put in order."""
        return self.order is None or (tensor.ndim > 0 and tensor.shape[0] == len(self.order))

    def ours_of(self, tensor: Tensor) -> Tensor:
        """Their tensor as we have it."""
        if self.pointwise and tensor.ndim == 3 and tensor.shape[2] == 1:
            tensor = tensor[:, :, 0]
        return tensor if self.order is None else tensor[torch.tensor(self.order)]

    def theirs_of(self, tensor: Tensor) -> Tensor:
        """Our tensor as they have it."""
        if self.order is not None:
            restored = torch.empty_like(tensor)
            restored[torch.tensor(self.order)] = tensor
            tensor = restored
        return tensor[:, :, None] if self.pointwise and tensor.ndim == 2 else tensor


class KeyTable:
    """Renames the weights of a state dict, both ways."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = list(rules)
        self._to_ours = [(_pattern(rule.theirs), _template(rule.ours)) for rule in rules]
        self._to_theirs = [(_pattern(rule.ours), _template(rule.theirs)) for rule in rules]

    def to_ours(self, state: Mapping[str, Tensor], where: str = "the weights") -> dict[str, Tensor]:
        """Their state dict under our names.

        Raises:
            WeightsError: keys that no rule knows, two keys of one weight, or tensors whose rows are
                not those that a rule puts in order; all of them named.
        """
        return self._renamed(state, self._to_ours, Rule.ours_of, where)

    def to_theirs(
        self, state: Mapping[str, Tensor], where: str = "the weights"
    ) -> dict[str, Tensor]:
        """Our state dict under their names.

        Raises:
            WeightsError: keys that no rule knows, all of them named.
        """
        return self._renamed(state, self._to_theirs, Rule.theirs_of, where)

    def _renamed(
        self,
        state: Mapping[str, Tensor],
        patterns: list[tuple[re.Pattern[str], str]],
        convert: Callable[[Rule, Tensor], Tensor],
        where: str,
    ) -> dict[str, Tensor]:
        renamed, unknown, other, twice = {}, [], [], []
        for key, tensor in state.items():
            for rule, (pattern, template) in zip(self._rules, patterns, strict=True):
                match = pattern.fullmatch(key)
                if match and not rule.has_rows_of(tensor):
                    other.append(f"{key} {tuple(tensor.shape)}")
                    break
                if match:
                    name = template.format(**match.groupdict())
                    if name in renamed:
                        twice.append(key)
                    renamed[name] = convert(rule, tensor)
                    break
            else:
                unknown.append(key)
        refuse(
            where,
            {"unexpected": unknown, "of another shape": other, "there under another name": twice},
        )
        return renamed


def sizes_of(
    shapes: Mapping[str, tuple[int, ...]], axes: Mapping[str, int], where: str
) -> list[int]:
    """The size of some tensors along an axis each, of which a config is made.

    Args:
        shapes: shape of every key.
        axes: axis of each key that is wanted.
        where: what error messages call the file.

    Raises:
        WeightsError: keys are missing, or have too few axes, or nothing along one; all are named.
    """
    missing = [key for key in axes if key not in shapes]
    other = [
        f"{key} {shapes[key]}"
        for key, axis in axes.items()
        if key in shapes and (len(shapes[key]) <= axis or not shapes[key][axis])
    ]
    refuse(where, {"missing": missing, "of another shape": other})
    return [shapes[key][axis] for key, axis in axes.items()]


def refuse(where: object, problems: Mapping[str, Sequence[str]]) -> None:
    """Raises an error about a file if there is anything to be said against it.

    Args:
        where: what the message calls the file.
        problems: names of weights by what is wrong with them.

    Raises:
        WeightsError: some are named.
    """
    found = [f"{title}: {listed(names)}" for title, names in problems.items() if names]
    if found:
        raise WeightsError(f"{where}: {'; '.join(found)}.")


def listed(names: Sequence[str]) -> str:
    """The first of many names, and how many there are."""
    more = f" and {len(names) - _NUM_LISTED} more" if len(names) > _NUM_LISTED else ""
    return ", ".join(names[:_NUM_LISTED]) + more


def _template(text: str) -> str:
    return text.replace("*{", "{")


def _pattern(text: str) -> re.Pattern[str]:
    parts, position, seen = [], 0, set()
    for match in re.finditer(r"(\*?)\{(\w+)\}", text):
        parts.append(re.escape(text[position : match.start()]))
        name = match[2]
        body = ".+" if match[1] else "[^.]+"
        parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{body})")
        seen.add(name)
        position = match.end()
    parts.append(re.escape(text[position:]))
    return re.compile("".join(parts))
