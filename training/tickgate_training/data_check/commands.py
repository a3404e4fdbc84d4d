"""The verb `check-data` of the `tickgate` command."""

import json
import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tickgate_server.ticks.instruments import InstrumentFileInvalid, Universe, read_instruments
from tickgate_training.data.rule_loop import Limits
from tickgate_training.data_check import sheets
from tickgate_training.data_check.check import CAPACITY, FORMATS, Terms, check
from tickgate_training.errors import TrainingError
from tickgate_training.report.tables import table_of

_NS_PER_S, _NS_PER_MS = 1_000_000_000, 1_000_000
_DEFAULTS = Limits()


@click.command("check-data")
@click.argument("file")
@click.option("--format", "kind", type=click.Choice(list(FORMATS)), default="csv", show_default=True, help="Of FILE.")
@click.option("--instruments", type=click.Path(path_type=Path), help="Instruments with their calendars, TOML or CSV.")
@click.option("--closed", is_flag=True, help="Only the instruments are let in: others are UNKNOWN_SYMBOL.")
@click.option("--capacity", type=click.IntRange(1, 65_536), default=CAPACITY, show_default=True, help="Most symbols.")
@click.option("--session-gap-s", type=click.FloatRange(min=0.0), help="Silence that is a gap: 300, of daily 0 (none).")
@click.option("--price-jump-sigmas", type=click.FloatRange(min=0.0), default=_DEFAULTS.jump_sigmas, show_default=True)
@click.option("--price-jump-least", type=click.FloatRange(0, 1), default=_DEFAULTS.jump_least, show_default=True)
@click.option("--future-limit-s", type=click.FloatRange(min=0.0), default=1.0, show_default=True, help="FROM_FUTURE.")
@click.option("--stale-limit-s", type=click.FloatRange(min=0.0), default=5.0, show_default=True, help="STALE.")
@click.option("--clock-offset-ms", type=float, help="Added to arrival stamps; found if not given, 0 is as they are.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as a page.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check_data(
    file: str,
    kind: str,
    instruments: Path | None,
    capacity: int,
    session_gap_s: float | None,
    price_jump_sigmas: float,
    price_jump_least: float,
    future_limit_s: float,
    stale_limit_s: float,
    clock_offset_ms: float | None,
    html: Path | None,
    *,
    closed: bool,
    as_json: bool,
) -> None:
    """Hold a recorded file to the server's rules: rows by reason, gaps, price jumps, spreads.

    FILE is a file of ticks, or with `--format daily` a set of daily bars (sp500, nasdaq:2003-2007). Rows that cannot be
    read are counted and named. Exit status 1 where the file cannot be read at all.
    """
    limits = Limits(
        future_ns=round(future_limit_s * _NS_PER_S),
        stale_ns=round(stale_limit_s * _NS_PER_S),
        jump_sigmas=price_jump_sigmas,
        jump_least=price_jump_least,
    )
    try:
        listed = {} if instruments is None else read_instruments(instruments)
        if len(listed) > capacity:
            raise click.BadParameter(f"{instruments} has {len(listed)}, and --capacity is {capacity}")
        terms = Terms(
            universe=Universe(listed, closed=closed),
            capacity=capacity,
            limits=limits,
            session_gap_ns=None if session_gap_s is None else round(session_gap_s * _NS_PER_S),
            offset_ns=None if clock_offset_ms is None else round(clock_offset_ms * _NS_PER_MS),
        )
        found = check(file, kind, terms)
        if html is not None:
            _write_page(found, html)
    except (TrainingError, InstrumentFileInvalid, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False))
    else:
        _show(found)
        if html is not None:
            click.echo(f"Report: {html}")


def _write_page(document: dict[str, Any], path: Path) -> None:
    from tickgate_training.data_check import page  # noqa: PLC0415 - it brings matplotlib

    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_text(page.render(document), encoding="utf-8")
    unfinished.rename(path)


def _show(document: dict[str, Any]) -> None:
    console = Console()
    shown = (
        sheets.facts(document),
        sheets.reasons(document),
        sheets.quality(document),
        sheets.few(document, sheets.SYMBOLS_SHOWN),
        sheets.reasons_of_symbols(document, sheets.SYMBOLS_SHOWN),
        sheets.sessions(document),
        sheets.silences(document),
        sheets.jumps(document),
        sheets.number_gaps(document),
        sheets.examples(document),
    )
    for sheet in shown:
        if sheet is not None:
            console.print(table_of(sheet))
    console.print(sheets.headline(document), style="bold green" if sheets.clean(document) else "bold yellow")
