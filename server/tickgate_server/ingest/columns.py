"""Published ticks as they came: views of a message's columns, and ticks that were copied out of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_server.ingest.kernel import (
    ASK,
    ASK_SIZE,
    BID,
    BID_SIZE,
    CODE,
    EXCHANGE_TS_NS,
    INTEGERS,
    KIND,
    MESSAGE,
    NUMBERS,
    PRICE,
    SEQUENCE,
    SIZE,
)
from tickgate_server.ticks.market import TRADE

MESSAGE_TICKS = 65_536
"""Most ticks of a message; the queue has room for one such message at least."""
NUMBER_NAMES = ("price", "size", "bid", "ask", "bid_size", "ask_size")
_NUMBER_COLUMNS = (PRICE, SIZE, BID, ASK, BID_SIZE, ASK_SIZE)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Ticks of one message, a column a field; they may be views of its bytes, aligned or not.

    Attributes:
        index: Into the message's symbols, uint32 or int64 [n].
        kind: Bits TRADE and QUOTE, [n]; None: all are trades.
        exchange_ts_ns: int64 [n]; None: 0.
        sequence: uint64 [n]; None: 0.
        numbers: float64 [n] each, in the order of `NUMBER_NAMES`; None: 0.
    """

    index: NDArray[np.integer]
    kind: NDArray[np.integer] | None
    exchange_ts_ns: NDArray[np.int64] | None
    sequence: NDArray[np.uint64] | None
    numbers: tuple[NDArray[np.float64] | None, ...]

    def __len__(self) -> int:
        return self.index.size


class Ticks:
    """Ticks by themselves.

    Attributes:
        integers: int64 [n, INTEGERS], see `kernel`.
        numbers: float64 [n, NUMBERS].
    """

    __slots__ = ("integers", "numbers")

    def __init__(self, integers: NDArray[np.int64], numbers: NDArray[np.float64]) -> None:
        self.integers = integers
        self.numbers = numbers

    @classmethod
    def empty(cls, count: int) -> "Ticks":
        """Room for so many."""
        return cls(np.zeros((count, INTEGERS), np.int64), np.zeros((count, NUMBERS)))

    def __len__(self) -> int:
        return len(self.integers)


class Source:
    """What is left of one message, or of ticks that a reorder window let go."""

    __slots__ = ("_at", "_codes", "_columns", "_message", "_ticks", "left")

    def __init__(self, ticks: Ticks | Columns, codes: NDArray[np.int64], message: int) -> None:
        """Ticks: as they are. Columns: `codes` has the code of each of the message's symbols."""
        self._ticks = ticks if isinstance(ticks, Ticks) else None
        self._columns = ticks if isinstance(ticks, Columns) else None
        self._codes = codes
        self._message = message
        self._at = 0
        self.left = len(ticks)

    def take(self, into: Ticks, at: int) -> int:
        """Copy as many of the next ticks as there is room for into `into` from `at` on; how many."""
        begin = self._at
        count = min(self.left, len(into) - at)
        end, stop = begin + count, at + count
        self._at = end
        self.left -= count
        if self._ticks is not None:
            into.integers[at:stop] = self._ticks.integers[begin:end]
            into.numbers[at:stop] = self._ticks.numbers[begin:end]
        elif self._columns is not None:
            self._copy(self._columns, into, slice(begin, end), slice(at, stop))
        return count

    def _copy(self, columns: Columns, into: Ticks, taken: slice, put: slice) -> None:
        integers = into.integers
        integers[put, CODE] = self._codes[columns.index[taken]]
        integers[put, KIND] = TRADE if columns.kind is None else columns.kind[taken]
        integers[put, EXCHANGE_TS_NS] = 0 if columns.exchange_ts_ns is None else columns.exchange_ts_ns[taken]
        integers[put, SEQUENCE] = 0 if columns.sequence is None else columns.sequence[taken].view(np.int64)
        integers[put, MESSAGE] = self._message
        for number, column in zip(_NUMBER_COLUMNS, columns.numbers, strict=True):
            into.numbers[put, number] = 0.0 if column is None else column[taken]
