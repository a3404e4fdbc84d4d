"""`tickgate retrain`."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from types import FrameType

import click

from tickgate_server.journal.errors import JournalError
from tickgate_server.models.errors import ModelError
from tickgate_training.errors import TrainingError
from tickgate_training.retraining.comparison import read_champion
from tickgate_training.retraining.config import RetrainConfig, load_retrain_config
from tickgate_training.retraining.errors import NothingNew
from tickgate_training.retraining.newest import blocks, read_newest
from tickgate_training.retraining.round import Round
from tickgate_training.retraining.rounds import ROUNDS_FILE, RoundLine, evaluated_until_ns, held, read_lines
from tickgate_training.retraining.schedule import Scheduler, due_ns
from tickgate_training.retraining.serving import serving

_STOPPED = 130
_FAILED = {"failed": 1, "conflict": 1, "stopped": _STOPPED}


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--schedule", is_flag=True, help="Go on, a round whenever one is due or triggered, until SIGTERM.")
@click.option("--dry-run", is_flag=True, help="Say what a round would work on; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print each round's line as it is kept.")
def retrain(config: Path, *, schedule: bool, dry_run: bool, as_json: bool) -> None:
    """Fit a challenger on newer data, and let it take over where it is better, as CONFIG (TOML) says.

    One round, or with --schedule one after the other. Every round leaves a line in `rounds.jsonl` of the configured
    state; docs/retraining.md says how it decides. Exits with 1 where the round failed or another promotion came first.
    """
    try:
        settings = load_retrain_config(config)
        if dry_run:
            _show_plan(settings)
            return
        with held(settings.retrain.state) as rounds, _stopped_by_signals() as stop:
            if schedule:
                Scheduler(settings, rounds, stop, lambda line: _show(line, as_json=as_json)).run()
                return
            line = Round(settings, rounds, stop=stop.is_set).run()
    except (TrainingError, ModelError, JournalError, OSError) as error:
        raise click.ClickException(str(error)) from error
    _show(line, as_json=as_json)
    if line.decision in _FAILED:
        raise SystemExit(_FAILED[line.decision])


@contextmanager
def _stopped_by_signals() -> Iterator[Event]:
    """An event that SIGINT and SIGTERM set."""
    stop = Event()

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(line: RoundLine, *, as_json: bool) -> None:
    if as_json:
        click.echo(line.model_dump_json())
        return
    published = "" if line.published is None else f", version {line.published}"
    champion = "" if line.champion_version is None else f" against version {line.champion_version}"
    click.echo(f"Round {line.round}{champion}: {line.decision}{published}. {line.reason}")


def _show_plan(config: RetrainConfig) -> None:
    """What a round would work on now."""
    section = config.retrain
    found = serving(config)
    lines, _ = read_lines(section.state / ROUNDS_FILE)
    named = "" if found.named else ", the highest version: it will be named before another is published"
    click.echo(f"Champion: {config.training.package.name}:{found.champion}{named}; shadow: {found.shadow or 'none'}.")
    newest = read_newest(config)
    samples = newest.samples
    last = _utc(int(samples.stamps_ns[-1]))
    click.echo(f"Data: {samples.rows:,} rows of {', '.join(samples.symbols)}, up to {last}.")
    read_champion(config.model_folder, found.champion, samples, config.training)
    try:
        window = blocks(samples, config, evaluated_until_ns(lines))
    except NothingNew as error:
        click.echo(f"No round would compare anything: {error}.")
    else:
        for name, block in (("train", window.train), ("validation", window.validation), ("evaluation", window.test)):
            first, last = (_utc(int(samples.stamps_ns[row])) for row in (block.start, block.stop - 1))
            click.echo(f"  {name}: {block.stop - block.start:,} rows, {first} to {last}")
    kinds = ", ".join(one.kind for one in section.challengers)
    click.echo(f"Challengers: {kinds}. Promotion by {section.promotion}. Rounds so far: {len(lines)}.")
    if section.schedule is not None and lines:
        click.echo(f"Next round due: {_utc(due_ns(section.schedule, lines[-1].began_ns, 0))}.")


def _utc(stamp_ns: int) -> str:
    return f"{datetime.fromtimestamp(stamp_ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
