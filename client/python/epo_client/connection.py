"""How a server is reached: what both clients' channels are made with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

_DEFAULT_ADDRESS = "127.0.0.1:50051"
_DEFAULT_PORT = 50051
_LOCAL = ("127.", "localhost:", "[::1]", "unix:")


@dataclass(frozen=True)
class Tls:
    """TLS by PEM files: `ca` names whom to trust (by default whom the machine trusts), `certificate` and `key` are the client's own."""

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises ValueError for a certificate without its key, and OSError for a file that cannot be read."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("Tls(certificate=..., key=...) go together: one of them is missing")
        ca, certificate, key = (None if path is None else Path(path).read_bytes() for path in (self.ca, self.certificate, self.key))
        return grpc.ssl_channel_credentials(ca, key, certificate)


@dataclass(frozen=True)
class Connection:
    """Where to, and with what."""

    address: str
    credentials: grpc.ChannelCredentials | None
    # For each call.
    metadata: Sequence[tuple[str, str]]
    options: Sequence[tuple[str, Any]]


def resolve(address: str | None, api_key: str | None, tls: bool | Tls) -> Connection:
    """What is not given comes from EPO_SERVER and EPO_API_KEY. Raises ValueError for what cannot be meant."""
    address = address or os.environ.get("EPO_SERVER") or _DEFAULT_ADDRESS
    if ":" not in address:
        address = f"{address}:{_DEFAULT_PORT}"
    api_key = os.environ.get("EPO_API_KEY", "") if api_key is None else api_key
    if not all("!" <= character <= "~" for character in api_key):
        raise ValueError("api_key is no API key: one word, as epo-server --new-api-key prints it")
    local = address.startswith(_LOCAL)
    if api_key and not tls and not local:
        raise ValueError(f"the API key would go to {address} where everybody on the way can read it; give tls=True")
    options: list[tuple[str, Any]] = [
        # A history's iteration grows with population x children x tokens; what the server made, the client takes.
        ("grpc.max_receive_message_length", 1 << 30),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # How long a connection may take to be made, and how soon the next is tried: a watch has a backoff of its own.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]
    if local:
        # An http_proxy for the internet does not lead to this machine.
        options.append(("grpc.enable_http_proxy", 0))
    return Connection(
        address=address,
        credentials=(Tls() if tls is True else tls).credentials() if tls else None,
        # Not as gRPC's call credentials, which want TLS even where a connection leaves no machine.
        metadata=[("authorization", f"Bearer {api_key}")] if api_key else [],
        options=options,
    )
