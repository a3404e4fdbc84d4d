"""What several of the client's verbs have alike."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from tickgate_client.errors import TickgateError

_PEM = click.Path(dir_okay=False, path_type=Path)


def tls_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a verb `tls_ca`, `tls_certificate` and `tls_key`, for `tickgate.tls.read_credentials`."""
    for option in reversed(
        (
            click.option(
                "--tls-ca", type=_PEM, help="Speak TLS, with a server whose certificate these PEM ones signed."
            ),
            click.option(
                "--tls-certificate", type=_PEM, help="Own certificate, for a server that asks for one (mTLS)."
            ),
            click.option("--tls-key", type=_PEM, help="Its private key."),
        )
    ):
        command = option(command)
    return command


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Say what can go wrong in a line, and exit with 1; readers of other packages raise ValueError for bad files."""
    try:
        yield
    except (TickgateError, OSError, ValueError) as error:
        raise click.ClickException(" ".join(str(error).split())) from error
