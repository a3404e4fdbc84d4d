"""Combinatorial purged cross-validation: many out-of-sample paths through the same history.

López de Prado, "Advances in Financial Machine Learning", 2018, 12.3-12.4: the rows are cut into N groups in time order,
every choice of k groups is a test set once, C(N, k) splits in all, and their test groups recombine into phi = k / N
C(N, k) = C(N - 1, k - 1) paths, each of which scores every row once. Which groups and which path is skfolio's
`CombinatorialPurgedCV`; it purges a fixed number of rows, so purging by label interval and the embargo are done here.

Purging (7.4.1): a train row is dropped if its label interval meets the span of a test group, from its first row to the
last row that a label of it looks at. Embargo (7.4.2): so is one that comes within the embargo after that span; before
a test group none is needed, for what is fitted there has ended.

Unlike a walk-forward this fits on what comes after a test group: it measures how much of a result is luck of the path,
and appended rows change its groups.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tickgate_training.errors import TooFewRows
from tickgate_training.splits.sessions import session_edges
from tickgate_training.splits.windows import Block
from tickgate_training.strict import Strict

SPLITS_MAXIMUM = 10_000
"""Each is a fit of every configuration."""


class CombinatorialConfig(Strict):
    """The book's example: 6 groups, 2 of them tested at a time, give 15 splits and 5 paths.

    Groups are cut between rows, or between sessions. Of those that are not tested one is validated on, so that one at
    least is left to fit on.
    """

    groups: int = Field(default=6, ge=4, le=30)
    test_groups: int = Field(default=2, ge=2)
    embargo_rows: int = Field(default=0, ge=0)
    unit: Literal["rows", "sessions"] = "rows"

    @model_validator(mode="after")
    def _some_groups_are_fitted(self) -> Self:
        if self.test_groups > self.groups - 2:
            raise ValueError(
                f"test_groups must leave two groups, one to fit and one to validate on: at most {self.groups - 2} of "
                f"{self.groups}, got {self.test_groups}"
            )
        if math.comb(self.groups, self.test_groups) > SPLITS_MAXIMUM:
            raise ValueError(
                f"{self.test_groups} of {self.groups} groups are {math.comb(self.groups, self.test_groups):,} splits, "
                f"at most {SPLITS_MAXIMUM:,} are run"
            )
        return self


@dataclass(frozen=True, slots=True)
class CombinatorialSplit:
    """One choice of test groups.

    Attributes:
        number: From 0.
        rows: Rows in all.
        tests: A block for each test group, in time order.
        paths: The path that each test group's scores belong to, from 0.
        embargo_rows: Rows after each test group's span that are not fitted.
    """

    number: int
    rows: int
    tests: tuple[Block, ...]
    paths: tuple[int, ...]
    embargo_rows: int

    def test_rows(self) -> NDArray[np.int64]:
        """Row numbers of the test groups, ascending."""
        return np.concatenate([np.arange(test.start, test.stop) for test in self.tests])

    def train_rows(self, interval_end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers outside the test groups that survive purging and embargo, ascending.

        Args:
            interval_end: int64 [rows]: see `Labels`; in a panel those of `labels.panel_ends`. A test row whose interval
                ends past the last row has no label that could be scored, and purges nothing beyond its own row.
        """
        return np.flatnonzero(clear_of(self.tests, interval_end, self.embargo_rows))


def clear_of(tests: Sequence[Block], interval_end: NDArray[np.int64], embargo_rows: int) -> NDArray[np.bool_]:
    """Rows outside all blocks that survive purging and embargo, bool [rows]; `interval_end` as in `train_rows`."""
    rows = np.arange(interval_end.size)
    kept = np.ones(rows.size, np.bool_)
    for test in tests:
        ends = interval_end[test.rows]
        last = max(test.stop - 1, int(ends[ends < rows.size].max(initial=-1)))
        kept &= (interval_end < test.start) | (rows > last + embargo_rows)
    return kept


