"""Orders of the book: slots that are taken, ended and taken again. Kernels alone.

A slot is in one of two lists, that of reservations by their expiry or that of ended orders by their end, or in none.
What remains of an open order is exposure; `_open` is where it comes and goes.
"""

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.arrays import TABLE, float_rows, integer_rows, integers
from tickgate_server.kernels import kernel
from tickgate_server.risk.book import (
    BUY_ORDERS,
    ENDED_HEAD,
    ENDED_TAIL,
    EVICTED,
    EXPIRES_NS,
    EXPIRY_HEAD,
    EXPIRY_TAIL,
    NEXT,
    OPEN_BUYS,
    OPEN_ORDERS,
    OPEN_SELLS,
    ORDER_FACTS,
    ORDER_ID,
    ORDER_ROW,
    ORDER_STATE,
    ORDERS,
    ORDERS_LIMIT,
    PREVIOUS,
    REMAINING,
    REVISION,
    ROW_FACTS,
    ROWS,
    SELL_ORDERS,
    SIGNED_SIZE,
    STATE,
    UNUSED,
)
from tickgate_server.risk.reports import OrderState
from tickgate_server.risk.valuation import revalue

_RESERVED, _ACCEPTED, _ENDED_FILLED, _EXPIRED = (
    int(OrderState.RESERVED),
    int(OrderState.ACCEPTED),
    int(OrderState.FILLED),
    int(OrderState.EXPIRED),
)
_DUST = 1e-9  # a remainder below this share of its order is rounding


@kernel(types.void(TABLE, types.int64, types.int64, types.int64))
def _unlink(table: NDArray[np.int64], slot: int, head: int, tail: int) -> None:
    facts = integer_rows(table, ORDER_FACTS)
    state = integers(table, STATE)
    before, after = facts[slot, PREVIOUS], facts[slot, NEXT]
    if before >= 0:
        facts[before, NEXT] = after
    else:
        state[head] = after
    if after >= 0:
        facts[after, PREVIOUS] = before
    else:
        state[tail] = before


@kernel(types.void(TABLE, types.int64, types.int64, types.int64, types.int64))
def _link_after(table: NDArray[np.int64], slot: int, before: int, head: int, tail: int) -> None:
    """Put a slot into a list behind `before`; -1: at its head."""
    facts = integer_rows(table, ORDER_FACTS)
    state = integers(table, STATE)
    after = facts[before, NEXT] if before >= 0 else state[head]
    facts[slot, PREVIOUS], facts[slot, NEXT] = before, after
    if before >= 0:
        facts[before, NEXT] = slot
    else:
        state[head] = slot
    if after >= 0:
        facts[after, PREVIOUS] = slot
    else:
        state[tail] = slot


@kernel(types.int64(TABLE))
def _take_slot(table: NDArray[np.int64]) -> int:
    """A slot for a new order, the oldest ended one's if need be; -1: all are open."""
    state = integers(table, STATE)
    state[EVICTED] = 0
    if state[UNUSED] < ORDERS_LIMIT:
        state[UNUSED] += 1
        return state[UNUSED] - 1
    slot = state[ENDED_HEAD]
    if slot >= 0:
        _unlink(table, slot, ENDED_HEAD, ENDED_TAIL)
        state[EVICTED] = integer_rows(table, ORDER_FACTS)[slot, ORDER_ID]
    return slot


@kernel(types.void(TABLE, types.int64, types.float64, types.int64))
def _open(table: NDArray[np.int64], row: int, signed: float, count: int) -> None:
    """Add units to a row's open orders, `count` 1, or take them off, -1; 0: their number stays. Signed by side."""
    rows = float_rows(table, ROWS)
    facts = integer_rows(table, ROW_FACTS)
    buys = np.copysign(1.0, signed) > 0.0  # the end of a filled order takes off 0 or -0
    orders, units = (BUY_ORDERS, OPEN_BUYS) if buys else (SELL_ORDERS, OPEN_SELLS)
    facts[row, orders] += count
    rows[row, units] += abs(signed) if count > 0 else -abs(signed)
    if facts[row, orders] == 0 or rows[row, units] < 0.0:
        rows[row, units] = 0.0  # what is left is rounding
    integers(table, STATE)[OPEN_ORDERS] += count
    integers(table, STATE)[REVISION] += 1
    revalue(table, row)


