"""Calls to the admin listeners of a server's workers: what the desk's verbs of the command line stand on."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import grpc
from google.protobuf.message import Message

from tickgate.v1 import (
    AdminServiceStub,
    GetLimitsRequest,
    GetLimitsResponse,
    GetPortfolioRequest,
    GetPortfolioResponse,
    PortfolioServiceStub,
    PositionSet,
    ReloadLimitsRequest,
    ReloadLimitsResponse,
    ReopenModelRequest,
    ReopenModelResponse,
    SetPositionsRequest,
    SetPositionsResponse,
    SetTradingStateRequest,
    SetTradingStateResponse,
    TradingState,
    WatchPortfolioRequest,
    WatchPortfolioResponse,
)

_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]

_Response = TypeVar("_Response", bound=Message)


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker's admin listener.

    Attributes:
        index: Its own; 0 in a server of one process.
        address: `unix:/path` or `host:port`.
    """

    index: int
    address: str


@dataclass(frozen=True, slots=True)
class Outcome(Generic[_Response]):
    """What one worker answered.

    Attributes:
        worker: Which.
        response: None where it failed.
        error: Why it failed; empty for an answer.
    """

    worker: Worker
    response: _Response | None
    error: str


class DeskClient:
    """Asks several workers at once; a context manager.

    Args:
        workers: Whom.
        credentials: For TCP addresses; a Unix socket is spoken to in plain text.
        timeout_s: Longest wait for an answer.
    """

    def __init__(
        self, workers: Sequence[Worker], credentials: grpc.ChannelCredentials | None = None, timeout_s: float = 5.0
    ) -> None:
        self._timeout_s = timeout_s
        self._channels = {
            worker: grpc.insecure_channel(worker.address, options=_OPTIONS)
            if credentials is None or worker.address.startswith("unix:")
            else grpc.secure_channel(worker.address, credentials, options=_OPTIONS)
            for worker in workers
        }

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Close the connections."""
        for channel in self._channels.values():
            channel.close()

    def set_state(self, state: TradingState.ValueType, reason: str, who: str) -> list[Outcome[SetTradingStateResponse]]:
        """Set the trading state of every worker."""
        request = SetTradingStateRequest(state=state, reason=reason, who=who)
        return self._ask(lambda channel: AdminServiceStub(channel).SetTradingState, request)

    def set_position(
        self, worker: Worker, position: PositionSet, reason: str, who: str
    ) -> list[Outcome[SetPositionsResponse]]:
        """Set one symbol's position, at the worker that has the symbol."""
        request = SetPositionsRequest(positions=[position], reason=reason, who=who)
        return self._ask(lambda channel: AdminServiceStub(channel).SetPositions, request, only=worker)

    def limits(self) -> list[Outcome[GetLimitsResponse]]:
        """The limits that each worker applies."""
        return self._ask(lambda channel: AdminServiceStub(channel).GetLimits, GetLimitsRequest())

    def reload_limits(self, reason: str, who: str) -> list[Outcome[ReloadLimitsResponse]]:
        """Have every worker read the limits anew."""
        request = ReloadLimitsRequest(reason=reason, who=who)
        return self._ask(lambda channel: AdminServiceStub(channel).ReloadLimits, request)

    def reopen(self, name: str, version: int, reason: str, who: str) -> list[Outcome[ReopenModelResponse]]:
        """Have every worker open a degraded version again."""
        request = ReopenModelRequest(name=name, version=version, reason=reason, who=who)
        return self._ask(lambda channel: AdminServiceStub(channel).ReopenModel, request)

    def portfolios(self) -> list[Outcome[GetPortfolioResponse]]:
        """Every worker's portfolio."""
        return self._ask(lambda channel: PortfolioServiceStub(channel).GetPortfolio, GetPortfolioRequest())

    def watch(self) -> Iterator[Outcome[WatchPortfolioResponse]]:
        """Every worker's portfolio, now and whenever it changes; an error is the last of its worker."""
        found: queue.SimpleQueue[Outcome[WatchPortfolioResponse]] = queue.SimpleQueue()
        for worker, channel in self._channels.items():
            threading.Thread(target=_watch, args=[worker, channel, found.put], daemon=True).start()
        watched = len(self._channels)
        while watched:
            outcome = found.get()
            watched -= bool(outcome.error)
            yield outcome

    def _ask(
        self, method: Callable[[grpc.Channel], Any], request: Message, *, only: Worker | None = None
    ) -> list[Outcome[Any]]:
        channels = {worker: channel for worker, channel in self._channels.items() if only in {None, worker}}
        calls = {
            worker: method(channel).future(request, timeout=self._timeout_s) for worker, channel in channels.items()
        }
        outcomes = []
        for worker, call in calls.items():
            try:
                outcomes.append(Outcome(worker, call.result(), ""))
            except grpc.RpcError as error:
                outcomes.append(Outcome(worker, None, _why(worker, error)))
        return outcomes


def _watch(worker: Worker, channel: grpc.Channel, put: Callable[[Outcome[WatchPortfolioResponse]], None]) -> None:
    error = "the server has ended the watch: it drains"
    try:
        for response in PortfolioServiceStub(channel).WatchPortfolio(WatchPortfolioRequest()):
            put(Outcome(worker, response, ""))
    except grpc.RpcError as raised:
        error = _why(worker, raised)
    put(Outcome(worker, None, error))


def _why(worker: Worker, error: grpc.RpcError) -> str:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and worker.address.startswith("unix:") and "connect" in details:
        return f"no server listens there ({details.rpartition(': ')[2]})"
    return f"{code.name}: {details}"
