"""Why a signal is what it is: the engine's twin of `tickgate.v1.Reason`, held equal to it by a test."""

from enum import IntEnum


class Reason(IntEnum):
    """CATEGORY_CONDITION; numbers are those of the contract, meanings stand there."""

    APPROVED = 1
    MODEL_INVALID_OUTPUT = 10
    FEATURES_NOT_READY = 20
    TICK_UNKNOWN_SYMBOL = 30
    TICK_SYMBOL_TABLE_FULL = 31
    TICK_DUPLICATE = 32
    TICK_OUT_OF_ORDER = 33
    TICK_FROM_FUTURE = 34
    TICK_STALE = 35
    TICK_CROSSED_QUOTE = 36
    SIZING_BELOW_MINIMUM = 40
    SIZING_NO_VOLATILITY = 41
    SIZING_PRICE_BELOW_TICK = 42
    CONFIDENCE_BELOW_THRESHOLD = 50
    POSITION_ORDER_SIZE = 60
    POSITION_ORDER_NOTIONAL = 61
    POSITION_SIZE = 62
    POSITION_NOTIONAL = 63


class Action(IntEnum):
    """What to do; numbers are those of `tickgate.v1.Action`."""

    HOLD = 1
    BUY = 2
    SELL = 3
