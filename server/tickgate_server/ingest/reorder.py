"""A feed's reorder window: ticks wait until none that belongs before them can be expected any more.

Ticks are let go in the order of (exchange_ts_ns, sequence), ties of both as they came. Two things let one go:
- the watermark, the feed's newest plausible stamp less the window, has passed its stamp strictly; a stamp that is ahead
  of the server's clock by more than a tick's may be is not plausible, and moves nothing;
- it has waited for the window, by the server's clock; then all that belong before it go first.

A tick that cannot be applied, whatever comes, is not held: it is judged by the clock that it came with.
"""

import numpy as np
from numpy.typing import NDArray

from tickgate_server.ingest.columns import Ticks
from tickgate_server.ingest.kernel import EXCHANGE_TS_NS, INTEGERS, NUMBERS, SEQUENCE

_NOTHING = Ticks(np.zeros((0, INTEGERS), np.int64), np.zeros((0, NUMBERS)))


class ReorderWindow:
    """The window of one feed; memory of a fixed size.

    Attributes:
        early: Ticks that were let go before their time, because `limit` were held.

    Args:
        window_ns: How long, > 0.
        limit: Most ticks held; one more has the oldest let go.
    """

    def __init__(self, window_ns: int, limit: int) -> None:
        self.early = 0
        self._window_ns = window_ns
        self._limit = limit
        self._held = Ticks.empty(0)
        self._arrived_ns = np.zeros(0, np.int64)
        self._newest_ns = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def due_ns(self) -> int:
        """When the first of them has waited long enough, on the clock of `take`; 0: none waits."""
        return int(self._arrived_ns.min()) + self._window_ns if self._arrived_ns.size else 0

    def take(self, ticks: Ticks, now_ns: int, plausible_ns: int) -> Ticks:
        """Take some in as they came; those that may go.

        Args:
            ticks: That came.
            now_ns: The server's clock.
            plausible_ns: The latest stamp that a tick may have now.
        """
        stamps = ticks.integers[:, EXCHANGE_TS_NS]
        plausible = (stamps > 0) & (stamps <= plausible_ns)
        if plausible.any():
            self._newest_ns = max(self._newest_ns, int(stamps[plausible].max()))
        at_once = Ticks(ticks.integers[~plausible], ticks.numbers[~plausible])
        self._held = _joined(self._held, Ticks(ticks.integers[plausible], ticks.numbers[plausible]))
        arrived = np.full(int(plausible.sum()), now_ns, np.int64)
        self._arrived_ns = np.concatenate((self._arrived_ns, arrived))
        return _joined(at_once, self.let_go(now_ns))

    def let_go(self, now_ns: int) -> Ticks:
        """Those whose time has come, in order."""
        stamps = self._held.integers[:, EXCHANGE_TS_NS]
        last_ns = self._newest_ns - self._window_ns - 1
        waited = self._arrived_ns <= now_ns - self._window_ns
        if waited.any():
            last_ns = max(last_ns, int(stamps[waited].max()))
        go = stamps <= last_ns
        over = len(self._held) - int(go.sum()) - self._limit
        if over > 0:
            order = _order(self._held)
            rest = order[~go[order]]
            go[rest[:over]] = True
            self.early += over
        return self._split(go)

    def flush(self) -> Ticks:
        """All of them, in order."""
        return self._split(np.ones(len(self._held), np.bool_))

    def clear(self) -> None:
        """Forget them."""
        self.flush()

    def _split(self, go: NDArray[np.bool_]) -> Ticks:
        if not go.any():
            return _NOTHING
        held = self._held
        gone = Ticks(held.integers[go], held.numbers[go])
        self._held = Ticks(held.integers[~go], held.numbers[~go])
        self._arrived_ns = self._arrived_ns[~go]
        order = _order(gone)
        return Ticks(gone.integers[order], gone.numbers[order])


def _order(ticks: Ticks) -> NDArray[np.intp]:
    sequences = ticks.integers[:, SEQUENCE].view(np.uint64)
    return np.lexsort((sequences, ticks.integers[:, EXCHANGE_TS_NS]))


def _joined(first: Ticks, second: Ticks) -> Ticks:
    if not len(first):
        return second
    if not len(second):
        return first
    return Ticks(np.concatenate((first.integers, second.integers)), np.concatenate((first.numbers, second.numbers)))
