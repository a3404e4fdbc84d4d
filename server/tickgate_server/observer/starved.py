"""Whether answers leave the observer no core: then it must take a little of one, or its values and metrics grow old."""

import time

LATE_S = 0.5
"""A step or a scrape that takes longer got no core for most of it: it has some milliseconds of work."""
LASTS_S = 30.0
"""For how long that is then taken to be so, before idle cores are relied on again."""


class Starved:
    """Told how long things took, says whether to rely on idle cores. Safe to be called by several threads.

    Why not let the same thread go on: a thread that gave way cannot take its turn again, and while it stands still it
    may hold the interpreter.
    """

    def __init__(self) -> None:
        self._until_s = -LASTS_S

    @property
    def now(self) -> bool:
        """Whether there is no idle core."""
        return time.monotonic() < self._until_s

    def took(self, seconds: float) -> None:
        """Something that should take milliseconds took so long."""
        if seconds > LATE_S:
            self._until_s = time.monotonic() + LASTS_S
