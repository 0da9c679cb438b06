"""BackgroundTraining: one training at a time, elsewhere; its result is fetched when it is ready.

It does not know what is trained. A training is a pure function of what it is given, for it may run
in a process of its own, so that the serving process never waits for it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar

NICENESS = 10
"""Of 19: a training takes a tenth of the processor from one who wants all of it: a decision."""

P = ParamSpec("P")
T = TypeVar("T")


class BackgroundTraining(Generic[T]):
    """At most one training under way.

    Args:
        start_executor: where to train; called at the first training and after a failed one.

    Attributes:
        failures: trainings that ended without a result.
    """

    def __init__(self, start_executor: Callable[[], Executor]) -> None:
        self._start_executor = start_executor
        self._executor: Executor | None = None
        self._training: Future[T] | None = None
        self.failures = 0

    @property
    def is_under_way(self) -> bool:
        """Whether a result has not been fetched yet."""
        return self._training is not None

    def start(self, train: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run *train*; none must be under way."""
        if self._executor is None:
            self._executor = self._start_executor()
        try:
            self._training = self._executor.submit(train, *args, **kwargs)
        except RuntimeError:  # its process has died, or it was shut down
            self._fail()

    def fetch(self) -> T | None:
        """The result, once; None while there is none, and after a failure."""
        if self._training is None or not self._training.done():
            return None
        training, self._training = self._training, None
        if training.cancelled() or training.exception() is not None:
            self._fail()
            return None
        return training.result()

    def close(self) -> None:
        """Give up the process; a training that runs ends by itself."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    def _fail(self) -> None:
        """The next training starts a process of its own."""
        self.failures += 1
        self.close()


def training_process() -> Executor:
    """A process to train in; it starts with the first training."""
    return ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_step_back,
    )


def _step_back() -> None:
    """Leave interrupts to the serving process, and the processor too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)


class TrainingInPlace(Executor):
    """Trains at once, in the caller's time: for virtual time, where it costs none."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run *fn* and return its finished future; what it raises is raised here."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future
