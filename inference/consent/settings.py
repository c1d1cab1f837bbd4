"""The policy of consent, and what a spoken consent has to reach."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Policy = Literal["required", "recorded", "off"]


@dataclass(frozen=True, kw_only=True)
class ConsentConfig:
    """Settings of consent.

    The bounds are those of `docs/consent.md`, where their error rates are; they belong to the
    speaker encoder and the recogniser of `mini-en`.
    """

    policy: Literal["auto", "required", "recorded", "off"] = "auto"
    """`required`: the person says a sentence with words drawn for the occasion, and is listened to.
    `recorded`: somebody states in writing that the person agreed. `off`: nothing is asked for.
    `auto` is `recorded` on a server that only its own machine reaches, and `required` elsewhere."""
    key: Path | None = None
    """File of the key that signs evidence, made if it is not there; None is `.key` in the folder of
    voices, which servers with the same voices share."""
    operator: str = ""
    """Who runs the server, for voices that they import with a statement of their own."""
    operator_statement: str = ""
    """What the operator states, once, of all voices that are added; stored in each of them."""
    synthetic_detector: Path | None = None
    """Folder of a component `synthetic_detector` (`scripts/train_synthetic_detector`); without it
    nothing says whether the sentence is itself synthetic."""
    bundle: str = ""
    """Bundle whose models listen; empty is the one that speaks. Imported bundles have no
    recogniser, so they need another one here, such as mini-en."""
    min_word_margin: float = -20.0
    """Least log-probability of each drawn word against the likeliest other word."""
    min_similarity: float = 0.65
    """Least cosine between the sample and the sentence."""
    min_window_similarity: float = 0.55
    """The same of each window of either, which another person may speak in."""
    min_agreement: float = 0.45
    """Least cosine between what is before and behind any place of a recording."""
    max_synthetic: float = 0.5
    """Most probability of being synthetic."""

    def __post_init__(self) -> None:
        for name in ("min_similarity", "min_window_similarity", "min_agreement"):
            if not -1 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from -1 to 1, got {getattr(self, name)}")
        if not 0 <= self.max_synthetic <= 1:
            raise ValueError(f"max_synthetic must be from 0 to 1, got {self.max_synthetic}")
        if bool(self.operator.strip()) != bool(self.operator_statement.strip()):
            raise ValueError("operator and operator_statement go together: who states what.")

    @property
    def thresholds(self) -> dict[str, float]:
        """The bounds, by the names of the scores that they are for."""
        return {
            "words": self.min_word_margin,
            "speaker": self.min_similarity,
            "lowest_window": self.min_window_similarity,
            "agreement": self.min_agreement,
            "synthetic": self.max_synthetic,
        }

    def policy_of(self, host: str, *, is_published: bool = False) -> Policy:
        """The policy of a server.

        Args:
            host: that it listens at.
            is_published: whether other machines reach it all the same, through a proxy.
        """
        if self.policy != "auto":
            return self.policy
        return "recorded" if is_loopback(host) and not is_published else "required"


def is_loopback(host: str) -> bool:
    """Whether only the own machine reaches what listens at this name or address."""
    name = host.strip().strip("[]").lower().removesuffix(".")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
