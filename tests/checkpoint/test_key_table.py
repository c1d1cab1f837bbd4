"""Tables of keys, by hand."""

from __future__ import annotations

import pytest
import torch

from tokenlm.checkpoint.key_table import KeyTable, Rule, WeightsError

TABLE = KeyTable([Rule("old.{part}", "layer.{part}"), Rule("new.{part}", "layer.{part}")])


def test_keys_are_renamed() -> None:
    weight = torch.ones(2)
    assert TABLE.to_ours({"new.weight": weight, "old.bias": weight}).keys() == {
        "layer.weight",
        "layer.bias",
    }


def test_two_keys_of_one_weight_are_refused() -> None:
    both = {"old.weight": torch.ones(2), "new.weight": torch.zeros(2)}
    with pytest.raises(WeightsError, match=r"llm\.pt: there under another name: new\.weight"):
        TABLE.to_ours(both, "llm.pt")
