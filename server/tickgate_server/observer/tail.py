"""One journal followed: its records into counters, its losses said, its control block written."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import numpy as np
import structlog

from tickgate_server.control_block import MODEL_SLOTS, ControlBlockWriter, Slot
from tickgate_server.journal.entries import ControlAssembler, ControlEntry, Model
from tickgate_server.journal.errors import JournalError, RecordDamaged, RecordsRemoved
from tickgate_server.journal.layout import CONTROL, ControlKind, RecordKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.segments import Rows, last_sequence
from tickgate_server.observer.counters import Counters, decisions_of
from tickgate_server.observer.health import ModelHealth
from tickgate_server.observer.recent import RecentAnswers, RecentLatency
from tickgate_server.observer.risk_values import WANTED, RiskValues

# Records polled at once: 2.9 MB, some milliseconds of work.
BATCH = 4096
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

_LOG = structlog.get_logger()


class Tail:
    """Follows the journal in a folder from its oldest record on, so that a new observer misses nothing there is.

    Attributes:
        folder: Of the journal.
        lost: Records that retention removed or damage took before they were read.
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
        self.folder = folder
        self.lost = 0
        self.loaded: dict[int, Model] = {}
        self.refused: set[tuple[str, int]] = set()
        self._reader = JournalReader(folder)
        self._counters = counters
        self._lock = lock
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
        self._last = 0  # sequence of the newest record when it was last looked for
        self._trouble = ""
        self._current_ns = time.monotonic_ns()  # when everything there was had been read
        self._percentiles_ns = 0

    @property
    def lag_ns(self) -> int:
        """How long ago everything that was there had been read."""
        return time.monotonic_ns() - self._current_ns

    @property
    def lag_records(self) -> int:
        """How many records were there at the last call of `catch_up` and have not been read."""
        return max(self._last + 1 - max(self._reader.next_sequence, 1), 0)

    def catch_up(self, within_s: float = float("inf")) -> int:
        """Take in what is in the journal now, at most for `within_s`; the number of records, or of lost ones.

        What cannot be read is logged once, and tried again with the next call. The lock is let go between batches.
        """
        began_ns = time.monotonic_ns()
        with self._lock:
            taken = count = self._advance()
            if not count and not self._trouble:  # most often: the reader says that there is nothing
                self._current_ns = began_ns
                self._last = 0
                return 0
            readable = self._look()
        while count and self.lag_records and time.monotonic_ns() - began_ns < within_s * 1e9:
            with self._lock:
                count = self._advance()
            taken += count
        if readable and not self.lag_records:
            self._current_ns = began_ns
        return taken

    def hand_back(self) -> None:
        """Write the control block's values as they are now."""
        control = self._control
        if control is None:
            return
        now_ns = time.monotonic_ns()
        control.write(Slot.HEARTBEAT, self._reader.next_sequence - 1)
        control.write(Slot.OBSERVER_LAG_S, self.lag_ns / 1e9)
        if self._risk is not None:
            self._risk.hand_back(control, caught_up=not (self.lag_records or self._trouble))
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
        self._reader.close()
        self.stop_handing_back()

    def _look(self) -> bool:
        """Find the newest record there is; False where that cannot be told."""
        try:
            self._last = last_sequence(self.folder)
        except (JournalError, OSError) as error:
            self._unreadable(error)
            return False
        return True

    def _advance(self) -> int:
        """One batch: the number of records, or of those that were lost before the next."""
        try:
            rows = self._reader.poll(BATCH)
        except (RecordsRemoved, RecordDamaged) as error:
            count = error.last - error.first + 1
            self.lost += count
            _LOG.error("records lost", records=count, first=error.first, last=error.last, why=str(error))
            return count
        except (JournalError, OSError) as error:
            self._unreadable(error)
            return 0
        self._trouble = ""
        if rows.size:
            self._add(rows)
        return rows.size

    def _unreadable(self, error: Exception) -> None:
        if str(error) != self._trouble:
            self._trouble = str(error)
            _LOG.error("journal unreadable", folder=str(self.folder), why=self._trouble)

    def _add(self, rows: Rows) -> None:
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
            self._risk.add(decisions, controls)
        if self._health is not None:
            for control in controls:
                self._health.feed_control(control)
            self._health.feed(rows)
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
