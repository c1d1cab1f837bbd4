"""A bundle of tiny random models, for whatever needs a whole one."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tokenlm.audio.io import save_audio
from tokenlm.checkpoint import (
    BundleManifest,
    finalize_bundle,
    read_manifest,
    save_component,
)
from tokenlm.models.enhancer import (
    MelEnhancer,
    MelEnhancerConfig,
    VoiceIsolator,
    VoiceIsolatorConfig,
)
from tokenlm.models.flow import FlowConfig, FlowDecoder
from tokenlm.models.lm import SpeechLM, SpeechLMConfig
from tokenlm.models.lm.model import BackboneConfig
from tokenlm.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from tokenlm.models.speech_tokenizer import SpeechTokenizer, SpeechTokenizerConfig
from tokenlm.models.token_recognizer import TokenRecognizer, TokenRecognizerConfig
from tokenlm.models.vocoder import Vocoder, VocoderConfig
from tokenlm.synthesis import Synthesizer
from tokenlm.text.pronunciation import Pronouncer
from tokenlm.text.tokenizers import PhonemeTokenizer, SentencePieceTokenizer

# Tests compare runs bit for bit, some of them in processes of their own: all use one thread, which
# is faster for tiny models, too.
os.environ["OMP_NUM_THREADS"] = "1"
# Statements of consent are signed with the key of the machine, which is not that of the tests.
os.environ["TOKENLM_CONSENT_KEY"] = os.path.join(tempfile.mkdtemp(prefix="tokenlm-"), "consent.key")
torch.set_num_threads(1)

sys.path[:0] = [str(path) for path in Path(__file__).parents[:2]]  # what tests share
from golden_subset import LEFT_OUT_TESTS  # noqa: E402

LEVELS = (3, 3, 3)
CODEBOOK_SIZE = 27
TEXTS = ["the quick brown fox jumps over the lazy dog.", "is it so? yes, it is!", "well; one: two."]


GOLDEN = Path(__file__).parents[1] / os.environ.get("TOKENLM_GOLDEN", "tests/golden")
"""Reference numbers: a subset that comes along, or the whole folder."""


@dataclass
class Golden:
    """Reference numbers of one module: what it is given, its weights, and what comes out."""

    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    num_checks: int = 0
    """Outputs that were compared."""
    num_left_out: int = 0
    """Outputs that would have been, if they were not left out of a subset (`golden_subset.py`)."""

    @property
    def sizes(self) -> dict[str, Any]:
        return self.facts["hyper_parameters"]

    @property
    def weights(self) -> dict[str, Tensor]:
        """Weights under the keys of the checkpoint; NaN where they are left out of a subset."""
        found = {
            name: torch.full(size, torch.nan)
            for name, size in self.facts.get("left_out", {}).items()
            if name != "weights.llm.model.lm_head.weight"  # which nothing is computed with
        }
        found |= self.tensors
        return {
            name.removeprefix("weights."): tensor
            for name, tensor in found.items()
            if name.startswith("weights.")
        }

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def atol(self, name: str) -> float:
        """Tolerance of an output."""
        return self.facts["tensors"][name]["atol"]

    def check(self, actual: Tensor, name: str, valid: Tensor | None = None) -> None:
        """Compares with an output at its tolerance, where `valid` is True.

        Of a subset only what is there is compared: a test that compares nothing fails.
        """
        if name in self.facts.get("left_out", {}):
            self.num_left_out += 1
            return
        self.num_checks += 1
        if name in self.facts.get("cropped", {}):
            kept = tuple(slice(size) for size in self.facts["cropped"][name])
            actual, valid = actual[kept], None if valid is None else valid[kept[: valid.ndim]]
        expected, atol = self.tensors[name], self.atol(name)
        assert actual.shape == expected.shape, f"{name}: {actual.shape}, not {expected.shape}"
        if valid is not None:
            actual, expected = actual[valid], expected[valid]
        torch.testing.assert_close(
            actual.detach(), expected, rtol=0, atol=atol, check_dtype=False, msg=lambda m: name + m
        )


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Where the reference numbers lie."""
    assert GOLDEN.is_dir(), f"there is no folder {GOLDEN}, which TOKENLM_GOLDEN names"
    return GOLDEN


