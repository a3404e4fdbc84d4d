"""Requests as bytes: what the load generators send, and what in-process measurements decode.

A symbol a connection, so that no tick is out of order; a random walk with a trade and a quote in each tick.
"""

import struct
from pathlib import Path

import numpy as np

from tickgate.v1 import PredictRequest, PredictStreamRequest, Quote, Tick, Trade

START_NS = 1_723_161_254_000_000_000
GAP_NS = 1_000_000
BUDGET_US = 100_000


def tick_requests(symbol: str, count: int, seed: int, *, start_ns: int = START_NS) -> list[PredictRequest]:
    """`count` requests of one symbol, sequence 1 ... count, 1 ms apart."""
    rng = np.random.default_rng(seed)
    prices = 60_000.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-5, count)))
    sizes = rng.exponential(0.1, (count, 3))
    return [
        PredictRequest(
            budget_us=BUDGET_US,
            tick=Tick(
                symbol=symbol,
                exchange_ts_ns=start_ns + index * GAP_NS,
                sequence=index + 1,
                trade=Trade(price=price, size=size[0]),
                quote=Quote(bid=price - 0.005, ask=price + 0.005, bid_size=size[1], ask_size=size[2]),
            ),
        )
        for index, (price, size) in enumerate(zip(prices.tolist(), sizes.tolist(), strict=True))
    ]


def write_requests(prefix: Path, connections: int, count: int, *, stream: bool, symbols: str = "SYM") -> None:
    """One file a connection, `<prefix>.<i>`: each request preceded by its length, 4 bytes, little endian."""
    for connection in range(connections):
        with prefix.with_suffix(f".{connection}").open("wb") as file:
            for request in tick_requests(f"{symbols}{connection}", count, seed=connection):
                message = PredictStreamRequest(requests=[request]) if stream else request
                data = message.SerializeToString()
                file.write(struct.pack("<I", len(data)) + data)
