"""The portfolio's arithmetic: what fills, orders, reservations, prices and time do to the book. Kernels alone.

Limits hold for the worse of filled + open buys and filled - open sells, so that is what a row's notional is of. An
approval reserves at once; a reservation that nothing was reported for ends in time. Sums are kept by their changes and
summed in full every `SUM_EVERY` changes, so that rounding does not build up.
"""

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.arrays import TABLE, float_rows, floats, integer_rows, integers
from tickgate_server.kernels import kernel
from tickgate_server.risk import value_at_risk
from tickgate_server.risk.book import (
    ACCOUNT,
    ACCOUNT_TOKENS,
    ACCOUNT_TOKENS_NS,
    AVERAGE_COST,
    BREACHED,
    BUY_ORDERS,
    COVARIANCE,
    DOWN_NOTIONAL,
    DRAWDOWN_LIMIT,
    ENDED_HEAD,
    ENDED_TAIL,
    EVICTED,
    EXPIRES_NS,
    EXPIRY_HEAD,
    EXPIRY_TAIL,
    EXPOSED,
    FILLED,
    GROSS,
    HELD,
    HIGHEST_ROW,
    LAST_ORDER,
    LOSS_LIMIT,
    MARK,
    MEMBER,
    NET_DOWN,
    NET_UP,
    NEXT,
    NOTIONAL,
    NOW_NS,
    OPEN_BUYS,
    OPEN_ORDERS,
    OPEN_SELLS,
    ORDER_FACTS,
    ORDER_ID,
    ORDER_ROW,
    ORDER_STATE,
    ORDERS,
    ORDERS_LIMIT,
    ORDERS_PER_S,
    ORDERS_PER_S_SYMBOL,
    OUTSIDERS,
    PEAK,
    PNL,
    POINT_VALUE,
    POLICY,
    PREVIOUS,
    REALISED,
    REMAINING,
    REPEATS,
    REVISION,
    RISK_TOTALS,
    ROW_FACTS,
    ROWS,
    SCENARIO_PNL,
    SCENARIOS,
    SELL_ORDERS,
    SESSION_END_NS,
    SESSION_OFFSET_NS,
    SIGMA_W,
    SIGNED_SIZE,
    STATE,
    TOKENS,
    TOKENS_NS,
    UNREALISED,
    UNREALISED_BASE,
    UNUSED,
    UP_NOTIONAL,
    UPDATES,
    WEIGHTS,
)
from tickgate_server.risk.reports import OrderState

SUM_EVERY = 4096
_DAY_NS = 86_400_000_000_000
_RESERVED, _ACCEPTED, _ENDED_FILLED, _EXPIRED = (
    int(OrderState.RESERVED),
    int(OrderState.ACCEPTED),
    int(OrderState.FILLED),
    int(OrderState.EXPIRED),
)
# A remainder below this share of an order, or of a lot, is rounding.
_DUST = 1e-9


@kernel(types.void(TABLE))
def sum_account(table: NDArray[np.int64]) -> None:
    """Every sum of the account anew, from the rows; O(rows in use)."""
    rows = float_rows(table, ROWS)
    facts = integer_rows(table, ROW_FACTS)
    account = floats(table, ACCOUNT)
    state = integers(table, STATE)
    gross = up = down = pnl = 0.0
    exposed = outsiders = 0
    for row in range(state[HIGHEST_ROW]):
        gross += abs(rows[row, NOTIONAL])
        up += rows[row, UP_NOTIONAL]
        down += rows[row, DOWN_NOTIONAL]
        pnl += rows[row, REALISED] + rows[row, UNREALISED] - rows[row, UNREALISED_BASE]
        if rows[row, NOTIONAL] != 0.0:
            exposed += 1
            outsiders += 1 if facts[row, MEMBER] < 0 else 0
    account[GROSS], account[NET_UP], account[NET_DOWN], account[PNL] = gross, up, down, pnl
    state[EXPOSED], state[OUTSIDERS], state[UPDATES] = exposed, outsiders, 0


