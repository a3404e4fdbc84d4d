"""The Python client and the gateway in Go, one after the other on one server: where each one's round trip goes."""

import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench import servers
from bench.requests import tick_requests
from rich.table import Table

from tickgate.v1 import PredictRequest
from tickgate_client import LatencySummary, Percentiles, SignalClient, read_csv, write_csv

TICKS = 10_000
_GATEWAY = Path(__file__).resolve().parents[1] / "examples" / "gateway-go"
_DEADLINE_S = 30.0


def gateways(repository: Path, pairs: int) -> Table:
    """Medians of alternating runs, each of as many ticks of a symbol of its own, one in flight.

    Request ids are a run's own too: one that was asked before would be answered as a repeat.

    Raises:
        SystemExit: Go is missing, or a tick was not answered: a latency with errors is none.
    """
    if shutil.which("go") is None:
        raise SystemExit("bench: the gateway in Go needs go, which is not installed")
    subprocess.run(["make", "-s", "-C", str(_GATEWAY), f"PYTHON={sys.executable}"], check=True)  # noqa: S607
    clients: dict[str, Callable[..., LatencySummary]] = {"Python": _python, "Go": _go}
    found: dict[tuple[str, bool], list[LatencySummary]] = {}
    symbols = (f"SYM{number}" for number in itertools.count())
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-ticks-") as folder, servers.tickgate(repository) as address:
        path = Path(folder) / "ticks.csv"
        for pair in range(pairs + 1):
            for stream in (False, True):
                for name in list(clients) if pair % 2 == 0 else list(clients)[::-1]:
                    symbol = next(symbols)
                    write_csv(path, (request.tick for request in tick_requests(symbol, TICKS, seed=pair)))
                    summary = clients[name](address, path, symbol, stream=stream)
                    if pair:  # the first one warms everybody up
                        found.setdefault((name, stream), []).append(summary)
    return _table(found, pairs)


def _python(address: str, path: Path, symbol: str, *, stream: bool) -> LatencySummary:
    ticks = enumerate(read_csv(path))
    with SignalClient(address, deadline_s=_DEADLINE_S) as client:
        client.connect(_DEADLINE_S)
        if stream:
            requests = (PredictRequest(request_id=f"{symbol}-{index}", tick=tick) for index, tick in ticks)
            failed = next((result for result in client.predict_stream(requests) if result.code), None)
            if failed is not None:
                raise SystemExit(f"bench: {failed.message}")
        else:
            for index, tick in ticks:
                client.predict(tick, request_id=f"{symbol}-{index}")
        return client.latency.summary()


def _go(address: str, path: Path, symbol: str, *, stream: bool) -> LatencySummary:
    command = [str(_GATEWAY / "build" / "gateway"), "-target", address, "-json", "-deadline", f"{_DEADLINE_S:g}s"]
    command += ["-id-prefix", f"{symbol}-", *["-stream"] * stream, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: {done.stderr}")
    latency = json.loads(done.stdout)["latency"]
    return LatencySummary(**{part: Percentiles(**latency[part]) for part in ("round_trip", "server", "network")})


def _table(found: dict[tuple[str, bool], list[LatencySummary]], pairs: int) -> Table:
    table = Table(title=f"us, 1 in flight, medians of {pairs} runs of {TICKS:,}; max: the largest")
    for heading in ("gateway", "method", "", "p50", "p99", "p99.9", "max"):
        table.add_column(heading, justify="right" if heading.startswith(("p", "max")) else "left")
    for (name, stream), runs in sorted(found.items(), key=lambda item: (item[0][1], item[0][0])):
        for part in ("round_trip", "server"):
            of = [getattr(run, part) for run in runs]
            table.add_row(
                *((name, "stream" if stream else "unary") if part == "round_trip" else ("", "")),
                part.replace("_", " "),
                *(f"{median(getattr(run, field) for run in of):,.0f}" for field in ("p50_us", "p99_us", "p999_us")),
                f"{max(run.max_us for run in of):,.0f}",
            )
    return table
