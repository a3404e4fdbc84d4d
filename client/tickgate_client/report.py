"""Answers and replays for people to read: rich tables."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tickgate.v1 import signal_pb2
from tickgate_client.latency import Percentiles
from tickgate_client.replay import ReplayResult, action_name, reason_name


def show_response(console: Console, response: signal_pb2.PredictResponse) -> None:
    """One answer: the signal, every check beside its limit, the prediction, and where the time went."""
    console.print(_signal_table(response))
    if response.signal.checks:
        console.print(_checks_table(response.signal))
    console.print(_timing_table(response.timing))


def show_replay(console: Console, result: ReplayResult) -> None:
    """A replay: what was answered how often, and latencies with the load that they were measured under."""
    per_second = result.sent / result.elapsed_s if result.elapsed_s else 0.0
    console.print(
        f"{result.answered:,} of {result.sent:,} ticks answered in {result.elapsed_s:.2f} s ({per_second:,.0f}/s)"
    )
    counts = Table(title="Answers")
    for heading in ("", "name"):
        counts.add_column(heading)
    counts.add_column("count", justify="right")
    _add_counts(counts, "status", result.by_status)
    _add_counts(counts, "action", result.by_action)
    _add_counts(counts, "reason", result.by_reason)
    console.print(counts)
    latencies = Table(title=f"Latency in µs: {result.load_shape}")
    latencies.add_column("")
    for heading in ("p50", "p90", "p99", "p99.9", "max", "count"):
        latencies.add_column(heading, justify="right")
    for name, percentiles in (
        ("round trip", result.latency.round_trip),
        ("server", result.latency.server),
        ("network", result.latency.network),
    ):
        latencies.add_row(name, *_percentile_cells(percentiles))
    console.print(latencies)


def _signal_table(response: signal_pb2.PredictResponse) -> Table:
    signal = response.signal
    table = Table(title="Signal", show_header=False)
    table.add_column()
    table.add_column()

    def row(name: str, value: str) -> None:
        # As Text: a name from elsewhere may look like rich's markup.
        table.add_row(name, Text(value))

    row("symbol", response.symbol)
    row("action", action_name(signal.action))
    row("approved", "yes" if signal.approved else "no")
    row("reason", reason_name(signal.reason))
    row("size", f"{signal.size:g}")
    row("limit price", f"{signal.limit_price:.12g}")
    row("valid for", f"{signal.valid_for_us:,} µs")
    row("target position", f"{signal.target_position:g}")
    if response.HasField("prediction"):
        prediction = response.prediction
        row("prediction", f"{prediction.value:+.6f}")
        row("confidence", f"{prediction.confidence:.6f} (threshold {prediction.decision_threshold:.6f})")
    else:
        row("prediction", "none")
    if response.HasField("model"):
        row("model", f"{response.model.name}:{response.model.version}")
    if response.HasField("features"):
        ready = "ready" if response.features.ready else "not ready"
        row("features", f"{ready}, {response.features.trades_in_window:,} trades in the window")
    if response.request_id:
        row("request id", response.request_id)
    return table


def _checks_table(signal: signal_pb2.Signal) -> Table:
    table = Table(title="Risk checks")
    table.add_column("check")
    table.add_column("value", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("")
    for check in signal.checks:
        bound = "≥" if check.at_least else "≤"
        passed = "passed" if check.passed else "DENIED"
        table.add_row(reason_name(check.reason), f"{check.value:.10g}", f"{bound} {check.limit:.10g}", passed)
    return table


def _timing_table(timing: signal_pb2.Timing) -> Table:
    table = Table(title="Time on the server, µs")
    stages = (
        ("waiting", timing.waiting_ns),
        ("features", timing.features_ns),
        ("inference", timing.inference_ns),
        ("risk", timing.risk_ns),
        ("total", timing.total_ns),
    )
    for name, _ in stages:
        table.add_column(name, justify="right")
    table.add_column("budget", justify="right")
    budget = _us(timing.budget_ns) if timing.budget_ns else "none"
    table.add_row(*(_us(duration_ns) for _, duration_ns in stages), budget)
    return table


def _us(duration_ns: int) -> str:
    return f"{duration_ns / 1e3:,.1f}"


def _add_counts(table: Table, kind: str, counts: Mapping[str, int]) -> None:
    for at, (name, count) in enumerate(sorted(counts.items(), key=lambda item: (-item[1], item[0]))):
        table.add_row("" if at else kind, name, f"{count:,}")
    table.add_section()


def _percentile_cells(percentiles: Percentiles) -> list[str]:
    if percentiles.count == 0:
        return ["-"] * 5 + ["0"]
    times_us = (
        percentiles.p50_us,
        percentiles.p90_us,
        percentiles.p99_us,
        percentiles.p999_us,
        percentiles.max_us,
    )
    return [*(f"{time_us:,.1f}" for time_us in times_us), f"{percentiles.count:,}"]