@kernel(types.int64(TABLE, types.int64, types.float64, types.int64, types.int64))
def open_order(table: NDArray[np.int64], row: int, signed_size: float, expires_ns: int, order_id: int) -> int:
    """Take an order in: a reservation until `expires_ns`, or (0) one that is at work. Its slot; -1: there is none left.

    `STATE[EVICTED]` is the id of the order whose slot it took, 0 if none.
    """
    slot = _take_slot(table)
    if slot < 0:
        return slot
    facts = integer_rows(table, ORDER_FACTS)
    orders = float_rows(table, ORDERS)
    orders[slot, SIGNED_SIZE] = signed_size
    orders[slot, REMAINING] = abs(signed_size)
    facts[slot, ORDER_ID] = order_id
    facts[slot, ORDER_ROW] = row
    facts[slot, EXPIRES_NS] = expires_ns
    facts[slot, ORDER_STATE] = _ACCEPTED
    if expires_ns:
        facts[slot, ORDER_STATE] = _RESERVED
        before = integers(table, STATE)[EXPIRY_TAIL]
        while before >= 0 and facts[before, EXPIRES_NS] > expires_ns:  # after a change of the validity only
            before = facts[before, PREVIOUS]
        _link_after(table, slot, before, EXPIRY_HEAD, EXPIRY_TAIL)
    _open(table, row, signed_size, 1)
    return slot


@kernel(types.void(TABLE, types.int64, types.int64))
def end_order(table: NDArray[np.int64], slot: int, order_state: int) -> None:
    """End an open order; what remained of it is no exposure any more."""
    facts = integer_rows(table, ORDER_FACTS)
    orders = float_rows(table, ORDERS)
    if facts[slot, ORDER_STATE] == _RESERVED:
        _unlink(table, slot, EXPIRY_HEAD, EXPIRY_TAIL)
    facts[slot, ORDER_STATE] = order_state
    _link_after(table, slot, integers(table, STATE)[ENDED_TAIL], ENDED_HEAD, ENDED_TAIL)
    remaining = orders[slot, REMAINING]
    _open(table, facts[slot, ORDER_ROW], remaining if orders[slot, SIGNED_SIZE] > 0.0 else -remaining, -1)


@kernel(types.void(TABLE, types.int64))
def accept_order(table: NDArray[np.int64], slot: int) -> None:
    """An order is at work at the venue: it expires no more. One that had ended, all but the filled, is open again."""
    facts = integer_rows(table, ORDER_FACTS)
    orders = float_rows(table, ORDERS)
    if facts[slot, ORDER_STATE] == _RESERVED:
        _unlink(table, slot, EXPIRY_HEAD, EXPIRY_TAIL)
        facts[slot, ORDER_STATE] = _ACCEPTED
        facts[slot, EXPIRES_NS] = 0
        integers(table, STATE)[REVISION] += 1
    elif facts[slot, ORDER_STATE] > _ENDED_FILLED and orders[slot, REMAINING] > 0.0:
        _unlink(table, slot, ENDED_HEAD, ENDED_TAIL)
        facts[slot, ORDER_STATE] = _ACCEPTED
        facts[slot, EXPIRES_NS] = 0
        remaining = orders[slot, REMAINING]
        _open(table, facts[slot, ORDER_ROW], remaining if orders[slot, SIGNED_SIZE] > 0.0 else -remaining, 1)


@kernel(types.void(TABLE, types.int64, types.float64))
def fill_order(table: NDArray[np.int64], slot: int, size: float) -> None:
    """Take a fill off what remains of its order."""
    facts = integer_rows(table, ORDER_FACTS)
    orders = float_rows(table, ORDERS)
    taken = min(size, orders[slot, REMAINING])
    lapsed = facts[slot, ORDER_STATE] == _EXPIRED and facts[slot, EXPIRES_NS] != 0  # by our clock, not the venue's word
    if facts[slot, ORDER_STATE] == _RESERVED or lapsed:
        accept_order(table, slot)  # what fills is at work, though nobody said so
    orders[slot, REMAINING] -= taken
    if orders[slot, REMAINING] <= _DUST * abs(orders[slot, SIGNED_SIZE]):
        taken += orders[slot, REMAINING]
        orders[slot, REMAINING] = 0.0
    if facts[slot, ORDER_STATE] == _ACCEPTED:
        signed = taken if orders[slot, SIGNED_SIZE] > 0.0 else -taken
        rows = float_rows(table, ROWS)
        row = facts[slot, ORDER_ROW]
        units = OPEN_BUYS if signed > 0.0 else OPEN_SELLS
        rows[row, units] = max(rows[row, units] - taken, 0.0)
        if orders[slot, REMAINING] == 0.0:
            end_order(table, slot, _ENDED_FILLED)
    elif orders[slot, REMAINING] == 0.0:
        facts[slot, ORDER_STATE] = _ENDED_FILLED  # late, and whole: it can be accepted no more
