"""Readers, the canonical table and the simulator."""

import gzip
import json
import math
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from tests.support.real_data import CAPTURES, SPOT_BTC, USDM_BTC, capture, capture_path, ticks

from tickgate.v1 import AggressorSide
from tickgate_training.data import table
from tickgate_training.data.binance import read_capture
from tickgate_training.data.daily import read_bars
from tickgate_training.data.messages import read_binance, read_daily, to_messages
from tickgate_training.data.simulator import simulate
from tickgate_training.errors import ColumnInvalid, MalformedLine, RowInvalid, SourceUnreadable, TooFewRows

TRADES = {"spot-btcusdt-20240808": 9757, "spot-btcusdt-20240809": 10147, "spot-ethusdt-20240808": 6106, USDM_BTC: 21313}
QUOTES = {
    "spot-btcusdt-20240808": 28040,
    "spot-btcusdt-20240809": 45134,
    "spot-ethusdt-20240808": 24077,
    USDM_BTC: 66089,
}


def trade(number: int, price: str, time_ms: int, *, sold: bool = False, **more: str) -> dict[str, object]:
    data = {"s": "BTC", "t": number, "p": price, "q": "0.5", "T": time_ms, "m": sold, **more}
    return {"stream": "btc@trade", "data": data}


def quote(bid: str, ask: str, **more: int) -> dict[str, object]:
    return {"stream": "btc@bookTicker", "data": {"s": "BTC", "b": bid, "B": "1", "a": ask, "A": "2", **more}}


def written(folder: Path, *messages: dict[str, object] | str) -> Path:
    lines = [f"17 {json.dumps(message)}" if isinstance(message, dict) else message for message in messages]
    path = folder / "capture.gz"
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    return path


def carried_tick_test(prices: NDArray[np.float64]) -> NDArray[np.float64]:
    signs = np.sign(np.diff(prices, prepend=prices[0]))
    for i in range(1, signs.size):
        signs[i] = signs[i] or signs[i - 1]
    return signs


@pytest.mark.parametrize("name", CAPTURES)
def test_a_capture_has_the_trades_and_quotes_that_its_readme_counts(name: str) -> None:
    read = capture(name)
    assert read.frame.height == TRADES[name]
    assert read.quotes == QUOTES[name]


def test_trade_signs_agree_with_the_true_aggressor_as_published() -> None:
    frame = ticks(USDM_BTC)
    aggressor = table.values(frame, "aggressor")
    prices, mid = table.values(frame, "price"), table.mid(frame)
    tick_test = carried_tick_test(prices)
    lee_ready = np.where(prices > mid, 1, np.where(prices < mid, -1, tick_test))
    assert round(float((tick_test == aggressor).mean()), 3) == pytest.approx(0.969)
    assert round(float((lee_ready == aggressor).mean()), 3) == pytest.approx(0.998)


def test_spot_quotes_are_joined_in_the_files_order(tmp_path: Path) -> None:
    path = written(tmp_path, trade(1, "9", 5), quote("9", "10"), quote("8", "9"), trade(2, "9", 5), quote("1", "2"))
    frame = read_capture(path).frame
    assert math.isnan(frame["bid"][0])
    assert frame.row(1)[6:] == (8.0, 9.0, 1.0, 2.0)


def test_futures_quotes_are_joined_strictly_before_by_exchange_time(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        quote("1", "2", T=10),
        quote("3", "4", T=20),
        trade(1, "3", 20, X="MARKET"),
        trade(2, "3", 21, X="MARKET"),
        quote("5", "6", T=20),  # late in the file, of the same millisecond: the last one of it
        trade(3, "3", 10, X="MARKET") | {"stream": "btc@depth"},
    )
    frame = read_capture(path).frame
    assert frame["bid"].to_list() == [1.0, 5.0]


def test_futures_trades_that_are_no_market_trades_are_skipped_and_counted(tmp_path: Path) -> None:
    others = [trade(k, "9", 5, X=kind) for k, kind in enumerate(("INSURANCE_FUND", "ADL", "ADL"))]
    read = read_capture(written(tmp_path, *others, trade(9, "9", 5, sold=True, X="MARKET")))
    assert read.skipped_trades == {"INSURANCE_FUND": 1, "ADL": 2}
    assert read.frame.row(0)[:6] == ("BTC", 5_000_000, 9, 9.0, 0.5, -1)


