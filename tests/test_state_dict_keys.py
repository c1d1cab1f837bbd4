"""Names of weights are frozen: renaming one breaks every released bundle.

`python -m pytest tests/test_state_dict_keys.py` after deleting an entry of the JSON file prints
what it should hold.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

FROZEN: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("state_dict_keys.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def models(
    tiny_models: dict[str, nn.Module], tiny_enhancer: dict[str, nn.Module]
) -> dict[str, nn.Module]:
    """One model of every kind."""
    return tiny_models | tiny_enhancer


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_keys(name: str, models: dict[str, nn.Module]) -> None:
    keys = sorted(models[name].state_dict())
    assert keys == FROZEN.get(name), json.dumps({name: keys}, indent=1)


def test_no_other_kind(models: dict[str, nn.Module]) -> None:
    assert sorted(models) == sorted(FROZEN)
