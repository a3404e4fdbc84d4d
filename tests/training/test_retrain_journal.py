"""The journal as training data: what was applied, with the very vectors that were scored."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.support.messages import START_NS, tick
from tests.support.packages import publish_forest, publish_logistic
from tests.training import turning_market

from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.features.schema import FeatureSet, feature_set
from tickgate_server.journal.errors import JournalMissing
from tickgate_server.journal.layout import ControlKind, RecordKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.segments import segment_numbers, segment_path
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.registry import load_repository
from tickgate_server.rpc.answers import Answers
from tickgate_training.data import table
from tickgate_training.labels import Labels
from tickgate_training.retraining.journal_ticks import JournalTicks, read_journals
from tickgate_training.retraining.newest import read_newest, within_parts
from tickgate_training.samples import prepare

GAP_NS = feature_set("micro10", 300_000_000_000).session_gap_ns
SETS = {name: feature_set(name, GAP_NS) for name in ("micro10", "micro32")}


@pytest.fixture(scope="module", params=sorted(SETS))
def schema(request: pytest.FixtureRequest) -> FeatureSet:
    return SETS[request.param]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, schema: FeatureSet) -> Path:
    """`micro10` by a forest, which the fast lane serves, and `micro32` by a linear function."""
    folder = tmp_path_factory.mktemp("models")
    if schema.name == "micro10":
        publish_forest(folder, name="m", features=schema, latency_budget_ms=60_000.0)
    else:
        publish_logistic(folder, name="m", features=schema, latency_budget_ms=60_000.0)
    return folder


def ticks(seed: int, count: int, start_ns: int = START_NS) -> list[Any]:
    """Requests of two symbols: trades, quotes and both; some of them are rejected, some only repeat the last."""
    rng = np.random.default_rng(seed)
    stamp_ns, requests = start_ns, []
    for number in range(1, count + 1):
        stamp_ns += int(rng.choice([0, 1, 10**8, 10**9]))
        kind = int(rng.choice([1, 2, 3], p=[0.5, 0.25, 0.25]))
        bid = 99.98 + 0.01 * int(rng.integers(0, 3))
        ask = bid - 0.01 if rng.random() < 0.05 else bid + 0.01  # crossed now and then
        price = 100.0 + 0.01 * int(rng.integers(0, 5))
        request = tick(
            "AB"[int(rng.integers(2))],
            stamp_ns - (10**9 * 30 if rng.random() < 0.05 else 0),  # out of order now and then
            sequence=number,
            trade=(price, float(rng.choice([0.0, 1.0, 2.5]))) if kind & 1 else None,
            quote=(bid, ask, 1.0, 4.0) if kind & 2 else None,
        )
        requests += [request] * (2 if rng.random() < 0.05 else 1)
    return requests


@contextmanager
def serving(models: Path, journal: JournalWriter) -> Iterator[Answers]:
    """A server as the journal sees it: its start, then what it decides."""
    journal.append_control(ControlKind.SETTINGS, {"instruments": []})
    engine = Engine(EngineSettings(capacity=8, replay=True), load_repository(models), journal=journal)
    answers = Answers(engine)
    yield answers
    answers.close()
    engine.close()


def send(answers: Answers, requests: list[Any]) -> None:
    for request in requests:
        answers.predict(request.SerializeToString(), time.perf_counter_ns(), 0)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """Two servers one after the other, the second with ticks from where the first was and on."""
    folder = tmp_path_factory.mktemp("journal")
    with JournalWriter(folder, segment_records=256) as writer:
        with serving(models, writer) as answers:
            send(answers, ticks(1, 900))
        with serving(models, writer) as answers:
            send(answers, ticks(2, 900, START_NS + 120 * 10**9))
    return folder


def recorded(folder: Path) -> tuple[np.ndarray, list[int]]:
    """DECISION records of ticks that were applied with a trade; and the sequences of servers' starts."""
    rows, starts = [], []
    with JournalReader(folder) as reader:
        while (batch := reader.poll(512)).size:
            kinds = batch["kind"]
            applied = (kinds == RecordKind.DECISION) & batch["applied"] & (batch["tick_kind"] & 1 != 0)
            rows.append(batch[applied].copy())
            starts += batch["sequence"][(kinds == RecordKind.CONTROL)].tolist()
    return np.concatenate(rows), starts


