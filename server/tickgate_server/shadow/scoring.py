"""One version as a shadow: its model, its place in each journal, its comparisons, and the record that commits them."""

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
import structlog

from tickgate_server.journal.entries import Model
from tickgate_server.journal.following import Following
from tickgate_server.journal.segments import (
    Header,
    Rows,
    in_use,
    last_sequence,
    read_header,
    segment_numbers,
    segment_path,
)
from tickgate_server.models.aliases import Aliases
from tickgate_server.models.errors import HashMismatch, LatencyOverBudget, PackageError
from tickgate_server.models.loading import LoadedModel, load
from tickgate_server.models.package import MANIFEST_FILE, MODEL_FILE, read_manifest
from tickgate_server.models.shadow_record import (
    ShadowRecord,
    read_record,
    record_path,
    write_record,
)
from tickgate_server.shadow.comparing import Chooser, compare
from tickgate_server.shadow.store import Comparisons, ComparisonStore
from tickgate_server.shadow.tally import Tally

# A process that gives way to all others may be interrupted in so many runs at warm-up that they seem slow.
LOAD_TRIES = 3

_LOG = structlog.get_logger()


class _Take(Protocol):
    def __call__(self, worker: int, rows: Rows, models: Mapping[int, Model]) -> None: ...


class _Lose(Protocol):
    def __call__(self, records: int) -> None: ...


class _Decisions(Following):
    """One journal of a server, followed for a shadow from where it stopped.

    Attributes:
        position: Sequence of the record that comes next; 0 before there was one.
    """

    def __init__(self, folder: Path, start: int | None, worker: int, take: _Take, lose: _Lose) -> None:
        super().__init__(folder, Lock(), start)
        self.position = start or 0
        self._worker = worker
        self._hand_on = take
        self._report = lose

    def _take(self, rows: Rows) -> None:
        self._hand_on(self._worker, rows, self._reader.models)
        self.position = self.next_sequence

    def _lose(self, first: int, last: int) -> None:
        records = max(last + 1 - max(first, self.position), 0)  # damage before it is not of this reader's concern
        super()._lose(last + 1 - records, last)
        self._report(records)
        self.position = max(self.position, last + 1)


