"""What can go wrong with the decision log.

ArchiveError
├── ArchiveMissing      the folder to read holds no archive
├── ArchiveInvalid      what is there is no archive that this version reads
├── ArchiveBusy         another process writes to the folder
├── SinkUnreachable     a database takes no rows now (`sink`)
├── SinkRefused         a database does not take what it was sent (`sink`)
└── QueryError
    ├── QueryRefused    the statement is none that only reads
    └── QueryFailed     the statement did not run; DuckDB's words
"""

from pathlib import Path


class ArchiveError(Exception):
    """Root of this tree."""


class ArchiveMissing(ArchiveError):
    """The folder to read holds no archive.

    Attributes:
        folder: As asked for.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder}: no archive: expected a folder with a manifest.json")
        self.folder = folder


class ArchiveInvalid(ArchiveError):
    """What is there is no archive that this version reads.

    Attributes:
        path: The file at fault.
        why: What was found, and what was expected.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class ArchiveBusy(ArchiveError):
    """Another process writes to the folder.

    Attributes:
        folder: As asked for.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder}: another process archives into this folder")
        self.folder = folder


class QueryError(ArchiveError):
    """A statement came to nothing."""


class QueryRefused(QueryError):
    """The statement is none that only reads.

    Attributes:
        found: What it is.
    """

    def __init__(self, found: str) -> None:
        super().__init__(f"expected one SELECT statement, found {found}: the decision log is only read")
        self.found = found


class QueryFailed(QueryError):
    """The statement did not run.

    Attributes:
        why: DuckDB's words.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
