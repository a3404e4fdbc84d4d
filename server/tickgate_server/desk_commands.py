"""The desk's verbs of the `tickgate` command: trading state, portfolio, limits, over the admin listeners."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console

from tickgate.symbol_hash import worker_of
from tickgate_server.admin_options import JSON, REASON, Admin, end, who, with_admin
from tickgate_server.risk_check_command import check

if TYPE_CHECKING:  # it imports gRPC: `tickgate --help` does without
    from tickgate_server.rpc.desk_client import DeskClient


@contextmanager
def _client(admin: Admin) -> Iterator["DeskClient"]:
    """Connections to all workers."""
    from tickgate_server.rpc.desk_client import DeskClient  # noqa: PLC0415 - imports gRPC

    with DeskClient(admin.workers, admin.credentials(), admin.timeout_s) as client:
        yield client


# -- trading state -----------------------------------------------------------------------------------------------------


def _set_state(admin: Admin, state: str, reason: str) -> None:
    from tickgate.v1 import TradingState  # noqa: PLC0415 - imports gRPC
    from tickgate_server import desk_tables  # noqa: PLC0415 - the same

    with _client(admin) as client:
        outcomes = client.set_state(TradingState.Value(f"TRADING_STATE_{state}"), reason, who())
    for worker, response in admin.answered(outcomes):
        before = "" if len(admin.workers) == 1 else f"worker {worker.index}: "
        click.echo(f"{before}{desk_tables.state_line(response.desk)}")
    end(outcomes)


@click.command()
@REASON
@with_admin
def halt(admin: Admin, reason: str) -> None:
    """Kill switch: let no order pass, and have clients cancel their working ones."""
    _set_state(admin, "HALTED", reason)


@click.command()
@REASON
@with_admin
def reduce(admin: Admin, reason: str) -> None:
    """Let only orders pass that reduce a position."""
    _set_state(admin, "REDUCING", reason)


@click.command()
@REASON
@with_admin
def resume(admin: Admin, reason: str) -> None:
    """Trade again; this also confirms the portfolio as the server has it."""
    _set_state(admin, "ACTIVE", reason)


# -- portfolio ---------------------------------------------------------------------------------------------------------


@click.group()
def portfolio() -> None:
    """See what is held, open and lost, and correct it."""


@portfolio.command("show")
@JSON
@with_admin
def show_portfolio(admin: Admin, *, as_json: bool) -> None:
    """Show positions, open orders, exposure and P&L, of all workers."""
    from tickgate_server import desk_tables  # noqa: PLC0415 - imports gRPC

    with _client(admin) as client:
        outcomes = client.portfolios()
    found = [(worker, response.portfolio) for worker, response in admin.answered(outcomes)]
    if as_json:
        click.echo(desk_tables.portfolios_json(found))
    elif found:
        desk_tables.show_portfolios(Console(), found)
    end(outcomes)


@portfolio.command("watch")
@JSON
@with_admin
def watch_portfolio(admin: Admin, *, as_json: bool) -> None:
    """Follow the portfolio: a line now, and one after it changed. Ctrl-C ends it."""
    from tickgate_server import desk_tables  # noqa: PLC0415 - imports gRPC

    with _client(admin) as client:
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
@REASON
@with_admin
def set_position(admin: Admin, symbol: str, size: float, cost: float, reason: str) -> None:
    """State a position: SIZE units of SYMBOL, negative for short, at an average COST a unit.

    It replaces what was filled; open orders stay.
    """
    from tickgate.v1 import PositionSet  # noqa: PLC0415 - imports gRPC

    worker = admin.workers[worker_of(symbol, len(admin.workers))]
    with _client(admin) as client:
        position = PositionSet(symbol=symbol, size=size, average_cost=cost)
        outcomes = client.set_position(worker, position, reason, who())
    for _ in admin.answered(outcomes):
        click.echo(f"{symbol}: {size:,.10g} at {cost:,.10g}")
    end(outcomes)


# -- limits ------------------------------------------------------------------------------------------------------------


@click.group()
def risk() -> None:
    """See the limits in force, and have changed ones take effect."""


risk.add_command(check)


@risk.command("show")
@JSON
@with_admin
def show_risk(admin: Admin, *, as_json: bool) -> None:
    """Show the trading state and every limit in force, each worker's slice of it, and what is used."""
    from tickgate_server import desk_tables  # noqa: PLC0415 - imports gRPC

    with _client(admin) as client:
        outcomes = client.limits()
        limits = admin.answered(outcomes)
        portfolios = client.portfolios()
    used = {worker: response.portfolio for worker, response in admin.answered(portfolios)}
    found = [(worker, response, used[worker]) for worker, response in limits if worker in used]
    if as_json:
        click.echo(desk_tables.limits_json(found))
    elif found:
        desk_tables.show_limits(Console(), found)
    end([*outcomes, *portfolios])


@risk.command("reload")
@REASON
@with_admin
def reload_risk(admin: Admin, reason: str) -> None:
    """Have the server read its limits file again."""
    with _client(admin) as client:
        outcomes = client.reload_limits(reason, who())
    for worker, response in admin.answered(outcomes):
        before = "" if len(admin.workers) == 1 else f"worker {worker.index}: "
        for line in response.changes or ["nothing changed"]:
            click.echo(f"{before}{line}")
    end(outcomes)


@risk.command("reopen")
@click.argument("model")
@click.argument("version", type=click.IntRange(min=1))
@REASON
@with_admin
def reopen_model(admin: Admin, model: str, version: int, reason: str) -> None:
    """Open VERSION of MODEL again, which its health checks had marked degraded; they begin anew."""
    with _client(admin) as client:
        outcomes = client.reopen(model, version, reason, who())
    for worker, _ in admin.answered(outcomes):
        before = "" if len(admin.workers) == 1 else f"worker {worker.index}: "
        click.echo(f"{before}{model}:{version} is open")
    end(outcomes)
