"""`PortfolioService`: reports of orders and fills, and the portfolio that they make, over one desk."""

from collections.abc import Callable, Sequence
from functools import partial

from tickgate.v1 import portfolio_pb2 as pb
from tickgate.v1 import signal_pb2
from tickgate_server.desk import Desk
from tickgate_server.errors import FieldInvalid
from tickgate_server.risk.reports import FillReport, OrderReport, OrderState, PortfolioView, Side, StateView
from tickgate_server.rpc.methods import (
    Answer,
    Method,
    StreamMethod,
    Subscription,
    UnaryMethod,
    Watched,
    WatchMethod,
    enum_member,
    handler,
    parse,
)
from tickgate_server.rpc.status import Status, status_of

PORTFOLIO_NAME: str = pb.DESCRIPTOR.services_by_name["PortfolioService"].full_name

# Most symbols of a request's filter.
SYMBOLS = 4096
# A portfolio that changes with every approval is told no more often to each watcher: it costs the thread that answers.
_PORTFOLIO_EVERY_S = 0.1


class Portfolio:
    """The service's methods over one desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._revision = -1
        self._told: dict[tuple[str, ...], bytes] = {}  # what watchers of this revision are sent, by filter

    def reports(self) -> tuple[Method, ...]:
        """What changes the portfolio."""
        return (
            UnaryMethod(_path("ReportOrder"), handler(pb.ReportOrderRequest, self._report_order)),
            UnaryMethod(_path("ReportFill"), handler(pb.ReportFillRequest, self._report_fill)),
            StreamMethod(_path("Report"), self._report),
        )

    def reading(self) -> tuple[Method, ...]:
        """What looks at it."""
        return (
            UnaryMethod(_path("GetPortfolio"), handler(pb.GetPortfolioRequest, self._get)),
            WatchMethod(_path("WatchPortfolio"), self._watch, _PORTFOLIO_EVERY_S),
            WatchMethod(_path("WatchTradingState"), self._watch_state),
        )

    # -- reports ---------------------------------------------------------------------------------------------------

    def _report_order(self, request: pb.ReportOrderRequest) -> pb.ReportOrderResponse:
        answer = self._desk.report_order(
            OrderReport(
                request.symbol,
                enum_member("state", request.state, OrderState, pb.OrderState),
                order_id=request.order_id,
                side=enum_member("side", request.side, Side, pb.Side) if request.side else None,
                size=request.size,
            )
        )
        return pb.ReportOrderResponse(
            order_id=answer.order_id,
            state=pb.OrderState.ValueType(answer.state),
            remaining=answer.remaining,
            changed=answer.changed,
        )

    def _report_fill(self, request: pb.ReportFillRequest) -> pb.ReportFillResponse:
        answer = self._desk.report_fill(
            FillReport(
                request.fill_id,
                request.symbol,
                enum_member("side", request.side, Side, pb.Side),
                request.size,
                request.price,
                order_id=request.order_id,
                fee=request.fee,
                exchange_ts_ns=request.exchange_ts_ns,
            )
        )
        return pb.ReportFillResponse(booked=answer.booked, position=answer.position, remaining=answer.remaining)

    def _report(self, data: bytes) -> Answer:
        request = parse(pb.ReportRequest, data)
        if isinstance(request, Status):
            return request
        try:
            match request.WhichOneof("report"):
                case "order":
                    response = pb.ReportResponse(order=self._report_order(request.order))
                case "fill":
                    response = pb.ReportResponse(fill=self._report_fill(request.fill))
                case _:
                    raise FieldInvalid("report", "one of order, fill", None)  # noqa: TRY301 - told as those below
        except Exception as error:  # noqa: BLE001 - the boundary: every error becomes a status, none is lost
            status = status_of(error)
            response = pb.ReportResponse(code=status.number, message=status.message)
        return response.SerializeToString()

    # -- reading ---------------------------------------------------------------------------------------------------

    def _get(self, request: pb.GetPortfolioRequest) -> pb.GetPortfolioResponse:
        _check(request.symbols)
        return pb.GetPortfolioResponse(portfolio=portfolio_message(self._desk.portfolio(tuple(request.symbols))))

    def _watch(self, data: bytes, changed: Callable[[], None]) -> Subscription | Status:
        request = parse(pb.WatchPortfolioRequest, data)
        if isinstance(request, Status):
            return request
        try:
            _check(request.symbols)
        except FieldInvalid as error:
            return status_of(error)
        symbols = tuple(request.symbols)
        return Watched(lambda: self._desk.revision, partial(self._encoded, symbols), self._desk.watch(changed))

    def _encoded(self, symbols: tuple[str, ...], revision: int) -> bytes:
        """What watchers with this filter are sent; made once for all of them."""
        if revision != self._revision:
            self._revision = revision
            self._told.clear()
        if symbols not in self._told:
            message = portfolio_message(self._desk.portfolio(symbols))
            self._told[symbols] = pb.WatchPortfolioResponse(portfolio=message).SerializeToString()
        return self._told[symbols]

    def _watch_state(self, data: bytes, changed: Callable[[], None]) -> Subscription | Status:
        request = parse(pb.WatchTradingStateRequest, data)
        if isinstance(request, Status):
            return request
        return Watched(
            lambda: self._desk.state,
            lambda state: pb.WatchTradingStateResponse(desk=state_message(state)),
            self._desk.watch(changed),
        )


def state_message(view: StateView) -> pb.DeskState:
    """The trading state as the contract has it."""
    return pb.DeskState(
        state=signal_pb2.TradingState.ValueType(view.state), reason=view.reason, who=view.who, since_ns=view.since_ns
    )


def portfolio_message(view: PortfolioView) -> pb.Portfolio:
    """A portfolio as the contract has it."""
    return pb.Portfolio(
        revision=view.revision,
        desk=state_message(view.state),
        positions=[
            pb.Position(
                symbol=one.symbol,
                filled=one.filled,
                open_buys=one.open_buys,
                open_sells=one.open_sells,
                average_cost=one.average_cost,
                mark=one.mark,
                realised=one.realised,
                unrealised=one.unrealised,
                currency=one.currency,
            )
            for one in view.positions
        ],
        orders=[
            pb.OpenOrder(
                order_id=one.order_id,
                symbol=one.symbol,
                side=pb.Side.ValueType(one.side),
                size=one.size,
                remaining=one.remaining,
                state=pb.OrderState.ValueType(one.state),
                expires_ns=one.expires_ns,
            )
            for one in view.orders
        ],
        gross=view.gross,
        net=view.net,
        realised=view.realised,
        unrealised=view.unrealised,
        drawdown=view.drawdown,
        value_at_risk=view.value_at_risk,
        base_currency=view.base_currency,
        risk_data_fresh=view.risk_data_fresh,
        degraded_models=view.degraded,
    )


def _check(symbols: Sequence[str]) -> None:
    if len(symbols) > SYMBOLS:
        raise FieldInvalid("symbols", f"at most {SYMBOLS:,}", len(symbols))


def _path(method: str) -> str:
    return f"/{PORTFOLIO_NAME}/{method}"
