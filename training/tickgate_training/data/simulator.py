"""A seeded market with quotes and a planted edge of known size.

The planted relation. Let r_t be the log return of the true mid from trade t-1 to t, sigma its standard deviation
parameter, and e_t independent standard normal numbers. Then

    r_t = sigma (edge u_{t-1} + sqrt(1 - edge^2) e_t),   u_{t-1} = (r_{t-1} + ... + r_{t-5}) / (sigma sqrt(5))

so the next return leans the way of the last five: momentum, an autoregression of order 5 with all coefficients
edge / sqrt(5), stationary for edge < 1 / sqrt(5) = 0.447. To first order `edge` is the correlation of r_t with u_{t-1},
which feature `ret_5` sees through the bounce of trades between bid and ask. With edge = 0 the mid is a random walk and
nothing about it can be predicted; prices of trades still bounce (Roll, "A simple implicit measure of the effective
bid-ask spread", J. of Finance 39, 1984), which a model may learn and nobody can earn.

Quotes stand at whole ticks around the true mid, one spread apart; the aggressor is a fair coin, independent of all
else; a buyer trades at the ask and a seller at the bid; sizes are log-normal; trades arrive as a Poisson process,
stamped in whole microseconds.
"""

import math

import numpy as np
import polars as pl

from tickgate_training.data.table import ticks_table

EDGE_LIMIT = 0.44
MOMENTUM_TRADES = 5
_START_NS = 1_700_000_000_000_000_000
_NS_PER_US = 1_000


def simulate(
    trades: int,
    seed: int,
    edge: float = 0.0,
    *,
    symbol: str = "SIM",
    trade_volatility: float = 2e-4,
    start_price: float = 100.0,
    tick_size: float = 0.01,
    spread_ticks: int = 1,
    seconds_between_trades: float = 0.1,
) -> pl.DataFrame:
    """Simulate one symbol's trades with the quote in force just before each.

    Args:
        trades: How many, at least 1.
        seed: Same seed and parameters, same table.
        edge: Strength of the planted relation, 0 (none) to `EDGE_LIMIT`.
        symbol: Name in the table.
        trade_volatility: sigma: standard deviation of the mid's log return from trade to trade at edge 0.
        start_price: Mid before the first trade.
        tick_size: Step of quotes and trades.
        spread_ticks: Ask less bid in ticks, at least 1.
        seconds_between_trades: Mean of the exponential waiting times.

    Returns:
        The canonical table.

    Raises:
        ValueError: A parameter is out of its range.
    """
    if not 0.0 <= edge <= EDGE_LIMIT:
        raise ValueError(f"edge must lie in [0, {EDGE_LIMIT}], got {edge}")
    if trades < 1 or spread_ticks < 1:
        raise ValueError(f"trades and spread_ticks must be at least 1, got {trades} and {spread_ticks}")
    for name, value in (("trade_volatility", trade_volatility), ("tick_size", tick_size), ("start_price", start_price)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be finite and above 0, got {value}")
    rng = np.random.default_rng(seed)
    shocks = rng.standard_normal(trades) * math.sqrt(1.0 - edge * edge)
    returns = [0.0] * MOMENTUM_TRADES  # in units of sigma, the first five before the first trade
    for shock in shocks.tolist():
        returns.append(edge * sum(returns[-MOMENTUM_TRADES:]) / math.sqrt(MOMENTUM_TRADES) + shock)
    mid = start_price * np.exp(trade_volatility * np.cumsum(returns[MOMENTUM_TRADES:]))

    bid_ticks = np.maximum(np.rint(mid / tick_size - spread_ticks / 2), 1.0)
    bid, ask = bid_ticks * tick_size, (bid_ticks + spread_ticks) * tick_size
    aggressor = np.where(rng.random(trades) < 0.5, 1, -1).astype(np.int8)
    waits_us = np.ceil(rng.exponential(seconds_between_trades * 1e6, trades)).astype(np.int64)
    return ticks_table(
        {
            "symbol": [symbol] * trades,
            "exchange_ts_ns": _START_NS + np.cumsum(waits_us) * _NS_PER_US,
            "sequence": np.arange(1, trades + 1, dtype=np.uint64),
            "price": np.where(aggressor > 0, ask, bid),
            "size": np.exp(rng.normal(0.0, 1.0, trades)),
            "aggressor": aggressor,
            "bid": bid,
            "ask": ask,
            "bid_size": np.exp(rng.normal(1.0, 0.5, trades)),
            "ask_size": np.exp(rng.normal(1.0, 0.5, trades)),
        }
    )
