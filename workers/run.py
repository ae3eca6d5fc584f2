"""Starts one worker process and returns its exit code; every way it can fail to start is one clear line."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import disable_created_metrics

from stream.topics import check_topics, topics
from stream.transactions import check_transactions
from workers.errors import StartError
from workers.settings import Settings

if TYPE_CHECKING:
    from workers.app import SitrepApp
    from workers.device import Classifier
    from workers.pipeline import Stage

log = logging.getLogger(__name__)

_LOOK_S = 0.25
_STOP_S = 15.0


def run_worker(settings: Settings, *, stage: Stage, classifier: Classifier | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code, 0 after a clean stop.

    Raises:
        StartError: the model cannot be loaded, or the address of metrics and health is taken.
        BrokerUnavailable: no broker answers.
        StreamError: the topics are not there, or `exactly_once` is set and the broker has no transactions.
        Exception: what the running worker ended of; it was logged where it happened.
    """
    with _interrupt_ends_at_once():
        return _run(settings, stage=stage, classifier=classifier)


def _run(settings: Settings, *, stage: Stage, classifier: Classifier | None) -> int:
    wanted = topics(
        prefix=settings.prefix, n_partitions=settings.partitions, max_record_bytes=settings.max_record_bytes
    )
    _check_folder(settings.image_folder)
    if stage == "prepare":
        _check_picture_size(settings.image_edge, wanted.prepared.max_message_bytes)
    _check_address(settings.web_host, settings.web_port)
    asyncio.run(check_topics(settings.broker, wanted.all()))
    if settings.exactly_once:
        name = f"{settings.prefix}check/{socket.gethostname()}/{os.getpid()}"
        asyncio.run(check_transactions(settings.broker, name=name, timeout_s=2 * settings.request_timeout_s))
    if stage == "prepare":
        classifier = None
    elif classifier is None:
        classifier = load_classifier(settings)

    import faust

    from workers.app import build_app
    from workers.interpreter import tune_interpreter

    disable_created_metrics()  # type: ignore[no-untyped-call]  # a series per counter that nobody reads
    app = build_app(settings, stage=stage, classifier=classifier)
    tune_interpreter(log_level=settings.log_level)
    threading.Thread(target=_leave_in_time, args=(app, settings.drain_timeout_s), daemon=True).start()
    worker = faust.Worker(app, loglevel=settings.log_level.upper(), redirect_stdouts=False, quiet=True)
    code: int | str | None = 0
    try:
        worker.execute_from_commandline()
    except SystemExit as leaving:
        code = leaving.code
    if app.failure is not None:
        raise app.failure
    return code if isinstance(code, int) else 1


@contextmanager
def _interrupt_ends_at_once() -> Iterator[None]:
    """End the process with 130 on SIGINT until Faust handles it: a KeyboardInterrupt inside a `__del__` is lost."""
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _check_folder(image_folder: str) -> None:
    if image_folder and not Path(image_folder).is_dir():
        raise StartError(f"image_folder = {image_folder!r} is no folder: give the one that has the images")


def _check_picture_size(edge: int, limit_bytes: int) -> None:
    """Between stages a picture travels as pixels; one that does not fit would cost its post."""
    size_bytes = 3 * edge**2
    if size_bytes > limit_bytes:
        raise StartError(
            f"image_edge = {edge} makes pictures of up to {size_bytes} bytes, more than the {limit_bytes} that the"
            " prepared topic takes: lower it, or raise max_record_bytes and the topic's limit"
        )


def _check_address(host: str, port: int) -> None:
    """Raise `StartError` where Faust would end with a traceback, once the model is loaded."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise StartError(
            f"metrics and health cannot be served on {host}:{port}: {error.strerror}: give another by --set web_port=N"
            " (0: a free one) or --set web_host=ADDRESS"
        ) from error


def _leave_in_time(app: SitrepApp, drain_timeout_s: float) -> None:
    """End the process when its stop takes too long: Faust's clients wait for an absent broker without end.

    What is not committed by then is handled again, as after any crash.
    """
    while not app.should_stop and app.failure is None:
        time.sleep(_LOOK_S)
    time.sleep(_STOP_S if app.failure is not None else drain_timeout_s + _STOP_S)
    log.error("the worker ends by force: its stop hangs, as without a broker")
    logging.shutdown()
    os._exit(1)


def load_classifier(settings: Settings) -> Classifier:
    """Return the classifier, loaded and warmed up."""
    from model import Example, ModelError
    from model.loading import load_classifier as load_checkpoint
    from workers.device import warm_up

    try:
        classifier = load_checkpoint(
            Path(settings.checkpoint), device=settings.device, n_threads=settings.threads or None
        )
        warm_up(classifier, Example(text="bridge down", image=np.zeros((64, 64, 3), dtype=np.uint8)))
        warm_up(classifier, Example(text="bridge down"))
    except (ModelError, RuntimeError) as error:
        raise StartError(f"the classifier cannot be loaded: {error}") from error
    check_modes(settings, classifier)
    return classifier


def check_modes(settings: Settings, classifier: Classifier) -> None:
    """Raise `StartError` when a degraded mode is set that the classifier does not heed: marks would be untrue."""
    lag = settings.no_image_rationale_lag_posts
    if lag and not getattr(classifier, "spares_image_rationale", False):
        raise StartError(
            f"no_image_rationale_lag_posts = {lag}, but {classifier.version} always makes an image rationale:"
            " set it to 0, or give another checkpoint"
        )
