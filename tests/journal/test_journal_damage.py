"""Damage and torn tails: what a file on disk can look like, and what is said of it."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.journal.journal_samples import append, overwrite, sequences, slot_at

from tickgate_server.journal.checksum import checksum, count_whole, seal
from tickgate_server.journal.errors import JournalMissing, RecordDamaged, SegmentInvalid
from tickgate_server.journal.layout import (
    PAYLOAD_BYTES,
    RECORD_BYTES,
    SEGMENT,
    ControlKind,
)
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.segments import segment_path
from tickgate_server.journal.verify import verify
from tickgate_server.journal.writer import JournalWriter


def journal(folder: Path, records: int, **bounds: int) -> Path:
    """A closed journal; its first segment."""
    with JournalWriter(folder, **{"segment_records": 64, **bounds}) as writer:
        append(writer, records)
    return segment_path(folder, 1)


def tail_of(path: Path, record: int) -> bytes:
    """A record's bytes."""
    return path.read_bytes()[slot_at(record) : slot_at(record + 1)]


@settings(max_examples=150, deadline=None)
@given(record=st.integers(0, 5), byte=st.integers(0, RECORD_BYTES - 1), flip=st.integers(1, 255))
def test_one_changed_byte_anywhere_in_a_record_is_found(
    tmp_path_factory: pytest.TempPathFactory, record: int, byte: int, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    path = journal(folder, 7)
    at = slot_at(record, byte)
    overwrite(path, at, bytes([path.read_bytes()[at] ^ flip]))
    found = verify(folder)
    (fault,) = found.faults
    assert isinstance(fault, RecordDamaged)
    assert (fault.offset, fault.first, fault.last, found.records) == (slot_at(record), record + 1, record + 1, 6)
    with pytest.raises(RecordDamaged):
        JournalWriter(folder)


def test_a_reader_says_what_is_damaged_and_goes_on_behind_it(tmp_path: Path) -> None:
    path = journal(tmp_path, 150)
    overwrite(path, slot_at(9, 100), b"\xff\xff")
    overwrite(path, slot_at(10, 100), b"\xff\xff")
    overwrite(path, slot_at(63, 0), bytes(8))
    with JournalReader(tmp_path) as reader:
        assert reader.poll()["sequence"].tolist() == list(range(1, 10))
        with pytest.raises(RecordDamaged, match=r"byte 11008: found record 10 with checksum .* to 11") as lost:
            reader.poll()
        assert (lost.value.first, lost.value.last) == (10, 11)
        assert reader.poll()["sequence"].tolist() == list(range(12, 64))
        with pytest.raises(RecordDamaged, match="bytes without a sequence"):
            reader.poll()
        assert sequences(reader) == list(range(65, 151))


def test_a_segment_cut_short_in_the_middle_of_a_journal_is_a_fault(tmp_path: Path) -> None:
    path = journal(tmp_path, 150)
    os.truncate(path, slot_at(60) + 5)
    (fault,) = verify(tmp_path).faults
    assert isinstance(fault, RecordDamaged)
    assert (fault.first, fault.last, fault.found) == (61, 64, "the end of the file")
    with JournalReader(tmp_path) as reader:
        assert reader.poll().size == 60
        with pytest.raises(RecordDamaged, match="found the end of the file, expected record 61, to 64"):
            reader.poll()
        assert sequences(reader) == list(range(65, 151))


def test_a_missing_segment_is_a_fault(tmp_path: Path) -> None:
    journal(tmp_path, 150)
    segment_path(tmp_path, 2).unlink()
    (fault,) = verify(tmp_path).faults
    assert "segment 3 behind 1" in str(fault)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("magic", b"TICKGATF", "found b'TICKGATF', expected b'TICKGATE'"),
        ("format_version", (99).to_bytes(4, "little"), "found 99, expected 3"),
        ("record_size", (640).to_bytes(4, "little"), "found 640, expected 768"),
        ("capacity", (65).to_bytes(8, "little"), "found checksum"),
        ("environment", b"[", "found checksum"),
        ("first_sequence", (2).to_bytes(8, "little"), "found first sequence 2, expected 1"),
    ],
)
def test_a_wrong_header_is_refused_by_all(tmp_path: Path, field: str, value: bytes, said: str) -> None:
    path = journal(tmp_path, 3)
    assert SEGMENT.fields is not None
    overwrite(path, int(SEGMENT.fields[field][1]), value)
    with pytest.raises(SegmentInvalid, match=said):
        JournalWriter(tmp_path)
    with JournalReader(tmp_path) as reader, pytest.raises(SegmentInvalid, match=said):
        reader.poll()
    (fault,) = verify(tmp_path).faults
    assert said in str(fault)


def test_a_file_shorter_than_a_header_is_refused(tmp_path: Path) -> None:
    path = journal(tmp_path, 3)
    for size in (100, 10, 0):
        os.truncate(path, size)
        with pytest.raises(SegmentInvalid, match=f"at byte {size}: found the end of the file"):
            JournalWriter(tmp_path)
        with JournalReader(tmp_path) as reader, pytest.raises(SegmentInvalid, match=f"at byte {size}"):
            reader.poll()


