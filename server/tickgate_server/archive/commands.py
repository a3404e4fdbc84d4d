"""The `archive` and `query` verbs of the `tickgate` command."""

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from tickgate_server import logs
from tickgate_server.archive.errors import ArchiveBusy, ArchiveError
from tickgate_server.archive.manifest import Manifest, read_manifest
from tickgate_server.archive.process import how
from tickgate_server.archive.status import read_status, status_folder
from tickgate_server.config import Settings, SettingsInvalid, load
from tickgate_server.journal.errors import JournalError

if TYPE_CHECKING:
    from tickgate_server.archive.query import DecisionLog

_CONFIG = click.option("--config", "file", type=click.Path(path_type=Path), help="Settings, a TOML file.")
_ARCHIVE = click.option("--archive", "folder", type=click.Path(path_type=Path), help="Folder; `archive.folder` else.")
_JOURNAL = click.option(
    "--journal",
    "journals",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of a journal, or of the workers' journals; `journal.folder` else.",
)
_FORMATS = ("table", "csv", "json", "parquet")
# A status is written every second: an archiver that has said nothing for so long does not run.
_SILENT_S = 10.0


@click.group()
def archive() -> None:
    """Keep the decision log: journals as Parquet files, by day and model."""


@archive.command()
@_ARCHIVE
@_JOURNAL
@_CONFIG
@click.option("--follow", is_flag=True, help="Go on until interrupted.")
def run(folder: Path | None, journals: tuple[Path, ...], file: Path | None, follow: bool) -> None:  # noqa: FBT001 - click's flag
    """Archive what is in the journals now; a server with `archive.folder` set has it done as it runs."""
    settings = _settings(file)
    from tickgate_server.archive.query import journals_by_worker  # noqa: PLC0415 - Arrow and DuckDB load with it
    from tickgate_server.archive.service import Archiver  # noqa: PLC0415 - the same
    from tickgate_server.archive.store import ArchiveStore  # noqa: PLC0415 - the same

    logs.configure(settings.log.format, settings.log.level)
    target = folder or settings.archive.folder
    if target is None:
        raise click.ClickException("archive.folder is none: --archive says where the log is kept")
    end = threading.Event()
    if not follow:
        end.set()
    try:
        by_worker = journals_by_worker(list(journals) or _journals_of(settings))
        with suppress(KeyboardInterrupt):
            ArchiveStore(target).close()  # said at once, where another one has it
            Archiver(target, by_worker, _status_of(list(by_worker.values())), how(settings)).run(end)
    except ArchiveBusy as error:
        raise click.ClickException(f"{error}: the server's own, most likely") from error
    except (ArchiveError, JournalError, OSError) as error:
        raise click.ClickException(str(error)) from error
    manifest = read_manifest(target)
    click.echo(f"{manifest.rows_of('decisions'):,} decisions in {target}")


@archive.command()
@_ARCHIVE
@_JOURNAL
@_CONFIG
def status(folder: Path | None, journals: tuple[Path, ...], file: Path | None) -> None:
    """Show what is archived, and how far the archiver is. Exit 1 where it does not run, or records are lost."""
    settings = _settings(file)
    target = folder or settings.archive.folder
    if target is None:
        raise click.ClickException("archive.folder is none: --archive says where the log is kept")
    folders = list(journals) or _journals_of(settings)
    try:
        manifest = read_manifest(target)
        said = read_status(_status_of(folders)) if folders else None
    except (ArchiveError, JournalError) as error:
        raise click.ClickException(str(error)) from error
    Console().print(_contents(manifest))
    healthy = said is not None and time.time_ns() - said.updated_ns < _SILENT_S * 1e9
    click.echo("archiver: " + (f"running, process {said.pid}" if healthy and said else "not running"))
    for worker, position in manifest.positions.items():
        live = said.workers.get(worker) if said is not None else None
        waiting = f", {live.waiting_rows:,} rows wait, {live.lag_records:,} records not read" if live else ""
        lost = max(position.lost, live.lost if live else 0)
        click.echo(f"{worker or 'journal'}: archived to record {position.next_sequence - 1:,}{waiting}, {lost:,} lost")
        healthy &= not lost
    if said is not None and said.failures:
        click.echo(f"{said.failures:,} failures, the last: {said.last_failure}")
    sys.exit(0 if healthy else 1)


