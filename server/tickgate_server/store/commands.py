"""`tickgate store`: how the store fares, and running it by hand."""

import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from threading import Event

import click
from rich.console import Console
from rich.table import Table

from tickgate_server.config import Settings, SettingsInvalid, load
from tickgate_server.logs import configure_logging
from tickgate_server.store_status import StoreStatus, read_status

_CONFIG = click.option("--config", "file", type=click.Path(path_type=Path), help="Settings, a TOML file.")
_JOURNAL = click.option("--journal", help="Folder of the journal.")


@click.group()
def store() -> None:
    """Level 2 of the feature store, in Redis: its status, and running its process by hand."""


@store.command()
@_CONFIG
@_JOURNAL
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(file: Path | None, journal: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """Show what the store's process last said of itself; exit 0 only if it is alive and connected."""
    settings = _settings(file, journal)
    found = None if settings.journal.folder is None else read_status(settings.journal.folder)
    if found is None:
        raise click.ClickException(f"{settings.journal.folder}: no store was kept beside this journal")
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        click.echo(found.text(time.time_ns()))
        Console().print(_table(found))
    sys.exit(0 if found.connected and found.fresh(time.time_ns()) else 1)


@store.command()
@_CONFIG
@_JOURNAL
def run(file: Path | None, journal: str | None) -> None:
    """Keep the store as a journal says, until SIGTERM; for a server whose settings have none."""
    settings = _settings(file, journal)
    folder = settings.journal.folder
    if settings.store.mode == "none" or folder is None:
        raise click.ClickException("store.mode: expected standalone, sentinel or cluster, got none")
    configure_logging(settings)
    from tickgate_server.journal.errors import JournalError  # noqa: PLC0415 - numba loads with it
    from tickgate_server.store.errors import StoreError  # noqa: PLC0415
    from tickgate_server.store.service import StoreService  # noqa: PLC0415 - redis too

    end = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    workers = settings.server.workers
    journals = {"": folder}
    if workers > 1:
        names = [f"worker-{index}" for index in range(workers)]  # as `workers.journal_folder`
        journals = {name: folder / name for name in names}
    try:
        StoreService(settings.store, journals, folder, settings.models.repository).run(end)
    except (StoreError, JournalError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error


@click.command("export-features")
@click.argument("symbols", nargs=-1)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File: .arrow or .parquet.")
@click.option("--features", default="micro10", show_default=True, help="Feature set, by its name.")
@click.option("--session-gap-s", type=click.FloatRange(min=0.0), default=300.0, show_default=True, help="Of the set.")
@click.option("--package", type=click.Path(exists=True, file_okay=False, path_type=Path), help="In place of both: the "
              "folder of a model's version, whose feature set it is; for sets with fundamentals.")  # fmt: skip
@click.option("--newest", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="Most a symbol.")
@click.option("--all", "every", is_flag=True, help="Every symbol that a server has written a state of.")
@_CONFIG
def export_features(
    symbols: tuple[str, ...],
    out: Path,
    features: str,
    session_gap_s: float,
    package: Path | None,
    newest: int,
    file: Path | None,
    *,
    every: bool,
) -> None:
    """Write the newest vectors of SYMBOLS from Redis to an Arrow or Parquet file.

    Values that are no whole vectors are left out and counted. Exit status 1 where there was nothing to write.
    """
    if bool(symbols) == every:
        raise click.UsageError("expected SYMBOLS, or --all")
    settings = _settings(file, None)
    if settings.store.mode == "none":
        raise click.ClickException("store.mode: expected standalone, sentinel or cluster, got none")
    from tickgate_server.features.schema import FeatureSetUnknown  # noqa: PLC0415
    from tickgate_server.models.errors import ModelError  # noqa: PLC0415
    from tickgate_server.store.errors import StoreError  # noqa: PLC0415
    from tickgate_server.store.feature_sets import feature_set_of, named  # noqa: PLC0415
    from tickgate_server.store.reading import FeatureStore, export  # noqa: PLC0415 - Arrow and redis

    try:
        chosen = named(features, session_gap_s) if package is None else feature_set_of(package)
        with FeatureStore(settings.store, chosen) as store:
            written = export(store, store.symbols() if every else symbols, newest, out)
    except (ModelError, FeatureSetUnknown, StoreError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    for one in store.first_refused:
        click.echo(f"refused: {one}", err=True)
    refused = "".join(f", {count:,} refused ({reason})" for reason, count in sorted(store.refused.items()))
    click.echo(f"Wrote {written:,} vectors of {chosen.name} to {out}{refused}, {store.expired:,} expired.")
    sys.exit(0 if written else 1)


def _settings(file: Path | None, journal: str | None) -> Settings:
    try:
        settings, _ = load(file, {} if journal is None else {"journal.folder": journal})
    except SettingsInvalid as error:
        raise click.ClickException(str(error)) from error
    return settings


def _table(found: StoreStatus) -> Table:
    table = Table("what", "is")
    for name in ("written_vectors", "written_states", "written_bytes", "queue", "dirty", "dropped", "conflated"):
        table.add_row(name, f"{getattr(found, name):,}")
    for name, counts in (("errors", found.errors), ("refused", found.refused)):
        for kind, count in sorted(counts.items()):
            table.add_row(f"{name}: {kind}", f"{count:,}")
    for name, said in found.warm_start.items():
        table.add_row(f"warm start: {name}", str(said))
    for name, position in found.positions.items():
        state = f"record {position.position:,}, {position.behind_records:,} behind, {position.lag_s:.2f} s"
        table.add_row(f"journal {name}", state if position.followed else f"{state}; not known: {position.why}")
    return table
