"""grpc.health.v1 for both transports.

The whole server under the empty name and under `tickgate.v1.SignalService`, each model under its own name.
"""

from collections.abc import Callable, Iterable

from grpc_health.v1 import health_pb2

from tickgate.v1 import signal_pb2

SERVICE_NAME: str = signal_pb2.DESCRIPTOR.services_by_name["SignalService"].full_name
HEALTH_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_RESPONSE = health_pb2.HealthCheckResponse


class HealthBoard:
    """Statuses by name, and who watches them; one thread.

    Attributes:
        over: The server drains, and no status will change again.
    """

    def __init__(self, models: Iterable[str]) -> None:
        models = list(models)
        # A server without a model is up and can answer nothing.
        self._status = _RESPONSE.NOT_SERVING
        self._fit = bool(models)
        self._names = {"", SERVICE_NAME, *models}
        self._watchers: set[Callable[[], None]] = set()
        self.over = False

    def check(self, name: str) -> int | None:
        """The status of a name; None where nothing is known under it."""
        return self._status if name in self._names else None

    def watched(self, name: str) -> int:
        """The status of a name as Watch tells it: SERVICE_UNKNOWN where nothing is known under it."""
        status = self.check(name)
        return _RESPONSE.SERVICE_UNKNOWN if status is None else status

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after each change; returns what ends that."""
        self._watchers.add(changed)
        return lambda: self._watchers.discard(changed)

    def serving(self) -> None:
        """Every name SERVING, if there is a model."""
        self._set(_RESPONSE.SERVING if self._fit else _RESPONSE.NOT_SERVING)

    def draining(self) -> None:
        """Every name NOT_SERVING, for good."""
        self._fit = False
        self.over = True
        self._set(_RESPONSE.NOT_SERVING)

    def _set(self, status: int) -> None:
        self._status = status
        for changed in list(self._watchers):
            changed()
