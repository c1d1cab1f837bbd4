"""The speech LM of a bundle as a Hugging Face folder, which LLM engines serve as it is.

Text, specials and speech share one table and an untied head (`MergedVocabulary`). What the classes
of `transformers` have no place for lies beside the weights: `tokenlm.json`, and the bias of a head
that has one. Head rows of text, specials and padding are zero; an engine must draw speech rows
alone, which `inference.remote.vllm_logits` sees to, or the option `allowed_token_ids` of a request.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tokenlm.atomic import atomic_folder
from tokenlm.checkpoint.bundle import BundleError, read_manifest
from tokenlm.checkpoint.component import ComponentFiles, read_component, read_state
from tokenlm.config import from_dict
from tokenlm.models.fingerprint import fingerprint
from tokenlm.models.lm import GuardConfig, SamplingConfig, SpeechLMConfig
from tokenlm.models.lm.guards import MAX_TOKENS
from tokenlm.models.lm.layout import eos_class, fill_class
from tokenlm.models.lm.vocabulary import MergedVocabulary
from tokenlm.text.tokenizers import TransformersTokenizer, load_text_tokenizer

FORMAT_VERSION = 1
FACTS_FILE = "tokenlm.json"
BIAS_FILE = "head_bias.npy"
"""float32 (V,); no engine takes it for weights of the model."""
_ARCHITECTURES = {
    "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LLMFolder:
    """What `export_llm` wrote."""

    folder: Path
    vocabulary: MergedVocabulary
    num_parameters: int
    remarks: list[str]
    """What an engine needs to be exact."""


def export_llm(bundle: Path, output: Path, *, dtype: torch.dtype | None = None) -> LLMFolder:
    """Writes the speech LM of a bundle as a Hugging Face folder, whole or not at all.

    Args:
        bundle: its folder.
        output: must not exist.
        dtype: of the weights; None keeps that of the bundle.

    Raises:
        BundleError: the folder exists, there is no speech LM, or no engine can speak as the bundle
            asks: with guidance of the LM.
    """
    if output.exists():
        raise BundleError(f"{output} exists already and is not replaced.")
    manifest = read_manifest(bundle)
    if "speech_lm" not in manifest.components:
        raise BundleError(f"{bundle} has no component 'speech_lm'.")
    files, config, state = _read_lm(bundle)
    where = bundle / "bundle.yaml"
    sampling = from_dict(SamplingConfig, manifest.generation.get("sampling", {}), where=where)
    guards = from_dict(GuardConfig, manifest.generation.get("guards", {}), where=where)
    if guards.guidance_scale:
        raise BundleError(
            f"{bundle} is spoken with guidance of the LM (guards.guidance_scale "
            f"{guards.guidance_scale:g}): each token depends on two sequences, which no engine "
            "reads together. Set it to 0 in bundle.yaml to export."
        )
    vocabulary = MergedVocabulary.of(config)
    dtype = dtype or state["head.weight"].dtype
    weights = merged_weights(config, state, dtype)
    ends = [vocabulary.speech_offset + index for index in vocabulary.end_classes]
    bias = state.get("head.bias")
    with atomic_folder(output) as folder:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "model.safetensors").chmod(0o644)
        if bias is not None:
            np.save(folder / BIAS_FILE, bias.float().numpy())
        _save_configs(folder, config, vocabulary, sampling, dtype, ends)
        _save_tokenizer(folder, bundle / "text_tokenizer", vocabulary)
        facts = {
            "format_version": FORMAT_VERSION,
            "bundle": manifest.name,
            "speech_tokenizer": files.extra.get("tokenizer", ""),
            "speech_lm": fingerprint(config, state),
            "vocabulary": asdict(vocabulary),
            "ids": {
                "sos": vocabulary.sos_id,
                "turn_of_speech": vocabulary.turn_id,
                "first_code": vocabulary.speech_offset,
                "eos": vocabulary.speech_offset + eos_class(config.codebook_size),
                "fill": vocabulary.speech_offset + fill_class(config.codebook_size),
                "ends": ends,
                "size": vocabulary.size,
            },
            "head_bias": None if bias is None else BIAS_FILE,
            "token_rate": config.token_rate,
            "block_text_tokens": config.block_text_tokens,
            "block_speech_tokens": config.block_speech_tokens,
            "min_speech_per_text": config.min_speech_per_text,
            "max_speech_per_text": config.max_speech_per_text,
            "max_tokens": MAX_TOKENS,
            "sampling": asdict(sampling),
            "guards": asdict(guards),
        }
        text = json.dumps(facts, indent=1) + "\n"
        (folder / FACTS_FILE).write_text(text, encoding="utf-8")
    return LLMFolder(
        folder=output,
        vocabulary=vocabulary,
        num_parameters=sum(tensor.numel() for tensor in weights.values()),
        remarks=_remarks(bias is not None, sampling),
    )


def lm_fingerprint(bundle: Path) -> str:
    """Fingerprint of the speech LM of a bundle, which its export carries."""
    _, config, state = _read_lm(bundle)
    return fingerprint(config, state)


def _read_lm(bundle: Path) -> tuple[ComponentFiles, SpeechLMConfig, dict[str, Tensor]]:
    files = read_component(bundle / "speech_lm")
    config = from_dict(SpeechLMConfig, files.config, where=files.config_path)
    return files, config, read_state(files.state_path)


def merged_weights(
    config: SpeechLMConfig, state: dict[str, Tensor], dtype: torch.dtype
) -> dict[str, Tensor]:
    """The weights of a speech LM under the names of `transformers`, with one table and one head.

    Args:
        config: of the LM.
        state: its state dict.
        dtype: of the result.
    """
    vocabulary = MergedVocabulary.of(config)
    weights = {
        f"model.{name.removeprefix('backbone.')}": tensor.to(dtype).contiguous()
        for name, tensor in state.items()
        if name.startswith("backbone.")
    }
    text, speech = state["backbone.embed_tokens.weight"], state["speech_embedding.weight"]
    if config.specials_in_speech_table:
        first = fill_class(config.codebook_size) + 1
        special = speech[first : first + 2]
    else:
        special = state["special_embedding.weight"]
    table = torch.zeros(vocabulary.size, text.shape[1], dtype=dtype)
    head = torch.zeros_like(table)
    rows = slice(vocabulary.speech_offset, vocabulary.speech_offset + vocabulary.num_classes)
    table[: vocabulary.num_text] = text.to(dtype)
    table[vocabulary.num_text : vocabulary.speech_offset] = special.to(dtype)
    table[rows] = speech.to(dtype)
    head[rows] = state["head.weight"].to(dtype)
    return weights | {"model.embed_tokens.weight": table, "lm_head.weight": head}


def read_facts(folder: str | Path) -> dict[str, Any] | None:
    """`tokenlm.json` of a folder; None where there is none, as of any other model.

    Raises:
        BundleError: it is of another format.
    """
    path = Path(folder) / FACTS_FILE
    if not path.is_file():
        return None
    facts = json.loads(path.read_text(encoding="utf-8"))
    if facts.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            f"{path} has format_version {facts.get('format_version')}, but this version of tokenlm "
            f"reads {FORMAT_VERSION}."
        )
    return facts


def read_bias(folder: str | Path, facts: dict[str, Any]) -> Tensor | None:
    """Bias (V,) of the speech classes, float32; None where the head has none."""
    if facts["head_bias"] is None:
        return None
    return torch.from_numpy(np.load(Path(folder) / facts["head_bias"], allow_pickle=False))


def _save_configs(
    folder: Path,
    config: SpeechLMConfig,
    vocabulary: MergedVocabulary,
    sampling: SamplingConfig,
    dtype: torch.dtype,
    ends: list[int],
) -> None:
    """`config.json` and `generation_config.json`."""
    from transformers import GenerationConfig

    library = replace(config.backbone, vocab_size=vocabulary.size).to_transformers()
    library.architectures = [_ARCHITECTURES[config.backbone.model_type]]
    library.tie_word_embeddings = False
    library.dtype = dtype
    library.bos_token_id, library.eos_token_id = vocabulary.sos_id, ends[0]
    library.save_pretrained(str(folder))
    is_greedy = sampling.temperature == 0
    options = {} if is_greedy else {
        "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p,
    }  # fmt: skip
    GenerationConfig(
        bos_token_id=vocabulary.sos_id,
        eos_token_id=ends,
        pad_token_id=ends[0],
        do_sample=not is_greedy,
        max_new_tokens=MAX_TOKENS,
        **options,
    ).save_pretrained(str(folder))


def _save_tokenizer(folder: Path, source: Path, vocabulary: MergedVocabulary) -> None:
    """Tokenizer files of the merged vocabulary.

    Where texts are encoded by the library, so they are here, with names for specials and speech
    behind them. Other kinds of text tokenizers stay with the bundle: prompts come as ids, and all
    that engines ask of these files is a name for each id.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = load_text_tokenizer(source)
    if isinstance(tokenizer, TransformersTokenizer):
        unused = range(tokenizer.vocab_size, vocabulary.num_text)
        names = [f"<|unused_{index}|>" for index in unused]
        tokenizer.with_tokens([*names, *vocabulary.names()], are_special=False)
        tokenizer.save_library_files(folder)
        return
    pieces = [f"<|t_{index}|>" for index in range(vocabulary.num_text)] + vocabulary.names()
    made = Tokenizer(
        models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token=pieces[0])
    )
    made.decoder = decoders.Fuse()
    made.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    end = "<|eos|>"  # a class of the library would add a token of its own where it finds none
    library = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=end, pad_token=end, unk_token=pieces[0]
    )
    library.save_pretrained(str(folder))


def _remarks(has_bias: bool, sampling: SamplingConfig) -> list[str]:
    remarks = []
    if has_bias:
        remarks.append(
            f"the head has a bias, which no engine has a place for: it lies in {BIAS_FILE} and is "
            "added by the logits processor of tokenlm (installed beside vLLM, it is found by "
            "itself)"
        )
    if sampling.repetition_window:
        remarks.append(
            "the bundle samples with an eye on repetition, which only the logits processor of "
            "tokenlm does exactly"
        )
    return remarks
