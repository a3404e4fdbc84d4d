"""What of a symbol's slow values counts at a tick: by hand, by a slow reference, and the same in stream and batch."""

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tickgate_server.features.batch import compute
from tickgate_server.features.fundamentals import KnownFundamentals, append, batch, columns
from tickgate_server.features.fundamentals_table import (
    FundamentalsInvalid,
    FundamentalsTable,
    ValueTwice,
    build,
    pack,
    parse,
)
from tickgate_server.features.schema import (
    FUNDAMENTALS_LIMIT,
    FeatureSet,
    FeatureSetUnknown,
    Fundamental,
    feature_set,
    micro10,
    micro32,
    with_fundamentals,
)
from tickgate_server.features.store import FeatureStore

Values = dict[tuple[str, str, int], float]
PATH = Path("fundamentals.npz")
EPS = with_fundamentals(micro10(), [Fundamental("eps", 50), Fundamental("rating", 1000)])


def table_of(values: Values) -> FundamentalsTable:
    symbols, names, stamps = ([key[k] for key in values] for k in range(3))
    return build(symbols, names, np.array(stamps, np.int64), np.array(list(values.values()), np.float64))


def slow(values: Values, symbol: str, name: str, stamp_ns: int, maximum_age_ns: int) -> float:
    """The definition, read aloud."""
    latest = None
    for (of_symbol, of_name, as_of_ns), value in values.items():
        if (
            of_symbol == symbol
            and of_name == name
            and as_of_ns <= stamp_ns
            and (latest is None or as_of_ns > latest[0])
        ):
            latest = as_of_ns, value
    return latest[1] if latest is not None and stamp_ns - latest[0] <= maximum_age_ns else math.nan


def test_a_value_counts_from_the_nanosecond_it_is_known_to_the_one_it_is_as_old_as_it_may_be() -> None:
    stamps = np.array([99, 100, 150, 151, 199, 200, 250, 251])
    found = batch(np.array([100, 200]), np.array([1.0, 2.0]), stamps, 50)
    assert np.nan_to_num(found, nan=-1.0).tolist() == [-1.0, 1.0, 1.0, -1.0, -1.0, 2.0, 2.0, -1.0]


def test_an_older_value_never_stands_in_for_one_that_is_too_old() -> None:
    assert np.isnan(batch(np.array([100, 101]), np.array([1.0, 2.0]), np.array([152]), 50)).all()


def test_ticks_of_one_stamp_see_the_same_value() -> None:
    assert batch(np.array([100]), np.array([1.0]), np.array([100, 100, 100]), 0).tolist() == [1.0, 1.0, 1.0]


def test_with_a_maximum_age_of_zero_only_the_tick_of_that_nanosecond_sees_it() -> None:
    found = batch(np.array([100]), np.array([1.0]), np.array([100, 101]), 0)
    assert found[0] == 1.0
    assert np.isnan(found[1])


def test_a_history_without_values_is_never_known() -> None:
    assert np.isnan(batch(np.zeros(0, np.int64), np.zeros(0), np.array([1, 2**62]), 2**62)).all()


def test_a_value_for_each_stamp_is_asked_for() -> None:
    with pytest.raises(ValueError, match="lengths differ: 2 as_of_ns, 1 values"):
        batch(np.array([1, 2]), np.array([1.0]), np.array([1]), 1)


moments = st.integers(1, 60)
tables = st.dictionaries(
    st.tuples(st.sampled_from("ABC"), st.sampled_from(["eps", "rating", "beta"]), moments),
    st.floats(-1e9, 1e9) | st.sampled_from([0.1, -0.0, 1e-30]),
    min_size=1,
    max_size=25,
)


@given(values=tables, stamps=st.lists(moments, min_size=1, max_size=12), ages=st.tuples(moments, moments))
def test_stream_and_batch_and_the_definition_agree_bit_for_bit(
    values: Values, stamps: list[int], ages: tuple[int, int]
) -> None:
    asked = with_fundamentals(micro10(), [Fundamental("rating", ages[0]), Fundamental("eps", ages[1])])
    table = parse(PATH, pack(table_of(values)))
    known = KnownFundamentals(4)
    array = known.of(asked)
    known.adopt(table, "AB")  # C gets its row later, and D is in no table
    known.add_row(2, "C")
    known.add_row(3, "D")
    vector = np.zeros(asked.width, np.float32)
    for row, symbol in enumerate("ABCD"):
        whole = columns(asked, table, symbol, np.array(stamps))
        for k, stamp_ns in enumerate(stamps):
            complete = append(array, row, stamp_ns, vector)
            expected = np.array(
                [slow(values, symbol, found.name, stamp_ns, found.maximum_age_ns) for found in asked.fundamentals],
                np.float32,
            )
            assert vector[-2:].tobytes() == expected.tobytes() == whole[k].tobytes()
            assert complete == bool(np.isfinite(expected).all())
    assert not vector[:-2].any()


