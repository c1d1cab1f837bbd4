"""Judges of naturalness: samples to mean opinion scores, 1 to 5. None takes part in any training.

`speechmos` is DNSMOS (Reddy et al., 2021 and 2022), two networks: P.808 was fitted to ratings of
the speech as a whole, OVRL to those of speech and background together. `distillmos` is Distill-MOS
(Stahl and Gamper, 2025), a small network that learned from a large one. Both packages hold their
weights, and are imported when they are asked for.

Shapes: S samples.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from training.evaluation.judges import SAMPLE_RATE, JudgeError, require

Rate = Callable[[np.ndarray], dict[str, float]]
"""Samples (S,) in -1 .. 1 at 16 kHz to scores by their names."""

P808, OVRL, DISTILL = "dnsmos_p808", "dnsmos_ovrl", "distill_mos"
SCORES = {
    P808: "naturalness by DNSMOS P.808, 1 to 5",
    OVRL: "speech and background by DNSMOS, 1 to 5",
    DISTILL: "naturalness by Distill-MOS, 1 to 5",
}
"""The scores, and how they are read."""


def load_naturalness(names: str) -> Rate:
    """Load judges of naturalness.

    Args:
        names: `speechmos`, `distillmos`, or both with a comma between.

    Raises:
        JudgeError: there is no such judge, or it is not installed.
    """
    known = {"speechmos": _load_speechmos, "distillmos": _load_distillmos}
    asked = [name.strip() for name in names.split(",")]
    for name in asked:
        if name not in known:
            raise JudgeError(
                f"there is no judge of naturalness {name!r}; there are {', '.join(known)}."
            )
    judges = [known[name]() for name in asked]
    return lambda samples: {name: s for judge in judges for name, s in judge(samples).items()}


def _load_speechmos() -> Rate:
    require("speechmos")
    try:
        import onnxruntime
        from speechmos import dnsmos  # pyright: ignore[reportMissingImports]
    except ImportError as error:  # it declares nothing of what it imports
        raise JudgeError(f"speechmos needs {error.name}: pip install {error.name}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    folder = Path(dnsmos.__file__).parent / "dnsmos_models"
    # Its own sessions take every core and wait in a loop, so that they stall where others work.
    model = dnsmos.DNSMOS.__new__(dnsmos.DNSMOS)
    model.onnx_sess = onnxruntime.InferenceSession(str(folder / "sig_bak_ovr.onnx"), options)
    model.p808_onnx_sess = onnxruntime.InferenceSession(str(folder / "model_v8.onnx"), options)

    def rate(samples: np.ndarray) -> dict[str, float]:
        scores: Any = model(np.clip(samples, -1.0, 1.0), SAMPLE_RATE, False)
        return {P808: float(scores["p808_mos"]), OVRL: float(scores["ovrl_mos"])}

    return rate


def _load_distillmos() -> Rate:
    for package in ("distillmos", "xls_r_sqa"):
        require(package)
    import torch

    with _stand_in("torchaudio"), contextlib.redirect_stdout(io.StringIO()):
        from distillmos import ConvTransformerSQAModel  # pyright: ignore[reportMissingImports]

        model = ConvTransformerSQAModel().eval()

    @torch.inference_mode()
    def rate(samples: np.ndarray) -> dict[str, float]:
        waveform = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        return {DISTILL: float(model(waveform[None]))}

    return rate


@contextlib.contextmanager
def _stand_in(name: str) -> Any:
    """An empty module, while something is imported that imports it and uses none of it here."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = ModuleType(name)
    try:
        yield
    finally:
        del sys.modules[name]
