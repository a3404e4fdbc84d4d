"""One training run: load, compute features, label, walk forward, judge, refit, export, publish, write risk data.

Refit policy. The published model is none of the windows': it is fitted anew on the latest train block, calibrated and
given its threshold on the latest validation block, in the lengths that were validated, so that it is as fresh as a
window's model would be on the next test row. The metrics in its manifest are the walk-forward's: they speak of the
procedure, on rows that no model had seen, not of this one fit.

With several learners the one that earned most on the windows' validation rows is published; test rows decide nothing.
Each learner counts as one trial.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from tickgate_training import backtest
from tickgate_training.config import TrainingConfig
from tickgate_training.metrics import Metrics, measure
from tickgate_training.publishing import Published, publish_model, walk_forward_metrics
from tickgate_training.risk_data import Written, settings_of, write_first
from tickgate_training.samples import Samples, load_table, prepare
from tickgate_training.splits import latest
from tickgate_training.walk import Trial, costs_of, evaluate, fit_window, windows_of

SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the walk-forward shows an edge net of costs.

    Attributes:
        has_edge: The net t statistic passes the one-sided bar of `SIGNIFICANCE`, divided by the trials (Bonferroni).
        text: One plain sentence.
    """

    has_edge: bool
    text: str


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run gave.

    Attributes:
        config: Of the run.
        symbol: Of the data.
        rows: Rows of data.
        trials: One a learner, in the configuration's order.
        chosen: The trial whose learner was published: most earned on validation.
        baseline: Always long with the whole capital over the same rows, net of costs.
        verdict: Is there an edge?
        published: The package; None where the run was asked not to publish.
        risk: What became of the repository's risk data; None likewise.
        seconds: Wall-clock time of the whole run.
    """

    config: TrainingConfig
    symbol: str
    rows: int
    trials: tuple[Trial, ...]
    chosen: Trial
    baseline: Metrics
    verdict: Verdict
    published: Published | None
    risk: Written | None
    seconds: float


def run(
    config: TrainingConfig, *, frame: pl.DataFrame | None = None, console: Console | None = None, publish: bool = True
) -> RunResult:
    """Run the whole pipeline.

    Args:
        config: What to do.
        frame: A canonical table to use in place of the configured source.
        console: Where to draw a progress bar with the time left; None draws none.
        publish: Whether to fit the final model and publish it.

    Raises:
        TrainingError: See `tickgate_training.errors`; nothing is written.
        OSError: The repository cannot be written; no package is left half-way.
        RiskDataInvalid: Prices give no finite covariance; the package is published by then.
    """
    started = time.perf_counter()
    # Windows are small: BLAS's threads would spend their time waiting for each other, the more the busier the machine.
    with threadpool_limits(limits=1, user_api="blas"):
        return _run(config, frame, console, started, publish=publish)


def _run(
    config: TrainingConfig, frame: pl.DataFrame | None, console: Console | None, started: float, *, publish: bool
) -> RunResult:
    frame = load_table(config) if frame is None else frame
    samples = prepare(frame, config)
    windows = len(windows_of(samples, config))
    trials = []
    with _progress(console) as progress:
        for learner in config.learners:
            task = progress.add_task(f"{config.package.name} · {learner.kind}", total=windows)
            trials.append(evaluate(samples, config, learner, partial(progress.advance, task)))
    chosen = max(trials, key=lambda trial: trial.validation_net_return)
    baseline = _always_long(samples, config, chosen)
    published = _publish(samples, config, chosen) if publish else None
    risk = write_first(config.package.repository, frame, settings_of(config)) if publish else None
    return RunResult(
        config=config,
        symbol=samples.symbol,
        rows=samples.rows,
        trials=tuple(trials),
        chosen=chosen,
        baseline=baseline,
        verdict=judge(chosen.net, baseline, len(trials)),
        published=published,
        risk=risk,
        seconds=time.perf_counter() - started,
    )


def judge(net: Metrics, baseline: Metrics, trials: int) -> Verdict:
    """Say plainly whether net returns show an edge; see `Verdict`."""
    earned = net.total_return_summed
    bar = NormalDist().inv_cdf(1.0 - SIGNIFICANCE / trials)
    if net.round_trips == 0:
        return Verdict(False, "No edge: the model never traded.")
    if not earned > 0.0:
        return Verdict(False, f"No edge: net of costs it lost {-earned:.2%} of capital.")
    shown = f"t statistic {net.t_statistic:.2f}, {bar:.2f} needed at {SIGNIFICANCE:.0%} with {trials} tried"
    if not net.t_statistic > bar:
        return Verdict(False, f"No edge that these data can show: net of costs it earned {earned:.2%}, {shown}.")
    text = f"An edge net of costs: it earned {earned:.2%}, {shown}."
    if not net.sharpe > baseline.sharpe:
        text += " Yet always long had the better Sharpe ratio."
    return Verdict(True, text)


def _always_long(samples: Samples, config: TrainingConfig, trial: Trial) -> Metrics:
    capital, start = config.policy.capital, trial.result.start
    positions = backtest.constant_position(samples.market, start, trial.result.positions.size, capital, 1.0)
    return measure(backtest.run(positions, samples.market, start, capital, costs_of(config)), config.periods_per_year)


def _publish(samples: Samples, config: TrainingConfig, trial: Trial) -> Published:
    lengths = config.walk_forward
    # The last rows have no label yet: purging against the end of the data leaves them out.
    window = latest(samples.rows, lengths.train_rows, lengths.validation_rows, lengths.embargo_rows)
    fitted = fit_window(samples, config, trial.learner, window)
    metrics = walk_forward_metrics(trial.gross, trial.net, trial.accuracy, trial.majority_accuracy)
    return publish_model(fitted, samples, config, metrics, len(config.learners))


@contextmanager
def _progress(console: Console | None) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=console is None, transient=True) as progress:
        yield progress
