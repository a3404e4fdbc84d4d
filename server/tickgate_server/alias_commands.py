"""`tickgate models promote|rollback|shadow|canary`: what the aliases of a model mean."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tickgate_server.admin_options import JSON, Admin, end, who
from tickgate_server.model_options import (
    EXPECTED,
    LOST,
    NAME,
    PATIENT,
    REASON,
    REPOSITORY,
    VERSION,
    connected,
    opened,
)

if TYPE_CHECKING:  # they import gRPC: `tickgate --help` does without
    from tickgate.v1 import ModelAliases
    from tickgate_server.rpc.admin_client import Outcome
    from tickgate_server.rpc.model_client import ModelClient


@click.command("promote")
@NAME
@VERSION
@click.option("--override", default="", metavar="REASON", help="Promote it although a rule refuses; recorded.")
@EXPECTED
@REPOSITORY
@JSON
@REASON
@PATIENT
def promote(
    admin: Admin,
    model: str,
    version: int,
    override: str,
    expected: int | None,
    repository: Path | None,
    reason: str,
    *,
    as_json: bool,
) -> None:
    """Have production of MODEL mean VERSION, if it passes the rules of promotion.

    The rules are training's verdict in the package and what the version has shown as a shadow. Exit 1 where they
    refuse, 3 where another change came first.
    """
    from tickgate_server import model_tables  # noqa: PLC0415 - imports gRPC

    if repository is not None:
        settings = admin.settings()
        with opened(repository) as packages:
            changed = packages.promote(
                model,
                version,
                expected=expected,
                reason=reason,
                who=who(),
                override=override,
                journal=settings.journal.folder,
                limits=settings.promotion,
            )
        rules = model_tables.rules_of(changed.rules)
        message = model_tables.aliases_of(model, changed.aliases)
        _told(message, rules, as_json=as_json)
        return
    with connected(admin) as client:
        if len(admin.workers) > 1:  # each has it before any follows the alias to it
            loaded = client.load(model, version, reason, who())
            if any(outcome.error for outcome in loaded):
                admin.answered(loaded)
                end(loaded)
        _change(
            admin,
            client,
            model,
            "production",
            expected,
            lambda worker, now: client.promote(worker, model, version, now, reason, who(), override),
            as_json=as_json,
        )


@click.command("rollback")
@NAME
@EXPECTED
@REPOSITORY
@JSON
@REASON
@PATIENT
def rollback(
    admin: Admin, model: str, expected: int | None, repository: Path | None, reason: str, *, as_json: bool
) -> None:
    """Have production of MODEL mean the version that it meant before; no rule holds this up."""
    from tickgate_server import model_tables  # noqa: PLC0415 - imports gRPC

    if repository is not None:
        with opened(repository) as packages:
            changed = packages.roll_back(model, expected=expected, reason=reason, who=who())
        _told(model_tables.aliases_of(model, changed.aliases), [], as_json=as_json)
        return
    with connected(admin) as client:
        _change(
            admin,
            client,
            model,
            "production",
            expected,
            lambda worker, now: client.roll_back(worker, model, now, reason, who()),
            as_json=as_json,
        )


def _version_or_none(context: click.Context, parameter: click.Parameter, value: str) -> int:
    del context
    if value == "none":
        return 0
    return int(click.IntRange(min=1)(value, parameter))


VERSION_OR_NONE = click.argument("version", callback=_version_or_none, metavar="VERSION|none")


@click.command("shadow")
@NAME
@VERSION_OR_NONE
@EXPECTED
@JSON
@REASON
@PATIENT
def shadow(admin: Admin, model: str, version: int, expected: int | None, reason: str, *, as_json: bool) -> None:
    """Have VERSION of MODEL score what production answers, without answering; `none` ends it."""
    with connected(admin) as client:
        _change(
            admin,
            client,
            model,
            "shadow",
            expected,
            lambda worker, now: client.set_shadow(worker, model, version, now, reason, who()),
            as_json=as_json,
        )


@click.command("canary")
@NAME
@VERSION_OR_NONE
@click.option("--share-percent", type=click.FloatRange(0.0, 100.0), default=0.0, help="Of the symbols, over 0 to 100.")
@EXPECTED
@JSON
@REASON
@PATIENT
def canary(
    admin: Admin,
    model: str,
    version: int,
    share_percent: float,
    expected: int | None,
    reason: str,
    *,
    as_json: bool,
) -> None:
    """Have VERSION of MODEL answer for a share of the symbols; `none` ends it."""
    with connected(admin) as client:
        _change(
            admin,
            client,
            model,
            "canary",
            expected,
            lambda worker, now: client.set_canary(worker, model, version, now, share_percent, reason, who()),
            as_json=as_json,
        )


def _change(
    admin: Admin,
    client: "ModelClient",
    model: str,
    alias: str,
    expected: int | None,
    change: "Callable[[Any, int], Outcome[Any]]",
    *,
    as_json: bool,
) -> None:
    """Change an alias at the first worker that answers, and see the others follow."""
    outcomes = client.models(model)
    known = admin.answered(outcomes)
    if not known:
        end(outcomes)
    worker, response = known[0]
    (aliases,) = response.aliases
    outcome = change(worker, getattr(aliases, alias) if expected is None else expected)
    for _, made in admin.answered([outcome]):
        _told(made.aliases, list(getattr(made, "rules", ())), as_json=as_json)
        followed = client.follow(model, made.aliases.revision)
        behind = [one for one in followed if not client.has(one, made.aliases.revision)]
        for one in behind:
            why = one.error or "it has not followed yet"
            click.echo(f"Error: {admin.name(one.worker)}: {why}", err=True)
        sys.exit(1 if behind else 0)
    _end([outcome])


def _told(aliases: "ModelAliases", rules: list[Any], *, as_json: bool) -> None:
    from tickgate_server import model_tables  # noqa: PLC0415 - imports gRPC

    if as_json:
        click.echo(json.dumps(model_tables.changed_tree(aliases, rules), indent=2))
        return
    if aliases.changes:
        click.echo(f"{aliases.name}: {model_tables.change_text(aliases.changes[-1])}")
    if rules:
        model_tables.show_rules(Console(), rules)


def _end(outcomes: "list[Outcome[Any]]") -> None:
    """Exit 3 where another change came first, 1 if any worker failed."""
    if any(outcome.code is not None and outcome.code.name == "ABORTED" for outcome in outcomes):
        sys.exit(LOST)
    end(outcomes)
