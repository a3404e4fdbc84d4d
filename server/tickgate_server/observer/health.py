"""Model health: which version no longer is what its manifest promises. Degraded closes the gate's stage 6 for it.

A degradation is latched: it stands until a person reopens the version, whatever its outcomes do. What is latched is
kept in a file beside the journal, so it outlives observer, server and the journal's retention. docs/health.md is the
runbook.

A new observer reads the journal from its oldest record on. What the one before it had read only fills the statistics:
it was judged then, and a second look at it, from another beginning, would be one that the false-alarm budget does not
have.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import structlog

from tickgate_server.control_block import MODEL_SLOTS, ControlBlockWriter, Slot
from tickgate_server.journal.entries import ControlAssembler, ControlEntry, Model
from tickgate_server.journal.errors import SegmentInvalid
from tickgate_server.journal.layout import CONTROL, ControlKind, RecordKind
from tickgate_server.journal.published import published_of
from tickgate_server.journal.segments import Rows, last_sequence
from tickgate_server.models.errors import ModelError
from tickgate_server.models.package import Manifest, read_manifest
from tickgate_server.observer.counters import decisions_of
from tickgate_server.observer.health_checks import FALSE_ALARMS_A_DAY, Finding, HealthChecks, Measure, expected_of
from tickgate_server.observer.outcomes import VERSIONS, OutcomeJoin, Outcomes
from tickgate_server.observer.recent import RecentLatency
from tickgate_server.records import TICK

STATE_FILE = "model-health.json"
RUNBOOK = "docs/health.md#degraded"
LATENCY_RUNBOOK = "docs/health.md#latency"

_LATENCY_EVERY_NS = 10_000_000_000
_SAVE_EVERY_NS = 60_000_000_000
_WANTED = [
    ControlKind.SETTINGS,
    ControlKind.MODEL,
    ControlKind.MODEL_UNLOADED,
    ControlKind.STARTED,
    ControlKind.TICK,
]

_LOG = structlog.get_logger()

Version = tuple[str, int]
"""Name and number of a model."""

ManifestOf = Callable[[str, int], Manifest | None]
Events: TypeAlias = list[dict[str, Any]]


class HealthStateInvalid(Exception):
    """The file of what is degraded cannot be read: nobody knows what must stay closed.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}; if every model may be opened again, remove it")
        self.path = path


class VersionHealth(NamedTuple):
    """Where a version under watch stands.

    Attributes:
        version: Name and number.
        latency_budget_us: Its manifest's.
        trades: Outcomes since its statistics began.
        predictions: The same, of those whose price moved.
        measures: What its checks measured.
    """

    version: Version
    latency_budget_us: float
    trades: int
    predictions: int
    measures: Sequence[Measure]


@dataclass(slots=True)
class _Watched:
    """A version under watch; `row` is its number in the join, `latency_budget_us` its model's."""

    version: Version
    row: int
    checks: HealthChecks
    latency_budget_us: float
    slow: bool = False


def manifests_in(repository: Path) -> ManifestOf:
    """Manifests of a model repository; None for a package that is not there or not whole."""

    def manifest_of(name: str, version: int) -> Manifest | None:
        try:
            return read_manifest(repository / name / str(version))
        except ModelError:
            return None

    return manifest_of


