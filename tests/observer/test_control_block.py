"""The control block: what is read was written, whole and not too old, or it is NaN."""

import itertools
import math
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_server.control_block import (
    FILE_BYTES,
    HEADER_BYTES,
    LAYOUT_VERSION,
    MAGIC,
    MAX_AGE_NS,
    NEVER_NS,
    SLOTS,
    ControlBlockInvalid,
    ControlBlockLocked,
    ControlBlockReader,
    ControlBlockWriter,
    Slot,
    check_of,
    create,
    fetch,
)

SLOT = int(Slot.OBSERVER_LAG_S)
# Where a slot's copies begin, in bytes.
COPIES = (HEADER_BYTES + SLOT * 64, HEADER_BYTES + SLOT * 64 + 32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("control") / "control.block"


def test_what_was_never_written_is_missing(path: Path) -> None:
    with ControlBlockWriter(path):
        reader = ControlBlockReader(path)
        for slot in range(SLOTS):
            value, age_ns = reader.read(slot)
            assert math.isnan(value)
            assert age_ns == NEVER_NS


@given(slot=st.integers(0, SLOTS - 1), values=st.lists(st.floats(), min_size=1, max_size=4))
def test_what_is_read_is_what_was_written_last_bit_for_bit(path: Path, slot: int, values: list[float]) -> None:
    with ControlBlockWriter(path) as writer:
        reader = ControlBlockReader(path)
        for value in values:
            writer.write(slot, value)
            found, age_ns = reader.read(slot)
            assert struct.pack("d", found) == struct.pack("d", value)
            assert age_ns >= 0
        assert all(math.isnan(reader.read(other)[0]) for other in range(SLOTS) if other != slot)


def test_a_value_lies_where_the_layout_says(path: Path) -> None:
    with ControlBlockWriter(path) as writer:
        writer.write(SLOT, 2.5, 1_000)
        data = path.read_bytes()
    assert len(data) == FILE_BYTES
    assert struct.unpack_from("<QQ", data) == (MAGIC, LAYOUT_VERSION)
    (bits,) = struct.unpack("<Q", struct.pack("<d", 2.5))
    assert struct.unpack_from("<QdQ", data, COPIES[0]) == (1_000, 2.5, check_of(SLOT, 1_000, bits))


@pytest.mark.parametrize(("stamp_ns", "there"), [(-MAX_AGE_NS - 10**9, False), (-(10**9), True), (60 * 10**9, False)])
def test_what_is_too_old_or_from_the_future_is_missing(path: Path, stamp_ns: int, there: bool) -> None:  # noqa: FBT001
    with ControlBlockWriter(path) as writer:
        now_ns = time.monotonic_ns()
        writer.write(SLOT, 1.0, max(now_ns + stamp_ns, 1))
        value, age_ns = ControlBlockReader(path).read(SLOT, MAX_AGE_NS if now_ns > 2 * MAX_AGE_NS else 10**9)
    assert math.isnan(value) is not there
    assert (age_ns < 0) == (stamp_ns > 0)


def test_a_writer_that_ends_leaves_nothing(path: Path) -> None:
    with ControlBlockWriter(path) as writer:
        writer.write(SLOT, 1.0)
        reader = ControlBlockReader(path)
        assert reader.read(SLOT)[0] == 1.0
    assert math.isnan(reader.read(SLOT)[0])


@given(
    before=st.lists(st.floats(allow_nan=False), min_size=1, max_size=3),
    value=st.floats(allow_nan=False),
    stored=st.sets(st.integers(0, 7)),
)
def test_a_write_that_was_stopped_half_way_leaves_the_value_before_it(
    path: Path, before: list[float], value: float, stored: set[int]
) -> None:
    """Whichever of a slot's words were stored before the writer was stopped."""
    with ControlBlockWriter(path) as writer:
        for stamp_ns, earlier in enumerate(before, 1):
            writer.write(SLOT, earlier, stamp_ns)
        old = np.frombuffer(path.read_bytes(), np.uint64)
        writer.write(SLOT, value, len(before) + 1)
        torn = np.frombuffer(path.read_bytes(), np.uint64).copy()
    for word in set(range(8)) - stored:
        torn[COPIES[0] // 8 + word] = old[COPIES[0] // 8 + word]
    torn.flags.writeable = False
    stamp, bits = fetch(torn, SLOT)
    found = struct.unpack("<d", struct.pack("<Q", bits))[0]
    assert (stamp, found) in {(len(before), before[-1]), (len(before) + 1, value)}


@given(words=st.lists(st.integers(0, 2**64 - 1), min_size=8, max_size=8))
def test_bytes_that_nobody_wrote_are_missing(words: list[int]) -> None:
    block = np.zeros(FILE_BYTES // 8, np.uint64)
    block[COPIES[0] // 8 : COPIES[0] // 8 + 8] = words
    block.flags.writeable = False
    assert fetch(block, SLOT) == (0, 0)


WRITER = """
import sys
from pathlib import Path
from tickgate_server.control_block import ControlBlockWriter
with ControlBlockWriter(Path(sys.argv[1])) as writer:
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        writer.write(3, number * 0.5, number)
"""


def test_no_read_beside_a_writer_is_torn(path: Path) -> None:
    """The value says what its stamp must be, in another process that writes without a pause."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        words = ControlBlockReader(path)._words
        seen = set()
        last = 0
        for _ in itertools.takewhile(lambda _: len(seen) < 20_000, itertools.count()):
            stamp, bits = fetch(words, 3)
            if stamp:
                assert struct.unpack("<d", struct.pack("<Q", bits))[0] == stamp * 0.5
                assert stamp >= last
                last = stamp
                seen.add(stamp)
            assert process.poll() is None
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_a_second_writer_is_refused(path: Path) -> None:
    with ControlBlockWriter(path), pytest.raises(ControlBlockLocked, match="another observer"):
        ControlBlockWriter(path)
    ControlBlockWriter(path).close()


def test_a_valid_file_is_kept_so_that_its_readers_see_the_next_writer(path: Path) -> None:
    create(path)
    reader = ControlBlockReader(path)
    create(path)
    with ControlBlockWriter(path) as writer:
        writer.write(SLOT, 4.0)
        assert reader.read(SLOT)[0] == 4.0


@pytest.mark.parametrize("fault", ["short", "magic", "layout", "boot"])
def test_a_file_that_is_none_is_refused_by_readers_and_replaced_by_writers(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "control.block"
    create(path)
    data = bytearray(path.read_bytes())
    if fault == "short":
        del data[100:]
    else:
        data[{"magic": 0, "layout": 8, "boot": 16}[fault]] ^= 1
    path.write_bytes(data)
    with pytest.raises(ControlBlockInvalid, match=str(path)):
        ControlBlockReader(path)
    ControlBlockWriter(path).close()
    assert math.isnan(ControlBlockReader(path).read(SLOT)[0])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("slot", [-1, SLOTS])
def test_a_slot_that_is_not_there_is_named(path: Path, slot: int) -> None:
    with ControlBlockWriter(path) as writer:
        with pytest.raises(IndexError, match="slot: expected 0 to 255"):
            writer.write(slot, 1.0)
        with pytest.raises(IndexError, match="slot: expected 0 to 255"):
            ControlBlockReader(path).read(slot)
