"""grpc.health.v1 for every transport.

The whole server under the empty name and under `tickgate.v1.SignalService`, each model under its own name.
"""

from collections.abc import Callable, Iterable

import grpc
from grpc_health.v1 import health_pb2

from tickgate.v1 import signal_pb2
from tickgate_server.rpc.methods import Answer, Method, Subscription, UnaryMethod, Watched, WatchMethod, parse
from tickgate_server.rpc.status import Status

SERVICE_NAME: str = signal_pb2.DESCRIPTOR.services_by_name["SignalService"].full_name
HEALTH_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_RESPONSE = health_pb2.HealthCheckResponse


class HealthBoard:
    """Statuses by name, and who watches them; one thread."""

    def __init__(self, models: Iterable[str]) -> None:
        models = list(models)
        # A server without a model is up and can answer nothing.
        self._status = _RESPONSE.NOT_SERVING
        self._fit = bool(models)
        self._names = {"", SERVICE_NAME, *models}
        self._watchers: set[Callable[[], None]] = set()

    def methods(self) -> tuple[Method, ...]:
        """`Check` and `Watch`."""
        return UnaryMethod(f"/{HEALTH_NAME}/Check", self._check), WatchMethod(f"/{HEALTH_NAME}/Watch", self._watch)

    def serving(self) -> None:
        """Every name SERVING, if there is a model."""
        self._set(_RESPONSE.SERVING if self._fit else _RESPONSE.NOT_SERVING)

    def draining(self) -> None:
        """Every name NOT_SERVING, for good."""
        self._fit = False
        self._set(_RESPONSE.NOT_SERVING)

    def _set(self, status: int) -> None:
        self._status = status
        for changed in list(self._watchers):
            changed()

    def _check(self, data: bytes) -> Answer:
        request = parse(health_pb2.HealthCheckRequest, data)
        if isinstance(request, Status):
            return request
        name = request.service
        if name not in self._names:
            return Status(grpc.StatusCode.NOT_FOUND, f"service: nothing is known of {name!r}")
        return bytes(_RESPONSE(status=self._status).SerializeToString())

    def _watch(self, data: bytes, changed: Callable[[], None]) -> Subscription | Status:
        request = parse(health_pb2.HealthCheckRequest, data)
        if isinstance(request, Status):
            return request
        known = request.service in self._names
        self._watchers.add(changed)
        return Watched(
            lambda: self._status if known else _RESPONSE.SERVICE_UNKNOWN,
            lambda status: _RESPONSE(status=status),
            lambda: self._watchers.discard(changed),
        )
