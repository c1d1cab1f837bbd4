"""Published folders that a download has damaged: a sentence that names the file, and no bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_folder import SIZES, write_folder
from torch import Tensor

from tokenlm.checkpoint.cosyvoice.files import read_weights
from tokenlm.checkpoint.cosyvoice.importer import import_cosyvoice
from tokenlm.checkpoint.cosyvoice.text import added_tokens, text_tokenizer
from tokenlm.checkpoint.key_table import WeightsError

State = dict[str, Tensor]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2023316821\n"
TEXT_TABLE = "llm.model.model.embed_tokens.weight"
QUERY = "llm.model.model.layers.0.self_attn.q_proj.weight"
GAIN = "conv_pre.parametrizations.weight.original0"
DIRECTION = "conv_pre.parametrizations.weight.original1"
DOUBLED = torch.ones(2, 80, 7)


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, graphs: dict[str, bytes], text_folder: Path
) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "published"
    write_folder(folder, 2, graphs, text_folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return shutil.copytree(whole, tmp_path / "published")


def refusal(folder: Path, bundle: str = "out") -> str:
    """What an import says against a folder, of which it leaves nothing."""
    (folder.parent / "made").mkdir()
    with pytest.raises(WeightsError) as caught:
        import_cosyvoice(folder, folder.parent / "made" / bundle, version=2, head_dims=SIZES)
    assert not list((folder.parent / "made").iterdir())
    return str(caught.value)


@pytest.mark.parametrize(
    "names",
    [["llm.pt", "speech_tokenizer_v2.onnx"], ["campplus.onnx"], ["CosyVoice-BlankEN/vocab.json"]],
)
def test_pointers_and_empty_files(names: list[str], folder: Path) -> None:
    for content, told in ((POINTER, "only pointers of git-lfs: "), (b"", "empty: ")):
        for name in names:
            (folder / name).write_bytes(content)
        message = refusal(folder)
        assert message.startswith(told + ", ".join(str(folder / name) for name in names))
        (folder.parent / "made").rmdir()


def test_files_that_end_too_early_or_are_something_else(folder: Path) -> None:
    data = (folder / "llm.pt").read_bytes()
    (folder / "llm.pt").write_bytes(data[: len(data) // 2])
    (folder / "flow.pt").write_bytes(b"<!DOCTYPE html><html>404</html>")
    (folder / "hift.pt").write_bytes(bytes(5000))
    message = refusal(folder)
    assert f"{folder / 'llm.pt'} ends too early: download it again." in message
    for name in ("flow.pt", "hift.pt"):
        assert f"{folder / name} cannot be read as weights: " in message


def test_a_part_without_its_checksum_is_told(folder: Path, tmp_path: Path) -> None:
    path = folder / "hift.pt"
    data = bytearray(path.read_bytes())
    alpha = torch.load(path, weights_only=True)["conv_post.bias"].numpy().tobytes()
    at = data.index(alpha)
    data[at + 3] ^= 0x01  # one bit of an exponent
    path.write_bytes(data)
    report = import_cosyvoice(folder, tmp_path / "out", version=2, head_dims=SIZES)
    told = [remark for remark in report.remarks if "may be damaged" in remark]
    assert len(told) == 1 and told[0].startswith("hift.pt may be damaged: ")


def changed(**tensors: Tensor | None) -> Callable[[State], Any]:
    """Tensors put in the place of others, or taken out."""

    def change(state: State) -> State:
        return {k: v for k, v in (state | tensors).items() if v is not None}  # type: ignore[operator]

    return change


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("llm", changed(**{"llm_decoder.weight": torch.zeros(20, 16)}), "weight (20, 16)"),
        ("llm", changed(**{"llm_decoder.weight": torch.zeros(60, 16)}), "weight (60, 16)"),
        ("llm", changed(**{"llm_decoder.bias": torch.tensor(1.0)}), "llm_decoder.bias ()"),
        ("llm", changed(**{TEXT_TABLE: torch.zeros(5)}), f"of another shape: {TEXT_TABLE} (5,)"),
        ("llm", changed(**{QUERY: torch.zeros(3, 16)}), "attention of 3 and 8 channels are not"),
        ("llm", changed(**{"speech_embedding.weight": torch.zeros(2, 16)}), "2 speech classes"),
        ("llm", changed(**{"llm.model.model.layers.x.y": torch.zeros(3)}), "unexpected (under our"),
        ("llm", changed(**{"llm.model.model.layers": torch.zeros(3)}), "unexpected (under our"),
        ("flow", changed(**{"input_embedding.weight": torch.zeros(3)}), "embedding.weight (3,)"),
        ("flow", changed(**{"input_embedding.weight": torch.zeros(9, 16)}), "27 codes, "),
        ("flow", changed(**{"encoder_proj.bias": torch.full((80,), torch.nan)}), "project.bias"),
        ("flow", changed(**{"encoder_proj.bias": torch.full((80,), torch.inf)}), "not finite"),
        ("flow", changed(**{"encoder_proj.bias": torch.zeros(80).long()}), "no floating-point"),
        ("flow", lambda state: {"model": state}, "no weights: model. Save the state dict"),
        ("flow", lambda state: list(state.values()), "flow.pt holds no weights"),
        ("hift", changed(**{GAIN: torch.ones(3, 1, 1)}), f"another shape: {GAIN} (3, 1, 1) for"),
        ("hift", changed(**{GAIN: None}), f"hift.pt: missing: {GAIN}"),
        ("hift", changed(**{DIRECTION: torch.zeros(16, 80, 7)}), "not finite (under our names)"),
        ("hift", changed(**{"conv_pre.weight": DOUBLED}), "there twice: conv_pre.weight"),
        ("hift", changed(**{"conv_pre.weight_g": DOUBLED[:, :1, :1], "conv_pre.weight_v": DOUBLED}),
         "there twice: conv_pre.weight"),
        ("hift", changed(**{"conv_pre.bias": torch.tensor(1.0)}), "conv_pre.bias ()"),
        ("hift", changed(**{"m_source.l_linear.weight": None}), "missing: m_source.l_lin"),
    ],
)  # fmt: skip
def test_weights_that_are_not_those_of_the_models(
    name: str, change: Callable[[State], Any], told: str, folder: Path
) -> None:
    path = folder / f"{name}.pt"
    state = torch.load(path, weights_only=True)
    path.unlink()
    torch.save(change(state), path)
    message = refusal(folder)
    assert told in message and f"{name}.pt" in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_checkpoints_of_training(dtype: torch.dtype, folder: Path) -> None:
    """In another precision, within `DataParallel`, with the number of the epoch."""
    for name in ("llm.pt", "flow.pt", "hift.pt"):
        state = torch.load(folder / name, weights_only=True)
        saved = {f"module.{key}": value.to(dtype) for key, value in state.items()}
        (folder / name).unlink()
        torch.save(saved | {"epoch": 3, "step": 70}, folder / name)
        assert read_weights(folder / name).keys() == state.keys()
    import_cosyvoice(folder, folder.parent / "out", version=2, head_dims=SIZES)


def test_graphs_in_each_others_place(folder: Path) -> None:
    tokenizer, speaker = folder / "speech_tokenizer_v2.onnx", folder / "campplus.onnx"
    first, second = tokenizer.read_bytes(), speaker.read_bytes()
    tokenizer.write_bytes(second)
    speaker.write_bytes(first)
    message = refusal(folder)
    for path in (tokenizer, speaker):
        assert f"{path}: the ONNX graph takes " in message
    assert "is it the graph of another model?" in message


def test_names_that_no_bundle_has(folder: Path) -> None:
    assert "'my voice' is not a name" in refusal(folder, "my voice")


def test_files_that_are_left_out_are_told(folder: Path) -> None:
    (folder / "llm.rl.pt").write_bytes(b"x")
    (folder / "spk2info.pt").write_bytes(b"x")
    report = import_cosyvoice(folder, folder.parent / "out", version=2, head_dims=SIZES)
    told = [remark.split(" (")[0] for remark in report.remarks if "not imported" in remark]
    assert told == ["llm.rl.pt is not imported", "spk2info.pt is not imported"]


def test_text_tokenizers_of_other_models(folder: Path, text_folder: Path) -> None:
    with pytest.raises(WeightsError, match="has 287 text ids, llm.pt 280: it is the text tok"):
        text_tokenizer(text_folder, 2, "none", 280)
    # A table of the published size goes with the published ids.
    with pytest.raises(WeightsError, match=r"as \[270\], llm.pt knows it as 151646"):
        text_tokenizer(text_folder, 2, "none", 151_936)
    for path in (folder / "CosyVoice-BlankEN").iterdir():
        path.unlink()
    assert f"{folder / 'CosyVoice-BlankEN'}: no text tokenizer can be read" in refusal(folder)


def test_tokens_of_version_3(text_folder: Path) -> None:
    """Ids at full size, by their distance from the first."""
    tokens = added_tokens(3)
    assert tokens[: len(added_tokens(2))] == added_tokens(2) and len(set(tokens)) == 278
    known = {
        "<|endofprompt|>": 151_646, "[mn]": 151_662, "<|endofsystem|>": 151_663, "[AA]": 151_664,
        "[AA0]": 151_665, "[B]": 151_688, "[ER2]": 151_699, "[ZH]": 151_747, "[a]": 151_748,
        "[ià]": 151_769, "[j]": 151_797, "[uǒ]": 151_843, "[vè]": 151_844, "[zh]": 151_849,
        "[à]": 151_850, "[ér]": 151_869, "[ǚ]": 151_922, "[ǜ]": 151_923,
    }  # fmt: skip
    assert {token: 151_646 + tokens.index(token) for token in known} == known
    tokenizer = text_tokenizer(text_folder, 3, "none", 640)
    assert tokenizer.encode("[h][ǎo]") == [270 + tokens.index("[h]"), 270 + tokens.index("[ǎo]")]
