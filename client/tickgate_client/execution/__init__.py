"""Execution of approved signals: engines, a paper venue, schedules, an outbox of reports, and the gateway around them.

Names are imported on first use, as in `tickgate_client`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tickgate_client.execution.account import Account, Holding
    from tickgate_client.execution.desk import DeskState, DeskView, DeskWatch, service_channel
    from tickgate_client.execution.engine import ExecutionEngine, events_of
    from tickgate_client.execution.errors import (
        ApprovalExceeded,
        EventsOverrun,
        FillReused,
        OrderInvalid,
        OrderReused,
        OrderUnknown,
        OutboxBusy,
        OutboxDamaged,
        OutboxFull,
        OutboxUnwritable,
    )
    from tickgate_client.execution.gateway import AsyncOrderGateway, OrderGateway
    from tickgate_client.execution.gateway_settings import GatewaySettings
    from tickgate_client.execution.impact import impact_fraction
    from tickgate_client.execution.latency import EmpiricalLatency, FixedLatency, Latency, LognormalLatency
    from tickgate_client.execution.orders import (
        CancelRefused,
        Fill,
        NewOrder,
        OrderAccepted,
        OrderCancelled,
        OrderEvent,
        OrderExpired,
        OrderFilled,
        OrderRejected,
        OrderState,
        OrderStatus,
        RejectReason,
        Side,
    )
    from tickgate_client.execution.outbox import Outbox
    from tickgate_client.execution.outcomes import (
        DeskChanged,
        GatewayEvent,
        GatewayFailed,
        OrderEnded,
        Outcome,
        PositionDifference,
        Reconciliation,
        Refusal,
        ReportRefused,
    )
    from tickgate_client.execution.paper import PaperBroker
    from tickgate_client.execution.paper_terms import PaperInstrument, PaperTerms
    from tickgate_client.execution.parents import Approval, ParentOrder
    from tickgate_client.execution.reporter import Reporter
    from tickgate_client.execution.schedules import AlmgrenChriss, Schedule, Slice, at_once, twap, vwap

__all__ = [
    "Account",
    "AlmgrenChriss",
    "Approval",
    "ApprovalExceeded",
    "AsyncOrderGateway",
    "CancelRefused",
    "DeskChanged",
    "DeskState",
    "DeskView",
    "DeskWatch",
    "EmpiricalLatency",
    "EventsOverrun",
    "ExecutionEngine",
    "Fill",
    "FillReused",
    "FixedLatency",
    "GatewayEvent",
    "GatewayFailed",
    "GatewaySettings",
    "Holding",
    "Latency",
    "LognormalLatency",
    "NewOrder",
    "OrderAccepted",
    "OrderCancelled",
    "OrderEnded",
    "OrderEvent",
    "OrderExpired",
    "OrderFilled",
    "OrderGateway",
    "OrderInvalid",
    "OrderRejected",
    "OrderReused",
    "OrderState",
    "OrderStatus",
    "OrderUnknown",
    "Outbox",
    "OutboxBusy",
    "OutboxDamaged",
    "OutboxFull",
    "OutboxUnwritable",
    "Outcome",
    "PaperBroker",
    "PaperInstrument",
    "PaperTerms",
    "ParentOrder",
    "PositionDifference",
    "Reconciliation",
    "Refusal",
    "RejectReason",
    "ReportRefused",
    "Reporter",
    "Schedule",
    "Side",
    "Slice",
    "at_once",
    "events_of",
    "impact_fraction",
    "service_channel",
    "twap",
    "vwap",
]

_MODULES = {
    "account": (
        "Account",
        "Holding",
    ),
    "desk": (
        "DeskState",
        "DeskView",
        "DeskWatch",
        "service_channel",
    ),
    "engine": (
        "ExecutionEngine",
        "events_of",
    ),
    "errors": (
        "ApprovalExceeded",
        "EventsOverrun",
        "FillReused",
        "OrderInvalid",
        "OrderReused",
        "OrderUnknown",
        "OutboxBusy",
        "OutboxDamaged",
        "OutboxFull",
        "OutboxUnwritable",
    ),
    "gateway": (
        "AsyncOrderGateway",
        "OrderGateway",
    ),
    "gateway_settings": ("GatewaySettings",),
    "impact": ("impact_fraction",),
    "latency": (
        "EmpiricalLatency",
        "FixedLatency",
        "Latency",
        "LognormalLatency",
    ),
    "orders": (
        "CancelRefused",
        "Fill",
        "NewOrder",
        "OrderAccepted",
        "OrderCancelled",
        "OrderEvent",
        "OrderExpired",
        "OrderFilled",
        "OrderRejected",
        "OrderState",
        "OrderStatus",
        "RejectReason",
        "Side",
    ),
    "outbox": ("Outbox",),
    "outcomes": (
        "DeskChanged",
        "GatewayEvent",
        "GatewayFailed",
        "OrderEnded",
        "Outcome",
        "PositionDifference",
        "Reconciliation",
        "Refusal",
        "ReportRefused",
    ),
    "paper": ("PaperBroker",),
    "paper_terms": ("PaperInstrument", "PaperTerms"),
    "parents": (
        "Approval",
        "ParentOrder",
    ),
    "reporter": ("Reporter",),
    "schedules": (
        "AlmgrenChriss",
        "Schedule",
        "Slice",
        "at_once",
        "twap",
        "vwap",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from the module that has it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
