"""Which version of a model an alias means: `<repository>/<name>/aliases.json`, and how it is changed.

The file is the truth, for every server of the repository and for who has none at hand. It is changed under a lock, by
writing beside it and renaming, and only where the alias still points at what the caller expected: of two changes at
once exactly one wins. It keeps its last 100 changes.

Without a file, and where it names no production, that is the highest version that is loaded at a start and that no
other alias names: who publishes a version that is not to serve yet must have production named before the next start.
"""

import contextlib
import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints

from tickgate_server.errors import FieldInvalid
from tickgate_server.models.documents import read_document
from tickgate_server.models.errors import (
    AliasConflict,
    AliasesInvalid,
    NothingBefore,
    RepositoryReadOnly,
    VersionMissing,
)

ALIASES_FILE = "aliases.json"
CHANGES_KEPT = 100
TEXT_BYTES = 200  # of a reason, of who gave it, of an override's reason
_LOCK_FILE = ".aliases.lock"
_FILE_BYTES = 1 << 20  # a hundred changes take a tenth of it
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}

AliasName: TypeAlias = Literal["production", "shadow", "canary"]
Version: TypeAlias = Annotated[int, Field(ge=1)]
Share: TypeAlias = Annotated[FiniteFloat, Field(gt=0.0, le=100.0)]
_Text: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_BYTES)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Canary(_Strict):
    """The version that answers for a share of the symbols, in percent."""

    version: Version
    share_percent: Share


class AliasChange(_Strict):
    """One change of an alias.

    Attributes:
        revision: That it made.
        at_ns: Wall clock.
        alias: Which.
        before: Version that it pointed at, or that it meant without being named; None: none.
        after: Version that it points at since; None: none.
        who: Changed it.
        reason: Why.
        override: Why a version was promoted that had not passed its checks; empty: it had.
        share_percent: Of a canary; 0 for the others, and for none.
    """

    revision: int = Field(ge=1)
    at_ns: int = Field(ge=0)
    alias: AliasName
    before: Version | None
    after: Version | None
    who: _Text
    reason: _Text
    override: Annotated[str, StringConstraints(max_length=TEXT_BYTES)] = ""
    share_percent: Annotated[FiniteFloat, Field(ge=0.0, le=100.0)] = 0.0


class Aliases(_Strict):
    """The aliases of one model.

    Attributes:
        format_version: Of this document.
        revision: Changes so far.
        production: Version; None: see the module.
        shadow: Version that scores and never answers; None: none.
        canary: None: none.
        previous: Production before the last change of it; None: not known.
        changes: Newest last.
    """

    format_version: Literal[1] = 1
    revision: int = Field(default=0, ge=0)
    production: Version | None = None
    shadow: Version | None = None
    canary: Canary | None = None
    previous: Version | None = None
    changes: Annotated[tuple[AliasChange, ...], Field(max_length=CHANGES_KEPT)] = ()

    def version_of(self, alias: AliasName) -> int | None:
        """What an alias points at; None: nothing."""
        if alias == "canary":
            return None if self.canary is None else self.canary.version
        return self.production if alias == "production" else self.shadow


def read_aliases(folder: Path) -> Aliases | None:
    """The aliases of the model at `<repository>/<name>/`; None: it has no file of them.

    Raises:
        AliasesInvalid: The file cannot be read, or is not what `Aliases` describes.
    """
    return read_document(folder / ALIASES_FILE, Aliases, _FILE_BYTES, AliasesInvalid)


def change_alias(
    folder: Path,
    alias: AliasName,
    version: int | None,
    *,
    expected: int | None,
    reason: str,
    who: str,
    share_percent: float = 0.0,
    override: str = "",
    implied: int | None = None,
) -> Aliases:
    """Point an alias elsewhere, if it still points where the caller expects.

    Args:
        folder: `<repository>/<name>/`.
        alias: Which.
        version: That it is to mean; None: no version any more.
        expected: What it points at as far as the caller knows; None: nothing.
        reason: Why, 1 to 200 bytes.
        who: By whom, 1 to 200 bytes.
        share_percent: Of the symbols that a canary is to answer for, over 0 to 100.
        override: Why a version is promoted that has not passed its checks; empty: it has.
        implied: Version that production means while the file names none, where the caller knows: it then counts as
            what production points at, and is what a roll-back goes back to.

    Returns:
        The aliases since. Where nothing changes, nothing is written, and they are those from before.

    Raises:
        AliasConflict: It points elsewhere.
        VersionMissing: There is no such version on disk.
        FieldInvalid: `version`, `share_percent`, `reason`, `who` or `override` is not as above.
        AliasesInvalid: As `read_aliases`; what is there is not written over.
        RepositoryReadOnly: The folder cannot be written.
        OSError: It cannot be written for another reason: the disk is full, say.
    """
    _require(version, alias, share_percent, reason, who, override)
    with _locked(folder):
        before = read_aliases(folder) or Aliases()
        current = before.version_of(alias)
        if alias == "production" and current is None:
            current = implied
        if current != expected:
            raise AliasConflict(folder.name, alias, expected, current)
        if version is not None and not (folder / str(version)).is_dir():
            raise VersionMissing(folder.name, version)
        return _change(folder, before, alias, current, version, share_percent, reason, who, override)


