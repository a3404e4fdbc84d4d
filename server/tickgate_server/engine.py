"""The hot path: `Engine.decide`, from a request to a decision.

It does no I/O, waits for nobody, and knows neither gRPC nor protobuf nor Prometheus. One thread at a time: the
transport's loop. What it reads and writes is preallocated; a request costs one kernel call a stage.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from tickgate_server.control_block import ControlBlockReader
from tickgate_server.desk import Desk
from tickgate_server.desk.ledger import Ledger
from tickgate_server.desk.pieces import pieces, take_piece
from tickgate_server.desk_store import Checkpoints, restore
from tickgate_server.errors import BudgetSpent
from tickgate_server.features.store import FeatureStore
from tickgate_server.intake import Intake
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.loading import LoadedModel
from tickgate_server.models.offload import ModelThreads, Outcome, Run
from tickgate_server.models.registry import ModelRegistry
from tickgate_server.payload import payload_of
from tickgate_server.records import FEATURES, Decision, Request, Stage, stated
from tickgate_server.risk import portfolio
from tickgate_server.risk import request_ids as ids
from tickgate_server.risk.book import TRADING, Book
from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.feed import RiskDataFeed
from tickgate_server.risk.gate import LIMITS, OUT_VALUES, PASSES, VALUES, WAIVED, judge
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.reasons import Action, Reason
from tickgate_server.risk.regimes import TradingState
from tickgate_server.ticks import market
from tickgate_server.ticks.instruments import Universe
from tickgate_server.ticks.market import MarketState
from tickgate_server.ticks.symbols import SymbolTable

# Plain ints beside the enums: looking a member up costs more than the comparison.
_HOLD, _BUY, _SELL = int(Action.HOLD), int(Action.BUY), int(Action.SELL)
_APPROVED, _INVALID_OUTPUT = int(Reason.APPROVED), int(Reason.MODEL_INVALID_OUTPUT)
_EXPIRED, _REUSED = int(Reason.REQUEST_EXPIRED), int(Reason.REQUEST_ID_REUSED)
_DESK_HALTED, _DESK_REDUCING = int(Reason.TRADING_STATE_HALTED), int(Reason.TRADING_STATE_REDUCING)
_HALTED, _REDUCING = int(TradingState.HALTED), int(TradingState.REDUCING)
_NAN = float("nan")
_NONE, _WAITING, _FEATURES, _INFERENCE, _RISK, _ENCODING = (int(stage) for stage in Stage)
_NEVER_NS = 1 << 62
_LAST_TICKET = 0xFFFF  # as the journal has room for; far more than runs wait at a time


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What an engine is built with.

    Attributes:
        capacity: Most symbols; one beyond it is answered HOLD, TICK_SYMBOL_TABLE_FULL.
        replay: Time is the ticks' own: none is late or early.
        future_limit_ns: How far ahead of the server's clock a tick may be.
        stale_limit_ns: How far behind it a tick, or the features asked about, may be.
        worker: Index of this engine among those that share the symbols out, see `tickgate.symbol_hash`.
        workers: How many these are; a symbol that belongs to another is refused.
        enforce_budgets: Off for replaying a journal, whose requests have met theirs.
        queue_limit: Most requests that wait for a model that is not inline, see `models.offload`; 0: every model runs
            on the thread that calls `decide`.
        standing_limit: The same while it is busy for most of the time.
    """

    capacity: int = 4096
    replay: bool = False
    future_limit_ns: int = 1_000_000_000
    stale_limit_ns: int = 5_000_000_000
    worker: int = 0
    workers: int = 1
    enforce_budgets: bool = True
    queue_limit: int = 0
    standing_limit: int = 1


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
        self.symbols.on_row = self.desk.add_row
        self._numbers: dict[LoadedModel, int] = {}
        self._ticket = 0
        self._threads = ModelThreads(
            registry.models if settings.queue_limit else (), settings.queue_limit, settings.standing_limit
        )
        for model in registry.models:
            self._numbers[model] = self.desk.add_model(model.name, model.version, model.manifest.allowed_regimes)
        if journal is not None:
            restored = self._restored(journal.folder, limits or Limits())
            self.desk.take_memory(restored)
            self._state_start(journal, list(pieces(restored)))
            self._checkpoints = Checkpoints(journal.folder)
            self._checkpointed = journal.segments_begun
            self.desk.on_polled = self._keep_checkpoint
            self._checkpoints.take(self.desk, journal.next_sequence - 1)

    def _now_ns(self) -> int:
        return self.desk.now_ns()

    def number_of(self, model: LoadedModel) -> int:
        """A model's number in the book."""
        return self._numbers[model]

    def _restored(self, folder: Path, limits: Limits) -> Ledger:
        """What a journal tells, in a ledger of its own: the desk begins with what that states, as in a replay."""
        settings, universe = self.settings, self.symbols.universe
        table = SymbolTable(universe, settings.capacity, settings.worker, settings.workers)
        quotes_trades = np.full_like(self._market.quotes_trades, np.nan)
        book = Book(settings.capacity, quotes_trades, table.contracts, checks=len(CHECKS), out=OUT_VALUES)
        found = Ledger(book, table, limits, workers=settings.workers, clock_ns=None)
        table.on_row = found.add_row
        for model in self.registry.models:
            found.add_model(model.name, model.version, model.manifest.allowed_regimes)
        restore(found, folder)
        return found

    def _state_start(self, journal: JournalWriter, book: list[dict[str, Any]]) -> None:
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
        journal.append_control(ControlKind.LIMITS, self.desk.whole.model_dump(mode="json"))
        for model in self.registry.models:
            journal.add_model(model)
        for refused in self.registry.refused:
            journal.add_refused(refused.name, refused.version, type(refused.error).__name__)
        for model in self.registry.models:
            self.desk.heed(model.name, model.version, journal.add_model(model))
        for piece in book:
            journal.append_control(ControlKind.WARM_START, piece)
            take_piece(self.desk, piece)

    def _keep_checkpoint(self) -> None:
        """A checkpoint for each segment: what is older may then be removed."""
        journal = cast("JournalWriter", self.journal)
        if journal.segments_begun != self._checkpointed and self._checkpoints.take(
            self.desk, journal.next_sequence - 1
        ):
            self._checkpointed = journal.segments_begun

    def close(self) -> None:
        """End the models' threads, whose unsettled runs are given up, and write the last checkpoint of the book."""
        self._threads.close()
        if self.journal is not None:
            self._checkpoints.settle()
            self._checkpoints.take(self.desk, self.journal.next_sequence - 1)
            self._checkpoints.settle()

    @property
    def timekeeper(self) -> int | None:
        """Native id of the thread that ends runs when their time is up; None where every model is inline."""
        return self._threads.watchdog

    @property
    def parts(self) -> EngineParts:
        """The state itself, for the transport's fast lane; with one feature set only."""
        return EngineParts(self._market, self._intake.stores[0], self.desk)

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
        model = self.registry.resolve(request.model)
        budget_ns = model.latency_budget_ns if self.settings.enforce_budgets else _NEVER_NS
        if 0 < request.budget_ns < budget_ns:
            budget_ns = request.budget_ns
        due_ns = request.arrival_ns + budget_ns
        self._begin(request, decision, model, budget_ns)
        decision.waiting_ns = start_ns - request.arrival_ns
        if request.request_id and self._answered_before(request, decision):
            return True
        remaining = model.remaining
        expected_ns = remaining.from_features_ns
        thread = None if model.inline else self._threads.of.get(model)
        if thread is not None:
            thread.require_room()
            expected_ns += thread.ahead * remaining.from_inference_ns
        if due_ns - start_ns <= expected_ns:
            self._refuse_or_try(decision, "features", start_ns - request.arrival_ns, expected_ns)

        decision.stage = _FEATURES
        price, vector = self._intake.take(request, decision, model)
        self._pass_time(request, decision)
        features_end_ns = perf_counter_ns()
        decision.features_ns = features_end_ns - start_ns
        if vector is not None:
            decision.vector = vector
            if due_ns - features_end_ns <= remaining.from_inference_ns:
                spent_ns = features_end_ns - request.arrival_ns
                self._refuse_or_try(decision, "inference", spent_ns, remaining.from_inference_ns)
            if thread is not None:
                self._tell_started(request, decision, vector)
                return False
            decision.stage = _INFERENCE
            probability_up = model.scorer.score(vector)
            inference_end_ns = perf_counter_ns()
            decision.inference_ns = inference_end_ns - features_end_ns
            if due_ns - inference_end_ns <= remaining.from_risk_ns:
                spent_ns = inference_end_ns - request.arrival_ns
                self._refuse_or_try(decision, "risk", spent_ns, remaining.from_risk_ns)
            decision.stage = _RISK
            self._judge(decision, model, probability_up, price)
            decision.risk_ns = perf_counter_ns() - inference_end_ns

        decision.stage = _ENCODING
        end_ns = perf_counter_ns()
        decision.total_ns = end_ns - request.arrival_ns
        if end_ns >= due_ns:
            self._refuse_or_try(decision, "encoding", decision.total_ns, 0)
        return True

    def start(self, request: Request, decision: Decision) -> None:
        """Take a request's input in and its features out, as `decide` does where it leaves the model to a thread."""
        model = self.registry.resolve(request.model)
        self._begin(request, decision, model, _NEVER_NS)
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
        return run

    def give_up(self, decision: Decision, run: Run) -> None:
        """End a run that nobody waits for any more: its `on_ended` is not called from here on."""
        self._threads.give_up(run)
        self._take_times(decision, run)

    def finish(self, request: Request, decision: Decision, run: Run) -> None:
        """Ask the gate about what `decide` left and a run has scored, on the thread that calls `decide`.

        Position, price and volatility are those of now, not those of when the run began.

        Raises:
            BudgetSpent: Before the stage it names.
            Exception: What the graph raised.
        """
        self._take_times(decision, run)
        spent_ns = perf_counter_ns() - request.arrival_ns
        if run.outcome is Outcome.TIME_UP:
            self._refuse_or_try(decision, "risk" if run.started_ns else "inference", spent_ns, 0)
        if run.outcome is Outcome.TOO_LATE_TO_START:
            expected_ns = run.due_ns - run.latest_start_ns
            raise BudgetSpent("inference", decision.budget_ns, spent_ns, expected_ns)
        if run.error is not None:
            raise run.error
        self._finish_scored(request, decision, run.probability_up)

    def _finish_scored(self, request: Request, decision: Decision, probability_up: float) -> None:
        if request.request_id and self._answered_before(request, decision):  # while its model ran
            return
        model = cast("LoadedModel", decision.model)
        start_ns = perf_counter_ns()
        expected_ns = model.remaining.from_risk_ns
        spent_ns = start_ns - request.arrival_ns
        if decision.budget_ns - spent_ns <= expected_ns:
            self._refuse_or_try(decision, "risk", spent_ns, expected_ns)
        decision.stage = _RISK
        of_caller = request.input == FEATURES
        price = request.reference_price if of_caller else float(self._market.quotes_trades[decision.row, market.PRICE])
        self._judge(decision, model, probability_up, price)
        end_ns = perf_counter_ns()
        decision.risk_ns = end_ns - start_ns
        decision.stage = _ENCODING
        decision.total_ns = end_ns - request.arrival_ns
        if decision.total_ns >= decision.budget_ns:
            self._refuse_or_try(decision, "encoding", decision.total_ns, 0)

    @staticmethod
    def _take_times(decision: Decision, run: Run) -> None:
        """How far a run came; what it waited for its thread counts as waiting."""
        if run.started_ns:
            decision.stage = _INFERENCE
            decision.waiting_ns += run.started_ns - run.submitted_ns
            decision.inference_ns = (run.ended_ns or perf_counter_ns()) - run.started_ns
        else:
            decision.waiting_ns += perf_counter_ns() - run.submitted_ns

    def _tell_started(self, request: Request, decision: Decision, vector: NDArray[np.float32]) -> None:
        """Keep the vector, which later ticks change, and tell the journal where in the order the input was applied."""
        decision.vector = vector.copy()
        self._ticket = self._ticket % _LAST_TICKET + 1
        decision.ticket = self._ticket
        if self.journal is not None:
            payload = {"ticket": decision.ticket, "request": stated(request, cast("LoadedModel", decision.model))}
            self.journal.append_control(ControlKind.STARTED, payload, clock_ns=decision.clock_ns)

    def check_budget(self, request: Request, decision: Decision) -> None:
        """The last look at a decided request's budget, once its answer is encoded; raises `BudgetSpent`.

        The run is completed here, in time or not, and counts for what is expected of later ones.
        """
        now_ns = perf_counter_ns()
        spent_ns = now_ns - request.arrival_ns
        if decision.scored and not decision.repeated:
            remaining = cast("LoadedModel", decision.model).remaining
            features_ns = spent_ns - decision.waiting_ns
            inference_ns = features_ns - decision.features_ns
            completed = remaining.trial_completed if decision.trial else remaining.completed
            completed(features_ns, inference_ns, inference_ns - decision.inference_ns, now_ns)
        if spent_ns >= decision.budget_ns:
            raise BudgetSpent("sending", decision.budget_ns, spent_ns)

    def record(self, request: Request, decision: Decision, *, request_id: str, status: int) -> int:
        """Append what became of a request to the journal, if there is one; once for each, before its answer leaves.

        Args:
            request: As it was decoded, as far as it could be.
            decision: As `decide` left it, whether it raised or not.
            request_id: The caller's.
            status: google.rpc.Code that it is answered with.

        Returns:
            The record's sequence; without a journal a number that stands for it.

        Raises:
            JournalError: It is not in the journal, and no answer may leave.
        """
        begun = decision.stage != _NONE  # else it holds what the request before left
        if self.journal is None:
            sequence = self.desk.next_order_id()
            if begun and status == 0:
                self.conclude(request, decision, sequence)
            self.desk.expect(sequence + 1)
            return sequence
        sequence = self.journal.append_decision(
            request,
            decision,
            request_id=request_id,
            status=status,
            stage=decision.stage,
            applied=begun and decision.applied,
            clock_ns=decision.clock_ns if begun else 0,
            vector=decision.vector if begun else None,
            repeated=begun and decision.repeated,
        )
        if begun and status == 0:
            self.conclude(request, decision, sequence)
        return sequence

    def unsent(self, sequences: list[int], status: int) -> None:
        """Answers of decisions that the journal has as OK did not leave: tell it so, and release what they reserved.

        Args:
            sequences: As `record` gave them.
            status: google.rpc.Code that they are answered with.

        Raises:
            JournalError: It is not in the journal.
        """
        if self.journal is not None:
            self.journal.append_control(ControlKind.UNSENT, {"sequences": sequences, "status": status})
        self.desk.release_unsent(sequences)

    def _refuse_or_try(self, decision: Decision, stage: str, spent_ns: int, expected_ns: int) -> None:
        """Raise `BudgetSpent`, unless there is time left and this is the request to try with."""
        remaining = cast("LoadedModel", decision.model).remaining
        if spent_ns < decision.budget_ns:
            decision.trial = decision.trial or remaining.try_one(perf_counter_ns())
            if not decision.trial:
                raise BudgetSpent(stage, decision.budget_ns, spent_ns, expected_ns)
            return
        if decision.stage >= _INFERENCE:
            from_features_ns = spent_ns - decision.waiting_ns
            remaining.exceeded(from_features_ns, from_features_ns - decision.features_ns)
        raise BudgetSpent(stage, decision.budget_ns, spent_ns)

    def _begin(self, request: Request, decision: Decision, model: LoadedModel, budget_ns: int) -> None:
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
        decision.trial = False
        decision.ticket = 0
        decision.order_id = decision.payload = decision.sent_ns = decision.regime = 0
        decision.remaining = 0.0
        decision.reducing = decision.repeated = False
        decision.trading_state = int(self._book.state[TRADING])

    def _pass_time(self, request: Request, decision: Decision) -> None:
        """What an input does to the book: time passes, and a trade is what its symbol is valued at."""
        table = self._book.table
        if decision.clock_ns:
            portfolio.advance(table, decision.clock_ns)
        elif decision.applied:
            portfolio.advance(table, request.exchange_ts_ns)
        if decision.applied and request.kind & market.TRADE:
            portfolio.mark(table, decision.row, request.price)

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

    def conclude(self, request: Request, decision: Decision, sequence: int) -> None:
        """A decision is final, and its answer may leave: reserve what it approves, remember its request id.

        Args:
            request: As decided.
            decision: As decided.
            sequence: Of its record.
        """
        if decision.repeated:
            return
        if decision.action != _HOLD:
            signed = decision.size if decision.action == _BUY else -decision.size
            self.desk.reserve(decision.row, signed, decision.valid_for_us, decision.order_id)
        if request.request_id and decision.payload:
            self._keep_answer(request, decision, sequence)

    def _keep_answer(self, request: Request, decision: Decision, sequence: int) -> None:
        kept = self.desk.ids
        entry = kept.keep(request.request_id, decision.payload)
        now_ns = self.desk.now_ns()
        valid_us = decision.valid_for_us or self.desk.limits.valid_for_us
        number = self._numbers[cast("LoadedModel", decision.model)]
        kept.facts[entry] = (
            sequence,
            now_ns + valid_us * 1000,
            now_ns,
            decision.action,
            decision.reason,
            decision.valid_for_us,
            number,
            decision.scored,
            decision.reducing,
            decision.regime,
        )
        kept.values[entry] = (
            decision.size,
            decision.limit_price,
            decision.target,
            decision.value,
            decision.confidence,
            decision.remaining,
        )

    def _answered_before(self, request: Request, decision: Decision) -> bool:
        """Whether the request id is known; then the first answer is in `decision` again, or why it is not."""
        kept = self.desk.ids
        decision.payload = payload = payload_of(request)
        entry = kept.find(request.request_id)
        if entry < 0:
            return False
        decision.repeated = True
        decision.stage = _ENCODING
        facts = kept.facts[entry].tolist()
        decision.clock_ns = now_ns = self.desk.now_ns()
        if not kept.same_payload(entry, payload):
            decision.reason = _REUSED
        elif now_ns >= facts[ids.EXPIRES_NS]:
            decision.reason = _EXPIRED
        elif facts[ids.ACTION] != _HOLD and decision.trading_state == _HALTED:
            decision.reason = _DESK_HALTED
        elif facts[ids.ACTION] != _HOLD and decision.trading_state == _REDUCING and not facts[ids.REDUCING]:
            decision.reason = _DESK_REDUCING
        else:
            decision.action, decision.reason = facts[ids.ACTION], facts[ids.REASON]
            decision.valid_for_us = facts[ids.VALID_FOR_US]
            decision.scored, decision.reducing = bool(facts[ids.SCORED]), bool(facts[ids.REDUCING])
            decision.regime = facts[ids.REGIME]
            decision.sent_ns = facts[ids.CLOCK_NS]
            if facts[ids.MODEL] >= 0:  # else it was answered before a restart
                decision.model = self.registry.models[facts[ids.MODEL]]
            if decision.action != _HOLD:
                decision.order_id = facts[ids.SEQUENCE]
            (
                decision.size,
                decision.limit_price,
                decision.target,
                decision.value,
                decision.confidence,
                decision.remaining,
            ) = kept.values[entry].tolist()
        decision.total_ns = perf_counter_ns() - request.arrival_ns
        return True
