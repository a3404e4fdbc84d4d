"""An approved order, and the child orders that it is worked by: never beyond the approval's size, price and time.

What is committed is what was filled and what is at work. Units of a child come back only when the venue says that it
has ended: a cancel that was sent frees nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tickgate.v1 import signal_pb2
from tickgate_client.execution.errors import ApprovalExceeded
from tickgate_client.execution.orders import (
    ENDS,
    NewOrder,
    OrderAccepted,
    OrderEvent,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrderState,
    Side,
)
from tickgate_client.execution.schedules import Schedule, at_once

_SIDES = {signal_pb2.ACTION_BUY: Side.BUY, signal_pb2.ACTION_SELL: Side.SELL}
_DUST = 1e-9
"""Less than this share of the approval is rounding."""


@dataclass(frozen=True, slots=True)
class Approval:
    """What the server let through.

    Attributes:
        order_id: The server's, from the signal; 0: an order that it did not ask for.
        symbol: Its own.
        side: Its side.
        size: Units.
        limit_price: Worst price.
        approved_ns: When it was asked for, on the gateway's clock.
        expires_ns: From when on nothing of it may be executed, on that clock.
        reducing: It only takes off what is held.
        arrival_price: Middle of the quote, or the last trade's price, when it was asked for; NaN: not known.
    """

    order_id: int
    symbol: str
    side: Side
    size: float
    limit_price: float
    approved_ns: int
    expires_ns: int
    reducing: bool
    arrival_price: float


def approval_of(
    response: signal_pb2.PredictResponse, asked_ns: int, arrival_price: float = math.nan
) -> Approval | None:
    """What an approved answer lets through; None where it has no side, size, price or id that could be executed.

    Args:
        response: The answer.
        asked_ns: The gateway's clock before its request left.
        arrival_price: Of the market then; NaN: not known.
    """
    signal = response.signal
    side = _SIDES.get(signal.action)
    if side is None or not all(0.0 < number < math.inf for number in (signal.size, signal.limit_price)):
        return None
    if not signal.order_id:
        return None
    return Approval(
        order_id=signal.order_id,
        symbol=response.symbol,
        side=side,
        size=signal.size,
        limit_price=signal.limit_price,
        approved_ns=asked_ns,
        expires_ns=asked_ns + signal.valid_for_us * 1000,
        reducing=signal.reducing,
        arrival_price=arrival_price,
    )


class ParentOrder:
    """Works one approval by a schedule.

    Args:
        approval: What may be traded.
        schedule: When; its size is at most the approval's.
        prefix: Of the children's ids: `<prefix><order id>-<number>`.

    Attributes:
        approval: As given.
        filled: Units.
        accepted: The venue took a child in.
        cancelled: It was stopped: no child is sent any more.
        rejected: Children that the venue refused.
    """

    def __init__(self, approval: Approval, schedule: Schedule, prefix: str = "") -> None:
        if not schedule.cumulative[-1] <= approval.size:
            raise ApprovalExceeded(
                str(approval.order_id), approved=approval.size, committed=0.0, asked=schedule.cumulative[-1]
            )
        self.approval = approval
        self.filled = 0.0
        self.accepted = False
        self.cancelled = False
        self.rejected = 0
        self._schedule = schedule
        self._prefix = f"{prefix}{approval.order_id}"
        self._sent = 0
        self._open: dict[str, float] = {}  # units that may still be filled, by child
        self._expired = False

    @classmethod
    def recovered(
        cls, order_id: int, symbol: str, side: Side, size: float, filled: float, children: Mapping[str, float]
    ) -> ParentOrder:
        """An order that an earlier process began: no child is sent any more, and those at work are waited for."""
        approval = Approval(
            order_id=order_id,
            symbol=symbol,
            side=side,
            size=size,
            limit_price=math.nan,
            approved_ns=0,
            expires_ns=0,
            reducing=False,
            arrival_price=math.nan,
        )
        found = cls(approval, at_once(size))
        found.filled, found.cancelled = filled, True
        found._open.update(children)
        return found

    @property
    def committed(self) -> float:
        """Units that are filled or may still be: at most the approval's size."""
        return self.filled + sum(self._open.values())

    @property
    def children(self) -> Mapping[str, float]:
        """Units that may still be filled, by child."""
        return self._open

    def next_child(self, now_ns: int) -> NewOrder | None:
        """The child that is due, if any; it counts as sent. Nothing is due once the approval has expired.

        Raises ApprovalExceeded where it would go beyond the approval, which no schedule does.
        """
        approval = self.approval
        if now_ns >= approval.expires_ns:
            self._expired = True
        if self.cancelled or self._expired:
            return None
        wanted = self._schedule.due(now_ns - approval.approved_ns) - self.committed
        if wanted <= _DUST * approval.size:
            return None
        # The last child takes what is left: sums of parts are not exact.
        wanted = min(wanted, approval.size - self.committed)
        if not 0.0 < self.committed + wanted <= approval.size * (1.0 + _DUST):
            raise ApprovalExceeded(self._prefix, approved=approval.size, committed=self.committed, asked=wanted)
        self._sent += 1
        child = NewOrder(
            order_id=f"{self._prefix}-{self._sent}",
            symbol=approval.symbol,
            side=approval.side,
            size=wanted,
            limit_price=approval.limit_price,
            valid_for_ns=approval.expires_ns - now_ns,
        )
        self._open[child.order_id] = child.size
        return child

    def not_sent(self, child: NewOrder) -> None:
        """The engine took nothing of a child: it is none, and the order is stopped."""
        del self._open[child.order_id]
        self.cancelled = True

    def apply(self, event: OrderEvent) -> None:
        """Take in what the venue says of a child; a child that has ended frees what was not filled of it."""
        child = event.order_id
        if isinstance(event, OrderFilled):
            self.accepted = True
            self.filled += event.fill.size
            if event.remaining > 0.0 and child in self._open:
                self._open[child] = event.remaining
            else:
                self._open.pop(child, None)
        elif isinstance(event, ENDS):
            self._open.pop(child, None)
            if isinstance(event, OrderExpired):
                self._expired = True  # a child is valid for as long as the approval
            else:
                self.cancelled = True  # asking again would be refused again; or it was taken back on purpose
            self.rejected += isinstance(event, OrderRejected)
        elif isinstance(event, OrderAccepted):
            self.accepted = True

    def stop(self) -> None:
        """Send no more children."""
        self.cancelled = True

    @property
    def is_whole(self) -> bool:
        """All of it was filled."""
        return self.approval.size - self.filled <= _DUST * self.approval.size

    @property
    def end(self) -> OrderState | None:
        """What became of it; None while something is at work or still to be sent."""
        if self.is_whole:
            return OrderState.FILLED
        if self._open:
            return None
        if self.rejected and not self.accepted:
            return OrderState.REJECTED
        if self.cancelled:
            return OrderState.CANCELLED
        return OrderState.EXPIRED if self._expired else None
