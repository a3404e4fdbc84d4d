"""Replay: what a journal recorded, decided again and compared bit for bit.

Requests go through an engine of the same models in the order applied, with the clocks that were read. What differs in
any field that is not a time is named. Replay refuses where the same bits cannot be expected: another version of
tickgate, of a library that computes, of the kernels' sources, or another CPU.
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.desk import Desk
from tickgate_server.desk.pieces import PieceUnknown, take_piece
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.errors import RequestError
from tickgate_server.features import fundamentals_feed
from tickgate_server.features.fundamentals_table import FundamentalsInvalid
from tickgate_server.journal.entries import ControlEntry, DecisionEntry, Entry, TicksEntry
from tickgate_server.journal.layout import ControlKind, Flags, text
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.rotation import environment
from tickgate_server.models.errors import ModelError
from tickgate_server.models.loading import LoadedModel, load
from tickgate_server.models.package import read_manifest, versions
from tickgate_server.models.registry import InForce, ModelRegistry
from tickgate_server.records import FEATURES, SYMBOL, Decision, Request
from tickgate_server.risk.data import RiskDataInvalid
from tickgate_server.risk.feed import read_kept
from tickgate_server.risk.limits import Limits
from tickgate_server.states import file as states_file
from tickgate_server.states.errors import ValueRefused
from tickgate_server.ticks.instruments import Instrument, Universe

# What has no single right answer: the checks' names are the version's, a prepared segment's age is not a decision's.
_UNCOMPARED_ENVIRONMENT = {"checks"}
# What serves nobody decides nothing, and what did not leave was decided all the same.
# A TICK's comes about again with the tick that confirms it, and a row's symbol with the ticks that have it.
_CHANGES_NO_DECISION = (
    ControlKind.MODEL_REFUSED,
    ControlKind.ALIAS_CHANGED,
    ControlKind.TICK,
    ControlKind.SYMBOLS,
)
# What changes which versions answer.
_OF_THE_ROSTER = (ControlKind.MODEL, ControlKind.ALIAS, ControlKind.MODEL_UNLOADED)
# What names a file that is kept beside the segments.
_KEPT_NAMES = {int(ControlKind.FUNDAMENTALS): "fundamentals", int(ControlKind.STATES): "states"}
# What the desk takes in as it did then.
_OF_THE_DESK = (
    ControlKind.LIMITS,
    ControlKind.ORDER,
    ControlKind.FILL,
    ControlKind.POSITIONS,
    ControlKind.TIME,
    ControlKind.TRADING_STATE,
    ControlKind.UNSENT,
    ControlKind.CONTROL_BLOCK,
    ControlKind.MODEL_DEGRADED,
    ControlKind.MODEL_REOPENED,
)


class ReplayRefused(Exception):
    """The journal cannot be replayed here; says why."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first field of a decision that came out otherwise, or the first of a record's published ticks."""

    sequence: int
    request_id: str
    field: str
    recorded: object
    replayed: object


@dataclass(slots=True)
class Replayed:
    """What a replay found.

    Attributes:
        decisions: Compared.
        applied_only: Ticks of requests that ended without a decision (a spent budget): taken in, not compared.
        refused: Requests that were refused before anything was decided, or whose id was answered before: nothing to
            replay.
        starts: Servers that the journal saw start.
        ticks: That were published, and what became of them compared.
        differences: Of each decision that differs its first difference, at most `keep`.
        differing: Decisions and records of published ticks that differ.
    """

    decisions: int = 0
    applied_only: int = 0
    refused: int = 0
    starts: int = 0
    ticks: int = 0
    differing: int = 0
    differences: list[Difference] = field(default_factory=list)


def replay(folder: Path, repository: Path, *, keep: int = 1) -> Replayed:
    """Replay the journal in a folder with the models of a repository.

    Args:
        folder: The journal.
        repository: Must hold the versions that decided, with the same hashes.
        keep: Most differences to name.

    Raises:
        ReplayRefused: The environment differs, the journal does not begin with a server's start, or a model is missing.
        JournalError: Records are lost or damaged.
    """
    comparison = _Comparison(folder, repository, keep)
    comparison.run()
    return comparison.result


