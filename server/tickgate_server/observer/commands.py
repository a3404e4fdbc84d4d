"""The `observe` verb of the `tickgate` command, which is also what a server starts as its observer."""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TypeVar

import click
import structlog
from pydantic import BaseModel, ValidationError

from tickgate_server import logs
from tickgate_server.alert_settings import AlertSettings
from tickgate_server.beside_options import JOURNALS, logging_options
from tickgate_server.control_block import FILE_NAME, ControlBlockLocked
from tickgate_server.journal.errors import JournalError
from tickgate_server.observer.address import MetricsAddressTaken
from tickgate_server.observer.health import HealthStateInvalid
from tickgate_server.observer.service import Observer
from tickgate_server.risk.estimates import RiskValueSettings
from tickgate_server.risk.hidden_markov import HiddenMarkovInvalid

# How long the observer of a server that was killed may take to let go of port and control block.
_PATIENCE_S = 2.0

_LOG = structlog.get_logger()
Section = TypeVar("Section", bound=BaseModel)


@click.command()
@JOURNALS
@click.option("--metrics-listen", default="127.0.0.1:9464", show_default=True, help="host:port; '' for none.")
@click.option("--control", help="Control block to write; 'none' for none.  [default: control.block in the journal]")
@click.option(
    "--risk-settings",
    metavar="JSON",
    help="Write risk-data.npz too, made as this says: '{}' for the defaults, or {\"bar_s\": 60, ...}.",
)
@click.option(
    "--models",
    type=click.Path(path_type=Path),
    help="Model repository: watch the health of versions against their manifests.",
)
@click.option(
    "--alert-settings",
    metavar="JSON",
    help='Tell of what is wrong: \'{"alertmanagers": ["http://127.0.0.1:9093"]}\', as the section `alerts`.',
)
@logging_options
@click.option("--attached", is_flag=True, hidden=True, help="Report on standard output, end with standard input.")
def observe(
    journals: tuple[Path, ...],
    metrics_listen: str,
    control: str | None,
    risk_settings: str | None,
    models: Path | None,
    alert_settings: str | None,
    log_format: str,
    log_level: str,
    attached: bool,  # noqa: FBT001 - click's flag
) -> None:
    """Follow a journal: serve its metrics and write its control block.

    `tickgate serve` starts one by itself. Metrics begin with the oldest record that is there. SIGTERM and SIGINT end
    it, once it has read what was there.
    """
    logs.configure(log_format, log_level)
    ends = _signals(ignored=attached)
    if attached:
        ends = 0  # standard input
    end = threading.Event()
    threading.Thread(target=_watch, args=[ends, end], name="end", daemon=True).start()
    try:
        observer = Observer(
            journals,
            _controls(journals, control),
            metrics_listen,
            patience_s=_PATIENCE_S if attached else 0.0,
            risk=_section(RiskValueSettings, "--risk-settings", risk_settings),
            models=models,
            alerts=_section(AlertSettings, "--alert-settings", alert_settings),
        )
    except (
        JournalError,
        ControlBlockLocked,
        MetricsAddressTaken,
        HiddenMarkovInvalid,
        HealthStateInvalid,
        OSError,
        ValueError,
    ) as error:
        if attached:
            _report({"error": str(error)})
            sys.exit(1)
        raise click.ClickException(str(error)) from error
    if attached:
        _report({"metrics": observer.address})
    else:
        _LOG.info("observing", journals=[str(folder) for folder in journals], metrics=observer.address)
    observer.run(end, behind=attached)


def _signals(*, ignored: bool) -> int:
    """A descriptor to read from when SIGTERM or SIGINT came.

    Attached, they are ignored: what stops a group of processes is sent to each, and this one goes on while the server
    drains. An event is not set in a handler: it could find the event's lock held by the very thread it interrupts.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN if ignored else _noted)
    return reading


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The descriptor has it."""


def _watch(descriptor: int, end: threading.Event) -> None:
    """Set the event when a signal came, or the server let go of its end of the pipe; it never writes to it."""
    os.read(descriptor, 1)
    end.set()


def _report(said: Mapping[str, object]) -> None:
    """One line to the server; where it is gone, the end of input says the same."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{json.dumps(said)}\n".encode())


def _controls(journals: Sequence[Path], control: str | None) -> list[Path | None]:
    """A control block for each journal.

    Raises:
        ValueError: One was named for several journals.
    """
    if control == "none":
        return [None] * len(journals)
    if control is None:
        return [folder / FILE_NAME for folder in journals]
    if len(journals) > 1:
        raise ValueError("--control: expected one journal, each of several has its own control block")
    return [Path(control)]


def _section(section: type[Section], option: str, settings: str | None) -> Section | None:
    """What an option says of a section of the settings; None without it.

    Raises:
        ValueError: It is no JSON of the section.
    """
    if settings is None:
        return None
    try:
        return section.model_validate_json(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{option}: {where + ': ' if where else ''}{first['msg']}") from error
