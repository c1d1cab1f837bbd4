"""Verbs of the `tokenlm` command that training adds (entry-point group `tokenlm.commands`).

Heavy libraries are imported inside the functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def train(
    stage: Annotated[
        str,
        typer.Argument(
            help="Training config (YAML): its path, or the name of one that comes along, such as"
            " flow or full/flow."
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Such as optim.lr=3e-4.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Train nothing: write the components of the newest checkpoint to this folder.",
        ),
    ] = None,
) -> None:
    """Train a stage, or go on from the newest checkpoint of its run.

    On several processes: accelerate launch -m tokenlm train ...
    """
    from training.run import main

    options = [] if export is None else ["--export", str(export)]
    raise typer.Exit(main(["--config", stage, *(overrides or ()), *options]))


def export(
    output: Annotated[Path, typer.Argument(help="Folder of the bundle to make.")],
    components: Annotated[
        list[str], typer.Argument(metavar="COMPONENT=FOLDER", help="Such as flow=RUN/export/flow.")
    ],
    bundle: Annotated[
        str | None,
        typer.Option(help="Bundle to copy (name, folder or hub id), all but these components."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="What a new bundle is besides its weights (YAML).")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Recordings that the voices of a new bundle are made of.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="Figures of its card, as `tokenlm evaluate` writes them.")
    ] = None,
) -> None:
    """Put components of runs together into a bundle: a new one, or a copy of another.

    A copy (--bundle) gets the components in place of its own, or in addition. A new bundle needs
    all of them, and --config and --manifest.
    """
    pairs = [entry.partition("=") for entry in components]
    wrong = [entry for entry, equals, folder in pairs if not equals or not folder]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not of the form COMPONENT=FOLDER.")
    folders = {name: Path(folder) for name, _, folder in pairs}
    if (bundle is None) == (config is None or manifest is None):
        raise ValueError("give either --bundle, or --config and --manifest.")
    import torch

    from tokenlm.checkpoint import resolve
    from tokenlm.config import load_config
    from training.bundle import BundleConfig, assemble, exchange
    from training.evaluation.report import card_metrics

    torch.set_flush_denormal(True)
    if bundle is not None:
        written = exchange(Path(resolve(bundle)), output, folders)
    else:
        assert config is not None and manifest is not None
        figures = card_metrics(metrics) if metrics is not None else {}
        written = assemble(load_config(BundleConfig, config), folders, manifest, output, figures)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    typer.echo(f"{output}: {len(written.files)} files, {size / 1e6:.1f} MB")


def merge(
    bundle: Annotated[str, typer.Argument(help="Bundle that the adapter was learned on.")],
    adapter: Annotated[Path, typer.Argument(help="Folder of the adapter.")],
    output: Annotated[Path, typer.Argument(help="Folder of the bundle to make.")],
) -> None:
    """Make a whole bundle of a bundle and an adapter; it then speaks so without the adapter.

    A voice file beside the adapter comes along.
    """
    from tokenlm.checkpoint import resolve
    from training.personal.adapter import merge_adapter

    written = merge_adapter(resolve(bundle), adapter, output)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    typer.echo(f"{output}: {len(written.files)} files, {size / 1e6:.1f} MB")


def text_tokenizer(
    kind: Annotated[
        Literal["pieces", "phonemes"],
        typer.Argument(help="Pieces of words, by sentencepiece; or phones, by a lexicon."),
    ],
    source: Annotated[
        Path, typer.Argument(help="Manifest (of pieces), or lexicon in the CMU format.")
    ],
    output: Annotated[Path, typer.Argument(help="Folder to write.")],
    vocab_size: Annotated[int | None, typer.Option(help="Number of pieces.")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the lexicon.")] = 10,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Train a text tokenizer: pieces of spelling on texts, or phones on a lexicon."""
    if kind == "pieces" and vocab_size is None:
        raise ValueError("pieces need --vocab-size.")
    import torch

    from tokenlm.text.pronunciation import read_lexicon
    from training.data.manifest import read_manifest
    from training.data.text_tokenizer import train_phoneme_tokenizer, train_piece_tokenizer

    torch.set_flush_denormal(True)
    if vocab_size is not None and kind == "pieces":
        texts = [row.text for row in read_manifest(source).utterances]
        pieces, characters = train_piece_tokenizer(texts, vocab_size, seed=seed)
        pieces.save(output)
        typer.echo(f"{pieces.vocab_size} pieces, {characters:.2f} characters each")
        return
    lexicon = read_lexicon(source)
    phonemes = train_phoneme_tokenizer(lexicon, num_epochs=epochs, seed=seed)
    phonemes.save(output)
    right = 1 - len(phonemes.lexicon) / len(lexicon)
    typer.echo(
        f"{phonemes.vocab_size} ids; the rules say {right:.1%} of {len(lexicon)} words, "
        f"the lexicon keeps the other {len(phonemes.lexicon)}"
    )
