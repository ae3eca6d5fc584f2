"""Settings: which source wins, where a value came from, and what is said of a bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream.topics import topics
from workers.setting_sources import ENV_PREFIX, Sourced, explain_settings, load_settings, without_password
from workers.settings import PLAIN_KAFKA, Settings, SettingsError, check_buffer

DEFAULTS = Settings()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.toml"
    path.write_text('max_batch = 8\nlog_level = "debug"\nlinger_s = 1\n', "utf-8")
    return path


def sourced(name: str, explained: list[Sourced]) -> Sourced:
    return next(one for one in explained if one.name == name)


def test_defaults_hold_without_any_source() -> None:
    assert load_settings(environ={}) == DEFAULTS


def test_flag_wins_over_environment_over_file_over_default(file: Path) -> None:
    environ = {"SITREP_MAX_BATCH": "16", "SITREP_LOG_LEVEL": "warning"}
    settings = load_settings({"max_batch": 4}, environ=environ, file=file)
    assert (settings.max_batch, settings.log_level, settings.linger_s) == (4, "warning", 1.0)
    assert settings.partitions == DEFAULTS.partitions


def test_every_setting_says_where_it_came_from(file: Path) -> None:
    explained = explain_settings({"max_batch": 4}, environ={"SITREP_LOG_LEVEL": "error"}, file=file)
    assert [one.name for one in explained] == list(Settings.__struct_fields__)
    assert sourced("max_batch", explained).source == "flag --set max_batch"
    assert sourced("log_level", explained).source == "environment SITREP_LOG_LEVEL"
    assert sourced("linger_s", explained).source == f"file {file}"
    assert sourced("partitions", explained).source == "default"
    assert sourced("max_batch", explained).value == 4


def test_every_setting_says_what_it_is_for() -> None:
    assert [one.name for one in explain_settings(environ={}) if not one.description] == []


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"kafka_security_protocol": "TLS"}, "write PLAINTEXT, SSL"),
        ({"kafka_security_protocol": "SASL_SSL", "kafka_username": "me"}, "kafka_username and kafka_password"),
        ({"kafka_username": "me", "kafka_password": "secret"}, "makes no use of kafka_username"),
        ({"kafka_security_protocol": "SSL", "kafka_password": "secret"}, "makes no use of kafka_password"),
        ({"kafka_ca_file": "ca.pem"}, "makes no use of kafka_ca_file"),
        ({"kafka_security_protocol": "SSL", "kafka_key_file": "key.pem"}, "give kafka_cert_file"),
    ],
)
def test_security_that_would_not_be_used_is_refused(flags: dict[str, str], told: str) -> None:
    """Who gives a password or a certificate does not mean to go without."""
    with pytest.raises(SettingsError, match=told) as caught:
        load_settings(flags, environ={})
    assert "secret" not in str(caught.value)


def test_largest_record_that_is_allowed_can_be_fetched() -> None:
    """Kafka's protocol has 32 bits, of which one is the sign, for what a fetch may bring of a partition."""
    settings = load_settings({"max_record_bytes": 1_000_000_000}, environ={})
    wanted = topics(prefix="", n_partitions=1, max_record_bytes=settings.max_record_bytes)
    assert all(topic.max_message_bytes + 2**20 < 2**31 for topic in wanted.all())


def test_shortest_time_of_a_finding_is_one_that_redis_takes() -> None:
    assert int(load_settings({"finding_ttl_s": "0.001"}, environ={}).finding_ttl_s * 1000) == 1


def test_buffer_that_one_micro_batch_overflows_is_refused() -> None:
    check_buffer(Settings(cache_buffer=64, max_batch=32))
    with pytest.raises(SettingsError, match=r"cache_buffer = 63 .* max_batch = 32 posts: set it to 64 or more"):
        check_buffer(Settings(cache_buffer=63, max_batch=32))


