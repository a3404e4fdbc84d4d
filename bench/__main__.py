"""`python -m bench`: measure this machine, print tables, assert nothing."""

import os
import platform
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import click
from bench import (
    archive,
    features,
    forest,
    gate,
    gateways,
    ghz,
    halt,
    ingest,
    models,
    parity,
    rpc,
    scrape,
    sla,
    stages,
    store,
    swaps,
)
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).with_name("RESULTS.md")
PARTS = (
    *("stages", "features", "gate", "halt", "queue", "aio", "empty", "forest", "ghz", "sla", "gateways", "ingest"),
    "swaps",
)
LONG_PARTS = ("parity", "archive", "store", "scrape")


@click.command()
@click.option(
    "--part",
    "parts",
    type=click.Choice(PARTS + LONG_PARTS),
    multiple=True,
    help="Only these; all but the long ones (parity, archive, store, scrape) if not given.",
)
@click.option("--pairs", type=click.IntRange(1), default=5, show_default=True, help="Pairs of server and floor.")
@click.option("--seconds", type=float, default=3.0, show_default=True, help="Of each run.")
@click.option("--shapes", type=click.IntRange(1, len(rpc.SHAPES)), default=len(rpc.SHAPES), help="Only the first.")
@click.option("--gbt-c", is_flag=True, help="In part forest: STAC-ML's largest shape too.")
@click.option("--out", type=click.Path(path_type=Path), help="Append the tables to a file, RESULTS.md for example.")
def main(parts: tuple[str, ...], pairs: int, seconds: float, shapes: int, *, gbt_c: bool, out: Path | None) -> None:
    """Measure stages in process, and round trips over gRPC beside a C++ echo of the same messages."""
    console = Console(record=True, width=140)
    console.print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()},"
        f" Python {platform.python_version()}, grpcio {version('grpcio')}, onnxruntime {version('onnxruntime')},"
        f" numba {version('numba')}; load before: {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-models-") as folder:
        repository = Path(folder)
        models.publish(repository)
        tables: dict[str, Callable[[], Iterable[Table]]] = {
            "stages": lambda: [stages.stages(repository)],
            "features": lambda: [features.features()],
            "gate": lambda: gate.gate(repository),
            "halt": lambda: [halt.halt(repository)],
            "forest": lambda: [forest.forest_table(largest=gbt_c)],
            "ghz": lambda: [ghz.ghz(repository)],
            "sla": lambda: sla.sla(repository),
            "gateways": lambda: [gateways.gateways(repository, pairs)],
            "swaps": lambda: swaps.swaps(pairs, seconds, 300),
            "ingest": lambda: ingest.ingest(repository, pairs, seconds),
            "parity": lambda: [parity.parity()],
            "scrape": lambda: scrape.scrape(pairs, seconds),
            "archive": lambda: [archive.archive()],
            "store": lambda: store.store(repository, pairs, seconds),
        }
        compared = partial(rpc.compare, repository, shapes=rpc.SHAPES[:shapes], pairs=pairs, seconds=seconds)
        for part in parts or PARTS:
            for table in tables[part]() if part in tables else [compared(part)]:
                console.print(table)
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(f"\n```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
