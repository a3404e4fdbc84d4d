"""Bars: against a slow reference, whatever the batches; and the trades that they are made of, out of a real journal."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.journal.journal_samples import approved, tick

from tickgate_server.journal.entries import ControlAssembler, ControlEntry
from tickgate_server.journal.layout import CONTROL, ControlKind, RecordKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.observer.bars import Trades, trades_of
from tickgate_server.observer.counters import decisions_of
from tickgate_server.risk.bars import Bar, Bars
from tickgate_server.ticks.market import QUOTE, TRADE

SECOND_NS = 1_000_000_000
BAR_S = 10
CARRY_S = 25

Tick = tuple[str, int, float]  # symbol, stamp in seconds, price
TICKS = st.lists(
    st.tuples(
        st.sampled_from("ABCDE"),
        st.integers(-15, 40),
        st.floats(0.01, 1e4) | st.sampled_from([0.0, math.nan, math.inf]),
    ),
    max_size=60,
).map(
    lambda steps: [
        (symbol, 1_000_000 + max(0, since), price)
        for (symbol, _, price), since in zip(steps, itertools.accumulate(step for _, step, _ in steps), strict=True)
    ]
)


def add(bars: Bars, ticks: list[Tick]) -> list[Bar]:
    symbols = np.array([symbol.encode() for symbol, _, _ in ticks], "S32")
    stamps_ns = np.array([stamp * SECOND_NS for _, stamp, _ in ticks], np.int64)
    return bars.add(symbols, stamps_ns, np.array([price for _, _, price in ticks], np.float64))


def reference(ticks: list[Tick], limit: int) -> list[tuple[int, list[float], list[float]]]:
    """As of, prices and returns of each closed bar, one tick at a time, from the definitions."""
    rows: dict[str, int] = {}
    seen = 0
    last: dict[int, tuple[int, float]] = {}
    based: dict[int, tuple[int, float]] = {}  # number of the closed bar, counted, and price
    found: list[tuple[int, list[float], list[float]]] = []
    open_bar, as_of = None, 0
    for symbol, stamp, price in ticks:
        if symbol not in rows:
            if len(rows) == limit:
                continue
            rows[symbol] = len(rows)
        if not (math.isfinite(price) and price > 0):
            continue
        number = stamp // BAR_S
        if open_bar is not None and number > open_bar:
            prices, returns = [math.nan] * seen, [math.nan] * seen
            for row, (when, known) in last.items():
                if open_bar * BAR_S - when <= CARRY_S:
                    prices[row] = known
                    if row in based:
                        spans = len(found) - based[row][0]
                        returns[row] = (known / based[row][1] - 1) / math.sqrt(spans)
                    based[row] = (len(found), known)
            found.append((as_of * SECOND_NS, prices, returns))
        open_bar = number if open_bar is None else max(open_bar, number)
        row = rows[symbol]
        if row not in last or stamp >= last[row][0]:
            last[row] = (stamp, price)
            seen = max(seen, row + 1)
        as_of = max(as_of, stamp)
    return found


def assert_same(bars: list[Bar], expected: list[tuple[int, list[float], list[float]]]) -> None:
    assert [bar.as_of_ns for bar in bars] == [as_of for as_of, _, _ in expected]
    for bar, (_, prices, returns) in zip(bars, expected, strict=True):
        np.testing.assert_array_equal(bar.prices, prices)
        np.testing.assert_allclose(bar.returns, returns, rtol=1e-12, atol=1e-15)


@given(TICKS, st.lists(st.integers(0, 60), max_size=5), st.integers(2, 6))
def test_bars_are_the_references_however_ticks_are_batched(ticks: list[Tick], cuts: list[int], limit: int) -> None:
    bars = Bars(BAR_S, CARRY_S, limit)
    edges = [0, *sorted(cut for cut in cuts if cut < len(ticks)), len(ticks)]
    found = [bar for begin, end in itertools.pairwise(edges) for bar in add(bars, ticks[begin:end])]
    assert_same(found, reference(ticks, limit))
    names = list(dict.fromkeys(symbol for symbol, _, _ in ticks))
    assert bars.symbols == names[:limit]
    assert bars.ticks_ignored == sum(symbol not in names[:limit] for symbol, _, _ in ticks)


@given(TICKS, TICKS)
def test_what_comes_later_changes_no_bar_that_has_closed(ticks: list[Tick], later: list[Tick]) -> None:
    before, after = Bars(BAR_S, CARRY_S), Bars(BAR_S, CARRY_S)
    closed = add(before, ticks)
    more = add(after, ticks + later)
    assert_same(more[: len(closed)], [(bar.as_of_ns, bar.prices.tolist(), bar.returns.tolist()) for bar in closed])


def test_a_closed_market_gives_no_bars() -> None:
    bars = Bars(BAR_S, 10_000)
    closed = add(bars, [("A", 5, 100.0), ("A", 15, 110.0), ("A", 5005, 121.0), ("A", 5015, 121.0)])
    np.testing.assert_allclose([bar.returns[0] for bar in closed], [math.nan, 0.1, 0.1])


def test_the_move_over_a_halt_is_one_return_divided_by_the_root_of_its_bars() -> None:
    bars = Bars(BAR_S, 0)
    add(bars, [("A", 5, 100.0), ("B", 5, 1.0)])
    closed = add(bars, [*(("B", 10 * k + 5, 1.0) for k in range(1, 4)), ("A", 45, 120.0), ("B", 55, 1.0)])
    returns = [bar.returns[0] for bar in closed]
    np.testing.assert_allclose(returns, [math.nan] * 4 + [0.2 / math.sqrt(4)])


def test_the_last_bar_closes_when_no_more_ticks_come() -> None:
    bars = Bars(BAR_S, CARRY_S)
    assert bars.finish() is None
    add(bars, [("A", 5, 100.0), ("A", 15, 110.0)])
    last = bars.finish()
    assert last is not None
    assert (last.as_of_ns, last.prices.tolist()) == (15 * SECOND_NS, [110.0])
    assert bars.finish() is None


def test_a_server_that_begins_may_take_time_back_and_no_other_can() -> None:
    bars = Bars(BAR_S, CARRY_S)
    add(bars, [("A", 105, 100.0)])
    assert add(bars, [("A", 5, 1.0), ("A", 15, 1.0)]) == []
    bars.restart()
    assert [bar.as_of_ns for bar in add(bars, [("A", 5, 50.0), ("A", 15, 55.0), ("A", 25, 55.0)])] == [
        5 * SECOND_NS,
        15 * SECOND_NS,
    ]
    bars.restart()  # and time that goes on keeps the prices
    np.testing.assert_allclose([bar.returns[0] for bar in add(bars, [("A", 35, 66.0), ("A", 45, 66.0)])], [0.0, 0.2])


def test_a_price_that_is_no_market_is_missing() -> None:
    bars = Bars(BAR_S, CARRY_S)
    closed = add(bars, [("A", 5, 1e-300), ("A", 15, 1e300), ("A", 25, 1e300), ("A", 35, 1e300)])
    assert np.isnan(closed[1].returns[0])
    assert closed[2].returns[0] == 0.0


def controls_of(rows: NDArray[np.void]) -> list[ControlEntry]:
    assembler = ControlAssembler()
    controls = rows.view(CONTROL)
    fed = map(assembler.feed, controls[controls["kind"] == RecordKind.CONTROL])
    return [entry for entry in fed if entry is not None]


def found_in(folder: Path) -> list[Trades]:
    with JournalReader(folder) as reader:
        rows = reader.poll()
    return list(trades_of(decisions_of(rows), controls_of(rows)))


def test_trades_are_the_applied_ticks_with_one_in_the_journals_order(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer:
        for number, (symbol, kind, applied) in enumerate(
            [("A", TRADE, True), ("A", TRADE, False), ("B", QUOTE, True), ("C", TRADE | QUOTE, True)]
        ):
            request = tick(number + 1, symbol=symbol, kind=kind, price=10.0 + number, exchange_ts_ns=1000 + number)
            writer.append_decision(request, approved(), applied=applied)
        published = {"symbol": "D", "kind": TRADE, "price": 3.0, "exchange_ts_ns": 7}
        writer.append_control(ControlKind.TICK, published)
        writer.append_control(ControlKind.TICK, published | {"kind": QUOTE, "price": 0.0})
        writer.append_decision(tick(9, symbol="A", price=5.0, exchange_ts_ns=2000), approved(), applied=True, status=4)
    (trades,) = found_in(tmp_path)
    assert not trades.after_start
    assert trades.symbols.tolist() == [b"A", b"C", b"D", b"A"]
    assert trades.stamps_ns.tolist() == [1000, 1003, 7, 2000]
    assert trades.prices.tolist() == [10.0, 13.0, 3.0, 5.0]


@pytest.mark.parametrize("settings", [{}, {"long": "x" * 2000}])
def test_trades_are_cut_where_a_server_began(tmp_path: Path, settings: dict[str, str]) -> None:
    with JournalWriter(tmp_path) as writer:
        for count in (0, 2, 1):
            writer.append_control(ControlKind.SETTINGS, json.loads(json.dumps(settings)))
            for _ in range(count):
                writer.append_decision(tick(), approved(), applied=True)
    assert [(one.after_start, one.symbols.size) for one in found_in(tmp_path)] == [(True, 0), (True, 2), (True, 1)]
