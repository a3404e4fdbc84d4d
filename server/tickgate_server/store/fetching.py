"""States out of Redis for a server's warm start: found, checked, kept beside its journal."""

import fcntl
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tickgate.symbol_hash import worker_of
from tickgate_server.journal.segments import last_sequence
from tickgate_server.states.codec import unpack_state
from tickgate_server.states.errors import ValueRefused
from tickgate_server.states.file import keep
from tickgate_server.store.connection import StoreConnection
from tickgate_server.store.keys import Keys
from tickgate_server.store_settings import StoreSettings
from tickgate_server.store_status import LOCK_FILE, read_status

# Of the time there is, what may be waited for the process of the server before, which writes what it left behind.
_OF_LIMIT = 0.5
_LOOK_S = 0.02


class Fetched(NamedTuple):
    """What a warm start found.

    Attributes:
        sha256: Of the file that the states are kept in; empty: there are none.
        taken: How many.
        absent: Symbols that were listed and have none by now.
        refused: Values that were not taken, by reason.
        took_s: From the connection to the kept file.
    """

    sha256: str
    taken: int
    absent: int
    refused: dict[str, int]
    took_s: float


class Wanted(NamedTuple):
    """Whose states are wanted, and where they are kept.

    Attributes:
        folder: Of the journal.
        store_folder: That the store's process has its lock and status in.
        capacity: Most symbols.
        worker: Of the server.
        workers: How many there are.
    """

    folder: Path
    store_folder: Path
    capacity: int
    worker: int = 0
    workers: int = 1


def fetch(settings: StoreSettings, wanted: Wanted) -> Fetched:
    """Take the states that are there.

    Raises:
        StoreError: Redis does not give them.
        OSError: They cannot be kept.
    """
    await_writer(wanted, settings.warm_start_limit_s * _OF_LIMIT)
    began_s = time.perf_counter()
    connection, keys = StoreConnection(settings), Keys(settings.prefix)
    listed = connection.run(lambda client: client.zrevrange(keys.states(), 0, wanted.capacity - 1))
    symbols = _chosen(wanted, (name.decode(errors="replace") for name in listed))
    values = connection.get_many([keys.state(symbol) for symbol in symbols])
    connection.close()
    refused: Counter[str] = Counter()
    good: list[bytes] = []
    for symbol, value in zip(symbols, values, strict=True):
        if value is None:
            continue
        try:
            unpack_state(value, keys.state(symbol), symbol=symbol)
        except ValueRefused as error:
            refused[str(error.refusal)] += 1
            continue
        good.append(value)
    sha256 = keep(wanted.folder, good) if good else ""
    absent = sum(value is None for value in values)
    return Fetched(sha256, len(good), absent, dict(refused), time.perf_counter() - began_s)


def _chosen(wanted: Wanted, stored: Iterable[str]) -> list[str]:
    """This worker's own of the symbols that are stored, as many as there is room for."""
    own = [one for one in stored if wanted.workers == 1 or worker_of(one, wanted.workers) == wanted.worker]
    return own[: wanted.capacity]


def await_writer(wanted: Wanted, at_most_s: float) -> None:
    """Let a store's process that still writes what a server before left behind come to the end of this journal."""
    give_up = time.monotonic() + at_most_s
    last = last_sequence(wanted.folder)
    path = wanted.store_folder / LOCK_FILE
    if not path.exists():
        return
    with path.open("ab") as file:
        while time.monotonic() < give_up:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if _has_all(wanted, last):
                    return
                time.sleep(_LOOK_S)
                continue
            return


def _has_all(wanted: Wanted, last: int) -> bool:
    status: Any = read_status(wanted.store_folder)
    if status is None or not status.fresh(time.time_ns()):
        return False
    position = status.positions.get(wanted.folder.name)
    return position is not None and position.position >= last and not status.dirty