def read(folder: Path, schema: FeatureSet, **more: Any) -> JournalTicks:
    return read_journals([folder], more.pop("symbols", ()), schema, more.pop("rows_maximum", 10_000))


def test_every_vector_that_was_scored_is_that_of_its_trade_bit_for_bit(journal: Path, schema: FeatureSet) -> None:
    found = read(journal, schema)
    rows, _ = recorded(journal)
    by_number: dict[tuple[str, int, int], np.void] = {}
    for row in rows:
        by_number[row["symbol"].decode(), int(row["tick_sequence"]), int(row["exchange_ts_ns"])] = row
    compared = 0
    for at, (symbol, stamp_ns, number) in enumerate(
        found.frame.select("symbol", "exchange_ts_ns", "sequence").iter_rows()
    ):
        row = by_number[symbol, number, stamp_ns]
        assert (row["price"], row["size"]) == (found.frame["price"][at], found.frame["size"][at])
        ready = bool(np.isfinite(found.features[at]).all())
        assert ready == bool(row["scored"])
        if ready:
            compared += 1
            assert found.features[at].tobytes() == row["vector"][: schema.width].tobytes()
    assert compared > 200
    assert found.frame.height + found.older == rows.size
    assert found.lost == found.beyond == 0


def test_what_comes_out_is_a_canonical_table_without_what_the_server_rejected(
    journal: Path, schema: FeatureSet
) -> None:
    found = read(journal, schema)
    assert table.check(found.frame).equals(found.frame)
    assert set(found.frame["symbol"]) == {"A", "B"}
    assert found.older > 0  # the second server was told what the first had been told
    for symbol in "AB":
        own = found.frame.filter(pl.col("symbol") == symbol)["exchange_ts_ns"]
        part = found.part[(found.frame["symbol"] == symbol).to_numpy()]
        assert (own.diff().drop_nulls() >= 0).all()
        assert (np.diff(part) >= 0).all()
        assert len(set(part.tolist())) == 2


def test_a_trade_joins_the_quote_before_it(tmp_path: Path, models: Path, schema: FeatureSet) -> None:
    at = START_NS
    quotes = [(99.0, 101.0, 1.0, 2.0), (99.5, 100.5, 3.0, 4.0), (98.0, 102.0, 5.0, 6.0)]
    sent = [
        tick("A", at, sequence=1, trade=(100.0, 1.0)),  # no quote yet
        tick("A", at + 1, sequence=2, quote=quotes[0]),
        tick("A", at + 1, sequence=3, trade=(100.0, 1.0)),  # not strictly later than the quote
        tick("A", at + 2, sequence=4, trade=(100.0, 1.0)),
        tick("A", at + 3, sequence=5, quote=quotes[1]),
        tick("A", at + 3, sequence=6, trade=(100.0, 1.0), quote=quotes[2]),  # its own is the one in force
        tick("A", at + 4, sequence=7, trade=(100.0, 1.0)),
        tick("A", at + 5 + GAP_NS, sequence=8, trade=(100.0, 1.0)),  # too long ago
    ]
    with JournalWriter(tmp_path / "j", segment_records=64) as writer, serving(models, writer) as answers:
        send(answers, sent)
    found = read(tmp_path / "j", schema).frame
    assert found["sequence"].to_list() == [1, 3, 4, 6, 7, 8]
    bids = found["bid"].to_list()
    assert [bids[place] for place in (2, 3, 4)] == [99.0, 98.0, 98.0]
    assert all(np.isnan(bids[place]) for place in (0, 1, 5))


