"""The control block: a few numbers that the observer hands back to the hot path, each with its age.

A file of `FILE_BYTES`, mapped by both sides: a header of one page, then one cache line for each of `SLOTS` slots.
Little-endian words of 64 bits.

    header   word 0   MAGIC
             word 1   LAYOUT_VERSION
             words 2-3 the boot that the stamps belong to, see below
    slot     words 0-2 one copy: stamp, value, check
             words 4-6 the other copy

A stamp is CLOCK_MONOTONIC in nanoseconds, the same for all processes of one boot, whatever becomes of the wall clock;
a value is a float64. The check is a hash of slot, stamp and value: a copy that was read while it was written fails it,
as does one that a dying writer left half-written. The writer stores into the older copy, so wherever it stops or is
stopped, the newer one still holds: no lock, no retry, and no writer that lost its core can make a reader wait.

Fail closed: what was never written, is torn in both copies, too old, from the future, or from another boot reads as
NaN.
"""

import fcntl
import mmap
import os
import time
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel

MAGIC = int.from_bytes(b"TICKCTRL", "little")
LAYOUT_VERSION = 2
HEADER_BYTES = 4096
SLOT_WORDS = 8
SLOTS = 256
FILE_BYTES = HEADER_BYTES + SLOTS * SLOT_WORDS * 8
FILE_NAME = "control.block"  # beside the journal's segments, unless set otherwise

MODEL_SLOTS = 64  # models with values of their own: those whose index in the journal is below
MAX_AGE_NS = 5_000_000_000
NEVER_NS = 1 << 62
"""Age of a value that is not there."""

_HEADER_WORDS = HEADER_BYTES // 8
_PRIME = np.uint64(0x9E3779B185EBCA87)
_SEED = np.uint64(0x27D4EB2F165667C5)
_LEFT, _RIGHT, _HALF = np.uint64(29), np.uint64(35), np.uint64(32)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Slot(IntEnum):
    """Where each value is."""

    HEARTBEAT = 0  # sequence of the last record that the observer has read; its age is what counts
    OBSERVER_LAG_S = 1  # how long ago the observer had read all that was there
    RISK_DATA = 2  # as_of of risk-data.npz, seconds since the epoch; its age is the observer's
    RISK_DATA_GENERATION = 3  # that file's time of change in microseconds: another number, another file
    MODEL_LATENCY_US_P99 = 64  # + the model's index in the journal: total latency, last five minutes
    MODEL_DEGRADED = 128  # + the model's index in the journal: 1 while its health checks say so, 0 while not


class ControlBlockInvalid(Exception):
    """The file is no control block of this layout and boot.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: no control block: {why}")
        self.path = path


class ControlBlockLocked(Exception):
    """Another observer writes this control block.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: another observer writes this control block")
        self.path = path


@kernel("uint64(int64, uint64, uint64)")
def check_of(slot: int, stamp: Any, bits: Any) -> Any:
    """What the check must be; each step is a bijection, so one word that differs always gives another check."""
    found = (_SEED ^ np.uint64(slot) ^ stamp) * _PRIME
    found = (found << _LEFT) | (found >> _RIGHT)
    found = (found ^ bits) * _PRIME
    found = (found << _LEFT) | (found >> _RIGHT)
    return found ^ (found >> _HALF)


@kernel("void(uint64[::1], int64, uint64, uint64)")
def store(words: NDArray[np.uint64], slot: int, stamp: int, bits: int) -> None:
    """Store a value into the copy of a slot that is older or not whole; one writer at a time."""
    first = _HEADER_WORDS + slot * SLOT_WORDS
    second = first + SLOT_WORDS // 2
    at = first
    if words[first + 2] == check_of(slot, words[first], words[first + 1]) and (
        words[second + 2] != check_of(slot, words[second], words[second + 1]) or words[second] < words[first]
    ):
        at = second
    words[at] = stamp
    words[at + 1] = bits
    words[at + 2] = check_of(slot, stamp, bits)


