"""The verb `fundamentals` of the `tickgate` command."""

from pathlib import Path

import click

from tickgate_server.config import Settings, SettingsInvalid, load
from tickgate_server.features.fundamentals_table import FundamentalsInvalid, FundamentalsTable, parse
from tickgate_server.fundamentals_sources import source_at
from tickgate_server.store.connection import StoreConnection
from tickgate_server.store.errors import StoreError
from tickgate_server.store.fundamentals import pull
from tickgate_server.store.fundamentals import push as push_table
from tickgate_server.store.keys import Keys

_CONFIG = click.option("--config", "file", type=click.Path(path_type=Path), help="Settings, a TOML file.")
_REFUSALS = (SettingsInvalid, FundamentalsInvalid, StoreError, OSError)


@click.group()
def fundamentals() -> None:
    """Share slow values of the symbols with every server, through Redis."""


@fundamentals.command()
@click.argument("source")
@_CONFIG
def push(source: str, file: Path | None) -> None:
    """Write the fundamentals of SOURCE, a file or an address, into the Redis of `[store]`.

    Columns are those of `[fundamentals]`. Servers with `fundamentals.store` take them over within `refresh_s`. What
    SOURCE does not have is removed: it is the whole table.
    """
    try:
        settings = _settings(file)
        found = source_at(source, settings.fundamentals)
        try:
            table = parse(source, found.read())
        finally:
            found.close()
        connection = StoreConnection(settings.store)
        try:
            gone = push_table(connection, Keys(settings.store.prefix), table)
        finally:
            connection.close()
    except _REFUSALS as error:
        raise click.ClickException(str(error)) from error
    removed = f", {gone} symbols removed" if gone else ""
    click.echo(f"Pushed {_described(table)}{removed}.")


@fundamentals.command()
@_CONFIG
def check(file: Path | None) -> None:
    """Read what is in the Redis of `[store]` as a server would; exit status 1 where it would refuse it."""
    try:
        settings = _settings(file)
        connection = StoreConnection(settings.store)
        try:
            table = pull(connection, Keys(settings.store.prefix))
        finally:
            connection.close()
    except _REFUSALS as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{connection.where} has {_described(table)}.")


def _settings(file: Path | None) -> Settings:
    settings, _ = load(file)
    if settings.store.mode == "none":
        raise click.ClickException("expected store.mode and where Redis is, in --config or TICKGATE_STORE__*")
    return settings


def _described(table: FundamentalsTable) -> str:
    values, symbols = table.values.size, len(table.symbols)
    return f"{values} values of {symbols} symbols: {', '.join(table.names)}"
