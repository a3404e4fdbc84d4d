"""64 concurrent callers against a limit of 10 lots, over real gRPC: the journals say whether it ever was passed.

Callers ask, report, fill, cancel, go away and let reservations expire at random. What the server did, in the order in
which it did it, is in its journal: a slow model of the portfolio does the same and looks at each step.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.desk.desk_child import publish
from tests.risk.slow_portfolio import GuardedPortfolio, apply_entry, assert_same
from tests.support.messages import tick
from tests.support.processes import CHANNEL_OPTIONS, server

from tickgate.symbol_hash import worker_of
from tickgate.v1 import admin_pb2, admin_pb2_grpc, portfolio_pb2_grpc, signal_pb2_grpc
from tickgate.v1 import portfolio_pb2 as reports
from tickgate.v1 import signal_pb2 as pb
from tickgate_server.journal.entries import ControlEntry, DecisionEntry, Entry
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import OrderState, OrderView, PortfolioView, PositionView, Side, StateView
from tickgate_server.workers import journal_folder

CALLERS = 64
SYMBOLS = [f"S{number}" for number in range(8)]
ROUND = 20_000  # requests between two looks at the portfolio
RISK = {
    "confidence_threshold": 0.5,
    "risk_budget": 40.0,
    "volatility_floor": 0.01,
    "max_order_size": 8.0,
    "max_position_size": 10.0,
    "max_gross_exposure": 16_000.0,
    "max_net_exposure": 12_000.0,
    "max_var": "off",
    "max_correlation": "off",
    "max_open_opposite": "off",
    "max_repeats": "off",
    "max_orders_per_s_symbol": "off",
    "max_orders_per_s": "off",
    "max_daily_loss": "off",
    "max_drawdown": "off",
    "valid_for_us": 30_000,
}
LIMITS = Limits(**RISK)  # type: ignore[arg-type]
_TICK_NS = 5_000_000  # stamps are rounded to it, so that few ticks come out of order
_CALL_S = 60.0


@dataclass
class Told:
    """What callers saw in all."""

    requests: int = 0
    approved: int = 0
    unanswered: int = 0
    filled: int = 0


@dataclass(frozen=True)
class Stubs:
    """One worker's listeners."""

    signal: signal_pb2_grpc.SignalServiceStub
    desk: portfolio_pb2_grpc.PortfolioServiceStub
    admin: admin_pb2_grpc.AdminServiceStub


@dataclass(frozen=True)
class Running:
    """A server's workers by address, and their journals."""

    data: list[str]
    service: list[str]
    admin: list[str]
    journals: list[Path]

    @asynccontextmanager
    async def stubs(self) -> AsyncIterator[list[Stubs]]:
        async with AsyncExitStack() as stack:
            found = []
            for addresses in zip(self.data, self.service, self.admin, strict=True):
                signal, service, admin = [
                    await stack.enter_async_context(grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS))
                    for address in addresses
                ]
                found.append(
                    Stubs(
                        signal_pb2_grpc.SignalServiceStub(signal),
                        portfolio_pb2_grpc.PortfolioServiceStub(service),
                        admin_pb2_grpc.AdminServiceStub(admin),
                    )
                )
            yield found


@dataclass
class Order:
    """An approved order as its caller knows it."""

    order_id: int
    symbol: str
    side: int
    left: float


