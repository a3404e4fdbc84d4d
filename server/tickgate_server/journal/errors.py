"""What can go wrong with the journal.

JournalError
├── JournalMissing          the folder to read is not there
├── FolderLocked            another writer has the folder
├── JournalClosed           appended to after `close`
├── NoSegment               the next segment cannot be had: nothing was appended, so nothing may be answered
│   └── JournalFull         for want of space
├── ControlTooLarge         a control record does not fit a segment
├── ModelTableFull          more models at once than a segment can state
├── RecordsRemoved          retention was faster than the reader
└── Damaged                 bytes are not what was written; says file, offset, what was found, what was expected
    ├── SegmentInvalid      the header of a segment
    └── RecordDamaged       one record, or several in a row

`Damaged` is never raised for a torn tail: what a writer that was killed left half-written behind the last whole record.
"""

from pathlib import Path


class JournalError(Exception):
    """Root of this tree."""


class JournalMissing(JournalError):
    """The folder to read is not there.

    Attributes:
        folder: As asked for.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder}: no such journal folder")
        self.folder = folder


class FolderLocked(JournalError):
    """Another writer has the folder: two would interleave their sequences.

    Attributes:
        folder: As asked for.
        holder: What the other one wrote into the lock file, its process id; may be empty.
    """

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(f"{folder}: another writer has this journal (process {holder or 'unknown'})")
        self.folder = folder
        self.holder = holder


class JournalClosed(JournalError):
    """Appended to after `close`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder}: the journal is closed")
        self.folder = folder


class NoSegment(JournalError):
    """The next segment cannot be had. Nothing was appended; the next append tries again.

    Attributes:
        path: The segment's file.
        why: The system's words.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: no next segment: {why}")
        self.path = path
        self.why = why


class JournalFull(NoSegment):
    """No space for the next segment.

    Attributes:
        needed_bytes: What one segment takes.
    """

    def __init__(self, path: Path, why: str, needed_bytes: int) -> None:
        super().__init__(path, f"{why}; {needed_bytes:,} bytes needed")
        self.needed_bytes = needed_bytes


class ControlTooLarge(JournalError):
    """A control record does not fit a segment.

    Attributes:
        kind: Its name.
        size: Bytes of its JSON.
        limit: Bytes that would fit.
    """

    def __init__(self, kind: str, size: int, limit: int) -> None:
        super().__init__(f"control {kind}: expected at most {limit:,} bytes of JSON, found {size:,}")
        self.kind = kind
        self.size = size
        self.limit = limit


class ModelTableFull(JournalError):
    """More models at once than half a segment can state.

    Attributes:
        limit: Most models.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"expected at most {limit} models at once")
        self.limit = limit


class RecordsRemoved(JournalError):
    """Retention removed records before they were read. Raised once; the reader goes on with the oldest left.

    Attributes:
        first: Sequence of the first record that was missed.
        last: Of the last one.
    """

    def __init__(self, folder: Path, first: int, last: int) -> None:
        super().__init__(f"{folder}: records {first} to {last} were removed before they were read")
        self.folder = folder
        self.first = first
        self.last = last


class Damaged(JournalError):
    """Bytes are not what was written.

    Attributes:
        path: The segment's file.
        offset: Of the bytes at fault, in the file.
        found: What is there.
        expected: What should be.
    """

    def __init__(self, path: Path, offset: int, found: str, expected: str) -> None:
        super().__init__(f"{path} at byte {offset}: found {found}, expected {expected}")
        self.path = path
        self.offset = offset
        self.found = found
        self.expected = expected


class SegmentInvalid(Damaged):
    """The header of a segment."""


class RecordDamaged(Damaged):
    """One record, or several in a row. A reader raises it once and goes on behind them.

    Attributes:
        first: Sequence of the first record that is lost.
        last: Of the last one.
    """

    def __init__(self, path: Path, offset: int, found: str, expected: str, first: int, last: int) -> None:
        super().__init__(path, offset, found, expected)
        self.first = first
        self.last = last
