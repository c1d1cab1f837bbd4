from __future__ import annotations

import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from tokenlm.checkpoint.bundle import BundleError
from tokenlm.checkpoint.component import ComponentError
from training.data.manifest import ManifestError
from training.evaluation.config import EvaluationConfig
from training.evaluation.judges import WordJudge
from training.evaluation.parts import find_parts
from training.evaluation.run import Results, choose_sections, evaluate
from training.evaluation.systems import Cloning

CONSOLE = Console(file=StringIO())


def pitch_of(samples: np.ndarray) -> np.ndarray:
    """A judge of speakers for tones: how the power is spread over the pitches."""
    power = np.abs(np.fft.rfft(samples, n=16_000)) ** 2
    bands = power[:2000].reshape(40, 50).sum(axis=1)
    return bands / np.linalg.norm(bands)


def settings(heldout: Path | None, unheard: Path | None = None, **more: int) -> EvaluationConfig:
    return EvaluationConfig(
        heldout=heldout,
        unheard=unheard,
        **{"num_items": 6, "num_voices": 3, "prompt_seconds": 0.4, **more},  # type: ignore[arg-type]
    )


def run(config: EvaluationConfig, heard: str = "say ann", **more: object) -> Results:
    parts = find_parts(more.pop("bundle", None), more.pop("components", []))  # type: ignore[arg-type]
    sections = choose_sections(more.pop("sections", ["originals"]), parts, config)  # type: ignore[arg-type]
    return evaluate(
        config,
        parts,
        sections,
        console=CONSOLE,
        word_judge=WordJudge(transcribe=lambda pcm: heard),
        voice_judge=pitch_of,
        **more,  # type: ignore[arg-type]
    )


def figures(results: Results) -> dict[str, float]:
    return {figure.key: figure.value for figure in results.figures}


def test_the_engines_own_reading_is_judged_without_any_component(
    heldout: Path, unheard: Path
) -> None:
    results = run(settings(heldout, unheard))
    found = figures(results)
    # Six items of "say x and x" and "say x and x and x": 3 of 4 and 5 of 6 words differ at least.
    rows = [row for row in results.rows if row["group"] == "heldout"]
    assert [row["original"] for row in rows] == [
        "ann-1", "bob-1", "cyd-1", "ann-2", "bob-2", "cyd-2",
    ]  # fmt: skip
    assert [(row["errors"], row["words"]) for row in rows] == [
        (2, 4), (3, 4), (3, 4), (4, 6), (5, 6), (5, 6),
    ]  # fmt: skip
    assert found["heldout/originals/word_error_rate"] == pytest.approx(22 / 30)
    assert found["heldout/originals/nearest_voice_rate"] == 1.0
    assert found["heldout/originals/speaker_similarity"] == pytest.approx(1.0, abs=0.01)
    assert found["unheard/originals/nearest_voice_rate"] == 1.0
    assert "heldout/originals/catastrophic_failure_rate" not in found


def test_unheard_voices_are_looked_for_among_the_heldout_ones(heldout: Path, unheard: Path) -> None:
    rows = [row for row in run(settings(heldout, unheard)).rows if row["group"] == "unheard"]
    assert {row["speaker"] for row in rows} == {"dan", "dot"}
    assert all(row["num_candidates"] == 3 and row["nearest"] == row["speaker"] for row in rows)


def test_a_vocoder_alone_is_judged_beside_the_originals(
    heldout: Path, export: Path, tmp_path: Path
) -> None:
    results = run(
        settings(heldout, num_items=2),
        components=[export / "vocoder"],
        sections=["copy_synthesis"],
        audio_folder=tmp_path / "audio",
    )
    found = figures(results)
    assert found["heldout/copy_synthesis/word_errors_over_original"] == 1.0
    assert found["heldout/copy_synthesis/catastrophic_failure_rate"] == 0.0
    assert {row["section"] for row in results.rows} == {"originals", "copy_synthesis"}
    saved = sorted(path.name for path in (tmp_path / "audio/heldout/copy_synthesis").iterdir())
    assert saved == ["000.wav", "001.wav"]