def roll_back(folder: Path, *, expected: int | None, reason: str, who: str) -> Aliases:
    """Point production at the version before, if it still points where the caller expects; twice is there and back.

    Args, returns and raises as `change_alias`, and:

    Raises:
        NothingBefore: No version before is known.
    """
    _require(None, "production", 0.0, reason, who, "")
    with _locked(folder):
        before = read_aliases(folder) or Aliases()
        if before.production != expected:
            raise AliasConflict(folder.name, "production", expected, before.production)
        if before.previous is None:
            raise NothingBefore(folder.name)
        if not (folder / str(before.previous)).is_dir():
            raise VersionMissing(folder.name, before.previous)
        return _change(folder, before, "production", before.production, before.previous, 0.0, reason, who, "")


def _require(version: int | None, alias: AliasName, share_percent: float, reason: str, who: str, override: str) -> None:
    if version is not None and version < 1:
        raise FieldInvalid("version", "an integer from 1", version)
    if alias == "canary" and version is not None:
        if not 0.0 < share_percent <= 100.0:
            raise FieldInvalid("share_percent", "over 0 to 100 for a canary", share_percent)
    elif share_percent != 0.0:
        raise FieldInvalid("share_percent", "0 where there is no canary", share_percent)
    for name, text in (("reason", reason), ("who", who)):
        if not (text.strip() and len(text.encode()) <= TEXT_BYTES):
            raise FieldInvalid(name, f"1 to {TEXT_BYTES} bytes of text", text)
    if len(override.encode()) > TEXT_BYTES:
        raise FieldInvalid("override", f"up to {TEXT_BYTES} bytes of text", override)


def _change(
    folder: Path,
    before: Aliases,
    alias: AliasName,
    current: int | None,
    version: int | None,
    share_percent: float,
    reason: str,
    who: str,
    override: str,
) -> Aliases:
    canary = None if version is None else Canary.model_construct(version=version, share_percent=float(share_percent))
    wanted: dict[str, object] = {alias: canary if alias == "canary" else version}
    if all(getattr(before, name) == value for name, value in wanted.items()):
        return before
    if alias == "production" and current is not None and current != version:
        wanted["previous"] = current
    revision = before.revision + 1
    change = AliasChange(
        revision=revision,
        at_ns=time.time_ns(),
        alias=alias,
        before=current,
        after=version,
        who=who,
        reason=reason,
        override=override,
        share_percent=float(share_percent),
    )
    changes = (*before.changes, change)[-CHANGES_KEPT:]
    after = before.model_copy(update={**wanted, "revision": revision, "changes": changes})
    _write(folder, after)
    return after


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of one model's aliases, which the kernel takes back from a process that dies."""
    if not folder.is_dir():
        raise AliasesInvalid(folder, "expected the folder of a model")
    path = folder / _LOCK_FILE
    try:
        file = path.open("ab")
    except OSError as error:
        raise _of_writing(path, error) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(folder: Path, aliases: Aliases) -> None:
    path = folder / ALIASES_FILE
    beside = folder / f".{ALIASES_FILE}-{uuid.uuid4().hex}"
    try:
        try:
            with beside.open("wb") as file:
                file.write(aliases.model_dump_json(indent=1).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            beside.rename(path)
        finally:
            beside.unlink(missing_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise _of_writing(path, error) from error


def _of_writing(path: Path, error: OSError) -> Exception:
    """What an error of the file system means to who asked for a change."""
    return RepositoryReadOnly(path, str(error.strerror)) if error.errno in _READ_ONLY else error
