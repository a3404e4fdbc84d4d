"""What a run gave, as tables for a terminal."""

import math

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tickgate_training.metrics import Metrics
from tickgate_training.pipeline import RunResult
from tickgate_training.walk import Trial

_ROWS: tuple[tuple[str, str, str], ...] = (
    ("total return, summed", "total_return_summed", "%"),
    ("total return, compounded", "total_return_compounded", "%"),
    ("Sharpe ratio", "sharpe", "f"),
    ("t statistic", "t_statistic", "f"),
    ("max drawdown", "max_drawdown", "%"),
    ("round trips", "round_trips", "d"),
    ("win rate", "win_rate", "%"),
    ("mean return a round trip", "mean_trip_return", "%"),
    ("profit factor", "profit_factor", "f"),
    ("turnover a period", "turnover", "%"),
    ("exposure", "exposure", "%"),
)


def show(result: RunResult, console: Console) -> None:
    """Print the tables of a run."""
    console.print(render(result))


def render(result: RunResult) -> RenderableType:
    """Each learner gross and net beside always long, the windows' spread, what was published, and the verdict."""
    parts: list[RenderableType] = [results_table(result), learners_table(result)]
    if result.published is not None:
        package = result.published
        parts.append(
            f"Published {package.folder}: threshold {package.manifest.decision_threshold:.4f}, graph and source differ "
            f"by at most {package.parity_difference:.1e} on {package.parity_rows:,} rows."
        )
    parts.append(Text(result.verdict.text, style="bold green" if result.verdict.has_edge else "bold yellow"))
    parts.append(f"{result.rows:,} rows of {result.symbol} in {result.seconds:.1f} s.")
    return Group(*parts)


def results_table(result: RunResult) -> Table:
    """Out-of-sample metrics: a column gross and one net for each learner, and the baseline's."""
    periods = result.config.periods_per_year
    title = f"{result.symbol}: stitched out-of-sample results, Sharpe " + (
        f"with {periods:g} periods a year" if periods > 1 else "a period"
    )
    table = Table(title=title)
    table.add_column("")
    columns: list[Metrics] = []
    for trial in result.trials:
        name = trial.learner.kind + (" *" if trial is result.chosen else "")
        table.add_column(f"{name}\ngross", justify="right")
        table.add_column(f"{name}\nnet", justify="right")
        columns += [trial.gross, trial.net]
    table.add_column("always long\nnet", justify="right")
    columns.append(result.baseline)
    for label, field, form in _ROWS:
        table.add_row(label, *(_number(getattr(metrics, field), form) for metrics in columns))
    return table


def learners_table(result: RunResult) -> Table:
    """How each learner came by its results: windows, their spread, accuracy, and how often a fallback was needed."""
    table = Table(title="Learners; * published, for it earned most on validation")
    for column in ("learner", "windows", "net return a window: mean ± std (worst, best)", "accuracy (majority)"):
        table.add_column(column)
    table.add_column("no profitable threshold", justify="right")
    table.add_column("not calibrated", justify="right")
    for trial in result.trials:
        table.add_row(
            trial.learner.kind,
            str(len(trial.windows)),
            _spread(trial),
            f"{_number(trial.accuracy, '%')} ({_number(trial.majority_accuracy, '%')})",
            f"{trial.fallback_windows} of {len(trial.windows)}",
            f"{sum(bool(window.calibration_identity) for window in trial.windows)} of {len(trial.windows)}",
        )
    return table


def _spread(trial: Trial) -> str:
    spread = trial.spread
    numbers = (_number(value, "%") for value in (spread.mean, spread.std, spread.worst, spread.best))
    return "{} ± {} ({}, {})".format(*numbers)


def _number(value: float, form: str) -> str:
    if math.isnan(value):
        return "undefined"
    if form == "%":
        return f"{value:.2%}" if value == 0.0 or abs(value) >= 1e-3 else f"{value:.1e}"
    return f"{value:,}" if form == "d" else f"{value:.2f}"
