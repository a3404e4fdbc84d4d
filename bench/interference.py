"""What Predict's tail pays for a scrape every 100 ms, and for another process that fsyncs beside the journal.

`python -m bench.interference`. One server; quiet and disturbed runs alternate, and each pair begins with the other of
the two; the figure is the median over the pairs of (p99 disturbed / p99 quiet). The disturbers are processes of their
own on the same cores, so what they take of the processor is in the figure: of two cores, without pause, most of it.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
from bench import models
from bench.requests import write_requests
from bench.rpc import Shape, load
from rich.console import Console
from rich.table import Table
from tests.support.processes import served

SHAPES = (
    Shape("unary, 1 in flight", 1),
    Shape("open loop, 2,000/s, 8 connections", 8, rate=2_000),
)
MOST_A_SECOND = 12_000  # of one connection
_SCRAPE = """
import http.client, sys, time
due = time.monotonic()
while True:
    connection = http.client.HTTPConnection(sys.argv[1])
    connection.request("GET", "/metrics")
    connection.getresponse().read()
    connection.close()
    due += float(sys.argv[2])
    time.sleep(max(0.0, due - time.monotonic()))
"""
_FSYNC = """
import os, sys, time
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
number = 0
while True:
    os.pwrite(file, bytes(65536), number % 1024 * 65536)
    os.fsync(file)
    number += 1
    time.sleep(float(sys.argv[2]))
"""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A process that runs beside the load."""

    name: str
    code: str
    arguments: tuple[str, ...]

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the block runs; an error if it ended by itself."""
        with subprocess.Popen([sys.executable, "-c", self.code, *self.arguments]) as process:
            try:
                yield
                if process.poll() is not None:
                    raise SystemExit(f"bench: {self.name} ended with status {process.returncode}")
            finally:
                process.kill()


def scraping(metrics: str, every_s: float) -> Disturbance:
    """A scraper of an endpoint."""
    return Disturbance(f"a scrape every {every_s * 1e3:,.0f} ms", _SCRAPE, (metrics, str(every_s)))


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing beside the load."""
    yield


def measure(address: str, folder: Path, shape: Shape, seconds: float, run: int) -> int:
    """p99 in microseconds of one run, on symbols of its own."""
    prefix = folder / f"run{run}"
    rate = shape.rate / shape.connections or MOST_A_SECOND
    write_requests(prefix, shape.connections, int(rate * (seconds + 1)), stream=False, symbols=f"R{run}C")
    try:
        return load(address, prefix, shape, seconds)["p99"]
    finally:
        for connection in range(shape.connections):
            prefix.with_suffix(f".{connection}").unlink()


def compare(address: str, folder: Path, disturbances: list[Disturbance], pairs: int, seconds: float) -> Table:
    """The table, one row a disturbance and load."""
    table = Table(title=f"p99 in us, {pairs} alternating pairs of {seconds:g} s")
    for heading in ("beside", "load", "quiet", "disturbed", "ratio: median", "least", "most"):
        table.add_column(heading, justify="left" if heading in ("beside", "load") else "right")
    run = 0
    for disturbance in disturbances:
        kinds: tuple[Callable[[], AbstractContextManager[None]], ...] = (quiet, disturbance.running)
        for shape in SHAPES:
            found: tuple[list[int], list[int]] = ([], [])
            for pair in range(pairs):
                for kind in (0, 1) if pair % 2 == 0 else (1, 0):
                    with kinds[kind]():
                        found[kind].append(measure(address, folder, shape, seconds, run))
                    run += 1
            ratios = [disturbed / alone for alone, disturbed in zip(*found, strict=True)]
            table.add_row(
                disturbance.name,
                shape.name,
                *(f"{median(runs):,.0f}" for runs in found),
                *(f"{cell:.2f}" for cell in (median(ratios), min(ratios), max(ratios))),
            )
    return table


@click.command()
@click.option("--pairs", type=click.IntRange(1), default=10, show_default=True, help="Of a quiet and a disturbed run.")
@click.option("--seconds", type=float, default=3.0, show_default=True, help="Of each run.")
@click.option("--transport", type=click.Choice(["queue", "aio"]), default="queue", show_default=True)
@click.option("--journal", type=click.Path(path_type=Path), help="Folder for journals; a temporary one if not given.")
@click.option("--only", default="", help="Disturbances whose name has this in it.")
@click.option("--out", type=click.Path(path_type=Path), help="Append the table to a file, RESULTS.md for example.")
def main(pairs: int, seconds: float, transport: str, journal: Path | None, only: str, out: Path | None) -> None:
    """Measure what scrapes and another process's fsyncs cost Predict's p99."""
    console = Console(record=True, width=140)
    console.print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, transport {transport}")
    with (
        tempfile.TemporaryDirectory(prefix="tickgate-bench-") as name,
        tempfile.TemporaryDirectory(prefix="tickgate-journal-", dir=journal) as beside,
    ):
        folder = Path(name)
        models.publish(folder / "models")
        arguments = ("--clock", "replay", "--transport", transport, "--journal", beside + "/journal")
        with served(folder / "models", *arguments, observed=True) as server:
            disturbances = [
                scraping(server.metrics, 0.1),
                Disturbance("64 KiB and fsync every 20 ms", _FSYNC, (beside + "/other", "0.02")),
                Disturbance("64 KiB and fsync, without pause", _FSYNC, (beside + "/other", "0")),
            ]
            wanted = [found for found in disturbances if only in found.name]
            console.print(compare(server.address, folder, wanted, pairs, seconds))
    console.print(f"load after: {os.getloadavg()[0]:.1f}")
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(f"\n```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
