"""The observer as a child process of the server: started, supervised, ended.

The two are joined by pipes alone. The child says on its standard output where it serves metrics, or why it cannot, and
ends when its standard input does, which the kernel sees to even where the server is killed. It starts as a fresh
interpreter: it shares no memory, no lock and no socket with the server.

On the server's side one thread sleeps in waitpid, so that the hot path has nothing to do with it. Starting a child
anew holds the GIL until it has become the new program, a few milliseconds; that happens after a crash, a bounded
number of times.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread

import structlog

from tickgate_server.alert_settings import AlertSettings
from tickgate_server.beside import ENVIRONMENT, FIRST_PAUSE_S, LONGEST_PAUSE_S, RESTARTS, SETTLED_S, let_go
from tickgate_server.observer.address import split_address
from tickgate_server.risk.estimates import RiskValueSettings

# A machine that compiles every kernel anew takes long.
START_UP_S = 120.0
# What is left in a journal is read in so long; a child that takes longer is killed.
DRAIN_S = 10.0

_LOG = structlog.get_logger()


class ObserverNotStarted(Exception):
    """The observer's process did not come up; says why."""


class ObserverProcess:
    """An observer in a process of its own, started anew where it dies.

    Args:
        journals: As `Observer`.
        metrics_listen: As `Observer`.
        log_format: Of its log, which goes to this process's standard error.
        log_level: As above.
        risk: As `Observer`.
        models: As `Observer`.
        alerts: As `Observer`.

    Raises:
        ValueError: The metrics' address is no `host:port`.
        OSError: The process cannot be started.
    """

    def __init__(
        self,
        journals: Sequence[Path],
        metrics_listen: str,
        *,
        log_format: str = "auto",
        log_level: str = "info",
        risk: RiskValueSettings | None = None,
        models: Path | None = None,
        alerts: AlertSettings | None = None,
    ) -> None:
        if metrics_listen:
            split_address(metrics_listen)
        self._journals = journals
        self._listen = metrics_listen
        self._log = ["--log-format", log_format, "--log-level", log_level]
        self._risk = [] if risk is None else ["--risk-settings", risk.model_dump_json()]
        self._models = [] if models is None else ["--models", str(models)]
        self._alerts = []
        if alerts is not None and alerts.wanted:
            self._alerts = ["--alert-settings", alerts.model_dump_json()]
        self._end = Event()
        self._observed = False  # whether a child ever came up
        self._supervisor: Thread | None = None
        self._child = self._start()

    @property
    def pid(self) -> int:
        """Process id of the child that runs, or that ran last."""
        return self._child.pid

    def ready(self) -> str | None:
        """Wait until the child observes, and supervise it from then on; the address that it serves metrics on.

        Raises:
            ObserverNotStarted: It says why not, ended without a word, or took longer than START_UP_S.
        """
        address = _reported(self._child)
        _LOG.info("observer started", pid=self._child.pid, metrics=address)
        self._observed = True
        # A child that takes its place is found where this one was.
        self._listen = address or ""
        self._supervisor = Thread(target=self._supervise, name="observer-supervisor", daemon=True)
        self._supervisor.start()
        return address

    def close(self) -> None:
        """Let the child take in what is left in the journal, and wait for its end."""
        self._end.set()
        let_go(self._child)
        if self._supervisor is None:
            # It was never waited for: the server did not come so far.
            self._supervisor = Thread(target=self._supervise, name="observer-supervisor", daemon=True)
            self._supervisor.start()
        self._supervisor.join(DRAIN_S)
        if self._supervisor.is_alive():
            self._child.kill()
            self._supervisor.join()
        _LOG.debug("observer stopped", pid=self._child.pid, status=self._child.returncode)

    def _start(self) -> subprocess.Popen[bytes]:
        journals = [argument for folder in self._journals for argument in ("--journal", str(folder))]
        return subprocess.Popen(  # noqa: S603 - this interpreter, this package
            [
                *(sys.executable, "-P", "-m", "tickgate_server.observer", "--attached"),
                *(*journals, "--metrics-listen", self._listen, *self._log, *self._risk, *self._models, *self._alerts),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
        )

    def _supervise(self) -> None:
        """Sleep until the child ends; start it anew unless that was wanted."""
        pause_s = FIRST_PAUSE_S
        restarts = 0
        while True:
            began = time.monotonic()
            status = self._child.wait()
            let_go(self._child)
            if self._child.stdout is not None:
                self._child.stdout.close()
            if self._end.is_set():
                if status and self._observed:
                    _LOG.warning("observer failed", pid=self._child.pid, status=status)
                return
            if time.monotonic() - began >= SETTLED_S:
                pause_s, restarts = FIRST_PAUSE_S, 0
            if restarts >= RESTARTS:
                _LOG.error("observer given up", status=status, restarts=restarts)
                return
            _LOG.warning("observer ended", pid=self._child.pid, status=status, starts_again_in_s=pause_s)
            if self._end.wait(pause_s):
                return
            pause_s = min(pause_s * 2.0, LONGEST_PAUSE_S)
            restarts += 1
            self._start_again()

    def _start_again(self) -> None:
        try:
            self._child = self._start()
            if self._end.is_set():  # `close` saw the one before
                let_go(self._child)
                return
            address = _reported(self._child)
        except (OSError, ObserverNotStarted) as error:
            _LOG.error("observer not started", why=str(error))
            return
        _LOG.info("observer started", pid=self._child.pid, metrics=address)


def _reported(child: subprocess.Popen[bytes]) -> str | None:
    """What the child says of itself; it is ended where it says nothing."""
    if child.stdout is None:
        raise ObserverNotStarted("its output cannot be read")
    poll = select.poll()
    give_up = time.monotonic() + START_UP_S
    said = b""
    with child.stdout as output:
        poll.register(output, select.POLLIN)
        while not said.endswith(b"\n"):
            if not poll.poll(max(give_up - time.monotonic(), 0.0) * 1e3):
                child.kill()
                raise ObserverNotStarted(f"the observer said nothing within {START_UP_S:g} s")
            piece = os.read(output.fileno(), 4096)
            if not piece:
                raise ObserverNotStarted(f"the observer ended with status {child.wait()} before it observed")
            said += piece
    report = json.loads(said)
    if "error" in report:
        raise ObserverNotStarted(str(report["error"]))
    return None if report["metrics"] is None else str(report["metrics"])
