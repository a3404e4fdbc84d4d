"""The store's process: follows the journals of one server, and keeps Redis as they say."""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Event, Lock
from typing import Any

import structlog

from tickgate_server.beside import alone
from tickgate_server.journal.following import Following
from tickgate_server.journal.segments import Rows
from tickgate_server.states.codec import kernels_hash
from tickgate_server.store import checkpoint
from tickgate_server.store.connection import StoreConnection
from tickgate_server.store.feature_sets import FeatureSets
from tickgate_server.store.replica import Replica
from tickgate_server.store.writing import STATES_AT_ONCE, Writer
from tickgate_server.store_settings import StoreSettings
from tickgate_server.store_status import LOCK_FILE, WARM_START_FILE, JournalPosition, StoreStatus, write_status

# Between two looks at a journal that has nothing new: what a vector is late by at least.
PAUSE_S = 0.02
# How long one journal may keep the others, states and status waiting.
TURN_S = 0.1
STATUS_S = 0.5
CHECKPOINT_S = 30.0
# At the end, what waits is written for so long; to a Redis that does not answer, for less.
FLUSH_S = 3.0
FLUSH_UNANSWERED_S = 0.5
_LOG = structlog.get_logger()


class FollowedJournal(Following):
    """One engine's journal and its replica.

    Attributes:
        replica: As far as it was read.

    Args:
        folder: Of the journal; it must exist.
        replica: That knows nothing yet, or what a checkpoint said.
        start: The first record to read; None: the oldest there is.
    """

    def __init__(self, folder: Path, replica: Replica, start: int | None) -> None:
        super().__init__(folder, Lock(), start)
        self.replica = replica
        self._reached = (0, 0)  # the last record, its checksum
        self._kernels = kernels_hash()

    def _take(self, rows: Rows) -> None:
        self.replica.take(rows, same_kernels=self._reader.environment.get("kernels") == self._kernels)
        self._reached = int(rows["sequence"][-1]), int(rows["checksum"][-1])

    def _lose(self, first: int, last: int) -> None:
        super()._lose(first, last)
        self.replica.forget(f"records {first} to {last} are lost")

    def position(self) -> JournalPosition:
        """How far it was followed."""
        run = self.replica.run
        return JournalPosition(
            max(self.next_sequence - 1, 0),
            self.lag_records,
            self.lag_ns / 1e9,
            run is not None,
            "" if run is not None else self.replica.why_unknown,
        )

    def keep(self) -> None:
        """Write a checkpoint, if there is anything to keep."""
        reached, checksum = self._reached
        if not reached or self.replica.unfinished:
            return
        try:
            checkpoint.write(self.folder, self.replica, reached, checksum)
        except OSError as error:
            _LOG.error("checkpoint not written", folder=str(self.folder), why=str(error))


