"""The archiver: follows a server's journals into an archive, merges its files, lets old days go."""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Event

import structlog

from tickgate_server.archive import compaction
from tickgate_server.archive.errors import ArchiveBusy
from tickgate_server.archive.how import ArchiverSettings
from tickgate_server.archive.places import find_start
from tickgate_server.archive.schema import TABLES
from tickgate_server.archive.status import ArchiveStatus, WorkerStatus, write_status
from tickgate_server.archive.store import ArchiveStore
from tickgate_server.archive.tables import JournalTables
from tickgate_server.journal.errors import JournalError

# Nobody waits for a row: the live journal is queried beside the archive.
PAUSE_S = 0.25
STATUS_EVERY_S = 1.0
RETAIN_EVERY_S = 60.0
# After a commit that failed, for want of space say, it is tried again so often.
RETRY_S = 5.0
_LOCKED_S = 0.05

_LOG = structlog.get_logger()


class Archiver:
    """Archives what is journaled; one process a folder.

    Args:
        folder: Of the archive.
        journals: Folders by worker, which must exist; the one process of a server is "".
        status: Folder for the status file.
        settings: How.

    Raises:
        JournalMissing: A journal's folder is not there.
    """

    def __init__(self, folder: Path, journals: Mapping[str, Path], status: Path, settings: ArchiverSettings) -> None:
        self._folder = folder
        self._status = status
        self._settings = settings
        self._followed = {worker: _Followed(worker, journal, settings) for worker, journal in journals.items()}
        self._failures = 0
        self._last_failure = ""
        self._retry_at = 0.0
        self._status_at = 0.0
        self._retain_at = 0.0

    def run(self, end: Event) -> None:
        """Archive until `end` is set, and then what is left in the journals.

        Raises:
            ArchiveInvalid: The folder holds no archive of this version.
            JournalMissing: A journal's folder is gone.
            OSError: The archive cannot be opened.
        """
        store = self._open(end)
        if store is None:
            return
        try:
            while True:
                last = end.is_set()
                more = self._read(store, last=last)
                self._tell(store)
                if last and not more:
                    self._tell(store, now=True)
                    return
                if not more and not self._tidy(store):
                    end.wait(PAUSE_S)
        finally:
            for followed in self._followed.values():
                followed.close()
            store.close()

    def _open(self, end: Event) -> ArchiveStore | None:
        """The archive; an archiver whose server was killed lets go of it in moments. None: the end came first."""
        waited = False
        while True:
            try:
                return ArchiveStore(self._folder)
            except ArchiveBusy:
                if not waited:
                    _LOG.info("another archiver is still at work", folder=str(self._folder), pid=os.getpid())
                waited = True
                if end.wait(_LOCKED_S):
                    return None

    def _read(self, store: ArchiveStore, *, last: bool) -> bool:
        """A turn of every journal; whether there is more already."""
        more = False
        failing = time.monotonic() < self._retry_at
        for followed in self._followed.values():
            found = followed.step(store)
            if followed.due(at_end=last and not found) and not failing:
                found |= self._try(partial(followed.commit, store), "archive not written")
            more |= found
        return more and not (last and failing)

    def _tidy(self, store: ArchiveStore) -> bool:
        """Merge, or let go, where there is something to; whether there was."""
        settings, now = self._settings, time.monotonic()
        if now < self._retry_at or not store.manifest.files:
            return False
        if settings.retention_days and now >= self._retain_at:
            self._retain_at = now + RETAIN_EVERY_S
            self._try(lambda: store.retain(settings.retention_days), "archive not let go")
        if not settings.merge:
            return False
        files = compaction.choose(store.manifest, settings.rows_a_file)
        return bool(files) and self._try(lambda: compaction.merge(store, files), "archive not merged")

    def _try(self, what: Callable[[], object], failed: str) -> bool:
        try:
            what()
        except OSError as error:
            self._failures += 1
            if str(error) != self._last_failure:
                _LOG.error(failed, folder=str(self._folder), why=str(error), tried_again_in_s=RETRY_S)
            self._last_failure = str(error)
            self._retry_at = time.monotonic() + RETRY_S
            return False
        return True

    def _tell(self, store: ArchiveStore, *, now: bool = False) -> None:
        if not now and time.monotonic() < self._status_at:
            return
        self._status_at = time.monotonic() + STATUS_EVERY_S
        manifest = store.manifest
        status = ArchiveStatus(
            pid=os.getpid(),
            updated_ns=time.time_ns(),
            folder=str(self._folder),
            committed_ns=manifest.committed_ns,
            rows={table: manifest.rows_of(table) for table in TABLES},
            files=len(manifest.files),
            size_bytes=sum(file.size_bytes for file in manifest.files),
            failures=self._failures,
            last_failure=self._last_failure,
            workers={worker: followed.status(store) for worker, followed in self._followed.items()},
        )
        try:
            write_status(self._status, status)
        except OSError as error:
            _LOG.warning("status not written", folder=str(self._status), why=str(error))


class _Followed:
    """One journal on its way into the archive."""

    def __init__(self, worker: str, journal: Path, settings: ArchiverSettings) -> None:
        self._worker = worker
        self._journal = journal
        self._settings = settings
        self._tables: JournalTables | None = None
        self._trouble = ""
        self._committed = time.monotonic()

    def step(self, store: ArchiveStore) -> bool:
        """Read a batch, if there is room for one; whether there was something."""
        tables = self._tables or self._begin(store)
        if tables is None or tables.rows >= self._settings.flush_rows:
            return False
        return tables.catch_up(0.0) > 0

    def due(self, *, at_end: bool) -> bool:
        """Whether what waits is to be committed now."""
        tables = self._tables
        if tables is None or not tables.ahead:
            self._committed = time.monotonic()  # nothing has waited yet
            return False
        waited_s = time.monotonic() - self._committed
        return at_end or tables.rows >= self._settings.flush_rows or waited_s >= self._settings.flush_s

    def commit(self, store: ArchiveStore) -> None:
        """Put what waits into the archive.

        Raises:
            OSError: It waits still.
        """
        if self._tables is None:
            return
        store.append(self._worker, self._tables.waiting(), self._tables.position)
        self._tables.committed()
        self._committed = time.monotonic()

    def status(self, store: ArchiveStore) -> WorkerStatus:
        """For the status file."""
        position, tables = store.manifest.positions.get(self._worker), self._tables
        return WorkerStatus(
            next_sequence=0 if position is None else position.next_sequence,
            waiting_rows=0 if tables is None else tables.rows,
            lag_records=0 if tables is None else tables.lag_records,
            lag_s=0.0 if tables is None else tables.lag_ns / 1e9,
            lost=(0 if position is None else position.lost) if tables is None else tables.position.lost,
            readable=not self._trouble and (tables is None or tables.readable),
        )

    def close(self) -> None:
        if self._tables is not None:
            self._tables.close()

    def _begin(self, store: ArchiveStore) -> JournalTables | None:
        """The journal from where the archive stands; None while it has no records, or cannot be read."""
        try:
            start = find_start(self._journal, store.manifest.positions.get(self._worker))
            if start is None:
                return None
            self._tables = JournalTables(self._journal, self._worker, start, with_ticks=self._settings.with_ticks)
        except (JournalError, OSError) as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                _LOG.error("journal unreadable", folder=str(self._journal), why=self._trouble)
            return None
        self._trouble = ""
        _LOG.info("journal archived from", folder=str(self._journal), sequence=start.position.next_sequence)
        return self._tables
