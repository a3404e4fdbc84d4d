"""The few greatest of many, in bounded memory."""

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


class Largest(Generic[T]):
    """Keeps the items of the greatest values; of equal values those that came first.

    Args:
        limit: How many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[float, int, T]] = []
        self._came = 0

    @property
    def floor(self) -> float:
        """What a value must be above to be kept."""
        return self._heap[0][0] if len(self._heap) == self._limit else float("-inf")

    def offer(self, value: float, item: T) -> None:
        """Keep an item if it is among the greatest."""
        if value > self.floor:
            self._came += 1
            entry = (value, -self._came, item)
            if len(self._heap) == self._limit:
                heapq.heapreplace(self._heap, entry)
            else:
                heapq.heappush(self._heap, entry)

    def items(self) -> list[T]:
        """Greatest first."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]
