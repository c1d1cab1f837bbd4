"""The speech LM as a Hugging Face folder: equal to ours, number for number and id for id."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from published_folder import text_folder, tiny
from torch import Tensor
from verb_runner import run_verb

from inference.commands import exports
from tokenlm.checkpoint import (
    BundleError,
    BundleManifest,
    finalize_bundle,
    resolve,
    save_component,
)
from tokenlm.checkpoint.component import load_component
from tokenlm.checkpoint.llm_folder import BIAS_FILE, export_llm, read_bias, read_facts
from tokenlm.checkpoint.registry import KINDS
from tokenlm.models.lm import BackboneConfig, GuardConfig, SamplingConfig, SpeechLM, SpeechLMConfig
from tokenlm.models.lm.decoding import SegmentTokens, SpeechRequest, generate_speech
from tokenlm.models.lm.layout import SPECIAL, SPEECH, TEXT
from tokenlm.models.lm.model import LayoutBatch
from tokenlm.models.lm.vocabulary import MergedVocabulary
from tokenlm.synthesis import Synthesizer
from tokenlm.text.normalize import frontend
from tokenlm.text.tokenizers import SentencePieceTokenizer, TransformersTokenizer

__all__ = ["text_folder"]
ROOT = Path(__file__).resolve().parents[2]
GREEDY = SamplingConfig(temperature=0.0, repetition_window=0)
GUARDS = GuardConfig(loop_tokens=12, silent_tokens=(3, 4), max_silent_tokens=4)


def random_lm(family: Any) -> SpeechLM:
    torch.manual_seed(len(family))
    backbone = BackboneConfig(
        model_type=family,
        vocab_size=70,
        hidden_size=24,
        intermediate_size=40,
        num_layers=2,
        num_heads=3,
        num_kv_heads=1,
        head_dim=16 if family == "qwen3" else None,
    )
    model = SpeechLM(SpeechLMConfig(backbone=backbone, codebook_size=27, head_bias=False))
    return loud(model)


def loud(model: SpeechLM) -> SpeechLM:
    """Weights that make the classes differ, as those of a trained model do."""
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model.eval().requires_grad_(False)


def bundle_of(folder: Path, model: SpeechLM, tokenizer: Path | None, **generation: Any) -> Path:
    """A bundle of a speech LM alone, all that an export reads."""
    save_component(
        folder / "speech_lm",
        kind="speech_lm",
        config=model.config,
        state_dict=model.state_dict(),
        extra={"tokenizer": "0123456789abcdef"},
    )
    if tokenizer is None:
        texts = ["the quick brown fox."]
        SentencePieceTokenizer.train(texts, 64, model_type="char").save(folder / "text_tokenizer")
    else:
        TransformersTokenizer.from_folder(tokenizer).save(folder / "text_tokenizer")
    manifest = BundleManifest(
        name=folder.name,
        description="Random weights.",
        language="en",
        licence="Apache-2.0",
        sample_rate=24_000,
        components={"speech_lm": "speech_lm"},
        generation=generation,
    )
    finalize_bundle(folder, manifest)
    return folder


class Pair:
    """Our model and the exported one."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        ours = load_component(bundle / "speech_lm", KINDS)
        assert isinstance(ours, SpeechLM)
        self.ours = ours.requires_grad_(False)
        self.report = export_llm(bundle, folder)
        self.vocabulary = self.report.vocabulary
        facts = read_facts(folder)
        assert facts is not None
        self.facts = facts
        self.bias = read_bias(folder, facts)
        self.theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def speech_logits(self, logits: Tensor) -> Tensor:
        first = self.vocabulary.speech_offset
        speech = logits[..., first : first + self.vocabulary.num_classes]
        return speech if self.bias is None else speech + self.bias

    @torch.inference_mode()
    def check(self, request: SpeechRequest, tokens: list[int], guards: GuardConfig) -> None:
        """Checks the logits of a sequence, and that greedy decoding says it.

        Where the likeliest class behind every beginning is the next token, decoding step by step
        finds the same tokens.
        """
        own = SegmentTokens(
            self.ours, request.sequence(self.ours), sampling=GREEDY, seed=0, guards=guards
        )
        kinds: list[int] = []
        ids: list[int] = []
        draws: list[tuple[int, list[int], int]] = []
        eos = self.vocabulary.codebook_size
        while own.can_step:
            new = own.sequence.take()
            kinds += new[0]
            ids += new[1]
            token = tokens[len(own.tokens)] if len(own.tokens) < len(tokens) else eos
            draws.append((len(ids) - 1, own.forbidden(), token))
            own.accept(token)
        assert own.tokens == tokens
        batch = LayoutBatch(
            torch.tensor([kinds]), torch.tensor([ids]), torch.tensor([ids]),
            torch.ones(1, len(ids), dtype=torch.bool),
        )  # fmt: skip
        merged = torch.tensor([self.vocabulary.ids(kinds, ids)])
        theirs = self.speech_logits(self.theirs(merged).logits)[0]
        assert float((self.ours(batch)[0] - theirs).abs().max()) < 1e-4
        for place, forbidden, token in draws:
            allowed = theirs[place].clone()
            allowed[forbidden] = -torch.inf
            assert min(int(allowed.argmax()), eos) == token