class Replayer(ABC):
    """Feeds an engine what a journal recorded, in the order applied; a subclass says what comes of each decision.

    Attributes:
        engine: As the journal has it so far; None between a server's start and what it took in first.
        limits: Of the whole desk, that the next engine begins with.
    """

    def __init__(self, folder: Path, repository: Path) -> None:
        self.engine: Engine | None = None
        self.limits = Limits()
        self._folder = folder
        self._repository = repository
        self._settings: dict[str, Any] = {}
        self._models: dict[tuple[str, int], str] = {}
        self._pointed: list[Mapping[str, Any]] = []  # ALIAS records before the engine was built
        self._loaded: dict[tuple[str, int, str], LoadedModel] = {}  # of the repository, each once
        self._clock_ns = 0
        self._request = Request()
        self._decision = Decision()
        self._started: dict[int, tuple[Request, Decision]] = {}  # by ticket

    def run(self) -> None:
        """Feed it the whole journal.

        Raises:
            ReplayRefused: The journal does not begin with a server's start, or a model or risk data are missing.
            JournalError: Records are lost or damaged.
        """
        checked: object = None
        with JournalReader(self._folder) as reader:
            for entry in reader:
                if reader.environment is not checked:  # one a segment
                    checked = reader.environment
                    self.environment(reader.environment)
                self.feed(entry)

    def feed(self, entry: Entry) -> None:
        """Take in what comes next in the journal."""
        if isinstance(entry, ControlEntry):
            if not entry.restated:
                self._control(entry)
        elif isinstance(entry, TicksEntry):
            self._ticks(entry)
        else:
            self._decision_of(entry)

    # -- what a subclass may do otherwise ----------------------------------------------------------------------------

    def environment(self, written: Mapping[str, Any]) -> None:  # noqa: B027 - a hook
        """A segment begins that was written with these versions, on this CPU."""

    def server_started(self) -> None:  # noqa: B027 - a hook
        """A server starts, its windows empty."""

    def stated_limits(self, entry: ControlEntry) -> None:
        """Limits came into force: the first, or others."""
        if self.engine is None:
            self.limits = Limits.model_validate(entry.payload)
        else:
            self.apply(entry, self.engine.desk)

    def warm_start(self, piece: Mapping[str, Any], desk: Desk) -> None:
        """A piece of the book that a server began with."""
        take_piece(desk, piece)

    def apply(self, entry: ControlEntry, desk: Desk) -> None:
        """Something happened to the desk."""
        desk.apply(entry.code, entry.payload, entry.sequence, entry.clock_ns)

    @abstractmethod
    def decided(self, entry: DecisionEntry, request: Request, decision: Decision, engine: Engine) -> None:
        """A decision was made again, and nothing was reserved for it yet."""

    def published(self, entry: TicksEntry, outcomes: NDArray[np.int64]) -> None:  # noqa: B027 - a hook
        """Published ticks were taken in again: TickOutcome and reason of each, int64 [n, 2]."""

    def failed(self, entry: DecisionEntry, error: Exception) -> None:  # noqa: B027 - a hook
        """A request that was decided is refused here."""

    def took_in(self, entry: DecisionEntry) -> None:  # noqa: B027 - a hook
        """A request's input was applied, and it ended without a decision: its budget was spent."""

    def passed_over(self, entry: DecisionEntry) -> None:  # noqa: B027 - a hook
        """A request changed nothing: it was refused, or its id was answered before."""

    # ----------------------------------------------------------------------------------------------------------------

    def _control(self, entry: ControlEntry) -> None:
        if entry.code == ControlKind.SETTINGS:
            self.server_started()
            self._settings = dict(entry.payload)
            self._models = {}
            self._pointed = []
            self.engine = None
            self._started = {}
        elif entry.code == ControlKind.LIMITS:
            self.stated_limits(entry)
        elif entry.code in _OF_THE_ROSTER:
            self._model_changed(entry)
        elif entry.code == ControlKind.STARTED:
            self._start(entry)
        elif entry.code == ControlKind.WARM_START:
            try:
                self.warm_start(entry.payload, self._running(entry.sequence).desk)
            except PieceUnknown as error:
                raise ReplayRefused(f"record {entry.sequence}: {error}") from error
        elif entry.code in _KEPT_NAMES or "risk_data" in entry.payload:
            self._kept(entry)
        elif entry.code in _OF_THE_DESK:
            self.apply(entry, self._running(entry.sequence).desk)
        elif entry.code not in _CHANGES_NO_DECISION:
            raise ReplayRefused(f"record {entry.sequence}: this version does not replay control {entry.code}")

    def _ticks(self, entry: TicksEntry) -> None:
        """Take published ticks in as they were then."""
        engine = self._running(entry.sequence)
        self._clock_ns = entry.clock_ns
        self.published(entry, engine.ingestion.apply_again(entry.ticks, list(entry.symbols), entry.clock_ns))

    def _model_changed(self, entry: ControlEntry) -> None:
        """A version came or went, or an alias means another one: at a start, or while it served."""
        said, engine = entry.payload, self.engine
        version = (said["name"], said["version"])
        if entry.code == ControlKind.MODEL:
            if engine is None:
                self._models[version] = said["sha256"]
            else:
                engine.roster.take_in(self._load(*version, said["sha256"]))
        elif entry.code == ControlKind.ALIAS:
            if engine is None:
                self._pointed.append(said)
            else:
                engine.roster.point_alias(said["name"], said["alias"], said["version"], said["share_percent"])
        else:
            model = self._running(entry.sequence).registry.find(*version)
            if model is None:
                raise ReplayRefused(f"record {entry.sequence}: {version[0]}:{version[1]} was never loaded")
            self._running(entry.sequence).roster.unloaded(model)

    def _kept(self, entry: ControlEntry) -> None:
        """Take in a file that came into force, by the copy that was kept of it."""
        if "resumed" in entry.payload:
            self._resume(entry)
            return
        engine, said = self._running(entry.sequence), entry.payload
        what = _KEPT_NAMES.get(entry.code, "risk data")
        try:
            if entry.code == ControlKind.FUNDAMENTALS:
                engine.fundamentals.adopt(fundamentals_feed.read_kept(self._folder, said["sha256"]).table)
            elif entry.code == ControlKind.STATES:
                engine.take_states(said["sha256"], states_file.read_kept(self._folder, said["sha256"]))
            else:
                engine.desk.apply_risk_data(read_kept(self._folder, said["risk_data"]))
        except (OSError, FundamentalsInvalid, RiskDataInvalid, ValueRefused) as error:
            raise ReplayRefused(f"record {entry.sequence}: the {what} that decided are not there: {error}") from error

    def _resume(self, entry: ControlEntry) -> None:
        """The latest tick of a symbol came once more, for which a stored state waits."""
        engine, symbol = self._running(entry.sequence), entry.payload["resumed"]
        if symbol not in engine.waiting:
            raise ReplayRefused(f"record {entry.sequence}: no state was stored for {symbol!r}")
        engine.resume(symbol)

    def _decision_of(self, entry: DecisionEntry) -> None:
        row = entry.row
        started = self._take_started(entry)
        repeated = bool(row["flags"] & Flags.REPEATED)  # an answer given again: what it was is decided at the first
        changed = row["applied"] or row["flags"] & Flags.HELD_BACK
        if repeated or (row["status"] != 0 and not changed):
            self.passed_over(entry)
            return
        engine = self._running(entry.sequence)
        engine.desk.expect(entry.sequence)
        if row["flags"] & ~(Flags.RESTATED | Flags.HELD_BACK):
            raise ReplayRefused(
                f"record {entry.sequence}: the request did not fit its record: {Flags(int(row['flags']))!r}"
            )
        request, decision = started or (self._request, self._decision)
        self._clock_ns = int(row["clock_ns"])
        try:
            if started is None:
                _restore(entry, request)
                engine.decide(request, decision)
            elif row["status"] == 0:
                engine.finish_started(request, decision)
        except (RequestError, ModelError) as error:
            if row["status"] == 0:
                self.failed(entry, error)
            else:
                self.passed_over(entry)
            return
        if row["status"] != 0:  # the budget was spent on the way: only what it changed counts
            self.took_in(entry)
            return
        self.decided(entry, request, decision, engine)

    def _start(self, entry: ControlEntry) -> None:
        """Take in what a request brought whose decision comes later, as its model ran beside other requests."""
        request, decision = Request(**entry.payload["request"]), Decision()
        self._clock_ns = entry.clock_ns
        self._running(entry.sequence).start(request, decision)
        self._started[entry.payload["ticket"]] = request, decision

    def _take_started(self, entry: DecisionEntry) -> tuple[Request, Decision] | None:
        ticket = int(entry.row["ticket"])
        if ticket and ticket not in self._started:
            raise ReplayRefused(f"record {entry.sequence}: its STARTED record is not there")
        return self._started.pop(ticket, None)

    def _running(self, sequence: int) -> Engine:
        if not self._settings:
            raise ReplayRefused(
                f"record {sequence}: the journal's oldest records are gone, and with them the server's start;"
                " what the windows held then is not known"
            )
        if self.engine is None:
            self.engine = self._build()
        return self.engine

    def _build(self) -> Engine:
        settings = self._settings
        engine = EngineSettings(**settings["engine"] | {"enforce_budgets": False, "queue_limit": 0})
        instruments = [Instrument.model_validate(instrument) for instrument in settings["instruments"]]
        universe = Universe({instrument.symbol: instrument for instrument in instruments}, settings["closed"])
        for calendar in universe.calendars:
            if settings.get("calendars", {}).get(calendar.name, calendar.sha256) != calendar.sha256:
                raise ReplayRefused(
                    f"sessions of {calendar.name} begin at other times here: another version of exchange_calendars"
                )
        models = [self._load(name, version, sha256) for (name, version), sha256 in self._models.items()]
        registry = ModelRegistry(models)
        registry.default = settings["default_model"]
        for said in self._pointed or [{"name": name} for name in registry.names]:
            found = registry.in_force.get(said["name"], InForce())
            if "alias" in said:
                found = found.with_alias(said["alias"], said["version"], said["share_percent"])
            registry.point(said["name"], found)
        return Engine(engine, registry, universe, self.limits, clock_ns=lambda: self._clock_ns)

    def _load(self, name: str, version: int, sha256: str) -> LoadedModel:
        known = self._loaded.get((name, version, sha256))
        if known is not None:
            return known
        if version not in versions(self._repository, name):
            raise ReplayRefused(f"the repository {self._repository} lacks {name}:{version}, which decided")
        folder = self._repository / name / str(version)
        found = read_manifest(folder).model_sha256
        if found != sha256:
            raise ReplayRefused(f"{folder}: its hash is {found}, that of the model that decided was {sha256}")
        self._loaded[name, version, sha256] = model = load(folder)
        return model


