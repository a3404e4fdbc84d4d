"""A set of daily bars of `data.daily` as a recording; a row's line is its place in the set's chosen years."""

from collections.abc import Iterator

import numpy as np

from tickgate_server.ticks.market import TRADE
from tickgate_training.data import table
from tickgate_training.data.daily import read_bars
from tickgate_training.data.rule_loop import NUMBERS
from tickgate_training.data_check.recording import Piece


class DailyBars:
    """Bars by the set's name, `sp500` or `nasdaq:2003-2007`; see `recording.Recording`."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.passed_over: dict[str, int] = {}

    def pieces(self) -> Iterator[Piece]:
        """See `recording.Recording.pieces`."""
        frame = read_bars(self.source)
        yield Piece(
            symbols=frame["symbol"].to_list(),
            lines=np.arange(1, frame.height + 1),
            kinds=np.full(frame.height, TRADE),
            stamps_ns=table.values(frame, "exchange_ts_ns"),
            sequences=table.values(frame, "sequence"),
            values=np.column_stack([table.values(frame, name) for name in NUMBERS]),
            arrivals_ns=np.zeros(frame.height, np.int64),
            bad=[],
        )
