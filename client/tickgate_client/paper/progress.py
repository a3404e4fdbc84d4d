"""How far a paper run has come, on disk after each tick: a run that was killed goes on from there."""

from __future__ import annotations

import json
import os
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

FORMAT = "tickgate-paper-1"


class Progress:
    """Counts of one run; the file is replaced at each saving.

    Args:
        path: The file; read if it is there.

    Attributes:
        run: Names the run; request ids begin with it.
        asked: Ticks that were asked about.
        statuses: Calls by name of their gRPC status.
        reasons: Signals by the server's reason.
        refusals: Approved signals that were not executed, by reason.
        ends: Executed orders by what became of them.
        prices: The last price of each symbol.
        last_ns: Time of the last tick.
        starts: How often the run was begun.

    Raises ValueError for a file that is none of these.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        said = json.loads(path.read_bytes()) if path.exists() else {}
        if said and said.get("format") != FORMAT:
            raise ValueError(f"{path}: found format {said.get('format')!r}, expected {FORMAT!r}")
        self.run: str = said.get("run", uuid.uuid4().hex[:12])
        self.asked: int = said.get("asked", 0)
        self.statuses: Counter[str] = Counter(said.get("statuses", {}))
        self.reasons: Counter[str] = Counter(said.get("reasons", {}))
        self.refusals: Counter[str] = Counter(said.get("refusals", {}))
        self.ends: Counter[str] = Counter(said.get("ends", {}))
        self.prices: dict[str, float] = said.get("prices", {})
        self.last_ns: int = said.get("last_ns", 0)
        self.starts: int = said.get("starts", 0)

    def request_id(self, index: int) -> str:
        """Of the tick with that number: the same after a restart, so that no tick is executed twice."""
        return f"{self.run}-{index}"

    def save(self) -> None:
        """Put it in the place of what was there; survives the death of the process."""
        document = {
            "format": FORMAT,
            "run": self.run,
            "asked": self.asked,
            "statuses": self.statuses,
            "reasons": self.reasons,
            "refusals": self.refusals,
            "ends": self.ends,
            "prices": self.prices,
            "last_ns": self.last_ns,
            "starts": self.starts,
        }
        replace_file(self._path, lambda beside: beside.write_text(json.dumps(document), encoding="utf-8"))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside and put it in place, whole."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    write(beside)
    beside.replace(path)
