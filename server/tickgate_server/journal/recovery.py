"""What a writer finds in its folder when it starts: recovery is the start-up path, after a clean end too."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tickgate_server.journal.errors import RecordDamaged
from tickgate_server.journal.segments import (
    UNFINISHED,
    Header,
    Rows,
    describe_slot,
    next_whole,
    read_header,
    read_slots,
    segment_numbers,
    segment_path,
    slot_offset,
    whole,
)

# Rows read at once: 2.9 MB.
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Cut:
    """A torn tail: what a writer that was killed left half-written.

    Attributes:
        segment: Number of its segment.
        record: The sequence that the first of it would have had.
        why: What was found and what was expected.
    """

    segment: int
    record: int
    why: str


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found, and where the journal goes on.

    Attributes:
        next_segment: Number of the segment that is to come.
        next_sequence: Of its first record.
        segments: Number and first sequence of those that are kept, oldest first.
        unfinished: Prepared segments that were never used, and removed.
        cut: The torn tail that was cut off, if there was one.
    """

    next_segment: int
    next_sequence: int
    segments: tuple[tuple[int, int], ...]
    unfinished: int
    cut: Cut | None


@dataclass(frozen=True, slots=True)
class Tail:
    """How the last segment ends.

    Attributes:
        records: Whole records before its end.
        torn: What is behind them, if anything but empty slots.
        damaged: Slot of a whole record that comes yet behind: then it is no torn tail but damage; -1: none.
    """

    records: int
    torn: Cut | None
    damaged: int


def read_tail(header: Header, descriptor: int) -> Tail:
    """Count the whole records of the last segment and look at what is behind them.

    A slot that was empty when it was read and has been filled since is read again, so a running writer does not
    look like damage.
    """
    slot = 0
    while True:
        count = min(_CHUNK, header.capacity - slot)
        rows = read_slots(descriptor, slot, count)
        good = whole(rows, header.first_sequence + slot)
        slot += good
        if (good == count and count) or (good and good == rows.size):
            continue
        if slot >= header.capacity:
            return Tail(slot, None, -1)
        again = read_slots(descriptor, slot, 1)
        if whole(again, header.first_sequence + slot):
            continue
        tail = _tail(header, descriptor, slot, again)
        if tail.damaged < 0 or not whole(read_slots(descriptor, slot, 1), header.first_sequence + slot):
            return tail


def _tail(header: Header, descriptor: int, records: int, row: Rows) -> Tail:
    expected = header.first_sequence + records
    at = records
    first_bytes = records if row.size and any(row.tobytes()) else -1
    while (rows := read_slots(descriptor, at, min(_CHUNK, header.capacity - at))).size:
        found = next_whole(rows, header.first_sequence + at)
        if found < rows.size:
            return Tail(records, None, at + found)
        if first_bytes < 0 and any(rows.tobytes()):
            first_bytes = at
        at += rows.size
    rest = os.fstat(descriptor).st_size - slot_offset(at)
    if first_bytes < 0 and rest <= 0:
        return Tail(records, None, -1)
    if row.size:
        found_there, wanted = describe_slot(row[0], expected)
        if not any(row.tobytes()):
            found_there = "an empty slot before written ones"
    else:
        found_there, wanted = f"{rest} bytes of a slot", f"record {expected}"
    return Tail(records, Cut(header.number, expected, f"found {found_there}, expected {wanted}"), -1)


def recover(folder: Path, *, accept_damage: bool = False) -> Recovery:
    """Find where a journal ends, and cut off what is half-written there. The caller holds the folder's lock.

    Only the last segment is scanned; `verify` looks at all. Its file is shortened to its whole records.

    Args:
        folder: Of the journal.
        accept_damage: Go on where whole records follow a damaged one in the last segment: all from the damaged one on
            are cut, and the segment is kept as it was beside, with `.damaged` behind its name.

    Raises:
        SegmentInvalid: A segment's header is not what it should be.
        RecordDamaged: Whole records follow one that is not, and `accept_damage` was not given. That is no torn tail
            of a killed process; a crash of the host does it, or the disk.
    """
    unfinished = 0
    for path in folder.glob(f"*{UNFINISHED}"):
        path.unlink()
        unfinished += 1
    used: list[tuple[int, int]] = []
    last: Header | None = None
    for number in segment_numbers(folder):
        path = segment_path(folder, number)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            header = read_header(path, descriptor)
        finally:
            os.close(descriptor)
        if header.first_sequence:
            used.append((number, header.first_sequence))
            last = header
        else:
            path.unlink()
            unfinished += 1
    if last is None:
        return Recovery(1, 1, (), unfinished, None)
    records, cut = _cut(last, accept_damage=accept_damage)
    return Recovery(last.number + 1, last.first_sequence + records, tuple(used), unfinished, cut)


def _cut(header: Header, *, accept_damage: bool) -> tuple[int, Cut | None]:
    descriptor = os.open(header.path, os.O_RDWR)
    try:
        tail = read_tail(header, descriptor)
        cut = tail.torn
        if tail.damaged >= 0:
            row = read_slots(descriptor, tail.records, 1)[0]
            expected = header.first_sequence + tail.records
            found, wanted = describe_slot(row, expected)
            last = header.first_sequence + tail.damaged - 1
            damage = RecordDamaged(header.path, slot_offset(tail.records), found, wanted, expected, last)
            if not accept_damage:
                raise damage
            shutil.copyfile(header.path, header.path.with_name(header.path.name + ".damaged"))
            cut = Cut(header.number, expected, f"{damage}; whole records followed and were cut with it")
        # Slots that were never used go with the torn ones: a segment that was left early takes no more than it holds.
        os.ftruncate(descriptor, slot_offset(tail.records))
    finally:
        os.close(descriptor)
    return tail.records, cut
