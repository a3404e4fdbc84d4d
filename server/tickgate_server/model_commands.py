"""`tickgate models`: versions and aliases, of a running server over its admin listeners, or of a folder of packages."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tickgate_server.admin_options import JSON, Admin, end, who, with_admin

if TYPE_CHECKING:  # both import much: `tickgate --help` does without
    from tickgate.v1 import ModelAliases
    from tickgate_server.model_repository import Repository
    from tickgate_server.rpc.admin_client import Outcome
    from tickgate_server.rpc.model_client import ModelClient

# Another change came first; whoever runs this in a script looks again.
LOST = 3
_PATIENT = partial(with_admin, timeout_s=60.0)  # a version that is loaded is checked first
_REASON = click.option("--reason", required=True, help="Why; it is recorded with the change.")
_NAME = click.argument("model")
_VERSION = click.argument("version", type=click.IntRange(min=1))
_EXPECTED = click.option(
    "--expected",
    type=click.IntRange(min=0),
    help="What the alias means now, 0: nothing; looked up if not given.",
)
_REPOSITORY = click.option(
    "--repository",
    "--models",
    "repository",
    type=click.Path(path_type=Path),
    help="Without a server: this folder of model packages.",
)


@click.group()
def models() -> None:
    """See which model versions serve, load and promote them, and compare them."""


@contextmanager
def _client(admin: Admin) -> Iterator["ModelClient"]:
    """Connections to all workers."""
    from tickgate_server.rpc.model_client import ModelClient  # noqa: PLC0415 - imports gRPC

    with ModelClient(admin.workers, admin.credentials(), admin.timeout_s) as client:
        yield client


@contextmanager
def _opened(folder: Path) -> Iterator["Repository"]:
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


def _folder(admin: Admin, repository: Path | None) -> Path:
    """The one that is given, or that of the settings."""
    return repository if repository is not None else admin.settings().models.repository


def _end(outcomes: "list[Outcome[Any]]") -> None:
    """Exit 3 where another change came first, 1 if any worker failed."""
    if any(outcome.code is not None and outcome.code.name == "ABORTED" for outcome in outcomes):
        sys.exit(LOST)
    end(outcomes)


# -- looking -----------------------------------------------------------------------------------------------------------


@models.command("list")
@click.argument("model", default="")
@_REPOSITORY
@JSON
@with_admin
def list_models(admin: Admin, model: str, repository: Path | None, *, as_json: bool) -> None:
    """Show every version with its state and the aliases that mean it, of all workers.

    With --repository no server is asked: every version is checked here as a server would.
    """
    from tickgate_server import model_tables, package_tables  # noqa: PLC0415 - both import gRPC

    if repository is not None:
        with _opened(repository) as opened:
            verified = opened.verify(model)
            aliases = opened.all_aliases(verified)
        if as_json:
            click.echo(package_tables.repository_json(verified, aliases))
        else:
            package_tables.show_repository(Console(), verified, aliases)
        return
    with _client(admin) as client:
        outcomes = client.models(model)
    found = admin.answered(outcomes)
    if as_json:
        click.echo(model_tables.models_json(found))
    elif found:
        model_tables.show_models(Console(), found)
    end(outcomes)


@models.command("watch")
@click.argument("model", default="")
@JSON
@with_admin
def watch_models(admin: Admin, model: str, *, as_json: bool) -> None:
    """Follow versions and aliases: a line for each now, and one for each change. Ctrl-C ends it."""
    from tickgate_server import model_tables  # noqa: PLC0415 - imports gRPC

    several = len(admin.workers) > 1
    with _client(admin) as client:
        try:
            for outcome in client.watch(model):
                for worker, response in admin.answered([outcome]):
                    if as_json:
                        click.echo(model_tables.watch_json(worker, response))
                        continue
                    for line in model_tables.watch_lines(worker, response, several=several):
                        click.echo(line)
        except KeyboardInterrupt:
            return
    sys.exit(1)  # every watch has ended by itself


@models.command("verify")
@click.argument("model", default="")
@click.argument("version", type=click.IntRange(min=0), default=0)
@_REPOSITORY
@JSON
@with_admin
def verify(admin: Admin, model: str, version: int, repository: Path | None, *, as_json: bool) -> None:
    """Run all checks of loading here, on one VERSION of MODEL, on all of them, or on every model.

    The folder is --repository, or that of the settings; no server is asked or disturbed. Exit 0 if all are fit.
    """
    from tickgate_server import package_tables  # noqa: PLC0415 - imports gRPC

    with _opened(_folder(admin, repository)) as opened:
        found = opened.verify(model, version)
    if as_json:
        click.echo(package_tables.verified_json(found))
    else:
        for one in found:
            package_tables.show_verified(Console(), one)
    sys.exit(1 if any(one.error for one in found) else 0)


@models.command("diff")
@_NAME
@click.argument("first", type=click.IntRange(min=1))
@click.argument("second", type=click.IntRange(min=1))
@_REPOSITORY
@JSON
@with_admin
def diff(admin: Admin, model: str, first: int, second: int, repository: Path | None, *, as_json: bool) -> None:
    """Compare two versions of MODEL: what their manifests say, their metrics, and their outputs.

    Outputs are those on the golden vectors of both, and on random vectors within their training ranges. The folder is
    --repository, or that of the settings.
    """
    from tickgate_server import package_tables  # noqa: PLC0415 - imports gRPC
    from tickgate_server.models import difference  # noqa: PLC0415 - numba and ONNX Runtime load with it

    with _opened(_folder(admin, repository)) as opened:
        one, two = opened.load(model, first), opened.load(model, second)
    facts = difference.facts(one.manifest, two.manifest)
    outputs, why_not = [], ""
    try:
        outputs = difference.outputs(one, two)
    except difference.FeaturesDiffer as error:
        why_not = str(error)
    if as_json:
        click.echo(package_tables.difference_json(model, (first, second), facts, outputs, why_not))
    else:
        package_tables.show_difference(Console(), model, (first, second), facts, outputs, why_not)


# -- versions ----------------------------------------------------------------------------------------------------------


@models.command("load")
@_NAME
@_VERSION
@_REASON
@_PATIENT
def load(admin: Admin, model: str, version: int, reason: str) -> None:
    """Have every worker check VERSION of MODEL and load it; what requests get stays as it is."""
    with _client(admin) as client:
        outcomes = client.load(model, version, reason, who())
    for worker, response in admin.answered(outcomes):
        facts = response.version.facts
        click.echo(f"{_before(admin, worker)}{model}:{version} is READY, warm-up p99 {facts.warm_up_us_p99:.1f} us")
    end(outcomes)


@models.command("unload")
@_NAME
@_VERSION
@click.option("--force", is_flag=True, help="Although an alias means it: requests for that find no model then.")
@_REASON
@_PATIENT
def unload(admin: Admin, model: str, version: int, reason: str, *, force: bool) -> None:
    """Have every worker let go of VERSION of MODEL; requests at work on it finish."""
    with _client(admin) as client:
        outcomes = client.unload(model, version, reason, who(), force=force)
    for worker, _ in admin.answered(outcomes):
        click.echo(f"{_before(admin, worker)}{model}:{version} is unloaded")
    end(outcomes)


def _before(admin: Admin, worker: Any) -> str:
    return "" if len(admin.workers) == 1 else f"worker {worker.index}: "


# -- aliases -----------------------------------------------------------------------------------------------------------


@models.command("promote")
@_NAME
@_VERSION
@click.option("--override", default="", metavar="REASON", help="Promote it although a rule refuses; recorded.")
@_EXPECTED
@_REPOSITORY
@JSON
@_REASON
@_PATIENT
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
        with _opened(repository) as opened:
            changed = opened.promote(
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
    with _client(admin) as client:
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


@models.command("rollback")
@_NAME
@_EXPECTED
@_REPOSITORY
@JSON
@_REASON
@_PATIENT
def rollback(
    admin: Admin, model: str, expected: int | None, repository: Path | None, reason: str, *, as_json: bool
) -> None:
    """Have production of MODEL mean the version that it meant before; no rule holds this up."""
    from tickgate_server import model_tables  # noqa: PLC0415 - imports gRPC

    if repository is not None:
        with _opened(repository) as opened:
            changed = opened.roll_back(model, expected=expected, reason=reason, who=who())
        _told(model_tables.aliases_of(model, changed.aliases), [], as_json=as_json)
        return
    with _client(admin) as client:
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


_VERSION_OR_NONE = click.argument("version", callback=_version_or_none, metavar="VERSION|none")


@models.command("shadow")
@_NAME
@_VERSION_OR_NONE
@_EXPECTED
@JSON
@_REASON
@_PATIENT
def shadow(admin: Admin, model: str, version: int, expected: int | None, reason: str, *, as_json: bool) -> None:
    """Have VERSION of MODEL score what production answers, without answering; `none` ends it."""
    with _client(admin) as client:
        _change(
            admin,
            client,
            model,
            "shadow",
            expected,
            lambda worker, now: client.set_shadow(worker, model, version, now, reason, who()),
            as_json=as_json,
        )


@models.command("canary")
@_NAME
@_VERSION_OR_NONE
@click.option("--share-percent", type=click.FloatRange(0.0, 100.0), default=0.0, help="Of the symbols, over 0 to 100.")
@_EXPECTED
@JSON
@_REASON
@_PATIENT
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
    with _client(admin) as client:
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
