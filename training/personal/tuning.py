"""Tuning a voice: parts of a bundle learn from takes, one after another, into an adapter.

Each part is a run of its stage by the one training loop. The averaged weights are measured on
held-out takes, before the first step, too; a part is done when they have not improved for a while.
Then lines are spoken with and without what was learned, in the tuned voice and in others; where
anything has become worse, the best state before that one is tried, and at last none. So the result
is never knowingly worse than the voice of a prompt alone, and says what was left out.

```
WORK/            beside the voice, or `tuning` in a project
  plan.json      what was decided once: recipe, prompt, sizes of batches
  takes.jsonl, train.jsonl, valid.jsonl
  flow/, …       runs; candidates/ holds the states that may be taken
  report.json    what the checks said
  pause          while there is such a file, tuning waits
```

The same command goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from tokenlm.atomic import atomic_path, write_text
from tokenlm.audio.io import load_audio
from tokenlm.checkpoint import packaged_configs, resolve
from tokenlm.checkpoint.adapter import (
    SUFFIX,
    AdapterBase,
    AdapterConfig,
    PartChange,
    bundle_fingerprint,
    check_replaceable,
    flatten,
    save_adapter,
)
from tokenlm.checkpoint.bundle import is_bundle_name
from tokenlm.checkpoint.component import read_component
from tokenlm.config import load_config, to_dict
from tokenlm.modules.low_rank import adapted
from tokenlm.synthesis import Synthesizer, Voice
from tokenlm.synthesis.voice import fit_voice
from tokenlm.text.normalize import frontend
from training.data.manifest import Utterance, read_manifest, write_manifest
from training.data.precompute import Precompute, write_tokens
from training.loop.checkpoints import flatten as flat_keys
from training.loop.processes import stop_signals
from training.loop.trainer import Observer, Trainer
from training.personal.config import Part, TuneConfig
from training.personal.memory import (
    TRAINED_BYTES,
    fit_batch,
    free_memory,
    kept_bytes_per_second,
)
from training.personal.spoken_check import Spoken, SpokenCheck, find_worse, spread
from training.run import load_task
from training.stages.flow import SpeakerVector
from training.stages.lora import changes_of

logger = logging.getLogger(__name__)

PAUSE_FILE = "pause"
SHORT_SECONDS = 20.0
"""Takes that are shorter in all are tuned on by the recipe `short`."""
LEVEL_NAMES = {"flow": "velocity", "vocoder": "mel_distance", "speech_lm": "cross_entropy"}
"""Metric of each part on held-out takes; less is better."""
NEAR_RATES = 0.98
"""Of the limits of the LM on speech tokens for each text token: takes beyond are left out."""
WAIT_SECONDS = 1.0
MAX_PROMPTS = 12
"""Takes that are compared as prompts."""


class TuneError(ValueError):
    """A voice that cannot be tuned; the message says why."""


class TuningStopped(Exception):
    """Tuning was asked to stop, and can go on."""


@dataclass(frozen=True)
class TuneProgress:
    """Where tuning is."""

    part: str
    """Part that learns, or what else is being done."""
    share: float
    """Of this part, from 0 to 1."""
    seconds_left: float | None = None
    """Of this part, as far as that can be told; it may be done before."""


@dataclass
class TuneResult:
    """What came of tuning."""

    voice: Path
    adapter: Path | None
    """None where the prompt alone is better."""
    notes: list[str] = field(default_factory=list)
    """What was left out or fallen back from, and why, a sentence each."""
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """When tuning waits, and when it ends."""

    pause_file: Path
    on_battery: bool = False
    """Whether it goes on while the computer runs on its battery."""
    max_celsius: float | None = None
    """Temperature of the processor above which it waits."""
    should_stop: Callable[[], bool] = lambda: False

    def reason(self) -> str:
        """Why to wait now; empty where there is no reason."""
        if self.pause_file.exists():
            return f"{self.pause_file} is there"
        if not self.on_battery:
            battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
            if battery is not None and battery.power_plugged is False:
                return "the computer runs on its battery"
        if self.max_celsius is not None and hasattr(psutil, "sensors_temperatures"):
            found = [
                one.current for group in psutil.sensors_temperatures().values() for one in group
            ]
            if found and max(found) > self.max_celsius:
                return f"the computer has {max(found):.0f} degrees"
        return ""

    def wait(self, is_stopping: Callable[[], bool] = lambda: False) -> float:
        """Wait as long as there is a reason; returns the seconds that took.

        Raises:
            TuningStopped: it is to end.
        """
        began, said = time.monotonic(), ""
        while not (self.should_stop() or is_stopping()):
            reason = self.reason()
            if not reason:
                return time.monotonic() - began
            if reason != said:
                logger.info("paused: %s", reason)
                said = reason
            time.sleep(WAIT_SECONDS)
        raise TuningStopped


class _PartObserver(Observer):
    """Keeps the best states of a part, says when it is done, waits, and reports."""

    def __init__(
        self,
        part: Part,
        folder: Path,
        config: TuneConfig,
        max_steps: int,
        waiting: Waiting,
        on_progress: Callable[[TuneProgress], None],
    ) -> None:
        self.part, self.folder, self.config = part, folder, config
        self._max_steps, self._waiting, self._on_progress = max_steps, waiting, on_progress
        self._began, self._paused, self._first = 0.0, 0.0, 0

    @property
    def history_path(self) -> Path:
        """Measurements by step."""
        return self.folder / "history.json"

    def history(self) -> dict[int, float]:
        """Metric of each step that was measured."""
        if not self.history_path.is_file():
            return {}
        data = json.loads(self.history_path.read_text(encoding="utf-8"))
        return {int(step): value for step, value in data.items()}

    def state_path(self, step: int) -> Path:
        """File of the state at a step."""
        return self.folder / f"step-{step:06d}.safetensors"

    def begins(self, step: int) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        # What came after the checkpoint comes again, and the same.
        history = {known: value for known, value in self.history().items() if known <= step}
        self._write(history)
        self._began, self._first = time.monotonic(), step
        return self._is_converged(history)

    def stepped(self, step: int, is_stopping: Callable[[], bool]) -> bool:
        done = step - self._first
        spent = time.monotonic() - self._began - self._paused
        left = spent / max(done, 1) * (self._max_steps - step)
        self._on_progress(TuneProgress(self.part, step / self._max_steps, left))
        try:
            self._paused += self._waiting.wait(is_stopping)
        except TuningStopped:
            return True
        return False

    def evaluated(
        self, step: int, metrics: Mapping[str, float], modules: Mapping[str, nn.Module]
    ) -> bool:
        history = self.history()
        value = float(metrics[LEVEL_NAMES[self.part]])
        better = [known for before, known in history.items() if before < step]
        history[step] = value
        if step and (not better or value < min(better)):
            self._save(step, modules)
        self._write(history)
        return self._is_converged(history)

    def _is_converged(self, history: Mapping[int, float]) -> bool:
        best = min(history, key=lambda known: (history[known], known), default=0)
        return sum(known > best for known in history) >= self.config.patience

    def _save(self, step: int, modules: Mapping[str, nn.Module]) -> None:
        tensors = flatten({self.part: changes_of(modules[self.part])})
        speaker = modules.get("speaker")
        if isinstance(speaker, SpeakerVector):
            tensors["speaker"] = speaker.embedding.detach().clone()
        with atomic_path(self.state_path(step)) as temporary:
            stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(stored, temporary)
        kept = sorted(self.folder.glob("step-*.safetensors"))
        for old in kept[: -self.config.max_candidates]:
            old.unlink()

    def _write(self, history: Mapping[int, float]) -> None:
        write_text(self.history_path, json.dumps(history, indent=1, sort_keys=True) + "\n")

    def candidates(self) -> list[int]:
        """Steps of the states that are kept, the best first."""
        history = self.history()
        known = [step for step in history if self.state_path(step).is_file()]
        return sorted(known, key=lambda step: history[step])


def recipe_path(name: str | Path) -> Path:
    """A recipe by its path, or its name among those of `configs/personal`.

    Raises:
        TuneError: there is none.
    """
    folder = packaged_configs() / "personal"
    for path in (Path(name), folder / f"{name}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    raise TuneError(f"there is no recipe {str(name)!r}; there are {known}, or give a file.")


def tune(
    takes: Sequence[Utterance],
    output: Path,
    work: Path,
    *,
    bundle: str | Path = "mini-en",
    recipe: str | Path = "",
    overrides: Sequence[str] = (),
    seed: int = 0,
    on_battery: bool = False,
    max_celsius: float | None = None,
    on_progress: Callable[[TuneProgress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TuneResult:
    """Tune a voice on takes of one person.

    Args:
        takes: recordings with their texts.
        output: voice file to write; the adapter is the folder beside it.
        work: folder of the runs, from which a stopped call goes on.
        bundle: name or folder of what is tuned.
        recipe: name or file; by default by the length of the takes.
        overrides: changes to the recipe, `key=value`.
        seed: of all that is drawn.
        on_battery, max_celsius: see `Waiting`.
        on_progress: told of every step.
        should_stop: asked after every step.

    Raises:
        TuneError: there are no takes, they are of several people, or `output` is no name of a
            voice.
        AdapterError: the folder beside `output` holds something else than an adapter.
        TuningStopped: it was stopped; the same call goes on.
        ValueError: the recipe, the bundle or the takes cannot be used.
    """
    if not takes:
        raise TuneError("there is no take to tune on.")
    speakers = sorted({row.speaker for row in takes})
    if len(speakers) > 1:
        raise TuneError(f"the takes are of several people: {', '.join(speakers[:5])}.")
    if output.suffix != ".voice":
        raise TuneError(f"the name of a voice file ends in .voice, not {output.name!r}.")
    # Before the hours that it takes, not after them.
    if not is_bundle_name(output.stem):
        raise TuneError(
            f"{output.stem!r} is not a name of a voice (letters, digits, dot, dash, underscore)."
        )
    check_replaceable(output.with_suffix(SUFFIX))
    seconds = sum(row.duration for row in takes)
    recipe = recipe or ("short" if seconds < SHORT_SECONDS else "evening")
    config = load_config(TuneConfig, recipe_path(recipe), overrides)
    waiting = Waiting(
        pause_file=work / PAUSE_FILE,
        on_battery=on_battery,
        max_celsius=max_celsius,
        should_stop=should_stop,
    )
    folder = resolve(bundle)
    work.mkdir(parents=True, exist_ok=True)
    return _Tuning(
        takes, output, work, folder, config, str(recipe), seed, waiting, on_progress
    ).run()


class _Tuning:
    """One call of `tune`."""

    def __init__(
        self,
        takes: Sequence[Utterance],
        output: Path,
        work: Path,
        bundle: Path,
        config: TuneConfig,
        recipe: str,
        seed: int,
        waiting: Waiting,
        on_progress: Callable[[TuneProgress], None],
    ) -> None:
        self.takes, self.output, self.work, self.bundle = takes, output, work, bundle
        self.config, self.recipe, self.seed = config, recipe, seed
        self.waiting, self.on_progress = waiting, on_progress
        self.synthesizer = Synthesizer.from_pretrained(bundle)
        self.components = self.synthesizer.components
        self.components.check_tokenizer()
        self.plan = self._read_plan()
        self.notes: list[str] = []
        self.figures: dict[str, Any] = {}

    # -- what is decided once --------------------------------------------------------------------

    def _read_plan(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for row in self.takes:
            digest.update(f"{row.id} {row.text} {row.duration:.3f}\n".encode())
        own = {
            "bundle": bundle_fingerprint(self.components.manifest),
            "takes": digest.hexdigest()[:16],
            "seed": self.seed,
            "config": to_dict(self.config),
        }
        path = self.work / "plan.json"
        if path.is_file():
            plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            changed = [name for name, value in own.items() if plan.get(name) != value]
            if changed:
                raise TuneError(
                    f"{self.work} was begun with another {', '.join(changed)}: give the same as "
                    "then to go on, or remove the folder to begin anew."
                )
            return plan
        plan = {**own, "batches": {}}
        self._write_plan(plan)
        return plan

    def _write_plan(self, plan: Mapping[str, Any]) -> None:
        write_text(self.work / "plan.json", json.dumps(plan, indent=1) + "\n")

    def run(self) -> TuneResult:
        """Tune all parts, and write voice and adapter."""
        self.waiting.wait()
        self._say("takes", 0.0)
        train, valid = self._data()
        voice = self._prompt_voice()
        check = SpokenCheck(self.synthesizer, self.config.check, self._mean_embedding())
        before = self._spoken("before", check, voice)
        parts: dict[str, PartChange] = {}
        speaker: Tensor | None = None
        best, best_voice = before, voice
        for part in self.config.parts:
            observer = self._train(part, train, valid)
            found = self._choose(part, observer, parts, speaker, check, before, best, voice)
            if found is not None:
                parts, speaker, best, best_voice = found
        result = self._write(parts, best_voice)
        result.report = {
            "recipe": self.recipe,
            "takes": len(self.takes),
            "seconds": round(sum(row.duration for row in self.takes), 1),
            "before": {name: spoken.means for name, spoken in before.items()},
            "after": {name: spoken.means for name, spoken in best.items()},
            "parts": self.figures,
            "notes": result.notes,
        }
        write_text(self.work / "report.json", json.dumps(result.report, indent=1) + "\n")
        return result

    def _say(self, part: str, share: float) -> None:
        self.on_progress(TuneProgress(part, share))

    # -- data ------------------------------------------------------------------------------------

    def _data(self) -> tuple[Path, Path]:
        """Manifests with tokens to learn from, and to measure on."""
        train, valid = self.work / "train.jsonl", self.work / "valid.jsonl"
        if train.is_file() and valid.is_file():
            self.notes += self.plan.get("notes", [])
            return train, valid
        write_manifest(self.work / "takes.jsonl", self.takes)
        tokens = self.work / "takes.tokens.jsonl"
        work = Precompute(tokenizer=self.components.speech_tokenizer, max_reject_share=0.5)
        write_tokens(read_manifest(self.work / "takes.jsonl"), tokens, work)
        rows = [row for row in read_manifest(tokens).utterances if self._fits(row)]
        if not rows:
            raise TuneError("no take has a text that fits its length.")
        # In an order of their own, so that any part of a session is held out.
        rows.sort(key=lambda row: hashlib.sha256(f"{self.seed} {row.id}".encode()).digest())
        count = round(self.config.held_out_share * len(rows)) if len(rows) >= 4 else 0
        count = min(max(count, 1 if len(rows) >= 4 else 0), self.config.max_held_out)
        if not count:
            self.plan["notes"] = ["there are too few takes to hold any out: all are learned from."]
            self._write_plan(self.plan)
            self.notes += self.plan["notes"]
        write_manifest(valid, rows[:count] or rows)
        write_manifest(train, rows[count:])
        return train, valid

    def _fits(self, row: Utterance) -> bool:
        """Whether the LM may say the text of a take in that many tokens."""
        limits = self.components.speech_lm.config
        ratio = len(row.speech_tokens or ()) / max(self._num_text(row.text), 1)
        low = limits.min_speech_per_text / NEAR_RATES
        if low <= ratio <= limits.max_speech_per_text * NEAR_RATES:
            return True
        logger.info("%s is left out: %.1f speech tokens for each of its text", row.id, ratio)
        return False

    def _num_text(self, text: str) -> int:
        tokenizer = self.components.text_tokenizer
        return len(tokenizer.encode(frontend(tokenizer.config.normalizer).normalize(text)))

    def _takes_rate(self) -> float:
        rows = read_manifest(self.work / "train.jsonl").utterances
        spoken = sum(len(row.speech_tokens or ()) for row in rows)
        return spoken / max(sum(self._num_text(row.text) for row in rows), 1)

    # -- the voice of a prompt ---------------------------------------------------------------------

    def _prompt_voice(self) -> Voice:
        """The voice of the best single prompt, as anybody gets it without tuning."""
        path = self.work / "prompt.voice"
        if path.is_file():
            return Voice.load(path)
        shortest, longest = self.config.prompt_seconds
        rows = list(read_manifest(self.work / "train.jsonl").utterances)
        fitting = [row for row in rows if shortest <= row.duration <= longest] or rows
        fitting = fitting[:MAX_PROMPTS]
        target = self._mean_embedding()
        best = max(fitting, key=lambda row: float(self._embedding(row) @ target))
        voice = self.synthesizer.prepare_voice(best.audio, best.text, name=self.output.stem)
        voice.save(path)
        return Voice.load(path)

    def _embedding(self, row: Utterance) -> Tensor:
        path = self.work / "embeddings.safetensors"
        known = load_file(path) if path.is_file() else {}
        if row.id not in known:
            encoder = self.components.speaker_encoder
            heard = load_audio(row.audio, encoder.config.mel.sample_rate)
            with torch.no_grad():
                found = encoder.embed_recording(heard.to(self.components.device)).cpu()
            known[row.id] = functional.normalize(found, dim=0).contiguous()
            with atomic_path(path) as temporary:
                save_file(known, temporary)
        return known[row.id]

    def _mean_embedding(self) -> Tensor:
        """Mean speaker embedding (E,) of the takes that nothing learns from, or of all."""
        rows = read_manifest(self.work / "valid.jsonl").utterances
        total = torch.stack([self._embedding(row) for row in rows]).sum(dim=0)
        return functional.normalize(total, dim=0)

    # -- a part ----------------------------------------------------------------------------------

    def _train(self, part: Part, train: Path, valid: Path) -> _PartObserver:
        run = self.work / part
        path, overrides = self._stage(part, train, valid, run)
        config, task = load_task(path, overrides)
        observer = _PartObserver(
            part, run / "candidates", self.config, config.optim.max_steps, self.waiting,
            self.on_progress,
        )  # fmt: skip
        if (run / "done").is_file():
            return observer
        if part not in self.plan["batches"]:
            self.plan["batches"][part] = self._batch(part, path, overrides)
            self._write_plan(self.plan)
        overrides += [f"batch.{name}={value}" for name, value in self.plan["batches"][part].items()]
        config, task = load_task(path, overrides)
        self.waiting.wait()
        # The precision of one stage is not that of the next.
        AcceleratorState._reset_state()
        if Trainer(task, config, observer).run() == "signal":
            raise TuningStopped
        write_text(run / "done", "")
        return observer

    def _stage(self, part: Part, train: Path, valid: Path, run: Path) -> tuple[Path, list[str]]:
        """Config of the stage of a part, and what is set in it."""
        kind = read_component(self.bundle / part).kind
        configs = packaged_configs() / "train"
        given: dict[str, Any] = {
            "run": run,
            "seed": self.seed,
            "model": self.bundle / part / "config.yaml",
            f"initial.{part}": self.bundle / part,
            "data.train": train,
            "data.valid": valid,
            "data.max_reject_share": 0.5,
            "data.min_seconds": 0.2,
        }
        if part == "speech_lm":
            name = "speech_lm.finetune"
            given["text_tokenizer"] = self.bundle / "text_tokenizer"
            given["instruction"] = self.components.generation.instruction
        elif part == "flow":
            is_imported = self.components.flow.config.chunks_from == "prompt_start"
            name = "flow.cosyvoice" if is_imported else "flow"
            given["speaker_encoder"] = self.bundle / "speaker_encoder"
        else:
            name = kind
        return configs / f"{name}.yaml", settings_of({**given, **self.config.parts[part]})

    def _batch(self, part: Part, path: Path, overrides: Sequence[str]) -> dict[str, Any]:
        """Sizes of the batches of a part, by the memory that there is now."""
        config, task = load_task(path, overrides)
        with torch.random.fork_rng(devices=[]):
            task.build()
            per_second, num_trained = kept_bytes_per_second(task)
        data = task.dataset("train")
        assert data is not None
        free = self.config.memory_share * free_memory(torch.device("cpu"))
        if torch.cuda.is_available():
            free = self.config.memory_share * free_memory(torch.device("cuda"))
        fitted = fit_batch(
            config.batch, float(max(data.durations)), per_second, free - TRAINED_BYTES * num_trained
        )
        logger.info(
            "%s: %.0f s of audio at once, %d times for a step",
            part, fitted.max_seconds_per_batch, fitted.accumulation,
        )  # fmt: skip
        return {
            "max_seconds_per_batch": fitted.max_seconds_per_batch,
            "accumulation": fitted.accumulation,
            "num_workers": 0,
        }

    # -- choosing --------------------------------------------------------------------------------

    def _choose(
        self,
        part: Part,
        observer: _PartObserver,
        parts: dict[str, PartChange],
        speaker: Tensor | None,
        check: SpokenCheck,
        before: dict[str, Spoken],
        best: dict[str, Spoken],
        prompt: Voice,
    ) -> tuple[dict[str, PartChange], Tensor | None, dict[str, Spoken], Voice] | None:
        """The best state of a part that makes nothing worse; None where there is none.

        It is compared with the best so far, and with what was `before` all parts: a little worse
        by each of them would be too much.
        """
        history, candidates = observer.history(), observer.candidates()
        facts: dict[str, Any] = {
            "held_out": history, "steps": max(history, default=0), "taken": 0, "refused": {},
        }  # fmt: skip
        self.figures[part] = facts
        if not candidates:
            self.notes.append(f"{part}: no step improved on held-out takes; it stays as it is.")
            return None
        for step in candidates:
            change, embedding = _read_state(observer.state_path(step), part)
            trial = {**parts, part: change}
            own = speaker if embedding is None else embedding
            adapter = self.work / f"trial{SUFFIX}"
            self._save_adapter(adapter, trial, {})
            voice = self._tuned_voice(prompt, own, adapter)
            now = self._spoken(f"{part}-{step}", check, voice)
            reasons = [
                f"in {name}, {reason}" if name else reason
                for name, spoken in now.items()
                if (reason := self._worse((best[name], before[name]), spoken, name))
            ]
            if not reasons:
                facts["taken"] = step
                if step != candidates[0]:
                    self.notes.append(f"{part}: fell back to step {step}.")
                return trial, own, now, voice
            facts["refused"][str(step)] = reasons
            self.notes.append(f"{part}: step {step} is not taken: {'; '.join(reasons)}.")
        self.notes.append(f"{part}: stays as it is in the bundle.")
        return None

    def _worse(self, before: Sequence[Spoken], now: Spoken, name: str) -> str:
        rate = None if name else self._takes_rate()
        found = (find_worse(one, now, self.config.check, rate) for one in before)
        return next(filter(None, found), "")

    def _spoken(self, stage: str, check: SpokenCheck, voice: Voice) -> dict[str, Spoken]:
        """Measurements of the voice (named "") and of other voices with its adapter, kept."""
        path = self.work / "spoken" / f"{stage}.json"
        if path.is_file():
            data = json.loads(path.read_text(encoding="utf-8"))
            return {name: Spoken.from_dict(value) for name, value in data.items()}

        def wait() -> None:
            self._say("checking", 0.0)
            self.waiting.wait()

        found = {"": check.measure(voice, is_own=True, wait=wait)}
        for name in spread(self.synthesizer.voices, self.config.check.num_others):
            other = replace(self.synthesizer.voice(name), adapter=voice.adapter)
            found[name] = check.measure(other, is_own=False, wait=wait)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = {name: spoken.to_dict() for name, spoken in found.items()}
        write_text(path, json.dumps(data) + "\n")
        return found

    # -- results ---------------------------------------------------------------------------------

    def _tuned_voice(self, prompt: Voice, speaker: Tensor | None, adapter: Path) -> Voice:
        """The voice of the prompt with the learned embedding, as the adapter's flow renders it."""
        voice = replace(prompt, adapter=str(adapter), mel_offset=None)
        if speaker is not None:
            voice = replace(voice, speaker_embedding=functional.normalize(speaker, dim=0))
        models, generation = self.components.models(voice.adapter), self.components.generation
        additions = models.additions.get("flow")
        with adapted([additions]) if additions else nullcontext():
            return fit_voice(
                models.flow,
                voice,
                replace(generation.voice_fit, num_steps=0),
                context=models.flow.default_context,
                num_steps=generation.num_steps,
                guidance_scale=generation.guidance_scale,
                device=self.components.device,
            )

    def _save_adapter(
        self, folder: Path, parts: Mapping[str, PartChange], provenance: dict[str, Any]
    ) -> None:
        manifest = self.components.manifest
        config = AdapterConfig(
            name=folder.stem,
            base=AdapterBase(name=manifest.name, fingerprint=bundle_fingerprint(manifest)),
            description=f"the voice {self.output.stem}",
            provenance=provenance,
        )
        save_adapter(folder, config, parts)

    def _write(self, parts: Mapping[str, PartChange], voice: Voice) -> TuneResult:
        folder = self.output.with_suffix(SUFFIX)
        if not parts:
            self.notes.append("nothing that was learned is better than the prompt alone.")
            replace(voice, adapter="").save(self.output)
            shutil.rmtree(self.work / f"trial{SUFFIX}", ignore_errors=True)
            return TuneResult(self.output, None, self.notes)
        provenance = {
            "recipe": self.recipe,
            "takes": len(self.takes),
            "seconds": round(sum(row.duration for row in self.takes), 1),
            "steps": {part: self.figures[part]["taken"] for part in self.figures},
        }
        self._save_adapter(folder, parts, provenance)
        replace(voice, adapter=str(folder)).save(self.output)
        shutil.rmtree(self.work / f"trial{SUFFIX}", ignore_errors=True)
        return TuneResult(self.output, folder, self.notes)