def test_depth_snapshots_without_a_stream_are_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path, {"lastUpdateId": 5, "bids": [["1", "2"]]}, trade(1, "9", 5))
    assert read_capture(path).frame.height == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("no time at all", "receive time"),
        ('17 {"stream": "btc@trade", "data": {"s": "BTC"}}', "missing required field"),
        ('17 {"stream": "btc@trade", "data": ', "Input data was truncated"),
        ('17 {"stream": "btc@trade", "data": {"s":"B","t":1,"p":"x","q":"1","T":5,"m":true}}', "Expected `float`"),
    ],
)
def test_a_malformed_line_is_named_with_what_was_found_and_expected(tmp_path: Path, line: str, expected: str) -> None:
    path = written(tmp_path, trade(1, "9", 5), line)
    with pytest.raises(MalformedLine, match=expected) as caught:
        read_capture(path)
    assert caught.value.line == 2
    assert caught.value.path == path
    assert line[3:20] in caught.value.found or line[:14] in caught.value.found


def test_a_capture_that_was_cut_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, trade(1, "9", 5))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SourceUnreadable, match="cannot be read"):
        read_capture(path)


def test_a_missing_capture_and_one_without_trades_say_so(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="cannot be read"):
        read_capture(tmp_path / "none")
    with pytest.raises(SourceUnreadable, match="no market trade"):
        read_capture(written(tmp_path, quote("1", "2")))


def test_trades_whose_stamps_decrease_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RowInvalid, match=r"row 1.*do not decrease"):
        read_capture(written(tmp_path, trade(1, "9", 6), trade(2, "9", 5)))


def test_plain_text_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    path.write_text(f"17 {json.dumps(trade(1, '9', 5))}\n")
    assert read_capture(path).frame.height == 1


def test_a_bar_is_a_trade_at_the_sessions_close_in_new_york() -> None:
    frame = read_bars("sp500")
    assert frame.height == 5031
    assert frame["sequence"].to_list() == list(range(1, 5032))
    first = datetime.fromtimestamp(frame["exchange_ts_ns"][0] / 1e9, ZoneInfo("America/New_York"))
    assert (first.date().isoformat(), first.hour, first.minute) == ("1999-01-04", 16, 0)
    assert (frame["symbol"][0], frame["price"][0], frame["size"][0]) == ("SPX", 1228.099976, 877_000_000.0)
    hours = {datetime.fromtimestamp(ns / 1e9, ZoneInfo("UTC")).hour for ns in frame["exchange_ts_ns"]}
    assert hours == {20, 21}  # summer and winter


def test_a_range_of_years_keeps_the_sets_numbers() -> None:
    whole, part = read_bars("nasdaq"), read_bars("nasdaq:2003-2004")
    assert part.equals(whole.filter(pl.col("sequence").is_in(part["sequence"].implode())))
    assert part.height == 504
    assert read_bars("sp500:2018").height == 251


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("ftse", "known: sp500, nasdaq"),
        ("sp500:2050", "spans 1999 to 2018"),
        ("sp500:2004-2003", "neither"),
        ("sp500:x", "neither"),
    ],
)
def test_an_unknown_set_or_range_is_named(source: str, why: str) -> None:
    with pytest.raises(SourceUnreadable, match=why):
        read_bars(source)


def test_messages_carry_what_the_table_has() -> None:
    frame = simulate(50, seed=3)
    for row, tick in zip(frame.iter_rows(named=True), to_messages(frame), strict=True):
        assert (tick.symbol, tick.exchange_ts_ns, tick.sequence) == (
            row["symbol"],
            row["exchange_ts_ns"],
            row["sequence"],
        )
        assert (tick.trade.price, tick.trade.size) == (row["price"], row["size"])
        side = AggressorSide.AGGRESSOR_SIDE_BUY if row["aggressor"] > 0 else AggressorSide.AGGRESSOR_SIDE_SELL
        assert tick.trade.aggressor == side
        assert (tick.quote.bid, tick.quote.ask) == (row["bid"], row["ask"])
        assert (tick.quote.bid_size, tick.quote.ask_size) == (row["bid_size"], row["ask_size"])


def test_bars_become_messages_without_a_quote_or_a_side() -> None:
    bars = list(read_daily("sp500:2018"))
    assert len(bars) == 251
    assert not any(tick.HasField("quote") for tick in bars)
    assert {tick.trade.aggressor for tick in bars} == {AggressorSide.AGGRESSOR_SIDE_UNSPECIFIED}


