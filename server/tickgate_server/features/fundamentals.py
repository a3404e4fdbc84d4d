"""Fundamentals behind the features of ticks: what was known of a symbol at its latest tick's time, and not too old.

A value counts from its as-of time on, until the next one does; the newest alone counts, so that one which is too old is
not stood in for by an older one. Time is the venue's, of the tick that is scored: live, in a replay and in training the
same tick sees the same values.
"""

from collections.abc import Iterable

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.arrays import TABLE, ArrayTable, floats, integers
from tickgate_server.features.fundamentals_table import FundamentalsTable
from tickgate_server.features.schema import FeatureSet
from tickgate_server.kernels import kernel

# Arrays of a feature set's `KnownFundamentals.of`.
_SYMBOLS, _NAMES, _AGES, _OFFSETS, _AS_OF, _VALUES, _WIDTH = range(7)


@kernel("float64(int64[::1], float64[::1], int64, int64, int64, int64)")
def in_force(
    as_of_ns: NDArray[np.int64],
    values: NDArray[np.float64],
    begin: int,
    end: int,
    stamp_ns: int,
    maximum_age_ns: int,
) -> float:
    """The value of one history that counts at a time.

    Args:
        as_of_ns: When each value became known; of the history, ascending.
        values: The values, float64 like them.
        begin: Where the history begins in both.
        end: Before which it ends.
        stamp_ns: The time, above 0.
        maximum_age_ns: How old the value may be; just as old is not too old.

    Returns:
        The value with the latest `as_of_ns` <= `stamp_ns`; NaN where there is none, or it is too old.
    """
    low, high = begin, end
    while low < high:
        middle = (low + high) >> 1
        if as_of_ns[middle] <= stamp_ns:
            low = middle + 1
        else:
            high = middle
    if low == begin or stamp_ns - as_of_ns[low - 1] > maximum_age_ns:
        return np.nan
    found: float = values[low - 1]
    return found


@kernel("void(int64[::1], float64[::1], int64[::1], int64, float64[::1])")
def _batch(
    as_of_ns: NDArray[np.int64],
    values: NDArray[np.float64],
    stamps_ns: NDArray[np.int64],
    maximum_age_ns: int,
    out: NDArray[np.float64],
) -> None:
    for i in range(stamps_ns.size):
        out[i] = in_force(as_of_ns, values, 0, as_of_ns.size, stamps_ns[i], maximum_age_ns)


def batch(
    as_of_ns: NDArray[np.int64], values: NDArray[np.float64], stamps_ns: NDArray[np.int64], maximum_age_ns: int
) -> NDArray[np.float64]:
    """One history at many times: the loop over `in_force`.

    Args:
        as_of_ns: int64 [rows], ascending.
        values: float64 [rows].
        stamps_ns: int64 [n], above 0.
        maximum_age_ns: As `in_force`.

    Returns:
        float64 [n].

    Raises:
        ValueError: There is not one value for each time that one became known.
    """
    if as_of_ns.size != values.size:
        raise ValueError(f"lengths differ: {as_of_ns.size} as_of_ns, {values.size} values")
    out = np.empty(stamps_ns.size)
    _batch(
        np.require(as_of_ns, np.int64, ("C", "W")),
        np.require(values, np.float64, ("C", "W")),
        np.require(stamps_ns, np.int64, ("C", "W")),
        maximum_age_ns,
        out,
    )
    return out


