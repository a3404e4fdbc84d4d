"""What every transport is given: where to listen, and what for; and how one is chosen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import grpc
import structlog

from tickgate_server.engine import Engine
from tickgate_server.rpc.services import ListenerName, Services
from tickgate_server.rpc.sockets import SCHEME, SocketRefused, claimed
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


class Bound(NamedTuple):
    """Where it is listened, ports that were taken in place of 0; empty for a listener that there is not."""

    data: str
    service: str = ""
    admin: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """One listener.

    Attributes:
        name: Which.
        address: As configured.
        tls: It speaks what the TLS settings say; a Unix socket for the owner alone needs none.
        private: A socket file is made with mode 0600.
    """

    name: ListenerName
    address: str
    tls: bool
    private: bool = False

    @contextmanager
    def binding(self) -> Iterator[None]:
        """Bind inside.

        Raises:
            ListenFailed: The address cannot be had.
        """
        try:
            with claimed(self.address, private=self.private):
                yield
        except (SocketRefused, RuntimeError) as error:  # the latter is grpcio's
            raise ListenFailed(self.address, str(error)) from error

    def bound(self, port: int) -> str:
        """The address with the port that was taken in place of 0.

        Raises:
            ListenFailed: No port was.
        """
        if port == 0:
            raise ListenFailed(self.address, "the address is taken or cannot be resolved")
        return self.address if self.address.startswith(SCHEME) else f"{self.address.rpartition(':')[0]}:{port}"


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Where and within which bounds to listen.

    Attributes:
        address: Of the data listener: `host:port`, port 0 for a free one, or `unix:/path`.
        service_address: The same of the service listener; empty: none.
        admin_address: The same of the admin listener. A Unix socket is for its owner alone, and in plain text.
        max_message_bytes: gRPC answers a larger request RESOURCE_EXHAUSTED.
        max_concurrent_requests: Calls at once on each listener; one beyond is answered RESOURCE_EXHAUSTED.
        busy_poll_us: How long the polling thread stays awake for the next event, see `busy_poll`; 0: never.
        drain_s: How long calls in flight may take once the server drains; then those that wait for a model end
            UNAVAILABLE, and what else is left is cancelled.
        tls_certificate, tls_key: PEM files of the server; without them, plaintext.
        tls_client_ca: PEM file; with it a client must show a certificate that it signed (mTLS).
    """

    address: str
    service_address: str = ""
    admin_address: str = ""
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

    @property
    def places(self) -> list[Place]:
        """The listeners that there are, the data listener first."""
        local = self.admin_address.startswith(SCHEME)
        all_of_them = (
            Place("data", self.address, tls=True),
            Place("service", self.service_address, tls=True),
            Place("admin", self.admin_address, tls=not local, private=local),
        )
        return [place for place in all_of_them if place.address]


class Listener(Protocol):
    """A transport: SignalService on the data listener, and on each listener what `Services` says.

    All of it on the thread that answers. The desk has its turn every `POLL_S`.
    """

    def run(
        self,
        on_bound: Callable[[Bound], Topology],
        on_serving: Callable[[Bound], None],
        on_draining: Callable[[], None],
    ) -> None:
        """Serve until SIGTERM or SIGINT, in the main thread; then drain, and return.

        Draining: health says NOT_SERVING, no new calls, streams that wait for their next message end UNAVAILABLE,
        watches are told the latest and end OK, calls at work finish within `drain_s`.

        Args:
            on_bound: Called with the addresses before any call is accepted; returns what GetTopology answers, and may
                wait for it.
            on_serving: Called with the addresses once calls are accepted.
            on_draining: Called when draining begins.

        Raises:
            ListenFailed: An address cannot be had.
        """


def choose(transport: Transport, engine: Engine, settings: ListenerSettings, services: Services) -> Listener:
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
        return completion_queue.QueueListener(engine, settings, services)
    return aio.AioListener(engine, settings, services)
