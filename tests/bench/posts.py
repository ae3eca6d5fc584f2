"""The posts of a benchmark: real ones from a data folder, else the project's own samples; and their topics."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from deploy.sample_posts import sample_records
from stream.feeds import read_feed

_BATCH_BYTES = 1_048_576
_REAL = ("crisismmd/pairs.tsv", "pairs.tsv", "posts.tsv", "posts.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """Posts to draw from, as decoded JSON; `name` says what they are."""

    name: str
    with_pictures: Sequence[dict[str, Any]]
    texts: Sequence[dict[str, Any]]

    def text_posts(self, n: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield n posts without pictures, as key and value, each id once."""
        for number, post in enumerate(itertools.islice(itertools.cycle(self.texts), n)):
            key = f"p{number:08d}"
            yield key.encode(), json.dumps({**post, "id": key}, ensure_ascii=False).encode()

    def posts(self, n: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield n posts, with their pictures where they have any."""
        for number, post in enumerate(itertools.islice(itertools.cycle(self.with_pictures), n)):
            key = f"p{number:08d}"
            yield key.encode(), msgspec.json.encode({**post, "id": key})


def find_supply(data: Path | None, *, n_pictures: int = 400) -> Supply:
    """Return real posts when the folder holds a feed, else the samples that the project ships."""
    file = next((data / name for name in _REAL if (data / name).is_file()), None) if data is not None else None
    if data is not None and file is None:
        raise SystemExit(f"--data {data}: no {' or '.join(_REAL)} in it: name a folder with one, or leave it out")
    if file is None:
        values = [
            record.value
            for record in sample_records(None)
            if record.fault is None and record.label is not None and not _is_packed(record.headers)
        ]
        name = f"generated ({len(values)} samples)"
    else:
        values = [record.value or b"" for record in itertools.islice(read_feed(file), n_pictures)]
        name = f"real ({file.parent.name}/{file.name}, first {len(values)} rows)"
    posts = [json.loads(value) for value in values]
    posts = [post for post in posts if not any("path" in image for image in post.get("images", []))]
    texts = [{key: post[key] for key in post if key != "images"} for post in posts if post.get("text", "").strip()]
    return Supply(name=name, with_pictures=posts, texts=[{"source": "unknown", **post} for post in texts])


async def load(kafka: str, topic: str, n_partitions: int, records: Iterable[tuple[bytes, bytes]]) -> int:
    """Put the records on the topic, in turn on its partitions, as fast as can be; return how many there were."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka, acks="all", enable_idempotence=True, max_batch_size=4 * _BATCH_BYTES,
        max_request_size=4 * _BATCH_BYTES,
    )  # fmt: skip
    await producer.start()
    batches: dict[int, Any] = {}
    n_records = 0
    try:
        for n_records, (key, value) in enumerate(records, 1):
            partition = n_records % n_partitions
            batch = batches.setdefault(partition, producer.create_batch())
            if batch.append(timestamp=None, key=key, value=value) is None:
                await (await producer.send_batch(batch, topic, partition=partition))
                batch = batches[partition] = producer.create_batch()
                batch.append(timestamp=None, key=key, value=value)
            if batch.size() > _BATCH_BYTES:
                await (await producer.send_batch(batches.pop(partition), topic, partition=partition))
        for partition, batch in batches.items():
            if batch.record_count():
                await (await producer.send_batch(batch, topic, partition=partition))
    finally:
        await producer.stop()
    return n_records


def _is_packed(headers: Iterable[tuple[str, bytes]]) -> bool:
    return any(name == "content-type" and b"msgpack" in value for name, value in headers)
