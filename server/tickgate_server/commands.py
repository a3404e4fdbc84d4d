"""The server's verbs of the `tickgate` command."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tickgate_server.config import Settings, SettingsInvalid, flatten, load, worker_address
from tickgate_server.logs import configure_logging
from tickgate_server.observer.address import MetricsAddressTaken, split_address
from tickgate_server.observer.process import ObserverNotStarted
from tickgate_server.scheduling import RealtimeRefused
from tickgate_server.store_status import read_status
from tickgate_server.worker_link import SupervisorGone, WorkerLink
from tickgate_server.workers import supervise

# gRPC's core then reads sockets on the thread that polls, without a hand-over (see ARCHITECTURE.md, "Microseconds").
_GRPC_EXPERIMENTS = "-event_engine_listener"

_CONFIG = click.option("--config", "file", type=click.Path(path_type=Path), help="Settings, a TOML file.")
_PEM = click.Path(dir_okay=False, path_type=Path)
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
@click.option("--service-listen", help="Service listener, for reports and watching, as --listen; '' for none.")
@click.option("--admin-listen", help="Admin listener: unix:/path (mode 0600), host:port with mTLS, or none.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes, each with its own listener and symbols.")
@click.option("--metrics-listen", help="Prometheus endpoint, host:port; '' for none.")
@click.option("--instruments", type=click.Path(path_type=Path), help="Instrument file, TOML or CSV.")
@click.option("--transport", type=click.Choice(["auto", "aio", "queue"]), help="What serves the data listener.")
@click.option("--journal", help="Folder of the journal; 'none' keeps none.")
@click.option("--clock", type=click.Choice(["live", "replay"]), help="replay: time is the ticks' own.")
@click.option("--worker-link", type=int, hidden=True, help="Where one of several workers is told what to serve.")
def serve(
    file: Path | None,
    repository: Path | None,
    default_model: str | None,
    listen: str | None,
    service_listen: str | None,
    admin_listen: str | None,
    workers: int | None,
    metrics_listen: str | None,
    instruments: Path | None,
    transport: str | None,
    journal: str | None,
    clock: str | None,
    worker_link: int | None,
) -> None:
    """Serve Predict from a folder of model packages.

    What is not given here comes from TICKGATE_* in the environment, then from --config, then from the defaults:
    `tickgate config` shows all of it. SIGTERM drains: health says NOT_SERVING, requests in flight finish, exit 0.

    With --workers each process takes the next ports (or /path.0, /path.1 of a Unix socket), a folder of the journal,
    and a share of the symbols; TopologyService says which, and the client's Routed clients ask it.
    """
    started = time.perf_counter()
    overrides = {
        "models.repository": repository,
        "models.default": default_model,
        "server.listen": listen,
        "server.service_listen": service_listen,
        "server.admin_listen": admin_listen,
        "server.workers": workers,
        "server.metrics_listen": metrics_listen,
        "instruments.file": instruments,
        "server.transport": transport,
        "journal.folder": journal,
        "clock.mode": clock,
    }
    link = None
    if worker_link is None:
        settings, origins = _load(file, overrides)
        _require_journal_for_metrics(settings, origins)
    else:
        try:
            link = WorkerLink(worker_link)
        except (SupervisorGone, OSError) as error:
            raise click.ClickException(str(error)) from error
        settings = Settings(**link.settings)
    configure_logging(settings)
    if settings.server.workers > 1:
        try:
            sys.exit(supervise(settings))
        except (ObserverNotStarted, OSError, ValueError) as error:
            raise click.ClickException(str(error)) from error
    if "grpc" not in sys.modules:  # it reads them when it is imported
        os.environ.setdefault("GRPC_EXPERIMENTS", _GRPC_EXPERIMENTS)
    from tickgate_server import app  # noqa: PLC0415 - imports gRPC: only after its experiments are set
    from tickgate_server.control_block import ControlBlockLocked  # noqa: PLC0415 - numba loads with it
    from tickgate_server.features.fundamentals_table import FundamentalsInvalid  # noqa: PLC0415
    from tickgate_server.journal.errors import JournalError  # noqa: PLC0415
    from tickgate_server.rpc.listener import CredentialsUnreadable, ListenFailed  # noqa: PLC0415
    from tickgate_server.ticks.instruments import InstrumentFileInvalid  # noqa: PLC0415

    try:
        app.serve(settings, started, link)
    except (
        app.RepositoryMissing,
        app.DefaultModelMissing,
        CredentialsUnreadable,
        JournalError,
        ListenFailed,
        RealtimeRefused,
        ControlBlockLocked,
        MetricsAddressTaken,
        ObserverNotStarted,
        InstrumentFileInvalid,
        FundamentalsInvalid,
        SupervisorGone,
        OSError,
        ValueError,
    ) as error:
        raise click.ClickException(str(error)) from error


def _require_journal_for_metrics(settings: Settings, origins: Mapping[str, str]) -> None:
    """Refuse an endpoint that was asked for and cannot be: whoever scrapes it would find nobody, and not know why."""
    listen, key = settings.server.metrics_listen, "server.metrics_listen"
    if not listen or origins[key] == "default":
        return
    try:
        split_address(listen)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if settings.journal.folder is None or settings.observer.mode == "none":
        which = "journal.folder" if settings.journal.folder is None else "observer.mode"
        raise click.ClickException(
            f"{key}: metrics come from the journal by way of the observer, and {which} is none; '' asks for no metrics"
        )


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
@click.option("--tls-ca", type=_PEM, help="Speak TLS, with a server whose certificate these PEM ones signed.")
@click.option("--tls-certificate", type=_PEM, help="Own certificate, for a server that asks for one (mTLS).")
@click.option("--tls-key", type=_PEM, help="Its private key.")
def health(
    file: Path | None,
    target: str | None,
    service: str,
    timeout_s: float,
    tls_ca: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
) -> None:
    """Ask a server whether it serves; exit 0 only for SERVING.

    Without --target each of its workers is asked, and the answer is SERVING only if all of them say so; a second line
    says how its store fares, where the settings have one: a server serves as well without it.
    """
    settings, _ = _load(file, {})
    from tickgate.tls import read_credentials  # noqa: PLC0415 - imports gRPC
    from tickgate_server.rpc.probe import ProbeFailed, probe  # noqa: PLC0415 - the same

    section = settings.server
    listening = [section.listen]
    if section.workers > 1:
        listening = [worker_address(section.listen, index) for index in range(section.workers)]
    # A server that listens on every address is asked on this machine's own.
    asked = [target] if target else [address.replace("0.0.0.0:", "127.0.0.1:") for address in listening]
    try:
        credentials = read_credentials(tls_ca, tls_certificate, tls_key)
        statuses = [probe(one, service, timeout_s, credentials) for one in asked]
    except (ProbeFailed, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    status = next((status for status in statuses if status != "SERVING"), "SERVING")
    click.echo(status)
    if target is None and settings.store.mode != "none" and settings.journal.folder is not None:
        store = read_status(settings.journal.folder)
        click.echo("store: no word yet" if store is None else store.text(time.time_ns()))
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
        f"{found.decisions:,} decisions and {found.ticks:,} published ticks compared, {found.differing:,} differ;"
        f" {found.applied_only:,} ticks of requests"
        f" without a decision taken in, {found.refused:,} refused requests passed over, {found.starts:,} starts"
    )
    for difference in found.differences:
        click.echo(
            f"record {difference.sequence}, request {difference.request_id!r}: {difference.field} was"
            f" {difference.recorded}, came out as {difference.replayed}"
        )
    sys.exit(1 if found.differing else 0)


if __name__ == "__main__":  # how a supervisor starts its workers
    serve()
