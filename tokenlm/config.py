"""YAML and frozen dataclasses, strictly: a mistake in a file is an error that names its key.

A config class is a `@dataclass(frozen=True, kw_only=True)` beside the class that it configures.
YAML is data only: the declared type of a field says how its value is read, and nothing in a file
names a Python class. Where several dataclasses may stand, a `kind: Literal[...]` field chooses.

Your own configs may name one another (`load_config`). What may be a stranger's, such as a file of a
downloaded bundle (`read_config`, `from_dict`), names nothing that would be read.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from tokenlm.atomic import write_text
from tokenlm.config_files import ConfigError, StrictLoader, beside, read_mapping, shown

T = TypeVar("T")
Keys = tuple[str, ...]

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def from_dict(
    cls: type[T],
    data: Mapping[str, Any],
    *,
    where: str | Path = "config",
    overrides: Sequence[str] = (),
) -> T:
    """Build a config dataclass from plain data, checking every key and type.

    Args:
        cls: a dataclass.
        data: its fields by name, nested as the dataclass is. It may be a stranger's: a path in it
            is never followed.
        where: the file (or any name) that error messages give for the data.
        overrides: `key.sub=value` each, as of `load_config`; they are yours, and may name files.

    Raises:
        ConfigError: for an unknown or missing key, a wrong type, a value that is not one of the
            choices, or a value that the dataclass refuses.
    """
    return _Reader({(): str(where)}, follows=False).read(cls, data, overrides)


def read_config(cls: type[T], path: str | Path) -> T:
    """Read a config from a YAML file that may be a stranger's: no other file is read for it.

    Args:
        cls: a dataclass.
        path: the file. It has no `base`, and a string in it is never the path of a file.

    Raises:
        ConfigError: as `from_dict`, and for a file that is missing or is not a YAML mapping.
    """
    return from_dict(cls, read_mapping(Path(path)), where=path)


def load_config(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a config of yours from a YAML file, and the files that it names.

    Args:
        cls: a dataclass.
        path: the file. Its optional key `base` names one other file, relative to it, whose values
            hold where this one gives none; mappings are merged, everything else is replaced.
            A string where a dataclass is expected is the path of a YAML file of it (or of a
            component), relative to the file that says so.
        overrides: `key.sub=value` each, applied last; the value is read as YAML, and a path in it
            is relative to the working folder, as a shell completes it.

    Raises:
        ConfigError: as `from_dict`, and for a file that is missing or is not a YAML mapping.
    """
    path = Path(path)
    reader = _Reader({(): str(path)}, follows=True)
    data = read_mapping(path)
    base = data.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise ConfigError(f"{path}: base: expected the path of a YAML file, got {base!r}")
        base_path = path.parent / base
        below = read_mapping(base_path, named_by=str(path))
        if "base" in below:
            raise ConfigError(f"{base_path}: a base may not have a base of its own")
        data = reader.merge(below, data, (), str(base_path))
    return reader.read(cls, data, overrides)


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a config dataclass into plain YAML types, so that `from_dict` gives it back."""
    plain = _plain(config)
    assert isinstance(plain, dict), f"{type(config).__name__} is no config"
    return plain


def save_config(config: Any, path: str | Path) -> None:
    """Write a config dataclass (or plain mapping) to a YAML file, whole or not at all."""
    write_text(path, yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True))


class _Reader:
    """Reads one config; knows which file each key came from.

    Attributes:
        files: the file of a key and of everything below it that has no entry of its own.
        follows: whether a path in the data is that of a file to be read; one in an override is.
    """

    def __init__(self, files: dict[Keys, str], *, follows: bool) -> None:
        self.files = files
        self.follows = follows
        self._overridden: set[Keys] = set()

    def file_of(self, keys: Keys) -> str:
        """Find the file that `keys` came from."""
        while keys not in self.files:
            keys = keys[:-1]
        return self.files[keys]

    def error(self, keys: Keys, message: str) -> ConfigError:
        place = f"{self.file_of(keys)}: " + (f"{'.'.join(keys)}: " if keys else "")
        return ConfigError(place + message)

    # -- what several files say together ---------------------------------------------------------

    def merge(
        self, below: dict[str, Any], above: dict[str, Any], keys: Keys, below_file: str
    ) -> dict[str, Any]:
        """Merge two mappings; where both give a value, `above` holds."""
        merged = dict(below)
        for key in below:
            if key not in above:
                self.files[(*keys, str(key))] = below_file
        for key, value in above.items():
            lower: Any = merged.get(key)
            lower_file, here = below_file, (*keys, str(key))
            if isinstance(value, dict) and _is_reference(lower):
                lower_file = str(beside(below_file, lower))
                lower = read_mapping(Path(lower_file), named_by=below_file)
            same_kind = isinstance(value, dict) and isinstance(lower, dict)
            if same_kind and value.get("kind", lower.get("kind")) == lower.get("kind"):
                merged[key] = self.merge(lower, value, here, lower_file)
            else:  # another kind has other fields: nothing of the lower one is kept
                merged[key] = value
        return merged

    def read(self, cls: type[T], data: Mapping[str, Any], overrides: Sequence[str]) -> T:
        """Give `data`, changed by the overrides, as `cls`."""
        if overrides:
            data = changed = dict(data)
            for override in overrides:
                self.override(changed, override)
        return self.convert(cls, data, ())

    def override(self, data: dict[str, Any], override: str) -> None:
        """Apply one `key.sub=value` to `data`, in place."""
        name, equals, text = override.partition("=")
        keys = tuple(name.strip().split("."))
        if not equals or not all(keys):
            raise ConfigError(f"override {override!r}: expected key.sub=value")
        try:
            value = yaml.load(text, StrictLoader)  # a safe loader
        except yaml.YAMLError as error:
            raise ConfigError(f"override {override!r}: the value is not YAML: {error}") from None
        for depth, key in enumerate(keys[:-1], start=1):
            lower: Any = data.get(key)
            if _is_reference(lower) and self._may_follow(keys[:depth]):
                source = self.file_of(keys[:depth])
                target = beside(source, lower)
                lower = read_mapping(target, named_by=source)
                self.files[keys[:depth]] = str(target)
            if lower is None:
                lower = {}
            if not isinstance(lower, dict):
                raise ConfigError(
                    f"override {override!r}: {'.'.join(keys[:depth])} is {lower!r}, without keys"
                )
            data[key] = dict(lower)
            data = data[key]
        data[keys[-1]] = value
        for known in [known for known in self.files if known[: len(keys)] == keys]:
            del self.files[known]
        self.files[keys] = f"override {override!r}"
        self._overridden.add(keys)

    # -- values by declared type -----------------------------------------------------------------

    def convert(self, declared: Any, value: Any, keys: Keys) -> Any:
        """Give `value` as the declared type wants it, or raise ConfigError."""
        origin, args = get_origin(declared), get_args(declared)
        if declared is Any:
            return copy.deepcopy(value)
        if origin in (Union, types.UnionType):
            return self._union(args, value, keys)
        if dataclasses.is_dataclass(declared):
            return self._dataclass(declared, value, keys)
        if origin is Literal:
            return self._literal(args, value, keys)
        container = origin or declared
        if container in (tuple, list, Sequence):
            return self._sequence(container, args, value, keys)
        if container in (dict, Mapping):
            return self._mapping(args, value, keys)
        return self._scalar(declared, value, keys)

    def _dataclass(self, cls: Any, value: Any, keys: Keys) -> Any:
        if isinstance(value, cls):
            return value
        value = self._follow(value, keys)
        if not isinstance(value, Mapping):
            raise self.error(keys, f"expected a mapping of {cls.__name__}, got {shown(value)}")
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        for key in value:
            if key not in fields:
                close = difflib.get_close_matches(str(key), fields, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                valid = ", ".join(sorted(fields)) or "none"
                message = f"unknown key {str(key)!r}; {hint}Valid keys: {valid}"
                raise ConfigError(f"{self._prefix(keys, key)}{message}")
        missing = [
            name
            for name, field in fields.items()
            if name not in value
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise self.error(keys, f"missing key{'s' * (len(missing) > 1)} {', '.join(missing)}")
        hints = get_type_hints(cls)
        values = {
            name: self.convert(hints[name], item, (*keys, name)) for name, item in value.items()
        }
        try:
            return cls(**values)
        except ConfigError:
            raise
        except ValueError as error:
            raise self.error(keys, str(error)) from error

    def _prefix(self, keys: Keys, key: Any) -> str:
        """Name the place of an unknown key: its own file, the path of its parent."""
        parent = f"{'.'.join(keys)}: " if keys else ""
        return f"{self.file_of((*keys, str(key)))}: {parent}"

    def _follow(self, value: Any, keys: Keys) -> Any:
        """Read the file that a string standing for a dataclass names, where it may name one."""
        if not isinstance(value, str) or not self._may_follow(keys):
            return value
        source = self.file_of(keys)
        path = beside(source, value)
        place = f"{source}: {'.'.join(keys)}" if keys else source
        data = read_mapping(path, named_by=place)
        self.files[keys] = str(path)
        return data

    def _may_follow(self, keys: Keys) -> bool:
        """Whether a path at `keys` is to be followed: one of yours, not of a stranger's data."""
        return self.follows or any(keys[: len(key)] == key for key in self._overridden)

    def _union(self, members: tuple[Any, ...], value: Any, keys: Keys) -> Any:
        if value is None and type(None) in members:
            return None
        members = tuple(member for member in members if member is not type(None))
        if len(members) == 1:
            return self.convert(members[0], value, keys)
        configs: list[Any] = [member for member in members if dataclasses.is_dataclass(member)]
        others = [member for member in members if not dataclasses.is_dataclass(member)]
        if configs and (
            isinstance(value, (Mapping, *configs)) or (isinstance(value, str) and str not in others)
        ):
            value = self._follow(value, keys)
            return self._dataclass(self._by_kind(configs, value, keys), value, keys)
        # First the member whose own type the value has: `int | float` keeps 3 an integer, and a
        # text that looks like a number stays text where text is allowed.
        for member in sorted(others, key=lambda member: type(value) is not member):
            try:
                return self.convert(member, value, keys)
            except ConfigError:
                continue
        expected = " or ".join(_type_name(member) for member in members)
        raise self.error(keys, f"expected {expected}, got {shown(value)}")

    def _by_kind(self, configs: list[Any], value: Any, keys: Keys) -> Any:
        for config in configs:
            if isinstance(value, config):
                return config
        if len(configs) == 1:
            return configs[0]
        by_kind = {
            kind: config for config in configs for kind in get_args(get_type_hints(config)["kind"])
        }
        if not isinstance(value, Mapping):
            names = " or ".join(config.__name__ for config in configs)
            raise self.error(keys, f"expected a mapping of {names}, got {shown(value)}")
        kind = value.get("kind")
        if kind not in by_kind:
            problem = "missing key 'kind'" if kind is None else f"unknown kind {kind!r}"
            raise self.error(keys, f"{problem}; valid kinds: {', '.join(map(str, by_kind))}")
        return by_kind[kind]

    def _literal(self, choices: tuple[Any, ...], value: Any, keys: Keys) -> Any:
        for choice in choices:
            if type(choice) is type(value) and choice == value:
                return choice
        valid = ", ".join(map(repr, choices))
        hint = ""
        if isinstance(value, bool) and any(isinstance(choice, str) for choice in choices):
            hint = " (YAML reads yes, no, on and off as booleans: put quotes around the word)"
        elif isinstance(value, str):
            close = difflib.get_close_matches(value, [c for c in choices if isinstance(c, str)], 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise self.error(keys, f"expected one of {valid}, got {value!r}{hint}")

    def _sequence(self, container: Any, args: tuple[Any, ...], value: Any, keys: Keys) -> Any:
        if not isinstance(value, (list, tuple)):
            raise self.error(keys, f"expected a list, got {shown(value)}")
        if container is tuple and args and args[-1] is not Ellipsis:
            if len(value) != len(args):
                raise self.error(keys, f"expected a list of {len(args)}, got {len(value)} items")
            declared = list(args)
        else:
            declared = [args[0] if args else Any] * len(value)
        items = [
            self.convert(item_type, item, (*keys, str(index)))
            for index, (item_type, item) in enumerate(zip(declared, value, strict=True))
        ]
        return items if container is list else tuple(items)

    def _mapping(self, args: tuple[Any, ...], value: Any, keys: Keys) -> dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise self.error(keys, f"expected a mapping, got {shown(value)}")
        key_type, item_type = args or (Any, Any)
        return {
            self.convert(key_type, key, (*keys, str(key))): self.convert(
                item_type, item, (*keys, str(key))
            )
            for key, item in value.items()
        }

    def _scalar(self, declared: Any, value: Any, keys: Keys) -> Any:
        if declared is Path and isinstance(value, (str, Path)):
            return Path(value)
        if declared in (str, bool) and isinstance(value, declared):
            return value
        if declared in (int, float) and not isinstance(value, bool):
            # PyYAML reads 1e-4 as text (YAML 1.1 wants a dot): the declared type says number.
            number = float(value) if _is_number_text(value) else value
            if declared is float and isinstance(number, (int, float)) and not math.isnan(number):
                return float(number)
            if declared is int and isinstance(number, (int, float)) and number % 1 == 0:
                return int(value) if isinstance(value, int) else int(number)
        known = (str, bool, int, float, Path)
        assert declared in known, f"{'.'.join(keys)}: configs cannot hold {declared!r}"
        hint = " (put quotes around it)" if declared is str and value is not None else ""
        raise self.error(keys, f"expected {_type_name(declared)}, got {shown(value)}{hint}")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return {name: _plain(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and value.endswith((".yaml", ".yml"))


def _is_number_text(value: Any) -> bool:
    return isinstance(value, str) and _NUMBER.fullmatch(value) is not None


def _type_name(declared: Any) -> str:
    if get_origin(declared) is Literal:
        return "one of " + ", ".join(map(repr, get_args(declared)))
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(declared, getattr(declared, "__name__", str(declared)))


__all__ = ["ConfigError", "from_dict", "load_config", "read_config", "save_config", "to_dict"]
