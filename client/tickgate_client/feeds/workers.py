"""The workers of a server as a publisher reaches them: their service listeners, found through any data listener."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc import aio

from tickgate.symbol_hash import cached_worker_of
from tickgate.v1 import topology_pb2
from tickgate.v1.market_data_pb2_grpc import MarketDataServiceStub
from tickgate.v1.topology_pb2_grpc import TopologyServiceStub
from tickgate_client.call_errors import NotSupported, ServerUnavailable, error_of_call
from tickgate_client.options import CHANNEL_OPTIONS
from tickgate_client.routes import Routes, left, read_routes


class Workers:
    """Connections to a server's service listeners, one a worker.

    Args:
        target: A worker's data listener, which knows the others; or the service listener of a server of one process,
            which is then the only one.
        channel_credentials: None: plain text.
    """

    def __init__(self, target: str, channel_credentials: grpc.ChannelCredentials | None) -> None:
        self.target = target
        self._credentials = channel_credentials
        self._channels: dict[str, aio.Channel] = {}
        self._topology = TopologyServiceStub(self._channel(target))

    async def routes(self, deadline_s: float) -> Routes:
        """Ask whose symbols are whose; raises a CallError, or ContractBroken."""
        try:
            response = await self._topology.GetTopology(topology_pb2.GetTopologyRequest(), timeout=deadline_s)
        except grpc.RpcError as error:
            failure = error_of_call(error)
            if isinstance(failure, NotSupported):  # a service listener
                return Routes("", (self.target,), cached_worker_of(1))
            raise failure from error
        return read_routes(response, self.target, service=True)

    def stub(self, target: str) -> Any:
        """The methods of one worker's MarketDataService."""
        return MarketDataServiceStub(self._channel(target))

    async def connect(self, routes: Routes, due: float) -> None:
        """Wait until the connection to each worker stands; raises ServerUnavailable if one does not until then.

        Args:
            routes: To whom.
            due: On the monotonic clock.
        """
        for target in routes.targets:
            try:
                async with asyncio.timeout(left(due)):
                    await self._channel(target).channel_ready()
            except TimeoutError as error:
                raise ServerUnavailable(
                    f"no connection to {target} in time", status_code=grpc.StatusCode.UNAVAILABLE
                ) from error

    async def keep(self, routes: Routes) -> None:
        """Close the connections that these routes do not need; nothing may be under way on them."""
        for target in [target for target in self._channels if target not in {self.target, *routes.targets}]:
            await self._channels.pop(target).close(None)

    async def close(self) -> None:
        """Close every connection."""
        for channel in self._channels.values():
            await channel.close(None)
        self._channels.clear()

    def _channel(self, target: str) -> aio.Channel:
        channel = self._channels.get(target)
        if channel is None:
            channel = self._channels[target] = (
                aio.insecure_channel(target, options=CHANNEL_OPTIONS)
                if self._credentials is None
                else aio.secure_channel(target, self._credentials, options=CHANNEL_OPTIONS)
            )
        return channel
