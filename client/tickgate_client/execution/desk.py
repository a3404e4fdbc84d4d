"""The server's desk as a gateway sees it: its trading state for as long as that is known, and its portfolio.

The state is known for a lease: it is asked for again before the lease ends, and where no answer comes, because the
stream broke, the server hangs or this process was stopped for a while, the desk is lost and counts as halted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import grpc

from tickgate.v1 import portfolio_pb2, signal_pb2
from tickgate.v1.portfolio_pb2_grpc import PortfolioServiceStub
from tickgate_client.call_errors import error_of_call
from tickgate_client.options import CHANNEL_OPTIONS


class DeskState(StrEnum):
    """What the desk lets through."""

    ACTIVE = "ACTIVE"
    """All that the gate approves."""
    REDUCING = "REDUCING"
    """Reducing orders only."""
    HALTED = "HALTED"
    """Nothing."""
    LOST = "LOST"
    """Nobody knows: nothing."""


_STATES = {
    signal_pb2.TRADING_STATE_ACTIVE: DeskState.ACTIVE,
    signal_pb2.TRADING_STATE_REDUCING: DeskState.REDUCING,
    signal_pb2.TRADING_STATE_HALTED: DeskState.HALTED,
}


def service_channel(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """A channel to a service listener that comes back soon after the server does; gRPC's own backoff grows to minutes.

    Args:
        target: `host:port` or `unix:/path`; with several workers, as the topology gives it for one.
        credentials: None: plain text.
    """
    if credentials is None:
        return grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
    return grpc.secure_channel(target, credentials, options=CHANNEL_OPTIONS)


@dataclass(frozen=True, slots=True)
class DeskView:
    """The desk at one moment.

    Attributes:
        state: What it lets through.
        why: The reason that was given for it, or how it was lost.
    """

    state: DeskState
    why: str


class DeskWatch:
    """Follows one worker's trading state on a thread of its own.

    Args:
        channel: To the server's service listener.
        on_change: Called on that thread with each change, the first state among them.
        renew_s: How often the state is asked for anew.
        lease_s: How long it is believed without an answer; above `renew_s`.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        on_change: Callable[[DeskView], None],
        *,
        renew_s: float = 1.0,
        lease_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < renew_s < lease_s:
            raise ValueError(f"renew_s is {renew_s}, must be above 0 and below lease_s, {lease_s}")
        stub = PortfolioServiceStub(channel)
        self._watch = stub.WatchTradingState
        self._get_portfolio = stub.GetPortfolio
        self._on_change = on_change
        self._renew_s, self._lease_s = renew_s, lease_s
        self._clock = clock
        self._known = DeskView(DeskState.LOST, "the desk was not asked yet")
        self._until_s = clock()
        self._stopping = threading.Event()
        self._heard = threading.Event()
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, name="tickgate-desk", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the desk was heard of; False: it was not within so many seconds."""
        return self._heard.wait(timeout_s)

    @property
    def view(self) -> DeskView:
        """The desk now; LOST once the lease is over, whatever this object's thread does."""
        known = self._known
        if known.state is not DeskState.LOST and self._clock() >= self._until_s:
            return DeskView(DeskState.LOST, f"nothing was heard of the desk for {self._lease_s:g} s")
        return known

    def portfolio(self, deadline_s: float = 5.0) -> portfolio_pb2.Portfolio:
        """What the server books; raises a CallError."""
        try:
            answer = self._get_portfolio(portfolio_pb2.GetPortfolioRequest(), timeout=deadline_s)
        except grpc.RpcError as error:
            raise error_of_call(error) from error
        return answer.portfolio

    def close(self) -> None:
        """End the thread; the desk is lost from then on."""
        self._stopping.set()
        if self._call is not None:
            self._call.cancel()
        if self._thread.is_alive():
            self._thread.join()
        self._known = DeskView(DeskState.LOST, "the watch was closed")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            lost = self._follow()
            if lost is not None:
                self._take(DeskView(DeskState.LOST, lost))
                self._stopping.wait(self._renew_s)

    def _follow(self) -> str | None:
        """Follow one stream until it is to be renewed; what comes back is how the desk was lost, or None."""
        heard = False
        self._call = self._watch(portfolio_pb2.WatchTradingStateRequest(), timeout=self._renew_s)
        try:
            for message in self._call:
                heard = True
                self._until_s = self._clock() + self._lease_s
                state = _STATES.get(message.desk.state)
                if state is None:
                    return f"the server gave trading state {message.desk.state}, which is none"
                self._take(DeskView(state, message.desk.reason))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                if heard:
                    return None
                return None if self.view.state is not DeskState.LOST else self.view.why
            return str(error_of_call(error))
        return "the server ended the watch: it drains"

    def _take(self, view: DeskView) -> None:
        if view != self._known:
            self._known = view
            if view.state is not DeskState.LOST:
                self._heard.set()
            self._on_change(view)
