"""The verb `train` of the `tickgate` command."""

from pathlib import Path

import click
from rich.console import Console

from tickgate_server.models.errors import ModelError
from tickgate_server.risk.data import RiskDataInvalid
from tickgate_training import pipeline, report
from tickgate_training.config import load_config
from tickgate_training.errors import TrainingError
from tickgate_training.pipeline import Options
from tickgate_training.risk_data import Written

_FOLDER = click.Path(file_okay=False, path_type=Path)
_STOPPED = 130


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", help="In place of the configuration's data: a capture's path, or a set of daily bars (nasdaq).")
@click.option("--models", type=_FOLDER, help="In place of the configuration's repository.")
@click.option("--name", help="In place of the configuration's name of the model.")
@click.option("--runs", type=_FOLDER, help="In place of the configuration's folder of runs.")
@click.option("--publish/--no-publish", default=True, show_default=True, help="Fit the final model and publish it.")
@click.option("--fresh", is_flag=True, help="Run all windows again, also those that an earlier run finished.")
@click.option("--jobs", type=click.IntRange(min=1), help="Windows at once; one a CPU if not given.")
@click.option(
    "--backend",
    type=click.Choice(["local", "ray", "dask"]),
    default="local",
    show_default=True,
    help="Where windows run: processes here, or a cluster.",
)
@click.option("--address", help="Of the cluster; without it one is begun on this machine, for the time of the run.")
def train(
    config: Path,
    data: str | None,
    models: Path | None,
    name: str | None,
    runs: Path | None,
    jobs: int | None,
    backend: str,
    address: str | None,
    *,
    publish: bool,
    fresh: bool,
) -> None:
    """Validate a model walk-forward and publish it as CONFIG (a TOML file) says.

    Finished windows are kept in the folder of runs: the same command goes on where an earlier one was stopped.
    """
    console = Console()
    try:
        settings = load_config(config, data=data, models=models, name=name, runs=runs)
        options = Options(backend, address, jobs, fresh=fresh, publish=publish)  # type: ignore[arg-type]
        result = pipeline.run(settings, options, console=Console(stderr=True))
        written = report.write(result, result.folder)
    except (TrainingError, ModelError, RiskDataInvalid, OSError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("Stopped. Finished windows are kept: the same command goes on with the others.", err=True)
        raise SystemExit(_STOPPED) from None
    report.show(result, console)
    if result.risk is not None:
        console.print(_risk_line(result.risk))
    console.print(f"Report: {written.page}", soft_wrap=True)


def _risk_line(risk: Written) -> str:
    if risk.path is None:
        return "No risk data: too few bars for a covariance."
    gone = f"; dropped, as their bars do not fit: {', '.join(risk.dropped)}" if risk.dropped else ""
    return f"Wrote {risk.path}: {', '.join(risk.symbols)}{gone}."
