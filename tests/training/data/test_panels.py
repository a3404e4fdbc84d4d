"""Panels of daily closes."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from tickgate_training.data import table
from tickgate_training.data.daily import read_bars
from tickgate_training.data.panels import NAMES, read_panel
from tickgate_training.data.sessions import session_numbers
from tickgate_training.data.tick_rules import verdicts
from tickgate_training.errors import SourceUnreadable


@pytest.mark.parametrize(
    ("name", "symbols", "sessions"), [("sp500", 20, 8313), ("factors", 5, 2264), ("sp500_index", 1, 8313)]
)
def test_a_panel_has_a_close_of_each_symbol_in_each_session(name: str, symbols: int, sessions: int) -> None:
    frame = read_panel(name)
    assert frame.height == symbols * sessions
    per_symbol = frame.group_by("symbol").agg(pl.col("sequence"), pl.col("exchange_ts_ns"))
    assert per_symbol.height == symbols
    assert per_symbol["sequence"].to_list() == [list(range(1, sessions + 1))] * symbols
    assert per_symbol["exchange_ts_ns"].n_unique() == 1
    assert frame.select("exchange_ts_ns", "symbol").equals(frame.select("exchange_ts_ns", "symbol").sort(pl.all()))


def test_a_close_is_the_sets_price_at_four_in_new_york() -> None:
    frame = read_panel("sp500")
    first = datetime.fromtimestamp(frame["exchange_ts_ns"][0] / 1e9, ZoneInfo("America/New_York"))
    assert (first.date().isoformat(), first.hour, first.minute) == ("1990-01-02", 16, 0)
    assert frame.filter(pl.col("exchange_ts_ns") == frame["exchange_ts_ns"][0])["price"].head(3).to_list() == [
        0.264,
        4.125,
        4.599,
    ]
    assert frame.filter(symbol="XOM")["price"][0] == 4.068


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_volume_is_zero_and_the_server_takes_every_row(name: str) -> None:
    frame = read_panel(name)
    assert bool((frame["size"] == 0).all()) == (name != "indices")
    assert set(frame["aggressor"]) == {table.UNKNOWN}
    # Days of March 2020 that the next day did not confirm.
    assert np.unique(verdicts(frame), return_counts=True)[1][1:].tolist() == {"sp500": [4], "factors": [1]}.get(
        name, []
    )


def test_a_sets_days_are_the_sessions_of_new_york() -> None:
    stamps = table.values(read_panel("sp500_index"), "exchange_ts_ns")
    assert session_numbers(stamps, "XNYS").tolist() == list(range(8313))


def test_both_indices_are_one_panel_with_the_rows_of_each() -> None:
    frame = read_panel("indices")
    for symbol, name in (("SPX", "sp500"), ("IXIC", "nasdaq")):
        assert frame.filter(symbol=symbol).equals(read_bars(name))


def test_a_range_of_years_keeps_the_sets_numbers() -> None:
    whole, part = read_panel("factors"), read_panel("factors:2015-2016")
    assert part.height == 5 * 504
    assert part.equals(whole.filter(pl.col("sequence").is_in(part["sequence"].unique().implode())))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("ftse", "known: sp500, factors, sp500_index, indices"),
        ("factors:2013", "spans 2014 to 2022"),
        ("sp500:2004-2003", "neither"),
    ],
)
def test_an_unknown_set_or_range_is_named(source: str, why: str) -> None:
    with pytest.raises(SourceUnreadable, match=why):
        read_panel(source)
