"""Where ticks come from: the interface of a source, and sources by name, entry-point group `tickgate.tick_sources`.

An adapter is a `TickSource` and a function that opens it:

    def open_source(options: SourceOptions) -> TickSource:
        return NatsSource(options.text("subject"), batch=options.count("batch", 500))

registered in its distribution as

    [project.entry-points."tickgate.tick_sources"]
    nats = "my_package:open_source"

and used as `tickgate feed --source nats -o subject=ticks`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tickgate.v1 import market_pb2
from tickgate_client import plugins
from tickgate_client.errors import BadSourceOption, SourceFailed, UnknownTickSource
from tickgate_client.feeds.window import RefusedTick

GROUP = "tickgate.tick_sources"


@dataclass(frozen=True, slots=True)
class TickBatch:
    """Ticks that a source gives at once.

    Attributes:
        ticks: At least one, in order. They must not change.
        position: What `acknowledge` gets once they are through; the source's own affair.
    """

    ticks: Sequence[market_pb2.Tick]
    position: Any


class TickSource(ABC):
    """Gives ticks in order, and is told how far they are through. All of it is called on one event loop."""

    @abstractmethod
    def batches(self) -> AsyncGenerator[TickBatch, None]:
        """The ticks, a batch as soon as there is one; called once.

        The next batch is asked for when the publisher has room for it: a source that cannot wait is one that loses
        ticks. It may be cancelled while it waits. It ends where there is an end; raises SourceFailed where the source
        cannot go on, and tries again by itself where it may.
        """

    @abstractmethod
    async def acknowledge(self, position: Any) -> None:
        """All ticks of a batch, and of those before it, were answered by the server: they need not come again.

        Called for each batch in order, also after `batches` has ended or was cancelled.
        """

    async def refused(self, position: Any, refused: RefusedTick) -> None:
        """The server does not take a tick of that batch, now or ever; called before the batch is acknowledged.

        Unless a source can put it aside, that ends the feed.
        """
        raise SourceFailed(f"batch {position!r}, tick {refused.index}", str(refused.error)) from refused.error

    def counts(self) -> Mapping[str, int]:
        """What it counted so far, by name: `dead_lettered` for messages put aside because they hold no tick, say."""
        return {}

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything; what is not acknowledged is left as it is."""


class SourceOptions:
    """What the user asked of a source, `-o name=value`, taken one by one and typed.

    Args:
        source: Name of the source.
        given: The options by name.
    """

    def __init__(self, source: str, given: Mapping[str, str]) -> None:
        self.source = source
        self._given = dict(given)
        self._known: list[str] = []

    def text(self, name: str, default: str | None = None) -> str:
        """An option as it is; without a default it is needed."""
        self._known.append(name)
        found = self._given.pop(name, default)
        if found is None:
            raise self.bad(name, "nothing", "a value, it is needed")
        return found

    def count(self, name: str, default: int, *, least: int = 1, most: int = 2**63 - 1) -> int:
        """A whole number from `least` to `most`."""
        found = self.text(name, str(default))
        if not (found.isascii() and found.isdigit() and len(found) < 20 and least <= int(found) <= most):
            raise self.bad(name, repr(found), f"a whole number from {least} to {most}")
        return int(found)

    def number(self, name: str, default: float, *, least: float = 0.0) -> float:
        """A finite number, at least `least`."""
        found = self.text(name, str(default))
        try:
            number = float(found)
        except ValueError:
            number = float("nan")
        if not least <= number < float("inf"):
            raise self.bad(name, repr(found), f"a finite number of at least {least:g}")
        return number

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """One of some words; the first is the default."""
        found = self.text(name, choices[0])
        if found not in choices:
            raise self.bad(name, repr(found), f"one of {', '.join(choices)}")
        return found

    def path(self, name: str) -> Path | None:
        """A file, or None."""
        found = self.text(name, "")
        return Path(found) if found else None

    def finish(self) -> None:
        """Raises BadSourceOption for an option that nobody took."""
        if self._given:
            name = next(iter(self._given))
            raise self.bad(name, "an option of that name", f"one of {', '.join(sorted(self._known))}")

    def bad(self, name: str, found: str, expected: str) -> BadSourceOption:
        """The error for an option."""
        return BadSourceOption(self.source, name, found=found, expected=expected)


def source_names() -> list[str]:
    """The sources that are registered, whether their extras are installed or not."""
    return list(plugins.registered(GROUP))


def open_source(name: str, options: Mapping[str, str]) -> TickSource:
    """A source by its name.

    Raises UnknownTickSource if nobody registered it, BadSourceOption, and ExtraMissing if its packages are not
    installed.

    Args:
        name: In the entry-point group.
        options: As text, by name; which there are is the source's affair.
    """
    known = plugins.registered(GROUP)
    if name not in known:
        raise UnknownTickSource(name, list(known))
    entry = known[name]
    feature = f"tick source {name!r}"
    asked = SourceOptions(name, options)
    make = plugins.load(entry, feature)
    try:
        source = make(asked)
    except ModuleNotFoundError as error:
        raise plugins.missing(entry, feature, error) from error
    asked.finish()
    if not isinstance(source, TickSource):
        raise TypeError(f"tick source {name!r} is {entry.value}, which gives no TickSource but {type(source).__name__}")
    return source