class ModelHealth:
    """Follows the versions of one journal: outcomes, checks, what is degraded, and what that means to the gate.

    Bounds: `outcomes` says those of the join. Versions whose index is MODEL_SLOTS or more are not monitored, for they
    have no slot. A version that is no longer loaded gives way, statistics and all, where there are VERSIONS others.

    With several workers each has a journal and statistics of its own, and a budget: give each its share.

    Attributes:
        degraded: The event of each version that is degraded, by name and number.
        unmonitored: Why a loaded version is not monitored, by name and number.
        slow: Of each version whose p99 of total latency over five minutes is over its budget: that p99, in us.
        standing: Of each loaded version under watch, as of the last ten seconds.

    Args:
        manifest_of: A version's manifest; None: it is not monitored, which is logged once.
        folder: Of the journal: STATE_FILE is kept there. None: what is degraded is forgotten at the end.
        latency: Total latencies by index, as the tail fills it; None: latency is not watched.
        slot: First of MODEL_SLOTS values in the control block: 1 degraded, 0 not, missing: not monitored.
        false_alarms_a_day: Budget of each version.

    Raises:
        HealthStateInvalid: What is degraded cannot be told.
        JournalMissing: There is no such folder.
    """

    def __init__(
        self,
        manifest_of: ManifestOf,
        *,
        folder: Path | None = None,
        latency: RecentLatency | None = None,
        slot: int = Slot.MODEL_DEGRADED,
        false_alarms_a_day: float = FALSE_ALARMS_A_DAY,
    ) -> None:
        self.degraded: dict[Version, dict[str, Any]] = {}
        self.unmonitored: dict[Version, str] = {}
        self.slow: dict[Version, float] = {}
        self.standing: list[VersionHealth] = []
        self._manifest_of = manifest_of
        self._latency = latency
        self._slot = slot
        self._budget = false_alarms_a_day
        self._join = OutcomeJoin()
        self._assembler = ControlAssembler()
        self._watched: dict[Version, _Watched] = {}
        self._loaded: dict[int, Version] = {}
        self._rows = np.array([-1], np.int64)  # of the join, by index in the journal; the last is for no model
        self._reopenings: list[ControlEntry] = []
        self._last = 0  # sequence of the last record that was fed
        self._told = 0  # up to which an observer before this one has judged
        self._clear = False
        self._latency_ns = self._saved_ns = 0
        self._state = None if folder is None else folder / STATE_FILE
        if folder is not None:
            self._load(folder)

    @property
    def monitored(self) -> set[Version]:
        """Those loaded that are under watch, or degraded."""
        return {version for version in self._loaded.values() if version in self._watched or version in self.degraded}

    def feed(self, rows: Rows, symbols: Mapping[int, str] = MappingProxyType({})) -> Events:
        """Take in records as they were polled.

        Args:
            rows: DECISION [n], decisions, controls and published ticks alike, in the journal's order.
            symbols: By row, of the published ticks among them.

        Returns:
            The event of each version that they degraded, which is logged as well; once until it is reopened.
        """
        events: Events = []
        begin = 0
        for cut, act in self._cuts(rows):
            events += self._add(rows[begin:cut], symbols)
            begin = cut
            events += act()
        events += self._add(rows[begin:], symbols)
        return events

    def feed_control(self, entry: ControlEntry) -> None:
        """Take in a control: MODEL_REOPENED begins a version's statistics anew at its place among the records.

        To be called before or after `feed` of the records that it is one of; other kinds are none of its business, for
        `feed` reads those that it needs by itself.
        """
        if entry.code != ControlKind.MODEL_REOPENED:
            return
        if entry.sequence > self._last:
            self._reopenings.append(entry)
        else:
            self._reopen(entry)

    def hand_back(self, control: ControlBlockWriter | None, now_ns: int) -> None:
        """Write the state of each loaded version, and look at latencies now and then.

        Args:
            control: Where to; None: nowhere.
            now_ns: The wall clock.
        """
        if control is not None:
            if self._clear:
                control.clear(self._slot, self._slot + MODEL_SLOTS)
                self._clear = False
            for index, version in self._loaded.items():
                if index < MODEL_SLOTS and (version in self.degraded or version in self._watched):
                    control.write(self._slot + index, float(version in self.degraded))
        if now_ns - self._latency_ns >= _LATENCY_EVERY_NS:
            self._latency_ns = now_ns
            self._look_at_latency(now_ns)
            self.standing = self._stand()
        if now_ns - self._saved_ns >= _SAVE_EVERY_NS and self._last > self._told:
            self._saved_ns = now_ns
            self._save()

    def _cuts(self, rows: Rows) -> list[tuple[int, Callable[[], Events]]]:
        """Where a control changes what the records behind it mean, and what is to be done there, in order."""
        if not rows.size:
            return []
        sequences = rows["sequence"].astype(np.int64)
        missing = np.flatnonzero(np.diff(sequences, prepend=self._last) != 1)
        # Behind each place what comes first where several meet.
        cuts: list[tuple[int, int, Callable[[], Events]]] = [
            (at, 0, self._forget) for at in missing.tolist() if at or self._last
        ]
        controls = rows.view(CONTROL)
        wanted = (controls["kind"] == RecordKind.CONTROL) & np.isin(controls["code"], _WANTED)
        for at in np.flatnonzero(wanted).tolist():
            entry = self._assembler.feed(controls[at])
            if entry is not None:
                cuts.append((at, 2, partial(self._control, entry)))
        while self._reopenings and self._reopenings[0].sequence <= sequences[-1]:
            reopening = self._reopenings.pop(0)
            at = int(np.searchsorted(sequences, reopening.sequence))
            cuts.append((at, 1, partial(self._reopen, reopening)))
        if sequences[0] <= self._told < sequences[-1]:
            cuts.append((int(np.searchsorted(sequences, self._told, "right")), 3, list))
        return [(at, act) for at, _, act in sorted(cuts, key=lambda cut: cut[:2])]

    def _add(self, rows: Rows, symbols: Mapping[int, str]) -> Events:
        """Records without a control in between that matters here."""
        if not rows.size:
            return []
        self._last = int(rows["sequence"][-1])
        decisions, published = decisions_of(rows), published_of(rows, symbols)
        if not decisions.size and not len(published):
            return []
        indices = decisions["model_index"]
        last = self._rows.size - 1
        versions = np.where((indices >= 0) & (indices < last), self._rows[np.clip(indices, 0, last)], -1)
        outcomes = self._join.feed(decisions, versions, published)
        return self._judge(outcomes)

    def _judge(self, outcomes: Outcomes) -> Events:
        events: Events = []
        if not outcomes.size:
            return events
        for watched in list(self._watched.values()):
            own = outcomes[outcomes["version"] == watched.row]
            if not own.size or watched.version in self.degraded:
                continue
            findings = watched.checks.update(own)
            if findings and self._last <= self._told:
                watched.checks.restart()
            elif findings:
                events.append(self._degrade(watched, findings[0]))
        return events

    def _degrade(self, watched: _Watched, finding: Finding) -> dict[str, Any]:
        name, number = watched.version
        event = {
            "model": name,
            "version": number,
            **asdict(finding),
            "check": finding.check.value,
            "sequence": self._last,
            "severity": "critical",
            "runbook": RUNBOOK,
        }
        self.degraded[watched.version] = event
        self._save()
        _LOG.error("model degraded", **event)
        return event

    def _reopen(self, entry: ControlEntry) -> Events:
        payload = entry.payload
        version = (str(payload["name"]), int(payload["version"]))
        watched = self._watched.get(version)
        if watched is not None:
            watched.checks.restart()
            self._join.restart(watched.row)
        if entry.sequence <= self._told:  # an observer before this one has done so
            return []
        was = self.degraded.pop(version, None)
        self._last = max(self._last, entry.sequence)
        self._save()
        _LOG.warning(
            "model reopened",
            model=version[0],
            version=version[1],
            who=payload.get("who"),
            reason=payload.get("reason"),
            was_degraded=None if was is None else was["check"],
        )
        return []

    def _control(self, entry: ControlEntry) -> Events:
        payload = entry.payload
        self._last = max(self._last, entry.sequence)
        if entry.code == ControlKind.SETTINGS:
            self._begin_server(payload)
        elif entry.code == ControlKind.MODEL:
            model = Model(**payload)
            if self._loaded.get(model.index) != (model.name, model.version):
                self._load_model(model)
        elif entry.code == ControlKind.MODEL_UNLOADED:
            self._loaded.pop(int(payload["index"]), None)
        elif entry.code == ControlKind.TICK:
            return self._judge(self._published(payload))
        else:
            request = payload["request"]
            outcomes = self._published(request) if request["input"] == TICK else self._join.nothing
            self._join.start(int(payload["ticket"]), str(request["symbol"]))
            return self._judge(outcomes)
        return []

    def _published(self, tick: Mapping[str, Any]) -> Outcomes:
        """What a tick ends that no decision record brings; its fields are those of `records.stated`."""
        symbol, stamp_ns, sequence = str(tick["symbol"]), int(tick["exchange_ts_ns"]), int(tick.get("sequence", 0))
        return self._join.publish(symbol, int(tick["kind"]), float(tick.get("price", 0.0)), stamp_ns, sequence)

    def _begin_server(self, settings: Mapping[str, Any]) -> None:
        """A server starts: its windows are empty, its models follow, and the time before it is no part of a horizon."""
        self._loaded.clear()
        self._rows = np.array([-1], np.int64)
        self._clear = True
        instruments = settings.get("instruments", [])
        self._join.multipliers = {str(one["symbol"]): float(one.get("multiplier", 1.0)) for one in instruments}
        self._forget()

    def _forget(self) -> Events:
        self._join.forget()
        for watched in self._watched.values():
            watched.checks.forget_symbols()
        return []

    def _load_model(self, model: Model) -> None:
        self._loaded[model.index] = (model.name, model.version)
        if model.index >= MODEL_SLOTS:
            self._leave_out(model, f"its index is {model.index}, and those below {MODEL_SLOTS} are monitored")
            return
        watched = self._watched.get((model.name, model.version)) or self._watch(model)
        if model.index >= self._rows.size - 1:
            grown = np.full(model.index + 2, -1, np.int64)
            grown[: self._rows.size - 1] = self._rows[:-1]
            self._rows = grown
        self._rows[model.index] = -1 if watched is None else watched.row

    def _watch(self, model: Model) -> _Watched | None:
        version = (model.name, model.version)
        manifest = self._manifest_of(*version)
        if manifest is None:
            self._leave_out(model, "its manifest cannot be read")
            return None
        if manifest.model_sha256 != model.sha256:
            self._leave_out(model, "the manifest is of another file")
            return None
        self.unmonitored.pop(version, None)
        expected, off = expected_of(manifest)
        for check, why in off.items():
            _LOG.warning("check off", model=model.name, version=model.version, check=check.value, why=why)
        watched = _Watched(
            version, self._free_row(), HealthChecks(expected, self._budget), manifest.latency_budget_ms * 1e3
        )
        self._watched[version] = watched
        self._join.watch(
            watched.row,
            manifest.output.horizon_trades,
            manifest.features.session_gap_ns,
            manifest.decision_threshold,
        )
        return watched

    def _leave_out(self, model: Model, why: str) -> None:
        version = (model.name, model.version)
        if self.unmonitored.get(version) != why:
            self.unmonitored[version] = why
            _LOG.warning("model not monitored", model=model.name, version=model.version, why=why)

    def _free_row(self) -> int:
        """A row of the join: there are as many as versions with a slot, so one is free or held by one not loaded."""
        if len(self._watched) == VERSIONS:
            loaded = {version for index, version in self._loaded.items() if index < MODEL_SLOTS}
            gone = next(version for version in self._watched if version not in loaded)
            return self._watched.pop(gone).row
        return min(set(range(VERSIONS)) - {watched.row for watched in self._watched.values()})

    def _stand(self) -> list[VersionHealth]:
        loaded = set(self._loaded.values())
        return [
            VersionHealth(
                watched.version,
                watched.latency_budget_us,
                watched.checks.trades,
                watched.checks.predictions,
                watched.checks.measure(),
            )
            for watched in self._watched.values()
            if watched.version in loaded
        ]

    def _look_at_latency(self, now_ns: int) -> None:
        """Alert once while a version's p99 over five minutes is over its budget."""
        if self._latency is None:
            return
        self.slow.clear()
        p99s = self._latency.us_p99(now_ns).tolist()
        for index, version in self._loaded.items():
            watched = self._watched.get(version)
            if watched is None or index >= MODEL_SLOTS or math.isnan(p99s[index]):
                continue
            slow = p99s[index] > watched.latency_budget_us
            if slow:
                self.slow[version] = p99s[index]
            if slow and not watched.slow:
                _LOG.error(
                    "model latency over budget",
                    model=version[0],
                    version=version[1],
                    latency_us_p99=p99s[index],
                    budget_us=watched.latency_budget_us,
                    severity="warning",
                    runbook=LATENCY_RUNBOOK,
                )
            watched.slow = slow

    def _load(self, folder: Path) -> None:
        path = folder / STATE_FILE
        try:
            newest = last_sequence(folder)
        except (SegmentInvalid, OSError):  # the tail says so; judging anew errs on the side of closing
            newest = 0
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            self.degraded = {(str(event["model"]), int(event["version"])): dict(event) for event in state["degraded"]}
            told = int(state["told"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HealthStateInvalid(path, f"cannot be read ({error!r})") from error
        # Of a journal that is gone its latches hold, and its sequences mean nothing.
        self._told = told if told <= newest else 0

    def _save(self) -> None:
        """Keep what is degraded; where that fails it still is so, until this observer ends."""
        if self._state is None:
            return
        state = {"told": max(self._last, self._told), "degraded": list(self.degraded.values())}
        beside = self._state.with_name(f"{STATE_FILE}.{os.getpid()}.unfinished")
        try:
            with beside.open("w", encoding="utf-8") as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._state)
        except OSError as error:
            _LOG.error("model health not kept", path=str(self._state), why=str(error))
