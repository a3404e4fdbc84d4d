"""Published ticks out of polled records, as columns; and the names of the rows that they have."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_server.journal.layout import NO_ROW, SYMBOL_BYTES, TICKS, TICKS_WIDTH, RecordKind, TickOutcome
from tickgate_server.journal.segments import Rows

_TEXT = f"S{SYMBOL_BYTES}"


@dataclass(frozen=True, slots=True, eq=False)
class PublishedTicks:
    """Published ticks of some records, in the order applied.

    Attributes:
        sequences: Of the record that each is in, uint64 [n].
        clocks_ns: Clock that was read for it, int64 [n]; 0 in replay mode.
        symbols: UTF-8, bytes [n]; empty where it had no row.
        ticks: `layout.PUBLISHED` [n].
    """

    sequences: NDArray[np.uint64]
    clocks_ns: NDArray[np.int64]
    symbols: NDArray[np.bytes_]
    ticks: NDArray[np.void]

    def __len__(self) -> int:
        return self.ticks.size

    def applied(self) -> "PublishedTicks":
        """Those that changed their symbol's state as accepted ticks do."""
        outcomes = self.ticks["outcome"]
        return self._chosen((outcomes == TickOutcome.ACCEPTED) | (outcomes == TickOutcome.CONFIRMED))

    def times_ns(self) -> NDArray[np.int64]:
        """When each was applied, as its book knows it: the clock that was read, or in replay mode its own stamp."""
        found: NDArray[np.int64] = np.where(self.clocks_ns > 0, self.clocks_ns, self.ticks["exchange_ts_ns"])
        return found

    def numbered(self, number: Callable[[bytes], int]) -> NDArray[np.int64]:
        """A number for the symbol of each, int64 [n]; `number` is asked once a symbol."""
        _, first, place = np.unique(self.ticks["row"], return_index=True, return_inverse=True)
        found = np.array([number(symbol) for symbol in self.symbols[first].tolist()], np.int64)
        return found[place.reshape(-1)] if found.size else np.zeros(0, np.int64)

    def trades(self) -> "PublishedTicks":
        """Those of them that have a trade."""
        return self._chosen(self.ticks["kind"] & 1 != 0)

    def _chosen(self, chosen: NDArray[np.bool_]) -> "PublishedTicks":
        if chosen.all():
            return self
        return PublishedTicks(self.sequences[chosen], self.clocks_ns[chosen], self.symbols[chosen], self.ticks[chosen])


def published_of(rows: Rows, symbols: Mapping[int, str]) -> PublishedTicks:
    """All published ticks among polled records.

    Args:
        rows: `layout.DECISION` [n], of one segment.
        symbols: By row, as `JournalReader.symbols` has them for these records.
    """
    records = rows[rows["kind"] == RecordKind.TICKS].view(TICKS)
    held = np.arange(TICKS_WIDTH) < records["tick_count"][:, None]
    ticks = records["ticks"][held]
    names = np.zeros(max(symbols, default=-1) + 2, _TEXT)  # the last is nobody's
    for row, symbol in symbols.items():
        names[row] = symbol.encode()
    rows_of = ticks["row"].astype(np.int64)
    rows_of[(rows_of == NO_ROW) | (rows_of >= names.size)] = names.size - 1
    counts = records["tick_count"]
    return PublishedTicks(
        np.repeat(records["sequence"], counts), np.repeat(records["clock_ns"], counts), names[rows_of], ticks
    )
