"""One thread owns the classifier's device; agents await it; a hung call is abandoned, never waited for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from workers.errors import ClassifierHung, ClassifierTimeout


class Classifier(Protocol):
    """What the worker needs of a model; `model.RationaleClassifier` has it."""

    name: str
    version: str
    digest: str
    classes: tuple[str, ...]
    alert_threshold: float

    def predict(self, examples: Sequence[Any]) -> list[Any]:
        """Return one `model.Prediction` for each `model.Example`."""
        ...


class Device:
    """Runs predictions one at a time, each within a deadline."""

    def __init__(self, classifier: Classifier, *, timeout_s: float, max_hung: int) -> None:
        self.classifier = classifier
        self._timeout_s = timeout_s
        self._max_hung = max_hung
        self._executor = _new_executor()
        self._turn = asyncio.Lock()
        self._hung: list[threading.Event] = []
        self.busy_s = 0.0

    async def predict(self, examples: Sequence[Any]) -> list[Any]:
        """Return the predictions; whatever the classifier raises is raised here.

        Raises:
            ClassifierTimeout: no answer within the deadline; the thread is left behind.
            ClassifierHung: more calls hang than may; the worker must be restarted.
        """
        async with self._turn:
            done = threading.Event()
            future = asyncio.get_running_loop().run_in_executor(self._executor, self._call, examples, done)
            try:
                return await asyncio.wait_for(asyncio.shield(future), self._timeout_s)
            except TimeoutError as error:
                future.add_done_callback(_retrieve)
                self._executor.shutdown(wait=False)
                self._executor = _new_executor()
                self._hung = [event for event in self._hung if not event.is_set()] + [done]
                if len(self._hung) > self._max_hung:
                    raise ClassifierHung(f"{len(self._hung)} calls of the classifier hang: restart") from error
                raise ClassifierTimeout(f"no answer for {len(examples)} posts within {self._timeout_s:g} s") from error

    def stop(self) -> None:
        """Let the thread end; a hung one is a daemon's business of the process exit."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _call(self, examples: Sequence[Any], done: threading.Event) -> list[Any]:
        start = time.perf_counter()
        try:
            return self.classifier.predict(examples)
        finally:
            self.busy_s += time.perf_counter() - start
            done.set()


def _new_executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Take a late answer's error, so that asyncio does not report it as never retrieved."""
    if not future.cancelled():
        future.exception()


def warm_up(
    classifier: Classifier, example: Any, *, n: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Run the classifier on an example and return the seconds it took; fails early when it cannot."""
    start = clock()
    for _ in range(n):
        classifier.predict([example])
    return clock() - start
