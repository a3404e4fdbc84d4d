"""Calls to the admin listeners about the desk."""

from collections.abc import Iterator

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
from tickgate_server.rpc.admin_client import AdminClient, Outcome, Worker


class DeskClient(AdminClient):
    """See `AdminClient`."""

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
        return self._follow(lambda channel: PortfolioServiceStub(channel).WatchPortfolio, WatchPortfolioRequest())
