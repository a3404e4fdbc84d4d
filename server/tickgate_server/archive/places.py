"""Where an archive stands in a journal, and where it goes on: the same journal, or another one in its place.

Sequence numbers begin again in a journal that was made anew, and after damage was cut off. So a journal is told apart
by when its segments were made, and what is archived of it carries `journal_ns`, the time of the first of them.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, Field

from tickgate_server.journal.segments import Header, in_use, read_header, segment_numbers, segment_path

_LOG = structlog.get_logger()


class Position(BaseModel):
    """How far a journal is archived.

    Attributes:
        journal_ns: Which journal it is.
        segment: Number of the segment that the last record was in.
        segment_ns: When that was made.
        next_sequence: Of the record that comes next.
        time_ns: Of the last record; see `convert.times_of`.
        lost: Records that were removed or damaged before they were archived, since the archive began.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    journal_ns: int
    segment: int = Field(ge=1)
    segment_ns: int
    next_sequence: int = Field(ge=1)
    time_ns: int
    lost: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin reading.

    Attributes:
        read_from: Sequence that the reader begins with: the first of a segment, for what the segment states.
        position: Where the log goes on; what is before it is archived already.
    """

    read_from: int
    position: Position


def find_start(folder: Path, position: Position | None) -> Start | None:
    """Where a journal is to be read from; None while it has no segment in use.

    Args:
        folder: Of the journal.
        position: How far it is archived; None: not at all.

    Raises:
        JournalMissing: There is no such folder.
        SegmentInvalid: A segment's header is not what it should be.
    """
    headers = _headers(folder)
    if not headers:
        return None
    return _from(headers[0], 0) if position is None else _after(folder, headers, position)


def _after(folder: Path, headers: list[Header], position: Position) -> Start:
    at = next((k for k, header in enumerate(headers) if _is_of(header, position)), -1)
    if at >= 0:
        after = headers[at + 1] if at + 1 < len(headers) else None
        if after is not None and after.first_sequence < position.next_sequence:  # what was archived was cut off since
            return _from(after, position.lost)
        return Start(headers[at].first_sequence, position)
    oldest = headers[0]
    if oldest.number > position.segment and oldest.created_ns > position.segment_ns:
        # The reader is told the sequence that is wanted, and says what retention took.
        if oldest.first_sequence >= position.next_sequence:
            return Start(position.next_sequence, position)
        return _from(oldest, position.lost)
    _LOG.warning("another journal", folder=str(folder), archived_to=position.next_sequence - 1)
    removed = oldest.first_sequence - 1
    if removed:
        _LOG.error("records lost", records=removed, first=1, last=removed, why="removed before they were archived")
    return _from(oldest, position.lost + removed)


def of_segment(header: Header, before: Position) -> Position:
    """The position as a segment is entered: another journal where its numbers began again."""
    anew = header.number <= before.segment or header.first_sequence < before.next_sequence
    changes = {"segment": header.number, "segment_ns": header.created_ns, "next_sequence": header.first_sequence}
    if anew:
        changes["journal_ns"] = header.created_ns
    return before.model_copy(update=changes)


def is_in(header: Header, position: Position) -> bool:
    """Whether a position is in a segment."""
    return _is_of(header, position)


def _is_of(header: Header, position: Position) -> bool:
    return (header.number, header.created_ns) == (position.segment, position.segment_ns)


def _from(header: Header, lost: int) -> Start:
    position = Position(
        journal_ns=header.created_ns,
        segment=header.number,
        segment_ns=header.created_ns,
        next_sequence=header.first_sequence,
        time_ns=header.created_ns,
        lost=lost,
    )
    return Start(header.first_sequence, position)


def _headers(folder: Path) -> list[Header]:
    """Of the segments in use, oldest first."""
    found: list[Header] = []
    for number in segment_numbers(folder):
        path = segment_path(folder, number)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # retention was faster
            continue
        try:
            if in_use(descriptor):
                found.append(read_header(path, descriptor))
        finally:
            os.close(descriptor)
    return found
