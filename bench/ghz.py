"""What users measure with: ghz, by reflection, 8 connections, closed loop."""

import json
import shutil
import subprocess
from pathlib import Path

from bench import servers
from rich.table import Table

REQUESTS = 40_000
CONNECTIONS = 8
# A symbol a worker: of one symbol, requests of several connections overtake each other.
_REQUEST = (
    '{"tick":{"symbol":"G-{{.WorkerID}}","exchange_ts_ns":"{{.TimestampUnixNano}}",'
    '"trade":{"price":61837.63,"size":0.02}}}'
)
_PERCENTILES = (50, 95, 99)


def ghz(models: Path, transport: str = "queue") -> Table:
    """Its own figures; it takes most of two cores itself.

    Raises:
        SystemExit: ghz is not there, or a request failed.
    """
    found = shutil.which("ghz") or shutil.which("ghz", path=str(Path.home() / "go" / "bin"))
    if found is None:
        raise SystemExit("bench: ghz was not found: go install github.com/bojand/ghz/cmd/ghz@v0.121.0")
    with servers.tickgate(models, transport) as address:
        command = [found, "--insecure", "--call", "tickgate.v1.SignalService/Predict", "-O", "json"]
        command += ["-c", str(CONNECTIONS), "--connections", str(CONNECTIONS), "-n", str(REQUESTS), "-d", _REQUEST]
        output = subprocess.run([*command, address], capture_output=True, text=True, check=True).stdout
    report = json.loads(output)
    statuses = report["statusCodeDistribution"]
    if set(statuses) != {"OK"}:
        raise SystemExit(f"bench: ghz had other answers than OK: {statuses}")
    latencies_ns = {row["percentage"]: row["latency"] for row in report["latencyDistribution"]}
    table = Table(title=f"ghz by reflection, transport {transport}, {CONNECTIONS} connections; ms")
    for heading in ("OK", "errors", "req/s", *(f"p{percentile}" for percentile in _PERCENTILES)):
        table.add_column(heading, justify="right")
    cells = (f"{latencies_ns[percentile] / 1e6:.2f}" for percentile in _PERCENTILES)
    table.add_row(f"{statuses['OK']:,}", f"{REQUESTS - statuses['OK']:,}", f"{report['rps']:,.0f}", *cells)
    return table
