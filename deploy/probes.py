"""Asks a service over a plain socket whether it is ready; keeps no connection and needs no event loop."""

from __future__ import annotations

import socket
import struct
from typing import Final
from urllib.parse import urlsplit

_TIMEOUT_S: Final = 1.0
_METADATA: Final = 3
_METADATA_VERSION: Final = 4
_CLIENT_ID: Final = b"sitrep-probe"


def free_port() -> int:
    """Return a loopback port that nothing listens on now; another process may take it before you do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def kafka_answers(bootstrap: str) -> bool:
    """Return whether the first bootstrap server answers a metadata request with a live broker."""
    host, _, port = bootstrap.partition(",")[0].rpartition(":")
    header = struct.pack(">hhih", _METADATA, _METADATA_VERSION, 1, len(_CLIENT_ID)) + _CLIENT_ID
    request = header + struct.pack(">i?", 0, False)  # no topics, create none
    try:
        with socket.create_connection((host, int(port)), _TIMEOUT_S) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.sendall(struct.pack(">i", len(request)) + request)
            # size, correlation id, throttle time, number of brokers
            _, correlation_id, _, n_brokers = struct.unpack(">iiii", _read(connection, 16))
    except OSError:
        return False
    return bool(correlation_id == 1 and n_brokers > 0)


def redis_answers(url: str) -> bool:
    """Return whether Redis answers PING; no password, no TLS."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), _TIMEOUT_S) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.sendall(b"PING\r\n")
            return _read(connection, 7) == b"+PONG\r\n"
    except OSError:
        return False


def _read(connection: socket.socket, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes:
        part = connection.recv(size_bytes - len(data))
        if not part:
            raise ConnectionResetError("closed before it answered")
        data += part
    return data
