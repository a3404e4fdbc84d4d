"""The layout of the book: positions, open orders, exposures and limits in flat arrays that kernels share by one table.

One writer, the thread that answers. A row is a symbol's (`ticks.symbols`); a slot is an order's. Nothing grows: what
happens at each bound stands beside it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tickgate_server.arrays import ArrayTable
from tickgate_server.risk.data import RiskData
from tickgate_server.risk.exposures import Exposures
from tickgate_server.risk.regimes import Regime, TradingState
from tickgate_server.ticks.calendars import SessionCalendar, round_the_clock

ORDERS_LIMIT = 16_384
"""Most orders open at once; beyond it a signal is HOLD, PORTFOLIO_ORDERS_FULL. Ended orders keep their slots, for late
reports, until a new order needs the oldest of them."""
MODELS_LIMIT = 1024
"""Most model versions with a flag of their own."""

# The arrays, by their number in the book's table.
(
    ROWS,
    ROW_FACTS,
    ROW_LIMITS,
    ACCOUNT,
    STATE,
    ORDERS,
    ORDER_FACTS,
    MODELS,
    COVARIANCE,
    SCENARIOS,
    WEIGHTS,
    SIGMA_W,
    SCENARIO_PNL,
    RISK_TOTALS,
    SCRATCH,
    QUOTES_TRADES,
    CONTRACTS,
    BOUNDS,
    OFF,
    POLICY,
    OUT,
    SESSIONS,
    SESSION_FACTS,
    SESSION_BEGINS,
) = range(24)
ARRAYS = 24

# Columns of ROWS, float64 [capacity, ROW_COLUMNS]; sizes in units, money in the base currency.
(
    FILLED,
    OPEN_BUYS,  # units of open orders to buy, reservations among them
    OPEN_SELLS,
    AVERAGE_COST,  # price in the instrument's currency; NaN where flat
    REALISED,  # since the session began
    UNREALISED,
    UNREALISED_BASE,  # what was unrealised when the session began
    MARK,  # price that the row is valued at; NaN until one is known
    POINT_VALUE,  # base currency per unit and point: multiplier x rate
    NOTIONAL,  # signed, of the worst case
    UP_NOTIONAL,  # with all open buys filled
    DOWN_NOTIONAL,  # with all open sells filled
    TOKENS,  # of the symbol's bucket, at TOKENS_NS
    LAST_ORDER,  # signed size of the last approved order
) = range(14)
ROW_COLUMNS = 14
# Columns of ROW_FACTS, int64 [capacity, ROW_FACT_COLUMNS].
(
    MEMBER,  # index in the covariance; -1: none
    REGIME,
    RESTRICTED,
    TOKENS_NS,
    BUY_ORDERS,  # open ones
    SELL_ORDERS,
    REPEATS,  # of LAST_ORDER without a fill
    HELD,  # 1 where there is a position, an open order or P&L of the session
    CALENDAR,  # whose sessions its P&L is counted by: a row of SESSIONS
) = range(9)
ROW_FACT_COLUMNS = 9
# Columns of ROW_LIMITS, float64 [capacity, 4], in the order of the gate's checks of stage 2.
ROW_LIMIT_COLUMNS = 4
# ACCOUNT, float64 [ACCOUNT_VALUES].
(
    GROSS,
    NET_UP,
    NET_DOWN,
    PNL,  # realised and not, each row's since its session began: the sum of SESSION_PNL
    PEAK,  # the sum of SESSION_PEAK
    ACCOUNT_TOKENS,
) = range(6)
ACCOUNT_VALUES = 6
# STATE, int64 [STATE_VALUES].
(
    NOW_NS,  # the latest clock that was read; never goes back
    TRADING,  # TradingState
    FRESH,  # 1 while the risk data are young enough
    EXPOSED,  # rows whose NOTIONAL is not 0
    OUTSIDERS,  # those of them that the covariance lacks
    EXPIRY_HEAD,  # slots of reservations, soonest first; -1: none
    EXPIRY_TAIL,
    ENDED_HEAD,  # slots of ended orders, oldest first
    ENDED_TAIL,
    UNUSED,  # the first slot that never held an order
    OPEN_ORDERS,
    ACCOUNT_TOKENS_NS,
    UPDATES,  # of the account since it was summed in full
    NEXT_SESSION_NS,  # the least of SESSION_END_NS
    REVISION,  # grows with each change of positions or orders
    EVICTED,  # id of the order whose slot the last reservation took; 0: none
    METHOD,  # of value at risk
    BREACHED,  # 1 once a limit that reduces the desk was seen passed, until it is dealt with
    HIGHEST_ROW,  # rows in use end here
) = range(19)
STATE_VALUES = 19
# Columns of ORDERS, float64 [ORDERS_LIMIT, 2].
SIGNED_SIZE, REMAINING = range(2)
ORDER_COLUMNS = 2
# SESSIONS, float64 [calendars, 2], of the rows of one calendar: P&L since its session began, and the highest of it.
SESSION_PNL, SESSION_PEAK = range(2)
SESSION_COLUMNS = 2
# Columns of SESSION_FACTS, int64 [calendars, 3].
(
    SESSION_END_NS,  # when the next session begins; 0 before any time was read
    BEGINS_FROM,  # where its begins are in SESSION_BEGINS, int64 [all that are known of all calendars]
    BEGINS_TO,
) = range(3)
SESSION_FACT_COLUMNS = 3
# Columns of ORDER_FACTS, int64 [ORDERS_LIMIT, ORDER_FACT_COLUMNS].
ORDER_ID, ORDER_ROW, ORDER_STATE, EXPIRES_NS, PREVIOUS, NEXT = range(6)
ORDER_FACT_COLUMNS = 6
# Columns of MODELS, int64 [MODELS_LIMIT, 2]: a bit for each allowed regime, and 1 if degraded.
ALLOWED_REGIMES, DEGRADED = range(2)
MODEL_COLUMNS = 2
# POLICY, float64 [POLICY_VALUES].
(
    RISK_BUDGET,
    VOLATILITY_FLOOR,
    LIMIT_OFFSET,
    Z,  # standard normal quantile of the VaR's confidence
    ORDERS_PER_S_SYMBOL,
    ORDERS_PER_S,
    LOSS_LIMIT,  # of the session, and
    DRAWDOWN_LIMIT,  # from its peak: beyond them the desk reduces; infinite where off
    VALID_FOR,  # of an approval, in microseconds
) = range(9)
POLICY_VALUES = 9


class Book:
    """The arrays of one engine's book.

    Attributes:
        table: int64 [ARRAYS, 3], for kernels.
        rows, facts, row_limits, account, state, orders, order_facts, models, bounds, off, policy, out, sessions,
            session_facts, session_begins: Views by name.
        calendars: Whose sessions P&L is counted by, in the order of SESSIONS; the first is `24/7`.
        exposures: Of the symbols in the covariance.
        risk_data: What the covariance is from; None before any.

    Args:
        capacity: Rows.
        quotes_trades: `ticks.market.MarketState.quotes_trades`.
        contracts: `ticks.symbols.SymbolTable.contracts`.
        checks: How many checks the gate has.
        out: How many numbers the gate writes.
    """

    def __init__(
        self,
        capacity: int,
        quotes_trades: NDArray[np.float64],
        contracts: NDArray[np.float64],
        checks: int,
        out: int,
    ) -> None:
        self._arrays = ArrayTable(ARRAYS)
        self.table = self._arrays.table
        self.rows = np.zeros((capacity, ROW_COLUMNS))
        self.rows[:, [AVERAGE_COST, MARK, POINT_VALUE]] = np.nan
        self.facts = np.zeros((capacity, ROW_FACT_COLUMNS), np.int64)
        self.facts[:, MEMBER] = -1
        self.facts[:, REGIME] = Regime.UNKNOWN
        self.row_limits = np.full((capacity, ROW_LIMIT_COLUMNS), np.nan)
        self.account = np.zeros(ACCOUNT_VALUES)
        self.state = np.zeros(STATE_VALUES, np.int64)
        self.state[TRADING] = TradingState.ACTIVE
        self.state[[EXPIRY_HEAD, EXPIRY_TAIL, ENDED_HEAD, ENDED_TAIL]] = -1
        self.orders = np.zeros((ORDERS_LIMIT, ORDER_COLUMNS))
        self.order_facts = np.zeros((ORDERS_LIMIT, ORDER_FACT_COLUMNS), np.int64)
        self.models = np.zeros((MODELS_LIMIT, MODEL_COLUMNS), np.int64)
        self.bounds = np.full(checks, np.nan)
        self.off = np.zeros(checks)
        self.policy = np.zeros(POLICY_VALUES)
        self.out = np.full(out, np.nan)
        self.risk_data: RiskData | None = None
        for number, array in (
            (ROWS, self.rows),
            (ROW_FACTS, self.facts),
            (ROW_LIMITS, self.row_limits),
            (ACCOUNT, self.account),
            (STATE, self.state),
            (ORDERS, self.orders),
            (ORDER_FACTS, self.order_facts),
            (MODELS, self.models),
            (QUOTES_TRADES, quotes_trades),
            (CONTRACTS, contracts),
            (BOUNDS, self.bounds),
            (OFF, self.off),
            (POLICY, self.policy),
            (OUT, self.out),
        ):
            self._arrays.put(number, array)
        self.exposures = self._hold(Exposures(0, 0))
        self.keep_calendars([round_the_clock()])

    def keep_calendars(self, calendars: Sequence[SessionCalendar]) -> None:
        """Count P&L by the sessions of these calendars, before any row is of one of them.

        Args:
            calendars: The first is `24/7`, whose roll-over the limits set.
        """
        self.calendars = tuple(calendars)
        self.sessions = np.zeros((len(calendars), SESSION_COLUMNS))
        self.session_facts = np.zeros((len(calendars), SESSION_FACT_COLUMNS), np.int64)
        self.session_begins = np.concatenate([calendar.begins_ns for calendar in calendars])
        ends = np.cumsum([calendar.begins_ns.size for calendar in calendars])
        self.session_facts[:, BEGINS_TO] = ends
        self.session_facts[1:, BEGINS_FROM] = ends[:-1]
        for number, array in (
            (SESSIONS, self.sessions),
            (SESSION_FACTS, self.session_facts),
            (SESSION_BEGINS, self.session_begins),
        ):
            self._arrays.put(number, array)

    def _hold(self, exposures: Exposures) -> Exposures:
        for number, array in (
            (COVARIANCE, exposures.covariance),
            (SCENARIOS, exposures.scenarios),
            (WEIGHTS, exposures.weights),
            (SIGMA_W, exposures.sigma_w),
            (SCENARIO_PNL, exposures.scenario_pnl),
            (RISK_TOTALS, exposures.totals),
            (SCRATCH, exposures.scratch),
        ):
            self._arrays.put(number, array)
        return exposures

    def adopt(self, data: RiskData, exposures: Exposures, members: NDArray[np.int64]) -> None:
        """Take new risk data in; the kernel `portfolio.recompute` is to be called then.

        Args:
            data: As read.
            exposures: Of its size, its covariance and scenarios in place.
            members: int64 [rows in use]: index in the covariance of each row's symbol; -1: not in it.
        """
        self.risk_data = data
        self.exposures = self._hold(exposures)
        used = len(members)
        self.facts[:used, MEMBER] = members
        inside = members >= 0
        self.facts[:used, REGIME] = Regime.UNKNOWN
        self.facts[:used][inside, REGIME] = data.regimes[members[inside]]
