"""What Predict's tail pays while a model is swapped without pause, and whether it and the memory stay as they are.

`python -m bench --part swaps`, or `python -m bench.swaps`. A server of two versions of 200 trees swaps them from inside
(`tests.support.swapping`): each swap loads the version that is not resident, checks it, switches and unloads the other.
Eight connections ask in an open loop at about half of what this machine answers them. Steady runs and runs with swaps
alternate, and each pair begins with the other of the two; the ratio is the median over the pairs. Then a run of many
swaps: anonymous memory and latency from the 50th to the last. The checks take what the load leaves of the cores.
"""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import click
from bench import servers
from bench.requests import write_requests
from bench.rpc import Shape, load
from rich.console import Console
from rich.table import Table
from tests.support.packages import publish_forest
from tests.support.processes import Served, served
from tests.support.swapping import PROGRAM

CONNECTIONS = 8
EVERY_S = 0.4
FLAT_FROM = 50
PERCENTILES = ("p50", "p99", "p99.9", "max")


class Swapped:
    """A server whose model is swapped while that is wanted, and the load on it."""

    def __init__(self, server: Served, folder: Path) -> None:
        self.server = server
        self._folder = folder
        self._file = folder / "swap"
        self._run = 0
        self.rate = 0

    def measure(self, seconds: float, rate: int) -> dict[str, int]:
        """Percentiles of one run in microseconds, on symbols of its own; a rate of 0: as fast as may be."""
        self._run += 1
        prefix = self._folder / f"run{self._run}"
        most = (rate or 24_000) / CONNECTIONS
        write_requests(prefix, CONNECTIONS, int(most * (seconds + 1)), stream=False, symbols=f"R{self._run}C")
        try:
            return load(self.server.address, prefix, Shape("", CONNECTIONS, rate=rate), seconds)
        finally:
            for connection in range(CONNECTIONS):
                prefix.with_suffix(f".{connection}").unlink()

    def swapping(self, seconds: float) -> tuple[dict[str, int], int]:
        """The same while the model is swapped, and how many swaps ended in it."""
        before = self.swaps()
        self._file.touch()
        try:
            found = self.measure(seconds, self.rate)
        finally:
            self._file.unlink()
        swaps = self.swaps() - before
        time.sleep(2 * EVERY_S)  # what is on its way ends outside the next run
        return found, swaps

    def swaps(self) -> int:
        """Swaps so far.

        Raises:
            SystemExit: One failed.
        """
        process = self.server.process
        while not process._lines.empty():  # noqa: SLF001 - all there is, and no waiting for more
            process._next(0.0)  # noqa: SLF001
        if process.logged("swap failed"):
            raise SystemExit(f"bench: a swap failed: {process.logged('swap failed')}")
        return len(process.logged("swapped"))

    def anonymous_mb(self) -> float:
        """Anonymous memory of the server that is resident."""
        status = Path(f"/proc/{self.server.process.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")) / 1024


def against_steady(swapped: Swapped, pairs: int, seconds: float) -> Table:
    """Alternating pairs of a steady run and one with swaps."""
    table = Table(title=f"us at {swapped.rate:,}/s of {CONNECTIONS} connections, {pairs} alternating pairs")
    for heading in ("", *PERCENTILES, "swaps a run"):
        table.add_column(heading, justify="right" if heading else "left")
    steady: list[dict[str, int]] = []
    during: list[dict[str, int]] = []
    swaps: list[int] = []
    for pair in range(pairs):
        for kind in (0, 1) if pair % 2 == 0 else (1, 0):
            if kind == 0:
                steady.append(swapped.measure(seconds, swapped.rate))
            else:
                found, count = swapped.swapping(seconds)
                during.append(found)
                swaps.append(count)
    for name, runs, counted in (("steady", steady, "0"), ("during swaps", during, f"{median(swaps):g}")):
        table.add_row(name, *(f"{median(run[key] for run in runs):,.0f}" for key in PERCENTILES), counted)
    ratios = {key: [one[key] / other[key] for one, other in zip(during, steady, strict=True)] for key in PERCENTILES}
    table.add_row("ratio, median of pairs", *(f"{median(ratios[key]):.2f}" for key in PERCENTILES), "")
    table.add_row("least and most", *(f"{min(ratios[key]):.2f} {max(ratios[key]):.2f}" for key in PERCENTILES), "")
    return table


