"""Pages that mkdocs makes when it builds the documentation; none of them is committed.

* references: commands from the typer application, configs from the frozen dataclasses, Python from
  the names in `public.yaml`;
* documents that lie elsewhere in the repository, such as CHANGELOG.md;
* tutorials, from programs in the percent format.
"""

from __future__ import annotations

import ast
import logging
import os
import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PACKAGES = ("tokenlm", "training", "inference")
DOCUMENTS = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "log.md": "training/LOG.md",
    "mini-en.md": "checkpoints/mini-en/README.md",
    "bundles.md": "checkpoints/README.md",
    "reference/configuration/index.md": "configs/README.md",
}
"""Page and the document of the repository that it shows."""
CONFIG_PAGES = {"models": "tokenlm", "training": "training", "server": "inference"}
"""Page of configs and the package whose classes it lists."""
TITLES = {
    "models": "Configs of models and generation",
    "training": "Configs of training, data and evaluation",
    "server": "Configs of the server",
}

COMMANDS_INTRODUCTION = (
    "Made from the commands themselves: `tokenlm COMMAND --help` says the same. A mistake is told "
    "in one sentence, with exit status 2."
)
CONFIGS_INTRODUCTION = (
    "Made from the frozen dataclasses: a YAML file has these keys. How files are read is on the "
    "page [Files](index.md)."
)

logger = logging.getLogger(f"mkdocs.hooks.{__name__}")
"""A warning of it makes a strict build fail."""

# The verbs and their packages are those of this checkout.
sys.path.insert(0, str(ROOT))
os.environ.setdefault("NO_COLOR", "1")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages; see mkdocs."""
    from mkdocs.structure.files import File

    for page, text in pages():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lets links to documents of the repository lead to their pages; see mkdocs."""
    path = page.file.src_uri
    if path in page_names():
        return markdown
    return move_links(markdown, posixpath.join("docs", posixpath.dirname(path)), path)


def pages() -> Iterator[tuple[str, str]]:
    """Path and Markdown of every page that is made."""
    for page, document in DOCUMENTS.items():
        yield page, document_page(page, document)
    yield "glossary.md", glossary_page()
    for program in sorted(DOCS.glob("tutorials/*.py")):
        yield f"tutorials/{program.stem}.md", tutorial_page(program.read_text(encoding="utf-8"))
    yield "reference/commands.md", commands_page()
    for name, package in CONFIG_PAGES.items():
        yield f"reference/configuration/{name}.md", config_page(name, package)
    for name, entry in public_names().items():
        yield f"reference/python/{name}.md", python_page(entry)


@cache
def page_names() -> set[str]:
    """Paths of the pages that are made, without making them."""
    return {
        *DOCUMENTS,
        "glossary.md",
        *(f"tutorials/{program.stem}.md" for program in DOCS.glob("tutorials/*.py")),
        "reference/commands.md",
        *(f"reference/configuration/{name}.md" for name in CONFIG_PAGES),
        *(f"reference/python/{name}.md" for name in public_names()),
    }


# -- documents of the repository -----------------------------------------------------------------


def document_page(page: str, document: str) -> str:
    """A document of the repository as a page: its links lead to pages, or become plain text."""
    text = (ROOT / document).read_text(encoding="utf-8")
    if text.startswith("---\n"):
        text = text.split("---\n", 2)[2]
    return move_links(text, posixpath.dirname(document), page)


def move_links(text: str, folder: str, page: str) -> str:
    """Markdown of a document in `folder` of the repository, with the links that `page` needs."""
    shown = {document: target for target, document in DOCUMENTS.items()}

    def replace(match: re.Match[str]) -> str:
        label, target = match[1], match[2]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(folder, path))
        if path.startswith("docs/"):
            path = re.sub(r"^docs/(tutorials/\w+)\.py$", r"docs/\1.md", path).removeprefix("docs/")
        elif path in shown:
            path = shown[path]
        else:
            return label
        relative = posixpath.relpath(path, posixpath.dirname(page) or ".")
        return f"[{label}]({relative}{'#' + anchor if anchor else ''})"

    link = re.compile(r"(?<!!)\[([^\]\n]*)\]\(([^)\s]+)\)")
    blocks = re.split(r"(^```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        block if number % 2 else link.sub(replace, block) for number, block in enumerate(blocks)
    )