@kernel("Tuple((uint64, uint64))(Array(uint64, 1, 'C', True), int64)")
def fetch(words: NDArray[np.uint64], slot: int) -> tuple[Any, Any]:
    """Stamp and value's bits of the newest whole copy; stamp 0 where there is none. Each word is read once."""
    stamp = np.uint64(0)
    bits = np.uint64(0)
    for copy in range(2):
        at = _HEADER_WORDS + slot * SLOT_WORDS + copy * (SLOT_WORDS // 2)
        found_stamp, found_bits, found_check = words[at], words[at + 1], words[at + 2]
        if found_stamp > stamp and found_check == check_of(slot, found_stamp, found_bits):
            stamp = found_stamp
            bits = found_bits
    return stamp, bits


def create(path: Path) -> None:
    """Make sure that there is a control block of this layout and boot, keeping one that is; every slot may be empty.

    Raises:
        OSError: The file cannot be made.
    """
    try:
        _require_valid(path, path.read_bytes())
    except (FileNotFoundError, ControlBlockInvalid):
        page = np.zeros(FILE_BYTES // 8, np.uint64)
        page[:4] = MAGIC, LAYOUT_VERSION, *_boot()
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
        unfinished.write_bytes(page.tobytes())
        unfinished.rename(path)


class ControlBlockWriter:
    """Writes values; one at a time for each file, and every slot is empty when it begins and when it ends.

    Raises:
        ControlBlockLocked: Another writer has the file.
        OSError: It cannot be made or mapped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        create(path)
        self._descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._mapping = mmap.mmap(self._descriptor, FILE_BYTES)
        except BlockingIOError:
            os.close(self._descriptor)
            raise ControlBlockLocked(path) from None
        except BaseException:
            os.close(self._descriptor)
            raise
        self._words: NDArray[np.uint64] | None = np.frombuffer(self._mapping, np.uint64)
        self.clear()

    def write(self, slot: int, value: float, stamp_ns: int | None = None) -> None:
        """Store a value, NaN included, as of `stamp_ns` on CLOCK_MONOTONIC; now if not given.

        Raises:
            IndexError: There is no such slot.
            ValueError: The block is closed.
        """
        if not 0 <= slot < SLOTS:
            raise IndexError(f"slot: expected 0 to {SLOTS - 1}, got {slot}")
        stamp_ns = time.monotonic_ns() if stamp_ns is None else stamp_ns
        store(self._open(), slot, stamp_ns, int(np.float64(value).view(np.uint64)))

    def clear(self, first: int = 0, end: int = SLOTS) -> None:
        """Empty the slots from `first` to before `end`: they read as missing at once."""
        self._open()[_HEADER_WORDS + first * SLOT_WORDS : _HEADER_WORDS + end * SLOT_WORDS] = 0

    def close(self) -> None:
        """Empty every slot and let the file go."""
        if self._words is None:
            return
        self.clear()
        self._words = None
        self._mapping.close()
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> NDArray[np.uint64]:
        if self._words is None:
            raise ValueError(f"{self.path}: closed")
        return self._words


class ControlBlockReader:
    """Reads values: one kernel call, no lock, no system call but the clock's.

    It stays with the file that it opened: `create` keeps a file that is valid, so a restarted observer writes into it.

    Raises:
        ControlBlockInvalid: The file is none, or of another boot.
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDONLY)
        try:
            _require_valid(path, os.pread(descriptor, FILE_BYTES, 0))
            mapping = mmap.mmap(descriptor, FILE_BYTES, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        self._words = np.frombuffer(mapping, np.uint64)

    def read(self, slot: int, max_age_ns: int = MAX_AGE_NS) -> tuple[float, int]:
        """A value and how old it is in nanoseconds.

        Args:
            slot: Of `Slot`.
            max_age_ns: What is older counts as missing.

        Returns:
            NaN where it is missing, older than `max_age_ns` or stamped later than now; its age is then `NEVER_NS`,
            what it is, or negative.

        Raises:
            IndexError: There is no such slot.
        """
        if not 0 <= slot < SLOTS:
            raise IndexError(f"slot: expected 0 to {SLOTS - 1}, got {slot}")
        stamp, bits = fetch(self._words, int(slot))  # numba looks at an enum for microseconds
        if not stamp:
            return float("nan"), NEVER_NS
        age_ns = time.monotonic_ns() - stamp
        if not 0 <= age_ns <= max_age_ns:
            return float("nan"), age_ns
        return float(np.uint64(bits).view(np.float64)), age_ns


def _boot() -> tuple[int, int]:
    """128 bits that name this boot of the machine; monotonic stamps of another one mean nothing."""
    identity = bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
    return int.from_bytes(identity[:8], "little"), int.from_bytes(identity[8:], "little")


def _require_valid(path: Path, data: bytes) -> None:
    if len(data) != FILE_BYTES:
        raise ControlBlockInvalid(path, f"expected {FILE_BYTES} bytes, found {len(data)}")
    magic, layout, *boot = np.frombuffer(data, np.uint64, 4).tolist()
    if (magic, layout) != (MAGIC, LAYOUT_VERSION):
        raise ControlBlockInvalid(path, f"expected layout {LAYOUT_VERSION}, found {magic:#018x}, {layout}")
    if tuple(boot) != _boot():
        raise ControlBlockInvalid(path, "it is of another boot")
