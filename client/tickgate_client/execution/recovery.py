"""What an earlier process left: fills that it did not see, and orders that still work."""

from __future__ import annotations

from collections.abc import Callable

from tickgate_client.execution.engine import ExecutionEngine
from tickgate_client.execution.outbox import Outbox
from tickgate_client.execution.parents import ParentOrder
from tickgate_client.execution.sending import cancel

_OVERLAP_NS = 60_000_000_000  # venues stamp fills by clocks of their own: asked for again, and known by their ids


def recover(engine: ExecutionEngine, outbox: Outbox, number_of: Callable[[str], int | None]) -> list[ParentOrder]:
    """Record the fills that were missed; cancel what works; the orders that were begun and have not ended.

    Args:
        engine: Asked for fills since the newest that was recorded, and for open orders.
        outbox: What was recorded.
        number_of: The server's id in an order's id at the venue; None: not one of this gateway's.
    """
    if outbox.begun() or outbox.newest_fill_ns:
        for fill in engine.fills_since(max(outbox.newest_fill_ns - _OVERLAP_NS, 0)):
            number = number_of(fill.order_id)
            if number is not None:
                outbox.fill(fill, number)
    at_work = [(number_of(one.order.order_id), one) for one in engine.open_orders()]
    for number, one in at_work:
        if number is not None:
            cancel(engine, one.order.order_id)
    return [
        ParentOrder.recovered(
            begun.order_id,
            begun.symbol,
            begun.side,
            begun.size,
            begun.filled,
            {one.order.order_id: one.remaining for number, one in at_work if number == begun.order_id},
        )
        for begun in outbox.begun()
    ]
