"""A run's own folder: finished folds, so that a run that was stopped goes on where it was, and what came of it.

`<runs>/<model's name>/<key>/`: the key is a hash of all that the folds depend on: the configuration but for names and
places, the data's fingerprint, the versions of the libraries and the sources of what computes. Another of any of these
is another folder.
"""

import fcntl
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import structlog

from tickgate_server.kernels import CACHE_FOLDER
from tickgate_training.config import TrainingConfig
from tickgate_training.errors import RunInUse
from tickgate_training.folds import Fold, read_fold, write_fold
from tickgate_training.paths import PathFold, read_path_fold, write_path_fold

_PACKAGE = Path(__file__).resolve().parent
_LIBRARIES = ("tickgate", "lightgbm", "numba", "numpy", "optuna", "scikit-learn")
_LOG = structlog.get_logger()
_Kept = TypeVar("_Kept", Fold, PathFold)


def key_of(config: TrainingConfig, fingerprint: str) -> str:
    """The hash that a run's folder is named by, 16 hexadecimal digits."""
    depends = config.model_dump(mode="json", exclude={"data", "fundamentals", "package", "runs", "scale"})
    versions = {name: version(name) for name in _LIBRARIES}
    document = {"config": depends, "data": fingerprint, "libraries": versions, "kernels": CACHE_FOLDER.name}
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class RunFolder:
    """The folder of one run, held by it alone; see `held`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folds = path / "folds"
        self._folds.mkdir(exist_ok=True)
        self._paths = path / "path_folds"
        self._paths.mkdir(exist_ok=True)

    def finished(self) -> dict[int, Fold]:
        """Folds of earlier runs by the number of their window; one that cannot be read is passed over, and said."""
        return _readable(self._folds, read_fold)

    def finished_paths(self) -> dict[int, PathFold]:
        """Likewise those of combinatorial splits, by the number of their split."""
        return _readable(self._paths, read_path_fold)

    def keep(self, fold: Fold) -> None:
        """Keep a finished fold."""
        write_fold(fold, self._folds / f"{fold.number:06d}.npz")

    def keep_path(self, fold: PathFold) -> None:
        """Likewise one of a combinatorial split."""
        write_path_fold(fold, self._paths / f"{fold.number:06d}.npz")

    def forget(self) -> None:
        """Remove all finished folds."""
        for folder in (self._folds, self._paths):
            for path in folder.glob("*.npz"):
                path.unlink()


def _readable(folder: Path, read: Callable[[Path], _Kept]) -> dict[int, _Kept]:
    found = {}
    for path in sorted(folder.glob("*.npz")):
        try:
            fold = read(path)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            _LOG.warning("fold not readable, will be run again", file=str(path), why=str(error))
            continue
        found[fold.number] = fold
    return found


@contextmanager
def held(runs: Path, config: TrainingConfig, fingerprint: str) -> Iterator[RunFolder]:
    """The folder of a run, made if it is not there; another process that wants it meanwhile is refused.

    Raises:
        RunInUse: Another process works in it.
        OSError: It cannot be made.
    """
    path = runs / config.package.name / key_of(config, fingerprint)
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunInUse(path) from error
        yield RunFolder(path)
    finally:
        os.close(descriptor)
