"""From a run's configuration to the canonical table, and what the table's fingerprint stands for."""

import json
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tickgate_training.config import BinanceData, DailyData, SimulatedData, parse_config
from tickgate_training.data import config as sources
from tickgate_training.data import table
from tickgate_training.data.binance import read_capture
from tickgate_training.data.daily import read_bars
from tickgate_training.data.loading import load, read
from tickgate_training.data.panels import read_panel
from tickgate_training.data.simulator import simulate
from tickgate_training.errors import ConfigInvalid, RowInvalid, TickRejected
from tickgate_training.samples import load_table


def capture(folder: Path, *trades: tuple[int, str, int]) -> Path:
    path = folder / "capture.jsonl"
    messages = [
        {"stream": "btc@trade", "data": {"s": "BTC", "t": number, "p": price, "q": "1", "T": time_ms, "m": True}}
        for number, price, time_ms in trades
    ]
    path.write_text("".join(f"17 {json.dumps(message)}\n" for message in messages))
    return path


def run(**data: Any) -> dict[str, Any]:
    return {"data": data, "package": {"name": "m"}, "learners": [{"kind": "lightgbm"}]}


def test_a_runs_data_section_gives_the_table_of_its_source(tmp_path: Path) -> None:
    dump = tmp_path / "ABC-trades-2024-08-08.csv"
    dump.write_text("7,9,1,9,1723075200000,true\n")
    databento = tmp_path / "databento.csv"
    databento.write_text("ts_event,action,side,price,size,symbol\n1723075200000000000,T,B,9.0,1,ABC\n")
    mapped = {"stamp": {"name": "ts_event", "unit": "ns"}, "price": "price", "size": "size"}
    path = capture(tmp_path, (7, "9", 1723075200000))
    expected = {
        "binance": (run(kind="binance", path=path), read_capture(path).frame),
        "daily": (run(kind="daily", source="nasdaq:2003"), read_bars("nasdaq:2003")),
        "panel": (run(kind="panel", source="factors:2015"), read_panel("factors:2015")),
        "simulated": (run(kind="simulated", trades=50, seed=3, edge=0.2), simulate(50, 3, 0.2)),
    }
    for document, frame in expected.values():
        assert load_table(parse_config(document)).equals(frame)
    for document in (
        run(kind="binance_dump", paths=[dump], series="trades"),
        run(kind="databento", paths=[databento]),
        run(kind="file", paths=[databento], symbol="ABC", columns=mapped),
    ):
        frame = load_table(parse_config(document))
        assert frame.select("symbol", "exchange_ts_ns", "price").rows() == [("ABC", 1723075200000000000, 9.0)]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"kind": "tape"}, "data: "),
        ({}, "data: "),
        ({"kind": "binance"}, "data.binance.path: Field required"),
        ({"kind": "binance", "path": "x", "rule": "drop"}, "data.binance.rule: Extra inputs"),
        ({"kind": "binance_dump", "paths": ["x"], "series": "klines"}, "data.binance_dump.series: "),
        ({"kind": "databento", "paths": []}, "data.databento.paths: "),
        ({"kind": "databento", "paths": ["x"], "symbol": "x" * 33}, "data.databento.symbol: .* 1 to 32 bytes"),
        ({"kind": "panel", "sorce": "sp500"}, "data.panel.sorce: Extra inputs"),
    ],
)
def test_a_data_section_that_cannot_be_meant_is_refused_by_its_key(data: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigInvalid, match=problem):
        parse_config(run(**data))


def test_the_sources_of_old_are_imported_from_where_they_were() -> None:
    assert (BinanceData, DailyData, SimulatedData) == (
        sources.BinanceData,
        sources.DailyData,
        sources.SimulatedData,
    )


def test_a_capture_is_held_to_the_rules_too(tmp_path: Path) -> None:
    path = capture(tmp_path, (1, "9", 5), (2, "0", 5), (1, "8", 6), (3, "9", 4), (4, "9", 7))
    with pytest.raises(TickRejected, match=r"symbol 'BTC', column 'price', row 1: found 0.0, .*INVALID_VALUE"):
        load(BinanceData(path=path))
    left = read(BinanceData(path=path, rules="drop"))
    assert left.frame["sequence"].to_list() == [1, 4]
    assert left.rejected == {("BTC", "INVALID_VALUE"): 1, ("BTC", "DUPLICATE"): 1, ("BTC", "OUT_OF_ORDER"): 1}


def test_the_fingerprint_tells_symbols_apart_wherever_one_ends() -> None:
    def of(*symbols: str) -> str:
        return table.fingerprint(simulate(len(symbols), seed=1).with_columns(symbol=pl.Series(symbols)))

    assert of("AB", "C") != of("A", "BC")
    assert of("A\nB", "C") != of("A", "B\nC")
    assert of("é", "e") != of("e", "é")


def test_the_fingerprint_of_a_panel_changes_with_the_rows_of_any_symbol() -> None:
    frame = read_panel("factors:2015")
    same = table.fingerprint(frame)
    assert table.fingerprint(read_panel("factors:2015")) == same
    last = frame.with_columns(
        price=pl.when(pl.int_range(pl.len()) == frame.height - 1).then(1.0).otherwise(pl.col("price"))
    )
    assert table.fingerprint(last) != same
    assert table.fingerprint(frame.filter(pl.col("symbol") != "USMV")) != same
    swapped = frame.with_columns(symbol=pl.col("symbol").replace({"MTUM": "QUAL", "QUAL": "MTUM"}))
    assert table.fingerprint(swapped) != same


def test_stamps_of_each_symbol_are_ordered_and_other_symbols_may_lie_between() -> None:
    frame = pl.concat([simulate(5, seed=1, symbol="A"), simulate(5, seed=1, symbol="B")])
    assert table.check(frame).equals(frame)
    with pytest.raises(RowInvalid, match=r"row 6: .* do not decrease"):
        table.check(pl.concat([frame.head(5), frame.tail(5).reverse()]))


def test_each_section_in_the_documentation_is_one_that_a_run_takes() -> None:
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    blocks = [tomllib.loads(block.partition("```")[0]) for block in text.split("```toml\n")[1:]]
    kinds = {parse_config(run(**block["data"])).data.kind for block in blocks if "data" in block}
    assert kinds == {"binance", "binance_dump", "databento", "file", "panel", "simulated"}
