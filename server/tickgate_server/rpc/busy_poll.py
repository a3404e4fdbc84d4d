"""How the polling thread waits: asleep, or awake where the next event usually comes at once.

To wake a thread on an idle core takes longer than to answer: the core has to leave its idle state, on a virtual machine
through the hypervisor, and comes back to cold caches. So where callers ask again within microseconds the thread goes on
asking the queue for a while before it sleeps. It does so only as long as that pays: where the usual wait is longer, the
core is left to others at once, and a server that nobody asks sleeps.
"""

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, TypeAlias

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # private, no stubs

Event: TypeAlias = Any

# Shorter waits are between the events of one call, and say nothing of when the next one comes.
_A_WAIT_NS = 20_000
# A long pause counts for so many times the limit, so that a few short waits after it outweigh it.
_LONGEST = 4
# The usual wait is a mean in which each new one has a weight of 1/8.
_WEIGHT_SHIFT = 3
_AT_ONCE = 0.0


class BusyPoll:
    """Takes events from a completion queue; one thread.

    Args:
        queue: gRPC's.
        limit_ns: How long to stay awake, and the longest usual wait for which that is done; 0: never.
        clock_ns: Monotonic.
    """

    __slots__ = ("_clock_ns", "_limit_ns", "_longest_ns", "_queue", "_usual_wait_ns")

    def __init__(self, queue: Any, limit_ns: int, clock_ns: Callable[[], int] = perf_counter_ns) -> None:
        self._queue = queue
        self._clock_ns = clock_ns
        self._limit_ns = limit_ns
        self._longest_ns = _LONGEST * limit_ns
        self._usual_wait_ns = self._longest_ns

    def next(self, wake_at: float, *, awake: bool) -> Event:
        """The next event, or `queue_timeout` where none came until `wake_at`.

        Args:
            wake_at: Unix time in seconds.
            awake: False: sleep in any case, because other threads of this process have work to do.
        """
        began_ns = self._clock_ns()
        if awake and self._usual_wait_ns < self._limit_ns:
            give_up_ns = began_ns + self._limit_ns
            event = self._queue.poll(_AT_ONCE)
            while event.completion_type == cygrpc.CompletionType.queue_timeout:
                if self._clock_ns() >= give_up_ns:
                    event = self._queue.poll(wake_at)
                    break
                event = self._queue.poll(_AT_ONCE)
        else:
            event = self._queue.poll(wake_at)
        waited_ns = self._clock_ns() - began_ns
        if waited_ns > _A_WAIT_NS:
            self._usual_wait_ns += (min(waited_ns, self._longest_ns) - self._usual_wait_ns) >> _WEIGHT_SHIFT
        return event
