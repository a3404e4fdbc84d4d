"""Desks for the tests: one made of the book and the gate's kernel alone, and one behind an engine and its answers.

In both an instrument has lots of 1 and, with the limits that `limits` gives, a target of n lots is asked for by an edge
of (n + 1/2) / 1000: prices are 100, the volatility is its floor of 1 %, the risk budget 1000.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.support.messages import START_NS, features, tick
from tests.support.packages import publish_logistic

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.desk import Desk
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.journal.entries import ControlAssembler
from tickgate_server.journal.layout import CONTROL, ControlKind, RecordKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.risk import gate, orders, portfolio, valuation
from tickgate_server.risk.book import UNUSED, Book
from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.data import RiskData
from tickgate_server.risk.feed import Found, exposures_of
from tickgate_server.risk.gate import (
    LIMIT_PRICE,
    LIMITS,
    ORDER,
    OUT_VALUES,
    PASSES,
    REDUCES,
    REMAINDER,
    TARGET,
    VALUES,
    WAIVED,
)
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.reasons import Reason
from tickgate_server.risk.regimes import Regime
from tickgate_server.risk.reports import FillAnswer, FillReport, OrderAnswer, OrderReport, OrderState, PositionSet, Side
from tickgate_server.rpc.answers import Answers
from tickgate_server.rpc.status import Status
from tickgate_server.ticks import market
from tickgate_server.ticks.instruments import Instrument, Universe
from tickgate_server.ticks.symbols import SymbolTable

PRICE = 100.0
BUDGET = 1000.0
REGIMES = ("normal", "trending", "risk_off", "high_volatility", "unknown")
WIDE: dict[str, Any] = {
    "confidence_threshold": 0.5,
    "risk_budget": BUDGET,
    "volatility_floor": 0.01,
    "limit_offset_bps": 0.0,
    "max_order_notional": math.inf,
    "max_position_notional": math.inf,
    "max_var": math.inf,
    "max_correlation": 1.0,
    "max_gross_exposure": math.inf,
    "max_net_exposure": math.inf,
    "max_open_opposite": math.inf,
    "max_repeats": math.inf,
    "max_orders_per_s_symbol": 1e6,
    "max_orders_per_s": 1e6,
    "max_daily_loss": math.inf,
    "max_drawdown": math.inf,
}


def limits(**changes: Any) -> Limits:
    """Limits that let every finite value pass, but for those that are given."""
    return Limits(**(WIDE | changes))


def instrument(symbol: str, **changes: Any) -> Instrument:
    """One with lots of 1 and ticks of a cent."""
    return Instrument(symbol=symbol, **({"lot": 1.0, "tick_size": 0.01} | changes))


def universe(*symbols: str | Instrument) -> Universe:
    """Of these alone."""
    found = [instrument(one) if isinstance(one, str) else one for one in symbols]
    return Universe({one.symbol: one for one in found}, closed=True)


def edge_of(target: float) -> float:
    """What asks for a target of so many lots at `PRICE`, and for nothing at 0."""
    return (target + math.copysign(0.5, target)) / BUDGET if target else 0.0


def risk_data(
    symbols: Sequence[str],
    *,
    correlation: float = 0.0,
    deviation: float = 0.01,
    covariance: NDArray[np.float64] | None = None,
    regime: Regime = Regime.NORMAL,
    scenarios: int = 0,
    as_of_ns: int = START_NS,
) -> Found:
    """Risk data of some symbols that are all alike."""
    count = len(symbols)
    if covariance is None:
        covariance = np.full((count, count), correlation * deviation**2)
        np.fill_diagonal(covariance, deviation**2)
    returns = np.random.default_rng(5).normal(0.0, deviation, (scenarios, count))
    data = RiskData(as_of_ns, tuple(symbols), covariance, returns, np.full(count, regime, np.int8))
    return Found(data, "of-a-test", exposures_of(data))


@dataclass(frozen=True)
class Verdict:
    """What the gate's kernel said of one order: its numbers, and the checks' in their order."""

    reason: Reason
    target: float
    order: float
    limit_price: float
    remaining: float
    reducing: bool
    values: list[float]
    limits: list[float]
    passed: list[bool]
    waived: list[bool]

    def value_of(self, reason: Reason) -> float:
        """What was measured for a check."""
        return self.values[check_of(reason)]

    def passes(self, reason: Reason) -> bool:
        """Whether a check's value is within its limit, whether that binds or not."""
        return self.passed[check_of(reason)]


