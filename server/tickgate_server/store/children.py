"""What `python -m tickgate_server.store` takes: settings come by standard input, for a password is among them."""

import os
import sys
from pathlib import Path

import click
import structlog

from tickgate_server import logs
from tickgate_server.beside import by_worker, until_let_go
from tickgate_server.beside_options import GIVE_WAY, JOURNALS, logging_options
from tickgate_server.journal.errors import JournalError
from tickgate_server.store.errors import StoreError
from tickgate_server.store.service import StoreService
from tickgate_server.store_settings import StoreSettings

_LOG = structlog.get_logger()


@click.command()
@JOURNALS
@click.option("--models", type=click.Path(path_type=Path), required=True, help="Model repository.")
@GIVE_WAY
@logging_options
def child(
    journals: tuple[Path, ...],
    models: Path,
    log_format: str,
    log_level: str,
) -> None:
    """Keep Redis as a server's journals say, until standard input ends; its first line is the settings, as JSON."""
    logs.configure(log_format, log_level)
    settings = StoreSettings.model_validate_json(_line())
    end = until_let_go()
    folder = journals[0].parent if len(journals) > 1 else journals[0]
    try:
        StoreService(settings, by_worker(journals), folder, models).run(end)
    except (StoreError, JournalError, OSError, RuntimeError) as error:
        _LOG.error("store's process ended", why=str(error))
        sys.exit(1)


def _line() -> bytes:
    """The first line of standard input, and no byte beyond it."""
    found = b""
    while not found.endswith(b"\n"):
        piece = os.read(0, 65_536)
        if not piece:
            break
        found += piece
    return found
