"""Images are prepared in processes of their own, so that none can stall or crash a worker; decodes nothing here."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, Final

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from stream.errors import ImagePoolStopped, ImageUnavailable, StreamError
from stream.pixels import BYTES_PER_PIXEL, REASONS, load_image, prepare_image
from stream.records import Image, PreparedImage

__all__ = ["REASONS", "ImagePool", "load_image", "prepare_image"]

_SPARE_BYTES: Final = 512 * 2**20
_SPAWN_GRACE_S: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1


class ImagePool:
    """Prepares images in processes of its own, so that a slow, hostile or crashing one stalls nothing else.

    Each process has one image at a time, so a crash has one image to blame, and `prepare` calls beyond
    `n_processes` wait their turn. A process that needs longer than `timeout_s` is killed and replaced.
    `multiprocessing` keeps a small tracker process of its own, which ends with this process.
    """

    def __init__(
        self, *, n_processes: int, timeout_s: float, edge: int, max_pixels: int, folder: Path | None, max_bytes: int
    ) -> None:
        self.n_processes = n_processes
        self.timeout_s = timeout_s
        self._memory_bytes = max_pixels * BYTES_PER_PIXEL + _SPARE_BYTES
        self._work = partial(_work, edge=edge, max_pixels=max_pixels, folder=folder, max_bytes=max_bytes)
        self._free: asyncio.LifoQueue[ProcessPool | None] = asyncio.LifoQueue()  # None: not started
        for _ in range(n_processes):
            self._free.put_nowait(None)
        self._pools: set[ProcessPool] = set()
        self._running: set[ProcessFuture[Any]] = set()
        self._stopped = False

    async def start(self) -> None:
        """Start the processes now, rather than with their first images, and wait until they are ready."""
        self._stopped = False
        free = [self._free.get_nowait() for _ in range(self._free.qsize())]
        pools = [pool if pool in self._pools else self._open() for pool in free]
        try:
            await asyncio.gather(*(self._run(pool, self.timeout_s, os.getpid) for pool in pools))
        except (BrokenProcessPool, RuntimeError, OSError) as error:
            await self.stop()
            raise StreamError(f"the processes that decode images do not start: {error!r}") from error
        finally:
            for pool in pools:
                self._free.put_nowait(pool if pool in self._pools else None)

    async def prepare(self, image: Image, *, index: int, deadline_s: float | None = None) -> PreparedImage:
        """Return the image as pixels; `index` says which of its post's images it is.

        Its deadline is `timeout_s` from its turn, or a `deadline_s`, by the loop's clock, that it shares with others.
        The time in which its process starts, if that must, is not its own.

        Raises:
            ImageUnavailable: it cannot be used; `reason` is one of `REASONS`.
            ImagePoolStopped: `stop` came first, which says nothing about the image.
        """
        pool = await self._free.get()
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + self.timeout_s if deadline_s is None else deadline_s
        try:
            for _ in range(2):  # a process may die idle, or by a signal to all, through no fault of this image
                if self._stopped:
                    raise ImagePoolStopped("the image pool is stopped: start it again")
                pool = pool or self._open()
                try:
                    result = await self._run(pool, deadline_s - clock(), self._work, image, index)
                except TimeoutError as error:
                    raise ImageUnavailable("timeout", f"not decoded in time, {self.timeout_s} s") from error
                except ProcessExpired:
                    continue  # pebble starts another
                except (BrokenProcessPool, RuntimeError):
                    broken, pool = pool, None
                    await self._close(broken)
                    continue
                if isinstance(result, PreparedImage):
                    return result
                raise ImageUnavailable(*result)
            raise ImageUnavailable("crashed", "decoding it ended its process, twice")
        finally:
            self._free.put_nowait(pool if pool in self._pools else None)

    async def stop(self) -> None:
        """End every process; a `prepare` still running raises `ImagePoolStopped`."""
        self._stopped = True
        await asyncio.gather(*(self._close(pool) for pool in tuple(self._pools)))
        for future in tuple(self._running):
            if not future.done():  # pebble leaves these waiting for ever
                future.set_exception(ImagePoolStopped("the image pool stopped before the image was prepared"))

    def _open(self) -> ProcessPool:
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPool(
            max_workers=1, context=spawn, initializer=_enter_child, initargs=(os.getpid(), self._memory_bytes)
        )
        self._pools.add(pool)
        return pool

    async def _close(self, pool: ProcessPool) -> None:
        self._pools.discard(pool)
        pool.stop()
        await asyncio.to_thread(pool.join)

    async def _run(self, pool: ProcessPool, timeout_s: float, function: Callable[..., Any], *args: object) -> Any:
        if timeout_s <= 0:
            raise TimeoutError
        future = pool.schedule(function, args=args, timeout=timeout_s)  # counts from when it begins
        self._running.add(future)
        try:
            async with asyncio.timeout(timeout_s + _SPAWN_GRACE_S) as deadline:
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if deadline.expired():
                raise BrokenProcessPool("a process to decode images never answered") from error
            raise
        finally:
            self._running.discard(future)


def _work(
    image: Image, index: int, *, edge: int, max_pixels: int, folder: Path | None, max_bytes: int
) -> PreparedImage | tuple[str, str]:
    try:
        data = load_image(image, folder=folder, max_bytes=max_bytes)
        return prepare_image(data, index=index, edge=edge, max_pixels=max_pixels)
    except ImageUnavailable as error:
        return error.reason, str(error)  # as data: exceptions with two arguments do not survive pickling


def _enter_child(parent: int, memory_bytes: int) -> None:
    """Bound this child's memory, and let it end when told to and with its parent, even one that is killed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # at once, not when a decoder returns to Python
    warnings.simplefilter("ignore")
    if sys.platform == "linux":
        import resource

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        soft = used + memory_bytes if hard == resource.RLIM_INFINITY else min(used + memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    if os.getppid() != parent:
        os._exit(1)
