"""Images in processes of their own: a slow or crashing one costs its own post only, and no process is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from stream.errors import ImagePoolStopped, ImageUnavailable
from stream.images import ImagePool
from stream.records import Image, PreparedImage
from tests.stream.pictures import halves, png, saved, scan_bomb

GOOD = Image(data=saved(halves(), "PNG"))
SLOW = Image(data=scan_bomb())
SLOWISH = Image(data=scan_bomb(2_000, 2_000, n_scans=500))

Open = Callable[..., ImagePool]


@pytest.fixture
async def open_pool(tmp_path: Path) -> AsyncIterator[Open]:
    pools: list[ImagePool] = []

    def open_one(*, n_processes: int = 1, timeout_s: float = 30.0) -> ImagePool:
        pools.append(
            ImagePool(
                n_processes=n_processes,
                timeout_s=timeout_s,
                edge=32,
                max_pixels=500_000_000,  # or the slow ones would have too many scans
                folder=tmp_path,
                max_bytes=1_000_000,
            )
        )
        return pools[-1]

    yield open_one
    for pool in pools:
        await pool.stop()
    assert not decoders()


def decoders(pid: int | None = None) -> list[psutil.Process]:
    """Return the living processes of the pool, told from the servers that other tests keep for the session."""
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if is_alive(child) and "multiprocessing.spawn" in " ".join(child.cmdline())]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def at_work() -> psutil.Process:
    """Return the only decoding process once it is deep in an image: to start alone costs it less than this."""
    await until(lambda: any(is_alive(child) and child.cpu_times().user > 0.5 for child in decoders()))
    (child,) = decoders()
    return child


async def test_images_are_prepared_by_several_processes(open_pool: Open, tmp_path: Path) -> None:
    pool = open_pool(n_processes=2)
    (tmp_path / "a.png").write_bytes(saved(halves(64, 32), "PNG"))
    await pool.start()
    assert len(decoders()) == 2
    images = await asyncio.gather(*(pool.prepare(GOOD, index=index) for index in range(20)))
    assert [image.index for image in images] == list(range(20))
    assert (images[0].width, images[0].height, images[0].original_width) == (32, 16, 40)
    assert (await pool.prepare(Image(path="a.png"), index=0)).original_width == 64


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image(data=b""), "empty"),
        (Image(data=b"no image"), "unsupported_format"),
        (Image(data=png(40_000, 40_000)), "too_many_pixels"),
        (Image(data=b"x" * 1_000_001), "too_many_bytes"),
        (Image(path="../a.png"), "not_allowed"),
        (Image(path="a.png"), "not_found"),
        (Image(url="http://127.0.0.1/"), "url_not_fetched"),
    ],
)
async def test_reason_crosses_the_process_boundary(open_pool: Open, image: Image, reason: str) -> None:
    with pytest.raises(ImageUnavailable) as error:
        await open_pool().prepare(image, index=0)
    assert error.value.reason == reason
    assert str(error.value)


async def test_slow_image_times_out_and_the_next_is_prepared(open_pool: Open) -> None:
    pool = open_pool(timeout_s=0.5)
    await pool.start()
    (before,) = decoders()
    start = time.monotonic()
    with pytest.raises(ImageUnavailable) as error:
        await pool.prepare(SLOW, index=0)
    assert error.value.reason == "timeout"
    assert time.monotonic() - start < 4
    assert (await pool.prepare(GOOD, index=0)).width == 32
    assert not is_alive(before)


async def test_images_that_share_a_deadline_have_no_time_after_it(open_pool: Open) -> None:
    pool = open_pool()
    await pool.start()
    start = time.monotonic()
    deadline_s = asyncio.get_running_loop().time() + 0.3
    for image in (SLOW, GOOD):
        with pytest.raises(ImageUnavailable) as error:
            await pool.prepare(image, index=0, deadline_s=deadline_s)
        assert error.value.reason == "timeout"
    assert time.monotonic() - start < 4
    assert (await pool.prepare(GOOD, index=0)).width == 32


async def test_slow_image_does_not_delay_those_beside_it(open_pool: Open) -> None:
    pool = open_pool(n_processes=2)
    slow = asyncio.create_task(pool.prepare(SLOW, index=0))
    await asyncio.gather(*(pool.prepare(GOOD, index=0) for _ in range(20)))
    assert not slow.done()
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow


async def test_crash_costs_its_own_image_only(open_pool: Open) -> None:
    pool = open_pool()
    await pool.start()
    slow = asyncio.create_task(pool.prepare(SLOW, index=0))
    waiting: list[asyncio.Task[PreparedImage]] = []
    for _ in range(2):
        child = await at_work()
        waiting.append(asyncio.create_task(pool.prepare(GOOD, index=0)))
        child.send_signal(signal.SIGSEGV)
        await until(lambda child=child: not is_alive(child))  # type: ignore[misc]
    with pytest.raises(ImageUnavailable) as error:
        await slow
    assert error.value.reason == "crashed"
    assert [image.width for image in await asyncio.gather(*waiting)] == [32, 32]


async def test_process_that_is_ended_from_outside_costs_no_image(open_pool: Open) -> None:
    """A supervisor may signal every process of a worker that is about to finish its posts."""
    pool = open_pool()
    slow = asyncio.create_task(pool.prepare(SLOWISH, index=0))
    (await at_work()).terminate()
    assert (await slow).original_width == 2_000


@pytest.mark.parametrize("noticed", [False, True])
async def test_process_that_dies_idle_costs_no_image(open_pool: Open, noticed: bool) -> None:
    pool = open_pool()
    await pool.start()
    (child,) = decoders()
    child.kill()
    if noticed:
        await asyncio.sleep(0.4)
    assert (await pool.prepare(GOOD, index=0)).width == 32


async def test_cancelled_image_frees_its_process(open_pool: Open) -> None:
    pool = open_pool()
    await pool.start()
    slow = asyncio.create_task(pool.prepare(SLOW, index=0))
    await at_work()
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert (await pool.prepare(GOOD, index=0)).width == 32


async def test_stop_says_nothing_about_images_in_flight(open_pool: Open) -> None:
    """Taken for unusable, they would be published as a finding without its image."""
    pool = open_pool()
    running = asyncio.create_task(pool.prepare(SLOW, index=0))
    await at_work()
    waiting = asyncio.create_task(pool.prepare(GOOD, index=0))
    await asyncio.sleep(0)
    await pool.stop()
    assert not decoders()
    for task in (running, waiting):
        with pytest.raises(ImagePoolStopped):
            await task
    with pytest.raises(ImagePoolStopped):
        await pool.prepare(GOOD, index=0)
    await pool.stop()
    await pool.start()
    assert (await pool.prepare(GOOD, index=0)).width == 32


PARENT = """
import asyncio, sys
from stream.images import ImagePool
from stream.records import Image
from tests.stream.pictures import scan_bomb

async def main():
    pool = ImagePool(n_processes=2, timeout_s=60, edge=32, max_pixels=10**9, folder=None, max_bytes=10**6)
    await pool.start()
    print("started", flush=True)
    await pool.prepare(Image(data=scan_bomb(n_scans=1_000)), index=0)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux only")
def test_processes_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).parents[2]
    env = {"PYTHONPATH": str(root), "PATH": os.defpath}
    with subprocess.Popen([sys.executable, str(script)], cwd=root, env=env, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        children = decoders(parent.pid)
        assert len(children) == 2
        asyncio.run(until(lambda: max(child.cpu_times().user for child in children) > 0.3))
        parent.kill()
    asyncio.run(until(lambda: not any(is_alive(child) for child in children), timeout_s=5))
