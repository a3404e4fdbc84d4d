"""One client of either kind for one call: the behaviour of both is the same, and so are their tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from tickgate.v1 import signal_pb2
from tickgate_client import AsyncSignalClient, LatencyRecorder, SignalClient


class SyncDriver:
    def __init__(self) -> None:
        self.latency = LatencyRecorder()
        self.results: list[signal_pb2.PredictStreamResult] = []

    def predict(self, target: str, what: Any, *, client: dict[str, Any] | None = None, **call: Any) -> Any:
        with SignalClient(target, latency=self.latency, **(client or {})) as opened:
            opened.connect(timeout_s=10)
            return opened.predict(what, **call)

    def stream(
        self,
        target: str,
        requests: Iterable[signal_pb2.PredictRequest],
        *args: Any,
        client: dict[str, Any] | None = None,
        **call: Any,
    ) -> list[signal_pb2.PredictStreamResult]:
        with SignalClient(target, latency=self.latency, **(client or {})) as opened:
            opened.connect(timeout_s=10)
            for result in opened.predict_stream(requests, *args, **call):
                self.results.append(result)
        return self.results

    def connect(self, target: str, timeout_s: float) -> None:
        with SignalClient(target) as opened:
            opened.connect(timeout_s)


class AsyncioDriver:
    def __init__(self) -> None:
        self.latency = LatencyRecorder()
        self.results: list[signal_pb2.PredictStreamResult] = []

    def predict(self, target: str, what: Any, *, client: dict[str, Any] | None = None, **call: Any) -> Any:
        async def run() -> signal_pb2.PredictResponse:
            async with AsyncSignalClient(target, latency=self.latency, **(client or {})) as opened:
                await opened.connect(timeout_s=10)
                return await opened.predict(what, **call)

        return asyncio.run(run())

    def stream(
        self,
        target: str,
        requests: Iterable[signal_pb2.PredictRequest],
        *args: Any,
        client: dict[str, Any] | None = None,
        **call: Any,
    ) -> list[signal_pb2.PredictStreamResult]:
        async def run() -> None:
            async with AsyncSignalClient(target, latency=self.latency, **(client or {})) as opened:
                await opened.connect(timeout_s=10)
                async for result in opened.predict_stream(requests, *args, **call):
                    self.results.append(result)

        asyncio.run(run())
        return self.results

    def connect(self, target: str, timeout_s: float) -> None:
        async def run() -> None:
            async with AsyncSignalClient(target) as opened:
                await opened.connect(timeout_s)

        asyncio.run(run())
