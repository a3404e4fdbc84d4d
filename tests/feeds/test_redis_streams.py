"""The Redis source with a real redis-server: what arrives when consumers, entries or Redis are not well."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis as redis_client
from tests.feeds.feed_process import feed_process, wait_until
from tests.feeds.market_server import Break, Gate, Market, MarketServer, MarketWorker, tick, ticks
from tests.support.redis_server import RedisServer, redis_server

from tickgate.v1 import market_data_pb2, market_pb2
from tickgate_client import AsyncMarketDataPublisher, SourceFailed, TickBatch, TickSource
from tickgate_client.feeds.columns import columns_of
from tickgate_client.feeds.feeding import Feed
from tickgate_client.feeds.redis_entries import fields_of_tick
from tickgate_client.feeds.sources import open_source
from tickgate_client.feeds.tasks import end


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(running: RedisServer) -> redis_client.Redis:
    client = running.client()
    client.flushall()
    return client


def options(server: RedisServer, **more: Any) -> dict[str, str]:
    own = {"url": f"redis://{server.address}", "stream": "ticks", "consumer": "one", "claim_idle_s": "0.3"}
    return {name: str(value) for name, value in (own | more).items()}


def arguments(server: RedisServer, target: str, **more: Any) -> list[str]:
    given = [part for name, value in options(server, **more).items() for part in ("-o", f"{name}={value}")]
    return ["--source", "redis-streams", "--target", target, "--feed", "venue", *given]


def add(redis: redis_client.Redis, given: list[market_pb2.Tick], *, packed: int = 0) -> None:
    """Entries of one tick each, or of so many."""
    with redis.pipeline(transaction=False) as pipeline:
        if packed:
            for begin in range(0, len(given), packed):
                request = market_data_pb2.PublishBatchRequest(ticks=columns_of(given[begin : begin + packed]))
                pipeline.xadd("ticks", {"batch": request.SerializeToString()})
        else:
            for one in given:
                pipeline.xadd("ticks", fields_of_tick(one))
        pipeline.execute()


def pending(redis: redis_client.Redis) -> int:
    return int(redis.xpending("ticks", "tickgate")["pending"])


def letters(redis: redis_client.Redis) -> list[dict[bytes, bytes]]:
    return [fields for _, fields in redis.xrange("ticks:dead")]


@asynccontextmanager
async def opened(server: RedisServer, **more: Any) -> AsyncIterator[TickSource]:
    source = open_source("redis-streams", options(server, **more))
    try:
        yield source
    finally:
        await source.close()


async def take(source: TickSource, count: int) -> list[TickBatch]:
    """Batches with so many ticks, not acknowledged."""
    found: list[TickBatch] = []
    async with asyncio.timeout(20), aclosing(source.batches()) as batches:
        async for batch in batches:
            found.append(batch)
            if sum(len(one.ticks) for one in found) >= count:
                break
    return found


def numbers(batches: list[TickBatch]) -> list[int]:
    return [one.sequence for batch in batches for one in batch.ticks]


def run_feed(server: RedisServer, target: str, ends_after: int, **more: Any) -> tuple[Feed, dict[str, int]]:
    """Feed until so many ticks are answered, refused or put aside."""

    async def run() -> tuple[Feed, dict[str, int]]:
        async with opened(server, **more) as source, AsyncMarketDataPublisher(target, feed="venue") as publisher:
            feed, stop = Feed(source, publisher), asyncio.Event()

            async def watch() -> None:
                while feed.counts.answered + source.counts()["dead_lettered"] < ends_after:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                stop.set()

            watching = asyncio.create_task(watch())
            async with asyncio.timeout(30):
                assert await feed.run(stop)
                await watching
        return feed, dict(source.counts())

    return asyncio.run(run())


@pytest.mark.parametrize("packed", [0, 7], ids=["single", "packed"])
def test_every_entry_is_published_in_order_and_then_acknowledged(
    running: RedisServer, redis: redis_client.Redis, server: MarketServer, market: Market, packed: int
) -> None:
    add(redis, ticks(210), packed=packed)
    feed, counts = run_feed(running, server.target, 210, entries=20)
    assert [one.sequence for one in market.accepted] == list(range(1, 211))
    assert feed.counts.tally.accepted == 210
    assert counts == {"dead_lettered": 0, "claimed": 0, "trimmed": 0, "reconnects": 0}
    assert (pending(redis), redis.xinfo_consumers("ticks", "tickgate")) == (0, [])


def test_a_group_that_is_missing_is_made_with_its_stream_and_new_entries_wake_it(
    running: RedisServer, redis: redis_client.Redis
) -> None:
    async def run() -> list[TickBatch]:
        async with opened(running) as source:
            taking = asyncio.create_task(take(source, 3))
            while not await asyncio.to_thread(redis.exists, "ticks"):
                pass
            await asyncio.to_thread(add, redis, ticks(3))
            return await taking

    assert numbers(asyncio.run(run())) == [1, 2, 3]


def test_a_new_group_may_begin_with_what_comes_from_now_on(running: RedisServer, redis: redis_client.Redis) -> None:
    add(redis, ticks(5))

    async def run() -> list[TickBatch]:
        async with opened(running, start="$") as source:
            taking = asyncio.create_task(take(source, 2))
            while not await asyncio.to_thread(redis.xinfo_groups, "ticks"):
                pass
            await asyncio.to_thread(add, redis, ticks(2, begin=5))
            return await taking

    assert numbers(asyncio.run(run())) == [6, 7]


def test_entries_that_hold_no_tick_are_put_aside_with_their_reason_and_block_nothing(
    running: RedisServer, redis: redis_client.Redis, server: MarketServer, market: Market
) -> None:
    add(redis, ticks(3))
    redis.xadd("ticks", {"symbol": "S0", "price": "nan"}, id="9999999999999-1")
    redis.xadd("ticks", {"batch": b"\x12\xff"}, id="9999999999999-2")
    redis.xadd("ticks", fields_of_tick(tick("S0", 10)), id="9999999999999-3")
    _, counts = run_feed(running, server.target, 6)
    assert [one.sequence for one in market.accepted] == [1, 2, 3, 10]
    assert counts["dead_lettered"] == 2
    assert letters(redis) == [
        {
            b"entry": b"9999999999999-1",
            b"reason": b"exchange_ts_ns: found '', expected an integer from 1 to 9223372036854775807",
            b"symbol": b"S0",
            b"price": b"nan",
        },
        {
            b"entry": b"9999999999999-2",
            b"reason": b"batch: found 2 bytes, expected those of a PublishBatchRequest",
            b"batch": b"\x12\xff",
        },
    ]
    assert pending(redis) == 0


def test_ticks_that_the_server_refuses_are_put_aside_and_the_others_of_their_entry_arrive(
    running: RedisServer, redis: redis_client.Redis, server: MarketServer, market: Market
) -> None:
    def fault(_worker: MarketWorker, message: list[market_pb2.Tick]) -> Break | None:
        at = next((at for at, one in enumerate(message) if one.sequence in {4, 17}), None)
        return None if at is None else Break(grpc.StatusCode.INVALID_ARGUMENT, f"ticks[{at}].symbol: is not listed")

    market.fault = fault
    add(redis, ticks(10))
    add(redis, ticks(10, begin=10), packed=10)
    entries = [id_ for id_, _ in redis.xrange("ticks")]
    _, counts = run_feed(running, server.target, 20)
    assert [one.sequence for one in market.accepted] == [one for one in range(1, 21) if one not in {4, 17}]
    assert [(letter[b"entry"], letter[b"sequence"]) for letter in letters(redis)] == [
        (entries[3], b"4"),
        (entries[10], b"17"),
    ]
    assert letters(redis)[0][b"reason"].endswith(b"symbol: is not listed")
    assert (counts["dead_lettered"], pending(redis)) == (2, 0)


def test_while_one_consumer_has_entries_under_way_another_takes_none(
    running: RedisServer, redis: redis_client.Redis
) -> None:
    add(redis, ticks(10))

    async def run() -> tuple[list[int], list[int]]:
        async with (
            opened(running, entries=5, claim_idle_s=30) as one,
            opened(running, entries=5, claim_idle_s=30, consumer="two") as two,
        ):
            first = await take(one, 5)
            waiting = asyncio.create_task(take(two, 5))
            # The other has looked, and looked again, when its connection has run two scripts.
            while (
                await asyncio.to_thread(
                    lambda: redis.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
                )
                < 4
            ):
                pass
            assert not waiting.done()
            await one.acknowledge(first[0].position)
            return numbers(first), numbers(await waiting)

    redis.config_resetstat()
    assert asyncio.run(run()) == ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])


def test_what_a_dead_consumer_left_is_taken_over_before_anything_new(
    running: RedisServer, redis: redis_client.Redis
) -> None:
    add(redis, ticks(20))
    # A consumer that read and never came back.
    redis.xgroup_create("ticks", "tickgate", "0")
    redis.xreadgroup("tickgate", "dead", {"ticks": ">"}, count=12)

    async def run() -> tuple[list[int], dict[str, int]]:
        async with opened(running, entries=5) as source:
            return numbers(await take(source, 20)), dict(source.counts())

    found, counts = asyncio.run(run())
    assert (found, counts["claimed"]) == (list(range(1, 21)), 12)
    assert [one["name"] for one in redis.xinfo_consumers("ticks", "tickgate")] == [b"one"]


def test_a_consumer_that_starts_again_goes_on_with_its_own_entries_at_once(
    running: RedisServer, redis: redis_client.Redis
) -> None:
    add(redis, ticks(20))
    redis.xgroup_create("ticks", "tickgate", "0")
    redis.xreadgroup("tickgate", "one", {"ticks": ">"}, count=12)

    async def run() -> tuple[list[int], int]:
        async with opened(running, entries=5, claim_idle_s=3600) as source:
            return numbers(await take(source, 20)), source.counts()["claimed"]

    assert asyncio.run(run()) == (list(range(1, 21)), 0)


def test_a_consumer_that_lives_keeps_its_entries_however_long_the_server_takes(
    running: RedisServer, redis: redis_client.Redis
) -> None:
    add(redis, ticks(5))

    async def run() -> tuple[int, bool]:
        async with opened(running, claim_idle_s=1.0) as one, opened(running, claim_idle_s=1.0, consumer="two") as two:
            await take(one, 5)
            waiting = asyncio.create_task(take(two, 5))
            await asyncio.wait({waiting}, timeout=2.0)
            done = waiting.done()
            await end(waiting)
            return two.counts()["claimed"], done

    assert asyncio.run(run()) == (0, False)


def test_what_was_not_acknowledged_at_a_close_is_the_next_consumers_at_once(
    running: RedisServer, redis: redis_client.Redis
) -> None:
    add(redis, ticks(10))

    async def run() -> list[int]:
        async with opened(running, claim_idle_s=3600) as one:
            await take(one, 10)
        async with opened(running, claim_idle_s=3600, consumer="two") as two:
            return numbers(await take(two, 10))

    assert asyncio.run(run()) == list(range(1, 11))


@pytest.mark.parametrize("consumer", ["one", "dead"], ids=["its own", "another's"])
def test_entries_that_were_trimmed_away_under_way_are_counted_and_block_nothing(
    running: RedisServer, redis: redis_client.Redis, consumer: str
) -> None:
    add(redis, ticks(10))
    redis.xgroup_create("ticks", "tickgate", "0")
    redis.xreadgroup("tickgate", consumer, {"ticks": ">"}, count=6)
    redis.xtrim("ticks", maxlen=6, approximate=False)

    async def run() -> tuple[list[int], int]:
        async with opened(running, entries=3) as source:
            return numbers(await take(source, 6)), source.counts()["trimmed"]

    assert asyncio.run(run()) == ([5, 6, 7, 8, 9, 10], 4)


def test_a_redis_that_comes_back_empty_is_gone_on_with(tmp_path: Path, server: MarketServer, market: Market) -> None:
    with redis_server(tmp_path) as own:
        add(own.client(), ticks(50))
        with feed_process(*arguments(own, server.target)) as feed:
            wait_until(lambda: len(market.accepted) == 50)
            own.kill()
            feed.wait_for_text("trying again")
            own.start()
            add(own.client(), ticks(50, begin=50))
            wait_until(lambda: len(market.accepted) == 100)
            assert feed.stop() == 0
        assert "100 of 100 ticks answered" in feed.output
    assert [one.sequence for one in market.accepted] == list(range(1, 101))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"url": "redis://feed:wrong@{address}"}, "redis stream ticks: invalid username-password pair"),
        ({"url": "redis://feed:right@{address}"}, "redis stream ticks: .*no permissions to access one of the keys"),
        ({"stream": "text"}, "redis stream text: WRONGTYPE"),
    ],
    ids=["password", "permission", "type"],
)
def test_what_would_fail_for_ever_ends_the_source(
    running: RedisServer, redis: redis_client.Redis, more: dict[str, str], said: str
) -> None:
    redis.set("text", "x")
    redis.acl_setuser("feed", enabled=True, passwords=["+right"], keys=["other"], commands=["+@all"])

    async def run() -> None:
        given = {name: value.format(address=running.address) for name, value in more.items()}
        async with opened(running, **given) as source:
            await take(source, 1)

    with pytest.raises(SourceFailed, match=said):
        asyncio.run(run())


def test_user_and_password_may_come_from_the_url_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    with redis_server(tmp_path / "redis") as own:
        client = own.client()
        client.acl_setuser("feed", enabled=True, passwords=["+s3cret"], keys=["*"], commands=["+@all"])
        add(client, ticks(2))

        async def run() -> list[int]:
            url = f"redis://feed@{own.address}"
            async with opened(own, url=url, password_file=tmp_path / "secret") as source:
                return numbers(await take(source, 2))

        assert asyncio.run(run()) == [1, 2]


def test_a_feed_killed_in_the_middle_loses_no_tick_and_doubles_none(
    running: RedisServer, redis: redis_client.Redis, market: Market
) -> None:
    total = 3000
    add(redis, ticks(total, symbols=7))
    with MarketServer(market, workers=2) as server:
        for life, arrived in enumerate((300, 1500)):
            gate = Gate(market, arrived)
            given = arguments(running, server.target, consumer=f"life-{life}", entries=20)
            with feed_process(*given, "--window", "200") as feed:
                gate.wait()
                feed.stop(signal.SIGKILL)
                gate.open()
        assert len(market.accepted) < total
        with feed_process(*arguments(running, server.target, consumer="last")) as feed:
            wait_until(lambda: len(market.accepted) == total)
            wait_until(lambda: pending(redis) == 0)
            assert feed.stop() == 0
            assert "claimed" in feed.output
    for at in range(7):
        assert market.sequences(f"S{at}") == list(range(at + 1, total + 1, 7))
    assert {one.sequence for one in market.arrived} == set(range(1, total + 1))
    assert letters(redis) == []


def test_a_feed_that_was_stopped_for_long_and_wakes_up_doubles_nothing(
    running: RedisServer, redis: redis_client.Redis, server: MarketServer, market: Market
) -> None:
    total = 2000
    add(redis, ticks(total))
    gate = Gate(market, 300)
    with feed_process(*arguments(running, server.target, entries=10), "--window", "200") as sleeper:
        gate.wait()
        sleeper.process.send_signal(signal.SIGSTOP)
        gate.open()
        with feed_process(*arguments(running, server.target, consumer="two", entries=10)) as other:
            wait_until(lambda: len(market.arrived) >= 1000)
            sleeper.process.send_signal(signal.SIGCONT)
            wait_until(lambda: len(market.accepted) == total)
            wait_until(lambda: pending(redis) == 0)
            assert (other.stop(), sleeper.stop()) == (0, 0)
    for at in range(3):
        assert market.sequences(f"S{at}") == list(range(at + 1, total + 1, 3))


def test_a_server_that_restarts_in_the_middle_gets_every_tick_in_order(
    running: RedisServer, redis: redis_client.Redis, market: Market
) -> None:
    total = 2000
    add(redis, ticks(total))
    gate = Gate(market, 300)
    server = MarketServer(market).start()
    with feed_process(*arguments(running, server.target, entries=20), "--window", "200") as feed:
        gate.wait()
        gate.open()
        server.stop()
        assert len(market.accepted) < total
        feed.wait_for_text("trying again")
        with server:
            wait_until(lambda: len(market.accepted) == total)
            assert feed.stop() == 0
    assert [one.sequence for one in market.accepted] == list(range(1, total + 1))
    assert f"{total:,} of {total:,} ticks answered" in feed.output
