"""Bytewax: a dataflow from Kafka to Kafka by its own operators; recovery makes it at least once, Redis is a sink."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import bytewax.operators as op
import redis
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from stream.records import Finding, encode
from tests.bench.terms import Terms, terms_from_command_line
from tests.bench.work import Place, Publisher, classifier_for, prepare, store, transform


class _Findings(StatelessSinkPartition[Finding]):  # type: ignore[misc]  # Bytewax is not type-checked here
    def __init__(self, url: str, prefix: str) -> None:
        self._redis = redis.Redis.from_url(url)
        self._prefix = prefix

    def write_batch(self, items: list[Finding]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            store(pipeline, self._prefix, items)
            pipeline.execute()


class FindingSink(DynamicSink[Finding]):  # type: ignore[misc]
    """Writes findings to Redis, a pipeline for each batch that the dataflow hands over."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url = url
        self._prefix = prefix

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Findings:
        """Connect."""
        return _Findings(self._url, self._prefix)


def build(terms: Terms) -> Dataflow:
    """Return the dataflow."""
    flow = Dataflow("bench")
    brokers = [terms.kafka]
    batch_size = 1_000 if terms.classifier == "free" else terms.max_batch
    posts = kop.input("posts", flow, brokers=brokers, topics=[terms.source], batch_size=batch_size).oks
    if terms.job == "bare":
        records = op.map("transform", posts, _transformed)
        kop.output("findings", records, brokers=brokers, topic=terms.target)
        return flow
    publisher = Publisher(classifier_for(terms), source="/bench/bytewax")

    def classified(messages: list[KafkaSourceMessage[Any, Any]]) -> list[Finding]:
        return publisher.findings([prepare(message.value, _place(message)) for message in messages])

    def to_record(finding: Finding) -> KafkaSinkMessage[Any, Any]:
        headers = publisher.headers(finding)
        return KafkaSinkMessage(key=finding.post_id.encode(), value=encode(finding), headers=headers)

    findings = op.flat_map_batch("classify", posts, classified)
    kop.output("findings", op.map("record", findings, to_record), brokers=brokers, topic=terms.target)
    op.output("redis", findings, FindingSink(terms.redis, terms.prefix))
    return flow


def _transformed(message: KafkaSourceMessage[Any, Any]) -> KafkaSinkMessage[Any, Any]:
    return KafkaSinkMessage(key=message.key, value=json.dumps(transform(json.loads(message.value))).encode())


def _place(message: KafkaSourceMessage[Any, Any]) -> Place:
    _, timestamp_ms = message.timestamp
    return Place(topic=message.topic, partition=message.partition, offset=message.offset, timestamp_ms=timestamp_ms)


def main() -> None:
    """Run the dataflow with its progress kept on disk."""
    with tempfile.TemporaryDirectory(prefix="bytewax-") as folder:
        init_db_dir(Path(folder), 1)
        cli_main(build(terms_from_command_line()), recovery_config=RecoveryConfig(folder))


if __name__ == "__main__":
    main()
