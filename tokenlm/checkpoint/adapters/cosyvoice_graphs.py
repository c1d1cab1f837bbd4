"""A first try of the ONNX graphs of a published folder, so that a broken one is told at once."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from tokenlm.checkpoint.adapter import AdapterError
from tokenlm.models.onnx_models import OnnxSpeakerEncoder, OnnxTokenizer

AnyGraph = OnnxSpeakerEncoder | OnnxTokenizer


def try_graphs(graphs: Mapping[Path, tuple[AnyGraph, Mapping[str, Tensor]]]) -> list[str]:
    """Runs each graph on a second of noise.

    Args:
        graphs: model and state dict by the file that they come from.

    Returns:
        Remarks: on what could not be tried.

    Raises:
        AdapterError: some of them are no graphs, or give what does not fit; all are named.
    """
    if graphs and find_spec("onnxruntime") is None:
        return ["the ONNX graphs were not tried; they need onnxruntime: pip install onnxruntime"]
    noise = torch.randn(16_000, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    noise *= 0.1
    problems = []
    for path, (model, state) in graphs.items():
        try:
            model.load_state_dict(state)
            if isinstance(model, OnnxSpeakerEncoder):
                model.embed_recording(noise)
            else:
                model.encode(noise[None])
        except Exception as error:  # onnxruntime has kinds of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            problems.append(f"{path}: {reason.rstrip('.')}.")
    if problems:
        raise AdapterError(" ".join(problems))
    return []
