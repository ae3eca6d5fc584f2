"""Naive Faust: `stream.take` and `topic.send`, as its user guide shows; see the regression tests for what it loses."""

from __future__ import annotations

import asyncio
from typing import Any

import faust
from redis.asyncio import Redis

from stream.records import encode
from tests.bench.plan import TAKE
from tests.bench.terms import Terms, terms_from_command_line
from tests.bench.work import Place, Publisher, classifier_for, prepare, store, transform

_WITHIN_S = 0.5


def build(terms: Terms) -> faust.App:
    """Return the app."""
    app = faust.App(
        terms.group, broker=f"kafka://{terms.kafka}", store="memory://", topic_allow_declare=False, web_enabled=False,
        topic_disable_leader=True,
    )  # fmt: skip
    if terms.job == "bare":
        target = app.topic(terms.target, value_serializer="json")

        @app.agent(app.topic(terms.source, value_serializer="json"))  # type: ignore[untyped-decorator]
        async def transform_posts(stream: Any) -> None:
            async for posts in stream.take(TAKE, within=_WITHIN_S):
                for post in posts:
                    await target.send(key=post["id"], value=transform(post))

        return app
    publisher = Publisher(classifier_for(terms), source="/bench/faust")
    findings_topic = app.topic(terms.target, value_serializer="raw")
    redis: Any = Redis.from_url(terms.redis)
    n_posts = TAKE if terms.classifier == "free" else terms.max_batch

    @app.agent(app.topic(terms.source, value_serializer="raw"))  # type: ignore[untyped-decorator]
    async def classify_posts(stream: Any) -> None:
        async for events in stream.take_events(n_posts, within=_WITHIN_S):
            prepared = [prepare(event.value, _place(event.message)) for event in events]
            findings = await asyncio.to_thread(publisher.findings, prepared)
            deliveries = [
                await findings_topic.send(key=one.post_id, value=encode(one), headers=dict(publisher.headers(one)))
                for one in findings
            ]
            await asyncio.gather(*deliveries)
            async with redis.pipeline(transaction=False) as pipeline:
                store(pipeline, terms.prefix, findings)
                await pipeline.execute()

    return app


def _place(message: Any) -> Place:
    return Place(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=int(message.timestamp * 1000),
    )


if __name__ == "__main__":
    app = build(terms_from_command_line())
    faust.Worker(app, loglevel="WARNING", quiet=True, redirect_stdouts=False).execute_from_commandline()
