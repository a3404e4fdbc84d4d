"""The replica has what the engine has, bit for bit, whatever the journal tells of; and nothing that it cannot know."""

import time
from pathlib import Path

import numpy as np
import pytest
from tests.store.feeding import (
    Followed,
    all_states,
    ask,
    engine_images,
    feed,
    replica_images,
    scored,
    serving,
    with_faults,
)
from tests.support.messages import START_NS, features
from tests.support.packages import publish_forest, publish_logistic

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.features.schema import micro32
from tickgate_server.journal.layout import (
    DECISION,
    NO_ROW,
    TICKS,
    RecordKind,
    TickOutcome,
)
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.segments import segment_numbers, segment_path
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.store.inputs import of_published


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish_forest(folder, name="ten", latency_budget_ms=60_000.0)
    publish_forest(folder, name="all", features=micro32(), latency_budget_ms=60_000.0)
    publish_logistic(folder / "one", name="ten", latency_budget_ms=60_000.0)
    publish_forest(folder / "lane", name="all", features=micro32(), latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def both(models: Path) -> ModelRegistry:
    return load_repository(models, "ten")


@pytest.fixture(scope="module")
def lane(models: Path) -> ModelRegistry:
    """One feature set, one compiled forest: the fast lane is open."""
    return load_repository(models / "lane")


@pytest.mark.parametrize("live", [True, False], ids=["live clock", "ticks' clock"])
@pytest.mark.parametrize("which", ["both", "lane"])
def test_it_has_the_engines_arrays_bit_for_bit(
    tmp_path: Path,
    models: Path,
    both: ModelRegistry,
    lane: ModelRegistry,
    which: str,
    live: bool,  # noqa: FBT001
) -> None:
    requests = with_faults(feed("ABC", 2000))
    requests[700:700] = [features("D", [0.0] * 10), pb.PredictRequest(symbol="A")] if which == "both" else []
    now = iter(request.tick.exchange_ts_ns + 4_950_000_000 for request in requests)
    last = [START_NS]

    def clock_ns() -> int:
        """Late enough that a tick here and there is stale, and a later read is later."""
        last[0] = max(last[0], next(now, last[0]))
        return last[0]

    registry = both if which == "both" else lane
    with serving(registry, tmp_path / "j", clock_ns if live else None) as (engine, answers):
        for request in requests:
            answers.predict(request.SerializeToString(), time.perf_counter_ns(), 0)
        there = engine_images(engine)
    followed = Followed(tmp_path / "j", models).read(tmp_path / "j", batch=313)
    found = replica_images(followed.replica)
    assert found == {name: there[name] for name in found}
    assert set("ABC") <= set(found)


def test_a_vector_is_handed_on_for_each_trade_that_completes_one_and_is_the_one_that_was_scored(
    tmp_path: Path, models: Path, lane: ModelRegistry
) -> None:
    requests = feed("AB", 900)
    with serving(lane, tmp_path) as (_, answers):
        ask(answers, requests)
    vectors = Followed(tmp_path, models).read(tmp_path).vectors
    found = {}
    for some in vectors:
        assert some.schema_id == micro32().schema_id
        assert not some.counted.any()
        rows = zip(some.symbols, some.sequences.tolist(), some.values, some.exchange_ts_ns.tolist(), strict=True)
        found |= {(name, stamp): (sequence, values.tobytes()) for name, sequence, values, stamp in rows}
    trades = {
        (request.tick.symbol, request.tick.exchange_ts_ns): request.tick.sequence
        for request in requests
        if request.tick.HasField("trade")
    }
    expected = {(name, at): (trades[name, at], vector) for name, at, vector in scored(tmp_path) if (name, at) in trades}
    assert found == expected
    assert len(found) > 100


def test_a_feed_without_sequences_has_its_ticks_counted(tmp_path: Path, models: Path, lane: ModelRegistry) -> None:
    requests = feed("A", 300, numbered=False)
    with serving(lane, tmp_path) as (_, answers):
        ask(answers, requests)
    followed = Followed(tmp_path, models).read(tmp_path, batch=50)
    assert all(some.counted.all() for some in followed.vectors)
    numbers = np.concatenate([some.sequences for some in followed.vectors]).tolist()
    ready = [number for number, request in enumerate(requests, 1) if request.tick.HasField("trade")][-len(numbers) :]
    assert numbers == ready
    assert all_states(followed.replica)[0].ticks == 300


def test_a_servers_start_begins_with_nothing(tmp_path: Path, models: Path, both: ModelRegistry) -> None:
    requests = feed("ABC", 600)
    with serving(both, tmp_path) as (_, answers):
        ask(answers, requests)
    with serving(both, tmp_path) as (engine, answers):
        ask(answers, [request for request in requests if request.tick.symbol == "B"])
        there = engine_images(engine)
    found = replica_images(Followed(tmp_path, models).read(tmp_path).replica)
    assert found == {"B": there["B"]}  # A and C have rows for the desk's sake, and no ticks


def test_what_retention_removed_leaves_nothing_to_know_until_the_next_start(
    tmp_path: Path, models: Path, both: ModelRegistry
) -> None:
    with serving(both, tmp_path) as (_, answers):
        ask(answers, feed("ABC", 2500))
    segment_path(tmp_path, segment_numbers(tmp_path)[0]).unlink()
    followed = Followed(tmp_path, models).read(tmp_path)
    assert followed.replica.run is None
    assert followed.replica.take_changed(10) == []
    with serving(both, tmp_path) as (engine, answers):
        ask(answers, feed("AB", 50))
        there = engine_images(engine)
    found = replica_images(Followed(tmp_path, models).read(tmp_path).replica)
    assert found == {name: there[name] for name in "AB"}


def test_a_journal_of_other_kernels_is_not_followed(tmp_path: Path, models: Path, both: ModelRegistry) -> None:
    with serving(both, tmp_path) as (_, answers):
        ask(answers, feed("A", 30))
    followed = Followed(tmp_path, models)
    with JournalReader(tmp_path) as reader:
        while (rows := reader.poll(1000)).size:
            followed.replica.take(rows, same_kernels=False)
    assert followed.replica.run is None
    assert "other kernels" in followed.replica.why_unknown


def test_what_changed_is_taken_once(tmp_path: Path, models: Path, both: ModelRegistry) -> None:
    with serving(both, tmp_path) as (_, answers):
        ask(answers, feed("ABC", 300))
    replica = Followed(tmp_path, models).read(tmp_path).replica
    assert replica.changed == 3
    taken = [*replica.take_changed(2), *replica.take_changed(2)]
    assert sorted(state.symbol for state in taken) == ["A", "B", "C"]
    assert replica.take_changed(2) == []
    replica.mark_changed(["B", "unknown"])
    assert [state.symbol for state in replica.take_changed(9)] == ["B"]
    replica.mark_changed()
    assert replica.changed == 3


# -- published ticks ---------------------------------------------------------------------------------------------------


def ticks_record(sequence: int, clock_ns: int, *published: tuple[object, ...]) -> np.void:
    record = np.zeros(1, TICKS)
    record["sequence"], record["kind"], record["clock_ns"] = sequence, RecordKind.TICKS, clock_ns
    record["tick_count"] = len(published)
    for at, values in enumerate(published):
        record["ticks"][0, at] = values
    return record.view(DECISION)[0]


def published_of(request: pb.PredictRequest, row: int, outcome: TickOutcome) -> tuple[object, ...]:
    told = request.tick
    kind = told.HasField("trade") + 2 * told.HasField("quote")
    numbers = (told.trade.price, told.trade.size, told.quote.bid, told.quote.ask)
    sizes = (told.quote.bid_size, told.quote.ask_size)
    return (row, kind, outcome, 0, told.exchange_ts_ns, told.sequence, *numbers, *sizes)


def test_of_published_ticks_those_are_taken_that_changed_state() -> None:
    request = feed("A", 1)[0]
    rows = np.array(
        [
            ticks_record(7, 11, *(published_of(request, 1, outcome) for outcome in TickOutcome)),
            ticks_record(8, 12, (NO_ROW, *published_of(request, 0, TickOutcome.REJECTED)[1:])),
            ticks_record(9, 13, published_of(request, 0, TickOutcome.ACCEPTED)),
        ]
    )
    found = of_published(rows, np.array([4, 5, -1]))
    assert found["record"].tolist() == [7, 7, 7, 9]
    assert found["row"].tolist() == [5, 5, 5, 4]
    assert found["clock_ns"].tolist() == [11, 11, 11, 13]
    assert found["held_back"].tolist() == [0, 0, 1, 0]
    assert found["price"].tolist() == [request.tick.trade.price] * 4


def test_an_applied_tick_of_a_row_without_a_symbol_is_an_error() -> None:
    request = feed("A", 1)[0]
    for row in (2, 3, NO_ROW):
        rows = np.array([ticks_record(7, 11, published_of(request, row, TickOutcome.ACCEPTED))])
        with pytest.raises(ValueError, match="row"):
            of_published(rows, np.array([4, 5, -1]))


def test_published_ticks_make_what_the_same_ticks_make_in_requests(
    tmp_path: Path, models: Path, both: ModelRegistry
) -> None:
    """TICKS and SYMBOLS as their layout says, in the place of requests, with the outcomes that the requests had."""
    requests = with_faults(feed("AB", 800))
    with serving(both, tmp_path / "asked") as (engine, answers):
        outcomes = []
        for request in requests:
            before = engine.market.sequences.tobytes()
            held = engine.market.quotes_trades.tobytes()
            ask(answers, [request])
            changed = engine.market.sequences.tobytes() != before or engine.market.quotes_trades.tobytes() != held
            outcomes.append(changed)
        there = engine_images(engine)
    held_back = set()
    with JournalReader(tmp_path / "asked") as reader:
        while (rows := reader.poll(4096)).size:
            decisions = rows[rows["kind"] == RecordKind.DECISION]
            for row in decisions:
                held_back.add((int(row["tick_sequence"]), int(row["exchange_ts_ns"]), int(row["flags"]) & 512))
    with serving(both, tmp_path / "published") as (engine, _):
        assert engine.journal is not None
        next_sequence = engine.journal.next_sequence
    followed = Followed(tmp_path / "published", models).read(tmp_path / "published")
    run = followed.replica.run
    assert run is not None
    run.row_of_engine[[7, 3]] = [followed.replica._row_of("A"), followed.replica._row_of("B")]
    row_of = {"A": 7, "B": 3}
    records = []
    for start in range(0, len(requests), 10):
        some = []
        for request, changed in zip(requests[start : start + 10], outcomes[start : start + 10], strict=True):
            key = (request.tick.sequence, request.tick.exchange_ts_ns)
            outcome = TickOutcome.REJECTED
            if changed:
                outcome = TickOutcome.HELD_BACK if (*key, 512) in held_back else TickOutcome.ACCEPTED
            some.append(published_of(request, row_of[request.tick.symbol], outcome))
        records.append(ticks_record(next_sequence + len(records), 0, *some))
    followed.replica.take(np.array(records), same_kernels=True)
    assert replica_images(followed.replica) == there
