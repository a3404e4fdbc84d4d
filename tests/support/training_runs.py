"""Results of small training runs, made by the real backtest, threshold and metrics on a random walk."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.verdict import CheckName, PromotionVerdict, check, judge
from tickgate_training import backtest, threshold
from tickgate_training.backtest import Backtest, Market, Sizing
from tickgate_training.calibration import sigmoid
from tickgate_training.config import TrainingConfig, parse_config
from tickgate_training.costs import Costs
from tickgate_training.metrics import measure
from tickgate_training.results import (
    Baseline,
    Configuration,
    Diagnostics,
    Overfitting,
    RunResult,
    Series,
    Spread,
    ThresholdCurve,
    Trial,
    WindowResult,
)
from tickgate_training.threshold import ThresholdChoice

Floats = NDArray[np.float64]
MICRO10 = ("ret_1", "ret_5", "ret_10", "vwap_dev", "vol_10", "flow_imbalance", "tick_sign", "gap_s", "range_10")
DAY_NS = 86_400_000_000_000
_FIRST_NS = 915_148_800_000_000_000  # 1999-01-01
_SIZING = Sizing(1_000_000.0, 20_000.0, 1, 0.002, 1e-8)
_COSTS = Costs(0.5e-4)


@dataclass(frozen=True)
class Shape:
    """What kind of run.

    `never` has thresholds that nothing reaches; `unknown` has neither labels nor importance, drift or statistics.
    """

    windows: int = 12
    test_rows: int = 40
    validation_rows: int = 80
    trials: int = 4
    seed: int = 1
    edge: float = 0.6
    stamp_step_ns: int = DAY_NS
    features: tuple[str, ...] = MICRO10
    symbols: tuple[str, ...] = ("SPX",)
    never: bool = False
    unknown: bool = False
    more: dict[str, Any] = field(default_factory=dict)


class Builder:
    """The rows of a run and what is made of them."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.random = np.random.default_rng(shape.seed)
        self.start = shape.validation_rows
        self.rows = self.start + shape.windows * shape.test_rows + 2
        self.moves = self.random.normal(0.0, 0.01, self.rows)
        self.market = Market(
            marks=1000.0 * np.exp(np.cumsum(self.moves)),
            half_spreads=np.full(self.rows, 0.5e-4),
            volumes=np.full(self.rows, 1e6),
            trade_volatilities=np.full(self.rows, 0.01),
        )
        self.stamps_ns = _FIRST_NS + np.arange(self.rows) * shape.stamp_step_ns

    def probabilities(self, configuration: int) -> Floats:
        """P(up) of a configuration that sees the move after the next with more noise the higher its number."""
        seen = np.append(self.moves[2:], [0.0, 0.0]) / 0.01
        noise = self.random.normal(0.0, 1.0, self.rows)
        signal = self.shape.edge * seen + (1.0 + 0.2 * configuration) * noise
        return sigmoid(np.asarray(0.5 * signal, np.float64))

    def blocks(self) -> list[tuple[slice, slice]]:
        """Validation and test rows of each window."""
        starts = [self.start + k * self.shape.test_rows for k in range(self.shape.windows)]
        return [(slice(at - self.start, at), slice(at, at + self.shape.test_rows)) for at in starts]

    def choose(self, p: Floats, validation: slice) -> tuple[ThresholdChoice, ThresholdCurve]:
        def trade(at: float) -> Backtest:
            positions = backtest.decide(p[validation], at, self.market, validation.start, _SIZING)
            market = self.market.until(validation.stop + 2)
            return backtest.run(positions, market, validation.start, _SIZING.capital, _COSTS)

        if self.shape.never:
            at = np.array([0.9999])
            return ThresholdChoice(0.9999, 0.0, 0, "no threshold gives 5 round trips on validation"), self.curve(
                at, trade
            )
        return threshold.choose(p[validation], trade, 5), self.curve(threshold.candidates(p[validation]), trade)

    @staticmethod
    def curve(at: Floats, trade: Any) -> ThresholdCurve:
        return ThresholdCurve(0, at, np.array([trade(float(one)).net.sum() for one in at]))

    def positions(self, p: Floats, at: float, test: slice) -> Floats:
        return backtest.decide(p[test], at, self.market, test.start, _SIZING)

    def series(self, positions: Floats, p: Floats) -> Series:
        result = backtest.run(positions, self.market, self.start, _SIZING.capital, _COSTS)
        net = [result.net[test.start - self.start : test.stop - self.start].sum() for _, test in self.blocks()]
        directions = self.directions
        known = directions >= 0
        right = float(((p[known] >= 0.5) == (directions[known] == 1)).mean()) if known.any() else math.nan
        up = float((directions[known] == 1).mean()) if known.any() else math.nan
        return Series(
            stamps_ns=self.stamps_ns[self.start : self.start + result.net.size],
            result=result,
            gross=measure(result, 252.0, net=False),
            net=measure(result, 252.0),
            spread=spread(np.array(net)),
            accuracy=right,
            majority_accuracy=max(up, 1.0 - up),
        )

    @property
    def directions(self) -> NDArray[np.int8]:
        """Labels of the test rows."""
        stop = self.start + self.shape.windows * self.shape.test_rows
        if self.shape.unknown:
            return np.full(stop - self.start, -1, np.int8)
        return (self.moves[self.start + 2 : stop + 2] > 0.0).astype(np.int8)


