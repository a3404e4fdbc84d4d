"""The shadow scorer as a child process of the server: there while a model has a shadow, started anew where it dies.

One thread looks at the repository's alias files once a second and sleeps otherwise; it is woken when the child ends.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import structlog

from tickgate_server.beside import RESTARTS, SETTLED_S, Program, let_go, pause_after, wait_for
from tickgate_server.config import Settings
from tickgate_server.models.shadow_record import shadow_folder
from tickgate_server.shadow.watching import AliasFiles, unfinished

WATCH_S = 1.0
# What is left in a journal is scored in so long as the server ends; the rest waits for the next start.
DRAIN_S = 5.0

_LOG = structlog.get_logger()


class ShadowProcess:
    """A shadow scorer in a process of its own, while there is something to score.

    Args:
        repository: Of the models.
        journals: Folders of one server's, in the order of its workers; they must exist.
        retained: Comparisons to keep of a version.
        idle: Run it only on a core that nobody else wants.
        log_format: Of its log, which goes to this process's standard error.
        log_level: As above.
    """

    def __init__(
        self,
        repository: Path,
        journals: Sequence[Path],
        *,
        retained: int,
        idle: bool = True,
        log_format: str = "auto",
        log_level: str = "info",
    ) -> None:
        of_journals = [argument for folder in journals for argument in ("--journal", str(folder))]
        log = ["--log-format", log_format, "--log-level", log_level]
        arguments = [*of_journals, "--models", str(repository), "--retained", str(retained), *log]
        if idle:
            arguments.append("--give-way")
        self._program = Program("shadow scorer", "tickgate_server.shadow", arguments, DRAIN_S)
        self._files = AliasFiles(repository)
        # Of one that is no shadow since the last server ended, the rest is still to be scored.
        self._unfinished = bool(unfinished(shadow_folder(journals[0], len(journals))))
        self._child: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._restarts = 0
        self._start_at = 0.0  # not before
        self._ending, self._told = os.pipe2(os.O_CLOEXEC)
        self._thread = Thread(target=self._watch, name="shadow-supervisor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the child score what is left in the journals, for DRAIN_S at most, and wait for its end."""
        os.close(self._told)
        self._thread.join()
        os.close(self._ending)

    def _watch(self) -> None:
        self._look()
        while not self._wait():
            self._look()
        if self._child is not None:
            self._program.end(self._child)

    def _look(self) -> None:
        """Start the child, or let it go, as the aliases say."""
        if self._files.poll():
            self._restarts, self._start_at = 0, 0.0
        self._reap()
        wanted = bool(self._files.shadows) or self._unfinished
        if self._child is None and wanted and self._restarts <= RESTARTS and time.monotonic() >= self._start_at:
            self._start()
            self._unfinished = False
        elif self._child is not None and not wanted:
            let_go(self._child)

    def _wait(self) -> bool:
        """Sleep until there is something to look at; True: the server ends."""
        left = self._start_at - time.monotonic()
        at_most_s = min(WATCH_S, left) if left > 0.0 else WATCH_S
        return wait_for(self._ending, self._child, at_most_s)

    def _start(self) -> None:
        self._began = time.monotonic()
        self._child = self._program.start()
        if self._child is None:
            self._pause()

    def _reap(self) -> None:
        """See whether the child ended, and when it may be started again."""
        child = self._child
        if child is None or child.poll() is None:
            return
        self._child = None
        told = child.stdin is not None and child.stdin.closed
        let_go(child)
        if told and child.returncode == 0:
            _LOG.info("shadow scorer stopped", pid=child.pid, why="no model has a shadow")
            return
        if time.monotonic() - self._began >= SETTLED_S:
            self._restarts = 0
        pause_s = self._pause()
        if self._restarts > RESTARTS:
            _LOG.error("shadow scorer given up", status=child.returncode, restarts=RESTARTS)
        else:
            _LOG.warning("shadow scorer ended", pid=child.pid, status=child.returncode, starts_again_in_s=pause_s)

    def _pause(self) -> float:
        pause_s = pause_after(self._restarts)
        self._start_at = time.monotonic() + pause_s
        self._restarts += 1
        return pause_s


def start_shadow_scorer(settings: Settings, journals: Sequence[Path]) -> ShadowProcess | None:
    """Have shadows scored while there are any; None, and the log says so, where they are not to be or cannot be.

    Args:
        settings: The server's.
        journals: Its own, or those of its workers in their order; empty: none is kept.
    """
    repository = settings.models.repository
    if journals and settings.shadow.mode == "process":
        return ShadowProcess(
            repository,
            journals,
            retained=settings.shadow.retained_comparisons,
            idle=settings.shadow.scheduling == "idle",
            log_format=settings.log.format,
            log_level=settings.log.level,
        )
    files = AliasFiles(repository)
    files.poll()
    if files.shadows:
        why = "shadow.mode is none" if journals else "journal.folder is none"
        _LOG.warning("no shadow scoring", shadows=dict(files.shadows), why=why)
    return None
