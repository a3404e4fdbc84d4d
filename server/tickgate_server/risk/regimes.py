"""Market regimes by number, as the engine reads them and the contract names them (`tickgate.v1.Regime`)."""

from enum import IntEnum
from typing import Literal

RegimeName = Literal["normal", "trending", "risk_off", "high_volatility", "unknown"]
"""As manifests and limits name them."""


class Regime(IntEnum):
    """A later one outranks those before it. UNKNOWN stands for missing or stale data: no model allows it unasked."""

    UNKNOWN = 1
    NORMAL = 2
    TRENDING = 3
    RISK_OFF = 4
    HIGH_VOLATILITY = 5


class TradingState(IntEnum):
    """What the desk lets through; numbers are those of `tickgate.v1.TradingState`, and order is strictness."""

    ACTIVE = 1
    REDUCING = 2
    HALTED = 3
