"""What `python -m tickgate_server.archive` takes."""

import json
import sys
from pathlib import Path

import click
import pyarrow as pa
import structlog

from tickgate_server import logs
from tickgate_server.archive.errors import ArchiveError
from tickgate_server.archive.how import ArchiverSettings
from tickgate_server.archive.service import Archiver
from tickgate_server.archive.status import status_folder
from tickgate_server.beside import by_worker, until_let_go
from tickgate_server.beside_options import GIVE_WAY, JOURNALS, logging_options
from tickgate_server.journal.errors import JournalError
from tickgate_server.scheduling import give_way_no_more

_LOG = structlog.get_logger()


@click.command()
@JOURNALS
@click.option("--archive", "folder", type=click.Path(path_type=Path), required=True, help="Folder of the archive.")
@click.option("--settings", default="{}", help="Fields of ArchiverSettings, JSON.")
@GIVE_WAY
@logging_options
def archive_journals(
    journals: tuple[Path, ...],
    folder: Path,
    settings: str,
    log_format: str,
    log_level: str,
) -> None:
    """Archive what a server's journals record as Parquet, until standard input ends."""
    logs.configure(log_format, log_level)
    pa.set_cpu_count(1)  # its pool would take the cores that answers need
    pa.set_io_thread_count(1)
    end = until_let_go(give_way_no_more)
    try:
        Archiver(
            folder,
            by_worker(journals),
            status_folder(journals[0], len(journals)),
            ArchiverSettings(**json.loads(settings)),
        ).run(end)
    except (ArchiveError, JournalError, OSError) as error:
        _LOG.error("archiver ended", why=str(error))
        sys.exit(1)
