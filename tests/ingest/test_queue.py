"""What waits, and its bounds: all or nothing, not read on, conflated; newcomers; a journal that cannot be written."""

from pathlib import Path

import pytest
from tests.ingest.ingesting import Clock, Publishing, Tick, columns_of, state_of
from tests.support.messages import START_NS
from tests.support.packages import publish_logistic

from tickgate.v1 import market_data_pb2 as pb
from tickgate_server.engine import EngineSettings
from tickgate_server.errors import FieldInvalid, IngestFull, SymbolElsewhere
from tickgate_server.ingest.ingestion import Counts, IngestSettings
from tickgate_server.journal.errors import JournalError
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.risk.reasons import Reason
from tickgate_server.rpc.market_data import Publisher
from tickgate_server.rpc.tick_messages import TickReader
from tickgate_server.ticks.instruments import Instrument, Universe

SMALLEST = IngestSettings(queue_ticks=65_536)
FULL = "ticks: 65,536 wait to be applied, the most there may be"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    folder = tmp_path_factory.mktemp("models")
    publish_logistic(folder, name="line", latency_budget_ms=60_000.0)
    return load_repository(folder)


def trades(symbol: str, count: int, *, first: int = 1) -> list[Tick]:
    return [Tick(symbol, START_NS + at, at, (100.0 + at % 3 * 0.01, 1.0)) for at in range(first, first + count)]


def test_a_message_that_does_not_fit_is_refused_and_changes_nothing(registry: ModelRegistry) -> None:
    side = Publishing(registry, Clock(START_NS), ingest=SMALLEST)
    side.publish(trades("A", 65_000))
    before = state_of(side.engine)
    with pytest.raises(IngestFull, match=FULL):
        side.publish(trades("A", 600, first=65_001))
    assert side.ingestion.waiting == 65_000
    assert state_of(side.engine) == before
    side.publish(trades("A", 536, first=65_001))  # which fits
    side.settle()
    assert side.told == [Counts(accepted=65_000), Counts(accepted=536)]
    assert side.ingestion.waiting == 0


def test_a_turn_ends_when_its_time_is_over_and_tells_nobody_before_all_is_applied(registry: ModelRegistry) -> None:
    side = Publishing(registry, Clock(START_NS), ingest=IngestSettings(slice_ns=1))
    side.publish(trades("A", 3000))
    turns = 1
    while side.ingestion.turn():
        assert side.told == []
        turns += 1
    assert turns > 100
    assert side.told == [Counts(accepted=3000)]


def test_a_stream_is_not_read_on_until_there_is_room(registry: ModelRegistry) -> None:
    side = Publishing(registry, Clock(START_NS), ingest=SMALLEST)
    changes: list[None] = []
    stream = Publisher(side.ingestion, TickReader(), lambda: changes.append(None))

    def message(symbol: str) -> bytes:
        found = pb.PublishTicksRequest()
        one = found.ticks.add(symbol=symbol, exchange_ts_ns=START_NS, sequence=1)
        one.trade.price, one.trade.size = 100.0, 1.0
        return found.SerializeToString()

    side.publish(trades("A", 65_535))
    stream.take(message("B"))
    assert stream.wants_more
    stream.take(message("C"))  # for which there is no room
    assert not stream.wants_more
    assert stream.next_answer() is None
    side.settle()
    assert stream.wants_more
    assert changes
    found = [pb.PublishTicksResponse.FromString(stream.next_answer()) for _ in range(2)]  # type: ignore[arg-type]  # bytes
    assert [(one.messages, one.counts.accepted) for one in found] == [(1, 1), (2, 1)]
    assert stream.idle


def test_another_workers_symbol_is_refused_and_nothing_of_the_message_applied(registry: ModelRegistry) -> None:
    sides = [
        Publishing(registry, Clock(START_NS), settings=EngineSettings(capacity=16, worker=worker, workers=2))
        for worker in range(2)
    ]
    found = []
    for side in sides:
        before = state_of(side.engine)
        for symbol in ("A", "B", "C", "D"):
            try:
                side.publish(trades(symbol, 1))
            except SymbolElsewhere:
                found.append(symbol)
        with pytest.raises(SymbolElsewhere):
            side.publish([one for symbol in ("A", "B", "C", "D") for one in trades(symbol, 1)])
        assert state_of(side.engine) == before
    assert sorted(found) == ["A", "B", "C", "D"]


