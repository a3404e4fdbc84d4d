"""From a prediction to an order: one function for the backtest and the server.

The target position's notional is risk_budget x edge / sigma, edge = P(up) - P(down) and sigma the symbol's volatility
over the model's horizon with a floor: volatility targeting (Moskowitz, Ooi and Pedersen, "Time series momentum", J. of
Financial Economics 104, 2012), scaled by the strength of the view.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel


@kernel("float64(float64, float64)")
def round_to_lot(size: float, lot: float) -> float:
    """Round a signed size toward zero to a multiple of `lot` (> 0); NaN stays NaN.

    A size within a billionth of a lot of a multiple, or within what a double can tell of that many lots, counts as that
    multiple: 0.3 / 0.1 is 2.9999999999999996.
    """
    lots = size / lot
    nearest = float(np.rint(lots))
    if abs(lots - nearest) < 1e-9 + 4e-16 * abs(lots):
        return nearest * lot
    return float(np.trunc(lots)) * lot


@kernel("float64(float64, float64, float64, int64, float64, float64, float64, float64)")
def target_position(
    edge: float,
    price: float,
    trade_volatility: float,
    horizon_trades: int,
    risk_budget: float,
    volatility_floor: float,
    multiplier: float,
    lot: float,
) -> float:
    """Signed position that a prediction asks for, in units of the instrument, rounded toward zero to the lot.

    Args:
        edge: P(up) - P(down), in [-1, 1].
        price: Reference price, > 0.
        trade_volatility: Standard deviation of the log return from trade to trade; NaN where unknown.
        horizon_trades: The model's horizon; the volatility over it is taken as trade_volatility x sqrt(horizon_trades).
        risk_budget: Currency at risk (one standard deviation over the horizon) at an edge of 1.
        volatility_floor: Least volatility over the horizon, as a fraction, > 0.
        multiplier: Currency per unit and point of price.
        lot: Size step, > 0.

    Returns:
        The position, or NaN where any input is NaN or infinite, price or lot is not positive, or the volatility is
        negative: the gate denies NaN.
    """
    # A maximum would hide a NaN, so the inputs are looked at first.
    finite = math.isfinite(edge) and math.isfinite(price) and math.isfinite(trade_volatility)
    finite = finite and math.isfinite(volatility_floor) and math.isfinite(multiplier)
    if not (finite and price > 0.0 and trade_volatility >= 0.0 and lot > 0.0 and multiplier > 0.0):
        return np.nan
    volatility = max(trade_volatility * math.sqrt(horizon_trades), volatility_floor)
    notional = risk_budget * edge / volatility
    position = round_to_lot(notional / (price * multiplier), lot)
    return position if math.isfinite(position) else np.nan


@kernel("void(float64[::1], float64[::1], float64[::1], int64, float64, float64, float64, float64, float64[::1])")
def _target_positions(
    edges: NDArray[np.float64],
    prices: NDArray[np.float64],
    trade_volatilities: NDArray[np.float64],
    horizon_trades: int,
    risk_budget: float,
    volatility_floor: float,
    multiplier: float,
    lot: float,
    out: NDArray[np.float64],
) -> None:
    for i in range(edges.size):
        out[i] = target_position(
            edges[i], prices[i], trade_volatilities[i], horizon_trades, risk_budget, volatility_floor, multiplier, lot
        )


def target_positions(
    edges: NDArray[np.float64],
    prices: NDArray[np.float64],
    trade_volatilities: NDArray[np.float64],
    horizon_trades: int,
    risk_budget: float,
    volatility_floor: float,
    multiplier: float = 1.0,
    lot: float = 1e-8,
) -> NDArray[np.float64]:
    """`target_position` for each row, float64 [n]; the scalar arguments hold for all."""
    out = np.empty(edges.size)
    _target_positions(
        np.require(edges, np.float64, ("C", "W")),
        np.require(prices, np.float64, ("C", "W")),
        np.require(trade_volatilities, np.float64, ("C", "W")),
        horizon_trades,
        risk_budget,
        volatility_floor,
        multiplier,
        lot,
        out,
    )
    return out
