"""Redis as the settings name it: one interface over a standalone one, Sentinel and Cluster, with a circuit breaker.

The clients are redis-py's own. They retry nothing themselves: what failed is tried again by who called, from its
queue, when the breaker lets it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, Protocol, TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from tickgate_server.store.breaker import Breaker
from tickgate_server.store.errors import BreakerOpen, StoreDenied, StoreError, StoreFault, StoreFull, StoreUnreachable
from tickgate_server.store_settings import StoreSettings, split_node

CLIENT_NAME = "tickgate"
# Keys a MGET asks for, and commands a pipeline holds: some hundred kB to some MB on the wire.
KEYS_AT_ONCE = 128
COMMANDS_AT_ONCE = 4096

_DENIED = (AuthenticationError, AuthenticationWrongNumberOfArgsError, AuthorizationError, NoPermissionError)
_ELSEWHERE = (ReadOnlyError, ClusterDownError, MovedError)  # a failover is under way
_Found = TypeVar("_Found")


class Pipeline(Protocol):
    """The commands that are used here, of redis-py's pipelines: each is only noted down until all are sent."""

    def set(self, name: str, value: bytes, *, ex: int) -> object:
        """SET name value EX ex."""

    def zadd(self, name: str, mapping: dict[str, float]) -> object:
        """ZADD name score member ..."""

    def zremrangebyrank(self, name: str, min: int, max: int) -> object:  # noqa: A002 - redis-py's name
        """ZREMRANGEBYRANK name min max."""

    def zremrangebyscore(self, name: str, min: float, max: float) -> object:  # noqa: A002 - redis-py's name
        """ZREMRANGEBYSCORE name min max."""

    def expire(self, name: str, time: int) -> object:
        """EXPIRE name time."""


class StoreConnection:
    """One Redis, standalone, by Sentinel or a Cluster. One thread at a time.

    Nothing is connected before it is asked for anything.

    Attributes:
        where: What it is called in errors: mode and addresses, never a password.
        breaker: Its circuit breaker.

    Args:
        settings: With a mode that is not `none`.

    Raises:
        StoreDenied: The password's file cannot be read.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self.where = f"redis ({settings.mode}) {settings.url or ', '.join(settings.nodes)}"
        self.breaker = Breaker(settings.breaker_failures, settings.breaker_longest_s)
        self._settings = settings
        try:
            self._password = settings.read_password()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreDenied(self.where, f"password_file cannot be read ({error})") from error
        self._client: redis.Redis | RedisCluster | None = None

    def run(self, work: Callable[[Any], _Found]) -> _Found:
        """Do something with redis-py's client, if the breaker lets it.

        Args:
            work: Given the client, a `redis.Redis` or a `redis.cluster.RedisCluster`.

        Raises:
            StoreError: It failed; the breaker counts it.
        """
        wait_s = self.breaker.wait_s()
        if wait_s > 0.0:
            raise BreakerOpen(self.where, f"{self.breaker.failures} failures in a row", wait_s)
        try:
            client = self._client or self._connect()
            found = work(client)
        except (RedisError, RedisClusterException, OSError) as error:
            self._failed(error)
        self.breaker.succeeded()
        return found

    def ping(self) -> None:
        """Ask whether it is there; raises `StoreError`."""
        self.run(lambda client: client.ping())

    def get(self, key: str) -> bytes | None:
        """The value of one key; raises `StoreError`."""
        return cast("bytes | None", self.run(lambda client: client.get(key)))

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of many keys in their order: by MGET, of a cluster's keys those of a slot together.

        Raises:
            StoreError: As `run`.
        """
        return self.run(lambda client: _get_many(client, keys))

    def write(self, commands: Iterable[Callable[[Pipeline], object]]) -> None:
        """Send commands in pipelines, without a transaction: what was sent before an error may be done.

        Args:
            commands: Each notes one command, or several, down in the pipeline that it is given.

        Raises:
            StoreError: As `run`; of several errors the first.
        """
        self.run(lambda client: _write(client, commands))

    def close(self) -> None:
        """Let the connections go."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _failed(self, error: Exception) -> NoReturn:
        self.breaker.failed()
        found = _typed(self.where, error)
        if not isinstance(found, StoreFull):  # after a failover another one may be the master
            self.close()
        raise found from error

    def _connect(self) -> redis.Redis | RedisCluster:
        """The client; whether there is a connection shows its first command."""
        settings = self._settings
        common: dict[str, Any] = {
            "socket_timeout": settings.timeout_s,
            "socket_connect_timeout": settings.connect_timeout_s,
            "client_name": CLIENT_NAME,
            "driver_info": None,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
        }
        own = {**common, **_given(username=settings.user, password=self._password)}
        tls = _tls(settings)
        # redis-py types its constructors in part only.
        clients: Any = redis
        if settings.url:
            files = tls if settings.url.startswith("rediss:") else {}
            self._client = clients.Redis.from_url(settings.url, **own, **files)
        elif settings.mode == "standalone":
            host, port = split_node(settings.nodes[0])
            self._client = clients.Redis(host, port, db=settings.database, **own, **tls)
        elif settings.mode == "sentinel":
            secret = settings.sentinel_password.get_secret_value()
            asked = {**common, **tls, **_given(username=settings.sentinel_user, password=secret)}
            sentinels = [split_node(node) for node in settings.nodes]
            sentinel = clients.Sentinel(sentinels, sentinel_kwargs=asked)
            self._client = sentinel.master_for(settings.master, db=settings.database, **own, **tls)
        else:
            nodes = [clients.cluster.ClusterNode(*split_node(node)) for node in settings.nodes]
            self._client = clients.RedisCluster(startup_nodes=nodes, **own, **tls)
        return cast("redis.Redis | RedisCluster", self._client)


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _tls(settings: StoreSettings) -> dict[str, Any]:
    files = {
        "ssl_ca_certs": settings.tls_ca,
        "ssl_certfile": settings.tls_certificate,
        "ssl_keyfile": settings.tls_key,
    }
    found: dict[str, Any] = {name: str(file) for name, file in files.items() if file is not None}
    return found | {"ssl": True} if settings.tls else found if settings.url else {}


def _get_many(client: Any, keys: Sequence[str]) -> list[bytes | None]:
    found: list[bytes | None] = []
    for at in range(0, len(keys), KEYS_AT_ONCE):
        some = list(keys[at : at + KEYS_AT_ONCE])
        found += client.mget_nonatomic(some) if isinstance(client, RedisCluster) else client.mget(some)
    return found


def _write(client: Any, commands: Iterable[Callable[[Pipeline], object]]) -> None:
    pipeline = client.pipeline(transaction=False)
    for note in commands:
        note(pipeline)
        if len(pipeline) >= COMMANDS_AT_ONCE:
            pipeline.execute()
    pipeline.execute()


def _typed(where: str, error: Exception) -> StoreError:
    """The error of this package that one of redis-py's is."""
    why = str(error) or type(error).__name__
    if isinstance(error, _DENIED):
        return StoreDenied(where, why)
    if isinstance(error, OutOfMemoryError):
        return StoreFull(where, why)
    if isinstance(error, ResponseError) and not isinstance(error, _ELSEWHERE):
        return StoreFault(where, why)
    return StoreUnreachable(where, why)
