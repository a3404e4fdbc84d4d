"""Files as cells: what they are packed in, and every way in which one can be broken."""

import gzip
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tickgate_training.data.files import read_cells
from tickgate_training.errors import ColumnInvalid, SourceUnreadable

TEXT = "time,price\n1,10.5\n2,11\n"
CELLS = {"time": ["1", "2"], "price": ["10.5", "11"]}


def zipped(*members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            archive.writestr(member, TEXT)
    return buffer.getvalue()


def zstd(text: str) -> bytes:
    buffer = io.BytesIO()
    pl.read_csv(text.encode(), infer_schema=False).write_csv(buffer, compression="zstd")
    return buffer.getvalue()


def written(folder: Path, data: bytes, name: str = "ticks.csv") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        b" time ,price\n1,10.5\n2,11",
        gzip.compress(TEXT.encode()),
        gzip.compress(TEXT[:13].encode()) + gzip.compress(TEXT[13:].encode()),
        zipped("ticks.csv"),
        zipped("folder/", "folder/ticks.csv"),
        zstd(TEXT),
    ],
    ids=["plain", "crlf", "bom", "padded", "gzip", "gzip members", "zip", "zip with folder", "zstd"],
)
def test_a_csv_file_gives_the_same_cells_however_it_is_packed_and_named(tmp_path: Path, data: bytes) -> None:
    assert read_cells(written(tmp_path, data, "ticks.bin")).frame.to_dict(as_series=False) == CELLS


def test_blank_lines_are_passed_over_and_keep_their_numbers(tmp_path: Path) -> None:
    cells = read_cells(written(tmp_path, b'\ntime,price\n1,""\n\n\n2,11\n'))
    assert cells.frame.to_dict(as_series=False) == {"time": ["1", "2"], "price": [None, "11"]}
    assert cells.rows.tolist() == [0, 3]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pl.DataFrame({"time": np.arange(3), "price": [1.5, 2.5, 3.5]})
    frame.write_parquet(tmp_path / "ticks.parquet")
    cells = read_cells(tmp_path / "ticks.parquet")
    assert cells.frame.equals(frame)
    assert cells.rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"time,price\n", "no row below its header"),
        (gzip.compress(b""), "is empty"),
        (gzip.compress(TEXT.encode())[:-3], "cannot be read"),
        (gzip.compress(TEXT.encode())[:12], "cannot be read"),
        (gzip.compress(TEXT.encode())[:-8] + b"\0\0\0\0\0\0\0\0", "cannot be read"),
        (zipped("ticks.csv")[:-30], "cannot be read"),
        (zipped("ticks.csv")[:40], "cannot be read"),
        (zipped("ticks.csv").replace(zlib.crc32(TEXT.encode()).to_bytes(4, "little"), b"\0\0\0\0"), "Bad CRC"),
        (zipped(), "holds 0 files"),
        (zipped("a.csv", "b.csv"), "holds 2 files"),
        (zstd(TEXT)[:-4], "cannot be read"),
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0,\n\0\0\0", "is no text"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe,\n1,2\n", "cannot be read as comma-separated UTF-8"),
        (b"time,price\n1,\xff\xfe\n", "cannot be read as comma-separated UTF-8"),
        (b"time,price\n1,2,3\n", "cannot be read as comma-separated UTF-8"),
        (b'time,price\n"1,2\n3,4\n', "cannot be read as comma-separated UTF-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "packed",  # bytes hold the time: workers must agree on names
)
def test_a_broken_csv_file_is_named_with_what_is_wrong(tmp_path: Path, data: bytes, why: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(SourceUnreadable, match=why) as caught:
        read_cells(path)
    assert caught.value.source == str(path)


@pytest.mark.parametrize("keep", [0, 5, -1])
def test_a_broken_parquet_file_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "ticks.parquet"
    pl.DataFrame({"time": np.arange(1000)}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SourceUnreadable, match="cannot be read as Parquet") as caught:
        read_cells(path)
    assert caught.value.source == str(path)


@pytest.mark.parametrize("name", ["none.csv", "none.parquet"])
def test_an_absent_file_and_a_folder_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceUnreadable, match="cannot be read"):
        read_cells(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(SourceUnreadable, match="cannot be read"):
        read_cells(tmp_path / name)


def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ColumnInvalid, match="'price': found two of this name"):
        read_cells(written(tmp_path, b"time,price,price\n1,2,3\n"))
