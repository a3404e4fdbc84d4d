"""The verb `demo`: the main job on real data, by the commands that a user would type.

Train on S&P 500 and NASDAQ daily bars, publish, serve both models, replay the last year through Predict. Each command
is printed before it runs. The data come in the wheel of `arch`; nothing is downloaded.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import IO, Any

import click
import polars as pl
from rich.console import Console
from rich.table import Table

from tickgate_server.risk import data as risk_data
from tickgate_training.risk_data import BARS_FILE, DAILY, risk_data_of

_START_UP_S = 60.0
_STOP_S = 30.0
_SHOWN = 8
# Each index gets a model of its own; the last year of the data is replayed.
_INDICES = {"sp500": "sp500-daily", "nasdaq": "nasdaq-daily"}
_LAST_YEAR = "2018"
_BAR_SETTINGS = ("bar_s", "bars_a_day", "carry_age_s", "window_bars")


class DemoFailed(click.ClickException):
    """A step of the demo did not do what it should."""


@click.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep models and answers here; a temporary folder if not given.",
)
def demo(folder: Path | None) -> None:
    """Train on S&P 500 and NASDAQ bars, serve, replay the last year, show the signals."""
    started = time.perf_counter()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="tickgate-demo-") as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        models = place / "models"
        with as_file(files("tickgate_training") / "configs" / "daily.toml") as config:
            for index, name in _INDICES.items():
                where = ["--models", str(models), "--runs", str(place / "runs")]
                _run(console, "train", str(config), "--data", index, "--name", name, *where)
        _run(console, "models", "list", "--models", str(models))
        console.print(
            f"\nThe final models were fitted on the latest rows, {_LAST_YEAR} among them: what follows shows the way to"
            " a signal, not what it earns. The walk-forward above does that, on rows no model had seen."
        )
        risk_file = _risk_data_before(models, place)
        console.print(f"The risk gate begins with covariance and regimes as they were before {_LAST_YEAR}.")
        for index, name in _INDICES.items():  # a server each: the clock is that of the ticks, and runs one way
            with _server(console, models, place / f"journal-{index}", risk_file) as address:
                answers = place / f"{index}.jsonl"
                arguments = ["--format", "daily", "--target", address, "--model", name, "--out", str(answers)]
                _run(console, "replay-ticks", f"{index}:{_LAST_YEAR}", *arguments)
                console.print(_last_signals(answers, index))
    if folder is not None:
        console.print(f"Models and answers are in {folder}.")
    console.print(f"Demo done in {time.perf_counter() - started:.0f} s.")


def _command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("tickgate")), *arguments]


def _run(console: Console, *arguments: str) -> None:
    console.print(f"\n[bold]$ tickgate {' '.join(arguments)}[/bold]", highlight=False, soft_wrap=True)
    finished = subprocess.run(_command(*arguments), check=False)  # noqa: S603 - our own command
    if finished.returncode != 0:
        raise DemoFailed(f"tickgate {arguments[0]} ended with status {finished.returncode}")


def _risk_data_before(models: Path, place: Path) -> Path:
    """Risk data of the bars before the year that is replayed: the gate must not know what is to come."""
    begin = pl.datetime(int(_LAST_YEAR), 1, 1, time_zone="UTC").dt.timestamp("ns")
    bars = pl.read_parquet(models / BARS_FILE).filter(pl.col("exchange_ts_ns") < begin)
    found = risk_data_of(bars, DAILY)
    if found is None:
        raise DemoFailed("too few bars for risk data")
    path = place / risk_data.FILE_NAME
    risk_data.write(path, found)
    return path


def _environment(risk_file: Path) -> dict[str, str]:
    """Settings of a server whose ticks are daily bars, and years old."""
    of_bars = {f"RISK_VALUES__{name.upper()}": str(getattr(DAILY, name)) for name in _BAR_SETTINGS}
    settings = {
        "LOG__FORMAT": "json",
        "DESK__RISK_DATA": str(risk_file),
        # A year passes in a second: the observer, which looks ten times a second, cannot keep up.
        "RISK__MAX_RISK_DATA_AS_OF_AGE_S": str(400 * 86_400),
        **of_bars,
    }
    return {**os.environ, **{f"TICKGATE_{name}": value for name, value in settings.items()}}


@contextmanager
def _server(console: Console, models: Path, journal: Path, risk_file: Path) -> Iterator[str]:
    """A server on free ports, its clock that of the ticks; drained on the way out."""
    arguments = ["serve", "--models", str(models), "--clock", "replay", "--listen", "127.0.0.1:0"]
    arguments += ["--service-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--journal", str(journal)]
    console.print(f"\n[bold]$ tickgate {' '.join(arguments)}[/bold]", highlight=False, soft_wrap=True)
    command = _command(*arguments)
    environment = _environment(risk_file)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603 - as above
        try:
            yield _address(console, process)
            process.terminate()
            if process.wait(_STOP_S) != 0:
                raise DemoFailed(f"the server ended with status {process.returncode}")
        finally:
            process.kill()


def _address(console: Console, process: "subprocess.Popen[str]") -> str:
    log = process.stderr
    if log is None:
        raise DemoFailed("the server's log cannot be read")
    for line in log:
        event = json.loads(line)
        if event["event"] == "serving":
            console.print(f"serving on {event['address']}, metrics on http://{event['metrics']}/metrics")
            return str(event["address"])
        console.print(f"{event['level']}: {event['event']} {event.get('model', '')}:{event.get('version', '')}")
    raise DemoFailed("the server ended before it served")


def _last_signals(answers: Path, index: str) -> Table:
    """The last orders of a replay, or its last answers where it gave none."""
    with answers.open(encoding="utf-8") as lines:
        every = _read(lines)
    orders = [answer for answer in every if answer["approved"]]
    what = "orders" if orders else "answers; none was an order"
    table = Table(title=f"{index} {_LAST_YEAR}: last {what}", title_justify="left")
    for heading in ("session", "action", "size", "limit price", "P(up) - P(down)", "confidence", "reason"):
        table.add_column(heading, justify="left" if heading in {"action", "reason"} else "right")
    for answer in (orders or every)[-_SHOWN:]:
        scored = answer["value"] is not None
        table.add_row(
            str(answer["index"] + 1),
            answer["action"],
            f"{answer['size']:.4f}" if answer["size"] else "",
            f"{answer['limit_price']:.2f}" if answer["limit_price"] else "",
            f"{answer['value']:+.4f}" if scored else "",
            f"{answer['confidence']:.4f}" if scored else "",
            answer["reason"],
        )
    return table


def _read(lines: IO[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]
