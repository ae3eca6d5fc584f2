"""A classifier that sleeps as long as a checkpoint computes, so that a busy machine does not blur what is measured.

The costs are taken from the checkpoint first, in CPU time of the thread. Its first look tells `[damage]` apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from model import Example, Prediction
from tests.bench.crowd import Crowd
from tests.chaos.classifiers import StubClassifier

_REPEATS = 12
_PER_LOOK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds of computing a post."""

    text_s: float
    image_s: float
    spared_s: float  # with a picture, without image rationale
    triage_s: float

    def to_dict(self) -> dict[str, float]:
        """Return them in milliseconds, rounded as they are shown."""
        return {name.replace("_s", "_ms"): round(1000 * value, 2) for name, value in asdict(self).items()}


class SleepingClassifier(StubClassifier):
    """A stub whose every answer takes as long as it costs."""

    def __init__(self, costs: Costs) -> None:
        super().__init__()
        self._costs = costs

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        costs = self._costs
        for example in examples:
            if example.image is None:
                time.sleep(costs.text_s)
            else:
                time.sleep(costs.image_s if example.image_rationale else costs.spared_s)
        return super().predict(examples)

    def triage(self, texts: Sequence[str]) -> list[float]:
        time.sleep(self._costs.triage_s * len(texts))
        return [float("[damage]" in text) for text in texts]


def measure_costs(classifier: Any) -> Costs:
    """Return what a checkpoint's answers cost on this machine, whatever else runs on it."""
    texts = Crowd().texts(_PER_LOOK)
    pixels = np.random.default_rng(0).integers(0, 256, (288, 384, 3), dtype=np.uint8)

    def per_post(call: Callable[[str], object]) -> float:
        call(texts[0])
        start = time.thread_time()
        for text in texts[:_REPEATS]:
            call(text)
        return (time.thread_time() - start) / _REPEATS

    start = time.thread_time()
    classifier.triage(texts)
    triage_s = (time.thread_time() - start) / len(texts)
    return Costs(
        text_s=per_post(lambda text: classifier.predict([Example(text=text)])),
        image_s=per_post(lambda text: classifier.predict([Example(text=text, image=pixels)])),
        spared_s=per_post(lambda text: classifier.predict([Example(text=text, image=pixels, image_rationale=False)])),
        triage_s=triage_s,
    )
