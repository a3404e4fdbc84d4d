"""Published ticks: how many one worker takes, and what Predict beside them pays.

One server, 1,000 symbols; messages of 10 ms, and a tenth of the rate in messages of 100 ms too. Runs at each rate
alternate with runs at idle, so what else the machine does falls on all of them alike; the ratio is the median over the
rounds of (p99 beside the rate / p99 at idle).
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench import servers
from bench.requests import write_requests
from bench.rpc import Shape
from rich.table import Table
from tests.support.processes import server

# Ticks a second, 0: none, -1: the most it takes; and ticks a message.
IDLE, MOST = (0, 0), (-1, 1_000)
LOADS = (IDLE, (10_000, 100), (10_000, 1_000), (100_000, 1_000), MOST)
PREDICTS = Shape("open loop, 1,000/s, 4 connections", 4, rate=1_000)
_START_UP_S = 1.5  # of the publisher
Rounds = dict[tuple[int, int], list[tuple[dict[str, Any], dict[str, int]]]]
"""What each load's publisher and callers saw, in each round."""


class Publishing:
    """The publisher's processes, one after the other."""

    def __init__(self, service: str, data: str) -> None:
        self._addresses = (service, data)
        self._next = 1

    @contextmanager
    def at(self, rate: int, batch: int, seconds: float) -> Iterator[dict[str, Any]]:
        """Publish beside the block, which it outlasts; what it saw is there behind it. No `rate`: nothing."""
        found: dict[str, Any] = {}
        if not rate:
            yield found
            return
        arguments = [*self._addresses, str(max(rate, 0)), str(batch), str(seconds), str(self._next)]
        command = [sys.executable, "-m", "bench.ingest_load", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            yield found
            output, _ = process.communicate()
        found |= json.loads(output)
        self._next = found["next"]


def ingest(models: Path, pairs: int, seconds: float) -> list[Table]:
    """The table of rates."""
    rounds: Rounds = {load: [] for load in LOADS}
    environment = {"TICKGATE_CLOCK__MODE": "replay", "TICKGATE_JOURNAL__RETAINED_SEGMENTS": "4"}
    before = os.getloadavg()[0]
    with server(models, environment=environment) as (running, address), tempfile.TemporaryDirectory() as folder:
        publishing = Publishing(str(running.logged("serving")[0]["service"]), address)
        for number in range(pairs):
            for rate, batch in rounds if number % 2 == 0 else reversed(rounds):
                prefix = Path(folder) / "requests"
                count = int(PREDICTS.rate * seconds / PREDICTS.connections) + 500
                write_requests(prefix, PREDICTS.connections, count, stream=False, symbols=f"R{number}.{rate}.{batch}.")
                with publishing.at(rate, batch, seconds + 2 * _START_UP_S) as found:
                    if rate:
                        _until_it_publishes()
                    predicts = load(address, prefix, seconds)
                rounds[rate, batch].append((found, predicts))
    return [_table(rounds, pairs, before)]


def load(address: str, prefix: Path, seconds: float) -> dict[str, int]:
    """Run the load generator once; percentiles in microseconds of what was answered OK, and how many were `failed`."""
    command = [servers.tool("rpcload"), address, servers.METHOD, str(prefix), str(PREDICTS.connections), str(seconds)]
    command.append(f"rate={PREDICTS.rate}")
    line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in re.findall(r"(p50|p99)=(\d+)", line)}
    return found | {"failed": sum(int(count) for count in re.findall(r"status_\d+=(\d+)", line))}


def _until_it_publishes() -> None:
    time.sleep(_START_UP_S)


def _table(rounds: Rounds, pairs: int, before: float) -> Table:
    after = os.getloadavg()[0]
    table = Table(
        title=f"published ticks, 1,000 symbols; Predict {PREDICTS.name}, us; median of {pairs};"
        f" machine's load {before:.1f} before, {after:.1f} after"
    )
    for heading in (
        "rate",
        "a batch",
        "accepted/s",
        "refused",
        "batch p50 ms",
        "p99 ms",
        "behind",
        "p50",
        "p99",
        "failed",
        "p99 x idle",
    ):
        table.add_column(heading, justify="right")
    idle = [predicts["p99"] for _, predicts in rounds[IDLE]]
    for (rate, batch), runs in rounds.items():
        told = [found for found, _ in runs if found]
        cells = ["-"] * 5
        if told:
            cells = [
                f"{median(one['ticks_a_second'] for one in told):,.0f}",
                f"{sum(one['refused'] for one in told):,}",
                *(f"{median(one['batch_ms'][at] for one in told):.1f}" for at in range(2)),
                str(max(one["behind"] for one in told)),
            ]
        ratio = median(predicts["p99"] / quiet for (_, predicts), quiet in zip(runs, idle, strict=True))
        table.add_row(
            "idle" if rate == 0 else "the most" if rate < 0 else f"{rate:,}/s",
            f"{batch:,}" if batch else "-",
            *cells,
            *(f"{median(predicts[name] for _, predicts in runs):,.0f}" for name in ("p50", "p99")),
            f"{sum(predicts['failed'] for _, predicts in runs):,}",
            f"{ratio:.2f}",
        )
    return table