def test_ticks_published_and_ticks_of_started_requests_count_in_their_place(
    tmp_path: Path, models: Path, schema: FeatureSet
) -> None:
    plain, mixed = tmp_path / "plain", tmp_path / "mixed"
    prices = [100.0 + 0.01 * (number % 7) for number in range(30)]
    with JournalWriter(plain, segment_records=64) as writer, serving(models, writer) as answers:
        for number, price in enumerate(prices, start=1):
            send(answers, [tick("A", START_NS + number, sequence=number, trade=(price, 1.0), quote=QUOTE)])
    with JournalWriter(mixed, segment_records=64) as writer, serving(models, writer) as answers:
        for number, price in enumerate(prices, start=1):
            said = {"symbol": "A", "exchange_ts_ns": START_NS + number, "sequence": number, "kind": 3, "price": price,
                    "size": 1.0} | dict(zip(("bid", "ask", "bid_size", "ask_size"), QUOTE, strict=True))  # fmt: skip
            if number % 3 == 0:
                writer.append_control(ControlKind.TICK, said)
            elif number % 3 == 1:
                writer.append_control(ControlKind.STARTED, {"ticket": number, "request": said | {"input": 1}})
                writer.append_control(ControlKind.STARTED, {"ticket": number, "request": said | {"input": 1}})  # again
            else:
                send(answers, [tick("A", START_NS + number, sequence=number, trade=(price, 1.0), quote=QUOTE)])
    one, other = read(plain, schema), read(mixed, schema)
    assert one.frame.equals(other.frame, null_equal=True)
    assert one.features.tobytes() == other.features.tobytes()


QUOTE = (99.99, 100.01, 1.0, 1.0)


def test_only_the_newest_trades_are_kept_and_they_are_what_they_were(journal: Path, schema: FeatureSet) -> None:
    everything, newest = read(journal, schema), read(journal, schema, rows_maximum=50)
    assert newest.frame.equals(everything.frame[-50:], null_equal=True)
    assert newest.features.tobytes() == everything.features[-50:].tobytes()


def test_symbols_that_are_not_wanted_are_left_out(journal: Path, schema: FeatureSet) -> None:
    everything, one = read(journal, schema), read(journal, schema, symbols=("B",))
    wanted = (everything.frame["symbol"] == "B").to_numpy()
    assert one.frame.equals(everything.frame.filter(pl.col("symbol") == "B"), null_equal=True)
    assert one.features.tobytes() == everything.features[wanted].tobytes()


def test_workers_journals_are_put_together_by_time(
    journal: Path, schema: FeatureSet, models: Path, tmp_path: Path
) -> None:
    other = tmp_path / "worker"
    with JournalWriter(other, segment_records=64) as writer, serving(models, writer) as answers:
        send(answers, [tick("C", START_NS + 10**9 * n, sequence=n, trade=(50.0 + n % 3, 1.0)) for n in range(1, 40)])
    found = read_journals([journal, other], (), schema, 10_000)
    assert set(found.frame["symbol"]) == {"A", "B", "C"}
    assert (found.frame["exchange_ts_ns"].diff().drop_nulls() >= 0).all()
    alone = read(other, schema)
    assert found.features[(found.frame["symbol"] == "C").to_numpy()].tobytes() == alone.features.tobytes()


def test_lost_records_are_counted_and_begin_a_new_part(journal: Path, schema: FeatureSet, tmp_path: Path) -> None:
    numbers = segment_numbers(journal)
    for number in numbers:
        if number != numbers[1]:
            (tmp_path / segment_path(journal, number).name).write_bytes(segment_path(journal, number).read_bytes())
    damaged = bytearray(segment_path(journal, numbers[1]).read_bytes())
    damaged[4096 + 704 * 20 + 100] ^= 1  # one record in the middle
    (tmp_path / segment_path(journal, numbers[1]).name).write_bytes(damaged)
    found = read(tmp_path, schema)
    assert found.lost == 1
    assert len(set(found.part.tolist())) == 3


