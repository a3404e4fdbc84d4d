"""CSV and Parquet of any layout, by a map of their columns."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.support.real_data import USDM_BTC, ticks

from tickgate_client.ticks import write_csv
from tickgate_training.data.cells import stamps_ns
from tickgate_training.data.config import FileData, StampColumn
from tickgate_training.data.files import Cells
from tickgate_training.data.loading import load, read
from tickgate_training.data.messages import to_messages
from tickgate_training.data.simulator import simulate
from tickgate_training.errors import CellInvalid, ColumnInvalid, TickRejected

COLUMNS: dict[str, Any] = {"stamp": {"name": "t", "unit": "ms"}, "price": "p", "size": "q"}
CANONICAL: dict[str, Any] = {
    "stamp": {"name": "exchange_ts_ns", "unit": "ns"},
    "price": "price",
    "size": "size",
    "sequence": "sequence",
    "aggressor": {"form": "sign", "name": "aggressor"},
    "quote": {"bid": "bid", "ask": "ask", "bid_size": "bid_size", "ask_size": "ask_size"},
}


def mapped(path: Path, columns: dict[str, Any] = COLUMNS, symbol: object = "ABC", **more: object) -> FileData:
    return FileData.model_validate({"paths": (path,), "symbol": symbol, "columns": columns, **more})


def csv(folder: Path, text: str) -> Path:
    path = folder / "ticks.csv"
    path.write_text(text)
    return path


def cells_of(*values: object, dtype: pl.DataType | None = None) -> Cells:
    frame = pl.DataFrame({"t": pl.Series("t", values, dtype=dtype)})
    return Cells("file", frame, pl.arange(frame.height, eager=True).to_numpy())


def test_the_smallest_map_gives_trades_without_number_side_and_quote(tmp_path: Path) -> None:
    frame = load(mapped(csv(tmp_path, "q,t,p,other\n2,1700000000123,10.5,x\n0,1700000000123,11,\n")))
    assert frame.drop("bid", "ask", "bid_size", "ask_size").rows() == [
        ("ABC", 1_700_000_000_123_000_000, 0, 10.5, 2.0, 0),
        ("ABC", 1_700_000_000_123_000_000, 0, 11.0, 0.0, 0),
    ]
    assert frame["ask_size"].is_nan().all()


def test_a_map_is_written_in_toml_as_documented(tmp_path: Path) -> None:
    csv(tmp_path, "time,pair,px,qty,m,no\n2024-08-08 09:30:00.5,A,10,1,true,7\n2024-08-08 09:30:01,B,20,2,0,\n")
    document = tomllib.loads(f"""
        paths = ["{tmp_path}/ticks.csv"]
        symbol = {{ name = "pair" }}
        rules = "drop"
        [columns]
        stamp = {{ name = "time", unit = "iso", time_zone = "America/New_York" }}
        price = "px"
        size = "qty"
        sequence = "no"
        aggressor = {{ form = "buyer_is_maker", name = "m" }}
    """)
    assert load(FileData.model_validate(document)).drop("bid", "ask", "bid_size", "ask_size").rows() == [
        ("A", 1_723_123_800_500_000_000, 7, 10.0, 1.0, -1),
        ("B", 1_723_123_801_000_000_000, 0, 20.0, 2.0, 1),
    ]


def test_the_canonical_table_comes_back_from_parquet_and_from_csv_bit_for_bit(tmp_path: Path) -> None:
    frame = simulate(500, seed=3)
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "a.csv")
    for name in ("a.parquet", "a.csv"):
        assert load(mapped(tmp_path / name, CANONICAL, {"name": "symbol"})).equals(frame)


def test_the_file_of_ticks_that_replay_takes_is_read_as_well(tmp_path: Path) -> None:
    frame = ticks(USDM_BTC).head(500)
    write_csv(tmp_path / "ticks.csv.gz", to_messages(frame))
    columns = CANONICAL | {"aggressor": {"form": "side", "name": "aggressor", "buy": "buy", "sell": "sell"}}
    assert load(mapped(tmp_path / "ticks.csv.gz", columns, {"name": "symbol"})).equals(frame)


@pytest.mark.parametrize(
    ("spec", "cells", "signs"),
    [
        ({"form": "sign"}, "1 -1 0 -1.0", [1, -1, 0, -1]),
        ({"form": "buyer_is_maker"}, "true False 1 0", [-1, 1, -1, 1]),
        ({"form": "side"}, 'B S "" S', [1, -1, 0, -1]),
        ({"form": "side", "buy": "buy", "sell": "sell", "unknown": "-"}, "buy sell - buy", [1, -1, 0, 1]),
    ],
)
def test_an_aggressor_is_a_sign_a_flag_or_a_word(
    tmp_path: Path, spec: dict[str, str], cells: str, signs: list[int]
) -> None:
    path = csv(tmp_path, "t,p,q,a\n" + "".join(f"1700000000000,1,1,{cell}\n" for cell in cells.split()))
    assert load(mapped(path, COLUMNS | {"aggressor": spec | {"name": "a"}}))["aggressor"].to_list() == signs


@pytest.mark.parametrize("form", ["sign", "buyer_is_maker", "side"])
@pytest.mark.parametrize("cell", ["b", "2", "0.5", "nan"])
def test_an_aggressor_that_is_none_is_named(tmp_path: Path, form: str, cell: str) -> None:
    path = csv(tmp_path, f"t,p,q,a\n1700000000000,1,1,{cell}\n")
    with pytest.raises(CellInvalid, match="column 'a', row 0: found") as caught:
        load(mapped(path, COLUMNS | {"aggressor": {"form": form, "name": "a"}}))
    assert caught.value.source == str(path)


@pytest.mark.parametrize(
    ("unit", "cell", "ns"),
    [
        ("ns", "1700000000123456789", 1_700_000_000_123_456_789),
        ("us", "1700000000123456", 1_700_000_000_123_456_000),
        ("us", "1700000000123456.789", 1_700_000_000_123_456_789),
        ("ms", "1700000000123", 1_700_000_000_123_000_000),
        ("ms", "1700000000123.5", 1_700_000_000_123_500_000),
        ("s", "1700000000", 1_700_000_000_000_000_000),
        ("s", "1700000000.123456789", 1_700_000_000_123_456_789),
        ("iso", "2023-11-14T22:13:20.123456789Z", 1_700_000_000_123_456_789),
        ("iso", "2023-11-14 22:13:20Z", 1_700_000_000_000_000_000),
        ("iso", "2023-11-15T00:13:20+02:00", 1_700_000_000_000_000_000),
        ("iso", "2023-11-14T17:13:20.5-0500", 1_700_000_000_500_000_000),
    ],
)
def test_a_stamp_is_exact_in_every_unit(unit: Any, cell: str, ns: int) -> None:
    assert stamps_ns(cells_of(cell), StampColumn(name="t", unit=unit)).to_list() == [ns]


@given(st.integers(1, 2**63 - 1), st.sampled_from(["ns", "us", "ms", "s"]))
def test_a_decimal_stamp_is_exact_to_the_nanosecond(ns: int, unit: Any) -> None:
    digits = {"ns": 0, "us": 3, "ms": 6, "s": 9}[unit]
    whole, fraction = divmod(ns, 10**digits)
    cell = f"{whole}.{fraction:0{digits}d}" if digits else str(whole)
    assert stamps_ns(cells_of(cell), StampColumn(name="t", unit=unit)).to_list() == [ns]


@given(st.datetimes(datetime(1971, 1, 1), datetime(2261, 12, 31)), st.integers(0, 999))  # noqa: DTZ001 - in UTC
def test_iso_text_and_date_times_are_exact_to_the_nanosecond(moment: datetime, nanoseconds: int) -> None:
    expected = (int(moment.replace(tzinfo=UTC, microsecond=0).timestamp()) * 10**6 + moment.microsecond) * 1000
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}{nanoseconds:03d}"
    iso = StampColumn(name="t", unit="iso")
    assert stamps_ns(cells_of(f"{text}Z"), iso).item() == expected + nanoseconds
    zoned = StampColumn(name="t", unit="iso", time_zone="UTC")
    assert stamps_ns(cells_of(text), zoned).item() == expected + nanoseconds
    typed = cells_of(moment, dtype=pl.Datetime("us", "UTC"))
    assert stamps_ns(typed, iso).item() == expected


@pytest.mark.parametrize(
    ("unit", "cell"),
    [
        ("ns", "0"),
        ("ns", "-5"),
        ("ns", "1.5"),
        ("ns", "9223372036854775808"),
        ("us", "9223372036854776"),
        ("ms", "1700000000123.1234567"),
        ("s", "1700000000.1234567891"),
        ("s", "9223372037"),
        ("s", "1.7e9"),
        ("s", ""),
        ("s", None),
        ("iso", "1969-12-31T23:59:59Z"),
        ("iso", "1970-01-01T00:00:00Z"),
        ("iso", "2262-01-01T00:00:00Z"),
        ("iso", "9999-01-01T00:00:00Z"),
        ("iso", "2023-11-14"),
        ("iso", "2023-11-14T22:13:20"),
        ("iso", "2023-02-30T22:13:20Z"),
        ("iso", "yesterday"),
        ("iso", None),
    ],
)
def test_what_is_no_stamp_of_its_unit_is_named(unit: Any, cell: str | None) -> None:
    good = {"iso": "2023-11-14T22:13:20Z"}.get(unit, "1700000")
    with pytest.raises(CellInvalid, match="column 't', row 1: found"):
        stamps_ns(cells_of(good, cell), StampColumn(name="t", unit=unit))


@pytest.mark.parametrize("cell", ["2024-11-03T01:30:00", "2024-03-10T02:30:00", "2024-08-08T01:30:00Z"])
def test_a_local_time_that_happens_twice_or_never_and_one_with_an_offset_are_named(cell: str) -> None:
    with pytest.raises(CellInvalid, match="America/New_York"):
        stamps_ns(cells_of(cell), StampColumn(name="t", unit="iso", time_zone="America/New_York"))


@pytest.mark.parametrize(
    ("values", "dtype", "spec"),
    [
        ([1.7e9], pl.Float64(), {"unit": "s"}),
        ([datetime(2024, 1, 1)], pl.Datetime("us"), {"unit": "ms"}),  # noqa: DTZ001 - that is the case
        ([datetime(2024, 1, 1)], pl.Datetime("us"), {"unit": "iso"}),  # noqa: DTZ001 - as above
        ([datetime(2024, 1, 1, tzinfo=UTC)], pl.Datetime("us", "UTC"), {"unit": "iso", "time_zone": "UTC"}),
        ([1_700_000_000], pl.Int64(), {"unit": "iso"}),
    ],
)
def test_a_type_that_does_not_hold_such_stamps_is_named(
    values: list[object], dtype: pl.DataType, spec: dict[str, Any]
) -> None:
    with pytest.raises(ColumnInvalid, match=f"'t': found {dtype.base_type()}"):
        stamps_ns(cells_of(*values, dtype=dtype), StampColumn(name="t", **spec))


def test_a_column_that_is_absent_or_of_another_type_is_named_with_the_file(tmp_path: Path) -> None:
    path = csv(tmp_path, "t,price,q\n1700000000000,1,1\n")
    with pytest.raises(ColumnInvalid, match=rf"'p': found none in {path} \(t, price, q\)"):
        load(mapped(path))
    typed = tmp_path / "ticks.parquet"
    for column, value in {"p": [True], "q": [[1.0]], "t": [1.5]}.items():
        frame = pl.DataFrame({"t": [1700000000000], "p": [1.0], "q": [1.0]} | {column: value})
        frame.write_parquet(typed)
        with pytest.raises(ColumnInvalid, match=f"'{column}': found .* in {typed}"):
            load(mapped(typed))


@pytest.mark.parametrize(
    ("rows", "column", "row", "rule"),
    [
        ([(5, 1.0, 1.0), (6, None, 1.0)], "p", 1, "this is a number"),
        ([(5, 1.0, None)], "q", 0, "this is a number"),
        ([(None, 1.0, 1.0)], "t", 0, "a time in ms"),
    ],
)
def test_a_null_is_named(tmp_path: Path, rows: list[tuple[Any, ...]], column: str, row: int, rule: str) -> None:
    path = tmp_path / "ticks.parquet"
    schema = {"t": pl.Int64, "p": pl.Float64, "q": pl.Float64}
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(path)
    with pytest.raises(CellInvalid, match=rf"row {row}: found an empty cell, but {rule}") as caught:
        load(mapped(path, rules="drop"))  # no row is dropped that cannot be read
    assert caught.value.column == column


def test_a_nan_and_unsorted_stamps_are_rules_of_the_server(tmp_path: Path) -> None:
    path = csv(tmp_path, "t,p,q\n1700000000000,1,1\n1700000000001,nan,1\n1699999999999,1,1\n1700000000001,1,inf\n")
    with pytest.raises(TickRejected, match=r"symbol 'ABC', column 'price', row 1: found nan, .*\(INVALID_VALUE\)"):
        load(mapped(path))
    left = read(mapped(path, rules="drop"))
    assert left.frame.height == 1
    assert left.rejected == {("ABC", "INVALID_VALUE"): 2, ("ABC", "OUT_OF_ORDER"): 1}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"symbol": ""}, "symbol"),
        ({"symbol": "x" * 33}, "symbol"),
        ({"symbol": None}, "symbol"),
        ({"paths": ()}, "paths"),
        ({"rules": "ignore"}, "rules"),
        ({"colums": {}}, "colums"),
        ({"columns": COLUMNS | {"prize": "p"}}, "columns.prize"),
        ({"columns": COLUMNS | {"stamp": {"name": "t", "unit": "minutes"}}}, "columns.stamp.unit"),
        ({"columns": COLUMNS | {"stamp": {"name": "t", "unit": "ms", "time_zone": "UTC"}}}, "columns.stamp"),
        ({"columns": COLUMNS | {"stamp": {"name": "t", "unit": "iso", "time_zone": "Mars/Dome"}}}, "time_zone"),
        ({"columns": COLUMNS | {"aggressor": {"form": "guess", "name": "a"}}}, "columns.aggressor"),
        ({"columns": COLUMNS | {"aggressor": {"form": "side", "name": "a", "sell": "B"}}}, "columns.aggressor"),
        ({"columns": COLUMNS | {"quote": {"bid": "b", "ask": "a"}}}, "columns.quote.bid_size"),
    ],
)
def test_a_map_that_cannot_be_meant_is_refused_by_its_key(change: dict[str, Any], where: str) -> None:
    valid: dict[str, Any] = {"paths": ("x.csv",), "symbol": "ABC", "columns": COLUMNS}
    FileData.model_validate(valid)
    with pytest.raises(ValidationError) as caught:
        FileData.model_validate(valid | change)
    assert any(where in ".".join(map(str, problem["loc"])) for problem in caught.value.errors())
