"""The tasks of a run: what an earlier run finished is taken over, the others run and are kept as they are done."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Protocol, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tickgate_training.parallel import Pool


class _Numbered(Protocol):
    @property
    def number(self) -> int:
        """From 0."""


_Task = TypeVar("_Task", bound=_Numbered)
_Done = TypeVar("_Done", bound=_Numbered)


class Work:
    """One pool for all tasks of a run, opened when there is something to run, closed on the way out.

    Args:
        pool: Opens it; see `parallel.pool`.
        console: Where to draw progress bars with the time left; None draws none.
    """

    def __init__(self, pool: Callable[[], AbstractContextManager[Pool]], console: Console | None) -> None:
        self._open = pool
        self._console = console
        self._pool: Pool | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def done(
        self,
        title: str,
        tasks: Sequence[_Task],
        finished: Mapping[int, _Done],
        function: Callable[[_Task], _Done],
        keep: Callable[[_Done], None],
    ) -> list[_Done]:
        """What became of each task, in their order.

        Args:
            title: Beside the progress bar.
            tasks: Numbered from 0.
            finished: What an earlier run finished, by number.
            function: Runs one; must not depend on the others.
            keep: Takes each as it is done, so that a run that is stopped goes on from there.
        """
        found = {number: one for number, one in finished.items() if number < len(tasks)}
        left = [task for task in tasks if task.number not in found]
        with _progress(self._console) as progress:
            shown = progress.add_task(title, total=len(tasks), completed=len(found))
            if left and self._pool is None:
                self._pool = self._stack.enter_context(self._open())
            for batch in self._pool.map(function, left) if self._pool is not None else ():
                for one in batch:
                    keep(one)
                    found[one.number] = one
                progress.advance(shown, len(batch))
        return [found[task.number] for task in tasks]


@contextmanager
def _progress(console: Console | None) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console is None, transient=True) as progress:
        yield progress
