"""A publisher: batches of one tick a symbol through PublishBatch, at a rate or as fast as they are answered.

    python -m bench.ingest_load SERVICE DATA RATE BATCH SECONDS FIRST

RATE is in ticks a second, 0: four batches are on their way at any time. BATCH is how many symbols a message has, of
whom each is in one message of a round. FIRST is the sequence to begin with. Prints
JSON: ticks accepted a second, percentiles of a batch's round trip, symbols whose features are not of their last tick.
"""

import itertools
import json
import sys
import time
from collections import deque
from typing import Any

import grpc
import numpy as np

from tickgate.v1 import PredictRequest, PublishBatchRequest, PublishBatchResponse, SignalServiceStub, TickColumns

SYMBOLS = 1000
IN_FLIGHT = 4
START_NS = 1_723_161_254_000_000_000
GAP_NS = 1_000_000
_ATTEMPTS = 50
_PATH = "/tickgate.v1.MarketDataService/PublishBatch"


class Batches:
    """Messages of some symbols, each made by overwriting the columns of the one before.

    Args:
        first: Sequence to begin with.
        symbols: Numbers of the symbols.
    """

    def __init__(self, first: int, symbols: range) -> None:
        self.sequence = first
        self._rng = np.random.default_rng([first, symbols.start])
        self._prices = 100.0 + np.arange(len(symbols)) % 100
        mark = np.arange(1, len(symbols) + 1, dtype=np.uint64) << np.uint64(40)  # found again in the bytes
        message = PublishBatchRequest(
            feed="bench",
            ticks=TickColumns(
                symbols=[f"PUB{number:04d}" for number in symbols],
                symbol_index=range(len(symbols)),
                exchange_ts_ns=mark.tolist(),
                sequence=(mark + np.uint64(1)).tolist(),
                price=(mark + np.uint64(2)).view(np.float64).tolist(),
                size=[1.0] * len(symbols),
            ),
        ).SerializeToString()
        self._data = bytearray(message)
        places = [message.index((mark + np.uint64(column)).tobytes()) for column in range(3)]
        self._stamps, self._sequences = (
            np.frombuffer(self._data, dtype, len(symbols), at)
            for dtype, at in zip((np.int64, np.uint64), places, strict=False)
        )
        self._column = np.frombuffer(self._data, np.float64, len(symbols), places[2])

    def next(self) -> bytes:
        """The next batch."""
        self._prices *= np.exp(self._rng.normal(0.0, 1e-5, self._prices.size))
        self._stamps[:] = START_NS + self.sequence * GAP_NS
        self._sequences[:] = self.sequence
        self._column[:] = self._prices
        self.sequence += 1
        return bytes(self._data)


def publish(service: str, data: str, rate: int, batch: int, seconds: float, first: int) -> dict[str, Any]:
    """Publish for so long, and to the end of the round."""
    batches = [Batches(first, range(start, start + batch)) for start in range(0, SYMBOLS, batch)]
    turns = itertools.cycle(batches)
    took_s: list[float] = []
    waiting: deque[Any] = deque()
    accepted = refused = 0
    with grpc.insecure_channel(service) as channel:
        call = channel.unary_unary(_PATH, response_deserializer=PublishBatchResponse.FromString)

        def settle() -> None:
            nonlocal accepted, refused
            future = waiting.popleft()
            try:
                accepted += future.result().counts.accepted
            except grpc.RpcError:
                refused += batch

        began_s = time.perf_counter()
        due_s = began_s
        while time.perf_counter() - began_s < seconds or batches[-1].sequence < batches[0].sequence:
            while waiting and (waiting[0].done() or len(waiting) >= (IN_FLIGHT if not rate else 64)):
                settle()
            if rate:
                due_s += batch / rate
                time.sleep(max(0.0, due_s - time.perf_counter()))
            sent_s = time.perf_counter()
            future = call.future(next(turns).next(), timeout=30.0)
            future.add_done_callback(lambda _, sent_s=sent_s: took_s.append(time.perf_counter() - sent_s))
            waiting.append(future)
        while waiting:
            settle()
        over_s = time.perf_counter()
    return {
        "ticks_a_second": accepted / (over_s - began_s),
        "refused": refused,
        "batch_ms": np.percentile(np.array(took_s) * 1e3, [50, 99]).tolist(),
        "behind": behind(data, batches[0].sequence - 1),
        "next": batches[0].sequence,
    }


def behind(data: str, last: int) -> int:
    """How many symbols' features are not of their last tick."""
    with grpc.insecure_channel(data) as channel:
        stub = SignalServiceStub(channel)

        def asked(symbol: str) -> Any:
            for _ in range(_ATTEMPTS):
                try:
                    return stub.Predict(PredictRequest(symbol=symbol), timeout=5.0)
                except grpc.RpcError as error:  # its budget was spent: the machine is busy
                    if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                        raise
            raise SystemExit(f"bench: {symbol} was not answered in {_ATTEMPTS} attempts")

        found = [asked(f"PUB{number:04d}") for number in range(SYMBOLS)]
    return sum(one.features.exchange_ts_ns != START_NS + last * GAP_NS for one in found)


if __name__ == "__main__":
    rate, batch, seconds, first = sys.argv[3:]
    print(json.dumps(publish(sys.argv[1], sys.argv[2], int(rate), int(batch), float(seconds), int(first))))