class StoreService:
    """Keeps Redis; one process a server.

    Args:
        settings: Of the store.
        journals: Folders by worker, which must exist; the one process of a server is "".
        folder: Where it leaves its status and its lock: the journal's, or that which holds the workers'.
        models: The repository, for the feature sets of its versions.

    Raises:
        StoreDenied: The password's file cannot be read.
        OSError: The folder cannot be written.
    """

    def __init__(self, settings: StoreSettings, journals: Mapping[str, Path], folder: Path, models: Path) -> None:
        self._settings = settings
        self._journals = journals
        self._folder = folder
        self._models = models
        self._connection = StoreConnection(settings)
        self._started_ns = time.time_ns()
        self._followed: list[FollowedJournal] = []
        self._status_s = self._states_s = 0.0
        self._told_since_ns = 0
        self._checkpoint_s = time.monotonic()

    def run(self, end: Event) -> None:
        """Follow until `end` is set, then what is left in the journals, and write what is to be written.

        Raises:
            OSError: The folder cannot be locked, or not be read.
            JournalError: A journal is not there.
            RuntimeError: The writer's thread ended.
        """
        with alone(self._folder / LOCK_FILE, end, "store's process") as ours, contextlib.ExitStack() as stack:
            if not ours:
                return
            writer = Writer(self._connection, self._settings)
            stack.callback(writer.close, 0.0)
            self._followed = [self._follow(folder, writer) for folder in self._journals.values()]
            for followed in self._followed:
                stack.callback(followed.close)
            while True:
                last = end.is_set()
                more = sum(followed.catch_up(TURN_S) for followed in self._followed)
                self._hand_on(writer)
                if not writer.alive:
                    raise RuntimeError("the writer's thread ended")
                if last and not more:
                    break
                if not more:
                    end.wait(PAUSE_S)
            self._finish(writer)

    def _follow(self, folder: Path, writer: Writer) -> FollowedJournal:
        replica = Replica(folder, FeatureSets(self._models), writer.offer, writer.offer_states)
        start = None
        try:
            start = checkpoint.restore(folder, replica)
            _LOG.info("store goes on", journal=str(folder), sequence=start)
        except FileNotFoundError:
            pass
        except (checkpoint.CheckpointInvalid, OSError, ValueError, KeyError) as error:
            replica.run = None
            _LOG.warning("checkpoint refused", why=str(error))
        return FollowedJournal(folder, replica, start)

    def _hand_on(self, writer: Writer, *, last: bool = False) -> None:
        """Give the writer the states that changed, tell how things are, and keep checkpoints, each in its time."""
        now_s = time.monotonic()
        if writer.reconnected:
            writer.reconnected = False
            for followed in self._followed:  # Redis may have come back empty
                followed.replica.mark_changed()
        unwritten = writer.take_unwritten()
        for followed in self._followed if unwritten else ():
            followed.replica.mark_changed(unwritten)
        due = last or now_s - self._states_s >= self._settings.write_interval_s
        ready = due and (writer.connected or last) and not writer.states_waiting
        if ready and self._offer_states(writer):
            self._states_s = now_s
        if now_s - self._status_s >= STATUS_S or writer.since_ns != self._told_since_ns:
            self._status_s, self._told_since_ns = now_s, writer.since_ns
            self._tell(writer)
        if now_s - self._checkpoint_s >= CHECKPOINT_S:
            self._keep()

    def _offer_states(self, writer: Writer) -> bool:
        """Copy some states that changed; whether these were all."""
        limit = 4 * STATES_AT_ONCE
        for followed in self._followed:
            states = followed.replica.take_changed(limit)
            writer.offer_states(states)
            limit -= len(states)
        return not any(followed.replica.changed for followed in self._followed)

    def _keep(self) -> None:
        self._checkpoint_s = time.monotonic()
        for followed in self._followed:
            followed.keep()

    def _finish(self, writer: Writer) -> None:
        """Write what waits, as far as Redis takes it in FLUSH_S."""
        self._keep()
        give_up = time.monotonic() + (FLUSH_S if writer.connected else FLUSH_UNANSWERED_S)
        while time.monotonic() < give_up:
            self._hand_on(writer, last=True)
            if not (writer.queue or writer.states_waiting or any(one.replica.changed for one in self._followed)):
                break
            time.sleep(PAUSE_S)
        writer.close(max(give_up - time.monotonic(), 0.1))
        self._tell(writer)

    def _tell(self, writer: Writer) -> None:
        warm_start = read_warm_start(self._folder)
        try:
            write_status(
                self._folder,
                StoreStatus(
                    clock_ns=time.time_ns(),
                    started_ns=self._started_ns,
                    pid=os.getpid(),
                    where=self._connection.where,
                    connected=writer.connected,
                    since_ns=writer.since_ns,
                    why=writer.why,
                    queue=writer.queue,
                    dirty=writer.states_waiting + sum(one.replica.changed for one in self._followed),
                    written_vectors=writer.written_vectors,
                    written_states=writer.written_states,
                    written_bytes=writer.written_bytes,
                    dropped=writer.dropped,
                    conflated=writer.conflated,
                    last_write_ns=writer.last_write_ns,
                    errors=dict(writer.errors),
                    refused=warm_start.pop("refused", {}),
                    warm_start=warm_start,
                    positions={one.folder.name: one.position() for one in self._followed},
                ),
            )
        except OSError as error:
            _LOG.error("status not written", folder=str(self._folder), why=str(error))


def read_warm_start(folder: Path) -> dict[str, Any]:
    """What the server's last warm start left word of; empty where there was none."""
    try:
        found = json.loads((folder / WARM_START_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
