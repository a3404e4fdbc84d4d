"""Arrays handed to kernels by their addresses: one table for many, as handing over an array takes a kernel 150 ns.

A table is int64 [arrays, 3]: address, rows, columns (0 for a vector). It borrows: who makes it keeps the arrays alive.
"""

from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]  # not in its __all__
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from tickgate_server.kernels import kernel

TABLE = types.int64[:, ::1]


def _address_as_pointer(context: Any, address: Any) -> Any:
    """An address as a pointer."""
    del context

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


void_pointer: Any = intrinsic(_address_as_pointer)


class ArrayTable:
    """Arrays by number, and their addresses for kernels.

    Attributes:
        table: int64 [arrays, 3]: address, rows and columns of each.
    """

    __slots__ = ("_arrays", "table")

    def __init__(self, count: int) -> None:
        self._arrays: list[NDArray[Any] | None] = [None] * count
        self.table = np.zeros((count, 3), np.int64)

    def put(self, number: int, array: NDArray[Any]) -> None:
        """Hold an array under a number, in place of the one before.

        Raises:
            ValueError: It is not C-contiguous, or has more than two dimensions.
        """
        if not array.flags.c_contiguous or array.ndim > 2:
            raise ValueError(f"array {number}: expected one or two dimensions, C-contiguous")
        self._arrays[number] = array
        self.table[number] = 0
        self.table[number, : 1 + array.ndim] = (array.ctypes.data, *array.shape)


@kernel(types.int64[:, ::1](types.int64, types.int64))
def table_at(address: int, count: int) -> Any:
    """Another table, of so many arrays, by its address."""
    return carray(void_pointer(address), (count, 3), np.int64)


@kernel(types.float64[::1](TABLE, types.int64))
def floats(table: NDArray[np.int64], number: int) -> Any:
    """A float64 vector."""
    return carray(void_pointer(table[number, 0]), (table[number, 1],), np.float64)


@kernel(types.float64[:, ::1](TABLE, types.int64))
def float_rows(table: NDArray[np.int64], number: int) -> Any:
    """A float64 matrix."""
    return carray(void_pointer(table[number, 0]), (table[number, 1], table[number, 2]), np.float64)


@kernel(types.int64[::1](TABLE, types.int64))
def integers(table: NDArray[np.int64], number: int) -> Any:
    """An int64 vector."""
    return carray(void_pointer(table[number, 0]), (table[number, 1],), np.int64)


@kernel(types.int64[:, ::1](TABLE, types.int64))
def integer_rows(table: NDArray[np.int64], number: int) -> Any:
    """An int64 matrix."""
    return carray(void_pointer(table[number, 0]), (table[number, 1], table[number, 2]), np.int64)


@kernel(types.uint64[:, ::1](TABLE, types.int64))
def word_rows(table: NDArray[np.int64], number: int) -> Any:
    """A uint64 matrix."""
    return carray(void_pointer(table[number, 0]), (table[number, 1], table[number, 2]), np.uint64)


@kernel(types.uint8[:, ::1](TABLE, types.int64))
def byte_rows(table: NDArray[np.int64], number: int) -> Any:
    """A uint8 matrix."""
    return carray(void_pointer(table[number, 0]), (table[number, 1], table[number, 2]), np.uint8)


@kernel(types.uint64[::1](TABLE, types.int64))
def words(table: NDArray[np.int64], number: int) -> Any:
    """A uint64 vector."""
    return carray(void_pointer(table[number, 0]), (table[number, 1],), np.uint64)


@kernel(types.uint8[::1](TABLE, types.int64))
def octets(table: NDArray[np.int64], number: int) -> Any:
    """A uint8 vector."""
    return carray(void_pointer(table[number, 0]), (table[number, 1],), np.uint8)


@kernel(types.boolean[::1](TABLE, types.int64))
def flags(table: NDArray[np.int64], number: int) -> Any:
    """A bool vector."""
    return carray(void_pointer(table[number, 0]), (table[number, 1],), np.bool_)


@kernel(types.float32[:, ::1](TABLE, types.int64))
def single_rows(table: NDArray[np.int64], number: int) -> Any:
    """A float32 matrix."""
    return carray(void_pointer(table[number, 0]), (table[number, 1], table[number, 2]), np.float32)
