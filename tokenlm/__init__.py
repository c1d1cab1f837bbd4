"""Text-to-speech with models that speak in tokens.

`Synthesizer` and `Voice` are imported when first used, so that `import tokenlm` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenlm.synthesis import Synthesizer, Voice

__version__ = "0.1.0"

__all__ = ["Synthesizer", "Voice", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("Synthesizer", "Voice"):
        from tokenlm import synthesis

        return getattr(synthesis, name)
    raise AttributeError(f"module 'tokenlm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
