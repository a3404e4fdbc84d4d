"""What the SLA monitor costs a call, how near its percentiles are to the raw samples, how soon a stall is called."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bench.requests import tick_requests
from rich.table import Table
from tests.support.processes import Served, served

from tickgate_client import SignalClient
from tickgate_client.latency import CallRecorder, LatencyRecorder
from tickgate_client.sla import Objective, SlaInterceptor, SlaMonitor
from tickgate_client.sla.pairing import PREDICT

CALLS = 50_000
ROUND_TRIPS = 10_000
PAIRS = 5
STALLS = 30
STALL_US = 50_000.0
# Limits that these calls keep: a breach would make more calls dear than a desk has.
_CALM = Objective("signals", limit_us=30e6, target=0.999, stall_us=60e6)


def sla(repository: Path) -> list[Table]:
    """The tables."""
    with served(repository, "--clock", "replay", observed=True) as server:
        return [_costs(), *_round_trips(server), _stalls(server)]


def _costs() -> Table:
    table = Table(title=f"on the caller's thread, us, {CALLS:,} calls each")
    for heading in ("", "mean", "p50", "p99", "p99.9"):
        table.add_column(heading, justify="left" if not heading else "right")
    recorder = LatencyRecorder(capacity=CALLS + 1)  # so that it never folds: that is what its caller pays by and by
    table.add_row("LatencyRecorder, begin and end", *_cells(_timed(_call_of(recorder))))
    for objectives in (1, 4):
        calm = [
            Objective(f"signals {number}", _CALM.limit_us, _CALM.target, _CALM.stall_us) for number in range(objectives)
        ]
        with SlaMonitor(calm, capacity=CALLS + 1) as monitor:
            table.add_row(f"SlaMonitor, begin and end, {objectives} objectives", *_cells(_timed(_call_of(monitor))))
            table.add_row(f"before_order, {objectives} objectives", *_cells(_timed(monitor.before_order)))
    with SlaMonitor([_CALM], capacity=CALLS + 1) as monitor:
        for _ in range(64):
            monitor.begin()
        table.add_row("before_order, 64 calls in flight", *_cells(_timed(monitor.before_order)))
    with SlaMonitor([_CALM], capacity=CALLS + 1) as monitor:
        table.add_row("SlaInterceptor around a call that does nothing", *_cells(_timed(_intercepted(monitor))))
    monitor = SlaMonitor([_CALM], capacity=CALLS + 1)
    for _ in range(CALLS):
        monitor.end(monitor.begin(), 0, 10_000)
    began_ns = time.perf_counter_ns()
    monitor.fold()
    each_us = (time.perf_counter_ns() - began_ns) / CALLS / 1e3
    table.add_row("folding a sample, on the monitor's thread", f"{each_us:.2f}", "", "", "")
    return table


def _call_of(recorder: CallRecorder) -> Callable[[], None]:
    def call() -> None:
        recorder.end(recorder.begin(), 0, 10_000)

    return call


def _intercepted(monitor: SlaMonitor) -> Callable[[], None]:
    interceptor = SlaInterceptor(monitor)

    class Done:
        """As grpc's outcome of a blocking call."""

        def add_done_callback(self, callback: Callable[[Any], None]) -> None:
            callback(self)

        def cancelled(self) -> bool:
            return False

        def code(self) -> Any:
            return ok

        def result(self) -> None:
            return None

    import grpc  # noqa: PLC0415 - the server under measurement sets its own experiments

    ok = grpc.StatusCode.OK

    class Details:
        method = PREDICT

    def call() -> None:
        interceptor.intercept_unary_unary(lambda _details, _request: Done(), Details, None)

    return call


def _timed(call: Callable[[], object]) -> np.ndarray:
    """Microseconds of each call, less what two readings of the clock take."""
    clock = time.perf_counter_ns
    took_ns = np.empty(CALLS)
    for index in range(CALLS):
        before_ns = clock()
        call()
        took_ns[index] = clock() - before_ns
    empty_ns = np.empty(CALLS)
    for index in range(CALLS):
        before_ns = clock()
        empty_ns[index] = clock() - before_ns
    return np.maximum(took_ns - np.median(empty_ns), 0.0) / 1e3


def _cells(took_us: np.ndarray) -> tuple[str, ...]:
    return tuple(f"{value:.2f}" for value in (took_us.mean(), *np.percentile(took_us, [50, 99, 99.9])))


