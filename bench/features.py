"""Features in batch on one core: `micro10`'s kernel beside its definitions written with array slices, and `micro32`.

Both are compiled by numba from the same definitions; what differs is that slices make arrays of each window. All are
run in turn on the same simulated ticks, timed by the thread's own clock, which stands still while another program has
the core. What they give is compared: batch and stream bit for bit, the slices to 1e-5.
"""

from collections.abc import Callable
from time import thread_time

import numba
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from tickgate_server.features.batch import compute
from tickgate_server.features.micro10 import batch
from tickgate_server.features.micro32 import QUOTE, TRADE
from tickgate_server.features.schema import TICK_SESSION_GAP_NS, FeatureSet, micro10, micro32
from tickgate_server.features.store import FeatureStore
from tickgate_training.data.simulator import simulate
from tickgate_training.data.table import values

ROWS = 200_000
STREAMED_ROWS = 50_000
ROUNDS = 7
COLUMNS = ("exchange_ts_ns", "price", "size", "bid", "ask", "bid_size", "ask_size")

Compute = Callable[[], NDArray[np.float32]]


@numba.njit(error_model="numpy")
def _sliced(
    stamps_ns: NDArray[np.int64], prices: NDArray[np.float64], sizes: NDArray[np.float64], session_gap_ns: int
) -> NDArray[np.float32]:
    """The definitions of `micro10` as one writes them with numpy, a slice a window."""
    out = np.full((prices.size, 10), np.nan, np.float32)
    start = 0
    for i in range(prices.size):
        if i > 0 and stamps_ns[i] - stamps_ns[i - 1] > session_gap_ns:
            start = i
        if i - start < 10:
            continue
        w, v = prices[i - 10 : i], sizes[i - 10 : i]
        changes = np.diff(w)
        bought, sold = np.sum(v[1:][changes > 0.0]), np.sum(v[1:][changes < 0.0])
        for column, k in enumerate((1, 5, 10)):
            out[i, column] = (prices[i] - prices[i - k]) / prices[i - k]
        out[i, 3] = 0.0
        if np.sum(v) > 0.0:
            vwap = np.sum(w * v) / np.sum(v)
            out[i, 3] = (prices[i] - vwap) / vwap
        out[i, 4] = np.std(changes / w[:-1])
        out[i, 5] = (bought - sold) / (bought + sold + 1e-10)
        out[i, 6] = np.sign(prices[i] - prices[i - 1])
        out[i, 7] = (stamps_ns[i] - stamps_ns[i - 1]) / 1e9
        out[i, 8] = (np.max(w) - np.min(w)) / prices[i]
        out[i, 9] = 0.0
        if np.max(v) > np.min(v):
            out[i, 9] = min(max((sizes[i] - np.mean(v)) / np.std(v), -10.0), 10.0)
    return out


def _streamed(feature_set: FeatureSet, columns: dict[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    """The store's vector after each tick, one call a tick from Python."""
    store = FeatureStore(feature_set, 1)
    out = np.empty((STREAMED_ROWS, feature_set.width), np.float32)
    rows = zip(*(columns[name][:STREAMED_ROWS].tolist() for name in COLUMNS), strict=True)
    for index, row in enumerate(rows):
        store.take(0, TRADE | QUOTE, *row)
        out[index] = store.vectors[0]
    return out


def features() -> Table:
    """Rows a second of each way, and its ratio to the slices; the median of rounds in which each has its turn."""
    frame = simulate(ROWS, 1, 0.2)
    columns = {name: values(frame, name) for name in COLUMNS}
    three = tuple(columns[name] for name in COLUMNS[:3])
    ways: dict[str, Compute] = {
        "micro10, array slices": lambda: _sliced(*three, TICK_SESSION_GAP_NS),
        "micro10, kernel": lambda: batch(*three, TICK_SESSION_GAP_NS),
        "micro32, kernel": lambda: compute(micro32(), **columns),
    }
    found = {name: way() for name, way in ways.items()}  # the slices are compiled here
    took_s: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = thread_time()
            way()
            took_s[name].append(thread_time() - start)
    slices_s = np.array(took_s["micro10, array slices"])
    kernel = found["micro10, kernel"]
    close = np.allclose(found["micro10, array slices"], kernel, rtol=1e-5, atol=1e-9, equal_nan=True)
    said = {
        "micro10, array slices": f"within 1e-5 of the kernel: {close}",
        "micro10, kernel": _equal_to_the_stream(micro10(), columns, kernel),
        "micro32, kernel": _equal_to_the_stream(micro32(), columns, found["micro32, kernel"]),
    }
    table = Table(title=f"features in batch, {ROWS:,} simulated ticks, one core, median of {ROUNDS} rounds in turn")
    for heading in ("way", "rows/s", "ns a row", "times the slices", "checked"):
        table.add_column(heading, justify="left" if heading in {"way", "checked"} else "right")
    for name, took in took_s.items():
        median_s = float(np.median(took))
        ratio = float(np.median(slices_s / np.array(took)))  # of each round
        shown = f"{ratio:.1f}" if name.startswith("micro10") else ""
        table.add_row(name, f"{ROWS / median_s:,.0f}", f"{median_s / ROWS * 1e9:,.0f}", shown, said[name])
    return table


def _equal_to_the_stream(
    feature_set: FeatureSet, columns: dict[str, NDArray[np.generic]], found: NDArray[np.float32]
) -> str:
    equal = _streamed(feature_set, columns).tobytes() == found[:STREAMED_ROWS].tobytes()
    return f"equal to the stream bit for bit: {equal}"
