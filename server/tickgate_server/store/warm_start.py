"""A server's warm start, from its own side: a thread fetches the states while models load; what it kept is taken.

A thread, and no process: an interpreter and its imports cost a second of a core just when models load, redis-py a fifth
of that. Its sockets have timeouts; whatever else holds it up, the server begins without it when the time is up, and
what it finds then is nobody's. So it runs before the first request, and never beside one for long.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import structlog

from tickgate_server.config import Settings
from tickgate_server.journal.errors import JournalError
from tickgate_server.states.errors import ValueRefused
from tickgate_server.states.file import read_kept
from tickgate_server.states.state import SymbolState
from tickgate_server.store_status import WARM_START_FILE

_LOG = structlog.get_logger()


class Beginning(Protocol):
    """What begins with the states: an `engine.Engine`, which the store's own process has no use for."""

    def take_states(self, sha256: str, states: Iterable[SymbolState]) -> None:
        """Have states wait for their symbols' next ticks."""


class WarmStart:
    """States on their way.

    Args:
        settings: The server's; with a store.
        folder: Of its journal.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._store_folder = folder.parent if settings.worker.count > 1 else folder
        self._began_s = time.monotonic()
        self._found: dict[str, Any] = {}
        self._thread = Thread(target=self._fetch, name="warm-start", daemon=True)
        self._thread.start()

    def give(self, engine: Beginning) -> None:
        """Have the engine begin with what was found, waiting for the rest of the time at most; without, cold."""
        limit_s = self._settings.store.warm_start_limit_s
        self._thread.join(max(self._began_s + limit_s - time.monotonic(), 0.0))
        found = self._found or {"error": f"the store gave nothing within {limit_s:g} s"}
        sha256 = str(found.get("sha256", ""))
        if sha256:
            try:
                engine.take_states(sha256, read_kept(self._folder, sha256))
            except (OSError, ValueRefused) as error:
                found = {"error": str(error)}
        told = {name: value for name, value in found.items() if name != "sha256"}
        self._leave_word(told)
        if "error" in told:
            _LOG.error("cold start", why=told["error"])
        else:
            _LOG.info("warm start", **told)

    def _fetch(self) -> None:
        # Here, so that a server without a store does not import redis.
        from tickgate_server.store.errors import StoreError  # noqa: PLC0415
        from tickgate_server.store.fetching import Wanted, fetch  # noqa: PLC0415

        settings = self._settings
        wanted = Wanted(
            self._folder,
            self._store_folder,
            settings.instruments.capacity,
            settings.worker.index,
            settings.worker.count,
        )
        try:
            self._found = fetch(settings.store, wanted)._asdict()
        except (StoreError, JournalError, OSError) as error:
            self._found = {"error": str(error)}

    def _leave_word(self, told: dict[str, Any]) -> None:
        """For the store's status; several workers leave theirs one over the other."""
        path = self._store_folder / WARM_START_FILE
        unfinished = self._folder / f"{WARM_START_FILE}.unfinished"
        try:
            unfinished.write_text(json.dumps(told), "utf-8")
            unfinished.rename(path)
        except OSError as error:
            _LOG.error("warm start not told", file=str(path), why=str(error))


def begin_warm_start(settings: Settings) -> WarmStart | None:
    """Have states fetched, where the settings want it; None where not.

    Args:
        settings: The server's.
    """
    folder = settings.journal.folder
    if settings.store.mode == "none" or not settings.store.warm_start or folder is None:
        return None
    return WarmStart(settings, folder)