def requests(num_text: int, codes: int, count: int) -> list[SpeechRequest]:
    """One-shot and interleaved, with and without a prompt."""
    generator = torch.Generator().manual_seed(1)

    def ids(high: int, size: int) -> list[int]:
        return torch.randint(high, (size,), generator=generator).tolist()

    return [
        SpeechRequest(
            text_tokens=ids(num_text, 4 + number % 9),
            prompt_text_tokens=ids(num_text, 6) if number % 2 else (),
            prompt_tokens=ids(codes, 25 + number % 7) if number % 2 else (),
            layout="interleaved" if number % 4 > 1 else "one_shot",
        )
        for number in range(count)
    ]


def agrees(pair: Pair, asked: list[SpeechRequest], guards: GuardConfig = GUARDS) -> int:
    """Checks numbers and ids; number of speech tokens."""
    rows: list[list[int]] = []
    for start in range(0, len(asked), 50):
        rows += generate_speech(pair.ours, asked[start : start + 50], GREEDY, guards=guards)
    for request, tokens in zip(asked, rows, strict=True):
        pair.check(request, tokens, guards)
    return sum(map(len, rows))


@pytest.mark.parametrize("name", ["qwen3", "llama", "cosyvoice2", "cosyvoice3"])
def test_it_says_what_ours_says(name: str, tmp_path: Path, text_folder: Path) -> None:
    if name.startswith("cosyvoice"):
        model = tiny(int(name[-1]))["llm"]
        assert isinstance(model, SpeechLM)
        bundle = bundle_of(tmp_path / name, loud(model), text_folder)
    else:
        bundle = bundle_of(tmp_path / name, random_lm(name), None)
    pair = Pair(bundle, tmp_path / "out")
    assert (pair.bias is not None) == (name == "cosyvoice2")
    assert pair.theirs.lm_head.weight.shape[0] == pair.vocabulary.size
    assert pair.vocabulary.size % 128 == 0
    num_text, codes = pair.vocabulary.num_text, pair.vocabulary.codebook_size
    assert agrees(pair, requests(num_text, codes, 4)) > 16


def spoken_lines(pair: Pair, bundle: Path, count: int) -> list[SpeechRequest]:
    """Sentences as the embedded bundle reads them, in both layouts, with and without a prompt."""
    synthesizer = Synthesizer.from_pretrained(bundle)
    voice = synthesizer.voice(synthesizer.voices[0])
    encode = synthesizer.components.text_tokenizer.encode
    lines = (ROOT / "configs/eval/heldout_sentences.txt").read_text(encoding="utf-8").splitlines()
    prompt = encode(voice.prompt_text), voice.prompt_tokens.tolist()
    lines = [line for line in lines if not line.startswith("#")]
    lines = lines if count > 50 else sorted(lines, key=len)
    return [
        SpeechRequest(
            text_tokens=encode(frontend("english").normalize(line)),
            prompt_text_tokens=prompt[0] if number % 2 else (),
            prompt_tokens=prompt[1] if number % 2 else (),
            layout="interleaved" if number % 4 > 1 else "one_shot",
        )
        for number, line in enumerate(lines[:count])
    ]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """mini-en, whose head has a bias."""
    return Pair(resolve("mini-en"), tmp_path_factory.mktemp("embedded") / "llm")


