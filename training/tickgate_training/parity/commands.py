"""The verb `parity` of the `tickgate` command."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tickgate_server.features.fundamentals_file import Columns
from tickgate_server.features.fundamentals_file import read as read_fundamentals
from tickgate_server.features.fundamentals_table import FundamentalsInvalid
from tickgate_server.features.schema import FEATURE_SETS, TICK_SESSION_GAP_NS, FeatureSet, Fundamental, feature_set
from tickgate_server.journal.errors import JournalError
from tickgate_server.models.errors import ModelError
from tickgate_server.models.package import read_manifest, versions
from tickgate_training.errors import TrainingError
from tickgate_training.parity import file_ticks
from tickgate_training.parity.comparing import Compared, Comparison
from tickgate_training.parity.file_ticks import FileTicks
from tickgate_training.parity.served import ServedJournal, journals_in
from tickgate_training.report.wording import count

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--journal", required=True, type=_FOLDER, help="The server's journal, or the folder of its workers'.")
@click.option("--data", required=True, help="The file of the ticks that were served; of `daily` the set's name.")
@click.option("--format", "kind", type=click.Choice(file_ticks.FORMATS), default="csv", show_default=True)
@click.option("--models", type=_FOLDER, help="Repository with the feature sets of models that are not the usual ones.")
@click.option("--fundamentals", type=_FILE, help="File of fundamentals, for feature sets that have some.")
@click.option("--keep", type=click.IntRange(min=1), default=10, show_default=True, help="Most differences to show.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def parity(
    journal: Path, data: str, kind: str, models: Path | None, fundamentals: Path | None, keep: int, *, as_json: bool
) -> None:
    """Compare the features that were served with training's of the same ticks, bit for bit.

    Exit status 1 where a decision differs, or none could be compared.
    """
    try:
        ticks = file_ticks.read(data, kind)
        known = None if fundamentals is None else read_fundamentals(fundamentals, Columns())
        comparison = Comparison(ticks, _feature_sets(models), known, keep)
        lost = 0
        for folder in journals_in(journal):
            served = ServedJournal(folder)
            comparison.take(served.events())
            lost += served.lost
    except (TrainingError, ModelError, JournalError, FundamentalsInvalid, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    found = _document(journal, data, comparison.result, ticks, lost)
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False))
    else:
        _show(found)
    if not comparison.result.holds:
        raise SystemExit(1)


def _feature_sets(models: Path | None) -> dict[str, FeatureSet]:
    """Feature sets by schema id: those without parameters of their own, and those of a repository's models."""
    usual = [make(gap_ns) for make in FEATURE_SETS.values() for gap_ns in (TICK_SESSION_GAP_NS, 0)]
    names = [] if models is None else sorted(path.name for path in models.iterdir() if path.is_dir())
    for name in names:
        for version in versions(models or Path(), name):
            said = read_manifest((models or Path()) / name / str(version)).features
            slow = [Fundamental(one.name, one.maximum_age_ns) for one in said.fundamentals]
            usual.append(feature_set(said.feature_set, said.session_gap_ns, slow))
    return {found.schema_id: found for found in usual}


def _document(journal: Path, data: str, result: Compared, ticks: FileTicks, lost: int) -> dict[str, Any]:
    return {
        "journal": str(journal),
        "data": data,
        "file": {"rows": ticks.rows, "accepted": ticks.accepted, "unreadable": ticks.unreadable},
        "lost_records": lost,
        "decisions": result.decisions,
        "compared": result.compared,
        "equal": result.equal,
        "different": result.different,
        "without": {
            why.name: {"decisions": amount, "why": why.value} for why, amount in sorted(result.without.items())
        },
        "by_field": dict(result.by_field.most_common()),
        "differences": [_finite(asdict(one)) for one in result.differences],
        "holds": result.holds,
    }


def _finite(fields: dict[str, Any]) -> dict[str, Any]:
    """NaN and infinities as text, which JSON can hold."""
    limit = float("inf")
    return {
        name: str(value) if isinstance(value, float) and not -limit < value < limit else value
        for name, value in fields.items()
    }


def _show(found: dict[str, Any]) -> None:
    console = Console()
    table = Table("", "decisions", title=Text(f"{found['journal']} beside {found['data']}"))
    table.columns[1].justify = "right"
    for name in ("decisions", "compared", "equal", "different"):
        table.add_row(name, Text(count(found[name]), style="bold red" if name == "different" and found[name] else ""))
    for one in found["without"].values():
        table.add_row(Text(f"not compared: {one['why']}"), count(one["decisions"]))
    console.print(table)
    if found["differences"]:
        first = Table("record", "symbol", "sequence", "line", "field", "served", "training", title="First differences")
        for one in found["differences"]:
            cells = [one["record"], one["symbol"], one["sequence"], one["line"], one["field"]]
            first.add_row(*(Text(str(cell)) for cell in cells), _exact(one["served"]), _exact(one["training"]))
        console.print(first)
    if found["lost_records"]:
        console.print(f"{count(found['lost_records'])} records of the journal are lost: what they decided is not here.")
    said = "Training and serving agree." if found["holds"] else "Training and serving are not shown to agree."
    console.print(said, style="bold green" if found["holds"] else "bold red")


def _exact(value: float | str) -> Text:
    return Text(value if isinstance(value, str) else repr(value))
