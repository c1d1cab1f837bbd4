"""Stage flow: speech tokens, a prompt and a speaker to a mel spectrogram.

    tokenlm train flow

One model learns all contexts: full, and several chunk sizes with and without the bounded window,
one drawn for each step. The prompt is the start of the utterance; its mel and the speaker
embedding come from an augmented copy, because a real prompt is recorded anywhere, while what is to
be rendered is always clean.

Where `reading` is set, the mel that the flow predicts is also asked to be read like its tokens;
see `training.stages.token_reader`. That has an optimizer of its own, so it runs under one process
or DDP.

Shapes: B batch, S samples, N tokens, T mel frames, M mel bins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tokenlm.audio.mel import MelSpectrogram
from tokenlm.audio.resample import resample
from tokenlm.checkpoint.component import save_component
from tokenlm.checkpoint.registry import load_model
from tokenlm.models.flow import FlowConfig, FlowDecoder
from tokenlm.models.flow.decoder import path
from tokenlm.models.onnx_models import OnnxSpeakerEncoder
from tokenlm.models.speaker_encoder import SpeakerEncoder
from tokenlm.models.vocoder import HiFT, Vocoder
from tokenlm.modules.streaming import FULL_CONTEXT, Context
from training.config import RunConfig
from training.data.augment import AugmentConfig
from training.data.collate import pad_mels, pad_tokens, pad_waveforms
from training.data.dataset import AudioItem, UtteranceDataset
from training.data.split import (
    DataConfig,
    check_initial_tokens,
    open_split,
    rejects_file,
    require_tokens,
)
from training.loop.task import Phase, Prepared, StepInfo, Task, frozen
from training.loop.tracking import write_audio_sample, write_mel_picture
from training.losses.flow import envelope_loss, velocity_loss
from training.stages.lora import LoraSettings, add_lora, merged_state, with_additions
from training.stages.token_reader import ReadingConfig, TokenReader, reading_loss


@dataclass(frozen=True, kw_only=True)
class FlowStageConfig(RunConfig):
    """Configuration of the stage."""

    data: DataConfig
    speaker_encoder: Path
    """Component folder of the trained speaker encoder."""
    vocoder: Path | None = None
    """Component folder of a vocoder, to make the samples audible."""
    model: FlowConfig = field(default_factory=FlowConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    lora: LoraSettings | None = None
    """Train low-rank additions in place of all weights."""
    own_speaker: bool = False
    """Whether one speaker embedding is learned for all recordings, which are then of one person;
    otherwise the speaker encoder gives that of each."""
    full_context_share: float = 0.4
    """Share of the steps trained with full context."""
    chunk_tokens: tuple[int, ...] = (6, 12, 25)
    """Chunk sizes drawn in the other steps."""
    bounded_share: float = 0.5
    """Share of the chunked steps whose window is bounded to `model.left_tokens`."""
    no_prompt_share: float = 0.2
    """Share of the items that have no prompt."""
    max_prompt_share: float = 0.7
    """Longest prompt, as a share of the utterance."""
    infill_share: float = 0.0
    """Share of the items of steps with full context whose prompt surrounds a span, as editing needs
    it (Le et al., 2023, Voicebox, section 3)."""
    infill_span: tuple[float, float] = (0.1, 1.0)
    """Shortest and longest span, as shares of the utterance."""
    condition_dropout: float = 0.2
    """Share of the items whose whole condition is dropped, for classifier-free guidance."""
    envelope_bands: int = 0
    """Mel bins that the loss `flow/envelope` averages, an odd number; 0 leaves it out."""
    reading: ReadingConfig | None = None
    """The loss `flow/reading`; None leaves it out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "full_context_share",
            "bounded_share",
            "no_prompt_share",
            "max_prompt_share",
            "condition_dropout",
            "infill_share",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.bounded_share > 0 and self.model.left_tokens is None:
            raise ValueError(
                "bounded_share trains the window of model.left_tokens, which is not set"
            )
        if not 0 < self.infill_span[0] <= self.infill_span[1] <= 1:
            raise ValueError(f"infill_span must rise within (0, 1], got {list(self.infill_span)}")
        if not self.chunk_tokens:
            raise ValueError("chunk_tokens must name at least one chunk size")
        if self.envelope_bands != 0 and (self.envelope_bands < 0 or self.envelope_bands % 2 == 0):
            raise ValueError(f"envelope_bands must be 0 or odd, got {self.envelope_bands}")


