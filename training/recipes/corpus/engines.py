"""Drivers of the engines: text in, waveform and aligned phones out."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

PACKAGES = {"flite": "flite", "festival": "festival", "espeak-ng": "espeak-ng"}
"""Debian package of each engine."""
FESTIVAL_PACKAGES = {
    "ked_diphone": "festvox-kdlpc16k",
    "kal_diphone": "festvox-kallpc16k",
    "cmu_us_slt_arctic_hts": "festvox-us-slt-hts",
    "suo_fi_lj_diphone": "festvox-suopuhe-lj",
    "hy_fi_mv_diphone": "festvox-suopuhe-mv",
    "pc_diphone": "festvox-itapc16k",
    "lp_diphone": "festvox-italp16k",
    "upc_ca_ona_hts": "festvox-ca-ona-hts",
    "msu_ru_nsh_clunits": "festvox-ru",
    "czech_dita": "festvox-czech-dita",
    "czech_krb": "festvox-czech-krb",
    "czech_machac": "festvox-czech-machac",
    "czech_ph": "festvox-czech-ph",
}
"""Debian package of each festival voice."""
ESPEAK_WORDS_PER_MINUTE = 170
TIMEOUT_SECONDS = 120

Phones = list[tuple[str, float]]
"""Phone names with their end in seconds."""


class EngineError(ValueError):
    """An engine is missing or refused to speak."""


@dataclass(frozen=True, kw_only=True)
class Speech:
    """What an engine gave."""

    waveform: np.ndarray
    """Samples (S,) float32 in -1..1."""
    sample_rate: int
    """Rate in Hz."""
    phones: Phones = field(default_factory=list)
    """Aligned phones; empty where the engine gives none."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing to say."""

    text: str
    """Words and punctuation."""
    voice: str
    """Voice name of the engine."""
    pitch: float | None = None
    """Mean pitch in Hz, None for the voice's own."""
    stretch: float = 1.0
    """Duration stretch, above 1 is slower."""


def require(engine: str) -> str:
    """Path of an engine's program.

    Raises:
        EngineError: it is not installed; the sentence names the package.
    """
    program = shutil.which(engine)
    if program is None:
        raise EngineError(
            f"the speech engine {engine} is not installed; "
            f"on Debian or Ubuntu: apt-get install {PACKAGES[engine]}"
        )
    return program


def check_voice(engine: str, voice: str) -> None:
    """Check that an engine is installed and has a voice.

    Raises:
        EngineError: it has not; the sentence says what to install or names the voices.
    """
    program = require(engine)
    if engine == "flite":
        listed = _run([program, "-lv"]).decode()
        voices = listed.partition(":")[2].split()
        if voice not in voices:
            raise EngineError(f"flite has no voice {voice}; it has {', '.join(voices)}")
    elif engine == "festival":
        script = f'(format t "%l" (if (member \'{voice} (voice.list)) "present" "absent"))'
        if b"present" not in _run([program, "-b", script]):
            package = FESTIVAL_PACKAGES.get(voice)
            hint = f"; on Debian or Ubuntu: apt-get install {package}" if package else ""
            raise EngineError(f"festival has no voice {voice}{hint}")


def speak(engine: str, requests: Sequence[Request]) -> list[Speech | EngineError]:
    """Speak several texts with one engine.

    Args:
        engine: "flite", "festival" or "espeak-ng".
        requests: what to say.

    Returns:
        One speech per request, in order; in its place the error of a request that failed.

    Raises:
        EngineError: the engine is missing, or failed altogether.
    """
    require(engine)
    if engine == "festival":
        return speak_festival(requests)
    one = speak_flite if engine == "flite" else speak_espeak
    spoken: list[Speech | EngineError] = []
    for request in requests:
        try:
            spoken.append(one(request))
        except EngineError as error:
            spoken.append(error)
    return spoken


def speak_flite(request: Request) -> Speech:
    """Speak with flite, phones included."""
    command = [require("flite"), "-voice", request.voice, "-psdur"]
    command += ["--setf", f"duration_stretch={request.stretch:.4f}"]
    if request.pitch is not None:
        command += ["--setf", f"int_f0_target_mean={request.pitch:.2f}"]
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        path = Path(folder) / "speech.wav"
        printed = _run([*command, "-o", str(path), "-t", request.text])
        waveform, sample_rate = _read(path)
    phones = [
        (name, float(end))
        for name, end in (item.rsplit(":", 1) for item in printed.decode().split())
    ]
    return Speech(waveform=waveform, sample_rate=sample_rate, phones=phones)


