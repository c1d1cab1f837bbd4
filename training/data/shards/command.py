"""The verb `tokenlm data precompute` (entry-point group `tokenlm.commands`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def precompute(
    manifest: Annotated[Path, typer.Argument(help="Manifest (JSONL).")],
    output: Annotated[Path, typer.Argument(help="Folder of the shards.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="Component folder: store its speech tokens.")
    ] = None,
    speaker_encoder: Annotated[
        Path | None, typer.Option(help="Component folder: store its embeddings.")
    ] = None,
    mel: Annotated[bool, typer.Option("--mel", help="Store mel spectrograms.")] = False,
    mel_config: Annotated[
        Path | None, typer.Option(help="Config (YAML) of the mel, if not the default one.")
    ] = None,
    audio_rate: Annotated[
        int, typer.Option(help="Store the sound (flac) at this rate in Hz; 0 stores none.")
    ] = 0,
    items_per_shard: Annotated[int, typer.Option(help="Items of one tar file.")] = 1000,
    max_rejects: Annotated[
        float, typer.Option(help="Share of rows that may be bad before the work stops.")
    ] = 0.05,
) -> None:
    """Write speech tokens, embeddings, mels and sound of a manifest into tar shards.

    On several processes: accelerate launch -m tokenlm data precompute ... The same command again
    goes on where it was stopped.
    """
    from training.data.manifest import read_manifest

    rows = read_manifest(manifest)  # a mistake is told before torch is loaded
    import torch

    from tokenlm.audio.mel import MelConfig
    from tokenlm.checkpoint.registry import SPEAKER_ENCODERS, SPEECH_TOKENIZERS, load_model
    from tokenlm.config import load_config
    from training.config import ranks_of_launch
    from training.data.shards.build import Precompute, build_shards
    from training.data.shards.layout import is_complete

    rank, num_ranks = ranks_of_launch()
    device = "cpu"
    if torch.cuda.is_available():
        device = f"cuda:{rank % torch.cuda.device_count()}"
    config = load_config(MelConfig, mel_config) if mel_config is not None else MelConfig()
    work = Precompute(
        tokenizer=load_model(tokenizer, *SPEECH_TOKENIZERS, device=device) if tokenizer else None,
        speaker_encoder=(
            load_model(speaker_encoder, *SPEAKER_ENCODERS, device=device)
            if speaker_encoder
            else None
        ),
        mel=config if mel or mel_config is not None else None,
        audio_rate=audio_rate,
        items_per_shard=items_per_shard,
        max_reject_share=max_rejects,
    )
    rejects = build_shards(rows, output, work, rank=rank, num_ranks=num_ranks)
    num_shards = work.info(rows).num_shards
    done = sum(is_complete(output, number) for number in range(num_shards))
    typer.echo(rejects.report())
    typer.echo(f"{output}: {done} of {num_shards} shards ({', '.join(work.contents)}).")