def test_security_reaches_the_clients_and_the_password_no_page() -> None:
    flags = {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_username": "me", "kafka_password": "secret"}
    settings = load_settings({**flags, "kafka_sasl_mechanism": "PLAIN"}, environ={})

    assert settings.broker.options() == {
        "bootstrap_servers": settings.kafka,
        "security_protocol": "SASL_PLAINTEXT",
        "ssl_context": None,
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "me",
        "sasl_plain_password": "secret",
    }
    assert "secret" not in repr(settings.broker)
    with pytest.raises(SettingsError, match=r"kafka_password = \*\*\* is not allowed"):
        load_settings({"kafka_password": 12345678}, environ={})
    assert sourced("kafka_password", explain_settings(flags, environ={})).value == "***"
    assert load_settings({**flags, **PLAIN_KAFKA}, environ={}) == DEFAULTS


def test_file_is_named_by_the_environment(file: Path) -> None:
    assert load_settings(environ={f"{ENV_PREFIX}CONFIG": str(file)}).max_batch == 8


def test_file_in_the_working_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitrep.toml").write_text("max_batch = 3\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_settings(environ={}).max_batch == 3


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITREP_MAX_BATCH", "5")
    assert load_settings().max_batch == 5


def test_other_variables_are_left_alone() -> None:
    assert load_settings(environ={"PATH": "/bin", "SITREPS": "1", "MAX_BATCH": "2"}) == DEFAULTS


def test_flag_that_is_not_given_does_not_count() -> None:
    assert load_settings({"max_batch": None}, environ={"SITREP_MAX_BATCH": "7"}).max_batch == 7


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_batch", "32", 32),
        ("linger_s", "0", 0.0),
        ("linger_s", "0.25", 0.25),
        ("redis", "rediss://h:1/2", "rediss://h:1/2"),
        ("prefix", "", ""),
        ("web_port", "0", 0),
    ],
)
def test_text_of_the_environment_becomes_a_value(name: str, text: str, value: Any) -> None:
    seen = getattr(load_settings(environ={f"{ENV_PREFIX}{name.upper()}": text}), name)
    assert seen == value and type(seen) is type(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_batch", "0"),
        ("max_batch", "-1"),
        ("max_batch", "many"),
        ("max_batch", "1.5"),
        ("max_batch", ""),
        ("linger_s", "-0.1"),
        ("linger_s", "nan"),
        ("drain_timeout_s", "0"),
        ("max_record_bytes", "1000000001"),
        ("finding_ttl_s", "0.0009"),
        ("redis", "http://127.0.0.1"),
        ("linger_s", "inf"),
        ("threads", "100000"),
        ("kafka", ""),
        ("kafka", "broker"),
        ("kafka", "a:9092,"),
        ("kafka", "a:9092,b:99999"),
        ("kafka", "kafka://a:9092"),
        ("redis", "redis://a:port"),
        ("redis", "redis://a:6379/first"),
        ("prefix", "a b"),
        ("web_port", "65536"),
        ("alert_threshold", "1.1"),
        ("log_level", "loud"),
        ("web_host", ""),
    ],
)
def test_bad_value_is_named_with_its_source(name: str, value: str) -> None:
    variable = f"{ENV_PREFIX}{name.upper()}"
    with pytest.raises(SettingsError) as error:
        load_settings(environ={variable: value})
    message = str(error.value)
    assert f"environment {variable}: {name} = {value!r}" in message
    assert next(one.description for one in explain_settings(environ={}) if one.name == name) in message


def test_bad_value_is_refused_even_where_a_better_source_wins(file: Path) -> None:
    """It is wrong all the same, and would come into force unseen when the flag is left out."""
    file.write_text("max_batch = 0\n", "utf-8")
    with pytest.raises(SettingsError, match="max_batch = 0"):
        load_settings({"max_batch": 4}, environ={}, file=file)


