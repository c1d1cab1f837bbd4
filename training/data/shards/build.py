"""`tokenlm data precompute`: a manifest to shards, on any number of processes.

The work is cut into shards before anything is computed, by the order of the manifest alone. A
process takes the shards whose number leaves its rank when divided by the number of processes, and
passes over those that are complete: however often the work is killed and restarted, on however
many processes, an item stands in exactly one shard, or in the rejects of that shard. The processes
never wait for one another; whoever sees that all shards are there writes the summary.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from tokenlm.audio.io import AudioError, load_audio
from tokenlm.audio.mel import MelConfig, MelSpectrogram
from tokenlm.checkpoint.registry import AnySpeakerEncoder, AnySpeechTokenizer
from tokenlm.config import to_dict
from tokenlm.console import track
from tokenlm.models.onnx_models import OnnxSpeakerEncoder
from training.data.collate import pad_waveforms
from training.data.manifest import Manifest, Utterance, row_of
from training.data.rejects import Reject, Rejects, TooManyRejects, read_rejects
from training.data.shards.layout import (
    ShardInfo,
    ShardWriter,
    decode_array,
    encode_array,
    is_complete,
    open_folder,
    shard_name,
)

DURATION_TOLERANCE = 0.1
"""Seconds that the sound may differ from what the manifest says."""


@dataclass(frozen=True, kw_only=True)
class Precompute:
    """What goes into the shards, and by which models."""

    tokenizer: AnySpeechTokenizer | None = None
    speaker_encoder: AnySpeakerEncoder | None = None
    mel: MelConfig | None = None
    audio_rate: int = 0
    """Sample rate of the sound that is stored; 0 stores none."""
    items_per_shard: int = 1000
    max_reject_share: float = 0.05
    max_seconds_per_batch: float = 60.0
    """Padded seconds that the tokenizer takes at once."""

    def __post_init__(self) -> None:
        if self.items_per_shard < 1:
            raise ValueError(f"a shard holds at least one item, not {self.items_per_shard}")
        if not self.contents:
            raise ValueError(
                "there is nothing to precompute: give a tokenizer, a speaker encoder, mel or audio"
            )

    @property
    def contents(self) -> tuple[str, ...]:
        """Kinds of members."""
        wanted = {
            "tokens": self.tokenizer is not None,
            "embedding": self.speaker_encoder is not None,
            "mel": self.mel is not None,
            "audio": self.audio_rate > 0,
        }
        return tuple(kind for kind, is_wanted in wanted.items() if is_wanted)

    @property
    def shortest(self) -> tuple[int, str]:
        """Samples that a recording must have, and what they make up."""
        bounds = [(1, "a sample")]
        if self.tokenizer is not None:
            bounds.append((self.tokenizer.config.samples_per_token, "a speech token"))
        if isinstance(self.speaker_encoder, OnnxSpeakerEncoder):
            bank = self.speaker_encoder.config.mel
            bounds.append((bank.win_length, "a frame of the speaker encoder"))
        return max(bounds)

    def info(self, manifest: Manifest) -> ShardInfo:
        """The description of the shards of a manifest."""
        tokenizer, encoder = self.tokenizer, self.speaker_encoder
        return ShardInfo(
            manifest=manifest_fingerprint(manifest),
            num_items=len(manifest.utterances),
            items_per_shard=self.items_per_shard,
            contents=self.contents,
            tokenizer=tokenizer.fingerprint if tokenizer else "",
            codebook_size=tokenizer.config.codebook_size if tokenizer else 0,
            token_rate=tokenizer.config.token_rate if tokenizer else 0.0,
            speaker_encoder=encoder_digest(encoder) if encoder else "",
            mel=to_dict(self.mel) if self.mel else {},
            audio_rate=self.audio_rate,
        )


def manifest_fingerprint(manifest: Manifest) -> str:
    """Hash of the good rows of a manifest, in order; where the files lie does not matter."""
    digest = hashlib.sha256()
    for row in manifest.utterances:
        facts = [row.id, row.audio.name, row.text, row.speaker, row.duration]
        digest.update(json.dumps(facts).encode())
    return digest.hexdigest()[:16]


def encoder_digest(encoder: AnySpeakerEncoder) -> str:
    """Hash of the weights at the precision of a released bundle; of a graph, that of its file."""
    if isinstance(encoder, OnnxSpeakerEncoder):
        return hashlib.sha256(encoder.graph.graph.cpu().numpy().tobytes()).hexdigest()[:16]
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def build_shards(
    manifest: Manifest, folder: Path, work: Precompute, *, rank: int = 0, num_ranks: int = 1
) -> Rejects:
    """Write the shards of this process that are not there yet.

    Args:
        manifest: The rows, bad ones among them.
        folder: Where the shards lie.
        work: What goes into them.
        rank: This process.
        num_ranks: Number of processes.

    Returns:
        What this process has set aside, now or before.

    Raises:
        ValueError: If there is no good row, or the folder was begun with other settings.
        TooManyRejects: If more than the allowed share of the rows cannot be used.
    """
    if not manifest.utterances:
        raise ValueError(f"there is nothing to precompute. {manifest.report()}")
    info = work.info(manifest)
    open_folder(folder, info)
    _remove_leftovers(folder, range(rank, info.num_shards, num_ranks))
    num_rows = info.num_items + len(manifest.bad_rows)
    rejects = Rejects(None, work.max_reject_share, num_expected=num_rows)
    if rank == 0:
        for bad in manifest.bad_rows:
            rejects.reject(Reject(str(manifest.path), bad.line, bad.reason))
    numbers = range(rank, info.num_shards, num_ranks)
    for number in track(numbers, "shards") if rank == 0 else numbers:
        first = number * work.items_per_shard
        size = min(work.items_per_shard, info.num_items - first)
        if is_complete(folder, number):
            found = read_rejects(folder / f"{shard_name(number)}.rejects.jsonl")
        else:
            rows = range(first, first + size)
            found = _write_shard(manifest, rows, ShardWriter(folder, number), work)
        for reject in found:
            rejects.reject(reject)
        rejects.accept(size - len(found))
    rejects.check()
    summarise(manifest, folder, info, work.max_reject_share)
    return rejects


def _remove_leftovers(folder: Path, numbers: range) -> None:
    # Of processes that were killed; a shard has one owner, so nobody is at work on them.
    for number in numbers:
        for path in folder.glob(f".{shard_name(number)}.*"):
            path.unlink(missing_ok=True)


def summarise(
    manifest: Manifest, folder: Path, info: ShardInfo, max_share: float
) -> Rejects | None:
    """Write rejects.jsonl of the whole folder if all shards are there; else return None.

    Raises:
        TooManyRejects: If the share over the whole folder is over the limit.
    """
    if not all(is_complete(folder, number) for number in range(info.num_shards)):
        return None
    total = Rejects(folder / f".rejects.{os.getpid()}", 1.0)
    for bad in manifest.bad_rows:
        total.reject(Reject(str(manifest.path), bad.line, bad.reason))
    for number in range(info.num_shards):
        for reject in read_rejects(folder / f"{shard_name(number)}.rejects.jsonl"):
            total.reject(reject)
    total.accept(info.num_items + len(manifest.bad_rows) - total.num_seen)
    os.replace(folder / f".rejects.{os.getpid()}", folder / "rejects.jsonl")
    if total.num_bad > max_share * total.num_seen:
        raise TooManyRejects(
            f"{total.num_bad} of {total.num_seen} rows cannot be used, more than the allowed share "
            f"of {max_share:g}; all of them: {folder / 'rejects.jsonl'}"
        )
    return total


def _write_shard(
    manifest: Manifest, rows: range, writer: ShardWriter, work: Precompute
) -> list[Reject]:
    rejects: list[Reject] = []
    try:
        members: dict[int, dict[str, bytes]] = {}
        for batch in _batches(manifest, rows, work.max_seconds_per_batch):
            members.update(_compute(manifest, batch, work, rejects))
        for index in rows:
            if index in members:
                writer.add(_metadata(manifest.utterances[index], members[index]), members[index])
    except BaseException:
        writer.discard()
        raise
    rejects.sort(key=lambda reject: reject.line or 0)
    writer.commit(rejects)
    return rejects


def _metadata(utterance: Utterance, members: dict[str, bytes]) -> dict[str, Any]:
    """The row of an item: that of the manifest without what only the tar holds."""
    bare = replace(utterance, speech_tokens=None, tokenizer=None)
    row = row_of(bare, utterance.audio.parent)
    row["audio"] = utterance.audio.name
    if "tokens" in members:
        row["num_tokens"] = len(decode_array(members["tokens"]))
    return row


def _batches(manifest: Manifest, rows: range, max_seconds: float) -> list[list[int]]:
    order = sorted(rows, key=lambda index: manifest.utterances[index].duration)
    batches: list[list[int]] = []
    for index in order:
        seconds = manifest.utterances[index].duration
        if not batches or (len(batches[-1]) + 1) * seconds > max_seconds:
            batches.append([])
        batches[-1].append(index)
    return batches


def _compute(
    manifest: Manifest, batch: list[int], work: Precompute, rejects: list[Reject]
) -> dict[int, dict[str, bytes]]:
    """The members of the good items of one batch."""
    members: dict[int, dict[str, bytes]] = {}

    def each(function: Callable[[int], bytes], kind: str) -> None:
        for index in list(members):
            members[index][kind] = function(index)

    speech: dict[int, Tensor] = {}
    rate = work.tokenizer.config.mel.sample_rate if work.tokenizer else 16_000
    shortest, unit = work.shortest
    for index in batch:
        utterance = manifest.utterances[index]
        try:
            waveform = load_audio(utterance.audio, rate)
            if waveform.shape[0] < shortest:
                raise AudioError(f"{utterance.audio} is shorter than {unit}.")
            seconds = waveform.shape[0] / rate
            if abs(seconds - utterance.duration) > DURATION_TOLERANCE:
                raise AudioError(
                    f"'duration' is {utterance.duration:.2f} s, but {utterance.audio} has "
                    f"{seconds:.2f} s."
                )
        except AudioError as error:
            rejects.append(Reject(str(manifest.path), manifest.lines[index], str(error)))
            continue
        speech[index] = waveform
        members[index] = {}
    if not speech:
        return {}
    if work.tokenizer is not None:
        tokens = _tokens(work.tokenizer, [*speech.values()])
        by_index = dict(zip(speech, tokens, strict=True))
        each(lambda index: by_index[index], "tokens")
    if work.speaker_encoder is not None:
        encoder = work.speaker_encoder
        each(lambda index: _embedding(encoder, speech[index], rate), "embedding")
    if work.mel is not None:
        config = work.mel
        each(lambda index: _mel(config, manifest.utterances[index].audio), "mel")
    if work.audio_rate:
        each(lambda index: _flac(manifest.utterances[index].audio, work.audio_rate), "audio")
    return members


def _tokens(tokenizer: AnySpeechTokenizer, waveforms: list[Tensor]) -> list[bytes]:
    device = next(iter(tokenizer.state_dict().values())).device
    waveform, lengths = pad_waveforms(waveforms)
    tokens, counts = tokenizer.encode(waveform.to(device), lengths.to(device))
    dtype = np.uint16 if tokenizer.config.codebook_size <= 2**16 else np.uint32
    rows = tokens.cpu().numpy().astype(dtype)
    return [encode_array(row[:count]) for row, count in zip(rows, counts.tolist(), strict=True)]


@torch.no_grad()
def _embedding(encoder: AnySpeakerEncoder, waveform: Tensor, rate: int) -> bytes:
    wanted = encoder.config.mel.sample_rate
    if wanted != rate:
        raise ValueError(f"the speaker encoder hears {wanted} Hz, the tokenizer {rate} Hz")
    waveform = waveform.to(next(iter(encoder.state_dict().values())).device)
    if isinstance(encoder, OnnxSpeakerEncoder):  # whose graph takes one at a time
        return encode_array(encoder.embed_recording(waveform).float().cpu().numpy())
    lengths = torch.tensor([waveform.shape[0]], device=waveform.device)
    return encode_array(encoder(waveform[None], lengths)[0].float().cpu().numpy())


@torch.no_grad()
def _mel(config: MelConfig, audio: Path) -> bytes:
    waveform = load_audio(audio, config.sample_rate)
    return encode_array(MelSpectrogram(config)(waveform[None])[0].half().numpy())


def _flac(audio: Path, rate: int) -> bytes:
    file = io.BytesIO()
    waveform = load_audio(audio, rate).clamp(-1, 1)
    soundfile.write(file, waveform.numpy(), rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()
