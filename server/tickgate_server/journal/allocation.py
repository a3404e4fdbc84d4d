"""Segments made ready before they are needed: created, allocated, prefaulted and mapped on a thread of their own."""

import errno
import mmap
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.journal.errors import JournalFull, NoSegment
from tickgate_server.journal.segments import (
    UNFINISHED,
    encode_header,
    first_sequence_words,
    segment_bytes,
    segment_path,
    slot_offset,
)

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class MappedSegment:
    """A segment's file, mapped for writing; every page of it is there.

    Attributes:
        path: The file.
        capacity: Slots.
        view: All bytes.
        words: The same as unsigned 64-bit words: storing one is one instruction, so no reader sees half of it.
        array: The same words, for kernels. Whoever holds it on keeps the mapping from being closed.
    """

    __slots__ = ("_mapping", "array", "capacity", "path", "view", "words")

    array: NDArray[np.uint64] | None

    def __init__(self, path: Path, capacity: int, mapping: mmap.mmap) -> None:
        self.path = path
        self.capacity = capacity
        self._mapping = mapping
        self.view = memoryview(mapping)
        self.words = self.view.cast("Q")
        self.array = np.frombuffer(mapping, np.uint64)

    def open(self, first_sequence: int) -> None:
        """Put it to use: from now on readers look into it."""
        word, first, inverted = first_sequence_words(first_sequence)
        self.words[word + 1] = inverted
        self.words[word] = first

    def close(self, used: int) -> None:
        """Unmap it, and give back the slots behind the first `used`."""
        self.array = None
        self.words.release()
        self.view.release()
        self._mapping.close()
        if used < self.capacity:
            os.truncate(self.path, slot_offset(used))


def create_segment(folder: Path, number: int, capacity: int, environment: Mapping[str, Any]) -> MappedSegment:
    """Create, allocate, prefault and map a segment that is not in use yet.

    The file takes its name only when all is done: what was cut short is told by its name.

    Raises:
        JournalFull: There is no space; nothing is left behind.
        NoSegment: Another error of the system.
    """
    path = segment_path(folder, number)
    unfinished = path.with_name(path.name + UNFINISHED)
    size = segment_bytes(capacity)
    header = encode_header(number, capacity, time.time_ns(), environment)
    try:
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o640)
        try:
            # Without the blocks, a store into the mapping would be SIGBUS on a full disk.
            os.posix_fallocate(descriptor, 0, size)
            mapping = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        # One store a page takes the fault here. numpy lets the GIL go meanwhile, MAP_POPULATE would hold it.
        np.frombuffer(mapping, np.uint8)[:: mmap.PAGESIZE] = 0
        mapping[: len(header)] = header
        unfinished.rename(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        if error.errno in _NO_SPACE:
            raise JournalFull(path, os.strerror(error.errno or 0), size) from error
        raise NoSegment(path, str(error)) from error
    return MappedSegment(path, capacity, mapping)


class Housekeeper:
    """The writer's helper thread: prepares the next segment, unmaps left ones, removes old ones.

    Attributes:
        late: How often the next segment was not ready when it was needed, and the append waited for it.
        failures: How often a task of the thread failed.
        last_failure: The system's words about the last of them; empty: none.
    """

    def __init__(self, make: Callable[[int], MappedSegment], number: int) -> None:
        self._make = make
        self._number = number  # of the segment that is to come
        self._ready: MappedSegment | None = None
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.late = 0
        self.failures = 0
        self.last_failure = ""
        self._thread = threading.Thread(target=self._run, name="journal-housekeeper", daemon=True)
        self._thread.start()

    def prepare(self) -> None:
        """Have the next segment made ready."""
        self._tasks.put(self._prepare)

    def take(self) -> MappedSegment:
        """The next segment; made here and now where it is not ready.

        Where the thread is just at it, this waits for it: that is sooner than a second one.

        Raises:
            NoSegment: It cannot be had; asking again tries again.
        """
        with self._lock:
            segment, self._ready = self._ready, None
            if segment is None:
                self.late += 1
                segment = self._make(self._number)
            self._number += 1
            return segment

    def retire(self, segment: MappedSegment, used: int, old: Sequence[Path]) -> None:
        """Unmap a segment that was left after `used` slots, and remove old ones."""
        self._tasks.put(lambda: segment.close(used))
        for path in old:
            self._tasks.put(lambda path=path: path.unlink(missing_ok=True))  # type: ignore[misc]  # bound per turn

    def settle(self) -> None:
        """Wait until everything asked for so far is done."""
        done = threading.Event()
        self._tasks.put(done.set)
        done.wait()

    def stop(self) -> None:
        """Finish what was asked for, end the thread, and remove a segment that was not used."""
        self._tasks.put(None)
        self._thread.join()
        if self._ready is not None:
            self._ready.close(self._ready.capacity)
            self._ready.path.unlink(missing_ok=True)
            self._ready = None

    def _prepare(self) -> None:
        with self._lock:
            if self._ready is None:
                self._ready = self._make(self._number)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except (NoSegment, OSError) as error:
                # The append that needs the segment tries again and says why it cannot; what could not be removed or
                # cut short only takes space, which the next segment's allocation answers for.
                self.failures += 1
                self.last_failure = str(error)
