"""`tickgate models`: versions and aliases, of a running server over its admin listeners, or of a folder of packages."""

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tickgate_server.admin_options import JSON, Admin, end, who, with_admin
from tickgate_server.alias_commands import canary, promote, rollback, shadow
from tickgate_server.model_options import NAME, PATIENT, REASON, REPOSITORY, VERSION, connected, folder_of, opened


@click.group()
def models() -> None:
    """See which model versions serve, load and promote them, and compare them."""


for _command in (promote, rollback, shadow, canary):
    models.add_command(_command)


# -- looking -----------------------------------------------------------------------------------------------------------


@models.command("list")
@click.argument("model", default="")
@REPOSITORY
@JSON
@with_admin
def list_models(admin: Admin, model: str, repository: Path | None, *, as_json: bool) -> None:
    """Show every version with its state and the aliases that mean it, of all workers.

    With --repository no server is asked: every version is checked here as a server would.
    """
    from tickgate_server import model_tables, package_tables  # noqa: PLC0415 - both import gRPC

    if repository is not None:
        with opened(repository) as packages:
            verified = packages.verify(model)
            aliases = packages.all_aliases(verified)
        if as_json:
            click.echo(package_tables.repository_json(verified, aliases))
        else:
            package_tables.show_repository(Console(), verified, aliases)
        return
    with connected(admin) as client:
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
    with connected(admin) as client:
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
@REPOSITORY
@JSON
@with_admin
def verify(admin: Admin, model: str, version: int, repository: Path | None, *, as_json: bool) -> None:
    """Run all checks of loading here, on one VERSION of MODEL, on all of them, or on every model.

    The folder is --repository, or that of the settings; no server is asked or disturbed. Exit 0 if all are fit.
    """
    from tickgate_server import package_tables  # noqa: PLC0415 - imports gRPC

    with opened(folder_of(admin, repository)) as packages:
        found = packages.verify(model, version)
    if as_json:
        click.echo(package_tables.verified_json(found))
    else:
        for one in found:
            package_tables.show_verified(Console(), one)
    sys.exit(1 if any(one.error for one in found) else 0)


@models.command("diff")
@NAME
@click.argument("first", type=click.IntRange(min=1))
@click.argument("second", type=click.IntRange(min=1))
@REPOSITORY
@JSON
@with_admin
def diff(admin: Admin, model: str, first: int, second: int, repository: Path | None, *, as_json: bool) -> None:
    """Compare two versions of MODEL: what their manifests say, their metrics, and their outputs.

    Outputs are those on the golden vectors of both, and on random vectors within their training ranges. The folder is
    --repository, or that of the settings.
    """
    from tickgate_server import package_tables  # noqa: PLC0415 - imports gRPC
    from tickgate_server.models import difference  # noqa: PLC0415 - numba and ONNX Runtime load with it

    with opened(folder_of(admin, repository)) as packages:
        one, two = packages.load(model, first), packages.load(model, second)
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
@NAME
@VERSION
@REASON
@PATIENT
def load(admin: Admin, model: str, version: int, reason: str) -> None:
    """Have every worker check VERSION of MODEL and load it; what requests get stays as it is."""
    with connected(admin) as client:
        outcomes = client.load(model, version, reason, who())
    for worker, response in admin.answered(outcomes):
        facts = response.version.facts
        click.echo(f"{_before(admin, worker)}{model}:{version} is READY, warm-up p99 {facts.warm_up_us_p99:.1f} us")
    end(outcomes)


@models.command("unload")
@NAME
@VERSION
@click.option("--force", is_flag=True, help="Although an alias means it: requests for that find no model then.")
@REASON
@PATIENT
def unload(admin: Admin, model: str, version: int, reason: str, *, force: bool) -> None:
    """Have every worker let go of VERSION of MODEL; requests at work on it finish."""
    with connected(admin) as client:
        outcomes = client.unload(model, version, reason, who(), force=force)
    for worker, _ in admin.answered(outcomes):
        click.echo(f"{_before(admin, worker)}{model}:{version} is unloaded")
    end(outcomes)


def _before(admin: Admin, worker: Any) -> str:
    return "" if len(admin.workers) == 1 else f"worker {worker.index}: "
