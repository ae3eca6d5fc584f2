"""Every setting of Sitrep with its default, its bounds and what it is for; reads none of them from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

if TYPE_CHECKING:
    from stream.broker import Broker

SHIPPED_CHECKPOINT: Final = Path(__file__).resolve().parent.parent / "model" / "checkpoints" / "compact"

Positive = Annotated[int, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]  # thirty years: whatever is longer, as `inf` is, breaks some clock
Wait = Annotated[float, Meta(ge=0, le=1e9)]


class SettingsError(Exception):
    """A setting that is unknown or out of range; the message names its source, value and fix."""


class Settings(Struct, frozen=True, kw_only=True):
    """How Sitrep runs; what the model is, the checkpoint says."""

    kafka: Annotated[str, Meta(min_length=1, description="Kafka bootstrap servers, HOST:PORT[,HOST:PORT]")] = (
        "127.0.0.1:9092"
    )
    kafka_security_protocol: Annotated[
        str,
        Meta(
            pattern=r"^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)\Z",
            description="how Kafka is spoken to, by its own names: SSL is TLS, SASL a user's password",
            extra={"form": "write PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"},
        ),
    ] = "PLAINTEXT"
    kafka_ca_file: Annotated[
        str, Meta(description="certificates (PEM) that Kafka's own is checked against; empty: the system's")
    ] = ""
    kafka_cert_file: Annotated[str, Meta(description="certificate (PEM) to show Kafka; empty: none")] = ""
    kafka_key_file: Annotated[
        str, Meta(description="its key (PEM, without a password); empty: it is in kafka_cert_file")
    ] = ""
    kafka_sasl_mechanism: Annotated[
        str,
        Meta(
            pattern=r"^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)\Z",
            description="how SASL tells Kafka the password",
            extra={"form": "write PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"},
        ),
    ] = "SCRAM-SHA-512"
    kafka_username: Annotated[str, Meta(description="Kafka's user, for SASL")] = ""
    kafka_password: Annotated[str, Meta(description="that user's password")] = ""
    redis: Annotated[
        str,
        Meta(
            pattern="^(redis|rediss|unix)://",
            description="Redis URL",
            extra={"form": "write redis://HOST:PORT/0, rediss://HOST:PORT/0 or unix://PATH"},
        ),
    ] = "redis://127.0.0.1:6379/0"
    prefix: Annotated[
        str,
        Meta(
            pattern=r"^[a-zA-Z0-9._-]*\Z",
            description="prefix of topics, consumer groups and Redis keys",
            extra={"form": "write only A-Z, a-z, 0-9, dot, _ and -"},
        ),
    ] = "sitrep."
    instance: Annotated[
        str,
        Meta(
            pattern=r"^[a-zA-Z0-9._-]{0,200}\Z",
            description="the worker's name in its consumer group, which no other may have: started again under it after"
            " a crash, it takes its partitions back at once; empty: host name and web_port",
            extra={"form": "write at most 200 of A-Z, a-z, 0-9, dot, _ and -"},
        ),
    ] = ""
    partitions: Annotated[Positive, Meta(description="partitions of new topics")] = 12
    replication: Annotated[Positive, Meta(description="replicas of new topics")] = 1
    session_timeout_s: Annotated[
        float, Meta(gt=0, le=86_400, description="silence after which a worker loses its partitions")
    ] = 10.0
    max_stall_s: Annotated[
        float, Meta(gt=0, le=86_400, description="a worker that accepts nothing for so long loses its partitions")
    ] = 300.0
    request_timeout_s: Annotated[Seconds, Meta(description="wait for one answer of the broker")] = 15.0
    publish_timeout_s: Annotated[
        Seconds, Meta(description="how long a finding's delivery is retried before the worker exits")
    ] = 300.0
    exactly_once: Annotated[
        bool,
        Meta(
            description="commit outcomes and offsets together in Kafka transactions, so that consumers that read"
            " committed records only see no outcome twice; covers neither Redis nor posts that a feed sends twice"
        ),
    ] = False
    drain_timeout_s: Annotated[Seconds, Meta(description="how long a stopping worker finishes in-flight posts")] = 15.0
    max_record_bytes: Annotated[  # topics take twice as much, and Kafka counts in 32 bits what is fetched at once
        int, Meta(gt=0, le=1_000_000_000, description="largest record that is read as a post")
    ] = 2_097_152
    max_in_flight: Annotated[Positive, Meta(description="posts accepted and not yet acknowledged, per worker")] = 2_000
    max_in_flight_bytes: Annotated[
        Positive,
        Meta(description="bytes of the same, as they came; their decoded pictures may take as many besides"),
    ] = 67_108_864
    remembered_posts: Annotated[
        int,
        Meta(
            gt=0,
            le=100_000_000,
            description="the latest posts that a worker remembers to tell duplicates; about 50 bytes each, taken at"
            " the start; Redis, when it answers, remembers more",
        ),
    ] = 100_000
    max_batch: Annotated[Positive, Meta(description="posts classified together at most")] = 32
    linger_s: Annotated[Wait, Meta(description="longest wait to fill a micro-batch, from its first post")] = 0.05
    target_latency_s: Annotated[
        Seconds,
        Meta(description="latency that micro-batches are kept small for, of posts that need not queue"),
    ] = 1.0
    triage_lag_posts: Annotated[
        Count,
        Meta(description="consumer lag above which likely damage and casualties go first; 0 or exactly_once: never"),
    ] = 1_000
    triage_window_posts: Annotated[
        Positive, Meta(description="posts that wait, the oldest, among which triage puts some first")
    ] = 2_000
    triage_urgent_prob: Annotated[
        float, Meta(ge=0, le=1, description="probability of damage or casualties at which a post goes first")
    ] = 0.5
    max_overtake_s: Annotated[
        Wait, Meta(description="longest that a post may be overtaken, from when it would have had its turn")
    ] = 60.0
    no_image_rationale_lag_posts: Annotated[
        Count,
        Meta(description="consumer lag above which labels come without image rationale, marked; 0: never"),
    ] = 0
    text_only_lag_posts: Annotated[
        Count,
        Meta(description="consumer lag above which pictures of posts with text are not looked at, marked; 0: never"),
    ] = 0
    degrade_after_s: Annotated[
        Wait, Meta(description="how long lag must stay above its threshold before a degraded mode goes on")
    ] = 10.0
    recover_share: Annotated[
        float, Meta(gt=0, le=1, description="share of its threshold below which lag switches triage or a mode off")
    ] = 0.5
    classify_timeout_s: Annotated[
        Seconds, Meta(description="a micro-batch that takes longer is split and tried again")
    ] = 60.0
    max_hung_batches: Annotated[
        Positive, Meta(description="classifier hangs after which the worker exits for its supervisor")
    ] = 3
    image_processes: Annotated[Positive, Meta(description="processes that decode images")] = 1
    image_timeout_s: Annotated[
        Seconds, Meta(description="images of a post that are not decoded within so long, together, are left out")
    ] = 5.0
    image_edge: Annotated[Positive, Meta(description="longest edge of a prepared image, pixels")] = 384
    max_image_pixels: Annotated[
        Positive, Meta(description="larger images are refused before decoding, as are JPEGs with far too many scans")
    ] = 50_000_000
    image_folder: Annotated[str, Meta(description="folder that posts' image paths may point into; empty: none")] = ""
    checkpoint: Annotated[str, Meta(min_length=1, description="folder of the classifier's checkpoint")] = str(
        SHIPPED_CHECKPOINT
    )
    device: Annotated[str, Meta(description="torch device of the classifier")] = "cpu"
    threads: Annotated[
        int,
        Meta(ge=0, le=1024, description="CPU threads of the classifier; for more, run more workers; 0: torch decides"),
    ] = 1
    alert_threshold: Annotated[
        float, Meta(ge=0, le=1, description="probability of damage that raises an alert; 0: the checkpoint's own")
    ] = 0.0
    finding_ttl_s: Annotated[  # Redis counts milliseconds
        float, Meta(ge=0.001, le=1e9, description="how long Redis keeps a finding")
    ] = 604_800.0
    latest_per_class: Annotated[Positive, Meta(description="findings kept in each Redis index")] = 1_000
    cache_buffer: Annotated[
        Positive, Meta(description="findings kept for Redis while it is away; at least twice max_batch")
    ] = 10_000
    web_host: Annotated[str, Meta(min_length=1, description="address of metrics and health")] = "127.0.0.1"
    web_port: Annotated[int, Meta(ge=0, le=65_535, description="port of metrics and health; 0: a free one")] = 6066
    ready_stall_s: Annotated[
        Seconds, Meta(description="not ready when there is lag and no batch finished for so long")
    ] = 60.0
    log_level: Annotated[
        str,
        Meta(
            pattern=r"^(debug|info|warning|error)\Z",
            description="log level",
            extra={"form": "write debug, info, warning or error"},
        ),
    ] = "info"

    @property
    def broker(self) -> Broker:
        """Where Kafka answers, and how it lets one in."""
        from stream.broker import Broker

        return Broker(
            self.kafka,
            security_protocol=self.kafka_security_protocol,  # type: ignore[arg-type]  # its pattern sees to that
            sasl_mechanism=self.kafka_sasl_mechanism,  # type: ignore[arg-type]
            username=self.kafka_username,
            password=self.kafka_password,
            ca_file=self.kafka_ca_file,
            cert_file=self.kafka_cert_file,
            key_file=self.kafka_key_file,
        )


PLAIN_KAFKA: Final = {  # for a broker that lets anybody in, whatever the environment and the file say
    field.name: field.default for field in msgspec.structs.fields(Settings) if field.name.startswith("kafka_")
}


def check_buffer(settings: Settings) -> None:
    """Refuse a buffer that one micro-batch overflows: Redis would be filled again after each, be it never away."""
    n_entries = 2 * settings.max_batch
    if settings.cache_buffer < n_entries:
        raise SettingsError(
            f"cache_buffer = {settings.cache_buffer} has no room for a finding and an alert of each of"
            f" max_batch = {settings.max_batch} posts: set it to {n_entries} or more, or lower max_batch"
        )


def description(name: str) -> str:
    """Return what the setting is for."""
    return str((info(name).extra_json_schema or {}).get("description", ""))


def info(name: str) -> Any:
    """Return what msgspec knows of the setting; raises `SettingsError` for one that there is not."""
    for field in msgspec.inspect.type_info(Settings).fields:  # type: ignore[attr-defined]
        if field.name == name:
            return field.type
    raise SettingsError(f"there is no setting {name!r}: `sitrep config` lists them")
