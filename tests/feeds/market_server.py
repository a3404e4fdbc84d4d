"""The peer of these tests: a real gRPC server that takes ticks as the contract says, and breaks off where a test says.

It judges by sequence alone: a symbol's repeated one is DUPLICATE, the latest once more is `repeated_latest`, a lower
one that it never saw OUT_OF_ORDER.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Self

import grpc

from tickgate.symbol_hash import worker_of
from tickgate.v1 import market_data_pb2, market_pb2, signal_pb2, topology_pb2
from tickgate.v1.market_data_pb2_grpc import MarketDataServiceServicer, add_MarketDataServiceServicer_to_server
from tickgate.v1.topology_pb2_grpc import TopologyServiceServicer, add_TopologyServiceServicer_to_server
from tickgate_client.feeds.columns import ticks_of


@dataclass(frozen=True)
class Break:
    """How a stream or call ends at a message, instead of an answer.

    Attributes:
        code: The status.
        text: Its text.
        applied: The ticks were applied all the same: the answer is lost.
    """

    code: grpc.StatusCode
    text: str
    applied: bool = False


Fault = Callable[["MarketWorker", list[market_pb2.Tick]], Break | None]


class Gate:
    """A fault that is none: the market stands still once so many ticks have arrived, until it is opened.

    Attributes:
        reached: So many have.
    """

    def __init__(self, market: Market, arrived: int) -> None:
        self.reached = threading.Event()
        self._market = market
        self._arrived = arrived
        self._open = threading.Event()
        market.fault = self

    def __call__(self, _worker: MarketWorker, _ticks: list[market_pb2.Tick]) -> Break | None:
        if len(self._market.arrived) >= self._arrived:
            self.reached.set()
            assert self._open.wait(60)
        return None

    def wait(self) -> None:
        assert self.reached.wait(60)

    def open(self) -> None:
        self._open.set()


def no_fault(_worker: MarketWorker, _ticks: list[market_pb2.Tick]) -> Break | None:
    return None


@dataclass
class Market:
    """What all workers saw; it outlives a server, as a journal does.

    Attributes:
        arrived: Every tick that reached a worker, in order.
        accepted: Those that it applied, in order.
        in_messages: Ticks in each message.
        feeds: Names of feeds that were given.
        fault: Says of each message whether something goes wrong.
        miscounts: Acknowledgements say one message more than there were.
    """

    fault: Fault = no_fault
    miscounts: bool = False
    arrived: list[market_pb2.Tick] = field(default_factory=list)
    accepted: list[market_pb2.Tick] = field(default_factory=list)
    in_messages: list[int] = field(default_factory=list)
    feeds: set[str] = field(default_factory=set)
    seen: dict[str, set[int]] = field(default_factory=dict)
    latest: dict[str, int] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def apply(self, ticks: Iterable[market_pb2.Tick]) -> market_data_pb2.TickCounts:
        counts: Counter[str] = Counter()
        rejected: Counter[signal_pb2.Reason.ValueType] = Counter()
        for tick in ticks:
            self.arrived.append(tick)
            seen = self.seen.setdefault(tick.symbol, set())
            latest = self.latest.get(tick.symbol, 0)
            if seen and tick.sequence == latest:
                counts["repeated_latest"] += 1
            elif tick.sequence in seen:
                rejected[signal_pb2.REASON_TICK_DUPLICATE] += 1
            elif tick.sequence < latest:
                rejected[signal_pb2.REASON_TICK_OUT_OF_ORDER] += 1
            else:
                seen.add(tick.sequence)
                self.latest[tick.symbol] = tick.sequence
                self.accepted.append(tick)
                counts["accepted"] += 1
        return market_data_pb2.TickCounts(
            accepted=counts["accepted"],
            repeated_latest=counts["repeated_latest"],
            rejected=[market_data_pb2.RejectedTicks(reason=reason, ticks=n) for reason, n in rejected.items()],
        )

    def sequences(self, symbol: str) -> list[int]:
        """Of the symbol's ticks that were applied, in order."""
        return [tick.sequence for tick in self.accepted if tick.symbol == symbol]


