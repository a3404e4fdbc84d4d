"""Checks a whole journal: every header, every sequence, every checksum, and how it ends."""

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tickgate_server.journal.errors import Damaged, RecordDamaged, SegmentInvalid
from tickgate_server.journal.recovery import Cut, read_tail
from tickgate_server.journal.segments import (
    Header,
    describe_slot,
    next_whole,
    read_header,
    read_slots,
    segment_numbers,
    segment_path,
    slot_offset,
    whole,
)


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """One segment in use.

    Attributes:
        header: What it says of itself.
        records: Whole records in it.
    """

    header: Header
    records: int


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found.

    Attributes:
        segments: In use, oldest first, whose header is valid.
        prepared: Segments that were made ready and not used yet.
        torn: The torn tail at the very end, if there is one: no fault, the next writer cuts it. A running writer's
            append under way may look like one.
        faults: Everything else that is wrong.
    """

    segments: tuple[SegmentReport, ...]
    prepared: int
    torn: Cut | None
    faults: tuple[Damaged, ...]

    @property
    def records(self) -> int:
        """Whole records in all."""
        return sum(segment.records for segment in self.segments)

    @property
    def whole(self) -> bool:
        """Whether nothing but perhaps a torn tail is wrong."""
        return not self.faults


def verify(folder: Path) -> Verification:
    """Read everything in a journal's folder; a writer may be at work meanwhile, its retention too.

    Raises:
        JournalMissing: There is no such folder.
    """
    faults: list[Damaged] = []
    opened: list[tuple[int, Header]] = []
    prepared = 0
    try:
        for number in segment_numbers(folder):
            path = segment_path(folder, number)
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:  # retention was faster
                continue
            try:
                header = read_header(path, descriptor)
            except SegmentInvalid as fault:
                os.close(descriptor)
                faults.append(fault)
                continue
            if header.first_sequence:
                opened.append((descriptor, header))
            else:
                os.close(descriptor)
                prepared += 1
        reports: list[SegmentReport] = []
        for (descriptor, header), (_, after) in pairwise(opened):
            if after.number == header.number + 1:
                reports.append(_closed(descriptor, header, after.first_sequence, faults))
            else:
                reports.append(_last(descriptor, header, faults)[0])
                found = f"segment {after.number} behind {header.number}"
                faults.append(SegmentInvalid(after.path, 0, found, f"segment {header.number + 1}"))
        torn = None
        if opened:
            report, torn = _last(*opened[-1], faults)
            reports.append(report)
    finally:
        for descriptor, _ in opened:
            os.close(descriptor)
    return Verification(tuple(reports), prepared, torn, tuple(faults))


def _closed(descriptor: int, header: Header, end_sequence: int, faults: list[Damaged]) -> SegmentReport:
    """A segment that another follows, whose first sequence says how many records this one holds."""
    records, slot = 0, 0
    count = end_sequence - header.first_sequence
    if not 0 <= count <= header.capacity:
        found = f"{count} records before the next segment"
        faults.append(SegmentInvalid(header.path, 0, found, f"0 to {header.capacity}"))
        return SegmentReport(header, 0)
    while slot < count:
        rows = read_slots(descriptor, slot, min(4096, count - slot))
        good = whole(rows, header.first_sequence + slot)
        records += good
        slot += good
        if good == rows.size and rows.size:
            continue
        first = header.first_sequence + slot
        lost = next_whole(rows[good:], first) if rows.size else count - slot
        found, expected = describe_slot(rows[good], first) if rows.size else ("the end of the file", f"record {first}")
        faults.append(RecordDamaged(header.path, slot_offset(slot), found, expected, first, first + lost - 1))
        slot += lost
    return SegmentReport(header, records)


def _last(descriptor: int, header: Header, faults: list[Damaged]) -> tuple[SegmentReport, Cut | None]:
    tail = read_tail(header, descriptor)
    if tail.damaged < 0:
        return SegmentReport(header, tail.records), tail.torn
    # Whole records behind the damage: count on behind each, as if the next segment began where the last of them ends.
    end = tail.damaged
    while (rows := read_slots(descriptor, end, min(4096, header.capacity - end))).size:
        good = whole(rows, header.first_sequence + end)
        step = good or next_whole(rows, header.first_sequence + end)
        if not good and step == rows.size:
            break
        end += step
    return _closed(descriptor, header, header.first_sequence + end, faults), None
