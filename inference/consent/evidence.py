"""Evidence of consent: what is stored in a voice, signed with the key of a server.

The signature (Ed25519) is over the evidence, the digest of the voice, and name and digest of the
adapter that speaks it, where there is one. It proves that whoever
holds the key vouched for this evidence about this voice, and that neither was changed since. It
does not prove that the evidence is true: the key's owner may sign anything, and whoever makes a
voice on their own machine owns the key. A reader who knows the public key of a server sees that the
evidence is that server's; without it, `inspect` shows which key signed.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokenlm.atomic import publish, sync_to_disk

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from tokenlm.synthesis import Voice

FORMAT_VERSION = 1
SCORES = ("words", "speaker", "lowest_window", "agreement", "synthetic", "watermark")
"""What is measured of a spoken consent, in the order that it is shown. `watermark` is for the
watermark of generated speech, which nothing reads yet."""
Status = Literal["none", "unsigned", "valid", "foreign", "changed", "unchecked"]


class ConsentError(ValueError):
    """Consent that is missing, or evidence that cannot be used; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """How it is known that a person agreed to a voice of theirs."""

    kind: Literal["spoken", "stated"]
    """Whether the person said so and was listened to, or somebody stated it in writing."""
    who: str
    """The person whose voice it is."""
    statement: str
    """What was stated; where it was spoken, the sentence that was asked for. The recording is
    nearer to it than to what it is compared with (docs/consent.md); no more is known."""
    date: str
    """When it was accepted (ISO 8601, UTC)."""
    audio_sha256: str
    """Of the recording that the voice was made of."""
    operator: str = ""
    """Who stated so in a config, for a person; empty where nobody did."""
    operator_statement: str = ""
    """What they stated."""
    challenge: str = ""
    """Id of the challenge, where the sentence was spoken."""
    words: tuple[str, ...] = ()
    """The words that were drawn."""
    issued_at: str = ""
    """When the words were drawn (ISO 8601, UTC)."""
    consent_sha256: str = ""
    """Of the recording of the sentence."""
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """Of `SCORES`; None where something was not measured."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """What the scores were compared with."""
    bundle: str = ""
    """Whose models listened."""


def timestamp(seconds: float | None = None) -> str:
    """Seconds since 1970, or now, as ISO 8601 in UTC."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="seconds")


