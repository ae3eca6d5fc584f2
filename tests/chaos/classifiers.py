"""Deterministic classifiers for tests: cheap, with faults on demand; a post's text says which."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from model import CLASSES, Example, Prediction, TextSpan

DAMAGE = "infrastructure_and_utility_damage"


@dataclass(slots=True, kw_only=True)
class StubClassifier:
    """Decides from a digest of the text alone, so the same post gives the same finding in every batch.

    Words in the text ask for a fault: `[raise]`, `[nan]`, `[few]` (too few answers), `[odd]` (unknown class),
    `[hang]` (never returns), `[oom]` (out of memory, also alone). Batches above `oom_above` posts run out of
    memory whatever they hold. `[damage]` raises an alert.
    """

    name: str = "stub"
    version: str = "stub-1"
    digest: str = "sha256:stub"
    classes: tuple[str, ...] = CLASSES
    languages: tuple[str, ...] = ("en",)
    alert_threshold: float = 0.9
    seconds_per_post: float = 0.0
    oom_above: int = 1_000_000
    n_calls: int = 0

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Return one prediction for each example, or fail as asked."""
        self.n_calls += 1
        texts = [example.text for example in examples]
        if any("[hang]" in text for text in texts):
            threading.Event().wait()
        if any("[raise]" in text for text in texts):
            raise RuntimeError("the stub was asked to raise")
        if len(texts) > self.oom_above or any("[oom]" in text for text in texts):
            raise MemoryError(f"{len(texts)} posts do not fit")
        time.sleep(self.seconds_per_post * len(texts))
        predictions = [_prediction(text) for text in texts]
        return predictions[:-1] if any("[few]" in text for text in texts) else predictions


def parse_classifier(text: str) -> StubClassifier:
    """Return the stub that `sleep:SECONDS_PER_POST` or `oom:MAX_BATCH` describe, joined by commas.

    `costs:TEXT/IMAGE/SPARED/TRIAGE`, seconds a post, is the one that sleeps as long as a checkpoint computes.
    """
    if text.startswith("costs:"):
        from tests.bench.sleeping import Costs, SleepingClassifier

        names = ("text_s", "image_s", "spared_s", "triage_s")
        seconds = map(float, text.removeprefix("costs:").split("/"))
        return SleepingClassifier(Costs(**dict(zip(names, seconds, strict=True))))
    stub = StubClassifier()
    for part in filter(None, text.split(",")):
        kind, _, value = part.partition(":")
        if kind == "sleep":
            stub.seconds_per_post = float(value)
        elif kind == "oom":
            stub.oom_above = int(value)
        else:
            raise ValueError(f"{part!r} is no classifier: sleep:SECONDS or oom:POSTS")
    return stub


def _prediction(text: str) -> Prediction:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    weights = [1.0 + byte for byte in digest[: len(CLASSES)]]
    if "[damage]" in text:
        weights = [0.001] * len(CLASSES)
        weights[CLASSES.index(DAMAGE)] = 1.0
    probs = {label: weight / sum(weights) for label, weight in zip(CLASSES, weights, strict=True)}
    label = max(probs, key=lambda one: probs[one])
    if "[nan]" in text:
        probs[label] = float("nan")
    if "[odd]" in text:
        label = "no_such_class"
    word = text.split()[0] if text.split() else ""
    start = text.find(word)
    spans = (TextSpan(start=start, end=start + len(word), score=0.5),) if word else ()
    return Prediction(label=label, probs=probs, spans=spans, image=None, fallbacks=())