def test_a_capture_becomes_messages() -> None:
    found = list(read_binance(str(capture_path(SPOT_BTC))))
    assert len(found) == TRADES[SPOT_BTC]
    assert found[0].trade.price == 61837.63


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("price", 0.0, "finite and above 0"),
        ("price", math.nan, "finite and above 0"),
        ("size", -1.0, "not below 0"),
        ("symbol", "x" * 33, "1 to 32 bytes"),
        ("symbol", "", "1 to 32 bytes"),
        ("exchange_ts_ns", 0, "above 0"),
        ("exchange_ts_ns", 1, "do not decrease"),
        ("aggressor", 2, "1, 0 or -1"),
        ("bid", math.nan, "whole or absent"),
        ("ask_size", math.inf, "whole or absent"),
        ("bid", 1e9, "not above its ask"),
        ("price", None, "null"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named(column: str, value: object, rule: str) -> None:
    frame = simulate(10, seed=1)
    broken = frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 4)
        .then(pl.lit(value, dtype=table.SCHEMA[column]))
        .otherwise(pl.col(column))
        .alias(column)
    )
    with pytest.raises(RowInvalid, match=rule) as caught:
        table.check(broken)
    assert caught.value.row == 4


def test_a_column_that_is_absent_or_of_another_type_is_named() -> None:
    frame = simulate(10, seed=1)
    with pytest.raises(ColumnInvalid, match="'ask': found none"):
        table.check(frame.drop("ask"))
    with pytest.raises(ColumnInvalid, match="'price': found Float32, expected Float64"):
        table.check(frame.with_columns(pl.col("price").cast(pl.Float32)))
    with pytest.raises(ColumnInvalid, match="'price'"):
        table.ticks_table({"symbol": ["A"], "exchange_ts_ns": [1], "sequence": [0]})
    with pytest.raises(TooFewRows):
        table.check(frame.clear())


def test_the_fingerprint_changes_with_any_value_and_with_nothing_else() -> None:
    frame = simulate(20, seed=1)
    same = table.fingerprint(frame)
    assert table.fingerprint(pl.concat([frame.head(7), frame.tail(13)])) == same
    for column in table.SCHEMA:
        rolled = frame.with_columns(pl.col(column).reverse())
        changed = not rolled[column].equals(frame[column])
        assert (table.fingerprint(rolled) != same) == changed
    assert table.fingerprint(frame.with_columns(symbol=pl.lit("OTHER"))) != same
    assert table.fingerprint(frame.head(19)) != same


def test_the_simulator_gives_the_same_market_for_the_same_seed() -> None:
    assert simulate(100, seed=5, edge=0.2).equals(simulate(100, seed=5, edge=0.2))
    assert not simulate(100, seed=5).equals(simulate(100, seed=6))


def test_simulated_trades_and_quotes_are_consistent() -> None:
    frame = simulate(5000, seed=2, edge=0.4, tick_size=0.05, spread_ticks=3)
    bid, ask, price, side = (table.values(frame, name) for name in ("bid", "ask", "price", "aggressor"))
    np.testing.assert_allclose(ask - bid, 0.15, rtol=1e-9)
    np.testing.assert_allclose(np.rint(bid / 0.05) * 0.05, bid, rtol=1e-12)
    np.testing.assert_array_equal(price, np.where(side > 0, ask, bid))
    assert (np.diff(table.values(frame, "exchange_ts_ns")) > 0).all()


@pytest.mark.parametrize("edge", [0.0, 0.2, 0.4])
def test_the_planted_relation_is_there_with_the_documented_strength(edge: float) -> None:
    mid = table.mid(simulate(40_000, seed=11, edge=edge, tick_size=1e-6))
    r = np.diff(np.log(mid))
    before = np.convolve(r, np.ones(5))[4:-5]
    slope = (before @ r[5:]) / (before @ before)
    assert slope == pytest.approx(edge / math.sqrt(5), abs=0.01)


@pytest.mark.parametrize(
    "more", [{"edge": 0.5}, {"edge": math.nan}, {"trades": 0}, {"tick_size": 0.0}, {"spread_ticks": 0}]
)
def test_the_simulator_refuses_what_is_out_of_range(more: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(more))):
        simulate(**({"trades": 10, "seed": 1} | more))
