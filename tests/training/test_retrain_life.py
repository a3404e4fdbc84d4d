"""A market's whole life: where it turns a challenger takes over, where it does not hardly any does."""

from collections.abc import Callable
from pathlib import Path

from tests.training.turning_market import live

TURNING_SEEDS = (2, 10)
STEADY_SEEDS = (1, 10)
NEEDLESS_AT_MOST = 1


def test_where_the_edge_changes_its_sign_a_challenger_takes_over_and_earns_what_the_champion_loses(
    tmp_path: Path, soak: Callable[[int, int], int]
) -> None:
    for seed in range(soak(*TURNING_SEEDS)):
        life = live(tmp_path / str(seed), seed)
        before, after = life.frozen[: life.turn].sum(), life.frozen[life.turn :].sum()
        assert before > 0.0 > after, seed  # the champion degrades
        promoted = [line for line in life.lines if line.decision == "promoted"]
        assert promoted, seed
        first = promoted[0]
        assert first.window is not None
        assert first.verdict is not None
        assert first.verdict.passed
        assert first.champion is not None
        assert (first.champion.metrics["net_total_return_summed"] or 0.0) < 0.0
        assert life.stitched.sum() > life.frozen.sum(), seed
        assert life.stitched[life.turn :].sum() > after, seed


def test_where_the_market_stays_the_same_hardly_any_challenger_takes_over(
    tmp_path: Path, soak: Callable[[int, int], int]
) -> None:
    promotions = [live(tmp_path / str(seed), seed, turns=False).promotions for seed in range(soak(*STEADY_SEEDS))]
    assert sum(promotions) <= NEEDLESS_AT_MOST, promotions
