"""Which configurations are tried: every learner as it stands, and as many drawn from its search space as asked for.

Configurations are asked of Optuna in batches of fixed size and told together, so that what is drawn does not depend on
how many run at once. A sampler that learns from what it is told is told the net return on the *first* window's
validation rows alone: these lie before every test row, so no test row decides what is tried, and appended rows change
nothing. All that were drawn are walked over all windows and count as trials.
"""

import math
from collections.abc import Callable, Sequence

import optuna

from tickgate_training.learners import LearnerConfig, sample
from tickgate_training.tuning import Configuration, TuningConfig

Score = Callable[[Sequence[LearnerConfig]], list[float]]
"""What configurations earn on the first window's validation rows, NaN where they cannot be fitted there."""


def configurations(
    learners: Sequence[LearnerConfig], tuning: TuningConfig, seed: int, score: Score
) -> tuple[Configuration, ...]:
    """The configurations of a run, in the order in which they were drawn; the same for the same arguments.

    Args:
        learners: As the file has them.
        tuning: How many, and how.
        seed: Of the sampler.
        score: Asked only where the sampler learns from it.
    """
    found: list[LearnerConfig] = []
    for number, learner in enumerate(learners):
        found.append(learner)
        if tuning.trials > 1:
            found += _drawn(learner, tuning, seed + number, score)
    return tuple(Configuration(number, learner) for number, learner in enumerate(found))


def _drawn(learner: LearnerConfig, tuning: TuningConfig, seed: int, score: Score) -> list[LearnerConfig]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
    study = optuna.create_study(direction="maximize", sampler=samplers[tuning.sampler](seed=seed))
    drawn: list[LearnerConfig] = []
    while len(drawn) < tuning.trials - 1:
        asked = [study.ask() for _ in range(min(tuning.batch, tuning.trials - 1 - len(drawn)))]
        batch = [sample(trial, learner) for trial in asked]
        values = score(batch) if tuning.sampler == "tpe" else [math.nan] * len(batch)
        for trial, value in zip(asked, values, strict=True):
            if math.isnan(value):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, value)
        drawn += batch
    return drawn
