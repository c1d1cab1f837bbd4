"""Recognisers by name, each a function from a waveform at 16 kHz to words.

ours:BUNDLE              speech tokenizer and token recogniser of a bundle
pocketsphinx             with its own English model (extra `eval`)
whisper:FOLDER           a Whisper of CTranslate2 (extra `eval`; scripts/fetch_judges)
transformers:MODEL       an ASR model by hub id or folder
paraformer:FOLDER        a Paraformer exported to ONNX

All but the first are those of `tokenlm evaluate` (`training.evaluation.judges`).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from training.evaluation.judges import KINDS, SAMPLE_RATE, load_recognizer

RATE = SAMPLE_RATE
Recogniser = Callable[[Tensor], str]
"""Waveform (S,) at 16 kHz to text."""


def make_recogniser(name: str) -> Recogniser:
    """Return the recogniser of a name.

    Raises:
        ValueError: If there is none of that kind, or what it needs is not installed.
    """
    kind, _, rest = name.partition(":")
    if kind == "ours":
        from tokenlm.synthesis import Synthesizer

        synthesizer = Synthesizer.from_pretrained(rest or "mini-en")
        return lambda waveform: synthesizer.transcribe(waveform, sample_rate=RATE)
    if kind not in {one.partition(":")[0] for one in KINDS}:
        raise ValueError(
            f"there is no recogniser {name!r}; valid are: ours:BUNDLE, {', '.join(KINDS)}"
        )
    transcribe = load_recognizer(name)

    def hear(waveform: Tensor) -> str:
        return transcribe((waveform.clamp(-1, 1) * 32767).numpy().astype("<i2").tobytes())

    return hear
