"""Orders and fills on disk until the server has them: nothing is lost or told twice, whoever dies when.

- What happens is appended at once: that survives the death of the process. Before a report is sent it is flushed to
  the disk: that survives the host's as well. So the trading path writes, and never waits for a disk.
- The server knows a repeated report by its ids, so what has no answer is sent again, in its order.
- The file is rewritten, beside and renamed, when it has grown: what was acknowledged goes, what it added up to stays.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import math
import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tickgate.v1 import portfolio_pb2
from tickgate_client.execution.account import Account
from tickgate_client.execution.errors import (
    FillReused,
    OrderInvalid,
    OrderReused,
    OutboxBusy,
    OutboxDamaged,
    OutboxFull,
    OutboxUnwritable,
)
from tickgate_client.execution.ledger import BegunOrder, OutboxLedger, RefusedReport, content, is_recordable
from tickgate_client.execution.orders import FILL_ID_BYTES, Fill, Side
from tickgate_client.execution.records import Kind, decode, encode

_LOG = logging.getLogger(__name__)


class Outbox:
    """The reports of one gateway. Safe to use from several threads; one process at a time has it open.

    Args:
        path: The file; made if it is not there. Beside it lie `<name>.lock` and, for moments, `<name>.new`.
        capacity: Reports that may wait for the server before no new order is begun. Fills of those under way are
            taken all the same: they have happened.
        compact_bytes: Size at which the file is rewritten.
        multiplier_of: Money that a price of 1 is, a unit, by symbol; for the account's cash.

    Attributes:
        cut_bytes: Bytes at the end that did not hold when it was opened: what a dying process had not finished.

    Raises:
        OutboxBusy: Another process has it.
        OutboxDamaged: A record in its middle does not hold.
        OSError: The file or its folder cannot be had.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        capacity: int = 65_536,
        compact_bytes: int = 4 << 20,
        multiplier_of: Callable[[str], float] = lambda _symbol: 1.0,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, must be at least 1 report")
        self.path = Path(path)
        self.capacity = capacity
        self.cut_bytes = 0
        self._compact_bytes = compact_bytes
        self._lock = threading.RLock()
        self._broken: str | None = None
        self._on_waiting: Callable[[], None] = lambda: None
        self._size = self._compact_at = 0
        self._ledger = OutboxLedger(Account(multiplier_of))
        self._lock_file = os.open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        self._file = -1
        try:
            self._take_lock()
            self._open()
        except BaseException:
            self.close()
            raise

    # -- what is recorded ----------------------------------------------------------------------------------------------

    def begin(self, order_id: int, symbol: str, side: Side, size: float, arrival_price: float = math.nan) -> None:
        """Record that an approved order is about to be worked.

        Args:
            order_id: The server's.
            symbol: Its own.
            side: Its side.
            size: Units.
            arrival_price: Of the market when it was asked for; NaN: not known.

        Raises OrderReused, OutboxFull or OutboxUnwritable: then it must not be.
        """
        with self._lock:
            if self._ledger.knows_order(order_id):
                raise OrderReused(str(order_id))
            if len(self._ledger.waiting) >= self.capacity:
                raise OutboxFull(len(self._ledger.waiting), self.capacity)
            self._append(
                Kind.ORDER,
                asdict(
                    BegunOrder(order_id, symbol, side, size, arrival_price if math.isfinite(arrival_price) else None)
                ),
            )

    def fill(self, fill: Fill, order_id: int) -> bool:
        """Record a fill, once by its id; False: it was recorded before.

        Args:
            fill: As the venue told it.
            order_id: The server's, of the approved order; 0: none of its.

        Raises FillReused, OrderInvalid for one that the server would never take, or OutboxUnwritable.
        """
        if not is_recordable(fill) or not 1 <= len(fill.fill_id.encode()) <= FILL_ID_BYTES:
            raise OrderInvalid(
                fill.order_id, "fill", found=fill, expected=f"positive numbers, and an id of 1 to {FILL_ID_BYTES} bytes"
            )
        with self._lock:
            known = self._ledger.content_of(fill.fill_id)
            if known is not None:
                if known != content(fill):
                    raise FillReused(fill.fill_id)
                return False
            self._report(Kind.FILL, {"fill": asdict(fill), "order_id": order_id})
        self._on_waiting()
        return True

    def state(self, order_id: int, symbol: str, state: portfolio_pb2.OrderState.ValueType) -> None:
        """Record what became of an approved order; all but ACCEPTED end it."""
        with self._lock:
            self._report(Kind.STATE, {"order_id": order_id, "symbol": symbol, "state": int(state)})
        self._on_waiting()

    def correct(self, symbol: str, position: float) -> None:
        """Set what is held of a symbol, as a person or the venue says; it is reported to nobody."""
        with self._lock:
            self._append(Kind.CORRECTION, {"symbol": symbol, "position": float(position)})

    # -- what is sent --------------------------------------------------------------------------------------------------

    def to_send(self, most: int) -> list[tuple[int, portfolio_pb2.ReportRequest]]:
        """The oldest reports without an answer, by number; they are on the disk when this returns."""
        with self._lock:
            self._require_open()
            found = list(itertools.islice(self._ledger.waiting.items(), most))
            if not found:
                return found
            file = os.dup(self._file)  # a rewritten file is flushed already: this one may be closed meanwhile
        try:
            os.fsync(file)  # under no lock: the trading path goes on writing
        except OSError as error:
            self._broken = str(error)  # what a failed fsync left on the disk nobody knows
            raise OutboxUnwritable(self.path, str(error)) from error
        finally:
            os.close(file)
        return found

    def acknowledge(self, sequence: int) -> None:
        """The server has a report."""
        with self._lock:
            self._append(Kind.ACKNOWLEDGED, {"sequence": sequence})
            if self._size >= self._compact_at:
                self._rewrite()

    def refuse(self, sequence: int, code: int, message: str) -> None:
        """The server will never take a report; it is kept in `refused`, and not sent again."""
        with self._lock:
            self._append(Kind.REFUSED, {"sequence": sequence, "code": code, "message": message})

    def on_waiting(self, call: Callable[[], None]) -> None:
        """Have `call` called after each report that was recorded."""
        self._on_waiting = call

    # -- what it adds up to --------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Reports without an answer."""
        return len(self._ledger.waiting)

    @property
    def account(self) -> Account:
        """What the recorded fills add up to; to read, under no lock but the caller's own."""
        return self._ledger.account

    @property
    def newest_fill_ns(self) -> int:
        """Time of the newest recorded fill, on the venue's clock; 0: none."""
        return self._ledger.newest_fill_ns

    def positions(self) -> dict[str, float]:
        """Signed units that the recorded fills add up to."""
        with self._lock:
            return self._ledger.account.positions()

    @property
    def revision(self) -> int:
        """Grows with each fill and each correction."""
        return self._ledger.revision

    def knows_order(self, order_id: int) -> bool:
        """Whether an approved order was begun before; of the last 65,536."""
        with self._lock:
            return self._ledger.knows_order(order_id)

    def begun(self) -> list[BegunOrder]:
        """Orders that were begun and have not ended."""
        with self._lock:
            return list(self._ledger.begun.values())

    def refused(self) -> list[RefusedReport]:
        """Reports that the server will never take, the last 1,024."""
        with self._lock:
            return list(self._ledger.refused)

    def close(self) -> None:
        """Let go of the file; what waits is sent by who opens it next."""
        with self._lock:
            self._broken = self._broken or "it was closed"
            for file in (self._file, self._lock_file):
                if file >= 0:
                    os.close(file)
            self._file = self._lock_file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the file ------------------------------------------------------------------------------------------------------

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutboxBusy(self.path) from error

    def _open(self) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        records, good = decode(self.path, data)
        if data and (not records or records[0][0] is not Kind.SNAPSHOT):
            raise OutboxDamaged(self.path, 0, found="no snapshot at its beginning")
        for kind, body in records:
            self._ledger.apply(self.path, kind, body)
        self.cut_bytes = len(data) - good
        if self.cut_bytes:
            _LOG.warning("%s: the last %d bytes do not hold and were cut", self.path, self.cut_bytes)
        self._rewrite()

    def _report(self, kind: Kind, body: dict[str, Any]) -> None:
        self._append(kind, {"sequence": self._ledger.next_sequence, **body})

    def _append(self, kind: Kind, body: dict[str, Any]) -> None:
        self._require_open()
        data = encode(kind, body)
        try:
            written = os.write(self._file, data)
            if written < len(data):
                raise OSError(f"{written} of {len(data)} bytes were written")  # noqa: TRY301 - as one that could not
        except OSError as error:
            # Half a record may stand there now: nothing may follow it.
            self._broken = str(error)
            raise OutboxUnwritable(self.path, str(error)) from error
        self._size += len(data)
        self._ledger.apply(self.path, kind, body)

    def _require_open(self) -> None:
        if self._broken is not None:
            raise OutboxUnwritable(self.path, self._broken)

    def _rewrite(self) -> None:
        """Put a file with one snapshot in the place of this one."""
        data = encode(Kind.SNAPSHOT, self._ledger.snapshot())
        beside = self.path.with_name(self.path.name + ".new")
        try:
            file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            try:
                _write_all(file, data)
                os.fsync(file)
                beside.replace(self.path)
                _sync_folder(self.path.parent)
            except BaseException:
                os.close(file)
                raise
        except OSError as error:
            self._broken = str(error)
            raise OutboxUnwritable(self.path, str(error)) from error
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size = file, len(data)
        self._compact_at = max(self._compact_bytes, 2 * len(data))


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
