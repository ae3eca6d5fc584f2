"""A Kafka that asks for TLS, for a certificate or for a password: every client gets in, or says in one line why not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from deploy.cli import main
from deploy.embedded import EmbeddedServices
from deploy.probes import free_port
from tests.chaos.apache import ApacheKafka, found_kafka_home
from tests.chaos.field import numbered, playing_field

pytestmark = [
    pytest.mark.integration,
    pytest.mark.kafka_home,
    pytest.mark.skipif(found_kafka_home() is None, reason="KAFKA_HOME names no unpacked Apache Kafka, or no Java"),
]

_USER, _PASSWORD = "sitrep", "not-to-be-seen"
_PLAIN_MODULE = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured:
    """A broker's addresses by protocol, and the certificates that belong to it."""

    plain: str
    ports: Mapping[str, int]
    ca_file: Path
    client_file: Path  # certificate and key in one

    def flags(self, protocol: str, **changes: str) -> dict[str, str]:
        """The settings with which that protocol lets one in."""
        flags = {
            "kafka": f"127.0.0.1:{self.ports[protocol]}",
            "kafka_security_protocol": protocol,
            "kafka_ca_file": str(self.ca_file),
        }
        if protocol == "SSL":
            flags["kafka_cert_file"] = str(self.client_file)
        else:
            flags |= {"kafka_username": _USER, "kafka_password": _PASSWORD}
        return {name: value for name, value in {**flags, **changes}.items() if value}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """An Apache Kafka that takes TLS with client certificates, SASL in TLS, and, for the tests' own looks, neither."""
    folder = tmp_path_factory.mktemp("secured")
    home = found_kafka_home()
    assert home is not None
    ca = trustme.CA()
    ca_file, server_file, client_file = folder / "ca.pem", folder / "server.pem", folder / "client.pem"
    ca.cert_pem.write_to_path(ca_file)
    _write_identity(ca.issue_cert("127.0.0.1"), server_file)
    _write_identity(ca.issue_cert("worker@example.org"), client_file)
    ports = {"SSL": free_port(), "SASL_SSL": free_port()}
    broker = ApacheKafka(
        home,
        folder / "kafka",
        listeners=ports,
        overrides={
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(server_file),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(ca_file),
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{_PLAIN_MODULE} required user_{_USER}="{_PASSWORD}";',
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{_SCRAM_MODULE} required;",
        },
    )
    try:
        broker.add_user(_USER, _PASSWORD, "SCRAM-SHA-512")
        yield Secured(plain=broker.bootstrap, ports=ports, ca_file=ca_file, client_file=client_file)
    finally:
        broker.stop()


def run(flags: Mapping[str, str], capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command and return its exit code and what it printed, on stdout and on stderr."""
    given = [part for name, value in flags.items() for part in ("--set", f"{name}={value}")]
    with pytest.raises(SystemExit) as leaving:
        main([*arguments, *given])
    out, err = capsys.readouterr()
    return int(leaving.value.code or 0), out, err


def _write_identity(cert: trustme.LeafCert, file: Path) -> None:
    """Write certificate and key to one file, the key as Kafka takes it (PKCS 8)."""
    key = serialization.load_pem_private_key(cert.private_key_pem.bytes(), None)
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(encoded + b"".join(part.bytes() for part in cert.cert_chain_pems))


@pytest.mark.parametrize(
    ("protocol", "changes"),
    [
        ("SSL", {}),
        ("SASL_SSL", {}),
        ("SASL_SSL", {"kafka_sasl_mechanism": "PLAIN", "exactly_once": "true"}),
    ],
)
async def test_worker_and_commands_get_in(
    secured: Secured,
    services: EmbeddedServices,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    protocol: str,
    changes: dict[str, str],
) -> None:
    flags = secured.flags(protocol, **changes)
    ground = playing_field(kafka=secured.plain, redis=services.redis, name="secured", folder=tmp_path, partitions=2)
    async with ground as field:
        worker = field.worker(**flags)
        await field.feed(numbered(40))
        await field.settled(30.0)
        worker.terminate()
        assert worker.wait(20.0) == 0, worker.log()
        assert _PASSWORD not in worker.log(1_000_000)

        code, out, err = await asyncio.to_thread(run, flags, capsys, "ledger", "check", "--prefix", field.prefix)

        assert (code, err) == (0, "")
        assert "accepted=40 findings=40" in out


@pytest.mark.parametrize(
    ("protocol", "changes", "told"),
    [
        ("SASL_SSL", {"kafka_password": "wrong"}, ["'sitrep'", "Authentication failed", "kafka_password"]),
        (
            "SASL_SSL",
            {"kafka_sasl_mechanism": "SCRAM-SHA-256"},
            ["Unsupported", "(SCRAM-SHA-256)"],
        ),
        ("SASL_SSL", {"kafka_ca_file": ""}, ["local issuer certificate", "kafka_ca_file"]),
        ("SSL", {"kafka_cert_file": ""}, ["kafka_cert_file"]),
        ("SSL", {"kafka_cert_file": "nowhere.pem"}, ["nowhere.pem", "kafka_cert_file"]),
        (
            "SASL_SSL",
            {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_ca_file": ""},
            ["kafka_security_protocol", "SASL_PLAINTEXT"],
        ),
    ],
)
def test_who_is_not_let_in_is_told_why_in_one_line(
    secured: Secured,
    capsys: pytest.CaptureFixture[str],
    protocol: str,
    changes: dict[str, str],
    told: list[str],
) -> None:
    code, out, err = run(secured.flags(protocol, **changes), capsys, "topics", "create")

    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    for words in told:
        assert words in err
    assert _PASSWORD not in err
