"""Consent to voices, as a server or a command asks for it: challenges, decisions, evidence.

Shapes: S samples.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from inference.consent.challenge import Challenge, Challenges
from inference.consent.evidence import (
    ConsentError,
    Evidence,
    SigningKey,
    store_unsigned,
    timestamp,
)
from inference.consent.settings import ConsentConfig, Policy
from inference.consent.verification import ConsentVerifier, Decision
from tokenlm.synthesis import Synthesizer, Voice
from tokenlm.synthesis.components import Components

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HashedRecording:
    """A recording and the hash of its file."""

    waveform: Tensor
    """(S,), one channel."""
    sample_rate: int
    sha256: str
    """Of the file."""


class ConsentRefusedError(ConsentError):
    """A spoken consent that is not accepted; the message has all reasons."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(f"the consent is not accepted: {'; '.join(decision.reasons)}.")
        self.decision = decision


class ConsentManager:
    """Draws sentences, listens to them, and signs evidence. Safe to use from several threads."""

    def __init__(
        self,
        config: ConsentConfig,
        policy: Policy,
        components: Callable[[], Components],
        *,
        key: Path,
        challenges: Challenges | None = None,
    ) -> None:
        """Loads nothing yet.

        Args:
            config: settings.
            policy: what is asked for.
            components: called once, when something is to be listened to, unless the settings name
                another bundle.
            key: file of the signing key, unless the settings name another one.
            challenges: those that are open.
        """
        self.config = config
        self.policy: Policy = policy
        self.challenges = challenges or Challenges()
        self._components = components
        self._key_path = config.key or key
        # Two: the key is asked for while models are loaded, which takes long.
        self._verifier_lock, self._key_lock = threading.Lock(), threading.Lock()
        self._verifier: ConsentVerifier | None = None
        self._key: SigningKey | None = None

    @property
    def verifier(self) -> ConsentVerifier:
        """What listens, loaded at the first use.

        Raises:
            ValueError: it cannot be loaded.
        """
        with self._verifier_lock:
            if self._verifier is None:
                name = self.config.bundle
                components = Synthesizer.from_pretrained(name).components if name else None
                self._verifier = ConsentVerifier(components or self._components(), self.config)
            return self._verifier

    @property
    def key(self) -> SigningKey:
        """What signs, read or made at the first use.

        Raises:
            ConsentError: there is no key and none can be made.
        """
        with self._key_lock:
            if self._key is None:
                self._key = SigningKey.open(self._key_path)
            return self._key

    @property
    def public_key(self) -> str | None:
        """Public half of the key in base 64; None where there is no key (it is not made here)."""
        if self._key is None and not self._key_path.is_file():
            return None
        try:
            return self.key.public
        except ConsentError as error:
            logger.warning("%s", error)
            return None

    def why_not_verifiable(self) -> str | None:
        """Why spoken consent cannot be verified and signed, a sentence; None where it can."""
        try:
            loaded = self.verifier, self.key
        except (ValueError, OSError) as error:
            return str(error)
        assert all(loaded)
        return None

    def stated(self, who: str, statement: str, audio_sha256: str) -> Evidence:
        """Evidence of what somebody stated in writing."""
        return Evidence(
            kind="stated",
            who=who,
            statement=statement,
            date=timestamp(),
            audio_sha256=audio_sha256,
            operator=self.config.operator,
            operator_statement=self.config.operator_statement,
        )

    def spoken(
        self, challenge: Challenge, sentence: HashedRecording, sample: HashedRecording
    ) -> Evidence:
        """Evidence of a sentence that was said, once it is accepted.

        Args:
            challenge: taken from `challenges`.
            sentence: recording of it.
            sample: recording that the voice is made of.

        Raises:
            ConsentRefusedError: it is not accepted.
            ValueError: the models that listen cannot be loaded.
        """
        verifier = self.verifier
        decision = verifier.verify(
            challenge,
            sentence.waveform,
            sentence.sample_rate,
            sample.waveform,
            sample.sample_rate,
        )
        logger.info("consent %s: %s %s", challenge.id[:8], decision.accepted, dict(decision.scores))
        if not decision.accepted:
            raise ConsentRefusedError(decision)
        return Evidence(
            kind="spoken",
            who=challenge.who,
            statement=challenge.sentence,
            date=timestamp(),
            audio_sha256=sample.sha256,
            operator=self.config.operator,
            operator_statement=self.config.operator_statement,
            challenge=challenge.id,
            words=challenge.words,
            issued_at=timestamp(challenge.issued_at),
            consent_sha256=sentence.sha256,
            scores=decision.scores,
            thresholds=self.config.thresholds,
            bundle=verifier.bundle,
        )

    def seal(self, voice: Voice, evidence: Evidence) -> Voice:
        """The voice with its evidence, signed.

        What was merely stated is stored without a signature where there is no key.

        Raises:
            ConsentError: there is no key for evidence of a spoken consent.
        """
        try:
            return self.key.sign(voice, evidence)
        except ConsentError as error:
            if evidence.kind == "spoken":
                raise
            logger.warning("the statement of consent is not signed: %s", error)
            return store_unsigned(voice, evidence)