@pytest.mark.slow
def test_the_embedded_bundle(embedded: Pair) -> None:
    folder, facts = embedded.report.folder, embedded.facts
    assert facts["bundle"] == "mini-en" and facts["head_bias"] == BIAS_FILE
    assert facts["guards"]["silent_tokens"] and facts["sampling"]["repetition_window"] == 0
    assert facts["ids"]["ends"] == [facts["ids"]["eos"]]
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"] and not config["tie_word_embeddings"]
    assert config["dtype"] == "float16" and config["vocab_size"] == facts["ids"]["size"]
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == facts["ids"]["ends"]
    assert agrees(embedded, spoken_lines(embedded, resolve("mini-en"), 4)) > 50


@pytest.mark.slow
def test_the_embedded_bundle_on_many_lines(embedded: Pair) -> None:
    assert agrees(embedded, spoken_lines(embedded, resolve("mini-en"), 200)) > 10_000


def test_tokenizer_files_name_every_id(embedded: Pair, tmp_path: Path, text_folder: Path) -> None:
    from transformers import AutoTokenizer

    model = tiny(3)["llm"]
    assert isinstance(model, SpeechLM)
    bundle = bundle_of(tmp_path / "three", loud(model), text_folder)
    three = export_llm(bundle, tmp_path / "out")
    for folder, vocabulary in (
        (embedded.report.folder, embedded.vocabulary),
        (three.folder, three.vocabulary),
    ):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        used = vocabulary.speech_offset + vocabulary.num_classes
        assert used <= len(tokenizer) <= vocabulary.size
        codes = [5, 0, 17, vocabulary.codebook_size, vocabulary.codebook_size + 1]
        ids = [vocabulary.speech_offset + index for index in codes]
        named = tokenizer.decode(ids)
        assert vocabulary.classes_named(named) == codes
        assert tokenizer.convert_ids_to_tokens([vocabulary.sos_id, vocabulary.turn_id]) == [
            "<|sos|>", "<|turn|>",
        ]  # fmt: skip
    text = "is it so?"
    ours = TransformersTokenizer.from_folder(bundle / "text_tokenizer").encode(text)
    assert tokenizer.encode(text, add_special_tokens=False) == ours


def test_merged_ids() -> None:
    vocabulary = MergedVocabulary(num_text=70, codebook_size=27, num_classes=29)
    assert (vocabulary.sos_id, vocabulary.turn_id, vocabulary.speech_offset) == (70, 71, 72)
    assert vocabulary.size == 128
    kinds, ids = [SPECIAL, TEXT, TEXT, SPECIAL, SPEECH, SPEECH], [0, 0, 69, 1, 0, 28]
    assert vocabulary.ids(kinds, ids) == [70, 0, 69, 71, 72, 100]
    assert [vocabulary.speech_class(index) for index in (71, 72, 100, 101)] == [None, 0, 28, None]
    assert [*vocabulary.end_classes] == [27]
    assert [*replace(vocabulary, any_special_ends=True).end_classes] == [27, 28]


def test_what_is_refused(tmp_path: Path) -> None:
    bundle = bundle_of(
        tmp_path / "guided", random_lm("llama"), None, guards={"guidance_scale": 0.5}
    )
    with pytest.raises(BundleError, match="guidance of the LM .* which no engine reads together"):
        export_llm(bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    manifest = yaml.safe_load((bundle / "bundle.yaml").read_text())
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(manifest | {"components": {}}))
    with pytest.raises(BundleError, match="no component 'speech_lm'"):
        export_llm(bundle, tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(BundleError, match="exists already"):
        export_llm(bundle, tmp_path / "out")


def test_the_verb(tmp_path: Path, tiny_bundle: Path) -> None:
    said = run_verb(exports.export_llm, tiny_bundle, tmp_path / "out", "--precision", "bfloat16")
    assert said.exit_code == 0, said.output
    assert "the head has a bias" in said.stdout and "repetition" in said.stdout
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    again = run_verb(exports.export_llm, tiny_bundle, tmp_path / "out")
    assert again.exit_code == 2 and "exists already" in again.stderr
