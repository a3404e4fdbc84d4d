"""`tickgate feed` as a process, beside the test's own server."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.processes import TICKGATE

PATIENCE_S = 60.0


class FeedProcess:
    """A running `tickgate feed`.

    Attributes:
        output: What it wrote to both streams; whole once it ended.
    """

    def __init__(self, *arguments: str) -> None:
        self.output = ""
        self.process = subprocess.Popen(
            [TICKGATE, "feed", "--no-progress", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "120", "PYTHONUNBUFFERED": "1"},
        )
        self._lines = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                with self._lines:
                    self.output += line
                    self._lines.notify_all()

    def wait_for_text(self, text: str) -> str:
        """Its line that has the text; fails with all output where none comes."""
        with self._lines:
            assert self._lines.wait_for(lambda: text in self.output, PATIENCE_S), self.output
            return next(line for line in self.output.splitlines() if text in line)

    def wait(self) -> int:
        """Its exit status, once it ended by itself."""
        status = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()


@contextmanager
def feed_process(*arguments: str) -> Iterator[FeedProcess]:
    running = FeedProcess(*arguments)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop(signal.SIGKILL)


def wait_until(true: Callable[[], bool]) -> None:
    """Other processes get the time until it is so."""
    give_up = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < give_up, "it did not come true"
        os.sched_yield()