def check_of(reason: Reason) -> int:
    """Number of the check that gives a reason."""
    return [check.reason for check in CHECKS].index(reason)


class GateBench:
    """The gate's kernel over a desk of its own, without engine or journal; its clock stands until it is set.

    Attributes:
        now_ns: What time it is.
        book, desk, quotes_trades: For what no report and no limit can bring about.
    """

    def __init__(self, *symbols: str | Instrument, found: Limits | None = None, risk: Found | None = None) -> None:
        self.now_ns = START_NS
        table = SymbolTable(universe(*(symbols or ("A", "B"))), 8)
        self.quotes_trades = market.MarketState(8).quotes_trades
        self.book = Book(8, self.quotes_trades, table.contracts, checks=len(CHECKS), out=OUT_VALUES)
        self.desk = Desk(self.book, table, found or limits(), clock_ns=lambda: self.now_ns)
        self.table = table
        self.model = self.desk.add_model("tiny", 1, REGIMES)
        self.pass_time(0)
        for symbol in table.names:
            self.price(symbol, PRICE)
        self.take(risk or risk_data(table.names))

    def take(self, risk: Found, *, vouched: bool = True) -> None:
        """Take risk data in."""
        self.desk.apply_risk_data(risk)
        self.desk.judge_age(vouched=vouched)

    def row(self, symbol: str) -> int:
        """A symbol's row."""
        return self.table.row(symbol)

    def pass_time(self, seconds: float) -> None:
        """Let the clock go on, and reservations end."""
        self.now_ns += round(seconds * 1e9)
        portfolio.advance(self.book.table, self.now_ns)

    def price(self, symbol: str, price: float) -> None:
        """A trade at that price; the volatility stays at the floor."""
        row = self.row(symbol)
        self.quotes_trades[row, [market.PRICE, market.SIGMA]] = price, 0.0
        valuation.mark(self.book.table, row, price)

    def set_limits(self, **changes: Any) -> None:
        """Put other limits in force."""
        found = limits(**changes, version=self.desk.whole.version + 1)
        self.desk.change_limits(found, reason="a test", who="tester")

    def hold(self, symbol: str, size: float, cost: float = PRICE) -> None:
        """Hold a position; the desk stays as it was, whatever the position passes."""
        portfolio.set_position(self.book.table, self.row(symbol), size, cost)

    def open(self, symbol: str, signed_size: float) -> int:
        """An order at work that no gate has seen; its slot."""
        return orders.open_order(
            self.book.table, self.row(symbol), signed_size, 0, 1_000_000 + int(self.book.state[UNUSED])
        )

    def ask(self, target: float, symbol: str = "A", *, price: float = PRICE, threshold: float = 0.5) -> Verdict:
        """What the gate says of a target at `PRICE`."""
        return self.judge(0.5 + edge_of(target) / 2.0, symbol, price=price, threshold=threshold)

    def judge(
        self, probability_up: float, symbol: str = "A", *, price: float = PRICE, threshold: float = 0.5
    ) -> Verdict:
        """What the gate says of a prediction."""
        row = self.row(symbol)
        reason = gate.judge(probability_up, price, row, 5, threshold, self.model, self.book.table)
        out = self.book.out.tolist()
        return Verdict(
            Reason(reason),
            out[TARGET],
            out[ORDER],
            out[LIMIT_PRICE],
            out[REMAINDER],
            out[REDUCES] == 1.0,
            out[VALUES:LIMITS],
            out[LIMITS:PASSES],
            [one == 1.0 for one in out[PASSES:WAIVED]],
            [one == 1.0 for one in out[WAIVED:]],
        )

    def approve(self, target: float, symbol: str = "A") -> Verdict:
        """The same of a target that must be approved, reserved as the engine does."""
        found = self.ask(target, symbol)
        assert found.reason is Reason.APPROVED
        limits = self.desk.limits
        self.desk.reserve(self.row(symbol), found.order, limits.valid_for_us, self.desk.next_order_id())
        return found


