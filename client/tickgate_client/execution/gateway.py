"""The gateway that is safe to use: asks for signals, and executes what the server approved.

channel = grpc.insecure_channel("localhost:50052")  # the server's service listener
with Outbox("orders.outbox") as outbox, SignalClient("localhost:50051") as client:
    with OrderGateway(client, engine, outbox, channel, monitor=monitor) as gateway:
        outcome = gateway.ask(tick)
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TypedDict, Unpack

import grpc

from tickgate.v1 import market_pb2, signal_pb2
from tickgate_client.errors import ContractBroken
from tickgate_client.execution.engine import ExecutionEngine
from tickgate_client.execution.gateway_core import GatewayCore
from tickgate_client.execution.gateway_settings import GatewaySettings
from tickgate_client.execution.outbox import Outbox
from tickgate_client.execution.outcomes import GatewayEvent, Outcome
from tickgate_client.execution.parents import Approval
from tickgate_client.execution.schedules import Schedule
from tickgate_client.options import Input
from tickgate_client.sla.monitor import SlaMonitor


class Asks(Protocol):
    """What is asked for signals: SignalClient and RoutedSignalClient."""

    def predict(self, what: Input, *, request_id: str | None = None) -> signal_pb2.PredictResponse:
        """One signal."""


class AsksAsync(Protocol):
    """The same for asyncio: AsyncSignalClient and AsyncRoutedSignalClient."""

    async def predict(self, what: Input, *, request_id: str | None = None) -> signal_pb2.PredictResponse:
        """One signal."""


class GatewayOptions(TypedDict, total=False):
    """The options of a gateway; see OrderGateway."""

    monitor: SlaMonitor | None
    plan: Callable[[Approval], Schedule]
    on_event: Callable[[GatewayEvent], None]
    clock: Callable[[], int]
    settings: GatewaySettings | None
    watch_lease_s: float


class _RequestIds:
    """Ids that no other gateway gives: a repeated one gets an old answer, which is not executed."""

    def __init__(self) -> None:
        self._begin = uuid.uuid4().hex[:16]
        self._numbers = itertools.count(1)

    def next(self) -> str:
        return f"{self._begin}-{next(self._numbers)}"


class OrderGateway(GatewayCore):
    """Asks one server, or one worker, for signals and executes them. Safe to use from several threads.

    With several workers each has a portfolio and a trading state of its own, and needs a gateway of its own.

    Args:
        client: Asked for signals.
        engine: Executes orders.
        outbox: Where orders and fills are recorded until the server has them; its own.
        service: Channel to the service listener of the same server; see `desk.service_channel`.
        monitor: Judges the client's calls (give it to the client as `latency`); None: nobody does.
        plan: How an approval is spread over time; left out: all of it at once.
        on_event: Called with what the gateway notices, on the thread that did, while others wait for it.
        clock: Nanoseconds that never go back; in a replay, the ticks' own time.
        settings: How it works.
        watch_lease_s: How long the desk's state is believed without news.
    """

    def __init__(
        self,
        client: Asks,
        engine: ExecutionEngine,
        outbox: Outbox,
        service: grpc.Channel,
        **options: Unpack[GatewayOptions],
    ) -> None:
        super().__init__(engine, outbox, service, **options)
        self.client = client
        self._ids = _RequestIds()

    def ask(self, tick: market_pb2.Tick, *, request_id: str | None = None) -> Outcome:
        """Ask about a tick, and execute what comes of it; raises what the client does, and then nothing is executed.

        Args:
            tick: Applied to its symbol's state first.
            request_id: Used once; None: a new one.
        """
        request_id = request_id or self._ids.next()
        arrival_price = self.note_price(tick)
        asked_ns = self._clock()
        response = self.client.predict(tick, request_id=request_id)
        _require_own(response, tick, request_id)
        return self.take(response, asked_ns, arrival_price)

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class AsyncOrderGateway(GatewayCore):
    """`OrderGateway` for asyncio: only asking is awaited; reports and the desk have threads of their own."""

    def __init__(
        self,
        client: AsksAsync,
        engine: ExecutionEngine,
        outbox: Outbox,
        service: grpc.Channel,
        **options: Unpack[GatewayOptions],
    ) -> None:
        super().__init__(engine, outbox, service, **options)
        self.client = client
        self._ids = _RequestIds()

    async def ask(self, tick: market_pb2.Tick, *, request_id: str | None = None) -> Outcome:
        """See OrderGateway.ask."""
        request_id = request_id or self._ids.next()
        arrival_price = self.note_price(tick)
        asked_ns = self._clock()
        response = await self.client.predict(tick, request_id=request_id)
        _require_own(response, tick, request_id)
        return self.take(response, asked_ns, arrival_price)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.end)


def _require_own(response: signal_pb2.PredictResponse, tick: market_pb2.Tick, request_id: str) -> None:
    expected, found = (request_id, tick.symbol), (response.request_id, response.symbol)
    if found != expected:
        raise ContractBroken(expected=f"the answer to {expected}", found=f"one to {found}")
