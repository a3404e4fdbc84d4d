"""An engine and its desk driven at random, in process: ticks, reports, fills, lost answers, people.

As a program it says each operation before it begins and after it returned: it is to be killed in between.
Usage: -m tests.desk.desk_child MODELS FOLDER SEED OPERATIONS.
"""

import json
import os
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import structlog
from tests.risk.slow_portfolio import SlowPortfolio
from tests.support.messages import START_NS, tick
from tests.support.packages import publish_forest, publish_logistic

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.desk.ledger import FILLS_KEPT
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.risk.book import NOW_NS
from tickgate_server.risk.data import FILE_NAME, RiskData, write
from tickgate_server.risk.feed import Found, RiskDataFeed, exposures_of, load
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.regimes import Regime, TradingState
from tickgate_server.risk.reports import FillReport, OrderReport, OrderState, PositionSet, Side
from tickgate_server.rpc.answers import Answers
from tickgate_server.ticks.instruments import Instrument, Universe

SYMBOLS = ("A", "B", "C", "D")
CALENDARS = {"B": "XNYS", "C": "CMES"}
UNIVERSE = Universe(
    {
        name: Instrument(symbol=name, lot=1.0, minimum_size=1.0, calendar=CALENDARS.get(name, "24/7"))
        for name in SYMBOLS
    },
    closed=True,
)
LIMITS = Limits(
    confidence_threshold=0.5,
    risk_budget=40.0,
    volatility_floor=0.01,  # far above the walk's: an edge of 1 asks for 40 lots
    max_order_size=8.0,
    max_position_size=10.0,
    max_gross_exposure=3_000.0,
    max_net_exposure=2_000.0,
    max_open_opposite="off",
    max_repeats="off",
    max_orders_per_s_symbol="off",
    max_orders_per_s="off",
    max_daily_loss=300.0001,  # no sum of these prices: at a limit met exactly two ways of summing may differ
    max_drawdown=300.0001,
    valid_for_us=1_000_000,
)
SEGMENT_RECORDS = 512
RETAINED_SEGMENTS = 4
_RECENT = 60  # orders that are still reported on
_MEAN_STEP_NS = 50_000_000
_PAUSE_NS = 8 * 3600 * 1_000_000_000  # now and then nobody trades for so long, and a lost session ends
_NOT_GIVEN_AGAIN = {pb.REASON_REQUEST_EXPIRED, pb.REASON_TRADING_STATE_HALTED, pb.REASON_TRADING_STATE_REDUCING}


def publish(folder: Path) -> None:
    """A forest, which has a fast lane, and a logistic regression, which has none."""
    publish_forest(folder, name="forest", latency_budget_ms=60_000.0)
    publish_logistic(folder, name="line", weight=800.0, latency_budget_ms=60_000.0)


def models_of(folder: Path) -> ModelRegistry:
    return load_repository(folder, "forest")


def new_engine(
    registry: ModelRegistry, folder: Path | None, limits: Limits = LIMITS, segments: int = RETAINED_SEGMENTS
) -> Engine:
    """An engine in replay, whose risk data are fresh."""
    journal = None
    if folder is not None:
        journal = JournalWriter(folder, segment_records=SEGMENT_RECORDS, retained_segments=segments)
    engine = Engine(EngineSettings(capacity=16, replay=True), registry, UNIVERSE, limits, journal=journal)
    count = len(SYMBOLS)
    regimes = np.full(count, Regime.NORMAL, np.int8)
    data = RiskData(START_NS, SYMBOLS, np.eye(count) * 1e-4, np.zeros((0, count)), regimes)
    if folder is None:
        engine.desk.apply_risk_data(Found(data, "", exposures_of(data)))
    else:
        write(folder / FILE_NAME, data)
        found = load(folder / FILE_NAME)
        RiskDataFeed(folder).keep(found.sha256)
        engine.desk.adopt(found)
    engine.desk.judge_age(vouched=True)
    return engine


def close(engine: Engine) -> None:
    engine.close()
    if engine.journal is not None:
        engine.journal.close()