@kernel(types.void(TABLE))
def recompute(table: NDArray[np.int64]) -> None:
    """Sums and exposures anew, after other members or another covariance; O(rows + members^2)."""
    rows = float_rows(table, ROWS)
    facts = integer_rows(table, ROW_FACTS)
    state = integers(table, STATE)
    weights = floats(table, WEIGHTS)
    for k in range(weights.size):
        weights[k] = 0.0
    for row in range(state[HIGHEST_ROW]):
        if facts[row, MEMBER] >= 0:
            weights[facts[row, MEMBER]] = rows[row, NOTIONAL]
    value_at_risk.recompute(
        float_rows(table, COVARIANCE),
        float_rows(table, SCENARIOS),
        weights,
        floats(table, SIGMA_W),
        floats(table, SCENARIO_PNL),
        floats(table, RISK_TOTALS),
    )
    sum_account(table)


@kernel(types.void(TABLE, types.int64))
def revalue(table: NDArray[np.int64], row: int) -> None:
    """A row's notionals and P&L from its units and mark, and all sums with them; O(members) where it is exposed."""
    rows = float_rows(table, ROWS)
    facts = integer_rows(table, ROW_FACTS)
    account = floats(table, ACCOUNT)
    state = integers(table, STATE)
    values = rows[row]
    filled = values[FILLED]
    point_price = values[MARK] * values[POINT_VALUE]
    up = filled + values[OPEN_BUYS]
    down = filled - values[OPEN_SELLS]
    # No units are worth nothing, whatever the price.
    up_notional = up * point_price if up != 0.0 else 0.0
    down_notional = down * point_price if down != 0.0 else 0.0
    notional = up_notional if abs(up) >= abs(down) else down_notional
    unrealised = filled * (values[MARK] - values[AVERAGE_COST]) * values[POINT_VALUE] if filled != 0.0 else 0.0
    pnl = account[PNL] + (unrealised - values[UNREALISED])
    gross = account[GROSS] + (abs(notional) - abs(values[NOTIONAL]))
    was, now = values[NOTIONAL] != 0.0, notional != 0.0
    account[NET_UP] += up_notional - values[UP_NOTIONAL]
    account[NET_DOWN] += down_notional - values[DOWN_NOTIONAL]
    values[NOTIONAL], values[UP_NOTIONAL], values[DOWN_NOTIONAL] = notional, up_notional, down_notional
    values[UNREALISED] = unrealised
    account[PNL], account[GROSS] = pnl, gross
    if was != now:
        step = 1 if now else -1
        state[EXPOSED] += step
        state[OUTSIDERS] += step if facts[row, MEMBER] < 0 else 0
    held = filled != 0.0 or facts[row, BUY_ORDERS] or facts[row, SELL_ORDERS]
    held = held or values[REALISED] != 0.0 or unrealised != values[UNREALISED_BASE]  # P&L of the session
    facts[row, HELD] = 1 if held else 0
    member = facts[row, MEMBER]
    if member >= 0:
        weights = floats(table, WEIGHTS)
        if np.isfinite(notional) and not np.isfinite(weights[member]):  # its price was not known, and now it is
            weights[member] = notional
            value_at_risk.recompute(
                float_rows(table, COVARIANCE),
                float_rows(table, SCENARIOS),
                weights,
                floats(table, SIGMA_W),
                floats(table, SCENARIO_PNL),
                floats(table, RISK_TOTALS),
            )
        elif notional != weights[member]:
            value_at_risk.change_weight(
                member,
                notional - weights[member],  # from what it is, so that no rounding builds up
                float_rows(table, COVARIANCE),
                float_rows(table, SCENARIOS),
                weights,
                floats(table, SIGMA_W),
                floats(table, SCENARIO_PNL),
                floats(table, RISK_TOTALS),
            )
    state[UPDATES] += 1
    if state[UPDATES] >= SUM_EVERY or not np.isfinite(account[GROSS] + account[PNL]):
        sum_account(table)
    account[PEAK] = max(account[PEAK], account[PNL])
    policy = floats(table, POLICY)
    within = -account[PNL] <= policy[LOSS_LIMIT] and account[PEAK] - account[PNL] <= policy[DRAWDOWN_LIMIT]
    if not within:
        state[BREACHED] = 1


