"""A process beside the server that follows its journals: started, kept running and let go of; both sides of that.

The server needs nothing of it and waits for nothing it does. The two are joined by one pipe: the child ends when its
standard input does, which the kernel sees to even where the server is killed; what it has not done by then, the next
one does.
"""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import structlog

# Restarts in a row, each after twice the pause of the one before; one that lived for so long begins the row anew.
RESTARTS = 10
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
SETTLED_S = 60.0
_RETRY_S = 0.05
# One thread each: their pools would take the cores that answers need. Two arenas of memory: each scrape is a thread,
# and every arena that one came upon would keep what it took.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}

_LOG = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Program:
    """What is run.

    Attributes:
        name: In the log.
        module: Of this package, run by this interpreter.
        arguments: Its own.
        drain_s: How long it may take for what is left when the server ends; the rest waits for the next start.
        environment: Beside the server's own and `ENVIRONMENT`.
        told: What it reads first, a line for what is not for everybody's eyes.
    """

    name: str
    module: str
    arguments: Sequence[str]
    drain_s: float
    environment: Mapping[str, str] = field(default_factory=dict)
    told: bytes = b""

    def start(self) -> subprocess.Popen[bytes] | None:
        """The child; None, and the log says why, where there is none."""
        try:
            child = subprocess.Popen(  # noqa: S603 - this interpreter, this package
                [sys.executable, "-P", "-m", self.module, *self.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **ENVIRONMENT, **self.environment},
            )
        except OSError as error:
            _LOG.error(f"{self.name} not started", why=str(error))
            return None
        if self.told and child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it ended at once, which is seen by who waits for it
                child.stdin.write(self.told)
                child.stdin.flush()
        _LOG.info(f"{self.name} started", pid=child.pid)
        return child

    def end(self, child: subprocess.Popen[bytes]) -> None:
        """Let a child do what is left, for `drain_s` at most, and wait for its end."""
        let_go(child)
        try:
            status = child.wait(self.drain_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            _LOG.info(f"{self.name} goes on at the next start", pid=child.pid)
            return
        if status:
            _LOG.warning(f"{self.name} failed", pid=child.pid, status=status)
        else:
            _LOG.debug(f"{self.name} stopped", pid=child.pid, status=status)


class KeptRunning:
    """A program that runs while the server does, started anew where it dies.

    One thread sleeps until the child ends or the server does.

    Args:
        program: To run.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._ending, self._told = os.pipe2(os.O_CLOEXEC)
        self._thread = Thread(target=self._keep, name=f"{program.name}-supervisor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the child do what is left, and wait for its end."""
        os.close(self._told)
        self._thread.join()
        os.close(self._ending)

    def _keep(self) -> None:
        name = self._program.name
        restarts = 0
        while True:
            began = time.monotonic()
            child = self._program.start()
            if child is not None:
                if wait_for(self._ending, child):
                    self._program.end(child)
                    return
                let_go(child)
                child.wait()
            if time.monotonic() - began >= SETTLED_S:
                restarts = 0
            status = None if child is None else child.returncode
            if restarts == RESTARTS:
                _LOG.error(f"{name} given up", status=status, restarts=RESTARTS)
                wait_for(self._ending)
                return
            pause_s = pause_after(restarts)
            restarts += 1
            _LOG.warning(f"{name} ended", status=status, starts_again_in_s=pause_s)
            if wait_for(self._ending, within_s=pause_s):
                return


def pause_after(restarts: int) -> float:
    """How long to wait before another start, after so many in a row."""
    return min(FIRST_PAUSE_S * 2.0**restarts, LONGEST_PAUSE_S)


def wait_for(ending: int, child: subprocess.Popen[bytes] | None = None, within_s: float | None = None) -> bool:
    """Sleep until a pipe is closed at its other end (True), a child has ended, or the time is up."""
    poll = select.poll()
    poll.register(ending, select.POLLIN | select.POLLHUP)
    with contextlib.ExitStack() as stack:
        if child is not None:
            descriptor = os.pidfd_open(child.pid)
            stack.callback(os.close, descriptor)
            poll.register(descriptor, select.POLLIN)
        found = poll.poll(None if within_s is None else within_s * 1e3)
    return any(which == ending for which, _ in found)


def let_go(child: subprocess.Popen[bytes]) -> None:
    """Close the pipe to the child: it ends when it reads the end of its input."""
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # it ended before it had read what it was told
            child.stdin.close()


def until_let_go(then: Callable[[], object] = lambda: None) -> Event:
    """In the child: an event that is set when the server lets go of its end of the pipe.

    What stops a group of processes, SIGTERM or SIGINT, is for the server: it says when to end.

    Args:
        then: Called when the event has been set.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    end = Event()

    def watch() -> None:
        os.read(0, 1)  # nothing is written there any more
        end.set()
        then()

    Thread(target=watch, name="end", daemon=True).start()
    return end


def by_worker(journals: Sequence[Path]) -> dict[str, Path]:
    """Journals by the name that tells them from each other; empty where there is one."""
    return {journal.name if len(journals) > 1 else "": journal for journal in journals}


@contextlib.contextmanager
def alone(lock: Path, end: Event, name: str) -> Iterator[bool]:
    """Hold a lock file; what a server that was killed left running lets go of it when it has done what was left.

    False: the end came first.

    Args:
        lock: The file; its folder is there.
        end: Stops the waiting.
        name: Of what runs here, for the log.
    """
    with lock.open("ab") as file:
        waited = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    _LOG.info(f"another {name} is still at work", folder=str(lock.parent), pid=os.getpid())
                waited = True
                if not end.wait(_RETRY_S):
                    continue
                yield False
                return
            yield True
            return
