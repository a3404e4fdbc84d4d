"""What became of published ticks, added up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tickgate.v1 import market_data_pb2
from tickgate_client.replay import reason_name


@dataclass(slots=True)
class TickTally:
    """Ticks by what the server did with them.

    A tick that was sent again because its acknowledgement was lost counts with the last answer, as DUPLICATE or as
    repeated say, though it was accepted the first time.

    Attributes:
        accepted: Applied to their symbol's state.
        repeated_latest: Their symbol's latest tick once more: nothing was applied.
        conflated: Superseded by a later tick of the same symbol while they waited.
        rejected: By reason, without the enum's prefix: `TICK_DUPLICATE`.
    """

    accepted: int = 0
    repeated_latest: int = 0
    conflated: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def add(self, counts: market_data_pb2.TickCounts) -> None:
        """Count an answer's ticks."""
        self.accepted += counts.accepted
        self.repeated_latest += counts.repeated_latest
        self.conflated += counts.conflated
        for of_reason in counts.rejected:
            self.rejected[reason_name(of_reason.reason)] += of_reason.ticks

    def merge(self, other: TickTally) -> None:
        """Count what another one counted."""
        self.accepted += other.accepted
        self.repeated_latest += other.repeated_latest
        self.conflated += other.conflated
        self.rejected.update(other.rejected)
