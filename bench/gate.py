"""The whole gate in process: sizing, every check, and what an approval and a price change cost, symbols at random.

Each call is timed in place, its dispatch from Python and two readings of the clock included (the last table says what
these take). A symbol is taken at random each time, so that its row, its line of the covariance and its scenarios are
no hotter than they are in a server.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from tickgate.v1 import PredictRequest, Tick, Trade
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.features import micro10
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.records import FEATURES, Decision, Request
from tickgate_server.risk import orders, portfolio, valuation
from tickgate_server.risk.book import FRESH
from tickgate_server.risk.data import RiskData
from tickgate_server.risk.feed import Found, exposures_of
from tickgate_server.risk.gate import ORDER, judge
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.reasons import Reason
from tickgate_server.risk.regimes import Regime
from tickgate_server.risk.reports import OrderState
from tickgate_server.rpc.answers import Answers
from tickgate_server.rpc.lane.facts import RISK_NS
from tickgate_server.ticks import market

SYMBOLS = (1, 100, 500)
CALLS = 20_000
WARM_UP = 1_000
SCENARIOS = 250
PRICE = 100.0
START_NS = 1_723_161_254_000_000_000
GAP_NS = 1_000_000
FACTORS = 5
# Wide enough that nearly every order is approved: a denial costs no less to judge, and an approval reserves.
LIMITS = {
    "risk_budget": 100.0,
    "max_order_notional": 1e9,
    "max_position_notional": 1e9,
    "max_var": 1e12,
    "max_correlation": 1.0,
    "max_gross_exposure": 1e12,
    "max_net_exposure": 1e12,
    "max_open_opposite": "off",
    "max_repeats": "off",
    "max_orders_per_s_symbol": "off",
    "max_orders_per_s": "off",
    "max_daily_loss": "off",
    "max_drawdown": "off",
    "valid_for_us": 100_000,
}
_CANCELLED = int(OrderState.CANCELLED)
_APPROVED = int(Reason.APPROVED)


@dataclass(frozen=True, slots=True)
class Case:
    """How value at risk is measured, and of what."""

    symbols: int
    method: str
    scenarios: int


CASES = tuple(
    Case(symbols, method, scenarios)
    for symbols in SYMBOLS
    for method, scenarios in (
        ("parametric", 0),
        ("parametric", SCENARIOS),
        ("historical", SCENARIOS),
        ("cornish_fisher", SCENARIOS),
    )
)


def gate(models: Path) -> list[Table]:
    """The kernels by case, and the gate's part of a decision."""
    registry = load_repository(models)
    return [_kernels(registry), _decisions(registry), _timer()]


def _engine(registry: ModelRegistry, case: Case) -> Engine:
    """An engine that holds every symbol, long and short, in a market of a few factors."""
    rng = np.random.default_rng(case.symbols)
    limits = Limits(**LIMITS, var_method=case.method)
    engine = Engine(EngineSettings(capacity=1024, replay=True), registry, None, limits)
    desk, table = engine.desk, engine.desk.book.table
    names = tuple(f"S{number:03d}" for number in range(case.symbols))
    quotes_trades = engine.parts.market.quotes_trades
    for name in names:
        row = desk.row_of(name)
        quotes_trades[row, market.PRICE] = PRICE
        quotes_trades[row, market.SIGMA] = 1e-3
        portfolio.advance(table, START_NS)
        valuation.mark(table, row, PRICE)
        portfolio.set_position(table, row, float(rng.integers(1, 50) * rng.choice((-1, 1))), PRICE)
    loadings = rng.normal(0.0, 0.01, (case.symbols, FACTORS))
    covariance = loadings @ loadings.T + np.diag(rng.uniform(1e-4, 4e-4, case.symbols))
    returns = rng.normal(0.0, 1.0, (case.scenarios, FACTORS)) @ loadings.T
    regimes = np.full(case.symbols, Regime.NORMAL, np.int8)
    data = RiskData(START_NS, names, covariance, np.ascontiguousarray(returns), regimes)
    desk.apply_risk_data(Found(data, "bench", exposures_of(data)))
    desk.book.state[FRESH] = 1
    return engine


def _timed(calls: int, call: Callable[[int], object]) -> NDArray[np.int64]:
    took_ns = np.empty(calls, np.int64)
    gc.collect()
    gc.disable()
    for index in range(calls):
        start_ns = perf_counter_ns()
        call(index)
        took_ns[index] = perf_counter_ns() - start_ns
    gc.enable()
    return took_ns[WARM_UP:]


def _cells(took_ns: NDArray[np.int64]) -> list[str]:
    return [f"{cell:,.0f}" for cell in np.percentile(took_ns, [50, 99])]


def _table(title: str, texts: tuple[str, ...], *headings: str) -> Table:
    table = Table(title=title)
    for heading in (*texts, *headings):
        table.add_column(heading, justify="left" if heading in texts else "right")
    return table


def _kernels(registry: ModelRegistry) -> Table:
    title = f"the gate's kernels, ns, {CALLS:,} calls each, symbols at random, all of them held, T scenarios"
    headings = ("judge p50", "p99", "+ reserve p50", "p99", "+ release p50", "p99", "new price p50", "p99", "approved")
    table = _table(title, ("symbols", "VaR", "T"), *headings)
    for case in CASES:
        cells = _kernel_cells(_engine(registry, case), case)
        table.add_row(str(case.symbols), case.method, str(case.scenarios), *cells)
    return table


