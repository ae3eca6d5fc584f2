"""Where Kafka answers and how it lets one in; opens no connection, but once to tell why there is none."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.helpers import create_ssl_context
from aiokafka.protocol.metadata import MetadataRequest

from stream.errors import BrokerUnavailable, InvalidAddress

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

_ASK_S: Final = 2.0
_GOODBYE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Broker:
    """A Kafka cluster's bootstrap servers, HOST:PORT[,HOST:PORT], and its security settings, by Kafka's own names.

    Certificates and keys are files in PEM, keys without a password. They are read whenever a client is made, so
    renewed ones are used from then on.
    """

    addresses: str
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def __str__(self) -> str:
        return self.addresses

    @property
    def uses_tls(self) -> bool:
        return self.security_protocol in ("SSL", "SASL_SSL")

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    def options(self) -> dict[str, Any]:
        """Return what each of aiokafka's clients takes to connect.

        Raises:
            InvalidAddress: a certificate or key cannot be read.
        """
        return {"bootstrap_servers": self.addresses, **self._security()}

    def tls(self) -> ssl.SSLContext | None:
        """Return the context of TLS, None without; raises as `options`."""
        if not self.uses_tls:
            return None
        try:
            context: ssl.SSLContext = create_ssl_context(
                cafile=self.ca_file or None,
                certfile=self.cert_file or None,
                keyfile=self.key_file or None,
                password=lambda: "",  # else a key that has one is asked for at the terminal
            )
            return context
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            files = ", ".join(filter(None, (self.ca_file, self.cert_file, self.key_file)))
            raise InvalidAddress(
                f"the certificates for Kafka cannot be read ({files}): {error}: give files in PEM, the key without a"
                " password (settings kafka_ca_file, kafka_cert_file, kafka_key_file)"
            ) from error

    async def unreachable(self, error: Exception) -> BrokerUnavailable:
        """Return why a client that failed with the error did not get in: asks once more, for two seconds at most."""
        try:
            await asyncio.wait_for(self._ask(), _ASK_S)
        except ssl.SSLError as refusal:
            why = refusal.reason or refusal
            if isinstance(refusal, ssl.SSLCertVerificationError):
                why = refusal.verify_message
            return BrokerUnavailable(
                f"no TLS with the Kafka broker at {self}: {why}: look at kafka_ca_file, kafka_cert_file and"
                " kafka_security_protocol"
            )
        except KafkaConnectionError:
            also = " and kafka_cert_file" if self.uses_tls else ""
            return BrokerUnavailable(
                f"the Kafka broker at {self} closes the connection: look at kafka_security_protocol"
                f" ({self.security_protocol}){also}"
            )
        except KafkaError as refusal:
            told = refusal.args[:1]
            why = told[0] if told and isinstance(told[0], str) else type(refusal).__name__
            return BrokerUnavailable(
                f"the Kafka broker at {self} does not let {self.username!r} in: {why}: look at kafka_username,"
                f" kafka_password and kafka_sasl_mechanism ({self.sasl_mechanism})"
            )
        except ValueError:
            return BrokerUnavailable(f"{self.addresses!r} is not a Kafka address: write HOST:PORT[,HOST:PORT]")
        except (OSError, TimeoutError):
            return BrokerUnavailable(f"no Kafka broker answers at {self}: start one or give another address (--kafka)")
        return BrokerUnavailable(f"the Kafka broker at {self} answers, but fails: {str(error) or type(error).__name__}")

    async def _ask(self) -> None:
        host, port, _ = collect_hosts(self.addresses, randomize=False)[0]
        try:
            connection = await create_conn(host, port, **self._security())
            try:
                await connection.send(MetadataRequest([]))
            finally:
                connection.close()
        finally:
            if self.uses_tls:  # aiokafka does not wait for TLS's goodbye, and a loop that ends before leaves it open
                await asyncio.sleep(_GOODBYE_S)

    def _security(self) -> dict[str, Any]:
        security: dict[str, Any] = {"security_protocol": self.security_protocol, "ssl_context": self.tls()}
        if self.uses_sasl:
            security |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return security
