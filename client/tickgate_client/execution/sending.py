"""Orders out to an engine whose errors are its own: each becomes a refusal, or a line in the log."""

from __future__ import annotations

import logging

from tickgate_client.execution.engine import ExecutionEngine
from tickgate_client.execution.errors import OrderInvalid, OrderReused, OrderUnknown
from tickgate_client.execution.orders import NewOrder
from tickgate_client.execution.outcomes import Refusal

_LOG = logging.getLogger(__name__)


def send(engine: ExecutionEngine, order: NewOrder) -> tuple[Refusal, str] | None:
    """Send an order; None: it is out. ENGINE_REFUSED: it is not. ENGINE_FAILED: it may be, and its cancel was tried."""
    try:
        engine.submit(order)
    except (OrderInvalid, OrderReused) as error:
        return Refusal.ENGINE_REFUSED, str(error)
    except Exception as error:  # noqa: BLE001 - an adapter's own: the order may be out
        _LOG.exception("order %s may have been sent", order.order_id)
        cancel(engine, order.order_id)
        return Refusal.ENGINE_FAILED, str(error)
    return None


def cancel(engine: ExecutionEngine, order_id: str) -> None:
    """Ask for an order to be taken back; one that cannot be does not keep others from it."""
    try:
        engine.cancel(order_id)
    except OrderUnknown:
        _LOG.warning("order %s is not known at the venue", order_id)
    except Exception:  # noqa: BLE001 - an adapter's own: the other orders are cancelled all the same
        _LOG.exception("order %s could not be cancelled", order_id)
