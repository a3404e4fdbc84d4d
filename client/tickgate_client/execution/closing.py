"""Positions that are being closed, without an approval: an SLA policy, or a person, wants them gone."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

from tickgate_client.execution.engine import ExecutionEngine
from tickgate_client.execution.orders import ENDS, NewOrder, OrderEvent, OrderFilled, Side
from tickgate_client.execution.sending import cancel, send

_LOG = logging.getLogger(__name__)

NUMBER = 0
"""What the server calls an order that it did not ask for."""


class Closing:
    """The orders of one gateway that close positions.

    Args:
        engine: The venue.
        prefix: Of order ids.
        collar: How far beyond the last price, a fraction.
        valid_s: How long each is valid.

    Attributes:
        wanted: Positions are to be closed as soon as nothing else works.
    """

    def __init__(self, engine: ExecutionEngine, prefix: str, collar: float, valid_s: float) -> None:
        self.wanted = False
        self._engine = engine
        self._prefix = prefix
        self._collar = collar
        self._valid_ns = int(valid_s * 1e9)
        self._open: dict[str, NewOrder] = {}

    def begin(self, prices: Mapping[str, float]) -> None:
        """Send an order for each position at the venue; one without a known price stays, and is logged."""
        self.wanted = False
        for symbol, held in self._engine.positions().items():
            side = Side.of(-held)
            price = prices.get(symbol, math.nan) * (1.0 + side.sign * self._collar)
            # The time, as no earlier process may have used the id.
            order_id = f"{self._prefix}{NUMBER}-{time.time_ns()}"
            order = NewOrder(order_id, symbol, side, abs(held), price, self._valid_ns)
            self._open[order.order_id] = order
            refused = send(self._engine, order)
            if refused is not None:
                _LOG.error("the position of %s is not closed: %s", symbol, refused[1])
                del self._open[order.order_id]

    def cancel_all(self, symbol: str | None) -> None:
        """Want nothing closed any more, and ask for what works to be taken back; of one symbol, or of all."""
        self.wanted = False
        for order in list(self._open.values()):
            if symbol in (None, order.symbol):
                cancel(self._engine, order.order_id)

    def take(self, event: OrderEvent) -> None:
        """What the venue says of one of them."""
        if isinstance(event, ENDS) or (isinstance(event, OrderFilled) and event.remaining <= 0.0):
            self._open.pop(event.order_id, None)

    def units(self, symbol: str, side: Side) -> float:
        """Units that are being closed on that side, at most."""
        return sum(one.size for one in self._open.values() if (one.symbol, one.side) == (symbol, side))