READ: dict[str, Golden] = {}
"""Reference numbers that were read, by module."""


@pytest.fixture(scope="session")
def golden(golden_folder: Path) -> Callable[[str], Golden]:
    """Reads the reference numbers of a module."""
    read = READ
    read.clear()  # of an earlier session in this process, whose files may have been others

    def load(name: str) -> Golden:
        if name not in read:
            facts = json.loads((golden_folder / f"{name}.json").read_text(encoding="utf-8"))
            read[name] = Golden(facts, load_file(golden_folder / f"{name}.safetensors"))
        return read[name]

    return load


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests that need more numbers than a subset has."""
    path = GOLDEN / LEFT_OUT_TESTS
    if not path.is_file():
        return
    left_out = set(path.read_text(encoding="utf-8").splitlines())
    gone = [item for item in items if item.nodeid in left_out]
    config.hook.pytest_deselected(items=gone)
    items[:] = [item for item in items if item.nodeid not in left_out]


def pytest_collection_finish() -> None:
    """Spares the garbage collector what was imported, over a million objects that stay."""
    gc.freeze()


@pytest.fixture(autouse=True)
def something_is_compared() -> Iterator[None]:
    """A test whose outputs are all left out of a subset has to be left out itself."""
    before = sum(numbers.num_checks for numbers in READ.values())
    left_out = sum(numbers.num_left_out for numbers in READ.values())
    yield
    if sum(numbers.num_left_out for numbers in READ.values()) > left_out:
        assert sum(numbers.num_checks for numbers in READ.values()) > before, (
            f"nothing is compared: the test belongs into {LEFT_OUT_TESTS}"
        )


def hum(pitch: float, seconds: float, sample_rate: int = 24_000) -> Tensor:
    """Something like a voice (S,): harmonics of a moving pitch, in syllables."""
    time = torch.arange(int(seconds * sample_rate)) / sample_rate
    phase = 2 * torch.pi * pitch * (time + 0.02 * torch.sin(2 * torch.pi * 0.7 * time))
    wave = sum(torch.sin(number * phase) / number for number in range(1, 12))
    assert isinstance(wave, Tensor)
    return 0.2 * wave * (0.15 + torch.sin(torch.pi * 3.0 * time).square())


@pytest.fixture(scope="session")
def tiny_models() -> dict[str, nn.Module]:
    """One model of every kind, random but always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = {
            "speech_tokenizer": SpeechTokenizer(
                SpeechTokenizerConfig(
                    dim=16, num_heads=2, num_layers=1, levels=LEVELS, window_seconds=8.0
                )
            ),
            "token_recognizer": TokenRecognizer(
                TokenRecognizerConfig(
                    dim=16, num_heads=2, num_layers=1, levels=LEVELS, max_characters=64
                )
            ),
            "speaker_encoder": SpeakerEncoder(
                SpeakerEncoderConfig(dim=16, num_layers=1, embedding_dim=8)
            ),
            "speech_lm": SpeechLM(
                SpeechLMConfig(
                    backbone=BackboneConfig(
                        vocab_size=64,
                        hidden_size=16,
                        intermediate_size=32,
                        num_layers=1,
                        num_heads=2,
                        num_kv_heads=1,
                    ),
                    codebook_size=CODEBOOK_SIZE,
                    min_speech_per_text=0.5,
                    max_speech_per_text=1.5,
                )
            ),
            "flow": FlowDecoder(
                FlowConfig(
                    codebook_size=CODEBOOK_SIZE,
                    speaker_dim=8,
                    speaker_condition_dim=8,
                    encoder_dim=16,
                    encoder_layers=1,
                    encoder_heads=2,
                    dim=16,
                    num_layers=1,
                    num_heads=2,
                )
            ),
            "vocoder": Vocoder(VocoderConfig(dim=16, num_layers=1)),
        }
        for model in models.values():
            for weight in model.parameters():
                if not weight.any():  # a layer that starts at zero would hide what comes before it
                    nn.init.normal_(weight, std=0.1)
    return {name: model.eval().requires_grad_(False) for name, model in models.items()}


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wav file of two seconds. Not to be changed."""
    path = tmp_path_factory.mktemp("recording") / "me.wav"
    save_audio(path, hum(140.0, 2.0), 24_000)
    return path


@pytest.fixture(scope="session")
def tiny_bundle(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, nn.Module], recording: Path
) -> Path:
    """A whole bundle with two voices. Not to be changed: copy it first."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    tokenizer = tiny_models["speech_tokenizer"]
    assert isinstance(tokenizer, SpeechTokenizer)
    for name, model in tiny_models.items():
        save_component(
            folder / name,
            kind=name,
            config=model.config,
            state_dict=model.state_dict(),
            dtype=torch.float16,
            extra={"tokenizer": tokenizer.fingerprint} if name in ("speech_lm", "flow") else {},
        )
    SentencePieceTokenizer.train(TEXTS, 64, model_type="char").save(folder / "text_tokenizer")
    manifest = BundleManifest(
        name="tiny",
        description="Random weights.",
        language="en",
        licence="Apache-2.0",
        sample_rate=24_000,
        components={name: name for name in tiny_models},
        generation={"num_steps": 2, "guidance_scale": 0.7},
    )
    save_audio(folder / "demo_prompt.wav", hum(180.0, 1.5), 24_000)
    (folder / "demo_prompt.txt").write_text("the quick brown fox.\n", encoding="utf-8")
    finalize_bundle(folder, manifest)
    synthesizer = Synthesizer.from_pretrained(folder)
    (folder / "voices").mkdir()
    for name, pitch in (("ann", 210.0), ("bob", 110.0)):
        voice = synthesizer.prepare_voice(
            hum(pitch, 1.5), "is it so?", sample_rate=24_000, name=name
        )
        voice.save(folder / "voices" / f"{name}.voice")
    finalize_bundle(folder, manifest)
    return folder


