"""Segments come and go, one writer holds the folder, readers follow."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from tests.journal.journal_samples import append, sequences

from tickgate_server.journal import allocation, rotation
from tickgate_server.journal.errors import FolderLocked, JournalFull, NoSegment, RecordsRemoved
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.segments import segment_numbers
from tickgate_server.journal.verify import verify
from tickgate_server.journal.writer import JournalWriter


def test_an_empty_folder_has_nothing_to_read_yet(tmp_path: Path) -> None:
    with JournalReader(tmp_path) as reader:
        assert reader.poll().size == 0
        with JournalWriter(tmp_path) as writer:
            assert reader.poll().size == 0
            append(writer)
            assert sequences(reader) == [1]
            assert reader.poll().size == 0


def test_sequences_go_on_from_segment_to_segment(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=8) as writer, JournalReader(tmp_path) as reader:
        for count in (3, 5, 1, 7, 8, 16, 2):
            append(writer, count)
            rows = sequences(reader)
            assert rows == list(range(writer.next_sequence - count, writer.next_sequence))
        assert writer.segment.name == "segment-0000000006.journal"


def test_a_batch_is_at_most_what_was_asked_for_and_of_one_segment(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=100) as writer, JournalReader(tmp_path) as reader:
        append(writer, 130)
        assert [reader.poll(70).size for _ in range(4)] == [70, 30, 30, 0]


def test_the_oldest_segments_are_removed_beyond_the_limit(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=8, retained_segments=3) as writer:
        append(writer, 8 * 10)
        writer.settle()
        assert segment_numbers(tmp_path) == [8, 9, 10, 11]  # the last is prepared
        append(writer, 1)
        writer.settle()
        assert segment_numbers(tmp_path) == [9, 10, 11]
        assert writer.failures == (0, "")
    assert verify(tmp_path).records == 17


def test_short_segments_count_for_what_they_hold_and_their_number_is_bounded(tmp_path: Path) -> None:
    for _ in range(rotation.MAX_FILES + 5):
        with JournalWriter(tmp_path, segment_records=64, retained_segments=2) as writer:
            append(writer, 2)
        assert all(path.stat().st_size < 8192 for path in tmp_path.glob("*.journal"))
    assert verify(tmp_path).records == 2 * (rotation.MAX_FILES + 5)
    with JournalWriter(tmp_path, segment_records=8, retained_segments=2):
        # With bounds that small, eight records are enough: four segments of two, and the new one.
        assert segment_numbers(tmp_path) == [18, 19, 20, 21, 22]
    for _ in range(2 * rotation.MAX_FILES + 5):
        JournalWriter(tmp_path, retained_segments=1, segment_records=64).close()
    assert len(segment_numbers(tmp_path)) <= rotation.MAX_FILES


def test_a_reader_that_retention_lapped_says_what_it_missed(tmp_path: Path) -> None:
    with (
        JournalWriter(tmp_path, segment_records=8, retained_segments=2) as writer,
        JournalReader(tmp_path) as reader,
    ):
        append(writer, 4)
        assert sequences(reader) == [1, 2, 3, 4]
        append(writer, 48)
        writer.settle()
        # The segment it has open is read to its end though it was removed.
        assert reader.poll()["sequence"].tolist() == [5, 6, 7, 8]
        with pytest.raises(RecordsRemoved, match="records 9 to 40 were removed") as lost:
            reader.poll()
        assert (lost.value.first, lost.value.last) == (9, 40)
        assert sequences(reader) == list(range(41, 53))


def test_a_reader_starts_where_it_is_told(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=8, retained_segments=3) as writer:
        append(writer, 60)
        writer.settle()
        for start in (41, 45, 48, 49, 60):
            with JournalReader(tmp_path, start) as reader:
                assert sequences(reader) == list(range(start, 61))
        with JournalReader(tmp_path, 62) as reader:
            assert sequences(reader) == []
            append(writer, 3)
            assert sequences(reader) == [62, 63]
        with JournalReader(tmp_path, 5) as reader:
            with pytest.raises(RecordsRemoved, match="records 5 to 40"):
                reader.poll()
            assert sequences(reader) == list(range(41, 64))


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer:
        append(writer)
        with pytest.raises(FolderLocked, match=f"process {os.getpid()}"):
            JournalWriter(tmp_path)
        append(writer)
    with JournalWriter(tmp_path) as writer:
        assert writer.next_sequence == 3


def test_segments_are_ready_before_they_are_needed_and_a_late_one_is_counted(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=8) as writer:
        for _ in range(5):
            append(writer, 7)
            writer.settle()
            append(writer)
        assert writer.late_segments == 0
        # A control that does not fit goes into the next segment before half of this one is full.
        append(writer, 3)
        writer.append_control(ControlKind.LIMITS, {"text": "x" * 728 * 6})
        assert writer.late_segments == 1


def test_without_space_nothing_is_appended_and_an_append_later_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.posix_fallocate

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with JournalWriter(tmp_path, segment_records=8) as writer, JournalReader(tmp_path) as reader:
        monkeypatch.setattr(allocation.os, "posix_fallocate", full)
        append(writer, 8)
        writer.settle()
        assert writer.failures[0] == 1
        for _ in range(3):
            with pytest.raises(JournalFull, match="No space left on device; 10,240 bytes needed"):
                append(writer)
            with pytest.raises(NoSegment):
                writer.append_control(ControlKind.ORDER, {})
        assert sequences(reader) == list(range(1, 9))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "segment-0000000001.journal"]
        monkeypatch.setattr(allocation.os, "posix_fallocate", real)
        append(writer, 20)
        assert sequences(reader) == list(range(9, 29))


def test_a_folder_that_cannot_take_the_first_segment_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(allocation.os, "posix_fallocate", broken)
        with pytest.raises(NoSegment, match="Input/output error"):
            JournalWriter(tmp_path)
    JournalWriter(tmp_path).close()


def test_flush_takes_every_segment_since_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(rotation.os, "fdatasync", fdatasync)
    with JournalWriter(tmp_path, segment_records=8, retained_segments=2) as writer:
        append(writer, 20)
        writer.settle()
        writer.flush()
        assert synced == ["segment-0000000002.journal", "segment-0000000003.journal"]
        synced.clear()
        writer.flush()
        assert synced == ["segment-0000000003.journal"]


def test_bounds_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="segment_records >= 2"):
        JournalWriter(tmp_path, segment_records=1)


def test_a_record_is_in_memory_of_the_callers_own(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer, JournalReader(tmp_path) as reader:
        append(writer, 2)
        rows = reader.poll()
        kept = rows.copy()
        append(writer, 2)
        reader.poll()
        assert np.array_equal(rows.view(np.uint8), kept.view(np.uint8))