def spread(net: Floats) -> Spread:
    std = float(net.std(ddof=1)) if net.size > 1 else math.nan
    return Spread(float(net.mean()), std, float(net.min()), float(net.max()), float((net > 0.0).mean()))


def config_of(shape: Shape) -> TrainingConfig:
    learners = [
        {"kind": "lightgbm", "trees": 60, "leaves": 3 + 2 * k, "learning_rate": 0.05, "leaf_rows_minimum": 20}
        for k in range(shape.trials - 1)
    ] + [{"kind": "logistic", "c": 0.1}]
    document: dict[str, Any] = {
        "data": {"kind": "daily", "source": "sp500"},
        "package": {"name": "sp500-daily", "repository": "models"},
        "learners": learners,
        "costs": {"fee_bps": 0.5, "half_spread_bps": 0.5},
        "periods_per_year": 252,
    }
    return parse_config(document | shape.more)


def run_result(folder: Path, shape: Shape = Shape()) -> RunResult:
    """A whole result; the same for the same shape."""
    builder = Builder(shape)
    config = config_of(shape)
    blocks = builder.blocks()
    p = [builder.probabilities(k) for k in range(shape.trials)]
    choices = [[builder.choose(p[k], validation) for validation, _ in blocks] for k in range(shape.trials)]
    tests = slice(builder.start, builder.start + shape.windows * shape.test_rows)
    chosen = [
        max(range(shape.trials), key=lambda k: choices[k][w][0].validation_net_return) for w in range(shape.windows)
    ]
    trials = []
    for k, learner in enumerate(config.learners):
        held = [builder.positions(p[k], choices[k][w][0].threshold, test) for w, (_, test) in enumerate(blocks)]
        earned = sum(choice.validation_net_return for choice, _ in choices[k])
        series = builder.series(np.concatenate(held), p[k][tests])
        trials.append(Trial(Configuration(k, learner), series, earned, chosen.count(k)))
    held = [builder.positions(p[k], choices[k][w][0].threshold, blocks[w][1]) for w, k in enumerate(chosen)]
    scored = np.concatenate([p[k][blocks[w][1]] for w, k in enumerate(chosen)])
    selected = builder.series(np.concatenate(held), scored)
    return RunResult(
        config=config,
        symbols=shape.symbols,
        rows=builder.rows,
        fingerprint="sha256:" + "0123456789abcdef" * 4,
        feature_names=shape.features,
        windows=tuple(_window(builder, w, k, choices[k][w][0], selected) for w, k in enumerate(chosen)),
        selected=selected,
        trials=tuple(trials),
        baselines=_baselines(builder, selected),
        overfitting=_overfitting(builder, trials, selected),
        diagnostics=_diagnostics(builder, [choices[k][w][1] for w, k in enumerate(chosen)], scored),
        verdict=_verdict(selected, shape.trials),
        suspicions=(),
        published=None,
        risk=None,
        folder=folder,
        seconds=1.5,
    )


def _window(builder: Builder, number: int, k: int, choice: ThresholdChoice, selected: Series) -> WindowResult:
    _, test = builder.blocks()[number]
    at = slice(test.start - builder.start, test.stop - builder.start)
    return WindowResult(
        number=number,
        configuration=k,
        train_rows=252,
        test_start_ns=int(builder.stamps_ns[test.start]),
        test_stop_ns=int(builder.stamps_ns[test.stop - 1]),
        threshold=choice.threshold,
        threshold_fallback=choice.fallback_because,
        calibration_identity="one class only" if number % 5 == 4 else "",
        validation_net_return=choice.validation_net_return,
        gross_return=float(selected.result.gross[at].sum()),
        net_return=float(selected.result.net[at].sum()),
        accuracy=math.nan if builder.shape.unknown else 0.5 + 0.01 * (number % 7),
        parity_difference=math.nan if builder.shape.unknown else 3.1e-7,
        parity_rows=0 if builder.shape.unknown else builder.shape.test_rows,
    )