PHONES = (
    "aa1 ae1 ah1 ao1 aw1 ax ay1 b ch d dh eh1 er er1 ey1 f g hh ih ih1 iy iy1 jh k l m n ng ow "
    "ow1 oy1 p r s sh t th uh1 uw1 v w y z"
).split()


@pytest.fixture(scope="session")
def phoneme_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """The same bundle with a text tokenizer of phones. Not to be changed."""
    folder = tmp_path_factory.mktemp("bundles") / "phonemes"
    shutil.copytree(tiny_bundle, folder)
    shutil.rmtree(folder / "text_tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pronouncer = Pronouncer(len(PHONES), dim=8)
    lexicon = {"is": ("ih1", "z"), "it": ("ih1", "t"), "so": ("s", "ow1")}
    PhonemeTokenizer(PHONES, lexicon, pronouncer).save(folder / "text_tokenizer")
    finalize_bundle(folder, read_manifest(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_enhancer() -> dict[str, nn.Module]:
    """The models of an enhancer, random but always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mel_enhancer = MelEnhancer(MelEnhancerConfig(channels=(4, 6), dim=4))
        nn.init.normal_(mel_enhancer.last.weight, std=0.1)
        models = {
            "voice_isolator": VoiceIsolator(VoiceIsolatorConfig(dim=8, num_layers=1)),
            "mel_enhancer": mel_enhancer,
        }
    return {name: model.eval().requires_grad_(False) for name, model in models.items()}


@pytest.fixture(scope="session")
def enhancer_bundle(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_bundle: Path,
    tiny_enhancer: dict[str, nn.Module],
) -> Path:
    """The tiny bundle with an enhancer. Not to be changed."""
    folder = tmp_path_factory.mktemp("bundles") / "enhancer"
    shutil.copytree(tiny_bundle, folder)
    for name, model in tiny_enhancer.items():
        save_component(
            folder / name,
            kind=name,
            config=model.config,
            state_dict=model.state_dict(),
            dtype=torch.float16,
        )
    manifest = read_manifest(folder)
    kinds = {**manifest.components, **{name: name for name in tiny_enhancer}}
    finalize_bundle(folder, replace(manifest, components=kinds))
    return folder