@dataclass
class Caller:
    """One of the concurrent callers: asks, and does something with what it was approved."""

    name: str
    workers: list[Stubs]
    told: Told
    random: random.Random
    orders: list[Order] = field(default_factory=list)
    number: int = 0
    price: float = 100.0

    def of(self, symbol: str) -> Stubs:
        return self.workers[worker_of(symbol, len(self.workers)) if len(self.workers) > 1 else 0]

    async def run(self, requests: int) -> None:
        for _ in range(requests):
            await self.ask()
            while self.orders and self.random.random() < 0.6:
                await self.report(self.random.choice(self.orders))
            del self.orders[:-20]

    async def ask(self) -> None:
        self.number += 1
        symbol = self.random.choice(SYMBOLS)
        request = self._request(symbol)
        request.request_id = f"{self.name}-{self.number}"
        self.told.requests += 1
        answer = await self._answer(self.of(symbol), request)
        if answer is None:
            self.told.unanswered += 1
            return
        if answer.signal.approved:
            self.told.approved += 1
            self.orders.append(Order(answer.signal.order_id, symbol, answer.signal.action - 1, answer.signal.size))
        if self.random.random() < 0.02:
            again = await self.of(symbol).signal.Predict(request, timeout=_CALL_S)
            assert not again.signal.approved or again.signal.order_id == answer.signal.order_id

    async def _answer(self, worker: Stubs, request: pb.PredictRequest) -> pb.PredictResponse | None:
        """The answer; None for a caller that went away before, or had no time left, or came when too many waited."""
        chosen, patience_s = self.random.random(), self.random.random() * 0.008 + 0.0005
        try:
            if chosen < 0.02:
                return await asyncio.wait_for(worker.signal.Predict(request), patience_s)
            return await worker.signal.Predict(request, timeout=patience_s if chosen < 0.04 else _CALL_S)
        except TimeoutError:
            return None
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED and not (
                error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and chosen < 0.04
            ):
                raise
            return None

    def _request(self, symbol: str) -> pb.PredictRequest:
        model = self.random.choice(["forest", "forest", "line"])
        if self.random.random() < 0.3:
            return pb.PredictRequest(symbol=symbol, model=model)
        self.price = min(max(self.price + self.random.randrange(-16, 17) / 64, 90.0), 110.0)
        at_ns = time.time_ns() // _TICK_NS * _TICK_NS
        return tick(symbol, at_ns, trade=(self.price, 1.0), model=model)

    async def report(self, order: Order) -> None:
        """A fill, mostly; else the venue's word on the order, or a position as a person states it."""
        desk, chosen = self.of(order.symbol).desk, self.random.random()
        if chosen < 0.5:
            await self._fill(desk, order)
        elif chosen < 0.95:
            states = (reports.ORDER_STATE_ACCEPTED, reports.ORDER_STATE_CANCELLED, reports.ORDER_STATE_REJECTED)
            said = reports.ReportOrderRequest(
                order_id=order.order_id, symbol=order.symbol, state=self.random.choice(states)
            )
            await desk.ReportOrder(said, timeout=_CALL_S)
        else:
            position = admin_pb2.PositionSet(
                symbol=order.symbol, size=float(self.random.randint(-5, 5)), average_cost=100.0
            )
            said = admin_pb2.SetPositionsRequest(positions=[position], reason="a campaign", who=self.name)
            await self.of(order.symbol).admin.SetPositions(said, timeout=_CALL_S)

    async def _fill(self, desk: portfolio_pb2_grpc.PortfolioServiceStub, order: Order) -> None:
        self.number += 1
        size = float(self.random.randint(1, max(int(order.left), 1)))
        size += self.random.random() < 0.01  # more than there is, now and then
        order.left -= size
        if order.left <= 0.0:
            self.orders.remove(order)
        said = reports.ReportFillRequest(
            fill_id=f"{self.name}-{self.number}",
            symbol=order.symbol,
            side=order.side,
            size=size,
            price=self.price,
            order_id=order.order_id,
        )
        for booked in (True, False)[: 1 + (self.random.random() < 0.05)]:
            answer = await desk.ReportFill(said, timeout=_CALL_S)
            assert answer.booked == booked
        self.told.filled += 1


async def resume(workers: list[Stubs]) -> None:
    """Somebody sets each desk back that a late fill had reduced; over and over."""
    request = admin_pb2.SetTradingStateRequest(state=pb.TRADING_STATE_ACTIVE, reason="a campaign", who="a person")
    while True:
        for stubs in workers:
            found = await stubs.desk.GetPortfolio(reports.GetPortfolioRequest(symbols=["S0"]), timeout=_CALL_S)
            if found.portfolio.desk.state != pb.TRADING_STATE_ACTIVE:
                await stubs.admin.SetTradingState(request, timeout=_CALL_S)


