"""Which configurations a run tries."""

import math
from collections.abc import Sequence

import pytest

from tickgate_training.learners import LearnerConfig, LightGBMConfig, LogisticConfig
from tickgate_training.trials import configurations
from tickgate_training.tuning import TuningConfig

LEARNERS: tuple[LearnerConfig, ...] = (LightGBMConfig(trees=11), LogisticConfig(c=7.0))


def nothing(learners: Sequence[LearnerConfig]) -> list[float]:
    raise AssertionError(f"not to be asked about {learners}")


def test_alone_each_learner_is_tried_as_the_file_has_it() -> None:
    found = configurations(LEARNERS, TuningConfig(), 1, nothing)
    assert [one.learner for one in found] == list(LEARNERS)
    assert [one.number for one in found] == [0, 1]


def test_the_first_of_each_learner_is_the_files_and_the_others_are_drawn() -> None:
    found = configurations(LEARNERS, TuningConfig(trials=6), 1, nothing)
    assert len(found) == 12
    assert (found[0].learner, found[6].learner) == LEARNERS
    drawn = [one.learner.model_dump_json() for one in found]
    assert len(set(drawn)) == 12
    assert [one.learner.kind for one in found] == ["lightgbm"] * 6 + ["logistic"] * 6


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_same_seed_draws_the_same_whatever_was_drawn_before(sampler: str) -> None:
    def score(learners: Sequence[LearnerConfig]) -> list[float]:
        return [-abs(math.log(learner.c)) for learner in learners if isinstance(learner, LogisticConfig)]

    tuning = TuningConfig(trials=9, sampler=sampler)  # type: ignore[arg-type]
    found, again, other = (configurations(LEARNERS[1:], tuning, seed, score) for seed in (1, 1, 2))
    assert found == again
    assert found[0] == other[0]
    assert found != other


def test_a_sampler_that_learns_is_told_in_batches_and_looks_where_more_was_earned() -> None:
    asked: list[int] = []

    def score(learners: Sequence[LearnerConfig]) -> list[float]:
        asked.append(len(learners))
        return [-abs(math.log10(learner.c) - 1.0) for learner in learners if isinstance(learner, LogisticConfig)]

    tuning = TuningConfig(trials=41, batch=10, sampler="tpe")
    found = configurations(LEARNERS[1:], tuning, 3, score)
    assert asked == [10, 10, 10, 10]
    away = [abs(math.log10(one.learner.c) - 1.0) for one in found if isinstance(one.learner, LogisticConfig)]
    assert sum(away[31:]) < sum(away[1:11])


def test_what_cannot_be_fitted_is_tried_all_the_same() -> None:
    found = configurations(
        LEARNERS[1:], TuningConfig(trials=5, sampler="tpe"), 1, lambda learners: [math.nan] * len(learners)
    )
    assert len(found) == 5
