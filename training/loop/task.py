"""The one shape that every training stage has.

The `Trainer` knows nothing of speech: it asks a `Task` for modules, data and losses and does the
rest (order of the data, gradients, schedule, averages of the weights, checkpoints).

One step runs as follows. The micro-batches of the step are collated and moved to the device;
`prepare` turns each into a `Prepared` without gradient and says how many valid targets it holds;
these counts are summed over all micro-batches and ranks; then, phase by phase, the losses (sums)
are divided by the global counts, weighted, and their gradients applied.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from training.loop.randomness import make_generator

if TYPE_CHECKING:
    from training.config import OptimConfig


@dataclass(frozen=True)
class StepInfo:
    """Where a micro-batch stands in the run; the only source of random draws in `prepare`."""

    seed: int
    """Seed of the run."""
    step: int
    """Optimizer step, from 0."""
    first_item: int
    """Number of the first item of this micro-batch within the global batch of the step."""

    def generator(self, item: int, device: torch.device | str = "cpu") -> torch.Generator:
        """Return the generator of one item of the micro-batch.

        Args:
            item: Index of the item within this micro-batch.
            device: Where the draws are made. CPU draws are the same on every machine.

        Returns:
            A fresh generator, a function of (seed, step, position in the global batch) only: the
            split of the global batch into ranks and micro-batches does not change it.
        """
        return make_generator("item", self.seed, self.step, self.first_item + item, device=device)


@dataclass
class Prepared:
    """One micro-batch, ready for the losses.

    A phase may leave something in `tensors` for a later phase of the same step, e.g. the output of
    a generator that the discriminator phase sees detached and the generator phase with gradient.
    """

    tensors: dict[str, Any]
    """Whatever the losses need; the loop does not look inside."""
    counts: dict[str, float]
    """Number of valid targets in this micro-batch for every loss of every phase, by loss name."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What else is to be logged, such as rewards; averaged over the micro-batches of a rank."""


@dataclass
class Phase:
    """One optimizer of a stage: most stages have a single one, adversarial stages have two."""

    name: str
    modules: tuple[str, ...]
    """Keys of `Task.modules` whose parameters this phase, and no other, optimises."""
    losses: Callable[[Prepared], dict[str, Tensor]]
    """Named losses, each a scalar SUM over the valid targets of the micro-batch. Gradients are
    taken with respect to the parameters of `modules` only, other modules may be used freely."""
    starts_at: int = 0
    """The phase is left out before this step."""
    optim: OptimConfig | None = None
    """Optimizer settings of this phase; None takes those of the run."""


class TrainingDataset(Protocol):
    """A map-style dataset.

    A dataset may also have `draw(index, generator) -> item`. The loop then takes the items of the
    split "train" from it rather than from `dataset[index]`, with a generator that is a function of
    (seed, epoch, index) only. This is the place of augmentation: it runs in the workers.
    """

    @property
    def durations(self) -> Sequence[float] | np.ndarray:
        """Seconds of every item, by which the sampler fills its batches."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Task(ABC):
    """A training stage. The loop calls `build` once, before everything else.

    While `evaluate`, `samples` and `export` run, the modules hold the averaged (EMA) weights and
    are in evaluation mode, without gradient. In a step, modules that a phase names are in training
    mode and all others in evaluation mode without gradient.
    """

    name: str
    """Stage name, e.g. "speech_lm"."""
    modules: dict[str, nn.Module]
    """All modules by name; the loop moves them to the device in place."""
    device: torch.device = torch.device("cpu")
    """Where the modules are; set by `to`."""
    full_state: Callable[[nn.Module], Mapping[str, Tensor]] | None = None
    """Set by the loop where trained modules lie in pieces on several ranks: gives the whole weights
    of one of them. All ranks must call it together; `prepare` may."""
    stop_reason: str = ""
    """Set by `evaluate` where the run must not go on: what has become worse, in a sentence."""

    def __init__(self, config: Any) -> None:
        """Keep the config of the stage; nothing is read or made before `build`."""
        self.config = config
        self.modules = {}

    @abstractmethod
    def build(self) -> None:
        """Fill `modules` (and whatever the data needs). The global RNG is seeded before."""

    def adapt_initial(self, module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a component of `initial` under the names of `module`."""
        return state

    def to(self, device: torch.device) -> None:
        """Move all that the stage runs to a device, in place.

        The loop calls this once after `build`: what is no module of the task, such as a recogniser
        that rewards, has to be moved here, too, or a resumed run differs from one that was not.
        """
        self.device = device
        for module in self.modules.values():
            module.to(device)

    @abstractmethod
    def dataset(self, split: str) -> TrainingDataset | None:
        """Return the data of the split "train" or "valid"; None where there is no "valid"."""

    @abstractmethod
    def collate(self, items: list[Any]) -> Any:
        """Pad items of the dataset into one batch of CPU tensors.

        Runs in the workers. A dict, list or tuple or dataclass of tensors is moved to the device.
        """

    def collate_packed(self, items: list[Any], row_sizes: Sequence[int]) -> Any:
        """Lay items behind one another into rows; `row_sizes` are the numbers of items of them.

        Only of a task whose dataset has `packed_durations`, the seconds that items take in a row.
        """
        raise NotImplementedError(f"the stage {self.name} does not pack")

    @abstractmethod
    def prepare(self, batch: Any, step: StepInfo) -> Prepared:
        """Do all that needs no gradient, and all random draws.

        Runs under `torch.no_grad` and in 32 bits: only the losses run under autocast.
        """

    @abstractmethod
    def phases(self) -> list[Phase]:
        """Return the phases in the order in which a step runs them. Called once after `build`."""

    @abstractmethod
    def evaluate(
        self, batches: Iterable[Any], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Measure `modules` on the batches of the split "valid" (already on the device)."""

    def samples(self, folder: Path) -> None:
        """Write audio samples and pictures into `folder`, which exists."""
        return None

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the inference component or components into `folder`."""

    def state(self) -> dict[str, Any]:
        """Return what else a resumed run needs: tensors, numbers, strings, lists and dicts."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        return None


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, gradients run through a module, but not to its parameters: half of the work."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


__all__ = ["Phase", "Prepared", "StepInfo", "Task", "TrainingDataset", "frozen"]
