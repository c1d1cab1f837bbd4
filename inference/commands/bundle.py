"""The verb inspect: what a bundle or a voice file holds, and whether its parts agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenlm.checkpoint.resolve import resolve
from tokenlm.console import ProgressBar

if TYPE_CHECKING:
    from tokenlm.checkpoint import BundleManifest, Finding
    from tokenlm.synthesis import Synthesizer


def inspect(
    bundle: Annotated[
        str,
        typer.Argument(
            help="Name of a bundle, its folder or its id on the hub; an adapter; or a voice file."
        ),
    ] = "mini-en",
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            help="Public key of the server that is to have signed the consent to a voice.",
            show_default="any",
        ),
    ] = None,
) -> None:
    """Show what a bundle holds and check it: every checksum, and that its parts fit together.

    Of the folder of an adapter: what it changes, and which bundle it needs. Of a voice file: whose
    voice it is, who agreed to it, and whether that was signed.
    """
    if bundle.endswith(".voice"):
        _inspect_voice(Path(bundle), key)
        return
    if key is not None:
        raise ValueError("--key is for voice files, which are signed; bundles have checksums.")
    if (Path(bundle) / "adapter.yaml").is_file():
        for line in _describe_adapter(Path(bundle)):
            typer.echo(line)
        return
    folder = resolve(bundle)
    from tokenlm.checkpoint import BundleError, read_manifest, validate_bundle
    from tokenlm.checkpoint.registry import KINDS

    with ProgressBar("checking"):
        findings = validate_bundle(folder, KINDS)
        try:
            manifest = read_manifest(folder)
        except BundleError:
            lines = []  # reported by a finding
        else:
            lines = _describe(folder, manifest)
            usable, problem = _check_parts(folder)
            lines += usable
            findings += problem
    for line in lines:
        typer.echo(line)
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in findings:
        red = finding.severity == "error"
        typer.secho(str(finding), fg=typer.colors.RED if red else typer.colors.YELLOW, err=True)
    if errors:
        raise typer.Exit(1)
    typer.echo(f"checks       {len(manifest.files)} files as they were made, the parts agree")


def _inspect_voice(path: Path, key: str | None) -> None:
    from inference.commands.consent import describe_consent
    from tokenlm.synthesis import Voice

    voice = Voice.load(path)
    told, is_good = describe_consent(voice, key)
    typer.echo(f"{voice.name}: {voice.description or voice.prompt_text or 'a voice'}")
    typer.echo(f"file         {path}, {path.stat().st_size / 1e3:.1f} kB")
    typer.echo(f"tokenizer    {voice.tokenizer}")
    typer.echo(f"prompt       {voice.prompt_tokens.shape[0]} tokens")
    for line in told:
        typer.echo(line)
    if not is_good:
        typer.secho("the consent to this voice is not what is asked for", fg="red", err=True)
        raise typer.Exit(1)


def _describe(folder: Path, manifest: BundleManifest) -> list[str]:
    """What the files of a bundle say, models not loaded."""
    size = sum(item.stat().st_size for item in folder.rglob("*") if item.is_file())
    lines = [
        f"{manifest.name}: {manifest.description}",
        f"folder       {folder}",
        f"size         {size / 1e6:.2f} MB in {len(manifest.files)} files",
        f"language     {manifest.language}",
        f"licence      {manifest.licence}",
        f"sample rate  {manifest.sample_rate} Hz",
        *(f"generation   {name} = {value}" for name, value in manifest.generation.items()),
        "components",
    ]
    total = 0
    for name, kind in manifest.components.items():
        path = folder / name / "model.safetensors"
        count, types = _parameters(path)
        total += count
        size = path.stat().st_size if path.is_file() else 0
        lines.append(f"  {name:<18} {count / 1e6:8.3f} M  {size / 1e6:7.2f} MB  {types}  {kind}")
    lines.append(f"  {'all':<18} {total / 1e6:8.3f} M")
    names = sorted(path.stem for path in (folder / "voices").glob("*.voice"))
    lines.append(f"voices       {', '.join(names) or 'none'}")
    return lines


def _describe_adapter(folder: Path) -> list[str]:
    """What an adapter is, all of it read."""
    from tokenlm.checkpoint.adapter import read_adapter

    adapter = read_adapter(folder)
    config = adapter.config
    size = sum(item.stat().st_size for item in folder.iterdir())
    lines = [
        f"{config.name}: {config.description or 'an adapter'}",
        f"folder       {folder}",
        f"size         {size / 1e6:.2f} MB, {adapter.num_parameters / 1e6:.3f} M parameters",
        f"kind         {config.kind}",
        f"base         {config.base}",
        *(f"{name:<12} {value}" for name, value in config.provenance.items()),
        "components",
    ]
    for name, part in adapter.parts.items():
        ranks = sorted({down.shape[0] for down, _ in part.additions.values()})
        told = f"{len(part.additions)} additions of rank {', '.join(map(str, ranks))}"
        both = [told] if ranks else []
        both += [f"{len(part.values)} new values"] if part.values else []
        lines.append(f"  {name:<18} {'; '.join(both)}")
    return lines


def _describe_streaming(synthesizer: Synthesizer) -> list[str]:
    """What a stream waits for, and in what chunks it comes."""
    components = synthesizer.components
    flow, vocoder = components.flow.config, components.vocoder.config
    token_ms = 1000.0 / flow.token_rate
    context = flow.default_context
    sizes = [*context.chunk_step_frames, context.chunk_frames or 0]
    return [
        f"look-ahead   {synthesizer.lookahead_ms:.0f} ms: flow "
        f"{flow.lookahead_tokens * token_ms:.0f} ms, vocoder {vocoder.lookahead_ms:.0f} ms",
        f"chunks       {', '.join(f'{size * token_ms:.0f}' for size in sizes)} ms",
    ]


def _parameters(path: Path) -> tuple[int, str]:
    """Number of weights of a file and their types, without reading them."""
    from safetensors import SafetensorError, safe_open

    count, types = 0, set()
    try:
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():
                part = file.get_slice(name)
                size = 1
                for length in part.get_shape():
                    size *= length
                count += size
                types.add(str(part.get_dtype()).lower())
    except (SafetensorError, OSError):
        return 0, "cannot be read"
    return count, "/".join(sorted(types)) or "empty"


def _check_parts(folder: Path) -> tuple[list[str], list[Finding]]:
    """Loads every part and lets each meet the others."""
    from tokenlm.checkpoint import Finding
    from tokenlm.synthesis import Synthesizer

    findings = []
    lines = []
    try:
        synthesizer = Synthesizer.from_pretrained(folder)
        components = synthesizer.components
        components.check_tokenizer()
        parts = [
            getattr(components, name)
            for name in ("token_recognizer", "speaker_encoder")
            if name in components.manifest.components  # a bundle may do without
        ]
        assert all(parts)
        lines = [
            *_describe_streaming(synthesizer),
            f"tokenizer    {components.fingerprint}",
        ]
    except (ValueError, OSError) as error:
        return [], [Finding(severity="error", path=".", message=str(error))]
    for name in synthesizer.voices:
        try:
            synthesizer.voice(name)
        except ValueError as error:
            path = f"voices/{name}.voice"
            findings.append(Finding(severity="error", path=path, message=str(error)))
    return lines, findings
