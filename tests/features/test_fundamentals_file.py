"""Files of fundamentals: what is read, what is refused and where, and training reads and refuses the same."""

import gzip
import random
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickgate_server.features.fundamentals_file import REFUSED, Columns, command, read
from tickgate_server.features.fundamentals_table import FundamentalsInvalid, FundamentalsTable, pack
from tickgate_training.data import fundamentals as training
from tickgate_training.data.config import FundamentalsData, StampColumn
from tickgate_training.errors import DataError

HEADER = "symbol,name,as_of_ns,value\n"
PLAIN = Columns()
ISO = Columns(as_of_unit="iso")
NEW_YORK = Columns(as_of_unit="iso", time_zone="America/New_York")


def written(folder: Path, text: str, name: str = "fundamentals.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def by_training(path: Path, columns: Columns) -> FundamentalsTable:
    as_of = StampColumn(name=columns.as_of, unit=columns.as_of_unit, time_zone=columns.time_zone)
    source = FundamentalsData(path=path, as_of=as_of, symbol=columns.symbol, name=columns.name, value=columns.value)
    return training.table_of(training.read(source))


def same(one: FundamentalsTable, other: FundamentalsTable) -> bool:
    return pack(one) == pack(other)


def test_rows_come_in_any_order_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    text = "\n" + HEADER + "B,eps,5,1.5\n\nA,eps,9,-2e-3\nA,eps,3,+.5\n"
    table = read(written(tmp_path, text), PLAIN)
    assert (table.symbols, table.names, table.as_of_ns.tolist()) == (("A", "B"), ("eps",), [3, 9, 5])
    assert table.values.tolist() == [0.5, -0.002, 1.5]


@pytest.mark.parametrize(
    ("unit", "cell", "stamp_ns"),
    [
        ("ns", "1723161600000000001", 1_723_161_600_000_000_001),
        ("us", "1723161600000000.001", 1_723_161_600_000_000_001),
        ("ms", "1723161600000.5", 1_723_161_600_000_500_000),
        ("s", "1723161600", 1_723_161_600_000_000_000),
        ("iso", "2024-08-09T00:00:00Z", 1_723_161_600_000_000_000),
        ("iso", "2024-08-09 02:00:00.000000001+02:00", 1_723_161_600_000_000_001),
    ],
)
def test_times_are_exact_to_the_nanosecond_in_each_unit(tmp_path: Path, unit: str, cell: str, stamp_ns: int) -> None:
    path = written(tmp_path, f"{HEADER}A,eps,{cell},1\n")
    columns = Columns(as_of_unit=unit)  # type: ignore[arg-type]  # one of them
    assert read(path, columns).as_of_ns.tolist() == [stamp_ns]
    assert same(read(path, columns), by_training(path, columns))


def test_a_time_without_an_offset_is_local_where_a_zone_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}A,eps,2024-07-01T16:00:00,1\nA,eps,2024-01-01T16:00:00,2\n")
    table = read(path, NEW_YORK)
    winter, summer = (datetime.fromisoformat(f"2024-{moment}:00:00+00:00") for moment in ("01-01T21", "07-01T20"))
    assert table.as_of_ns.tolist() == [int(moment.timestamp()) * 10**9 for moment in (winter, summer)]
    assert same(table, by_training(path, NEW_YORK))


def test_other_names_of_columns_and_further_columns_are_fine(tmp_path: Path) -> None:
    path = written(tmp_path, "note,known,ticker,item,number\nx,7,A,eps,1\n")
    columns = Columns("ticker", "item", "number", "known")
    assert same(read(path, columns), by_training(path, columns))
    assert read(path, columns).as_of_ns.tolist() == [7]


def test_a_compressed_file_is_the_file(tmp_path: Path) -> None:
    text = f"{HEADER}A,eps,5,1\n"
    packed = tmp_path / "packed.csv"
    packed.write_bytes(gzip.compress(text.encode()))
    assert same(read(packed, PLAIN), read(written(tmp_path, text), PLAIN))


def frame(as_of: pl.Series, values: list[float | None] | None = None) -> pl.DataFrame:
    symbols = pl.Series("symbol", ["A"] * len(as_of), pl.Categorical)
    return pl.DataFrame(
        [
            symbols,
            pl.Series("name", ["eps"] * len(as_of)),
            as_of.alias("as_of_ns"),
            pl.Series("value", values or [1, 2]),
        ]
    )


