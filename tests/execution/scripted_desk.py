"""The peer of the gateway's tests: a real gRPC server with signals and a desk that does what a test tells it to.

It books fills by their ids and follows orders, as slowly and plainly as can be.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field

import grpc
from tests.client.scripted_server import ScriptedServer

from tickgate.v1 import portfolio_pb2 as pb
from tickgate.v1 import signal_pb2
from tickgate.v1.portfolio_pb2_grpc import PortfolioServiceServicer, add_PortfolioServiceServicer_to_server
from tickgate.v1.signal_pb2_grpc import add_SignalServiceServicer_to_server

ACTIVE = signal_pb2.TRADING_STATE_ACTIVE
REDUCING = signal_pb2.TRADING_STATE_REDUCING
HALTED = signal_pb2.TRADING_STATE_HALTED

NONE_MORE = pb.ReportResponse(code=-1)
"""As an answer: the stream breaks, and what was booked of it was booked."""


@dataclass
class ScriptedDesk(PortfolioServiceServicer):
    """Attributes: what it was told, and what a test may set.

    Attributes:
        refuse: Gives the answer to a report in place of the desk's own, or None.
        lose_answers: So many reports are booked, and their streams broken before the answer.
    """

    fills: dict[str, pb.ReportFillRequest] = field(default_factory=dict)
    orders: list[pb.ReportOrderRequest] = field(default_factory=list)
    reports: list[pb.ReportRequest] = field(default_factory=list)
    opening: dict[str, float] = field(default_factory=dict)
    refuse: Callable[[pb.ReportRequest], pb.ReportResponse | None] = lambda _report: None
    lose_answers: int = 0
    signals: ScriptedServer = field(default_factory=ScriptedServer)
    target: str = ""

    def __post_init__(self) -> None:
        self._state = pb.DeskState(state=ACTIVE, reason="start")
        self._changed = threading.Condition()
        self._mute = False
        self._server: grpc.Server | None = None

    # -- what a test does ----------------------------------------------------------------------------------------------

    def start(self, port: int = 0) -> "ScriptedDesk":
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
        add_PortfolioServiceServicer_to_server(self, self._server)
        add_SignalServiceServicer_to_server(self.signals, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        self._server.start()
        return self

    def stop(self) -> int:
        """Go away at once; the port, to come back on."""
        assert self._server is not None
        with self._changed:
            self._changed.notify_all()
        self._server.stop(None).wait()
        return int(self.target.rpartition(":")[2])

    def set_state(self, state: signal_pb2.TradingState.ValueType, reason: str = "a test") -> None:
        with self._changed:
            self._state = pb.DeskState(state=state, reason=reason)
            self._changed.notify_all()

    def mute(self) -> None:
        """Say nothing any more to who watches, as a process that hangs."""
        with self._changed:
            self._mute = True
            self._changed.notify_all()

    def positions(self) -> dict[str, float]:
        found = dict(self.opening)
        for fill in self.fills.values():
            signed = fill.size if fill.side == pb.SIDE_BUY else -fill.size
            found[fill.symbol] = found.get(fill.symbol, 0.0) + signed
        return {symbol: position for symbol, position in found.items() if position}

    def states(self, order_id: int) -> list[str]:
        """What was reported of an order."""
        names = [pb.OrderState.Name(one.state) for one in self.orders if one.order_id == order_id]
        return [name.removeprefix("ORDER_STATE_") for name in names]

    # -- PortfolioService ----------------------------------------------------------------------------------------------

    def Report(  # noqa: N802 - gRPC's name
        self, request_iterator: Iterator[pb.ReportRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ReportResponse]:
        for report in request_iterator:
            self.reports.append(report)
            answer = self.refuse(report) or self._booked(report)
            if self.lose_answers:
                self.lose_answers -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
            yield answer

    def _booked(self, report: pb.ReportRequest) -> pb.ReportResponse:
        if report.WhichOneof("report") == "order":
            self.orders.append(report.order)
            return pb.ReportResponse(order=pb.ReportOrderResponse(order_id=report.order.order_id))
        known = self.fills.setdefault(report.fill.fill_id, report.fill)
        if known != report.fill:
            return pb.ReportResponse(code=grpc.StatusCode.ALREADY_EXISTS.value[0], message="another content")
        return pb.ReportResponse(fill=pb.ReportFillResponse(booked=True))

    def GetPortfolio(  # noqa: N802 - gRPC's name
        self, request: pb.GetPortfolioRequest, context: grpc.ServicerContext
    ) -> pb.GetPortfolioResponse:
        del request, context
        positions = [pb.Position(symbol=symbol, filled=filled) for symbol, filled in self.positions().items()]
        return pb.GetPortfolioResponse(portfolio=pb.Portfolio(positions=positions))

    def WatchTradingState(  # noqa: N802 - gRPC's name
        self, request: pb.WatchTradingStateRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchTradingStateResponse]:
        del request
        told = None
        while context.is_active():
            with self._changed:
                state = self._state
                if (state == told or self._mute) and not self._changed.wait(0.05):
                    continue
                if self._mute:
                    continue
                state = self._state
            if state != told:
                told = state
                yield pb.WatchTradingStateResponse(desk=state)
