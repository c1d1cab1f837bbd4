"""Every key and shape of the published files at full size."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenlm.checkpoint.cosyvoice.flow import flow_config, flow_to_ours, flow_to_theirs
from tokenlm.checkpoint.cosyvoice.hift import hift_config, hift_to_ours, hift_to_theirs
from tokenlm.checkpoint.cosyvoice.lm import TIED_HEAD, lm_config, lm_to_ours, lm_to_theirs
from tokenlm.checkpoint.registry import KINDS
from tokenlm.config import load_config
from tokenlm.models.flow import FlowDecoder
from tokenlm.models.lm import SpeechLM
from tokenlm.models.vocoder import HiFT

CONFIGS = Path(__file__).parents[3] / "configs" / "model"


@pytest.fixture(scope="module")
def keys(golden_folder: Path) -> Callable[[str], dict[str, list[int]]]:
    def read(name: str) -> dict[str, list[int]]:
        path = golden_folder / "keys" / f"{name}.json"
        packed = path.with_name(f"{path.name}.gz")  # as the subset has them
        data = gzip.decompress(packed.read_bytes()) if packed.is_file() else path.read_bytes()
        return json.loads(data)

    return read


def built(module: Callable[[Any], nn.Module], config: Any) -> nn.Module:
    with torch.device("meta"):
        return module(config)


@pytest.fixture(scope="module")
def files(keys: Callable[[str], Any]) -> dict[int, list[tuple[Any, ...]]]:
    """The files of each version; see `cases`."""
    return {version: list(cases(version, keys)) for version in (2, 3)}


def cases(version: Any, keys: Callable[[str], Any]) -> Iterator[tuple[Any, ...]]:
    """Of each file: name, kind, shapes, config, model, keys there and back."""
    shapes = keys(f"cv{version}_llm")
    config = lm_config(version, shapes)
    yield (
        "llm", "speech_lm", shapes, config, built(SpeechLM, config),
        lambda state, lm=config: lm_to_ours(version, lm, state),
        lambda state, lm=config: lm_to_theirs(version, lm, state),
    )  # fmt: skip
    shapes = keys(f"cv{version}_flow")
    config = flow_config(version, shapes)
    yield (
        "flow", "flow", shapes, config, built(FlowDecoder, config),
        lambda state: flow_to_ours(version, state),
        lambda state: flow_to_theirs(version, state),
    )  # fmt: skip
    shapes = keys(f"cv{version}_hift")
    hift = hift_config(version, shapes)
    yield (
        "hift", "hift", shapes, hift, built(HiFT, hift),
        lambda state: hift_to_ours(hift, state),
        lambda state: hift_to_theirs(hift, state),
    )  # fmt: skip


@pytest.mark.parametrize("version", [2, 3])
def test_golden_keys(version: int, files: dict[int, Any]) -> None:
    for name, _, shapes, _, model, to_ours, to_theirs in files[version]:
        theirs = to_theirs(model.state_dict())
        assert {key: list(value.shape) for key, value in theirs.items()} == shapes, name
        state: dict[str, Tensor] = {
            key: value
            if "inv_freq" in key  # a table that is checked
            else torch.empty(value.shape, device="meta")
            for key, value in theirs.items()
        }
        ours = to_ours(state)
        wanted = {key: value.shape for key, value in model.state_dict().items()}
        assert {key: value.shape for key, value in ours.items()} == wanted, name


@pytest.mark.parametrize("version", [2, 3])
def test_golden_configs_are_those_of_the_shapes(version: int, files: dict[int, Any]) -> None:
    for name, kind, _, config, _, _, _ in files[version]:
        path = CONFIGS / f"cosyvoice{version}" / f"{kind}.yaml"
        assert load_config(KINDS[kind][0], path) == config, name


def test_golden_sizes(keys: Callable[[str], Any], files: dict[int, Any]) -> None:
    """Parameters as they are published, in millions."""
    published = {(2, "llm"): 505.8, (2, "flow"): 112.55, (2, "hift"): 20.82, (3, "flow"): 332.3}
    for version in (2, 3):
        for name, _, _, _, model, _, to_theirs in files[version]:
            if (version, name) in published:
                # Published with gains and directions, and without the head that is not used.
                theirs = to_theirs(model.state_dict())
                count = sum(v.numel() for k, v in theirs.items() if k != TIED_HEAD) / 1e6
                assert count == pytest.approx(published[version, name], abs=0.05), name
    assert TIED_HEAD in keys("cv2_llm")
