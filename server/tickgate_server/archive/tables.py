"""A journal followed into tables: what is read waits here until it is committed."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa

from tickgate_server.archive.convert import Origin, decisions_of, events_of, ticks_of, times_of
from tickgate_server.archive.places import Start, is_in, of_segment
from tickgate_server.archive.schema import DECISIONS, EVENTS, TICKS, TableName
from tickgate_server.journal.following import Following
from tickgate_server.journal.layout import CONTROL, RecordKind
from tickgate_server.journal.segments import Header, Rows


class JournalTables(Following):
    """Follows a journal from where the archive stands, and keeps what comes as Arrow tables.

    Attributes:
        position: How far what was taken reaches: all before it is in the tables, or was archived before.
        rows: In the tables, of all of them.

    Args:
        folder: Of the journal.
        worker: Its name in the log; empty: the one process of a server.
        start: From `places.find_start`.
        with_ticks: Whether published ticks are kept.

    Raises:
        JournalMissing: There is no such folder.
    """

    def __init__(self, folder: Path, worker: str, start: Start, *, with_ticks: bool = True) -> None:
        super().__init__(folder, Lock(), start.read_from)
        self.position = start.position
        self.rows = 0
        self._committed = start.position
        self._worker = worker
        self._with_ticks = with_ticks
        self._tables: dict[TableName, list[pa.Table]] = {DECISIONS: [], EVENTS: [], TICKS: []}
        self._header: Header | None = None
        self._open: Rows | None = None  # the first records of a control whose others come with the next batch

    @property
    def ahead(self) -> bool:
        """Whether there is something that is not committed: rows, or the loss of records."""
        return self.position != self._committed

    def waiting(self) -> Mapping[TableName, pa.Table]:
        """The tables so far; those without rows are left out. They stay until `committed`."""
        return {
            name: pa.concat_tables(tables, promote_options="default") for name, tables in self._tables.items() if tables
        }

    def committed(self) -> None:
        """What was waiting is archived, and need not be kept."""
        for tables in self._tables.values():
            tables.clear()
        self.rows = 0
        self._committed = self.position

    def _take(self, rows: Rows) -> None:
        header = self._reader.segment
        if header is None:
            raise RuntimeError("records without a segment")
        if header is not self._header:
            self._enter(header)
        rows = rows[rows["sequence"] >= self.position.next_sequence]
        if self._open is not None:
            rows, self._open = np.concatenate([self._open, rows]), None
        rows = self._hold_back(rows)
        if rows.size:
            self._add(rows)

    def _lose(self, first: int, last: int) -> None:
        super()._lose(first, last)
        lost = last - max(first, self.position.next_sequence) + 1
        if self._open is not None:  # the rest of that control is lost
            lost += self._open.size
            self._open = None
        if lost > 0:
            changes = {"lost": self.position.lost + lost, "next_sequence": last + 1}
            self.position = self.position.model_copy(update=changes)

    def _enter(self, header: Header) -> None:
        if not is_in(header, self.position):
            self.position = of_segment(header, self.position)
        self._header = header
        self._open = None

    def _hold_back(self, rows: Rows) -> Rows:
        """Keep the records of a control that is not whole yet for the next batch; the rows before it."""
        if not rows.size or rows["kind"][-1] != RecordKind.CONTROL:
            return rows
        last = rows.view(CONTROL)[-1]
        held = int(last["part"]) + 1
        if held == int(last["parts"]) or held > rows.size:
            return rows
        self._open = rows[rows.size - held :].copy()
        return rows[: rows.size - held]

    def _add(self, rows: Rows) -> None:
        position = self.position
        origin = Origin(
            self._worker,
            position.journal_ns,
            self._reader.models,
            tuple(self._reader.environment.get("checks", ())),
            self._reader.symbols,
        )
        times_ns = times_of(rows, position.time_ns)
        tables: dict[TableName, pa.Table] = {
            DECISIONS: decisions_of(rows, times_ns, origin),
            EVENTS: events_of(rows, times_ns, origin),
        }
        if self._with_ticks:
            tables[TICKS] = ticks_of(rows, times_ns, origin)
        for name, table in tables.items():
            if table.num_rows:
                self._tables[name].append(table)
                self.rows += table.num_rows
        changes = {"next_sequence": int(rows["sequence"][-1]) + 1, "time_ns": int(times_ns[-1])}
        self.position = position.model_copy(update=changes)
