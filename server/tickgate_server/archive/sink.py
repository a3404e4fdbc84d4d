"""A time-series database beside the decision log: what it must do, and the rows on their way into it.

Rows are sent at least once: the position is written after a sink has them, and what was sent before a death is sent
again. A sink takes rows that it has already for what they are, by `worker`, `journal_ns` and `sequence`: so each is
there once.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Protocol

import pyarrow as pa
import structlog
from pydantic import BaseModel, ConfigDict

from tickgate_server.archive.errors import ArchiveError, ArchiveInvalid
from tickgate_server.archive.places import Position, find_start
from tickgate_server.archive.schema import TableName
from tickgate_server.archive.tables import JournalTables
from tickgate_server.models.documents import read_document

PAUSE_S = 0.25
# After a refusal that may pass, a sink is tried again after so long, twice as long each time, up to the longest.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
BATCH_ROWS = 16_384
_FILE_BYTES = 1 << 20

_LOG = structlog.get_logger()


class SinkUnreachable(ArchiveError):
    """A sink does not take rows now; what was to be sent is sent again.

    Attributes:
        sink: Its name.
        why: What it said, or the system's words.
    """

    def __init__(self, sink: str, why: str) -> None:
        super().__init__(f"{sink}: {why}")
        self.sink = sink
        self.why = why


class SinkRefused(ArchiveError):
    """A sink does not take these rows, now or later.

    Attributes:
        sink: Its name.
        why: What it said.
    """

    def __init__(self, sink: str, why: str) -> None:
        super().__init__(f"{sink} refuses what it was sent: {why}")
        self.sink = sink
        self.why = why


class Sink(Protocol):
    """A database that rows are sent to; one thread at a time."""

    @property
    def name(self) -> str:
        """For the log, and for the file that its position is kept in."""

    def prepare(self) -> None:
        """Make its tables, where they are not there; raises as `write`."""

    def write(self, table: TableName, rows: pa.Table) -> None:
        """Take rows of a table, with its partition's columns; those that it has already change nothing.

        Raises:
            SinkUnreachable: It may take them later.
            SinkRefused: It never will.
        """

    def close(self) -> None:
        """Let its connection go."""


class Forwarded(BaseModel):
    """How far a sink has the journals.

    Attributes:
        positions: By worker.
        rows: That it was sent, those that were sent again among them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    positions: dict[str, Position] = {}
    rows: int = 0


class Forwarder:
    """Sends what is journaled to a sink.

    Args:
        sink: It.
        journals: Folders by worker, which must exist; the one process of a server is "".
        folder: For the file with the positions; must exist.
        with_ticks: Whether published ticks are sent.

    Raises:
        ArchiveInvalid: The file with the positions is none.
    """

    def __init__(self, sink: Sink, journals: Mapping[str, Path], folder: Path, *, with_ticks: bool = True) -> None:
        self._sink = sink
        self._journals = journals
        self._path = folder / f"forwarded-{sink.name}.json"
        self._with_ticks = with_ticks
        self._tables: dict[str, JournalTables] = {}
        self.forwarded = read_document(self._path, Forwarded, _FILE_BYTES, ArchiveInvalid) or Forwarded()

    def run(self, end: Event) -> None:
        """Send until `end` is set, and then what is left in the journals.

        Raises:
            SinkUnreachable: It took no rows when the end came; the next run begins with them.
            SinkRefused: It does not take a row.
            JournalMissing: A journal's folder is gone.
            OSError: The position cannot be written.
        """
        pause_s, prepared = FIRST_PAUSE_S, False
        try:
            while True:
                last = end.is_set()
                try:
                    if not prepared:
                        self._sink.prepare()
                        prepared = True
                    more = sum(self._step(worker, journal) for worker, journal in self._journals.items()) > 0
                except SinkUnreachable as error:
                    _LOG.warning("sink does not take rows", sink=error.sink, why=error.why, tried_again_in_s=pause_s)
                    if end.wait(pause_s):
                        raise
                    pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)
                    continue
                pause_s = FIRST_PAUSE_S
                if last and not more:
                    return
                if not more:
                    end.wait(PAUSE_S)
        finally:
            for tables in self._tables.values():
                tables.close()
            self._sink.close()

    def _step(self, worker: str, journal: Path) -> bool:
        """Read what is there, up to a batch, and send it; whether there was something."""
        tables = self._tables.get(worker)
        if tables is None:
            start = find_start(journal, self.forwarded.positions.get(worker))
            if start is None:
                return False
            tables = self._tables[worker] = JournalTables(journal, worker, start, with_ticks=self._with_ticks)
        while tables.rows < BATCH_ROWS and tables.catch_up(0.0):
            pass
        if not tables.ahead:
            return False
        began = time.monotonic()
        for table, rows in tables.waiting().items():
            self._sink.write(table, rows)
        sent = tables.rows
        self._keep(worker, tables.position, sent)
        tables.committed()
        _LOG.debug("rows sent", sink=self._sink.name, rows=sent, seconds=round(time.monotonic() - began, 3))
        return True

    def _keep(self, worker: str, position: Position, rows: int) -> None:
        before = self.forwarded
        self.forwarded = Forwarded(positions={**before.positions, worker: position}, rows=before.rows + rows)
        beside = self._path.with_name(f".{self._path.name}.incoming")
        beside.write_text(self.forwarded.model_dump_json(indent=1), encoding="utf-8")
        beside.rename(self._path)
