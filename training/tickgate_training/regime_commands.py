"""The verb `train-regimes` of the `tickgate` command."""

import math
from pathlib import Path
from typing import Any

import click
import polars as pl
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from tickgate_server.risk.estimates import RiskValueSettings
from tickgate_server.risk.hidden_markov import HiddenMarkovInvalid, HiddenMarkovParameters
from tickgate_training import regime_file
from tickgate_training.config import load_config
from tickgate_training.data.table import fingerprint
from tickgate_training.errors import ConfigInvalid, TrainingError
from tickgate_training.regime_file import RegimeOrigin
from tickgate_training.regime_model import STATES_LIMIT, Candidate, RegimeConfig, RegimeModel, fit
from tickgate_training.regime_states import describe
from tickgate_training.regime_windows import observe_windows
from tickgate_training.risk_data import settings_of
from tickgate_training.samples import load_table

FILE_NAME = "hidden-markov.json"


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", help="In place of the configuration's data: a capture's path, or a set of daily bars (nasdaq).")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"File of parameters to write.  [default: {FILE_NAME} in the configuration's repository]",
)
@click.option("--states", type=click.IntRange(1, STATES_LIMIT), help="How many.  [default: chosen by BIC, up to four]")
@click.option(
    "--regimes",
    help="Names of the states, the calmest first, comma-separated, in place of the rule's; needs --states.",
)
@click.option("--features", help="Comma-separated.  [default: log_return,log_realised_volatility]")
@click.option("--covariance", "covariance_type", type=click.Choice(["full", "diag"]), default="full", show_default=True)
@click.option("--restarts", type=click.IntRange(1, 1000), default=10, show_default=True, help="Starts of a fit.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="[default: the configuration's]")
@click.option("--bar-s", type=float, help="Seconds a bar.  [default: a day for daily bars, else 60]")
@click.option("--window-bars", type=int, help="Bars a window.  [default: 5 for daily bars, else 15]")
def train_regimes(
    config: Path,
    data: str | None,
    output: Path | None,
    regimes: str | None,
    features: str | None,
    bar_s: float | None,
    window_bars: int | None,
    **options: Any,
) -> None:
    """Fit a hidden Markov model of the regime on the data that CONFIG (a TOML file) names.

    Writes its parameters as `risk_values.hmm_file` of the server's settings takes them, and beside them where they come
    from. Bars and windows must be those that the server makes risk data with.
    """
    try:
        run = load_config(config, data=data)
        settings = _windows(settings_of(run), bar_s, window_bars)
        chosen = _config(options | {"regimes": _split(regimes), "features": _split(features)}, run.seed)
        frame = load_table(run)
        observed = observe_windows(frame, settings, chosen.features)
        model = fit(observed, chosen, settings)
        path = run.package.repository / FILE_NAME if output is None else output
        stamps = frame.select(pl.col("exchange_ts_ns").min(), pl.col("exchange_ts_ns").max().alias("last")).row(0)
        origin = regime_file.write(
            path, model, chosen, observed, data_fingerprint=fingerprint(frame), span_ns=(stamps[0], stamps[1])
        )
    except (TrainingError, HiddenMarkovInvalid, OSError) as error:
        raise click.ClickException(str(error)) from error
    _show(Console(), path, model, origin)


def states_table(parameters: HiddenMarkovParameters, title: str) -> Table:
    """The states of a model: name, mean, volatility, how long each lasts, its share of time."""
    table = Table(title=title)
    table.add_column("regime", no_wrap=True)
    for column in ("mean log return\na window", "volatility\na bar", "expected dwell\nin bars", "share of\ntime"):
        table.add_column(column, justify="right")
    for state in describe(parameters):
        table.add_row(
            state.regime,
            "not observed" if math.isnan(state.mean_log_return) else f"{state.mean_log_return:+.4%}",
            f"{state.volatility:.4%}",
            "always" if math.isinf(state.dwell_bars) else f"{state.dwell_bars:,.1f}",
            f"{state.share:.1%}",
        )
    return table


def _show(console: Console, path: Path, model: RegimeModel, origin: RegimeOrigin) -> None:
    windows = f"{model.windows:,} windows of {model.parameters.window_bars} bars of {model.parameters.bar_s:g} s"
    console.print(states_table(model.parameters, f"{', '.join(origin.symbols)}: {windows}"))
    if len(model.candidates) > 1:
        console.print(f"BIC by states: {'; '.join(_tried(one, model) for one in model.candidates)}.")
    if origin.windows_missing:
        console.print(f"{origin.windows_missing:,} windows were missing: {model.sequences:,} sequences.")
    console.print(
        f"Wrote {path}: the filter differs from hmmlearn by at most {origin.parity_difference:.1e}"
        f" in {origin.parity_windows:,} windows."
    )


def _tried(one: Candidate, model: RegimeModel) -> str:
    if not one.converged:
        return f"{one.states}: no fit"
    return f"{one.states}: {one.bic:,.1f}{' (chosen)' if one is model.chosen else ''}"


def _split(names: str | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(name.strip() for name in names.split(","))


def _config(options: dict[str, Any], seed: int) -> RegimeConfig:
    """What the options say, where they say something."""
    said = {"seed": seed} | {name: value for name, value in options.items() if value is not None}
    try:
        return RegimeConfig.model_validate(said)
    except ValidationError as error:
        raise ConfigInvalid("options", _problems(error)) from error


def _windows(settings: RiskValueSettings, bar_s: float | None, window_bars: int | None) -> RiskValueSettings:
    """The data's own bars and windows, with what the options say in their place."""
    said = {name: value for name, value in (("bar_s", bar_s), ("window_bars", window_bars)) if value is not None}
    try:
        return RiskValueSettings.model_validate(settings.model_dump() | said)
    except ValidationError as error:
        raise ConfigInvalid("options", _problems(error)) from error


def _problems(error: ValidationError) -> tuple[str, ...]:
    return tuple(f"{'.'.join(map(str, one['loc'])) or 'together'}: {one['msg']}" for one in error.errors())