class SigningKey:
    """The key of a server, or of the machine where a voice is made."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        """Takes a key; see `open`."""
        self._private = private

    @classmethod
    def open(cls, path: Path) -> SigningKey:
        """Reads the key in a file, which is made if there is none, for its owner alone to read.

        Several servers may open the same file at the same time.

        Raises:
            ConsentError: the file holds no such key, cannot be read or written, or the package
                cryptography is missing.
        """
        serialization, private_keys = _cryptography()
        try:
            _create(path, serialization, private_keys)
            data = _read_whole(path)
        except OSError as error:
            raise ConsentError(
                f"the key {path} cannot be read or made: {error.strerror or error}."
            ) from error
        try:
            private = serialization.load_pem_private_key(data, password=None)
        except ValueError as error:
            raise ConsentError(f"{path} holds no private key (PEM, without password).") from error
        if not isinstance(private, private_keys.Ed25519PrivateKey):
            raise ConsentError(f"{path} holds another key than one of Ed25519.")
        return cls(private)

    @property
    def public(self) -> str:
        """The public key in base 64, which a server may publish."""
        return _encode(self._private.public_key().public_bytes_raw())

    def sign(self, voice: Voice, evidence: Evidence) -> Voice:
        """The voice with the evidence, signed."""
        facts = _facts(voice, evidence)
        signature = self._private.sign(_message(facts))
        return replace(
            voice,
            consent={**facts, "public_key": self.public, "signature": _encode(signature)},
        )


def store_unsigned(voice: Voice, evidence: Evidence) -> Voice:
    """The voice with evidence that nobody has signed."""
    return replace(voice, consent=_facts(voice, evidence))


def read_evidence(voice: Voice) -> Evidence | None:
    """The evidence in a voice; None where it has none.

    Raises:
        ConsentError: what it has is not such evidence.
    """
    if voice.consent is None:
        return None
    try:
        facts = dict(voice.consent["evidence"])
        if voice.consent["format_version"] != FORMAT_VERSION:
            raise ConsentError("the evidence of consent is of another version of tokenlm.")
        evidence = Evidence(**{**facts, "words": tuple(facts.get("words", ()))})
        _check_types(evidence)
        return evidence
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConsentError):
            raise
        raise ConsentError(f"the evidence of consent is damaged: {error}") from error


def _check_types(evidence: Evidence) -> None:
    """Raises TypeError where a field of evidence is of another type than it should be."""
    values = asdict(evidence)
    numbers, words = ("scores", "thresholds"), values.pop("words")
    for name in numbers:
        table = values.pop(name)
        if not isinstance(table, dict) or not all(
            value is None or isinstance(value, int | float) for value in table.values()
        ):
            raise TypeError(f"{name} are not numbers by name")
    for text in (*values.values(), *words):
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not a text")
    if evidence.kind not in ("spoken", "stated"):
        raise TypeError(f"{evidence.kind!r} is no kind of consent")


def check_signature(voice: Voice, public_key: str | None = None) -> Status:
    """What the signature of a voice says.

    Args:
        voice: as it was loaded.
        public_key: in base 64, that of the server whose signature is wanted; None takes any.

    Returns:
        `none`, without evidence; `unsigned`; `valid`, signed by this key; `foreign`, signed by
        another key; `changed`, voice or evidence are not what was signed; `unchecked`, the package
        cryptography is missing.
    """
    if voice.consent is None:
        return "none"
    signer, signature = voice.consent.get("public_key"), voice.consent.get("signature")
    if not isinstance(signer, str) or not isinstance(signature, str):
        return "unsigned"
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        return "unchecked"
    signed = {name: voice.consent.get(name) for name in ("format_version", "voice", "evidence")}
    if "adapter" in voice.consent:
        signed["adapter"] = voice.consent["adapter"]
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(signer, validate=True))
        key.verify(base64.b64decode(signature, validate=True), _message(signed))
    except (InvalidSignature, ValueError):
        return "changed"
    if signed["voice"] != voice.digest or not _has_adapter(voice, signed.get("adapter")):
        return "changed"
    return "valid" if public_key is None or public_key.strip() == signer else "foreign"


def _facts(voice: Voice, evidence: Evidence) -> dict[str, Any]:
    facts = json.loads(json.dumps(asdict(evidence)))
    found = {"format_version": FORMAT_VERSION, "voice": voice.digest, "evidence": facts}
    return found | ({"adapter": _adapter_facts(voice)} if voice.adapter else {})


def _adapter_facts(voice: Voice) -> dict[str, str]:
    """Name of the adapter of a voice, and its digest where the folder is there.

    Raises:
        AdapterError: the folder is damaged.
    """
    from tokenlm.checkpoint.adapter import is_adapter, read_adapter

    folder = Path(voice.adapter).expanduser()
    found = {"name": folder.name}
    return found | ({"digest": read_adapter(folder).digest} if is_adapter(folder) else {})


def _has_adapter(voice: Voice, signed: Any) -> bool:
    """Whether a voice is spoken by the adapter that was signed, or by none as then.

    Where either folder was not there, the names are compared alone.
    """
    if not voice.adapter or not isinstance(signed, dict):
        return not voice.adapter and signed is None
    try:
        own = _adapter_facts(voice)
    except ValueError:  # AdapterError: the folder is damaged
        return False
    return all(signed.get(name, value) == value for name, value in own.items())


def _message(facts: Mapping[str, Any]) -> bytes:
    """What is signed: the same bytes for the same facts, whatever the order that they come in."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return b"tokenlm consent\n" + text.encode()


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise ConsentError(
            "signing needs the package cryptography: pip install 'tokenlm[serve]'."
        ) from error
    return serialization, ed25519


def _create(path: Path, serialization: Any, private_keys: Any) -> None:
    """Writes a new key where there is no file yet."""
    if path.exists():
        return
    data = private_keys.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".key-") as folder:
        draft = Path(folder) / "key"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        sync_to_disk(draft)
        with suppress(FileExistsError):
            publish(draft, path)
    sync_to_disk(path.parent)


def _read_whole(path: Path) -> bytes:
    """Reads a file that another server may be writing now, where there are no links."""
    for _ in range(20):
        if (data := path.read_bytes()).endswith(b"-----\n"):
            return data
        time.sleep(0.05)
    return path.read_bytes()
