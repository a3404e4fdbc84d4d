"""Fundamentals on their way from a source to the engine: read by a process, checked by a thread, taken by the hot path.

A source says whether there is anything new, and gives the table's file: `FileSource` is one. What the engine takes is
kept beside the journal under its hash before, so that a replay finds it; and so a server that starts while its source
is garbage goes on with what was in force.
"""

import os
import subprocess
from collections.abc import Hashable, Sequence
from pathlib import Path
from threading import Condition, Thread
from typing import NamedTuple, Protocol

import structlog

from tickgate_server.features.fundamentals_file import REFUSED, Columns, command
from tickgate_server.features.fundamentals_table import FundamentalsInvalid, FundamentalsTable, parse, sha256_of

KEPT_FILES = 1024
"""Most files kept for replay; the oldest go, and a journal that needs them cannot be replayed."""
KEPT_PREFIX = "fundamentals-"
READING_LIMIT_S = 300.0
UNREACHABLE = 4
"""Exit status of a program that could not reach its source: it is tried again, though nothing changed."""
_LOG = structlog.get_logger()


class Found(NamedTuple):
    """Fundamentals that were read, and the hash of their file."""

    table: FundamentalsTable
    sha256: str


class FundamentalsSource(Protocol):
    """Where fundamentals come from. Called by one thread at a time, and never by the one that answers."""

    @property
    def path(self) -> Path | str:
        """What it is called in errors."""

    def state(self) -> Hashable:
        """What differs where there is something new to read; cheap.

        Raises:
            OSError: It cannot be reached.
        """

    def read(self) -> bytes:
        """The table's file, see `fundamentals_table.pack`.

        Raises:
            FundamentalsInvalid: There is none, and why.
            OSError: It cannot be reached.
        """

    def close(self) -> None:
        """End a read that is under way; from another thread."""


