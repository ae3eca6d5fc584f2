"""One thread owns the classifier's device, another encodes what comes next; no hung call is ever waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from workers.errors import ClassifierHung, ClassifierTimeout
from workers.lane import CallHung, Lane


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


@runtime_checkable
class Encoding(Protocol):
    """A classifier that can do a part of `predict` ahead, in another thread than the device's."""

    def encode(self, examples: Sequence[Any]) -> list[Any]:
        """Return examples that predict the same bytes sooner."""
        ...


@runtime_checkable
class Triaging(Protocol):
    """A classifier that has a cheap first look at texts."""

    def triage(self, texts: Sequence[str]) -> list[float]:
        """Return how likely each text tells of damage or casualties."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """The answer of one call of the classifier, and how long its device took."""

    predictions: list[Any]
    compute_s: float


class Device:
    """Runs calls of the classifier one at a time, each within a deadline; used from one event loop."""

    def __init__(self, classifier: Classifier, *, timeout_s: float, max_hung: int) -> None:
        self.classifier = classifier
        self._max_hung = max_hung
        self._device = Lane("device", timeout_s=timeout_s)
        self._encoder = Lane("encode", timeout_s=timeout_s)
        self._hung: list[Callable[[], bool]] = []
        self._busy_s = 0.0

    @property
    def busy_s(self) -> float:
        """Seconds that the device's thread has computed, without those of calls that hang."""
        return self._busy_s

    @property
    def can_triage(self) -> bool:
        """Whether the classifier has a cheap first look at texts."""
        return isinstance(self.classifier, Triaging)

    async def encode(self, examples: Sequence[Any]) -> Sequence[Any]:
        """Return the examples with what needs no device done, while the device computes others.

        Raises what the classifier raises, and the same as `predict`.
        """
        classifier = self.classifier
        if not isinstance(classifier, Encoding):
            return examples
        encoded: list[Any] = await self._within(self._encoder, lambda: classifier.encode(examples), len(examples))
        return encoded

    async def predict(self, examples: Sequence[Any]) -> Computed:
        """Return the predictions; whatever the classifier raises is raised here.

        Raises:
            ClassifierTimeout: no answer within the deadline; the thread is left behind.
            ClassifierHung: more calls hang than may; the worker must be restarted.
        """

        def work() -> Computed:
            predictions, compute_s = self._timed(lambda: self.classifier.predict(examples))
            return Computed(predictions=predictions, compute_s=compute_s)

        computed: Computed = await self._within(self._device, work, len(examples))
        return computed

    async def triage(self, texts: Sequence[str]) -> list[float]:
        """Return how likely each text tells of damage or casualties; goes before the batches that wait.

        Raises as `predict` does.
        """
        classifier = self.classifier
        assert isinstance(classifier, Triaging)

        def work() -> list[float]:
            probs: list[float] = self._timed(lambda: classifier.triage(texts))[0]
            return probs

        probs: list[float] = await self._within(self._device, work, len(texts), first=True)
        return probs

    def stop(self) -> None:
        """Let the threads end; a hung one ends with the process."""
        self._device.stop()
        self._encoder.stop()

    async def _within(self, lane: Lane, work: Callable[[], Any], n_posts: int, *, first: bool = False) -> Any:
        try:
            return await lane.call(work, first=first)
        except CallHung as error:
            self._hung = [*(is_busy for is_busy in self._hung if is_busy()), error.is_busy]
            if len(self._hung) > self._max_hung:
                raise ClassifierHung(f"{len(self._hung)} calls of the classifier hang: restart") from error
            raise ClassifierTimeout(f"{error} for {n_posts} posts") from error

    def _timed(self, work: Callable[[], Any]) -> tuple[Any, float]:
        start = time.perf_counter()
        try:
            result = work()
        finally:
            compute_s = time.perf_counter() - start
            self._busy_s += compute_s
        return result, compute_s


def warm_up(
    classifier: Classifier, example: Any, *, n: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Run the classifier on an example and return the seconds it took; fails early when it cannot."""
    start = clock()
    for _ in range(n):
        classifier.predict([example])
    return clock() - start
