"""What `python -m tickgate_server.shadow` takes."""

import sys
from pathlib import Path

import click
import structlog

from tickgate_server import logs
from tickgate_server.beside import by_worker, until_let_go
from tickgate_server.beside_options import GIVE_WAY, JOURNALS, logging_options
from tickgate_server.models.shadow_record import shadow_folder
from tickgate_server.shadow.service import ShadowScorer

_LOG = structlog.get_logger()


@click.command()
@JOURNALS
@click.option("--models", type=click.Path(path_type=Path), required=True, help="Model repository.")
@click.option("--retained", type=click.IntRange(min=1), required=True, help="Comparisons to keep of a version.")
@GIVE_WAY
@logging_options
def score(
    journals: tuple[Path, ...],
    models: Path,
    retained: int,
    log_format: str,
    log_level: str,
) -> None:
    """Score with each shadow of a repository what a server's journals recorded, until standard input ends."""
    logs.configure(log_format, log_level)
    end = until_let_go()
    folder = shadow_folder(journals[0], len(journals))
    try:
        ShadowScorer(models, by_worker(journals), folder, retained=retained).run(end)
    except OSError as error:
        _LOG.error("shadow scorer ended", why=str(error))
        sys.exit(1)