def settings_of(given: Mapping[str, Any]) -> list[str]:
    """Settings of a stage, nested as YAML has them, as `key=value`."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        # Weights of losses are given whole: a stage may know others.
        found |= {key: value} if key == "loss_weights" else flat_keys({key: value})
    return [
        f"{key}={json.dumps(str(value) if isinstance(value, Path) else value)}"
        for key, value in found.items()
    ]


def _read_state(path: Path, part: str) -> tuple[PartChange, Tensor | None]:
    """The changes of a candidate, and the speaker embedding that was learned with them."""
    values: dict[str, Tensor] = {}
    factors: dict[str, dict[str, Tensor]] = {}
    speaker = None
    for key, tensor in load_file(path).items():
        name = key.removeprefix(f"{part}/")
        if key == "speaker":
            speaker = tensor
        elif name.endswith((".down", ".up")):
            base, _, end = name.rpartition(".")
            factors.setdefault(base, {})[end] = tensor
        else:
            values[name] = tensor
    pairs = {name: (pair["down"], pair["up"]) for name, pair in factors.items()}
    return PartChange(values, pairs), speaker


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Give what says whether SIGTERM or SIGINT has come; a second one ends the process."""
    asked: list[bool] = []
    with stop_signals(lambda: asked.append(True)):
        yield lambda: bool(asked)


__all__ = ["TuneError", "TuneProgress", "TuneResult", "TuningStopped", "stop_on_signals", "tune"]