@archive.command()
@click.option("--to", "target", required=True, help="The database: questdb:http://host:9000.")
@_JOURNAL
@_CONFIG
@click.option("--follow", is_flag=True, help="Go on until interrupted.")
def forward(target: str, journals: tuple[Path, ...], file: Path | None, follow: bool) -> None:  # noqa: FBT001 - click's flag
    """Send what is journaled to a time-series database, each record once; its position is kept beside the journal."""
    settings = _settings(file)
    from tickgate_server.archive.query import journals_by_worker  # noqa: PLC0415 - Arrow and DuckDB load with it
    from tickgate_server.archive.questdb import QuestDb  # noqa: PLC0415 - httpx loads with it
    from tickgate_server.archive.sink import Forwarder  # noqa: PLC0415 - Arrow loads with it

    logs.configure(settings.log.format, settings.log.level)
    kind, _, url = target.partition(":")
    if kind != "questdb" or not url.startswith(("http://", "https://")):
        raise click.ClickException(f"--to: expected questdb:http://host:port, got {target!r}")
    end = threading.Event()
    if not follow:
        end.set()
    try:
        by_worker = journals_by_worker(list(journals) or _journals_of(settings))
        forwarder = Forwarder(
            QuestDb(url), by_worker, _status_of(list(by_worker.values())), with_ticks=settings.archive.ticks
        )
        with suppress(KeyboardInterrupt):
            forwarder.run(end)
    except (ArchiveError, JournalError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{forwarder.forwarded.rows:,} rows sent in all")


@click.command()
@click.argument("sql")
@click.option("--format", "form", type=click.Choice(_FORMATS), default="table", show_default=True)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="File; standard output if not given.")
@click.option("--rows", type=click.IntRange(min=1), default=40, show_default=True, help="Most that a table shows.")
@click.option("--memory-mb", type=click.IntRange(min=64), default=2048, show_default=True, help="DuckDB's limit.")
@_ARCHIVE
@_JOURNAL
@_CONFIG
def query(
    sql: str,
    form: str,
    output: Path | None,
    rows: int,
    memory_mb: int,
    folder: Path | None,
    journals: tuple[Path, ...],
    file: Path | None,
) -> None:
    """Ask the decision log: one SELECT over Parquet and the live journal at once.

    Views: decisions, events, fills, orders, trading_states, unsent, ticks; their columns: docs/query.md. Nothing is
    written, and nothing but the log is read. `--archive none` and `--journal none` leave one of them out.
    """
    log = open_log(folder, journals, file, memory_mb)
    from tickgate_server.archive.output import write  # noqa: PLC0415 - Arrow and DuckDB load with it

    try:
        write(log, sql, form, output, rows)
    except (ArchiveError, JournalError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if log.lost:
        click.echo(f"{log.lost:,} records of the journal could not be read", err=True)


def open_log(
    folder: Path | None, journals: tuple[Path, ...], file: Path | None, memory_mb: int = 2048
) -> "DecisionLog":
    """The log that options and settings name.

    Raises:
        ClickException: They name none, or a journal that is not there.
    """
    settings = _settings(file)
    logs.configure(settings.log.format, "warning")
    from tickgate_server.archive.query import DecisionLog, journals_by_worker  # noqa: PLC0415 - Arrow and DuckDB

    target = folder or settings.archive.folder
    if target is not None and str(target) == "none":
        target = None
    asked = [journal for journal in journals if str(journal) != "none"]
    found = asked if journals else [journal for journal in _journals_of(settings) if journal.is_dir()]
    if target is None and not found:
        raise click.ClickException("expected an archive or a journal: --archive, --journal, or the settings' folders")
    try:
        return DecisionLog(target, journals_by_worker(found) if found else {}, memory_limit_mb=memory_mb)
    except JournalError as error:
        raise click.ClickException(str(error)) from error


def _settings(file: Path | None) -> Settings:
    try:
        return load(file)[0]
    except SettingsInvalid as error:
        raise click.ClickException(str(error)) from error


def _journals_of(settings: Settings) -> list[Path]:
    """The server's journal, or the folder that its workers' lie in."""
    return [] if settings.journal.folder is None else [settings.journal.folder]


def _status_of(folders: list[Path]) -> Path:
    """Where the status lies: beside one journal, or in the folder of the workers'."""
    return status_folder(folders[0], len(folders))


def _contents(manifest: Manifest) -> Table:
    table = Table("table", "rows", "files", "bytes", "bytes a row", "first day", "last day")
    for name in ("decisions", "events", "ticks"):
        files = [file for file in manifest.files if file.table == name]
        size, count = sum(file.size_bytes for file in files), manifest.rows_of(name)
        days = sorted(file.date for file in files) or ["-"]
        each = f"{size / count:.0f}" if count else "-"
        table.add_row(name, f"{count:,}", f"{len(files):,}", f"{size:,}", each, days[0], days[-1])
    return table
