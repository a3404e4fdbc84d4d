"""Reads a journal while it is written, from any process: in order, each record once, nothing lost without a word."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from tickgate_server.journal.entries import (
    ControlAssembler,
    DecisionEntry,
    Entry,
    Model,
    RowNames,
    stated_models,
    ticks_entry,
)
from tickgate_server.journal.errors import RecordDamaged, RecordsRemoved
from tickgate_server.journal.layout import CONTROL, DECISION, TICKS, RecordKind
from tickgate_server.journal.segments import (
    Header,
    Rows,
    describe_slot,
    in_use,
    next_whole,
    read_header,
    read_slots,
    segment_numbers,
    segment_path,
    slot_offset,
    whole,
)

# Slots read at first; as long as all hold records, four times as many.
_PEEK = 16
_NOTHING = np.empty(0, DECISION)


class JournalReader:
    """Follows a journal from a sequence on. Never blocks; one thread at a time.

    Attributes:
        next_sequence: Of the record that comes next; 0 before the first segment was found.
        models: By index, those that the records polled last may name.
        symbols: By row, those that published ticks among them may be of.
        environment: Of the segment they are in: versions, CPU, kernels, names of the checks.

    Args:
        folder: Of the journal; it may be empty yet.
        start_sequence: First record wanted; None: the oldest there is. A control that began before it is not told.

    Raises:
        JournalMissing: There is no such folder.
        SegmentInvalid: The segment to begin with is none.
    """

    def __init__(self, folder: Path, start_sequence: int | None = None) -> None:
        self.folder = folder
        self.models: dict[int, Model] = {}
        self._names = RowNames()
        self.environment: Mapping[str, Any] = {}
        self.next_sequence = 0
        self._start = start_sequence or 0
        self._header: Header | None = None
        self._descriptor = -1
        self._slot = 0
        self._listed_ns = 0  # the folder's time of change when it was last listed
        self._assembler = ControlAssembler()
        segment_numbers(folder)

    @property
    def segment(self) -> Header | None:
        """The segment that the records polled last are in; None before there was one."""
        return self._header

    @property
    def symbols(self) -> Mapping[int, str]:
        """See above."""
        return self._names.symbols

    def poll(self, max_records: int = 1024) -> Rows:
        """New records, whole and in order; none where there are none yet.

        Args:
            max_records: Most at once. All of a batch are from one segment.

        Returns:
            DECISION [n]; `rows[rows["kind"] == RecordKind.CONTROL].view(CONTROL)` are the controls among them,
            `published.published_of(rows, reader.symbols)` the published ticks.

        Raises:
            RecordsRemoved: Retention was faster. The next poll goes on with the oldest record left.
            RecordDamaged: Records are not what was written. The next poll goes on behind them.
            SegmentInvalid: The next segment's header is not what it should be; each poll says so.
        """
        while self._header is not None or self._enter_oldest():
            rows = self._read(max_records)
            if rows.size:
                self._names.learn(rows)
                for model in stated_models(rows):
                    self.models[model.index] = model
                if self._start > int(rows["sequence"][0]):
                    rows = rows[rows["sequence"] >= self._start]
                if rows.size:
                    return rows
            elif not self._go_on():
                break
        return _NOTHING

    def __iter__(self) -> Iterator[Entry]:
        """Decisions, controls, published ticks until there are no more for now; iterating again goes on. As `poll`."""
        while (rows := self.poll()).size:
            checks = tuple(self.environment.get("checks", ()))
            for index, row in enumerate(rows):
                if row["kind"] == RecordKind.CONTROL:
                    entry = self._assembler.feed(rows[index : index + 1].view(CONTROL)[0])
                    if entry is not None:
                        yield entry
                elif row["kind"] == RecordKind.TICKS:
                    yield ticks_entry(rows[index : index + 1].view(TICKS)[0], self.symbols)
                else:
                    model = self.models.get(int(row["model_index"]))
                    yield DecisionEntry(int(row["sequence"]), row, model, checks)

    def close(self) -> None:
        """Close the segment that is open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
        self._header = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, max_records: int) -> Rows:
        """Whole records from the current slot on."""
        header = self._header
        if header is None:
            return _NOTHING
        batches: list[Rows] = []
        total = 0
        piece = _PEEK
        while (count := min(piece, max_records - total, header.capacity - self._slot)) > 0:
            rows = read_slots(self._descriptor, self._slot, count)
            good = whole(rows, self.next_sequence)
            if good:
                batches.append(rows[:good])
                total += good
                self._slot += good
                self.next_sequence += good
            if good < count:
                break
            piece *= 4
        if len(batches) == 1:
            return batches[0]
        return np.concatenate(batches) if batches else _NOTHING

    def _go_on(self) -> bool:
        """The current slot holds no whole record: enter the next segment, or say what is wrong, or wait (False)."""
        header = self._header
        if header is None:
            return False
        following = self._open(header.number + 1)
        if following is not None:
            descriptor, after = following
            if self.next_sequence < after.first_sequence:
                os.close(descriptor)
                # Filled since it was read, or damaged: nothing is stored here once the next segment is in use.
                return self._filled() or self._skip(header, after.first_sequence)
            self._enter(descriptor, after)
            return True
        return self._at_end(header)

    def _at_end(self, header: Header) -> bool:
        """Nothing follows: was this reader lapped, is it damage, or is it the end for now (False)?"""
        if self._following_is_gone(header.number + 1):
            if self._filled():
                return True
            self.close()
            return self._enter_oldest()
        # The end for now, unless whole records follow what is no record. An empty slot is taken for the end.
        row = read_slots(self._descriptor, self._slot, 1)
        if self._slot >= header.capacity or not row.size or not row["sequence"][0]:
            return False
        return self._filled() or self._skip(header, None)

    def _following_is_gone(self, number: int) -> bool:
        """Whether segment `number` is missing though later ones are there; looks only where something has changed."""
        changed_ns = self.folder.stat().st_mtime_ns
        if changed_ns == self._listed_ns and os.fstat(self._descriptor).st_nlink:
            return False
        self._listed_ns = changed_ns
        return number < min((other for other in segment_numbers(self.folder) if other >= number), default=0)

    def _filled(self) -> bool:
        """Whether the current slot holds a whole record by now."""
        return bool(whole(read_slots(self._descriptor, self._slot, 1), self.next_sequence))

    def _skip(self, header: Header, limit: int | None) -> bool:
        """Step over damage to the next whole record, or to the segment that begins with `limit`, and say so.

        Without a limit and without a whole record behind, it is the torn end of a writer that died: False.
        """
        first, slot = self.next_sequence, self._slot
        end = header.capacity if limit is None else min(header.capacity, limit - header.first_sequence)
        rows = read_slots(self._descriptor, slot, max(end - slot, 0))
        distance = next_whole(rows, first)
        if distance == rows.size:
            if limit is None:
                return False
            distance = limit - first
        if rows.size:
            found, expected = describe_slot(rows[0], first)
        else:
            found, expected = "the end of the file", f"record {first}"
        self._slot += distance
        self.next_sequence += distance
        last = self.next_sequence - 1
        raise RecordDamaged(header.path, slot_offset(slot), found, f"{expected}, to {last}", first, last)

    def _enter_oldest(self) -> bool:
        """Enter the segment to begin with: that of `next_sequence`, or else the oldest; False where there is none."""
        wanted = self.next_sequence or self._start
        chosen: tuple[int, Header] | None = None
        for number in segment_numbers(self.folder):
            opened = self._open(number)
            if opened is None:  # removed since it was listed, or not in use yet
                continue
            descriptor, header = opened
            if chosen is not None and header.first_sequence > wanted:
                os.close(descriptor)
                break
            if chosen is not None:
                os.close(chosen[0])
            chosen = (descriptor, header)
            if header.first_sequence > wanted or not wanted:
                break
        if chosen is None:
            return False
        first = chosen[1].first_sequence
        self._enter(*chosen)
        self.next_sequence = first
        if 0 < wanted < first:
            raise RecordsRemoved(self.folder, wanted, first - 1)
        return True

    def _open(self, number: int) -> tuple[int, Header] | None:
        """A segment that is in use, opened; None where it is not, or not there."""
        path = segment_path(self.folder, number)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            header = read_header(path, descriptor) if in_use(descriptor) else None
        except BaseException:
            os.close(descriptor)
            raise
        if header is None:
            os.close(descriptor)
            return None
        return descriptor, header

    def _enter(self, descriptor: int, header: Header) -> None:
        self.close()
        self._descriptor = descriptor
        self._header = header
        self._slot = 0
        self.models = {}
        self._names = RowNames()
        self.environment = header.environment
        self._assembler = ControlAssembler()
