"""Budgets and overload: what a slow model does to its own answers, to another model's, and how it takes too much work.

`python -m bench.deadlines`. Lateness of DEADLINE_EXCEEDED is given twice: when the server had it, from its journal, and
when a Python client had it, with its own wake-up and the way there and back in it. The generator, the server and the
burner share the machine: ratios matter, not figures.
"""

import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter_ns

import grpc
import numpy as np
from bench import models, servers
from rich.console import Console
from rich.table import Table
from tests.support.packages import long_onnx, publish_model
from tests.support.processes import Served, served

from tickgate.v1 import FeatureVector, PredictRequest, SignalServiceStub, Tick, Trade
from tickgate_server.journal.entries import DecisionEntry
from tickgate_server.journal.reader import JournalReader
from tickgate_server.records import Stage

SLOW_NODES, SLOW_NUMBERS = 340, 150_000  # about 100 ms, each node 0.3
TWO_MS_NODES, TWO_MS_NUMBERS = 21, 50_000
PATIENT_MS = 600_000.0
BUDGET_US = 5_000
TRIALS = 100
REFUSED = 500
PAIRS = 5
SECONDS = 4.0
_FIELD = re.compile(r"(rps|p50|p99|n|status_\d+)=(\d+)")
_LATE = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
_BURN = "while True: pass"


def request(model: str, budget_us: int = 0) -> PredictRequest:
    """One that changes no state."""
    vector = FeatureVector(symbol="A", values=[0.0] * 10, exchange_ts_ns=1, reference_price=100.0)
    return PredictRequest(model=model, budget_us=budget_us, features=vector)


def ask(stub: SignalServiceStub, message: PredictRequest) -> tuple[grpc.StatusCode, str, float, float]:
    """Status, message, milliseconds until the answer was here, and until it was sent if it is OK."""
    sent_ns, start_ns = time.time_ns(), perf_counter_ns()
    try:
        answer = stub.Predict(message, timeout=1.0)
    except grpc.RpcError as error:
        return error.code(), error.details(), (perf_counter_ns() - start_ns) / 1e6, 0.0
    took_ms = (perf_counter_ns() - start_ns) / 1e6
    return grpc.StatusCode.OK, "", took_ms, (answer.timing.server_send_ts_ns - sent_ns) / 1e6


def budgets(server: Served, pause_s: float, count: int) -> list[str]:
    """Cells: OK, OK after the budget, refused early, stopped; lateness of the stopped, p50 and p99 in ms, twice."""
    with JournalReader(Path(server.process._journal.name)) as journal:  # noqa: SLF001 - the test server's own
        list(journal)
        cells = _by_client(server.stub, pause_s, count)
        rows = [entry.row for entry in journal if isinstance(entry, DecisionEntry)]
    late_ns = [
        row["waiting_ns"] + row["features_ns"] + row["inference_ns"] - row["budget_ns"]
        for row in rows
        if row["status"] == _LATE and row["stage"] == Stage.INFERENCE
    ]
    return cells + [f"{cell / 1e6:.2f}" for cell in np.percentile(late_ns or [np.nan], [50, 99])]


def _by_client(stub: SignalServiceStub, pause_s: float, count: int) -> list[str]:
    found: Counter[str] = Counter()
    late_ms: list[float] = []
    for _ in range(count):
        time.sleep(pause_s)
        code, details, took_ms, sent_ms = ask(stub, request("slow", BUDGET_US))
        if code is grpc.StatusCode.OK:
            found["ok"] += 1
            found["late"] += sent_ms > BUDGET_US / 1e3
        elif "usually takes" in details:
            found["refused"] += 1
        else:
            found[code.name] += 1
            late_ms.append(took_ms - BUDGET_US / 1e3)
    spread = [f"{cell:.2f}" for cell in np.percentile(late_ms, [50, 99])] if late_ms else ["", ""]
    stopped = found["DEADLINE_EXCEEDED"]
    return [str(cell) for cell in (found["ok"], found["late"], found["refused"], stopped)] + spread


def write(prefix: Path, message: PredictRequest, connections: int, count: int) -> Path:
    """Request files for the load generator."""
    data = message.SerializeToString()
    for connection in range(connections):
        prefix.with_suffix(f".{connection}").write_bytes((struct.pack("<I", len(data)) + data) * count)
    return prefix


def load(address: str, prefix: Path, *options: str, connections: int = 1, seconds: float = SECONDS) -> dict[str, int]:
    """Run the load generator; its percentiles count answers that are OK, after its first half second."""
    command = [servers.tool("rpcload"), address, servers.METHOD, str(prefix), str(connections), str(seconds)]
    line = subprocess.run([*command, *options], capture_output=True, text=True, check=False).stdout
    return {name: int(value) for name, value in _FIELD.findall(line)}