class _Comparison(Replayer):
    """Each decision beside what was recorded, bit for bit."""

    def __init__(self, folder: Path, repository: Path, keep: int) -> None:
        super().__init__(folder, repository)
        self.result = Replayed()
        self._keep = keep

    def environment(self, written: Mapping[str, Any]) -> None:
        for name, (then, now) in environment_differences(written).items():
            raise ReplayRefused(
                f"{name} differs, so the same bits cannot be expected: the journal was written with {then!r}, here is"
                f" {now!r}"
            )

    def server_started(self) -> None:
        self.result.starts += 1

    def decided(self, entry: DecisionEntry, request: Request, decision: Decision, engine: Engine) -> None:
        self.result.decisions += 1
        engine.recorder.conclude(request, decision, entry.sequence)
        for name, recorded, replayed in compared(entry.row, decision):
            if recorded != replayed:
                self._note(entry, name, recorded, replayed)
                return

    def published(self, entry: TicksEntry, outcomes: NDArray[np.int64]) -> None:
        self.result.ticks += entry.ticks.size
        recorded = np.stack((entry.ticks["outcome"], entry.ticks["reason"]), axis=1).astype(np.int64)
        other = np.flatnonzero((recorded != outcomes).any(axis=1))
        if other.size:
            at = int(other[0])
            self._add(Difference(entry.sequence, "", f"ticks[{at}]", recorded[at].tolist(), outcomes[at].tolist()))

    def failed(self, entry: DecisionEntry, error: Exception) -> None:
        self._note(entry, "status", 0, repr(error))

    def took_in(self, entry: DecisionEntry) -> None:  # noqa: ARG002 - it is counted
        self.result.applied_only += 1

    def passed_over(self, entry: DecisionEntry) -> None:  # noqa: ARG002 - it is counted
        self.result.refused += 1

    def _note(self, entry: DecisionEntry, name: str, recorded: object, replayed: object) -> None:
        self._add(Difference(entry.sequence, text(entry.row, "request_id"), name, recorded, replayed))

    def _add(self, difference: Difference) -> None:
        self.result.differing += 1
        if len(self.result.differences) < self._keep:
            self.result.differences.append(difference)


