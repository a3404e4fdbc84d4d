"""The hot path: `Engine.decide`, from a request to a decision.

It does no I/O, waits for nobody, and knows neither gRPC nor protobuf nor Prometheus. One thread at a time: the
transport's loop. What it reads and writes is preallocated; a request costs one kernel call a stage.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from tickgate_server.answered import AnsweredRequests
from tickgate_server.budgets import refuse_or_try
from tickgate_server.control_block import ControlBlockReader
from tickgate_server.desk import Desk
from tickgate_server.desk_store import Checkpoints, begin_journaled
from tickgate_server.errors import BudgetSpent
from tickgate_server.features.fundamentals_feed import FundamentalsFeed
from tickgate_server.features.store import FeatureStore
from tickgate_server.fundamentals_in_force import FundamentalsInForce
from tickgate_server.ingest.ingestion import Ingestion, IngestSettings
from tickgate_server.intake import Intake
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.model_operations import ModelOperations, Repository
from tickgate_server.models.loading import LoadedModel
from tickgate_server.models.offload import ModelThreads, Outcome, Run
from tickgate_server.models.registry import ModelRegistry
from tickgate_server.recorder import Recorder
from tickgate_server.records import FEATURES, Decision, Request, Stage
from tickgate_server.risk import portfolio, valuation
from tickgate_server.risk.book import TRADING, Book
from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.feed import RiskDataFeed
from tickgate_server.risk.gate import LIMITS, OUT_VALUES, PASSES, VALUES, WAIVED, judge
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.reasons import Action, Reason
from tickgate_server.roster import Roster
from tickgate_server.states.state import SymbolState
from tickgate_server.states.waiting import WaitingStates
from tickgate_server.ticks import market
from tickgate_server.ticks.instruments import Instrument, Universe
from tickgate_server.ticks.market import MarketState
from tickgate_server.ticks.symbols import SymbolTable

# Plain ints beside the enums: looking a member up costs more than the comparison.
_BUY, _SELL = int(Action.BUY), int(Action.SELL)
_APPROVED, _INVALID_OUTPUT = int(Reason.APPROVED), int(Reason.MODEL_INVALID_OUTPUT)
_NAN = float("nan")
_NONE, _, _FEATURES, _INFERENCE, _RISK, _ENCODING = (int(stage) for stage in Stage)
_NEVER_NS = 1 << 62


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What an engine is built with.

    Attributes:
        capacity: Most symbols; one beyond it is answered HOLD, TICK_SYMBOL_TABLE_FULL.
        replay: Time is the ticks' own: none is late or early.
        future_limit_ns: How far ahead of the server's clock a tick may be.
        stale_limit_ns: How far behind it a tick may be.
        feature_age_limit_ns: How far behind it what a request without a tick asks about may be: the symbol's latest
            tick, or a vector's stamp.
        price_jump_sigmas: A trade is held back as a price jump if its absolute log return is above so many volatilities
            a trade, and above `price_jump_least`; 0: none is.
        price_jump_least: As above.
        worker: Index of this engine among those that share the symbols out, see `tickgate.symbol_hash`.
        workers: How many these are; a symbol that belongs to another is refused.
        enforce_budgets: Off for replaying a journal, whose requests have met theirs.
        queue_limit: Most requests that wait for a model that is not inline, see `models.offload`; 0: every model runs
            on the thread that calls `decide`.
        standing_limit: The same while it is busy for most of the time.
        continuation_gap_ns: A tick without a sequence goes on from a stored state if its stamp is at most so far behind
            the stored one.
    """

    capacity: int = 4096
    replay: bool = False
    future_limit_ns: int = 1_000_000_000
    stale_limit_ns: int = 5_000_000_000
    feature_age_limit_ns: int = 5_000_000_000
    price_jump_sigmas: float = market.JUMP_SIGMAS
    price_jump_least: float = market.JUMP_LEAST
    worker: int = 0
    workers: int = 1
    enforce_budgets: bool = True
    queue_limit: int = 0
    standing_limit: int = 1
    continuation_gap_ns: int = 5_000_000_000


