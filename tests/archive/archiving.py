"""Journals for the decision log's tests, what is expected of them read the slow way, and deaths at any step."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result
from tests.journal.journal_samples import VECTOR, approved, model, tick

from tickgate_server.archive import commands
from tickgate_server.archive.how import ArchiverSettings
from tickgate_server.archive.query import DecisionLog
from tickgate_server.archive.service import Archiver
from tickgate_server.journal.entries import ControlEntry, DecisionEntry, Entry
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.writer import JournalWriter

DAY_NS = 86_400_000_000_000
NOON_NS = 1_700_049_600_000_000_000  # 2023-11-15T12:00:00Z
SMALL = ArchiverSettings(flush_s=0.0, flush_rows=1024, merge=False)


def entries_in(journal: Path) -> list[Entry]:
    with JournalReader(journal) as reader:
        return list(reader)


def decisions_in(journal: Path) -> list[DecisionEntry]:
    return [entry for entry in entries_in(journal) if isinstance(entry, DecisionEntry)]


def controls_in(journal: Path) -> list[ControlEntry]:
    return [entry for entry in entries_in(journal) if isinstance(entry, ControlEntry)]


@contextmanager
def writing(folder: Path, **arguments: Any) -> Iterator[JournalWriter]:
    with JournalWriter(folder, **{"segment_records": 1024, **arguments}) as writer:
        yield writer


def append(
    writer: JournalWriter, count: int, *, clock_ns: int = NOON_NS, symbols: int = 5, **changes: Any
) -> list[int]:
    """Decisions of models `m` and `n` by turns, a second apart, each with its own request id; their sequences."""
    models = [model("m", 1), model("n", 2)]
    return [
        writer.append_decision(
            tick(number + 1, symbol=f"S{number % symbols}"),
            approved(model=models[number % 2], **changes),
            request_id=f"{clock_ns}-{number}",
            applied=True,
            clock_ns=clock_ns + number * 1_000_000_000,
            vector=VECTOR,
        )
        for number in range(count)
    ]


def archive(
    folder: Path, journals: Path | Mapping[str, Path], settings: ArchiverSettings = SMALL, status: Path | None = None
) -> None:
    """Archive what is in journals, as a server does at its end."""
    end = Event()
    end.set()
    by_worker = {"": journals} if isinstance(journals, Path) else journals
    Archiver(folder, by_worker, status or folder.parent, settings).run(end)


def rows(log: DecisionLog, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a query, as tuples."""
    found = log.table(sql).to_pydict()
    return list(zip(*found.values(), strict=True)) if found else []


def archived(folder: Path, columns: str = "sequence", table: str = "decisions") -> list[tuple[Any, ...]]:
    """Rows of the archive alone, in the journal's order."""
    return rows(DecisionLog(folder, {}), f"SELECT {columns} FROM {table} ORDER BY journal_ns, sequence")


class Killed(BaseException):
    """The process died here."""


class Deaths:
    """Lets so many steps that change a disk happen, and nothing after them.

    Attributes:
        steps: That happened, or would have.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = 0
        self._left: int | None = None
        for where, name in ((os, "fsync"), (Path, "rename"), (Path, "unlink"), (Path, "rmdir"), (Path, "mkdir")):
            monkeypatch.setattr(where, name, self._counted(getattr(where, name)))

    def after(self, steps: int | None) -> None:
        """Die after so many; None: live."""
        self.steps, self._left = 0, steps

    def _counted(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            if self._left is not None and self.steps >= self._left:
                raise Killed
            self.steps += 1
            return change(*arguments, **named)

        return step


def commanded(verb: str, *arguments: str) -> Result:
    """A verb of the `tickgate` command in this process, whose log it sets up and leaves as it was."""
    try:
        return CliRunner().invoke({"archive": commands.archive, "query": commands.query}[verb], list(arguments))
    finally:
        structlog.reset_defaults()


def unsent(writer: JournalWriter, sequences: list[int], status: int = 4) -> None:
    writer.append_control(ControlKind.UNSENT, {"sequences": sequences, "status": status})