class SpeakerVector(nn.Module):
    """A speaker embedding that is learned."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Parameter(initial.clone())


class FlowTask(Task):
    """Trains the flow decoder, of any encoder and estimator."""

    name = "flow"

    def __init__(self, config: FlowStageConfig) -> None:
        self.config = config
        self.mel = MelSpectrogram(config.model.mel)
        self._datasets: dict[str, UtteranceDataset | None] = {}
        self._fingerprint = ""

    def build(self) -> None:
        """See `Task`."""
        config = self.config
        for split in ("train", "valid"):
            self._datasets[split] = open_split(
                config.data,
                split,
                config.model.mel.sample_rate,
                config.augment,
                rejects=rejects_file(config),
            )
        self._fingerprint = require_tokens(self._datasets.values(), config.model.codebook_size)
        check_initial_tokens(config, "flow", self._fingerprint)
        self._speaker_encoder = load_model(
            config.speaker_encoder, SpeakerEncoder, OnnxSpeakerEncoder
        )
        if self._speaker_encoder.config.embedding_dim != config.model.speaker_dim:
            raise ValueError(
                f"model.speaker_dim is {config.model.speaker_dim}, but {config.speaker_encoder} "
                f"gives {self._speaker_encoder.config.embedding_dim} channels"
            )
        self.modules = {"flow": FlowDecoder(config.model)}
        if config.lora is not None:
            add_lora(self.modules["flow"], config.lora)
        if config.own_speaker:
            self.modules["speaker"] = SpeakerVector(self._mean_embedding())
        if config.reading is not None:
            self.modules["reader"] = TokenReader(
                config.reading,
                num_mels=config.model.mel.num_mels,
                frames_per_token=config.model.frames_per_token,
                codebook_size=config.model.codebook_size,
            )

    def adapt_initial(self, module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Task`: plain weights also fit a module with LoRA."""
        return with_additions(module, state)

    def dataset(self, split: str) -> UtteranceDataset | None:
        """See `Task`."""
        return self._datasets[split]

    def collate(self, items: list[AudioItem]) -> dict[str, Tensor]:
        """See `Task`."""
        tokens, num_tokens = pad_tokens([item.utterance.speech_tokens or () for item in items])
        samples = self._samples_per_token * tokens.shape[1]
        clean, _ = pad_waveforms([item.clean[:samples] for item in items], multiple=samples)
        recorded, lengths = pad_waveforms([item.waveform[:samples] for item in items])
        rate = self._speaker_encoder.config.mel.sample_rate
        waveforms = resample(recorded, self.config.model.mel.sample_rate, rate)
        return {
            "tokens": tokens,
            "num_tokens": num_tokens,
            "clean": clean,
            "recorded": nn.functional.pad(recorded, (0, samples - recorded.shape[1])),
            "speaker_waveforms": waveforms,
            "speaker_lengths": (lengths * rate // self.config.model.mel.sample_rate),
        }

    @property
    def _samples_per_token(self) -> int:
        return self.config.model.mel.hop_length * self.config.model.frames_per_token

    def prepare(self, batch: dict[str, Tensor], step: StepInfo) -> Prepared:
        """See `Task`."""
        config = self.config
        device = batch["tokens"].device
        num_items, total = batch["tokens"].shape
        generators = [step.generator(item) for item in range(num_items)]
        draws = torch.stack([torch.rand(6, generator=generator) for generator in generators])
        draws = draws.to(device)
        num_tokens = batch["num_tokens"]
        share = draws[:, 0] * config.max_prompt_share
        share = share * (draws[:, 1] >= config.no_prompt_share)
        pinned = (share * num_tokens).long()
        context = self._context(step)
        # Each item's noise has its own length: that of the batch is chance.
        num_frames = (num_tokens * config.model.frames_per_token).tolist()
        noise, _ = pad_mels(
            [
                torch.randn(frames, config.model.mel.num_mels, generator=generator)
                for frames, generator in zip(num_frames, generators, strict=True)
            ]
        )
        span = torch.stack([pinned, num_tokens], dim=1)
        is_infilled = torch.zeros_like(num_tokens, dtype=torch.bool)
        if config.infill_share and context == FULL_CONTEXT:
            chances = torch.stack([torch.rand(3, generator=one) for one in generators]).to(device)
            is_infilled = chances[:, 0] < config.infill_share
            shortest, longest = config.infill_span
            length = (shortest + (longest - shortest) * chances[:, 1]) * num_tokens
            length = torch.minimum(length.long().clamp(min=1), num_tokens)
            start = ((num_tokens - length + 1) * chances[:, 2]).long()
            inner = torch.stack([start, start + length], dim=1)
            span = torch.where(is_infilled[:, None], inner, span)
            pinned = pinned.where(~is_infilled, 0)
        prepared = self._features(batch, span, is_infilled, draws[:, 4:6])
        x_t, velocity = path(noise.to(device), prepared["x1"], draws[:, 2])
        mask = torch.arange(total, device=device)[None] < num_tokens[:, None]
        tensors = {
            **prepared,
            "x_t": x_t,
            "t": draws[:, 2],
            "velocity": velocity,
            "tokens": batch["tokens"],
            "mask": mask,
            "pinned": pinned,
            "dropped": draws[:, 3] < config.condition_dropout,
            "context": context,
        }
        values = float(num_tokens.sum()) * config.model.frames_per_token * config.model.mel.num_mels
        counts = {"flow/velocity": values}
        if config.envelope_bands:
            counts["flow/envelope"] = values
        if config.reading is not None:
            is_read = (tensors["t"] >= config.reading.min_time) & ~tensors["dropped"]
            is_read &= step.step >= config.reading.start_step
            tensors["is_read"] = is_read[:, None] & mask
            counts["flow/reader"] = float(num_tokens.sum())
            counts["flow/reading"] = float(tensors["is_read"].sum())
        return Prepared(tensors=tensors, counts=counts)

    def _features(
        self, batch: dict[str, Tensor], span: Tensor, is_infilled: Tensor, crop: Tensor
    ) -> dict[str, Tensor]:
        """Target mel, prompt mel and speaker embedding.

        Args:
            batch: as collated.
            span: (B, 2) first token to be rendered, and the one after the last; the rest is prompt.
            is_infilled: (B,) True where the span has to fit its surroundings. Such an item is
                rendered as it was recorded, its room and noise with it; all others are clean.
            crop: (B, 2) size and place of what the speaker encoder hears, in 0 .. 1.
        """
        model = self.config.model
        device = batch["clean"].device
        self.mel.to(device)
        flow = self._flow(self.modules)
        x1 = flow.normalize(self.mel(batch["clean"]))
        recorded = flow.normalize(self.mel(batch["recorded"]))
        x1 = torch.where(is_infilled[:, None, None], recorded, x1)
        frames = torch.arange(x1.shape[1], device=device)[None]
        edges = torch.cat([span, batch["num_tokens"][:, None]], dim=1) * model.frames_per_token
        start, end, total = edges[:, :, None].unbind(dim=1)
        is_prompt = (frames < start) | ((frames >= end) & (frames < total))
        prompt_mel = recorded * is_prompt[..., None]
        # The speaker encoder gets a part of the utterance only: at least 40 %, anywhere.
        pieces = []
        for row, length, (size, place) in zip(
            batch["speaker_waveforms"],
            batch["speaker_lengths"].tolist(),
            crop.tolist(),
            strict=True,
        ):
            count = max(int(length * (0.4 + 0.6 * size)), min(length, 8000))
            first = int((length - count) * place)
            pieces.append(row[first : first + count])
        return {"x1": x1, "prompt_mel": prompt_mel, "speaker_embedding": self._embed(pieces)}

    @torch.no_grad()
    def _mean_embedding(self) -> Tensor:
        """The mean speaker embedding (E,) of the training recordings."""
        rows = self._datasets["train"]
        assert rows is not None
        rate = self._speaker_encoder.config.mel.sample_rate
        total = torch.zeros(self.config.model.speaker_dim)
        for index in range(len(rows)):
            waveform = resample(rows.waveform(index), self.config.model.mel.sample_rate, rate)
            total += nn.functional.normalize(self._embed([waveform])[0], dim=0)
        return nn.functional.normalize(total, dim=0)

    def _embed(self, pieces: list[Tensor]) -> Tensor:
        """Speaker embeddings (B, E) of recordings (S,)."""
        device = pieces[0].device
        encoder = self._speaker_encoder.to(device)
        if isinstance(encoder, OnnxSpeakerEncoder):  # whose graph takes one at a time
            return torch.stack([encoder.embed_recording(piece) for piece in pieces])
        waveforms, lengths = pad_waveforms(pieces)
        return encoder(waveforms, lengths.to(device))

    def _speaker(self, embeddings: Tensor) -> Tensor:
        """What the flow is told of the speakers (B, E), who may be one person."""
        if not self.config.own_speaker:
            return embeddings
        speaker = self.modules["speaker"]
        assert isinstance(speaker, SpeakerVector)
        return speaker.embedding.expand_as(embeddings)

    @staticmethod
    def _flow(modules: Mapping[str, nn.Module]) -> FlowDecoder:
        flow = modules["flow"]
        assert isinstance(flow, FlowDecoder)
        return flow

    def _context(self, step: StepInfo) -> Context:
        # All items of a global batch share one context, so it depends on the step alone.
        draws = torch.rand(3, generator=StepInfo(step.seed, step.step, 0).generator(-1))
        config = self.config
        if float(draws[0]) < config.full_context_share:
            return FULL_CONTEXT
        chunk = config.chunk_tokens[int(float(draws[1]) * len(config.chunk_tokens))]
        bounded = float(draws[2]) < config.bounded_share
        return Context(
            chunk_frames=chunk, left_frames=config.model.left_tokens if bounded else None
        )

    def phases(self) -> list[Phase]:
        """See `Task`."""
        own = ("flow", "speaker") if self.config.own_speaker else ("flow",)
        phases = [Phase("match", own, self._losses)]
        if self.config.reading is not None:
            phases.insert(0, Phase("read", ("reader",), self._read))
        return phases

    def _read(self, prepared: Prepared) -> dict[str, Tensor]:
        tensors = prepared.tensors
        logits = self.modules["reader"](tensors["x1"], tensors["mask"])
        return {"flow/reader": reading_loss(logits, tensors["tokens"], tensors["mask"])}

    def _losses(self, prepared: Prepared) -> dict[str, Tensor]:
        tensors = prepared.tensors
        predicted = self.modules["flow"](
            tensors["x_t"],
            tensors["t"],
            tokens=tensors["tokens"],
            prompt_mel=tensors["prompt_mel"],
            speaker_embedding=self._speaker(tensors["speaker_embedding"]),
            context=tensors["context"],
            mask=tensors["mask"],
            pinned_tokens=tensors["pinned"],
            dropped=tensors["dropped"],
        )
        frame_mask = tensors["mask"].repeat_interleave(self.config.model.frames_per_token, dim=1)
        velocity = tensors["velocity"]
        losses = {"flow/velocity": velocity_loss(predicted, velocity, frame_mask)}
        bands = self.config.envelope_bands
        if bands:
            losses["flow/envelope"] = envelope_loss(predicted, velocity, frame_mask, bands)
        if self.config.reading is not None:
            losses["flow/reading"] = predicted.new_zeros(())
            if bool(tensors["is_read"].any()):
                # Where the path ends if it goes on straight from here.
                x1 = tensors["x_t"] + (1 - tensors["t"])[:, None, None] * predicted.float()
                with frozen(self.modules["reader"]):
                    logits = self.modules["reader"](x1, tensors["mask"])
                losses["flow/reading"] = reading_loss(logits, tensors["tokens"], tensors["is_read"])
        return losses

    def evaluate(
        self, batches: Iterable[dict[str, Tensor]], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Losses with fixed draws, mel distance and readable tokens of rendered speech."""
        totals: dict[str, float] = defaultdict(float)
        for number, batch in enumerate(batches):
            prepared = self.prepare(batch, StepInfo(seed=0, step=number, first_item=0))
            for name, loss in self._losses(prepared).items():
                totals[name] += float(loss)
            totals["values"] += prepared.counts["flow/velocity"]
            if number < 4:
                self._compare(modules, batch, totals)
        frames = max(totals["frames"], 1)
        values = max(totals["values"], 1)
        measured = {
            "velocity": totals["flow/velocity"] / values,
            "mel_distance": totals["distance"] / frames,
        }
        if self.config.envelope_bands:
            measured["envelope"] = totals["flow/envelope"] / values
        if self.config.reading is not None:
            measured["tokens_read"] = totals["read"] / frames
            measured["tokens_read_recorded"] = totals["recorded"] / frames
        return measured

    def _compare(
        self, modules: Mapping[str, nn.Module], batch: dict[str, Tensor], totals: dict[str, float]
    ) -> None:
        """Adds up over frames, with the first third of each utterance as its prompt."""
        flow = self._flow(modules)
        for index in range(min(4, batch["tokens"].shape[0])):
            rendered, target = self._render(flow, batch, index)
            totals["distance"] += float((rendered - target).abs().mean(dim=-1).sum())
            totals["frames"] += target.shape[0]
            if self.config.reading is None:
                continue
            factor = flow.config.frames_per_token
            tokens = batch["tokens"][index, : int(batch["num_tokens"][index])]
            tokens = tokens[len(tokens) // 3 :][None]
            for name, mel in (("read", rendered), ("recorded", target)):
                read = modules["reader"](flow.normalize(mel[None]), torch.ones_like(tokens) > 0)
                totals[name] += float((read.argmax(dim=-1) == tokens).sum()) * factor

    def _render(
        self, flow: FlowDecoder, batch: dict[str, Tensor], index: int
    ) -> tuple[Tensor, Tensor]:
        """Rendered and original mel (T, M) of one item, without its prompt."""
        count = int(batch["num_tokens"][index])
        cut = count // 3
        factor = flow.config.frames_per_token
        tokens = batch["tokens"][index : index + 1, :count]
        self.mel.to(tokens.device)
        mel = self.mel(batch["clean"][index : index + 1])[:, : count * factor]
        length = int(batch["speaker_lengths"][index])
        rendered = flow.generate(
            tokens[:, cut:],
            prompt_tokens=tokens[:, :cut],
            prompt_mel=mel[:, : cut * factor],
            speaker_embedding=self._speaker(
                self._embed([batch["speaker_waveforms"][index, :length]])
            ),
            seed=0,
        )
        return rendered[0], mel[0, cut * factor :]

    def samples(self, folder: Path) -> None:
        """Rendered mels of three validation utterances, and their sound if there is a vocoder."""
        valid = self._datasets["valid"]
        if valid is None:
            return
        flow, folder_of_vocoder = self._flow(self.modules), self.config.vocoder
        vocoder = load_model(folder_of_vocoder, Vocoder, HiFT) if folder_of_vocoder else None
        for index in range(min(3, len(valid))):
            batch = self.collate([valid[index]])
            batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
            rendered, original = (mel.cpu() for mel in self._render(flow, batch, 0))
            write_mel_picture(folder / f"{index}.png", {"original": original, "rendered": rendered})
            if vocoder is not None:
                rate = vocoder.config.mel.sample_rate
                write_audio_sample(folder / f"{index}.wav", vocoder(rendered[None])[0], rate)

    def export(self, folder: Path) -> None:
        """Writes the component `flow`."""
        save_component(
            folder / "flow",
            kind="flow",
            config=replace(self.config.model, infills=self.config.infill_share > 0),
            state_dict=merged_state(self.modules["flow"]),
            dtype=torch.float16,
            extra={"tokenizer": self._fingerprint},
        )
