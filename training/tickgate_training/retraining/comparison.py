"""Champion and challenger on the same rows: both through their ONNX graphs, sized, delayed and charged as the backtest.

Neither was fitted on the evaluation block. The challenger that is compared was chosen on validation rows, which lie
before it; so the block decides one question only, and is asked it once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.errors import ModelError
from tickgate_server.models.package import MODEL_FILE, Manifest, read_manifest, sha256
from tickgate_server.models.verdict import PromotionVerdict
from tickgate_training.config import TrainingConfig
from tickgate_training.errors import SeriesInvalid, TooFewRows
from tickgate_training.export import check_parity, export, probabilities
from tickgate_training.folds import Fitted
from tickgate_training.metrics import Metrics, measure
from tickgate_training.overfitting.pbo import backtest_overfitting
from tickgate_training.overfitting.sharpe import (
    SharpeSample,
    expected_maximum_sharpe,
    minimum_track_record_2012,
    probabilistic_sharpe_2012,
    sample_of,
    sharpe_variance_2025,
    variance_of_maximum,
)
from tickgate_training.publishing import walk_forward_metrics
from tickgate_training.retraining.challengers import Challenger
from tickgate_training.retraining.config import RuleConfig
from tickgate_training.retraining.errors import ChampionNotComparable
from tickgate_training.retraining.paired import PairedTest, paired_test
from tickgate_training.samples import Samples
from tickgate_training.splits import Block
from tickgate_training.trading import Traded, Trader
from tickgate_training.verdict import Evidence, Parity, promotion_verdict

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that serves: its manifest, and the bytes of its graph."""

    manifest: Manifest
    graph: bytes


