"""A thread that reads and changes the files of a model repository, so that no answer waits for a disk."""

import queue
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TypeAlias

import structlog

from tickgate_server.models.aliases import ALIASES_FILE, Aliases
from tickgate_server.models.errors import AliasesInvalid
from tickgate_server.models.package import versions
from tickgate_server.models.registry import aliases_of

JOBS_LIMIT = 64
_CLOSE_S = 2.0
_LOG = structlog.get_logger()

FileFound: TypeAlias = Callable[[str, Aliases | AliasesInvalid | None], object]
VersionsFound: TypeAlias = Callable[[str, list[int]], object]


class Follower:
    """Looks at the aliases of a repository's models now and then, and does what is asked of its files in between.

    Args:
        folder: The repository.
        every_s: How often it looks; 0: never.
        post: Has a function called on the thread that answers, in the order of these calls.
        on_aliases: Called there with a model's name and aliases, each time its file has changed.
        on_versions: Called there with a model's name and its versions, each time these have; None: nobody asks.
    """

    def __init__(
        self,
        folder: Path,
        every_s: float,
        post: Callable[[Callable[[], object]], object],
        on_aliases: FileFound,
        on_versions: VersionsFound | None,
    ) -> None:
        self._folder = folder
        self._every_s = every_s
        self._post = post
        self._on_aliases = on_aliases
        self._on_versions = on_versions
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(JOBS_LIMIT)
        self._files: dict[str, tuple[int, ...] | None] = {}
        self._versions: dict[str, list[int]] = {}
        self._trouble = ""
        self._thread: Thread | None = None
        if every_s:
            self._start()

    def do(self, job: Callable[[], object], done: Callable[[object], None]) -> bool:
        """Have the thread do a job, and `done` called on the thread that answers with what it returned or raised.

        Returns:
            False: too many wait, and nothing will be done.
        """
        try:
            self._jobs.put_nowait(partial(self._attempt, job, done))
        except queue.Full:
            return False
        self._start()
        return True

    def close(self) -> None:
        """End the thread once what it is at is done."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(_CLOSE_S)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._work, name="tickgate-repository", daemon=True)
            self._thread.start()

    def _attempt(self, job: Callable[[], object], done: Callable[[object], None]) -> None:
        try:
            result = job()
        except Exception as error:  # noqa: BLE001 - who asked gets it
            result = error
        self._post(partial(done, result))

    def _work(self) -> None:
        due = time.monotonic()
        while True:
            if self._every_s and time.monotonic() >= due:
                self._look()
                due = time.monotonic() + self._every_s
            try:
                job = self._jobs.get(timeout=max(due - time.monotonic(), 0.0) if self._every_s else None)
            except queue.Empty:
                continue
            if job is None:
                return
            job()

    def _look(self) -> None:
        """Tell what has changed since the last look."""
        try:
            names = [path.name for path in self._folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
            for name in sorted({*names, *self._files}):
                self._look_at(name)
        except OSError as error:
            if str(error) != self._trouble:
                _LOG.error("repository cannot be looked at", folder=str(self._folder), why=str(error))
            self._trouble = str(error)
        else:
            self._trouble = ""

    def _look_at(self, name: str) -> None:
        folder = self._folder / name
        try:
            found = (folder / ALIASES_FILE).stat()
            stamp: tuple[int, ...] | None = (found.st_ino, found.st_mtime_ns, found.st_size)
        except FileNotFoundError:
            stamp = None
        if stamp != self._files.get(name):
            self._post(partial(self._on_aliases, name, aliases_of(folder)))
        self._files[name] = stamp
        if self._on_versions is not None:
            there = versions(self._folder, name)
            if there != self._versions.get(name, []):
                self._post(partial(self._on_versions, name, there))
            self._versions[name] = there
