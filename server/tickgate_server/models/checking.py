"""Packages loaded while a server answers: checked by a process of its own, taken over by a thread.

All checks of `loading.load` hold the interpreter for long, so that none of them may run beside the thread that answers.
The checker is a child process on cores that nobody else wants (`models.checker`); the thread here waits for it, reads
its arrays with the interpreter let go, and makes the session of a version that stays with ONNX Runtime, which lets go
of it too. A checker that dies or takes too long has failed that load and no other: the next one gets a new checker.
"""

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, TypeAlias

import structlog

from tickgate_server.models.errors import CheckerFailed, LoadsFull, PackageError, VersionMissing
from tickgate_server.models.handover import error_of, model_of
from tickgate_server.models.loading import LoadedModel, load

LOADS_LIMIT = 64
# With fewer versions than this the server alone is sooner done than a checker has started.
_WORTH_A_CHECKER = 4
_START_LIMIT_S = 600.0
_LINE_BYTES = 1 << 24
_CLOSE_S = 2.0
# One thread each: pools would take the cores that answers need.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_LOG = structlog.get_logger()

OnLoaded: TypeAlias = Callable[[LoadedModel | PackageError | VersionMissing], None]


class Checker:
    """One checker process; one thread at a time.

    Args:
        limit_s: A package that takes longer has failed, and the process is killed.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._closed = False
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child that runs; None: the next package starts one."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Have a child that runs.

        Raises:
            OSError: It cannot be started.
        """
        if self._child is not None and self._child.poll() is None:
            return
        self._end()
        if self._closed:
            raise ChildProcessError("the checker was ended with its server")
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "tickgate_server.models.checker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
            bufsize=0,
        )

    def check(self, folder: Path, inline_limit_us: float) -> LoadedModel:
        """Have a package checked, and take it over.

        Raises:
            PackageError: As `loading.load`.
            CheckerFailed: The process ended, took too long, or cannot be started.
        """
        until = time.monotonic() + self._limit_s
        try:
            self.start()
            return self._check(folder, inline_limit_us, until)
        except _Lost as lost:
            why = self._end() or lost.why
        except OSError as error:
            self._end()
            why = str(error)
        raise CheckerFailed(folder, f"its checks did not end: {why}")

    def _check(self, folder: Path, inline_limit_us: float, until: float) -> LoadedModel:
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            raise _Lost("the checker has no pipes")
        asked = {"folder": str(folder.absolute()), "inline_limit_us": inline_limit_us}
        child.stdin.write(json.dumps(asked).encode() + b"\n")
        answers = _Answers(child.stdout.fileno(), until, self._limit_s)
        said: dict[str, Any] = json.loads(answers.line())
        if "error" in said:
            raise error_of(said)
        return model_of(folder, said, answers.read_into)

    def kill(self) -> None:
        """End the child, whatever it is at, and start no other; from any thread. Who waits for it learns that."""
        self._closed = True
        child = self._child
        if child is not None:
            child.kill()

    def close(self) -> None:
        """The same, and let go of what is left of it."""
        self.kill()
        self._end()

    def _end(self) -> str:
        """Kill what runs; how it had ended if it had, empty: it ran."""
        child, self._child = self._child, None
        if child is None:
            return ""
        status = child.poll()
        child.kill()
        child.wait(_CLOSE_S)
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return "" if status is None else f"the checker ended with status {status}"


