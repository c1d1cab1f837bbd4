"""Random numbers that depend on what they are for, never on the order of the calls.

A run that was killed and resumed draws the same numbers as one that was never interrupted, because
every seed is made from the place where it is used: (run seed, step, item) and the like.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """Mix `parts` into one seed.

    Names say what draws are for. `tokenlm.modules.exact.mix`, which is called for every token that
    is spoken, hashes integers only; one in place of the other would change runs or voices.

    Args:
        parts: What the draws are for and where they stand, e.g. `("dropout", seed, step, 3)`.

    Returns:
        A non-negative integer below 2^63, the same on every machine and in every process.
    """
    digest = hashlib.blake2b("\x1f".join(str(part) for part in parts).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big") >> 1


def make_generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator seeded by `derive_seed(*parts)`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))
