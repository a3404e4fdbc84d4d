"""Risk data on their way from the observer's file to the engine: read and checked by a thread, taken by the hot path.

Reading some megabytes takes milliseconds, so the thread that answers only says which generation it wants, and takes
what is ready. What it took is kept beside the journal under its hash, so that a replay finds it.
"""

import hashlib
import os
from pathlib import Path
from threading import Condition, Thread
from typing import NamedTuple

import structlog

from tickgate_server.risk.data import FILE_NAME, RiskData, RiskDataInvalid, parse
from tickgate_server.risk.exposures import Exposures

KEPT_FILES = 4096
"""Most files kept for replay; the oldest go, and a journal that needs them cannot be replayed."""
KEPT_PREFIX = "risk-data-"
_LOG = structlog.get_logger()


class Found(NamedTuple):
    """Risk data that were read, and the hash of their file."""

    data: RiskData
    sha256: str
    exposures: Exposures


def kept_path(folder: Path, sha256: str) -> Path:
    """Where the file of a hash is kept."""
    return folder / f"{KEPT_PREFIX}{sha256[:32]}.npz"


def load(path: Path) -> Found:
    """Read a risk-data file, with its hash.

    Raises:
        RiskDataInvalid: It is none.
        OSError: It cannot be read.
    """
    content = path.read_bytes()
    data = parse(path, content)
    return Found(data, hashlib.sha256(content).hexdigest(), exposures_of(data))


def exposures_of(data: RiskData) -> Exposures:
    """Exposures of nothing yet, to the market that the data describe."""
    found = Exposures(len(data.symbols), len(data.scenarios))
    found.covariance[:] = (data.covariance + data.covariance.T) / 2.0  # the kernels read rows alone
    found.scenarios[:] = data.scenarios.T
    return found


class RiskDataFeed:
    """Reads `risk-data.npz` of a folder whenever there is another generation of it.

    Args:
        folder: The journal's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._condition = Condition()
        self._wanted = float("nan")
        self._read = float("nan")
        self._found: Found | None = None
        self._thread: Thread | None = None
        self._closed = False

    def want(self, generation: float) -> None:
        """Have that generation read, unless it was; NaN: nothing is known of any. Never waits."""
        if generation != generation or generation == self._wanted:  # noqa: PLR0124 - NaN
            return
        self._wanted = generation
        if self._thread is None:
            self._thread = Thread(target=self._run, name="risk-data", daemon=True)
            self._thread.start()
        with self._condition:
            self._condition.notify()

    def take(self) -> Found | None:
        """What was read and not taken yet."""
        found, self._found = self._found, None
        return found

    def keep(self, sha256: str) -> None:
        """Keep the file that was taken, for replay; best effort: a journal without it is refused by replay."""
        path = self._folder / FILE_NAME
        target = kept_path(self._folder, sha256)
        try:
            if hashlib.sha256(path.read_bytes()).hexdigest() == sha256 and not target.exists():
                os.link(path, target)
            kept = sorted(self._folder.glob(f"{KEPT_PREFIX}*.npz"), key=lambda file: file.stat().st_mtime)
            for old in kept[:-KEPT_FILES]:
                old.unlink(missing_ok=True)
        except OSError as error:
            _LOG.warning("risk data not kept for replay", file=str(target), why=str(error))

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        with self._condition:
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._wanted != self._read)
                if self._closed:
                    return
                wanted = self._wanted
            try:
                self._found = self._load_and_keep()
            except (OSError, RiskDataInvalid) as error:
                _LOG.error("risk data refused", why=str(error))
            self._read = wanted

    def _load_and_keep(self) -> Found:
        found = load(self._folder / FILE_NAME)
        self.keep(found.sha256)
        return found


def read_kept(folder: Path, sha256: str) -> Found:
    """The risk data of a hash, as `RiskDataFeed` kept them.

    Raises:
        RiskDataInvalid: They are not there, or another file is.
        OSError: They cannot be read.
    """
    path = kept_path(folder, sha256)
    found = load(path)
    if found.sha256 != sha256:
        raise RiskDataInvalid(path, f"expected hash {sha256}, found {found.sha256}")
    return found
