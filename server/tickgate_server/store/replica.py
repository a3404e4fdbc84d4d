"""A replica of one engine's market state and features, computed from its journal by the same kernels.

What it cannot know it does not have: it begins with a server's start (or with its own checkpoint), and where records
are lost, or were written with other kernels, it has nothing until the next start.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from tickgate_server.features import fundamentals_feed
from tickgate_server.features.fundamentals import KnownFundamentals
from tickgate_server.features.fundamentals_table import FundamentalsInvalid
from tickgate_server.features.schema import FeatureSet
from tickgate_server.features.store import FeatureStore
from tickgate_server.journal.entries import ControlAssembler, ControlEntry
from tickgate_server.journal.layout import CONTROL, ControlKind, RecordKind
from tickgate_server.journal.segments import Rows
from tickgate_server.states.errors import ValueRefused
from tickgate_server.states.file import read_kept
from tickgate_server.states.state import SymbolState, copy_state
from tickgate_server.states.waiting import WaitingStates
from tickgate_server.store import steps
from tickgate_server.store.inputs import NUMBERS, Inputs, inputs, of_started
from tickgate_server.ticks.market import MarketState

_WANTED = (
    ControlKind.SETTINGS,
    ControlKind.MODEL,
    ControlKind.MODEL_UNLOADED,
    ControlKind.STARTED,
    ControlKind.STATES,
    ControlKind.SYMBOLS,
    ControlKind.FUNDAMENTALS,
)
_LOG = structlog.get_logger()


class Vectors(NamedTuple):
    """Vectors of one feature set, after trades in the order applied.

    Attributes:
        schema_id: Of the set.
        symbols: Of each.
        sequences: uint64 [n]: of the trade, or where its feed gave none, the number of the symbol's tick.
        counted: bool [n]: whether it is such a number.
        exchange_ts_ns: int64 [n].
        prices: float64 [n], of the trades.
        values: float32 [n, width].
    """

    schema_id: str
    symbols: list[str]
    sequences: NDArray[np.uint64]
    counted: NDArray[np.bool_]
    exchange_ts_ns: NDArray[np.int64]
    prices: NDArray[np.float64]
    values: NDArray[np.float32]


@dataclass
class Run:
    """One server's run, as far as it was followed.

    Attributes:
        settings: Of its engine, as the SETTINGS control has them.
        market: Each row's market state.
        stores: Its features, by schema id.
        models: Schema ids of the versions that are loaded, by name and version.
        names: Symbols by row.
        rows: Rows by symbol.
        row_of_engine: int64 [capacity]: the row here of each row of the engine; -1: not told.
        ticks: int64 [capacity]: accepted ticks since the row's state began.
        reached: uint64 [capacity]: record of the row's last tick.
        changed: bool [capacity]: ticks came since the row was last taken.
        strange: bool [capacity]: a tick came out otherwise than the journal says: the row is not known.
        waiting: States of a store that wait for their symbol's next tick.
        known: Fundamentals in force.
        fundamentals: Hash of their file; empty: there are none.
        limits, thresholds: As `steps.apply_all`.
    """

    settings: Mapping[str, Any]
    market: MarketState
    stores: dict[str, FeatureStore]
    models: dict[tuple[str, int], str]
    names: list[str]
    rows: dict[str, int]
    row_of_engine: NDArray[np.int64]
    ticks: NDArray[np.int64]
    reached: NDArray[np.uint64]
    changed: NDArray[np.bool_]
    strange: NDArray[np.bool_]
    waiting: WaitingStates
    known: KnownFundamentals
    fundamentals: str = ""
    limits: NDArray[np.int64] = field(init=False)
    thresholds: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        said = self.settings
        self.limits = np.array([said["future_limit_ns"], said["stale_limit_ns"]], np.int64)
        self.thresholds = np.array([said["price_jump_sigmas"], said["price_jump_least"]])


def begin(settings: Mapping[str, Any]) -> Run:
    """A run whose server has just started, its windows empty."""
    capacity = int(settings["capacity"])
    return Run(
        settings=settings,
        market=MarketState(capacity),
        stores={},
        models={},
        names=[],
        rows={},
        row_of_engine=np.full(capacity, -1, np.int64),
        ticks=np.zeros(capacity, np.int64),
        reached=np.zeros(capacity, np.uint64),
        changed=np.zeros(capacity, np.bool_),
        strange=np.zeros(capacity, np.bool_),
        waiting=WaitingStates(int(settings.get("continuation_gap_ns", 0))),
        known=KnownFundamentals(capacity),
    )


class Replica:
    """Follows one engine through its journal's records.

    Attributes:
        run: The server's run that is followed; None: there is none that is known.
        why_unknown: Why there is none.
        unfinished: Record that the control begins with which has not come whole yet; 0: all have.

    Args:
        folder: Of the journal, beside which files are kept that its controls name.
        features_of: The feature set of a version, by name, version and schema id; None: it cannot be told.
        on_vectors: Called with the vectors after trades, where they are complete.
        on_left: Called with the states that changed and were not taken, before a server's start ends their run.
    """

    def __init__(
        self,
        folder: Path,
        features_of: Callable[[str, int, str], FeatureSet | None],
        on_vectors: Callable[[Vectors], object],
        on_left: Callable[[list[SymbolState]], object] = lambda states: None,  # noqa: ARG005 - nobody asked
    ) -> None:
        self.run: Run | None = None
        self.why_unknown = "no server's start was read yet"
        self.unfinished = 0
        self._folder = folder
        self._features_of = features_of
        self._on_vectors = on_vectors
        self._on_left = on_left
        self._assembler = ControlAssembler()

    def forget(self, why: str) -> None:
        """Have nothing until the next start of a server."""
        if self.run is not None:
            _LOG.error("replica given up until the server's next start", journal=str(self._folder), why=why)
        self.run = None
        self.why_unknown = why

    def take(self, rows: Rows, *, same_kernels: bool) -> None:
        """Take in records.

        Args:
            rows: DECISION [n], CONTROL and TICKS among them, in order.
            same_kernels: Whether the kernels here are those that the engine computed with.
        """
        if not same_kernels:
            self.forget("the journal was written with other kernels")
        controls = rows.view(CONTROL)
        wanted = (controls["kind"] == RecordKind.CONTROL) & np.isin(controls["code"], _WANTED)
        first = 0
        for index in np.flatnonzero(wanted).tolist():
            self._apply(rows[first:index])
            first = index + 1
            row = controls[index]
            if row["part"] == 0:
                self.unfinished = int(row["sequence"])
            entry = self._assembler.feed(row)
            if entry is None:
                continue
            self.unfinished = 0
            if same_kernels:
                self._control(entry)
        self._apply(rows[first:])

    def take_changed(self, limit: int) -> list[SymbolState]:
        """States of rows that changed since they were last taken, at most so many; then they count as unchanged."""
        run = self.run
        if run is None:
            return []
        chosen = np.flatnonzero(run.changed & ~run.strange)[:limit]
        run.changed[chosen] = False
        return [self.state(row) for row in chosen.tolist()]

    def state(self, row: int) -> SymbolState:
        """One row's state, copied."""
        run = self._known()
        return copy_state(
            run.names[row],
            row,
            run.market,
            list(run.stores.values()),
            journal_sequence=int(run.reached[row]),
            ticks=int(run.ticks[row]),
        )

    def mark_changed(self, symbols: Sequence[str] | None = None) -> None:
        """Have these symbols' states count as changed, or all."""
        if self.run is None:
            return
        if symbols is None:
            self.run.changed[: len(self.run.names)] = True
            return
        known = [self.run.rows[symbol] for symbol in symbols if symbol in self.run.rows]
        self.run.changed[known] = True

    @property
    def changed(self) -> int:
        """How many rows' states changed since they were last taken."""
        return 0 if self.run is None else int((self.run.changed & ~self.run.strange).sum())

    # -- controls ------------------------------------------------------------------------------------------------------

    def _control(self, entry: ControlEntry) -> None:
        said = entry.payload
        if entry.code == ControlKind.SETTINGS:
            if not entry.restated:
                if self.changed and self.run is not None:
                    self._on_left(self.take_changed(len(self.run.names)))
                self.run = begin(said["engine"])
            return
        run = self.run
        if run is None or (entry.restated and entry.code != ControlKind.SYMBOLS):
            return
        if entry.code == ControlKind.MODEL:
            run.models[said["name"], said["version"]] = said["schema_id"]
            self.keep_windows(run)
        elif entry.code == ControlKind.MODEL_UNLOADED:
            run.models.pop((said["name"], said["version"]), None)
            self.keep_windows(run)
        elif entry.code == ControlKind.STARTED:
            self._apply_inputs(run, of_started(said["request"], entry.sequence, entry.clock_ns, self._row_of))
        elif entry.code == ControlKind.SYMBOLS:
            run.row_of_engine[said["rows"]] = [self._row_of(symbol) for symbol in said["symbols"]]
        elif entry.code == ControlKind.FUNDAMENTALS:
            self.adopt_fundamentals(run, said["sha256"])
        else:
            self._states(run, said)

    def _states(self, run: Run, said: Mapping[str, Any]) -> None:
        if "resumed" in said:
            symbol = said["resumed"]
            if symbol in run.waiting:
                row = self._row_of(symbol)
                run.ticks[row] = run.waiting.ticks_of(symbol)
                run.waiting.resume(symbol, row, run.market, list(run.stores.values()))
            return
        try:
            run.waiting.add(read_kept(self._folder, said["sha256"]))
        except (OSError, ValueRefused) as error:
            self.forget(f"the states that the server began with are not there: {error}")

    def adopt_fundamentals(self, run: Run, sha256: str) -> None:
        """Put a kept table of fundamentals in force."""
        try:
            run.known.adopt(fundamentals_feed.read_kept(self._folder, sha256).table, run.names)
        except (OSError, FundamentalsInvalid) as error:
            self.forget(f"the fundamentals that the server has are not there: {error}")
            return
        run.fundamentals = sha256

    def keep_windows(self, run: Run) -> None:
        """Keep the windows of the feature sets that loaded versions take, as the engine does."""
        wanted = set(run.models.values())
        for schema_id in set(run.stores) - wanted:
            del run.stores[schema_id]
        for (name, version), schema_id in run.models.items():
            if schema_id in run.stores:
                continue
            features = self._features_of(name, version, schema_id)
            if features is None:
                _LOG.error("features not followed", model=name, version=version, schema_id=schema_id)
                continue
            run.stores[schema_id] = FeatureStore(features, len(run.ticks), run.known)

    # -- ticks ---------------------------------------------------------------------------------------------------------

    def _known(self) -> Run:
        if self.run is None:
            raise ValueError(self.why_unknown)
        return self.run

    def _row_of(self, symbol: str) -> int:
        """A symbol's row; it gets one with its first tick."""
        run = self._known()
        row = run.rows.get(symbol)
        if row is None:
            row = run.rows[symbol] = len(run.names)
            run.names.append(symbol)
            run.known.add_row(row, symbol)
        return row

    def _apply(self, rows: Rows) -> None:
        if self.run is None or not rows.size:
            return
        try:
            self._apply_inputs(self.run, inputs(rows, self._row_of, self.run.row_of_engine))
        except ValueError as error:
            self.forget(str(error))

    def _apply_inputs(self, run: Run, found: Inputs) -> None:
        count = len(found)
        if not count:
            return
        integers = np.empty((count, steps.INTEGERS), np.int64)
        names = ("row", "kind", "exchange_ts_ns", "tick_sequence", "clock_ns", "held_back")
        for column, name in enumerate(names):
            integers[:, column] = found[name].view(np.int64)
        floats = np.stack([found[name] for name in NUMBERS], axis=1)
        out_integers = np.empty((2 * count, steps.INTEGERS), np.int64)
        out_floats = np.empty((2 * count, steps.FLOATS))
        accepted = self._through_market(run, integers, floats, out_integers, out_floats)
        run.changed[found["row"]] = True
        run.reached[found["row"]] = found["record"]  # numpy assigns in order: the last one stays
        for store in run.stores.values():
            self._through_windows(run, store, out_integers[:accepted], out_floats[:accepted])

    def _through_market(
        self,
        run: Run,
        integers: NDArray[np.int64],
        floats: NDArray[np.float64],
        out_integers: NDArray[np.int64],
        out_floats: NDArray[np.float64],
    ) -> int:
        """Apply ticks to market state; how many were accepted and are listed."""
        market = run.market
        waiting = np.zeros(len(run.ticks), np.bool_)
        if run.waiting:
            waiting[: len(run.names)] = [name in run.waiting for name in run.names]
        verdict = np.zeros(1, np.int64)
        stores = list(run.stores.values())
        at = accepted = 0
        end = len(integers)

        def through(first: int, last: int) -> tuple[int, int]:
            found: tuple[int, int] = steps.apply_all(
                market.quotes_trades, market.volatilities, market.stamps, market.sequences, run.ticks, waiting,
                run.strange, run.limits, run.thresholds, integers, floats, first, last, out_integers, out_floats,
                accepted, verdict,
            )  # fmt: skip
            return found

        while True:
            at, accepted = through(at, end)
            if at == end:
                return accepted
            # The first tick of a symbol whose stored state waits: see `states.waiting`.
            row = int(integers[at, steps.ROW])
            symbol = run.names[row]
            stamp_ns, sequence = int(integers[at, steps.STAMP]), int(integers[at, steps.SEQUENCE].view(np.uint64))
            fits = run.waiting.try_on(symbol, row, stamp_ns, sequence, market, stores)
            waiting[row] = False
            begun = run.waiting.ticks_of(symbol) if fits else 0
            run.ticks[row] = begun
            at, accepted = through(at, at + 1)
            if fits is not None:
                run.waiting.settle(symbol, row, int(verdict[0]), market, stores, fits=fits)

    def _through_windows(
        self, run: Run, store: FeatureStore, integers: NDArray[np.int64], floats: NDArray[np.float64]
    ) -> None:
        """Take accepted ticks into the windows of one feature set, and hand its vectors on."""
        count = len(integers)
        vectors = np.empty((count, store.feature_set.width), np.float32)
        ready = np.zeros(count, np.bool_)
        steps.take_all(
            store.prices, store.sizes, store.stamps_ns, store.counts, store.carried, store.marks, store.vectors,
            store.ready, store.known, store.with_quotes, store.feature_set.session_gap_ns, integers, floats, count,
            vectors, ready,
        )  # fmt: skip
        ready &= ~run.strange[integers[:, steps.ROW]]
        if not ready.any():
            return
        integers, numbers = integers[ready], floats[ready]
        sequences = integers[:, steps.SEQUENCE].copy().view(np.uint64)
        counted = sequences == 0
        sequences[counted] = integers[counted, steps.TICK_NUMBER].astype(np.uint64)
        self._on_vectors(
            Vectors(
                store.feature_set.schema_id,
                [run.names[row] for row in integers[:, steps.ROW].tolist()],
                sequences,
                counted,
                integers[:, steps.STAMP].copy(),
                numbers[:, steps.PRICE].copy(),
                vectors[ready],
            )
        )
