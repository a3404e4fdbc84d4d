"""What can be wrong with the store. None of it ever reaches a request: Predict reads level 1.

StoreError
├── StoreUnreachable        no connection, no reply in time, or a failover is under way
│   └── BreakerOpen         it was not even tried: too many failures in a row, and the next probe is not due
├── StoreDenied             Redis does not let this user in, or not do this
├── StoreFull               no memory for more
└── StoreFault              any other error that Redis answered with
"""


class StoreError(Exception):
    """Root of this tree.

    Attributes:
        where: Which Redis.
        why: What it said.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class StoreUnreachable(StoreError):
    """No connection, no reply in time, or a failover is under way."""


class BreakerOpen(StoreUnreachable):
    """Too many failures in a row, and the next probe is not due.

    Attributes:
        for_s: Until then.
    """

    def __init__(self, where: str, why: str, for_s: float) -> None:
        super().__init__(where, f"left alone for {for_s:.2f} s more after {why}")
        self.for_s = for_s


class StoreDenied(StoreError):
    """Redis does not let this user in, or not do this."""


class StoreFull(StoreError):
    """No memory for more."""


class StoreFault(StoreError):
    """Any other error that Redis answered with."""
