"""What can go wrong in training.

    TrainingError
    ├── DataError                 the data are not what they must be; says where
    │   ├── SourceUnreadable      a file or data set is absent or cannot be read
    │   ├── MalformedLine         a line of a capture is not what its feed sends
    │   ├── ColumnInvalid         a column is absent or of another type
    │   ├── RowInvalid            a row breaks a rule of the canonical table
    │   │   ├── CellInvalid       a cell of a file is not what its column holds
    │   │   └── TickRejected      a tick of a file breaks one of the server's rules
    │   ├── CalendarInvalid       a session calendar is unknown or does not cover the stamps
    │   └── FundamentalUnknown    no symbol has a fundamental of this name
    ├── ConfigInvalid             a configuration has an unknown key or a value out of range
    ├── TooFewRows                fewer rows than the stage needs
    ├── WeightsUndefined          no fitted row has a weight above zero, or one is not finite
    ├── LeakFound                 a row depends on one that it must not know
    ├── FeatureUndefined          a feature has no finite value, or a fitted row has one that is not
    ├── FeatureConstant           a feature has the same value in every row that is to be fitted
    ├── OneClassOnly              all labels to fit on are the same
    ├── NotConverged              a fit stopped before it was done
    ├── BackendUnavailable        what folds should run on is not there
    ├── RunInUse                  another process works on the same run
    ├── SeriesInvalid             an array handed to a computation has a value, or a shape, that it must not have
    ├── ArgumentInvalid           a number handed to a computation lies outside what it may be
    └── ParityBroken              what was exported does not give the outputs of its source

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


class CellInvalid(RowInvalid):
    """A cell of a file is not what its column holds; `row` counts the file's rows below its header, from 0.

    Attributes:
        source: The file.
    """

    def __init__(self, source: str, column: str, row: int, found: str, rule: str) -> None:
        super().__init__(column, row, found, rule)
        self.source = source

    def __str__(self) -> str:
        return f"{self.source}: {super().__str__()}"


class TickRejected(RowInvalid):
    """A tick of a file breaks one of the rules that the server holds ticks to; `row` as in `CellInvalid`.

    Attributes:
        source: The file.
        symbol: The tick's.
        reason: Name of the rule: INVALID_VALUE, DUPLICATE, OUT_OF_ORDER or CROSSED_QUOTE.
    """

    def __init__(self, source: str, symbol: str, column: str, row: int, found: str, rule: str, reason: str) -> None:
        super().__init__(column, row, found, rule)
        self.source = source
        self.symbol = symbol
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: symbol {self.symbol!r}, {super().__str__()} ({self.reason})"


class CalendarInvalid(DataError):
    """A session calendar is unknown, or does not cover the stamps.

    Attributes:
        calendar: Its name.
        why: What was found and what was expected.
    """

    def __init__(self, calendar: str, why: str) -> None:
        super().__init__(f"calendar {calendar!r}: {why}")
        self.calendar = calendar
        self.why = why


class FundamentalUnknown(DataError):
    """No symbol has a fundamental of this name.

    Attributes:
        name: As asked for.
        known: The names that there are.
    """

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"no fundamental is called {name!r}; there are: {', '.join(known)}")
        self.name = name
        self.known = known


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
    """Fewer rows, or sessions, than the stage needs.

    Attributes:
        stage: What they are needed for.
        found: How many there are.
        needed: How many it takes.
        unit: What is counted.
    """

    def __init__(self, stage: str, found: int, needed: int, unit: str = "rows") -> None:
        super().__init__(f"{stage}: {found} {unit}, at least {needed} needed")
        self.stage = stage
        self.found = found
        self.needed = needed
        self.unit = unit


class WeightsUndefined(TrainingError):
    """Sample weights cannot be normalised: their sum is not finite and above zero.

    Attributes:
        rows: How many rows were to be weighted.
        total: The sum.
    """

    def __init__(self, rows: int, total: float) -> None:
        super().__init__(f"the weights of {rows} rows sum to {total}; a sum that is finite and above 0 is needed")
        self.rows = rows
        self.total = total


class LeakFound(TrainingError):
    """A row depends on one that it must not know.

    Attributes:
        what: The stage: features, labels, windows.
        row: The row (or window) that changed, from 0.
        depends_on_row: The nearest of the rows that were taken away or replaced; it may be one further off.
    """

    def __init__(self, what: str, row: int, depends_on_row: int, how: str) -> None:
        super().__init__(f"{what}: row {row} must not depend on row {depends_on_row}, yet it changed when rows {how}")
        self.what = what
        self.row = row
        self.depends_on_row = depends_on_row


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


class FeatureConstant(TrainingError):
    """A feature has the same value in every row that is to be fitted, so there is nothing to tell apart.

    Attributes:
        feature: Its name.
        value: What it is.
        rows: How many rows have it.
    """

    def __init__(self, feature: str, value: float, rows: int) -> None:
        super().__init__(f"feature {feature!r} is {value:g} in all {rows} rows; a fit needs one that varies")
        self.feature = feature
        self.value = value
        self.rows = rows


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


class BackendUnavailable(TrainingError):
    """What folds should run on is not there.

    Attributes:
        backend: `ray` or `dask`.
    """

    def __init__(self, backend: str, why: str) -> None:
        super().__init__(f"backend {backend!r}: {why}")
        self.backend = backend


class RunInUse(TrainingError):
    """Another process works on the same run.

    Attributes:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder}: another process works on this run; wait for it, or give --runs another folder")
        self.folder = folder


class SeriesInvalid(TrainingError):
    """An array handed to a computation has a value, or a shape, that it must not have.

    Attributes:
        series: What it holds.
        row: The first row at fault, from 0; None where it is the shape.
        rule: What must hold.
    """

    def __init__(self, series: str, row: int | None, found: str, rule: str) -> None:
        where = series if row is None else f"{series}, row {row}"
        super().__init__(f"{where}: found {found}, but {rule}")
        self.series = series
        self.row = row
        self.rule = rule


class ArgumentInvalid(TrainingError):
    """A number handed to a computation lies outside what it may be.

    Attributes:
        argument: Its name.
        rule: What must hold.
    """

    def __init__(self, argument: str, found: float, rule: str) -> None:
        super().__init__(f"{argument} is {found!r}, but {rule}")
        self.argument = argument
        self.rule = rule


class ParityBroken(TrainingError):
    """What was exported, a graph or a file of parameters, does not give the outputs of its source.

    Attributes:
        row: The worst row, from 0.
        exported: The export's output there.
        reference: The source model's.
    """

    def __init__(self, row: int, exported: float, reference: float, rule: str) -> None:
        super().__init__(f"row {row}: the export gives {exported!r}, its source {reference!r}; {rule}")
        self.row = row
        self.exported = exported
        self.reference = reference