def test_an_empty_journal_has_no_row_and_a_missing_one_is_named(tmp_path: Path, schema: FeatureSet) -> None:
    JournalWriter(tmp_path / "j", segment_records=64).close()
    found = read(tmp_path / "j", schema)
    assert found.frame.height == 0
    assert found.features.shape == (0, schema.width)
    with pytest.raises(JournalMissing):
        read(tmp_path / "nowhere", schema)


def test_journaled_trades_come_behind_those_of_files_with_the_features_that_were_served(
    journal: Path, schema: FeatureSet, tmp_path: Path
) -> None:
    served = read(journal, schema)
    half = served.frame.height // 2
    (tmp_path / "ticks").mkdir()
    served.frame[:half].write_parquet(tmp_path / "ticks" / "a.parquet")  # captured too: half of what was journaled
    features = {"feature_set": schema.name, "session_gap_ns": GAP_NS}
    config = turning_market.settings(
        tmp_path, journal={"folders": [str(journal)]}, training={"features": features, "calendar": "24/7"}
    )
    found = read_newest(config)
    last = {name: served.frame[:half].filter(pl.col("symbol") == name)["exchange_ts_ns"].max() for name in "AB"}
    behind = np.array([stamp > last[name] for name, stamp in served.frame[["symbol", "exchange_ts_ns"]].iter_rows()])
    assert found.frame.height == half + int(behind.sum())
    tail = served.features[behind]
    assert found.samples.features[-len(tail) :].tobytes() == tail.tobytes()


def test_no_label_looks_over_a_servers_start(tmp_path: Path) -> None:
    config = turning_market.plain(tmp_path)
    samples = prepare(turning_market.turning(60, 1), config)
    part = np.repeat([0, 1], 30)
    before, after = samples.labels, within_parts(samples, part)
    reach = config.label.horizon_trades + config.label.lag_trades
    rows = np.arange(60)
    crossing = (rows < 30) & (rows + reach >= 30)
    assert (after.direction[crossing] == -1).all()
    same: Labels = after
    assert np.array_equal(same.direction[~crossing], before.direction[~crossing])


def test_a_round_on_what_a_server_journaled_alone_is_that_on_the_captured_ticks(tmp_path: Path) -> None:
    """The champion itself serves the ticks; the journal then gives the same data, features, figures and decision."""
    captured, journaled = tmp_path / "captured", tmp_path / "journaled"
    frame = turning_market.turning(7000, 0)
    only_journal = {"sources": [], "journal": {"folders": [str(journaled / "journal")]}}
    lines = []
    for folder, more in ((captured, {}), (journaled, only_journal)):
        folder.mkdir()
        package = {"name": "sim", "repository": str(folder / "models"), "latency_budget_ms": 60_000.0}
        config = turning_market.settings(folder, **more, training={"package": package})
        turning_market.first_champion(config, frame[:3500])
        if more:
            requests = [_request(*row) for row in frame.select(*_ASKED).iter_rows()]
            journal = JournalWriter(folder / "journal", segment_records=4096)
            with journal as writer, serving(folder / "models", writer) as answers:
                send(answers, requests)
        else:
            turning_market.arrive(folder, frame, 0, 7000)
        lines.append(turning_market.one_round(config))
    one, other = lines
    assert one.data is not None
    assert other.data is not None
    assert (one.data.rows, one.data.first_ns, one.data.last_ns) == (7000, other.data.first_ns, other.data.last_ns)
    assert other.data.rows == 7000
    assert (one.decision, one.reason, one.test) == (other.decision, other.reason, other.test)
    for mine, theirs in ((one.champion, other.champion), (one.challenger, other.challenger)):
        assert mine == theirs
    assert one.test is not None
    assert one.test.blocks > 100


_ASKED = ("exchange_ts_ns", "sequence", "price", "size", "bid", "ask", "bid_size", "ask_size")


def _request(stamp_ns: int, sequence: int, price: float, size: float, *quote: float) -> Any:
    return tick("SIM", stamp_ns, sequence=sequence, trade=(price, size), quote=tuple(quote))
