"""Speaker encoders and speech tokenizers that come as a graph, with graphs made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tokenlm.audio.fbank import FbankConfig, KaldiFbank
from tokenlm.models.onnx_models import (
    OnnxSpeakerConfig,
    OnnxSpeakerEncoder,
    OnnxTokenizer,
    OnnxTokenizerConfig,
    providers,
    read_graph,
)

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
EMBEDDING, BINS = 192, 80


def graph(nodes: list[Any], inputs: list[Any], output: Any, weights: dict[str, Any]) -> bytes:
    """A graph of opset 17 as it would lie in a file."""
    made = onnx.helper.make_graph(
        nodes,
        "by_hand",
        inputs,
        [output],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = onnx.helper.make_model(
        made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


def speaker_graph(statistic: str, weight: np.ndarray, name: str = "input") -> bytes:
    """The interface of `campplus.onnx`: (1, T, 80) in, (1, 192) out; a statistic over time."""
    value = onnx.helper.make_tensor_value_info
    size = weight.shape[1]
    return graph(
        [
            onnx.helper.make_node("MatMul", [name, "weight"], ["projected"]),
            onnx.helper.make_node(statistic, ["projected"], ["output"], axes=[1], keepdims=0),
        ],
        [value(name, onnx.TensorProto.FLOAT, ["B", "T", BINS])],
        value("output", onnx.TensorProto.FLOAT, ["B", size]),
        {"weight": weight},
    )


def encoder(data: bytes, embedding_dim: int = EMBEDDING) -> OnnxSpeakerEncoder:
    model = OnnxSpeakerEncoder(OnnxSpeakerConfig(embedding_dim=embedding_dim, num_bytes=len(data)))
    model.load_state_dict(read_graph(data))
    return model


@pytest.fixture(scope="module")
def weight() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((BINS, EMBEDDING)).astype(np.float32)


@pytest.fixture(scope="module")
def waveform() -> Tensor:
    return torch.randn(24_000, generator=torch.Generator().manual_seed(0)) * 0.1


@pytest.mark.parametrize("name", ["input", "feats"])
def test_a_speaker_graph_is_given_the_bank_without_its_mean(
    weight: np.ndarray, waveform: Tensor, name: str
) -> None:
    bank = KaldiFbank(FbankConfig(num_mels=BINS))(waveform[None])[0]
    assert bank.shape == (148, BINS)  # 25 ms windows every 10 ms, none beyond the end
    expected = ((bank - bank.mean(dim=0)) @ torch.from_numpy(weight)).amax(dim=0)
    embedding = encoder(speaker_graph("ReduceMax", weight, name)).embed_recording(waveform)
    assert embedding.shape == (EMBEDDING,) and embedding.dtype == torch.float32
    torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-3)
    # Were the mean there, it would be all that the mean of a linear layer is.
    mean = encoder(speaker_graph("ReduceMean", weight)).embed_recording(waveform)
    assert float(mean.abs().max()) < 1e-3 < float((bank.mean(dim=0) @ weight).abs().max())


def test_a_speaker_graph_hears_the_start_of_a_long_recording(weight: np.ndarray) -> None:
    model = encoder(speaker_graph("ReduceMax", weight))
    start = torch.randn(30 * 16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    longer = torch.cat([start, torch.ones(16_000)])
    assert torch.equal(model.embed_recording(longer), model.embed_recording(start))


def test_wrong_speaker_graphs(weight: np.ndarray, waveform: Tensor) -> None:
    with pytest.raises(ValueError, match="gives 12 numbers, a speaker embedding here has 192"):
        encoder(speaker_graph("ReduceMax", weight[:, :12])).embed_recording(waveform)
    with pytest.raises(ValueError, match="too few"):
        encoder(speaker_graph("ReduceMax", weight)).embed_recording(waveform[:300])
    with pytest.raises(ValueError, match="cannot be opened"):
        encoder(b"no graph at all").embed_recording(waveform)


def tokenizer_graph(length_type: int, step: int = 4, output: str = "INT64") -> bytes:
    """The interface of the speech tokenizers: mel (1, 128, T) and its length in, tokens out.

    Every fourth frame (or another) is a token: the rounded value of its first bin.
    """
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    return graph(
        [
            node("Slice", ["feats", "starts", "ends", "axes", "steps"], ["sliced"]),
            node("Abs", ["sliced"], ["size"]),
            node("Mul", ["size", "ten"], ["scaled"]),
            node("Cast", ["scaled"], ["rounded"], to=onnx.TensorProto.INT64),
            node("Cast", ["feats_length"], ["length"], to=onnx.TensorProto.INT64),
            node("Min", ["rounded", "length"], ["whole"]),
            node("Cast", ["whole"], ["cast"], to=getattr(onnx.TensorProto, output)),
            node("Add", ["cast", "shift"], ["indices"]),
        ],
        [
            value("feats", onnx.TensorProto.FLOAT, [1, 128, "T"]),
            value("feats_length", length_type, [1]),
        ],
        value("indices", getattr(onnx.TensorProto, output), [1, 1, "N"]),
        {
            "starts": np.array([0, 0]),
            "ends": np.array([1, 1_000_000]),
            "axes": np.array([1, 2]),
            "steps": np.array([1, step]),
            "shift": np.array(0) if output == "INT64" else np.array(0.5, dtype=np.float32),
            "ten": np.array(10.0, dtype=np.float32),
        },
    )


@pytest.mark.parametrize("kind", ["INT32", "INT64", "FLOAT"])
def test_a_tokenizer_graph_is_given_the_mel_and_its_length(kind: str, waveform: Tensor) -> None:
    data = tokenizer_graph(getattr(onnx.TensorProto, kind))
    model = OnnxTokenizer(OnnxTokenizerConfig(num_digits=8, num_bytes=len(data)))
    model.load_state_dict(read_graph(data))
    mel = model.mel(waveform[None])[0]
    expected = (mel[::4, 0].abs() * 10).long().clamp(max=mel.shape[0])
    tokens, lengths = model.encode(waveform[None])
    assert tokens[0].tolist() == expected.tolist() and lengths.tolist() == [len(expected)]


@pytest.mark.parametrize("seconds", [0.05, 0.41, 0.999, 1.0])
def test_lengths_and_batches_of_tokens(seconds: float, waveform: Tensor) -> None:
    """100 frames a second, a quarter as many tokens; each of a batch as it is alone."""
    data = tokenizer_graph(onnx.TensorProto.INT32)
    model = OnnxTokenizer(OnnxTokenizerConfig(num_digits=8, num_bytes=len(data)))
    model.load_state_dict(read_graph(data))
    size = int(seconds * 16_000)
    batch = torch.stack([waveform[:16_000], waveform[8000:]])
    tokens, lengths = model.encode(batch, torch.tensor([16_000, size]))
    assert lengths.tolist() == [25, -(-(size // 160) // 4)]
    for row, count, item in zip(tokens, lengths, [batch[0], batch[1, :size]], strict=True):
        assert torch.equal(row[:count], model.encode(item[None])[0][0])


def test_graphs_that_are_no_tokenizers_of_25_tokens_a_second(
    weight: np.ndarray, waveform: Tensor
) -> None:
    def told(data: bytes) -> str:
        model = OnnxTokenizer(OnnxTokenizerConfig(num_digits=8, num_bytes=len(data)))
        model.load_state_dict(read_graph(data))
        with pytest.raises(ValueError) as caught:
            model.encode(waveform[None])
        return str(caught.value)

    kind = onnx.TensorProto.INT32
    assert "75 codes for 150 frames, not one for 4" in told(tokenizer_graph(kind, step=2))
    assert "numbers that are no codes" in told(tokenizer_graph(kind, output="FLOAT"))
    takes = "takes input of the shape ['B', 'T', 80], the frames have [1, 128, 150]"
    assert takes in told(speaker_graph("ReduceMax", weight))


def test_speaker_graphs_with_other_inputs(weight: np.ndarray, waveform: Tensor) -> None:
    with pytest.raises(ValueError, match=r"takes feats of the shape \[1, 128, 'T'\], the frames"):
        encoder(tokenizer_graph(onnx.TensorProto.INT32)).embed_recording(waveform)
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    output = value("output", onnx.TensorProto.FLOAT, ["B"])
    for shape, reason in (
        (["B"], "has no input of three axes"),
        (["T", BINS], "has an input frames of the shape .*, which is neither frames nor"),
    ):
        frames = value("frames", onnx.TensorProto.FLOAT, shape)
        data = graph([node("ReduceMax", ["frames"], ["output"], keepdims=0)], [frames], output, {})
        with pytest.raises(ValueError, match=reason):
            encoder(data).embed_recording(waveform)


def test_a_graph_runs_where_it_lies() -> None:
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    gpu = ("CUDAExecutionProvider", {"device_id": 1})
    assert providers(torch.device("cuda", 1), both) == [gpu, "CPUExecutionProvider"]
    assert providers(torch.device("cuda"), both)[0] == ("CUDAExecutionProvider", {"device_id": 0})
    # What the installed library cannot use is left to the CPU.
    assert providers(torch.device("cuda", 1), both[1:]) == ["CPUExecutionProvider"]
    assert providers(torch.device("cpu"), both) == ["CPUExecutionProvider"]
    assert providers(torch.device("mps"), both) == ["CPUExecutionProvider"]
