"""What can go wrong in a round of retraining.

    TrainingError
    └── RetrainError
        ├── ChampionMissing           the repository has no version to compare with
        ├── ChampionNotComparable     the champion cannot be scored on the same rows
        ├── NothingNew                too few rows, or sessions, are newer than what was evaluated before
        ├── NoChallenger              none of the configured challengers could be fitted
        ├── StateInvalid              a file of the state cannot be read
        └── RetrainStopped            the process was asked to end

Each is a round's outcome, with its text as the reason.
"""

from pathlib import Path

from tickgate_training.errors import TrainingError


class RetrainError(TrainingError):
    """Root of this tree."""


class ChampionMissing(RetrainError):
    """The repository has no version to compare with.

    Attributes:
        repository: Its folder.
        name: Of the model.
    """

    def __init__(self, repository: Path, name: str) -> None:
        super().__init__(
            f"{repository} has no version of {name!r} in production; publish a first one with `tickgate train`"
        )
        self.repository = repository
        self.name = name


class ChampionNotComparable(RetrainError):
    """The champion cannot be scored on the rows that a challenger is scored on.

    Attributes:
        name: Of the model.
        version: Of the champion.
        why: What differs or is missing.
    """

    def __init__(self, name: str, version: int, why: str) -> None:
        super().__init__(f"champion {name}:{version}: {why}")
        self.name = name
        self.version = version
        self.why = why


class NothingNew(RetrainError):
    """Too little is newer than what an earlier round evaluated: an evaluation block is looked at once.

    Attributes:
        found: Rows, or sessions, that are newer.
        needed: Length of the evaluation block.
        unit: What is counted.
    """

    def __init__(self, found: int, needed: int, unit: str) -> None:
        super().__init__(f"{found} {unit} are newer than the last evaluation block, {needed} are needed for the next")
        self.found = found
        self.needed = needed
        self.unit = unit


class NoChallenger(RetrainError):
    """None of the configured challengers could be fitted.

    Attributes:
        why: By kind.
    """

    def __init__(self, why: tuple[str, ...]) -> None:
        super().__init__(f"no challenger could be fitted: {'; '.join(why)}")
        self.why = why


class StateInvalid(RetrainError):
    """A file of the state is not what was written there.

    Attributes:
        path: The file.
        why: What was found and what was expected.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class RetrainStopped(RetrainError):
    """The process was asked to end, and did between two steps.

    Attributes:
        before: The step that was not taken.
    """

    def __init__(self, before: str) -> None:
        super().__init__(f"stopped before the step {before!r}")
        self.before = before