@dataclass(frozen=True, slots=True)
class ValidatedSplit:
    """A choice of test groups, and the group that calibration, threshold and the choice of a configuration come from.

    Attributes:
        split: The choice of test groups.
        validation: One of the groups that are not tested.
    """

    split: CombinatorialSplit
    validation: Block

    @property
    def number(self) -> int:
        """Of the split, from 0."""
        return self.split.number

    def train_rows(self, interval_end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers that survive purging and embargo around the test groups and the validation group, ascending."""
        return np.flatnonzero(clear_of((*self.split.tests, self.validation), interval_end, self.split.embargo_rows))

    def validation_rows(self, interval_end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers of the validation group that survive purging and embargo around the test groups, ascending."""
        clear = clear_of(self.split.tests, interval_end, self.split.embargo_rows)
        return np.flatnonzero(clear[self.validation.rows]) + self.validation.start


def with_validation(splits: Sequence[CombinatorialSplit]) -> list[ValidatedSplit]:
    """Take one of the groups that are not tested from the fit, to validate on: each group has its turn.

    Args:
        splits: All of one `combinatorial`, which leave two groups or more.

    Raises:
        ValueError: There is but one group that is not tested.
    """
    groups = sorted({test for split in splits for test in split.tests}, key=lambda block: block.start)
    validated = []
    for split in splits:
        left = [group for group in groups if group not in split.tests]
        if len(left) < 2:
            raise ValueError(
                f"split {split.number} leaves {len(left)} group, needed are one to fit and one to validate on"
            )
        validated.append(ValidatedSplit(split, left[split.number % len(left)]))
    return validated


def combinatorial(
    rows: int,
    groups: int = 6,
    test_groups: int = 2,
    embargo_rows: int = 0,
    *,
    sessions: NDArray[np.int64] | None = None,
) -> list[CombinatorialSplit]:
    """Every choice of `test_groups` out of `groups`.

    Args:
        rows: Rows there are, in time order.
        groups: N, at least 3. Their lengths differ by one row (or session) at most.
        test_groups: k, from 2 to N - 1.
        embargo_rows: At least 0.
        sessions: Session number of each row, int64 [rows], not decreasing: groups are then made of whole sessions.

    Raises:
        TooFewRows: Fewer rows, or sessions, than groups.
        RowInvalid: Session numbers decrease.
        ValueError: Groups or embargo are out of range, or the choices are too many for skfolio.
    """
    from skfolio.model_selection import CombinatorialPurgedCV  # noqa: PLC0415 - two seconds of imports

    if embargo_rows < 0:
        raise ValueError(f"the embargo must be at least 0 rows, got {embargo_rows}")
    if sessions is not None and sessions.size != rows:
        raise ValueError(f"there are {rows} rows, but {sessions.size} session numbers")
    chooser = CombinatorialPurgedCV(n_folds=groups, n_test_folds=test_groups)
    units = np.arange(rows + 1) if sessions is None else session_edges(sessions)
    if units.size - 1 < groups:
        unit = "rows" if sessions is None else "sessions"
        raise TooFewRows("combinatorial cross-validation, one for each group", units.size - 1, groups, unit)
    edges = units[np.arange(groups + 1) * (units.size - 1) // groups]
    blocks = [Block(start, stop) for start, stop in pairwise(edges.tolist())]
    chosen, paths = chooser.test_set_index.tolist(), chooser.get_path_ids().tolist()
    return [
        CombinatorialSplit(number, rows, tuple(blocks[group] for group in tested), tuple(of_path), embargo_rows)
        for number, (tested, of_path) in enumerate(zip(chosen, paths, strict=True))
    ]


def recombine(splits: Sequence[CombinatorialSplit], scores: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Put the splits' scores together into paths.

    Args:
        splits: All of one `combinatorial`.
        scores: Of each split's `test_rows`, float64 [its test rows].

    Returns:
        float64 [phi, rows]: each path scores every row once.

    Raises:
        ValueError: A split or a score is missing.
    """
    if not splits:
        raise ValueError("there is no split to recombine")
    paths = max(max(split.paths) for split in splits) + 1
    recombined = np.empty((paths, splits[0].rows))
    written = np.zeros(recombined.shape, np.int64)
    for split, values in zip(splits, scores, strict=True):
        if values.shape != (split.test_rows().size,):
            raise ValueError(
                f"split {split.number}: scores have shape {values.shape}, expected ({split.test_rows().size},)"
            )
        taken = 0
        for test, path in zip(split.tests, split.paths, strict=True):
            count = test.stop - test.start
            recombined[path, test.rows] = values[taken : taken + count]
            written[path, test.rows] += 1
            taken += count
    if not (written == 1).all():
        raise ValueError("the splits are not all of one combinatorial choice: some row of a path is scored not once")
    return recombined
