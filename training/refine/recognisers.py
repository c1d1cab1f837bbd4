"""Recognisers by name, each a function from a waveform at 16 kHz to words.

ours:BUNDLE              speech tokenizer and token recogniser of a bundle
pocketsphinx             with its own English model (extra `eval`)
transformers:MODEL       an ASR model by hub id or folder
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

RATE = 16_000
Recogniser = Callable[[Tensor], str]
"""Waveform (S,) at 16 kHz to text."""


def make_recogniser(name: str) -> Recogniser:
    """Return the recogniser of a name.

    Raises:
        ValueError: If there is none of that kind.
        ImportError: If what it needs is not installed.
    """
    kind, _, rest = name.partition(":")
    if kind == "ours":
        from tokenlm.synthesis import Synthesizer

        synthesizer = Synthesizer.from_pretrained(rest or "mini-en")
        return lambda waveform: synthesizer.transcribe(waveform, sample_rate=RATE)
    if kind == "pocketsphinx":
        from pocketsphinx import Decoder

        decoder = Decoder(samprate=RATE, loglevel="FATAL")

        def hear(waveform: Tensor) -> str:
            decoder.start_utt()
            pcm = (waveform.clamp(-1, 1).numpy() * 32767).astype(np.int16)
            decoder.process_raw(pcm.tobytes(), no_search=False, full_utt=True)
            decoder.end_utt()
            found = decoder.hyp()
            return "" if found is None else found.hypstr

        return hear
    if kind == "transformers" and rest:
        from transformers import pipeline

        model = pipeline("automatic-speech-recognition", model=rest)

        def read(waveform: Tensor) -> str:
            found: Any = model({"raw": waveform.numpy(), "sampling_rate": RATE})
            assert isinstance(found, dict)
            return str(found["text"])

        return read
    raise ValueError(
        f"there is no recogniser {name!r}; valid are: ours:BUNDLE, pocketsphinx, transformers:MODEL"
    )
