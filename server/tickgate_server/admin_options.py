"""The options that say which server a verb speaks to, and how its answers end."""

import functools
import getpass
import itertools
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tickgate_server.config import ADMIN_SOCKET, Settings, SettingsInvalid, load
from tickgate_server.workers import admin_addresses, journal_folder

if TYPE_CHECKING:  # both import gRPC: `tickgate --help` does without
    import grpc

    from tickgate_server.rpc.admin_client import Outcome, Worker

_PEM = click.Path(dir_okay=False, path_type=Path)
_SECONDS = click.FloatRange(min=0.0, min_open=True)
REASON = click.option("--reason", required=True, help="Why; the journal keeps it with the change.")
JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


class Admin:
    """Whom a verb speaks to; what the options say.

    Attributes:
        timeout_s: Longest wait for an answer.
    """

    def __init__(
        self,
        file: Path | None,
        journal: Path | None,
        addresses: Sequence[str],
        timeout_s: float,
        pem: tuple[Path | None, Path | None, Path | None],
    ) -> None:
        self._file = file
        self._journal = journal
        self._addresses = addresses
        self.timeout_s = timeout_s
        self._pem = pem

    @functools.cached_property
    def workers(self) -> "list[Worker]":
        """Of the server, by index."""
        from tickgate_server.rpc.admin_client import Worker  # noqa: PLC0415 - imports gRPC

        found = list(self._addresses) or _configured(self.settings())
        return [Worker(index, address) for index, address in enumerate(found)]

    def settings(self, **overrides: object) -> Settings:
        """Those of the server, as the options say.

        Args:
            overrides: By dotted key.
        """
        journal = {} if self._journal is None else {"journal.folder": str(self._journal)}
        try:
            return load(self._file, {**journal, **overrides})[0]
        except SettingsInvalid as error:
            raise click.ClickException(str(error)) from error

    def credentials(self) -> "grpc.ChannelCredentials | None":
        """What TCP addresses are spoken to with."""
        from tickgate.tls import read_credentials  # noqa: PLC0415 - imports gRPC

        try:
            return read_credentials(*self._pem)
        except (OSError, ValueError) as error:
            raise click.ClickException(str(error)) from error

    def answered(self, outcomes: "Sequence[Outcome[Any]]") -> "list[tuple[Worker, Any]]":
        """The answers; each worker that failed is named on standard error."""
        for outcome in outcomes:
            if outcome.error:
                click.echo(f"Error: {self.name(outcome.worker)}: {outcome.error}", err=True)
        return [(outcome.worker, outcome.response) for outcome in outcomes if not outcome.error]

    def name(self, worker: "Worker") -> str:
        """A worker, for people."""
        return worker.address if len(self.workers) == 1 else f"worker {worker.index} ({worker.address})"


def _configured(settings: Settings) -> list[str]:
    """Where a server with these settings has its admin listeners.

    How many workers a server was started with is not always in the settings: sockets in the journal's folder that
    somebody listens on say it as well.
    """
    found = admin_addresses(settings)
    if not all(found):
        raise click.ClickException(
            "these settings have no admin listener: server.admin_listen or journal.folder is none; --admin names one"
        )
    folder = settings.journal.folder
    if settings.server.workers == 1 and settings.server.admin_listen == "" and folder is not None:
        indices = itertools.takewhile(lambda i: (journal_folder(folder, i) / ADMIN_SOCKET).exists(), itertools.count())
        workers = [f"unix:{(journal_folder(folder, i) / ADMIN_SOCKET).absolute()}" for i in indices]
        if any(map(_listens, workers)):
            found = workers
    return [address.replace("0.0.0.0:", "127.0.0.1:") for address in found]


def _listens(address: str) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(address.removeprefix("unix:"))
        except OSError:
            return False
    return True


def with_admin(command: Callable[..., None], timeout_s: float = 5.0) -> Callable[..., None]:
    """The options that say whom to speak to; the command gets an `Admin` first.

    Args:
        command: Of click.
        timeout_s: How long it waits if nobody says how long.
    """

    @functools.wraps(command)
    def wrapped(
        *,
        file: Path | None,
        journal: Path | None,
        addresses: tuple[str, ...],
        timeout_s: float,
        tls_ca: Path | None,
        tls_certificate: Path | None,
        tls_key: Path | None,
        **rest: Any,
    ) -> None:
        command(Admin(file, journal, addresses, timeout_s, (tls_ca, tls_certificate, tls_key)), **rest)

    options = (
        click.option("--config", "file", type=click.Path(path_type=Path), help="The server's settings, a TOML file."),
        click.option("--journal", type=click.Path(path_type=Path), help="The server's journal, where its socket is."),
        click.option(
            "--admin",
            "addresses",
            metavar="ADDRESS",
            multiple=True,
            help="Admin listener, unix:/path or host:port; once for each worker, in their order.",
        ),
        click.option(
            "--timeout-s", type=click.FloatRange(min=0.0, min_open=True), default=timeout_s, show_default=True
        ),
        click.option("--tls-ca", type=_PEM, help="For host:port: these PEM certificates signed the server's."),
        click.option("--tls-certificate", type=_PEM, help="For host:port: own certificate."),
        click.option("--tls-key", type=_PEM, help="Its private key."),
    )
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def who() -> str:
    """Who asks: the login and the machine."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, in a container say
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def end(outcomes: "Sequence[Outcome[Any]]") -> None:
    """Exit 1 if any worker failed."""
    sys.exit(1 if any(outcome.error for outcome in outcomes) else 0)
