"""How a publisher publishes, and when it tries again."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from tickgate_client.call_errors import CallCancelled, DeadlineExceeded, Overloaded, ServerUnavailable, WrongWorker

PASSING = (ServerUnavailable, DeadlineExceeded, Overloaded, CallCancelled, WrongWorker)
"""Errors after which a publisher connects and sends again: a server that restarts, is cut off, or has no room."""

LONGEST_PAUSE_S = 1.0
"""Between two attempts; as the channels' own reconnecting."""

_FIRST_PAUSE_S = 0.1
_MAX_FEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class PublisherSettings:
    """How a publisher publishes.

    Attributes:
        feed: Whose ticks these are: up to 32 bytes.
        deadline_s: Longest wait for one acknowledgement before the connection is given up and what is unacknowledged is
            sent again, in seconds.
        patience_s: Longest time without any acknowledgement while ticks wait for one, in seconds; then the publisher
            fails. `math.inf`: it never does.
        window_ticks: Ticks that may be unacknowledged; what is published beyond waits.
    """

    feed: str
    deadline_s: float
    patience_s: float
    window_ticks: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.feed.encode()) <= _MAX_FEED_BYTES:
            raise ValueError(f"feed is {self.feed!r}, must be 1 to {_MAX_FEED_BYTES} bytes of UTF-8")
        if not 0 < self.deadline_s < math.inf:
            raise ValueError(f"deadline_s is {self.deadline_s}, must be positive and finite")
        if not self.patience_s >= 0:
            raise ValueError(f"patience_s is {self.patience_s}, must not be negative")
        if self.window_ticks < 1:
            raise ValueError(f"window_ticks is {self.window_ticks}, must be positive")


class Backoff:
    """Pauses before something is tried again: 0.1 s, doubling to LONGEST_PAUSE_S.

    Attributes:
        fresh: Nothing was waited for yet, or not since `reset`.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """It went well."""
        self.fresh = True
        self._next_s = _FIRST_PAUSE_S

    async def pause(self) -> None:
        """Wait, longer each time."""
        self.fresh = False
        await asyncio.sleep(self._next_s)
        self._next_s = min(2 * self._next_s, LONGEST_PAUSE_S)
