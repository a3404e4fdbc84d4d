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
from tickgate_server.observer.counters import Counters, decisions_of
from tickgate_server.observer.health import ModelHealth
from tickgate_server.observer.recent import RecentAnswers, RecentLatency
from tickgate_server.observer.risk_values import WANTED, RiskValues

_PERCENTILES_EVERY_NS = 1_000_000_000
_WANTED = [
    ControlKind.SETTINGS,
    ControlKind.MODEL,
    ControlKind.MODEL_REFUSED,
    ControlKind.MODEL_UNLOADED,
    ControlKind.UNSENT,
    ControlKind.MODEL_REOPENED,
]
_WANTED_FOR_RISK = [*_WANTED, *(code for code in WANTED if code not in _WANTED)]


class Tail(Following):
    """Follows the journal in a folder from its oldest record on, so that a new observer misses nothing there is.

    Attributes:
        refused: Name and version of each that the server's last start refused.
        loaded: Models that are loaded, by index.

    Args:
        folder: Must exist; it may be empty yet.
        counters: What records are added to.
        lock: Held while a batch is added; whoever reads counters or attributes holds it.
        control: Where values for the hot path are written; None: nowhere.
        risk: What makes risk data of the trades; None: nothing does.
        health: Makes what watches the models, given their latencies; None: nothing does.

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
    ) -> None:
        super().__init__(folder, lock)
        self.loaded: dict[int, Model] = {}
        self.refused: set[tuple[str, int]] = set()
        self._counters = counters
        self._control = control
        self._risk = risk
        self._wanted = _WANTED if risk is None else _WANTED_FOR_RISK
        self._recent = RecentLatency()
        self._health = None if health is None else health(self._recent)
        self._answers = RecentAnswers()
        self._assembler = ControlAssembler()
        self._series = counters.series_of({})
        self._models: dict[int, Model] | None = None
        self._known = 0
        self._percentiles_ns = 0

    def hand_back(self) -> None:
        """Write the control block's values as they are now."""
        control = self._control
        if control is None:
            return
        now_ns = time.monotonic_ns()
        control.write(Slot.HEARTBEAT, self._reader.next_sequence - 1)
        control.write(Slot.OBSERVER_LAG_S, self.lag_ns / 1e9)
        if self._risk is not None:
            self._risk.hand_back(control, caught_up=self.readable and not self.lag_records)
        if self._health is not None:
            self._health.hand_back(control, time.time_ns())
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
        models = self._reader.models
        if models is not self._models or len(models) != self._known:  # another segment, or a model more
            self._models, self._known = models, len(models)
            self._series = self._counters.series_of(models)
        controls = self._controls(rows)
        for control in controls:
            self._learn(control)
        decisions = decisions_of(rows)
        if decisions.size:
            self._counters.add(decisions, self._series)
            self._answers.add(decisions)
            self._recent.add(decisions, time.time_ns())
        if self._risk is not None:
            self._risk.add(decisions, controls, published_of(rows, self._reader.symbols))
        if self._health is not None:
            for control in controls:
                self._health.feed_control(control)
            self._health.feed(rows, self._reader.symbols)
        for control in controls:  # after the decisions that they are about
            if control.code == ControlKind.UNSENT:
                found = self._answers.find(control.payload["sequences"])
                self._counters.withdraw(found, int(control.payload["status"]))

    def _controls(self, rows: Rows) -> list[ControlEntry]:
        """Those controls among polled rows that something here depends on."""
        controls = rows.view(CONTROL)
        wanted = (controls["kind"] == RecordKind.CONTROL) & np.isin(controls["code"], self._wanted)
        entries = map(self._assembler.feed, controls[wanted])
        return [entry for entry in entries if entry is not None]

    def _learn(self, control: ControlEntry) -> None:
        """What a control says of models."""
        payload = control.payload
        if control.code == ControlKind.SETTINGS:  # a server starts: its models follow
            self._forget()
        elif control.code == ControlKind.MODEL:
            model = Model(**payload)
            self.loaded[model.index] = model
            self.refused.discard((model.name, model.version))
        elif control.code == ControlKind.MODEL_UNLOADED:
            self.loaded.pop(int(payload["index"]), None)
        elif control.code == ControlKind.MODEL_REFUSED:
            self.refused.add((str(payload["name"]), int(payload["version"])))

    def _forget(self) -> None:
        self.loaded.clear()
        self.refused.clear()
        self._recent.clear()
        if self._control is not None:
            first = int(Slot.MODEL_LATENCY_US_P99)
            self._control.clear(first, first + MODEL_SLOTS)
