"""Checks of the kinds of arguments: a wrong one is a ValueError, as are all mistakes of users."""

from __future__ import annotations

import math
from numbers import Real


def is_number(value: object) -> bool:
    """Whether a value is a real number and neither a truth value nor NaN."""
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and not math.isnan(value)


def check_number(name: str, value: object) -> None:
    """Checks that an argument is a number.

    Raises:
        ValueError: it is not.
    """
    if not is_number(value):
        raise ValueError(f"{name} is a number, not {value!r}.")


def check_flag(name: str, value: object) -> None:
    """Checks that an argument is true or false.

    Raises:
        ValueError: it is not, such as a string.
    """
    if not isinstance(value, bool | int) or value not in (0, 1):
        raise ValueError(f"{name} is True or False, not {value!r}.")


def check_kind(name: str, value: object, *kinds: type) -> None:
    """Checks that an argument is an instance of one of some types.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, kinds):
        known = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{name} is of the type {known}, not {type(value).__name__}.")


def check_callable(name: str, value: object) -> None:
    """Checks that an argument can be called, or is None.

    Raises:
        ValueError: it is neither.
    """
    if value is not None and not callable(value):
        raise ValueError(f"{name} is a function, not {type(value).__name__}.")
