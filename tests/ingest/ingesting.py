"""Published ticks for the tests: messages as columns, engines to take them in, and what the journal has of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.ingest.columns import Columns
from tickgate_server.ingest.ingestion import Counts, IngestSettings
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.registry import ModelRegistry
from tickgate_server.records import TICK, Decision, Request
from tickgate_server.rpc.codec import decode
from tickgate_server.ticks.instruments import Universe
from tickgate_server.ticks.market import QUOTE, TRADE


@dataclass(frozen=True)
class Tick:
    """One tick; its trade is price and size, its quote bid, ask, bid size and ask size."""

    symbol: str
    exchange_ts_ns: int
    sequence: int = 0
    trade: tuple[float, float] | None = None
    quote: tuple[float, float, float, float] | None = None

    @property
    def kind(self) -> int:
        return (TRADE if self.trade is not None else 0) | (QUOTE if self.quote is not None else 0)

    @property
    def numbers(self) -> tuple[float, ...]:
        return (*(self.trade or (0.0, 0.0)), *(self.quote or (0.0,) * 4))


def columns_of(ticks: Sequence[Tick]) -> tuple[bytes, Any, Columns]:
    """As `Ingestion.take_in` wants them: the symbols' bytes, their spans, the columns."""
    symbols = list(dict.fromkeys(tick.symbol for tick in ticks))
    numbers = {symbol: number for number, symbol in enumerate(symbols)}
    names = [symbol.encode() for symbol in symbols]
    ends = np.cumsum([len(name) for name in names]) if names else np.zeros(0, np.int64)
    spans = np.array([(end - len(name), len(name)) for end, name in zip(ends, names, strict=True)], np.int64)
    columns = Columns(
        np.array([numbers[tick.symbol] for tick in ticks], np.uint32),
        np.array([tick.kind for tick in ticks], np.uint32),
        np.array([tick.exchange_ts_ns for tick in ticks], np.int64),
        np.array([tick.sequence for tick in ticks], np.uint64),
        tuple(np.array([tick.numbers[k] for tick in ticks], np.float64) for k in range(6)),
    )
    return b"".join(names), spans.reshape(-1, 2), columns


class Clock:
    """The server's clock, set by hand."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


class Publishing:
    """An engine that ticks are published to."""

    def __init__(
        self,
        registry: ModelRegistry,
        clock: Clock,
        folder: Path | None = None,
        *,
        settings: EngineSettings | None = None,
        ingest: IngestSettings | None = None,
        universe: Universe | None = None,
        segment_records: int = 4096,
        **engine: Any,
    ) -> None:
        self.folder = folder
        self.journal = None if folder is None else JournalWriter(folder, segment_records=segment_records)
        self.engine = Engine(
            settings or EngineSettings(capacity=16),
            registry,
            universe,
            clock_ns=clock,
            journal=self.journal,
            ingest=ingest,
            **engine,
        )
        self.ingestion = self.engine.ingestion
        self.told: list[Counts | Exception] = []
        self.decision = Decision()

    def publish(self, ticks: Sequence[Tick], feed: str = "") -> None:
        """Take one message in; nothing is applied yet."""
        self.ingestion.take_in(feed, *columns_of(ticks), self.told.append)

    def settle(self) -> None:
        """Apply all that is in the queue."""
        while self.ingestion.turn():
            pass

    def counts(self, ticks: Sequence[Tick], feed: str = "") -> Counts:
        """Publish, apply, and what the publisher is told."""
        self.publish(ticks, feed)
        self.settle()
        found = self.told.pop()
        assert isinstance(found, Counts)
        return found

    @staticmethod
    def request(tick: Tick) -> Request:
        """The same tick as a Predict brings it."""
        request = Request()
        request.arrival_ns = perf_counter_ns()
        request.input, request.symbol, request.kind = TICK, tick.symbol, tick.kind
        request.exchange_ts_ns, request.sequence = tick.exchange_ts_ns, tick.sequence
        request.price, request.size = tick.trade or (0.0, 0.0)
        request.bid, request.ask, request.bid_size, request.ask_size = tick.quote or (0.0,) * 4
        return request

    def predict(self, tick: Tick) -> Decision:
        """The general path's way with the same tick."""
        decision = Decision()
        self.engine.decide(self.request(tick), decision)
        return decision

    def ask(self, symbol: str) -> Decision:
        """A Predict by symbol."""
        request, decision = Request(), Decision()
        decode(pb.PredictRequest(symbol=symbol), request)
        request.arrival_ns = perf_counter_ns()
        self.engine.decide(request, decision)
        return decision

    def close(self) -> None:
        self.engine.close()
        if self.journal is not None:
            self.journal.close()


def state_of(engine: Engine) -> dict[str, bytes]:
    """All that ticks change."""
    market, book = engine.market, engine.desk.book
    found = {name: getattr(market, name).tobytes() for name in ("quotes_trades", "volatilities", "stamps", "sequences")}
    for number, store in enumerate(engine.feature_stores):
        for name in ("vectors", "ready", "counts", "prices", "sizes", "stamps_ns", "carried", "marks"):
            found[f"{number}.{name}"] = getattr(store, name).tobytes()
    found |= {name: getattr(book, name).tobytes() for name in ("rows", "facts", "account", "orders", "order_facts")}
    return found | {"names": repr(engine.symbols.names).encode()}
