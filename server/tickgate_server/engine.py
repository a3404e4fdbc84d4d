"""The hot path: `Engine.decide`, from a request to a decision.

It does no I/O, waits for nobody, and knows neither gRPC nor protobuf nor Prometheus. One thread at a time: the
transport's loop. What it reads and writes is preallocated; a request costs one kernel call a stage.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickgate_server.errors import BudgetSpent, FieldInvalid
from tickgate_server.features.store import FeatureStore
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.loading import LoadedModel
from tickgate_server.models.registry import ModelRegistry
from tickgate_server.records import FEATURES, SYMBOL, TICK, Decision, Request, Stage
from tickgate_server.risk.gate import BOUNDS, PASSES, VALUES, Gate, Limits, judge
from tickgate_server.risk.reasons import Action, Reason
from tickgate_server.telemetry import Telemetry
from tickgate_server.ticks import market, symbols
from tickgate_server.ticks.instruments import SYMBOL_BYTES, Universe
from tickgate_server.ticks.market import MarketState
from tickgate_server.ticks.symbols import SymbolTable

_REJECTED = {
    market.DUPLICATE: Reason.TICK_DUPLICATE,
    market.OUT_OF_ORDER: Reason.TICK_OUT_OF_ORDER,
    market.FROM_FUTURE: Reason.TICK_FROM_FUTURE,
    market.STALE: Reason.TICK_STALE,
    market.CROSSED_QUOTE: Reason.TICK_CROSSED_QUOTE,
}
_NO_ROW = {symbols.UNKNOWN: Reason.TICK_UNKNOWN_SYMBOL, symbols.FULL: Reason.TICK_SYMBOL_TABLE_FULL}
# Plain ints beside the enums: looking a member up costs more than the comparison.
_HOLD, _BUY, _SELL = int(Action.HOLD), int(Action.BUY), int(Action.SELL)
_APPROVED, _INVALID_OUTPUT = int(Reason.APPROVED), int(Reason.MODEL_INVALID_OUTPUT)
_NAN = float("nan")
_NONE, _WAITING, _FEATURES, _INFERENCE, _RISK, _ENCODING = (int(stage) for stage in Stage)
_NEVER_NS = 1 << 62


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What an engine is built with.

    Attributes:
        capacity: Most symbols; one beyond it is answered HOLD, TICK_SYMBOL_TABLE_FULL.
        replay: Time is the ticks' own: none is late or early.
        future_limit_ns: How far ahead of the server's clock a tick may be.
        stale_limit_ns: How far behind it a tick, or the features asked about, may be.
        enforce_budgets: Off for replaying a journal, whose requests have met theirs.
    """

    capacity: int = 4096
    replay: bool = False
    future_limit_ns: int = 1_000_000_000
    stale_limit_ns: int = 5_000_000_000
    enforce_budgets: bool = True


class EngineParts(NamedTuple):
    """What decisions are made of, shared and not copied.

    Attributes:
        market: Each symbol's market state.
        store: Its features.
        positions: float64 [capacity]: filled positions by row.
        gate: Limits, and where they are measured.
    """

    market: MarketState
    store: FeatureStore
    positions: NDArray[np.float64]
    gate: Gate