def columns(
    feature_set: FeatureSet, table: FundamentalsTable, symbol: str, stamps_ns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The fundamentals of a feature set at one symbol's ticks, float32 [n, k]; NaN where one does not count."""
    found = np.empty((stamps_ns.size, len(feature_set.fundamentals)), np.float32)
    for k, fundamental in enumerate(feature_set.fundamentals):
        own = table.history(symbol, fundamental.name)
        found[:, k] = batch(table.as_of_ns[own], table.values[own], stamps_ns, fundamental.maximum_age_ns)
    return found


@kernel(types.boolean(TABLE, types.int64, types.int64, types.float32[::1]))
def append(known: NDArray[np.int64], row: int, stamp_ns: int, vector: NDArray[np.float32]) -> bool:
    """Write a symbol's fundamentals behind the features of its ticks.

    Args:
        known: Of the feature set, see `KnownFundamentals.of`.
        row: The symbol's.
        stamp_ns: Its latest tick's time.
        vector: float32 [width]; its last entries are written, NaN where a value does not count.

    Returns:
        Whether every one counts.
    """
    symbol = integers(known, _SYMBOLS)[row]
    names = integers(known, _NAMES)
    ages_ns = integers(known, _AGES)
    offsets = integers(known, _OFFSETS)
    as_of_ns = integers(known, _AS_OF)
    values = floats(known, _VALUES)
    width = integers(known, _WIDTH)[0]
    first = vector.size - names.size
    complete = True
    for k in range(names.size):
        value = np.nan
        if symbol >= 0 and names[k] >= 0:
            cell = symbol * width + names[k]
            value = in_force(as_of_ns, values, offsets[cell], offsets[cell + 1], stamp_ns, ages_ns[k])
        vector[first + k] = value
        complete &= abs(vector[first + k]) < np.inf  # NaN is not
    return complete


class KnownFundamentals:
    """The table in force, for up to `capacity` symbols of an engine; empty until one is adopted.

    One thread at a time, the engine's. Another table is taken over between two requests: a look-up a symbol.
    """

    __slots__ = ("_number_of_symbol", "_of", "_symbols", "_table", "_width")

    def __init__(self, capacity: int) -> None:
        self._symbols = np.full(capacity, -1, np.int64)  # each row's number in the table
        self._width = np.zeros(1, np.int64)
        self._of: dict[FeatureSet, tuple[ArrayTable, NDArray[np.int64]]] = {}
        self._number_of_symbol: dict[str, int] = {}
        self._table = FundamentalsTable((), (), np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0))

    def of(self, feature_set: FeatureSet) -> NDArray[np.int64]:
        """What `append` reads for a feature set; its content follows the table in force."""
        if feature_set not in self._of:
            ages_ns = np.array([found.maximum_age_ns for found in feature_set.fundamentals], np.int64)
            self._of[feature_set] = ArrayTable(7), ages_ns
            self._put(feature_set)
        return self._of[feature_set][0].table

    def adopt(self, table: FundamentalsTable, symbols: Iterable[str]) -> list[str]:
        """Put a table in force.

        Args:
            table: As `fundamentals_table.parse` gives it.
            symbols: Of the engine, by row.

        Returns:
            Names that feature sets take and the table lacks: their models are not ready.
        """
        self._table = table
        self._number_of_symbol = {symbol: number for number, symbol in enumerate(table.symbols)}
        self._symbols[:] = -1
        for row, symbol in enumerate(symbols):
            self._symbols[row] = self._number_of_symbol.get(symbol, -1)
        for feature_set in self._of:
            self._put(feature_set)
        taken = {found.name for feature_set in self._of for found in feature_set.fundamentals}
        return sorted(taken - set(table.names))

    def add_row(self, row: int, symbol: str) -> None:
        """A symbol got its row."""
        self._symbols[row] = self._number_of_symbol.get(symbol, -1)

    def _put(self, feature_set: FeatureSet) -> None:
        arrays, ages_ns = self._of[feature_set]
        table = self._table
        number_of = {name: number for number, name in enumerate(table.names)}
        names = np.array([number_of.get(found.name, -1) for found in feature_set.fundamentals], np.int64)
        self._width[0] = len(table.names)
        arrays.put(_SYMBOLS, self._symbols)
        arrays.put(_NAMES, names)
        arrays.put(_AGES, ages_ns)
        arrays.put(_OFFSETS, table.offsets)
        arrays.put(_AS_OF, table.as_of_ns)
        arrays.put(_VALUES, table.values)
        arrays.put(_WIDTH, self._width)
