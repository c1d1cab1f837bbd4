"""Work on many machines: an actor pool of Ray takes tasks one at a time.

The driver decides what there is to do, and hands out a task whenever an actor is idle. An actor
that is lost, with its node or alone, is replaced, and its task is given to another one. Tasks must
be repeatable: one that was lost may have been done, or may still be running where the driver no
longer sees it. What they have in common (models, settings) is sent once to every node; the machines
need this package, and the folders that the tasks read and write.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""How long there may be no actor before the log says so."""


class ClusterError(ValueError):
    """Tasks that failed, each with its name and error; all others are done."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Which cluster does the work, and how many actors it gets."""

    address: str
    """`local` for this machine alone, `ray://HOST:10001` from outside a cluster, `auto` or
    `HOST:6379` on one of its machines."""
    num_actors: int = 0
    """Actors; 0 takes as many as there is room for at the start."""
    gpus_per_actor: float = 0.0
    """GPUs of an actor; a fraction lets several share one. 0 computes on the CPU."""
    max_attempts: int = 3
    """How often a task is tried before it counts as failed."""

    def __post_init__(self) -> None:
        if self.num_actors < 0 or self.gpus_per_actor < 0:
            raise ValueError("the number of actors and their GPUs must not be negative")
        if self.gpus_per_actor > 1 and self.gpus_per_actor != int(self.gpus_per_actor):
            raise ValueError(
                f"an actor has a fraction of one GPU or whole ones, not {self.gpus_per_actor:g}"
            )

    @property
    def device(self) -> str:
        """Device of an actor, which sees no GPU but its own."""
        return "cuda" if self.gpus_per_actor else "cpu"

    def run(
        self,
        start: Callable[..., Callable[[Any], Any]],
        facts: tuple[Any, ...],
        tasks: Iterable[tuple[str, Callable[[], Any]]],
    ) -> Generator[tuple[str, Any], None, None]:
        """Do tasks, and yield name and result of each as it is done.

        Args:
            start: Called with `facts` in every actor; what it returns is called with each task. A
                function of a module that all machines can import.
            facts: What all tasks have in common.
            tasks: Name of each task, and what makes it: that is called when an actor is idle, so
                that no more tasks than actors exist at a time.

        Raises:
            ClusterError: If tasks failed at every attempt, once all others are done; or if no
                actor can be started.
        """
        with _connection(self.address) as ray:
            pool = _Pool(ray, self, start, [ray.put(fact) for fact in facts])
            try:
                yield from pool.run(deque(tasks))
            finally:
                pool.close()


@contextmanager
def _connection(address: str) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    import ray

    try:
        dashboard = False if address == "local" else None
        ray.init(address=address, logging_level=logging.WARNING, include_dashboard=dashboard)
    except (ConnectionError, ValueError) as error:
        raise ClusterError(f"there is no cluster at {address}: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


class _Worker:
    """An actor."""

    def __init__(
        self, folder: str, start: Callable[..., Callable[[Any], Any]], *facts: Any
    ) -> None:
        with suppress(OSError):  # so that relative paths mean what they mean to the driver
            os.chdir(folder)
        self._do = start(*facts)

    def ready(self) -> None:
        """Return when the actor has been started."""

    def do(self, task: Any) -> Any:
        """Do a task."""
        return self._do(task)


@dataclass(eq=False)
class _Task:
    name: str
    make: Callable[[], Any]
    num_attempts: int = 0


class _Pool:
    """Actors, and what each of them is doing."""

    def __init__(self, ray: Any, cluster: Cluster, start: Any, facts: list[Any]) -> None:
        self._ray, self._cluster, self._start, self._facts = ray, cluster, start, facts
        self._worker = ray.remote(_Worker).options(num_cpus=1, num_gpus=cluster.gpus_per_actor)
        self._starting: dict[Any, Any] = {}
        """Actor by the answer of `ready` that is waited for."""
        self._busy: dict[Any, tuple[Any, _Task]] = {}
        """Actor and task by the result that is waited for."""
        self._num_failed_starts = 0
        self._start_error = ""

    def _room(self) -> int:
        """Actors that the cluster has room for."""
        resources = self._ray.cluster_resources()
        room = int(resources.get("CPU", 0))
        if self._cluster.gpus_per_actor:
            room = min(room, int(resources.get("GPU", 0) / self._cluster.gpus_per_actor))
        if not room and self._cluster.address == "local":
            raise ClusterError(
                f"this machine has no room for an actor with {self._cluster.gpus_per_actor:g} GPUs"
            )
        return max(room, 1)  # another cluster may be growing

    def _add_actor(self) -> None:
        actor = self._worker.remote(os.getcwd(), self._start, *self._facts)
        self._starting[actor.ready.remote()] = actor

    def run(self, tasks: deque[tuple[str, Callable[[], Any]]]) -> Iterator[tuple[str, Any]]:
        left = deque(_Task(name, make) for name, make in tasks)
        failed: list[str] = []
        room = self._room()
        for _ in range(min(self._cluster.num_actors or room, len(left))):
            self._add_actor()
        while left or self._busy:
            waiting = [*self._busy, *self._starting]
            if not waiting:
                raise ClusterError(f"no actor can be started: {self._start_error}")
            done, _ = self._ray.wait(waiting, num_returns=1, timeout=PATIENCE_SECONDS)
            if not done and not self._busy:
                logger.warning("no node of the cluster has room for an actor; waiting for one")
            for ref in done:
                if ref in self._starting:
                    idle = self._started(ref)
                else:
                    idle, task = self._busy.pop(ref)
                    try:
                        result = self._ray.get(ref)
                    except self._ray.exceptions.RayError as error:
                        if not isinstance(error, self._ray.exceptions.RayTaskError):
                            self._discard(idle)
                            idle = None
                        self._retry(task, error, left, failed)
                    else:
                        yield task.name, result
                if idle is not None and left:
                    self._hand_out(idle, left.popleft())
                elif (
                    len(left) > len(self._starting)
                    and self._num_failed_starts < self._cluster.max_attempts
                ):
                    self._add_actor()
        if failed:
            raise ClusterError("\n".join([f"{len(failed)} tasks failed.", *failed]))

    def _hand_out(self, actor: Any, task: _Task) -> None:
        task.num_attempts += 1
        self._busy[actor.do.remote(task.make())] = (actor, task)

    def _started(self, ref: Any) -> Any:
        """The actor that has been started; None if it could not be."""
        actor = self._starting.pop(ref)
        try:
            self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._discard(actor)
            self._num_failed_starts += 1
            self._start_error = str(error)
            logger.warning("an actor could not be started: %s", error)
            return None
        self._num_failed_starts = 0
        return actor

    def _retry(self, task: _Task, error: Exception, left: deque[_Task], failed: list[str]) -> None:
        cause = getattr(error, "cause", None) or error
        reason = f"{type(cause).__name__}: {cause}"
        if task.num_attempts < self._cluster.max_attempts:
            logger.warning("%s is tried again: %s", task.name, reason)
            left.append(task)
        else:
            logger.error("%s failed %d times: %s", task.name, task.num_attempts, reason)
            failed.append(f"{task.name} failed {task.num_attempts} times: {reason}")

    def _discard(self, actor: Any) -> None:
        with suppress(Exception):  # it is gone already
            self._ray.kill(actor)

    def close(self) -> None:
        """End all actors, whatever they are doing."""
        for actor in [*self._starting.values(), *(actor for actor, _ in self._busy.values())]:
            self._discard(actor)
