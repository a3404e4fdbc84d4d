"""grpc.health.v1: the whole server under the empty name and `tickgate.v1.SignalService`, each model under its own."""

from collections.abc import Iterable

from grpc_health.v1 import health, health_pb2

from tickgate.v1 import signal_pb2

SERVICE_NAME: str = signal_pb2.DESCRIPTOR.services_by_name["SignalService"].full_name


class Health:
    """What the health service says, and when it changes."""

    def __init__(self, models: Iterable[str]) -> None:
        self.servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # made at run time
        self._names = ["", SERVICE_NAME, *models]

    async def set_serving(self) -> None:
        """Every name SERVING; a server without a model stays NOT_SERVING, since it can answer nothing."""
        serving = len(self._names) > 2
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self.servicer.set(name, status)

    async def set_draining(self) -> None:
        """Every name NOT_SERVING, for good."""
        await self.servicer.enter_graceful_shutdown()
