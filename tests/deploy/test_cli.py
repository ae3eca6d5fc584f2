"""The command line: help for newcomers, one clear line for every mistake, and nothing heavy at the start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.embedded import EmbeddedServices, Up
from model.testing import tiny_checkpoint
from stream.records import Finding, decode
from workers.settings import Settings

COMMANDS = (
    "demo", "up", "down", "worker", "replay", "explain", "evaluate", "findings", "alerts", "config", "schemas",
    "topics create", "topics describe", "dead-letters list", "dead-letters show", "dead-letters replay",
    "ledger check", "cache rebuild",
)  # fmt: skip
NOBODY = "127.0.0.1:1"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    captured = capsys.readouterr()
    assert isinstance(leaving.value.code, int)
    return leaving.value.code, captured.out, captured.err


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.__struct_fields__:
        monkeypatch.delenv(f"SITREP_{name.upper()}", raising=False)
    monkeypatch.delenv("SITREP_CONFIG", raising=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` works for each, and says something."""
    code, out, err = run(capsys, *command.split(), "--help")

    assert code == 0
    assert "Usage: sitrep" in out
    assert err == ""


def test_start_imports_nothing_heavy() -> None:
    """Help must not wait for torch, Faust or a Kafka client."""
    heavy = ("torch", "faust", "aiokafka", "transformers", "numpy", "PIL", "model", "redis")
    check = f"import sys, deploy.cli; print([name for name in {heavy!r} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["wroker"], 2, "wroker"),
        (["worker", "--stage", "half"], 2, "half"),
        (["demo", "--posts", "0"], 2, "--posts"),
        (["findings", "-n", "0"], 2, "'-n': Input should be greater than or equal to 1 (given: 0)"),
        (["replay", "posts.jsonl", "--rate", "nan"], 2, "(given: nan)"),
        (["ledger", "check", "--wait", "nan"], 2, "(given: nan)"),
        (["schemas", "--out", "file"], 1, "file is a file: give a folder"),
        (["up", "--dir", "file"], 1, "file is a file: give a folder"),
        (["up", "--dir", "file/below"], 1, "file/below lies below a file: give a folder"),
        (["up", "--kafka", "garbage"], 2, "'garbage' is not HOST:PORT"),
        (["up", "--redis", "redis://:geheim@h:x"], 2, "redis://:***@h:x"),
        (["replay"], 2, "PATH"),
        (["topics", "create", "--set", "partitions"], 2, "NAME=VALUE"),
        (["topics", "create", "--set", "partitions=none"], 2, "partitions"),
        (["topics", "create", "--set", "no_such=1"], 2, "no_such"),
        (["topics", "create", "--config", "missing.toml"], 2, "missing.toml"),
        (["topics", "create", "--kafka", NOBODY], 1, NOBODY),
        (["topics", "describe", "--kafka", NOBODY], 1, NOBODY),
        (["topics", "describe", "--kafka", "rubbish"], 2, "'rubbish' is not HOST:PORT"),
        (["topics", "create", "--kafka", "127.0.0.1:99999"], 2, "127.0.0.1:99999"),
        (["worker", "--redis", "redis://127.0.0.1:port"], 2, "redis://127.0.0.1:port"),
        (["findings", "--redis", "redis://127.0.0.1/zero"], 2, "'zero' is no number"),
        (["findings", "--redis", "redis://127.0.0.1/0?colour=red"], 1, "colour"),
        (["ledger", "check", "--kafka", NOBODY], 1, NOBODY),
        (["dead-letters", "list", "--kafka", NOBODY], 1, NOBODY),
        (["dead-letters", "replay", "--all", "--kafka", NOBODY], 1, NOBODY),
        (["dead-letters", "replay"], 2, "--all"),
        (["findings", "--redis", "redis://127.0.0.1:1/0"], 1, "--redis"),
        (["findings", "--redis", "http://127.0.0.1"], 2, "http://127.0.0.1"),
        (
            ["findings", "--label", "floods"],
            2,
            "'floods' is no class: one of 'infrastructure damage' (",
        ),
        (["alerts", "--kafka", NOBODY], 1, NOBODY),
        (["alerts", "--follow", "--kafka", NOBODY], 1, NOBODY),
        (["alerts", "-n", "0"], 2, "'-n': Input should be greater than or equal to 1 (given: 0)"),
        (["findings", "--follow", "--kafka", NOBODY], 1, NOBODY),
        (["replay", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        (["demo", "--kafka", NOBODY, "--kafka-home", "."], 2, "--kafka-home"),
        (["demo", "--kafka", NOBODY, "--redis", "redis://127.0.0.1:1/0"], 1, NOBODY),
        (["worker", "--kafka", NOBODY, "--set", "web_port=0"], 1, NOBODY),
        (["worker", "--set", "web_host=192.0.2.1"], 1, "192.0.2.1:6066"),
        (["worker", "--set", "image_folder=nowhere"], 1, "nowhere"),
        (["worker", "--stage", "prepare", "--set", "image_edge=1600"], 1, "image_edge = 1600"),
        (["train", "--recipe", "compact", "--data", ".", "--out", "o", "--device", "cuda"], 2, "compact"),
        (["up", "--kafka", NOBODY, "--redis", "redis://127.0.0.1:1/0"], 2, "--redis"),
        (
            ["train", "--recipe", "compact", "--data", ".", "--out", "o", "--device", "cpu", "--rationales", "x"],
            2,
            "compact",
        ),
        (["explain", "flood", "--checkpoint", "nowhere"], 1, "nowhere"),
        (["explain", " "], 2, "--image"),
        (["explain", "flood", "--image", "missing.jpg"], 1, "missing.jpg"),
        (["explain", "flood", "--png", "out.png"], 2, "--image"),
    ],
)
def test_mistake_ends_in_one_line_that_names_it(
    arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Non-zero exit, no traceback: 2 for wrong use, 1 for what could not be done."""
    Path("file").write_text("")

    actual, _, err = run(capsys, *arguments)

    assert actual == code
    assert told in err
    assert err.startswith("sitrep: ")
    assert err.count("\n") == 1


def test_recipe_for_the_cpu_is_taken_on_a_machine_with_a_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a device that was asked for is refused."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)

    code, _, err = run(capsys, "train", "--recipe", "compact", "--data", ".", "--out", "o", "--weights", "w")

    assert code == 1
    assert "no folder crisismmd" in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["config"], 0),
        (["config", "--json"], 0),
        (["findings"], 1),
        (["findings", "--debug"], 1),
        (["findings", "--set", "linger_s=none"], 2),
    ],
)
@pytest.mark.parametrize("end", ["", "?colour=red", "/first"])
def test_password_of_redis_is_never_shown(
    arguments: list[str], code: int, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is it in a traceback, which goes into bug reports."""
    actual, out, err = run(capsys, *arguments, "--redis", f"redis://:geheim@{NOBODY}{end}")

    assert actual == (2 if end == "/first" else code)
    assert "geheim" not in out + err
    assert "redis://:***@" in out + err or "linger_s" in err


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("ResponseError", "refuses: no: check the URL (--redis)"),
        ("AuthenticationError", "refuses: no: check the URL (--redis)"),
        ("ConnectionError", "does not answer: no: start it or give another address (--redis)"),
        ("TimeoutError", "does not answer: no: start it or give another address (--redis)"),
    ],
)
def test_redis_that_answers_with_an_error_need_not_be_started(
    kind: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The URL is what is wrong then."""
    from redis import exceptions

    async def latest(*_: object) -> list[Finding]:
        raise getattr(exceptions, kind)("no")

    monkeypatch.setattr("stream.cache.FindingCache.latest", latest)

    code, _, err = run(capsys, "findings", "--redis", "redis://:geheim@h:1/99")

    assert (code, err) == (1, f"sitrep: Redis at redis://:***@h:1/99 {told}\n")


def test_no_findings_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """But not to a program."""

    async def latest(*_: object) -> list[Finding]:
        return []

    monkeypatch.setattr("stream.cache.FindingCache.latest", latest)

    assert run(capsys, "findings") == (0, "no findings\n", "")
    assert run(capsys, "findings", "--json") == (0, "", "")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("infrastructure damage", "infrastructure_and_utility_damage"),
        (" Rescue  or Donation", "rescue_volunteering_or_donation_effort"),
        ("not_humanitarian", "not_humanitarian"),
    ],
)
def test_class_goes_by_its_shown_name_too(
    name: str, label: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What one reads in a finding can be asked for."""
    asked: list[object] = []

    async def latest(_: object, label: str | None, n: int) -> list[Finding]:
        asked.append(label)
        return []

    monkeypatch.setattr("stream.cache.FindingCache.latest", latest)

    assert run(capsys, "findings", "--label", name)[0] == 0
    assert asked == [label]


def test_rebuilt_cache_is_named_without_the_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def rebuilt(*_: object) -> tuple[int, int]:
        return 2, 1

    monkeypatch.setattr("deploy.commands_cache._rebuild", rebuilt)

    code, out, _ = run(capsys, "cache", "rebuild", "--redis", "redis://:geheim@h:1/0")

    assert (code, out) == (0, "2 findings and 1 alerts written to redis://:***@h:1/0\n")


def test_up_does_not_show_the_password_of_redis(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line to copy says that it must be filled in."""
    services = EmbeddedServices(
        kafka="127.0.0.1:2",
        redis="redis://:geheim@h:1/0",
        children=[],
        data_dir=Path(),
        log_file=Path("log"),
        temporary=False,
    )
    monkeypatch.setattr("deploy.embedded.up", lambda *_, **__: Up(services=services, already_running=False))

    code, out, _ = run(capsys, "up", "--redis", services.redis)

    assert code == 0
    assert "geheim" not in out
    assert "SITREP_REDIS=redis://:***@h:1/0" in out and "with the password" in out


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """For bug reports, wherever the flag stands."""
    _, _, err = run(capsys, "explain", "flood", "--checkpoint", "nowhere", "--debug")

    assert "Traceback" in err


def test_config_tells_where_each_value_came_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A flag wins over the environment, that over the file, that over the default."""
    (tmp_path / "own.toml").write_text('kafka = "file:1"\nredis = "redis://file:1/0"\nprefix = "file."\n')
    monkeypatch.setenv("SITREP_REDIS", "redis://env:1/0")
    monkeypatch.setenv("SITREP_PREFIX", "env.")

    code, out, _ = run(capsys, "config", "--json", "--config", "own.toml", "--prefix", "flag.", "--set", "linger-s=0.2")

    assert code == 0
    found = {one["name"]: (one["value"], one["source"].split()[0]) for one in json.loads(out)}
    assert found["kafka"] == ("file:1", "file")
    assert found["redis"] == ("redis://env:1/0", "environment")
    assert found["prefix"] == ("flag.", "flag")
    assert found["linger_s"] == (0.2, "flag")
    assert found["max_batch"][1] == "default"
    assert set(found) == set(Settings.__struct_fields__)


def test_config_shows_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """As a table for people, and as the README's."""
    for arguments in (["config"], ["config", "--markdown"]):
        code, out, _ = run(capsys, *arguments)
        assert code == 0
        assert all(name in out for name in Settings.__struct_fields__)


def test_schemas_are_written_to_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """One file for each public record."""
    code, out, _ = run(capsys, "schemas", "--out", "here")

    assert code == 0
    assert all(json.loads(Path(name).read_text())["title"] for name in out.split())


def test_down_without_up_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Stopping nothing is no error."""
    code, out, _ = run(capsys, "down")

    assert code == 0
    assert "nothing" in out


def test_explain_prints_a_finding(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without Kafka and Redis; spans index the text that was given."""
    code, out, _ = run(capsys, "explain", "Bridge 🌉 collapsed near the river", "--json", "--checkpoint", checkpoint)

    assert code == 0
    finding = decode(out.encode(), Finding)
    assert finding.label in finding.probabilities
    assert finding.text_rationale
    assert all(0 <= span.start < span.end <= len(finding.text) for span in finding.text_rationale)


def test_explain_draws_the_picture_evidence(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A PNG beside the output, named after the photo unless told otherwise."""
    from PIL import Image

    Image.effect_noise((320, 200), 80).convert("RGB").save("photo.jpg")
    for arguments, file in (([], "photo-rationale.png"), (["--png", "own.png"], "own.png")):
        code, out, _ = run(capsys, "explain", "flood", "--image", "photo.jpg", "--checkpoint", checkpoint, *arguments)
        assert code == 0
        assert file in out
        with Image.open(file) as drawn:
            assert drawn.size == (320, 200)


def test_explain_tells_that_a_picture_is_read_smaller_than_the_classifier_was_taught(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reads as a worker does, which says the same in its log."""
    from PIL import Image

    Image.new("RGB", (64, 64)).save("photo.jpg")
    asked = ["explain", "flood", "--image", "photo.jpg", "--checkpoint", checkpoint, "--json"]
    assert run(capsys, *asked)[2] == ""
    code, out, err = run(capsys, *asked, "--set", "image_edge=100")
    assert code == 0 and decode(out.encode(), Finding)
    assert "100 px" in err and "--set image_edge=" in err


def test_explain_answers_before_it_draws(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A drawing that fails costs no finding; one that nobody asked for is not made beside JSON."""
    from PIL import Image

    Image.new("RGB", (64, 64)).save("photo.jpg")
    asked = ["explain", "flood", "--image", "photo.jpg", "--checkpoint", checkpoint]

    code, out, err = run(capsys, *asked, "--png", "nowhere/own.png")
    assert (code, err.count("\n")) == (1, 1)
    assert "nowhere/own.png" in err and "--png" in err
    assert "%" in out

    code, out, _ = run(capsys, *asked, "--json")
    assert code == 0
    assert decode(out.encode(), Finding).image_rationale is not None
    assert not Path("photo-rationale.png").exists()


def test_explain_refuses_what_is_no_picture(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is named."""
    Path("photo.jpg").write_text("not a picture")

    code, _, err = run(capsys, "explain", "flood", "--image", "photo.jpg", "--checkpoint", checkpoint)

    assert code == 1
    assert "photo.jpg" in err


def test_explained_text_may_be_no_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    """As a shell hands on bytes of another encoding."""
    with pytest.raises(SystemExit) as leaving:
        main(["explain", "bridge collapsed \udcff", "--json"])
    assert not leaving.value.code
    assert json.loads(capsys.readouterr().out)["text"] == "bridge collapsed \ufffd"
