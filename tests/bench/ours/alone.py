"""The classifier alone over prepared posts, and decoding alone: what the whole pipeline is held against."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import numpy as np
import psutil

from model import Example
from stream.broker import Broker
from stream.reader import read_topic
from tests.bench.terms import Terms, terms_from_command_line
from tests.bench.work import Place, classifier_for, prepare
from workers.findings import example
from workers.interpreter import tune_interpreter

_WARM = 8


async def _prepared(terms: Terms) -> tuple[list[Any], float]:
    """Return the posts of the topic, prepared, and the seconds that their decoding took."""
    posts, elapsed_s = [], 0.0
    async for record in read_topic(Broker(terms.kafka), terms.source):
        place = Place(
            topic=record.topic, partition=record.partition, offset=record.offset, timestamp_ms=record.timestamp
        )
        start_s = time.perf_counter()
        posts.append(example(prepare(record.value, place)))
        elapsed_s += time.perf_counter() - start_s
    return posts, elapsed_s


def main() -> None:
    """Print one line of JSON: posts/s of the classifier and of decoding, and this process's memory."""
    terms = terms_from_command_line()
    size = terms.max_batch
    classifier = classifier_for(terms)
    picture = np.zeros((384, 384, 3), dtype=np.uint8)
    classifier.predict([Example(text="bridge down, road closed", image=picture)] * min(size, _WARM))
    tune_interpreter(log_level="warning")  # as the worker does
    memory = psutil.Process().memory_info().rss  # the model and its work on a batch, before the posts come
    examples, decode_s = asyncio.run(_prepared(terms))
    batches = [examples[start : start + size] for start in range(0, len(examples), size)]
    start_s = time.perf_counter()
    for batch in batches:
        classifier.predict(batch)
    elapsed_s = time.perf_counter() - start_s
    print(
        json.dumps(
            {
                "posts_per_s": len(examples) / elapsed_s,
                "decoded_per_s": len(examples) / decode_s,
                "rss_bytes": memory,
                "n_posts": len(examples),
            }
        )
    )


if __name__ == "__main__":
    main()
