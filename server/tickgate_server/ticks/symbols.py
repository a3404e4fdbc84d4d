"""Symbols to rows of the state arrays: one dict look-up a request."""

from collections.abc import Callable

import numpy as np

from tickgate.symbol_hash import worker_of
from tickgate_server.errors import SymbolElsewhere
from tickgate_server.ticks.instruments import Instrument, Universe
from tickgate_server.ticks.symbol_index import SymbolIndex

UNKNOWN, FULL = -1, -2
# Columns of `SymbolTable.contracts`.
TICK_SIZE, LOT, MINIMUM_SIZE, MULTIPLIER = range(4)
TERMS = 4


class SymbolTable:
    """Rows of the symbols, instruments of the file first, others as their first tick is accepted.

    At most `capacity` rows; a symbol beyond them is refused (`FULL`), those known are served on. One of several workers
    has rows for its own symbols only, so a symbol that has a row is never asked whose it is.

    Attributes:
        universe: As given.
        index: The same rows, for kernels.
        contracts: float64 [capacity, TERMS]; tick size, lot, minimum size and multiplier by row.
        on_row: Called with row and instrument after a symbol got its row.
    """

    def __init__(self, universe: Universe, capacity: int, worker: int = 0, workers: int = 1) -> None:
        self._worker = worker
        self._workers = workers
        own = [instrument for instrument in universe.instruments.values() if self._owner(instrument.symbol) == worker]
        if len(own) > capacity:
            raise ValueError(f"{len(own)} instruments, and capacity for {capacity} symbols")
        self.universe = universe
        self._capacity = capacity
        self._rows: dict[str, int] = {}
        self.index = SymbolIndex(capacity)
        self._candidate: Instrument | None = None
        self.on_row: Callable[[int, Instrument], None] = lambda row, instrument: None  # noqa: ARG005 - nobody asked
        self.contracts = np.full((capacity, TERMS), np.nan)
        for instrument in own:
            self._set(len(self._rows), instrument)

    def __len__(self) -> int:
        return len(self._rows)

    def twin(self) -> "SymbolTable":
        """An empty one of the same universe."""
        return SymbolTable(self.universe, self._capacity, self._worker, self._workers)

    @property
    def names(self) -> list[str]:
        """The symbols by row."""
        return list(self._rows)

    def row(self, symbol: str) -> int:
        """The symbol's row, or `UNKNOWN`."""
        return self._rows.get(symbol, UNKNOWN)

    def offer(self, symbol: str) -> int:
        """The row that a new symbol would get: it is kept only by `keep`. `UNKNOWN` in a closed universe, or `FULL`.

        Raises:
            SymbolElsewhere: Another worker has it.
        """
        self.require_own(symbol)
        instrument = self.universe.find(symbol)
        if instrument is None:
            return UNKNOWN
        if len(self._rows) == self._capacity:
            return FULL
        self._candidate = instrument
        return len(self._rows)

    def keep(self) -> None:
        """Give the symbol last offered its row, because its first tick was accepted."""
        if self._candidate is None:
            raise ValueError("no symbol was offered")
        self._set(len(self._rows), self._candidate)
        self._candidate = None

    def require_own(self, symbol: str) -> None:
        """Refuse a symbol without a row that another worker has: two workers would hold state for it.

        Raises:
            SymbolElsewhere: Another worker has it.
        """
        owner = self._owner(symbol)
        if owner != self._worker:
            raise SymbolElsewhere(owner, self._workers, self._worker)

    def _owner(self, symbol: str) -> int:
        return 0 if self._workers == 1 else worker_of(symbol, self._workers)

    def _set(self, row: int, instrument: Instrument) -> None:
        self._rows[instrument.symbol] = row
        self.index.add(instrument.symbol, row)
        self.contracts[row] = (
            instrument.tick_size,
            instrument.lot,
            instrument.minimum_size,
            instrument.multiplier,
        )
        self.on_row(row, instrument)
