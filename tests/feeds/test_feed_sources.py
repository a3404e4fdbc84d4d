"""Sources by name and their options; recorded ticks and simulated ones."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from tests.feeds.market_server import tick, ticks

from tickgate.v1 import market_pb2
from tickgate_client import BadSourceOption, TickBatch, TickSource, UnknownTickReader, UnknownTickSource, write_csv
from tickgate_client.feeds.recorded import RecordedSource
from tickgate_client.feeds.simulator import SimulatedSource
from tickgate_client.feeds.sources import SourceOptions, open_source, source_names


async def batches(source: TickSource) -> list[TickBatch]:
    return [batch async for batch in source.batches()]


def all_ticks(source: TickSource) -> list[market_pb2.Tick]:
    return [tick for batch in asyncio.run(batches(source)) for tick in batch.ticks]


class Clock:
    """A wall clock of which each look takes a millisecond."""

    def __init__(self) -> None:
        self.now_ns = 1_800_000_000_000_000_000

    def __call__(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns


def test_the_sources_of_its_own_are_registered() -> None:
    assert {"file", "redis-streams", "simulator"} <= set(source_names())


def test_a_source_that_nobody_registered_is_an_error_that_names_the_others() -> None:
    with pytest.raises(UnknownTickSource, match=r"no tick source 'kafka'; there are: .*file.*simulator"):
        open_source("kafka", {})


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("file", {}, "source file, option path: found nothing, expected a value, it is needed"),
        (
            "file",
            {"path": "x", "sped": "1"},
            "option sped: found an option of that name, expected one of entries, form",
        ),
        ("file", {"path": "x", "speed": "-1"}, "option speed: found '-1', expected a finite number of at least 0"),
        ("file", {"path": "x", "speed": "nan"}, "option speed: found 'nan'"),
        ("file", {"path": "x", "restamp": "yes"}, "option restamp: found 'yes' without a speed"),
        ("file", {"path": "x", "restamp": "maybe"}, "option restamp: found 'maybe', expected one of no, yes"),
        ("simulator", {"symbols": "0"}, "option symbols: found '0', expected a whole number from 1 to 65536"),
        ("simulator", {"ticks": "1e3"}, "option ticks: found '1e3', expected a whole number from 0"),
        ("redis-streams", {}, "option stream: found nothing"),
        ("redis-streams", {"stream": "s", "url": "http://x"}, "option url: found .*expected redis://"),
        ("redis-streams", {"stream": "s", "tls_ca": "x"}, "option url: found .*rediss://... where TLS files are given"),
        ("redis-streams", {"stream": "s", "entries": "5001"}, "option entries: found '5001', .* from 1 to 5000"),
    ],
)
def test_a_wrong_option_is_named_with_what_was_expected(name: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(BadSourceOption, match=said):
        open_source(name, options)


def test_an_unknown_format_of_a_file_is_said_before_anything_is_read() -> None:
    with pytest.raises(UnknownTickReader):
        open_source("file", {"path": "x", "format": "nothing"})


def test_what_a_source_takes_of_its_options_has_a_type() -> None:
    options = SourceOptions("s", {"text": "a=b", "count": "7", "number": "0.5", "choice": "b", "path": "/x"})
    assert options.text("text") == "a=b"
    assert (options.count("count", 1), options.count("other", 1)) == (7, 1)
    assert (options.number("number", 1.0), options.choice("choice", ("a", "b"))) == (0.5, "b")
    assert (options.path("path"), options.path("none")) == (Path("/x"), None)
    options.finish()


def test_a_file_is_given_whole_in_its_order_as_fast_as_possible(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv.gz"
    write_csv(path, ticks(25))
    source = open_source("file", {"path": str(path), "entries": "10"})
    found = asyncio.run(batches(source))
    assert [one for batch in found for one in batch.ticks] == ticks(25)
    assert [(len(batch.ticks), batch.position) for batch in found] == [(10, 10), (10, 20), (5, 25)]


def recording(gaps_ms: list[int]) -> list[market_pb2.Tick]:
    made, at_ms = [], 0
    for number, gap_ms in enumerate(gaps_ms, start=1):
        at_ms += gap_ms
        one = tick("A", number)
        one.exchange_ts_ns = 1_700_000_000_000_000_000 + at_ms * 1_000_000
        made.append(one)
    return made


def test_at_a_speed_ticks_come_when_they_are_due_and_no_sooner() -> None:
    clock = Clock()
    source = RecordedSource(iter(recording([0, 0, 20, 30, 0])), speed=10.0, clock_ns=clock)

    async def run() -> list[tuple[list[int], float]]:
        begin_ns = clock.now_ns + 1_000_000
        return [
            ([one.sequence for one in batch.ticks], (clock.now_ns - begin_ns) / 1e6) async for batch in source.batches()
        ]

    found = asyncio.run(run())
    assert [numbers for numbers, _ in found] == [[1, 2], [3], [4, 5]]
    due_ms = [0, 2, 5]
    assert all(at_ms >= due for (_, at_ms), due in zip(found, due_ms, strict=True))


def test_restamped_ticks_begin_now_and_keep_their_distances_at_that_speed() -> None:
    clock = Clock()
    begin_ns = clock.now_ns + 1_000_000
    found = all_ticks(RecordedSource(iter(recording([0, 20, 30])), speed=10.0, restamp=True, clock_ns=clock))
    assert [one.exchange_ts_ns - begin_ns for one in found] == [0, 2_000_000, 5_000_000]


def test_the_same_seed_gives_the_same_walks_and_another_gives_others() -> None:
    def run(seed: int) -> list[bytes]:
        source = SimulatedSource(symbols=3, rate=100_000, seed=seed, limit=3000, clock_ns=Clock())
        # Stamps are the clock's, and what was due at a look depends on it.
        return [(one.trade.SerializeToString() + one.quote.SerializeToString()) for one in all_ticks(source)]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_simulated_ticks_are_what_a_server_takes() -> None:
    found = all_ticks(SimulatedSource(symbols=3, rate=50_000, limit=2000, clock_ns=Clock()))
    assert len(found) == 2000
    assert {one.symbol for one in found} == {"SIM0000", "SIM0001", "SIM0002"}
    for one in found:
        assert 0 < one.quote.bid < one.quote.ask
        assert min(one.trade.price, one.trade.size, one.quote.bid_size, one.quote.ask_size) > 0
    for before, after in pairwise(found):
        assert before.sequence + 1 == after.sequence
        assert before.exchange_ts_ns <= after.exchange_ts_ns


def test_simulated_ticks_come_at_their_rate_by_the_clock() -> None:
    clock = Clock()
    begin_ns = clock.now_ns

    async def run() -> list[tuple[int, float]]:
        source = SimulatedSource(symbols=2, rate=2000, limit=100, clock_ns=clock)
        return [(batch.position, (clock.now_ns - begin_ns) / 1e9) async for batch in source.batches()]

    for given, at_s in asyncio.run(run()):
        assert given <= 2000 * at_s + 1