class Engine:
    """Ticks, features, models and the gate joined, for one data-plane process or embedded in a strategy."""

    def __init__(
        self,
        settings: EngineSettings,
        registry: ModelRegistry,
        universe: Universe | None = None,
        limits: Limits | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        journal: JournalWriter | None = None,
    ) -> None:
        self.settings = settings
        self.journal = journal
        self.registry = registry
        self.telemetry = Telemetry()
        self.symbols = SymbolTable(universe or Universe({}, closed=False), settings.capacity)
        self._market = MarketState(settings.capacity)
        # One store for each distinct feature set: bounded by the models that were loaded.
        self._stores = {
            schema_id: FeatureStore(features, settings.capacity)
            for schema_id, features in {model.schema_id: model.features for model in registry.models}.items()
        }
        self._all_stores = list(self._stores.values())
        # Filled positions by row. Nothing reports fills yet, so every position is flat.
        self._positions = np.zeros(settings.capacity)
        self._gate = Gate(limits or Limits())
        self._clock_ns = clock_ns
        if journal is not None:
            self._state_start(journal)

    def _state_start(self, journal: JournalWriter) -> None:
        """Tell the journal all that decisions depend on from here, beginning with empty windows."""
        universe = self.symbols.universe
        instruments = [instrument.model_dump(mode="json") for instrument in universe.instruments.values()]
        settings = {
            "engine": asdict(self.settings),
            "default_model": self.registry.default,
            "closed": universe.closed,
            "instruments": instruments,
        }
        journal.append_control(ControlKind.SETTINGS, settings)
        journal.append_control(ControlKind.LIMITS, self._gate.limits.model_dump(mode="json"))
        for model in self.registry.models:
            journal.add_model(model)

    @property
    def parts(self) -> EngineParts:
        """The state itself, for the transport's fast lane; with one feature set only."""
        return EngineParts(self._market, self._all_stores[0], self._positions, self._gate)

    @property
    def feature_stores(self) -> list[FeatureStore]:
        """One for each feature set that a loaded model takes."""
        return self._all_stores

    def decide(self, request: Request, decision: Decision) -> None:
        """Apply a request's input, score it, ask the gate, and fill `decision`.

        A tick that was accepted stays applied even where the budget ends before the answer: asking again with the same
        sequence scores it and does not apply it twice.

        Raises:
            FieldInvalid: The caller's error; nothing changed.
            ModelNotFound: As `ModelRegistry.resolve`; nothing changed.
            ModelNotLoaded: As above.
            BudgetSpent: Before the stage it names.
        """
        start_ns = perf_counter_ns()
        decision.stage = _NONE
        model = self.registry.resolve(request.model)
        budget_ns = model.latency_budget_ns if self.settings.enforce_budgets else _NEVER_NS
        if 0 < request.budget_ns < budget_ns:
            budget_ns = request.budget_ns
        due_ns = request.arrival_ns + budget_ns
        self._begin(request, decision, model, budget_ns)
        decision.waiting_ns = start_ns - request.arrival_ns
        if start_ns >= due_ns:
            raise BudgetSpent("features", budget_ns, start_ns - request.arrival_ns)

        decision.stage = _FEATURES
        row, price, vector = self._features(request, decision, model)
        features_end_ns = perf_counter_ns()
        decision.features_ns = features_end_ns - start_ns
        if vector is not None:
            if features_end_ns >= due_ns:
                raise BudgetSpent("inference", budget_ns, features_end_ns - request.arrival_ns)
            decision.stage = _INFERENCE
            decision.vector = vector
            probability_up = model.scorer.score(vector)
            inference_end_ns = perf_counter_ns()
            decision.inference_ns = inference_end_ns - features_end_ns
            if inference_end_ns >= due_ns:
                raise BudgetSpent("risk", budget_ns, inference_end_ns - request.arrival_ns)
            decision.stage = _RISK
            self._judge(decision, model, probability_up, row, price)
            decision.risk_ns = perf_counter_ns() - inference_end_ns

        decision.stage = _ENCODING
        end_ns = perf_counter_ns()
        decision.total_ns = end_ns - request.arrival_ns
        if end_ns >= due_ns:
            raise BudgetSpent("encoding", budget_ns, decision.total_ns)
        self.telemetry.decided(
            decision.reason,
            decision.action,
            decision.waiting_ns,
            decision.features_ns,
            decision.inference_ns,
            decision.risk_ns,
            decision.total_ns,
        )

    def check_budget(self, request: Request, decision: Decision) -> None:
        """The last look at a decided request's budget, once its answer is encoded; raises `BudgetSpent`."""
        spent_ns = perf_counter_ns() - request.arrival_ns
        if spent_ns >= decision.budget_ns:
            raise BudgetSpent("sending", decision.budget_ns, spent_ns)

    def record(self, request: Request, decision: Decision, *, request_id: str, status: int) -> None:
        """Append what became of a request to the journal, if there is one; once for each, before its answer leaves.

        Args:
            request: As it was decoded, as far as it could be.
            decision: As `decide` left it, whether it raised or not.
            request_id: The caller's.
            status: google.rpc.Code that it is answered with.

        Raises:
            JournalError: It is not in the journal, and no answer may leave.
        """
        if self.journal is None:
            return
        begun = decision.stage != _NONE  # else it holds what the request before left
        self.journal.append_decision(
            request,
            decision,
            request_id=request_id,
            status=status,
            stage=decision.stage,
            applied=begun and decision.applied,
            clock_ns=decision.clock_ns if begun else 0,
            vector=decision.vector if begun else None,
        )

    @staticmethod
    def _begin(request: Request, decision: Decision, model: LoadedModel, budget_ns: int) -> None:
        decision.stage = _WAITING
        decision.applied = False
        decision.clock_ns = 0
        decision.vector = None
        decision.symbol = request.symbol
        decision.model = model
        decision.budget_ns = budget_ns
        decision.action = _HOLD
        decision.reason = 0
        decision.size = decision.limit_price = decision.target = 0.0
        decision.valid_for_us = 0
        decision.scored = decision.judged = decision.ready = False
        decision.value = decision.confidence = _NAN
        decision.trades_in_window = decision.features_ts_ns = 0
        decision.features_ns = decision.inference_ns = decision.risk_ns = 0

    def _features(
        self, request: Request, decision: Decision, model: LoadedModel
    ) -> tuple[int, float, NDArray[np.float32] | None]:
        """Row, reference price and vector to score; no vector where `decision.reason` says why there is none."""
        if request.input == TICK:
            row, decision.reason = self._apply(request, decision)
        else:
            row, decision.reason = self._look_up(request, decision, model)
        if decision.reason:
            return row, _NAN, None
        if request.input == FEATURES:
            decision.ready = True
            decision.features_ts_ns = request.exchange_ts_ns
            return row, request.reference_price, np.array(request.values, np.float32)
        store = self._stores[model.schema_id]
        decision.ready = bool(store.ready[row])
        decision.trades_in_window = int(store.counts[row])
        decision.features_ts_ns = int(self._market.stamps[row, market.LAST_TRADE_NS])
        if not decision.ready:
            decision.reason = Reason.FEATURES_NOT_READY
            return row, _NAN, None
        return row, float(self._market.quotes_trades[row, market.PRICE]), store.vectors[row]

    def _apply(self, request: Request, decision: Decision) -> tuple[int, int]:
        """Validate a tick and take it in; its row, and 0 or the reason it was rejected for."""
        _check_symbol(request.symbol, "tick.symbol")
        _check_tick(request)
        row = self.symbols.row(request.symbol)
        new = row == symbols.UNKNOWN
        if new:
            row = self.symbols.offer(request.symbol)
            if row < 0:
                return row, _NO_ROW[row]
        settings = self.settings
        decision.clock_ns = now_ns = 0 if settings.replay else self._clock_ns()
        state = self._market
        verdict = market.apply(
            state.quotes_trades,
            state.volatilities,
            state.stamps,
            state.sequences,
            row,
            request.kind,
            request.exchange_ts_ns,
            request.sequence,
            request.price,
            request.size,
            request.bid,
            request.ask,
            request.bid_size,
            request.ask_size,
            now_ns,
            settings.future_limit_ns,
            settings.stale_limit_ns,
        )
        if verdict == market.ACCEPTED_NEW:
            decision.applied = True
            if new:
                self.symbols.keep()
            if request.kind & market.TRADE:
                for store in self._all_stores:
                    store.push(row, request.exchange_ts_ns, request.price, request.size)
            return row, 0
        if verdict == market.ACCEPTED_AGAIN:
            return row, 0
        return row, _REJECTED[verdict]

    def _look_up(self, request: Request, decision: Decision, model: LoadedModel) -> tuple[int, int]:
        """Row of a request that brings no tick, and 0 or the reason why it cannot be served."""
        if request.input == FEATURES:
            _check_symbol(request.symbol, "features.symbol")
            _check_features(request, model)
            stamp_ns = request.exchange_ts_ns
        elif request.input == SYMBOL:
            _check_symbol(request.symbol, "symbol")
            stamp_ns = 0  # its latest tick's
        else:
            raise FieldInvalid("input", "one of tick, features or symbol", None)
        row = self.symbols.row(request.symbol)
        if row < 0:
            return row, Reason.TICK_UNKNOWN_SYMBOL
        if not self.settings.replay:
            stamp_ns = stamp_ns or int(self._market.stamps[row, market.LAST_TICK_NS])
            decision.clock_ns = self._clock_ns()
            age_ns = decision.clock_ns - stamp_ns if stamp_ns else 0  # a listed symbol without a tick is not ready
            if age_ns > self.settings.stale_limit_ns:
                return row, Reason.TICK_STALE
            if -age_ns > self.settings.future_limit_ns:
                return row, Reason.TICK_FROM_FUTURE
        return row, 0

    def _judge(self, decision: Decision, model: LoadedModel, probability_up: float, row: int, price: float) -> None:
        """Size the order, measure every check, and set action and reason."""
        gate = self._gate
        limits = gate.limits
        reason = judge(
            probability_up,
            price,
            row,
            model.horizon_trades,
            max(model.threshold, limits.confidence_threshold),
            float(self._positions[row]),
            self._market.quotes_trades,
            self.symbols.contracts,
            gate.policy,
            gate.bounds,
            gate.out,
        )
        decision.reason = reason
        if reason == _INVALID_OUTPUT:
            return
        measured = gate.out.tolist()
        decision.scored = decision.judged = True
        decision.target, order, decision.limit_price, decision.value, decision.confidence = measured[:VALUES]
        decision.check_values = measured[VALUES:BOUNDS]
        decision.check_limits = measured[BOUNDS:PASSES]
        decision.check_passes = measured[PASSES:]
        if reason == _APPROVED:
            decision.action = _BUY if order > 0.0 else _SELL
            decision.size = abs(order)
            decision.valid_for_us = limits.valid_for_us


