"""What begins a round before it is due: a journal says that the champion is degraded, or its features have drifted."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import structlog

from tickgate_server.journal.entries import ControlAssembler
from tickgate_server.journal.errors import RecordDamaged, RecordsRemoved
from tickgate_server.journal.layout import CONTROL, ControlKind, RecordKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.segments import last_sequence
from tickgate_training.retraining.comparison import read_champion
from tickgate_training.retraining.config import RetrainConfig
from tickgate_training.retraining.drift import drifted
from tickgate_training.retraining.errors import NothingNew
from tickgate_training.retraining.newest import blocks, read_newest
from tickgate_training.retraining.rounds import Rounds, TriggerSaid
from tickgate_training.retraining.serving import serving

_BATCH = 4096
_WANTED = [ControlKind.MODEL_DEGRADED, ControlKind.MODEL_REOPENED]
_LOG = structlog.get_logger()


class DegradedWatch:
    """Follows one journal for versions that are degraded and not reopened since.

    Attributes:
        degraded: Sequence of the record that says so, by name and version.

    Raises:
        JournalMissing: There is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.degraded: dict[tuple[str, int], int] = {}
        self._reader = JournalReader(folder)
        self._assembler = ControlAssembler()

    def look(self) -> None:
        """Take in what is in the journal now.

        Raises:
            JournalError: It cannot be read.
        """
        newest = last_sequence(self.folder)
        while newest and self._reader.next_sequence <= newest:
            try:
                rows = self._reader.poll(_BATCH)
            except (RecordsRemoved, RecordDamaged) as error:
                _LOG.warning("records lost", folder=str(self.folder), why=str(error))
                continue
            if not rows.size:
                return
            controls = rows.view(CONTROL)
            wanted = (controls["kind"] == RecordKind.CONTROL) & np.isin(controls["code"], _WANTED)
            for record in controls[wanted]:
                entry = self._assembler.feed(record)
                if entry is None or entry.restated:
                    continue
                version = (str(entry.payload["name"]), int(entry.payload["version"]))
                if entry.code == ControlKind.MODEL_DEGRADED:
                    self.degraded[version] = entry.sequence
                else:
                    self.degraded.pop(version, None)

    def close(self) -> None:
        """Let the journal go."""
        self._reader.close()


class Triggers:
    """Looks for what begins a round early; a trigger that a round could not follow is tried again after a while.

    Args:
        config: Of retraining.
        rounds: Which say what was answered already.
        clock_ns: Monotonic.

    Raises:
        JournalError: A journal is not there.
    """

    def __init__(self, config: RetrainConfig, rounds: Rounds, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._config = config
        self._rounds = rounds
        self._clock_ns = clock_ns
        wanted, journal = config.retrain.triggers, config.retrain.journal
        folders = journal.folders if wanted.on_degraded and journal is not None else ()
        self._watches = [DegradedWatch(folder) for folder in folders]
        self._next_ns = {"degraded": 0, "drift": 0}
        self._unknown: set[int] = set()

    def look(self) -> TriggerSaid | None:
        """What begins a round now; None: nothing.

        Raises:
            TrainingError, ModelError, JournalError: Champion, data or a journal cannot be read.
        """
        return self._degraded() or (self._drift() if self._config.retrain.triggers.on_drift else None)

    def close(self) -> None:
        """Let the journals go."""
        for watch in self._watches:
            watch.close()

    def _degraded(self) -> TriggerSaid | None:
        if not self._watches:
            return None
        for watch in self._watches:
            watch.look()
        name, champion = self._config.training.package.name, serving(self._config).champion
        for watch in self._watches:
            sequence = watch.degraded.get((name, champion), 0)
            journal = str(watch.folder)
            if sequence and not self._rounds.answered(journal, sequence) and self._again("degraded"):
                detail = f"{name}:{champion} is degraded"
                return TriggerSaid(kind="degraded", detail=detail, journal=journal, sequence=sequence)
        return None

    def _drift(self) -> TriggerSaid | None:
        if not self._again("drift"):
            return None
        config = self._config
        champion = serving(config).champion
        line = self._rounds.published(champion)
        if line is None or not line.drift_null:
            if champion not in self._unknown:
                self._unknown.add(champion)
                _LOG.warning(
                    "drift cannot be told",
                    model=config.training.package.name,
                    version=champion,
                    why="neither its manifest nor a round says what its features' indices stay below without a drift",
                )
            return None
        samples = read_newest(config).samples
        manifest = read_champion(config.model_folder, champion, samples, config.training).manifest
        wanted = config.retrain.triggers
        newest = samples.features[samples.ready][-wanted.drift_rows :]
        found = drifted(manifest, newest, line.drift_null, wanted.drift_least)
        if not found:
            return None
        try:
            blocks(samples, config, self._rounds.evaluated_until_ns)
        except NothingNew as error:
            _LOG.info("drift, and no round yet", features=sorted(found), why=str(error))
            return None
        told = ", ".join(f"{name} {index:.3g} over {limit:.3g}" for name, (index, limit) in sorted(found.items()))
        return TriggerSaid(kind="drift", detail=f"stability index of {told}")

    def _again(self, kind: str) -> bool:
        """Whether it is time to look, or to try, again."""
        now_ns = self._clock_ns()
        if now_ns < self._next_ns[kind]:
            return False
        self._next_ns[kind] = now_ns + int(self._config.retrain.triggers.again_s * 1e9)
        return True
