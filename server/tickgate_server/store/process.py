"""The store as a child process of the server: there while the server is, started anew where it dies.

The server needs nothing of it and waits for nothing it does. The child ends when its standard input does, which the
kernel sees to even where the server is killed; then it writes what is left in the journals, for a moment.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread

import structlog

from tickgate_server.config import Settings

# What is left in a journal is read and written in so long; the rest waits for the next start.
DRAIN_S = 8.0
# It is started again after so long, twice as long each time, up to the longest; one that lived for so long begins anew.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
SETTLED_S = 60.0
# One thread each: their pools would take the cores that answers need.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_LOG = structlog.get_logger()


class StoreProcess:
    """The store's process, kept running.

    Args:
        settings: The server's.
        journals: Folders of one server's, in the order of its workers; they must exist.
    """

    def __init__(self, settings: Settings, journals: Sequence[Path]) -> None:
        of_journals = [argument for folder in journals for argument in ("--journal", str(folder))]
        log = ["--log-format", settings.log.format, "--log-level", settings.log.level]
        give_way = ["--give-way"] if settings.store.scheduling == "idle" else []
        models = ["--models", str(settings.models.repository)]
        self._command = [sys.executable, "-P", "-m", "tickgate_server.store", *of_journals, *models, *log, *give_way]
        self._told = json.dumps(settings.store.with_secrets()).encode() + b"\n"
        self._end = Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = Thread(target=self._supervise, name="store-supervisor", daemon=True)
        self._start()
        self._thread.start()

    def close(self) -> None:
        """Let the child write what is left in the journals, for DRAIN_S at most, and wait for its end."""
        self._end.set()
        if self._child is not None:
            _let_go(self._child)
        self._thread.join(DRAIN_S)
        if self._thread.is_alive() and self._child is not None:
            self._child.kill()
            self._thread.join()
            _LOG.info("store goes on at the next start")

    def _start(self) -> None:
        try:
            child = subprocess.Popen(  # noqa: S603 - this interpreter, this package
                self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, **_ENVIRONMENT}
            )
            self._child = child
            if child.stdin is not None:
                child.stdin.write(self._told)
                child.stdin.flush()
        except OSError as error:
            _LOG.error("store not started", why=str(error))
            return
        _LOG.info("store started", pid=child.pid)
        if self._end.is_set():  # `close` saw the one before
            _let_go(child)

    def _supervise(self) -> None:
        """Sleep until the child ends; start it anew unless that was wanted."""
        pause_s = FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            child = self._child
            status = None if child is None else child.wait()
            if child is not None:
                _let_go(child)
            if self._end.is_set():
                if status:
                    _LOG.warning("store failed", status=status)
                return
            if time.monotonic() - began >= SETTLED_S:
                pause_s = FIRST_PAUSE_S
            _LOG.warning("store ended", status=status, starts_again_in_s=pause_s)
            if self._end.wait(pause_s):
                return
            pause_s = min(pause_s * 2.0, LONGEST_PAUSE_S)
            self._child = None
            self._start()


def start_store(settings: Settings, journals: Sequence[Path]) -> StoreProcess | None:
    """Have the store kept, where the settings name one.

    Args:
        settings: The server's.
        journals: Its own, or those of its workers in their order.
    """
    if settings.store.mode == "none" or not journals:
        return None
    return StoreProcess(settings, journals)


def _let_go(child: subprocess.Popen[bytes]) -> None:
    """Close the pipe to the child: it ends when it reads the end of its input."""
    if child.stdin is not None and not child.stdin.closed:
        try:
            child.stdin.close()
        except BrokenPipeError:  # it ended before it had read its settings
            return
