"""Finding a bundle by its name, its path or its id on the hub, and the configs that come along.

In a wheel both lie inside the package (`tokenlm/_data`), in a source checkout beside it.
"""

from __future__ import annotations

import difflib
import os
import re
from importlib import resources
from pathlib import Path

MANIFEST_FILE = "bundle.yaml"
MAX_MIXTURE = 8
"""Most voices of a mixture."""
CHECKPOINTS_VARIABLE = "TOKENLM_CHECKPOINTS"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# A bundle holds data only: nothing that could run is fetched.
_NOT_FETCHED = ["*.py", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.bin", "*.ckpt", "*.onnx", "*.sh"]


class ResolveError(ValueError):
    """A name that matches no bundle; the message says what was tried."""


def resolve(name_or_path: str | Path, *, revision: str | None = None) -> Path:
    """Find the folder of a bundle.

    Args:
        name_or_path: tried in this order: the path of a folder, which never touches the network;
            the name of a bundle in the folder that `TOKENLM_CHECKPOINTS` names, in the package or
            in the source checkout; the id `organisation/name` of a repository on the Hugging Face
            hub, which is downloaded once and kept in the hub's cache.
        revision: branch, tag or commit, for the hub only.

    Raises:
        ResolveError: if there is no such thing, or it cannot be downloaded.
    """
    text = str(name_or_path)
    path = Path(text).expanduser()
    found = path if text and path.exists() else None
    if found is None:
        found = _bundles().get(text)
    if found is None and _is_hub_id(name_or_path):
        return _download(text, revision)
    if found is None:
        raise ResolveError(_unknown(text))
    if revision is not None:
        raise ResolveError(f"{found} is local and has no revision {revision!r} to choose.")
    if not found.is_dir():
        raise ResolveError(f"{found} is a file; a bundle is a folder with a {MANIFEST_FILE}.")
    return found


def bundled_voices(folder: Path) -> dict[str, Path]:
    """Map the name of every voice of a bundle to its file, in the order of names."""
    return {path.stem: path for path in sorted((folder / "voices").glob("*.voice"))}


def find_voice(folder: Path, name: str | Path) -> Path:
    """Find the file of a voice.

    Args:
        folder: the bundle.
        name: of a voice in it, or the path of a voice file.

    Raises:
        ResolveError: there is none, or it is a recording.
    """
    voices = bundled_voices(folder)
    if str(name) in voices:
        return voices[str(name)]
    path = Path(name).expanduser()
    from tokenlm.audio.io import READABLE_SUFFIXES

    if path.suffix.lower() in READABLE_SUFFIXES:
        raise ResolveError(
            f"{name} is a recording, not a voice: speak in its voice with `tokenlm clone "
            f"--prompt-audio {name}`, or make a voice of it once with `tokenlm prepare-voice "
            f"{name}` and then use --voice {path.stem}.voice."
        )
    if path.is_file():
        return path
    if (head := str(name).rpartition(":")[0]) in voices:
        raise _wrong_weight(head, str(name))
    close = difflib.get_close_matches(str(name), voices, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    known = ", ".join(voices) or "none"
    raise ResolveError(f"there is no voice {str(name)!r}{hint}; voices here: {known}")


def find_voices(folder: Path, name: str | Path) -> list[tuple[Path, float]]:
    """Find the files of a voice or of a mixture of voices, and the weight of each.

    Args:
        folder: the bundle.
        name: of a voice, or `ann:0.7+bob:0.3`; a weight that is left out is 1.

    Raises:
        ResolveError: one of them is not there, or a weight is no positive number.
    """
    text = str(name)
    is_one = "+" not in text and _split_weight(text)[1] is None
    if is_one or text in bundled_voices(folder) or Path(text).expanduser().is_file():
        return [(find_voice(folder, name), 1.0)]
    return [(find_voice(folder, part), weight) for part, weight in mixture_parts(text)]


def mixture_parts(text: str, *, may_be_paths: bool = True) -> list[tuple[str, float]]:
    """The names and weights of a mixture such as `ann:0.7+bob:0.3`.

    Args:
        text: of the mixture.
        may_be_paths: whether a voice may be a path, in which a colon need not be that of a weight.

    Raises:
        ResolveError: a name is missing, or a weight is no positive number.
    """
    parts = []
    for part in text.split("+"):
        name, weight = _split_weight(part.strip())
        if weight is None and ":" in name and not may_be_paths:
            raise _wrong_weight(name.rpartition(":")[0], name)
        if not name or not 0 < (1.0 if weight is None else weight) < float("inf"):
            raise ResolveError(
                f"a mixture of voices is written as ann:0.7+bob:0.3, with positive weights, not "
                f"{text[:80]!r}."
            )
        parts.append((name, 1.0 if weight is None else weight))
    if len(parts) > MAX_MIXTURE:
        raise ResolveError(f"a mixture has at most {MAX_MIXTURE} voices, not {len(parts)}.")
    return parts


def _wrong_weight(name: str, part: str) -> ResolveError:
    """The error where what stands behind the colon of `part`, a voice with a weight, is none."""
    weight = part.rpartition(":")[2]
    return ResolveError(
        f"the weight of {name[:80]!r} is a positive number, as in {name[:80]}:0.7, not "
        f"{weight[:40]!r}."
    )


def _split_weight(part: str) -> tuple[str, float | None]:
    """A name and the weight behind its last colon, where there is a number."""
    name, colon, number = part.rpartition(":")
    try:
        return (name.strip(), float(number)) if colon else (part, None)
    except ValueError:
        return part, None


def bundled_names() -> list[str]:
    """List the names of the bundles that are there without a download."""
    return sorted(_bundles())


def packaged_configs() -> Path:
    """Give the folder of the configs that come with the package.

    Raises:
        ResolveError: if the installation has none.
    """
    for folder in (_package_data() / "configs", *_checkout("configs")):
        if folder.is_dir():
            return folder
    raise ResolveError(f"This installation has no configs: {_package_data() / 'configs'}.")


def _bundles() -> dict[str, Path]:
    """Map the name of every bundle at hand to its folder; the user's own come first."""
    folders = [_package_data() / "checkpoints", *_checkout("checkpoints")]
    if own := os.environ.get(CHECKPOINTS_VARIABLE):
        folders.insert(0, Path(own).expanduser())
    bundles: dict[str, Path] = {}
    for folder in folders:
        for manifest in sorted(folder.glob(f"*/{MANIFEST_FILE}")):
            bundles.setdefault(manifest.parent.name, manifest.parent)
    return bundles


def _package_data() -> Path:
    return Path(str(resources.files("tokenlm"))) / "_data"


def _checkout(name: str) -> list[Path]:
    """Give a folder of the source checkout, or nothing in an installed package."""
    root = Path(str(resources.files("tokenlm"))).parent
    return [root / name] if (root / "pyproject.toml").is_file() else []


def _is_hub_id(name_or_path: str | Path) -> bool:
    return isinstance(name_or_path, str) and _HUB_ID.fullmatch(name_or_path) is not None


def _download(hub_id: str, revision: str | None) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ResolveError(
            f"Downloading {hub_id} needs huggingface_hub: pip install huggingface_hub"
        ) from error
    try:
        folder = huggingface_hub.snapshot_download(
            hub_id, revision=revision, ignore_patterns=_NOT_FETCHED
        )
    # The hub's client raises errors of its own, of the HTTP library and of the system.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        at = f" at the revision {revision!r}" if revision else ""
        raise ResolveError(
            f"There is no folder {hub_id}, and downloading it from the Hugging Face hub{at} "
            f"failed: {reason}. Without a network, give the path of a bundle or one of the "
            f"bundled names: {_names()}."
        ) from error
    if not (Path(folder) / MANIFEST_FILE).is_file():
        raise ResolveError(f"{hub_id} on the hub is not a bundle: it has no {MANIFEST_FILE}.")
    return Path(folder)


def _unknown(text: str) -> str:
    close = difflib.get_close_matches(text, bundled_names(), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return (
        f"{text!r} is neither a folder nor the name of a bundle{hint}. Bundled names: {_names()}. "
        "A repository on the hub is given as organisation/name."
    )


def _names() -> str:
    return ", ".join(bundled_names()) or "none"