@contextmanager
def burner() -> Iterator[None]:
    """A process that does nothing, at full speed."""
    with subprocess.Popen([sys.executable, "-c", _BURN]) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def slow_load(address: str, prefix: Path) -> Iterator[None]:
    """Another process that keeps the slow model running."""
    command = [servers.tool("rpcload"), address, servers.METHOD, str(prefix), "2", "600"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            time.sleep(0.3)
            yield
        finally:
            process.kill()


def deadline_table(server: Served, fast: Path) -> Table:
    """A model of 100 ms under budgets of 5."""
    table = Table(title=f"100 ms model, budget {BUDGET_US / 1e3:g} ms, gRPC deadline 1 s; lateness in ms")
    for heading in (
        "requests",
        "OK",
        "OK late",
        "refused early",
        "stopped",
        "client late p50",
        "p99",
        "server late p50",
        "p99",
    ):
        table.add_column(heading, justify="left" if heading == "requests" else "right")
    table.add_row("back to back", *budgets(server, 0.0, REFUSED))
    table.add_row("120 ms apart", *budgets(server, 0.12, TRIALS))
    command = [servers.tool("rpcload"), server.address, servers.METHOD, str(fast), "1", "600"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        table.add_row("120 ms apart, fast model busy", *budgets(server, 0.12, TRIALS))
        process.kill()
    return table


def beside_table(address: str, fast: Path, slow: Path, stopped: Path) -> Table:
    """A fast model's latency while a slow one runs."""
    table = Table(title=f"fast model, unary, 1 in flight; us, median of {PAIRS} alternating runs")
    for heading in ("beside", "p50", "p99"):
        table.add_column(heading, justify="left" if heading == "beside" else "right")
    runs: dict[str, list[dict[str, int]]] = {}
    for _ in range(PAIRS):
        runs.setdefault("nothing", []).append(load(address, fast))
        with burner():
            runs.setdefault("a burner outside the server", []).append(load(address, fast))
        with slow_load(address, slow):
            runs.setdefault("the slow model, always running", []).append(load(address, fast))
        with slow_load(address, stopped):
            runs.setdefault("the slow model, budgets of 5 ms, as fast as refused", []).append(load(address, fast))
    for name, found in runs.items():
        table.add_row(name, *(f"{median(run[cell] for run in found):,.0f}" for cell in ("p50", "p99")))
    burned, slowed = (
        median(run["p99"] for run in runs[name])
        for name in ("a burner outside the server", "the slow model, always running")
    )
    table.add_row("p99, slow model / burner", "", f"{slowed / burned:.2f}")
    return table


def overload_table(address: str, stub: SignalServiceStub, prefix: Path) -> Table:
    """Five times what a model of 2 ms can do."""
    table = Table(title="2 ms model; ms of accepted requests")
    for heading in ("load", "p50", "p99", "answered /s", "refused busy", "refused late"):
        table.add_column(heading, justify="left" if heading == "load" else "right")

    def row(name: str, found: dict[str, int]) -> None:
        cells = [f"{found.get(cell, 0) / 1e3:.2f}" for cell in ("p50", "p99")]
        table.add_row(name, *cells, *(f"{found.get(cell, 0):,}" for cell in ("rps", "status_8", "status_4")))

    unloaded = load(address, prefix)
    rate = 5 * unloaded["rps"]
    row("1 in flight", unloaded)
    row("3 in flight", load(address, prefix, connections=3))
    over = load(address, prefix, f"rate={rate}", connections=8)
    start_ns = perf_counter_ns()
    while ask(stub, request("two"))[2] > unloaded["p50"] * 1.5e-3:
        pass
    recovered_ms = (perf_counter_ns() - start_ns) / 1e6
    row(f"open loop, {rate:,}/s", over)
    table.add_row("p99, overloaded / unloaded", "", f"{over['p99'] / unloaded['p99']:.2f}")
    table.add_row("ms until answered as unloaded", "", f"{recovered_ms:.0f}")
    return table


def main() -> None:
    """Print the tables."""
    console = Console(width=160)
    console.print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-") as name:
        folder = Path(name)
        models.publish(folder / "models")
        slow = long_onnx(SLOW_NODES, numbers=SLOW_NUMBERS)
        publish_model(folder / "models", slow, name="slow", latency_budget_ms=PATIENT_MS)
        two = long_onnx(TWO_MS_NODES, numbers=TWO_MS_NUMBERS)
        publish_model(folder / "models", two, name="two", latency_budget_ms=PATIENT_MS)
        fast = write(folder / "fast", request("bench"), 1, 400_000)
        running = write(folder / "running", request("slow"), 2, 10_000)
        stopped = write(folder / "stopped", request("slow", BUDGET_US), 2, 400_000)
        overload = write(folder / "two", request("two"), 8, 20_000)
        for transport in sys.argv[1:] or ["queue", "aio"]:
            arguments = ("--clock", "replay", "--transport", transport, "--default-model", "bench")
            with served(folder / "models", *arguments, observed=True) as server:
                address, stub = server.address, server.stub
                tick = Tick(symbol="A", exchange_ts_ns=1, trade=Trade(price=100.0, size=1.0))
                stub.Predict(PredictRequest(tick=tick), timeout=10.0)
                console.print(f"transport {transport}")
                console.print(deadline_table(server, fast))
                console.print(beside_table(address, fast, running, stopped))
                console.print(overload_table(address, stub, overload))
    console.print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
