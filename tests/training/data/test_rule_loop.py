"""Ticks judged in pieces: what the loop tells beside the verdicts, against a slow reference."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_server import intake
from tickgate_server.errors import FieldInvalid
from tickgate_server.records import Request
from tickgate_server.ticks import market
from tickgate_training.data import rule_loop
from tickgate_training.data.rule_loop import CONFIRMED, LATE, SILENCE_NS, SKIPPED, STEP_NS, RuleLoop, Verdicts, faults

NAN = math.nan
Tick = tuple[int, int, int]  # row, stamp, sequence
ticks = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 30), st.integers(0, 12)), min_size=1, max_size=40)


def judge(loop: RuleLoop, drawn: list[Tick], prices: list[float] | None = None) -> Verdicts:
    rows, stamps, numbers = (np.array(column, np.int64) for column in zip(*drawn, strict=True))
    values = np.full((len(drawn), 6), NAN)
    values[:, 0] = 100.0 if prices is None else prices
    values[:, 1] = 1.0
    kinds = np.full(len(drawn), market.TRADE)
    return loop.judge(rows, kinds, stamps, numbers.astype(np.uint64), values)


@given(ticks, st.integers(0, 40))
def test_pieces_are_judged_as_the_whole_is(drawn: list[Tick], cut: int) -> None:
    whole = judge(RuleLoop(2), drawn)
    loop = RuleLoop(2)
    parts = [judge(loop, part) for part in (drawn[:cut], drawn[cut:]) if part]
    assert np.concatenate([part.codes for part in parts]).tolist() == whole.codes.tolist()
    assert np.concatenate([part.facts for part in parts]).tolist() == whole.facts.tolist()
    assert loop.taken == len(drawn)


@given(ticks)
def test_silences_steps_and_numbers_are_those_of_a_slow_reference(drawn: list[Tick]) -> None:
    found = judge(RuleLoop(2), drawn)
    last: dict[int, int] = {}
    numbers: dict[int, list[int]] = {}
    for (row, stamp, number), code, facts in zip(drawn, found.codes.tolist(), found.facts.tolist(), strict=True):
        accepted = code == market.ACCEPTED_NEW
        assert facts[SILENCE_NS] == (stamp - last[row] if accepted and row in last else -1)
        assert facts[STEP_NS] == (last[row] - stamp if code == market.OUT_OF_ORDER else 0)
        before = numbers.setdefault(row, [])
        skips = before and number > max(before)
        assert facts[SKIPPED] == (number - max(before) - 1 if skips else 0)
        repeated = code in {market.DUPLICATE, market.ACCEPTED_AGAIN}
        late = bool(before) and number and not repeated and before[0] < number < max(before)
        assert facts[LATE] == int(late)
        if number:
            before.append(number)
        if accepted:
            last[row] = stamp


def warm(jump: list[float]) -> tuple[list[Tick], list[float]]:
    """Thirty quiet trades, then others, a nanosecond apart."""
    quiet = [100.0 + 0.01 * (k % 2) for k in range(30)]
    prices = quiet + jump
    return [(0, k + 1, k + 1) for k in range(len(prices))], prices


def test_a_confirmed_jump_names_the_tick_that_was_held_back_also_from_an_earlier_piece() -> None:
    drawn, prices = warm([110.0, 110.2])
    found = judge(RuleLoop(1), drawn, prices)
    assert found.codes.tolist()[30:] == [market.PRICE_JUMP, market.ACCEPTED_BOTH]
    assert found.facts[31, CONFIRMED] == 30
    assert found.moves[30] == pytest.approx(math.log(110.0 / 100.01))
    assert np.isnan(np.delete(found.moves, 30)).all()
    loop = RuleLoop(1)
    judge(loop, drawn[:31], prices[:31])
    assert loop.holds(0)
    assert judge(loop, drawn[31:], prices[31:]).facts[0, CONFIRMED] == 30
    assert not loop.holds(0)


@pytest.mark.parametrize(("kind", "stamp"), [(0, 5), (1, 0), (1, 5), (2, 5), (3, 5), (3, -1)])
def test_the_numbers_in_range_are_those_that_the_servers_intake_takes(kind: int, stamp: int) -> None:
    some = (NAN, math.inf, -1.0, 0.0, 2.0)
    good = [2.0] * 6
    drawn = [good] + [[*good[:k], value, *good[k + 1 :]] for k in range(6) for value in some]
    refused = []
    for price, size, bid, ask, bid_size, ask_size in drawn:
        request = Request(
            symbol="A", exchange_ts_ns=stamp, kind=kind, price=price, size=size, bid=bid, ask=ask, bid_size=bid_size,
            ask_size=ask_size,
        )  # fmt: skip
        try:
            intake._check_tick(request)
            refused.append("")
        except FieldInvalid as error:
            refused.append(error.field.split(".")[-1])
    found = faults(np.full(len(drawn), kind), np.full(len(drawn), stamp), np.array(drawn))
    named = [rule_loop.FAULTS[place][0] for place in found.tolist()]
    assert ["tick" if name == "kind" else name for name in named] == refused


def test_the_clock_rules_are_asked_where_a_clock_is_known() -> None:
    stamps = [10_000_000_000 + k for k in range(4)]
    values = np.full((4, 6), NAN)
    values[:, :2] = 1.0
    clocks = np.array([0, stamps[1] - 1_000_000_001, stamps[2] + 5_000_000_001, stamps[3] + 5_000_000_000])
    found = RuleLoop(1).judge(
        np.zeros(4, np.int64), np.full(4, market.TRADE), np.array(stamps), np.zeros(4, np.uint64), values, clocks
    )
    assert found.codes.tolist() == [market.ACCEPTED_NEW, market.FROM_FUTURE, market.STALE, market.ACCEPTED_NEW]
