"""Numbers for the symbols of ticks that wait: a row where there is one, else a place among the newcomers.

A symbol gets its row with its first accepted tick, so until then its ticks wait under a code of their own. Such a code
is free again once none of its ticks waits.
"""

import numpy as np
from numpy.typing import NDArray

from tickgate_server.errors import FieldInvalid, IngestFull
from tickgate_server.ingest.kernel import INVALID, NEW
from tickgate_server.ticks.instruments import SYMBOL_BYTES
from tickgate_server.ticks.symbol_index import find_rows
from tickgate_server.ticks.symbols import SymbolTable

NEWCOMERS = 65_536
"""Most at a time: as many as one message may have symbols."""


class Codes:
    """Codes of one engine's symbols.

    Attributes:
        rows_of: int64 [codes]: the row of each; `kernel.NEW` of a newcomer that has none yet.

    Args:
        symbols: Rows of the symbols.
        capacity: Most of them.
    """

    def __init__(self, symbols: SymbolTable, capacity: int) -> None:
        self._symbols = symbols
        self._capacity = capacity
        self.rows_of = np.concatenate((np.arange(capacity), np.full(NEWCOMERS, NEW, np.int64)))
        self._code_of: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._waiting = np.zeros(NEWCOMERS, np.int64)  # ticks of each newcomer
        self._never_used = 0
        self._free: list[int] = []
        self._given: list[int] = []

    def name(self, code: int) -> str:
        """A newcomer's symbol."""
        return self._names[code]

    def find(self, data: bytes, spans: NDArray[np.int64], where: str) -> NDArray[np.int64]:
        """Codes of a message's symbols; below 0: why their ticks are rejected.

        `forget_unused` is to be called once the ticks were counted in, or will not be.

        Args:
            data: Holds them.
            spans: Where each begins and its length in bytes, int64 [n, 2].
            where: What they are called in an error, with `{}` for the number.

        Raises:
            SymbolElsewhere: One is another worker's.
            FieldInvalid: One is no UTF-8.
            IngestFull: There are too many newcomers.
        """
        index = self._symbols.index
        codes = np.empty(len(spans), np.int64)
        if find_rows(data, spans, index.slots, index.names, index.lengths, codes):
            for number in np.flatnonzero(codes < 0).tolist():
                at, length = spans[number].tolist()
                codes[number] = self._unlisted(data[at : at + length], where.format(number))
        return codes

    def count_in(self, codes: NDArray[np.int64]) -> None:
        """Ticks with these codes wait."""
        np.add.at(self._waiting, codes[codes >= self._capacity] - self._capacity, 1)

    def count_out(self, codes: NDArray[np.int64]) -> None:
        """Ticks with these codes wait no more."""
        new = codes[codes >= self._capacity]
        if new.size:
            np.subtract.at(self._waiting, new - self._capacity, 1)
            self._free_unused(np.unique(new).tolist())

    def forget_unused(self) -> None:
        """Free the codes that `find` gave out since and that no tick was counted in with."""
        given, self._given = self._given, []
        self._free_unused(given)

    def clear(self) -> None:
        """No tick waits."""
        self._waiting[:] = 0
        self._free_unused(list(self._names))

    def _free_unused(self, codes: list[int]) -> None:
        for code in codes:
            if self._waiting[code - self._capacity] == 0:
                del self._code_of[self._names.pop(code)]
                self.rows_of[code] = NEW
                self._free.append(code)

    def _unlisted(self, data: bytes, where: str) -> int:
        """The code of a symbol without a row."""
        if not 0 < len(data) <= SYMBOL_BYTES:
            return INVALID
        try:
            symbol = data.decode()
        except UnicodeDecodeError:
            raise FieldInvalid(where, "UTF-8", data) from None
        known = self._code_of.get(symbol)
        if known is not None:
            return known
        row = self._symbols.offer(symbol)
        if row < 0:
            return row
        if self._free:
            code = self._free.pop()
        elif self._never_used < NEWCOMERS:
            code = self._capacity + self._never_used
            self._never_used += 1
        else:
            raise IngestFull("symbols that are new", NEWCOMERS)
        self._code_of[symbol] = code
        self._names[code] = symbol
        self._given.append(code)
        return code
