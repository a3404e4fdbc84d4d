"""The archiver as a child process of the server, started anew where it dies.

The server needs nothing of it and waits for nothing it does: one thread sleeps until the child ends or the server does.
The child ends when its standard input does, which the kernel sees to even where the server is killed; what it has not
archived by then, the next one does.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Thread

import structlog

from tickgate_server.archive.how import ArchiverSettings
from tickgate_server.config import Settings

# What is left in a journal is archived in so long as the server ends; the rest waits for the next start.
DRAIN_S = 5.0
# Restarts in a row, each after twice the pause of the one before; one that lived for so long begins the row anew.
RESTARTS = 10
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
SETTLED_S = 60.0
# One thread each: their pools would take the cores that answers need. Memory goes back to the system between commits.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ARROW_IO_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}

_LOG = structlog.get_logger()


class ArchiveProcess:
    """An archiver in a process of its own.

    Args:
        folder: Of the archive.
        journals: Folders of one server's, in the order of its workers; they must exist.
        how: What it is to do.
        idle: Run it only on a core that nobody else wants.
        log_format: Of its log, which goes to this process's standard error.
        log_level: As above.
    """

    def __init__(
        self,
        folder: Path,
        journals: Sequence[Path],
        how: ArchiverSettings,
        *,
        idle: bool = True,
        log_format: str = "auto",
        log_level: str = "info",
    ) -> None:
        of_journals = [argument for journal in journals for argument in ("--journal", str(journal))]
        log = ["--log-format", log_format, "--log-level", log_level]
        self._command = [
            *(sys.executable, "-P", "-m", "tickgate_server.archive", *of_journals, "--archive", str(folder)),
            *("--settings", json.dumps(asdict(how)), *log, *(["--give-way"] if idle else [])),
        ]
        self._ending, self._told = os.pipe2(os.O_CLOEXEC)
        self._thread = Thread(target=self._keep, name="archive-supervisor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the child archive what is left in the journals, for DRAIN_S at most, and wait for its end."""
        os.close(self._told)
        self._thread.join()
        os.close(self._ending)

    def _keep(self) -> None:
        restarts = 0
        while True:
            began = time.monotonic()
            child = self._start()
            if child is not None:
                if self._ends(child.pid):
                    _end(child)
                    return
                _let_go(child)
                child.wait()
            if time.monotonic() - began >= SETTLED_S:
                restarts = 0
            status = None if child is None else child.returncode
            if restarts == RESTARTS:
                _LOG.error("archiver given up", status=status, restarts=RESTARTS)
                self._ends()
                return
            pause_s = min(FIRST_PAUSE_S * 2.0**restarts, LONGEST_PAUSE_S)
            restarts += 1
            _LOG.warning("archiver ended", status=status, starts_again_in_s=pause_s)
            if self._ends(within_s=pause_s):
                return

    def _ends(self, pid: int | None = None, within_s: float | None = None) -> bool:
        """Sleep until the server ends (True), the child does, or the time is up."""
        poll = select.poll()
        poll.register(self._ending, select.POLLIN | select.POLLHUP)
        descriptor = -1 if pid is None else os.pidfd_open(pid)
        try:
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
            found = poll.poll(None if within_s is None else within_s * 1e3)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return any(which == self._ending for which, _ in found)

    def _start(self) -> subprocess.Popen[bytes] | None:
        try:
            child = subprocess.Popen(  # noqa: S603 - this interpreter, this package
                self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, **_ENVIRONMENT}
            )
        except OSError as error:
            _LOG.error("archiver not started", why=str(error))
            return None
        _LOG.info("archiver started", pid=child.pid)
        return child


def start_archiver(settings: Settings, journals: Sequence[Path]) -> ArchiveProcess | None:
    """Have the journals archived; None, and the log says so where one was asked for, where they are not to be.

    Args:
        settings: The server's.
        journals: Its own, or those of its workers in their order; empty: none is kept.
    """
    section = settings.archive
    if section.folder is None:
        return None
    if not journals:
        _LOG.warning("nothing archived", why="journal.folder is none")
        return None
    return ArchiveProcess(
        section.folder,
        journals,
        how(settings),
        idle=section.scheduling == "idle",
        log_format=settings.log.format,
        log_level=settings.log.level,
    )


def how(settings: Settings) -> ArchiverSettings:
    """What the settings say of archiving."""
    section = settings.archive
    return ArchiverSettings(
        flush_s=section.flush_s,
        flush_rows=section.flush_rows,
        rows_a_file=section.rows_a_file,
        retention_days=section.retention_days,
        merge=section.merge,
        with_ticks=section.ticks,
    )


def _let_go(child: subprocess.Popen[bytes]) -> None:
    """Close the pipe to the child: it ends when it reads the end of its input."""
    if child.stdin is not None:
        child.stdin.close()


def _end(child: subprocess.Popen[bytes]) -> None:
    _let_go(child)
    try:
        status = child.wait(DRAIN_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        _LOG.info("archiver goes on at the next start", pid=child.pid)
        return
    if status:
        _LOG.warning("archiver failed", pid=child.pid, status=status)
    else:
        _LOG.debug("archiver stopped", pid=child.pid, status=status)
