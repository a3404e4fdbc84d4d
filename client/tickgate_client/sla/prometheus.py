"""A monitor's numbers for Prometheus. Needs prometheus_client, which the base install does not bring.

prometheus_client.REGISTRY.register(collector(monitor))

Durations are in seconds. Everything is computed when it is scraped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tickgate_client.errors import ExtraMissing
from tickgate_client.latency import Percentiles
from tickgate_client.sla.monitor import SlaMonitor
from tickgate_client.sla.objectives import WINDOWS_S
from tickgate_client.sla.record import STATUS_NAMES
from tickgate_client.sla.windows import Slice

BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper bounds of the histogram's buckets: round trips inside a data centre and its stalls."""


def collector(monitor: SlaMonitor) -> Any:
    """A collector to register with a prometheus_client registry.

    Raises ExtraMissing if prometheus_client is not installed.
    """
    try:
        from prometheus_client import core  # noqa: PLC0415 - the base install has none
    except ModuleNotFoundError as error:
        cause = f"{error}; prometheus-client alone is enough"
        raise ExtraMissing("the SLA monitor's Prometheus collector", "server", cause) from error

    class SlaCollector:
        """Called by the registry at each scrape."""

        def collect(self) -> Iterable[Any]:
            """The metric families as they are now."""
            everything = monitor.everything()
            calls = core.CounterMetricFamily(
                "tickgate_client_calls", "Calls that ended, by gRPC status", labels=["status"]
            )
            for status, count in sorted(everything.by_status.items()):
                calls.add_metric([STATUS_NAMES[status]], count)
            yield calls
            yield _round_trips(core, everything)
            yield from _windows(core, monitor)
            yield from _standings(core, monitor)
            for name, text, value in (
                ("tickgate_client_sla_dropped", "Samples lost for want of room", monitor.dropped),
                ("tickgate_client_sla_abandoned", "Calls whose caller did not wait for the end", monitor.abandoned),
                ("tickgate_client_sla_callback_errors", "Callbacks that failed", monitor.callback_errors),
                ("tickgate_client_sla_omitted", "Calls that stalls kept from being made", everything.omitted),
            ):
                yield core.CounterMetricFamily(name, text, value=value)
            yield core.GaugeMetricFamily("tickgate_client_calls_in_flight", "Calls unanswered", monitor.in_flight)

    return SlaCollector()


def _round_trips(core: Any, everything: Slice) -> Any:
    histogram = everything.round_trip
    buckets: list[tuple[str, int]] = []
    below = begin = 0
    for bound_s in BOUNDS_S:
        # A bucket of the histogram counts where its lower end lies: to a thousandth.
        end = histogram.get_counts_array_index(int(bound_s * 1e9)) + 1
        below += sum(histogram.counts[begin:end])
        begin = end
        buckets.append((f"{bound_s:g}", below))
    buckets.append(("+Inf", histogram.get_total_count()))
    return core.HistogramMetricFamily(
        "tickgate_client_round_trip_seconds",
        "Round trips, failed calls and those that stalls kept from being made included",
        buckets=buckets,
        sum_value=everything.sum_ns / 1e9,
    )


def _windows(core: Any, monitor: SlaMonitor) -> Iterable[Any]:
    latency = core.GaugeMetricFamily(
        "tickgate_client_latency_seconds",
        "Percentiles over sliding windows",
        labels=["part", "window", "quantile"],
    )
    burn = core.GaugeMetricFamily(
        "tickgate_client_error_budget_burn_rate",
        "Share of bad calls over the share that may be, over sliding windows",
        labels=["objective", "window"],
    )
    for span_s in WINDOWS_S:
        window = monitor.window(span_s)
        found = window.latency()
        for part, percentiles in (
            ("round_trip", found.round_trip),
            ("server", found.server),
            ("network", found.network),
        ):
            for quantile, value_us in _quantiles(percentiles):
                latency.add_metric([part, f"{span_s}s", quantile], value_us / 1e6)
        for objective, bad in zip(monitor.objectives, window.bad, strict=True):
            burn.add_metric([objective.name, f"{span_s}s"], objective.burn_rate(bad, window.calls))
    yield latency
    yield burn


def _standings(core: Any, monitor: SlaMonitor) -> Iterable[Any]:
    breached = core.GaugeMetricFamily(
        "tickgate_client_sla_breached", "1 while the objective is in breach", labels=["objective", "policy"]
    )
    breaches = core.CounterMetricFamily("tickgate_client_sla_breaches", "Breaches that began", labels=["objective"])
    for judge in monitor.standings():
        objective = judge.objective
        breached.add_metric([objective.name, objective.policy.name], int(judge.breach is not None))
        breaches.add_metric([objective.name], judge.breaches)
    yield breached
    yield breaches
    held = int(not monitor.may_add_risk)
    yield core.GaugeMetricFamily("tickgate_client_orders_held", "1 while no order passes that adds risk", held)


def _quantiles(percentiles: Percentiles) -> Iterable[tuple[str, float]]:
    return (
        ("0.5", percentiles.p50_us),
        ("0.9", percentiles.p90_us),
        ("0.99", percentiles.p99_us),
        ("0.999", percentiles.p999_us),
        ("1", percentiles.max_us),
    )