def test_conflation_drops_what_a_later_tick_of_its_symbol_supersedes(registry: ModelRegistry, tmp_path: Path) -> None:
    settings = IngestSettings(queue_ticks=65_536, conflate=True, slice_ns=10**12)
    side = Publishing(registry, Clock(START_NS), tmp_path, ingest=settings)
    side.counts([*trades("A", 1), *trades("B", 1)])
    ticks = [
        Tick("A", START_NS + 2, 2, (100.1, 1.0), (99.0, 101.0, 1.0, 1.0)),  # no later one has a quote: it stays
        Tick("A", START_NS + 3, 3, (100.2, 1.0)),
        *trades("B", 33_000, first=2),
        Tick("A", START_NS + 4, 4, (100.3, 1.0)),
    ]
    counts = side.counts(ticks)
    # While more than half of the queue waits, as each chunk of 1,024 begins: one chunk of 33,003 ticks.
    assert (counts.conflated, counts.accepted) == (1023, 33_003 - 1023)
    row = side.engine.symbols.row("A")
    assert side.engine.feature_stores[0].counts[row] == 3
    side.close()


def test_without_conflation_nothing_is_dropped(registry: ModelRegistry) -> None:
    side = Publishing(registry, Clock(START_NS), ingest=SMALLEST)
    assert side.counts(trades("A", 40_000)) == Counts(accepted=40_000)


def test_a_symbol_gets_its_row_with_its_first_accepted_tick(registry: ModelRegistry) -> None:
    side = Publishing(registry, Clock(START_NS), settings=EngineSettings(capacity=2))
    late = Tick("LATE", START_NS - 10**10, 1, (100.0, 1.0))
    side.publish([late, *trades("A", 2)])
    side.publish([late, *trades("B", 1), *trades("LATE", 2)])
    side.settle()
    assert side.engine.symbols.names == ["A", "B"]
    assert side.told == [
        Counts(accepted=2, rejected={Reason.TICK_STALE: 1}),
        Counts(accepted=1, rejected={Reason.TICK_STALE: 1, Reason.TICK_SYMBOL_TABLE_FULL: 2}),
    ]


def test_symbols_of_a_closed_universe_alone_are_taken(registry: ModelRegistry) -> None:
    universe = Universe({"A": Instrument(symbol="A")}, closed=True)
    side = Publishing(registry, Clock(START_NS), universe=universe)
    counts = side.counts([*trades("A", 2), *trades("OTHER", 3), Tick("", START_NS, 1, (1.0, 1.0))])
    assert counts.accepted == 2
    assert counts.rejected == {Reason.TICK_UNKNOWN_SYMBOL: 3, Reason.TICK_INVALID_VALUE: 1}


def test_codes_of_symbols_that_never_get_a_row_are_free_again(registry: ModelRegistry) -> None:
    side = Publishing(registry, Clock(START_NS), settings=EngineSettings(capacity=4))
    for number in range(4):  # more than there is room for at a time
        counts = side.counts([Tick(f"S{number}-{k}", START_NS - 10**10, 1, (100.0, 1.0)) for k in range(20_000)])
        assert counts.rejected == {Reason.TICK_STALE: 20_000}
    assert side.counts(trades("A", 1)).accepted == 1


def test_a_message_may_have_more_new_symbols_than_there_are_rows(registry: ModelRegistry) -> None:
    side = Publishing(registry, Clock(START_NS), settings=EngineSettings(capacity=4))
    counts = side.counts([Tick(f"T{k}", START_NS, 1, (100.0, 1.0)) for k in range(40)])
    assert counts == Counts(accepted=4, rejected={Reason.TICK_SYMBOL_TABLE_FULL: 36})


def test_a_feeds_name_has_a_bound(registry: ModelRegistry) -> None:
    side = Publishing(registry, Clock(START_NS))
    with pytest.raises(FieldInvalid, match="feed: expected up to 32 bytes of UTF-8"):
        side.ingestion.take_in("f" * 33, *columns_of(trades("A", 1)), side.told.append)


def test_where_the_journal_cannot_be_written_publishers_are_told_so(registry: ModelRegistry, tmp_path: Path) -> None:
    side = Publishing(registry, Clock(START_NS), tmp_path)
    side.publish(trades("A", 5), "")
    side.publish(trades("B", 5), "")
    assert side.journal is not None
    side.journal.close()
    side.settle()
    assert [isinstance(found, JournalError) for found in side.told] == [True, True]
    assert side.ingestion.waiting == 0
