"""A circuit breaker: what failed often is left alone, and probed on a backoff until it answers."""

import time
from collections.abc import Callable

from redis.backoff import EqualJitterBackoff

_FIRST_OF_LONGEST = 20.0


class Breaker:
    """Counts failures in a row, and opens at a limit.

    Closed, every call is let through. Open, none is until the pause is over; then it is half open, and a call probes. A
    success closes it; a failed probe opens it for a pause that is longer.

    Attributes:
        failures: In a row.

    Args:
        limit: Failures in a row that open it.
        longest_s: Longest pause; the first is a twentieth of it, each half at random (redis-py's `EqualJitterBackoff`).
        clock_s: Monotonic.
    """

    def __init__(self, limit: int, longest_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.failures = 0
        self._limit = limit
        self._backoff = EqualJitterBackoff(cap=longest_s, base=longest_s / _FIRST_OF_LONGEST)
        self._clock_s = clock_s
        self._open_until_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether enough has failed that calls are not let through, but for probes."""
        return self.failures >= self._limit

    def wait_s(self) -> float:
        """How long no call is let through; 0: one is now."""
        return max(self._open_until_s - self._clock_s(), 0.0) if self.is_open else 0.0

    def succeeded(self) -> None:
        """A call was answered."""
        self.failures = 0

    def failed(self) -> None:
        """A call was not."""
        self.failures += 1
        if self.is_open:
            # Capped: the power of two would not fit a float after a night without Redis.
            self._open_until_s = self._clock_s() + self._backoff.compute(min(self.failures - self._limit, 30))
