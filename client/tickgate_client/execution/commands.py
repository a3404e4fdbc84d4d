"""The verb `tickgate paper`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tickgate_client.errors import TickgateError
from tickgate_client.paper.config import read_config
from tickgate_client.paper.report import document_of, show, symbols_of, write
from tickgate_client.paper.run import PaperRun

_REFRESH_NS = 250_000_000


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--live/--no-live", default=None, help="Show the desk as it trades.  [default: on a terminal]")
def paper(config: Path, live: bool | None) -> None:  # noqa: FBT001 - click's
    """Trade recorded ticks on paper, from feed to portfolio, as CONFIG (a TOML file) says.

    Ticks go to a server and to a venue on paper; what the server approves is executed there and reported back.
    Ends with a report, which is also written to the run's folder as report.json and report.html. A run that was killed
    goes on where it was when it is started again. Exits with 1 unless positions agree at the end.
    """
    try:
        settings = read_config(config)
        with _view(shown=sys.stderr.isatty() if live is None else live) as on_tick:
            result = PaperRun(settings, on_tick).run()
        document = document_of(result)
        write(settings.folder, document)
    except (TickgateError, OSError, ValueError) as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    show(Console(), document)
    if not result.reconciliation.agrees:
        raise click.ClickException(f"positions do not agree: {result.reconciliation.text or 'see the report'}")


@contextmanager
def _view(*, shown: bool) -> Iterator[Callable[[PaperRun], None]]:
    """What to call after each tick: it draws now and then, between two calls, on their thread."""
    if not shown:
        yield lambda _run: None
        return
    with Live(console=Console(stderr=True, force_terminal=True), auto_refresh=False, transient=True) as live:
        due_ns = 0

        def draw(run: PaperRun) -> None:
            nonlocal due_ns
            now_ns = time.perf_counter_ns()
            if now_ns >= due_ns:
                due_ns = now_ns + _REFRESH_NS
                live.update(_picture(run), refresh=True)

        yield draw


def _picture(run: PaperRun) -> Table:
    progress = run.progress
    percentiles = run.monitor.percentiles()
    held = "held" if run.monitor.alarm() else "open"
    table = Table(
        title=Text(
            f"{progress.asked:,} ticks · desk {run.gateway.desk.view.state.value} · risk {held}"
            f" · p50 {percentiles.p50_us:,.0f} µs · p99 {percentiles.p99_us:,.0f} µs"
            f" · orders {sum(progress.ends.values()):,}"
        )
    )
    for at, heading in enumerate(("symbol", "price", "position", "fills", "slippage, bps", "fees", "P&L net")):
        table.add_column(heading, justify="left" if at == 0 else "right")
    for row in symbols_of(run.outbox.account, progress.prices):
        table.add_row(
            Text(row.symbol),
            f"{row.price:,.8g}",
            f"{row.position:.8g}",
            f"{row.fills:,}",
            f"{row.slippage_bps:.3f}",
            f"{row.fees:,.4f}",
            f"{row.net:,.4f}",
        )
    return table
