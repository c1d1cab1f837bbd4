"""Makes `tests/golden` of the whole folder of reference numbers: what fits into a repository.

    python tests/golden_subset.py FOLDER tests/golden

Files are left out, and of others weights, inputs and outputs; some outputs are cut at their ends.
The facts of a file (its json) name what is left out and how long the rest is, and
`tests/conftest.py` reads them: a weight that is not there is NaN, so that whatever is compared does
not depend on it. Nothing is computed here: every number is one of the reference.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

MAX_BYTES = 2_000_000


@dataclass(frozen=True)
class Part:
    """What is kept of a file."""

    without: tuple[str, ...] = ()
    """Patterns of the tensors that are left out."""
    cropped: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Size along the first axes of what is kept of some tensors: their start."""


_WAVE_16K, _WAVE_24K = 6000, 9600
PARTS = {
    # A frame sees no more than its window: all but the last ones are those of the whole wave.
    "features": Part(
        without=("out.filterbank_16k_128", "out.kaldi_fbank_cmn"),
        cropped={
            "in.wave_16k": (1, _WAVE_16K),
            "in.wave_24k": (1, _WAVE_24K),
            "out.whisper_log_mel": (1, 128, _WAVE_16K // 160 - 2),
            "out.kaldi_fbank": ((_WAVE_16K - 400) // 160 + 1, 80),
            "out.flow_mel": (1, 80, _WAVE_24K // 480 - 2),
            "out.flow_mel_cv3": (1, 80, _WAVE_24K // 480 - 2),
        },
    ),
    # The quantizer, and the table of its codes; the encoder's hidden states are given to it.
    "s3_tokenizer": Part(without=("weights.encoder.*", "in.mel", "out.block*", "out.single*")),
    # Everything but the longest logits and the gradients of whole tables.
    "lm": Part(
        without=("weights.llm.model.lm_head.weight", "out.bi.logits", "out.uni.hidden",
                 "out.*.logp_eos_masked", "out.uni.grad.llm_decoder.weight",
                 "out.uni.grad.speech_embedding.weight"),
    ),
    "lm_sampling": Part(),
    # Up to the upsampling: the layers behind it are of the same class.
    "flow_encoder": Part(
        without=("weights.encoder.up_*", "weights.encoder.after_norm.*", "out.single_*",
                 "out.batch_full", "out.batch_chunk", "out.*_up_layer"),
    ),
    # Time, and the first block; its transformer is the one of a later file's other version.
    "flow_estimator": Part(
        without=("weights.*.down_blocks.0.1.*", "weights.*.down_blocks.0.2.*",
                 "weights.*.mid_blocks.*", "weights.*.up_blocks.*", "weights.*.final_*",
                 "out.full", "out.chunk", "out.*_conv", "out.full_item0_alone"),
    ),
    "cv3_pre_lookahead": Part(),
    # The whole flow with its DiT: every mel, and the loss of a training step.
    "cv3_flow": Part(
        without=("out.*.mu", "out.full_final.cond", "out.full_final.first_velocity_*",
                 "in.train.full.*", "out.train.full.*", "out.train.chunk.y", "out.train.chunk.pred",
                 "out.train.chunk.grad.input_embedding.weight"),
    ),
    # Mel and excitation to waveform.
    "cv3_hift": Part(
        without=("weights.f0_predictor.*", "in.f0*", "in.sine_noise", "in.rand_ini", "out.f0*",
                 "out.source.*", "out.inference*"),
    ),
}  # fmt: skip
"""What is kept; files that are not named are left out."""

LEFT_OUT_TESTS = "left_out_tests.txt"
"""File of the tests that need more than is kept, one name a line."""


def subset(facts: dict[str, Any], tensors: dict[str, Tensor], part: Part) -> dict[str, Tensor]:
    """Tensors that are kept of a file; `facts` are told what is not."""
    left_out, kept = {}, {}
    for name, tensor in tensors.items():
        if any(fnmatchcase(name, pattern) for pattern in part.without):
            left_out[name] = list(tensor.shape)
        else:
            sizes = part.cropped.get(name, ())
            kept[name] = tensor[tuple(slice(size) for size in sizes)].contiguous().clone()
    unused = [pattern for pattern in part.without
              if not any(fnmatchcase(name, pattern) for name in tensors)]  # fmt: skip
    unused += [name for name in part.cropped if name not in kept]
    if unused:
        raise ValueError(f"{facts['name']} has nothing of the name {', '.join(unused)}")
    facts["tensors"] = {name: {k: v for k, v in told.items() if k in ("atol", "meaning")}
                        for name, told in facts["tensors"].items() if name in kept}  # fmt: skip
    facts["left_out"] = left_out
    facts["cropped"] = {name: list(kept[name].shape) for name in part.cropped}
    return kept


def make_subset(source: Path, target: Path) -> int:
    """Write the subset of a folder into another one; give the size of all its files in bytes.

    Raises:
        ValueError: something that is named is not there, or the files are too large.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name, part in PARTS.items():
        facts = json.loads((source / f"{name}.json").read_text(encoding="utf-8"))
        kept = subset(facts, load_file(source / f"{name}.safetensors"), part)
        save_file(kept, target / f"{name}.safetensors")
        (target / f"{name}.safetensors").chmod(0o644)
        text = json.dumps(facts, separators=(",", ":"))
        (target / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    shutil.rmtree(target / "keys", ignore_errors=True)
    (target / "keys").mkdir()
    for path in sorted((source / "keys").glob("*.json")):
        packed = gzip.compress(path.read_bytes(), mtime=0)
        (target / "keys" / f"{path.name}.gz").write_bytes(packed)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    if size > MAX_BYTES:
        raise ValueError(f"{target} has {size:,} bytes, more than {MAX_BYTES:,}")
    return size


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, help="whole folder of reference numbers")
    parser.add_argument("target", type=Path, help="tests/golden")
    options = parser.parse_args(arguments)
    try:
        size = make_subset(options.source, options.target)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.target}: {size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
