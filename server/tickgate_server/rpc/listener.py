"""What every transport of the data listener is given, and how one is chosen."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import grpc
import structlog

from tickgate_server.engine import Engine
from tickgate_server.rpc.topology import Topology

_LOG = structlog.get_logger()

# How long answers may take to leave when draining took too long; then calls are cancelled.
ABANDONED_S = 0.5

Transport = Literal["auto", "aio", "queue"]


class ListenFailed(Exception):
    """The address cannot be listened on.

    Attributes:
        address: As configured.
    """

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"cannot listen on {address}: {why}")
        self.address = address


class CredentialsUnreadable(Exception):
    """A file of the TLS settings cannot be read."""


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Where and within which bounds to listen.

    Attributes:
        address: `host:port`, port 0 for a free one, or `unix:/path`.
        max_message_bytes: gRPC answers a larger request RESOURCE_EXHAUSTED.
        max_concurrent_requests: Calls at once; one beyond is answered RESOURCE_EXHAUSTED.
        busy_poll_us: How long the polling thread stays awake for the next event, see `busy_poll`; 0: never.
        drain_s: How long calls in flight may take once the server drains; then those that wait for a model end
            UNAVAILABLE, and what else is left is cancelled.
        tls_certificate, tls_key: PEM files of the server; without them, plaintext.
        tls_client_ca: PEM file; with it a client must show a certificate that it signed (mTLS).
    """

    address: str
    max_message_bytes: int = 4 * 1024 * 1024
    max_concurrent_requests: int = 1024
    busy_poll_us: int = 150
    drain_s: float = 10.0
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None

    @property
    def options(self) -> list[tuple[str, int]]:
        """Channel arguments that gRPC's core takes."""
        return [
            # Two servers on one port would share its connections without a word.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self.max_message_bytes),
        ]

    def credentials(self) -> grpc.ServerCredentials | None:
        """What the listener shows and asks for; None for plaintext.

        Raises:
            CredentialsUnreadable: Names the file.
        """
        if self.tls_certificate is None or self.tls_key is None:
            return None
        try:
            pair = (self.tls_key.read_bytes(), self.tls_certificate.read_bytes())
            authority = self.tls_client_ca.read_bytes() if self.tls_client_ca else None
        except OSError as error:
            raise CredentialsUnreadable(f"TLS file {error.filename}: cannot be read ({error.strerror})") from error
        return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)

    def bound(self, port: int) -> str:
        """The address with the port that was taken in place of 0."""
        return self.address if self.address.startswith("unix:") else f"{self.address.rpartition(':')[0]}:{port}"


class Listener(Protocol):
    """A transport of the data listener: SignalService, TopologyService, health and reflection on one address."""

    def run(
        self,
        on_bound: Callable[[str], Topology],
        on_serving: Callable[[str], None],
        on_draining: Callable[[], None],
    ) -> None:
        """Serve until SIGTERM or SIGINT, in the main thread; then drain, and return.

        Draining: health says NOT_SERVING, no new calls, streams that wait for their next message end UNAVAILABLE,
        calls at work finish within `drain_s`.

        Args:
            on_bound: Called with the address before any call is accepted; returns what GetTopology answers, and may
                wait for it.
            on_serving: Called with the address once calls are accepted.
            on_draining: Called when draining begins.

        Raises:
            ListenFailed: The address cannot be had.
        """


def choose(transport: Transport, engine: Engine, settings: ListenerSettings) -> Listener:
    """The transport of that name; `auto` is the fast one where it knows this grpcio, else the public one."""
    from tickgate_server.rpc import aio, completion_queue  # noqa: PLC0415 - both stand on this module

    if transport == "auto":
        known = grpc.__version__ in completion_queue.TESTED_GRPCIO
        if not known:
            _LOG.warning(
                "transport queue was not tested with this grpcio; serving on aio",
                grpcio=grpc.__version__,
                tested=completion_queue.TESTED_GRPCIO,
            )
        transport = "queue" if known else "aio"
    if transport == "queue":
        return completion_queue.QueueListener(engine, settings)
    return aio.AioListener(engine, settings)
