"""Each prediction gets the outcome that training's labels give it, on the journal's own trades."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tickgate_server.journal.layout import DECISION, Flags, RecordKind
from tickgate_server.journal.segments import Rows
from tickgate_server.observer.outcomes import OUTCOME, RECENT_TRADES, Chain, OutcomeJoin, Outcomes
from tickgate_server.records import SYMBOL, TICK
from tickgate_server.ticks.market import QUOTE, TRADE
from tickgate_training.labels import fixed_horizon

GAP_NS = 1_000
NOBODY = np.array([-1])


@dataclass(frozen=True)
class Event:
    """One record: what it brought, and what was predicted on it."""

    symbol: int
    version: int
    applied: bool = True
    kind: int = TRADE
    price: float = 100.0
    waited_ns: int = 1
    scored: bool = True
    value: float = 0.2
    confidence: float = 0.6
    target: float = 1.0


events = st.builds(
    Event,
    symbol=st.integers(0, 2),
    version=st.integers(-1, 1),
    applied=st.sampled_from([True, True, True, False]),
    kind=st.sampled_from([TRADE, TRADE, TRADE | QUOTE, QUOTE]),
    price=st.sampled_from([99.0, 100.0, 100.0, 101.5]),
    waited_ns=st.sampled_from([1, 1, 1, 1, GAP_NS // 2, GAP_NS, GAP_NS + 1]),
    scored=st.sampled_from([True, True, False]),
    value=st.sampled_from([-0.4, -0.1, 0.0, 0.1, 0.4]),
    confidence=st.sampled_from([0.5, 0.55, 0.6, float("nan")]),
    target=st.sampled_from([-2.0, 0.0, 3.0, float("nan")]),
)


def rows_of(given: list[Event]) -> tuple[Rows, NDArray[np.int64]]:
    rows = np.zeros(len(given), DECISION)
    rows["kind"] = RecordKind.DECISION
    rows["sequence"] = np.arange(1, len(given) + 1)
    rows["exchange_ts_ns"] = 10**15 + np.cumsum([event.waited_ns for event in given])
    rows["input"] = TICK
    for row, event in zip(rows, given, strict=True):
        row["symbol"] = f"S{event.symbol}".encode()
        row["applied"], row["tick_kind"], row["price"] = event.applied, event.kind, event.price
        row["scored"], row["value"], row["confidence"] = event.scored, event.value, event.confidence
        row["target"] = event.target
    return rows, np.array([event.version for event in given], np.int64)


def by_hand(
    given: list[Event], horizons: tuple[int, int], gap_ns: int, threshold: float
) -> set[tuple[int, int, float, float | None]]:
    """Chain, sequence of the decision, move and profit of each outcome: labels first, then which of them count."""
    rows, versions = rows_of(given)
    found = set()
    for symbol in {event.symbol for event in given}:
        of_symbol = [k for k, event in enumerate(given) if event.symbol == symbol]
        trades = [k for k in of_symbol if given[k].applied and given[k].kind & TRADE]
        prices, stamps_ns = rows["price"][trades], rows["exchange_ts_ns"][trades]
        for version, horizon in enumerate(horizons):
            labels = fixed_horizon(prices, horizon, stamps_ns=stamps_ns, session_gap_ns=gap_ns)
            session = np.concatenate(([0], np.cumsum(np.diff(stamps_ns) > gap_ns))) if gap_ns else np.zeros(len(trades))
            for chain in Chain:
                last = -horizon
                for k in of_symbol:
                    at = sum(trade <= k for trade in trades) - 1
                    event = given[k]
                    wanted = event.confidence >= threshold and math.isfinite(event.target) and event.target != 0.0
                    if not event.scored or versions[k] != version or at < 0 or at < last + horizon:
                        continue
                    if chain is Chain.TRADE and not wanted:
                        continue
                    last = at
                    end = at + 1 + horizon
                    if end < len(trades) and session[end] == session[at]:
                        move = float(labels.returns[at])
                        direction = int(labels.direction[at])
                        assert direction == (-1 if move == 0.0 else int(move > 0.0))
                        profit = event.target * float(prices[end] - prices[at + 1])
                        found.add((int(chain), k + 1, move, None if math.isnan(profit) else profit))
    return found


def as_set(outcomes: Outcomes) -> set[tuple[int, int, float, float | None]]:
    rows = outcomes[["chain", "sequence", "move", "profit"]].tolist()
    assert len({row[:2] for row in rows}) == len(rows)
    return {(chain, sequence, move, None if math.isnan(profit) else profit) for chain, sequence, move, profit in rows}


def watching(horizon: int = 2, gap_ns: int = 0, threshold: float = 0.5) -> OutcomeJoin:
    join = OutcomeJoin(symbols=8, versions=2)
    join.watch(0, horizon, gap_ns, threshold)
    return join


@given(
    given=st.lists(events, max_size=120),
    horizons=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    gap_ns=st.sampled_from([0, GAP_NS]),
    threshold=st.sampled_from([0.5, 0.55, 0.7]),
    cuts=st.lists(st.integers(0, 120), max_size=5),
)
def test_outcomes_are_those_of_the_labels_however_records_come_in_batches(
    given: list[Event], horizons: tuple[int, int], gap_ns: int, threshold: float, cuts: list[int]
) -> None:
    join = OutcomeJoin(symbols=8, versions=2)
    for version, horizon in enumerate(horizons):
        join.watch(version, horizon, gap_ns, threshold)
    rows, versions = rows_of(given)
    bounds = [0, *sorted(min(cut, len(given)) for cut in cuts), len(given)]
    found = [join.feed(rows[begin:end], versions[begin:end]) for begin, end in pairwise(bounds)]
    assert as_set(np.concatenate(found)) == by_hand(given, horizons, gap_ns, threshold)
    assert join.beyond == join.late == 0


@given(
    given=st.lists(events, min_size=1, max_size=60),
    horizon=st.integers(1, 5),
    gap_ns=st.sampled_from([0, GAP_NS]),
    delay=st.integers(1, 12),
)
def test_a_model_on_a_thread_of_its_own_has_the_outcomes_of_one_that_answers_in_place(
    given: list[Event], horizon: int, gap_ns: int, delay: int
) -> None:
    """Each decision's record comes `delay` records after its tick, as a STARTED control has it."""
    rows, versions = rows_of(given)
    versions[:] = 0
    rows["tick_sequence"] = np.arange(1, len(given) + 1)
    at_once = watching(horizon, gap_ns)
    late = watching(horizon, gap_ns)
    expected = at_once.feed(rows, versions)
    found = []
    rows["ticket"] = np.arange(1, len(given) + 1)
    latest = dict.fromkeys(range(3), 0)
    for k in range(len(given) + delay):
        if k < len(given):
            row, event = rows[k], given[k]
            symbol = f"S{event.symbol}"
            # What was not applied is the symbol's latest tick, asked about again.
            latest[event.symbol] = k + 1 if event.applied else latest[event.symbol]
            if latest[event.symbol]:
                stamp_ns = int(row["exchange_ts_ns"])
                found.append(late.publish(symbol, event.kind, event.price, stamp_ns, latest[event.symbol]))
            late.start(k + 1, symbol)
        if k >= delay:
            found.append(late.feed(rows[k - delay : k - delay + 1], versions[:1]))
    assert as_set(np.concatenate(found)) == as_set(expected)


