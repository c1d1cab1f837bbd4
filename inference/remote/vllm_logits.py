"""The logits processor for vLLM, an entry point that is found where tokenlm is installed beside it.

vLLM loads it for every model: for any folder but an exported speech LM it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from inference.remote.draws import ARGUMENT, DrawOptions, SpeechRows
from tokenlm.checkpoint.llm_folder import FACTS_FILE


class SpeechLogits(AdapterLogitsProcessor):
    """Draws speech tokens as tokenlm does; see `inference.remote.draws`."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        folder = Path(vllm_config.model_config.model)
        self._rows = SpeechRows(folder) if (folder / FACTS_FILE).is_file() else None

    def is_argmax_invariant(self) -> bool:
        """Whether greedy sampling is not changed: never, for a speech LM."""
        return self._rows is None

    def new_req_logits_processor(self, params: Any) -> Callable[..., Tensor] | None:
        """What is done with the rows of a request; None for other models."""
        if self._rows is None:
            return None
        text = (params.extra_args or {}).get(ARGUMENT)
        if text is None:
            return partial(_restrict, self._rows)
        return partial(_draw, self._rows, DrawOptions.from_json(text))

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuses options that cannot be read, when the request comes in.

        Raises:
            ValueError: they cannot.
        """
        text = (sampling_params.extra_args or {}).get(ARGUMENT)
        if text is not None:
            DrawOptions.from_json(text)


def _restrict(rows: SpeechRows, output_ids: list[int], logits: Tensor) -> Tensor:
    return rows.restrict(logits)


def _draw(rows: SpeechRows, options: DrawOptions, output_ids: list[int], logits: Tensor) -> Tensor:
    return rows.draw(logits, output_ids, options)
