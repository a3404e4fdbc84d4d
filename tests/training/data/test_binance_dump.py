"""Files of Binance's public archive."""

import gzip
import zipfile
from pathlib import Path
from typing import Literal

import pytest
from tests.support.real_data import SPOT_BTC, USDM_BTC, ticks

from tickgate_training.data.config import BinanceDumpData
from tickgate_training.data.loading import load, read
from tickgate_training.errors import CellInvalid, ColumnInvalid, DataError, SourceUnreadable, TickRejected

SPOT_TRADES = """\
51175358,17.80180000,5.69000000,101.29224200,1583709433583,True,True
51175359,17.80190000,0.50000000,8.90095000,1583709433583,False,True
"""
USDM_TRADES = """\
28457,4.00000100,12.00000000,48.00,1583709433590,true
28458,4.00000200,1.00000000,4.00,1583709433591,false
"""
SPOT_AGGREGATES = """\
0,0.20000000,50.00000000,0,0,1608872400000,False,True
1,0.21000000,3.00000000,1,4,1608872400001,True,True
"""
USDM_AGGREGATES = """\
26129,0.016331,4.7,27781,27781,1598793709153,true
26130,0.016332,1.00000000,27782,27790,1598793709154,false
"""
SPOT_HEADER = "trade Id,price,qty,quoteQty,time,isBuyerMaker,isBestMatch\n"  # as the archive's description spells it
TRADES_HEADER = "id,price,qty,quote_qty,time,is_buyer_maker\n"
AGGREGATES_HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
Series = Literal["trades", "aggTrades"]


def dump(folder: Path, text: str, series: Series = "trades", *, name: str | None = None) -> BinanceDumpData:
    path = folder / (name or f"BTCUSDT-{series}-2024-08-08.csv")
    path.write_text(text)
    return BinanceDumpData(paths=(path,), series=series)


def refused(config: BinanceDumpData, error: type[DataError], why: str) -> DataError:
    with pytest.raises(error, match=why) as caught:
        load(config)
    assert str(config.paths[0]) in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("text", "series", "rows"),
    [
        (SPOT_TRADES, "trades", [(51175358, 17.8018, 5.69, -1), (51175359, 17.8019, 0.5, 1)]),
        (SPOT_HEADER + SPOT_TRADES, "trades", [(51175358, 17.8018, 5.69, -1), (51175359, 17.8019, 0.5, 1)]),
        (USDM_TRADES, "trades", [(28457, 4.000001, 12.0, -1), (28458, 4.000002, 1.0, 1)]),
        (TRADES_HEADER + USDM_TRADES, "trades", [(28457, 4.000001, 12.0, -1), (28458, 4.000002, 1.0, 1)]),
        (SPOT_AGGREGATES, "aggTrades", [(0, 0.2, 50.0, 1), (1, 0.21, 3.0, -1)]),
        (USDM_AGGREGATES, "aggTrades", [(26129, 0.016331, 4.7, -1), (26130, 0.016332, 1.0, 1)]),
        (AGGREGATES_HEADER + USDM_AGGREGATES, "aggTrades", [(26129, 0.016331, 4.7, -1), (26130, 0.016332, 1.0, 1)]),
    ],
)
def test_each_layout_gives_the_trades_that_stand_in_it(
    tmp_path: Path, text: str, series: Series, rows: list[tuple[int, float, float, int]]
) -> None:
    frame = load(dump(tmp_path, text, series))
    assert frame.select("sequence", "price", "size", "aggressor").rows() == rows
    assert set(frame["symbol"]) == {"BTCUSDT"}
    assert frame["bid"].is_nan().all()


def test_milliseconds_and_the_microseconds_of_spot_since_2025_are_told_apart(tmp_path: Path) -> None:
    text = "1,9,1,9,1735689599999,True,True\n2,9,1,9,1735689600000001,True,True\n3,9,1,9,1735689600001,True,True\n"
    assert load(dump(tmp_path, text))["exchange_ts_ns"].to_list() == [
        1735689599999_000000,
        1735689600000001_000,
        1735689600001_000000,
    ]


def test_a_zip_as_it_is_downloaded_a_gzip_and_plain_text_give_the_same(tmp_path: Path) -> None:
    plain = load(dump(tmp_path, USDM_TRADES))
    zipped, gzipped = tmp_path / "BTCUSDT-trades-2024-08-08.zip", tmp_path / "BTCUSDT-trades-2024-08-08.csv.gz"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("BTCUSDT-trades-2024-08-08.csv", TRADES_HEADER + USDM_TRADES)
    gzipped.write_bytes(gzip.compress(USDM_TRADES.encode()))
    for path in (zipped, gzipped):
        assert load(BinanceDumpData(paths=(path,), series="trades")).equals(plain)


def test_days_and_symbols_become_one_table_in_the_order_of_time_whatever_the_order_of_symbols(tmp_path: Path) -> None:
    paths = []
    for symbol, days in (("BTCUSDT", (1, 2)), ("ETHUSDT", (1, 2))):
        for day in days:
            path = tmp_path / f"{symbol}-trades-2024-08-0{day}.csv"
            path.write_text("".join(f"{day * 10 + k},9,1,9,172307520000{day},True\n" for k in range(2)))
            paths.append(path)
    frame = load(BinanceDumpData(paths=tuple(paths), series="trades"))
    assert frame.select("symbol", "sequence").rows() == [
        (symbol, day * 10 + k) for day in (1, 2) for symbol in ("BTCUSDT", "ETHUSDT") for k in (0, 1)
    ]
    assert load(BinanceDumpData(paths=(*paths[2:], *paths[:2]), series="trades")).equals(frame)


