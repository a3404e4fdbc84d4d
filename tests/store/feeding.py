"""Feeds for the store's tests, engines that journal them, and what is compared of two."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tests.ingest.ingesting import Tick
from tests.support.messages import START_NS, tick

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.features.store import FeatureStore
from tickgate_server.journal.layout import RecordKind, text
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.registry import ModelRegistry
from tickgate_server.rpc.answers import Answers
from tickgate_server.states.codec import kernels_hash
from tickgate_server.states.state import SymbolState
from tickgate_server.store.feature_sets import FeatureSets
from tickgate_server.store.replica import Replica, Vectors
from tickgate_server.ticks import market
from tickgate_server.ticks.instruments import Universe
from tickgate_server.ticks.market import MarketState

STEP_NS = 100_000_000


def feed(symbols: Iterable[str], ticks: int, seed: int = 1, *, numbered: bool = True) -> list[pb.PredictRequest]:
    """A market of trades, quotes and both, in order; numbered by symbol."""
    rng = np.random.default_rng(seed)
    names = list(symbols)
    price = dict.fromkeys(names, 100.0)
    sequence = dict.fromkeys(names, 0)
    found = []
    for number in range(ticks):
        name = names[rng.integers(len(names))]
        price[name] *= 1.0 + 0.0005 * rng.normal()
        sequence[name] += 1
        bid = round(price[name] - 0.01 * rng.integers(1, 4), 2)
        kind = 3 if sequence[name] == 1 else rng.choice([1, 2, 3], p=[0.5, 0.2, 0.3])
        found.append(
            tick(
                name,
                START_NS + number * STEP_NS,
                sequence=sequence[name] if numbered else 0,
                trade=(price[name], float(rng.integers(0, 5))) if kind & 1 else None,
                quote=(bid, bid + 0.02, float(rng.integers(1, 9)), float(rng.integers(1, 9))) if kind & 2 else None,
            )
        )
    return found


def with_faults(requests: list[pb.PredictRequest], seed: int = 2, clean: range = range(0)) -> list[pb.PredictRequest]:
    """The same with repeats, duplicates, late ticks, crossed quotes, and spikes that some next trades confirm.

    Each symbol's ticks are numbered anew, without a gap; `clean` are indices of requests that stay as they are.
    """
    rng = np.random.default_rng(seed)
    found: list[pb.PredictRequest] = []
    sequence: dict[str, int] = {}

    def add(request: pb.PredictRequest) -> pb.PredictRequest:
        copy = pb.PredictRequest()
        copy.CopyFrom(request)
        name = copy.tick.symbol
        copy.tick.sequence = sequence[name] = sequence.get(name, 0) + 1
        found.append(copy)
        return copy

    for index, request in enumerate(requests):
        fault = 99 if index in clean else rng.integers(12)
        if fault == 0 and found:
            found.append(found[-1])  # the latest once more, most often
        elif fault == 1 and len(found) > 20:
            found.append(found[rng.integers(len(found) - 20)])
        copy = add(request)
        if fault == 2 and request.tick.HasField("quote"):
            copy.tick.quote.bid = copy.tick.quote.ask + 1.0
        elif fault == 3 and request.tick.HasField("trade"):
            copy.tick.trade.price *= 1.5
            if rng.integers(2):
                add(copy).tick.trade.price *= 1.001
    return found


def ticks_of(requests: list[pb.PredictRequest]) -> list[Tick]:
    """The same as they are published."""
    found = []
    for request in requests:
        own, quote = request.tick, request.tick.quote
        trade = (own.trade.price, own.trade.size) if own.HasField("trade") else None
        numbers = (quote.bid, quote.ask, quote.bid_size, quote.ask_size) if own.HasField("quote") else None
        found.append(Tick(own.symbol, own.exchange_ts_ns, own.sequence, trade, numbers))
    return found


@contextmanager
def serving(
    registry: ModelRegistry,
    folder: Path,
    clock_ns: Callable[[], int] | None = None,
    universe: Universe | None = None,
    **settings: object,
) -> Iterator[tuple[Engine, Answers]]:
    """An engine with a journal, and what answers with it: fast lane and general path as they come."""
    with JournalWriter(folder, segment_records=1024, retained_segments=4096) as journal:
        of_engine = EngineSettings(**{"capacity": 16, "replay": clock_ns is None, **settings})  # type: ignore[arg-type]
        engine = Engine(of_engine, registry, universe, journal=journal, clock_ns=clock_ns or time.time_ns)
        answers = Answers(engine)
        try:
            yield engine, answers
        finally:
            answers.close()


def ask(answers: Answers, requests: Iterable[pb.PredictRequest]) -> None:
    for request in requests:
        found = answers.predict(request.SerializeToString(), time.perf_counter_ns(), 0)
        assert isinstance(found, bytes), found


class Followed:
    """A replica, and the vectors it handed on."""

    def __init__(self, folder: Path, models: Path) -> None:
        self.vectors: list[Vectors] = []
        self.replica = Replica(folder, FeatureSets(models), self.vectors.append)

    def read(self, folder: Path, batch: int = 1000, start: int | None = None) -> "Followed":
        """Everything there is, in batches."""
        with JournalReader(folder, start) as reader:
            while (rows := reader.poll(batch)).size:
                self.replica.take(rows, same_kernels=reader.environment["kernels"] == kernels_hash())
        return self


def row_image(row: int, state: MarketState, stores: Iterable[FeatureStore]) -> list[bytes]:
    """All that a row is, but what a tick held back left of a quote that it did not have."""
    quotes_trades = state.quotes_trades[row].copy()
    if not abs(state.stamps[row, market.HELD_KIND]) & market.QUOTE:
        quotes_trades[market.HELD_BID :] = 0.0
    found = [quotes_trades.tobytes()]
    found += [array[row].tobytes() for array in (state.volatilities, state.stamps, state.sequences)]
    for store in sorted(stores, key=lambda store: store.feature_set.schema_id):
        of_ticks = store.feature_set.of_ticks.width
        found += [getattr(store, name)[row].tobytes() for name in ("prices", "sizes", "stamps_ns", "counts", "ready")]
        found.append(store.vectors[row, :of_ticks].tobytes())
        if store.with_quotes:
            found += [store.carried[row].tobytes(), store.marks[row].tobytes()]
    return found


def engine_images(engine: Engine) -> dict[str, list[bytes]]:
    names = engine.symbols.names
    return {name: row_image(row, engine.market, engine.feature_stores) for row, name in enumerate(names)}


def replica_images(replica: Replica) -> dict[str, list[bytes]]:
    run = replica.run
    assert run is not None
    assert not run.strange.any()
    return {name: row_image(row, run.market, run.stores.values()) for row, name in enumerate(run.names)}


def all_states(replica: Replica) -> list[SymbolState]:
    assert replica.run is not None
    return [replica.state(row) for row in range(len(replica.run.names))]


def scored(folder: Path) -> list[tuple[str, int, bytes]]:
    """Symbol, venue's time and vector of each decision in a journal that was scored."""
    found = []
    with JournalReader(folder) as reader:
        while (rows := reader.poll(4096)).size:
            for row in rows[(rows["kind"] == RecordKind.DECISION) & rows["scored"]]:
                vector = row["vector"][: row["vector_width"]].tobytes()
                found.append((text(row, "symbol"), int(row["exchange_ts_ns"]), vector))
    return found
