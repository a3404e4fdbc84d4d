"""Whole runs on data whose truth is known: an edge that is there is found, and of noise hardly any is promoted."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.training.runs import LIGHTGBM, LOGISTIC, UNPUBLISHED, config, short_run

from tickgate_server.models.verdict import CheckName
from tickgate_training import samples
from tickgate_training.data.simulator import simulate
from tickgate_training.errors import LeakFound
from tickgate_training.labels import Labels
from tickgate_training.labels.config import FixedHorizonConfig
from tickgate_training.pipeline import run

SEEDS = 20
PROMOTED_AT_MOST = 1
SHORT = {"train_rows": 1000, "validation_rows": 500, "test_rows": 500, "embargo_rows": 10}
LEARNERS = [LIGHTGBM, {**LOGISTIC, "c": 1.0}, {**LOGISTIC, "c": 0.001}]


def free_noise(seed: int) -> pl.DataFrame:
    """A random walk that is traded at its mid for nothing: with costs noise only loses, here it may win by luck."""
    frame = simulate(5000, seed)
    mid = (pl.col("bid") + pl.col("ask")) / 2.0
    return frame.with_columns(price=mid, bid=mid, ask=mid)


def test_of_pure_noise_over_twenty_seeds_hardly_any_is_fit_for_promotion(tmp_path: Path) -> None:
    settings = config(tmp_path, walk_forward=SHORT, learners=LEARNERS)
    promoted, lucky = [], 0
    for seed in range(SEEDS):
        found = run(settings, UNPUBLISHED, frame=free_noise(seed))
        promoted += [seed] if found.verdict.passed else []
        lucky += found.selected.net.total_return_summed > 0.0
    assert len(promoted) <= PROMOTED_AT_MOST, promoted
    assert SEEDS // 4 < lucky < SEEDS - SEEDS // 4  # a fair game


@pytest.mark.parametrize("seed", range(3))
def test_an_edge_that_is_there_is_fit_for_promotion(tmp_path: Path, seed: int) -> None:
    edge = {"kind": "simulated", "trades": 9000, "seed": seed, "edge": 0.35}
    found = short_run(tmp_path, UNPUBLISHED, data=edge, walk_forward=SHORT, learners=LEARNERS)
    checks = {check.name: check for check in found.verdict.checks}
    assert checks[CheckName.DEFLATED_SHARPE_2014].value is not None
    assert checks[CheckName.DEFLATED_SHARPE_2014].value > 0.95
    assert checks[CheckName.DEFLATED_SHARPE_2014].passed
    assert checks[CheckName.RANDOM_P_VALUE].passed


def shifted(tick: int) -> type[FixedHorizonConfig]:
    """Labels moved by a tick, their intervals as they were."""
    honest = FixedHorizonConfig.apply

    def apply(
        self: FixedHorizonConfig,
        prices: np.ndarray,
        trade_volatilities: np.ndarray,
        stamps_ns: np.ndarray,
        session_gap_ns: int,
        side: np.ndarray | None = None,
    ) -> Labels:
        found = honest(self, prices, trade_volatilities, stamps_ns, session_gap_ns, side)
        moved = [np.roll(values, tick) for values in (found.direction, found.returns)]
        return Labels(moved[0], moved[1], found.interval_end)

    return apply  # type: ignore[return-value]


@pytest.mark.parametrize("tick", [-1, 1], ids=["into the future", "onto the decision"])
def test_a_label_shifted_by_one_tick_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tick: int) -> None:
    monkeypatch.setattr(FixedHorizonConfig, "apply", shifted(tick))
    with pytest.raises(LeakFound, match="labels of SIM"):
        run(config(tmp_path), UNPUBLISHED)
    assert not (tmp_path / "runs").exists()


def test_a_feature_that_peeks_one_tick_ahead_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = samples.compute_features
    monkeypatch.setattr(
        "tickgate_training.leak_check.compute_features", lambda *given: np.roll(honest(*given), -1, axis=0)
    )
    with pytest.raises(LeakFound, match="features of SIM"):
        run(config(tmp_path), UNPUBLISHED)
