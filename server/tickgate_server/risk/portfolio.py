"""The portfolio's arithmetic: what fills, approvals, a person's word and time do to the book. Kernels alone.

An approval reserves at once; a reservation that nothing was reported for ends in time. What the book is worth then is
`valuation`'s, what becomes of an order's slot `orders`'.
"""

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.arrays import TABLE, float_rows, floats, integer_rows, integers
from tickgate_server.kernels import kernel
from tickgate_server.risk.book import (
    ACCOUNT,
    ACCOUNT_TOKENS,
    ACCOUNT_TOKENS_NS,
    AVERAGE_COST,
    BEGINS_FROM,
    BEGINS_TO,
    BREACHED,
    BUY_ORDERS,
    CALENDAR,
    EXPIRES_NS,
    EXPIRY_HEAD,
    FILLED,
    HELD,
    HIGHEST_ROW,
    LAST_ORDER,
    MARK,
    NEXT_SESSION_NS,
    NOW_NS,
    ORDER_FACTS,
    ORDERS_PER_S,
    ORDERS_PER_S_SYMBOL,
    POINT_VALUE,
    POLICY,
    REALISED,
    REPEATS,
    REVISION,
    ROW_FACTS,
    ROWS,
    SELL_ORDERS,
    SESSION_BEGINS,
    SESSION_END_NS,
    SESSION_FACTS,
    SESSION_PEAK,
    SESSION_PNL,
    SESSIONS,
    STATE,
    TOKENS,
    TOKENS_NS,
    UNREALISED,
    UNREALISED_BASE,
)
from tickgate_server.risk.orders import end_order, fill_order, open_order
from tickgate_server.risk.reports import OrderState
from tickgate_server.risk.valuation import mark, revalue, sum_account
from tickgate_server.ticks.calendars import next_begin

_EXPIRED = int(OrderState.EXPIRED)
_NEVER_NS = 2**63 - 1
_DUST = 1e-9  # a position below this share of a lot is rounding


@kernel(types.void(TABLE, types.int64, types.int64, types.float64, types.float64, types.float64, types.float64))
def book_fill(
    table: NDArray[np.int64], row: int, slot: int, signed_size: float, price: float, fee: float, lot: float
) -> None:
    """Book a fill: position, average cost, realised P&L, and what it leaves of its order.

    Average cost: adding to a position averages by size, taking off leaves it and realises (price - cost) a unit;
    what crosses zero begins anew at the fill's price.

    Args:
        table: The book's.
        row: The symbol's.
        slot: Of its order; -1: none.
        signed_size: Units, > 0 bought.
        price: In the instrument's currency.
        fee: In the base currency.
        lot: A position below a billionth of it is none.
    """
    rows = float_rows(table, ROWS)
    facts = integer_rows(table, ROW_FACTS)
    values = rows[row]
    filled = values[FILLED]
    realised = -fee
    if filled != 0.0 and (filled > 0.0) != (signed_size > 0.0):
        closed = min(abs(filled), abs(signed_size))
        gain = closed * (price - values[AVERAGE_COST])
        realised += (gain if filled > 0.0 else -gain) * values[POINT_VALUE]
    position = filled + signed_size
    if abs(position) < _DUST * lot:
        position = 0.0
    if position == 0.0:
        values[AVERAGE_COST] = np.nan
    elif filled == 0.0 or (filled > 0.0) != (position > 0.0):
        values[AVERAGE_COST] = price
    elif abs(position) > abs(filled):
        values[AVERAGE_COST] += (price - values[AVERAGE_COST]) * (abs(signed_size) / abs(position))
    values[FILLED] = position
    values[REALISED] += realised
    float_rows(table, SESSIONS)[facts[row, CALENDAR], SESSION_PNL] += realised
    if np.isnan(values[MARK]):
        values[MARK] = price
    facts[row, REPEATS] = 0
    if slot >= 0:
        fill_order(table, slot, abs(signed_size))
    integers(table, STATE)[REVISION] += 1
    revalue(table, row)


@kernel(types.void(TABLE, types.int64, types.float64, types.float64))
def set_position(table: NDArray[np.int64], row: int, size: float, average_cost: float) -> None:
    """Replace what was filled. Realised P&L and open orders stay, and so does the session's P&L: its base moves."""
    values = float_rows(table, ROWS)[row]
    session = float_rows(table, SESSIONS)[integer_rows(table, ROW_FACTS)[row, CALENDAR]]
    state = integers(table, STATE)
    gained = values[UNREALISED] - values[UNREALISED_BASE]
    peak, breached = session[SESSION_PEAK], state[BREACHED]
    values[FILLED] = size
    values[AVERAGE_COST] = average_cost if size != 0.0 else np.nan
    if np.isnan(values[MARK]) and size != 0.0:
        values[MARK] = average_cost
    state[REVISION] += 1
    revalue(table, row)
    base = values[UNREALISED] - gained
    values[UNREALISED_BASE] = base if np.isfinite(base) else 0.0  # of a currency without a rate: nothing is known
    if gained != 0.0:
        integer_rows(table, ROW_FACTS)[row, HELD] = 1
    session[SESSION_PEAK], state[BREACHED] = peak, breached
    sum_account(table)


# -- time ----------------------------------------------------------------------------------------------------------