def environment_differences(written: Mapping[str, Any]) -> dict[str, tuple[object, object]]:
    """What decisions depend on beside their inputs and is another here: by name, what it was and what it is."""
    here = environment()
    return {
        name: (written.get(name), here.get(name))
        for name in sorted(set(written) | set(here))
        if name not in _UNCOMPARED_ENVIRONMENT and written.get(name) != here.get(name)
    }


def _restore(entry: DecisionEntry, request: Request) -> None:
    """The request as it was decoded."""
    row = entry.row
    given = int(row["input"])
    model = entry.model
    # What the reference meant then, which an alias may not mean now.
    request.model = f"{model.name}:{model.version}" if model is not None else text(row, "model_asked")
    request.arrival_ns = 0
    request.budget_ns = 0
    request.input = given
    request.symbol = text(row, "symbol")
    request.schema_id = ""
    if given == SYMBOL:
        return
    request.exchange_ts_ns = int(row["exchange_ts_ns"])
    request.sequence = int(row["tick_sequence"])
    request.kind = int(row["tick_kind"])
    request.price, request.size = float(row["price"]), float(row["size"])
    request.bid, request.ask = float(row["bid"]), float(row["ask"])
    request.bid_size, request.ask_size = float(row["bid_size"]), float(row["ask_size"])
    if given == FEATURES:
        request.values = row["vector"][: row["vector_width"]].tolist()
        request.reference_price = float(row["reference_price"])


