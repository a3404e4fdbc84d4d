"""Fundamentals as they were known then."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickgate_training.data import fundamentals, table
from tickgate_training.data.config import FundamentalsData
from tickgate_training.data.simulator import simulate
from tickgate_training.errors import (
    CellInvalid,
    ColumnInvalid,
    FundamentalUnknown,
    RowInvalid,
    SourceUnreadable,
    TooFewRows,
)

Known = dict[tuple[str, str, int], float]
NAMES = ("eps", "rating")


def ticks_of(*moments: tuple[str, int]) -> pl.DataFrame:
    ordered = sorted(moments, key=lambda moment: moment[1])
    return table.ticks_table(
        {
            "symbol": [symbol for symbol, _ in ordered],
            "exchange_ts_ns": [stamp for _, stamp in ordered],
            "sequence": [0] * len(ordered),
            "price": [1.0] * len(ordered),
            "size": [1.0] * len(ordered),
            "aggressor": [0] * len(ordered),
        }
    )


def fundamentals_of(known: Known) -> pl.DataFrame:
    rows = [(*key, value) for key, value in sorted(known.items())]
    return pl.DataFrame(rows, schema=fundamentals.SCHEMA, orient="row")


EARNINGS: Known = {("A", "eps", 100): 1.0, ("A", "eps", 200): 2.0, ("A", "rating", 150): 7.0, ("B", "eps", 150): -3.0}


def joined(
    *moments: tuple[str, int], names: tuple[str, ...] = ("eps",), age: int | list[int] = 1000
) -> list[list[float]]:
    found = fundamentals.join(ticks_of(*moments), fundamentals_of(EARNINGS), names, age)
    return np.nan_to_num(found, nan=math.inf).tolist()


def test_a_tick_sees_the_latest_value_known_at_its_stamp() -> None:
    assert joined(("A", 99), ("A", 100), ("A", 199), ("A", 200), ("A", 500)) == [[math.inf], [1.0], [1.0], [2.0], [2.0]]


def test_a_value_as_old_as_it_may_be_is_taken_and_one_a_nanosecond_older_is_not() -> None:
    assert joined(("A", 210), ("A", 211), age=10) == [[2.0], [math.inf]]


def test_an_older_value_does_not_stand_in_for_one_that_is_too_old() -> None:
    assert joined(("A", 206), age=5) == [[math.inf]]


def test_each_symbol_sees_its_own_values_and_each_name_has_its_own_age() -> None:
    assert joined(("A", 210), ("B", 211), ("C", 212), names=("rating", "eps"), age=[60, 61]) == [
        [7.0, 2.0],
        [math.inf, -3.0],
        [math.inf, math.inf],
    ]


def test_no_names_join_nothing() -> None:
    assert fundamentals.join(ticks_of(("A", 1)), fundamentals_of(EARNINGS), (), ()).shape == (1, 0)


def test_a_name_that_nobody_has_is_a_mistake() -> None:
    with pytest.raises(FundamentalUnknown, match="'epz'; there are: eps, rating"):
        joined(("A", 1), names=("eps", "epz"))


@pytest.mark.parametrize("age", [-1, [1], [1, 2, 3], [1, -1]])
def test_ages_are_one_for_each_name_and_not_below_zero(age: int | list[int]) -> None:
    with pytest.raises(ValueError, match="maximum_age_ns"):
        joined(("A", 1), names=NAMES, age=age)


symbols, moments = st.sampled_from(["A", "B", "C"]), st.integers(1, 40)
known_values = st.dictionaries(
    st.tuples(symbols, st.sampled_from(NAMES), moments), st.floats(-9, 9), min_size=1, max_size=25
)
tick_moments = st.lists(st.tuples(symbols, moments), min_size=1, max_size=25)


def slow_reference(frame: pl.DataFrame, known: Known, ages: list[int]) -> list[list[float]]:
    def of(symbol: str, stamp: int, name: str, age: int) -> float:
        before = [as_of for (owner, called, as_of) in known if (owner, called) == (symbol, name) and as_of <= stamp]
        return known[symbol, name, max(before)] if before and stamp - max(before) <= age else math.nan

    return [
        [of(symbol, stamp, name, age) for name, age in zip(NAMES, ages, strict=True)]
        for symbol, stamp in frame.select("symbol", "exchange_ts_ns").iter_rows()
    ]


def with_both_names(known: Known) -> Known:
    return {("Z", name, 1): 0.0 for name in NAMES} | known


@settings(max_examples=60)
@given(tick_moments, known_values, st.lists(st.integers(0, 40), min_size=2, max_size=2))
def test_a_join_is_the_slow_search_for_each_tick(drawn: list[tuple[str, int]], known: Known, ages: list[int]) -> None:
    frame, known = ticks_of(*drawn), with_both_names(known)
    found = fundamentals.join(frame, fundamentals_of(known), NAMES, ages)
    np.testing.assert_array_equal(found, np.array(slow_reference(frame, known, ages)))


@settings(max_examples=60)
@given(tick_moments, known_values, known_values, st.integers(0, 40))
def test_what_becomes_known_later_changes_nothing_in_the_past(
    drawn: list[tuple[str, int]], known: Known, later: Known, age: int
) -> None:
    frame, known = ticks_of(*drawn), with_both_names(known)
    now = max(as_of for _, _, as_of in known)
    more = {(symbol, name, now + as_of): value for (symbol, name, as_of), value in later.items()}
    before = fundamentals.join(frame, fundamentals_of(known), NAMES, age)
    after = fundamentals.join(frame, fundamentals_of(known | more), NAMES, age)
    past = table.values(frame, "exchange_ts_ns") <= now
    np.testing.assert_array_equal(before[past], after[past])
    np.testing.assert_array_equal(  # nor do later ticks
        fundamentals.join(frame.head(1), fundamentals_of(known), NAMES, age), before[:1]
    )


def source(path: Path, **changes: Any) -> FundamentalsData:
    return FundamentalsData.model_validate({"path": path, "as_of": {"name": "known", "unit": "iso"}} | changes)


def csv(folder: Path, *rows: str) -> Path:
    path = folder / "fundamentals.csv"
    path.write_text("\n".join(("symbol,name,known,value", *rows)) + "\n")
    return path


def test_a_file_is_read_in_any_order_of_its_rows(tmp_path: Path) -> None:
    rows = ["B,eps,2024-05-01T20:00:00Z,3", "A,eps,2024-05-02T20:00:00Z,2.5", "A,eps,2024-02-02T21:00:00Z,1"]
    frame = fundamentals.read(source(csv(tmp_path, *rows)))
    assert frame.rows() == [
        ("A", "eps", 1706907600_000000000, 1.0),
        ("A", "eps", 1714680000_000000000, 2.5),
        ("B", "eps", 1714593600_000000000, 3.0),
    ]
    assert fundamentals.fingerprint(frame) == fundamentals.fingerprint(
        fundamentals.read(source(csv(tmp_path, *reversed(rows))))
    )


def test_parquet_and_other_names_of_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "fundamentals.parquet"
    pl.DataFrame({"ticker": ["A"], "field": ["eps"], "t": [17], "x": [1]}).write_parquet(path)
    config = source(path, as_of={"name": "t", "unit": "s"}, symbol="ticker", name="field", value="x")
    assert fundamentals.read(config).rows() == [("A", "eps", 17_000_000_000, 1.0)]


@pytest.mark.parametrize(
    ("row", "column", "found"),
    [
        ("A,eps,2024-05-02T20:00:00Z,", "value", "an empty cell"),
        ("A,eps,2024-05-02T20:00:00Z,nan", "value", "'nan'"),
        ("A,eps,2024-05-02T20:00:00Z,high", "value", "'high'"),
        ("A,eps,2024-05-02,1", "known", "'2024-05-02'"),
        (",eps,2024-05-02T20:00:00Z,1", "symbol", "an empty cell"),
        ("A,,2024-05-02T20:00:00Z,1", "name", "an empty cell"),
        ("A,eps,2024-05-01T22:00:00+02:00,2", "known", "'2024-05-01T22:00:00"),
    ],
)
def test_a_cell_that_is_none_and_a_second_value_at_a_time_are_named(
    tmp_path: Path, row: str, column: str, found: str
) -> None:
    path = csv(tmp_path, "A,eps,2024-05-01T20:00:00Z,1", row)
    with pytest.raises(CellInvalid, match=f"row 1: found {found}".replace("+", r"\+")) as caught:
        fundamentals.read(source(path))
    assert (caught.value.source, caught.value.column) == (str(path), column)


def test_a_file_that_is_empty_or_lacks_a_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="no row below its header"):
        fundamentals.read(source(csv(tmp_path)))
    with pytest.raises(ColumnInvalid, match="'ticker': found none"):
        fundamentals.read(source(csv(tmp_path, "A,eps,2024-05-01T20:00:00Z,1"), symbol="ticker"))


@pytest.mark.parametrize(
    ("column", "values", "rule"),
    [
        ("value", [1.0, math.nan, 3.0, 4.0], "a value is finite"),
        ("value", [1.0, None, 3.0, 4.0], "no value may be null"),
        ("symbol", ["A", "", "A", "B"], "1 to 32 bytes"),
        ("as_of_ns", [100, -200, 150, 150], "above 0"),
        ("as_of_ns", [100, 99, 150, 150], "rows ascend"),
        ("as_of_ns", [100, 100, 150, 150], "one value of a name at a time"),
        ("name", ["eps", "abc", "rating", "eps"], "rows ascend"),
    ],
)
def test_a_row_of_the_table_that_breaks_a_rule_is_named(column: str, values: list[object], rule: str) -> None:
    broken = fundamentals_of(EARNINGS).with_columns(pl.Series(column, values, fundamentals.SCHEMA[column]))
    with pytest.raises(RowInvalid, match=rule) as caught:
        fundamentals.check(broken)
    assert caught.value.row == 1


def test_a_table_that_is_none_is_named() -> None:
    frame = fundamentals_of(EARNINGS)
    with pytest.raises(ColumnInvalid, match="'value': found none"):
        fundamentals.check(frame.drop("value"))
    with pytest.raises(ColumnInvalid, match="'as_of_ns': found Float64"):
        fundamentals.check(frame.with_columns(pl.col("as_of_ns").cast(pl.Float64)))
    with pytest.raises(TooFewRows):
        fundamentals.check(frame.clear())


def test_the_fingerprint_changes_with_any_value_of_a_table() -> None:
    frame = fundamentals_of(EARNINGS)
    same = fundamentals.fingerprint(frame)
    assert fundamentals.fingerprint(pl.concat([frame.head(2), frame.tail(2)])) == same
    for column in fundamentals.SCHEMA:
        assert fundamentals.fingerprint(frame.with_columns(pl.col(column).reverse())) != same
    assert table.fingerprint(simulate(4, seed=1)) != same
