"""Fundamentals in a server: served as training joins them, bit for bit; refreshed, restarted and replayed."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.messages import START_NS, tick, zigzag
from tests.support.packages import edit_manifest, publish_forest, publish_logistic

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.features.batch import compute
from tickgate_server.features.fundamentals_feed import FileSource, FundamentalsFeed, kept_path, newest_kept, read_kept
from tickgate_server.features.fundamentals_file import Columns, read
from tickgate_server.features.fundamentals_table import FundamentalsInvalid, FundamentalsTable, pack
from tickgate_server.features.schema import FeatureSet, Fundamental, micro10, micro32, with_fundamentals
from tickgate_server.journal.entries import ControlEntry
from tickgate_server.journal.layout import VECTOR_WIDTH, ControlKind, RecordKind, text
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.errors import ManifestInvalid, SchemaMismatch
from tickgate_server.models.loading import load
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.replay import ReplayRefused, replay
from tickgate_server.risk.reasons import Reason
from tickgate_server.rpc.answers import Answers

HEADER = "symbol,name,as_of_ns,value\n"
SECOND = 1_000_000_000
FUNDAMENTALS = [Fundamental("eps", 20 * SECOND), Fundamental("rating", 10_000 * SECOND)]
TEN = with_fundamentals(micro10(), FUNDAMENTALS)
ALL = with_fundamentals(micro32(), FUNDAMENTALS)
WAIT_S = 30.0


class Source:
    """A source whose content and whose news a test decides."""

    def __init__(self, content: bytes | Exception) -> None:
        self.path = Path("source")
        self.content = content
        self.version = 0
        self.restless = False
        self.looks = threading.Semaphore(0)

    def state(self) -> int:
        self.looks.release()
        return self.version

    def read(self) -> bytes:
        if isinstance(self.content, Exception):
            raise self.content
        if self.restless:
            self.version += 1
        return self.content

    def put(self, content: bytes | Exception) -> None:
        """Other content, and the feed has dealt with it."""
        self.content = content
        self.version += 1
        self.settle()

    def settle(self) -> None:
        """Wait until what is there now was looked at."""
        while self.looks.acquire(blocking=False):
            pass
        for _ in range(4):  # a look that began before, and the two of a reading
            assert self.looks.acquire(timeout=WAIT_S)

    def close(self) -> None:
        """Nothing is under way."""


def packed(folder: Path, rows: str) -> bytes:
    path = folder / "rows.csv"
    path.write_text(HEADER + rows)
    return pack(read(path, Columns()))


@contextmanager
def served(
    registry: ModelRegistry, folder: Path, source: Source | None, *, live: bool = False
) -> Iterator[tuple[Engine, Answers]]:
    """An engine with a journal, as `app` builds it."""
    feed = None if source is None else FundamentalsFeed(source, folder, refresh_s=0.002)
    with JournalWriter(folder, segment_records=4096) as journal:
        engine = Engine(EngineSettings(capacity=8, replay=not live), registry, journal=journal, fundamentals=feed)
        answers = Answers(engine)
        try:
            yield engine, answers
        finally:
            answers.close()


def predict(answers: Answers, request: pb.PredictRequest) -> pb.PredictResponse:
    found = answers.predict(request.SerializeToString(), time.perf_counter_ns(), 0)
    assert isinstance(found, bytes), found
    return pb.PredictResponse.FromString(found)


def vectors(folder: Path, symbol: str) -> list[NDArray[np.float32]]:
    """What the journal says was scored for a symbol, empty where nothing was."""
    with JournalReader(folder) as reader:
        found = []
        while (rows := reader.poll(1024)).size:
            chosen = rows[(rows["kind"] == RecordKind.DECISION) & (rows["status"] == 0)]
            found += [row["vector"][: row["vector_width"]].copy() for row in chosen if text(row, "symbol") == symbol]
    return found


def adopted(folder: Path) -> list[str]:
    with JournalReader(folder) as reader:
        entries = [entry for entry in reader if isinstance(entry, ControlEntry)]
    return [entry.payload["sha256"] for entry in entries if entry.code == ControlKind.FUNDAMENTALS]


def known_rows(symbols: str, rng: np.random.Generator) -> str:
    """Values that become known between the ticks, on them and after them; some too old in between; some corrected."""
    lines = []
    for symbol in symbols:
        for name, count in (("eps", 9), ("rating", 3)):
            seconds = rng.choice(120, count, replace=False) - 5
            lines += [f"{symbol},{name},{START_NS + int(at) * SECOND},{rng.normal():.17g}\n" for at in seconds]
    return "".join(lines)


@pytest.mark.parametrize("features", [TEN, ALL], ids=["micro10", "micro32"])
@pytest.mark.parametrize("lane", [True, False], ids=["lane", "general"])
def test_what_is_served_is_what_training_joins_bit_for_bit(tmp_path: Path, features: FeatureSet, lane: bool) -> None:  # noqa: FBT001
    publish_forest(tmp_path / "models", features=features, latency_budget_ms=60_000.0)
    registry = load_repository(tmp_path / "models")
    rng = np.random.default_rng(5)
    source = Source(packed(tmp_path, known_rows("AB", rng)))  # C has none
    rows = 260
    columns = {
        "exchange_ts_ns": START_NS + np.cumsum(rng.choice([0, SECOND // 2, SECOND], rows)),
        "kind": np.where(np.arange(rows) == 0, 3, rng.choice([1, 2, 3], rows, p=[0.4, 0.2, 0.4])),
        "price": 100.0 + 0.01 * rng.integers(0, 5, rows),
        "size": rng.choice([0.0, 1.0, 2.5], rows),
        "bid": 99.98 + 0.01 * rng.integers(0, 2, rows),
        "ask": 100.0 + 0.01 * rng.integers(0, 2, rows),
        "bid_size": rng.choice([0.0, 1.0, 4.0], rows),
        "ask_size": rng.choice([0.0, 1.0, 4.0], rows),
    }
    ready: dict[str, list[bool]] = {symbol: [] for symbol in "ABC"}
    with served(registry, tmp_path / "journal", source) as (_, answers):
        assert answers._lane.open
        answers._lane.open = lane
        for i in range(rows):
            at = {name: column[i].item() for name, column in columns.items()}
            for symbol in "ABC":
                request = tick(
                    symbol,
                    at["exchange_ts_ns"],
                    sequence=i + 1,
                    trade=(at["price"], at["size"]) if at["kind"] & 1 else None,
                    quote=(at["bid"], at["ask"], at["bid_size"], at["ask_size"]) if at["kind"] & 2 else None,
                )
                answer = predict(answers, request)
                ready[symbol].append(answer.features.ready)
                assert answer.features.ready or answer.signal.reason == Reason.FEATURES_NOT_READY
    table = read(tmp_path / "rows.csv", Columns())
    for symbol in "ABC":
        expected = compute(features, **columns, known=table, symbol=symbol)
        complete = np.isfinite(expected).all(axis=1)
        of_ticks = np.isfinite(expected[:, : features.of_ticks.width]).all(axis=1)
        assert ready[symbol] == complete.tolist()
        assert (complete.sum() > 20) == (symbol != "C")
        assert (of_ticks & ~complete).sum() > 10  # unknown, or too old
        journaled = [vector for vector in vectors(tmp_path / "journal", symbol) if vector.size]
        assert np.array(journaled, np.float32).tobytes() == expected[complete].tobytes()
    assert replay(tmp_path / "journal", tmp_path / "models").differing == 0


def test_the_widest_vector_fits_its_record_whole(tmp_path: Path) -> None:
    widest = with_fundamentals(micro32(), [Fundamental(f"f{k}", 2**62) for k in range(16)])
    assert widest.width == VECTOR_WIDTH
    publish_forest(tmp_path / "models", features=widest, latency_budget_ms=60_000.0)
    source = Source(packed(tmp_path, "".join(f"A,f{k},1,{k}.5\n" for k in range(16))))
    with served(load_repository(tmp_path / "models"), tmp_path / "journal", source) as (_, answers):
        for number, request in enumerate(zigzag("A", 110)):
            request.tick.quote.bid, request.tick.quote.ask = 99.0, 101.0
            request.tick.quote.bid_size = request.tick.quote.ask_size = 1.0 + number % 3
            answer = predict(answers, request)
    assert answer.features.ready
    assert vectors(tmp_path / "journal", "A")[-1][32:].tolist() == [k + 0.5 for k in range(16)]
    assert replay(tmp_path / "journal", tmp_path / "models").differing == 0


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """A model of ten features and two fundamentals that ONNX Runtime runs: no fast lane."""
    publish_logistic(tmp_path / "models", features=TEN, latency_budget_ms=60_000.0)
    return load_repository(tmp_path / "models")


def rows(**values: float) -> str:
    """Both fundamentals of A, known for long, and eps renewed so often that it is never too old."""
    renewed = "".join(f"A,eps,{START_NS + k * SECOND},{values['eps']}\n" for k in range(0, 60, 10))
    return f"{renewed}A,rating,{START_NS - SECOND},{values['rating']}\n"


def test_a_value_published_late_is_not_seen_before_though_the_file_has_it(
    tmp_path: Path, registry: ModelRegistry
) -> None:
    published = START_NS + 15 * SECOND
    text = f"A,eps,{START_NS},1.0\nA,eps,{published},2.0\nA,rating,{START_NS},7.0\n"
    with served(registry, tmp_path / "journal", Source(packed(tmp_path, text))) as (_, answers):
        for request in zigzag("A", 20):
            predict(answers, request)
    seen = [float(vector[10]) for vector in vectors(tmp_path / "journal", "A") if vector.size]
    assert seen == [1.0] * 5 + [2.0] * 5  # trades 10 to 19 are ready, one a second


def test_too_old_at_the_ticks_clock_is_hold_features_not_ready(tmp_path: Path, registry: ModelRegistry) -> None:
    text = f"A,eps,{START_NS},1.0\nA,rating,{START_NS},7.0\n"
    with served(registry, tmp_path / "journal", Source(packed(tmp_path, text))) as (_, answers):
        found = [predict(answers, request) for request in zigzag("A", 23)]
        assert [answer.features.ready for answer in found] == [False] * 10 + [True] * 11 + [False] * 2
        assert found[21].signal.reason == pb.REASON_FEATURES_NOT_READY
        assert found[21].signal.action == pb.ACTION_HOLD
        assert not predict(answers, pb.PredictRequest(symbol="A")).features.ready


def test_a_quote_alone_makes_a_value_too_old_as_a_trade_does(tmp_path: Path, registry: ModelRegistry) -> None:
    text = f"A,eps,{START_NS},1.0\nA,rating,{START_NS},7.0\n"
    with served(registry, tmp_path / "journal", Source(packed(tmp_path, text))) as (_, answers):
        found = [predict(answers, request) for request in zigzag("A", 12)]
        assert found[-1].features.ready
        quote = tick("A", START_NS + 20 * SECOND + 1, sequence=99, quote=(99.0, 101.0, 1.0, 1.0))
        assert not predict(answers, quote).features.ready


def test_without_a_file_such_a_model_is_never_ready(tmp_path: Path, registry: ModelRegistry) -> None:
    with served(registry, tmp_path / "journal", None) as (_, answers):
        assert not any(predict(answers, request).features.ready for request in zigzag("A", 14))
    assert replay(tmp_path / "journal", tmp_path / "models").differing == 0


# -- taken over, kept, restarted ---------------------------------------------------------------------------------------


def served_in_turns(
    registry: ModelRegistry, folder: Path, source: Source, changes: dict[int, bytes | Exception]
) -> None:
    """Thirty trades, before some of which the source changes and the desk has its turn."""
    with served(registry, folder, source) as (engine, answers):
        for number, request in enumerate(zigzag("A", 30)):
            if number in changes:
                source.put(changes[number])
                engine.desk.poll()
            predict(answers, request)


def test_what_changes_is_taken_over_between_two_requests_and_replays_bit_for_bit(
    tmp_path: Path, registry: ModelRegistry
) -> None:
    one, two = (packed(tmp_path, rows(eps=value, rating=7.0)) for value in (1.0, 2.0))
    folder = tmp_path / "journal"
    served_in_turns(
        registry, folder, Source(one), {15: two, 20: FundamentalsInvalid(Path("source"), "garbage"), 25: one}
    )
    seen = [float(vector[10]) for vector in vectors(folder, "A") if vector.size]
    assert seen == [1.0] * 5 + [2.0] * 10 + [1.0] * 5  # what was in force stays where garbage comes
    first, second, third = adopted(folder)
    assert first == third != second
    result = replay(folder, tmp_path / "models")
    assert (result.decisions, result.differing) == (30, 0)
    kept_path(folder, second).unlink()
    with pytest.raises(ReplayRefused, match="the fundamentals that decided are not there"):
        replay(folder, tmp_path / "models")


def test_replay_notices_fundamentals_that_are_not_those_that_decided(tmp_path: Path, registry: ModelRegistry) -> None:
    folder = tmp_path / "journal"
    served_in_turns(registry, folder, Source(packed(tmp_path, rows(eps=1.0, rating=7.0))), {})
    (sha256,) = adopted(folder)
    kept_path(folder, sha256).write_bytes(packed(tmp_path, rows(eps=9.0, rating=7.0)))
    with pytest.raises(ReplayRefused, match=f"expected hash {sha256}"):
        replay(folder, tmp_path / "models")


def test_a_restart_serves_the_same_bits(tmp_path: Path, registry: ModelRegistry) -> None:
    folder = tmp_path / "journal"
    source = Source(packed(tmp_path, rows(eps=0.1, rating=7.0)))
    for _ in range(2):
        served_in_turns(registry, folder, source, {})
    found = vectors(folder, "A")
    first, second = found[:30], found[30:]
    assert [vector.tobytes() for vector in first] == [vector.tobytes() for vector in second]
    assert len(set(adopted(folder))) == 1
    result = replay(folder, tmp_path / "models")
    assert (result.starts, result.decisions, result.differing) == (2, 60, 0)


def test_a_start_with_a_garbage_source_goes_on_with_what_was_in_force(tmp_path: Path, registry: ModelRegistry) -> None:
    folder = tmp_path / "journal"
    one, two = (packed(tmp_path, rows(eps=value, rating=7.0)) for value in (1.0, 2.0))
    served_in_turns(registry, folder, Source(one), {5: two, 10: one})  # back to the first: it is the newest
    served_in_turns(registry, folder, Source(FundamentalsInvalid(Path("source"), "garbage")), {})
    found = [float(vector[10]) for vector in vectors(folder, "A") if vector.size]
    assert found == [1.0] * 40
    assert replay(folder, tmp_path / "models").differing == 0


def test_a_start_with_a_garbage_source_and_nothing_in_force_is_refused(tmp_path: Path) -> None:
    for error in (FundamentalsInvalid(Path("source"), "garbage"), OSError("no such host")):
        with pytest.raises(FundamentalsInvalid, match=r"source: no fundamentals: .*(garbage|no such host)"):
            FundamentalsFeed(Source(error), tmp_path, 1.0)


# -- the feed ----------------------------------------------------------------------------------------------------------


def taken(feed: FundamentalsFeed) -> FundamentalsTable:
    found = feed.take()
    assert found is not None
    return found.table


def test_what_was_read_is_given_once_and_kept_under_its_hash(tmp_path: Path) -> None:
    content = packed(tmp_path, "A,eps,5,1\n")
    source = Source(content)
    feed = FundamentalsFeed(source, tmp_path, 0.002)
    found = feed.take()
    assert found is not None
    assert feed.take() is None
    assert pack(read_kept(tmp_path, found.sha256).table) == content
    source.put(content)  # news that are none
    assert feed.take() is None
    source.put(packed(tmp_path, "A,eps,5,2\n"))
    assert taken(feed).values.tolist() == [2.0]
    feed.close()


def test_content_that_no_kernel_may_walk_is_refused_and_the_next_good_one_taken(tmp_path: Path) -> None:
    source = Source(packed(tmp_path, "A,eps,5,1\n"))
    feed = FundamentalsFeed(source, tmp_path / "journal", 0.002)
    taken(feed)
    source.put(b"garbage")
    assert feed.take() is None
    source.put(OSError("gone"))
    assert feed.take() is None
    source.put(packed(tmp_path, "A,eps,5,3\n"))
    assert taken(feed).values.tolist() == [3.0]
    feed.close()
    assert len(list((tmp_path / "journal").iterdir())) == 2


def test_a_source_that_could_not_be_reached_is_asked_again_though_it_did_not_change(tmp_path: Path) -> None:
    source = Source(packed(tmp_path, "A,eps,5,1\n"))
    feed = FundamentalsFeed(source, None, 0.002)
    taken(feed)
    source.put(OSError("gone"))
    source.content = packed(tmp_path, "A,eps,5,2\n")
    source.settle()
    assert taken(feed).values.tolist() == [2.0]
    feed.close()


def test_what_was_written_to_while_it_was_read_is_not_taken_until_it_stands_still(tmp_path: Path) -> None:
    source = Source(packed(tmp_path, "A,eps,5,1\n"))
    feed = FundamentalsFeed(source, None, 0.002)
    taken(feed)
    source.restless = True
    source.put(packed(tmp_path, "A,eps,5,2\n"))
    assert feed.take() is None
    source.restless = False
    source.settle()
    assert taken(feed).values.tolist() == [2.0]
    feed.close()


def test_a_reading_ends_when_the_server_does(tmp_path: Path) -> None:
    path = tmp_path / "fundamentals.csv"
    os.mkfifo(path)  # whose other end never comes
    source = FileSource(path, Columns())
    closing = threading.Timer(0.0, source.close)
    closing.start()
    with pytest.raises(FundamentalsInvalid, match="its reader ended with -9"):
        source.read()
    closing.join()


def test_a_file_is_read_again_when_it_changed_and_only_then(tmp_path: Path) -> None:
    path = tmp_path / "fundamentals.csv"
    path.write_text(f"{HEADER}A,eps,5,1\n")
    source = FileSource(path, Columns())
    before = source.state()
    assert source.read() == pack(read(path, Columns()))
    assert source.state() == before
    beside = tmp_path / "beside.csv"
    beside.write_text(f"{HEADER}A,eps,5,x\n")
    beside.rename(path)
    assert source.state() != before
    with pytest.raises(FundamentalsInvalid, match="column 'value', row 0: found 'x', but this is a number"):
        source.read()
    path.unlink()
    with pytest.raises(OSError, match="No such file"):
        source.state()


def test_the_folder_keeps_what_came_into_force_last(tmp_path: Path) -> None:
    assert newest_kept(tmp_path) is None


# -- manifests ---------------------------------------------------------------------------------------------------------


def test_a_manifest_with_other_ages_than_its_schema_id_is_refused(tmp_path: Path) -> None:
    folder = publish_logistic(tmp_path, features=TEN)
    assert load(folder).features == TEN
    edit_manifest(folder, lambda said: said["features"]["fundamentals"][0].update(maximum_age_ns=5))
    with pytest.raises(SchemaMismatch, match=r"schema id is micro10\+fundamentals-"):
        load(folder)


def test_a_manifest_whose_parameters_make_no_set_is_refused(tmp_path: Path) -> None:
    folder = publish_logistic(tmp_path, features=TEN)
    edit_manifest(folder, lambda said: said["features"].update(fundamentals=[]))
    with pytest.raises(ManifestInvalid, match="features: expected 1 to 16 fundamentals"):
        load(folder)