def _bits(value: float) -> str:
    """A float so that equal means bit for bit, and a person can read it."""
    return f"{float(value)!r} ({struct.pack('>d', value).hex()})"


def compared(row: np.void, decision: Decision) -> Iterator[tuple[str, object, object]]:
    """Name, recorded and replayed value of every field that is not a time."""
    yield "applied", bool(row["applied"]), decision.applied
    yield "ready", bool(row["ready"]), decision.ready
    yield "trades_in_window", int(row["trades_in_window"]), decision.trades_in_window
    yield "features_ts_ns", int(row["features_ts_ns"]), decision.features_ts_ns
    if decision.vector is not None or row["input"] != FEATURES:  # else it is what the request gave, unscored
        vector = b"" if decision.vector is None else decision.vector.tobytes()
        yield "vector", row["vector"][: row["vector_width"]].tobytes().hex(), vector.hex()
    yield "scored", bool(row["scored"]), decision.scored
    yield "value", _bits(row["value"]), _bits(decision.value)
    yield "confidence", _bits(row["confidence"]), _bits(decision.confidence)
    yield "judged", bool(row["judged"]), decision.judged
    if decision.judged:
        recorded = row["checks"][: row["check_count"]].tolist()
        yield "checks", [_bits(value) for value in recorded], [_bits(value) for value in decision.check_values]
    yield "target", _bits(row["target"]), _bits(decision.target)
    yield "reason", int(row["reason"]), int(decision.reason)
    yield "action", int(row["action"]), decision.action
    yield "size", _bits(row["order_size"]), _bits(decision.size)
    yield "limit_price", _bits(row["limit_price"]), _bits(decision.limit_price)
    yield "valid_for_us", int(row["valid_for_us"]), decision.valid_for_us