class Reader:
    """Runs a program that writes a table's file to its standard output.

    Args:
        path: What its source is called in errors.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def run(self, arguments: Sequence[str], given: bytes = b"") -> bytes:
        """What it writes.

        Args:
            arguments: Its command.
            given: For its standard input.

        Raises:
            FundamentalsInvalid: It refused, with what it said on standard error; or it failed, or took too long.
            ConnectionError: It could not reach its source.
        """
        pipe = subprocess.PIPE
        with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe) as process:  # noqa: S603 - our own
            self._process = process
            if self._closed:
                process.kill()
            try:
                content, errors = process.communicate(given, timeout=READING_LIMIT_S)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise FundamentalsInvalid(self._path, f"not read within {READING_LIMIT_S:g} s") from error
        said = errors.decode(errors="replace").strip()
        if process.returncode == REFUSED:
            raise FundamentalsInvalid(self._path, said)
        if process.returncode == UNREACHABLE:
            raise ConnectionError(f"{self._path}: {said}")
        if process.returncode != 0:
            last = said.splitlines()[-1] if said else "it said nothing"
            raise FundamentalsInvalid(self._path, f"its reader ended with {process.returncode}: {last}")
        return content

    def close(self) -> None:
        """End what runs, and what would be run; from another thread."""
        self._closed = True
        if self._process is not None:
            self._process.kill()


class FileSource:
    """A CSV, JSON or Parquet file, read by a process of its own.

    Attributes:
        path: The file.

    Args:
        path: The file.
        columns: Which of its columns is what.
        called: What it is called in errors, if not by its path.
    """

    def __init__(self, path: Path, columns: Columns, called: str = "") -> None:
        self.path = path
        self._columns = columns
        self._reader = Reader(called or path)

    def state(self) -> Hashable:
        """Inode, size and time of the last change."""
        found = self.path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def read(self) -> bytes:
        """See `FundamentalsSource.read`."""
        return self._reader.run(command(self.path, self._columns))

    def close(self) -> None:
        """See `FundamentalsSource.close`."""
        self._reader.close()


class FundamentalsFeed:
    """Reads a source whenever it changed, and has the newest table ready to be taken.

    Args:
        source: As above.
        folder: The journal's, where what was read is kept; None: nowhere.
        refresh_s: Seconds between two looks at the source.

    Raises:
        FundamentalsInvalid: It cannot be used, and the folder has none that was in force before.
    """

    def __init__(self, source: FundamentalsSource, folder: Path | None, refresh_s: float) -> None:
        self._source = source
        self._folder = folder
        self._refresh_s = refresh_s
        self._condition = Condition()
        self._closed = False
        self._seen: Hashable = None
        self._sha256 = ""
        self._found: Found | None = None
        self._taken: Found | None = None
        self._begin()
        self._thread = Thread(target=self._run, name="fundamentals", daemon=True)
        self._thread.start()

    def take(self) -> Found | None:
        """What was read and not taken yet. Never waits."""
        found = self._found
        if found is self._taken:
            return None
        self._taken = found
        return found

    def close(self) -> None:
        """End the thread, and what it is reading."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._source.close()
        self._thread.join()

    def _begin(self) -> None:
        if self._folder is not None:
            for left in self._folder.glob(f"{KEPT_PREFIX}*.unfinished"):  # of a process that was killed
                left.unlink(missing_ok=True)
        try:
            self._look()
        except (OSError, FundamentalsInvalid) as error:
            kept = None if self._folder is None else newest_kept(self._folder)
            if kept is None:
                why = error.why if isinstance(error, FundamentalsInvalid) else f"cannot be read ({error})"
                raise FundamentalsInvalid(self._source.path, why) from error
            self._found = load(kept)
            self._sha256 = self._found.sha256
            _LOG.error("fundamentals refused", why=str(error), in_force=str(kept))

    def _run(self) -> None:
        while True:
            with self._condition:
                if self._condition.wait_for(lambda: self._closed, self._refresh_s):
                    return
            try:
                self._look()
            except (OSError, FundamentalsInvalid) as error:
                if not self._closed:
                    _LOG.error("fundamentals refused", why=str(error))

    def _look(self) -> None:
        """Read the source if it is another one than was seen last, be that one good or not."""
        state = self._source.state()
        if state == self._seen:
            return
        try:
            self._read(state)
        except FundamentalsInvalid:
            self._seen = state  # as bad the next time
            raise
        self._seen = state

    def _read(self, state: Hashable) -> None:
        content = self._source.read()
        if self._source.state() != state:  # what was read may be half of it, and still look whole
            raise FundamentalsInvalid(self._source.path, "it changed while it was read; it will be read again")
        sha256 = sha256_of(content)
        if sha256 == self._sha256:
            return
        found = Found(parse(self._source.path, content), sha256)
        if self._folder is not None:
            _keep(self._folder, content, sha256)
        self._sha256 = sha256
        self._found = found
        table = found.table
        _LOG.info(
            "fundamentals read",
            source=str(self._source.path),
            symbols=len(table.symbols),
            names=list(table.names),
            values=int(table.values.size),
            sha256=sha256,
        )


def kept_path(folder: Path, sha256: str) -> Path:
    """Where the file of a hash is kept."""
    return folder / f"{KEPT_PREFIX}{sha256[:32]}.npz"


def newest_kept(folder: Path) -> Path | None:
    """The file that came into force last; None: there is none."""
    return max(_kept(folder), key=lambda path: path.stat().st_mtime_ns, default=None)


def load(path: Path) -> Found:
    """Read a table's file, with its hash.

    Raises:
        FundamentalsInvalid: It is none.
        OSError: It cannot be read.
    """
    content = path.read_bytes()
    return Found(parse(path, content), sha256_of(content))


def read_kept(folder: Path, sha256: str) -> Found:
    """The fundamentals of a hash, as `FundamentalsFeed` kept them.

    Raises:
        FundamentalsInvalid: Another file is in their place.
        OSError: They are not there.
    """
    path = kept_path(folder, sha256)
    found = load(path)
    if found.sha256 != sha256:
        raise FundamentalsInvalid(path, f"expected hash {sha256}, found {found.sha256}")
    return found


def _kept(folder: Path) -> list[Path]:
    return list(folder.glob(f"{KEPT_PREFIX}*.npz"))


def _keep(folder: Path, content: bytes, sha256: str) -> None:
    """Keep what was read, and mark it as the newest; raises OSError: what cannot be kept is not taken."""
    target = kept_path(folder, sha256)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.unfinished")
    unfinished.write_bytes(content)
    unfinished.rename(target)
    for old in sorted(_kept(folder), key=lambda path: path.stat().st_mtime_ns)[:-KEPT_FILES]:
        old.unlink(missing_ok=True)
