"""The shadow scorer: every shadow of a repository beside what a server's journals recorded."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Event

import structlog

from tickgate_server.beside import alone
from tickgate_server.journal.errors import JournalError
from tickgate_server.models.aliases import Aliases
from tickgate_server.models.shadow_record import RECORD_FILE, ShadowRecordInvalid, record_path
from tickgate_server.shadow.scoring import ShadowRun
from tickgate_server.shadow.store import StoreInvalid, numbers, path_of
from tickgate_server.shadow.watching import AliasFiles, unfinished

# Nobody waits for a comparison, and each commit is a file renamed.
PAUSE_S = 0.25
# How long one journal of one shadow may keep the others waiting.
TURN_S = 0.25
LOCK_FILE = "lock"
# Versions of a model whose comparisons are kept one by one when they are shadows no more.
KEPT_VERSIONS = 4
# A shadow whose record cannot be gone on with is tried again so often.
_AGAIN_S = 10.0

_NO_ALIASES = Aliases()
_LOG = structlog.get_logger()

Version = tuple[str, int]
"""Name and number of a model."""


class ShadowScorer:
    """Scores with each shadow what is journaled while it is one; one process a folder.

    Args:
        repository: Of the models, whose alias files say what is a shadow.
        journals: Folders by worker, which must exist; the one process of a server is "".
        folder: Where it keeps what it finds: `models.shadow_record.shadow_folder`. Made if need be.
        retained: Most comparisons to keep of a version.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(self, repository: Path, journals: Mapping[str, Path], folder: Path, *, retained: int) -> None:
        self._repository = repository
        self._journals = journals
        self._folder = folder
        self._retained = retained
        self._files = AliasFiles(repository)
        self._runs: dict[Version, ShadowRun] = {}
        self._broken: dict[Version, tuple[float, str]] = {}  # when it was last tried, and why not
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, end: Event) -> None:
        """Score until `end` is set, and then what is left in the journals.

        Raises:
            OSError: The folder cannot be locked, or not be read.
        """
        with alone(self._folder / LOCK_FILE, end, "shadow scorer") as ours, contextlib.ExitStack() as stack:
            stack.callback(self._close)
            if not ours:
                return
            self._files.poll()
            for version in unfinished(self._folder):
                self._begin(version)
            while True:
                last = end.is_set()
                more = self._step()
                if last and not more:
                    return
                if not more:
                    end.wait(PAUSE_S)

    def _step(self) -> bool:
        """Take in what is new of everything; whether there is more already."""
        self._files.poll()
        for shadow in self._files.shadows.items():
            if shadow not in self._runs:
                self._begin(shadow)
        more = False
        for key, run in list(self._runs.items()):
            name, version = key
            if name in self._files.unknown:  # whether it is a shadow cannot be told
                continue
            more |= run.step(self._aliases(name), TURN_S)
            if run.record.ended:
                _LOG.info("shadow ended", model=name, version=version, compared=run.record.decisions)
                self._runs.pop(key).close()
                self._forget_old(name)
        return more

    def _begin(self, key: Version) -> None:
        name, version = key
        tried, said = self._broken.get(key, (-_AGAIN_S, ""))
        if time.monotonic() - tried < _AGAIN_S:
            return
        try:
            self._runs[key] = ShadowRun(
                self._repository,
                self._folder,
                self._journals,
                name,
                version,
                self._aliases(name),
                retained=self._retained,
            )
        except (ShadowRecordInvalid, StoreInvalid, JournalError, OSError) as error:
            self._broken[key] = (time.monotonic(), str(error))
            if str(error) != said:
                _LOG.error("shadow not scored", model=name, version=version, why=str(error))
            return
        self._broken.pop(key, None)
        _LOG.info("shadow followed", model=name, version=version, compared=self._runs[key].record.decisions)

    def _aliases(self, name: str) -> Aliases:
        return self._files.aliases.get(name, _NO_ALIASES)

    def _forget_old(self, name: str) -> None:
        """Let the comparisons of a model's older shadows go; their records stay."""
        over = [path for path in self._folder.glob(f"{name}/*/{RECORD_FILE}") if not self._runs_in(path.parent)]
        for path in sorted(over, key=lambda path: path.stat().st_mtime_ns)[:-KEPT_VERSIONS]:
            for number in numbers(path.parent):
                path_of(path.parent, number).unlink(missing_ok=True)

    def _runs_in(self, home: Path) -> bool:
        return any(record_path(self._folder, *key).parent == home for key in self._runs)

    def _close(self) -> None:
        for run in self._runs.values():
            run.close()