def from_the_50th(swapped: Swapped, swaps: int, seconds: float) -> Table:
    """Memory and latency of a run of many swaps, in pieces."""
    table = Table(title=f"{swaps} swaps in a row")
    for heading in ("swaps so far", "anonymous memory MB", "p50 us", "p99 us", "p99.9 us"):
        table.add_column(heading, justify="right")
    begun = swapped.swaps()
    while (ended := swapped.swaps() - begun) < swaps:
        found, _ = swapped.swapping(seconds)
        so_far = swapped.swaps() - begun
        if so_far == ended:
            raise SystemExit(f"bench: no swap ended within {seconds:g} s")
        if so_far >= FLAT_FROM or ended == 0:
            table.add_row(
                str(so_far), f"{swapped.anonymous_mb():.1f}", *(f"{found[key]:,}" for key in ("p50", "p99", "p99.9"))
            )
    return table


def many_beside_one(seconds: float, pairs: int) -> Table:
    """Latency and start-up of a server with one version, and with 20 models of 3."""
    table = Table(title=f"us, unary, 1 in flight, medians of {pairs} alternating pairs")
    for heading in ("versions", "start-up s", "p50", "p99"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-swaps-") as name:
        folder = Path(name)
        publish_forest(folder / "one", name="bench", trees=200)
        for number in range(20):
            for version in (1, 2, 3):
                _copy(folder / "one" / "bench" / "1", folder / "many" / f"model-{number}" / str(version))
        found: dict[str, list[tuple[float, int, int]]] = {"one": [], "many": []}
        for pair in range(pairs):
            for kind in ("one", "many") if pair % 2 == 0 else ("many", "one"):
                default = {"TICKGATE_MODELS__DEFAULT": "bench" if kind == "one" else "model-19"}
                with served(folder / kind, "--clock", "replay", environment=default, observed=True) as server:
                    write_requests(folder / "unary", 1, int(20_000 * (seconds + 1)), stream=False, symbols="M")
                    run = load(server.address, folder / "unary", Shape("", 1), seconds)
                    started = server.process.logged("serving")[-1]["start_up_s"]
                    found[kind].append((started, run["p50"], run["p99"]))
        for kind, count in (("one", "1"), ("many", "60")):
            start_up_s, p50, p99 = (median(column) for column in zip(*found[kind], strict=True))
            table.add_row(count, f"{start_up_s:.1f}", f"{p50:,.0f}", f"{p99:,.0f}")
    return table


def _copy(package: Path, place: Path) -> None:
    """The same package under another name and version."""
    shutil.copytree(package, place)
    manifest = place / "manifest.json"
    document = json.loads(manifest.read_text()) | {"name": place.parent.name, "version": int(place.name)}
    manifest.write_text(json.dumps(document))


def swaps(pairs: int, seconds: float, count: int) -> list[Table]:
    """Every table."""
    beside = many_beside_one(seconds, pairs)
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-swaps-") as name:
        folder = Path(name)
        for version in (1, 2):
            publish_forest(folder / "models", name="bench", version=version, seed=version, trees=200)
        environment = {
            "SWAPS_MODEL": "bench",
            "SWAPS_WHILE": str(folder / "swap"),
            "SWAPS_EVERY_S": str(EVERY_S),
        }
        with served(
            folder / "models", "--clock", "replay", environment=environment, program=PROGRAM, observed=True
        ) as server:
            swapped = Swapped(server, folder)
            swapped.rate = swapped.measure(seconds, 0)["rps"] // 2 // CONNECTIONS * CONNECTIONS
            swapped.swapping(2 * seconds)  # the checker's imports, once
            return [beside, against_steady(swapped, pairs, seconds), from_the_50th(swapped, count, seconds)]


@click.command()
@click.option(
    "--pairs", type=click.IntRange(1), default=5, show_default=True, help="Of a steady run and one with swaps."
)
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Of each run.")
@click.option("--swaps", "count", type=click.IntRange(1), default=300, show_default=True, help="In the long run.")
@click.option("--out", type=click.Path(path_type=Path), help="Append the tables to a file, RESULTS.md for example.")
def main(pairs: int, seconds: float, count: int, out: Path | None) -> None:
    """Measure what swaps cost, and whether anything grows."""
    console = Console(record=True, width=140)
    servers.tool("rpcload")
    console.print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for table in swaps(pairs, seconds, count):
        console.print(table)
    console.print(f"load after: {os.getloadavg()[0]:.1f}")
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(f"\n```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