class Follower:
    """A worker's journal, read to its end again and again, into a slow model that looks at each step."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.slow = GuardedPortfolio(limits)
        self.decisions = 0
        self.unsent = 0
        self._reader = JournalReader(folder)
        self._reduced = False

    def follow(self) -> None:
        for entry in self._reader:
            if self._reduced:  # what takes the desk beyond a limit is followed by its reduction, before all else
                assert says_reducing(entry), entry
                self._reduced = False
            before = self.slow.state
            apply_entry(self.slow, entry)
            if isinstance(entry, DecisionEntry):
                self.decisions += 1
            else:
                self.unsent += entry.code == ControlKind.UNSENT
                self._reduced = entry.code != ControlKind.TRADING_STATE and self.slow.state is not before

    def close(self) -> None:
        self._reader.close()


def says_reducing(entry: Entry) -> bool:
    return (
        isinstance(entry, ControlEntry)
        and entry.code == ControlKind.TRADING_STATE
        and entry.payload["state"] == TradingState.REDUCING
    )


def view_of(found: reports.Portfolio) -> PortfolioView:
    """The contract's portfolio as the desk's."""
    return PortfolioView(
        revision=found.revision,
        state=StateView(TradingState(found.desk.state), found.desk.reason, found.desk.who, found.desk.since_ns),
        positions=tuple(
            PositionView(
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
            for one in found.positions
        ),
        orders=tuple(
            OrderView(
                order_id=one.order_id,
                symbol=one.symbol,
                side=Side(one.side),
                size=one.size,
                remaining=one.remaining,
                state=OrderState(one.state),
                expires_ns=one.expires_ns,
            )
            for one in found.orders
        ),
        gross=found.gross,
        net=found.net,
        realised=found.realised,
        unrealised=found.unrealised,
        drawdown=found.drawdown,
    )


async def assert_portfolios_same(workers: list[Stubs], followers: list[Follower]) -> None:
    """While nobody asks, what the server shows is what its journal makes of the slow model."""
    for stubs, follower in zip(workers, followers, strict=True):
        while True:  # until no reservation ended between the two looks: then the model has read no more than they show
            before = await stubs.desk.GetPortfolio(reports.GetPortfolioRequest(), timeout=_CALL_S)
            follower.follow()
            after = await stubs.desk.GetPortfolio(reports.GetPortfolioRequest(), timeout=_CALL_S)
            if before == after:
                break
        assert_same(view_of(after.portfolio), follower.slow)


async def campaign(running: Running, requests: int, limits: Limits) -> tuple[Told, list[Follower]]:
    told = Told()
    followers = [Follower(folder, limits) for folder in running.journals]
    async with running.stubs() as workers:
        callers = [Caller(f"c{number}", workers, told, random.Random(number)) for number in range(CALLERS)]
        while told.requests < requests:
            each = max(min(ROUND, requests - told.requests) // CALLERS, 1)
            async with asyncio.TaskGroup() as everybody:
                person = everybody.create_task(resume(workers))
                async with asyncio.TaskGroup() as asking:
                    for caller in callers:
                        asking.create_task(caller.run(each))
                person.cancel()
            await assert_portfolios_same(workers, followers)
    for follower in followers:
        follower.close()
    return told, followers


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish(folder)
    return folder


@pytest.fixture(scope="module")
def instruments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("instruments") / "instruments.csv"
    path.write_text("symbol,lot,minimum_size\n" + "".join(f"{symbol},1.0,1.0\n" for symbol in SYMBOLS))
    return path


@contextmanager
def running(models: Path, instruments: Path, workers: int, environment: Mapping[str, str]) -> Iterator[Running]:
    ready = "workers serving" if workers > 1 else "serving"
    arguments = ("--instruments", str(instruments), "--workers", str(workers))
    with server(models, *arguments, environment=environment, ready=ready) as (process, _):
        line: dict[str, Any] = process.logged(ready)[-1]
        if workers > 1:
            journals = [journal_folder(process.journal, index) for index in range(workers)]
            yield Running(line["addresses"], line["service"], line["admin"], journals)
        else:
            yield Running([line["address"]], [line["service"]], [line["admin"]], [process.journal])
        assert process.stop() == 0


@pytest.mark.parametrize(("workers", "inline_limit_us"), [(1, 1e9), (4, 0.0)], ids=["1 in place", "4 on threads"])
def test_no_worst_case_passes_its_limit_while_64_callers_ask(
    models: Path, instruments: Path, soak: Callable[[int, int], int], workers: int, inline_limit_us: float
) -> None:
    environment = {f"TICKGATE_RISK__{name.upper()}": str(value) for name, value in RISK.items()}
    environment["TICKGATE_MODELS__INLINE_LIMIT_US"] = str(inline_limit_us)  # 0: each model on a thread of its own
    requests = soak(4_000, 1_000_000)
    with running(models, instruments, workers, environment) as server_process:
        told, followers = asyncio.run(campaign(server_process, requests, LIMITS.slice_of(workers)))
    print(told, [(one.decisions, one.slow.approved, one.slow.late, one.unsent) for one in followers])  # noqa: T201
    assert sum(one.decisions for one in followers) >= told.requests - told.unanswered
    assert sum(one.slow.approved for one in followers) >= told.approved > requests // 50
    assert sum(len(one.slow.fills) for one in followers) == told.filled
    assert sum(one.slow.late for one in followers) > 0
    ended = {order.state for one in followers for order in one.slow.orders.values()}
    assert {OrderState.EXPIRED, OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED} <= ended
