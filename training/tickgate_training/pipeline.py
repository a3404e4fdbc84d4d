"""One training run: load, check for leaks, walk forward, measure, judge, refit, export, publish, report.

Refit policy. In a walk each window's model is fitted anew on that window's train block. The published model is none of
the windows': the same procedure (every configuration fitted on the latest train block, calibrated and given its
threshold on the latest validation block, the one that earned most there taken) is run on the newest rows, in the
lengths that were validated, so that it is as fresh as a window's model would be on the next test row. The metrics in
its manifest are the selected series': they speak of the procedure, on rows that no model had seen, not of this one fit.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl
from rich.console import Console
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from tickgate_server.models.verdict import PromotionVerdict
from tickgate_training import judging, leak_check, parallel, paths, run_folder
from tickgate_training.config import TrainingConfig
from tickgate_training.folds import Folder
from tickgate_training.learners import LearnerConfig
from tickgate_training.paths import PathFolder, splits_of
from tickgate_training.publishing import Published, publish_model, walk_forward_metrics
from tickgate_training.results import Paths, RunResult, Series
from tickgate_training.risk_data import settings_of, write_first
from tickgate_training.run_folder import RunFolder
from tickgate_training.samples import Samples, load_table, prepare
from tickgate_training.splits import Window
from tickgate_training.splits.combinatorial import ValidatedSplit
from tickgate_training.stability import null_quantile
from tickgate_training.trials import configurations
from tickgate_training.tuning import Configuration
from tickgate_training.walk import Walk, windows_of
from tickgate_training.work import Work

_PSI_LEVEL = 0.99


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is run; what it finds does not depend on it.

    Attributes:
        backend: Where folds run; see `parallel`.
        address: Of the cluster.
        jobs: Folds at once; None: one a CPU.
        fresh: Forget the finished folds of an earlier run.
        publish: Fit the final model and publish it.
    """

    backend: parallel.Backend = "local"
    address: str | None = None
    jobs: int | None = None
    fresh: bool = False
    publish: bool = True


def run(
    config: TrainingConfig,
    options: Options | None = None,
    *,
    frame: pl.DataFrame | None = None,
    console: Console | None = None,
) -> RunResult:
    """Run the whole pipeline.

    Args:
        config: What to do.
        options: How; the defaults if None.
        frame: A canonical table to use in place of the configured source.
        console: Where to draw a progress bar with the time left; None draws none.

    Raises:
        TrainingError: See `tickgate_training.errors`; nothing is written to the repository. Finished folds stay.
        OSError: The repository or the run's folder cannot be written; no package is left half-way.
        RiskDataInvalid: Prices give no finite covariance; the package is published by then.
    """
    started = time.perf_counter()
    options = options or Options()
    frame = load_table(config) if frame is None else frame
    samples = prepare(frame, config)
    leak_check.check(frame, config, samples)
    windows = windows_of(samples, config)
    splits = [] if config.combinatorial is None else splits_of(samples, config.combinatorial)
    with run_folder.held(config.runs, config, samples.fingerprint) as folder:
        if options.fresh:
            folder.forget()
        tried = _configurations(samples, config, windows)
        with Work(lambda: parallel.pool(options.backend, options.address, options.jobs), console) as work:
            walk = _walk(samples, config, tried, windows, folder, work)
            combined = _paths(samples, config, tried, splits, folder, work)
        judged = _judged(walk, samples, config, tried, options, frame, folder, started)
        return replace(judged, paths=combined, seconds=time.perf_counter() - started)


def _configurations(samples: Samples, config: TrainingConfig, windows: Sequence[Window]) -> tuple[Configuration, ...]:
    folder = Folder(samples, config, ())

    def score(learners: Sequence[LearnerConfig]) -> list[float]:
        with threadpool_limits(limits=1):
            return folder.scores([Configuration(0, learner) for learner in learners], windows[0])

    return configurations(config.learners, config.tuning, config.seed, score)


def _walk(
    samples: Samples,
    config: TrainingConfig,
    tried: tuple[Configuration, ...],
    windows: Sequence[Window],
    folder: RunFolder,
    work: Work,
) -> Walk:
    title, fold = f"{config.package.name}: windows", Folder(samples, config, tried)
    return Walk(samples, config, tried, work.done(title, windows, folder.finished(), fold, folder.keep))


def _paths(
    samples: Samples,
    config: TrainingConfig,
    tried: tuple[Configuration, ...],
    splits: Sequence[ValidatedSplit],
    folder: RunFolder,
    work: Work,
) -> Paths | None:
    """Of combinatorial cross-validation; None where there are no splits."""
    if not splits:
        return None
    title, fold = f"{config.package.name}: combinatorial splits", PathFolder(samples, config, tried)
    folds = work.done(title, splits, folder.finished_paths(), fold, folder.keep_path)
    return paths.measured(samples, config, tried, splits, folds)


def _judged(
    walk: Walk,
    samples: Samples,
    config: TrainingConfig,
    tried: tuple[Configuration, ...],
    options: Options,
    frame: pl.DataFrame,
    folder: RunFolder,
    started: float,
) -> RunResult:
    selected, windows = walk.selected()
    trials = walk.trials()
    evidence = judging.evidence(walk, selected, trials, windows, config)
    verdict = judging.verdict(evidence, config)
    published = _publish(samples, config, tried, selected, verdict) if options.publish else None
    risk = write_first(config.package.repository, frame, settings_of(config)) if options.publish else None
    test_rows = max(window.parity_rows for window in windows)
    ready = samples.features[samples.ready]
    return RunResult(
        config=config,
        symbols=samples.symbols,
        rows=samples.rows,
        fingerprint=samples.fingerprint,
        feature_names=samples.feature_set.features,
        windows=windows,
        selected=selected,
        trials=trials,
        baselines=judging.baselines(evidence, walk.primary_alone()),
        overfitting=judging.overfitting(selected, trials, evidence, config),
        diagnostics=walk.diagnostics(null_quantile(ready, max(test_rows, 1), _PSI_LEVEL, seed=config.seed)),
        verdict=verdict,
        suspicions=walk.suspicions(config.leaks),
        published=published,
        risk=risk,
        folder=folder.path,
        seconds=time.perf_counter() - started,
    )


def _publish(
    samples: Samples,
    config: TrainingConfig,
    tried: tuple[Configuration, ...],
    selected: Series,
    verdict: PromotionVerdict,
) -> Published:
    # The last rows have no label yet: purging against the end of the data leaves them out.
    window = config.walk_forward.latest(samples.sessions, samples.stamps_ns)
    with threadpool_limits(limits=1):
        fitted, _ = Folder(samples, config, tried).best(window)
        metrics = walk_forward_metrics(selected.gross, selected.net, selected.accuracy, selected.majority_accuracy)
        return publish_model(fitted, samples, config, metrics, len(tried), verdict)
