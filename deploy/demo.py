"""`sitrep demo`: the whole pipeline on sample posts, from services to ledger; leaves no process behind."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from deploy.board import Board
from deploy.child_process import Child, is_alive
from deploy.crew import Crew, crew, fetch, last_words
from deploy.embedded import embedded
from deploy.exhibit import Exhibit
from deploy.failure import CommandFailed
from deploy.feeding import feed
from deploy.live import View, view_for
from deploy.options import open_cache, topics_of
from deploy.page_server import serve
from deploy.render import safe
from deploy.sample_posts import SAMPLES_FOLDER
from stream.ending import end_tasks
from stream.errors import InvalidRecord, StreamError
from stream.ledger import Ledger, read_ledger
from stream.reader import tail_topic
from stream.records import DeadLetter
from stream.topics import create_topics
from workers.setting_sources import load_settings, without_password
from workers.settings import PLAIN_KAFKA, Settings

_READY_S: Final = 120.0
_STALL_S: Final = 60.0
_TICK_S: Final = 0.05
_LEDGER_S: Final = 1.0
_PAGE_S: Final = 3
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP came; not an error, so nothing catches it by accident."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number


@dataclass(slots=True, kw_only=True)
class Demo:
    """One run of the demo."""

    flags: Mapping[str, Any]
    config_file: Path | None
    kafka_home: Path | None
    n_posts: int | None
    rate_per_s: float
    n_workers: int
    keep_running: bool
    out: Path
    _signal: int | None = field(default=None)
    _failure: str | None = field(default=None)
    _begun: bool = field(default=False)
    _staying: bool = field(default=False)
    _services: list[Child] = field(default_factory=list)

    def run(self) -> int:
        """Run to the end and return the exit code: 0 when the ledger balances.

        Raises:
            CommandFailed, StreamError, EmbeddedError, SettingsError: it could not get going.
        """
        load_settings(self.flags, file=self.config_file)  # a wrong setting is told before anything starts
        exhibit = Exhibit(self.out)
        exhibit.check()
        with _signals_raise(), contextlib.ExitStack() as cleanup:
            try:
                return self._run(exhibit, cleanup)
            except Interrupted as interrupted:
                print("stopped before there was anything to show", flush=True)
                return interrupted.exit_code
            finally:
                _ignore_signals()  # what was started must be ended, each within its own bound

    def _run(self, exhibit: Exhibit, cleanup: contextlib.ExitStack) -> int:
        own_kafka, own_redis = self.flags.get("kafka"), self.flags.get("redis")
        services = cleanup.enter_context(
            embedded(kafka=own_kafka, redis=own_redis, kafka_home=self.kafka_home, die_with_parent=True)
        )
        self._services = services.children
        prefix = self.flags.get("prefix", f"sitrep-demo-{secrets.token_hex(4)}.")
        samples = {"image_folder": str(SAMPLES_FOLDER)}
        plain = {} if own_kafka else PLAIN_KAFKA
        addresses = {"kafka": services.kafka, "redis": services.redis}
        flags = {**samples, **self.flags, **plain, **addresses, "prefix": prefix}
        settings = load_settings(flags, file=self.config_file)
        if own_redis:
            asyncio.run(_reach_redis(settings))
        topics = topics_of(settings)
        asyncio.run(create_topics(settings.broker, topics.all(), replication=settings.replication))
        team = cleanup.enter_context(crew(self.n_workers, flags=flags, config_file=self.config_file, logs=exhibit.logs))
        board = Board(topics=topics)
        with view_for(board) as view:
            view.say(f"Kafka {services.kafka}, Redis {without_password(services.redis)}; the worker loads its model")
            asyncio.run(self._session(settings, board, view, team, exhibit))
            _ignore_signals()
            if self._signal is not None and not self._begun:
                raise Interrupted(self._signal)
            ledger = asyncio.run(_ledger(settings, board))
            view.say("done" if self._failure is None else "ended early")
        return self._finish(ledger, board, team, exhibit, settings)

    def _finish(self, ledger: Ledger | None, board: Board, team: Crew, exhibit: Exhibit, settings: Settings) -> int:
        metrics = fetch(f"{team.workers[0].url}/metrics")
        team.ask_to_stop()
        exhibit.metrics.write_bytes(metrics or b"")
        summary = _summary(ledger)
        n_overlays = exhibit.write(board, summary)
        if self._failure is not None:
            print(f"the demo ended early: {self._failure}")
        print(f"findings  {exhibit.findings} ({board.n_findings})")
        print(f"alerts    {exhibit.alerts} ({board.n_alerts})")
        print(f"page      {exhibit.page} (open it in a browser)")
        print(f"overlays  {exhibit.overlays} ({n_overlays} pictures with their evidence)")
        print(f"metrics   {exhibit.metrics} (as {team.workers[0].url}/metrics gave them)")
        print(f"logs      {exhibit.logs}")
        if self.flags.get("kafka"):
            print(f"topics    {settings.prefix}* stay on {settings.kafka}")
        team.end()
        if ledger is not None:
            for entry in ledger.missing[:20]:
                place = f"{entry.origin.topic}-{entry.origin.partition}-{entry.origin.offset}"
                print(f"missing   {safe(entry.post_id)}  {place}")
        print(summary, flush=True)
        if self._signal is not None:
            return 128 + self._signal
        return 0 if ledger is not None and ledger.balanced and self._failure is None else 1

    async def _session(self, settings: Settings, board: Board, view: View, team: Crew, exhibit: Exhibit) -> None:
        this = asyncio.current_task()
        assert this is not None
        loop = asyncio.get_running_loop()

        def interrupt(number: int) -> None:
            self._signal = number
            this.cancel()

        for number in _SIGNALS:
            loop.add_signal_handler(number, interrupt, int(number))
        try:
            await self._with_refresh(view, team.ready(_READY_S))
            exhibit.prepare()  # not before: a demo that cannot start leaves what an earlier one wrote
            self._begun = True
            view.say("the worker is ready; feeding posts")
            async with _cancelled_after(self._tail(settings, board, view, exhibit)) as tailing:
                feeding = feed(settings, board, exhibit.gallery, n_posts=self.n_posts, rate_per_s=self.rate_per_s)
                async with _cancelled_after(feeding) as sending:
                    await self._until_balanced(settings, board, view, team, (tailing, sending))
                    if self.keep_running and self._failure is None:
                        await self._stay(settings, board, view, team, exhibit, tailing)
        except asyncio.CancelledError:
            if self._signal is None:
                raise
            if self._staying and self._signal == signal.SIGINT:
                self._signal = None  # the way to end it, so no failure
            view.say("stopping")
        except (CommandFailed, StreamError) as error:
            if not self._begun:
                raise
            self._failure = str(error)

    async def _until_balanced(
        self, settings: Settings, board: Board, view: View, team: Crew, tasks: tuple[asyncio.Task[None], ...]
    ) -> None:
        looked_s, start_s = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(_TICK_S)
            view.refresh()
            self._raise_if_over(team, tasks)
            now = time.monotonic()
            if board.finished and now - looked_s > _LEDGER_S:
                looked_s = now
                if not (await read_ledger(settings.broker, board.topics)).missing:
                    return
            if now - max(board.last_outcome_s, board.last_sent_s, start_s) > _STALL_S:
                self._failure = f"nothing sent and no outcome for {_STALL_S:g} s"
                return

    async def _stay(
        self,
        settings: Settings,
        board: Board,
        view: View,
        team: Crew,
        exhibit: Exhibit,
        tailing: asyncio.Task[None],
    ) -> None:
        self._staying = True
        with serve(exhibit.folder) as url:
            own = f"--kafka {settings.kafka} --redis {without_password(settings.redis)} --prefix {settings.prefix}"
            view.say("Ctrl-C ends")
            view.note(f"page:          {url}")
            view.note(f"metrics:       {team.workers[0].url}/metrics")
            view.note(f"feed it more:  sitrep replay FILE --kafka {settings.kafka} --prefix {settings.prefix}")
            view.note(f"look at it:    sitrep findings {own}")
            written_s, problem = -float(_PAGE_S), None
            while True:
                if time.monotonic() - written_s > _PAGE_S:
                    summary = _summary(await _ledger(settings, board))
                    before, problem = problem, await exhibit.write_live(board, summary, refresh_s=2 * _PAGE_S)
                    if problem is not None and problem != before:
                        view.note(f"the page could not be written: {problem}")
                    written_s = time.monotonic()
                await asyncio.sleep(_TICK_S)
                view.refresh()
                self._raise_if_over(team, (tailing,))

    async def _with_refresh(self, view: View, waiting: Any) -> None:
        async with _cancelled_after(waiting) as task:
            while not task.done():
                view.refresh()
                await asyncio.wait([task], timeout=_TICK_S)
            task.result()

    async def _tail(self, settings: Settings, board: Board, view: View, exhibit: Exhibit) -> None:
        topics = board.topics
        names = (topics.findings.name, topics.alerts.name, topics.duplicates.name, topics.dead_letters.name)
        async for record in tail_topic(settings.broker, *names, from_beginning=True):
            try:
                outcome = board.take(record)
            except InvalidRecord as error:
                self._failure = f"{record.topic} holds what is no record: {error}"
                continue
            if outcome is not None:
                if not isinstance(outcome, DeadLetter):
                    exhibit.append(outcome)
                view.show(outcome)

    def _raise_if_over(self, team: Crew, tasks: tuple[asyncio.Task[None], ...]) -> None:
        for task in tasks:
            if task.done():
                task.result()
        dead = team.dead()
        if dead is not None:
            raise CommandFailed(f"{dead.child.name} ended: {last_words(dead.log_file)}")
        for service in self._services:
            if not is_alive(service):
                raise CommandFailed(f"the embedded services ended ({service.name})")


async def _reach_redis(settings: Settings) -> None:
    """Raise now what is wrong with it; a worker would wait for it."""
    async with open_cache(settings) as cache:
        await cache.ping()


async def _ledger(settings: Settings, board: Board) -> Ledger | None:
    try:
        return await read_ledger(settings.broker, board.topics)
    except StreamError:
        return None


def _summary(ledger: Ledger | None) -> str:
    return ledger.summary() if ledger is not None else "ledger: the broker did not answer"


@asynccontextmanager
async def _cancelled_after(work: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Run the coroutine beside the block, and end it with the block."""
    task: asyncio.Task[None] = asyncio.create_task(work)
    try:
        yield task
    finally:
        await end_tasks([task])
        if not task.cancelled():
            task.exception()  # was seen, or no longer matters


@contextmanager
def _signals_raise() -> Iterator[None]:
    def interrupted(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupted) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
