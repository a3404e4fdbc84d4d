"""grpc.health.v1 for every transport.

The whole server under the empty name and under `tickgate.v1.SignalService`: SERVING while any model is. Each model
under its own name: SERVING while the version that its production alias means is READY.
"""

from collections.abc import Callable, Mapping

import grpc
from grpc_health.v1 import health_pb2

from tickgate.v1 import signal_pb2
from tickgate_server.rpc.methods import Answer, Method, Subscription, UnaryMethod, Watched, WatchMethod, parse
from tickgate_server.rpc.status import Status

SERVICE_NAME: str = signal_pb2.DESCRIPTOR.services_by_name["SignalService"].full_name
HEALTH_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_RESPONSE = health_pb2.HealthCheckResponse
_WHOLE = ("", SERVICE_NAME)


class HealthBoard:
    """Statuses by name, and who watches them; one thread."""

    def __init__(self) -> None:
        self._open = False
        self._ready: dict[str, bool] = {}
        self._watchers: set[Callable[[], None]] = set()

    def methods(self) -> tuple[Method, ...]:
        """`Check` and `Watch`."""
        return UnaryMethod(f"/{HEALTH_NAME}/Check", self._check), WatchMethod(f"/{HEALTH_NAME}/Watch", self._watch)

    def show(self, models: Mapping[str, bool]) -> None:
        """Say of each model whether the version that its production alias means can be asked.

        One that was there before and is not any more is NOT_SERVING.
        """
        shown = {**dict.fromkeys(self._ready, False), **models}
        if shown != self._ready:
            self._ready = shown
            self._tell()

    def serving(self) -> None:
        """Every model that can be asked is SERVING from here on; and the server, if there is one."""
        self._open = True
        self._tell()

    def draining(self) -> None:
        """Every name NOT_SERVING, for good."""
        self._open = False
        self._tell()

    def _tell(self) -> None:
        for changed in list(self._watchers):
            changed()

    def _status(self, name: str) -> int:
        # A server without a model is up and can answer nothing.
        ready = any(self._ready.values()) if name in _WHOLE else self._ready.get(name)
        if ready is None:
            return int(_RESPONSE.SERVICE_UNKNOWN)
        return int(_RESPONSE.SERVING if ready and self._open else _RESPONSE.NOT_SERVING)

    def _check(self, data: bytes) -> Answer:
        request = parse(health_pb2.HealthCheckRequest, data)
        if isinstance(request, Status):
            return request
        status = self._status(request.service)
        if status == _RESPONSE.SERVICE_UNKNOWN:
            return Status(grpc.StatusCode.NOT_FOUND, f"service: nothing is known of {request.service!r}")
        return bytes(_RESPONSE(status=status).SerializeToString())

    def _watch(self, data: bytes, changed: Callable[[], None]) -> Subscription | Status:
        request = parse(health_pb2.HealthCheckRequest, data)
        if isinstance(request, Status):
            return request
        self._watchers.add(changed)
        return Watched(
            lambda: self._status(request.service),
            lambda status: _RESPONSE(status=status),
            lambda: self._watchers.discard(changed),
        )