def test_the_whole_chain_is_judged_beside_its_steps(heldout: Path, tiny_bundle: Path) -> None:
    results = run(
        settings(heldout, num_items=2, num_timed_items=1),
        bundle=str(tiny_bundle),
        sections=["cloned", "resynthesis", "real_time_factor"],
    )
    found = figures(results)
    for section in ("cloned", "resynthesis"):
        assert found[f"heldout/{section}/word_errors_over_original"] == 1.0
        assert -1 <= found[f"heldout/{section}/speaker_similarity"] <= 1
    assert found["heldout/real_time_factor/real_time_factor"] > 0
    spoken = [row for row in results.rows if row["section"] == "resynthesis"]
    # Its tokens are those of the original, so it is as long, to a token.
    assert [row["seconds"] for row in spoken] == pytest.approx([0.48, 0.48], abs=0.081)


@pytest.mark.slow
def test_every_way_to_stand_a_prompt_is_measured_with_a_whole_bundle(
    voices: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    config = EvaluationConfig(
        heldout=voices,
        recordings=voices,
        num_items=2,
        num_voices=2,
        prompt_seconds=1.0,
        num_recordings=2,
        num_items_per_recording=1,
        formant_factors=(0.95, 1.0),
        num_long_texts=1,
        long_text_seconds=20.0,
        prompt_length_seconds=(0.5, 1.5),
        num_speaking_rate_items=1,
        speaking_rate_factors=(0.8, 1.25),
    )
    results = run(
        config,
        bundle=str(tiny_bundle),
        sections=[
            "formants", "long_text", "prompt_lengths", "damaged_prompts", "speaking_rate",
            "recordings",
        ],
        audio_folder=tmp_path / "audio",
    )  # fmt: skip
    found = figures(results)
    # What is heard is always the same, so the prompt makes no difference to it.
    assert found["heldout/prompt_lengths/0.5s_word_errors_over_1.5s"] == 1.0
    assert found["heldout/damaged_prompts/noise_word_errors_over_clean"] == 1.0
    assert found["heldout/formants/slope_of_prompts"] == pytest.approx(1.0, abs=0.1)
    assert 0 <= found["heldout/long_text/similarity_change"] <= 2
    assert found["heldout/recordings/word_error_rate"] > 0
    assert "heldout/speaking_rate/slope" in found
    # Read beside the recordings of the same sentences, which are scored once and are no section.
    beside = {figure.key: figure.original for figure in results.figures}
    assert beside["heldout/recordings/word_error_rate"] == 1.0
    assert beside["heldout/prompt_lengths/0.5s_word_error_rate"] == 1.0
    assert 0.5 < (beside["heldout/recordings/speaker_similarity"] or 0) <= 1
    assert {row["section"] for row in results.rows} == set(results.sections)
    counts = {name: 0 for name in results.sections}
    for row in results.rows:
        counts[row["section"]] += 1
    assert counts == {
        "formants": 4, "long_text": 1, "prompt_lengths": 4, "damaged_prompts": 10,
        "speaking_rate": 2, "recordings": 2,
    }  # fmt: skip
    kept = {path.parent.relative_to(tmp_path / "audio/heldout").as_posix()
            for path in (tmp_path / "audio").rglob("*.wav")}  # fmt: skip
    assert {"formants/x0.95", "long_text", "prompt_lengths/0.5s", "recordings"} < kept
    assert "damaged_prompts/noise" in kept


def test_recordings_are_left_out_unless_given_and_an_error_when_asked_for(
    tiny_bundle: Path, voices: Path
) -> None:
    parts = find_parts(str(tiny_bundle))
    plain, given = EvaluationConfig(), EvaluationConfig(recordings=voices)
    found = choose_sections([], parts, plain)
    assert "recordings" not in found and {"formants", "damaged_prompts"} < set(found)
    assert "recordings" in choose_sections([], parts, given)
    with pytest.raises(ValueError, match="needs real recordings .* --recordings"):
        choose_sections(["recordings"], parts, plain)
    with pytest.raises(ValueError, match="recordings needs speech_lm"):
        choose_sections(["recordings"], find_parts(None), given)


def test_sets_of_texts_are_a_section(tiny_bundle: Path) -> None:
    parts, config = find_parts(str(tiny_bundle)), EvaluationConfig(sets=("hard",))
    assert choose_sections([], parts, config) == ["script"]
    assert choose_sections(["cloned"], parts, config) == ["cloned", "script"]
    assert "script" not in choose_sections([], parts, EvaluationConfig())
    with pytest.raises(ValueError, match="script needs sets of texts: --set"):
        choose_sections(["script"], parts, EvaluationConfig())


def test_too_short_voices_are_told_before_anything_is_spoken(
    heldout: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cloning, "speak", lambda *_: pytest.fail("spoken"))
    with pytest.raises(ManifestError, match="a prompt of 1 s .* of 'ann'"):
        run(settings(heldout), bundle=str(tiny_bundle), sections=["cloned", "prompt_lengths"])


def test_flow_and_tokenizer_must_belong_together(
    heldout: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle / "flow", tmp_path / "flow")
    config = tmp_path / "flow" / "config.yaml"
    facts = yaml.safe_load(config.read_text())
    facts["extra"]["tokenizer"] = "0123456789abcdef"
    config.write_text(yaml.safe_dump(facts))
    with pytest.raises(BundleError, match="0123456789abcdef"):
        run(
            settings(heldout), components=[tiny_bundle, tmp_path / "flow"], sections=["resynthesis"]
        )


def test_tokenizer_and_speaker_encoder_need_no_judge(
    heldout: Path, unheard: Path, export: Path
) -> None:
    sections = ["tokenizer", "speaker_encoder"]
    results = run(settings(heldout, unheard), components=[export], sections=sections)
    found = figures(results)
    assert found["heldout/tokenizer/char_error_rate"] > 0
    assert 0 < found["heldout/tokenizer/codebook_utilisation"] <= 1
    assert 1 <= found["heldout/tokenizer/codebook_perplexity"] <= 27
    assert 0 <= found["heldout/speaker_encoder/equal_error_rate"] <= 1
    assert 0 <= found["all/speaker_encoder/equal_error_rate_between_persons"] <= 1
    # Measured on the same tones, which its judge tells apart without an error.
    assert found["heldout/speaker_encoder/judge_equal_error_rate"] == 0.0
    assert {row["group"] for row in results.rows} == {"heldout", "unheard"}


def test_the_components_choose_the_sections(export: Path) -> None:
    assert choose_sections([], find_parts(None), EvaluationConfig()) == ["originals"]
    found = choose_sections([], find_parts(None, [export]), EvaluationConfig())
    assert found == ["originals", "copy_synthesis", "tokenizer", "speaker_encoder"]


def test_later_folders_replace_earlier_ones(export: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.mkdir()
    (export / "vocoder").rename(newer / "vocoder")
    parts = find_parts(None, [export, newer])
    assert parts.folders["vocoder"] == newer / "vocoder"
    assert parts.folders["speaker_encoder"] == export / "speaker_encoder"


def test_what_is_missing_is_named(export: Path, heldout: Path, tmp_path: Path) -> None:
    parts = find_parts(None, [export])
    with pytest.raises(ValueError, match="cloned needs speech_lm, text_tokenizer, flow"):
        choose_sections(["cloned"], parts, EvaluationConfig())
    with pytest.raises(ValueError, match="no section 'singing'; the sections are originals"):
        choose_sections(["singing"], parts, EvaluationConfig())
    with pytest.raises(ComponentError, match="is no component"):
        find_parts(None, [heldout.parent])
    with pytest.raises(ComponentError, match="no such component folder"):
        find_parts(None, [tmp_path / "nowhere"])
    with pytest.raises(ManifestError, match="cannot be read"):
        run(settings(tmp_path / "nothing.jsonl"))
    with pytest.raises(ValueError, match="name the manifest"):
        run(settings(None))
