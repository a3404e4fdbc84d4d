"""Real servers for the tests: `tickgate serve` as a user starts it, on free ports."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TICKGATE = str(Path(sys.executable).with_name("tickgate"))
START_UP_S = 60.0


class ServerProcess:
    """A running `tickgate serve`; its log lines are read as they come."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        self.events: list[dict[str, Any]] = []
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.process = subprocess.Popen(
            [TICKGATE, "serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        with stream:
            for line in stream:
                try:
                    self._lines.put(json.loads(line))
                except json.JSONDecodeError:
                    self._lines.put({"event": "text", "text": line.rstrip()})
        self._lines.put(None)

    def wait_for(self, event: str, timeout_s: float = START_UP_S) -> dict[str, Any]:
        """The next log line of that event; fails with all lines where it does not come."""
        while True:
            try:
                line = self._lines.get(timeout=timeout_s)
            except queue.Empty:
                raise AssertionError(f"no {event!r} within {timeout_s} s; log: {self.events}") from None
            if line is None:
                raise AssertionError(f"the server ended before {event!r}; log: {self.events}")
            self.events.append(line)
            if line["event"] == event:
                return line

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        """Send a signal and wait for the end; returns the exit status, and all log lines are in `events` then."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        while (line := self._lines.get_nowait()) is not None:
            self.events.append(line)
        return status


@contextmanager
def server(
    models: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[ServerProcess, str]]:
    """A server that says it serves, and its address; killed on the way out if it still runs."""
    running = ServerProcess(["--models", str(models), *arguments], environment or {})
    try:
        yield running, str(running.wait_for("serving")["address"])
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait(30)
