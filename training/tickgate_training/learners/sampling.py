"""A trial's draw from a learner's search space, through Optuna's `suggest_*`."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from tickgate_training.errors import ConfigInvalid
from tickgate_training.learners.base import Learner
from tickgate_training.learners.search import Choices, Range, Scalar, SearchSpace, problems


class Suggests(Protocol):
    """What is asked of a trial: `optuna.trial.Trial`, `FixedTrial` and `FrozenTrial` answer."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """An integer from `low` to `high`."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number from `low` to `high`."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""


L = TypeVar("L", bound=Learner)


def space_of(learner: Learner) -> SearchSpace:
    """The space that a learner is searched in: its own, or its kind's default."""
    return type(learner).default_search if learner.search is None else learner.search


def sample(trial: Suggests, learner: L, search: SearchSpace | None = None) -> L:
    """The learner with the values that a trial suggests, and without a search space: one point of it.

    Fields are asked for by their names and in the order of the learner, whatever the order of the file.

    Args:
        trial: Of Optuna, or a stand-in.
        learner: Its values stay where the space names none.
        search: The space; None takes `space_of` the learner.

    Raises:
        ConfigInvalid: The space names a field that the learner has not, or values that it cannot take; each is named.
    """
    space = space_of(learner) if search is None else search
    found = problems(learner, space, learner.not_searched)
    if found:
        raise ConfigInvalid(f"search space of {type(learner).__name__}", found)
    fields = type(learner).model_fields
    drawn = {
        name: _suggest(trial, name, space.root[name], whole=fields[name].annotation is int)
        for name in fields
        if name in space.root
    }
    return type(learner).model_validate(learner.model_dump() | drawn | {"search": None})


def _suggest(trial: Suggests, name: str, values: Range | Choices, *, whole: bool) -> Scalar:
    if isinstance(values, tuple):
        chosen: Scalar = trial.suggest_categorical(name, values)
        return chosen
    if whole:
        step = 1 if values.step is None else int(values.step)
        return trial.suggest_int(name, int(values.low), int(values.high), step=step, log=values.log)
    return trial.suggest_float(name, float(values.low), float(values.high), step=values.step, log=values.log)
