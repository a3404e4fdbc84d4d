"""The desk's verbs of the `tickgate` command: trading state, portfolio, limits, over the admin listeners."""

import functools
import getpass
import itertools
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tickgate.symbol_hash import worker_of
from tickgate_server.config import ADMIN_SOCKET, SettingsInvalid, load
from tickgate_server.risk_check_command import check
from tickgate_server.workers import admin_addresses, journal_folder

if TYPE_CHECKING:  # both import gRPC: `tickgate --help` does without
    from tickgate_server.rpc.desk_client import DeskClient, Outcome, Worker

_PEM = click.Path(dir_okay=False, path_type=Path)
_REASON = click.option("--reason", required=True, help="Why; the journal keeps it with the change.")
_JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


class Admin:
    """Whom a verb speaks to; what the options say.

    Attributes:
        workers: Of the server, by index.
    """

    def __init__(
        self,
        file: Path | None,
        journal: Path | None,
        addresses: Sequence[str],
        timeout_s: float,
        pem: tuple[Path | None, Path | None, Path | None],
    ) -> None:
        from tickgate_server.rpc.desk_client import Worker  # noqa: PLC0415 - imports gRPC

        found = list(addresses) or _configured(file, journal)
        self.workers = [Worker(index, address) for index, address in enumerate(found)]
        self._timeout_s = timeout_s
        self._pem = pem

    @contextmanager
    def client(self) -> Iterator["DeskClient"]:
        """Connections to all of them."""
        from tickgate.tls import read_credentials  # noqa: PLC0415 - imports gRPC
        from tickgate_server.rpc.desk_client import DeskClient  # noqa: PLC0415 - the same

        try:
            credentials = read_credentials(*self._pem)
        except (OSError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        with DeskClient(self.workers, credentials, self._timeout_s) as client:
            yield client

    def answered(self, outcomes: "Sequence[Outcome[Any]]") -> "list[tuple[Worker, Any]]":
        """The answers; each worker that failed is named on standard error."""
        for outcome in outcomes:
            if outcome.error:
                click.echo(f"Error: {self.name(outcome.worker)}: {outcome.error}", err=True)
        return [(outcome.worker, outcome.response) for outcome in outcomes if not outcome.error]

    def name(self, worker: "Worker") -> str:
        """A worker, for people."""
        return worker.address if len(self.workers) == 1 else f"worker {worker.index} ({worker.address})"


def _configured(file: Path | None, journal: Path | None) -> list[str]:
    """Where a server with these settings has its admin listeners.

    How many workers a server was started with is not always in the settings: sockets in the journal's folder that
    somebody listens on say it as well.
    """
    try:
        settings, _ = load(file, {} if journal is None else {"journal.folder": str(journal)})
    except SettingsInvalid as error:
        raise click.ClickException(str(error)) from error
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


def _admin(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say whom to speak to; the command gets an `Admin` first."""

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
        click.option("--timeout-s", type=click.FloatRange(min=0.0, min_open=True), default=5.0, show_default=True),
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


def _end(outcomes: "Sequence[Outcome[Any]]") -> None:
    """Exit 1 if any worker failed."""
    sys.exit(1 if any(outcome.error for outcome in outcomes) else 0)


# -- trading state -----------------------------------------------------------------------------------------------------


def _set_state(admin: Admin, state: str, reason: str) -> None:
    from tickgate.v1 import TradingState  # noqa: PLC0415 - imports gRPC
    from tickgate_server import desk_tables  # noqa: PLC0415 - the same

    with admin.client() as client:
        outcomes = client.set_state(TradingState.Value(f"TRADING_STATE_{state}"), reason, who())
    for worker, response in admin.answered(outcomes):
        before = "" if len(admin.workers) == 1 else f"worker {worker.index}: "
        click.echo(f"{before}{desk_tables.state_line(response.desk)}")
    _end(outcomes)


@click.command()
@_REASON
@_admin
def halt(admin: Admin, reason: str) -> None:
    """Kill switch: let no order pass, and have clients cancel their working ones."""
    _set_state(admin, "HALTED", reason)


@click.command()
@_REASON
@_admin
def reduce(admin: Admin, reason: str) -> None:
    """Let only orders pass that reduce a position."""
    _set_state(admin, "REDUCING", reason)


@click.command()
@_REASON
@_admin
def resume(admin: Admin, reason: str) -> None:
    """Trade again; this also confirms the portfolio as the server has it."""
    _set_state(admin, "ACTIVE", reason)


# -- portfolio ---------------------------------------------------------------------------------------------------------


@click.group()
def portfolio() -> None:
    """See what is held, open and lost, and correct it."""


@portfolio.command("show")
@_JSON
@_admin
def show_portfolio(admin: Admin, *, as_json: bool) -> None:
    """Show positions, open orders, exposure and P&L, of all workers."""
    from tickgate_server import desk_tables  # noqa: PLC0415 - imports gRPC

    with admin.client() as client:
        outcomes = client.portfolios()
    found = [(worker, response.portfolio) for worker, response in admin.answered(outcomes)]
    if as_json:
        click.echo(desk_tables.portfolios_json(found))
    elif found:
        desk_tables.show_portfolios(Console(), found)
    _end(outcomes)


@portfolio.command("watch")
@_JSON
@_admin
def watch_portfolio(admin: Admin, *, as_json: bool) -> None:
    """Follow the portfolio: a line now, and one after it changed. Ctrl-C ends it."""
    from tickgate_server import desk_tables  # noqa: PLC0415 - imports gRPC

    with admin.client() as client:
        try:
            for outcome in client.watch():
                for worker, response in admin.answered([outcome]):
                    line = desk_tables.portfolio_json if as_json else desk_tables.portfolio_line
                    click.echo(line(worker, response.portfolio))
        except KeyboardInterrupt:
            return
    sys.exit(1)  # every watch has ended by itself


@portfolio.command("set", context_settings={"ignore_unknown_options": True})  # a size may be negative
@click.argument("symbol")
@click.argument("size", type=float)
@click.argument("cost", type=float)
@_REASON
@_admin
def set_position(admin: Admin, symbol: str, size: float, cost: float, reason: str) -> None:
    """State a position: SIZE units of SYMBOL, negative for short, at an average COST a unit.

    It replaces what was filled; open orders stay.
    """
    from tickgate.v1 import PositionSet  # noqa: PLC0415 - imports gRPC

    worker = admin.workers[worker_of(symbol, len(admin.workers))]
    with admin.client() as client:
        position = PositionSet(symbol=symbol, size=size, average_cost=cost)
        outcomes = client.set_position(worker, position, reason, who())
    for _ in admin.answered(outcomes):
        click.echo(f"{symbol}: {size:,.10g} at {cost:,.10g}")
    _end(outcomes)


# -- limits ------------------------------------------------------------------------------------------------------------


@click.group()
def risk() -> None:
    """See the limits in force, and have changed ones take effect."""


risk.add_command(check)


@risk.command("show")
@_JSON
@_admin
def show_risk(admin: Admin, *, as_json: bool) -> None:
    """Show the trading state and every limit in force, each worker's slice of it, and what is used."""
    from tickgate_server import desk_tables  # noqa: PLC0415 - imports gRPC

    with admin.client() as client:
        outcomes = client.limits()
        limits = admin.answered(outcomes)
        portfolios = client.portfolios()
    used = {worker: response.portfolio for worker, response in admin.answered(portfolios)}
    found = [(worker, response, used[worker]) for worker, response in limits if worker in used]
    if as_json:
        click.echo(desk_tables.limits_json(found))
    elif found:
        desk_tables.show_limits(Console(), found)
    _end([*outcomes, *portfolios])


@risk.command("reload")
@_REASON
@_admin
def reload_risk(admin: Admin, reason: str) -> None:
    """Have the server read its limits file again."""
    with admin.client() as client:
        outcomes = client.reload_limits(reason, who())
    for worker, response in admin.answered(outcomes):
        before = "" if len(admin.workers) == 1 else f"worker {worker.index}: "
        for line in response.changes or ["nothing changed"]:
            click.echo(f"{before}{line}")
    _end(outcomes)


@risk.command("reopen")
@click.argument("model")
@click.argument("version", type=click.IntRange(min=1))
@_REASON
@_admin
def reopen_model(admin: Admin, model: str, version: int, reason: str) -> None:
    """Open VERSION of MODEL again, which its health checks had marked degraded; they begin anew."""
    with admin.client() as client:
        outcomes = client.reopen(model, version, reason, who())
    for worker, _ in admin.answered(outcomes):
        before = "" if len(admin.workers) == 1 else f"worker {worker.index}: "
        click.echo(f"{before}{model}:{version} is open")
    _end(outcomes)
