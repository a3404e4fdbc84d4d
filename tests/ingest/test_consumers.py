"""What reads the journal takes published ticks for what they are: the market's."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from tests.ingest.ingesting import Clock, Publishing, Tick
from tests.support.messages import START_NS
from tests.support.packages import publish_forest

from tickgate_server.engine import EngineSettings
from tickgate_server.features.schema import FeatureSet, micro32
from tickgate_server.journal.commands import journal as journal_command
from tickgate_server.journal.entries import ControlEntry, TicksEntry
from tickgate_server.journal.layout import ControlKind, TickOutcome
from tickgate_server.journal.published import published_of
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.verify import verify
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.observer.bars import trades_of
from tickgate_server.observer.counters import decisions_of
from tickgate_server.observer.outcomes import OutcomeJoin
from tickgate_server.risk.reports import PositionSet
from tickgate_training.retraining.journal_ticks import read_journals

FEATURES: FeatureSet = micro32()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    folder = tmp_path_factory.mktemp("models")
    publish_forest(folder, name="forest", features=FEATURES, latency_budget_ms=60_000.0)
    return load_repository(folder)


def market(count: int, *, jumps: bool = False) -> list[Tick]:
    """A walk of two symbols, with quotes; with `jumps` they stay at another level for two trades now and then."""
    rng = np.random.default_rng(7)
    prices = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-4, count)))
    found = []
    for at, price in enumerate(prices.tolist()):
        moved = price * (1.05 if jumps and at % 40 > 35 and at > 60 else 1.0)
        quote = (moved - 0.01, moved + 0.01, 1.0 + at % 3, 2.0) if at % 4 else None
        found.append(Tick("AB"[at % 2], START_NS + at * 10**8, at + 1, (moved, 1.0 + at % 5), quote))
    return found


class Sides:
    """The same ticks published to one engine and asked about of another, each with its journal."""

    def __init__(self, registry: ModelRegistry, folder: Path, ticks: list[Tick], asked: int = 10) -> None:
        options = EngineSettings(capacity=8, replay=True, price_jump_sigmas=5.0)
        self.published = Publishing(registry, Clock(START_NS), folder / "published", settings=options)
        self.asked = Publishing(registry, Clock(START_NS), folder / "asked", settings=options)
        for at in range(0, len(ticks), asked):
            piece = ticks[at : at + asked]
            self.published.counts(piece[:-1])
            self.told(self.published, piece[-1])
            for tick in piece:
                self.told(self.asked, tick)

    @staticmethod
    def told(side: Publishing, tick: Tick) -> None:
        request, decision = side.request(tick), side.decision
        side.engine.decide(request, decision)
        side.engine.recorder.record(request, decision, request_id="", status=0)

    def close(self) -> None:
        self.published.close()
        self.asked.close()


@pytest.fixture(scope="module")
def sides(registry: ModelRegistry, tmp_path_factory: pytest.TempPathFactory) -> Sides:
    found = Sides(registry, tmp_path_factory.mktemp("journals"), market(600, jumps=True))
    found.close()
    return found


def folder_of(side: Publishing) -> Path:
    assert side.folder is not None
    return side.folder


def trades_in(folder: Path) -> list[tuple[bytes, int, float]]:
    """Every trade that bars are made of."""
    found: list[tuple[bytes, int, float]] = []
    with JournalReader(folder) as reader:
        entries = JournalReader(folder)
        controls = [entry for entry in entries if isinstance(entry, ControlEntry)]
        entries.close()
        while (rows := reader.poll(64)).size:
            first, last = int(rows["sequence"][0]), int(rows["sequence"][-1])
            own = [entry for entry in controls if first <= entry.sequence <= last]
            for trades in trades_of(decisions_of(rows), own, published_of(rows, reader.symbols)):
                found += zip(trades.symbols.tolist(), trades.stamps_ns.tolist(), trades.prices.tolist(), strict=True)
    return found


def test_bars_are_made_of_published_trades_as_of_those_that_were_asked_about(sides: Sides) -> None:
    mine, others = trades_in(folder_of(sides.published)), trades_in(folder_of(sides.asked))
    assert len(mine) > 500
    assert mine == others


def outcomes_in(folder: Path) -> Any:
    """Outcomes of the decisions on A at each tenth tick, as model health joins them."""
    join = OutcomeJoin()
    join.watch(0, 3, 0, 0.0)
    found = []
    with JournalReader(folder) as reader:
        while (rows := reader.poll(50)).size:
            decisions = decisions_of(rows)
            tenth = decisions["tick_sequence"] % 10 == 0
            versions = np.where(tenth, 0, -1)
            found.append(join.feed(decisions, versions, published_of(rows, reader.symbols)))
    return np.concatenate(found)


def test_outcomes_are_measured_on_published_trades_too(registry: ModelRegistry, tmp_path: Path) -> None:
    found = Sides(registry, tmp_path, market(400))
    found.close()
    mine, others = outcomes_in(folder_of(found.published)), outcomes_in(folder_of(found.asked))
    assert mine.size > 10
    for name in ("chain", "begin_ns", "end_ns", "value", "move"):
        assert mine[name].tolist() == others[name].tolist(), name


def test_training_reads_published_ticks_with_the_features_that_were_served(sides: Sides) -> None:
    mine, others = (read_journals([folder_of(side)], [], FEATURES, 10_000) for side in (sides.published, sides.asked))
    assert mine.frame.height > 500
    assert mine.frame.equals(others.frame)
    assert mine.features.tobytes() == others.features.tobytes()
    store = sides.published.engine.feature_stores[0]
    last = mine.frame.with_row_index().filter(pl.col("symbol") == "A")["index"][-1]
    row = sides.published.engine.symbols.row("A")
    assert mine.features[last].tobytes() == store.vectors[row].tobytes()


def test_a_restart_values_what_is_held_at_the_last_published_price(registry: ModelRegistry, tmp_path: Path) -> None:
    clock = Clock(START_NS)
    side = Publishing(registry, clock, tmp_path, segment_records=4096)
    side.engine.desk.set_positions([PositionSet("A", 3.0, 100.0)], reason="a test", who="tester")
    ticks = market(300)
    for at in range(0, 300, 30):
        clock.now_ns = ticks[at].exchange_ts_ns + 4 * 10**9
        side.counts(ticks[at : at + 30])
    before = side.engine.desk.portfolio()
    side.close()
    (tmp_path / "portfolio.jsonl").unlink()  # so all there is to go by is the journal
    again = Publishing(registry, clock, tmp_path)
    after = again.engine.desk.portfolio()
    again.close()
    held = {one.symbol: one for one in before.positions if one.filled}
    found = {one.symbol: one for one in after.positions if one.filled}
    assert held.keys() == found.keys() == {"A"}
    assert (found["A"].mark, found["A"].unrealised) == (held["A"].mark, held["A"].unrealised)
    assert held["A"].mark == [tick.trade for tick in ticks if tick.symbol == "A"][-1][0]  # type: ignore[index]  # it has one


def test_a_confirmed_jump_is_told_before_the_tick_that_confirms_it(sides: Sides) -> None:
    with JournalReader(folder_of(sides.published)) as reader:
        entries = list(reader)
    confirming = [
        at
        for at, entry in enumerate(entries)
        if isinstance(entry, TicksEntry) and (entry.ticks["outcome"] == TickOutcome.CONFIRMED).any()
    ]
    assert confirming
    for at in confirming:
        told, entry = entries[at - 1], entries[at]
        assert isinstance(told, ControlEntry)
        assert isinstance(entry, TicksEntry)
        assert (told.code, told.payload["symbol"]) == (ControlKind.TICK, entry.symbols[0])


def test_each_segment_names_its_rows_before_their_ticks(registry: ModelRegistry, tmp_path: Path) -> None:
    side = Publishing(registry, Clock(START_NS), tmp_path, segment_records=32)
    for at in range(20):
        side.counts([Tick(symbol, START_NS + at, at + 1, (100.0, 1.0)) for symbol in "ABCDEFGH" for _ in range(1)] * 5)
    side.close()
    segments = sorted(tmp_path.glob("*.seg*")) or sorted(path for path in tmp_path.iterdir() if path.is_file())
    assert len(segments) > 3
    with JournalReader(tmp_path) as reader:
        found = [entry for entry in reader if isinstance(entry, TicksEntry)]
    assert sum(len(entry.ticks) for entry in found) == 20 * 40
    assert all(symbol for entry in found for symbol in entry.symbols)
    last = found[-1].sequence
    with JournalReader(tmp_path, last) as reader:  # the names stand before where it begins
        (entry,) = [entry for entry in reader if isinstance(entry, TicksEntry)]
    assert entry.symbols == found[-1].symbols
    assert verify(tmp_path).whole


def test_cat_prints_published_ticks_by_symbol(sides: Sides) -> None:
    result = CliRunner().invoke(journal_command, ["cat", str(folder_of(sides.published)), "--json"])
    assert result.exit_code == 0
    lines = [line for line in result.output.splitlines() if '"kind": "TICKS"' in line]
    assert lines
    assert '"symbol": "A"' in lines[0]
    assert '"outcome": "ACCEPTED"' in lines[0]
    plain = CliRunner().invoke(journal_command, ["cat", str(folder_of(sides.published))])
    assert " TICKS [{" in plain.output
