"""The kernel of `micro32`: the ten of `micro10`, and 22 of order flow, the quote, liquidity, volatility and time.

State of one symbol is a row in each of these arrays, which the caller owns, zeros at first:

| array | dtype, shape | content |
|---|---|---|
| prices, sizes, stamps_ns, counts | as `micro10` | the windows, kept by `micro10.push` itself |
| carried | float64 [symbols, CARRIED] | two quotes, see `features.quotes`; means that decay; rings, a value a trade |
| marks | int64 [symbols, MARKS] | the quotes' times, and how many trades in a row had a quote in force |

Definitions: the docstring of `push`. Windows are summed anew at each trade, deviations in a second pass; what decays is
a sum of terms of one sign, or is divided by one: nothing drifts and nothing cancels.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tickgate_server.features import micro10
from tickgate_server.features.micro10 import RING
from tickgate_server.features.quotes import (
    ASK,
    ASK_SIZE,
    BID,
    BID_SIZE,
    DEPTH,
    FLOW,
    IN_FORCE,
    QUOTE_COLUMNS,
    QUOTE_MARKS,
    UPDATES,
    holds,
    put_in_force,
    take_quote,
)
from tickgate_server.kernels import kernel

WIDTH = 32
LONG, SHORT, BRIEF = 100, 50, 10  # trades that windows reach back
BLOCKS = 10  # of Amihud's ratio, in the long window
VOLATILITY_HALF_LIFE_NS = 30e9
FLOW_HALF_LIFE_NS = 10e9
# What a ratio is clipped to where it explodes; bps are of the price, so 10,000 of them are all of it.
BPS_LIMIT = 10_000.0
DEPTHS_LIMIT = 1_000.0
ILLIQUIDITY_LIMIT = 1e6
POSITION_LIMIT = 5.0
RETURN_LIMIT = 100.0  # of a log return: beyond every price a market had, and its square is far from infinite
SHORTEST_SPAN_S = 1e-3

# Kinds of tick, as bits; those of `ticks.market`, which features do not import.
TRADE, QUOTE = 1, 2

_MASK = RING - 1
_HALF_RING = 64
_HALF_MASK = _HALF_RING - 1
_MID_RING = 16
_MID_MASK = _MID_RING - 1
# Columns of `carried` behind the quotes'.
_SIGN, _SQUARES, _WEIGHT, _SIGNED, _VOLUME = range(QUOTE_COLUMNS, QUOTE_COLUMNS + 5)
_RETURNS = 24
_SIGNED_SIZES = _RETURNS + RING
_FLOWS = _SIGNED_SIZES + RING  # of order flow between a trade and the one before, and so the next two
_DEPTHS = _FLOWS + _HALF_RING
_UPDATES = _DEPTHS + _HALF_RING
_MIDS = _UPDATES + _HALF_RING
CARRIED = _MIDS + _MID_RING
_QUOTED = QUOTE_MARKS
MARKS = QUOTE_MARKS + 1

_DAY_NS = 86_400_000_000_000
_LN_2 = math.log(2.0)


@kernel("float64(float64, float64)")
def clipped(value: float, limit: float) -> float:
    """A value within +-limit; NaN stays NaN."""
    if value > limit:
        return limit
    if value < -limit:
        return -limit
    return value


@kernel("void(float64[:,::1], float64[:,::1], float64[::1], int64, int64, f4[::1])")
def _liquidity(
    prices: NDArray[np.float64],
    sizes: NDArray[np.float64],
    state: NDArray[np.float64],
    row: int,
    newest: int,
    out: NDArray[np.float32],
) -> None:
    """Kyle, Amihud and Roll over the last 100 changes."""
    price = prices[row, newest & _MASK]
    at = newest - LONG
    earliest = before = prices[row, at & _MASK]
    volume = signed = illiquidity = 0.0
    first_signed = state[_SIGNED_SIZES + ((at + 1) & _MASK)]
    differ = False
    traded_blocks = 0
    for _ in range(BLOCKS):
        notional = 0.0
        block_price = before
        for _ in range(LONG // BLOCKS):
            at += 1
            k = at & _MASK
            before = prices[row, k]
            v = sizes[row, k]
            x = state[_SIGNED_SIZES + k]
            volume += v
            notional += before * v
            signed += x
            differ |= x != first_signed
        if notional > 0.0:
            illiquidity += abs(before - block_price) / block_price / notional
            traded_blocks += 1

    change_mean = (price - earliest) / LONG
    signed_mean = signed / LONG
    covariance = signed_squares = serial = change_before = 0.0
    before = earliest
    for at in range(newest - LONG + 1, newest + 1):
        k = at & _MASK
        p = prices[row, k]
        change = p - before - change_mean
        x = state[_SIGNED_SIZES + k] - signed_mean
        covariance += x * change
        signed_squares += x * x
        serial += change * change_before  # 0 at the first, which has none before it
        change_before = change
        before = p
    serial /= LONG - 1

    out[21] = 0.0
    if differ:
        out[21] = clipped(covariance / signed_squares * (volume / LONG) / price * 1e4, BPS_LIMIT)
    out[22] = 0.0
    if traded_blocks > 0:
        out[22] = clipped(illiquidity / traded_blocks * 1e6, ILLIQUIDITY_LIMIT)
    out[23] = 0.0
    if not serial >= 0.0:  # NaN included, which makes the vector not ready
        out[23] = clipped(2.0 * math.sqrt(-serial) / price * 1e4, BPS_LIMIT)


@kernel("void(float64[::1], int64, f4[::1])")
def _variation(state: NDArray[np.float64], newest: int, out: NDArray[np.float32]) -> None:
    """Realised volatility and what jumps have of it, over the last 100 returns."""
    squares = products = before = 0.0
    for at in range(newest - LONG + 1, newest + 1):
        magnitude = abs(state[_RETURNS + (at & _MASK)])
        squares += magnitude * magnitude
        products += magnitude * before  # 0 at the first
        before = magnitude
    bipower = 0.5 * math.pi * (LONG / (LONG - 1)) * products
    out[24] = math.sqrt(squares)
    out[25] = math.sqrt(bipower)
    out[26] = 1.0 - bipower / squares if squares > bipower else 0.0


@kernel("void(float64[:,::1], float64[::1], int64, int64, f4[::1])")
def _short_window(
    sizes: NDArray[np.float64], state: NDArray[np.float64], row: int, newest: int, out: NDArray[np.float32]
) -> None:
    """Features over the last 50 trades and what the quote did between them."""
    signed = volume = flow = depth = updates = 0.0
    out[13] = 0.0
    for back in range(SHORT):
        k = (newest - back) & _MASK
        h = (newest - back) & _HALF_MASK
        signed += state[_SIGNED_SIZES + k]
        volume += sizes[row, k]
        flow += state[_FLOWS + h]
        depth += state[_DEPTHS + h]
        updates += state[_UPDATES + h]
        if back == BRIEF - 1 and depth > 0.0:
            out[13] = clipped(flow / (depth / updates), DEPTHS_LIMIT)
    out[12] = signed / volume if volume > 0.0 else 0.0
    out[14] = clipped(flow / (depth / updates), DEPTHS_LIMIT) if depth > 0.0 else 0.0


@kernel("void(float64[::1], int64, float64, f4[::1])")
def _of_the_quote(state: NDArray[np.float64], newest: int, price: float, out: NDArray[np.float32]) -> None:
    """Features of the quote in force, which is there."""
    bid, ask = state[BID], state[ASK]
    bid_size, ask_size = state[BID_SIZE], state[ASK_SIZE]
    half = 0.5 * (ask - bid)
    mid = bid + half
    imbalance = 0.0
    if bid_size + ask_size > 0.0:
        imbalance = (bid_size - ask_size) / (bid_size + ask_size)
    away = price - mid
    mid_before = state[_MIDS + ((newest - BRIEF) & _MID_MASK)]
    out[15] = imbalance
    # The microprice less the mid is exactly this; taken from the two, it would cancel.
    out[16] = clipped(imbalance * half / mid * 1e4, BPS_LIMIT)
    out[17] = clipped(2.0 * half / mid * 1e4, BPS_LIMIT)
    out[18] = clipped(2.0 * abs(away) / mid * 1e4, BPS_LIMIT)
    if half > 0.0:
        out[19] = clipped(away / half, POSITION_LIMIT)
    else:
        out[19] = POSITION_LIMIT if away > 0.0 else (-POSITION_LIMIT if away < 0.0 else 0.0)
    out[20] = (mid - mid_before) / mid_before


@kernel("void(float64[::1], float64, float64, int64)")
def _decay(state: NDArray[np.float64], change: float, size: float, waited_ns: int) -> None:
    """Take a trade into the means that decay with time."""
    decay = math.exp(-_LN_2 * waited_ns / VOLATILITY_HALF_LIFE_NS)
    state[_SQUARES] = decay * state[_SQUARES] + change * change
    state[_WEIGHT] = decay * state[_WEIGHT] + 1.0
    decay = math.exp(-_LN_2 * waited_ns / FLOW_HALF_LIFE_NS)
    state[_SIGNED] = decay * state[_SIGNED] + state[_SIGN] * size
    state[_VOLUME] = decay * state[_VOLUME] + size
    if not math.isfinite(state[_VOLUME]):  # else sizes beyond float64 would stay until the next session gap
        state[_SIGNED] = state[_VOLUME] = 0.0


@kernel(
    "boolean(float64[:,::1], float64[:,::1], int64[:,::1], int64[::1], float64[:,::1], int64[:,::1],"
    " int64, int64, int64, float64, float64, f4[::1])"
)
def push(
    prices: NDArray[np.float64],
    sizes: NDArray[np.float64],
    stamps_ns: NDArray[np.int64],
    counts: NDArray[np.int64],
    carried: NDArray[np.float64],
    marks: NDArray[np.int64],
    row: int,
    session_gap_ns: int,
    exchange_ts_ns: int,
    price: float,
    size: float,
    out: NDArray[np.float32],
) -> bool:
    """Apply one trade to a symbol's state and write its feature vector.

    With p, v, t the prices, sizes and times of the trades since the windows started anew, i this trade; b, a, qb, qa
    bid, ask and their sizes of the quote in force just before it, m = (a + b) / 2 its mid; s_j, the sign below, and
    x_j = s_j v_j the signed size; d_j = p_j - p_{j-1}, r_j = ln(p_j / p_{j-1}) within +-100:

    0-9 as `micro10.push`.
    10 `trade_sign`: s_i, the sign of the last price change, held over unchanged prices, 0 before the first: the tick
    rule of Lee and Ready, "Inferring Trade Direction from Intraday Data", J. of Finance 46, 1991.
    11 `ret_50`: (p_i - p_{i-50}) / p_{i-50}.
    12 `signed_volume_50`: sum of x / sum of v over the last 50 trades, this one included; 0 without volume.
    13, 14 `ofi_10`, `ofi_50`: sum of e_n over the quote updates since trade i-10 (i-50), divided by their mean depth:
    the imbalance of Cont, Kukanov and Stoikov (see `quotes.take_quote`), by whose model it moves the price in inverse
    proportion to depth; 0 without update or depth, clipped to +-1,000.
    15 `queue_imbalance`: (qb - qa) / (qb + qa), Gould and Bonart, "Queue Imbalance as a One-Tick-Ahead Price Predictor
    in a Limit Order Book", Market Microstructure and Liquidity 2, 2016; 0 where both are 0.
    16 `microprice_dev_bps`: ((qb a + qa b) / (qb + qa) - m) / m, Gatheral and Oomen, "Zero-intelligence realized
    variance estimation", Finance and Stochastics 14, 2010; 0 where both sizes are 0.
    17 `quoted_spread_bps`: (a - b) / m. 18 `effective_spread_bps`: 2 |p_i - m| / m. Both as Huang and Stoll, "Dealer
    versus auction markets", J. of Financial Economics 41, 1996.
    19 `quote_position`: (p_i - m) / ((a - b) / 2), 1 at the ask and -1 at the bid, whose sign is the quote rule of Lee
    and Ready; clipped to +-5. A locked quote has what it tends to: +-5, or 0 where p_i is its price.
    20 `mid_ret_10`: (m_i - m_{i-10}) / m_{i-10}, each the mid in force before its trade.
    21 `kyle_lambda_bps`: slope by least squares, with intercept, of d on x over the last 100 changes, times their mean
    size over p_i, so bps of price a trade of mean size: Kyle's lambda, "Continuous Auctions and Insider Trading",
    Econometrica 53, 1985; 0 where all x are equal.
    22 `amihud_100`: mean over ten blocks of ten trades of |return| / notional, times 10^6: Amihud, "Illiquidity and
    stock returns", J. of Financial Markets 5, 2002, with blocks for days. Blocks without volume are left out; 0 if all
    are; clipped to 10^6.
    23 `roll_spread_bps`: 2 sqrt(-c) / p_i, c the covariance of d_j with d_{j-1} over the last 100 changes, about their
    mean, its 99 products divided by 99: Roll, "A Simple Implicit Measure of the Effective Bid-Ask Spread", J. of
    Finance 39, 1984; 0 where c >= 0.
    24 `realised_vol_100`: sqrt(RV), RV = sum of r^2 over the last 100: Andersen, Bollerslev, Diebold and Labys,
    "Modeling and Forecasting Realized Volatility", Econometrica 71, 2003.
    25 `bipower_vol_100`: sqrt(BV), BV = pi/2 100/99 sum of |r_j| |r_{j-1}| over the 99 neighbours among them:
    Barndorff-Nielsen and Shephard, "Power and Bipower Variation with Stochastic Volatility and Jumps", J. of Financial
    Econometrics 2, 2004.
    26 `jump_share_100`: (RV - BV) / RV, Huang and Tauchen's relative jump, "The Relative Contribution of Jumps to Total
    Price Variance", J. of Financial Econometrics 3, 2005, from whom BV has its 100/99; 0 where negative or RV is 0.
    27 `ewma_vol_30s`: sqrt(sum of w r^2 / sum of w) over all returns, w = 2^(-(t_i - t_j) / 30 s): RiskMetrics
    Technical Document, 4th ed. 1996, 5.2, with the weights a function of time, as in Dacorogna et al., "An Introduction
    to High-Frequency Finance", 2001, ch. 3.
    28 `ewma_signed_volume_10s`: sum of w x / sum of w v over all trades, w with a half-life of 10 s; 0 without volume.
    29 `trade_rate_100`: 100 / (t_i - t_{i-100}) a second, the most likely rate of a Poisson process; its span is at
    least 1 ms. 30, 31 `day_sin`, `day_cos`: of 2 pi times the part of the UTC day that has passed.

    Features in bps are clipped to +-10,000.

    Args:
        prices: As `micro10.push`.
        sizes: As `micro10.push`.
        stamps_ns: As `micro10.push`.
        counts: As `micro10.push`.
        carried: float64 [symbols, CARRIED].
        marks: int64 [symbols, MARKS].
        row: The symbol's row.
        session_gap_ns: A longer silence between two trades starts the windows anew, and a quote stated last longer ago
            is in force no more; 0: no silence counts.
        exchange_ts_ns: Venue time of the trade, > 0; not below the symbol's last.
        price: > 0 and finite.
        size: >= 0 and finite.
        out: The vector, float32 [32]; all NaN unless ready.

    Returns:
        Whether the vector is ready: 101 trades in the windows, a quote in force at each of the last 51, every feature
        finite. So a feed without quotes is never ready.
    """
    of_ten = micro10.push(
        prices, sizes, stamps_ns, counts, row, session_gap_ns, exchange_ts_ns, price, size, out[: micro10.WIDTH]
    )
    put_in_force(carried, marks, row, exchange_ts_ns)
    state = carried[row]
    newest = counts[row] - 1
    k = newest & _MASK
    if newest == 0:
        for column in range(QUOTE_COLUMNS, _RETURNS):
            state[column] = 0.0
        marks[row, _QUOTED] = 0
        state[_RETURNS + k] = 0.0
        state[_VOLUME] = size  # the first trade has no change, and no sign
    else:
        last = (newest - 1) & _MASK
        before = prices[row, last]
        if price != before:
            state[_SIGN] = 1.0 if price > before else -1.0
        change = clipped(math.log1p((price - before) / before), RETURN_LIMIT)
        state[_RETURNS + k] = change
        _decay(state, change, size, exchange_ts_ns - stamps_ns[row, last])
    state[_SIGNED_SIZES + k] = state[_SIGN] * size
    h = newest & _HALF_MASK
    state[_FLOWS + h] = state[FLOW]
    state[_DEPTHS + h] = state[DEPTH]
    state[_UPDATES + h] = state[UPDATES]
    state[FLOW] = state[DEPTH] = state[UPDATES] = 0.0
    if holds(marks[row, IN_FORCE], exchange_ts_ns, session_gap_ns):
        marks[row, _QUOTED] += 1
        state[_MIDS + (newest & _MID_MASK)] = state[BID] + 0.5 * (state[ASK] - state[BID])
    else:
        marks[row, _QUOTED] = 0

    ready = of_ten and newest >= LONG and marks[row, _QUOTED] > SHORT
    if ready:
        _short_window(sizes, state, row, newest, out)
        _of_the_quote(state, newest, price, out)
        _liquidity(prices, sizes, state, row, newest, out)
        _variation(state, newest, out)
        p50 = prices[row, (newest - SHORT) & _MASK]
        out[10] = state[_SIGN]
        out[11] = (price - p50) / p50
        out[27] = math.sqrt(state[_SQUARES] / state[_WEIGHT])
        out[28] = state[_SIGNED] / state[_VOLUME] if state[_VOLUME] > 0.0 else 0.0
        span_s = (exchange_ts_ns - stamps_ns[row, (newest - LONG) & _MASK]) / 1e9
        out[29] = LONG / max(span_s, SHORTEST_SPAN_S)
        angle = 2.0 * math.pi * ((exchange_ts_ns % _DAY_NS) / _DAY_NS)
        out[30] = math.sin(angle)
        out[31] = math.cos(angle)
        for column in range(micro10.WIDTH, WIDTH):
            ready = ready and math.isfinite(out[column])
    if not ready:
        for column in range(WIDTH):
            out[column] = np.nan
    return ready


@kernel(
    "boolean(float64[:,::1], float64[:,::1], int64[:,::1], int64[::1], float64[:,::1], int64[:,::1],"
    " int64, int64, int64, int64, float64, float64, float64, float64, float64, float64, f4[::1], boolean)"
)
def take(
    prices: NDArray[np.float64],
    sizes: NDArray[np.float64],
    stamps_ns: NDArray[np.int64],
    counts: NDArray[np.int64],
    carried: NDArray[np.float64],
    marks: NDArray[np.int64],
    row: int,
    session_gap_ns: int,
    kind: int,
    exchange_ts_ns: int,
    price: float,
    size: float,
    bid: float,
    ask: float,
    bid_size: float,
    ask_size: float,
    out: NDArray[np.float32],
    ready: bool,  # noqa: FBT001 - a kernel's
) -> bool:
    """Apply one tick: its quote by `quotes.take_quote`, then its trade by `push`.

    `kind` is TRADE, QUOTE or both; the numbers of what it lacks are ignored. A quote alone changes no vector: `out` and
    what is returned stay as they were.
    """
    trade = kind & TRADE != 0
    if kind & QUOTE:
        take_quote(carried, marks, row, session_gap_ns, exchange_ts_ns, bid, ask, bid_size, ask_size, trade)
    if not trade:
        return ready
    return push(
        prices, sizes, stamps_ns, counts, carried, marks, row, session_gap_ns, exchange_ts_ns, price, size, out
    )  # fmt: skip
