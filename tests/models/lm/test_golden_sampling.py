"""Repetition-aware sampling as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tokenlm.models.lm.decoding import SamplingConfig, sample, truncate


@pytest.fixture(scope="module")
def table(golden: Callable[[str], Any]) -> Any:
    return golden("lm_sampling")


@pytest.fixture(scope="module")
def config(table: Any) -> SamplingConfig:
    return SamplingConfig(
        top_k=table.sizes["top_k"],
        top_p=table.sizes["top_p"],
        repetition_window=table.sizes["win_size"],
        repetition_threshold=table.sizes["tau_r"],
    )


def scores(table: Any) -> Tensor:
    return table["in.scores"].masked_fill(table["in.scores"] <= -1e9, -torch.inf)


def test_golden_truncation(table: Any, config: SamplingConfig) -> None:
    kept = truncate(scores(table), config)
    ordered, ids = kept.sort(dim=-1, descending=True, stable=True)
    count = table.sizes["top_k"]
    table.check((kept > 0).sum(dim=-1), "out.kept_n")
    table.check(ordered[:, :count], "out.kept_probs")
    ids = ids[:, :count].masked_fill(ordered[:, :count] == 0, -1)
    table.check(ids, "out.kept_ids")


def histories(table: Any, row: int) -> Tensor:
    """(R, W) newest last, -1 before."""
    ids, lengths = table["in.history"][row], table["in.history_len"][row]
    width = ids.shape[-1]
    return torch.stack(
        [
            functional.pad(r[:n], (width - int(n), 0), value=-1)
            for r, n in zip(ids, lengths, strict=True)
        ]
    )


def test_golden_decisions(table: Any, config: SamplingConfig) -> None:
    draws = table["in.u"].shape[1]
    plain = replace(config, repetition_window=0)
    tokens, first, counts = [], [], []
    for row in range(table["in.u"].shape[0]):
        logits = scores(table)[row].expand(draws, -1)
        history, uniforms = histories(table, row), table["in.u"][row]
        tokens.append(sample(logits, history, uniforms, config))
        first.append(sample(logits, history, uniforms, plain))
        window = history[:, -config.repetition_window :]
        counts.append((window == first[-1][:, None]).sum(dim=-1))
    table.check(torch.stack(tokens), "out.token")
    table.check(torch.stack(first), "out.nucleus_token")
    table.check(torch.stack(counts), "out.repeat_count")
    # A token that was repeated is not drawn again, one that was not is kept.
    has_changed = torch.stack(tokens) != torch.stack(first)
    table.check(1 + has_changed.long(), "out.draws_used")


def test_golden_second_draw(table: Any) -> None:
    logits = scores(table)
    without = logits.scatter(-1, logits.argmax(dim=-1, keepdim=True), -torch.inf)
    table.check(without.softmax(dim=-1), "out.fallback_probs_if_top_repeats")
