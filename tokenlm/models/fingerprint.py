"""Fingerprint of a model: a hash of its configuration and weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tokenlm.config import to_dict


def fingerprint(config: Any, state: Mapping[str, Tensor]) -> str:
    """Sixteen hexadecimal digits that change with the config or a weight.

    Args:
        config: a config dataclass.
        state: the state dict of its model.
    """
    digest = hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        tensor = tensor.detach().cpu().contiguous()
        # fp16 is the precision of a released bundle: saving it must not change the fingerprint.
        stored = tensor.to(torch.float16) if tensor.is_floating_point() else tensor
        digest.update(stored.numpy().tobytes())
    return digest.hexdigest()[:16]
