"""One journal followed: its records into counters, its losses said, its control block written."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import numpy as np

from tickgate_server.control_block import MODEL_SLOTS, ControlBlockWriter, Slot
from tickgate_server.journal.entries import ControlAssembler, ControlEntry, Model
from tickgate_server.journal.following import Following
from tickgate_server.journal.layout import CONTROL, ControlKind, RecordKind
from tickgate_server.journal.published import published_of
from tickgate_server.journal.segments import Rows
from tickgate_server.observer.counters import Counters, Series, decisions_of
from tickgate_server.observer.desk_view import WANTED as WANTED_OF_DESK
from tickgate_server.observer.desk_view import DeskView
from tickgate_server.observer.feature_watch import FeatureWatch
from tickgate_server.observer.health import ModelHealth
from tickgate_server.observer.recent import RecentAnswers, RecentLatency
from tickgate_server.observer.risk_values import WANTED, RiskValues

_PERCENTILES_EVERY_NS = 1_000_000_000
# What happened to a version, by the control that tells of it.
CHANGES = {
    ControlKind.MODEL: "loaded",
    ControlKind.MODEL_UNLOADED: "unloaded",
    ControlKind.MODEL_REFUSED: "refused",
    ControlKind.MODEL_DEGRADED: "degraded",
    ControlKind.MODEL_REOPENED: "reopened",
}
_WANTED = sorted({ControlKind.UNSENT, *CHANGES, *WANTED_OF_DESK})
_WANTED_FOR_RISK = sorted({*_WANTED, *WANTED})


class Tail(Following):
    """Follows the journal in a folder from its oldest record on, so that a new observer misses nothing there is.

    Attributes:
        refused: Name and version of each that the server's last start refused.
        loaded: Models that are loaded, by index.
        desk: What the records tell of trading state and portfolio.
        records: That were read, by number of `RecordKind`, int64 [256].
        queued: Requests whose model runs on a thread of its own, and that were not answered yet.
        risk: As given.
        health: What watches the models; None: nothing does.
        features: As given.

    Args:
        folder: Must exist; it may be empty yet.
        counters: What records are added to.
        lock: Held while a batch is added; whoever reads counters or attributes holds it.
        control: Where values for the hot path are written; None: nowhere.
        risk: What makes risk data of the trades; None: nothing does.
        health: Makes what watches the models, given their latencies; None: nothing does.
        features: What watches the vectors that they score; None: nothing does.

    Raises:
        JournalMissing: There is no such folder.
    """

    def __init__(
        self,
        folder: Path,
        counters: Counters,
        lock: Lock,
        control: ControlBlockWriter | None,
        risk: RiskValues | None = None,
        health: Callable[[RecentLatency], ModelHealth] | None = None,
        features: FeatureWatch | None = None,
    ) -> None:
        super().__init__(folder, lock)
        self.loaded: dict[int, Model] = {}
        self.refused: set[tuple[str, int]] = set()
        self.desk = DeskView()
        self.records = np.zeros(256, np.int64)
        self.queued = 0
        self.risk = risk
        self._counters = counters
        self._control = control
        self._wanted = _WANTED if risk is None else _WANTED_FOR_RISK
        self._recent = RecentLatency()
        self.health = None if health is None else health(self._recent)
        self.features = features
        self._answers = RecentAnswers()
        self._assembler = ControlAssembler()
        self._series = counters.series_of({})
        self._models: dict[int, Model] | None = None
        self._known = (0, 0)
        self._percentiles_ns = 0

    def hand_back(self) -> None:
        """Write the control block's values as they are now."""
        control = self._control
        if control is None:
            return
        now_ns = time.monotonic_ns()
        control.write(Slot.HEARTBEAT, self._reader.next_sequence - 1)
        control.write(Slot.OBSERVER_LAG_S, self.lag_ns / 1e9)
        if self.risk is not None:
            self.risk.hand_back(control, caught_up=self.readable and not self.lag_records)
        if self.health is not None:
            self.health.hand_back(control, time.time_ns())
        if now_ns - self._percentiles_ns >= _PERCENTILES_EVERY_NS:
            self._percentiles_ns = now_ns
            for index, value in enumerate(self._recent.us_p99(time.time_ns()).tolist()):
                if index in self.loaded:
                    control.write(Slot.MODEL_LATENCY_US_P99 + index, value)

    def stop_handing_back(self) -> None:
        """Let the control block go; what it held reads as missing."""
        control, self._control = self._control, None
        if control is not None:
            control.close()

    def close(self) -> None:
        """Let the journal and the control block go."""
        super().close()
        self.stop_handing_back()

    def _take(self, rows: Rows) -> None:
        self.records += np.bincount(rows["kind"], minlength=256)
        controls = self._controls(rows)
        for control in controls:
            self._learn(control)
            self.desk.feed(control)
        models = self._reader.models
        known = (len(models), self._counters.evictions)
        if models is not self._models or known != self._known:  # another segment, or a model more
            self._models = models
            self._series = self._counters.series_of(models)
            self._known = (len(models), self._counters.evictions)
        decisions = decisions_of(rows)
        if decisions.size:
            self._counters.add(decisions, self._series)
            self._answers.add(decisions)
            self._recent.add(decisions, time.time_ns())
            self.desk.add(decisions, self._reader.environment.get("checks", ()))
            if self.features is not None:
                self.features.add(decisions)
        self._counters.ticks.add_published(rows)
        self._count_queued(rows)
        if self.risk is not None:
            self.risk.add(decisions, controls, published_of(rows, self._reader.symbols))
        if self.health is not None:
            for control in controls:
                self.health.feed_control(control)
            self.health.feed(rows, self._reader.symbols)
        for control in controls:  # after the decisions that they are about
            if control.code == ControlKind.UNSENT:
                found = self._answers.find(control.payload["sequences"])
                self._counters.withdraw(found, int(control.payload["status"]))

    def _count_queued(self, rows: Rows) -> None:
        """Each STARTED has its DECISION with a ticket, but for those that a server did not live to answer."""
        kinds = rows["kind"]
        controls = rows.view(CONTROL)
        first = (kinds == RecordKind.CONTROL) & (controls["part"] == 0)
        begins = np.flatnonzero(first & (controls["code"] == ControlKind.SETTINGS))
        if begins.size:
            self.queued = 0
            last = int(begins[-1])
            rows, kinds, controls, first = rows[last:], kinds[last:], controls[last:], first[last:]
        started = np.count_nonzero(first & (controls["code"] == ControlKind.STARTED))
        ended = np.count_nonzero((kinds == RecordKind.DECISION) & (rows["ticket"] != 0))
        self.queued = max(self.queued + int(started - ended), 0)  # what began before the oldest record ends as well

    def _controls(self, rows: Rows) -> list[ControlEntry]:
        """Those controls among polled rows that something here depends on."""
        controls = rows.view(CONTROL)
        wanted = (controls["kind"] == RecordKind.CONTROL) & np.isin(controls["code"], self._wanted)
        entries = map(self._assembler.feed, controls[wanted])
        return [entry for entry in entries if entry is not None]

    def _learn(self, control: ControlEntry) -> None:
        """What a control says of models."""
        payload = control.payload
        change = CHANGES.get(ControlKind(control.code))
        if change is not None and not control.restated:
            self._counters.changes[change] += 1
        if control.code == ControlKind.SETTINGS:  # a server starts: its models follow
            self._forget()
        elif control.code == ControlKind.MODEL:
            model = Model(**payload)
            if model.index not in self.loaded:
                self._counters.load(Series(model.name, str(model.version)))
                if self.features is not None:
                    self.features.load(model)
            self.loaded[model.index] = model
            self.refused.discard((model.name, model.version))
        elif control.code == ControlKind.MODEL_UNLOADED:
            gone = self.loaded.pop(int(payload["index"]), None)
            if self.features is not None:
                self.features.unload(int(payload["index"]))
            if gone is not None:
                self._counters.unload(Series(gone.name, str(gone.version)))
        elif control.code == ControlKind.MODEL_REFUSED:
            self.refused.add((str(payload["name"]), int(payload["version"])))

    def _forget(self) -> None:
        for gone in self.loaded.values():
            self._counters.unload(Series(gone.name, str(gone.version)))
        self.loaded.clear()
        self.refused.clear()
        if self.features is not None:
            self.features.forget()
        self._recent.clear()
        if self._control is not None:
            first = int(Slot.MODEL_LATENCY_US_P99)
            self._control.clear(first, first + MODEL_SLOTS)