MOMENTS = [datetime(2024, 7, 1, 16, 0, 0, 1), datetime(2024, 7, 2)]  # noqa: DTZ001 - as a file without zones has them


@pytest.mark.parametrize(
    ("as_of", "columns"),
    [
        (pl.Series([5, 6]), PLAIN),
        (pl.Series([5, 6], dtype=pl.UInt32), Columns(as_of_unit="s")),
        (pl.Series(["5.25", "6"]), Columns(as_of_unit="ms")),
        (pl.Series(MOMENTS), NEW_YORK),
        (pl.Series(MOMENTS).dt.replace_time_zone("Europe/Berlin"), ISO),
        (pl.Series(MOMENTS).dt.cast_time_unit("ns").dt.replace_time_zone("UTC"), ISO),
        (pl.Series(["2024-07-01T16:00:00Z", "2024-07-02T16:00:00Z"]), ISO),
    ],
)
def test_parquet_is_read_in_the_types_it_was_written_with(tmp_path: Path, as_of: pl.Series, columns: Columns) -> None:
    path = tmp_path / "fundamentals.parquet"
    frame(as_of).write_parquet(path)
    assert read(path, columns).values.tolist() == [1.0, 2.0]
    assert same(read(path, columns), by_training(path, columns))


@pytest.mark.parametrize(
    ("as_of", "columns", "why"),
    [
        (pl.Series([5.0, 6.0]), PLAIN, "column 'as_of_ns': found Float64, expected whole numbers or text, in ns"),
        (pl.Series([5, 6]), ISO, "column 'as_of_ns': found Int64, but a time is ISO 8601"),
        (pl.Series(MOMENTS), ISO, "times without one need time_zone"),
        (pl.Series(MOMENTS).dt.replace_time_zone("UTC"), NEW_YORK, "without an offset, as time_zone says"),
        (pl.Series([datetime(1969, 1, 1), None]), NEW_YORK, "row 0: .*after the start of 1970"),  # noqa: DTZ001
        (pl.Series([MOMENTS[0], None]), NEW_YORK, "column 'as_of_ns', row 1: found an empty cell"),
        (pl.Series([0, 1]), PLAIN, "column 'as_of_ns', row 0: found 0, but a time in ns is a number above 0"),
    ],
)  # fmt: skip
def test_parquet_that_holds_no_such_times_is_refused_by_both(
    tmp_path: Path, as_of: pl.Series, columns: Columns, why: str
) -> None:
    path = tmp_path / "fundamentals.parquet"
    frame(as_of).write_parquet(path)
    with pytest.raises(FundamentalsInvalid, match=why):
        read(path, columns)
    with pytest.raises(DataError):
        by_training(path, columns)


def test_parquet_says_what_to_install_where_polars_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(FundamentalsInvalid, match=r"pip install 'tickgate\[training\]'"):
        read(tmp_path / "fundamentals.parquet", PLAIN)


REFUSED_ROWS = [
    ("", "at least one row below the header"),
    ("A,eps,5\n", "row 0: expected 4 cells, as in the header, found 3"),
    ("A,eps,5,1\nA,eps,6,1,2\n", "row 1: expected 4 cells"),
    (",eps,5,1\n", "column 'symbol', row 0: found an empty cell, but this is text of 1 to 32 bytes"),
    ("A,,5,1\n", "column 'name', row 0: found an empty cell"),
    (f"{'x' * 33},eps,5,1\n", "column 'symbol', row 0: found 'x+', but this is text of 1 to 32 bytes"),
    (f"A,{'é' * 25},5,1\n", "column 'name', row 0: .* this is text of 1 to 48 bytes"),
    ("A,eps,,1\n", "column 'as_of_ns', row 0: found an empty cell, but a time in ns"),
    ("A,eps,5,1\n\nA,eps,0,1\n", "column 'as_of_ns', row 2: found '0', but a time in ns is a number above 0"),
    ("A,eps,-5,1\n", "column 'as_of_ns', row 0: found '-5'"),
    ("A,eps,5.0,1\n", "column 'as_of_ns', row 0: found '5.0', but .* no decimal places"),
    ("A,eps,9223372036854775808,1\n", "column 'as_of_ns', row 0: .* before 2262"),
    ("A,eps,٣,1\n", "column 'as_of_ns', row 0"),
    ("A,eps,5,\n", "column 'value', row 0: found an empty cell, but this is a number"),
    ("A,eps,5,many\n", "column 'value', row 0: found 'many', but this is a number"),
    ("A,eps,5,0x10\n", "column 'value', row 0: found '0x10', but this is a number"),
    ("A,eps,5,nan\n", "column 'value', row 0: found 'nan'"),
    ("A,eps,5,inf\n", "column 'value', row 0: found 'inf'"),
    ("A,eps,5,1e39\n", "column 'value', row 0: found '1e39', but a value is finite, in float32 too"),
    ("A,eps,5,1\nB,eps,5,1\nA,eps,5,1\n", "column 'as_of_ns', row 2: found '5', but a symbol has one value of a name"),
]


