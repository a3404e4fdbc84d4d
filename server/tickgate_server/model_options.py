"""What the verbs of `tickgate models` share: their options, connections to a server, a folder of packages."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tickgate_server.admin_options import Admin, with_admin

if TYPE_CHECKING:  # both import much: `tickgate --help` does without
    from tickgate_server.model_repository import Repository
    from tickgate_server.rpc.model_client import ModelClient

# Another change came first; whoever runs this in a script looks again.
LOST = 3
PATIENT = partial(with_admin, timeout_s=60.0)  # a version that is loaded is checked first
REASON = click.option("--reason", required=True, help="Why; it is recorded with the change.")
NAME = click.argument("model")
VERSION = click.argument("version", type=click.IntRange(min=1))
EXPECTED = click.option(
    "--expected",
    type=click.IntRange(min=0),
    help="What the alias means now, 0: nothing; looked up if not given.",
)
REPOSITORY = click.option(
    "--repository",
    "--models",
    "repository",
    type=click.Path(path_type=Path),
    help="Without a server: this folder of model packages.",
)


@contextmanager
def connected(admin: Admin) -> Iterator["ModelClient"]:
    """Connections to all workers."""
    from tickgate_server.rpc.model_client import ModelClient  # noqa: PLC0415 - imports gRPC

    with ModelClient(admin.workers, admin.credentials(), admin.timeout_s) as client:
        yield client


@contextmanager
def opened(folder: Path) -> Iterator["Repository"]:
    """A folder of packages; what goes wrong with it is an error in one line."""
    from tickgate_server.errors import RequestError  # noqa: PLC0415
    from tickgate_server.model_repository import Repository  # noqa: PLC0415 - numba and ONNX Runtime load with it
    from tickgate_server.models.errors import AliasConflict, ModelError  # noqa: PLC0415

    if not folder.is_dir():
        raise click.ClickException(f"models.repository: expected a folder of model packages, got {str(folder)!r}")
    try:
        yield Repository(folder)
    except AliasConflict as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(LOST)
    except (ModelError, RequestError, OSError) as error:
        raise click.ClickException(str(error)) from error


def folder_of(admin: Admin, repository: Path | None) -> Path:
    """The one that is given, or that of the settings."""
    return repository if repository is not None else admin.settings().models.repository
