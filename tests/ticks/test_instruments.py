from pathlib import Path

import pytest

from tickgate_server.ticks.instruments import Instrument, InstrumentFileInvalid, Universe, read_instruments

TOML = """
[[instrument]]
symbol = "ES"
tick_size = 0.25
lot = 1
minimum_size = 2
multiplier = 50
currency = "EUR"
calendar = "CME"
tags = ["index", "future"]
restricted = true

[[instrument]]
symbol = "BTC"
"""
CSV = """symbol,tick_size,lot,minimum_size,multiplier,currency,calendar,tags,restricted
ES,0.25,1,2,50,EUR,CME,index future,true
BTC,,,,,,,,
"""
ES = Instrument(
    symbol="ES",
    tick_size=0.25,
    lot=1.0,
    minimum_size=2.0,
    multiplier=50.0,
    currency="EUR",
    calendar="CMES",  # which CME is an alias of
    tags=("index", "future"),
    restricted=True,
)


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path) -> str:
    with pytest.raises(InstrumentFileInvalid) as caught:
        read_instruments(path)
    assert caught.value.path == path
    assert str(caught.value) == f"{path}: {caught.value.why}"
    return caught.value.why


@pytest.mark.parametrize(("name", "text"), [("i.toml", TOML), ("i.csv", CSV)])
def test_both_formats_give_the_same_instruments_in_the_files_order(tmp_path: Path, name: str, text: str) -> None:
    found = read_instruments(write(tmp_path, name, text))
    assert list(found.items()) == [("ES", ES), ("BTC", Instrument(symbol="BTC"))]


def test_the_defaults_are_those_of_trying_things_out() -> None:
    assert Instrument(symbol="X").model_dump() == {
        "symbol": "X",
        "tick_size": 1e-8,
        "lot": 1e-8,
        "minimum_size": 0.0,
        "multiplier": 1.0,
        "currency": "USD",
        "calendar": "24/7",
        "tags": (),
        "restricted": False,
    }


BAD_VALUES = [
    ("tick_size", "0"),
    ("tick_size", "nan"),
    ("lot", "-1"),
    ("lot", "inf"),
    ("minimum_size", "-0.5"),
    ("minimum_size", "nan"),
    ("multiplier", "0.0"),
    ("multiplier", '"many"'),
    ("restricted", '"perhaps"'),
    ("calendar", '"CMEX"'),
]


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_a_bad_value_in_toml_names_file_entry_and_key(tmp_path: Path, key: str, value: str) -> None:
    text = f'[[instrument]]\nsymbol = "A"\n[[instrument]]\nsymbol = "B"\n{key} = {value}\n'
    assert refused(write(tmp_path, "i.toml", text)).startswith(f"entry 2: {key}: ")


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_a_bad_value_in_csv_names_file_entry_and_key(tmp_path: Path, key: str, value: str) -> None:
    text = f"symbol,{key}\nA,\nB,{value}\n"
    assert refused(write(tmp_path, "i.csv", text)).startswith(f"entry 2: {key}: ")


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("i.toml", '[[instrument]]\nsymbol = "A"\nlots = 1\n', "entry 1: lots: "),
        ("i.csv", "symbol,lots\nA,1\n", "entry 1: lots: "),
        ("i.toml", 'symbols = 1\n[[instrument]]\nsymbol = "A"\n', "unknown key 'symbols'"),
        ("i.toml", "", "expected a list of [[instrument]]"),
        ("i.toml", "instrument = 3\n", "expected a list of [[instrument]]"),
        ("i.toml", "instrument = [3]\n", "entry 1: "),
        ("i.toml", "[[instrument]]\nlot = 1\n", "entry 1: symbol: "),
        ("i.csv", "lot\n1\n", "entry 1: symbol: "),
        ("i.toml", '[[instrument]]\nsymbol = ""\n', "entry 1: symbol: "),
        ("i.toml", f'[[instrument]]\nsymbol = "{"é" * 17}"\n', "entry 1: symbol: "),
        ("i.csv", f"symbol\n{'A' * 33}\n", "entry 1: symbol: "),
        ("i.toml", '[[instrument]]\nsymbol = "A"\n' * 2, "entry 2: symbol 'A' is there already"),
        ("i.csv", "symbol\nA\nB\nA\n", "entry 3: symbol 'A' is there already"),
        ("i.toml", "[[instrument", "cannot be read"),
        ("i.toml", b'[[instrument]]\nsymbol = "\xff"\n', "cannot be read"),
        ("i.csv", b"symbol\n\xff\n", "cannot be read"),
        ("i.yaml", "symbol\nA\n", "expected a file ending in .toml or .csv"),
        ("instruments", "symbol\nA\n", "expected a file ending in .toml or .csv"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str, text: str | bytes, why: str) -> None:
    assert why in refused(write(tmp_path, name, text))


def test_an_unknown_calendar_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    why = refused(write(tmp_path, "i.csv", "symbol,calendar\nA,\nB,XNYS\nC,NYC\n"))
    assert why.startswith("entry 3: calendar: ")
    assert "24/7, " in why
    assert " XNYS, " in why
    assert why.endswith("(got 'NYC')")


def test_a_universe_has_the_calendars_of_its_instruments_behind_24_7() -> None:
    named = ("XNYS", "24/7", "CMES", "NYSE")
    found = {name: Instrument(symbol=name, calendar=name) for name in named}
    assert [calendar.name for calendar in Universe(found, closed=True).calendars] == ["24/7", "CMES", "XNYS"]
    assert [calendar.name for calendar in Universe({}, closed=False).calendars] == ["24/7"]


@pytest.mark.parametrize(("text", "entry"), [("symbol,lot\nA,1,7\n", 1), ("symbol,lot\nA,1\nB\n", 2)])
def test_a_csv_row_of_another_length_than_the_header_is_refused(tmp_path: Path, text: str, entry: int) -> None:
    assert refused(write(tmp_path, "i.csv", text)).startswith(f"entry {entry}: ")


@pytest.mark.parametrize("name", ["i.toml", "i.csv"])
def test_an_absent_file_cannot_be_read(tmp_path: Path, name: str) -> None:
    assert "cannot be read" in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["i.toml", "i.csv"])
def test_a_folder_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert "cannot be read" in refused(tmp_path / name)


def test_a_symbol_of_exactly_32_bytes_fits(tmp_path: Path) -> None:
    assert list(read_instruments(write(tmp_path, "i.csv", f"symbol\n{'é' * 16}\n"))) == ["é" * 16]
