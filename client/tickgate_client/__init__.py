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
        BadColumns,
        BadSlaFile,
        BadSourceOption,
        BadTickEntry,
        BadTickFile,
        ContractBroken,
        ExtraMissing,
        PublisherClosed,
        SourceFailed,
        TickgateError,
        TradingHeld,
        UnknownTickReader,
        UnknownTickSource,
    )
    from tickgate_client.feeds.blocking import MarketDataPublisher
    from tickgate_client.feeds.columns import tick_columns
    from tickgate_client.feeds.counts import TickTally
    from tickgate_client.feeds.publisher import AsyncMarketDataPublisher
    from tickgate_client.feeds.sources import TickBatch, TickSource
    from tickgate_client.feeds.window import Published, RefusedTick
    from tickgate_client.latency import CallRecorder, LatencyRecorder, LatencySummary, Percentiles
    from tickgate_client.readers import read_ticks, reader_names
    from tickgate_client.replay import ReplayAnswer, ReplayResult
    from tickgate_client.routes import Routes
    from tickgate_client.routing import RoutedSignalClient
    from tickgate_client.routing_aio import AsyncRoutedSignalClient
    from tickgate_client.ticks import read_csv, write_csv

__all__ = [
    "AsyncMarketDataPublisher",
    "AsyncRoutedSignalClient",
    "AsyncSignalClient",
    "BadColumns",
    "BadSlaFile",
    "BadSourceOption",
    "BadTickEntry",
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
    "MarketDataPublisher",
    "ModelNotFound",
    "ModelNotLoaded",
    "NotSupported",
    "Overloaded",
    "Percentiles",
    "PermissionDenied",
    "Published",
    "PublisherClosed",
    "RefusedTick",
    "ReplayAnswer",
    "ReplayResult",
    "RoutedSignalClient",
    "Routes",
    "ServerFault",
    "ServerUnavailable",
    "SignalClient",
    "SourceFailed",
    "TickBatch",
    "TickSource",
    "TickTally",
    "TickgateError",
    "TradingHeld",
    "Unauthenticated",
    "UnknownTickReader",
    "UnknownTickSource",
    "UpdateConflict",
    "WrongWorker",
    "error_of_result",
    "read_csv",
    "read_ticks",
    "reader_names",
    "tick_columns",
    "write_csv",
]

_MODULE_OF = {
    "AsyncMarketDataPublisher": "feeds.publisher",
    "MarketDataPublisher": "feeds.blocking",
    "Published": "feeds.window",
    "RefusedTick": "feeds.window",
    "TickBatch": "feeds.sources",
    "TickSource": "feeds.sources",
    "TickTally": "feeds.counts",
    "tick_columns": "feeds.columns",
    "BadColumns": "errors",
    "BadSourceOption": "errors",
    "BadTickEntry": "errors",
    "PublisherClosed": "errors",
    "SourceFailed": "errors",
    "UnknownTickSource": "errors",
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
