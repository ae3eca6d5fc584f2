"""The Faust app: two agents over whole fetches and micro-batches, and the pages that a probe asks for."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Any

import faust
from faust import SASLCredentials, SSLCredentials
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from stream.broker import Broker
from workers.channel import DurableChannel
from workers.device import Classifier
from workers.health import healthy, ready
from workers.metrics import Metrics
from workers.pipeline import Pipeline, Stage
from workers.settings import Settings
from workers.version import version

log = logging.getLogger(__name__)

_METRICS_TYPE = CONTENT_TYPE_LATEST.partition("; charset")[0]  # aiohttp adds the charset itself


class SitrepApp(faust.App):  # type: ignore[misc]  # Faust is untyped
    """A Faust app that drains its pipeline before its agents stop."""

    pipeline: Pipeline
    failure: BaseException | None = None

    async def on_started(self) -> None:
        """Start the pipeline once the agents run."""
        await super().on_started()
        log.info("metrics and health are at http://%s:%d", self.conf.web_bind, self.conf.web_port)
        await self.add_runtime_dependency(self.pipeline)

    async def on_stop(self) -> None:
        """Finish in-flight posts while the agents still run, then stop as Faust does."""
        if self.failure is None:
            await self.pipeline.drain()
        await super().on_stop()

    def _create_directories(self) -> None:
        """Make none of Faust's folders for tables: nothing is kept on disk."""

    def fail(self, error: BaseException) -> None:
        """Stop the worker with an error: nothing unconfirmed is committed, its supervisor starts it anew."""
        if self.failure is None:
            log.error("the worker stops: %s: %s", type(error).__name__, error)
            self.failure = error
            asyncio.get_running_loop().create_task(self.crash(error))


def build_app(settings: Settings, *, stage: Stage, classifier: Classifier | None) -> SitrepApp:
    """Return the app of one worker; it connects when it is started.

    Faust will not start an app without a topic, so it has the control topic, in a consumer group of
    its own, with Faust's own timeouts; the posts' group belongs to the pipeline, and so does `session_timeout_s`.
    """
    app = SitrepApp(
        f"{settings.prefix}control-{socket.gethostname()}-{os.getpid()}",
        broker=";".join(f"kafka://{host.strip()}" for host in settings.kafka.split(",")),
        broker_credentials=_credentials(settings.broker),
        store="memory://",
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_buffer_maxsize=4,
        stream_wait_empty=False,
        web_bind=settings.web_host,
        web_host=settings.web_host,
        web_port=settings.web_port or _free_port(),
    )
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.build.info(
        {
            "version": version(),
            "stage": stage,
            "model": classifier.version if classifier else "none",
            "digest": classifier.digest if classifier else "none",
        }
    )
    fetched = DurableChannel(app, maxsize=2)
    batches = DurableChannel(app, maxsize=1)
    pipeline = Pipeline(
        settings,
        stage=stage,
        classifier=classifier,
        metrics=metrics,
        fetched=fetched,
        batches=batches,
        on_fatal=app.fail,
    )
    app.pipeline = pipeline

    @app.agent(fetched, name="prepare")  # type: ignore[untyped-decorator]
    async def prepare(stream: Any) -> None:
        async for records in stream:
            try:
                await pipeline.on_fetched(records)
            except Exception as error:  # an exception that leaves the body would acknowledge nothing but kill the agent
                app.fail(error)

    @app.agent(batches, name="classify")  # type: ignore[untyped-decorator]
    async def classify(stream: Any) -> None:
        async for jobs in stream:
            try:
                await pipeline.on_batch(jobs)
            except Exception as error:
                app.fail(error)

    @app.agent(app.topic(pipeline.topics.control.name, value_serializer="raw"), name="control")  # type: ignore[untyped-decorator]
    async def control(stream: Any) -> None:
        async for _ in stream:
            log.info("a control message came in; none is defined yet, it is ignored")

    @app.page("/metrics")  # type: ignore[untyped-decorator]
    async def metrics_page(web: Any, request: Any) -> Any:
        return web.bytes(generate_latest(registry), content_type=_METRICS_TYPE)

    @app.page("/healthz")  # type: ignore[untyped-decorator]
    async def health_page(web: Any, request: Any) -> Any:
        report = healthy(app)
        return web.json(report, status=200 if report["ok"] else 503)

    @app.page("/readyz")  # type: ignore[untyped-decorator]
    async def ready_page(web: Any, request: Any) -> Any:
        report = await ready(pipeline)
        return web.json(report, status=200 if report["ok"] else 503)

    return app


def _credentials(broker: Broker) -> SASLCredentials | SSLCredentials | None:
    """Return Faust's name for them, for the control topic; None in plain text."""
    tls = broker.tls()
    if broker.uses_sasl:
        return SASLCredentials(
            username=broker.username, password=broker.password, mechanism=broker.sasl_mechanism, ssl_context=tls
        )
    return SSLCredentials(context=tls) if tls is not None else None


def _free_port() -> int:
    with socket.socket() as probe:  # Faust takes no 0
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