@kernel(types.void(TABLE, types.int64, types.float64))
def mark(table: NDArray[np.int64], row: int, price: float) -> None:
    """Value a row at its last trade price."""
    rows = float_rows(table, ROWS)
    if rows[row, MARK] == price:
        return
    rows[row, MARK] = price
    if integer_rows(table, ROW_FACTS)[row, HELD]:
        revalue(table, row)


# -- orders: their slots are in one of two lists, by expiry or by end, or in none ----------------------------------


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
def _fill_order(table: NDArray[np.int64], slot: int, size: float) -> None:
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
    account = floats(table, ACCOUNT)
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
    account[PNL] += realised
    if np.isnan(values[MARK]):
        values[MARK] = price
    facts = integer_rows(table, ROW_FACTS)
    facts[row, REPEATS] = 0
    if slot >= 0:
        _fill_order(table, slot, abs(signed_size))
    integers(table, STATE)[REVISION] += 1
    revalue(table, row)


@kernel(types.void(TABLE, types.int64, types.float64, types.float64))
def set_position(table: NDArray[np.int64], row: int, size: float, average_cost: float) -> None:
    """Replace what was filled. Realised P&L and open orders stay, and so does the session's P&L: its base moves."""
    values = float_rows(table, ROWS)[row]
    account = floats(table, ACCOUNT)
    state = integers(table, STATE)
    gained = values[UNREALISED] - values[UNREALISED_BASE]
    peak, breached = account[PEAK], state[BREACHED]
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
    sum_account(table)
    account[PEAK], state[BREACHED] = peak, breached


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
def _begin_session(table: NDArray[np.int64], now_ns: int) -> None:
    """P&L begins anew, from today's marks; not at the first time that is read, when there is nothing to end."""
    state = integers(table, STATE)
    offset_ns = np.int64(floats(table, POLICY)[SESSION_OFFSET_NS])
    if state[SESSION_END_NS]:
        rows = float_rows(table, ROWS)
        facts = integer_rows(table, ROW_FACTS)
        account = floats(table, ACCOUNT)
        for row in range(state[HIGHEST_ROW]):
            rows[row, REALISED] = 0.0
            rows[row, UNREALISED_BASE] = rows[row, UNREALISED]
            held = rows[row, FILLED] != 0.0 or facts[row, BUY_ORDERS] or facts[row, SELL_ORDERS]
            facts[row, HELD] = 1 if held else 0
        account[PEAK] = account[PNL] = 0.0
        sum_account(table)
        state[REVISION] += 1
    state[SESSION_END_NS] = ((now_ns - offset_ns) // _DAY_NS + 1) * _DAY_NS + offset_ns


@kernel(types.int64(TABLE, types.int64))
def advance(table: NDArray[np.int64], now_ns: int) -> int:
    """Let time pass: end the session, and the reservations that are due. How many these were.

    Time never goes back: an earlier `now_ns` counts as the latest one.
    """
    state = integers(table, STATE)
    if now_ns <= state[NOW_NS]:
        return 0
    state[NOW_NS] = now_ns
    if now_ns >= state[SESSION_END_NS]:
        _begin_session(table, now_ns)
    expired = 0
    facts = integer_rows(table, ORDER_FACTS)
    while state[EXPIRY_HEAD] >= 0 and facts[state[EXPIRY_HEAD], EXPIRES_NS] <= now_ns:
        end_order(table, state[EXPIRY_HEAD], _EXPIRED)
        expired += 1
    return expired
