"""The server's verbs of the `tickgate` command."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tickgate_server.config import Settings, SettingsInvalid, flatten, load

# gRPC's core then reads sockets on the thread that polls, without a hand-over (see ARCHITECTURE.md, "Microseconds").
_GRPC_EXPERIMENTS = "-event_engine_listener"

_CONFIG = click.option("--config", "file", type=click.Path(path_type=Path), help="Settings, a TOML file.")
_MODELS = click.option("--models", "repository", type=click.Path(path_type=Path), help="Folder of model packages.")


def _load(file: Path | None, overrides: dict[str, Any]) -> tuple[Settings, dict[str, str]]:
    try:
        return load(file, {key: value for key, value in overrides.items() if value is not None})
    except SettingsInvalid as error:
        raise click.ClickException(str(error)) from error


@click.command()
@_CONFIG
@_MODELS
@click.option("--default-model", help="What a request without a model means.")
@click.option("--listen", help="Data listener: host:port or unix:/path; port 0 takes a free one.")
@click.option("--metrics-listen", help="Prometheus endpoint, host:port; '' for none.")
@click.option("--instruments", type=click.Path(path_type=Path), help="Instrument file, TOML or CSV.")
@click.option("--transport", type=click.Choice(["auto", "aio", "queue"]), help="What serves the data listener.")
@click.option("--journal", help="Folder of the journal; 'none' keeps none.")
@click.option("--clock", type=click.Choice(["live", "replay"]), help="replay: time is the ticks' own.")
def serve(
    file: Path | None,
    repository: Path | None,
    default_model: str | None,
    listen: str | None,
    metrics_listen: str | None,
    instruments: Path | None,
    transport: str | None,
    journal: str | None,
    clock: str | None,
) -> None:
    """Serve Predict from a folder of model packages.

    What is not given here comes from TICKGATE_* in the environment, then from --config, then from the defaults:
    `tickgate config` shows all of it. SIGTERM drains: health says NOT_SERVING, requests in flight finish, exit 0.
    """
    started = time.perf_counter()
    overrides = {
        "models.repository": repository,
        "models.default": default_model,
        "server.listen": listen,
        "server.metrics_listen": metrics_listen,
        "instruments.file": instruments,
        "server.transport": transport,
        "journal.folder": journal,
        "clock.mode": clock,
    }
    settings, _ = _load(file, overrides)
    if "grpc" not in sys.modules:  # it reads them when it is imported
        os.environ.setdefault("GRPC_EXPERIMENTS", _GRPC_EXPERIMENTS)
    from tickgate_server import app  # noqa: PLC0415 - imports gRPC: only after its experiments are set
    from tickgate_server.journal.errors import JournalError  # noqa: PLC0415
    from tickgate_server.rpc.listener import CredentialsUnreadable, ListenFailed  # noqa: PLC0415
    from tickgate_server.ticks.instruments import InstrumentFileInvalid  # noqa: PLC0415

    app.configure_logging(settings)
    try:
        app.serve(settings, started)
    except (
        app.RepositoryMissing,
        app.DefaultModelMissing,
        CredentialsUnreadable,
        JournalError,
        ListenFailed,
        InstrumentFileInvalid,
        OSError,
        ValueError,
    ) as error:
        raise click.ClickException(str(error)) from error


@click.command()
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def config(file: Path | None, as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """Show the settings in force, and where each came from."""
    settings, origins = _load(file, {})
    values = flatten(settings)
    if as_json:
        click.echo(
            json.dumps({key: {"value": value, "origin": origins[key]} for key, value in values.items()}, indent=2)
        )
        return
    table = Table("setting", "value", "from")
    for key, value in values.items():
        table.add_row(key, json.dumps(value), origins[key])
    Console().print(table)


@click.command()
@_CONFIG
@click.option("--target", help="host:port or unix:/path; what `serve` would listen on if not given.")
@click.option("--service", default="", help="Name of a service or model; the whole server if not given.")
@click.option("--timeout-s", type=float, default=2.0, show_default=True)
def health(file: Path | None, target: str | None, service: str, timeout_s: float) -> None:
    """Ask a server whether it serves; exit 0 only for SERVING."""
    settings, _ = _load(file, {})
    from tickgate_server.rpc.probe import ProbeFailed, probe  # noqa: PLC0415 - imports gRPC

    # A server that listens on every address is asked on this machine's own.
    asked = target or settings.server.listen.replace("0.0.0.0:", "127.0.0.1:")
    try:
        status = probe(asked, service, timeout_s)
    except ProbeFailed as error:
        raise click.ClickException(str(error)) from error
    click.echo(status)
    sys.exit(0 if status == "SERVING" else 1)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@_MODELS
@_CONFIG
@click.option("--differences", type=click.IntRange(min=1), default=1, show_default=True, help="Most to name.")
def replay(folder: Path, repository: Path | None, file: Path | None, differences: int) -> None:
    """Decide again what a journal recorded, and compare bit for bit.

    FOLDER is the journal. Exit 0 if every decision came out as recorded, 1 if not, or if it cannot be replayed here.
    """
    settings, _ = _load(file, {"models.repository": repository})
    from tickgate_server import replay as replaying  # noqa: PLC0415 - numba and ONNX Runtime load with it
    from tickgate_server.journal.errors import JournalError  # noqa: PLC0415

    try:
        found = replaying.replay(folder, settings.models.repository, keep=differences)
    except (replaying.ReplayRefused, JournalError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"{found.decisions:,} decisions compared, {found.differing:,} differ; {found.applied_only:,} ticks of requests"
        f" without a decision taken in, {found.refused:,} refused requests passed over, {found.starts:,} starts"
    )
    for difference in found.differences:
        click.echo(
            f"record {difference.sequence}, request {difference.request_id!r}: {difference.field} was"
            f" {difference.recorded}, came out as {difference.replayed}"
        )
    sys.exit(1 if found.differing else 0)


@click.group()
def models() -> None:
    """Look at a folder of model packages."""


@models.command("list")
@_MODELS
@_CONFIG
def list_models(repository: Path | None, file: Path | None) -> None:
    """Check every version as the server would, and say which are fit to serve."""
    settings, _ = _load(file, {"models.repository": repository})
    from tickgate_server import app  # noqa: PLC0415 - numba and ONNX Runtime load with it
    from tickgate_server.models.registry import load_repository  # noqa: PLC0415

    if not settings.models.repository.is_dir():
        raise click.ClickException(str(app.RepositoryMissing(settings.models.repository)))
    registry = load_repository(settings.models.repository)
    table = Table("model", "version", "fit", "features", "horizon", "p99 us", "why not")
    for model in registry.models:
        horizon = f"{model.horizon_trades} trade{'s' * (model.horizon_trades > 1)}"
        table.add_row(
            model.name, str(model.version), "yes", model.schema_id, horizon, f"{model.warm_up_us_p99:.1f}", ""
        )
    for refused in registry.refused:
        table.add_row(refused.name, str(refused.version), "no", "", "", "", str(refused.error))
    Console().print(table)
