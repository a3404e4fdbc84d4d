"""`python -m tests.support.swapping serve …`: a server that swaps its model while a file is there.

Two versions take turns. Each swap loads the one that is not resident, checks it, points production at it and unloads
the other; each ends with a log line, `swapped` or `swap failed`.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from tickgate_client.cli import main
from tickgate_server import app
from tickgate_server.engine import Engine
from tickgate_server.models.aliases import Aliases
from tickgate_server.models.registry import PRODUCTION
from tickgate_server.models.states import VersionState, VersionStatus

_LOG = structlog.get_logger()


class Swapper:
    """Swaps versions 1 and 2 of a model, in the desk's turns.

    Args:
        engine: Its engine.
        name: Of the model.
        while_there: The file.
        every_s: From the begin of a swap to that of the next, where that is longer than a swap.
    """

    def __init__(self, engine: Engine, name: str, while_there: Path, every_s: float) -> None:
        self._models = engine.models
        self._name = name
        self._file = while_there
        self._every_s = every_s
        self._due_s = self._began_s = 0.0
        self._busy = False
        self._count = 0
        polled = engine.desk.on_polled

        def turn() -> None:
            polled()
            self._turn()

        engine.desk.on_polled = turn

    def _turn(self) -> None:
        if self._busy or time.monotonic() < self._due_s or not self._file.exists():
            return
        self._began_s = time.monotonic()
        self._due_s = self._began_s + self._every_s
        self._busy = True
        self._current = self._models.in_force(self._name).production or 1
        self._next = 3 - self._current
        known = self._models.status(self._name, self._next)
        if known is not None and known.state is VersionState.READY:  # resident since the start
            self._models.unload(self._name, self._next, self._expecting(VersionStatus, self._load))
        else:
            self._load()

    def _load(self) -> None:
        self._models.load(self._name, self._next, self._expecting(VersionStatus, self._switch))

    def _switch(self) -> None:
        self._models.change_alias(
            self._name,
            PRODUCTION,
            self._next,
            expected=self._current,
            reason="a swap",
            who="swapper",
            done=self._expecting(Aliases, self._unload),
        )

    def _unload(self) -> None:
        self._models.unload(self._name, self._current, self._expecting(VersionStatus, self._end))

    def _end(self) -> None:
        self._busy = False
        self._count += 1
        took_ms = (time.monotonic() - self._began_s) * 1e3
        _LOG.info("swapped", number=self._count, version=self._next, took_ms=round(took_ms, 1))

    def _expecting(self, kind: type, following: Callable[[], None]) -> Callable[[Any], None]:
        def done(result: Any) -> None:
            if isinstance(result, kind):
                following()
            else:
                self._busy = False
                _LOG.error("swap failed", version=self._next, why=str(result))

        return done


def swapping(build: Callable[..., Engine]) -> Callable[..., Engine]:
    """`app.build_engine`, with a swapper on the engine: SWAPS_MODEL, SWAPS_WHILE, SWAPS_EVERY_S."""

    def built(*arguments: Any) -> Engine:
        engine = build(*arguments)
        Swapper(engine, os.environ["SWAPS_MODEL"], Path(os.environ["SWAPS_WHILE"]), float(os.environ["SWAPS_EVERY_S"]))
        return engine

    return built


PROGRAM = (sys.executable, "-m", "tests.support.swapping")

if __name__ == "__main__":
    app.build_engine = swapping(app.build_engine)
    main()
