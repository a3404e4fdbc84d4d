"""A replica in a file beside its journal, so that its process, started again, goes on from where it was.

A line of JSON, then every row's state and every state that waits, as `states.codec` packs them, then the SHA-256 of all
that. It names the record it reaches to, with that record's checksum: of another journal it is not.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tickgate_server.journal.errors import JournalError
from tickgate_server.journal.reader import JournalReader
from tickgate_server.states.codec import pack_state
from tickgate_server.states.errors import ValueRefused
from tickgate_server.states.file import unpack_all
from tickgate_server.states.state import put_state
from tickgate_server.store.replica import Replica, begin

FILE_NAME = "store.checkpoint"
FORMAT_VERSION = 1
_DIGEST_BYTES = 32


class CheckpointInvalid(Exception):
    """A checkpoint cannot be gone on from; says which file and why."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")


def write(folder: Path, replica: Replica, reached: int, checksum: int) -> None:
    """Write a checkpoint and put it in the place of the one before; nothing where the replica knows nothing.

    Args:
        folder: Of the journal.
        replica: With all records to `reached` taken in, and no control of which only a part was.
        reached: The last record.
        checksum: Of that record.

    Raises:
        OSError: It cannot be written.
    """
    run = replica.run
    if run is None:
        return
    head = {
        "format_version": FORMAT_VERSION,
        "reached": reached,
        "checksum": checksum,
        "settings": dict(run.settings),
        "models": [[*version, schema_id] for version, schema_id in run.models.items()],
        "names": run.names,
        "row_of_engine": run.row_of_engine.tolist(),
        "strange": run.strange.nonzero()[0].tolist(),
        "fundamentals": run.fundamentals,
    }
    path = folder / FILE_NAME
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    digest = hashlib.sha256()
    with unfinished.open("wb") as file:

        def put(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        put(json.dumps(head).encode() + b"\n")
        for row in range(len(run.names)):
            put(pack_state(replica.state(row), 0))
        for state in run.waiting.all():
            put(pack_state(state, 0))
        file.write(digest.digest())
    unfinished.rename(path)


def restore(folder: Path, replica: Replica) -> int:
    """Bring a replica to where a checkpoint reaches; the record to go on with.

    Raises:
        CheckpointInvalid: It is not whole, of another journal, or of other kernels; the replica is as it was.
        OSError: There is none, or it cannot be read.
    """
    path = folder / FILE_NAME
    content = path.read_bytes()
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise CheckpointInvalid(path, "it is not whole")
    line, _, packed = body.partition(b"\n")
    head = json.loads(line)
    if head["format_version"] != FORMAT_VERSION:
        raise CheckpointInvalid(path, f"expected format {FORMAT_VERSION}, found {head['format_version']}")
    reached = int(head["reached"])
    if _checksum_of(folder, reached) != head["checksum"]:
        raise CheckpointInvalid(path, f"record {reached} of the journal is not the one that it reaches to")
    try:
        _fill(replica, head, packed, str(path))
    except ValueRefused as error:
        replica.run = None
        raise CheckpointInvalid(path, str(error)) from error
    return reached + 1


def _fill(replica: Replica, head: dict[str, Any], packed: bytes, where: str) -> None:
    states = unpack_all(packed, where)
    run = begin(head["settings"])
    run.models = {(name, version): schema_id for name, version, schema_id in head["models"]}
    run.names = list(head["names"])
    run.rows = {symbol: row for row, symbol in enumerate(run.names)}
    run.row_of_engine[:] = head["row_of_engine"]
    run.strange[head["strange"]] = True
    replica.run = run
    replica.keep_windows(run)
    for row, symbol in enumerate(run.names):
        run.known.add_row(row, symbol)
        put_state(states[row], row, run.market, list(run.stores.values()))
        run.ticks[row], run.reached[row] = states[row].ticks, states[row].journal_sequence
    run.waiting.add(states[len(run.names) :])
    run.changed[: len(run.names)] = True
    if head["fundamentals"]:
        replica.adopt_fundamentals(run, head["fundamentals"])


def _checksum_of(folder: Path, sequence: int) -> int | None:
    """The checksum of a record; None where it is not there."""
    try:
        with JournalReader(folder, sequence) as reader:
            rows = reader.poll(1)
    except JournalError:
        return None
    return int(rows["checksum"][0]) if rows.size and rows["sequence"][0] == sequence else None
