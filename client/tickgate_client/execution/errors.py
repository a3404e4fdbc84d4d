"""Everything that execution raises on purpose, below `TickgateError`.

    TickgateError
    ├── OrderInvalid(order_id, field, found, expected)   an order that no venue could take
    ├── OrderUnknown(order_id)                           the engine has no such order
    ├── OrderReused(order_id)                            an order id is sent once, whatever became of it
    ├── ApprovalExceeded(order_id, ...)                  child orders would go beyond what was approved
    ├── FillReused(fill_id)                              the same fill id with another content
    ├── OutboxFull(waiting, capacity)                    no new order until the server took reports in
    ├── OutboxDamaged(path, offset, found)               a record that is not the last one does not hold
    ├── OutboxBusy(path)                                 another process has it open
    ├── OutboxUnwritable(path, cause)                    the disk refuses it: nothing more is executed
    └── EventsOverrun(capacity)                          a reader of events was too slow, and missed some

Why a signal is not executed is no error: see `gateway.Refusal`.
"""

from __future__ import annotations

from pathlib import Path

from tickgate_client.errors import TickgateError


class OrderInvalid(TickgateError, ValueError):
    """An order that no venue could take; nothing was sent.

    Attributes:
        order_id: Its own.
        field: What is wrong with it.
        found: What stands there.
        expected: What should.
    """

    def __init__(self, order_id: str, field: str, *, found: object, expected: str) -> None:
        super().__init__(f"order {order_id!r}, {field}: found {found!r}, expected {expected}")
        self.order_id = order_id
        self.field = field
        self.found = found
        self.expected = expected


class OrderUnknown(TickgateError, LookupError):
    """The engine has no order of that id."""

    def __init__(self, order_id: str) -> None:
        super().__init__(f"no order {order_id!r} is known")
        self.order_id = order_id


class OrderReused(TickgateError, ValueError):
    """An order id that was sent before: it is sent once, whatever became of it."""

    def __init__(self, order_id: str) -> None:
        super().__init__(f"order {order_id!r} was sent before")
        self.order_id = order_id


class ApprovalExceeded(TickgateError, ValueError):
    """Child orders would go beyond what was approved; nothing was sent.

    Attributes:
        order_id: Of the approved order.
        approved: Units that were approved.
        committed: Units that are filled or at work.
        asked: Units that the child would add.
    """

    def __init__(self, order_id: str, *, approved: float, committed: float, asked: float) -> None:
        super().__init__(
            f"order {order_id!r}: {committed!r} of {approved!r} units are filled or at work,"
            f" {asked!r} more are too many"
        )
        self.order_id = order_id
        self.approved = approved
        self.committed = committed
        self.asked = asked


class FillReused(TickgateError, ValueError):
    """A fill id that was recorded with another content: the venue contradicts itself."""

    def __init__(self, fill_id: str) -> None:
        super().__init__(f"fill {fill_id!r} was recorded before, with another content")
        self.fill_id = fill_id


class OutboxFull(TickgateError):
    """So many reports wait for the server that no new order is begun; fills are taken all the same."""

    def __init__(self, waiting: int, capacity: int) -> None:
        super().__init__(f"{waiting:,} reports wait for the server, new orders are begun below {capacity:,}")
        self.waiting = waiting
        self.capacity = capacity


class OutboxDamaged(TickgateError, ValueError):
    """A record in the middle of the file does not hold, or the file is none: nobody may guess what was in it.

    Attributes:
        path: The file.
        offset: Byte at which the record begins.
        found: What stands there.
    """

    def __init__(self, path: Path, offset: int, *, found: str) -> None:
        super().__init__(f"{path}, byte {offset:,}: found {found}, expected a record of an outbox")
        self.path = path
        self.offset = offset
        self.found = found


class OutboxBusy(TickgateError):
    """Another process has the outbox open: two would report each other's fills."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: another process has this outbox open")
        self.path = path


class OutboxUnwritable(TickgateError, OSError):
    """The outbox could not be written: what happens from here on would be lost, so nothing more is executed."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(f"{path}: the outbox cannot be written: {cause}")
        self.path = path
        self.cause = cause


class EventsOverrun(TickgateError):
    """A reader of events was too slow: events were lost to it, and its picture is wrong from here on."""

    def __init__(self, capacity: int) -> None:
        super().__init__(f"more than {capacity:,} events waited to be read")
        self.capacity = capacity
