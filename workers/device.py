"""One thread owns the classifier's device; agents await it; a hung call is abandoned, never waited for."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from workers.errors import ClassifierHung, ClassifierTimeout


class Classifier(Protocol):
    """What the worker needs of a model; what `model.load_classifier` returns has it."""

    name: str
    version: str
    digest: str
    classes: tuple[str, ...]
    languages: tuple[str, ...]
    alert_threshold: float

    def predict(self, examples: Sequence[Any]) -> list[Any]:
        """Return one `model.Prediction` for each `model.Example`."""
        ...


class Device:
    """Runs predictions one at a time, each within a deadline; used from one event loop."""

    def __init__(self, classifier: Classifier, *, timeout_s: float, max_hung: int) -> None:
        self.classifier = classifier
        self._timeout_s = timeout_s
        self._max_hung = max_hung
        self._thread: _Thread | None = None  # started by the first call: it needs the loop
        self._turn = asyncio.Lock()
        self._hung: list[_Thread] = []
        self._busy_s = 0.0

    @property
    def busy_s(self) -> float:
        """Seconds that the classifier has computed, without those of calls that hang."""
        return self._busy_s

    async def predict(self, examples: Sequence[Any]) -> list[Any]:
        """Return the predictions; whatever the classifier raises is raised here.

        Raises:
            ClassifierTimeout: no answer within the deadline; the thread is left behind.
            ClassifierHung: more calls hang than may; the worker must be restarted.
        """
        async with self._turn:
            thread = self._thread = self._thread or _Thread()
            answer = thread.call(lambda: self._compute(examples))
            try:
                predictions: list[Any] = await asyncio.wait_for(answer, self._timeout_s)
                return predictions
            except TimeoutError as error:
                if answer.done() and not answer.cancelled():  # the classifier's own TimeoutError
                    raise
                self._hung = [*(one for one in self._hung if one.is_busy), thread]
                thread.stop()
                self._thread = None
                if len(self._hung) > self._max_hung:
                    raise ClassifierHung(f"{len(self._hung)} calls of the classifier hang: restart") from error
                raise ClassifierTimeout(f"no answer for {len(examples)} posts within {self._timeout_s:g} s") from error

    def stop(self) -> None:
        """Let the thread end; a hung one ends with the process."""
        if self._thread is not None:
            self._thread.stop()

    def _compute(self, examples: Sequence[Any]) -> list[Any]:
        start = time.perf_counter()
        try:
            return self.classifier.predict(examples)
        finally:
            self._busy_s += time.perf_counter() - start


class _Thread:
    """A daemon thread that makes calls in turn: one of `concurrent.futures` would keep the process from exiting."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self.is_busy = False
        threading.Thread(target=self._run, name="device", daemon=True).start()

    def call(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Return the future result of the call."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.is_busy = True
        self._calls.put((function, answer))
        return answer

    def stop(self) -> None:
        """End after the call that runs, if it ever returns."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, answer = call
            result: Any = None
            failure: BaseException | None = None
            try:
                result = function()
            except BaseException as error:  # whatever it is belongs to who awaits the answer
                failure = error
            self.is_busy = False
            with contextlib.suppress(RuntimeError):  # the loop is closed, nobody awaits it any more
                self._loop.call_soon_threadsafe(_settle, answer, result, failure)


def _settle(answer: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if answer.done():  # given up long ago
        return
    if failure is None:
        answer.set_result(result)
    elif isinstance(failure, Exception):
        answer.set_exception(failure)
    else:
        answer.set_exception(RuntimeError(f"the classifier's thread was left by {failure!r}"))


def warm_up(
    classifier: Classifier, example: Any, *, n: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Run the classifier on an example and return the seconds it took; fails early when it cannot."""
    start = clock()
    for _ in range(n):
        classifier.predict([example])
    return clock() - start
