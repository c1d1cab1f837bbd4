"""Kokoro as an engine of the corpus: natural speech from a small open model, phones aligned.

Kokoro-82M (hexgrad, Apache-2.0) is a StyleTTS 2: phones and a style vector in, 24 kHz out. It runs
as an ONNX graph on onnxruntime. Phones are the IPA of espeak-ng, by its library. A voice is a table
of style vectors, one for each number of phones; weighted sums of tables are voices, too.

Shapes: L phones, S samples.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import re
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from training.recipes.corpus.engines import EngineError, Phones, Request, Speech

SAMPLE_RATE = 24000
FRAME_SECONDS = 0.025
"""Durations are whole numbers of these."""
MAX_PHONES = 508
"""The model reads 510 ids, one of which stands at either end."""
STYLE_SIZE = 256
DURATIONS = "/encoder/Gather_output_0"
"""Value of the graph that has the frames of every id; it is not among its outputs as published."""
FILES = ("model.onnx", "vocab.json", "voices")

PAUSE = "pau"
_MARKS = ';:,.!?—…"()“”'
_SHORT_GAP = 0.1
"""A gap between words that lasts no longer belongs to the phone before it."""
_LETTERS = re.compile(r"(?<![A-Za-z'])[A-Z](?: [A-Z](?![A-Za-z']))+")
_SPLIT = re.compile(r"([;:,.!?—…\"()“”]+)")


class Phonemizer:
    """Phones of English text by the library of espeak-ng, in IPA.

    The library has one state for the whole process, so calls take turns.
    """

    _lock = threading.Lock()
    _library: Any = None

    def __init__(self) -> None:
        """Loads the library.

        Raises:
            EngineError: it is not installed.
        """
        with self._lock:
            if Phonemizer._library is None:
                Phonemizer._library = _load_espeak()

    def __call__(self, text: str, language: str) -> str:
        """Phones of a text.

        Args:
            text: words and punctuation.
            language: "en-us" or "en-gb".

        Returns:
            Phones with stress marks, words apart by spaces, punctuation kept where it stood.
        """
        parts = [
            part if _SPLIT.fullmatch(part) else self._phones(part.strip(), language)
            for part in _SPLIT.split(text.replace("-", " "))
        ]
        spoken = ""
        for part in parts:
            is_mark = bool(part) and part[0] in _MARKS
            if part and spoken and (not is_mark or part[0] in "(“—"):
                spoken += " "
            spoken += part
        return " ".join(spoken.split())

    def _phones(self, text: str, language: str) -> str:
        if not text:
            return ""
        letters = _LETTERS.search(text)
        if letters:  # said one by one: between words, A would be the article
            start, end = letters.span()
            parts = [text[:start], *text[start:end].split(), text[end:]]
            return " ".join(
                found for part in parts if (found := self._phones(part.strip(), language))
            )
        library = Phonemizer._library
        found = []
        with self._lock:
            # Its file of British English is named after the language alone.
            name = "en" if language == "en-gb" else language
            if library.espeak_SetVoiceByName(name.encode()):
                raise EngineError(f"espeak-ng has no voice {language}")
            pointer = ctypes.c_char_p(text.encode())
            # 1: the text is UTF-8; 2: the phones are IPA.
            while pointer.value:
                clause = library.espeak_TextToPhonemes(ctypes.byref(pointer), 1, 2)
                found.append((clause or b"").decode())
        ipa = re.sub(r"\([a-z-]+\)", "", " ".join(found))  # (fr) where it changes the language
        return " ".join(ipa.replace("_", " ").replace("-", "").split())


class Kokoro:
    """The model with its voices."""

    def __init__(self, folder: Path, *, num_threads: int = 1) -> None:
        """Loads the graph.

        Args:
            folder: `model.onnx`, `vocab.json` and the folder `voices` of float32 tables, as
                `scripts/fetch_teacher` puts them.
            num_threads: threads of onnxruntime.

        Raises:
            EngineError: a file or a package is missing.
        """
        for name in FILES:
            if not (folder / name).exists():
                raise EngineError(
                    f"there is no {name} in {folder}; scripts/fetch_teacher {folder} puts it there"
                )
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise EngineError(
                "the engine kokoro needs onnx and onnxruntime: pip install -e '.[onnx]'"
            ) from error
        self.folder = folder
        vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        self.vocabulary: dict[str, int] = vocabulary.get("vocab", vocabulary)
        self.phonemizer = Phonemizer()
        graph = onnx.load(str(folder / "model.onnx"))
        if not any(DURATIONS in node.output for node in graph.graph.node):
            raise EngineError(
                f"{folder / 'model.onnx'} is not the graph that this reads durations of"
            )
        graph.graph.output.append(
            onnx.helper.make_tensor_value_info(DURATIONS, onnx.TensorProto.INT64, None)
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def voices(self) -> list[str]:
        """Names of the voices that are not blends."""
        return sorted(path.stem for path in (self.folder / "voices").glob("*.bin"))

    def style(self, voice: str) -> np.ndarray:
        """Style vectors of a voice or blend, float32 (510, 256): row l for texts of l phones.

        Args:
            voice: a name, or a blend such as `af_heart:0.7+bm_george:0.3`.

        Raises:
            EngineError: there is no such voice.
        """
        return sum(weight * self._table(name) for name, weight in blend_parts(voice))  # type: ignore[return-value]

    @lru_cache(maxsize=64)  # noqa: B019 (one object lives as long as the process)
    def _table(self, name: str) -> np.ndarray:
        path = self.folder / "voices" / f"{name}.bin"
        if not path.exists():
            raise EngineError(f"kokoro has no voice {name}; it has {', '.join(self.voices())}")
        return np.fromfile(path, dtype=np.float32).reshape(-1, STYLE_SIZE)

    def attempt(self, request: Request) -> Speech | EngineError:
        """What `speak` gives, or the error in its place."""
        try:
            return self.speak(request)
        except EngineError as error:
            return error

    def speak(self, request: Request) -> Speech:
        """Speaks a text.

        Raises:
            EngineError: the text is too long or has nothing to say.
        """
        phones = self.phonemizer(request.text, language_of(request.voice))
        phones = "".join(phone for phone in phones if phone in self.vocabulary)
        if not any(phone.isalpha() for phone in phones):
            raise EngineError(f"kokoro finds nothing to say in {request.text!r}")
        if len(phones) > MAX_PHONES:
            raise EngineError(f"kokoro reads at most {MAX_PHONES} phones, got {len(phones)}")
        style = self.style(request.voice)[len(phones)][None]
        audio, frames = self._session.run(
            ["audio", DURATIONS],
            {
                "tokens": np.array([[0, *(self.vocabulary[p] for p in phones), 0]], np.int64),
                "style": style.astype(np.float32),
                "speed": np.array([1 / request.stretch], np.float32),
            },
        )
        return Speech(
            waveform=np.asarray(audio, np.float32).reshape(-1),
            sample_rate=SAMPLE_RATE,
            phones=align(phones, np.asarray(frames).reshape(-1)),
        )


def align(phones: str, frames: np.ndarray) -> Phones:
    """Phones with their ends, from the frames of every id that the model has read.

    A mark of stress belongs to the phone after it, one of length and a short gap between words to
    the phone before; punctuation, longer gaps and both ends are pauses.

    Args:
        phones: what was read, without the ids at the ends.
        frames: whole numbers (L + 2,).

    Raises:
        EngineError: the two do not fit.
    """
    if len(frames) != len(phones) + 2:
        raise EngineError(f"kokoro gave {len(frames)} durations for {len(phones)} phones")
    aligned: Phones = []

    def end(name: str, at: float) -> None:
        if aligned and (aligned[-1][0] == name == PAUSE or not name):
            aligned[-1] = (aligned[-1][0], at)
        else:
            aligned.append((name or PAUSE, at))

    now = float(frames[0]) * FRAME_SECONDS
    end(PAUSE, now)
    for phone, count in zip(phones, frames[1:-1], strict=True):
        seconds = float(count) * FRAME_SECONDS
        now += seconds
        if phone in "ˈˌ":
            continue
        if phone in _MARKS or (phone == " " and seconds > _SHORT_GAP):
            end(PAUSE, now)
        elif phone in "ː ":
            end("", now)
        else:
            end(phone, now)
    end(PAUSE, now + float(frames[-1]) * FRAME_SECONDS)
    return aligned


def blend_parts(voice: str) -> list[tuple[str, float]]:
    """Names and weights of a blend; the weights sum to 1.

    Raises:
        EngineError: a weight is not a positive number.
    """
    parts = []
    for part in voice.split("+"):
        name, _, weight = part.partition(":")
        try:
            parts.append((name, float(weight or 1)))
        except ValueError:
            raise EngineError(f"{voice}: {weight!r} is not a weight") from None
    total = sum(weight for _, weight in parts)
    if min(weight for _, weight in parts) <= 0:
        raise EngineError(f"{voice}: weights must be positive")
    return [(name, weight / total) for name, weight in parts]


def language_of(voice: str) -> str:
    """The English that a voice or blend speaks, that of most of its weight: en-gb or en-us."""
    british = sum(weight for name, weight in blend_parts(voice) if name.startswith("b"))
    return "en-gb" if british > 0.5 else "en-us"


def _load_espeak() -> Any:
    name = ctypes.util.find_library("espeak-ng")
    if name is None:
        raise EngineError(
            "the library of espeak-ng is not installed; on Debian or Ubuntu: "
            "apt-get install espeak-ng"
        )
    library = ctypes.CDLL(name)
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_TextToPhonemes.argtypes = [
        ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int,
    ]  # fmt: skip
    if library.espeak_Initialize(2, 0, None, 0) < 0:  # 2: to memory, nothing is played
        raise EngineError("the library of espeak-ng does not start")
    return library
