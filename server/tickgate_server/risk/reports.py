"""What the desk is told of orders and fills, and what it says of itself: the portfolio's language, without gRPC."""

from dataclasses import dataclass, field
from enum import IntEnum

from tickgate_server.risk.regimes import TradingState


class Side(IntEnum):
    """Of an order or a fill; numbers are those of `tickgate.v1.Side`."""

    BUY = 1
    SELL = 2


class OrderState(IntEnum):
    """What became of an order; numbers are those of `tickgate.v1.OrderState`.

    RESERVED is the server's own: approved, and nothing was reported yet. ACCEPTED ends its expiry; the others end it.
    """

    RESERVED = 1
    ACCEPTED = 2
    FILLED = 3
    CANCELLED = 4
    REJECTED = 5
    EXPIRED = 6


@dataclass(frozen=True, slots=True)
class OrderReport:
    """One `ReportOrder`.

    Attributes:
        symbol: Of the order; must be the one it was approved for.
        state: ACCEPTED, CANCELLED (also: never sent), REJECTED or EXPIRED (by the venue).
        order_id: As the signal gave it. 0: an order that tickgate did not ask for; then ACCEPTED, with side and size.
        side: Of such an order.
        size: Of such an order, in units.
    """

    symbol: str
    state: OrderState
    order_id: int = 0
    side: Side | None = None
    size: float = 0.0


@dataclass(frozen=True, slots=True)
class OrderAnswer:
    """What the report of an order came to.

    Attributes:
        order_id: Its own; the new one of an order that had none.
        state: It has now.
        remaining: Units still open.
        changed: False for a report that said nothing new.
    """

    order_id: int
    state: OrderState
    remaining: float
    changed: bool


@dataclass(frozen=True, slots=True)
class FillReport:
    """One `ReportFill`; always booked, however late, once by `fill_id`.

    Attributes:
        fill_id: The venue's, 1 to 36 bytes.
        symbol: What was traded.
        side: Of the fill.
        size: In units, > 0.
        price: In the instrument's currency, > 0.
        order_id: Of the order it belongs to; 0: none of tickgate's.
        fee: In the instrument's currency; negative: a rebate.
        exchange_ts_ns: Venue time; 0: not known.
    """

    fill_id: str
    symbol: str
    side: Side
    size: float
    price: float
    order_id: int = 0
    fee: float = 0.0
    exchange_ts_ns: int = 0


@dataclass(frozen=True, slots=True)
class FillAnswer:
    """What the report of a fill came to.

    Attributes:
        booked: False where this fill_id was booked before, with the same content.
        position: Of the symbol, in units, signed.
        remaining: Units of the order still open; 0 without an order.
    """

    booked: bool
    position: float
    remaining: float


@dataclass(frozen=True, slots=True)
class PositionSet:
    """A position as a person states it: replaces what was filled, leaves open orders."""

    symbol: str
    size: float
    average_cost: float


@dataclass(frozen=True, slots=True)
class PositionView:
    """One symbol of the portfolio; sizes in units, money in the base currency unless it says otherwise.

    `average_cost` and `mark` are prices in the instrument's currency; NaN where there is none.
    """

    symbol: str
    filled: float
    open_buys: float
    open_sells: float
    average_cost: float
    mark: float
    realised: float
    unrealised: float
    currency: str


@dataclass(frozen=True, slots=True)
class OrderView:
    """One open order or reservation; `expires_ns` is 0 for one that does not expire."""

    order_id: int
    symbol: str
    side: Side
    size: float
    remaining: float
    state: OrderState
    expires_ns: int


@dataclass(frozen=True, slots=True)
class StateView:
    """The trading state, who set it, why and when (wall clock)."""

    state: TradingState
    reason: str
    who: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class PortfolioView:
    """The whole portfolio at one moment; money in the base currency. What is not known is NaN.

    `revision` grows with every change. `value_at_risk` is that of what is held and open now.
    """

    revision: int
    state: StateView
    positions: tuple[PositionView, ...] = ()
    orders: tuple[OrderView, ...] = ()
    gross: float = 0.0
    net: float = 0.0
    realised: float = 0.0
    unrealised: float = 0.0
    drawdown: float = 0.0
    value_at_risk: float = 0.0
    base_currency: str = "USD"
    risk_data_fresh: bool = False
    degraded: tuple[str, ...] = field(default=())


class ReportRefused(Exception):
    """A report or a control cannot be taken; nothing changed. Root of this tree.

    ReportRefused
    ├── OrderUnknown          no such order, and none is described
    ├── FillReused            the fill_id was booked with another content
    └── TableFull             no room for another order
    """


class OrderUnknown(ReportRefused):
    """No order of that id is known any more.

    Attributes:
        order_id: As reported.
    """

    def __init__(self, order_id: int) -> None:
        super().__init__(f"order_id: no order {order_id} is known")
        self.order_id = order_id


class FillReused(ReportRefused):
    """A fill_id came again with another content.

    Attributes:
        fill_id: As reported.
    """

    def __init__(self, fill_id: str) -> None:
        super().__init__(f"fill_id: {fill_id!r} was booked with another content")
        self.fill_id = fill_id


class TableFull(ReportRefused):
    """There is no room for another order.

    Attributes:
        limit: Most orders.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"orders: expected at most {limit} open ones")
        self.limit = limit
