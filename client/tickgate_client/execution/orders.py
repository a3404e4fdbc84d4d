"""Orders, fills, and what a venue says about them.

Sizes are in units of the instrument, prices in its currency. `Side` has the contract's numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from tickgate_client.execution.errors import OrderInvalid

ORDER_ID_BYTES = 64
"""Longest order id."""

FILL_ID_BYTES = 36
"""Longest fill id; the contract's bound."""

SYMBOL_BYTES = 32
"""Longest symbol; the contract's bound."""


class Side(IntEnum):
    """Of an order or a fill."""

    BUY = 1
    SELL = 2

    @property
    def sign(self) -> float:
        """1 for bought, -1 for sold."""
        return 1.0 if self is Side.BUY else -1.0

    @property
    def opposite(self) -> Side:
        """The other one."""
        return Side.SELL if self is Side.BUY else Side.BUY

    @classmethod
    def of(cls, signed_size: float) -> Side:
        """The side of signed units."""
        return cls.BUY if signed_size > 0.0 else cls.SELL


class OrderState(StrEnum):
    """What became of an order at its venue."""

    SENT = "SENT"
    """On its way; nothing was heard of it."""
    WORKING = "WORKING"
    """Accepted, with units open."""
    FILLED = "FILLED"
    """All of it."""
    CANCELLED = "CANCELLED"
    """Taken back; what was filled before stays."""
    REJECTED = "REJECTED"
    """Refused by the venue."""
    EXPIRED = "EXPIRED"
    """Its time was over."""

    @property
    def is_open(self) -> bool:
        """Whether it may still be filled."""
        return self in (OrderState.SENT, OrderState.WORKING)


class RejectReason(StrEnum):
    """Why a venue refused an order; names are CATEGORY_CONDITION."""

    VENUE_REFUSED = "VENUE_REFUSED"
    """It gave no reason that has a name here."""
    LIMIT_SIZE = "LIMIT_SIZE"
    """More units than the venue takes in one order."""
    LIMIT_NOTIONAL = "LIMIT_NOTIONAL"
    """More money than the venue takes in one order."""
    LIMIT_OPEN_ORDERS = "LIMIT_OPEN_ORDERS"
    """Too many orders are open."""
    SIZE_LOT = "SIZE_LOT"
    """The size is no multiple of the lot."""
    MARKET_UNKNOWN = "MARKET_UNKNOWN"
    """The venue knows no price of the symbol."""


@dataclass(frozen=True, slots=True)
class NewOrder:
    """A limit order to send.

    Attributes:
        order_id: The sender's, 1 to 64 bytes; used once.
        symbol: 1 to 32 bytes of UTF-8.
        side: Its side.
        size: Units, > 0 and finite.
        limit_price: Worst price to accept, > 0 and finite.
        valid_for_ns: From sending; nothing is filled after it.
    """

    order_id: str
    symbol: str
    side: Side
    size: float
    limit_price: float
    valid_for_ns: int

    def check(self) -> None:
        """Raise OrderInvalid, naming the field, unless a venue could take it."""
        for field, text, most in (
            ("order_id", self.order_id, ORDER_ID_BYTES),
            ("symbol", self.symbol, SYMBOL_BYTES),
        ):
            if not 1 <= len(text.encode()) <= most:
                raise OrderInvalid(self.order_id, field, found=text, expected=f"1 to {most} bytes of UTF-8")
        for field, number in (("size", self.size), ("limit_price", self.limit_price)):
            if not 0.0 < number < math.inf:
                raise OrderInvalid(self.order_id, field, found=number, expected="a finite number above 0")
        if self.valid_for_ns <= 0:
            raise OrderInvalid(self.order_id, "valid_for_ns", found=self.valid_for_ns, expected="time that is left")


@dataclass(frozen=True, slots=True)
class OrderStatus:
    """An order as its engine knows it.

    Attributes:
        order: As it was sent.
        state: What became of it.
        filled: Units.
    """

    order: NewOrder
    state: OrderState
    filled: float

    @property
    def remaining(self) -> float:
        """Units that may still be filled; 0 once it has ended."""
        return max(self.order.size - self.filled, 0.0) if self.state.is_open else 0.0


@dataclass(frozen=True, slots=True)
class Fill:
    """Units that changed hands.

    Attributes:
        fill_id: The venue's, 1 to 36 bytes: what makes a repeated report harmless.
        order_id: Of the order that was sent.
        symbol: Of it.
        side: Of it.
        size: Units, > 0.
        price: In the instrument's currency.
        fee: In the instrument's currency; negative: a rebate.
        exchange_ts_ns: Nanoseconds since the Unix epoch on the venue's clock; 0: not known.
    """

    fill_id: str
    order_id: str
    symbol: str
    side: Side
    size: float
    price: float
    fee: float = 0.0
    exchange_ts_ns: int = 0


@dataclass(frozen=True, slots=True)
class OrderAccepted:
    """The venue has the order.

    Attributes:
        order_id: Its own.
        exchange_ts_ns: When, on the venue's clock.
    """

    order_id: str
    exchange_ts_ns: int


@dataclass(frozen=True, slots=True)
class OrderRejected:
    """The venue refused the order; it never worked.

    Attributes:
        order_id: Its own.
        reason: Why.
        text: The venue's words, or empty.
        exchange_ts_ns: When, on the venue's clock.
    """

    order_id: str
    reason: RejectReason
    text: str
    exchange_ts_ns: int


@dataclass(frozen=True, slots=True)
class OrderFilled:
    """Some of the order, or the rest of it, was filled.

    Attributes:
        fill: What changed hands.
        remaining: Units still open.
    """

    fill: Fill
    remaining: float

    @property
    def order_id(self) -> str:
        """Of the order."""
        return self.fill.order_id


@dataclass(frozen=True, slots=True)
class OrderCancelled:
    """The order was taken back; what was filled before stays.

    Attributes:
        order_id: Its own.
        exchange_ts_ns: When, on the venue's clock.
    """

    order_id: str
    exchange_ts_ns: int


@dataclass(frozen=True, slots=True)
class OrderExpired:
    """The order's time was over.

    Attributes:
        order_id: Its own.
        exchange_ts_ns: When, on the venue's clock.
    """

    order_id: str
    exchange_ts_ns: int


@dataclass(frozen=True, slots=True)
class CancelRefused:
    """A cancel came too late: the order had ended, and is as it was.

    Attributes:
        order_id: Of the order.
        state: That the order had.
        exchange_ts_ns: When, on the venue's clock.
    """

    order_id: str
    state: OrderState
    exchange_ts_ns: int


OrderEvent = OrderAccepted | OrderRejected | OrderFilled | OrderCancelled | OrderExpired | CancelRefused
"""What an engine says."""

ENDS = (OrderRejected, OrderCancelled, OrderExpired)
"""Events after which nothing of the order is open; besides, an OrderFilled with nothing remaining."""
