"""Search spaces: what a file may say, and what a trial makes of it."""

import tomllib
from typing import Any

import optuna
import pytest

from tickgate_training.config import parse_config
from tickgate_training.errors import ConfigInvalid
from tickgate_training.learners import (
    GradientBoostingConfig,
    Learner,
    LightGBMConfig,
    LogisticConfig,
    PerceptronConfig,
    RandomForestConfig,
    Range,
    SearchSpace,
    SgdLogisticConfig,
    sample,
    space_of,
)

KINDS = [
    LightGBMConfig(),
    LogisticConfig(),
    RandomForestConfig(),
    GradientBoostingConfig(),
    PerceptronConfig(),
    SgdLogisticConfig(),
]
FILE = """
data.kind = "daily"
package.name = "m"

[[learners]]
kind = "lightgbm"
trees = 60
[learners.search]
learning_rate = { low = 0.01, high = 0.3, log = true }
leaves = { low = 3, high = 31, log = true }
l2 = [0.0, 1.0, 10.0]

[[learners]]
kind = "mlp"
search.activation = ["tanh", "relu"]
search.units = { low = 4, high = 16, step = 4 }
"""


def learners_of(text: str) -> tuple[Any, ...]:
    return parse_config(tomllib.loads(text)).learners


def study(seed: int = 1) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))


@pytest.mark.parametrize("learner", KINDS, ids=lambda learner: learner.kind)
def test_each_kind_can_be_searched_without_a_word_in_the_file(learner: Learner) -> None:
    asked = study()
    points = []
    for _ in range(20):
        trial = asked.ask()
        point = sample(trial, learner)
        assert type(point) is type(learner)
        assert point.search is None
        assert {name: getattr(point, name) for name in trial.params} == trial.params
        points.append(point)
    space = space_of(learner).root
    for name in type(learner).model_fields:
        values = {getattr(point, name) for point in points if name != "search"}
        assert (len(values) > 1) == (name in space)


def test_what_a_file_says_is_what_is_asked_for_in_the_order_of_the_fields() -> None:
    lightgbm, perceptron = learners_of(FILE)
    asked = study()
    for _ in range(30):
        trial = asked.ask()
        point = sample(trial, lightgbm)
        assert list(trial.params) == ["leaves", "learning_rate", "l2"]
        assert point.trees == 60
        assert 3 <= point.leaves <= 31
        assert 0.01 <= point.learning_rate <= 0.3
        assert point.l2 in {0.0, 1.0, 10.0}
        trial = asked.ask()
        point = sample(trial, perceptron)
        assert point.units in {4, 8, 12, 16}
        assert point.activation in {"tanh", "relu"}
    distributions = trial.distributions
    assert distributions["units"] == optuna.distributions.IntDistribution(4, 16, step=4)


def test_a_finished_trial_gives_its_point_again() -> None:
    (lightgbm, _), asked = learners_of(FILE), study()
    trial = asked.ask()
    point = sample(trial, lightgbm)
    asked.tell(trial, 0.0)
    assert sample(asked.trials[0], lightgbm) == point
    assert sample(optuna.trial.FixedTrial(trial.params), lightgbm) == point


def test_a_space_from_elsewhere_goes_before_the_learners_own() -> None:
    (lightgbm, _) = learners_of(FILE)
    trial = study().ask()
    sample(trial, lightgbm, SearchSpace({"trees": Range(low=5, high=9)}))
    assert list(trial.params) == ["trees"]


@pytest.mark.parametrize(
    ("search", "why"),
    [
        ("leafs = [3, 4]", "leafs: not a field to search; known: trees, leaves"),
        ("kind = ['logistic']", "kind: not a field to search"),
        ("threads = [1, 2]", "threads: not a field to search"),
        ("leaves = { low = 3.5, high = 9 }", "leaves: takes whole numbers"),
        ("leaves = { low = 3, high = 9, step = 0.5 }", "leaves: takes whole numbers"),
        ("leaves = { low = 1, high = 9 }", "leaves: 1: Input should be greater than or equal to 2"),
        ("learning_rate = { low = 0.1, high = 3.0 }", "learning_rate: 3.0: Input should be less than or equal to 1"),
        ("learning_rate = [0.1, 'fast']", "learning_rate: 'fast': Input should be a valid number"),
        ("leaves = { low = 9, high = 3 }", "low 9 must be below high 3"),
        ("leaves = { low = 3, high = 3 }", "low 3 must be below high 3"),
        ("l2 = { low = 0.0, high = 3.0, log = true }", "low 0 must be above 0 where log is true"),
        ("leaves = { low = 3, high = 9, log = true, step = 2 }", "by its logarithm or in steps, not both"),
        ("leaves = { low = 3, high = 9, step = 0 }", "greater than 0"),
        ("leaves = { low = 3, hihg = 9 }", "hihg"),
        ("leaves = []", "leaves: nothing to choose from"),
    ],
)
def test_a_space_that_is_none_is_an_error_that_names_the_field(search: str, why: str) -> None:
    text = f"data.kind = 'daily'\npackage.name = 'm'\n[[learners]]\nkind = 'lightgbm'\n[learners.search]\n{search}"
    with pytest.raises(ConfigInvalid, match=r"learners\.0") as caught:
        learners_of(text)
    assert why in str(caught.value)


def test_words_are_not_a_range() -> None:
    with pytest.raises(ConfigInvalid, match="activation: takes a list to choose from, not a range"):
        sample(study().ask(), PerceptronConfig(), SearchSpace({"activation": Range(low=0, high=1)}))


def test_a_space_given_to_sample_is_held_to_the_same_rules() -> None:
    with pytest.raises(ConfigInvalid, match="depth: not a field to search") as caught:
        sample(study().ask(), LightGBMConfig(), SearchSpace({"depth": (1, 2), "leaves": (1, 5)}))
    assert len(caught.value.problems) == 2
