"""Ticks from a Redis stream, through a consumer group: at least once, in order, acknowledged when they are through.

Needs the package redis, which the base install does not bring. `docs/feeds.md` says what an entry holds, which options
there are, and what happens when a consumer, Redis or a server dies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tickgate.v1 import market_pb2
from tickgate_client.errors import BadTickEntry, SourceFailed
from tickgate_client.feeds.redis_entries import fields_of_tick, ticks_of_entry
from tickgate_client.feeds.redis_scripts import LEAVE, SET_IDLE, TAKE
from tickgate_client.feeds.settings import LONGEST_PAUSE_S, Backoff
from tickgate_client.feeds.sources import SourceOptions, TickBatch, TickSource
from tickgate_client.feeds.tasks import end
from tickgate_client.feeds.window import RefusedTick

_LOG = logging.getLogger(__name__)

# Redis will be back, or has room again.
_PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
)
_DENIED = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)

_MOST_ENTRIES = 5000
"""Lua takes no more at once."""

_WAKE_MS = 1000
"""How long one wait for new entries lasts; a new one ends it."""

_Entry = tuple[bytes, dict[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What is read, and how.

    Attributes:
        stream: The key.
        group: The consumer group; made if it is missing.
        consumer: This one's name in it, which no other running one may have.
        entries: Entries taken at once.
        claim_idle_s: Silence after which another consumer's entries are taken over, in seconds.
        start: The id after which a new group begins: `0` the oldest entry there is, `$` what comes from now on.
        dead_letters: The stream that entries go to which hold no tick.
        dead_letters_kept: About how many it keeps.
    """

    stream: str
    group: str
    consumer: str
    entries: int
    claim_idle_s: float
    start: str
    dead_letters: str
    dead_letters_kept: int


