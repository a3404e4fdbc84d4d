"""What the archiver says of itself: a small file beside the journal, for the observer, for health and for people."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tickgate_server.archive.errors import ArchiveInvalid
from tickgate_server.models.documents import read_document

STATUS_FILE = "archive-status.json"
_BESIDE = ".archive-status.incoming"
_FILE_BYTES = 1 << 20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WorkerStatus(_Strict):
    """Of one worker's journal.

    Attributes:
        next_sequence: All records before it are archived; 0: there was none yet.
        waiting_rows: Read and not committed.
        lag_records: In the journal and not read.
        lag_s: Since everything that was there had been read.
        lost: Records that were removed or damaged before they were archived, since the archive began.
        readable: Whether the journal could be read.
    """

    next_sequence: int = 0
    waiting_rows: int = 0
    lag_records: int = 0
    lag_s: float = 0.0
    lost: int = 0
    readable: bool = True


class ArchiveStatus(_Strict):
    """Of the archiver.

    Attributes:
        pid: Of its process.
        updated_ns: Wall clock when this was written: once a second while it runs.
        folder: Of the archive.
        committed_ns: Wall clock of the last commit; 0: none yet.
        rows: In the archive, by table.
        files: In the archive.
        size_bytes: Of them.
        failures: Commits and merges that failed since it began; what they were to write was tried again.
        last_failure: The last one's words.
        workers: By name of the worker's folder; "" is the one process of a server.
    """

    pid: int
    updated_ns: int
    folder: str
    committed_ns: int
    rows: dict[str, int]
    files: int
    size_bytes: int
    failures: int = 0
    last_failure: str = ""
    workers: dict[str, WorkerStatus]


def status_folder(journal: Path, workers: int = 1) -> Path:
    """Where the status of a server's archiver lies.

    Args:
        journal: `journal.folder` of the process that asks: the server's, or a worker's own.
        workers: `worker.count` of that process; a worker's folder lies in the server's.
    """
    return journal if workers == 1 else journal.parent


def read_status(folder: Path) -> ArchiveStatus | None:
    """What an archiver wrote last; None: none ever ran there.

    Raises:
        ArchiveInvalid: The file is none that this version reads.
    """
    return read_document(folder / STATUS_FILE, ArchiveStatus, _FILE_BYTES, ArchiveInvalid)


def write_status(folder: Path, status: ArchiveStatus) -> None:
    """Put a status in the place of the one before.

    Raises:
        OSError: It is not there.
    """
    beside = folder / _BESIDE
    beside.write_bytes(status.model_dump_json(indent=1).encode())
    beside.rename(folder / STATUS_FILE)
