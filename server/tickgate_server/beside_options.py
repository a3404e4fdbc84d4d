"""The options that every process beside the server takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

JOURNALS = click.option(
    "--journal",
    "journals",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Folder of a journal; several for the workers of one server.",
)
# Seen to before anything else is imported: see each package's `__main__`.
GIVE_WAY = click.option(
    "--give-way", is_flag=True, expose_value=False, help="Run only on a core that nobody else wants."
)


def logging_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`log_format` and `log_level`, as `logs.configure` takes them."""
    for option in (
        click.option(
            "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
        ),
        click.option("--log-format", type=click.Choice(["auto", "json", "console"]), default="auto", show_default=True),
    ):
        command = option(command)
    return command
