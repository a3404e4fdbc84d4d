"""A running server's desk, as order gateways and people reach it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from tests.support.processes import CALL_S, CHANNEL_OPTIONS, Served

from tickgate.v1 import admin_pb2, admin_pb2_grpc, portfolio_pb2_grpc, signal_pb2
from tickgate.v1 import portfolio_pb2 as pb

ACTIVE = signal_pb2.TRADING_STATE_ACTIVE
REDUCING = signal_pb2.TRADING_STATE_REDUCING
HALTED = signal_pb2.TRADING_STATE_HALTED


@dataclass(frozen=True)
class DeskOf:
    """Stubs on a server's service and admin listeners."""

    server: Served
    service: grpc.Channel
    admin_channel: grpc.Channel
    reports: portfolio_pb2_grpc.PortfolioServiceStub
    admin: admin_pb2_grpc.AdminServiceStub

    def order(self, symbol: str, size: float = 1.0, **fields: Any) -> pb.ReportOrderResponse:
        """Report an order; by default one that tickgate did not ask for."""
        said = {"state": pb.ORDER_STATE_ACCEPTED, "side": pb.SIDE_BUY, **fields}
        return self.reports.ReportOrder(pb.ReportOrderRequest(symbol=symbol, size=size, **said), timeout=CALL_S)

    def fill(self, fill_id: str, symbol: str, size: float = 1.0, **fields: Any) -> pb.ReportFillResponse:
        """Report a fill; by default a buy at 100."""
        return self.reports.ReportFill(fill(fill_id, symbol, size, **fields), timeout=CALL_S)

    def portfolio(self, *symbols: str) -> pb.Portfolio:
        """What is held and open."""
        return self.reports.GetPortfolio(pb.GetPortfolioRequest(symbols=symbols), timeout=CALL_S).portfolio

    def set_state(self, state: signal_pb2.TradingState.ValueType, reason: str = "a test") -> pb.DeskState:
        """As a person would."""
        request = admin_pb2.SetTradingStateRequest(state=state, reason=reason, who="tester")
        return self.admin.SetTradingState(request, timeout=CALL_S).desk

    def watch(self, *symbols: str) -> Any:
        """The portfolio, now and when it changes."""
        return self.reports.WatchPortfolio(pb.WatchPortfolioRequest(symbols=symbols), timeout=CALL_S)

    def watch_state(self) -> Any:
        """The trading state, now and when it changes."""
        return self.reports.WatchTradingState(pb.WatchTradingStateRequest(), timeout=CALL_S)

    def report(self, items: Sequence[pb.ReportRequest]) -> list[pb.ReportResponse]:
        """The answers of one stream."""
        return list(self.reports.Report(iter(items), timeout=CALL_S))


def fill(fill_id: str, symbol: str, size: float = 1.0, **fields: Any) -> pb.ReportFillRequest:
    """A buy at 100 unless it is said otherwise."""
    said = {"side": pb.SIDE_BUY, "price": 100.0, **fields}
    return pb.ReportFillRequest(fill_id=fill_id, symbol=symbol, size=size, **said)


@contextmanager
def desk_of(server: Served) -> Iterator[DeskOf]:
    """Channels to both listeners."""
    with (
        grpc.insecure_channel(server.service, options=CHANNEL_OPTIONS) as service,
        grpc.insecure_channel(server.admin, options=CHANNEL_OPTIONS) as admin,
    ):
        yield DeskOf(
            server,
            service,
            admin,
            portfolio_pb2_grpc.PortfolioServiceStub(service),
            admin_pb2_grpc.AdminServiceStub(admin),
        )


def refused(method: Any, request: Message) -> tuple[grpc.StatusCode, str]:
    """Code and message of a call that must fail."""
    try:
        answer = method(request, timeout=CALL_S)
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError(f"expected a refusal, got {answer}")
