"""What a run gave, as tables for a terminal."""

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tickgate_training.report import paths_sheets, sheets
from tickgate_training.report.document import document
from tickgate_training.report.sheets import Cell, Sheet
from tickgate_training.results import RunResult

TRIALS_SHOWN = 10
_STYLES = {"": "", "good": "green", "bad": "bold red", "faint": "dim"}


def show(result: RunResult, console: Console) -> None:
    """Print the tables of a run."""
    console.print(render(result))


def render(result: RunResult) -> RenderableType:
    """Results beside the baselines, the windows' spread, the best trials, overfitting, the verdict check by check."""
    found = document(result)
    shown = (
        sheets.results(found),
        sheets.spread(found),
        sheets.trials(found, TRIALS_SHOWN),
        sheets.overfitting(found),
        *([] if (paths := paths_sheets.distribution(found)) is None else [paths]),
        sheets.checks(found),
    )
    parts: list[RenderableType] = [table_of(sheet) for sheet in shown]
    if result.published is not None:
        package = result.published
        parts.append(
            Text(
                f"Published {package.folder}: threshold {package.manifest.decision_threshold:.4f}, graph and source "
                f"differ by at most {package.parity_difference:.1e} on {package.parity_rows:,} rows."
            )
        )
    doubts = sheets.suspicions(found)
    if doubts is not None:
        parts.append(table_of(doubts))
    passed = result.verdict.passed
    parts.append(Text(sheets.verdict_sentence(found), style="bold green" if passed else "bold yellow"))
    parts.append(Text(f"{result.rows:,} rows of {sheets.symbols(found)} in {result.seconds:.1f} s."))
    return Group(*parts)


def table_of(sheet: Sheet) -> Table:
    """A sheet for the terminal. Texts are taken as they are: a bracket in a name is no markup."""
    table = Table(title=Text(sheet.title))
    for place, heading in enumerate(sheet.headings):
        table.add_column(Text(heading), justify="left" if place in sheet.words else "right")
    for row in sheet.rows:
        table.add_row(*(_text(cell) for cell in row))
    return table


def _text(cell: Cell) -> Text:
    return Text(f"{cell.text}: {cell.note}" if cell.note else cell.text, style=_STYLES[cell.tone])