class RedisStreamsSource(TickSource):
    """Reads one stream as one consumer of a group; the others of the group stand by meanwhile.

    Args:
        client: Without retries of its own: this class tries again. Closed with the source.
        settings: What is read, and how.
    """

    def __init__(self, client: Redis, settings: StreamSettings) -> None:
        self._client = client
        self._of = settings
        self._take = client.register_script(TAKE)
        self._set_idle = client.register_script(SET_IDLE)
        self._leave = client.register_script(LEAVE)
        self._counts: Counter[str] = Counter(dead_lettered=0, claimed=0, trimmed=0, reconnects=0)
        self._alive: asyncio.Task[None] | None = None

    async def batches(self) -> AsyncGenerator[TickBatch, None]:
        """Entries as they come, first those that this consumer or a silent one left; see TickSource.batches."""
        await self._again(self._make_group)
        self._alive = asyncio.create_task(self._say_alive())
        after = b"0-0"
        while True:
            what, *found = await self._again(partial(self._next, after))
            if what == b"wait":
                await asyncio.sleep(min(self._of.claim_idle_s / 4, LONGEST_PAUSE_S))
                continue
            if what == b"none":
                await self._again(partial(self._new_entries, found[0]))
                continue
            if what == b"own":
                after = found[0][-1][0] if found[0] else b""
                await self._let_go([raw[0] for raw in found[0] if not raw[1]])
            elif what == b"claimed":
                self._counts["claimed"] += len(found[0])
                self._counts["trimmed"] += found[1]
            batch = await self._batch([_entry(raw) for raw in found[0] if raw[1]])
            if batch.ticks:
                yield batch

    async def acknowledge(self, position: Any) -> None:
        """The group is done with a batch's entries."""
        ids = [id_ for id_, _ in position]
        await self._again(partial(self._client.xack, self._of.stream, self._of.group, *ids))

    async def refused(self, position: Any, refused: RefusedTick) -> None:
        """A tick that the server does not take goes to the dead letters; its entry is acknowledged with the others."""
        ends = accumulate(ticks for _, ticks in position)
        entry = next(id_ for (id_, _), end in zip(position, ends, strict=True) if refused.index < end)
        letter = {"entry": entry, "reason": refused.error.message, **fields_of_tick(refused.tick)}
        await self._again(partial(self._put_aside, letter))

    def counts(self) -> Mapping[str, int]:
        """Entries dead_lettered, claimed from others, trimmed away before they were read again; reconnects."""
        return self._counts

    async def close(self) -> None:
        """Let other consumers have at once what is not acknowledged."""
        if self._alive is not None:
            await end(self._alive)
        of = self._of
        try:
            await self._set_idle(keys=[of.stream], args=[of.group, of.consumer, int(of.claim_idle_s * 1000)])
            await self._leave(keys=[of.stream], args=[of.group, of.consumer])
        except exceptions.RedisError as error:
            # It costs the next consumer a wait of claim_idle_s, no more.
            _LOG.warning("redis stream %s: not left in good order: %s", of.stream, error)
        await self._client.aclose()

    async def _batch(self, entries: Sequence[_Entry]) -> TickBatch:
        """The entries' ticks; what holds none is put aside."""
        ticks: list[market_pb2.Tick] = []
        position: list[tuple[bytes, int]] = []
        for id_, fields in entries:
            try:
                found = ticks_of_entry(fields)
            except BadTickEntry as error:
                letter: dict[Any, Any] = {"entry": id_, "reason": str(error), **fields}
                await self._again(partial(self._put_aside, letter, id_))
            else:
                ticks += found
                position.append((id_, len(found)))
        return TickBatch(ticks, tuple(position))

    async def _next(self, after: bytes) -> Any:
        of = self._of
        arguments: list[str | int | bytes] = [of.group, of.consumer, of.entries, int(of.claim_idle_s * 1000), after]
        return await self._take(keys=[of.stream], args=arguments)

    async def _let_go(self, trimmed: Sequence[bytes]) -> None:
        """Acknowledge what was trimmed away while this consumer had it: it would come without fields for ever."""
        if trimmed:
            self._counts["trimmed"] += len(trimmed)
            await self._again(partial(self._client.xack, self._of.stream, self._of.group, *trimmed))

    async def _new_entries(self, last: bytes) -> None:
        """Wait until the stream has entries behind that one, or a while."""
        await self._client.xread({self._of.stream: last}, count=1, block=_WAKE_MS)

    async def _put_aside(self, fields: Mapping[Any, Any], id_: bytes | None = None) -> None:
        async with self._client.pipeline(transaction=True) as both:
            both.xadd(self._of.dead_letters, dict(fields), maxlen=self._of.dead_letters_kept, approximate=True)
            if id_ is not None:
                both.xack(self._of.stream, self._of.group, id_)
            await both.execute()
        self._counts["dead_lettered"] += 1

    async def _make_group(self) -> None:
        try:
            await self._client.xgroup_create(self._of.stream, self._of.group, self._of.start, mkstream=True)
        except exceptions.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _say_alive(self) -> None:
        """Let nobody think this consumer dead, however long a server takes for what it has."""
        of = self._of
        while True:
            await asyncio.sleep(of.claim_idle_s / 3)
            await self._again(partial(self._set_idle, keys=[of.stream], args=[of.group, of.consumer, 0]))

    async def _again(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call until Redis answers; raises SourceFailed for an answer that would be the same again."""
        backoff = Backoff()
        name = f"redis stream {self._of.stream}"
        while True:
            try:
                return await call()
            except _DENIED as error:
                raise SourceFailed(name, str(error)) from error
            except _PASSING as error:
                self._counts["reconnects"] += 1
                if backoff.fresh:
                    _LOG.warning("%s: %s; trying again", name, error)
            except exceptions.ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise SourceFailed(name, str(error)) from error
                # Redis came back without its data, or somebody deleted the stream.
                _LOG.warning("%s: the group %s is gone, it is made anew", name, self._of.group)
                await self._again(self._make_group)
                continue
            await backoff.pause()


def open_source(options: SourceOptions) -> RedisStreamsSource:
    """The source `redis-streams`; raises BadSourceOption, and OSError for a file that cannot be read."""
    stream = options.text("stream")
    settings = StreamSettings(
        stream=stream,
        group=options.text("group", "tickgate"),
        consumer=options.text("consumer", f"{socket.gethostname()}-{os.getpid()}"),
        entries=options.count("entries", 500, most=_MOST_ENTRIES),
        claim_idle_s=options.number("claim_idle_s", 30.0, least=0.1),
        start=options.text("start", "0"),
        dead_letters=options.text("dead_letters", f"{stream}:dead"),
        dead_letters_kept=options.count("dead_letters_kept", 10_000),
    )
    url = options.text("url", os.environ.get("TICKGATE_FEED_REDIS_URL", "redis://127.0.0.1:6379"))
    timeout_s = options.number("timeout_s", 5.0, least=2 * _WAKE_MS / 1000)
    password = options.path("password_file")
    tls = {
        "ssl_ca_certs": options.path("tls_ca"),
        "ssl_certfile": options.path("tls_certificate"),
        "ssl_keyfile": options.path("tls_key"),
    }
    given: dict[str, Any] = {name: str(path) for name, path in tls.items() if path is not None}
    if given and not url.startswith("rediss://"):
        raise options.bad("url", repr(url.partition("@")[2] or url), "rediss://... where TLS files are given")
    if password is not None:
        given["password"] = _first_line(password)
    try:
        client = Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0), **given
        )
    except ValueError as error:
        raise options.bad("url", str(error), "redis://, rediss:// or unix://") from error
    return RedisStreamsSource(client, settings)


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0]


def _entry(raw: Iterable[Any]) -> _Entry:
    id_, flat = raw
    return id_, dict(zip(flat[::2], flat[1::2], strict=True))
