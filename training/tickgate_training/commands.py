"""The verb `train` of the `tickgate` command."""

from pathlib import Path

import click
from rich.console import Console

from tickgate_server.models.errors import ModelError
from tickgate_server.risk.data import RiskDataInvalid
from tickgate_training import pipeline, report
from tickgate_training.config import load_config
from tickgate_training.errors import TrainingError
from tickgate_training.risk_data import Written


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", help="In place of the configuration's data: a capture's path, or a set of daily bars (nasdaq).")
@click.option(
    "--models", type=click.Path(file_okay=False, path_type=Path), help="In place of the configuration's repository."
)
@click.option("--name", help="In place of the configuration's name of the model.")
@click.option("--publish/--no-publish", default=True, show_default=True, help="Fit the final model and publish it.")
def train(config: Path, data: str | None, models: Path | None, name: str | None, *, publish: bool) -> None:
    """Validate a model walk-forward and publish it as CONFIG (a TOML file) says."""
    try:
        settings = load_config(config, data=data, models=models, name=name)
        result = pipeline.run(settings, console=Console(stderr=True), publish=publish)
    except (TrainingError, ModelError, RiskDataInvalid, OSError) as error:
        raise click.ClickException(str(error)) from error
    console = Console()
    report.show(result, console)
    if result.risk is not None:
        console.print(_risk_line(result.risk))


def _risk_line(risk: Written) -> str:
    if risk.path is None:
        return "No risk data: too few bars for a covariance."
    gone = f"; dropped, as their bars do not fit: {', '.join(risk.dropped)}" if risk.dropped else ""
    return f"Wrote {risk.path}: {', '.join(risk.symbols)}{gone}."