@pytest.mark.parametrize(
    ("flags", "environ", "text", "source"),
    [
        ({"max_bach": 1}, {}, "", "flag --set max_bach"),
        ({}, {"SITREP_MAX_BACH": "1"}, "", "environment SITREP_MAX_BACH"),
        ({}, {}, "max_bach = 1", "some.toml"),
        ({}, {}, "[worker]\nmax_batch = 1", "some.toml"),
    ],
)
def test_unknown_setting_is_named_with_its_source(
    file: Path, flags: dict[str, Any], environ: dict[str, str], text: str, source: str
) -> None:
    file.write_text(text, "utf-8")
    with pytest.raises(SettingsError, match="there is no setting") as error:
        load_settings(flags, environ=environ, file=file)
    assert source in str(error.value)


@pytest.mark.parametrize("content", [b"max_batch = ", b"\xff\xfe", b"max_batch: 3"])
def test_file_that_is_not_toml_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"some\.toml is not TOML"):
        load_settings(environ={}, file=file)


def test_missing_file_is_refused_only_when_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no settings file"):
        load_settings(environ={}, file=tmp_path / "none.toml")


def test_file_that_the_environment_names_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo must not start a worker with defaults; nor may a folder pass for the file."""
    with pytest.raises(SettingsError, match=r"none\.toml"):
        load_settings(environ={"SITREP_CONFIG": str(tmp_path / "none.toml")})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sitrep.toml").mkdir()
    with pytest.raises(SettingsError, match=r"sitrep\.toml is a folder: rename it"):
        load_settings(environ={})


@pytest.mark.parametrize(
    ("name", "value", "form"),
    [
        ("log_level", "DEBUG", "write debug, info, warning or error"),
        ("redis", "foo", "write redis://HOST:PORT/0"),
        ("prefix", "a b", "write only A-Z, a-z, 0-9"),
        ("instance", "a/b", "write at most 200 of A-Z, a-z, 0-9"),
    ],
)
def test_form_of_a_value_is_told_in_words(name: str, value: str, form: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings({name: value}, environ={})
    assert form in str(error.value)
    assert "regex" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:geheim@a:6379/0", "redis://:***@a:6379/0"),
        ("rediss://me:geheim@a/0", "rediss://me:***@a/0"),
        ("redis://geheim@a/0", "redis://***@a/0"),
        ("redis://:geh@im/?#:geheim@a/0", "redis://:***@a/0"),
        ("unix:///run/redis.sock?db=1&password=geheim", "unix:///run/redis.sock?db=1&password=***"),
        ("'redis://:geheim@a/0' is no URL: leave it", "'redis://:***@a/0' is no URL: leave it"),
    ],
)
def test_password_is_left_out_of_a_text(text: str, shown: str) -> None:
    assert without_password(text) == shown


def test_settings_are_explained_without_the_password() -> None:
    explained = explain_settings({"redis": "redis://:geheim@a:6379/0"}, environ={})
    assert sourced("redis", explained).value == "redis://:***@a:6379/0"


@pytest.mark.parametrize(
    "value",
    [
        "http://:geheim@a",
        ":geheim@a:6379",
        "geheim@a",
        "redis://:geheim@a:port",
        "redis://:x/geheim@a",
        "redis://:1/geheim@a",
        "redis://:geheim@a/first",
    ],
)
def test_bad_address_is_told_without_its_password(value: str) -> None:
    with pytest.raises(SettingsError, match=r"\*\*\*@a") as error:
        load_settings({"redis": value}, environ={})
    assert "geheim" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kafka", "[::1]:9092"),
        ("kafka", "a_b.example:9092, c:9093"),
        ("redis", "redis://:p%40ss@a:6379/3"),
        ("redis", "unix:///run/redis.sock?db=1"),
    ],
)
def test_addresses_of_every_form_are_taken(name: str, value: str) -> None:
    assert getattr(load_settings({name: value}, environ={}), name) == value


def test_settings_do_not_change_once_loaded() -> None:
    with pytest.raises(AttributeError):
        DEFAULTS.max_batch = 1  # type: ignore[misc]
    assert msgspec.structs.replace(DEFAULTS, max_batch=1).max_batch == 1
