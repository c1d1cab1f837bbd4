"""Puts trained components together into a bundle with voices and a model card.

python -m training.bundle --config configs/bundle/mini_en.yaml --output checkpoints/mini-en \
        component=FOLDER … --manifest MANIFEST [--metrics METRICS_JSON]
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from tokenlm.atomic import atomic_folder
from tokenlm.audio.io import load_audio, save_audio
from tokenlm.checkpoint.bundle import BundleManifest, finalize_bundle
from tokenlm.checkpoint.card import Metric, write_model_card
from tokenlm.checkpoint.component import read_component
from tokenlm.config import load_config
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.prompt import prepare_voice
from training.data.manifest import Utterance, read_manifest
from training.evaluation.report import card_metrics

COMPONENTS = (
    "speech_tokenizer",
    "token_recognizer",
    "speaker_encoder",
    "speech_lm",
    "flow",
    "vocoder",
)
"""Components of a complete bundle, each a folder of its own."""

TEXT_TOKENIZER = "text_tokenizer"


@dataclass(frozen=True, kw_only=True)
class VoiceSource:
    """Where a bundled voice comes from."""

    name: str
    speaker: str
    """Speaker of the manifest; its utterance nearest to `seconds` is the prompt."""
    seconds: float = 4.5
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class BundleConfig:
    """What a bundle is besides its weights."""

    name: str
    description: str
    language: str = "en"
    licence: str = "Apache-2.0"
    generation: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    chosen_on: dict[str, str] = field(default_factory=dict)
    """Figures that are kind to the bundle, by the pattern of their names (`unheard/cloned/*`): what
    was chosen on the same sentences, voices or judge. It is said in their rows of the card."""
    voices: tuple[VoiceSource, ...] = ()
    demo_speaker: str = ""
    """Speaker of the recording that the demonstration clones; empty ships none."""


def assemble(
    config: BundleConfig,
    folders: Mapping[str, Path],
    manifest: Path,
    output: Path,
    metrics: Mapping[str, Metric],
) -> BundleManifest:
    """Writes the bundle to `output`, whole or not at all.

    Args:
        config: names, voices, settings.
        folders: folder of each of `COMPONENTS` and of the text tokenizer.
        manifest: utterances that voices and the demonstration are taken from.
        output: an existing bundle there is replaced.
        metrics: figures of the model card, each with its command.

    Raises:
        ValueError: a component is missing or does not fit the others, or a speaker is unknown.
    """
    wanted = (*COMPONENTS, TEXT_TOKENIZER)
    missing = [name for name in wanted if name not in folders]
    if missing:
        raise ValueError(f"the bundle lacks {', '.join(missing)}; give them as name=FOLDER")
    utterances = read_manifest(manifest).utterances
    with atomic_folder(output) as folder:
        for name in wanted:
            shutil.copytree(folders[name], folder / name)
        kinds = {name: read_component(folder / name).kind for name in COMPONENTS}
        mel_rate = int(read_component(folder / "vocoder").config["mel"]["sample_rate"])
        description = BundleManifest(
            name=config.name,
            description=config.description,
            language=config.language,
            licence=config.licence,
            sample_rate=mel_rate,
            components=kinds,
            generation=config.generation,
            provenance=config.provenance,
        )
        finalize_bundle(folder, description)
        components = Components(folder)
        _write_voices(config, components, utterances, folder)
        told = tell_choices(metrics, config.chosen_on)
        write_model_card(folder, description, told, limits=list(config.limits))
        return finalize_bundle(folder, description)


def tell_choices(metrics: Mapping[str, Metric], chosen_on: Mapping[str, str]) -> dict[str, Metric]:
    """Figures whose notes say what was chosen on what they were measured on."""
    told = {}
    for name, metric in metrics.items():
        found = [text for pattern, text in chosen_on.items() if fnmatchcase(name, pattern)]
        note = "; ".join(filter(None, [metric.note, *found]))
        told[name] = dataclasses.replace(metric, note=note)
    return told


def _write_voices(
    config: BundleConfig, components: Components, utterances: list[Utterance], folder: Path
) -> None:
    (folder / "voices").mkdir()
    for source in config.voices:
        row = pick_utterance(utterances, source.speaker, source.seconds)
        voice = prepare_voice(components, row.audio, row.text, name=source.name)
        voice.save(folder / "voices" / f"{source.name}.voice")
    if config.demo_speaker:
        row = pick_utterance(utterances, config.demo_speaker, 4.5)
        save_audio(folder / "demo_prompt.wav", load_audio(row.audio, 16_000), 16_000)
        (folder / "demo_prompt.txt").write_text(row.text + "\n", encoding="utf-8")


def pick_utterance(utterances: list[Utterance], speaker: str, seconds: float) -> Utterance:
    """The utterance of `speaker` whose length is nearest to `seconds`.

    Raises:
        ValueError: the speaker has none.
    """
    rows = [row for row in utterances if row.speaker == speaker]
    if not rows:
        raise ValueError(f"the manifest has no utterance of the speaker {speaker!r}")
    return min(rows, key=lambda row: (abs(row.duration - seconds), row.id))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.bundle", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True, help="recordings of the voices")
    parser.add_argument("--metrics", type=Path, help="figures, as `tokenlm evaluate` writes them")
    parser.add_argument("folders", nargs="+", metavar="component=FOLDER")
    options = parser.parse_args(arguments)
    torch.set_flush_denormal(True)
    try:
        config = load_config(BundleConfig, options.config)
        folders = dict(entry.split("=", 1) for entry in options.folders if "=" in entry)
        metrics = card_metrics(options.metrics) if options.metrics else {}
        written = assemble(
            config,
            {name: Path(folder) for name, folder in folders.items()},
            options.manifest,
            options.output,
            metrics,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    print(f"{options.output}: {len(written.files)} files, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