def _check_symbol(symbol: str, where: str) -> None:
    # Most symbols are short ASCII: characters bound bytes from below, and four times their number from above.
    length = len(symbol)
    if length == 0 or (length > SYMBOL_BYTES // 4 and len(symbol.encode()) > SYMBOL_BYTES):
        raise FieldInvalid(where, f"1 to {SYMBOL_BYTES} bytes of UTF-8", symbol)


def _check_tick(request: Request) -> None:  # noqa: C901 - one line a field
    """Every number in range; the comparisons are false for NaN."""
    if not request.kind:
        raise FieldInvalid("tick", "a trade, a quote, or both", "neither")
    if request.exchange_ts_ns <= 0:
        raise FieldInvalid("tick.exchange_ts_ns", "nanoseconds since the epoch, > 0", request.exchange_ts_ns)
    if request.kind & market.TRADE:
        if not 0.0 < request.price < math.inf:
            raise FieldInvalid("tick.trade.price", "a finite number > 0", request.price)
        if not 0.0 <= request.size < math.inf:
            raise FieldInvalid("tick.trade.size", "a finite number >= 0", request.size)
    if request.kind & market.QUOTE:
        if not 0.0 < request.bid < math.inf:
            raise FieldInvalid("tick.quote.bid", "a finite number > 0", request.bid)
        if not 0.0 < request.ask < math.inf:
            raise FieldInvalid("tick.quote.ask", "a finite number > 0", request.ask)
        if not 0.0 <= request.bid_size < math.inf:
            raise FieldInvalid("tick.quote.bid_size", "a finite number >= 0", request.bid_size)
        if not 0.0 <= request.ask_size < math.inf:
            raise FieldInvalid("tick.quote.ask_size", "a finite number >= 0", request.ask_size)


def _check_features(request: Request, model: LoadedModel) -> None:
    if request.schema_id not in {"", model.schema_id}:
        raise FieldInvalid("features.schema_id", f"{model.schema_id!r}, the model's", request.schema_id)
    width = model.features.width
    if len(request.values) != width:
        raise FieldInvalid("features.values", f"{width} values", f"{len(request.values)} values")
    for index, value in enumerate(request.values):
        if not math.isfinite(value):
            raise FieldInvalid(f"features.values[{index}]", "a finite number", value)
    if request.exchange_ts_ns <= 0:
        raise FieldInvalid("features.exchange_ts_ns", "nanoseconds since the epoch, > 0", request.exchange_ts_ns)
    if not 0.0 < request.reference_price < math.inf:
        raise FieldInvalid("features.reference_price", "a finite number > 0", request.reference_price)
