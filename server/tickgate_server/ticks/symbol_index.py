"""Symbols to rows by the bytes of a request: an open-addressed table that kernels can search."""

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.kernels import kernel
from tickgate_server.ticks.instruments import SYMBOL_BYTES

DATA = types.Bytes(types.uint8, 1, "C")


@kernel(types.uint64(DATA, types.int64, types.int64))
def symbol_hash(data: bytes, at: int, length: int) -> int:
    """FNV-1a, 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv)."""
    value = np.uint64(0xCBF29CE484222325)
    for k in range(at, at + length):
        value = (value ^ np.uint64(data[k])) * np.uint64(0x100000001B3)
    return value


@kernel(types.int64(DATA, types.int64, types.int64, types.int64[::1], types.uint8[:, ::1], types.int64[::1]))
def find_row(
    data: bytes, at: int, length: int, slots: NDArray[np.int64], names: NDArray[np.uint8], lengths: NDArray[np.int64]
) -> int:
    """The row of a symbol in the open-addressed table `slots` of rows (-1: empty), or -1."""
    mask = slots.size - 1
    slot = np.int64(symbol_hash(data, at, length) & np.uint64(mask))
    while slots[slot] >= 0:
        row = slots[slot]
        if lengths[row] == length:
            same = True
            for k in range(length):
                if names[row, k] != data[at + k]:
                    same = False
                    break
            if same:
                return row
        slot = (slot + 1) & mask
    return -1


@kernel(
    types.int64(DATA, types.int64[:, ::1], types.int64[::1], types.uint8[:, ::1], types.int64[::1], types.int64[::1])
)
def find_rows(
    data: bytes,
    spans: NDArray[np.int64],
    slots: NDArray[np.int64],
    names: NDArray[np.uint8],
    lengths: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> int:
    """The rows of many symbols into `rows`, -1 where there is none; how many have none.

    Args:
        data: Holds the symbols.
        spans: Where each begins in it, and its length, int64 [n, 2].
        slots: As `find_row`, like the two that follow.
        names: As above.
        lengths: As above.
        rows: int64 [n].
    """
    missing = 0
    for k in range(spans.shape[0]):
        rows[k] = -1
        if 0 < spans[k, 1] <= SYMBOL_BYTES:
            rows[k] = find_row(data, spans[k, 0], spans[k, 1], slots, names, lengths)
        if rows[k] < 0:
            missing += 1
    return missing


class SymbolIndex:
    """The table; at most half full.

    Attributes:
        slots: int64 [power of two]: rows, -1 where there is none.
        names: uint8 [capacity, SYMBOL_BYTES], by row.
        lengths: int64 [capacity], by row.
    """

    __slots__ = ("lengths", "names", "slots")

    def __init__(self, capacity: int) -> None:
        self.slots = np.full(1 << (2 * capacity - 1).bit_length(), -1, np.int64)
        self.names = np.zeros((capacity, SYMBOL_BYTES), np.uint8)
        self.lengths = np.zeros(capacity, np.int64)

    def add(self, symbol: str, row: int) -> None:
        """Give a symbol its row."""
        data = symbol.encode()
        self.names[row, : len(data)] = np.frombuffer(data, np.uint8)
        self.lengths[row] = len(data)
        mask = self.slots.size - 1
        slot = int(symbol_hash(data, 0, len(data))) & mask
        while self.slots[slot] >= 0:
            slot = (slot + 1) & mask
        self.slots[slot] = row
