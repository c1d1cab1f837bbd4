"""The verb serve."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Annotated

import typer

from inference.commands.options import Precision
from inference.commands.speech import load_synthesizer
from tokenlm.console import ProgressBar


def serve(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="Settings.",
            show_default="configs/serve/default.yaml of the package",
        ),
    ] = None,
    bundle: Annotated[
        str | None, typer.Option("--bundle", help="Name of a bundle, its folder, or its hub id.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Where the models run: cpu, cuda, cuda:1, mps.")
    ] = None,
    weights: Annotated[
        Precision | None,
        typer.Option("--weights", help="Precision of the large models' weights."),
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            "--llm",
            metavar="URL",
            help="LLM server that draws the speech tokens; it serves what `tokenlm export llm`"
            " writes.",
            show_default="drawn here",
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen at; 0.0.0.0 is every network.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port; 0 is any free one.")
    ] = None,
    voices: Annotated[
        Path | None, typer.Option("--voices", help="Folder of the voices that clients add.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Host name that requests may use; may be repeated."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting: limits.max_streams=8, cors_origins=['*']."),
    ] = None,
) -> None:
    """Serve speech: an API as OpenAI has it, a WebSocket, and a page to try it."""
    from inference.server.settings import ServeConfig
    from tokenlm.checkpoint import packaged_configs
    from tokenlm.config import load_config

    path = config or packaged_configs() / "serve" / "default.yaml"
    chosen = load_config(ServeConfig, path, settings or ())
    given = {
        "bundle": bundle,
        "device": device,
        "weights": weights,
        "llm": llm,
        "host": host,
        "port": port,
        "voices": voices,
    }
    chosen = dataclasses.replace(
        chosen, **{name: value for name, value in given.items() if value is not None}
    )
    if allow_host:
        chosen = dataclasses.replace(chosen, allowed_hosts=(*chosen.allowed_hosts, *allow_host))
    # Wrong settings are reported before torch is loaded.
    from inference.server.app import build_app
    from inference.server.process import serve_app

    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(name)s: %(message)s")
    with ProgressBar("loading"):
        synthesizer = load_synthesizer(
            chosen.bundle,
            chosen.device,
            chosen.weights,
            caches=chosen.caches,
            dtype=chosen.dtype,
            lexicon=chosen.lexicon,
        )
    serve_app(build_app(chosen, synthesizer), chosen)
