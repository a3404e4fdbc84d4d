"""Features of one symbol's whole history at once, for any feature set: the loop over the kernel that serves.

A row is a tick. In the canonical table each is a trade with the quote in force just before it, which reaches the stream
as a tick with both: then a quote that the row before had too is no update. Rows of quotes alone may stand between them,
told apart by `kind`.
"""

import numpy as np
from numpy.typing import NDArray

from tickgate_server.features import fundamentals, micro10, micro32
from tickgate_server.features.fundamentals_table import FundamentalsTable
from tickgate_server.features.micro32 import QUOTE, TRADE
from tickgate_server.features.schema import FeatureSet, FeatureSetUnknown
from tickgate_server.kernels import kernel


@kernel(
    "void(int64[::1], int64[::1], float64[::1], float64[::1], float64[::1], float64[::1], float64[::1], float64[::1],"
    " int64, f4[:,::1])"
)
def _micro32(
    kinds: NDArray[np.int64],
    stamps_ns: NDArray[np.int64],
    prices: NDArray[np.float64],
    sizes: NDArray[np.float64],
    bids: NDArray[np.float64],
    asks: NDArray[np.float64],
    bid_sizes: NDArray[np.float64],
    ask_sizes: NDArray[np.float64],
    session_gap_ns: int,
    out: NDArray[np.float32],
) -> None:
    ring_prices = np.zeros((1, micro10.RING))
    ring_sizes = np.zeros((1, micro10.RING))
    ring_stamps = np.zeros((1, micro10.RING), np.int64)
    counts = np.zeros(1, np.int64)
    carried = np.zeros((1, micro32.CARRIED))
    marks = np.zeros((1, micro32.MARKS), np.int64)
    ready = False
    for i in range(stamps_ns.size):
        if i > 0 and kinds[i] & TRADE == 0:  # what a symbol's latest vector is then
            out[i] = out[i - 1]
        ready = micro32.take(
            ring_prices, ring_sizes, ring_stamps, counts, carried, marks, 0, session_gap_ns, kinds[i], stamps_ns[i],
            prices[i], sizes[i], bids[i], asks[i], bid_sizes[i], ask_sizes[i], out[i], ready,
        )  # fmt: skip


def compute(
    feature_set: FeatureSet,
    *,
    exchange_ts_ns: NDArray[np.int64],
    price: NDArray[np.float64],
    size: NDArray[np.float64],
    bid: NDArray[np.float64] | None = None,
    ask: NDArray[np.float64] | None = None,
    bid_size: NDArray[np.float64] | None = None,
    ask_size: NDArray[np.float64] | None = None,
    kind: NDArray[np.integer] | None = None,
    known: FundamentalsTable | None = None,
    symbol: str = "",
) -> NDArray[np.float32]:
    """Features of one symbol's ticks in order, equal to the stream's bit for bit; the arguments are named as columns.

    Args:
        feature_set: What to compute.
        exchange_ts_ns: Venue times, int64 [n], > 0, not decreasing.
        price: float64 [n], > 0 and finite; of a row without a trade anything.
        size: float64 [n], >= 0 and finite; likewise.
        bid: float64 [n], > 0 and finite; NaN where the row has no quote. Left out with the next three: none has.
        ask: float64 [n], >= bid and finite; likewise.
        bid_size: float64 [n], >= 0 and finite; likewise.
        ask_size: float64 [n], >= 0 and finite; likewise.
        kind: Integers [n]: TRADE, QUOTE or both, as `ticks.market`. Left out: each row is a trade, with its quote where
            `bid` is a number.
        known: Fundamentals, for a feature set with some.
        symbol: Whose of these; needed only with them.

    Returns:
        float32 [n, width]: a symbol's latest vector after each tick, NaN where it is not ready. Where a row is a quote
        alone, that is the vector of the trade before it, with the fundamentals of the row's own time.

    Raises:
        ValueError: Lengths differ, a part of the quote is left out, a stamp is not above 0 or below the one before, a
            kind is none of the three, or a number is out of its range; says the row. Or fundamentals are left out.
        FeatureSetUnknown: No kernel computes the set.
    """
    quote = {"bid": bid, "ask": ask, "bid_size": bid_size, "ask_size": ask_size}
    given = {name: column for name, column in quote.items() if column is not None}
    if given and len(given) < len(quote):
        raise ValueError(f"a quote is whole or absent: without {', '.join(sorted(set(quote) - set(given)))}")
    rows = exchange_ts_ns.size
    columns = {"exchange_ts_ns": exchange_ts_ns, "price": price, "size": size} | given
    if kind is not None:
        columns["kind"] = kind
    if any(column.size != rows for column in columns.values()):
        raise ValueError(f"lengths differ: {', '.join(f'{column.size} {name}' for name, column in columns.items())}")
    absent = np.full(rows, np.nan)
    numbers = {name: _floats(given.get(name, absent)) for name in quote}
    numbers |= {"price": _floats(price), "size": _floats(size)}
    stamps_ns = np.require(exchange_ts_ns, np.int64, ("C", "W"))
    kinds = _kinds(kind, numbers["bid"])
    _check(kinds, stamps_ns, numbers)
    if feature_set.fundamentals:
        if known is None:
            raise ValueError(f"{feature_set.name} is computed with fundamentals: known is left out")
        of_ticks = _of_ticks(feature_set.of_ticks, kinds, stamps_ns, numbers)
        return np.hstack((of_ticks, fundamentals.columns(feature_set, known, symbol, stamps_ns)))
    return _of_ticks(feature_set, kinds, stamps_ns, numbers)


