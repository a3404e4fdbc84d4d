"""The states that a server began with, in a file beside its journal, named by its hash: a replay begins with the same.

The file is states one behind the other, each as `states.codec` packs it.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from tickgate_server.states.codec import Buffer, state_bytes, unpack_state
from tickgate_server.states.errors import Refusal, ValueRefused
from tickgate_server.states.state import SymbolState

KEPT_FILES = 64
"""Most files kept for replay; the oldest go, and a journal that needs them cannot be replayed."""
KEPT_PREFIX = "states-"


def kept_path(folder: Path, sha256: str) -> Path:
    """Where the file of a hash is kept."""
    return folder / f"{KEPT_PREFIX}{sha256[:32]}.bin"


def keep(folder: Path, values: Iterable[Buffer]) -> str:
    """Keep packed states; the hash of their file.

    Raises:
        OSError: They cannot be kept.
    """
    digest = hashlib.sha256()
    unfinished = folder / f"{KEPT_PREFIX}{os.getpid()}.unfinished"
    with unfinished.open("wb") as file:
        for value in values:
            digest.update(value)
            file.write(value)
    sha256 = digest.hexdigest()
    unfinished.rename(kept_path(folder, sha256))
    kept = sorted(folder.glob(f"{KEPT_PREFIX}*.bin"), key=lambda path: path.stat().st_mtime_ns)
    for old in kept[:-KEPT_FILES]:
        old.unlink(missing_ok=True)
    return sha256


def read_kept(folder: Path, sha256: str) -> list[SymbolState]:
    """The states of a hash, as `keep` kept them.

    Raises:
        ValueRefused: Another file is in their place, or other kernels computed them.
        OSError: They are not there.
    """
    path = kept_path(folder, sha256)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueRefused(Refusal.CHECKSUM, str(path), f"expected hash {sha256}, found {found}")
    return unpack_all(content, str(path))


def unpack_all(content: bytes, where: str) -> list[SymbolState]:
    """States one behind the other; raises `ValueRefused`."""
    rest = memoryview(content)
    states = []
    while rest:
        length = state_bytes(rest, where)
        states.append(unpack_state(rest[:length], where))
        rest = rest[length:]
    return states