def test_an_outcome_says_when_it_began_and_ended_and_what_was_predicted() -> None:
    join = watching(horizon=2)
    join.multipliers["S1"] = 50.0
    prices = [100.0, 101.0, 102.0, 103.0]
    rows, versions = rows_of([Event(1, 0, price=price, waited_ns=7) for price in prices])
    rows["scored"][1:] = False
    trade, prediction = np.sort(join.feed(rows, versions), order="chain")[::-1]
    assert trade["chain"] == Chain.TRADE
    assert prediction["chain"] == Chain.PREDICTION
    assert (trade["version"], trade["sequence"], trade["value"], trade["confidence"]) == (0, 1, 0.2, 0.6)
    assert (trade["begin_ns"], trade["end_ns"]) == (10**15 + 7, 10**15 + 28)
    assert trade["move"] == 103.0 / 101.0 - 1.0
    assert trade["profit"] == 50.0 * 2.0


@pytest.mark.parametrize(("waited_ns", "outcomes"), [(GAP_NS, len(Chain)), (GAP_NS + 1, 0)])
@pytest.mark.parametrize("where", [1, 2, 3])
def test_a_silence_longer_than_the_session_gap_leaves_no_outcome(where: int, waited_ns: int, outcomes: int) -> None:
    given = [Event(0, 0 if k == 0 else -1, price=100.0 + k, waited_ns=waited_ns if k == where else 1) for k in range(4)]
    assert watching(horizon=2, gap_ns=GAP_NS).feed(*rows_of(given)).size == outcomes


