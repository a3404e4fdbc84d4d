"""A clock that a test moves, and a monitor on it."""

from __future__ import annotations

from typing import Any

from tickgate_client.sla import Objective, SlaMonitor

MS = 1_000_000
SECOND = 1_000_000_000


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 1_000 * SECOND

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, ns: int) -> None:
        self.now_ns += ns


class Desk:
    """A monitor without a thread: it looks when it is told to.

    Calls take `ms` each, and nothing else takes time.
    """

    def __init__(self, *objectives: Objective, **settings: Any) -> None:
        self.clock = HandClock()
        self.monitor = SlaMonitor(objectives, clock=self.clock, **settings)

    def call(self, ms: float = 1.0, status: int = 0, server_ms: float | None = None) -> None:
        number = self.monitor.begin()
        self.clock.advance(round(ms * MS))
        self.monitor.end(number, status, None if server_ms is None else round(server_ms * MS))

    def calls(self, count: int, ms: float = 1.0, status: int = 0) -> None:
        for _ in range(count):
            self.call(ms, status)

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.monitor.look()

    def causes(self) -> list[str]:
        """What keeps an order back now; empty if nothing does, or only that it was not clean for long enough."""
        alarm = self.monitor.alarm()
        return [] if alarm is None else [str(cause) for cause in alarm.causes]


def objective(**changes: Any) -> Objective:
    """99.9 % in 5 ms, a stall at 50 ms, clean for 5 s."""
    return Objective(**{"name": "signals", "limit_us": 5_000, "target": 0.999, "stall_us": 50_000, **changes})
