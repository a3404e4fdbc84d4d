"""`python -m bench.ghz_load`: ghz with the load shapes of `bench/ghz/`, against a server of our own or any other.

Percentiles come from the single results in ghz's JSON: its own summary ends at p99.
"""

import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from bench import models, servers
from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).with_name("ghz")
SHAPES = ("steady", "step", "spike", "after-spike", "soak")
SHARES = (0.5, 0.9, 0.99, 0.999, 0.9999)


def run(shape: str, address: str, duration: str | None) -> dict[str, Any]:
    """The report that ghz gives of one shape; raises SystemExit if ghz is not on the PATH or fails."""
    ghz = shutil.which("ghz")
    if ghz is None:
        raise SystemExit("bench: ghz is not on the PATH: go install github.com/bojand/ghz/cmd/ghz@v0.121.0")
    command = [ghz, "--config", str(FOLDER / f"{shape}.toml"), "--format", "json"]
    command += [] if duration is None else ["--duration", duration]
    # Its configuration names the request from the project's folder.
    done = subprocess.run([*command, address], capture_output=True, text=True, check=False, cwd=FOLDER.parents[1])
    if done.returncode or not done.stdout:
        raise SystemExit(f"bench: ghz failed on {shape}: {done.stderr.strip()}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def offered(options: dict[str, Any]) -> int:
    """Requests that the schedule asks for."""
    left_s = options["duration"] / 1e9
    if options["load-schedule"] == "const":
        return round(options["rps"] * left_s)
    rate, total = options["load-start"], 0.0
    while left_s > 0:
        # The last step lasts until the end.
        step_s = left_s if rate >= options["load-end"] else min(options["load-step-duration"] / 1e9, left_s)
        total += rate * step_s
        left_s -= step_s
        rate = min(rate + options["load-step"], options["load-end"])
    return round(total)


def row(shape: str, report: dict[str, Any]) -> list[str]:
    """The table's cells: failed requests are among the latencies."""
    took_ms = sorted(result["latency"] / 1e6 for result in report["details"])
    statuses = dict(report["statusCodeDistribution"])
    good = statuses.pop("OK", 0)
    others = ", ".join(f"{name} {count:,}" for name, count in sorted(statuses.items()))
    cells = [shape, f"{offered(report['options']):,}", f"{report['count']:,}", f"{good:,}", others or "-"]
    for share in SHARES:
        enough = len(took_ms) * (1 - share) >= 1  # else it is the slowest one, whatever the tail is
        cells.append(f"{took_ms[math.ceil(share * len(took_ms)) - 1]:,.2f}" if enough else "-")
    cells += [f"{took_ms[-1]:,.2f}" if took_ms else "-", f"{report['count'] - len(took_ms):,}"]
    return cells


@contextmanager
def _target(address: str | None) -> Iterator[str]:
    if address is not None:
        yield address
        return
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-models-") as folder:
        models.publish(Path(folder))
        with servers.tickgate(Path(folder)) as own:
            yield own


@click.command()
@click.argument("shapes", nargs=-1, type=click.Choice(SHAPES))
@click.option("--target", metavar="HOST:PORT", help="A server that runs; one of our own, in replay mode, if not given.")
@click.option("--duration", help="Of each shape instead of its own, as ghz has it: 5s.")
@click.option("--out", type=click.Path(path_type=Path), help="Append the table to a file, RESULTS.md for example.")
def main(shapes: tuple[str, ...], target: str | None, duration: str | None, out: Path | None) -> None:
    """Load a server in SHAPES, one after the other; all but soak if none is named."""
    console = Console(record=True, width=160)
    console.print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    table = Table(title="ghz --async, 8 connections; ms")
    for heading in ("shape", "offered", "made", "OK", "others"):
        table.add_column(heading, justify="left" if heading in ("shape", "others") else "right")
    for heading in (*(f"p{100 * share:g}" for share in SHARES), "max", "not kept"):
        table.add_column(heading, justify="right")
    with _target(target) as address:
        for shape in shapes or SHAPES[:-1]:
            table.add_row(*row(shape, run(shape, address, duration)))
    console.print(table)
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(f"\n```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
