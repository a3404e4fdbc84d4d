"""The Prometheus endpoint: a collector that reads the arrays of `telemetry` when it is scraped."""

from collections.abc import Iterator
from importlib.metadata import version
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tickgate_server.models.registry import ModelRegistry
from tickgate_server.risk.reasons import Action, Reason
from tickgate_server.telemetry import BOUNDS_NS, Stage, Telemetry

_CODES = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]  # by number
_BOUNDS_S = [f"{bound / 1e9:g}" for bound in BOUNDS_NS.tolist()]


class EngineCollector(Collector):
    """Metrics of one engine."""

    def __init__(self, telemetry: Telemetry, registry: ModelRegistry) -> None:
        self._telemetry = telemetry
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        yield self._latency()
        requests = CounterMetricFamily("tickgate_requests", "Requests answered, by gRPC status.", labels=["code"])
        for code, count in zip(_CODES, self._telemetry.statuses.tolist(), strict=True):
            requests.add_metric([code], count)
        yield requests
        signals = CounterMetricFamily("tickgate_signals_generated", "Decisions, by action.", labels=["action"])
        for action in Action:
            signals.add_metric([action.name], int(self._telemetry.actions[action]))
        yield signals
        reasons = CounterMetricFamily("tickgate_decisions", "Decisions, by reason.", labels=["reason"])
        for reason in Reason:
            reasons.add_metric([reason.name], int(self._telemetry.reasons[reason]))
        yield reasons
        yield self._models()
        build = GaugeMetricFamily("tickgate_build_info", "Always 1; the label says what runs.", labels=["version"])
        build.add_metric([version("tickgate")], 1)
        yield build

    def _latency(self) -> Metric:
        family = HistogramMetricFamily(
            "tickgate_stage_latency_seconds", "Time from a stage's start to its end, by stage.", labels=["stage"]
        )
        for stage in Stage:
            counts = self._telemetry.latency_counts[stage].tolist()
            cumulative = 0
            buckets = []
            for bound, count in zip([*_BOUNDS_S, "+Inf"], counts, strict=True):
                cumulative += count
                buckets.append((bound, float(cumulative)))
            seconds = int(self._telemetry.latency_sums_ns[stage]) / 1e9
            family.add_metric([stage.name.lower()], buckets=buckets, sum_value=seconds)
        return family

    def _models(self) -> Metric:
        loaded = GaugeMetricFamily(
            "tickgate_model_loaded",
            "1 where a version on disk passed its checks; engine is what runs it.",
            labels=["model", "version", "engine"],
        )
        for model in self._registry.models:
            engine = "onnxruntime" if model.not_compiled else "compiled_forest"
            loaded.add_metric([model.name, str(model.version), engine], 1)
        for refused in self._registry.refused:
            loaded.add_metric([refused.name, str(refused.version), ""], 0)
        return loaded


class MetricsEndpoint:
    """An HTTP server in a thread of its own.

    Attributes:
        address: `host:port` that it listens on.
    """

    def __init__(self, address: str, collector: Collector) -> None:
        """Listen; raises `OSError` where the address is taken, `ValueError` where it is no `host:port`."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"server.metrics_listen: expected host:port, got {address!r}")
        registry = CollectorRegistry()
        registry.register(collector)
        self._server: WSGIServer
        self._thread: Thread
        try:
            self._server, self._thread = start_http_server(int(port), host, registry)
        except OSError as error:
            why = f"server.metrics_listen: cannot listen on {address}: {error.strerror}"
            raise OSError(error.errno, why) from error
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stop answering and wait for the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