class _Kept(SlaMonitor):
    """A monitor that keeps the raw samples too, to hold its percentiles against."""

    def __init__(self) -> None:
        super().__init__([_CALM])
        self.raw_ns: list[int] = []

    def _append(self, sample: tuple[int, int, int | None, int]) -> None:
        self.raw_ns.append(sample[1])
        super()._append(sample)


def _round_trips(server: Served) -> list[Table]:
    found: dict[str, list[list[float]]] = {"LatencyRecorder": [], "SlaMonitor": []}
    with _Kept() as monitor:
        for pair in range(PAIRS):
            for name in list(found) if pair % 2 == 0 else list(found)[::-1]:
                recorder = LatencyRecorder() if name == "LatencyRecorder" else monitor
                took_us = _asked(server, recorder, f"{name[:3]}-{pair}")
                found[name].append([float(value) for value in np.percentile(took_us, [50, 99, 99.9])])
        percentiles = monitor.percentiles()
        ordered = sorted(monitor.raw_ns)
    trips = Table(title=f"round trip, us, {PAIRS} pairs of {ROUND_TRIPS:,}")
    near = Table(title=f"against {len(ordered):,} raw samples, us")
    for heading in ("client with", "p50", "p99", "p99.9"):
        trips.add_column(heading, justify="left" if heading == "client with" else "right")
    for name, runs in found.items():
        trips.add_row(name, *(f"{median(run[at] for run in runs):,.1f}" for at in range(3)))
    for heading in ("", "monitor", "raw", "difference, %"):
        near.add_column(heading, justify="left" if not heading else "right")
    for share, value_us in ((0.5, percentiles.p50_us), (0.99, percentiles.p99_us), (0.999, percentiles.p999_us)):
        raw_us = ordered[math.ceil(share * len(ordered)) - 1] / 1e3
        off = 100 * (value_us / raw_us - 1)
        near.add_row(f"p{100 * share:g}", f"{value_us:,.2f}", f"{raw_us:,.2f}", f"{off:+.3f}")
    return [trips, near]


def _asked(server: Served, recorder: CallRecorder, symbol: str) -> np.ndarray:
    requests = tick_requests(symbol, ROUND_TRIPS, seed=0)
    took_ns = np.empty(ROUND_TRIPS)
    with SignalClient(server.address, latency=recorder, deadline_s=30.0) as client:
        client.connect(30.0)
        for index, request in enumerate(requests):
            before_ns = time.perf_counter_ns()
            client.ask(request, 30.0)
            took_ns[index] = time.perf_counter_ns() - before_ns
    return took_ns / 1e3


def _stalls(server: Served) -> Table:
    """SIGSTOP of the server under a call: from the moment the call is older than the limit to the callback."""
    pid = server.process.process.pid
    called = threading.Event()
    late_us: list[float] = []
    began = [0]

    def enter(_breach: object) -> None:
        late_us.append((time.perf_counter_ns() - began[0]) / 1e3 - STALL_US)
        os.kill(pid, signal.SIGCONT)
        called.set()

    held = 0
    promise = Objective("signals", STALL_US, 0.5, STALL_US, burn_rules=(), clean_s=0.2)
    requests = iter(tick_requests("STALL", 200_000, seed=0))
    with (
        SlaMonitor([promise], on_enter=enter) as monitor,
        SignalClient(server.address, latency=monitor, deadline_s=30.0) as client,
    ):
        client.connect(30.0)
        while len(late_us) < STALLS:
            while not monitor.may_add_risk:
                client.ask(next(requests), 30.0)
            called.clear()
            os.kill(pid, signal.SIGSTOP)
            began[0] = time.perf_counter_ns()
            client.ask(next(requests), 30.0)
            if not called.wait(10.0):
                raise SystemExit("bench: a stall was not called within 10 s")
            held += not monitor.may_add_risk
    table = Table(title=f"{STALLS} stalls (SIGSTOP), called after {STALL_US / 1e3:g} ms and, ms")
    for heading in ("p50", "max", "next order held"):
        table.add_column(heading, justify="right")
    table.add_row(f"{median(late_us) / 1e3:.1f}", f"{max(late_us) / 1e3:.1f}", f"{held} of {len(late_us)}")
    return table
