"""What becomes of each version, told in order: START, LOADING, READY or FAILED with the reason, UNLOADING, gone."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tickgate_server.models.loading import LoadedModel

# Versions that failed are remembered with their reason; of one more the oldest is forgotten.
FAILED_KEPT = 1024


class VersionState(StrEnum):
    """Where a version is in its life; no requests reach it but in READY."""

    START = "START"  # its load is asked for
    LOADING = "LOADING"
    READY = "READY"
    FAILED = "FAILED"  # a check did not pass; nothing changed
    UNLOADING = "UNLOADING"  # what is under way ends on it
    GONE = "GONE"  # told once, and not kept


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version and its state.

    Attributes:
        name: Of the model.
        version: Its own.
        state: See there.
        reason: Why it failed; empty otherwise.
        since_ns: Wall clock of the last change of state.
        loaded: What serves it, in READY; None otherwise.
    """

    name: str
    version: int
    state: VersionState
    reason: str
    since_ns: int
    loaded: LoadedModel | None = None


class StatusBoard:
    """The status of each version; one thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], VersionStatus] = {}
        self._failed: dict[tuple[str, int], None] = {}  # the oldest first
        self._subscribers: list[Callable[[VersionStatus], None]] = []

    def statuses(self) -> list[VersionStatus]:
        """Of every version that is known, by name and version."""
        return [self._known[key] for key in sorted(self._known)]

    def of(self, name: str, version: int) -> VersionStatus | None:
        """Of one version; None: it is not known."""
        return self._known.get((name, version))

    def subscribe(self, told: Callable[[VersionStatus], None]) -> Callable[[], None]:
        """Have a function called with each change, in order; returns what ends that."""
        self._subscribers.append(told)
        return lambda: self._subscribers.remove(told)

    def put(
        self, name: str, version: int, state: VersionState, reason: str = "", loaded: LoadedModel | None = None
    ) -> VersionStatus:
        """Publish a version's next state."""
        key = name, version
        found = VersionStatus(name, version, state, reason, time.time_ns(), loaded)
        self._failed.pop(key, None)
        if state is VersionState.GONE:
            self._known.pop(key, None)
        else:
            self._known[key] = found
        if state is VersionState.FAILED:
            self._failed[key] = None
            if len(self._failed) > FAILED_KEPT:
                oldest = next(iter(self._failed))
                del self._failed[oldest], self._known[oldest]
        for told in list(self._subscribers):
            told(found)
        return found
