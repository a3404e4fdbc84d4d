"""Limits and instruments in the arrays that kernels read."""

from statistics import NormalDist

from tickgate_server.risk import checks
from tickgate_server.risk.book import METHOD, POINT_VALUE, RESTRICTED, Book
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.value_at_risk import CORNISH_FISHER, HISTORICAL, PARAMETRIC
from tickgate_server.ticks.instruments import Instrument

_METHODS = {"parametric": PARAMETRIC, "historical": HISTORICAL, "cornish_fisher": CORNISH_FISHER}
_UNLIMITED_PER_S = 1e9  # finite: an infinite bucket that is asked twice at once holds NaN


def write_limits(book: Book, found: Limits) -> None:
    """Write the limits in force."""
    off = float("inf")
    by_check: dict[int, float | str] = {
        checks.HALTED: float(TradingState.REDUCING),
        checks.CONFIDENCE: found.confidence_threshold,
        checks.REDUCING_ONLY: float(TradingState.ACTIVE),
        checks.RESTRICTED_SYMBOL: 0.0,
        checks.ORDER_SIZE: found.max_order_size,
        checks.ORDER_NOTIONAL: found.max_order_notional,
        checks.POSITION_SIZE: found.max_position_size,
        checks.POSITION_NOTIONAL: found.max_position_notional,
        checks.VAR: found.max_var,
        checks.CORRELATION: found.max_correlation,
        checks.REGIME_ALLOWED: 0.0,
        checks.MODEL_HEALTH: 0.0,
        checks.COLLAR: found.max_price_deviation,
        checks.SELF_TRADE: found.max_open_opposite,
        checks.REPEATED: found.max_repeats,
        checks.RATE_OF_SYMBOL: "off" if found.max_orders_per_s_symbol == "off" else 0.0,
        checks.RATE_OF_ALL: "off" if found.max_orders_per_s == "off" else 0.0,
        checks.GROSS_EXPOSURE: found.max_gross_exposure,
        checks.NET_EXPOSURE: found.max_net_exposure,
        checks.DAILY_LOSS: found.max_daily_loss,
        checks.DRAWDOWN: found.max_drawdown,
    }
    for check, limit in by_check.items():
        book.off[check] = limit == "off"
        book.bounds[check] = off if limit == "off" else limit
    book.session_begins[0] = found.session_rollover_utc_s * 1_000_000_000  # of 24/7; an end that is set stays
    book.state[METHOD] = _METHODS[found.var_method]
    book.policy[:] = (
        found.risk_budget,
        found.volatility_floor,
        found.limit_offset_bps / 1e4,
        NormalDist().inv_cdf(found.var_confidence),
        _UNLIMITED_PER_S if found.max_orders_per_s_symbol == "off" else found.max_orders_per_s_symbol,
        _UNLIMITED_PER_S if found.max_orders_per_s == "off" else found.max_orders_per_s,
        book.bounds[checks.DAILY_LOSS],
        book.bounds[checks.DRAWDOWN],
        found.valid_for_us,
    )


def write_row(book: Book, row: int, instrument: Instrument, found: Limits) -> None:
    """Write a row's limits, and what its points are worth."""
    own = found.symbols.get(instrument.symbol)
    names = ("max_order_size", "max_order_notional", "max_position_size", "max_position_notional")
    for column, name in enumerate(names):
        value = getattr(own, name) if own else None
        book.row_limits[row, column] = getattr(found, name) if value is None else value
    restricted = own.restricted if own and own.restricted is not None else instrument.restricted
    book.facts[row, RESTRICTED] = restricted
    foreign = instrument.currency != found.base_currency
    rate = found.currencies.get(instrument.currency, float("nan")) if foreign else 1.0
    book.rows[row, POINT_VALUE] = instrument.multiplier * rate