def test_a_segment_under_another_name_is_refused(tmp_path: Path) -> None:
    journal(tmp_path, 3).rename(segment_path(tmp_path, 2))
    with pytest.raises(SegmentInvalid, match="found number 1"):
        JournalWriter(tmp_path)


def test_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(JournalMissing):
        JournalReader(tmp_path / "none")
    with pytest.raises(JournalMissing):
        verify(tmp_path / "none")


@pytest.mark.parametrize(
    ("torn", "why"),
    [
        ("no sequence", "found bytes without a sequence, expected record 6"),
        ("bad checksum", "found record 6 with checksum"),
        ("wrong sequence", "found record 7, expected record 6"),
        ("part of a slot", "bytes of a slot, expected record 6"),
    ],
)
def test_a_torn_tail_is_cut_and_said_and_no_record_before_it_is_lost(tmp_path: Path, torn: str, why: str) -> None:
    path = journal(tmp_path, 5)
    last = bytearray(tail_of(path, 4))
    last[:8] = {"wrong sequence": 7, "bad checksum": 6}.get(torn, 0).to_bytes(8, "little")
    path.write_bytes(path.read_bytes() + (last[:300] if torn == "part of a slot" else last))
    before = verify(tmp_path)
    assert before.whole
    assert before.torn is not None
    assert why in before.torn.why
    with JournalReader(tmp_path) as reader:
        assert sequences(reader) == [1, 2, 3, 4, 5]
        with JournalWriter(tmp_path) as writer:
            cut = writer.recovery.cut
            assert cut == before.torn
            assert (cut.segment, cut.record, writer.next_sequence) == (1, 6, 6)
            append(writer, 2)
            assert sequences(reader) == [6, 7]
    assert path.stat().st_size == slot_at(5)
    after = verify(tmp_path)
    assert (after.whole, after.torn, after.records) == (True, None, 7)


def test_a_control_whose_first_record_is_missing_at_the_end_was_never_whole(tmp_path: Path) -> None:
    # Its records become visible from the last to the first: this is how a killed writer leaves one.
    with JournalWriter(tmp_path) as writer:
        append(writer, 2)
        writer.append_control(ControlKind.LIMITS, {"text": "x" * (3 * PAYLOAD_BYTES)})
    path = segment_path(tmp_path, 1)
    overwrite(path, slot_at(2), bytes(RECORD_BYTES))
    found = verify(tmp_path)
    assert found.whole
    assert found.torn is not None
    assert "an empty slot before written ones" in found.torn.why
    with JournalWriter(tmp_path) as writer, JournalReader(tmp_path) as reader:
        assert (writer.next_sequence, writer.recovery.cut) == (3, found.torn)
        append(writer)
        assert sequences(reader) == [1, 2, 3]


def test_damage_that_is_accepted_is_kept_beside(tmp_path: Path) -> None:
    path = journal(tmp_path, 10)
    overwrite(path, slot_at(4, 50), b"\xff\xff\xff")
    was = path.read_bytes()
    with JournalWriter(tmp_path, accept_damage=True) as writer:
        assert writer.next_sequence == 5
        assert writer.recovery.cut is not None
        assert "whole records followed" in writer.recovery.cut.why
    assert path.with_name(path.name + ".damaged").read_bytes() == was
    assert verify(tmp_path).whole


def test_segments_that_were_prepared_and_never_used_are_removed_at_the_start(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=8) as writer:
        append(writer, 5)
        writer.settle()
        prepared = segment_path(tmp_path, 2)
        kept = prepared.read_bytes()
    assert not prepared.exists()
    prepared.write_bytes(kept)
    (tmp_path / "segment-0000000003.journal.unfinished").write_bytes(b"x")
    assert verify(tmp_path).prepared == 1
    with JournalWriter(tmp_path, segment_records=8) as writer:
        assert writer.recovery.unfinished == 2
        append(writer, 20)
    assert verify(tmp_path).records == 25


def reference_checksum(record: bytes, sequence: int) -> int:
    """As the docstring of `journal.checksum` says it."""
    mask = 2**64 - 1

    def mix(lane: int, word: int) -> int:
        product = (lane ^ word) * 0x9E3779B185EBCA87 & mask
        return (product << 29 | product >> 35) & mask

    words = np.frombuffer(record, "<u8").tolist()
    lanes = [0x27D4EB2F165667C5] * 4
    lanes[0] ^= sequence
    for k in range(2, 96):
        lanes[k % 4] = mix(lanes[k % 4], words[k])
    result = lanes[0]
    for lane in lanes[1:]:
        result = mix(result, lane)
    return result ^ result >> 32


@given(record=st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES), sequence=st.integers(1, 2**64 - 1))
def test_the_checksum_is_what_its_reference_says(record: bytes, sequence: int) -> None:
    words = np.frombuffer(record, np.uint64).copy()
    expected = reference_checksum(record, sequence)
    assert checksum(words, 0, sequence) == expected
    seal(words, 0, sequence)
    assert words[1] == expected
    assert words.tobytes()[16:] == record[16:]
    words[0] = sequence
    assert count_whole(words, sequence) == 1
    assert count_whole(words, sequence ^ 1) == 0
