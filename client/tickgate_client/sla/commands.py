"""The verb `tickgate sla`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from tickgate_client.errors import TickgateError
from tickgate_client.sla.judgement import judge_record
from tickgate_client.sla.objectives import Objective, Policy
from tickgate_client.sla.plot import plot_of, write_png
from tickgate_client.sla.record import read_record
from tickgate_client.sla.report import headline, page, show

_OUT = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.group()
def sla() -> None:
    """See what calls did against what was promised."""


@sla.command()
@click.argument("record", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--limit-us", type=float, help="Judge by this limit too: longest round trip of a good call.")
@click.option(
    "--target", type=float, default=99.9, show_default=True, help="With --limit-us: percent of calls that must be good."
)
@click.option("--html", type=_OUT, help="Write a page with the tables and the percentile plot.")
@click.option("--png", type=_OUT, help="Write the percentile plot as a picture; needs matplotlib.")
@click.option("--check", is_flag=True, help="Exit with 1 unless every objective was met over the whole run.")
def report(
    *, record: Path, limit_us: float | None, target: float, html: Path | None, png: Path | None, check: bool
) -> None:
    """Percentiles against the SLA, burn rates, and a percentile plot.

    RECORD is what a client exports (SlaExport), or what `tickgate replay-ticks --sla-log` wrote. A call is good if it
    was answered OK within the limit.
    """
    try:
        found = read_record(record)
        further = [] if limit_us is None else [_asked_for(limit_us, target)]
        objectives = (*found.objectives, *further)
        judged = judge_record(found, further)
        show(Console(), found, judged)
        plot = plot_of(found, objectives)
        if html is not None:
            html.write_text(page(found, judged, plot), encoding="utf-8")
        if png is not None:
            write_png(png, plot, headline(found).partition(";")[0])
    except (TickgateError, OSError, ValueError) as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    if not check:
        return
    if not judged:
        raise click.ClickException("--check: the record has no objective, and --limit-us is not given")
    missed = [one.objective.name for one in judged if one.period == "run" and not one.met]
    if missed:
        raise click.ClickException(f"not met: {', '.join(missed)}")


def _asked_for(limit_us: float, target: float) -> Objective:
    return Objective("--limit-us", limit_us, target / 100, stall_us=limit_us, policy=Policy.CONTINUE, burn_rules=())
