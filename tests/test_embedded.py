"""The embedded services, really started and stopped; needs the extra `embedded`, and Java for one test."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from redis import Redis

from deploy import services as services_module
from deploy.child_process import Child, is_alive
from deploy.embedded import EmbeddedError, EmbeddedServices, down, embedded, free_port, start, stop, up
from deploy.probes import kafka_answers, redis_answers
from tests.chaos.apache import found_kafka_home

REPOSITORY = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.integration

if importlib.util.find_spec("noida_db") is None and "CI" not in os.environ:
    pytest.skip("the extra `embedded` is not installed", allow_module_level=True)


def test_services_take_and_return_records_and_keys() -> None:
    """What is produced is consumed, what is set is got, and nothing stays after the block."""
    with embedded() as services:
        assert asyncio.run(_through_kafka(services.kafka, b"hello")) == b"hello"
        with Redis.from_url(services.redis) as client:
            client.set("key", "value", ex=60)
            assert client.get("key") == b"value"
    _assert_gone(services)


@pytest.mark.kafka_home
@pytest.mark.skipif(found_kafka_home() is None, reason="KAFKA_HOME names no unpacked Apache Kafka")
def test_apache_kafka_takes_and_returns_records() -> None:
    """A real broker runs from its unpacked jars, takes records of several megabytes, and has Redis beside it."""
    with embedded(kafka_home=found_kafka_home()) as services:
        assert [child.name for child in services.children] == ["emulator", "kafka"]
        assert asyncio.run(_through_kafka(services.kafka, b"x" * 3_000_000)) == b"x" * 3_000_000
        assert redis_answers(services.redis)
    _assert_gone(services)


def test_own_addresses_are_used_and_not_started() -> None:
    """A service with an address of the user's own is left to the user."""
    with embedded(kafka="kafka.example.org:9092") as services:
        assert services.kafka == "kafka.example.org:9092"
        assert redis_answers(services.redis)
        assert len(services.children) == 1
    with embedded(kafka="kafka.example.org:9092", redis="redis://redis.example.org/0") as services:
        assert services.children == []


def test_second_up_returns_the_running_services(tmp_path: Path) -> None:
    """`up` twice is one set of services; `down` stops them, keeps the data, and may be repeated."""
    first = up(tmp_path)
    try:
        second = up(tmp_path)
        assert not first.already_running
        assert second.already_running
        assert second.services == first.services
        with Redis.from_url(first.services.redis) as client:
            client.set("kept", "yes")
    finally:
        stopped = down(tmp_path)
    assert stopped == first.services.children
    assert down(tmp_path) == []
    assert not redis_answers(first.services.redis)
    again = up(tmp_path)
    try:
        with Redis.from_url(again.services.redis) as client:
            assert client.get("kept") == b"yes"
    finally:
        down(tmp_path)


def test_services_outlive_the_process_that_brought_them_up(tmp_path: Path) -> None:
    """Another process finds them running and can stop them."""
    code = f"from pathlib import Path; from deploy.embedded import up; up(Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    found = up(tmp_path)
    assert found.already_running
    assert down(tmp_path) == found.services.children
    _assert_gone(found.services)


def test_stale_state_is_replaced(tmp_path: Path) -> None:
    """After a crash or a reboot, `up` starts anew."""
    crashed = up(tmp_path).services
    os.kill(crashed.pids[0], 9)
    while is_alive(crashed.children[0]):
        time.sleep(0.01)
    try:
        replaced = up(tmp_path)
        assert not replaced.already_running
        assert replaced.services.pids != crashed.pids
    finally:
        down(tmp_path)


def test_unreadable_state_is_replaced(tmp_path: Path) -> None:
    """A state file cut short does not block `up` or `down`."""
    (tmp_path / "services.json").write_text('{"kafka": "127.0')
    assert down(tmp_path) == []
    assert not (tmp_path / "services.json").exists()


def test_down_spares_a_process_that_was_given_a_recorded_id(tmp_path: Path) -> None:
    """The id alone is no proof: a process that started at another time is not ours."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        recorded = EmbeddedServices(
            kafka="127.0.0.1:1",
            redis="redis://127.0.0.1:1/0",
            children=[Child(name="emulator", pid=stranger.pid, started="another-boot/1")],
            data_dir=tmp_path,
            log_file=tmp_path / "services.log",
            temporary=False,
        )
        (tmp_path / "services.json").write_bytes(msgspec.json.encode(recorded, enc_hook=str))
        assert down(tmp_path) == []
        assert stranger.poll() is None
        stranger.communicate(b"\n")


def test_killed_parent_leaves_nothing_running(tmp_path: Path) -> None:
    """With `die_with_parent` even SIGKILL of the parent ends the services."""
    code = (
        "import sys; from pathlib import Path; from deploy.embedded import start\n"
        f"services = start(data_dir=Path({str(tmp_path)!r}), die_with_parent=True)\n"
        "print(services.kafka, services.redis, flush=True); sys.stdin.read()"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, **pipes) as parent:
        assert parent.stdout is not None
        kafka, redis = parent.stdout.readline().split()
        assert kafka_answers(kafka)
        parent.kill()
    deadline = time.monotonic() + 5
    while (kafka_answers(kafka) or redis_answers(redis)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not kafka_answers(kafka)
    assert not redis_answers(redis)


def test_die_with_parent_outside_the_main_thread_is_refused() -> None:
    """The kernel ties the services to the thread: in a pool they would die with it, unnoticed."""
    seen: list[BaseException] = []

    def attempt() -> None:
        try:
            start(die_with_parent=True)
        except RuntimeError as error:
            seen.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert "main thread" in str(seen[0])


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error is the command that installs it."""
    monkeypatch.setitem(sys.modules, "noida_db", None)
    with pytest.raises(EmbeddedError, match=r"pip install '\.\[embedded\]'"):
        start()


def test_missing_java_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Java, the error says so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedError, match="Java 17"):
        start(redis="redis://redis.example.org/0", kafka_home=tmp_path)


def test_folder_without_kafka_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without jars is named in the error."""
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedError, match=f"no Kafka jars in {tmp_path}/libs"):
        start(kafka_home=tmp_path)


def test_service_that_fails_to_start_shows_its_log(tmp_path: Path) -> None:
    """The error ends with the log, and nothing stays behind."""
    (tmp_path / "emulator").write_text("a file where the data folder should be")
    with pytest.raises(EmbeddedError, match=r"stopped while it was starting; the log:\n(?s:.+)"):
        start(data_dir=tmp_path)


def test_port_taken_meanwhile_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that another process took between choosing and binding costs one more attempt."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1]]
        monkeypatch.setattr(services_module, "free_port", lambda: ports.pop() if ports else free_port())
        services = start()
    try:
        assert kafka_answers(services.kafka)
    finally:
        stop(services)


async def _through_kafka(bootstrap: str, value: bytes) -> bytes | None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=len(value) + 1_000_000)
    consumer = AIOKafkaConsumer(
        "through", bootstrap_servers=bootstrap, auto_offset_reset="earliest", group_id="through"
    )
    await producer.start()
    try:
        await producer.send_and_wait("through", value)
        await consumer.start()
        record = await asyncio.wait_for(consumer.getone(), 15)
    finally:
        await producer.stop()
        await consumer.stop()
    returned: bytes | None = record.value
    return returned


def _assert_gone(services: EmbeddedServices) -> None:
    assert services.children
    assert not any(is_alive(child) for child in services.children)
    assert not kafka_answers(services.kafka)
    assert not redis_answers(services.redis)
    assert not services.temporary or not services.data_dir.exists()