@given(values=tables, later=tables, stamps=st.lists(moments, min_size=1, max_size=12))
def test_what_becomes_known_later_changes_nothing_before(values: Values, later: Values, stamps: list[int]) -> None:
    now = max(stamps)
    more = values | {(symbol, name, at + now): value for (symbol, name, at), value in later.items()}
    for symbol in "ABC":
        before, after = (columns(EPS, table_of(known), symbol, np.array(stamps)) for known in (values, more))
        assert before.tobytes() == after.tobytes()


def test_another_table_takes_the_place_of_the_one_before_whole() -> None:
    known = KnownFundamentals(2)
    array = known.of(EPS)
    vector = np.zeros(EPS.width, np.float32)
    assert not append(array, 0, 100, vector)  # none is in force yet
    assert known.adopt(table_of({("A", "eps", 90): 1.0, ("A", "rating", 90): 2.0}), ["A", "B"]) == []
    assert append(array, 0, 100, vector)
    assert vector[-2:].tolist() == [1.0, 2.0]
    assert not append(array, 1, 100, vector)
    assert np.isnan(vector[-2:]).all()
    assert known.adopt(table_of({("B", "eps", 90): 3.0}), ["A", "B"]) == ["rating"]
    assert not append(array, 0, 100, vector)
    assert not append(array, 1, 100, vector)
    assert vector[-2] == 3.0
    assert np.isnan(vector[-1])


def test_a_store_of_such_a_set_asks_for_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"micro10\+fundamentals is served with fundamentals: they are left out"):
        FeatureStore(EPS, 4)
    assert not FeatureStore(EPS, 4, KnownFundamentals(4)).complete(0, 5)


def test_batch_puts_fundamentals_behind_the_features_of_ticks_and_changes_none_of_these() -> None:
    rng = np.random.default_rng(1)
    stamps = np.cumsum(rng.integers(0, 9, 60)) + 1
    ticks = {"exchange_ts_ns": stamps, "price": rng.uniform(99, 101, 60), "size": rng.uniform(1, 2, 60)}
    table = table_of({("A", "eps", 100): 0.1, ("A", "rating", 5): 7.0})
    found = compute(EPS, **ticks, known=table, symbol="A")
    assert found.shape == (60, 12)
    assert np.ascontiguousarray(found[:, :10]).tobytes() == compute(micro10(), **ticks).tobytes()
    assert found[:, 10:].tobytes() == columns(EPS, table, "A", stamps).tobytes()
    with pytest.raises(ValueError, match=r"micro10\+fundamentals is computed with fundamentals"):
        compute(EPS, **ticks)


def test_a_quote_alone_has_the_features_of_the_trade_before_and_the_fundamentals_of_its_own_time() -> None:
    stamps = np.arange(1, 14) * 10
    kinds = np.where(np.arange(13) == 12, 2, 1)
    prices, absent = np.linspace(100.0, 101.0, 13), np.full(13, np.nan)
    quote = {name: np.where(kinds == 2, 100.0, absent) for name in ("bid", "ask", "bid_size", "ask_size")}
    ticks = {"exchange_ts_ns": stamps, "price": prices, "size": np.ones(13), "kind": kinds, **quote}
    table = table_of({("A", "eps", 125): 1.0, ("A", "rating", 1): 2.0})
    found = compute(EPS, **ticks, known=table, symbol="A")
    assert found[12, :10].tobytes() == found[11, :10].tobytes()
    assert np.isnan(found[11, 10])
    assert found[12, 10:].tolist() == [1.0, 2.0]


# -- the schema id -----------------------------------------------------------------------------------------------------


def test_sets_without_fundamentals_have_the_schema_ids_that_models_were_trained_on() -> None:
    assert micro10().schema_id == "micro10-25c2343f91a27df7"
    assert micro32().schema_id == "micro32-9501a6d6356a57a5"