class ShadowRun:
    """Scores with one version what the journals recorded while it was the shadow, each decision once.

    What is found is kept in memory until `step` commits it with the positions: a process that is killed goes on from
    the last commit.

    Attributes:
        name: Of the model.
        version: Of the model.
        record: As it was committed last.

    Args:
        repository: Of the models.
        folder: `models.shadow_record.shadow_folder`.
        journals: By worker; the one process of a server is "".
        name: Of the model.
        version: That is or was the shadow.
        aliases: Of the model, as they are now.
        retained: Most comparisons to keep.

    Raises:
        ShadowRecordInvalid: There is a record, and it cannot be gone on with.
        StoreInvalid: The same of its comparisons.
        JournalError: A journal is not there, or not what it should be.
        OSError: Record or comparisons cannot be read or written.
    """

    def __init__(
        self,
        repository: Path,
        folder: Path,
        journals: Mapping[str, Path],
        name: str,
        version: int,
        aliases: Aliases,
        *,
        retained: int,
    ) -> None:
        self.name = name
        self.version = version
        found = read_record(folder, name, version)
        self.record = found or ShadowRecord(name=name, version=version)
        self._repository = repository
        self._folder = folder
        home = record_path(folder, name, version).parent
        home.mkdir(parents=True, exist_ok=True)
        self._store = ComparisonStore(home, self.record.stored, retained=retained)
        self._tally = Tally(self.record)
        self._lost = self.record.lost_records
        self._pending: list[Comparisons] = []  # added up, not in the store yet
        self._model: LoadedModel | None = None
        self._tried: object = None  # what was on disk when it was last loaded
        self._failures = self.record.load_failures
        self._failed = (self.record.load_check, self.record.load_why)
        self._sha256 = self.record.model_sha256
        self._thresholds: dict[tuple[str, int, str], float] = {}
        self._chooser = Chooser(name, version, aliases)
        self._aliases = aliases
        self._committed = found is not None
        self._trouble = ""
        self._followed: dict[str, _Decisions] = {}
        try:
            for worker, (key, journal) in enumerate(journals.items()):
                start = self._start(journal, self.record.positions.get(key))
                self._followed[key] = _Decisions(journal, start, worker, self._take, self._lose)
        except BaseException:
            self.close()
            raise

    @property
    def lag_records(self) -> int:
        """Records of the journals that were there when they were last looked at, and have not been read."""
        return sum(followed.lag_records for followed in self._followed.values())

    def step(self, aliases: Aliases, within_s: float) -> bool:
        """Take in what is new and commit it; whether there is more already.

        What cannot be committed stays in memory, and nothing more is read before it could be.

        Args:
            aliases: Of the model, as they are now.
            within_s: How long each journal may take.
        """
        if self._trouble and not self._commit():
            return False
        if aliases is not self._aliases:
            self._aliases = aliases
            self._chooser = Chooser(self.name, self.version, aliases)
        self._load_if_new()
        for followed in self._followed.values():
            followed.catch_up(within_s)
        current = all(followed.readable and not followed.lag_records for followed in self._followed.values())
        ended = current and aliases.shadow != self.version
        if not self._committed or self._positions() != self.record.positions or ended != self.record.ended:
            self._commit(ended=ended)
        return not self._trouble and any(
            followed.readable and followed.lag_records for followed in self._followed.values()
        )

    def close(self) -> None:
        """Let go of the journals; what was not committed is found again."""
        for followed in self._followed.values():
            followed.close()

    def _positions(self) -> dict[str, int]:
        """By worker; those of workers that a server had once stay."""
        followed = {key: followed.position for key, followed in self._followed.items() if followed.position}
        return {**self.record.positions, **followed}

    def _start(self, journal: Path, position: int | None) -> int | None:
        """Where to go on in a journal; None: with its oldest record."""
        segments = _segments(journal)
        if not segments:
            return None
        oldest = segments[0]
        if position is not None and oldest.number == 1 and oldest.created_ns > self.record.written_ns:
            _LOG.warning("journal begun anew", journal=str(journal), model=self.name, version=self.version)
            position = None
        if position is None:
            return _first_since(segments, self._chooser.since_ns)
        newest = last_sequence(journal)
        if position > newest + 1:  # the host died, and what was read was never on the disk
            _LOG.error("journal is shorter than it was", journal=str(journal), records=position - newest - 1)
            return newest + 1
        # What went while it was no shadow was not lost to it.
        return max(position, oldest.first_sequence) if self.record.ended else position

    def _take(self, worker: int, rows: Rows, models: Mapping[int, Model]) -> None:
        answers = self._chooser.choose(rows, models)
        self._lost += answers.unknown
        if not answers.rows.size:
            return
        found, missed = compare(answers, models, self._model, self._threshold_of, worker)
        self._tally.missed.update(missed)
        if found.size:
            self._tally.add(found)
            self._pending.append(found)

    def _lose(self, records: int) -> None:
        self._lost += records

    def _threshold_of(self, model: Model) -> float | None:
        """Decision threshold of a version that answered; None where the manifest of those bytes is not there."""
        key = (model.name, model.version, model.sha256)
        if key not in self._thresholds:
            try:
                manifest = read_manifest(self._repository / model.name / str(model.version))
            except PackageError:
                return None
            if manifest.model_sha256 != model.sha256:
                return None
            self._thresholds[key] = manifest.decision_threshold
        return self._thresholds[key]

    def _load_if_new(self) -> None:
        """Load the model unless that is done, or failed and nothing on disk has changed since."""
        if self._model is not None:
            return
        folder = self._repository / self.name / str(self.version)
        there = [_signature(folder / file) for file in (MANIFEST_FILE, MODEL_FILE)]
        if there == self._tried:
            return
        self._tried = there
        said = partial(_LOG.bind, model=self.name, version=self.version)
        try:
            model = _load(folder)
            if self._sha256 not in {"", model.manifest.model_sha256}:
                path = record_path(self._folder, self.name, self.version)
                raise HashMismatch(
                    folder / MODEL_FILE,
                    f"{path} is of a model with sha256 {self._sha256}; if that is over, remove its folder",
                )
        except PackageError as error:
            self._failures += 1
            self._failed = (type(error).__name__, error.why)
            self._committed = False
            said().error("shadow refused", check=self._failed[0], file=str(error.path), why=error.why)
            return
        self._model = model
        self._sha256 = model.manifest.model_sha256
        self._failed = ("", "")
        self._committed = False
        engine = "onnxruntime" if model.not_compiled else "compiled forest"
        said().info("shadow loaded", engine=engine, schema_id=model.schema_id)

    def _commit(self, *, ended: bool = False) -> bool:
        """Append what is pending, then rename the record that says so; False where that cannot be done now."""
        try:
            if self._pending:
                self._store.append(np.concatenate(self._pending))
                self._pending.clear()
            record = ShadowRecord(
                name=self.name,
                version=self.version,
                model_sha256=self._sha256,
                comparisons=self._tally.comparisons,
                missed={why: count for why, count in sorted(self._tally.missed.items()) if count},
                lost_records=self._lost,
                load_failures=self._failures,
                load_check=self._failed[0],
                load_why=self._failed[1],
                positions=self._positions(),
                stored=self._store.stored,
                ended=ended,
                written_ns=time.time_ns(),
            )
            write_record(self._folder, record)
            self.record = record
            self._committed = True
            self._store.prune()
        except OSError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                _LOG.error("shadow not recorded", model=self.name, version=self.version, why=self._trouble)
            return False
        self._trouble = ""
        return True


def _load(folder: Path) -> LoadedModel:
    """As `loading.load`; a warm-up that was too slow is tried again."""
    for _ in range(LOAD_TRIES - 1):
        try:
            return load(folder)
        except LatencyOverBudget:
            continue
    return load(folder)


def _signature(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:  # loading says what is wrong with it
        return None
    return status.st_mtime_ns, status.st_size


def _segments(journal: Path) -> list[Header]:
    """Headers of the segments in use, oldest first."""
    found: list[Header] = []
    for number in segment_numbers(journal):
        path = segment_path(journal, number)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # retention was faster
            continue
        try:
            if in_use(descriptor):
                found.append(read_header(path, descriptor))
        finally:
            os.close(descriptor)
    return found


def _first_since(segments: Sequence[Header], since_ns: int) -> int:
    """First sequence of a segment that holds all that was journaled since a time, and as little else as can be told.

    A segment is prepared while the one before is filled: what is older than that one was full by then.
    """
    newest = max((place for place, header in enumerate(segments) if header.created_ns <= since_ns), default=0)
    return segments[max(newest - 1, 0)].first_sequence
