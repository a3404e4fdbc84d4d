"""The data listener on the public `grpc.aio` server."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tickgate.v1 import signal_pb2_grpc
from tickgate_server.engine import Engine
from tickgate_server.rpc.answers import Answers
from tickgate_server.rpc.health import SERVICE_NAME, Health
from tickgate_server.rpc.signal_service import SignalService


class ListenFailed(Exception):
    """The address cannot be listened on.

    Attributes:
        address: As configured.
    """

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"cannot listen on {address}: {why}")
        self.address = address


class DataListener:
    """SignalService, health and reflection on one address.

    Attributes:
        address: As asked for, with the port that was taken in place of 0.
    """

    def __init__(self, engine: Engine, address: str, *, max_message_bytes: int, max_concurrent_requests: int) -> None:
        self._service = SignalService(Answers(engine))
        self._health = Health(engine.registry.names)
        self._server = grpc.aio.server(
            options=[
                # Two servers on one port would share its connections without a word.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", max_message_bytes),
            ],
            maximum_concurrent_rpcs=max_concurrent_requests,
        )
        signal_pb2_grpc.add_SignalServiceServicer_to_server(self._service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, self._server)
        names = (SERVICE_NAME, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ListenFailed(address, str(error)) from error
        self.address = address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    async def start(self) -> None:
        """Accept calls, and say SERVING."""
        await self._server.start()
        await self._health.set_serving()

    async def drain(self, grace_s: float) -> None:
        """NOT_SERVING, no new calls, those in flight finish within `grace_s`, then closed."""
        await self._health.set_draining()
        self._service.drain()
        await self._server.stop(grace_s)
