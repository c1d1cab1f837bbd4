"""Consent on the command line: what is stated is stored, and what is spoken is listened to.

Whoever runs a command owns the machine, its clock and its key: evidence that is made here says what
this machine vouches for, no more.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from inference.consent.challenge import LIFETIME_SECONDS
from inference.consent.settings import ConsentConfig

if TYPE_CHECKING:
    from inference.consent.evidence import Evidence
    from inference.consent.manager import ConsentManager, HashedRecording
    from tokenlm.synthesis import Synthesizer, Voice


@dataclass(frozen=True, kw_only=True)
class ConsentStatement:
    """What an operator states once, in writing, of all voices that they make; a YAML file."""

    operator: str
    """Who states it."""
    statement: str
    """That the persons agreed, and to what."""

    def __post_init__(self) -> None:
        if not self.operator.strip() or not self.statement.strip():
            raise ValueError("operator and statement are texts that say who states what.")


def read_statement(path: Path | None) -> ConsentStatement | None:
    """The statement of an operator in a file.

    Raises:
        ConfigError: there is no such file, or it says something else.
    """
    if path is None:
        return None
    from tokenlm.config import load_config

    return load_config(ConsentStatement, path)


def key_path() -> Path:
    """File of the key of this machine; the environment variable TOKENLM_CONSENT_KEY names another.

    It is made when it is first needed.
    """
    named = os.environ.get("TOKENLM_CONSENT_KEY")
    return Path(named) if named else Path(typer.get_app_dir("tokenlm")) / "consent.key"


def stated_consent(
    voice: Voice, recording: Path, who: str | None, statement: str | None,
    operator: ConsentStatement | None,
) -> Voice:  # fmt: skip
    """The voice with what somebody stated, which is asked for where a person sits in front.

    A voice of which nothing is stated has no evidence, and says so.
    """
    if operator is None and statement is None and sys.stdin.isatty():
        who = who or typer.prompt("Whose voice is it", default="", show_default=False)
        statement = typer.prompt(
            "What did they agree to (empty stores nothing)", default="", show_default=False
        )
    if operator is None and not (statement or "").strip():
        typer.echo("no statement of consent is stored in the voice (--who, --statement)", err=True)
        return voice
    config = ConsentConfig(
        operator=operator.operator if operator else "",
        operator_statement=operator.statement if operator else "",
    )
    manager = _manager(config, None)
    evidence = manager.stated(who or voice.name, statement or "", _hashed(recording))
    return manager.seal(voice, evidence)


def spoken_consent(
    synthesizer: Synthesizer, recording: Path, who: str | None, config: ConsentConfig
) -> tuple[ConsentManager, Evidence]:
    """Asks for a sentence, and listens to the recording of it.

    Raises:
        ValueError: it is not accepted, or cannot be listened to.
    """
    from inference.consent.manager import ConsentRefusedError

    manager = _manager(config, synthesizer)
    if (reason := manager.why_not_verifiable()) is not None:
        raise ValueError(reason.replace("the setting consent.bundle", "--consent-bundle"))
    if not manager.verifier.detects_synthetic:
        typer.echo("nothing here says whether the sentence is itself synthetic", err=True)
    sample = _load(recording)
    challenge = manager.challenges.issue(who or typer.prompt("Whose voice is it"))
    typer.echo(f"{challenge.who} says, within {LIFETIME_SECONDS / 60:g} minutes:\n")
    typer.echo(f"    {challenge.sentence}\n")
    said = _load(Path(typer.prompt("File with the recording of it").strip()))
    try:
        evidence = manager.spoken(manager.challenges.take(challenge.id), said, sample)
    except ConsentRefusedError as error:
        raise ValueError(str(error)) from error
    return manager, evidence


def describe_consent(voice: Voice, public_key: str | None) -> tuple[list[str], bool]:
    """Lines about the evidence in a voice, and whether it is as it was signed.

    Args:
        voice: as it was loaded.
        public_key: of the server that is to have signed it; None takes any.
    """
    from inference.consent.evidence import SCORES, ConsentError, check_signature, read_evidence

    try:
        evidence = read_evidence(voice)
    except ConsentError as error:
        return [_one_line(f"consent      {error}")], False
    if evidence is None:
        return ["consent      none is stored"], public_key is None
    assert voice.consent is not None
    lines = [
        f"consent      {evidence.kind}, {evidence.date}",
        f"  who        {evidence.who}",
        f"  statement  {evidence.statement}",
    ]
    if evidence.operator:
        lines.append(f"  operator   {evidence.operator}: {evidence.operator_statement}")
    lines.append(f"  recording  SHA-256 {evidence.audio_sha256}")
    if evidence.kind == "spoken":
        lines.append(f"  sentence   SHA-256 {evidence.consent_sha256}, drawn {evidence.issued_at}")
        for name in SCORES:
            value, bound = evidence.scores.get(name), evidence.thresholds.get(name)
            shown = "not measured" if value is None else f"{value:.2f}"
            side = "at most" if name == "synthetic" else "at least"
            bounds = "" if value is None or bound is None else f" ({side} {bound:g})"
            lines.append(f"  {name.replace('_', ' '):<13} {shown}{bounds}")
        lines.append(f"  heard by   {evidence.bundle}")
    status = check_signature(voice, public_key)
    signer = voice.consent.get("public_key")
    told = {
        "unsigned": "none: anybody may have written this",
        "valid": f"valid, key {signer}",
        "foreign": f"valid, but of another key: {signer}",
        "changed": "WRONG: voice or evidence are not what was signed",
        "unchecked": "not checked: install the package cryptography",
    }
    lines.append(f"  signature  {told[status]}")
    return [_one_line(line) for line in lines], status == "valid" or (
        status in ("unsigned", "unchecked") and public_key is None
    )


def _one_line(text: str) -> str:
    """The text with escapes for line ends and whatever else is not printed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _manager(config: ConsentConfig, synthesizer: Synthesizer | None) -> ConsentManager:
    from inference.consent.manager import ConsentManager

    def components():  # noqa: ANN202 (of the bundle that speaks)
        assert synthesizer is not None
        return synthesizer.components

    policy = "recorded" if synthesizer is None else "required"
    return ConsentManager(config, policy, components, key=key_path())


def _load(path: Path) -> HashedRecording:
    from inference.consent.manager import HashedRecording
    from tokenlm.audio.io import read_recording

    waveform, rate = read_recording(path)
    return HashedRecording(waveform=waveform, sample_rate=rate, sha256=_hashed(path))


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
