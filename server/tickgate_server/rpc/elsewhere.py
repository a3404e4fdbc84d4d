"""Work that would hold up the thread that answers, done by another, and what came of it handed back."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Elsewhere:
    """One thread for work on files, begun with the first piece of it; results come with `poll`.

    What waits for it are calls that wait, and of these a listener has no more than its bound.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "model-files")
        self._done: deque[Callable[[], Any]] = deque()

    def run(self, work: Callable[[], _Result], done: Callable[[_Result | Exception], object]) -> None:
        """Have some work done.

        Args:
            work: Called on the other thread.
            done: Called by `poll` with what it returned or raised.
        """

        def whole() -> None:
            found: _Result | Exception
            try:
                found = work()
            except Exception as error:  # noqa: BLE001 - whoever asked for it is told
                found = error
            self._done.append(lambda: done(found))

        self._thread.submit(whole)

    def poll(self) -> None:
        """Hand over what has been done."""
        while self._done:
            self._done.popleft()()
