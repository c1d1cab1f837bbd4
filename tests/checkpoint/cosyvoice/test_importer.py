"""Import of published folders: keys, wrong folders, and a bundle that speaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from published_folder import DIGITS, SIZES, SPEAKER_DIM, published, tiny, write_folder

from tokenlm.checkpoint import validate_bundle
from tokenlm.checkpoint.cosyvoice.flow import flow_to_ours
from tokenlm.checkpoint.cosyvoice.hift import hift_to_ours, hift_to_theirs
from tokenlm.checkpoint.cosyvoice.importer import (
    INSTRUCTION,
    SPEAKER_FILE,
    TOKENIZER_FILES,
    generation_settings,
    import_cosyvoice,
)
from tokenlm.checkpoint.cosyvoice.lm import lm_to_ours
from tokenlm.checkpoint.key_table import WeightsError
from tokenlm.checkpoint.registry import KINDS
from tokenlm.config import from_dict
from tokenlm.models.fsmn_tokenizer import FSMNTokenizer
from tokenlm.models.lm import SamplingConfig
from tokenlm.models.lm.guards import TokenMonitor
from tokenlm.synthesis import Synthesizer
from tokenlm.synthesis.components import GenerationConfig
from tokenlm.synthesis.text import SegmentedText
from tokenlm.text.normalize import frontend


@pytest.mark.parametrize("version", [2, 3])
def test_weights_go_there_and_back(version: Any) -> None:
    models = tiny(version)
    theirs = published(version, models)
    lm, flow, hift = (models[name] for name in ("llm", "flow", "hift"))
    ours = lm_to_ours(version, lm.config, theirs["llm"])  # type: ignore[arg-type]
    assert ours.keys() == lm.state_dict().keys()
    assert all(torch.equal(ours[key], value) for key, value in lm.state_dict().items())
    ours = flow_to_ours(version, theirs["flow"])
    assert ours.keys() == flow.state_dict().keys()
    assert all(torch.equal(ours[key], value) for key, value in flow.state_dict().items())
    for spelling in ("parametrized", "old"):
        old = hift_to_theirs(hift.config, hift.state_dict(), spelling)  # type: ignore[arg-type]
        assert any(key.endswith("weight_g") for key in old) == (spelling == "old")
        prefixed = {"generator." + key: value for key, value in old.items()}
        for state in (old, prefixed):
            ours = hift_to_ours(hift.config, state)  # type: ignore[arg-type]
            assert ours.keys() == hift.state_dict().keys()
            for key, value in hift.state_dict().items():
                torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("tokenizer_kind", ["onnx", "torch"])
def test_imported_bundle_speaks(
    tmp_path: Path,
    graphs: dict[str, bytes],
    text_folder: Path,
    recording: Path,
    tokenizer: FSMNTokenizer,
    tokenizer_kind: Any,
) -> None:
    models = write_folder(tmp_path / "published", 2, graphs, text_folder)
    report = import_cosyvoice(
        tmp_path / "published",
        tmp_path / "bundle",
        version=2,
        tokenizer=tokenizer_kind,
        head_dims=SIZES,
    )
    assert not validate_bundle(tmp_path / "bundle", KINDS)
    for name, part in (("speech_lm", "llm"), ("flow", "flow"), ("vocoder", "hift")):
        state = models[part].state_dict()
        assert report.parameters[name] == sum(value.numel() for value in state.values())
    synthesizer = Synthesizer.from_pretrained(tmp_path / "bundle")
    components = synthesizer.components
    assert components.text_tokenizer.encode("<|endofprompt|>[mn]") == [270, 286]
    wave = torch.randn(1, 16_000) * 0.1
    expected, _ = tokenizer.encode(wave)
    assert torch.equal(components.speech_tokenizer.encode(wave)[0], expected)
    voice = synthesizer.prepare_voice(recording, "is it so?")
    assert voice.speaker_embedding.shape == (SPEAKER_DIM,)
    waveform = synthesizer.generate("is it so?", voice=voice, seed=1)
    assert waveform.shape[0] > 0 and waveform.isfinite().all()
    streamed = torch.cat(list(synthesizer.stream("is it so?", voice=voice, seed=1)))
    torch.testing.assert_close(streamed, waveform, rtol=0, atol=1e-4)


def test_import_of_version_3(
    tmp_path: Path, graphs: dict[str, bytes], text_folder: Path, recording: Path
) -> None:
    folder = tmp_path / "published"
    write_folder(folder, 3, graphs, text_folder)
    weights = torch.load(folder / "llm.pt", weights_only=True)
    weights["llm_decoder.weight"][3**DIGITS :] = 0.0  # specials are never the most likely
    torch.save(weights, folder / "llm.pt")
    import_cosyvoice(folder, tmp_path / "three", version=3, head_dims=SIZES)
    synthesizer = Synthesizer.from_pretrained(tmp_path / "three")
    assert synthesizer.components.generation.instruction == INSTRUCTION
    assert synthesizer.components.text_tokenizer.encode("a<|endofprompt|>")[-1] == 270
    voice = synthesizer.prepare_voice(recording, "is it so?")
    options = {"voice": voice, "sampling": SamplingConfig(temperature=0.0)}
    waveform = synthesizer.generate("so?", **options)  # type: ignore[arg-type]
    streamed = torch.cat(list(synthesizer.stream("so?", **options)))  # type: ignore[arg-type]
    assert waveform.shape[0] > synthesizer.sample_rate
    torch.testing.assert_close(streamed, waveform, rtol=0, atol=1e-4)


def test_silence_of_version_3_is_capped() -> None:
    settings = from_dict(GenerationConfig, generation_settings(3, 6561))
    monitor = TokenMonitor(settings.guards)
    for token in (1, 2323, 28, 28):
        monitor.push(token)
    assert not monitor.forbidden
    monitor.push(494)
    assert monitor.forbidden == [1, 2, 28, 29, 55, 248, 494, 2241, 2242, 2322, 2323]
    monitor.push(100)
    assert not monitor.forbidden
    # Neither version 2, whose tokenizer has other codes, nor a codebook without these codes.
    for other in (generation_settings(2, 6561), generation_settings(3, 27)):
        assert from_dict(GenerationConfig, other).guards.silent_tokens == ()


def test_wrong_folders_say_what_is_wrong(
    tmp_path: Path, graphs: dict[str, bytes], text_folder: Path
) -> None:
    with pytest.raises(WeightsError, match="there is no such folder"):
        import_cosyvoice(tmp_path / "none", tmp_path / "out", version=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"missing: llm\.pt, flow\.pt, hift\.pt, speech_tok"):
        import_cosyvoice(tmp_path / "empty", tmp_path / "out", version=2)
    folder = tmp_path / "published"
    write_folder(folder, 2, graphs, text_folder)
    flow = torch.load(folder / "flow.pt", weights_only=True)
    flow["surprise.weight"] = torch.zeros(1)
    torch.save(flow, folder / "flow.pt")
    hift = torch.load(folder / "hift.pt", weights_only=True)
    del hift["conv_post.bias"]
    hift["ups.0.bias"] = torch.zeros(5)
    torch.save(hift, folder / "hift.pt")
    with pytest.raises(WeightsError) as caught:
        import_cosyvoice(folder, tmp_path / "out", version=2, head_dims=SIZES)
    message = str(caught.value)
    assert "flow.pt: unexpected: surprise.weight" in message
    assert "missing (under our names): post.conv.bias" in message
    assert "stages.0.upsample.conv.bias (5,) for (8,)" in message
    assert not (tmp_path / "out").exists()


def test_a_pickle_that_is_no_weights_is_not_run(
    tmp_path: Path, graphs: dict[str, bytes], text_folder: Path
) -> None:
    folder = tmp_path / "published"
    write_folder(folder, 2, graphs, text_folder)
    torch.save({"key": Path("x")}, folder / "llm.pt")
    with pytest.raises(WeightsError, match=r"llm\.pt is damaged, or holds objects that are no"):
        import_cosyvoice(folder, tmp_path / "out", version=2)


def test_a_bundle_is_not_overwritten(
    tmp_path: Path, graphs: dict[str, bytes], text_folder: Path
) -> None:
    write_folder(tmp_path / "published", 2, graphs, text_folder)
    (tmp_path / "out").mkdir()
    with pytest.raises(WeightsError, match="exists already"):
        import_cosyvoice(tmp_path / "published", tmp_path / "out", version=2)


def test_texts_of_any_script(
    tmp_path: Path, graphs: dict[str, bytes], text_folder: Path, recording: Path
) -> None:
    folder = tmp_path / "published"
    write_folder(folder, 2, graphs, text_folder)
    import_cosyvoice(folder, tmp_path / "out", version=2, head_dims=SIZES)
    synthesizer = Synthesizer.from_pretrained(tmp_path / "out")
    voice = synthesizer.prepare_voice(recording, "这是2号。[breath]")
    assert voice.prompt_text == "这是2号。[breath]"
    assert synthesizer.generate("你好。", voice=voice).isfinite().all()
    tokenizer = synthesizer.components.text_tokenizer
    text = "今天是2024年5月3日。“iPhone” costs $9. 你好吗？[breath]我们走吧！"
    for layout in ("one_shot", "interleaved"):
        scripts = []
        for size in (len(text), 1, 7):
            script = SegmentedText(
                tokenizer.encode,
                max_length=160,
                layout=layout,  # type: ignore[arg-type]
                text_frontend=frontend(tokenizer.config.normalizer),
            )
            for start in range(0, len(text), size):
                script.feed(text[start : start + size])
            script.finish()
            scripts.append([part.tokens for part in script.segments])
        assert scripts[0] == scripts[1] == scripts[2]
        assert len(scripts[0]) > 1
        ids = [token for row in scripts[0] for token in row]
        # Tags are special tokens, which decoding passes over.
        assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "").replace(
            "[breath]", ""
        )
        assert 271 in ids
    with pytest.raises(ValueError, match="nothing that can be said"):
        synthesizer.generate("……！", voice=voice)
    import_cosyvoice(folder, tmp_path / "en", version=2, head_dims=SIZES, normalizer="english")
    english = Synthesizer.from_pretrained(tmp_path / "en")
    assert english.prepare_voice(recording, "It costs $3.").prompt_text == "it costs three dollars."


def test_broken_files_are_told_together(
    tmp_path: Path, graphs: dict[str, bytes], text_folder: Path
) -> None:
    folder = tmp_path / "published"
    write_folder(folder, 2, graphs, text_folder)
    whole = {name: (folder / f"{name}.pt").read_bytes() for name in ("llm", "flow")}
    (folder / "llm.pt").write_bytes(b"")
    (folder / "flow.pt").write_bytes(whole["flow"][:1000])
    with pytest.raises(WeightsError) as caught:
        import_cosyvoice(folder, tmp_path / "out", version=2, head_dims=SIZES)
    assert "llm.pt; download them again." in str(caught.value)
    assert "flow.pt ends too early: download it again." in str(caught.value)
    for name, data in whole.items():
        (folder / f"{name}.pt").write_bytes(data)
    # The graphs are exchanged.
    (folder / TOKENIZER_FILES[2]).write_bytes(graphs["speaker"])
    (folder / SPEAKER_FILE).write_bytes(graphs["tokenizer"])
    with pytest.raises(WeightsError) as caught:
        import_cosyvoice(folder, tmp_path / "out", version=2, head_dims=SIZES)
    assert f"{SPEAKER_FILE}: " in str(caught.value)
    assert f"{TOKENIZER_FILES[2]}: " in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(WeightsError, match=r"speech_tokenizer_v3\.onnx\. It looks like .* 2"):
        import_cosyvoice(folder, tmp_path / "out", version=3, head_dims=SIZES)
    with pytest.raises(WeightsError, match="the layers of speech_tokenizer_v3.onnx are not known"):
        import_cosyvoice(folder, tmp_path / "out", version=3, tokenizer="torch")
