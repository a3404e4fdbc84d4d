"""A server of the run's own, which ends with it; or one that runs already."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tickgate_client.errors import TickgateError
from tickgate_client.paper import served
from tickgate_client.paper.config import Server

_STOP_S = 30.0
_LOOK_S = 0.02
_LINES = 20


class ServerNotStarted(TickgateError):
    """The server that was started ended, or said nothing, before it served.

    Attributes:
        log: Its log.
        said: The end of it.
    """

    def __init__(self, log: Path, said: str) -> None:
        super().__init__(f"the server did not begin to serve; the end of {log}: {said}")
        self.log = log
        self.said = said


class PaperServer:
    """Starts `tickgate serve` where the configuration has models, and starts it again where it has ended.

    Args:
        config: As configured.
        folder: Of the run: `journal/`, `server.log` and `server.pid` are made in it.

    Attributes:
        target: Data listener.
        service: Service listener.
    """

    def __init__(self, config: Server, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._log = folder / "server.log"
        self._pid_file = folder / "server.pid"
        self._process: subprocess.Popen[str] | None = None
        self.target, self.service = config.target, config.service

    def ensure(self) -> None:
        """Have it run; raises ServerNotStarted."""
        if self._config.models and (self._process is None or self._process.poll() is not None):
            self._start()

    def close(self) -> None:
        """Let one that was started drain, and wait for its end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Self:
        self.ensure()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        settings = ["--config", self._config.settings] if self._config.settings else []
        command = [
            *(sys.executable, "-m", served.__name__, str(os.getpid()), "serve", *settings),
            *("--models", self._config.models, "--clock", "replay", "--journal", str(self._folder / "journal")),
            # The same ones after a restart: clients of it come back by themselves.
            *("--listen", self.target or "127.0.0.1:0", "--service-listen", self.service or "127.0.0.1:0"),
            *("--admin-listen", f"unix:{self._folder / 'admin.sock'}", "--metrics-listen", ""),
        ]
        self._wait_for_the_last_one()
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command, stderr=subprocess.PIPE, text=True
        )
        self._pid_file.write_text(str(self._process.pid))
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._follow, args=(self._process, lines), daemon=True).start()
        said: list[str] = []
        while True:
            try:
                line = lines.get(timeout=self._config.wait_s)
            except queue.Empty:
                line = None
            if line is None:
                self._process.kill()
                raise ServerNotStarted(self._log, " ".join(said[-_LINES:]))
            said.append(line.strip())
            found = _serving(line)
            if found is not None:
                self.target, self.service = found
                return

    def _wait_for_the_last_one(self) -> None:
        """Wait until the server of a process that was killed has drained: it holds the journal."""
        due_s = time.monotonic() + self._config.wait_s
        while self._pid_file.exists() and _is_ours(int(self._pid_file.read_text())):
            if time.monotonic() > due_s:
                raise ServerNotStarted(self._log, "the one of an earlier run does not end")
            time.sleep(_LOOK_S)

    def _follow(self, process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
        stream = process.stderr
        if stream is None:
            raise ValueError("the server was started without a pipe for its log")
        with stream, self._log.open("a", encoding="utf-8") as log:
            for line in stream:
                log.write(line)
                log.flush()
                if lines.qsize() < 1024:  # nobody reads them once it serves
                    lines.put(line)
        lines.put(None)


def _is_ours(pid: int) -> bool:
    """Whether a process is a server that a paper run started, and no other that has its number by now."""
    try:
        return f"\0{served.__name__}\0".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _serving(line: str) -> tuple[str, str] | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    if not isinstance(said, dict) or said.get("event") != "serving":
        return None
    return str(said["address"]), str(said["service"])
