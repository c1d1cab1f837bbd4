"""The components that are judged: those of a bundle, of exported runs, or some of each.

A bundle in the making has no LM yet, or a newer flow than its folder holds; each step of the chain
is judged as soon as it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tokenlm.checkpoint.bundle import MANIFEST_FILE, BundleManifest, read_manifest
from tokenlm.checkpoint.component import CONFIG_FILE, ComponentError, read_component
from tokenlm.checkpoint.registry import KINDS
from tokenlm.checkpoint.resolve import resolve
from tokenlm.config import from_dict
from tokenlm.models.flow import FlowDecoder
from tokenlm.models.lm import SpeechLM
from tokenlm.models.vocoder import HiFT, Vocoder, VocoderConfig
from tokenlm.synthesis.components import Components, GenerationConfig
from tokenlm.text.tokenizers import TextTokenizer, load_text_tokenizer
from training.evaluation.config import Section

TEXT_TOKENIZER = "text_tokenizer"

NEEDS: dict[Section, tuple[str, ...]] = {
    "originals": (),
    "cloned": (
        "speech_lm",
        TEXT_TOKENIZER,
        "flow",
        "vocoder",
        "speech_tokenizer",
        "speaker_encoder",
    ),
    "resynthesis": ("flow", "vocoder", "speech_tokenizer", "speaker_encoder"),
    "copy_synthesis": ("vocoder",),
    "tokenizer": ("speech_tokenizer", "token_recognizer"),
    "speaker_encoder": ("speaker_encoder",),
}
_CLONING: tuple[Section, ...] = (
    "real_time_factor",
    "formants",
    "long_text",
    "prompt_lengths",
    "damaged_prompts",
    "speaking_rate",
    "recordings",
    "script",
)
NEEDS |= dict.fromkeys(_CLONING, NEEDS["cloned"])


ROLES = {
    "hift": "vocoder",
    "onnx_tokenizer": "speech_tokenizer",
    "fsmn_tokenizer": "speech_tokenizer",
    "onnx_speaker_encoder": "speaker_encoder",
}
"""What kinds of imported components are in a bundle; of others the kind says it."""


class Parts(Components):
    """Components from several folders, each loaded when it is first used."""

    def __init__(
        self,
        folders: dict[str, Path],
        generation: GenerationConfig,
        device: str | torch.device = "cpu",
    ) -> None:
        """Take the folder of each component by its kind; nothing is loaded yet."""
        self.folders = folders
        self.generation = generation
        self.device = torch.device(device)
        self.folder = Path("the given components")

    @cached_property
    def manifest(self) -> BundleManifest:
        """A manifest with the facts that the parts have; read without loading one of them."""
        vocoder = self._config("vocoder") if "vocoder" in self.folders else VocoderConfig()
        return BundleManifest(
            name="parts",
            description="",
            language="en",
            licence="",
            sample_rate=vocoder.mel.sample_rate,
            components={name: name for name in self.folders},
        )

    @cached_property
    def speech_lm(self) -> SpeechLM:
        """The LM."""
        return self._load("speech_lm", SpeechLM)

    @cached_property
    def flow(self) -> FlowDecoder:
        """The flow decoder."""
        return self._load("flow", FlowDecoder)

    @cached_property
    def vocoder(self) -> Vocoder | HiFT:
        """The vocoder."""
        return self._load("vocoder", Vocoder, HiFT)

    @cached_property
    def text_tokenizer(self) -> TextTokenizer:
        """The text tokenizer."""
        return load_text_tokenizer(self._path(TEXT_TOKENIZER))

    def _config(self, name: str) -> Any:
        """The config of a part that is not loaded yet; None where it is not here."""
        if name not in self.folders:
            return None
        files = read_component(self._path(name))
        return from_dict(KINDS[files.kind][0], files.config, where=files.config_path)

    def facts(self, name: str) -> dict[str, Any]:
        """What the file of a component says besides its config; empty where it is not here."""
        return self._facts(name) if name in self.folders else {}

    def missing(self, section: Section) -> list[str]:
        """Kinds of components that a section needs and that are not here."""
        return [name for name in NEEDS[section] if name not in self.folders]

    def check(self) -> None:
        """Check that the parts belong together, as those of a bundle must.

        Raises:
            BundleError: two of them disagree.
        """
        if all(name in self.folders for name in NEEDS["cloned"]):
            self._check()
        if "flow" in self.folders and "speech_tokenizer" in self.folders:
            self.check_tokenizer()

    def _path(self, name: str) -> Path:
        if name not in self.folders:
            raise ComponentError(f"there is no {name} among the components that were given.")
        return self.folders[name]


def find_parts(
    bundle: str | None, components: Sequence[Path] = (), generation: Sequence[str] = ()
) -> Parts:
    """Find the components of a bundle and of single folders; later ones replace earlier ones.

    Args:
        bundle: name, folder or hub id of a bundle, or None.
        components: component folders, or folders of them, such as an export of a run.
        generation: changes to the settings of generation of the bundle, `key.sub=value` each.

    Raises:
        ConfigError: a change is not one.
        ResolveError: there is no such bundle.
        ComponentError: a folder holds no components.
    """
    folders: dict[str, Path] = {}
    given, where = {}, "generation"
    home = None
    if bundle is not None:
        folder = home = resolve(bundle)
        manifest = read_manifest(folder)
        given, where = manifest.generation, str(folder / MANIFEST_FILE)
        folders |= _components_in(folder)
    for folder in components:
        folders |= _components_in(folder)
    settings = from_dict(GenerationConfig, given, where=where, overrides=generation)
    parts = Parts(folders, settings)
    if home is not None:
        parts.folder = home  # where the voices of the bundle lie
    return parts


def _components_in(folder: Path) -> dict[str, Path]:
    """Folders by what they are in a bundle: the folder itself, or those in it."""
    if not folder.is_dir():
        raise ComponentError(f"{folder}: there is no such component folder.")
    folders: dict[str, Path] = {}
    for candidate in [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]:
        if candidate.name == TEXT_TOKENIZER:
            folders[TEXT_TOKENIZER] = candidate
        elif (candidate / CONFIG_FILE).is_file():
            kind = read_component(candidate).kind
            folders[ROLES.get(kind, kind)] = candidate
    if not folders:
        raise ComponentError(f"{folder} is no component, and holds none.")
    return folders