class Driver:
    """Operations at random on one engine; each is told as a list that JSON can hold.

    Attributes:
        engine: As given.
    """

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self._answers = Answers(engine)
        self._random = Random(seed)
        self._label = seed
        self._requests = 0
        self._fills = 0
        self._now_ns = max(int(engine.desk.book.state[NOW_NS]), START_NS)
        self._last_ns = dict.fromkeys(SYMBOLS, self._now_ns)
        self._prices = dict.fromkeys(SYMBOLS, 100.0)
        found = engine.desk.portfolio().orders
        self._orders = {order.order_id: (order.symbol, order.side, order.remaining) for order in found}
        self._reports: list[FillReport] = []
        self._last_request: tuple[bytes, pb.PredictResponse] | None = None

    def choose(self) -> list[Any]:  # noqa: PLR0911 - one for each kind
        """The next operation, before it begins."""
        random = self._random
        if random.random() < 0.65 or not self._orders:
            return self._choose_request()
        order_id = random.choice(list(self._orders)[-_RECENT:])
        symbol, side, remaining = self._orders[order_id]
        chosen = random.random()
        if chosen < 0.35:
            state = random.choice([OrderState.ACCEPTED, OrderState.ACCEPTED, OrderState.CANCELLED, OrderState.REJECTED])
            return ["order", order_id, symbol, int(state)]
        if chosen < 0.85:
            self._fills += 1
            price = self._prices[symbol] + random.randrange(-4, 5) / 64
            size = float(random.randint(1, 5 if random.random() < 0.03 else max(int(remaining), 1)))
            self._orders[order_id] = symbol, side, remaining - size
            if remaining <= size and random.random() < 0.9:  # few are filled beyond their size
                del self._orders[order_id]
            return ["fill", f"{self._label}-{self._fills}", symbol, int(side), size, price, order_id]
        if chosen < 0.88:
            return ["foreign", symbol, float(random.choice([-2, -1, 1, 2]))]
        if chosen < 0.90:
            return ["positions", symbol, float(random.randint(-9, 9)), self._prices[symbol]]
        if chosen < 0.93:
            return ["unsent", max(self._orders)]
        if chosen < 0.96 and self._reports:
            return ["fill again"]
        state = TradingState.HALTED if random.random() < 0.1 else TradingState.REDUCING
        return ["state", int(state if random.random() < 0.3 else TradingState.ACTIVE)]

    def _choose_request(self) -> list[Any]:
        random = self._random
        if self.engine.desk.state.state is not TradingState.ACTIVE and random.random() < 0.2:
            return ["state", int(TradingState.ACTIVE)]
        if self._last_request is not None and random.random() < 0.02:
            return ["request again"]
        if random.random() < 0.05:
            return ["poll"]
        symbol = random.choice(SYMBOLS)
        self._now_ns += int(random.expovariate(1.0) * _MEAN_STEP_NS)
        if random.random() < 1e-4:
            self._now_ns += _PAUSE_NS
        at_ns = max(self._last_ns[symbol] + 1, self._now_ns - random.randrange(_MEAN_STEP_NS))
        self._last_ns[symbol] = at_ns
        step = random.randrange(-16, 17) / 64
        self._prices[symbol] = min(max(self._prices[symbol] + step, 50.0), 200.0)
        return ["tick", symbol, at_ns, self._prices[symbol], random.random() < 0.9, random.random() < 0.3]

    def do(self, chosen: list[Any]) -> list[Any]:  # noqa: C901 - one for each kind
        """Do it; what came of it, for `apply`."""
        desk = self.engine.desk
        kind, *said = chosen
        match kind:
            case "tick":
                return self._ask(*said)
            case "request again":
                self._ask_again()
            case "order":
                order_id, symbol, state = said
                answer = desk.report_order(OrderReport(symbol, OrderState(state), order_id=order_id))
                return [*chosen, answer.changed]
            case "fill":
                report = fill_of(said)
                self._reports.append(report)
                assert desk.report_fill(report).booked
            case "fill again":
                assert not desk.report_fill(self._random.choice(self._reports[-FILLS_KEPT:])).booked
            case "foreign":
                symbol, signed = said
                side = Side.BUY if signed > 0 else Side.SELL
                found = desk.report_order(OrderReport(symbol, OrderState.ACCEPTED, side=side, size=abs(signed)))
                self._orders[found.order_id] = symbol, side, abs(signed)
                return [*chosen, found.order_id]
            case "positions":
                desk.set_positions([PositionSet(*said)], reason="a campaign", who="the driver")
            case "unsent":
                self.engine.recorder.unsent(said, 4)
                self._last_request = None  # which may be that one, and is not known any more then
            case "state":
                desk.set_state(TradingState(said[0]), reason="a campaign", who="the driver")
            case "poll":
                desk.poll()
        return chosen

    def _ask(self, symbol: str, at_ns: int, price: float, traded: bool, general: bool) -> list[Any]:  # noqa: FBT001 - as told
        self._requests += 1
        request = tick(
            symbol,
            at_ns,
            trade=(price, 1.0) if traded else None,
            quote=(price - 1 / 64, price + 1 / 64, 1.0, 1.0),
            request_id=f"{self._label}-{self._requests}",
            model="line" if general else "",
        )
        data = request.SerializeToString()
        response = self._predict(data)
        signal = response.signal
        self._last_request = data, response
        signed = 0.0
        if signal.approved:
            signed = signal.size if signal.action == pb.ACTION_BUY else -signal.size
            self._orders[signal.order_id] = symbol, Side.BUY if signed > 0 else Side.SELL, signal.size
        return ["tick", symbol, at_ns, price if traded else None, signed, signal.valid_for_us, signal.order_id]

    def _ask_again(self) -> None:
        if self._last_request is None:
            return
        data, first = self._last_request
        again = self._predict(data)
        assert again.repeated or again.signal.reason in _NOT_GIVEN_AGAIN
        if again.repeated:
            assert (again.signal.action, again.signal.order_id) == (first.signal.action, first.signal.order_id)

    def _predict(self, data: bytes) -> pb.PredictResponse:
        answer = self._answers.predict(data, time.perf_counter_ns(), 0)
        assert isinstance(answer, bytes), answer
        return pb.PredictResponse.FromString(answer)

    def step(self) -> list[Any]:
        return self.do(self.choose())


