"""The `explain` verb of the `tickgate` command."""

from pathlib import Path

import click
from rich.console import Console

from tickgate_server.archive.commands import open_log
from tickgate_server.archive.errors import ArchiveError
from tickgate_server.config import SettingsInvalid, load
from tickgate_server.explaining.errors import ExplainError
from tickgate_server.journal.errors import JournalError


@click.command()
@click.argument("request_id")
@click.option("--sequence", type=click.IntRange(min=1), help="Of its record, where several requests had that id.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page that needs nothing else.")
@click.option("--models", "repository", type=click.Path(path_type=Path), help="Folder of model packages.")
@click.option("--archive", "folder", type=click.Path(path_type=Path), help="Folder; `archive.folder` else.")
@click.option(
    "--journal", "journals", multiple=True, type=click.Path(path_type=Path), help="Folder; `journal.folder` else."
)
@click.option("--config", "file", type=click.Path(path_type=Path), help="Settings, a TOML file.")
def explain(
    request_id: str,
    sequence: int | None,
    html: Path | None,
    repository: Path | None,
    folder: Path | None,
    journals: tuple[Path, ...],
    file: Path | None,
) -> None:
    """Explain one decision: its tick, features, prediction and why, checks and limits, timings.

    It is looked for in the archive and in the live journal. Features come with their percentile among the training
    rows, and for tree models with what each added; that takes the model's package in the repository.
    """
    log = open_log(folder, journals, file)
    try:
        settings, _ = load(file)
    except SettingsInvalid as error:
        raise click.ClickException(str(error)) from error
    from tickgate_server.explaining import explanation, page, text  # noqa: PLC0415 - numba and DuckDB load with it

    try:
        found = explanation.explain(log, repository or settings.models.repository, request_id, sequence)
        if html is not None:
            html.write_text(page.page(found), encoding="utf-8")
    except (ExplainError, ArchiveError, JournalError, OSError) as error:
        raise click.ClickException(str(error)) from error
    text.show(Console(), found)
