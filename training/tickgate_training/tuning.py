"""How many configurations of each learner are tried, and how they are drawn; `trials` draws them."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from tickgate_training.learners import LearnerConfig
from tickgate_training.strict import Strict


class TuningConfig(Strict):
    """How many configurations of each learner are tried, and how they are drawn.

    `random` draws each for itself; `tpe` (Bergstra et al., "Algorithms for hyper-parameter optimization", NIPS 2011)
    from what the batches before it earned on the first window's validation rows. The first is always the learner as
    the file has it.
    """

    trials: int = Field(default=1, ge=1, le=10_000)
    batch: int = Field(default=4, ge=1)
    sampler: Literal["random", "tpe"] = "random"


@dataclass(frozen=True, slots=True)
class Configuration:
    """One of the things that are tried.

    Attributes:
        number: From 0, over all learners.
        learner: With its hyper-parameters.
    """

    number: int
    learner: LearnerConfig
