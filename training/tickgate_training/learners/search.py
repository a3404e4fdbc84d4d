"""Where to look for better hyper-parameters: a description that stands in the configuration, beside the learner.

    [[learners]]
    kind = "lightgbm"
    [learners.search]
    leaves = { low = 3, high = 31, log = true }
    learning_rate = { low = 0.01, high = 0.3, log = true }
    l2 = [0.0, 1.0, 10.0]

A field takes a range, both ends of which belong to it, or a list to choose from. What is not named keeps the learner's
own value. `sampling` draws from it.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from tickgate_training.strict import Strict

Scalar = bool | int | float | str
Choices = tuple[Scalar, ...]


class Range(Strict):
    """All values from `low` to `high`, evenly or by their logarithm, in steps where there is one."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be above 0 where log is true")
        if self.log and self.step is not None:
            raise ValueError("a range is searched by its logarithm or in steps, not both")
        return self


class SearchSpace(RootModel[dict[str, Range | Choices]]):
    """Fields of a learner, each with the values it may take."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _leaves_a_choice(self) -> "SearchSpace":
        for name, values in self.root.items():
            if isinstance(values, tuple) and not values:
                raise ValueError(f"{name}: nothing to choose from")
        return self


def problems(learner: BaseModel, space: SearchSpace, not_searched: AbstractSet[str]) -> tuple[str, ...]:
    """What is wrong with a space for a learner, a line for each field at fault; empty where nothing is."""
    known = [name for name in type(learner).model_fields if name not in not_searched]
    found = []
    for name, values in space.root.items():
        if name not in known:
            found.append(f"{name}: not a field to search; known: {', '.join(known)}")
        elif why := _problem(learner, name, values):
            found.append(f"{name}: {why}")
    return tuple(found)


def _problem(learner: BaseModel, name: str, values: Range | Choices) -> str:
    annotation = type(learner).model_fields[name].annotation
    if isinstance(values, tuple):
        tried: Sequence[Scalar] = values
    elif annotation not in {int, float}:
        return "takes a list to choose from, not a range"
    else:
        tried = (values.low, values.high)
        numbers = [values.low, values.high, 1 if values.step is None else values.step]
        if annotation is int and any(number != int(number) for number in numbers):
            return "takes whole numbers"
    own = learner.model_dump() | {"search": None}
    for value in tried:
        try:
            type(learner).model_validate(own | {name: value})
        except ValidationError as error:
            return f"{value!r}: {error.errors()[0]['msg']}"
    return ""
