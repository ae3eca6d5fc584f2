"""A thread that makes calls in turn, each within a deadline; a hung call is left behind, never waited for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class CallHung(Exception):
    """A call gave no answer within its deadline; `is_busy` says whether it still runs."""

    def __init__(self, message: str, *, is_busy: Callable[[], bool]) -> None:
        super().__init__(message)
        self.is_busy = is_busy


class Lane:
    """Calls wait in a queue of the thread's own, so it goes from one to the next without the event loop.

    Used from one event loop. Its threads are daemons: those of `concurrent.futures` would keep a process
    with a hung call from exiting.
    """

    def __init__(self, name: str, *, timeout_s: float) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._calls: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._thread: _Thread | None = None  # started by the first call

    async def call(self, function: Callable[[], Any], *, first: bool = False) -> Any:
        """Return what the function returns and raise what it raises; `first` goes before the calls that wait.

        The deadline counts from when the call begins.

        Raises:
            CallHung: no answer within the deadline; another thread makes the calls that wait.
        """
        call = _Call(function)
        with self._changed:
            (self._calls.appendleft if first else self._calls.append)(call)
            if self._thread is None:
                self._start()
            self._changed.notify_all()
        try:
            thread = await call.begun
            return await asyncio.wait_for(call.answer, self._timeout_s)
        except TimeoutError as error:
            if call.answer.done() and not call.answer.cancelled():  # the function's own TimeoutError
                raise
            with self._changed:
                thread.leave = True
                if self._thread is thread:
                    self._start()
            raise CallHung(f"no answer within {self._timeout_s:g} s", is_busy=lambda: thread.is_busy) from error
        finally:
            call.given_up = True

    def stop(self) -> None:
        """Let the thread end after the call that runs; a hung one ends with the process."""
        with self._changed:
            if self._thread is not None:
                self._thread.leave = True
                self._thread = None
            self._changed.notify_all()

    def _start(self) -> None:
        self._thread = _Thread(self._name, self._calls, self._changed)


class _Call:
    """A function and its answer."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[_Thread] = self.loop.create_future()
        self.answer: asyncio.Future[Any] = self.loop.create_future()
        self.given_up = False


class _Thread:
    """Makes the calls of a queue until it is told to leave."""

    def __init__(self, name: str, calls: deque[_Call], changed: threading.Condition) -> None:
        self._calls = calls
        self._changed = changed
        self.leave = False
        self.is_busy = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        while (call := self._next()) is not None:
            if call.given_up:
                continue
            self.is_busy = True
            _tell(call, lambda call=call: call.begun.done() or call.begun.set_result(self))  # type: ignore[misc]
            result: Any = None
            failure: BaseException | None = None
            try:
                result = call.function()
            except BaseException as error:  # whatever it is belongs to who awaits the answer
                failure = error
            self.is_busy = False
            _tell(call, lambda call=call, result=result, failure=failure: _settle(call.answer, result, failure))  # type: ignore[misc]
            del call, result, failure

    def _next(self) -> _Call | None:
        with self._changed:
            while not self._calls and not self.leave:
                self._changed.wait()
            return None if self.leave else self._calls.popleft()


def _tell(call: _Call, news: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, nobody awaits the call any more
        call.loop.call_soon_threadsafe(news)


def _settle(answer: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if answer.done():  # given up long ago
        return
    if failure is None:
        answer.set_result(result)
    elif isinstance(failure, Exception):
        answer.set_exception(failure)
    else:
        answer.set_exception(RuntimeError(f"the thread was left by {failure!r}"))
