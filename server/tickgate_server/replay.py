"""Replay: what a journal recorded, decided again and compared bit for bit.

Requests go through an engine of the same models in the order applied, with the clocks that were read. What differs in
any field that is not a time is named. Replay refuses where the same bits cannot be expected: another version of
tickgate, of a library that computes, of the kernels' sources, or another CPU.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.errors import RequestError
from tickgate_server.journal.entries import ControlEntry, DecisionEntry
from tickgate_server.journal.layout import ControlKind, Flags, text
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.rotation import environment
from tickgate_server.models.errors import ModelError
from tickgate_server.models.loading import load
from tickgate_server.models.package import read_manifest, versions
from tickgate_server.models.registry import ModelRegistry
from tickgate_server.records import FEATURES, SYMBOL, Decision, Request
from tickgate_server.risk.gate import Limits
from tickgate_server.ticks.instruments import Instrument, Universe

# What has no single right answer: the checks' names are the version's, a prepared segment's age is not a decision's.
_UNCOMPARED_ENVIRONMENT = {"checks"}


class ReplayRefused(Exception):
    """The journal cannot be replayed here; says why."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first field of a decision that came out otherwise."""

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
        refused: Requests that were refused before anything was decided: nothing to replay.
        starts: Servers that the journal saw start.
        differences: Of each decision that differs its first difference, at most `keep`.
        differing: Decisions that differ.
    """

    decisions: int = 0
    applied_only: int = 0
    refused: int = 0
    starts: int = 0
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
    result = Replayed()
    state = _State(repository, keep)
    checked: object = None
    with JournalReader(folder) as reader:
        for entry in reader:
            if reader.environment is not checked:  # one a segment
                checked = reader.environment
                _require_same_environment(reader.environment)
            if isinstance(entry, ControlEntry):
                state.control(entry, result)
            else:
                state.decision(entry, result)
    return result


class _State:
    """The engine as the journal has it so far."""

    def __init__(self, repository: Path, keep: int) -> None:
        self._repository = repository
        self._keep = keep
        self._settings: dict[str, Any] = {}
        self._limits = Limits()
        self._models: dict[tuple[str, int], str] = {}
        self._engine: Engine | None = None
        self._clock_ns = 0
        self._request = Request()
        self._decision = Decision()

    def control(self, entry: ControlEntry, result: Replayed) -> None:
        if entry.restated:
            return
        if entry.code == ControlKind.SETTINGS:  # a server starts, its windows empty
            self._settings = dict(entry.payload)
            self._models = {}
            self._engine = None
            result.starts += 1
        elif entry.code == ControlKind.LIMITS:
            self._limits = Limits.model_validate(entry.payload)
        elif entry.code == ControlKind.MODEL:
            self._models[entry.payload["name"], entry.payload["version"]] = entry.payload["sha256"]
        else:
            raise ReplayRefused(f"record {entry.sequence}: this version does not replay control {entry.code}")

    def decision(self, entry: DecisionEntry, result: Replayed) -> None:
        row = entry.row
        if row["status"] != 0 and not row["applied"]:  # it changed nothing
            result.refused += 1
            return
        if not self._settings:
            raise ReplayRefused(
                f"record {entry.sequence}: the journal's oldest records are gone, and with them the server's start;"
                " what the windows held then is not known"
            )
        if self._engine is None:
            self._engine = self._build()
        if row["flags"] & ~Flags.RESTATED:
            raise ReplayRefused(
                f"record {entry.sequence}: the request did not fit its record: {Flags(int(row['flags']))!r}"
            )
        self._clock_ns = int(row["clock_ns"])
        _restore(entry, self._request)
        try:
            self._engine.decide(self._request, self._decision)
        except (RequestError, ModelError) as error:
            if row["status"] == 0:
                self._note(entry, result, "status", 0, repr(error))
            else:
                result.refused += 1
            return
        if row["status"] != 0:  # the budget was spent on the way: only what it changed counts
            result.applied_only += 1
            return
        result.decisions += 1
        for name, recorded, replayed in _compared(row, self._decision):
            if recorded != replayed:
                self._note(entry, result, name, recorded, replayed)
                return

    def _note(self, entry: DecisionEntry, result: Replayed, name: str, recorded: object, replayed: object) -> None:
        result.differing += 1
        if len(result.differences) < self._keep:
            request_id = text(entry.row, "request_id")
            result.differences.append(Difference(entry.sequence, request_id, name, recorded, replayed))

    def _build(self) -> Engine:
        settings = self._settings
        engine = EngineSettings(**settings["engine"] | {"enforce_budgets": False})
        instruments = [Instrument.model_validate(instrument) for instrument in settings["instruments"]]
        universe = Universe({instrument.symbol: instrument for instrument in instruments}, settings["closed"])
        models = [self._load(name, version, sha256) for (name, version), sha256 in self._models.items()]
        registry = ModelRegistry(models, default=settings["default_model"])
        return Engine(engine, registry, universe, self._limits, clock_ns=lambda: self._clock_ns)

    def _load(self, name: str, version: int, sha256: str) -> Any:
        if version not in versions(self._repository, name):
            raise ReplayRefused(f"the repository {self._repository} lacks {name}:{version}, which decided")
        folder = self._repository / name / str(version)
        found = read_manifest(folder).model_sha256
        if found != sha256:
            raise ReplayRefused(f"{folder}: its hash is {found}, that of the model that decided was {sha256}")
        return load(folder)


def _require_same_environment(written: Mapping[str, Any]) -> None:
    here = environment()
    for name in sorted(set(written) | set(here)):
        if name not in _UNCOMPARED_ENVIRONMENT and written.get(name) != here.get(name):
            raise ReplayRefused(
                f"{name} differs, so the same bits cannot be expected: the journal was written with"
                f" {written.get(name)!r}, here is {here.get(name)!r}"
            )


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


def _compared(row: np.void, decision: Decision) -> Iterator[tuple[str, object, object]]:
    """Name, recorded and replayed value of every field that is not a time."""
    yield "applied", bool(row["applied"]), decision.applied
    yield "ready", bool(row["ready"]), decision.ready
    yield "trades_in_window", int(row["trades_in_window"]), decision.trades_in_window
    yield "features_ts_ns", int(row["features_ts_ns"]), decision.features_ts_ns
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