@pytest.mark.parametrize(("rows", "why"), REFUSED_ROWS)
def test_garbage_is_refused_by_column_row_and_rule_and_by_training_too(tmp_path: Path, rows: str, why: str) -> None:
    path = written(tmp_path, HEADER + rows)
    with pytest.raises(FundamentalsInvalid, match=f"^{path}: no fundamentals: .*{why}"):
        read(path, PLAIN)
    with pytest.raises(DataError):
        by_training(path, PLAIN)


@pytest.mark.parametrize(
    "cell",
    [
        "yesterday",
        "2024-07-01",
        "2024-07-01T16:00:00",
        "2024-13-01T16:00:00Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00Z",
        "9999-01-01T00:00:00Z",
    ],
)
def test_what_is_no_instant_is_refused_by_both(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path, f"{HEADER}A,eps,{cell},1\n")
    with pytest.raises(FundamentalsInvalid, match=r"column 'as_of_ns', row 0: found .* a time is ISO 8601"):
        read(path, ISO)
    with pytest.raises(DataError):
        by_training(path, ISO)


@pytest.mark.parametrize("cell", ["2024-03-10T02:30:00", "2024-11-03T01:30:00"])
def test_a_local_time_that_happens_never_or_twice_is_refused_by_both(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path, f"{HEADER}A,eps,{cell},1\n")
    with pytest.raises(FundamentalsInvalid, match="a time happens once in America/New_York"):
        read(path, NEW_YORK)
    with pytest.raises(DataError):
        by_training(path, NEW_YORK)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read as UTF-8 text"),
        (b"", "is empty"),
        (b"\xff\xfe garbage", "cannot be read as UTF-8 text"),
        (b"symbol,name\0\n", "it has a zero byte"),
        (b'symbol,name,as_of_ns,value\nA,"eps,5,1\n', "cannot be read as comma-separated text"),
        (gzip.compress(HEADER.encode(), mtime=0)[:-9], "cannot be read as UTF-8 text"),
        (b"symbol,name,value\nA,eps,1\n", "expected one column 'as_of_ns', found 0 among symbol, name, value"),
        (b"symbol,name,as_of_ns,value,value\nA,eps,1,1,1\n", "expected one column 'value', found 2"),
    ],
)
def test_what_is_no_table_at_all_is_refused(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "fundamentals.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FundamentalsInvalid, match=why):
        read(path, PLAIN)


@settings(max_examples=40)
@given(
    rows=st.dictionaries(
        st.tuples(st.sampled_from(["A", "BRK.B", "Ä"]), st.sampled_from(["eps", "p/e ratio"]), st.integers(1, 2**62)),
        st.floats(-3e38, 3e38) | st.integers(-5, 5),
        min_size=1,
        max_size=20,
    ),
    rng=st.randoms(),
)
def test_server_and_training_read_the_same_table(
    rows: dict[tuple[str, str, int], float], rng: random.Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = [f"{symbol},{name},{stamp},{value!r}\n" for (symbol, name, stamp), value in rows.items()]
    rng.shuffle(lines)
    path = written(tmp_path_factory.mktemp("read"), HEADER + "".join(lines))
    table = read(path, PLAIN)
    assert same(table, by_training(path, PLAIN))
    for (symbol, name, stamp), value in rows.items():
        own = table.history(symbol, name)
        assert table.values[own][np.searchsorted(table.as_of_ns[own], stamp)] == float(value)


def test_as_a_program_it_writes_the_table_or_says_why_there_is_none(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}A,eps,5,1\n")
    done = subprocess.run(command(path, PLAIN), capture_output=True, check=True)
    assert done.stdout == pack(read(path, PLAIN))
    path.write_text("garbage\n")
    done = subprocess.run(command(path, PLAIN), capture_output=True, check=False)
    assert done.returncode == REFUSED
    assert done.stdout == b""
    assert done.stderr.decode() == "expected one column 'symbol', found 0 among garbage"
