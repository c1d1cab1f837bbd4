"""What every response and file says about itself: that it was synthesised, and by what."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from urllib.parse import quote

from tokenlm import __version__


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a waveform comes from."""

    bundle: str
    voice: str
    seed: int
    request_id: str

    @property
    def comment(self) -> str:
        """For the comment field of a file."""
        return (
            f"Synthesised speech, not a recording: tokenlm {__version__}, bundle {self.bundle}, "
            f"voice {self.voice}, seed {self.seed}"
        )

    @property
    def headers(self) -> dict[str, str]:
        """For the head of an HTTP response."""
        return {
            "X-Synthesised": f"tokenlm/{__version__}",
            "X-Tokenlm-Bundle": quote(self.bundle, safe=" "),
            "X-Tokenlm-Voice": quote(self.voice, safe=" "),
            "X-Tokenlm-Seed": str(self.seed),
            "X-Request-Id": self.request_id,
        }

    def facts(self) -> dict[str, str | int | bool]:
        """For JSON."""
        return {"synthesised": True, "by": f"tokenlm/{__version__}", **asdict(self)}
