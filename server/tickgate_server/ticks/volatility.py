"""EWMA volatility of a symbol's trades: what positions are sized by, in training and serving alike.

Exponentially weighted second moment of log returns from trade to trade (J.P. Morgan/Reuters, RiskMetrics Technical
Document, 4th ed. 1996, 5.2: mean taken as zero), with the start-up weight divided out, so that the first values are
means of what was seen rather than shrunk toward zero.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel

HALF_LIFE_TRADES = 200.0
WARM_RETURNS = 20
DECAY = 0.5 ** (1.0 / HALF_LIFE_TRADES)

# Columns of a symbol's row in the state, float64 [symbols, COLUMNS].
LAST_PRICE, SQUARES, WEIGHT, RETURNS = 0, 1, 2, 3
COLUMNS = 4


@kernel("float64(float64[:,::1], int64, float64)")
def update(state: NDArray[np.float64], row: int, price: float) -> float:
    """Take one trade's price into a symbol's row and return the volatility a trade, as a fraction.

    NaN until `WARM_RETURNS` returns were seen. `state` is float64 [symbols, COLUMNS], zeros at first.
    """
    last = state[row, LAST_PRICE]
    state[row, LAST_PRICE] = price
    if last > 0.0:
        change = math.log(price / last)
        state[row, SQUARES] = DECAY * state[row, SQUARES] + (1.0 - DECAY) * change * change
        state[row, WEIGHT] = DECAY * state[row, WEIGHT] + (1.0 - DECAY)
        state[row, RETURNS] += 1.0
    if state[row, RETURNS] < WARM_RETURNS:
        return np.nan
    return math.sqrt(state[row, SQUARES] / state[row, WEIGHT])


@kernel("void(float64[::1], float64[::1])")
def _batch(prices: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    state = np.zeros((1, COLUMNS))
    for i in range(prices.size):
        out[i] = update(state, 0, prices[i])


def batch(prices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Volatility a trade after each of one symbol's trades, float64 [n]; the loop over `update`."""
    out = np.empty(prices.size)
    _batch(np.require(prices, np.float64, ("C", "W")), out)
    return out