def test_a_tick_asked_about_again_is_no_trade() -> None:
    again = Event(0, 0, applied=False, price=100.0)
    prices = [100.0, 101.0, 102.0]
    repeated = [event for price in prices for event in (Event(0, 0, price=price), again, again)]
    once, often = watching(horizon=1), watching(horizon=1)
    assert once.feed(*rows_of([Event(0, 0, price=price) for price in prices]))["move"].tolist() == [102 / 101 - 1] * 2
    assert often.feed(*rows_of(repeated))["move"].tolist() == [102 / 101 - 1] * 2


def test_the_answer_to_a_repeated_request_is_no_prediction() -> None:
    rows, versions = rows_of([Event(0, 0, price=price) for price in (1.0, 2.0, 3.0)])
    rows["flags"] = Flags.REPEATED
    assert not watching(horizon=1).feed(rows, versions).size


def test_a_published_tick_is_a_trade_and_only_once() -> None:
    join = watching(horizon=1)
    rows, versions = rows_of([Event(0, 0)])
    join.feed(rows, versions)
    assert not join.publish("S0", TRADE, 101.0, 10**15 + 5, 9).size
    assert not join.publish("S0", TRADE, 101.0, 10**15 + 5, 9).size
    assert not join.publish("S0", QUOTE, 0.0, 10**15 + 6, 10).size
    assert join.publish("S0", TRADE, 103.0, 10**15 + 7, 11)["move"].tolist() == [103 / 101 - 1] * 2


def test_a_question_without_a_tick_belongs_to_the_latest_trade() -> None:
    join = watching(horizon=1)
    given = [Event(0, -1), Event(0, 0, applied=False), Event(0, -1, price=101.0), Event(0, -1, price=102.0)]
    rows, versions = rows_of(given)
    rows["input"][1], rows["tick_kind"][1] = SYMBOL, 0
    assert join.feed(rows, versions)["sequence"].tolist() == [2, 2]


def test_before_a_symbols_first_trade_there_is_nothing_to_count_from() -> None:
    join = watching(horizon=1)
    rows, versions = rows_of([Event(0, 0, kind=QUOTE), Event(0, -1), Event(0, -1), Event(0, -1)])
    assert not join.feed(rows, versions).size


def test_after_missing_records_nothing_is_pending() -> None:
    join = watching(horizon=1)
    rows, versions = rows_of([Event(0, 0, price=price) for price in (1.0, 2.0, 3.0)])
    join.feed(rows[:2], versions[:2])
    join.forget()
    assert not join.feed(rows[2:], versions[2:]).size


def test_a_watched_version_that_begins_anew_keeps_the_others_pending() -> None:
    join = watching(horizon=1)
    join.watch(1, 1, 0, 0.5)
    rows, versions = rows_of([Event(0, 0), Event(0, 1), Event(0, -1), Event(0, -1)])
    join.feed(rows[:2], versions[:2])
    join.restart(0)
    assert set(join.feed(rows[2:], versions[2:])["version"].tolist()) == {1}


def test_symbols_beyond_the_bound_are_counted_and_have_no_outcome() -> None:
    join = OutcomeJoin(symbols=1, versions=1)
    join.watch(0, 1, 0, 0.5)
    given = [Event(symbol, 0, price=price) for price in (1.0, 2.0, 3.0) for symbol in (0, 1)]
    found = join.feed(*rows_of(given))
    assert found["sequence"].tolist() == [1, 1]
    assert join.beyond == 3


@pytest.mark.parametrize(("passed", "late"), [(RECENT_TRADES - 1, 0), (RECENT_TRADES, 1)])
def test_a_decision_that_comes_when_its_trade_is_forgotten_has_no_outcome(passed: int, late: int) -> None:
    join = watching(horizon=1)
    join.publish("S0", TRADE, 100.0, 10**15, 0)
    join.start(7, "S0")
    for k in range(passed):
        join.publish("S0", TRADE, 101.0 + k, 10**15 + k, 0)
    rows, versions = rows_of([Event(0, 0)])
    rows["ticket"] = 7
    assert join.feed(rows, versions)["move"].tolist() == [102 / 101 - 1] * 2 * (1 - late)
    assert join.late == late


def test_more_outcomes_than_the_buffer_holds_are_all_there() -> None:
    join = OutcomeJoin(symbols=1, versions=64)
    for version in range(64):
        join.watch(version, 1, 0, 0.5)
    count = 300
    given = [Event(0, version, applied=version == 0, price=100.0 + k) for k in range(count) for version in range(64)]
    found = join.feed(*rows_of(given))
    assert found.dtype == OUTCOME
    assert found.size == (count - 2) * 64 * len(Chain)


def test_a_horizon_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        watching(horizon=0)
