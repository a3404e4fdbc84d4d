"""The gate's checks, in the order in which they are looked at; values and limits are arrays in this order."""

from typing import NamedTuple

from tickgate_server.risk.reasons import Reason


class Check(NamedTuple):
    """One limit: the reason it gives, whether it is a lower bound, and whether reducing orders face it too."""

    reason: Reason
    at_least: bool = False
    always: bool = False


CHECKS = (
    Check(Reason.TRADING_STATE_HALTED, always=True),
    Check(Reason.CONFIDENCE_BELOW_THRESHOLD, at_least=True),
    Check(Reason.TRADING_STATE_REDUCING),
    Check(Reason.RESTRICTED_SYMBOL),
    Check(Reason.POSITION_ORDER_SIZE),
    Check(Reason.POSITION_ORDER_NOTIONAL),
    Check(Reason.POSITION_SIZE),
    Check(Reason.POSITION_NOTIONAL),
    Check(Reason.VAR_PORTFOLIO),
    Check(Reason.CORRELATION_PORTFOLIO),
    Check(Reason.REGIME_NOT_ALLOWED),
    Check(Reason.MODEL_DEGRADED),
    Check(Reason.PRICE_COLLAR, always=True),
    Check(Reason.ORDER_SELF_TRADE),
    Check(Reason.SIGNAL_REPEATED),
    Check(Reason.RATE_SYMBOL),
    Check(Reason.RATE_TOTAL),
    Check(Reason.EXPOSURE_GROSS),
    Check(Reason.EXPOSURE_NET),
    Check(Reason.LOSS_DAILY),
    Check(Reason.LOSS_DRAWDOWN),
)
(
    HALTED,
    CONFIDENCE,
    REDUCING_ONLY,
    RESTRICTED_SYMBOL,
    ORDER_SIZE,
    ORDER_NOTIONAL,
    POSITION_SIZE,
    POSITION_NOTIONAL,
    VAR,
    CORRELATION,
    REGIME_ALLOWED,
    MODEL_HEALTH,
    COLLAR,
    SELF_TRADE,
    REPEATED,
    RATE_OF_SYMBOL,
    RATE_OF_ALL,
    GROSS_EXPOSURE,
    NET_EXPOSURE,
    DAILY_LOSS,
    DRAWDOWN,
) = range(len(CHECKS))
