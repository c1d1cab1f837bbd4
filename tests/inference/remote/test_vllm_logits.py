"""The logits processor, between base classes that stand in for those of vLLM.

`make engine` runs it within vLLM; the second model runner needs a GPU.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from inference.remote.draws import ARGUMENT, DrawOptions, SpeechRows
from tokenlm.checkpoint.llm_folder import export_llm


class FirstBase(ABC):
    @abstractmethod
    def is_argmax_invariant(self) -> bool: ...

    @abstractmethod
    def update_state(self, batch_update: Any) -> None: ...

    @abstractmethod
    def apply(self, logits: Any) -> Any: ...


class Adapter(FirstBase):
    """Follows requests that are added; others move and remove them, too."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        self.requests: dict[int, Any] = {}

    def new_req_logits_processor(self, params: Any) -> Any:
        raise NotImplementedError

    def update_state(self, batch_update: Any) -> None:
        for index, params, _, output_ids in batch_update.added if batch_update else ():
            work = self.new_req_logits_processor(params)
            if work is not None:
                self.requests[index] = partial(work, output_ids)

    def apply(self, logits: Any) -> Any:
        for index, work in self.requests.items():
            logits[index] = work(logits[index])
        return logits


class SecondBase(ABC):
    @abstractmethod
    def apply(self, logits: Any, ctx: Any) -> Any: ...


@pytest.fixture(scope="module")
def processor() -> Iterator[Any]:
    """The class, as it is where vLLM is installed."""
    names = ("vllm", "vllm.v1", "vllm.v1.sample", "vllm.v1.sample.logits_processor",
             "vllm.v1.worker", "vllm.v1.worker.gpu", "vllm.v1.worker.gpu.sample",
             "vllm.v1.worker.gpu.sample.logits_processor",
             "vllm.v1.worker.gpu.sample.logits_processor.interface")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, ModuleType(name))
        first: Any = sys.modules["vllm.v1.sample.logits_processor"]
        first.LogitsProcessor, first.AdapterLogitsProcessor = FirstBase, Adapter
        second: Any = sys.modules["vllm.v1.worker.gpu.sample.logits_processor.interface"]
        second.LogitsProcessor = SecondBase
        patch.delitem(sys.modules, "inference.remote.vllm_logits", raising=False)
        from inference.remote.vllm_logits import SpeechLogits

        yield SpeechLogits
    sys.modules.pop("inference.remote.vllm_logits", None)


@pytest.fixture(scope="module")
def folder(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_llm(tiny_bundle, tmp_path_factory.mktemp("exported") / "llm").folder


def config(folder: Path) -> Any:
    return SimpleNamespace(model_config=SimpleNamespace(model=str(folder)))


def params(options: DrawOptions | None = None) -> Any:
    extra = None if options is None else {ARGUMENT: options.to_json()}
    return SimpleNamespace(extra_args=extra)


OPTIONS = DrawOptions(seed=7, segment=2, step=3, eos_from=2, forbidden=(4, 5), history=(-1, 6))


def test_the_first_runner(processor: Any, folder: Path) -> None:
    made = processor(config(folder), torch.device("cpu"), False)
    assert not made.is_argmax_invariant()
    rows, answered = SpeechRows(folder), [rows_id(folder, 3), rows_id(folder, 9)]
    added = [(0, params(), [1], []), (2, params(OPTIONS), [1], answered)]
    made.update_state(SimpleNamespace(added=added))
    logits = torch.randn(3, rows.vocabulary.size)
    done = made.apply(logits.clone())
    assert torch.equal(done[0], rows.restrict(logits[0]))
    assert torch.equal(done[1], logits[1])
    assert torch.equal(done[2], rows.draw(logits[2], answered, OPTIONS))
    assert done[2].isfinite().sum() == 1


def rows_id(folder: Path, code: int) -> int:
    return SpeechRows(folder).vocabulary.speech_offset + code


def test_the_second_runner(processor: Any, folder: Path) -> None:
    rows, answered = SpeechRows(folder), [rows_id(folder, 3), rows_id(folder, 9)]
    ids = torch.zeros(8, 20, dtype=torch.int32)
    ids[5, :6] = torch.tensor([0, 1, 2, 3, *answered])
    state = SimpleNamespace(
        all_token_ids=SimpleNamespace(gpu=ids),
        prompt_len=SimpleNamespace(np=np.array([0, 0, 0, 0, 0, 4, 3, 0])),
    )
    made = processor(config(folder), state)
    assert made.add_request(5, params(OPTIONS)) and made.add_request(6, params())
    logits = torch.randn(2, rows.vocabulary.size)
    context = SimpleNamespace(expanded_idx_mapping=torch.tensor([6, 5]), pos=torch.tensor([2, 5]))
    done = made.apply(logits.clone(), context)
    assert torch.equal(done[0], rows.restrict(logits[0]))
    assert torch.equal(done[1], rows.draw(logits[1], answered, OPTIONS))


def test_other_models_are_left_alone(processor: Any, tmp_path: Path) -> None:
    first = processor(config(tmp_path), torch.device("cpu"), False)
    second = processor(config(tmp_path), SimpleNamespace())
    assert first.is_argmax_invariant() and second.is_argmax_invariant()
    first.update_state(SimpleNamespace(added=[(0, params(OPTIONS), [1], [])]))
    first.update_state(None)
    assert not second.add_request(0, params(OPTIONS))
    logits = torch.randn(2, 9)
    assert torch.equal(first.apply(logits.clone()), logits)
    assert torch.equal(second.apply(logits.clone(), SimpleNamespace()), logits)


def test_wrong_options_are_refused_when_the_request_comes_in(processor: Any) -> None:
    processor.validate_params(params(OPTIONS))
    processor.validate_params(params())
    for text in ("", "[]", '{"seed": "x"}', '{"unknown": 1}'):
        with pytest.raises(ValueError):
            processor.validate_params(SimpleNamespace(extra_args={ARGUMENT: text}))