def speak_espeak(request: Request) -> Speech:
    """Speak with espeak-ng; it gives no aligned phones and takes no pitch in Hz."""
    assert request.pitch is None
    rate = round(ESPEAK_WORDS_PER_MINUTE / request.stretch)
    command = [require("espeak-ng"), "-v", request.voice, "-s", str(rate), "--stdout"]
    data = _run([*command, request.text])
    # The header of a streamed wave file carries no length: read what follows it as it comes.
    start = data.find(b"data")
    if start < 0:
        raise EngineError(f"espeak-ng gave no audio for {request.text!r}")
    sample_rate = int.from_bytes(data[24:28], "little")
    samples = np.frombuffer(data[start + 8 : start + 8 + (len(data) - start - 8) // 2 * 2], "<i2")
    return Speech(waveform=samples.astype(np.float32) / 32768, sample_rate=sample_rate)


def speak_festival(requests: Sequence[Request]) -> list[Speech | EngineError]:
    """Speak with festival, phones included; one process speaks many, as its start is slow.

    Each voice has processes of its own: voices of several languages leave rules behind that
    break one another.
    """
    spoken: dict[int, Speech | EngineError] = {}
    for voice in dict.fromkeys(request.voice for request in requests):
        indices = [n for n, request in enumerate(requests) if request.voice == voice]
        spoken |= zip(indices, _speak_one_voice([requests[n] for n in indices]), strict=True)
    return [spoken[index] for index in range(len(requests))]


def _speak_one_voice(requests: Sequence[Request]) -> list[Speech | EngineError]:
    """Speak with one voice of festival.

    Festival dies of some texts (a corrupted heap); what it was to say then fails alone, and a
    new process goes on behind it.
    """
    spoken: list[Speech | EngineError] = []
    while len(spoken) < len(requests):
        rest = requests[len(spoken) :]
        with tempfile.TemporaryDirectory(prefix="corpus-") as name:
            folder = Path(name)
            script = folder / "speak.scm"
            script.write_text(_festival_script(rest, folder), encoding="utf-8")
            death = None
            try:
                _run([require("festival"), "-b", str(script)], timeout=TIMEOUT_SECONDS * len(rest))
            except EngineError as error:
                death = error
            for index, request in enumerate(rest):
                if not (folder / f"{index}.done").exists():
                    error = f"festival {request.voice} gave no audio for {request.text!r}"
                    spoken.append(death or EngineError(error))
                    if death:
                        break
                    continue
                waveform, sample_rate = _read(folder / f"{index}.wav")
                lines = (folder / f"{index}.phones").read_text(encoding="utf-8").splitlines()
                phones = [(phone, float(end)) for phone, end in (line.split() for line in lines)]
                spoken.append(Speech(waveform=waveform, sample_rate=sample_rate, phones=phones))
    return spoken


def _festival_script(requests: Sequence[Request], folder: Path) -> str:
    lines = [
        "(define (write_phones utt path)",
        '  (let ((file (fopen path "w")))',
        "    (mapcar (lambda (s)",
        '      (format file "%s %f\\n" (item.name s) (item.feat s "segment_end")))',
        "      (utt.relation.items utt 'Segment))",
        "    (fclose file)))",
    ]
    for index, request in enumerate(requests):
        text = re.sub(r'[\\"]', " ", request.text)
        lines.append(f"(voice_{request.voice})")
        if request.voice.endswith("_hts"):
            lines.append(
                "(set! hts_engine_params "
                f'(append hts_engine_params (list (list "-r" {1 / request.stretch:.4f}))))'
            )
        else:
            lines.append(f"(Parameter.set 'Duration_Stretch {request.stretch:.4f})")
        if request.pitch is not None:
            lines.append(
                "(set! int_lr_params (cons "
                f"'(target_f0_mean {request.pitch:.2f}) "
                "(remove (assoc 'target_f0_mean int_lr_params) int_lr_params)))"
            )
        lines.append(f'(set! spoken (utt.synth (Utterance Text "{text}")))')
        lines.append(f'(utt.save.wave spoken "{folder / f"{index}.wav"}" \'riff)')
        lines.append(f'(write_phones spoken "{folder / f"{index}.phones"}")')
        lines.append(f'(fclose (fopen "{folder / f"{index}.done"}" "w"))')
    return "\n".join(lines) + "\n"


def _run(command: Sequence[str], *, timeout: float = TIMEOUT_SECONDS) -> bytes:
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{command[0]} did not finish within {timeout:.0f} seconds") from error
    if done.returncode:
        tail = done.stderr.decode(errors="replace").strip()[-300:]
        raise EngineError(f"{command[0]} failed with status {done.returncode}: {tail}")
    return done.stdout


def _read(path: Path) -> tuple[np.ndarray, int]:
    waveform, sample_rate = soundfile.read(io.BytesIO(path.read_bytes()), dtype="float32")
    if waveform.ndim != 1 or not len(waveform):
        raise EngineError(f"{path.name}: expected mono audio, got shape {waveform.shape}")
    return waveform, int(sample_rate)