def fill_of(said: list[Any]) -> FillReport:
    fill_id, symbol, side, size, price, order_id = said
    return FillReport(fill_id, symbol, Side(side), size, price, order_id=order_id)


def apply(slow: SlowPortfolio, done: list[Any]) -> None:  # noqa: C901 - one for each kind
    """Do to the model what the driver did to the desk."""
    kind, *said = done
    match kind:
        case "tick":
            symbol, at_ns, price, signed, valid_for_us, order_id = said
            slow.advance(at_ns)
            if price is not None:
                slow.mark(symbol, price)
            if signed:
                slow.reserve(order_id, symbol, signed, valid_for_us)
        case "order":
            order_id, symbol, state, changed = said
            assert slow.report(order_id, symbol, OrderState(state)) == changed
        case "fill":
            assert slow.fill(fill_of(said))
        case "foreign":
            symbol, signed, order_id = said
            slow.foreign(order_id, symbol, signed)
        case "positions":
            slow.set_positions([PositionSet(*said)])
        case "unsent":
            slow.release(said[0])
        case "state":
            slow.set_state(TradingState(said[0]))
        case "poll":
            slow.poll(None)


def _run(models: Path, folder: Path, seed: int, operations: int) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for what is said

    def say(value: object) -> None:
        os.write(1, f"{json.dumps(value)}\n".encode())

    engine = new_engine(models_of(models), folder)
    driver = Driver(engine, seed)
    journal = engine.journal
    assert journal is not None
    say(["ready", journal.next_sequence])
    for _ in range(operations):
        chosen = driver.choose()
        say(chosen)
        say([journal.next_sequence, driver.do(chosen), journal.next_sequence])
    close(engine)


if __name__ == "__main__":
    _run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
