"""The Prometheus endpoint: text format and OpenMetrics over what an observer has counted.

Counters begin with the oldest record that the journal retains, and so does a restarted observer's: it has all that is
there, those of a server before it on the same journal among them. Once retention has removed records, a restart makes
counters go back by those, which Prometheus takes for a reset.
"""

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from threading import Lock, Thread
from wsgiref.simple_server import WSGIServer

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tickgate_server.journal.entries import STATUSES
from tickgate_server.observer.address import MetricsAddressTaken, split_address
from tickgate_server.observer.counters import BOUNDS_NS, OTHER, Counters, TimedStage
from tickgate_server.observer.shadows import ShadowMetrics
from tickgate_server.observer.tail import Tail
from tickgate_server.records import Stage
from tickgate_server.risk.reasons import Action, Reason

_BOUNDS_S = [*(f"{bound / 1e9:g}" for bound in BOUNDS_NS.tolist()), "+Inf"]
_RETRY_S = 0.05


class JournalCollector(Collector):
    """Metrics of what tails have counted.

    Args:
        tails: That add to the counters.
        counters: Of all of them.
        lock: That the tails hold while they add.
        catch_up: Called first in each scrape: what was journaled before it is in its answer.
        shadows: What is known of shadows.
    """

    def __init__(
        self,
        tails: Sequence[Tail],
        counters: Counters,
        lock: Lock,
        catch_up: Callable[[], None],
        shadows: ShadowMetrics,
    ) -> None:
        self._tails = tails
        self._counters = counters
        self._lock = lock
        self._catch_up = catch_up
        self._shadows = shadows
        self._shown: dict[str, NDArray[np.int64]] = {}

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        freshness_s = max(tail.lag_ns for tail in self._tails) / 1e9
        self._catch_up()
        with self._lock:
            found = [self._latency(), *self._counts(), *self._journal(freshness_s), self._models(), _build()]
            several = len(self._tails) > 1
            journaled = {tail.folder.name if several else "": tail.next_sequence for tail in self._tails}
        yield from found
        yield from self._shadows.collect(journaled)

    def _latency(self) -> Metric:
        family = HistogramMetricFamily(
            "tickgate_stage_latency_seconds",
            "Time that a stage took, of each request that completed it, answered or not; total is arrival to encoding.",
            labels=["stage", "model", "version"],
        )
        counters = self._counters
        for series, row in counters.series.items():
            if series == OTHER and not counters.latency_counts[row].any():
                continue
            for stage in TimedStage:
                cumulative = np.cumsum(counters.latency_counts[row, stage]).astype(float).tolist()
                seconds = int(counters.latency_sums_ns[row, stage]) / 1e9
                buckets = list(zip(_BOUNDS_S, cumulative, strict=True))
                family.add_metric([stage.name.lower(), series.model, series.version], buckets, seconds)
        return family

    def _counts(self) -> Iterator[Metric]:
        counters = self._counters
        names = dict(enumerate(STATUSES))
        yield self._counter(
            "tickgate_requests", "Requests journaled, by gRPC status.", "code", counters.statuses, names
        )
        about = "Requests answered, by action."
        yield self._counter("tickgate_signals_generated", about, "action", counters.actions, _names(Action))
        about = "Requests answered, by reason."
        yield self._counter("tickgate_decisions", about, "reason", counters.reasons, _names(Reason))
        stages = {number: name.lower() for number, name in _names(Stage).items()}
        about = "Requests answered DEADLINE_EXCEEDED, by the last stage that they entered."
        yield self._counter("tickgate_deadline_exceeded", about, "stage", counters.deadlines, stages)

    def _counter(self, name: str, about: str, label: str, counts: NDArray[np.int64], names: dict[int, str]) -> Metric:
        """A counter with every known label, and by its number what a newer writer knew more.

        A scrape may fall between a decision and its withdrawal: then the count stands still until others make up for
        it, since a counter that goes back is taken for a reset.
        """
        shown = self._shown[name] = np.maximum(self._shown.get(name, counts), counts)
        family = CounterMetricFamily(name, about, labels=[label])
        for number in sorted({*names, *np.flatnonzero(shown).tolist()}):
            family.add_metric([names.get(number, str(number))], int(shown[number]))
        return family

    def _journal(self, freshness_s: float) -> Iterator[Metric]:
        tails = self._tails
        behind = [tail for tail in tails if tail.lag_records]
        yield GaugeMetricFamily(
            "tickgate_journal_lag_records",
            "Records that were in the journal when this scrape began, and that are not in its numbers.",
            sum(tail.lag_records for tail in behind),
        )
        yield GaugeMetricFamily(
            "tickgate_journal_lag_seconds",
            "How old these are at most; 0 where there are none.",
            max((tail.lag_ns for tail in behind), default=0) / 1e9,
        )
        yield CounterMetricFamily(
            "tickgate_observer_lost_records",
            "Records that retention removed, or that were damaged, before they were counted.",
            sum(tail.lost for tail in tails),
        )
        yield GaugeMetricFamily(
            "tickgate_observer_lag_seconds",
            "How long before this scrape the observer had last read everything: the age of what it hands back.",
            freshness_s,
        )

    def _models(self) -> Metric:
        family = GaugeMetricFamily(
            "tickgate_model_loaded",
            "1 where a version on disk passed its checks at the server's last start; engine is what runs it.",
            labels=["model", "version", "engine"],
        )
        loaded = {(model.name, model.version, model.engine) for tail in self._tails for model in tail.loaded.values()}
        for name, number, engine in sorted(loaded):
            family.add_metric([name, str(number), engine], 1)
        served = {(name, number) for name, number, _ in loaded}
        for name, number in sorted({refused for tail in self._tails for refused in tail.refused} - served):
            family.add_metric([name, str(number), ""], 0)
        return family


class MetricsEndpoint:
    """An HTTP server in a thread of its own.

    Attributes:
        address: `host:port` that it listens on.
        thread: That answers, and starts one for each scrape.

    Args:
        address: `host:port`; port 0 takes a free one.
        collector: What is asked at each scrape.
        patience_s: How long a taken port is waited for: an observer whose server was killed lets go of it in moments.

    Raises:
        ValueError: It is no `host:port`.
        MetricsAddressTaken: It cannot be listened on.
    """

    def __init__(self, address: str, collector: Collector, patience_s: float = 0.0) -> None:
        host, port = split_address(address)
        registry = CollectorRegistry()
        registry.register(collector)
        self._server: WSGIServer
        self.thread: Thread
        give_up = time.monotonic() + patience_s
        while True:
            try:
                self._server, self.thread = start_http_server(port, host.strip("[]"), registry)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() >= give_up:
                    raise MetricsAddressTaken(address, error.strerror or str(error)) from error
            time.sleep(_RETRY_S)
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stop answering and wait for the thread."""
        self._server.shutdown()
        self._server.server_close()
        self.thread.join()


def _names(numbers: type[Action] | type[Reason] | type[Stage]) -> dict[int, str]:
    return {member.value: member.name for member in numbers}


def _build() -> Metric:
    build = GaugeMetricFamily("tickgate_build_info", "Always 1; the label says what runs.", labels=["version"])
    build.add_metric([version("tickgate")], 1)
    return build