def _baselines(builder: Builder, selected: Series) -> tuple[Baseline, ...]:
    rows = builder.shape.windows * builder.shape.test_rows
    long = backtest.constant_position(builder.market, builder.start, rows, _SIZING.capital, 0.5)
    signs = np.sign(builder.moves[builder.start : builder.start + rows]) * 100.0
    draws = [builder.random.choice([-100.0, 100.0], rows) for _ in range(20)]
    made = [measure(_run(builder, draw), 252.0) for draw in draws]
    better = sum(metrics.sharpe >= selected.net.sharpe for metrics in made)
    p_value = math.nan if selected.net.round_trips == 0 else (better + 1) / (len(made) + 1)
    return (
        Baseline("always long", measure(_run(builder, long), 252.0), math.nan),
        Baseline("random timing", made[0], p_value),
        Baseline("last sign", measure(_run(builder, signs), 252.0), math.nan),
    )


def _run(builder: Builder, positions: Floats) -> Backtest:
    return backtest.run(positions, builder.market, builder.start, _SIZING.capital, _COSTS)


def _overfitting(builder: Builder, trials: list[Trial], selected: Series) -> Overfitting:
    sharpes = np.array([trial.series.net.sharpe / math.sqrt(252.0) for trial in trials])
    unknown = builder.shape.unknown or len(trials) < 2
    names = ("probabilistic_sharpe_ratio_2012", "deflated_sharpe_ratio_2014", "minimum_track_record_length_2012")
    undefined = {"pbo": "fewer than two trials"} if unknown else {}
    if unknown or math.isnan(selected.net.sharpe):
        undefined |= dict.fromkeys((*names, "trials_variance", "sharpe"), "the returns do not vary")
    logits = np.empty(0) if unknown else np.round(builder.random.normal(1.0, 1.2, 70), 3)
    defined = "sharpe" not in undefined
    return Overfitting(
        trials=len(trials),
        trials_variance=float(sharpes.var(ddof=1)) if defined else math.nan,
        sharpe=selected.net.sharpe / math.sqrt(252.0) if defined else math.nan,
        statistics=dict(zip(names, (0.9912, 0.9634, 812.4) if defined else (math.nan,) * 3, strict=True)),
        pbo=math.nan if unknown else float((logits <= 0.0).mean()),
        logits=logits,
        undefined=undefined,
    )


def _diagnostics(builder: Builder, curves: list[ThresholdCurve], scored: Floats) -> Diagnostics:
    shape, width = builder.shape, len(builder.shape.features)
    importance = builder.random.dirichlet(np.linspace(4.0, 0.5, width), shape.windows)
    psi = builder.random.gamma(2.0, 0.06, (shape.windows, width)) * np.linspace(0.5, 2.0, width)
    null = np.full(width, 0.22)
    null[-1] = math.nan
    if shape.unknown:
        importance, psi, null = (np.full_like(array, math.nan) for array in (importance, psi, null))
    return Diagnostics(
        curves=tuple(ThresholdCurve(w, curve.thresholds, curve.net_returns) for w, curve in enumerate(curves)),
        probabilities=np.full_like(scored, math.nan) if shape.unknown else scored,
        directions=builder.directions,
        importance=importance,
        psi=psi,
        psi_null=null,
    )


def _verdict(selected: Series, trials: int) -> PromotionVerdict:
    net = selected.net
    checks = (
        check(CheckName.DEFLATED_SHARPE_2014, 0.9634, 0.95),
        check(CheckName.BACKTEST_OVERFITTING, math.nan, 0.5, "too few rows to split"),
        check(CheckName.PARITY_DIFFERENCE, 3.1e-7, 1e-5),
        check(CheckName.PARITY_ROWS, 480.0, 480.0),
        check(CheckName.ROUND_TRIPS, float(net.round_trips), 30.0),
        check(CheckName.RANDOM_P_VALUE, 0.2, 0.05),
    )
    return judge(checks, trials)
