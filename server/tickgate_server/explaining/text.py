"""An explanation for the terminal."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from tickgate_server.explaining import facts
from tickgate_server.explaining.explanation import Explanation

_BAR = 24
_COLOURS = {"passes": "green", "fails": "bold red", "off": "dim", "waived": "yellow", "?": "yellow"}


def show(console: Console, found: Explanation) -> None:
    """Print it."""
    for title, pairs in (
        ("Decision", facts.outcome(found)),
        ("Input", facts.given(found)),
        ("Prediction", facts.prediction(found)),
    ):
        console.print(_pairs(title, pairs))
    if found.features:
        console.print(_features(found))
        if method := facts.method(found):
            console.print(method, style="dim")
    if found.checks:
        console.print(_checks(found))
    timings = facts.timings(found)
    if timings:
        table = Table("stage", "us", title="Time", title_justify="left", title_style="bold")
        table.columns[1].justify = "right"
        for name, us in timings:
            table.add_row(name, f"{us:.1f}")
        table.add_row("in all", f"{sum(us for _, us in timings):.1f}", style="bold")
        console.print(table)
    for note in found.notes:
        console.print(f"Note: {note}", style="yellow", markup=False)


def _pairs(title: str, pairs: Iterable[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, value)
    return table


def _features(found: Explanation) -> Table:
    table = Table(title="Features", title_justify="left", title_style="bold")
    table.add_column("feature")
    table.add_column("value", justify="right")
    table.add_column("percentile in training", justify="right")
    largest = max((abs(one.contribution or 0.0) for one in found.features), default=0.0)
    shown = list(found.features)
    if found.contributions is not None:
        table.add_column("contribution", justify="right")
        table.add_column("down / up")
        shown.sort(key=lambda one: -abs(one.contribution or 0.0))
    for one in shown:
        cells = [one.name, facts.number(one.value), facts.percent(one.percentile, outside=one.outside)]
        if one.contribution is not None:
            length = round(_BAR * abs(one.contribution) / largest) if largest else 0
            colour = "green" if one.contribution > 0.0 else "red"
            cells += [f"{one.contribution:+.4f}", f"[{colour}]{'█' * length}[/]"]
        table.add_row(*cells)
    return table


def _checks(found: Explanation) -> Table:
    table = Table(title="Risk checks", title_justify="left", title_style="bold")
    table.add_column("check")
    table.add_column("measured", justify="right")
    table.add_column("")
    table.add_column("limit", justify="right")
    table.add_column("outcome")
    for one in found.checks:
        compares = "at least" if one.at_least else "at most"
        outcome = f"[{_COLOURS[one.outcome]}]{one.outcome}[/]" + (" [bold]← the reason[/]" if one.decisive else "")
        limit = "none" if one.outcome == "off" else facts.number(one.limit)
        table.add_row(one.name, facts.number(one.value), compares, limit, outcome)
    return table