@dataclass(frozen=True, slots=True)
class Scored:
    """A model on a block of rows.

    Attributes:
        threshold: That its probabilities were held against.
        traded: What it earned.
        net: Measured net of costs.
        metrics: Net and gross, by the names of a manifest.
    """

    threshold: float
    traded: Traded
    net: Metrics
    metrics: dict[str, float | int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the evaluation block says.

    Attributes:
        champion: On it.
        challenger: Likewise, the chosen one.
        test: Whether the challenger is better.
        verdict: On the challenger by itself.
    """

    champion: Scored
    challenger: Scored
    test: PairedTest
    verdict: PromotionVerdict


def read_champion(folder: Path, version: int, samples: Samples, config: TrainingConfig) -> Champion:
    """The champion's package, if it can be scored on these rows.

    Args:
        folder: `<repository>/<name>`.
        version: In production.
        samples: Whose features it is to score.
        config: Whose horizon positions are sized by.

    Raises:
        ChampionNotComparable: Its package is not whole, it takes other features, or speaks of another horizon.
    """
    try:
        manifest = read_manifest(folder / str(version))
        path = folder / str(version) / MODEL_FILE
        graph, found = path.read_bytes(), sha256(path)
    except (ModelError, OSError) as error:
        raise ChampionNotComparable(folder.name, version, str(error)) from error

    def require(what: str, has: object, needed: object) -> None:
        if has != needed:
            raise ChampionNotComparable(folder.name, version, f"its {what} is {has}, expected {needed}")

    require("hash", found, manifest.model_sha256)
    require("schema id", manifest.features.schema_id, samples.feature_set.schema_id)
    require("horizon in trades", manifest.output.horizon_trades, config.label.horizon_trades)
    return Champion(manifest, graph)


def compare(
    champion: Champion,
    challengers: Sequence[Challenger],
    chosen: int,
    samples: Samples,
    block: Block,
    config: TrainingConfig,
    *,
    trials: int,
    rule: RuleConfig,
) -> Comparison:
    """Score, trade and test on the evaluation block.

    Args:
        champion: That serves.
        challengers: All that were fitted.
        chosen: Place of the one to be compared.
        samples: The newest data.
        block: Evaluation rows.
        config: Costs, sizing, lag, and limits of the verdict.
        trials: Challengers tried against this champion, in this round and before.
        rule: Margin and least number of blocks of the paired test.

    Raises:
        ParityBroken: The challenger's graph is not the challenger.
        TooFewRows: The block is too short to be traded.
        SeriesInvalid: A mark is not finite.
    """
    trader = Trader(samples.books, samples.stamps_ns, config)
    fitted = challengers[chosen].fitted
    graph = export(fitted.model, fitted.calibration, fitted.primary)
    rows = np.arange(block.start, block.stop)
    ready = samples.features[rows[samples.ready[rows]]]
    difference = check_parity(graph, fitted.probabilities, ready, fitted.choice.threshold) if len(ready) else math.nan
    theirs = _scored(_through(champion.graph, samples, rows), champion.manifest.decision_threshold, block, trader,
                     samples, config)  # fmt: skip
    ours = _scored(_through(graph, samples, rows), fitted.choice.threshold, block, trader, samples, config)
    if not np.array_equal(ours.traded.stamps_ns, theirs.traded.stamps_ns):
        raise SeriesInvalid("periods", None, "other stamps of the champion's", "both trade the same rows")
    others = [_net(one.fitted, samples, rows, block, trader) for k, one in enumerate(challengers) if k != chosen]
    test = paired_test(
        ours.traded.result.net,
        theirs.traded.result.net,
        _standing(samples, config),
        margin=rule.margin,
        blocks_minimum=rule.blocks_minimum,
    )
    returns = np.column_stack([theirs.traded.result.net, *others, ours.traded.result.net])
    evidence = _evidence(returns, ours.net, Parity(difference, len(ready), len(ready)), config, trials)
    return Comparison(theirs, ours, test, promotion_verdict(evidence, config.promotion))


def deflated_sharpe(sample: SharpeSample, trials: int) -> tuple[float, float]:
    """Deflated Sharpe ratios in the forms of 2014 and 2025, of one of many tries that lie on other rows each.

    `overfitting.sharpe.deflated_sharpe_2014` takes the variance across trials from the data, which are all on the same
    rows there. Challengers of different rounds are not, and across a turn of the market their Sharpe ratios differ for
    another reason than chance. So the variance that the best of N is expected by is that of one estimate under the
    null hypothesis of no skill, V(0) of López de Prado, Lipton and Zoonekynd (2025); autocorrelation counts.

    Args:
        sample: Of the returns to be judged.
        trials: N, at least 1.
    """
    null = expected_maximum_sharpe(trials, max(sharpe_variance_2025(sample, 0.0), 0.0)) if sample.periods else math.nan
    variance = sharpe_variance_2025(sample, null) * variance_of_maximum(trials)
    late = _NORMAL.cdf((sample.sharpe - null) / math.sqrt(variance)) if variance > 0.0 else math.nan
    return probabilistic_sharpe_2012(sample, null), late


def _evidence(
    returns: NDArray[np.float64], net: Metrics, parity: Parity, config: TrainingConfig, trials: int
) -> Evidence:
    """Of the last column, the challenger's, which was taken among the others: champion first."""
    limits = config.promotion
    why: dict[str, str] = {}
    early = late = overfitting = track = math.nan
    names = ("deflated_sharpe_2014", "deflated_sharpe_2025", "minimum_track_record_2012", "backtest_overfitting")
    if not np.isfinite(returns).all():
        why = dict.fromkeys(names, "a return is not finite")
    elif "sharpe" in net.undefined:
        why = dict.fromkeys(names, net.undefined["sharpe"])
    else:
        sample = sample_of(returns[:, -1])
        early, late = deflated_sharpe(sample, trials)
        track = minimum_track_record_2012(sample, 0.0, limits.track_record_confidence)
        if math.isinf(track):
            why["minimum_track_record_2012"] = f"no track record is long enough for a Sharpe ratio of {sample.sharpe:g}"
        try:
            found = backtest_overfitting(returns, limits.cross_validation_blocks)
            overfitting, reason = found.pbo, found.undefined.get("pbo", "")
        except TooFewRows as error:  # denies, and says why
            reason = str(error)
        why |= {"backtest_overfitting": reason} if reason else {}
    return Evidence(trials, early, late, overfitting, track, net, parity, None, why)


def _standing(samples: Samples, config: TrainingConfig) -> int:
    """Periods that a position stands for, or a label looks over: returns of blocks as long do not overlap."""
    label = config.label
    return max(label.horizon_trades + label.lag_trades, config.policy.decide_every_rows) * len(samples.books)


def _through(graph: bytes, samples: Samples, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """P(up) of rows as the graph gives it, float64 [n]; NaN where the features are not ready."""
    found = np.full(rows.size, np.nan)
    ready = samples.ready[rows]
    if ready.any():
        found[ready] = probabilities(graph, samples.features[rows[ready]])
    return found


def _scored(
    p: NDArray[np.float64], threshold: float, block: Block, trader: Trader, samples: Samples, config: TrainingConfig
) -> Scored:
    traded = trader.run(trader.decide(p, threshold, block.start), block.start)
    periods = config.periods_per_year
    net, gross = measure(traded.result, periods), measure(traded.result, periods, net=False)
    directions = samples.labels.direction[block.rows]
    known = np.isfinite(p) & (directions >= 0)
    right = float(((p[known] >= 0.5) == (directions[known] == 1)).mean()) if known.any() else math.nan
    up = float((directions[known] == 1).mean()) if known.any() else math.nan
    return Scored(threshold, traded, net, walk_forward_metrics(gross, net, right, max(up, 1.0 - up)))


def _net(
    fitted: Fitted, samples: Samples, rows: NDArray[np.int64], block: Block, trader: Trader
) -> NDArray[np.float64]:
    positions = trader.decide(fitted.score(samples, rows), fitted.choice.threshold, block.start)
    return np.asarray(trader.run(positions, block.start).result.net)