@kernel(types.float64(types.float64, types.int64, types.int64, types.float64))
def tokens_at(tokens: float, since_ns: int, now_ns: int, rate: float) -> float:
    """What a bucket holds now: it fills at `rate` a second up to a second's worth, or to one. New ones are full."""
    burst = max(rate, 1.0)
    if since_ns == 0:
        return burst
    held = tokens + max(now_ns - since_ns, 0) * 1e-9 * rate
    return burst if held > burst else held  # noqa: FURB136 - a minimum would hide a NaN


@kernel(types.void(TABLE, types.int64, types.float64))
def count_approval(table: NDArray[np.int64], row: int, signed_size: float) -> None:
    """What the limits remember of an approved order: it takes a token of each bucket, and may be a repeat."""
    state = integers(table, STATE)
    rows = float_rows(table, ROWS)
    facts = integer_rows(table, ROW_FACTS)
    account = floats(table, ACCOUNT)
    policy = floats(table, POLICY)
    now_ns = state[NOW_NS]
    rows[row, TOKENS] = tokens_at(rows[row, TOKENS], facts[row, TOKENS_NS], now_ns, policy[ORDERS_PER_S_SYMBOL]) - 1.0
    facts[row, TOKENS_NS] = now_ns
    account[ACCOUNT_TOKENS] = (
        tokens_at(account[ACCOUNT_TOKENS], state[ACCOUNT_TOKENS_NS], now_ns, policy[ORDERS_PER_S]) - 1.0
    )
    state[ACCOUNT_TOKENS_NS] = now_ns
    facts[row, REPEATS] = facts[row, REPEATS] + 1 if rows[row, LAST_ORDER] == signed_size else 1
    rows[row, LAST_ORDER] = signed_size


@kernel(types.int64(TABLE, types.int64, types.float64, types.int64, types.int64))
def reserve(table: NDArray[np.int64], row: int, signed_size: float, valid_for_us: int, order_id: int) -> int:
    """An approved order: reserve its exposure, take its tokens, count its repeats; its slot, or -1 as `open_order`."""
    slot = open_order(table, row, signed_size, integers(table, STATE)[NOW_NS] + valid_for_us * 1000, order_id)
    if slot >= 0:
        count_approval(table, row, signed_size)
    return slot


@kernel(types.void(TABLE, types.int64))
def _begin_session(table: NDArray[np.int64], calendar: int) -> None:
    """P&L of a calendar's rows begins anew, from today's marks; that of the others goes on."""
    state = integers(table, STATE)
    rows = float_rows(table, ROWS)
    facts = integer_rows(table, ROW_FACTS)
    for row in range(state[HIGHEST_ROW]):
        if facts[row, CALENDAR] == calendar:
            rows[row, REALISED] = 0.0
            rows[row, UNREALISED_BASE] = rows[row, UNREALISED]
            held = rows[row, FILLED] != 0.0 or facts[row, BUY_ORDERS] or facts[row, SELL_ORDERS]
            facts[row, HELD] = 1 if held else 0
    float_rows(table, SESSIONS)[calendar, SESSION_PEAK] = 0.0
    sum_account(table)
    state[REVISION] += 1


@kernel(types.void(TABLE, types.int64))
def _begin_sessions(table: NDArray[np.int64], now_ns: int) -> None:
    """Begin the sessions that are due, and find their ends; at the first time that is read there is none to end."""
    sessions = integer_rows(table, SESSION_FACTS)
    begins_ns = integers(table, SESSION_BEGINS)
    least_ns = np.int64(_NEVER_NS)
    for calendar in range(sessions.shape[0]):
        own = sessions[calendar]
        if now_ns >= own[SESSION_END_NS]:
            if own[SESSION_END_NS]:
                _begin_session(table, calendar)
            own[SESSION_END_NS] = next_begin(begins_ns[own[BEGINS_FROM] : own[BEGINS_TO]], now_ns)
        least_ns = min(least_ns, own[SESSION_END_NS])
    integers(table, STATE)[NEXT_SESSION_NS] = least_ns


@kernel(types.int64(TABLE, types.int64))
def advance(table: NDArray[np.int64], now_ns: int) -> int:
    """Let time pass: end the sessions and the reservations that are due. How many reservations these were.

    Time never goes back: an earlier `now_ns` counts as the latest one.
    """
    state = integers(table, STATE)
    if now_ns <= state[NOW_NS]:
        return 0
    state[NOW_NS] = now_ns
    if now_ns >= state[NEXT_SESSION_NS]:
        _begin_sessions(table, now_ns)
    expired = 0
    facts = integer_rows(table, ORDER_FACTS)
    while state[EXPIRY_HEAD] >= 0 and facts[state[EXPIRY_HEAD], EXPIRES_NS] <= now_ns:
        end_order(table, state[EXPIRY_HEAD], _EXPIRED)
        expired += 1
    return expired


@kernel(types.void(TABLE, types.int64[::1], types.int64[::1], types.float64[::1]))
def pass_trades(
    table: NDArray[np.int64], rows: NDArray[np.int64], clocks_ns: NDArray[np.int64], prices: NDArray[np.float64]
) -> None:
    """Let trades pass that nobody asked about, one after the other: their time, then their price.

    Args:
        table: The book's.
        rows: Of their symbols; below 0: one that is traded here no more, of which the time counts alone.
        clocks_ns: int64 [n].
        prices: float64 [n].
    """
    for k in range(rows.size):
        advance(table, clocks_ns[k])
        if rows[k] >= 0:
            mark(table, rows[k], prices[k])
