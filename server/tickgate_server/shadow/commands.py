"""What `python -m tickgate_server.shadow` takes."""

import sys
from pathlib import Path

import click
import structlog

from tickgate_server import logs
from tickgate_server.beside import by_worker, until_let_go
from tickgate_server.models.shadow_record import shadow_folder
from tickgate_server.shadow.service import ShadowScorer

_LOG = structlog.get_logger()


@click.command()
@click.option(
    "--journal",
    "journals",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Folder of a journal; several for the workers of one server.",
)
@click.option("--models", type=click.Path(path_type=Path), required=True, help="Model repository.")
@click.option("--retained", type=click.IntRange(min=1), required=True, help="Comparisons to keep of a version.")
@click.option("--give-way", is_flag=True, help="Run only on a core that nobody else wants.")
@click.option("--log-format", type=click.Choice(["auto", "json", "console"]), default="auto", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def score(
    journals: tuple[Path, ...],
    models: Path,
    retained: int,
    give_way: bool,  # noqa: FBT001 - click's flag
    log_format: str,
    log_level: str,
) -> None:
    """Score with each shadow of a repository what a server's journals recorded, until standard input ends."""
    del give_way  # done by now: see `__main__`
    logs.configure(log_format, log_level)
    end = until_let_go()
    folder = shadow_folder(journals[0], len(journals))
    try:
        ShadowScorer(models, by_worker(journals), folder, retained=retained).run(end)
    except OSError as error:
        _LOG.error("shadow scorer ended", why=str(error))
        sys.exit(1)