class _Lost(Exception):
    """The checker does not answer any more."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class _Answers:
    """What a checker says, until a time."""

    def __init__(self, descriptor: int, until: float, limit_s: float) -> None:
        self._descriptor = descriptor
        self._until = until
        self._limit_s = limit_s
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._rest = b""

    def line(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            self._wait()
            piece = os.read(self._descriptor, 1 << 16)
            if not piece:
                raise _Lost("the checker ended")
            head, found, self._rest = piece.partition(b"\n")
            pieces.append(head)
            size += len(head)
            if found:
                return b"".join(pieces)
            if size > _LINE_BYTES:
                raise _Lost(f"the checker says more than {_LINE_BYTES} bytes in a line")

    def read_into(self, buffer: memoryview) -> None:
        at = min(len(self._rest), len(buffer))
        buffer[:at] = self._rest[:at]
        self._rest = self._rest[at:]
        while at < len(buffer):
            self._wait()
            count = os.readv(self._descriptor, [buffer[at:]])
            if not count:
                raise _Lost("the checker ended")
            at += count

    def _wait(self) -> None:
        left_s = max(self._until - time.monotonic(), 0.0)
        if not self._poll.poll(left_s * 1e3):
            raise _Lost(f"the checker took longer than {self._limit_s:g} s")


class Loader:
    """Loads one version after the other beside the thread that answers.

    Args:
        inline_limit_us: As `loading.load`.
        limit_s: As `Checker`.
        own_process: False: the checks run on a thread here, and hold answers up.
    """

    def __init__(self, inline_limit_us: float, limit_s: float, *, own_process: bool = True) -> None:
        self._inline_limit_us = inline_limit_us
        self._checker = Checker(limit_s)
        self._own_process = own_process
        self._asked: queue.Queue[tuple[Path, Callable[[], None], OnLoaded] | None] = queue.Queue(LOADS_LIMIT)
        self._closed = False
        self._thread: Thread | None = None
        if not own_process:
            return
        try:
            self._checker.start()  # a bare interpreter yet, and nobody is answered while it starts
        except OSError as error:  # tried again with the first load
            _LOG.error("checker not started", why=str(error))

    @property
    def pid(self) -> int | None:
        """As `Checker`."""
        return self._checker.pid

    def load(self, folder: Path, began: Callable[[], None], done: OnLoaded) -> None:
        """Load a package after those that were asked for before.

        Args:
            folder: `<repository>/<name>/<version>/`.
            began: Called on the loader's thread when its checks begin.
            done: Called there with the version, or with why it does not serve; without `began` where it is not there.

        Raises:
            LoadsFull: Too many wait.
        """
        try:
            self._asked.put_nowait((folder, began, done))
        except queue.Full:
            raise LoadsFull(LOADS_LIMIT) from None
        if self._thread is None:
            self._thread = Thread(target=self._work, name="tickgate-loader", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the checker and the thread; what is being loaded is given up, and nobody is told."""
        self._closed = True
        self._checker.kill()
        if self._thread is not None:
            with contextlib.suppress(queue.Full):  # it sees that it is closed all the same
                self._asked.put_nowait(None)
            self._thread.join(_CLOSE_S)
        if self._thread is None or not self._thread.is_alive():  # else it waits for the child yet, and daemons end
            self._checker.close()

    def _check(self, folder: Path) -> LoadedModel | PackageError:
        if not self._own_process:
            return _loaded(folder, self._inline_limit_us)
        try:
            return self._checker.check(folder, self._inline_limit_us)
        except PackageError as error:
            return error

    def _is_closed(self) -> bool:
        return self._closed

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None and not self._closed:
            folder, began, done = asked
            if not folder.is_dir():
                done(VersionMissing(folder.parent.name, int(folder.name)))
                continue
            began()
            try:
                result = self._check(folder)
            except Exception as error:  # noqa: BLE001 - the thread must go on, and who waits must be told
                _LOG.error("load failed", folder=str(folder), exc_info=error)
                result = CheckerFailed(folder, f"it cannot be taken over: {error!r}")
            if self._is_closed():
                return
            done(result)
            del asked, done, began, result


def load_in_parallel(folders: list[Path], inline_limit_us: float) -> list[LoadedModel | PackageError]:
    """Load packages at a start, when nobody is answered yet: here, and on each further core in a checker.

    Returns:
        For each folder, in their order, what passed, or why it did not.
    """
    results: dict[Path, LoadedModel | PackageError] = {}
    left = deque(folders)
    cores = len(os.sched_getaffinity(0))
    helpers = [
        Thread(target=_help, args=(left, inline_limit_us, results), name="tickgate-loading", daemon=True)
        for _ in range(min(cores - 1, len(folders) // _WORTH_A_CHECKER))
    ]
    for helper in helpers:
        helper.start()
    while left:
        with contextlib.suppress(IndexError):  # a helper took the last one
            folder = left.popleft()
            results[folder] = _loaded(folder, inline_limit_us)
    for helper in helpers:
        helper.join()
    return [results[folder] for folder in folders]


def _loaded(folder: Path, inline_limit_us: float) -> LoadedModel | PackageError:
    try:
        return load(folder, inline_limit_us=inline_limit_us)
    except PackageError as error:
        return error


def _help(left: deque[Path], inline_limit_us: float, results: dict[Path, LoadedModel | PackageError]) -> None:
    """Load from the end, in a checker; what a checker fails at is loaded here."""
    checker = Checker(_START_LIMIT_S)
    try:
        while left:
            try:
                folder = left.pop()
            except IndexError:
                return
            try:
                results[folder] = checker.check(folder, inline_limit_us)
            except CheckerFailed as error:
                _LOG.warning("a checker failed at the start", why=str(error))
                results[folder] = _loaded(folder, inline_limit_us)
            except PackageError as error:
                results[folder] = error
    finally:
        checker.close()
