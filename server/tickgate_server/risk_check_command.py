"""`tickgate risk check`: a dry run of a limits file on recorded journals."""

import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from tickgate_server.config import SettingsInvalid, load

if TYPE_CHECKING:  # numba and ONNX Runtime load with it
    from tickgate_server.risk_check import Change, Outcome, RiskChecked

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("file", metavar="LIMITS.toml", type=_PATH)
@click.option("--journal", "folders", type=_PATH, multiple=True, help="Of a server or a worker; may be given again.")
@click.option("--models", "repository", type=_PATH, help="Folder of model packages.")
@click.option("--config", type=_PATH, help="Settings, a TOML file.")
@click.option(
    "--show", type=click.IntRange(min=0), default=20, show_default=True, help="Most changed decisions to name."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def check(
    file: Path, folders: tuple[Path, ...], repository: Path | None, config: Path | None, show: int, *, as_json: bool
) -> None:
    """Try a limits file on recorded decisions: what would have changed.

    Each decision is judged under the new limits in the book as it was: recorded orders, fills and reservations stay,
    so a difference is the new limits' own and never follows from an earlier one. A wish that was denied again and again
    counts each time.

    Without --journal it is the one of the settings. Nothing is changed, and no server is asked. Exit 1 if the file is
    not valid or a journal cannot be replayed here.
    """
    overrides = {} if repository is None else {"models.repository": repository}
    try:
        settings, _ = load(config, overrides)
    except SettingsInvalid as error:
        raise click.ClickException(str(error)) from error
    if not folders and settings.journal.folder is None:
        raise click.ClickException("these settings keep no journal: --journal names one")
    from tickgate_server import risk_check  # noqa: PLC0415 - numba and ONNX Runtime load with it
    from tickgate_server.journal.errors import JournalError  # noqa: PLC0415 - as above
    from tickgate_server.models.errors import PackageError  # noqa: PLC0415 - as above
    from tickgate_server.replay import ReplayRefused  # noqa: PLC0415 - as above
    from tickgate_server.risk.limits import LimitsFileInvalid, read_limits  # noqa: PLC0415 - as above

    try:
        limits = read_limits(file)
        named = folders or tuple(folder for folder in (settings.journal.folder,) if folder is not None)
        journals = list(dict.fromkeys(journal for folder in named for journal in risk_check.journals_of(folder)))
        found = risk_check.check_limits(limits, journals, settings.models.repository, keep=show)
    except (LimitsFileInvalid, ReplayRefused, PackageError, JournalError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(_tree(found, file, journals, limits.version), indent=2, allow_nan=False))
        return
    _show(Console(), found, several=len(journals) > 1, currency=limits.base_currency)
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)
    sys.exit(0)


def _show(console: Console, found: "RiskChecked", *, several: bool, currency: str) -> None:
    if found.limits:
        click.echo("Limits, as they were in force last -> in the file:")
        for line in found.limits:
            click.echo(f"  {line}")
    else:
        click.echo("The file has the limits that were in force.")
    repriced = f", {found.repriced:,} more at another limit price or validity" if found.repriced else ""
    click.echo(f"{found.decisions:,} decisions judged, {found.changed:,} would have come out otherwise{repriced}.")
    for trip in found.trips:
        where = f" ({trip.journal})" if several else ""
        what = "REDUCING" if trip.reduced else "Not REDUCING, as it was,"
        click.echo(f"{what} from {_time(trip.time_ns)}, record {trip.sequence}{where}: {trip.why}")
    totals = Table("", "then", "now", "difference")
    for column in totals.columns[1:]:
        column.justify = "right"
    orders, notional = found.approved_now - found.approved_then, found.notional_now - found.notional_then
    totals.add_row("approved orders", f"{found.approved_then:,}", f"{found.approved_now:,}", f"{orders:+,}")
    amounts = (f"{found.notional_then:,.2f}", f"{found.notional_now:,.2f}", f"{notional:+,.2f}")
    totals.add_row(f"approved notional {currency}", *amounts)
    console.print(totals)
    if not found.changed:
        return
    counts = Table("reason then", "reason now", "decisions", title="What changed")
    counts.columns[2].justify = "right"
    for (then, now), count in _changed_counts(found):
        counts.add_row(then, now, f"{count:,}")
    console.print(counts)
    if found.changes:
        console.print(_changes(found, several=several))


def _changed_counts(found: "RiskChecked") -> list[tuple[tuple[str, str], int]]:
    """Reasons that became others, the most frequent first; and those in which only the size is another."""
    moved = [(pair, count) for pair, count in found.counts.most_common() if pair[0] != pair[1]]
    resized = found.changed - sum(count for _, count in moved)
    return [*moved, *([(("APPROVED", "APPROVED in another size"), resized)] if resized else [])]


def _changes(found: "RiskChecked", *, several: bool) -> Table:
    title = f"The first {len(found.changes):,} of {found.changed:,}" if len(found.changes) < found.changed else None
    names = ("record", "time", "symbol", "then", "now", "value", "limit")
    table = Table(*names, *(["journal"] if several else []), title=title)
    for name, column in zip(names, table.columns, strict=False):
        if name in ("record", "value", "limit"):
            column.justify = "right"
    for change in found.changes:
        measured = (_number(change.value), _number(change.limit))
        cells = [str(change.sequence), _time(change.time_ns), change.symbol, _said(change.then), _said(change.now)]
        table.add_row(*cells, *measured, *([change.journal] if several else []))
    return table


def _said(outcome: "Outcome") -> str:
    if outcome.action == "HOLD":
        return f"HOLD {outcome.reason}"
    return f"{outcome.action} {_number(outcome.size)}"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:,.8g}"


def _time(since_epoch_ns: int) -> str:
    if not since_epoch_ns:
        return "-"
    seconds, rest = divmod(since_epoch_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest // 1000:06d}"


def _tree(found: "RiskChecked", file: Path, journals: list[Path], version: int) -> dict[str, Any]:
    return {
        "limits_file": str(file),
        "version": version,
        "journals": [str(journal) for journal in journals],
        "limits": found.limits,
        "decisions": found.decisions,
        "changed": found.changed,
        "repriced": found.repriced,
        "approved": {"then": found.approved_then, "now": found.approved_now},
        "approved_notional": {"then": found.notional_then, "now": found.notional_now},
        "counts": [{"then": then, "now": now, "decisions": count} for (then, now), count in found.counts.most_common()],
        "trips": [
            {
                "journal": trip.journal,
                "sequence": trip.sequence,
                "time_ns": trip.time_ns,
                "reduced": trip.reduced,
                "why": trip.why,
            }
            for trip in found.trips
        ],
        "changes": [_change_tree(change) for change in found.changes],
        "notes": found.notes,
    }


def _change_tree(change: "Change") -> dict[str, Any]:
    def outcome(said: "Outcome") -> dict[str, Any]:
        return {"action": said.action, "size": said.size, "reason": said.reason, "notional": _known(said.notional)}

    return {
        "journal": change.journal,
        "sequence": change.sequence,
        "time_ns": change.time_ns,
        "request_id": change.request_id,
        "symbol": change.symbol,
        "then": outcome(change.then),
        "now": outcome(change.now),
        "value": _known(change.value),
        "limit": _known(change.limit),
    }


def _known(value: float) -> float | None:
    """JSON has neither NaN nor infinities."""
    return value if math.isfinite(value) else None