def _of_ticks(
    feature_set: FeatureSet,
    kinds: NDArray[np.int64],
    stamps_ns: NDArray[np.int64],
    numbers: dict[str, NDArray[np.float64]],
) -> NDArray[np.float32]:
    if feature_set.name == "micro32":
        out = np.full((stamps_ns.size, micro32.WIDTH), np.nan, np.float32)
        _micro32(
            kinds,
            stamps_ns,
            numbers["price"],
            numbers["size"],
            numbers["bid"],
            numbers["ask"],
            numbers["bid_size"],
            numbers["ask_size"],
            feature_set.session_gap_ns,
            out,
        )
        return out
    if feature_set.name == "micro10":
        return _micro10(kinds, stamps_ns, numbers["price"], numbers["size"], feature_set.session_gap_ns)
    raise FeatureSetUnknown(feature_set.name)


def _micro10(
    kinds: NDArray[np.int64],
    stamps_ns: NDArray[np.int64],
    prices: NDArray[np.float64],
    sizes: NDArray[np.float64],
    session_gap_ns: int,
) -> NDArray[np.float32]:
    trades = kinds & TRADE != 0
    found = micro10.batch(stamps_ns[trades], prices[trades], sizes[trades], session_gap_ns)
    if trades.all():
        return found
    before = np.full((1, micro10.WIDTH), np.nan, np.float32)  # the first trade
    after: NDArray[np.float32] = np.concatenate((before, found))[np.cumsum(trades)]
    return after


def _floats(column: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.require(column, np.float64, ("C", "W"))


def _kinds(kind: NDArray[np.integer] | None, bids: NDArray[np.float64]) -> NDArray[np.int64]:
    if kind is None:
        return np.where(np.isnan(bids), TRADE, TRADE | QUOTE)
    return np.require(kind, np.int64, ("C", "W"))


def _check(kinds: NDArray[np.int64], stamps_ns: NDArray[np.int64], numbers: dict[str, NDArray[np.float64]]) -> None:
    """Every number in range, so that the kernel stays within what it is defined on; NaN is in no range."""
    _require(stamps_ns > 0, "exchange_ts_ns", stamps_ns, "above 0")
    _require(np.diff(stamps_ns, prepend=stamps_ns[:1]) >= 0, "exchange_ts_ns", stamps_ns, "not below the one before")
    _require((kinds >= TRADE) & (kinds <= TRADE | QUOTE), "kind", kinds, f"{TRADE}, {QUOTE} or {TRADE | QUOTE}")
    for name, column in numbers.items():
        unread = kinds & (TRADE if name in {"price", "size"} else QUOTE) == 0
        sized = name.endswith("size")
        inside = ((column >= 0.0) if sized else (column > 0.0)) & (column < np.inf)
        _require(unread | inside, name, column, f"a finite number {'>=' if sized else '>'} 0")
    unread = kinds & QUOTE == 0
    _require(unread | (numbers["bid"] <= numbers["ask"]), "bid", numbers["bid"], "not above its ask")


def _require(holds: NDArray[np.bool_], name: str, column: NDArray[np.generic], rule: str) -> None:
    if not holds.all():
        row = int(np.argmin(holds))
        raise ValueError(f"{name}[{row}]: expected {rule}, got {column[row]}")