class EngineParts(NamedTuple):
    """What decisions are made of, shared and not copied.

    Attributes:
        market: Each symbol's market state.
        store: Its features.
        desk: Positions, limits, and where they are measured.
    """

    market: MarketState
    store: FeatureStore
    desk: Desk


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
        control: ControlBlockReader | None = None,
        feed: RiskDataFeed | None = None,
        kill_file: Path | None = None,
        *,
        fsync_reports: bool = False,
        fundamentals: FundamentalsFeed | None = None,
        repository: Repository | None = None,
        ingest: IngestSettings | None = None,
    ) -> None:
        self.settings = settings
        self.journal = journal
        self.control = control
        self.registry = registry
        self.symbols = SymbolTable(
            universe or Universe({}, closed=False), settings.capacity, settings.worker, settings.workers
        )
        self._intake = Intake(
            self.symbols,
            settings.capacity,
            registry.models,
            None if settings.replay else self._now_ns,
            settings.future_limit_ns,
            settings.stale_limit_ns,
            settings.feature_age_limit_ns,
            settings.price_jump_sigmas,
            settings.price_jump_least,
            settings.continuation_gap_ns,
        )
        self._market = self._intake.market
        book = Book(
            settings.capacity, self._market.quotes_trades, self.symbols.contracts, checks=len(CHECKS), out=OUT_VALUES
        )
        self._book = book
        self._out = book.out
        self.desk = Desk(
            book,
            self.symbols,
            limits or Limits(),
            workers=settings.workers,
            clock_ns=None if settings.replay else clock_ns,
            journal=journal,
            control=control,
            feed=feed,
            kill_file=kill_file,
            fsync=fsync_reports,
        )
        self.fundamentals = FundamentalsInForce(
            self._intake.fundamentals, self.symbols, fundamentals, journal, self._now_ns
        )
        self.symbols.on_row = self._add_row
        started = registry.models if settings.queue_limit else ()
        self._threads = ModelThreads(started, settings.queue_limit, settings.standing_limit)
        self.roster = Roster(registry, self.desk, self._intake, journal, self._threads)
        self._numbers = self.roster.numbers
        if journal is not None:
            begin_journaled(journal, self.desk, self.roster, asdict(settings))
            self._checkpoints = Checkpoints(journal, self.desk)
        self.models = ModelOperations(self.roster, repository)
        self.desk.on_polled = self._polled
        self.fundamentals.poll()
        self._answered = AnsweredRequests(self.desk, self.roster)
        self.recorder = Recorder(journal, self.desk, self._answered)
        self._intake.waiting.tell_resumed = self.recorder.tell_resumed
        self._intake.on_resumed = self._value_resumed
        self.ingestion = Ingestion(
            ingest or IngestSettings(), self._intake, self.desk, journal, replay=settings.replay, wall_ns=clock_ns
        )

    def _polled(self) -> None:
        """The engine's part of the desk's turn."""
        if self.journal is not None:
            self._checkpoints.keep_up()
        self.models.poll()
        self.roster.poll()
        self.fundamentals.poll()
        self.ingestion.poll()

    def _now_ns(self) -> int:
        return self.desk.now_ns()

    def _add_row(self, row: int, instrument: Instrument) -> None:
        self.desk.add_row(row, instrument)
        self.fundamentals.add_row(row, instrument.symbol)

    def take_states(self, sha256: str, states: Iterable[SymbolState]) -> None:
        """Have states of a store wait for their symbols' next ticks, see `states.waiting`; the journal names them.

        Args:
            sha256: Of the file that they are kept in beside the journal, see `states.file`.
            states: As that file has them.

        Raises:
            JournalError: The journal cannot be told; nothing changed.
        """
        if self.journal is not None:
            self.journal.append_control(ControlKind.STATES, {"sha256": sha256}, clock_ns=self._now_ns())
        self._intake.waiting.add(states)

    def resume(self, symbol: str) -> None:
        """Put the state that waits for a symbol in force, as the journal says that a repeat of its latest tick did.

        Raises:
            KeyError: None waits for it.
        """
        self._intake.resume(symbol)

    @property
    def waiting(self) -> WaitingStates:
        """States of a store that wait for their symbols' next ticks."""
        return self._intake.waiting

    def _value_resumed(self, row: int) -> None:
        """A symbol goes on from a stored state: it is worth its last trade's price, as where the state was made."""
        price = float(self._market.quotes_trades[row, market.PRICE])
        if price > 0.0:  # false for NaN: there was no trade yet
            valuation.mark(self._book.table, row, price)

    def number_of(self, model: LoadedModel) -> int:
        """A model's number in the book."""
        return self._numbers[model]

    def close(self) -> None:
        """End the models' threads, whose unsettled runs are given up, and write the last checkpoint of the book."""
        self.models.close()
        self._threads.close()
        self.fundamentals.close()
        if self.journal is not None:
            self._checkpoints.close()

    @property
    def timekeeper(self) -> int | None:
        """Native id of the thread that ends runs when their time is up; None where every model is inline."""
        return self._threads.watchdog

    @property
    def parts(self) -> EngineParts:
        """The state itself; with one feature set only."""
        return EngineParts(self._market, self._intake.stores[0], self.desk)

    @property
    def market(self) -> MarketState:
        """Each symbol's market state."""
        return self._market

    @property
    def feature_stores(self) -> list[FeatureStore]:
        """One for each feature set that a loaded model takes."""
        return self._intake.stores

    def decide(self, request: Request, decision: Decision) -> bool:
        """Apply a request's input, score it, ask the gate, and fill `decision`.

        A tick that was accepted stays applied even where the budget ends before the answer: asking again with the same
        sequence scores it and does not apply it twice. A request that is refused before its features, because the time
        left is less than what all stages usually take or too many wait for its model, changes nothing.

        Returns:
            True: decided. False, never without `queue_limit`: its model has a thread of its own, so go on with `run`
            and, once that has ended, `finish`; the request and the decision are theirs until then.

        Raises:
            FieldInvalid: The caller's error; nothing changed.
            SymbolElsewhere: Another worker's symbol; nothing changed.
            ModelNotFound: As `ModelRegistry.resolve`; nothing changed.
            ModelNotLoaded: As above.
            ModelBusy: Too many wait for its thread; nothing changed.
            BudgetSpent: Before the stage it names.
        """
        start_ns = perf_counter_ns()
        decision.stage = _NONE
        model = self.registry.resolve(request.model, request.symbol)
        budget_ns = model.latency_budget_ns if self.settings.enforce_budgets else _NEVER_NS
        if 0 < request.budget_ns < budget_ns:
            budget_ns = request.budget_ns
        due_ns = request.arrival_ns + budget_ns
        decision.begin(request, model, budget_ns, int(self._book.state[TRADING]))
        decision.waiting_ns = start_ns - request.arrival_ns
        if request.request_id and self._answered.again(request, decision):
            return True
        remaining = model.remaining
        expected_ns = remaining.from_features_ns
        thread = None if model.inline else self._threads.of.get(model)
        if thread is not None:
            thread.require_room()
            expected_ns += thread.ahead * remaining.from_inference_ns
        if due_ns - start_ns <= expected_ns:
            refuse_or_try(decision, "features", start_ns - request.arrival_ns, expected_ns)

        decision.stage = _FEATURES
        price, vector = self._intake.take(request, decision, model)
        self._pass_time(request, decision)
        features_end_ns = perf_counter_ns()
        decision.features_ns = features_end_ns - start_ns
        if vector is not None:
            decision.vector = vector
            if due_ns - features_end_ns <= remaining.from_inference_ns:
                spent_ns = features_end_ns - request.arrival_ns
                refuse_or_try(decision, "inference", spent_ns, remaining.from_inference_ns)
            if thread is not None:
                self.recorder.tell_started(request, decision, vector)
                return False
            decision.stage = _INFERENCE
            probability_up = model.scorer.score(vector)
            inference_end_ns = perf_counter_ns()
            decision.inference_ns = inference_end_ns - features_end_ns
            if due_ns - inference_end_ns <= remaining.from_risk_ns:
                spent_ns = inference_end_ns - request.arrival_ns
                refuse_or_try(decision, "risk", spent_ns, remaining.from_risk_ns)
            decision.stage = _RISK
            self._judge(decision, model, probability_up, price)
            decision.risk_ns = perf_counter_ns() - inference_end_ns

        decision.stage = _ENCODING
        end_ns = perf_counter_ns()
        decision.total_ns = end_ns - request.arrival_ns
        if end_ns >= due_ns:
            refuse_or_try(decision, "encoding", decision.total_ns, 0)
        return True

    def start(self, request: Request, decision: Decision) -> None:
        """Take a request's input in and its features out, as `decide` does where it leaves the model to a thread."""
        model = self.registry.resolve(request.model, request.symbol)
        decision.begin(request, model, _NEVER_NS, int(self._book.state[TRADING]))
        decision.stage = _FEATURES
        _, vector = self._intake.take(request, decision, model)
        self._pass_time(request, decision)
        decision.vector = None if vector is None else vector.copy()

    def finish_started(self, request: Request, decision: Decision) -> None:
        """Run the model on what `start` left, and finish."""
        model = cast("LoadedModel", decision.model)
        vector = decision.vector
        self._finish_scored(request, decision, _NAN if vector is None else model.scorer.score(vector))

    def run(self, request: Request, decision: Decision, on_ended: Callable[[], object]) -> Run:
        """Queue the model of a request that `decide` left; no other request may be decided in between.

        Args:
            request: As `decide` had it.
            decision: As `decide` left it.
            on_ended: Called once, from another thread, when `finish` may be: the model has run, failed, or the budget
                is spent. Not called once the run was given up.
        """
        model = cast("LoadedModel", decision.model)
        due_ns = request.arrival_ns + decision.budget_ns
        latest_start_ns = due_ns if decision.trial else due_ns - model.remaining.from_inference_ns
        run = Run(cast("NDArray[np.float32]", decision.vector), due_ns, latest_start_ns, on_ended)
        self._threads.of[model].submit(run)
        self.roster.began(model)
        return run

    def give_up(self, decision: Decision, run: Run) -> None:
        """End a run that nobody waits for any more: its `on_ended` is not called from here on."""
        self._threads.give_up(run)
        self.roster.ended(cast("LoadedModel", decision.model))
        self._take_times(decision, run)

    def finish(self, request: Request, decision: Decision, run: Run) -> None:
        """Ask the gate about what `decide` left and a run has scored, on the thread that calls `decide`.

        Position, price and volatility are those of now, not those of when the run began.

        Raises:
            BudgetSpent: Before the stage it names.
            Exception: What the graph raised.
        """
        self.roster.ended(cast("LoadedModel", decision.model))
        self._take_times(decision, run)
        spent_ns = perf_counter_ns() - request.arrival_ns
        if run.outcome is Outcome.TIME_UP:
            refuse_or_try(decision, "risk" if run.started_ns else "inference", spent_ns, 0)
        if run.outcome is Outcome.TOO_LATE_TO_START:
            expected_ns = run.due_ns - run.latest_start_ns
            raise BudgetSpent("inference", decision.budget_ns, spent_ns, expected_ns)
        if run.error is not None:
            raise run.error
        self._finish_scored(request, decision, run.probability_up)

    def _finish_scored(self, request: Request, decision: Decision, probability_up: float) -> None:
        if request.request_id and self._answered.again(request, decision):  # while its model ran
            return
        model = cast("LoadedModel", decision.model)
        start_ns = perf_counter_ns()
        expected_ns = model.remaining.from_risk_ns
        spent_ns = start_ns - request.arrival_ns
        if decision.budget_ns - spent_ns <= expected_ns:
            refuse_or_try(decision, "risk", spent_ns, expected_ns)
        decision.stage = _RISK
        of_caller = request.input == FEATURES
        price = request.reference_price if of_caller else float(self._market.quotes_trades[decision.row, market.PRICE])
        self._judge(decision, model, probability_up, price)
        end_ns = perf_counter_ns()
        decision.risk_ns = end_ns - start_ns
        decision.stage = _ENCODING
        decision.total_ns = end_ns - request.arrival_ns
        if decision.total_ns >= decision.budget_ns:
            refuse_or_try(decision, "encoding", decision.total_ns, 0)

    @staticmethod
    def _take_times(decision: Decision, run: Run) -> None:
        """How far a run came; what it waited for its thread counts as waiting."""
        if run.started_ns:
            decision.stage = _INFERENCE
            decision.waiting_ns += run.started_ns - run.submitted_ns
            decision.inference_ns = (run.ended_ns or perf_counter_ns()) - run.started_ns
        else:
            decision.waiting_ns += perf_counter_ns() - run.submitted_ns

    def _pass_time(self, request: Request, decision: Decision) -> None:
        """What an input does to the book: time passes, and a trade is what its symbol is valued at."""
        if decision.confirmed:
            self.recorder.tell_confirmed(request, decision, self._market)
        table = self._book.table
        if decision.clock_ns:
            portfolio.advance(table, decision.clock_ns)
        elif decision.applied:
            portfolio.advance(table, request.exchange_ts_ns)
        if decision.applied and request.kind & market.TRADE:
            valuation.mark(table, decision.row, request.price)

    def _judge(self, decision: Decision, model: LoadedModel, probability_up: float, price: float) -> None:
        """Size the order, measure every check, and set action and reason."""
        desk = self.desk
        reason = judge(
            probability_up,
            price,
            decision.row,
            model.horizon_trades,
            max(model.threshold, desk.limits.confidence_threshold),
            self._numbers[model],
            self._book.table,
        )
        decision.reason = reason
        if reason == _INVALID_OUTPUT:
            return
        measured = self._out.tolist()
        decision.scored = decision.judged = True
        (
            decision.target,
            order,
            decision.limit_price,
            decision.value,
            decision.confidence,
            remaining,
            reducing,
            regime,
        ) = measured[:VALUES]
        decision.check_values = measured[VALUES:LIMITS]
        decision.check_limits = measured[LIMITS:PASSES]
        decision.check_passes = measured[PASSES:WAIVED]
        decision.check_waived = measured[WAIVED:]
        decision.regime = int(regime)
        if reason == _APPROVED:
            decision.action = _BUY if order > 0.0 else _SELL
            decision.size = abs(order)
            decision.remaining = remaining
            decision.reducing = reducing == 1.0
            decision.valid_for_us = desk.limits.valid_for_us
            decision.order_id = desk.next_order_id()
