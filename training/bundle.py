"""Puts trained components into a bundle: a new one with voices and a card, or a copy of another."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tokenlm.atomic import atomic_folder
from tokenlm.audio.io import load_audio, save_audio
from tokenlm.checkpoint.bundle import BundleError, BundleManifest, finalize_bundle
from tokenlm.checkpoint.bundle import read_manifest as read_bundle
from tokenlm.checkpoint.card import Metric, write_model_card
from tokenlm.checkpoint.component import read_component
from tokenlm.synthesis.components import Components
from tokenlm.synthesis.voice import prepare_voice
from training.data.manifest import Utterance, read_manifest

COMPONENTS = (
    "speech_tokenizer",
    "token_recognizer",
    "speaker_encoder",
    "speech_lm",
    "flow",
    "vocoder",
)
"""Components of a complete bundle, each a folder of its own."""

OPTIONAL_COMPONENTS = ("voice_isolator", "mel_enhancer")
"""Components that a bundle may do without: those of the enhancer."""

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
    """Remarks on figures that favour the bundle, by a pattern of names (`unheard/cloned/*`):
    what was chosen on the same sentences, voices or judge. The card marks them in their rows."""
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
        folders: folder of each of `COMPONENTS` and of the text tokenizer, and of those of
            `OPTIONAL_COMPONENTS` that it is to have.
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
    parts = (*COMPONENTS, *(name for name in OPTIONAL_COMPONENTS if name in folders))
    utterances = read_manifest(manifest).utterances
    with atomic_folder(output) as folder:
        for name in (*parts, TEXT_TOKENIZER):
            shutil.copytree(folders[name], folder / name)
        kinds = {name: read_component(folder / name).kind for name in parts}
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
        noted = note_choices(metrics, config.chosen_on)
        write_model_card(folder, description, noted, limits=list(config.limits))
        return finalize_bundle(folder, description)


def note_choices(metrics: Mapping[str, Metric], chosen_on: Mapping[str, str]) -> dict[str, Metric]:
    """Adds to the remarks on figures what was chosen on the data they were measured on."""
    noted = {}
    for name, metric in metrics.items():
        choices = tuple(text for pattern, text in chosen_on.items() if fnmatchcase(name, pattern))
        noted[name] = dataclasses.replace(metric, remarks=metric.remarks + choices)
    return noted


def _write_voices(
    config: BundleConfig, components: Components, utterances: Sequence[Utterance], folder: Path
) -> None:
    (folder / "voices").mkdir()
    for source in config.voices:
        row = pick_utterance(utterances, source.speaker, source.seconds)
        voice = prepare_voice(components, row.audio, row.text, name=source.name)
        voice.save(folder / "voices" / f"{source.name}.voice")
    if config.demo_speaker:
        row = pick_utterance(utterances, config.demo_speaker, 4.5)
        save_audio(folder / "demo_prompt.wav", load_audio(row.audio, 16_000), 16_000)
        (folder / "demo_prompt.txt").write_text(row.text + "\n", encoding="utf-8", newline="\n")


def pick_utterance(utterances: Sequence[Utterance], speaker: str, seconds: float) -> Utterance:
    """The utterance of `speaker` whose length is nearest to `seconds`.

    Raises:
        ValueError: the speaker has none.
    """
    rows = [row for row in utterances if row.speaker == speaker]
    if not rows:
        raise ValueError(f"the manifest has no utterance of the speaker {speaker!r}")
    return min(rows, key=lambda row: (abs(row.duration - seconds), row.id))


def exchange(bundle: Path, output: Path, folders: Mapping[str, Path]) -> BundleManifest:
    """Writes a copy of a bundle with other components, whole or not at all.

    Args:
        bundle: stays as it is.
        output: must not exist.
        folders: folder of each new component by its name in the bundle.

    Raises:
        ValueError: `output` exists, no bundle has a component of a name, or a new component does
            not fit the others; both are named.
    """
    if output.exists():
        raise BundleError(f"{output} exists already and is not replaced.")
    manifest = read_bundle(bundle)
    known = (*COMPONENTS, *OPTIONAL_COMPONENTS)
    unknown = sorted(folders.keys() - manifest.components.keys() - set(known))
    if unknown or not folders:
        named = f"has no component {', '.join(unknown)}" if unknown else "would stay as it is"
        lacking = [name for name in known if name not in manifest.components]
        more = f", and may be given {', '.join(lacking)}" if lacking else ""
        raise BundleError(
            f"{bundle} {named}; it has {', '.join(manifest.components)}{more}: name=FOLDER each."
        )
    kinds = {name: read_component(folder).kind for name, folder in folders.items()}
    with atomic_folder(output) as temporary:
        shutil.copytree(bundle, temporary, dirs_exist_ok=True)
        for name, folder in folders.items():
            if name in manifest.components:
                shutil.rmtree(temporary / name)
            shutil.copytree(folder, temporary / name)
        written = finalize_bundle(
            temporary,
            dataclasses.replace(
                manifest,
                name=output.name,
                components={**manifest.components, **kinds},
                provenance={
                    **manifest.provenance,
                    "from_bundle": manifest.name,
                    "exchanged": sorted(folders),
                },
            ),
        )
        components = Components(temporary)  # whether the parts agree
        for name in folders:  # and load, those that others wait with, too
            getattr(components, name)
        if "speech_tokenizer" in folders:
            components.check_tokenizer()
    return written