class EngineBench:
    """An engine behind `Answers`, with a clock that stands until it is set, and a model whose output the test chooses.

    Attributes:
        now_ns: What time it is.
        journal: Its journal; None without a folder.
    """

    def __init__(
        self,
        models: ModelRegistry,
        *symbols: str | Instrument,
        folder: Path | None = None,
        found: Limits | None = None,
        risk: Found | None = None,
        kill_file: Path | None = None,
        segment_records: int = 512,
    ) -> None:
        self.now_ns = START_NS
        self.folder = folder
        self.journal = None if folder is None else JournalWriter(folder, segment_records=segment_records)
        self.engine = Engine(
            EngineSettings(capacity=8, price_jump_sigmas=0.0),
            models,
            universe(*(symbols or ("A", "B"))),
            found or limits(),
            clock_ns=lambda: self.now_ns,
            journal=self.journal,
            kill_file=kill_file,
        )
        self.desk = self.engine.desk
        self.answers = Answers(self.engine)
        names = self.engine.symbols.names
        self.desk.apply_risk_data(risk or risk_data(names))
        self.desk.judge_age(vouched=True)
        self._fills = 0
        for symbol in names:
            self.trade(symbol, PRICE)

    def close(self) -> None:
        """End the engine and close its journal."""
        self.answers.close()
        if self.journal is not None:
            self.journal.close()

    def pass_time(self, seconds: float) -> None:
        """Let the clock go on, and the desk look at it."""
        self.now_ns += round(seconds * 1e9)
        self.desk.poll()

    def send(self, request: pb.PredictRequest) -> pb.PredictResponse:
        """The answer to a request that must have one."""
        found = self.answers.predict(request.SerializeToString(), time.perf_counter_ns(), 0)
        assert isinstance(found, bytes), found
        return pb.PredictResponse.FromString(found)

    def trade(self, symbol: str, price: float, **said: Any) -> pb.PredictResponse:
        """A trade, a microsecond later; the volatility stays at the floor."""
        self.now_ns += 1000
        answer = self.send(tick(symbol, self.now_ns, trade=(price, 1.0), **said))
        self.engine.parts.market.quotes_trades[self.engine.symbols.row(symbol), market.SIGMA] = 0.0
        return answer

    def request(
        self, target: float, symbol: str = "A", *, request_id: str = "", price: float = PRICE
    ) -> pb.PredictRequest:
        """What asks for a target of so many lots at `PRICE`."""
        edge = edge_of(target)
        request = features(symbol, [math.log((1.0 + edge) / (1.0 - edge)), *[0.0] * 9], at_ns=self.now_ns, price=price)
        request.request_id = request_id
        return request

    def ask(self, target: float, symbol: str = "A", *, request_id: str = "", price: float = PRICE) -> pb.Signal:
        """What is said to a target of so many lots at `PRICE`."""
        return self.send(self.request(target, symbol, request_id=request_id, price=price)).signal

    def fill(self, signed_size: float, symbol: str = "A", *, price: float = PRICE, order_id: int = 0) -> FillAnswer:
        """Report a fill with an id of its own."""
        self._fills += 1
        side = Side.BUY if signed_size > 0.0 else Side.SELL
        return self.desk.report_fill(
            FillReport(f"bench-{self._fills}", symbol, side, abs(signed_size), price, order_id=order_id)
        )

    def order(self, order_id: int, state: OrderState, symbol: str = "A") -> OrderAnswer:
        """Report what became of an order."""
        return self.desk.report_order(OrderReport(symbol, state, order_id))

    def hold(self, size: float, symbol: str = "A", *, cost: float = PRICE) -> None:
        """State a position."""
        self.desk.set_positions([PositionSet(symbol, size, cost)], reason="a test", who="tester")

    def sizes(self, symbol: str = "A") -> tuple[float, float, float]:
        """Filled, open buys and open sells."""
        (found,) = self.desk.portfolio([symbol]).positions
        return found.filled, found.open_buys, found.open_sells

    def controls(self, kind: ControlKind) -> list[dict[str, Any]]:
        """What the journal holds of a kind of control, oldest first."""
        assert self.folder is not None
        found: list[dict[str, Any]] = []
        assembler = ControlAssembler()
        with JournalReader(self.folder) as reader:
            while (batch := reader.poll(512)).size:
                for row in batch[batch["kind"] == RecordKind.CONTROL].view(CONTROL):
                    entry = assembler.feed(row)
                    if entry is not None and entry.code == kind:
                        found.append(entry.payload)
        return found


def chosen_model(folder: Path, **changes: Any) -> ModelRegistry:
    """One model, whose P(up) is the sigmoid of the first feature."""
    publish_logistic(folder, weight=1.0, **({"latency_budget_ms": 60_000.0} | changes))
    return load_repository(folder)


def refusal(call: Callable[[], bytes | Status | Any]) -> Status:
    """The status of a call that must have no answer."""
    found = call()
    assert isinstance(found, Status), found
    return found
