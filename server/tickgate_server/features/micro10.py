"""The kernel of `micro10`: one function a trade, and the batch function that loops over it.

State of one symbol is a row in each of these arrays, which the caller owns:

| array | dtype, shape | content |
|---|---|---|
| prices, sizes | float64 [symbols, RING] | ring of the last RING trades |
| stamps_ns | int64 [symbols, RING] | their venue times |
| counts | int64 [symbols] | trades since the windows started anew; the newest is at (count - 1) % RING |

At trade i the window W is the ten trades before it. Definitions: the docstring of `push`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel

RING = 128
_MASK = RING - 1
WINDOW = 10
WIDTH = 10
VOLUME_Z_LIMIT = 10.0


@kernel(
    "boolean(float64[:,::1], float64[:,::1], int64[:,::1], int64[::1], int64, int64, int64, float64, float64, f4[::1])"
)
def push(
    prices: NDArray[np.float64],
    sizes: NDArray[np.float64],
    stamps_ns: NDArray[np.int64],
    counts: NDArray[np.int64],
    row: int,
    session_gap_ns: int,
    exchange_ts_ns: int,
    price: float,
    size: float,
    out: NDArray[np.float32],
) -> bool:
    """Apply one trade to a symbol's state and write its feature vector.

    With p, v, t the prices, sizes and times, i this trade and W the trades i-10 ... i-1:

    0-2 `ret_k`: (p_i - p_{i-k}) / p_{i-k} for k = 1, 5, 10. 3 `vwap_dev`: (p_i - vwap(W)) / vwap(W), 0 without volume
    in W. 4 `vol_10`: population standard deviation of the nine simple returns inside W. 5 `flow_imbalance`:
    (B - S) / (B + S + 1e-10), B and S the sizes in W of trades above and below the one before, over nine changes.
    6 `tick_sign`: sign(p_i - p_{i-1}). 7 `gap_s`: t_i - t_{i-1} in seconds. 8 `range_10`: (max W - min W) / p_i.
    9 `volume_z`: (v_i - mean W) / (population std W), 0 where all sizes in W are equal, clipped to +-10.

    Args:
        prices: Rings of prices, float64 [symbols, RING].
        sizes: Rings of sizes, float64 [symbols, RING].
        stamps_ns: Rings of venue times, int64 [symbols, RING].
        counts: Trades since the windows started anew, int64 [symbols].
        row: The symbol's row.
        session_gap_ns: A longer silence starts the windows anew; 0: none does.
        exchange_ts_ns: Venue time of the trade; not below the symbol's last.
        price: > 0 and finite.
        size: >= 0 and finite.
        out: The vector, float32 [10]; all NaN unless ready.

    Returns:
        Whether the vector is ready: eleven trades in the windows and every feature finite.
    """
    count = counts[row]
    if count > 0 and session_gap_ns > 0 and exchange_ts_ns - stamps_ns[row, (count - 1) & _MASK] > session_gap_ns:
        count = 0
    slot = count & _MASK
    prices[row, slot] = price
    sizes[row, slot] = size
    stamps_ns[row, slot] = exchange_ts_ns
    counts[row] = count + 1
    if count < WINDOW:
        for k in range(WIDTH):
            out[k] = np.nan
        return False

    first = count - WINDOW
    low = high = before = prices[row, first & _MASK]
    volume = size_low = size_high = sizes[row, first & _MASK]
    notional = before * volume
    bought = sold = return_sum = 0.0
    for k in range(1, WINDOW):
        at = (first + k) & _MASK
        p = prices[row, at]
        v = sizes[row, at]
        low = p if p < low else low  # no `min`, which looks for NaN too
        high = p if p > high else high
        size_low = v if v < size_low else size_low
        size_high = v if v > size_high else size_high
        volume += v
        notional += p * v
        bought += v if p > before else 0.0  # a sum, not a jump: where prices go is what no processor predicts
        sold += v if p < before else 0.0
        return_sum += (p - before) / before
        before = p
    # The deviations take a second pass: one-pass sums of squares cancel.
    return_mean = return_sum / (WINDOW - 1)
    size_mean = volume / WINDOW
    return_squares = 0.0
    before = prices[row, first & _MASK]
    d = sizes[row, first & _MASK] - size_mean
    size_squares = d * d
    for k in range(1, WINDOW):
        at = (first + k) & _MASK
        p = prices[row, at]
        d = (p - before) / before - return_mean
        return_squares += d * d
        d = sizes[row, at] - size_mean
        size_squares += d * d
        before = p

    p5 = prices[row, (count - 5) & _MASK]
    p10 = prices[row, first & _MASK]
    out[0] = (price - before) / before
    out[1] = (price - p5) / p5
    out[2] = (price - p10) / p10
    out[3] = 0.0
    if volume > 0.0:
        vwap = notional / volume
        out[3] = (price - vwap) / vwap
    out[4] = math.sqrt(return_squares / (WINDOW - 1))
    out[5] = (bought - sold) / (bought + sold + 1e-10)
    out[6] = (1.0 if price > before else 0.0) - (1.0 if price < before else 0.0)
    out[7] = (exchange_ts_ns - stamps_ns[row, (count - 1) & _MASK]) / 1e9
    out[8] = (high - low) / price
    out[9] = 0.0
    if size_high > size_low:
        z = (size - size_mean) / math.sqrt(size_squares / WINDOW)
        out[9] = min(max(z, -VOLUME_Z_LIMIT), VOLUME_Z_LIMIT)

    ready = True
    for k in range(WIDTH):
        ready &= abs(out[k]) < np.inf  # NaN is not; without a jump, as `math.isfinite` has them
    if not ready:  # prices so far apart that a ratio left float32: no number is better than a wrong one
        for k in range(WIDTH):
            out[k] = np.nan
    return ready


@kernel("void(int64[::1], float64[::1], float64[::1], int64, f4[:,::1])")
def _batch(
    stamps_ns: NDArray[np.int64],
    prices: NDArray[np.float64],
    sizes: NDArray[np.float64],
    session_gap_ns: int,
    out: NDArray[np.float32],
) -> None:
    ring_prices = np.zeros((1, RING))
    ring_sizes = np.zeros((1, RING))
    ring_stamps = np.zeros((1, RING), np.int64)
    counts = np.zeros(1, np.int64)
    row = np.empty(WIDTH, np.float32)  # handed over again and again: to make a view of each row costs a tenth of it all
    for i in range(stamps_ns.size):
        push(ring_prices, ring_sizes, ring_stamps, counts, 0, session_gap_ns, stamps_ns[i], prices[i], sizes[i], row)
        for k in range(WIDTH):
            out[i, k] = row[k]


def batch(
    stamps_ns: NDArray[np.int64], prices: NDArray[np.float64], sizes: NDArray[np.float64], session_gap_ns: int
) -> NDArray[np.float32]:
    """Features of one symbol's trades in order: the loop over `push`, so equal to the stream bit for bit.

    Args:
        stamps_ns: Venue times, int64 [n], not decreasing.
        prices: float64 [n], > 0 and finite.
        sizes: float64 [n], >= 0 and finite.
        session_gap_ns: As in `push`.

    Returns:
        float32 [n, 10]; rows that are not ready are NaN.

    Raises:
        ValueError: The arrays differ in length.
    """
    if not stamps_ns.size == prices.size == sizes.size:
        raise ValueError(f"lengths differ: {stamps_ns.size} stamps, {prices.size} prices, {sizes.size} sizes")
    out = np.empty((stamps_ns.size, WIDTH), np.float32)
    _batch(
        np.require(stamps_ns, np.int64, ("C", "W")),
        np.require(prices, np.float64, ("C", "W")),
        np.require(sizes, np.float64, ("C", "W")),
        session_gap_ns,
        out,
    )
    return out
