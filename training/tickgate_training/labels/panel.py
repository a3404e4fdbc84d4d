"""Labels of several symbols in one table: rows in order of (stamp, symbol), intervals in the table's row numbers.

A label looks at rows of its own symbol, but what is tradable at the same time is known together: in a panel an interval
is compared in time. So it ends with the last row of the panel that is stamped no later than the symbol's own last row,
others' rows of that stamp included, and the windows of `splits` purge a panel as they purge one symbol. Where a symbol
begins late, pauses or ends early its rows are simply absent.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tickgate_training.errors import RowInvalid
from tickgate_training.labels.labels import Labels


def panel_ends(
    stamps_ns: NDArray[np.int64], symbols: NDArray[np.int64], interval_end: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Turn ends of label intervals from each symbol's own row numbers into the panel's.

    Args:
        stamps_ns: int64 [n], not decreasing.
        symbols: int64 [n], a number for each symbol, not decreasing within a stamp.
        interval_end: int64 [n], in the panel's order: the last row that the label looks at, counted among the symbol's
            own rows from 0; as many as the symbol has, or more, where it is not there.

    Returns:
        int64 [n]: the last row of the panel whose stamp is at most that row's; n where it is not there.

    Raises:
        RowInvalid: Rows are not in order of (stamp, symbol).
    """
    _check_order(stamps_ns, symbols)
    ends = np.full(stamps_ns.size, stamps_ns.size, np.int64)
    for rows in _rows_of_symbols(symbols):
        own = interval_end[rows]
        there = own < rows.size
        stamp = stamps_ns[rows[own[there]]]
        ends[rows[there]] = np.searchsorted(stamps_ns, stamp, side="right") - 1
    return ends


def panel_labels(
    stamps_ns: NDArray[np.int64], symbols: NDArray[np.int64], label: Callable[[NDArray[np.int64]], Labels]
) -> Labels:
    """Label a panel symbol by symbol.

    Args:
        stamps_ns: int64 [n], not decreasing.
        symbols: int64 [n], a number for each symbol, not decreasing within a stamp.
        label: Takes the panel's row numbers of one symbol, int64 [m] ascending, and gives these rows' labels with
            intervals in the symbol's own row numbers, as every kind of label here does.

    Returns:
        Labels [n] in the panel's order with intervals in the panel's row numbers; see `panel_ends`.

    Raises:
        RowInvalid: Rows are not in order of (stamp, symbol).
    """
    _check_order(stamps_ns, symbols)
    rows = stamps_ns.size
    direction, returns, own_end = np.empty(rows, np.int8), np.empty(rows), np.empty(rows, np.int64)
    for of_symbol in _rows_of_symbols(symbols):
        labels = label(of_symbol)
        direction[of_symbol], returns[of_symbol] = labels.direction, labels.returns
        own_end[of_symbol] = labels.interval_end
    return Labels(direction, returns, panel_ends(stamps_ns, symbols, own_end))


def _rows_of_symbols(symbols: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    order = np.argsort(symbols, kind="stable")
    changes = np.flatnonzero(np.diff(symbols[order])) + 1
    return np.split(order, changes) if symbols.size else []


def _check_order(stamps_ns: NDArray[np.int64], symbols: NDArray[np.int64]) -> None:
    step, symbol_step = np.diff(stamps_ns), np.diff(symbols)
    if (back := np.flatnonzero(step < 0)).size:
        row = int(back[0]) + 1
        raise RowInvalid("exchange_ts_ns", row, str(stamps_ns[row]), "the stamps of a panel do not decrease")
    if (back := np.flatnonzero((step == 0) & (symbol_step < 0))).size:
        row = int(back[0]) + 1
        raise RowInvalid("symbol", row, str(symbols[row]), "rows of one stamp are in order of their symbols")