@dataclass
class MarketWorker(MarketDataServiceServicer, TopologyServiceServicer):
    """One worker: data and service listener are one port."""

    market: Market
    index: int = 0
    of: int = 1
    topology: Callable[[], topology_pb2.GetTopologyResponse | None] = lambda: None

    def GetTopology(  # noqa: N802 - gRPC's name
        self, _request: topology_pb2.GetTopologyRequest, context: grpc.ServicerContext
    ) -> topology_pb2.GetTopologyResponse:
        response = self.topology()
        if response is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "this is a service listener")
        return response

    def PublishTicks(  # noqa: N802 - gRPC's name
        self,
        request_iterator: Iterator[market_data_pb2.PublishTicksRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[market_data_pb2.PublishTicksResponse]:
        for messages, request in enumerate(request_iterator, start=1 + self.market.miscounts):
            counts = self._take(request.feed, list(request.ticks), context)
            yield market_data_pb2.PublishTicksResponse(messages=messages, counts=counts)

    def PublishBatch(  # noqa: N802 - gRPC's name
        self, request: market_data_pb2.PublishBatchRequest, context: grpc.ServicerContext
    ) -> market_data_pb2.PublishBatchResponse:
        return market_data_pb2.PublishBatchResponse(counts=self._take(request.feed, ticks_of(request.ticks), context))

    def _take(
        self, feed: str, ticks: list[market_pb2.Tick], context: grpc.ServicerContext
    ) -> market_data_pb2.TickCounts:
        with self.market.lock:
            self.market.feeds.add(feed)
            self.market.in_messages.append(len(ticks))
            for tick in ticks:
                owner = worker_of(tick.symbol, self.of)
                if owner != self.index:
                    text = f"symbol: expected worker {owner} of {self.of}, reached worker {self.index}"
                    context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
            fault = self.market.fault(self, ticks)
            if fault is not None and not fault.applied:
                context.abort(fault.code, fault.text)
            counts = self.market.apply(ticks)
            if fault is not None:
                context.abort(fault.code, fault.text)
            return counts


def free_ports(count: int) -> list[int]:
    """Ports of servers that were here a moment ago."""
    servers = [grpc.server(futures.ThreadPoolExecutor(max_workers=1)) for _ in range(count)]
    ports = [server.add_insecure_port("127.0.0.1:0") for server in servers]
    for server in servers:
        server.start()
        server.stop(None).wait()
    return ports


class MarketServer:
    """Workers on fixed ports, that stop and start again.

    Args:
        market: What they take ticks for.
        workers: How many, on ports of their own.
        ports: Of an earlier server.
        credentials: None: plain text.
        topology: Whether they know the topology, as data listeners do.
    """

    def __init__(
        self,
        market: Market,
        workers: int = 1,
        ports: list[int] | None = None,
        *,
        credentials: grpc.ServerCredentials | None = None,
        topology: bool = True,
    ) -> None:
        self.market = market
        self._credentials = credentials
        self._has_topology = topology
        self.ports = ports or free_ports(workers)
        self.service_addresses = [f"127.0.0.1:{port}" for port in self.ports]
        self.target = self.service_addresses[0]
        self._servers: list[grpc.Server] = []

    def start(self) -> Self:
        for index, port in enumerate(self.ports):
            server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
            worker = MarketWorker(self.market, index, len(self.ports), self._topology)
            add_MarketDataServiceServicer_to_server(worker, server)
            add_TopologyServiceServicer_to_server(worker, server)
            address = f"127.0.0.1:{port}"
            if self._credentials is None:
                assert server.add_insecure_port(address) == port
            else:
                assert server.add_secure_port(address, self._credentials) == port
            server.start()
            self._servers.append(server)
        return self

    def stop(self) -> None:
        while self._servers:
            self._servers.pop().stop(None).wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _topology(self) -> topology_pb2.GetTopologyResponse | None:
        if not self._has_topology:
            return None
        return topology_pb2.GetTopologyResponse(
            workers=[
                topology_pb2.Worker(index=index, address=self.target, service_address=address)
                for index, address in enumerate(self.service_addresses)
            ],
            symbol_hash=topology_pb2.SYMBOL_HASH_FNV1A64_JUMP,
            epoch=f"{len(self.ports)} workers",
        )


def tick(symbol: str, sequence: int, price: float = 100.0) -> market_pb2.Tick:
    return market_pb2.Tick(
        symbol=symbol,
        exchange_ts_ns=1_700_000_000_000_000_000 + sequence,
        sequence=sequence,
        trade=market_pb2.Trade(price=price, size=1.0),
    )


def ticks(count: int, symbols: int = 3, begin: int = 0) -> list[market_pb2.Tick]:
    """Ticks numbered over all symbols, from 1: a symbol's sequences rise."""
    return [tick(f"S{at % symbols}", at + 1) for at in range(begin, begin + count)]
