"""`tokenlm data precompute`: what models make of the recordings of a manifest, computed once.

The output is a folder of shards (`training.data.shards`), or a manifest whose rows carry speech
tokens. The work is cut into shards before anything is computed, by the order of the manifest alone.
A process takes the shards whose number leaves its rank when divided by the number of processes, and
passes over those that are complete: however often the work is killed and restarted, on however
many processes, an item stands in exactly one shard, or in the rejects of that shard. The processes
never wait for one another; whoever sees that all shards are there writes the summary. A manifest is
made of shards that are removed afterwards.

With a cluster (`training.data.cluster`) this process hands out its missing shards to actors, and
waits until they are there; the bytes are the same.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
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
from tokenlm.console import ProgressBar, track
from tokenlm.models.onnx_models import OnnxSpeakerEncoder
from training.data.cluster import Cluster, ClusterError
from training.data.collate import pad_waveforms
from training.data.manifest import DURATION_TOLERANCE, Manifest, Utterance, row_of, write_manifest
from training.data.rejects import Reject, Rejects, TooManyRejects, parse_rejects, rejects_text
from training.data.shards import (
    INFO,
    ShardInfo,
    ShardStore,
    ShardWriter,
    complete_shards,
    decode_array,
    encode_array,
    open_folder,
    shard_name,
)
from training.data.storage import Folder, is_address, on_disk

VISIBLE_SECONDS = 60.0
"""How late a network file system may show what another machine has written."""


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

    def to(self, device: str) -> Precompute:
        """The same with the models on a device."""
        tokenizer, encoder = self.tokenizer, self.speaker_encoder
        return replace(
            self,
            tokenizer=tokenizer.to(device) if tokenizer else None,
            speaker_encoder=encoder.to(device) if encoder else None,
        )

    def info(self, manifest: Manifest) -> ShardInfo:
        """The description of the shards of a manifest."""
        tokenizer, encoder = self.tokenizer, self.speaker_encoder
        return ShardInfo(
            manifest=manifest.fingerprint,
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
    manifest: Manifest,
    folder: str | Path,
    work: Precompute,
    *,
    rank: int = 0,
    num_ranks: int = 1,
    cluster: Cluster | None = None,
) -> Rejects:
    """Write the shards of this process that are not there yet.

    Args:
        manifest: The rows, bad ones among them.
        folder: Where the shards lie, a path or an address of fsspec.
        work: What goes into them.
        rank: This process.
        num_ranks: Number of processes.
        cluster: Writes the shards in the place of this process.

    Returns:
        The rows that this process could not use, now or before.

    Raises:
        ValueError: If there is no good row, or the folder was begun with other settings.
        TooManyRejects: If more than the allowed share of the rows cannot be used, or none can.
        ClusterError: If shards could not be written by the cluster; the others are there.
    """
    if not manifest.utterances:
        raise ValueError(f"there is nothing to precompute. {manifest.report()}")
    info = work.info(manifest)
    target = Folder(folder)
    open_folder(target, info)
    numbers = range(rank, info.num_shards, num_ranks)
    # Of processes that were killed; a shard has one owner, so nobody is at work on it.
    target.remove_leftovers({shard_name(number) for number in numbers})
    if cluster is not None:
        _build_on_cluster(manifest, target, work, info, numbers, cluster)
    rejects = _count_bad_rows(manifest, info, work, is_first=rank == 0)
    complete = complete_shards(target, info)
    for number in track(numbers, "shards") if rank == 0 and cluster is None else numbers:
        rows = info.items(number)
        if number in complete:
            found = _read_rejects(target, number)
        else:
            found = _write_shard(_part(manifest, rows), ShardWriter(target, number), work)
        for reject in found:
            rejects.reject(reject)
        rejects.accept(len(rows) - len(found))
    rejects.check()
    summarise(manifest, target, info, work.max_reject_share)
    return rejects


def _count_bad_rows(
    manifest: Manifest, info: ShardInfo, work: Precompute, *, is_first: bool
) -> Rejects:
    """Begin to count rejects; the first process counts the bad rows of the manifest."""
    num_rows = info.num_items + len(manifest.bad_rows)
    rejects = Rejects(None, work.max_reject_share, num_expected=num_rows)
    if is_first:
        for bad in manifest.bad_rows:
            rejects.reject(Reject(manifest.name, bad.line, bad.reason))
    return rejects


def _part(manifest: Manifest, rows: range) -> Manifest:
    """The good rows of one shard."""
    part = manifest.utterances[rows.start : rows.stop]
    return replace(manifest, utterances=part, bad_rows=[])


def _read_rejects(folder: Folder, number: int) -> list[Reject]:
    return parse_rejects(folder.read_text(f"{shard_name(number)}.rejects.jsonl"))


def _build_on_cluster(
    manifest: Manifest,
    folder: Folder,
    work: Precompute,
    info: ShardInfo,
    numbers: range,
    cluster: Cluster,
) -> None:
    """Let a cluster write the shards that are missing.

    Raises:
        TooManyRejects: As soon as more than the allowed share of all rows is known to be bad.
        ClusterError: If shards could not be written, or are not in the folder afterwards.
    """
    complete = complete_shards(folder, info)
    missing = [number for number in numbers if number not in complete]
    if not missing:
        return
    rejects = _count_bad_rows(manifest, info, work, is_first=True)
    for number in complete:
        for reject in _read_rejects(folder, number):
            rejects.reject(reject)

    def make(number: int) -> tuple[int, Manifest]:
        part = _part(manifest, info.items(number))
        return number, replace(part, utterances=part.utterances.detached())

    tasks = [(shard_name(number), partial(make, number)) for number in missing]
    rows = "" if manifest.address else str(manifest.path.parent)
    facts = (work.to("cpu"), folder.name, rows, cluster.device)
    with closing(cluster.run(_start_actor, facts, tasks)) as results, ProgressBar("shards") as bar:
        for number, (_, found) in enumerate(results, start=1):
            bar.update(number / len(tasks))
            for reject in found:
                rejects.reject(reject)
    end = time.monotonic() + VISIBLE_SECONDS
    while hidden := set(missing) - complete_shards(folder, info):
        if time.monotonic() > end:
            raise ClusterError(
                f"{shard_name(min(hidden))} was written, but is not in {folder}: all machines must "
                "share that folder"
            )
        time.sleep(1.0)


def _start_actor(
    work: Precompute, folder: str, rows: str, device: str
) -> Callable[[tuple[int, Manifest]], list[Reject]]:
    """In an actor: return what writes the shard of a number and its rows."""
    target = Folder(folder)
    for needed in filter(None, (target.path, rows)):
        if not os.path.isdir(needed):
            raise FileNotFoundError(f"the machine {platform.node()} does not see {needed}")
    work = work.to(device)

    def write(task: tuple[int, Manifest]) -> list[Reject]:
        number, part = task
        return _write_shard(part, ShardWriter(target, number), work)

    return write


def summarise(
    manifest: Manifest, folder: Folder, info: ShardInfo, max_share: float
) -> Rejects | None:
    """Write rejects.jsonl of the whole folder if all shards are there; else return None.

    Raises:
        TooManyRejects: If the share over the whole folder is over the limit, or no row is good.
    """
    if len(complete_shards(folder, info)) < info.num_shards:
        return None
    total = Rejects(None, 1.0)
    for bad in manifest.bad_rows:
        total.reject(Reject(manifest.name, bad.line, bad.reason))
    for number in range(info.num_shards):
        for reject in _read_rejects(folder, number):
            total.reject(reject)
    total.accept(info.num_items + len(manifest.bad_rows) - total.num_seen)
    folder.write_text("rejects.jsonl", rejects_text(total.found))
    where = folder.file("rejects.jsonl")
    if total.num_bad > max_share * total.num_seen:
        raise TooManyRejects(
            f"{total.num_bad} of {total.num_seen} rows cannot be used, more than the allowed share "
            f"of {max_share:g}; all of them: {where}"
        )
    if total.num_bad == total.num_seen:
        raise TooManyRejects(
            f"none of the {total.num_seen} rows can be used; why: {where}. "
            f"Remove {folder} to try again. The first one:\n{total.found[0]}"
        )
    return total


def _write_shard(manifest: Manifest, writer: ShardWriter, work: Precompute) -> list[Reject]:
    """Write the shard of the rows of a manifest."""
    rejects: list[Reject] = []
    try:
        with on_disk(manifest) as (part, addresses):
            members: dict[int, dict[str, bytes]] = {}
            for batch in _batches(part.utterances.column("duration"), work.max_seconds_per_batch):
                members.update(_compute(part, batch, work, rejects))
        for index, row in enumerate(part.utterances):
            if index in members:
                writer.add(_metadata(row, members[index]), members[index])
        rejects = [_with_address(reject, addresses) for reject in rejects]
        rejects.sort(key=lambda reject: reject.line or 0)
        writer.commit(rejects)
    except BaseException:
        writer.discard()
        raise
    return rejects


def _with_address(reject: Reject, addresses: dict[str, str]) -> Reject:
    """Name the address of a file that was fetched, and not the copy."""
    for path, address in addresses.items():
        if path in reject.reason:
            return replace(reject, reason=reject.reason.replace(path, address))
    return reject


def write_tokens(
    manifest: Manifest,
    output: str | Path,
    work: Precompute,
    *,
    rank: int = 0,
    num_ranks: int = 1,
    cluster: Cluster | None = None,
) -> Rejects:
    """Write a manifest whose rows carry speech tokens, and the rejects file beside it.

    Args:
        manifest: The rows, bad ones among them.
        output: The manifest to write; audio paths are made relative to its folder.
        work: Speech tokens, and nothing else.
        rank: This process.
        num_ranks: Number of processes; whichever is done last writes the output.
        cluster: Computes the tokens in the place of this process.

    Returns:
        The rows that this process could not use, now or before.

    Raises:
        ValueError: If there is no good row, something else is to be computed, or the output is
            the manifest itself or not on a disk.
        TooManyRejects: If more than the allowed share of the rows cannot be used, or none can.
    """
    from filelock import FileLock

    if work.contents != ("tokens",):
        raise ValueError(
            f"a manifest holds speech tokens only, not {', '.join(work.contents)}: give a folder "
            "as the output, for shards"
        )
    if is_address(output) or manifest.address:
        raise ValueError(
            "a manifest with speech tokens is written from one on a disk, and to a disk: give a "
            "folder as the output, for shards, which may lie at any address"
        )
    output = Path(output)
    if output.resolve() == manifest.path.resolve():
        raise ValueError(f"{output} is the manifest itself: give another file as the output")
    info = work.info(manifest)
    state = hashlib.sha256(info.to_json().encode()).hexdigest()[:16]
    folder = output.with_name(f".{output.stem}.{state}.partial")
    ranks = {"rank": rank, "num_ranks": num_ranks}
    rejects = build_shards(manifest, folder, work, **ranks, cluster=cluster)
    if len(complete_shards(Folder(folder), info)) == info.num_shards:
        with FileLock(folder / ".lock"):
            if (folder / INFO).exists():  # else another process has written it meanwhile
                write_manifest(output, _rows_with_tokens(manifest, ShardStore(str(folder))))
                os.replace(folder / "rejects.jsonl", output.with_suffix(".rejects.jsonl"))
                shutil.rmtree(folder)
    return rejects


def _rows_with_tokens(manifest: Manifest, store: ShardStore) -> Iterator[Utterance]:
    done = store.rows(Rejects(None, 0.0))
    done.table.forget()
    rest = iter(done)
    other = next(rest, None)
    for row in manifest.utterances:
        if other is not None and other.id == row.id:
            tokens = tuple(other.speech_tokens or ())
            yield replace(row, speech_tokens=tokens, tokenizer=store.info.tokenizer)
            other = next(rest, None)


def _metadata(utterance: Utterance, members: dict[str, bytes]) -> dict[str, Any]:
    """The row of an item: that of the manifest without what only the tar holds."""
    bare = replace(utterance, speech_tokens=None, tokenizer=None)
    row = row_of(bare, utterance.audio.parent)
    row["audio"] = utterance.audio.name
    if "tokens" in members:
        row["num_tokens"] = len(decode_array(members["tokens"]))
    return row


def _batches(durations: np.ndarray, max_seconds: float) -> list[list[int]]:
    batches: list[list[int]] = []
    for index in np.argsort(durations, kind="stable").tolist():
        if not batches or (len(batches[-1]) + 1) * durations[index] > max_seconds:
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
            line = int(manifest.lines[index])
            rejects.append(Reject(manifest.name, line, str(error)))
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
