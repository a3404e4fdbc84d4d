"""How the store fares: a small file beside the journal that its process writes and everybody may read."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE_NAME = "store.status"
"""Of the status, beside the journal."""
LOCK_FILE = "store.lock"
"""What its process holds as long as it may write."""
WARM_START_FILE = "store.warm-start"
"""What a server leaves word of its warm start in, for the status."""
FORMAT_VERSION = 1
FRESH_S = 5.0
"""A status that is older is that of a process that is gone, or does not get a turn."""


@dataclass(frozen=True, slots=True)
class JournalPosition:
    """How far one journal was followed.

    Attributes:
        position: Record that was read last; 0: none.
        behind_records: How many there were behind it.
        lag_s: How long ago everything that was there had been read.
        followed: Whether the server's state is known.
        why: Why it is not; empty: it is.
    """

    position: int
    behind_records: int
    lag_s: float
    followed: bool
    why: str


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The store as its process last saw it. Counts are of that process, since `started_ns`.

    Attributes:
        clock_ns: Wall clock when this was written.
        started_ns: When the process began.
        pid: Of the process.
        where: Which Redis.
        connected: Whether the last call was answered.
        since_ns: Since when it is, or is not.
        why: Its last error; empty while it is connected.
        errors: Calls that failed, by what it was: unreachable, denied, full, fault.
        queue: Vectors that wait to be written.
        dirty: Symbols whose state changed and was not written yet.
        written_vectors: Vectors that were written.
        written_states: States that were.
        written_bytes: Bytes of both.
        dropped: Vectors that a full queue lost, the oldest first.
        conflated: Vectors passed over for a newer one of their symbol, the writer being behind.
        last_write_ns: Wall clock of the last write; 0: there was none.
        refused: Values that were not served, by reason (`states.errors.Refusal`), of the server's last warm start.
        warm_start: What became of that: `taken` symbols, `took_s`, `error`; empty: there was none.
        positions: By name of the journal's folder.
    """

    clock_ns: int
    started_ns: int
    pid: int
    where: str
    connected: bool
    since_ns: int
    why: str
    queue: int
    dirty: int
    written_vectors: int
    written_states: int
    written_bytes: int
    dropped: int
    conflated: int
    last_write_ns: int
    errors: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    warm_start: dict[str, float | str] = field(default_factory=dict)
    positions: dict[str, JournalPosition] = field(default_factory=dict)

    def fresh(self, now_ns: int) -> bool:
        """Whether the process that wrote it is alive, as far as can be told."""
        return now_ns - self.clock_ns <= FRESH_S * 1e9

    def text(self, now_ns: int) -> str:
        """One line for people."""
        if not self.fresh(now_ns):
            return f"store: no word for {(now_ns - self.clock_ns) / 1e9:.0f} s"
        state = "connected" if self.connected else f"not connected ({self.why})"
        since_s = (now_ns - self.since_ns) / 1e9
        return (
            f"store: {state} for {since_s:.0f} s, {self.queue:,} vectors and {self.dirty:,} states wait,"
            f" {self.dropped:,} dropped"
        )


def write_status(folder: Path, status: StoreStatus) -> None:
    """Put it beside the journal in a folder; raises OSError."""
    path = folder / FILE_NAME
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_text(json.dumps({"format_version": FORMAT_VERSION} | asdict(status)), "utf-8")
    unfinished.rename(path)


def read_status(folder: Path) -> StoreStatus | None:
    """The status beside the journal in a folder; None: there is none, or another version's.

    Args:
        folder: Of the journal; of several workers the one that holds theirs.
    """
    try:
        said = json.loads((folder / FILE_NAME).read_text("utf-8"))
        if said.pop("format_version") != FORMAT_VERSION:
            return None
        said["positions"] = {name: JournalPosition(**one) for name, one in said["positions"].items()}
        return StoreStatus(**said)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
