"""What `docs/feeds.md` shows runs, and what it lists is what there is."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
import redis as redis_client
from tests.feeds.market_server import Break, Market, MarketServer, MarketWorker, ticks
from tests.support.redis_server import RedisServer, redis_server

from tickgate.v1 import market_pb2
from tickgate_client import AsyncMarketDataPublisher, TickSource
from tickgate_client.feeds.feeding import Feed
from tickgate_client.feeds.sources import SourceOptions, open_source

DOCUMENT = (Path(__file__).parents[2] / "docs" / "feeds.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


def example(containing: str) -> str:
    (found,) = [code for code in EXAMPLES if containing in code]
    return str(found)


@pytest.fixture(scope="module")
def adapter() -> ModuleType:
    module = ModuleType("my_package")
    exec(example("class SqliteSource"), module.__dict__)  # noqa: S102 - the document's own
    return module


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "ticks.db"
    with sqlite3.connect(path) as database:
        database.execute("create table ticks(id integer primary key, symbol, exchange_ts_ns, sequence, price, size)")
        database.executemany(
            "insert into ticks(symbol, exchange_ts_ns, sequence, price, size) values (?, ?, ?, ?, ?)",
            [(one.symbol, one.exchange_ts_ns, one.sequence, one.trade.price, one.trade.size) for one in ticks(100)],
        )
    database.close()
    return path


def feed_until(source: TickSource, target: str, answered: int) -> Feed:
    async def run() -> Feed:
        stop = asyncio.Event()
        async with AsyncMarketDataPublisher(target, feed="f") as publisher:
            feed = Feed(source, publisher)
            running = asyncio.create_task(feed.run(stop))
            async with asyncio.timeout(20):
                while feed.counts.answered < answered:  # noqa: ASYNC110 - counters have no event
                    await asyncio.sleep(0)
                stop.set()
                assert await running
        await source.close()
        return feed

    return asyncio.run(run())


def opened(adapter: ModuleType, path: Path) -> TickSource:
    options = SourceOptions("sqlite", {"path": str(path), "rows": "30"})
    source: TickSource = adapter.open_source(options)
    options.finish()
    return source


def test_the_example_of_an_adapter_feeds_its_table_and_goes_on_where_it_was(
    adapter: ModuleType, table: Path, server: MarketServer, market: Market
) -> None:
    def fault(_worker: MarketWorker, message: list[market_pb2.Tick]) -> Break | None:
        at = next((at for at, one in enumerate(message) if one.sequence == 50), None)
        return None if at is None else Break(grpc.StatusCode.INVALID_ARGUMENT, f"ticks[{at}].symbol: is odd")

    market.fault = fault
    feed_until(opened(adapter, table), server.target, 100)
    with sqlite3.connect(table) as database:
        database.execute("insert into ticks values (101, 'S0', 1700000000000009999, 101, 1.0, 1.0)")
        assert database.execute("select id from through").fetchall() == [(100,)]
        assert database.execute("select * from refused").fetchall() == [("S1", 50, "ticks[19].symbol: is odd")]
    database.close()
    feed_until(opened(adapter, table), server.target, 1)
    assert [one.sequence for one in market.accepted] == [one for one in range(1, 102) if one != 50]


def test_the_example_of_a_publisher_publishes(
    server: MarketServer, market: Market, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {
        "ticks": ticks(3),
        "index": array("I", [0, 0]),
        "stamps": array("q", [1_700_000_000_000_000_000] * 2),
        "numbers": array("Q", [4, 5]),
        "prices": [1.0, 2.0],
        "sizes": [1.0, 1.0],
    }
    code = example("with MarketDataPublisher").replace("localhost:50051", server.target)
    exec(code, names)  # noqa: S102 - the document's own
    assert capsys.readouterr().out == "3 {} ()\n2\n"
    assert len(market.accepted) == 5


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as running:
        yield running


def test_entries_as_documented_are_read_with_the_rights_that_are_documented(
    own_redis: RedisServer, server: MarketServer, market: Market
) -> None:
    client: redis_client.Redis = own_redis.client()
    for line in re.findall(r"^XADD .*$", DOCUMENT, re.MULTILINE):
        client.execute_command(*line.split())
    exec(example("xadd(").replace("localhost:6379", own_redis.address), {})  # noqa: S102 - the document's own
    client.xadd("ticks", {"symbol": "no tick"})
    (rights,) = re.findall(r"\*\*Rights\.\*\* `([^`]+)`", DOCUMENT)
    client.acl_setuser(
        "feed", enabled=True, passwords=["+secret"], keys=["ticks", "ticks:dead"], commands=rights.split()
    )
    options = {"stream": "ticks", "url": f"redis://feed:secret@{own_redis.address}", "claim_idle_s": "0.1"}
    feed_until(open_source("redis-streams", options), server.target, 5)
    assert [(one.symbol, one.sequence) for one in market.accepted] == [
        ("BTCUSDT", 17),
        ("BTCUSDT", 18),
        ("BTCUSDT", 19),
        ("ETHUSDT", 1),
        ("BTCUSDT", 20),
    ]
    assert client.xlen("ticks:dead") == 1
    assert client.xpending("ticks", "tickgate")["pending"] == 0


@pytest.mark.parametrize(
    ("heading", "source", "needed"),
    [
        ("Redis Streams", "redis-streams", {"stream": "s"}),
        ("Recorded files", "file", {"path": "p"}),
        ("Simulator", "simulator", {}),
    ],
)
def test_the_options_that_are_listed_are_those_that_there_are(
    heading: str, source: str, needed: dict[str, str]
) -> None:
    section = DOCUMENT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section, re.MULTILINE)
    listed = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    with pytest.raises(ValueError, match="expected one of ") as caught:
        open_source(source, needed | {"no_such_option": "x"})
    assert listed == set(str(caught.value).partition("expected one of ")[2].split(", "))
