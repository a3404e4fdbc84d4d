"""Calls watched against a service-level agreement: percentiles over sliding windows, error budget, breaches.

Names are imported on first use, as in `tickgate_client`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tickgate_client.sla.export import SlaExport
    from tickgate_client.sla.interceptors import SlaInterceptor
    from tickgate_client.sla.interceptors_aio import async_interceptors
    from tickgate_client.sla.judge import Breach
    from tickgate_client.sla.monitor import SlaMonitor
    from tickgate_client.sla.objectives import (
        FAST_BURN,
        MISSED_IN_A_MINUTE,
        WINDOWS_S,
        BreachCause,
        BurnRule,
        Objective,
        Policy,
    )
    from tickgate_client.sla.prometheus import collector
    from tickgate_client.sla.record import SlaRecord, read_record, write_record

__all__ = [
    "FAST_BURN",
    "MISSED_IN_A_MINUTE",
    "WINDOWS_S",
    "Breach",
    "BreachCause",
    "BurnRule",
    "Objective",
    "Policy",
    "SlaExport",
    "SlaInterceptor",
    "SlaMonitor",
    "SlaRecord",
    "async_interceptors",
    "collector",
    "read_record",
    "write_record",
]

_MODULE_OF = {
    "async_interceptors": "interceptors_aio",
    "Breach": "judge",
    "SlaExport": "export",
    "SlaInterceptor": "interceptors",
    "SlaMonitor": "monitor",
    "SlaRecord": "record",
    "collector": "prometheus",
    "read_record": "record",
    "write_record": "record",
}


def __getattr__(name: str) -> Any:
    """Import a public name from the module that has it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF.get(name, 'objectives')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
