"""A journal followed from a place on: its records handed on batch by batch, what was lost counted and said."""

import time
from abc import ABC, abstractmethod
from pathlib import Path
from threading import Lock

import structlog

from tickgate_server.journal.errors import JournalError, RecordDamaged, RecordsRemoved
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.segments import Rows, last_sequence

# Records polled at once: 2.9 MB, some milliseconds of work.
BATCH = 4096

_LOG = structlog.get_logger()


class Following(ABC):
    """Follows the journal in a folder; what becomes of the records says a subclass, in `_take`.

    Attributes:
        folder: Of the journal.
        lost: Records that retention removed or damage took before they were read.

    Args:
        folder: Must exist; it may be empty yet.
        lock: Held while a batch is taken; whoever reads what comes of it holds it.
        start_sequence: First record wanted; None: the oldest there is.

    Raises:
        JournalMissing: There is no such folder.
    """

    def __init__(self, folder: Path, lock: Lock, start_sequence: int | None = None) -> None:
        self.folder = folder
        self.lost = 0
        self._reader = JournalReader(folder, start_sequence)
        self._lock = lock
        self._last = 0  # sequence of the newest record when it was last looked for
        self._trouble = ""
        self._current_ns = time.monotonic_ns()  # when everything there was had been read

    @property
    def next_sequence(self) -> int:
        """Of the record that comes next; 0 before there was one."""
        return self._reader.next_sequence

    @property
    def lag_ns(self) -> int:
        """How long ago everything that was there had been read."""
        return time.monotonic_ns() - self._current_ns

    @property
    def lag_records(self) -> int:
        """How many records were there at the last call of `catch_up` and have not been read."""
        return max(self._last + 1 - max(self._reader.next_sequence, 1), 0)

    @property
    def readable(self) -> bool:
        """Whether the last call of `catch_up` could read what it found."""
        return not self._trouble

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

    def close(self) -> None:
        """Let the journal go."""
        self._reader.close()

    @abstractmethod
    def _take(self, rows: Rows) -> None:
        """Take in a batch of `layout.DECISION`, all of one segment, in order; the lock is held."""

    def _lose(self, first: int, last: int) -> None:
        """Records that were lost; the lock is held."""
        self.lost += last - first + 1

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
            self._lose(error.first, error.last)
            _LOG.error("records lost", records=count, first=error.first, last=error.last, why=str(error))
            return count
        except (JournalError, OSError) as error:
            self._unreadable(error)
            return 0
        self._trouble = ""
        if rows.size:
            self._take(rows)
        return rows.size

    def _unreadable(self, error: Exception) -> None:
        if str(error) != self._trouble:
            self._trouble = str(error)
            _LOG.error("journal unreadable", folder=str(self.folder), why=self._trouble)
