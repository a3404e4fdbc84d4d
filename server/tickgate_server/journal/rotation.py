"""A journal's folder from the writer's side: locked, recovered, filled segment by segment, old ones let go."""

import fcntl
import os
import platform
from collections.abc import Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import llvmlite.binding as llvmlite  # type: ignore[import-untyped]  # ships no types
import numpy as np

from tickgate_server import kernels
from tickgate_server.journal.allocation import Housekeeper, MappedSegment, create_segment
from tickgate_server.journal.checksum import seal
from tickgate_server.journal.errors import FolderLocked, JournalClosed
from tickgate_server.journal.layout import (
    CONTROL,
    HEADER_BYTES,
    PAYLOAD_BYTES,
    RECORD_BYTES,
    ControlKind,
    Flags,
    RecordKind,
    packer,
)
from tickgate_server.journal.recovery import recover
from tickgate_server.journal.segments import LOCK_FILE, segment_path
from tickgate_server.risk.checks import CHECKS

# Files at most, for each segment that is retained: starts that write little leave short segments.
MAX_FILES = 16

_LIBRARIES = ("tickgate", "numpy", "numba", "llvmlite", "onnxruntime")
_CONTROL_KIND = int(RecordKind.CONTROL)
_RESTATED = int(Flags.RESTATED)
_NO_WORDS = np.empty(0, np.uint64)
_CONTROL_STRUCT, _CONTROL_AT = packer(CONTROL, "kind")
_PACK_CONTROL = _CONTROL_STRUCT.pack_into


def environment() -> dict[str, Any]:
    """What bit-for-bit replay depends on: versions, CPU, kernels; and the names of the checks in their order."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    features = llvmlite.get_host_cpu_features()
    return {
        "versions": versions,
        "cpu": llvmlite.get_host_cpu_name(),
        "cpu_features": " ".join(sorted(name for name, there in features.items() if there)),
        "kernels": kernels.CACHE_FOLDER.name,
        "checks": [check.reason.name for check in CHECKS],
    }


class SegmentedFolder:
    """What `JournalWriter` appends to: the current segment, and the turn to the next.

    Attributes:
        recovery: What was found in the folder.
        next_sequence: Of the next record.
    """

    def __init__(self, folder: Path, capacity: int, retained: int, *, accept_damage: bool) -> None:
        if capacity < 2 or retained < 1:
            raise ValueError("expected segment_records >= 2 and retained_segments >= 1")
        self.folder = folder
        self._capacity = capacity
        self._retained = retained
        # What each segment begins with: the JSON of the MODEL, MODEL_REFUSED and ALIAS records in force, by kind and
        # index.
        self._statements: dict[tuple[ControlKind, int], bytes] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        try:
            self.recovery = recover(folder, accept_damage=accept_damage)
            make = partial(_make, folder, capacity, environment())
            first = make(self.recovery.next_segment)
        except BaseException:
            os.close(self._lock)
            raise
        self._number = self.recovery.next_segment
        self._housekeeper = Housekeeper(make, self._number + 1)
        self._kept = list(self.recovery.segments)  # number and first sequence of each segment, oldest first
        self._synced = self._number  # segments before it were flushed
        self.next_sequence = self.recovery.next_sequence
        self._slot = 0
        self._mark = 0  # the next slot at which something is due, see `_turn`; negative: closed
        self._enter(first)
        for path in self._outdated():
            path.unlink(missing_ok=True)

    @property
    def segment(self) -> Path:
        """The segment that is being filled."""
        return segment_path(self.folder, self._number)

    @property
    def segments_begun(self) -> int:
        """Number of the segment that is being filled."""
        return self._number

    @property
    def late_segments(self) -> int:
        """How often an append had to wait for the next segment to be prepared."""
        return self._housekeeper.late

    @property
    def failures(self) -> tuple[int, str]:
        """How often preparing, unmapping or removing segments failed in the background, and the last one's words."""
        return self._housekeeper.failures, self._housekeeper.last_failure

    def settle(self) -> None:
        """Wait for the helper thread: what was asked of it is done then. Not for the hot path."""
        self._housekeeper.settle()

    def flush(self) -> None:
        """Write everything appended so far to the disk, against the host's death. Blocks; not for the hot path.

        Raises:
            OSError: The disk's.
        """
        for number in range(self._synced, self._number + 1):
            try:
                descriptor = os.open(segment_path(self.folder, number), os.O_RDONLY)
            except FileNotFoundError:  # retention was faster
                continue
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._synced = self._number

    def close(self) -> None:
        """End the helper thread, shorten the last segment to what it holds, and let the folder go."""
        if self._mark < 0:
            return
        self._mark = -1
        self._leave()
        self._housekeeper.retire(self._segment, self._slot, ())
        self._slot = 0
        self._housekeeper.stop()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put_control(self, kind: ControlKind, data: bytes, parts: int, clock_ns: int, flags: int) -> int:
        """Publish the records of one control into slots that are there, from the last to the first."""
        first = self.next_sequence
        for part in range(parts - 1, -1, -1):
            piece = data[part * PAYLOAD_BYTES : (part + 1) * PAYLOAD_BYTES]
            sequence = first + part
            offset = HEADER_BYTES + (self._slot + part) * RECORD_BYTES
            _PACK_CONTROL(
                self._view,
                offset + _CONTROL_AT,
                _CONTROL_KIND,
                flags,
                kind,
                part,
                parts,
                len(piece),
                clock_ns,
                piece,
            )
            seal(self._array, offset >> 3, sequence)
            self._words[offset >> 3] = sequence
        self._slot += parts
        self.next_sequence = first + parts
        return first

    def _turn(self) -> None:
        """Something is due: the next segment to be prepared, or to be entered; or the journal is closed."""
        if self._mark < 0:
            raise JournalClosed(self.folder)
        if self._slot < self._capacity:
            self._housekeeper.prepare()
            self._mark = self._capacity
        else:
            self._rotate()

    def _rotate(self) -> None:
        """Go on in the next segment; where there is none, nothing has changed."""
        segment = self._housekeeper.take()
        left, used = self._segment, self._slot
        self._leave()
        self._number += 1
        self._enter(segment)
        self._housekeeper.retire(left, used, self._outdated())
        for (kind, _), data in self._statements.items():
            self._put_control(kind, data, 1, 0, _RESTATED)

    def _leave(self) -> None:
        """Let go of the current segment's mapping, so that it can be closed."""
        self._view.release()
        self._words.release()
        self._array = _NO_WORDS

    def _enter(self, segment: MappedSegment) -> None:
        segment.open(self.next_sequence)
        self._kept.append((self._number, self.next_sequence))
        self._segment = segment
        self._view = segment.view[:]
        self._words = segment.words[:]
        self._array = _NO_WORDS if segment.array is None else segment.array
        self._slot = 0
        self._mark = self._capacity // 2

    def _outdated(self) -> list[Path]:
        """Segments that retention lets go, taken off the list."""
        kept = self._kept
        room = (self._retained - 1) * self._capacity
        gone: list[Path] = []
        while len(kept) > 1 and (self.next_sequence - kept[1][1] >= room or len(kept) > MAX_FILES * self._retained):
            gone.append(segment_path(self.folder, kept.pop(0)[0]))
        return gone


def _make(folder: Path, capacity: int, written_with: Mapping[str, Any], number: int) -> MappedSegment:
    return create_segment(folder, number, capacity, written_with)


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise FolderLocked(folder, holder) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
