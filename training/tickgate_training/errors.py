"""What can go wrong in training.

    TrainingError
    ├── DataError                 the data are not what they must be; says where
    │   ├── SourceUnreadable      a file or data set is absent or cannot be read
    │   ├── MalformedLine         a line of a capture is not what its feed sends
    │   ├── ColumnInvalid         a column is absent or of another type
    │   └── RowInvalid            a row breaks a rule of the canonical table
    ├── ConfigInvalid             a configuration has an unknown key or a value out of range
    ├── TooFewRows                fewer rows than the stage needs
    ├── FeatureUndefined          a feature has no finite value, or a fitted row has one that is not
    ├── OneClassOnly              all labels to fit on are the same
    ├── NotConverged              a fit stopped before it was done
    └── ParityBroken              the exported graph does not give the outputs of its source

`tickgate_server.models.errors` has what publishing raises.
"""

from pathlib import Path


class TrainingError(Exception):
    """Root of this tree."""


class DataError(TrainingError):
    """The data are not what they must be."""


class SourceUnreadable(DataError):
    """A file or data set is absent or cannot be read.

    Attributes:
        source: Path or name as the caller gave it.
        why: What was found and what was expected.
    """

    def __init__(self, source: str, why: str) -> None:
        super().__init__(f"{source}: {why}")
        self.source = source
        self.why = why


class MalformedLine(DataError):
    """A line of a capture is not what its feed sends.

    Attributes:
        path: The file.
        line: Its number, from 1.
        found: What stands there, shortened.
        expected: What should.
    """

    def __init__(self, path: Path, line: int, found: str, expected: str) -> None:
        super().__init__(f"{path}, line {line}: found {found}; expected {expected}")
        self.path = path
        self.line = line
        self.found = found
        self.expected = expected


class ColumnInvalid(DataError):
    """A column of the canonical table is absent or of another type.

    Attributes:
        column: Its name.
    """

    def __init__(self, column: str, found: str, expected: str) -> None:
        super().__init__(f"column {column!r}: found {found}, expected {expected}")
        self.column = column


class RowInvalid(DataError):
    """A row of the canonical table breaks a rule.

    Attributes:
        column: The column at fault.
        row: The first such row, from 0.
        rule: What must hold.
    """

    def __init__(self, column: str, row: int, found: str, rule: str) -> None:
        super().__init__(f"column {column!r}, row {row}: found {found}, but {rule}")
        self.column = column
        self.row = row
        self.rule = rule


class ConfigInvalid(TrainingError):
    """A configuration has an unknown key, lacks one, or has a value out of range.

    Attributes:
        source: The file, or `configuration`.
        problems: One line for each key at fault.
    """

    def __init__(self, source: str, problems: tuple[str, ...]) -> None:
        super().__init__(f"{source}: {'; '.join(problems)}")
        self.source = source
        self.problems = problems


class TooFewRows(TrainingError):
    """Fewer rows than the stage needs.

    Attributes:
        stage: What they are needed for.
        found: How many there are.
        needed: How many it takes.
    """

    def __init__(self, stage: str, found: int, needed: int) -> None:
        super().__init__(f"{stage}: {found} rows, at least {needed} needed")
        self.stage = stage
        self.found = found
        self.needed = needed


class FeatureUndefined(TrainingError):
    """A feature has no finite value at all, or is not finite in a row that is to be fitted or scored.

    Attributes:
        feature: Its name.
        row: The first such row, from 0; None where no row is defined.
    """

    def __init__(self, feature: str, row: int | None) -> None:
        where = "in every row" if row is None else f"in row {row}"
        super().__init__(f"feature {feature!r} is not finite {where}")
        self.feature = feature
        self.row = row


class OneClassOnly(TrainingError):
    """All labels to fit on are the same, so there is nothing to tell apart.

    Attributes:
        label: The one class found.
        rows: How many rows have it.
    """

    def __init__(self, label: int, rows: int) -> None:
        super().__init__(f"all {rows} labels are {label}; a classifier needs both 0 (down) and 1 (up)")
        self.label = label
        self.rows = rows


class NotConverged(TrainingError):
    """A fit stopped before it was done; what it would give is another model on each machine.

    Attributes:
        learner: Its kind.
    """

    def __init__(self, learner: str, why: str) -> None:
        super().__init__(f"the fit of {learner!r} did not converge: {why}")
        self.learner = learner


class ParityBroken(TrainingError):
    """The exported graph does not give the outputs of its source.

    Attributes:
        row: The worst row, from 0.
        exported: The graph's output there.
        reference: The source model's.
    """

    def __init__(self, row: int, exported: float, reference: float, rule: str) -> None:
        super().__init__(f"row {row}: the graph gives {exported!r}, its source {reference!r}; {rule}")
        self.row = row
        self.exported = exported
        self.reference = reference
