"""YAML files of configs: reading them strictly, finding what they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tokenlm.earlier import present_config

_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""That of libyaml, which is ten times as fast, where PyYAML was built with it."""


class ConfigError(ValueError):
    """A mistake in a config; the message names the file and the key."""


class StrictLoader(_SafeLoader):
    """The safe loader, with a key given twice as an error (YAML forbids it, PyYAML lets it be)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See PyYAML.

        Raises:
            yaml.YAMLError: a key is given twice.
        """
        seen = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"the key {key.value!r} is given twice (line {line})")
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


def read_mapping(path: Path, named_by: str | None = None) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping; `named_by` is the place that names the file."""
    place = f"{named_by}: {path}" if named_by else str(path)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
    except FileNotFoundError:
        raise ConfigError(f"{place}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{place}: is not valid YAML: {error}") from error
    data = {} if data is None else data
    if named_by and isinstance(data, dict) and {"format_version", "config"} <= data.keys():
        # Of a component, beside its kind and other facts.
        inner = data["config"]
        data = present_config(str(data.get("kind")), inner) if isinstance(inner, dict) else inner
    if not isinstance(data, dict):
        raise ConfigError(f"{place}: expected a mapping of keys, got {shown(data)}")
    return data


def beside(source: str, name: str) -> Path:
    """Give the path `name` as `source` means it: beside the file, or in the working folder."""
    folder = Path() if source.startswith("override ") else Path(source).parent
    return folder / Path(name).expanduser()


def shown(value: Any) -> str:
    """A value as error messages show it."""
    if value is None:
        return "nothing (null)"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