def test_the_symbol_of_a_file_without_its_own_name_is_asked_for(tmp_path: Path) -> None:
    config = dump(tmp_path, USDM_TRADES, name="mine.csv")
    refused(config, SourceUnreadable, "set symbol")
    assert set(load(config.model_copy(update={"symbol": "ABC"}))["symbol"]) == {"ABC"}


def test_a_file_of_the_other_series_is_refused_by_its_name_or_its_cells(tmp_path: Path) -> None:
    refused(
        dump(tmp_path, USDM_AGGREGATES, name="BTCUSDT-aggTrades-2024-08-08.csv"),
        SourceUnreadable,
        "its name says aggTrades, the configuration trades",
    )
    for series, text in (("trades", USDM_AGGREGATES), ("trades", SPOT_AGGREGATES), ("aggTrades", SPOT_TRADES)):
        config = dump(tmp_path, text, name="mine.csv").model_copy(update={"series": series, "symbol": "ABC"})
        with pytest.raises((CellInvalid, SourceUnreadable)):
            load(config)
    refused(dump(tmp_path, AGGREGATES_HEADER + USDM_AGGREGATES), ColumnInvalid, "'quote_qty': found 'first_trade_id'")


def test_contracts_of_coin_margined_futures_are_no_sizes(tmp_path: Path) -> None:
    text = "id,price,qty,base_qty,time,is_buyer_maker\n28457,9635.0,1,0.01037883,1591250192508,true\n"
    refused(dump(tmp_path, text), ColumnInvalid, "'quote_qty': found 'base_qty'")


@pytest.mark.parametrize(
    ("row", "column", "rule"),
    [
        ("3,x,1,9,1583709433600,True,True", "price", "this is a number"),
        ("3,,1,9,1583709433600,True,True", "price", "this is a number"),
        ("3,9", "time", "found an empty cell"),
        ("-3,9,1,9,1583709433600,True,True", "id", "whole number"),
        (",9,1,9,1583709433600,True,True", "id", "whole number"),
        ("3.5,9,1,9,1583709433600,True,True", "id", "whole number"),
        ("3,9,1,9,1583709433,True,True", "time", "milliseconds or microseconds"),
        ("3,9,1,9,1583709433600000000,True,True", "time", "milliseconds or microseconds"),
        ("3,9,1,9,2020-01-01,True,True", "time", "whole number"),
        ("3,9,1,9,1583709433600,maybe,True", "is_buyer_maker", "true or false"),
    ],
)
def test_a_cell_that_is_not_what_its_column_holds_is_named(tmp_path: Path, row: str, column: str, rule: str) -> None:
    error = refused(dump(tmp_path, SPOT_TRADES + row + "\n"), CellInvalid, rule)
    assert isinstance(error, CellInvalid)
    assert (error.column, error.row) == (column, 2)


def test_a_file_without_a_trade_or_with_other_columns_says_so(tmp_path: Path) -> None:
    refused(dump(tmp_path, TRADES_HEADER), SourceUnreadable, "has no trade")
    refused(dump(tmp_path, "1,2\n"), SourceUnreadable, "has 2 columns, expected 6")
    refused(dump(tmp_path, "1,2,3,4,5,6,7,8,9\n"), SourceUnreadable, "has 9 columns, expected 7")


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        ("51175358,17.9,1,9,1583709433600,True,True", "sequence", "DUPLICATE"),
        ("51175359,17.80190000,0.50000000,8.90095000,1583709433583,False,True", "sequence", "DUPLICATE"),
        ("51175360,17.9,1,9,1583709433582,True,True", "exchange_ts_ns", "OUT_OF_ORDER"),
        ("51175360,nan,1,9,1583709433600,True,True", "price", "INVALID_VALUE"),
        ("51175360,0,1,9,1583709433600,True,True", "price", "INVALID_VALUE"),
        ("51175360,17.9,-1,9,1583709433600,True,True", "size", "INVALID_VALUE"),
    ],
)
def test_a_tick_that_the_server_rejects_is_named_or_dropped_and_counted(
    tmp_path: Path, row: str, column: str, reason: str
) -> None:
    config = dump(tmp_path, SPOT_TRADES + row + "\n")
    error = refused(config, TickRejected, reason)
    assert isinstance(error, TickRejected)
    assert (error.symbol, error.column, error.row, error.reason) == ("BTCUSDT", column, 2, reason)
    left = read(config.model_copy(update={"rules": "drop"}))
    assert left.frame["sequence"].to_list() == [51175358, 51175359]
    assert left.rejected == {("BTCUSDT", reason): 1}


def test_a_rejected_row_is_numbered_in_its_own_file_below_its_header(tmp_path: Path) -> None:
    first = dump(tmp_path, TRADES_HEADER + USDM_TRADES, name="ABC-trades-1.csv").paths[0]
    second = dump(
        tmp_path, TRADES_HEADER + "\n1,9,1,9,1583709433600,true\n1,8,1,9,1583709433601,true\n", name="ABC-trades-2.csv"
    )
    config = BinanceDumpData(paths=(first, *second.paths), series="trades")
    with pytest.raises(TickRejected, match=r"ABC-trades-2.csv: symbol 'ABC', column 'sequence', row 2: found 1,"):
        load(config)


@pytest.mark.parametrize("name", [SPOT_BTC, USDM_BTC])
def test_a_real_capture_written_as_a_dump_comes_back(tmp_path: Path, name: str) -> None:
    frame = ticks(name)
    lines = [
        f"{number},{price!r},{size!r},{price * size!r},{stamp // 1_000_000},{side < 0}\n"
        for _, stamp, number, price, size, side, *_ in frame.iter_rows()
    ]
    back = load(dump(tmp_path, "".join(lines)))
    assert back.drop("bid", "ask", "bid_size", "ask_size").equals(frame.drop("bid", "ask", "bid_size", "ask_size"))
