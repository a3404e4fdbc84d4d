"""Recorded ticks by the name of their format: entry-point group `tickgate.tick_readers`.

A reader is a callable from the file's path to its ticks in order, as an iterable of tickgate.v1.Tick.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tickgate.v1 import market_pb2
from tickgate_client import plugins
from tickgate_client.errors import UnknownTickReader

GROUP = "tickgate.tick_readers"


def reader_names() -> list[str]:
    """The formats that are registered, whether their extras are installed or not."""
    return list(plugins.registered(GROUP))


def read_ticks(reader: str, source: Path | str) -> Iterator[market_pb2.Tick]:
    """The ticks of a source, in its order, read as they are asked for.

    Raises UnknownTickReader if nobody registered the name, and ExtraMissing if the reader's packages are not
    installed, both at once; later, what the reader raises (BadTickFile for `csv`).

    Args:
        reader: Name of the format, such as `csv`.
        source: The file, or what the format takes for one.
    """
    known = plugins.registered(GROUP)
    if reader not in known:
        raise UnknownTickReader(reader, list(known))
    entry = known[reader]
    feature = f"tick format {reader!r}"
    read = plugins.load(entry, feature)

    def ticks() -> Iterator[market_pb2.Tick]:
        try:
            yield from read(source)
        except ModuleNotFoundError as error:
            # A reader may import its packages as late as this.
            raise plugins.missing(entry, feature, error) from error

    return ticks()
