import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tickgate_training.backtest import Backtest, Market, run
from tickgate_training.costs import Costs
from tickgate_training.errors import SeriesInvalid, TooFewRows
from tickgate_training.metrics import measure
from tickgate_training.portfolio import combine

Part = tuple[NDArray[np.int64], Backtest]


def part(stamps: list[int], positions: list[float], seed: int = 0, lag: int = 1) -> Part:
    rng = np.random.default_rng(seed)
    rows = len(stamps)
    market = Market(rng.uniform(90, 110, rows), np.full(rows, 0.001), np.full(rows, 50.0), np.full(rows, 0.01))
    return np.array(stamps, np.int64), run(np.array(positions), market, 0, 100.0, Costs(1e-4), lag)


@st.composite
def panels(draw: st.DrawFn) -> dict[str, Part]:
    found = {}
    for symbol in draw(st.lists(st.sampled_from("ABCD"), min_size=1, max_size=4, unique=True)):
        lag = draw(st.integers(1, 2))
        positions = draw(st.lists(st.sampled_from([0.0, 1.0, -2.0]), min_size=1, max_size=8))
        rows = len(positions) + lag + 1
        stamps = sorted(draw(st.lists(st.integers(0, 15), min_size=rows, max_size=rows)))
        found[symbol] = part(stamps, positions, draw(st.integers(0, 99)), lag)
    return found


def slow(parts: dict[str, Part]) -> dict[int, dict[str, float]]:
    """At each time when any return was complete: all that was, and what stood up to then, looked for row by row."""
    ends = {
        symbol: [int(stamps[result.start + result.execution_lag_rows + 1 + k]) for k in range(result.positions.size)]
        for symbol, (stamps, result) in parts.items()
    }
    found = {}
    for time in sorted({end for own in ends.values() for end in own}):
        row = dict.fromkeys(("gross", "net", "traded", "leverage", "held"), 0.0)
        for symbol, (stamps, result) in parts.items():
            for k, end in enumerate(ends[symbol]):
                if end == time:
                    for name in ("gross", "net", "traded"):
                        row[name] += float(getattr(result, name)[k])
            begin = int(stamps[result.start + result.execution_lag_rows])
            for k, end in enumerate(ends[symbol]):
                if end >= time and (begin < time or time in ends[symbol]):
                    row["leverage"] += float(result.leverage[k])
                    row["held"] = max(row["held"], float(result.positions[k] != 0))
                    break
        found[time] = row
    return found


@given(panels())
def test_it_agrees_with_a_slow_search(parts: dict[str, Part]) -> None:
    found, expected = combine(parts), slow(parts)
    assert found.stamps_ns.tolist() == list(expected)
    for name in ("gross", "net", "traded", "leverage", "held"):
        np.testing.assert_allclose(getattr(found, name), [row[name] for row in expected.values()], atol=1e-13)


@given(panels())
def test_nothing_is_lost_and_the_order_of_symbols_does_not_matter(parts: dict[str, Part]) -> None:
    found = combine(parts)
    assert found.net.sum() == pytest.approx(sum(result.net.sum() for _, result in parts.values()), abs=1e-12)
    assert found.trip_net.sum() == pytest.approx(found.net.sum(), abs=1e-12)
    again = combine(dict(reversed(parts.items())))
    for name in ("stamps_ns", "gross", "net", "traded", "leverage", "held", "trip_net"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))


def test_returns_of_the_same_stamp_are_summed_and_measured_as_one() -> None:
    one, two = part([10, 20, 30, 40], [1.0, 0.0], 1), part([10, 20, 30, 50], [-1.0, 1.0], 2)
    found = combine({"B": two, "A": one})
    assert found.stamps_ns.tolist() == [30, 40, 50]
    np.testing.assert_allclose(found.net, [one[1].net[0] + two[1].net[0], one[1].net[1], two[1].net[1]])
    # At 40 B has no row, yet it holds what it sells at 50.
    assert found.held.tolist() == [True, True, True]
    np.testing.assert_allclose(found.leverage[1:], [two[1].leverage[1], two[1].leverage[1]])
    measured = measure(found, 252.0)
    assert measured.periods == 3
    assert measured.round_trips == 3
    assert measured.total_return_summed == pytest.approx(found.net.sum())
    assert measured.exposure == 1.0


def test_a_symbol_that_begins_later_counts_from_then() -> None:
    early, late = part([0, 1, 2, 3, 4, 5], [1.0] * 4, 1), part([0, 4, 5], [1.0], 2)
    found = combine({"A": early, "B": late})
    assert found.stamps_ns.tolist() == [2, 3, 4, 5]
    np.testing.assert_allclose(found.leverage - early[1].leverage, [0.0, 0.0, 0.0, late[1].leverage[0]], atol=1e-15)


def test_one_symbol_alone_is_its_backtest() -> None:
    stamps, result = part([1, 2, 3, 4, 5], [1.0, -2.0, 0.0], 3)
    found = combine({"A": (stamps, result)})
    assert measure(found, 1.0) == measure(result, 1.0)


def test_no_symbols_falling_or_missing_times_are_refused() -> None:
    with pytest.raises(TooFewRows):
        combine({})
    stamps, result = part([1, 2, 3, 4, 5], [1.0, -2.0, 0.0], 3)
    with pytest.raises(SeriesInvalid, match="times of 'A', row 2: found 2 after 9"):
        combine({"A": (np.array([1, 9, 2, 3, 4]), result)})
    with pytest.raises(SeriesInvalid, match="times of 'A': found 4 of them"):
        combine({"A": (stamps[:4], result)})
