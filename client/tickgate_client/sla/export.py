"""A live monitor's record on disk, written again and again, for `tickgate sla report`."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tickgate_client.sla.monitor import SlaMonitor
from tickgate_client.sla.record import record_of, write_record

_LOG = logging.getLogger(__name__)


class SlaExport:
    """Writes what a monitor saw to one file, on a thread of its own: a disk that hangs holds no look up.

    Args:
        monitor: Whose calls.
        path: Replaced at each writing.
        every_s: Between two writings.
        load: How calls are made, in words.

    Attributes:
        load: As given; may be set later.
        failures: Writings that failed. They are logged, and the next is tried all the same; `close` raises.
    """

    def __init__(self, monitor: SlaMonitor, path: Path, *, every_s: float = 60.0, load: str = "") -> None:
        if not 0 < every_s < threading.TIMEOUT_MAX:
            raise ValueError(f"every_s is {every_s}, must be positive and finite")
        self.load = load
        self.failures = 0
        self._monitor = monitor
        self._path = path
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tickgate-sla-export", daemon=True)

    def write(self) -> None:
        """Write now; raises OSError."""
        write_record(self._path, record_of(self._monitor, self.load))

    def close(self) -> None:
        """End the thread, and write a last time; raises OSError."""
        self._stop.set()
        self._thread.join()
        self.write()

    def __enter__(self) -> Self:
        self.write()  # a path that cannot be written is an error now, not in a minute
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.write()
            except OSError:
                self.failures += 1
                _LOG.exception("the SLA record %s was not written", self._path)