def test_the_schema_id_covers_names_order_and_maximum_ages() -> None:
    eps, beta = Fundamental("eps", 5), Fundamental("beta", 5)
    sets = [
        feature_set("micro10+fundamentals", 0, [eps]),
        feature_set("micro10+fundamentals", 1, [eps]),
        feature_set("micro32+fundamentals", 0, [eps]),
        feature_set("micro10+fundamentals", 0, [Fundamental("eps", 6)]),
        feature_set("micro10+fundamentals", 0, [eps, beta]),
        feature_set("micro10+fundamentals", 0, [beta, eps]),
        feature_set("micro10", 0),
    ]
    assert len({found.schema_id for found in sets}) == len(sets)
    assert feature_set("micro10+fundamentals", 0, [eps]).schema_id == sets[0].schema_id
    assert sets[4].features == (*micro10().features, "eps", "beta")
    assert sets[4].of_ticks == micro10(0)
    assert sets[6].of_ticks is sets[6]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: feature_set("micro10+fundamentals", 0), "expected 1 to 16 fundamentals"),
        (lambda: feature_set("micro10", 0, [Fundamental("eps", 1)]), "micro10 takes no fundamentals"),
        (lambda: with_fundamentals(EPS, [Fundamental("x", 1)]), "behind a set without any"),
        (lambda: with_fundamentals(micro10(), [Fundamental("gap_s", 1)]), "'gap_s' is the name of two"),
        (lambda: with_fundamentals(micro10(), [Fundamental("a", 1), Fundamental("a", 2)]), "'a' is the name of two"),
        (lambda: with_fundamentals(micro10(), [Fundamental("P/E ratio", 1)]), "name is of the form"),
        (lambda: with_fundamentals(micro10(), [Fundamental("eps", -1)]), "must be >= 0, got -1"),
        (
            lambda: with_fundamentals(micro10(), [Fundamental(f"f{k}", 1) for k in range(FUNDAMENTALS_LIMIT + 1)]),
            "expected 1 to 16 fundamentals behind a set without any, got 17",
        ),
    ],
)
def test_parameters_that_make_no_set_are_refused(make: Callable[[], FeatureSet], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make()


def test_an_unknown_set_with_fundamentals_is_named_whole() -> None:
    with pytest.raises(FeatureSetUnknown, match=r"'micro99\+fundamentals'"):
        feature_set("micro99+fundamentals", 0, [Fundamental("eps", 1)])


# -- the table's file --------------------------------------------------------------------------------------------------


def test_the_same_rows_in_any_order_give_the_same_bytes() -> None:
    values = {("B", "eps", 7): 1.0, ("A", "eps", 9): 2.0, ("A", "beta", 1): 3.0, ("A", "eps", 3): 4.0}
    shuffled = dict(reversed(values.items()))
    assert pack(table_of(values)) == pack(table_of(shuffled))
    table = parse(PATH, pack(table_of(values)))
    assert (table.symbols, table.names) == (("A", "B"), ("beta", "eps"))
    assert table.as_of_ns[table.history("A", "eps")].tolist() == [3, 9]
    assert table.values[table.history("B", "eps")].tolist() == [1.0]
    absent = [table.history(*cell) for cell in (("B", "beta"), ("C", "eps"), ("A", "x"))]
    assert [table.values[own].size for own in absent] == [0, 0, 0]


def test_a_second_value_of_the_same_time_is_named_by_its_row() -> None:
    with pytest.raises(ValueTwice, match="row 2:") as caught:
        build(["A", "A", "A"], ["eps", "eps", "eps"], np.array([5, 4, 5]), np.array([1.0, 2.0, 3.0]))
    assert caught.value.row == 2


def _content(**changes: object) -> bytes:
    arrays: dict[str, NDArray[np.generic]] = {
        "format_version": np.array(1),
        "symbols": np.array([b"A", b"B"]),
        "names": np.array([b"eps"]),
        "offsets": np.array([0, 2, 3]),
        "as_of_ns": np.array([1, 2, 1]),
        "values": np.array([1.0, 2.0, 3.0]),
    }
    file = io.BytesIO()
    np.savez(file, **{name: np.asarray(changes.get(name, array)) for name, array in arrays.items()})
    return file.getvalue()


def test_a_file_made_by_hand_is_a_table() -> None:
    assert parse(PATH, _content()).values.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cannot be read"),
        (b"garbage", "cannot be read"),
        (_content()[:-40], "cannot be read"),
        (_content(format_version=2), "expected format 1, found 2"),
        (_content(symbols=np.array([b"B", b"A"])), "symbols: expected each once, sorted"),
        (_content(names=np.array([b"eps", b"eps"])), "names: expected each once, sorted"),
        (_content(offsets=np.array([0, 3])), "offsets: expected 3 that ascend from 0 to 3"),
        (_content(offsets=np.array([0, 4, 3])), "offsets: expected 3 that ascend"),
        (_content(offsets=np.array([0, -9, 3])), "offsets: expected 3 that ascend"),
        (_content(offsets=np.array([0, 2, 9])), "offsets: expected 3 that ascend"),
        (_content(as_of_ns=np.array([1, 2])), "as_of_ns: expected 3 stamps"),
        (_content(as_of_ns=np.array([2, 2, 1])), "ascend in each history"),
        (_content(as_of_ns=np.array([0, 2, 1])), "stamps above 0"),
        (_content(values=np.array([1.0, math.nan, 3.0])), "values: expected finite"),
        (_content(values=np.array([1.0, 1e39, 3.0])), "values: expected finite"),
    ],
)
def test_a_file_that_a_kernel_must_not_walk_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(FundamentalsInvalid, match=f"^fundamentals.npz: no fundamentals: .*{why}"):
        parse(PATH, content)
