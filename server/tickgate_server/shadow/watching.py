"""The aliases of a repository as they change, what an alias meant at any time, and which shadows were not finished."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from tickgate_server.models.aliases import ALIASES_FILE, Aliases, AliasName, read_aliases
from tickgate_server.models.errors import AliasesInvalid
from tickgate_server.models.shadow_record import RECORD_FILE, ShadowRecordInvalid, read_record

NO_VERSION = 0

_Signature = tuple[int, int, int]
_LOG = structlog.get_logger()


class AliasFiles:
    """Follows `<repository>/<name>/aliases.json` of every model; a file is read again only where it was replaced.

    One that cannot be used is said once, and what was in force of it stays so.

    Attributes:
        aliases: By name of the model, those that have a file.
        unknown: Names whose file cannot be used, and of which nothing is in force.

    Args:
        repository: The folder; without it there are no aliases.
    """

    def __init__(self, repository: Path) -> None:
        self.aliases: dict[str, Aliases] = {}
        self.unknown: set[str] = set()
        self._repository = repository
        self._seen: dict[str, _Signature] = {}

    @property
    def shadows(self) -> Mapping[str, int]:
        """The version that is the shadow now, by name of the model."""
        found = {name: aliases.shadow for name, aliases in self.aliases.items()}
        return {name: version for name, version in found.items() if version is not None}

    def poll(self) -> bool:
        """Look at the files; whether anything changed since the last look."""
        seen = self._signatures()
        changed = {name for name, signature in seen.items() if self._seen.get(name) != signature}
        gone = set(self._seen) - set(seen)
        self._seen = seen
        for name in gone:
            self._forget(name)
        for name in changed:
            self._read(name)
        return bool(changed or gone)

    def _read(self, name: str) -> None:
        try:
            aliases = read_aliases(self._repository / name)
        except AliasesInvalid as error:
            _LOG.error("aliases unreadable", model=name, why=str(error), in_force=name in self.aliases)
            if name not in self.aliases:
                self.unknown.add(name)
            return
        self._forget(name)
        if aliases is not None:
            self.aliases[name] = aliases

    def _forget(self, name: str) -> None:
        self.aliases.pop(name, None)
        self.unknown.discard(name)

    def _signatures(self) -> dict[str, _Signature]:
        try:
            names = [path.name for path in self._repository.iterdir() if not path.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return {}
        found: dict[str, _Signature] = {}
        for name in names:
            try:
                status = (self._repository / name / ALIASES_FILE).stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            found[name] = (status.st_mtime_ns, status.st_ino, status.st_size)
        return found


def unfinished(folder: Path) -> list[tuple[str, int]]:
    """Versions that were shadows when the process that wrote their records ended, by name and number.

    Args:
        folder: `models.shadow_record.shadow_folder`.
    """
    found: list[tuple[str, int]] = []
    for path in sorted(folder.glob(f"*/*/{RECORD_FILE}")):
        name, number = path.parts[-3:-1]
        if not number.isdecimal():
            continue
        try:
            record = read_record(folder, name, int(number))
        except ShadowRecordInvalid as error:
            _LOG.error("shadow not scored", model=name, version=int(number), why=str(error))
            continue
        if record is not None and not record.ended:
            found.append((name, int(number)))
    return found


class Timeline:
    """Which version an alias meant at a time, by the changes that its file keeps.

    What was before the oldest change that is kept is what that change says of it; without a change it has always been
    so. Clock 0 is that of a server whose clock is the ticks' own: there the alias means what it means now.

    Args:
        aliases: Of the model.
        alias: Which.
    """

    def __init__(self, aliases: Aliases, alias: AliasName) -> None:
        changes = [change for change in aliases.changes if change.alias == alias]
        before = [change.before for change in changes]
        versions = [*before[:1], *(change.after for change in changes[:-1]), aliases.version_of(alias)]
        self._versions = np.array([version or NO_VERSION for version in versions], np.int64)
        since_ns = np.array([change.at_ns for change in changes], np.int64)
        self._since_ns = np.maximum.accumulate(since_ns) if changes else since_ns  # the wall clock may go back

    def at(self, clocks_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """The version at each clock, int64 [n]; NO_VERSION for none."""
        found = self._versions[np.searchsorted(self._since_ns, clocks_ns, side="right")]
        return np.where(clocks_ns == 0, self._versions[-1], found)

    def first_ns(self, version: int) -> int:
        """When the alias first meant a version; 0: as long as is known, or never."""
        places = np.flatnonzero(self._versions == version)
        return 0 if not places.size or places[0] == 0 else int(self._since_ns[places[0] - 1])
