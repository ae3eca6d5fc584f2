"""Quix Streams: a streaming dataframe from topic to topic, as its tutorials write it; Redis is a batching sink."""

from __future__ import annotations

from typing import Any

import redis
from quixstreams import Application, message_context
from quixstreams.models import SerializationContext, Serializer
from quixstreams.sinks import BatchingSink, SinkBatch

from stream.records import Finding, encode
from tests.bench.plan import CHECKPOINT_POSTS
from tests.bench.terms import Terms, terms_from_command_line
from tests.bench.work import Place, Publisher, classifier_for, prepare, store, transform


class FindingSink(BatchingSink):  # type: ignore[misc]  # Quix Streams is not type-checked here
    """Writes findings to Redis in one pipeline at each checkpoint, like the RedisSink that Quix Streams ships."""

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__()
        self._redis = redis.Redis.from_url(url)
        self._prefix = prefix

    def write(self, batch: SinkBatch) -> None:
        """Write one partition's findings."""
        for chunk in batch.iter_chunks(n=1_000):
            with self._redis.pipeline(transaction=False) as pipeline:
                store(pipeline, self._prefix, [item.value for item in chunk])
                pipeline.execute()


class FindingSerializer(Serializer):  # type: ignore[misc]
    """Writes findings as JSON."""

    def __call__(self, value: Finding, ctx: SerializationContext) -> bytes:
        """Return the finding's bytes."""
        return encode(value)


def build(terms: Terms) -> Application:
    """Return the application, ready to run."""
    app = Application(
        broker_address=terms.kafka,
        consumer_group=terms.group,
        auto_offset_reset="earliest",
        loglevel="WARNING",
        commit_every=CHECKPOINT_POSTS if terms.job == "full" else 0,
    )
    if terms.job == "bare":
        source = app.topic(terms.source, value_deserializer="json")
        target = app.topic(terms.target, value_serializer="json")
        app.dataframe(source).apply(transform).to_topic(target)
        return app
    publisher = Publisher(classifier_for(terms), source="/bench/quix")
    source = app.topic(terms.source, value_deserializer="bytes")
    target = app.topic(terms.target, value_serializer=FindingSerializer())

    def to_finding(value: bytes, key: Any, timestamp: int, headers: Any) -> Finding:
        context = message_context()
        place = Place(topic=context.topic, partition=context.partition, offset=context.offset, timestamp_ms=timestamp)
        [finding] = publisher.findings([prepare(value, place)])
        return finding

    findings = app.dataframe(source).apply(to_finding, metadata=True)
    findings = findings.set_headers(lambda finding, *_: publisher.headers(finding)).to_topic(target)
    findings.sink(FindingSink(terms.redis, terms.prefix))
    return app


if __name__ == "__main__":
    build(terms_from_command_line()).run()
