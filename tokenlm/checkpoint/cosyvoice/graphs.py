"""The ONNX graphs of CosyVoice 2 and 3, and the speech tokenizer read out of one as weights.

The names of the tensors of a graph say nothing, so tensors are identified by their use: the nodes
that hold weights come in the order of the layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tokenlm.audio.mel import WhisperMelConfig
from tokenlm.checkpoint.key_table import KeyTable, Rule, WeightsError
from tokenlm.models.fsmn_tokenizer import FSMNTokenizerConfig
from tokenlm.models.onnx_models import OnnxSpeakerEncoder, OnnxTokenizer

_BLOCK, _MINE = "encoder.blocks.{i}.", "blocks.{i}."


def tokenizer_table() -> KeyTable:
    """Keys of the tokenizer."""
    return KeyTable(
        [
            Rule("encoder.conv1.{p}", "conv1.{p}"),
            Rule("encoder.conv2.{p}", "conv2.{p}"),
            Rule(_BLOCK + "attn.fsmn_block.weight", _MINE + "attention.memory.weight"),
            Rule(_BLOCK + "attn.{layer}.{p}", _MINE + "attention.{layer}.{p}"),
            Rule(_BLOCK + "attn_ln.{p}", _MINE + "attention_norm.{p}"),
            Rule(_BLOCK + "mlp_ln.{p}", _MINE + "feed_forward_norm.{p}"),
            Rule(_BLOCK + "mlp.{j}.{p}", _MINE + "feed_forward.{j}.{p}"),
            Rule("quantizer._codebook.project_down.{p}", "project.{p}"),
        ]
    )


AnyGraph = OnnxSpeakerEncoder | OnnxTokenizer


def try_graphs(graphs: Mapping[Path, tuple[AnyGraph, Mapping[str, Tensor]]]) -> list[str]:
    """Runs each graph on a second of noise.

    Args:
        graphs: model and state dict by the file that they come from.

    Returns:
        Remarks: on what could not be tried.

    Raises:
        WeightsError: some of them are no graphs, or give what does not fit; all are named.
    """
    if graphs and find_spec("onnxruntime") is None:
        return ["the ONNX graphs were not tried; they need onnxruntime: pip install onnxruntime"]
    noise = torch.randn(16_000, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    noise *= 0.1
    problems = []
    for path, (model, state) in graphs.items():
        try:
            model.load_state_dict(state)
            if isinstance(model, OnnxSpeakerEncoder):
                model.embed_recording(noise)
            else:
                model.encode(noise[None])
        except Exception as error:  # onnxruntime has kinds of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            problems.append(f"{path}: {reason.rstrip('.')}.")
    if problems:
        raise WeightsError(" ".join(problems))
    return []


@dataclass(frozen=True)
class _Layer:
    """A node that holds weights."""

    kind: Literal["conv", "linear", "norm"]
    weight: Tensor
    bias: Tensor | None


def graph_to_ours(
    data: bytes, *, head_dim: int = 64
) -> tuple[FSMNTokenizerConfig, dict[str, Tensor]]:
    """Config and weights of the tokenizer in an ONNX graph.

    Args:
        data: the graph.
        head_dim: channels of an attention head, which no shape says.

    Raises:
        WeightsError: the layers of the graph are not those of the tokenizer, in its order.
        ImportError: the package onnx is not installed.
    """
    layers = iter(list(_layers(data)))
    state: dict[str, Tensor] = {}

    def take(kind: str, name: str, axes: int | None = None) -> _Layer:
        layer = next(layers, None)
        if layer is None or layer.kind != kind or (axes and layer.weight.ndim != axes):
            actual = "its end" if layer is None else f"{layer.kind} {tuple(layer.weight.shape)}"
            raise WeightsError(f"the ONNX graph has {actual} where {name} ({kind}) is expected.")
        state[f"{name}.weight"] = layer.weight
        if layer.bias is not None:
            state[f"{name}.bias"] = layer.bias
        return layer

    first = take("conv", "conv1")
    take("conv", "conv2")
    remaining = list(layers)
    # Each block has two norms, six linear layers and a memory; one linear layer ends the whole.
    num_layers, rest = divmod(len(remaining) - 1, 9)
    if rest or num_layers < 1:
        raise WeightsError(f"the ONNX graph has {len(remaining)} layers behind its convolutions.")
    layers = iter(remaining)
    hidden, kernel = 0, 0
    for index in range(num_layers):
        block = f"blocks.{index}."
        take("norm", block + "attention_norm")
        for name in ("query", "key", "value"):
            take("linear", f"{block}attention.{name}")
        kernel = take("conv", block + "attention.memory").weight.shape[2]
        take("linear", block + "attention.out")
        take("norm", block + "feed_forward_norm")
        hidden = take("linear", block + "feed_forward.0").weight.shape[0]
        take("linear", block + "feed_forward.2")
    digits = take("linear", "project").weight.shape[0]
    dim, num_mels, _ = first.weight.shape
    config = FSMNTokenizerConfig(
        mel=WhisperMelConfig(num_mels=num_mels),
        dim=dim,
        num_heads=dim // head_dim,
        num_layers=num_layers,
        expansion=hidden // dim,
        kernel_size=kernel,
        num_digits=digits,
    )
    return config, state


def _layers(data: bytes) -> Iterator[_Layer]:
    """The nodes of a graph that hold weights, in their order."""
    import onnx
    from onnx import numpy_helper

    try:
        graph = onnx.load_model_from_string(data).graph
    except Exception as error:  # protobuf raises kinds of its own
        raise WeightsError(f"the ONNX graph cannot be read: {error}") from error
    known = {
        item.name: torch.from_numpy(numpy_helper.to_array(item).copy())
        for item in graph.initializer
    }
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        if node.op_type == "Constant":
            value = next((item.t for item in node.attribute if item.name == "value"), None)
            if value is not None:
                known[node.output[0]] = torch.from_numpy(numpy_helper.to_array(value).copy())
        elif node.op_type == "Identity" and node.input[0] in known:
            known[node.output[0]] = known[node.input[0]]
        for name in node.input:
            users.setdefault(name, []).append(node)
    makers = {name: node for node in graph.node for name in node.output}

    def added(output: str) -> Tensor | None:
        """The vector that is added to an output next, if any."""
        for user in users.get(output, []):
            vectors = [known[n] for n in user.input if n in known and known[n].ndim == 1]
            if user.op_type == "Add" and vectors:
                return vectors[0]
        return None

    for node in graph.node:
        weights = [known[name] for name in node.input if name in known]
        if node.op_type == "Conv" and weights and weights[0].ndim == 3:
            yield _Layer("conv", weights[0], weights[1] if len(weights) > 1 else None)
        elif node.op_type == "MatMul" and weights and weights[0].ndim == 2:
            yield _Layer("linear", weights[0].T.contiguous(), added(node.output[0]))
        elif node.op_type == "Gemm" and weights and weights[0].ndim == 2:
            is_transposed = any(item.name == "transB" and item.i for item in node.attribute)
            weight = weights[0] if is_transposed else weights[0].T.contiguous()
            yield _Layer("linear", weight, weights[1] if len(weights) > 1 else None)
        elif node.op_type == "LayerNormalization" and len(weights) == 2:
            yield _Layer("norm", weights[0], weights[1])
        elif node.op_type == "Mul" and len(weights) == 1 and weights[0].ndim == 1:
            # A norm in pieces ends: divided by the deviation, scaled, shifted.
            other = next((name for name in node.input if name not in known), "")
            shift = added(node.output[0])
            maker = makers.get(other)
            if maker is not None and maker.op_type == "Div" and shift is not None:
                yield _Layer("norm", weights[0], shift)
