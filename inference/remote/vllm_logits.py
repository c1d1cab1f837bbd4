"""The logits processor for vLLM, an entry point that is found where tokenlm is installed beside it.

vLLM loads it for every model: for any folder but an exported speech LM it does nothing. It is one
class for both of vLLM's model runners, as the entry point is loaded by whichever runs: the first
runner gives requests by their place in the batch, the second by a slot of theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor, LogitsProcessor

from inference.remote.draws import ARGUMENT, DrawOptions, SpeechRows
from tokenlm.checkpoint.llm_folder import FACTS_FILE

try:
    from vllm.v1.worker.gpu.sample.logits_processor.interface import (
        LogitsProcessor as SecondLogitsProcessor,
    )
except ImportError:  # an earlier vLLM has one runner
    _BASES: tuple[Any, ...] = (LogitsProcessor,)
else:
    _BASES = (LogitsProcessor, SecondLogitsProcessor)

Work = Callable[[list[int], Tensor], Tensor]
"""What is done with a row of logits (M,) after the ids that its request has answered."""


class SpeechLogits(*_BASES):
    """Draws speech tokens as tokenlm does; see `inference.remote.draws`."""

    def __init__(self, vllm_config: Any, *places: Any) -> None:
        """Reads what lies beside the model.

        Args:
            vllm_config: with the folder of the model.
            places: of the first runner its device and whether memory is pinned; of the second the
                state of its requests.
        """
        folder = Path(vllm_config.model_config.model)
        self._rows = SpeechRows(folder) if (folder / FACTS_FILE).is_file() else None
        self._slots: dict[int, Work] = {}
        self._first: _FirstRunner | None = None
        if len(places) == 2:
            self._first = _FirstRunner(vllm_config, *places, work=self._work)
        else:
            self._state = places[0]

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuses options that cannot be read, when the request comes in.

        Raises:
            ValueError: they cannot.
        """
        text = (sampling_params.extra_args or {}).get(ARGUMENT)
        if text is not None:
            DrawOptions.from_json(text)

    def is_argmax_invariant(self) -> bool:
        """Whether greedy sampling stays as it is: for other models."""
        return self._rows is None

    def update_state(self, batch_update: Any) -> None:
        """Takes in what the first runner says of its batch."""
        assert self._first is not None
        self._first.update_state(batch_update)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Takes in a request of the second runner; whether its logits change."""
        work = self._work(sampling_params)
        if work is None:
            self._slots.pop(req_idx, None)
        else:
            self._slots[req_idx] = work
        return work is not None

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """The logits (rows, M), changed in place."""
        if self._first is not None:
            return self._first.apply(logits)
        if not self._slots:
            return logits
        places = zip(ctx.expanded_idx_mapping.tolist(), (ctx.pos + 1).tolist(), strict=True)
        for row, (slot, end) in enumerate(places):
            work = self._slots.get(slot)
            if work is not None:
                start = int(self._state.prompt_len.np[slot])
                answered = self._state.all_token_ids.gpu[slot, start:end].tolist()
                logits[row] = work(answered, logits[row])
        return logits

    def _work(self, params: Any) -> Work | None:
        """What is done with the rows of a request; None for other models."""
        if self._rows is None:
            return None
        text = (params.extra_args or {}).get(ARGUMENT)
        if text is None:
            return partial(_restrict, self._rows)
        return partial(_draw, self._rows, DrawOptions.from_json(text))


class _FirstRunner(AdapterLogitsProcessor):
    """Follows the requests of the first runner through its batch."""

    def __init__(
        self,
        vllm_config: Any,
        device: torch.device,
        is_pin_memory: bool,
        *,
        work: Callable[[Any], Work | None],
    ) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._work = work

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> Work | None:
        return self._work(params)


def _restrict(rows: SpeechRows, output_ids: list[int], logits: Tensor) -> Tensor:
    return rows.restrict(logits)


def _draw(rows: SpeechRows, options: DrawOptions, output_ids: list[int], logits: Tensor) -> Tensor:
    return rows.draw(logits, output_ids, options)
