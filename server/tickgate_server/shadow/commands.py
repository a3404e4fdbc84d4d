"""What `python -m tickgate_server.shadow` takes."""

import os
import signal
import sys
import threading
from pathlib import Path

import click
import structlog

from tickgate_server import logs
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
    for number in (signal.SIGTERM, signal.SIGINT):  # what stops a group of processes is for the server
        signal.signal(number, signal.SIG_IGN)
    end = threading.Event()
    threading.Thread(target=_watch, args=[end], name="end", daemon=True).start()
    several = len(journals) > 1
    folder = shadow_folder(journals[0], len(journals))
    by_worker = {journal.name if several else "": journal for journal in journals}
    try:
        ShadowScorer(models, by_worker, folder, retained=retained).run(end)
    except OSError as error:
        _LOG.error("shadow scorer ended", why=str(error))
        sys.exit(1)


def _watch(end: threading.Event) -> None:
    """Set the event when the server let go of its end of the pipe; it never writes to it."""
    os.read(0, 1)
    end.set()