def glossary_page() -> str:
    """The section of CONTRIBUTING.md, as a page of its own."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(r"^## Glossary\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        logger.warning("CONTRIBUTING.md has no section Glossary")
        return "# Glossary\n"
    body = re.sub(r"^###", "##", found[1], flags=re.MULTILINE)
    return "# Glossary\n" + move_links(body, "", "glossary.md")


# -- tutorials -----------------------------------------------------------------------------------


def tutorial_page(program: str) -> str:
    """A program in the percent format as Markdown: cells of text, and cells of code."""
    parts = []
    for cell in re.split(r"^# %%", program, flags=re.MULTILINE)[1:]:
        kind, _, body = cell.partition("\n")
        if kind.strip() == "[markdown]":
            lines = (line.removeprefix("#").removeprefix(" ") for line in body.splitlines())
            parts.append("\n".join(lines).strip())
        elif body.strip():
            parts.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(parts) + "\n"


# -- commands ------------------------------------------------------------------------------------


def commands_page() -> str:
    """Every command with its arguments and options, from the typer application."""
    import typer.main

    from tokenlm.cli import build_app

    root: Any = typer.main.get_command(build_app())
    lines = ["# Commands", "", COMMANDS_INTRODUCTION, ""]
    for name, command in sorted(root.commands.items()):
        if command.hidden:
            logger.warning("the command %r cannot be loaded: tokenlm --verbose %s", name, name)
        lines += _command(command, f"tokenlm {name}")
    return "\n".join(lines)


def _command(command: Any, name: str) -> list[str]:
    lines = [f"## {name}", "", _plain(command.help or ""), ""]
    if hasattr(command, "commands"):
        for word, inner in sorted(command.commands.items()):
            lines += _command(inner, f"{name} {word}")
        return lines
    with command.make_context(name, [], resilient_parsing=True) as context:
        usage = [piece for part in command.params for piece in part.get_usage_pieces(context)]
        records = [part.get_help_record(context) for part in command.params]
    lines += ["```text", " ".join([name, "[OPTIONS]", *usage]), "```", "", "| | |", "|---|---|"]
    for record in records:
        if record is not None and "--help" not in record[0]:
            lines.append(f"| `{_cell(record[0])}` | {_text(record[1])} |")
    return [*lines, ""]


def _plain(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _cell(text: Any) -> str:
    """Code that fits a cell of a table, between backticks."""
    return " ".join(str(text).split())


def _text(text: Any) -> str:
    """Plain text that fits a cell of a table; what is code in it stays code."""
    parts = re.split(r"(`[^`]*`)", _cell(text))
    for place in range(0, len(parts), 2):
        escaped = re.sub(r"([\[\]*_|])", r"\\\1", parts[place])
        parts[place] = escaped.replace("<", "&lt;").replace(">", "&gt;")
    return "".join(parts)


# -- configs -------------------------------------------------------------------------------------


@dataclass
class ConfigField:
    """One field of a config."""

    name: str
    kind: str
    default: str
    text: str


@dataclass
class ConfigClass:
    """A frozen dataclass, as it is written."""

    name: str
    module: str
    bases: list[str]
    text: str
    fields: list[ConfigField] = field(default_factory=list)


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of the packages, by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


@cache
def frozen_dataclasses() -> dict[str, ConfigClass]:
    """Frozen dataclasses of the packages, by name."""
    return {
        node.name: _read_class(node, name, tree)
        for name, tree in sources().items()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and _is_frozen(node)
    }


@cache
def config_classes() -> dict[str, ConfigClass]:
    """Classes named `…Config` that are frozen dataclasses, and those that their fields hold."""
    known = frozen_dataclasses()
    waiting = [name for name in known if name.endswith("Config")]
    found: dict[str, ConfigClass] = {}
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = known[name]
        kinds = " ".join(part.kind for part in known[name].fields)
        waiting += [word for word in re.findall(r"\w+", kinds) if word in known]
        waiting += [base for base in known[name].bases if base in known]
    return dict(sorted(found.items(), key=lambda item: (item[1].module, item[0])))


def _is_frozen(node: ast.ClassDef) -> bool:
    return any(
        isinstance(mark, ast.Call)
        and ast.unparse(mark.func).endswith("dataclass")
        and "frozen=True" in map(ast.unparse, mark.keywords)
        for mark in node.decorator_list
    )


def _read_class(node: ast.ClassDef, module: str, tree: ast.Module) -> ConfigClass:
    constants = {
        ast.unparse(item.targets[0]): ast.unparse(item.value)
        for item in tree.body
        if isinstance(item, ast.Assign) and len(item.targets) == 1
    }
    config = ConfigClass(
        name=node.name,
        module=module,
        bases=[ast.unparse(base) for base in node.bases],
        text=ast.get_docstring(node) or "",
    )
    for item, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        kind = ast.unparse(item.annotation)
        if kind.startswith("ClassVar") or item.target.id.startswith("_"):
            continue
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        text = str(after.value.value) if is_text else ""  # type: ignore[union-attr]
        default = _source_of_default(item.value)
        config.fields.append(
            ConfigField(item.target.id, kind, constants.get(default, default), text)
        )
    return config


def _source_of_default(value: ast.expr | None) -> str:
    if value is None:
        return ""
    if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("field"):
        for word in value.keywords:
            if word.arg == "default":
                return ast.unparse(word.value)
            if word.arg == "default_factory":
                factory = word.value
                if isinstance(factory, ast.Lambda):
                    return ast.unparse(factory.body)
                made = f"{ast.unparse(factory)}()"
                return {"dict()": "{}", "list()": "[]"}.get(made, made)
        return ""
    return ast.unparse(value)


def config_page(name: str, package: str) -> str:
    """Name, type, default and meaning of every field of the configs of a package."""
    lines = [f"# {TITLES[name]}", "", CONFIGS_INTRODUCTION, ""]
    for config in config_classes().values():
        if config.module.partition(".")[0] != package:
            continue
        lines += [f"## {config.name}", "", f"`{config.module}`. {_plain(config.text)}", ""]
        for base in config.bases:
            if base in config_classes():
                lines += [f"Also has the fields of {_class_link(base, package)}.", ""]
        if config.fields:
            lines += ["| field | type | default | |", "|---|---|---|---|"]
        lines += [
            f"| `{part.name}` | {_kind_link(part.kind, package)} "
            f"| {f'`{_cell(part.default)}`' if part.default else 'required'} | {_text(part.text)} |"
            for part in config.fields
        ]
        lines.append("")
    return "\n".join(lines)


def _class_link(name: str, package: str) -> str:
    home = config_classes()[name].module.partition(".")[0]
    page = next(page for page, owner in CONFIG_PAGES.items() if owner == home)
    return f"[{name}]({'' if home == package else page + '.md'}#{name.lower()})"


def _kind_link(kind: str, package: str) -> str:
    """A type, with links to the configs in it."""
    parts = [part for part in re.split(r"(\w+)", kind) if part.strip()]
    if not any(part in config_classes() for part in parts):
        return f"`{_cell(kind)}`"
    return " ".join(
        _class_link(part, package) if part in config_classes() else f"`{_cell(part)}`"
        for part in parts
    )


# -- Python --------------------------------------------------------------------------------------


@cache
def public_names() -> dict[str, dict[str, Any]]:
    """The list of public objects, `public.yaml`."""
    return yaml.safe_load((DOCS / "public.yaml").read_text(encoding="utf-8"))


def python_page(entry: dict[str, Any]) -> str:
    """A page of mkdocstrings with the objects of one entry of the list."""
    lines = [f"# {entry['title']}", "", entry["text"], ""]
    for name in entry["names"]:
        paths = find_object(name)
        if len(paths) != 1:
            told = "nowhere" if not paths else f"in {' and '.join(paths)}"
            logger.warning("docs/public.yaml: %s is defined %s", name, told)
        lines += [f"::: {path}\n" for path in paths[:1]]
    return "\n".join(lines)


def find_object(name: str) -> list[str]:
    """Dotted paths of the classes and functions of this name.

    Args:
        name: the name; before it, in order, words that its module has where it is not the only one.
    """
    *words, last = name.split(".")
    found = []
    for module, tree in sources().items():
        parts = iter(module.split("."))
        if all(word in parts for word in words):
            found += [
                f"{module}.{last}"
                for node in tree.body
                if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
                and node.name == last
            ]
    return found