def _kernel_cells(engine: Engine, case: Case) -> list[str]:
    rng = np.random.default_rng(1)
    model = engine.registry.models[0]
    number, horizon = engine.number_of(model), model.horizon_trades
    book, table = engine.desk.book, engine.desk.book.table
    rows = rng.integers(0, case.symbols, CALLS).tolist()
    # Far from even, so that each target is well off the position.
    ups = np.where(rng.random(CALLS) < 0.5, rng.uniform(0.01, 0.3, CALLS), rng.uniform(0.7, 0.99, CALLS)).tolist()
    prices = (PRICE * np.exp(rng.normal(0.0, 1e-3, CALLS))).tolist()
    reasons = np.zeros(CALLS, np.int64)

    def judged(index: int) -> None:
        reasons[index] = judge(ups[index], PRICE, rows[index], horizon, 0.5, number, table)

    def reserved(index: int) -> int:
        judge(ups[index], PRICE, rows[index], horizon, 0.5, number, table)
        return portfolio.reserve(table, rows[index], book.out[ORDER], 100_000, index + 1)

    def released(index: int) -> None:
        orders.end_order(table, reserved(index), _CANCELLED)

    took_ns = np.empty(CALLS, np.int64)
    only_judged = _timed(CALLS, judged)
    for index in range(CALLS):  # a reservation ends before the next, untimed here
        start_ns = perf_counter_ns()
        slot = reserved(index)
        took_ns[index] = perf_counter_ns() - start_ns
        orders.end_order(table, slot, _CANCELLED)
    until_released = _timed(CALLS, released)
    priced = _timed(CALLS, lambda index: valuation.mark(table, rows[index], prices[index]))
    approved = f"{float(np.mean(reasons == _APPROVED)):.0%}"
    return [*_cells(only_judged), *_cells(took_ns[WARM_UP:]), *_cells(until_released), *_cells(priced), approved]


def _decisions(registry: ModelRegistry) -> Table:
    title = f"the gate's part of a decision, ns, {CALLS:,} requests, parametric VaR, {SCENARIOS} scenarios"
    headings = ("whole p50", "p99", "without the gate p50", "p99", "the gate p50", "p99", "reserve p50", "p99")
    table = _table(title, ("symbols", "path"), *headings)
    for symbols in SYMBOLS:
        case = Case(symbols, "parametric", SCENARIOS)
        table.add_row(str(symbols), "Engine.decide", *_decide_cells(_engine(registry, case), case))
        table.add_row(str(symbols), "fast lane", *_lane_cells(_engine(registry, case), case))
    return table


def _decide_cells(engine: Engine, case: Case) -> list[str]:
    """Vectors of the caller's through `Engine.decide`, and what it reserves then; both ended before the next."""
    rng = np.random.default_rng(2)
    vectors = rng.normal(0.0, 1.0, (256, micro10.WIDTH)).astype(np.float32).tolist()
    names = [f"S{number:03d}" for number in rng.integers(0, case.symbols, CALLS)]
    request, decision = Request(input=FEATURES, reference_price=PRICE), Decision()
    whole, risk = np.empty(CALLS, np.int64), np.empty(CALLS, np.int64)
    reserving: list[int] = []
    for index in range(CALLS):
        request.symbol, request.values, request.exchange_ts_ns = names[index], vectors[index % 256], START_NS
        start_ns = request.arrival_ns = perf_counter_ns()
        engine.decide(request, decision)
        whole[index] = perf_counter_ns() - start_ns
        risk[index] = decision.risk_ns
        start_ns = perf_counter_ns()
        engine.recorder.conclude(request, decision, index + 1)
        if decision.order_id:
            reserving.append(perf_counter_ns() - start_ns)
            engine.desk.release_unsent([decision.order_id])
    kept = [_cells(took[WARM_UP:]) for took in (whole, whole - risk, risk)]
    return [*kept[0], *kept[1], *kept[2], *_cells(np.array(reserving, np.int64)[WARM_UP:])]


def _lane_cells(engine: Engine, case: Case) -> list[str]:
    """Ticks from bytes to bytes in the fast lane, by its own times; each price is new, so each revalues its symbol."""
    rng = np.random.default_rng(3)
    answers = Answers(engine)
    lane = answers._lane  # noqa: SLF001 - its own times
    prices = np.full(case.symbols, PRICE)
    requests = []
    for index in range(CALLS):
        number = int(rng.integers(0, case.symbols))
        prices[number] *= np.exp(rng.normal(0.0, 1e-4))
        tick = Tick(
            symbol=f"S{number:03d}",
            exchange_ts_ns=START_NS + index * GAP_NS,
            sequence=index + 1,
            trade=Trade(price=prices[number], size=1.0),
        )
        requests.append(PredictRequest(tick=tick).SerializeToString())
    whole, risk = np.zeros(CALLS, np.int64), np.full(CALLS, -1, np.int64)
    for index, request in enumerate(requests):
        start_ns = perf_counter_ns()
        answers.predict(request, start_ns, 0)
        whole[index] = perf_counter_ns() - start_ns
        risk[index] = lane._facts[RISK_NS]  # noqa: SLF001 - as above
    judged = np.flatnonzero(risk[WARM_UP:] > 0) + WARM_UP  # the windows fill at first
    return [*_cells(whole[judged]), *_cells((whole - risk)[judged]), *_cells(risk[judged]), "in whole", ""]


def _timer() -> Table:
    table = _table("what the measuring takes, ns", ("call",), "p50", "p99")
    table.add_row("none: two readings of the clock, one call of Python's", *_cells(_timed(CALLS, lambda _: None)))
    return table
