"""What the book is worth: each row's notionals and P&L at its mark, and the sums of all. Kernels alone.

Limits hold for the worse of filled + open buys and filled - open sells, so that is what a row's notional is of. Sums
are kept by their changes and summed in full every `SUM_EVERY` changes, so that rounding does not build up.
"""

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.arrays import TABLE, float_rows, floats, integer_rows, integers
from tickgate_server.kernels import kernel
from tickgate_server.risk import exposures
from tickgate_server.risk.book import (
    ACCOUNT,
    AVERAGE_COST,
    BREACHED,
    BUY_ORDERS,
    CALENDAR,
    COVARIANCE,
    DOWN_NOTIONAL,
    DRAWDOWN_LIMIT,
    EXPOSED,
    FILLED,
    GROSS,
    HELD,
    HIGHEST_ROW,
    LOSS_LIMIT,
    MARK,
    MEMBER,
    NET_DOWN,
    NET_UP,
    NOTIONAL,
    OPEN_BUYS,
    OPEN_SELLS,
    OUTSIDERS,
    PEAK,
    PNL,
    POINT_VALUE,
    POLICY,
    REALISED,
    RISK_TOTALS,
    ROW_FACTS,
    ROWS,
    SCENARIO_PNL,
    SCENARIOS,
    SELL_ORDERS,
    SESSION_PEAK,
    SESSION_PNL,
    SESSIONS,
    SIGMA_W,
    STATE,
    UNREALISED,
    UNREALISED_BASE,
    UP_NOTIONAL,
    UPDATES,
    WEIGHTS,
)

SUM_EVERY = 4096


@kernel(types.void(TABLE))
def sum_sessions(table: NDArray[np.int64]) -> None:
    """P&L and peak of the account: the sums of the calendars', so that the drawdown is the sum of the drawdowns.

    Rounding keeps order, and both are summed alike: where no calendar is above its peak, neither is the account.
    """
    sessions = float_rows(table, SESSIONS)
    account = floats(table, ACCOUNT)
    pnl, peak = sessions[0, SESSION_PNL], sessions[0, SESSION_PEAK]
    for calendar in range(1, sessions.shape[0]):
        pnl += sessions[calendar, SESSION_PNL]
        peak += sessions[calendar, SESSION_PEAK]
    account[PNL], account[PEAK] = pnl, peak


@kernel(types.void(TABLE))
def sum_account(table: NDArray[np.int64]) -> None:
    """Every sum of the account anew, from the rows; O(rows in use)."""
    rows = float_rows(table, ROWS)
    facts = integer_rows(table, ROW_FACTS)
    account = floats(table, ACCOUNT)
    state = integers(table, STATE)
    sessions = float_rows(table, SESSIONS)
    for calendar in range(sessions.shape[0]):
        sessions[calendar, SESSION_PNL] = 0.0
    gross = up = down = 0.0
    exposed = outsiders = 0
    for row in range(state[HIGHEST_ROW]):
        gross += abs(rows[row, NOTIONAL])
        up += rows[row, UP_NOTIONAL]
        down += rows[row, DOWN_NOTIONAL]
        pnl = rows[row, REALISED] + rows[row, UNREALISED] - rows[row, UNREALISED_BASE]
        sessions[facts[row, CALENDAR], SESSION_PNL] += pnl
        if rows[row, NOTIONAL] != 0.0:
            exposed += 1
            outsiders += 1 if facts[row, MEMBER] < 0 else 0
    account[GROSS], account[NET_UP], account[NET_DOWN] = gross, up, down
    state[EXPOSED], state[OUTSIDERS], state[UPDATES] = exposed, outsiders, 0
    sum_sessions(table)


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
    exposures.recompute(
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
    sessions = float_rows(table, SESSIONS)
    own = facts[row, CALENDAR]
    sessions[own, SESSION_PNL] += unrealised - values[UNREALISED]
    gross = account[GROSS] + (abs(notional) - abs(values[NOTIONAL]))
    was, now = values[NOTIONAL] != 0.0, notional != 0.0
    account[NET_UP] += up_notional - values[UP_NOTIONAL]
    account[NET_DOWN] += down_notional - values[DOWN_NOTIONAL]
    values[NOTIONAL], values[UP_NOTIONAL], values[DOWN_NOTIONAL] = notional, up_notional, down_notional
    values[UNREALISED] = unrealised
    account[GROSS] = gross
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
            exposures.recompute(
                float_rows(table, COVARIANCE),
                float_rows(table, SCENARIOS),
                weights,
                floats(table, SIGMA_W),
                floats(table, SCENARIO_PNL),
                floats(table, RISK_TOTALS),
            )
        elif notional != weights[member]:
            exposures.change_weight(
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
    if state[UPDATES] >= SUM_EVERY or not np.isfinite(account[GROSS] + sessions[own, SESSION_PNL]):
        sum_account(table)
    for calendar in range(sessions.shape[0]):  # a full sum may move every one of them by a rounding
        sessions[calendar, SESSION_PEAK] = max(sessions[calendar, SESSION_PEAK], sessions[calendar, SESSION_PNL])
    sum_sessions(table)
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
