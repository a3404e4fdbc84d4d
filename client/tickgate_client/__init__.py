"""Client of tickgate: signals inside a deadline, and how long they took.

Names are imported on first use, so that `import tickgate_client` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tickgate_client.aio import AsyncSignalClient
    from tickgate_client.call_errors import (
        CallCancelled,
        CallError,
        DeadlineExceeded,
        InvalidRequest,
        ModelNotFound,
        ModelNotLoaded,
        NotSupported,
        Overloaded,
        PermissionDenied,
        ServerFault,
        ServerUnavailable,
        Unauthenticated,
        UpdateConflict,
        WrongWorker,
        error_of_result,
    )
    from tickgate_client.client import SignalClient
    from tickgate_client.errors import (
        BadSlaFile,
        BadTickFile,
        ContractBroken,
        ExtraMissing,
        TickgateError,
        TradingHeld,
        UnknownTickReader,
    )
    from tickgate_client.latency import CallRecorder, LatencyRecorder, LatencySummary, Percentiles
    from tickgate_client.readers import read_ticks, reader_names
    from tickgate_client.replay import ReplayAnswer, ReplayResult
    from tickgate_client.routes import Routes
    from tickgate_client.routing import RoutedSignalClient
    from tickgate_client.routing_aio import AsyncRoutedSignalClient
    from tickgate_client.ticks import read_csv, write_csv

__all__ = [
    "AsyncRoutedSignalClient",
    "AsyncSignalClient",
    "BadSlaFile",
    "BadTickFile",
    "CallCancelled",
    "CallError",
    "CallRecorder",
    "ContractBroken",
    "DeadlineExceeded",
    "ExtraMissing",
    "InvalidRequest",
    "LatencyRecorder",
    "LatencySummary",
    "ModelNotFound",
    "ModelNotLoaded",
    "NotSupported",
    "Overloaded",
    "Percentiles",
    "PermissionDenied",
    "ReplayAnswer",
    "ReplayResult",
    "RoutedSignalClient",
    "Routes",
    "ServerFault",
    "ServerUnavailable",
    "SignalClient",
    "TickgateError",
    "TradingHeld",
    "Unauthenticated",
    "UnknownTickReader",
    "UpdateConflict",
    "WrongWorker",
    "error_of_result",
    "read_csv",
    "read_ticks",
    "reader_names",
    "write_csv",
]

_MODULE_OF = {
    "AsyncRoutedSignalClient": "routing_aio",
    "RoutedSignalClient": "routing",
    "Routes": "routes",
    "AsyncSignalClient": "aio",
    "SignalClient": "client",
    "CallRecorder": "latency",
    "LatencyRecorder": "latency",
    "LatencySummary": "latency",
    "Percentiles": "latency",
    "ReplayAnswer": "replay",
    "ReplayResult": "replay",
    "read_csv": "ticks",
    "read_ticks": "readers",
    "reader_names": "readers",
    "write_csv": "ticks",
    "BadSlaFile": "errors",
    "BadTickFile": "errors",
    "ContractBroken": "errors",
    "ExtraMissing": "errors",
    "TickgateError": "errors",
    "TradingHeld": "errors",
    "UnknownTickReader": "errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name from the module that has it; every one not in the table is a call's error."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF.get(name, 'call_errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
