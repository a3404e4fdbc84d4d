"""Purged walk-forward windows: rolling train, validation and test blocks of rows in time order.

Blocks are half-open and adjacent: [t, t + train), [.., + validation), [.., + test); the next window starts one test
block later, so that test blocks tile without a gap or an overlap. One row of daily bars is one session.

Purging and embargo (López de Prado, "Advances in Financial Machine Learning", 2018, 7.4.1-7.4.2): a train row is
dropped if its label interval, widened by the embargo, meets the validation block after it; a validation row likewise
before the test block. In a walk-forward nothing is fitted on rows after a test block, so the embargo is a distance kept
before each block that is scored. A last block that would be cut short is not made.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_training.errors import TooFewRows


@dataclass(frozen=True, slots=True)
class Block:
    """Rows [start, stop)."""

    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """The block as a slice of an array of rows."""
        return slice(self.start, self.stop)


@dataclass(frozen=True, slots=True)
class Window:
    """One window.

    Attributes:
        number: From 0.
        train: Block that models are fitted on, before purging.
        validation: Block that calibration and threshold are chosen on, before purging.
        test: Block that is scored.
        embargo: Rows kept free before validation and test, beyond the label intervals.
    """

    number: int
    train: Block
    validation: Block
    test: Block
    embargo: int

    def train_rows(self, interval_end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers of the train block that survive purging and embargo, ascending."""
        return _purged(self.train, self.validation.start, interval_end, self.embargo)

    def validation_rows(self, interval_end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers of the validation block that survive purging and embargo, ascending."""
        return _purged(self.validation, self.test.start, interval_end, self.embargo)


def _purged(block: Block, next_start: int, interval_end: NDArray[np.int64], embargo: int) -> NDArray[np.int64]:
    rows = np.arange(block.start, block.stop)
    # Both ends of an interval belong to it: one that ends on the next block's first row meets it.
    return rows[interval_end[block.rows] + embargo < next_start]


def walk_forward(
    rows: int, train_rows: int, validation_rows: int, test_rows: int, embargo_rows: int = 0
) -> Iterator[Window]:
    """Windows over `rows` rows in time order; appended rows add windows and change none.

    Args:
        rows: Rows there are.
        train_rows: Length of the train block, at least 1; likewise the next two.
        validation_rows: Length of the validation block.
        test_rows: Length of the test block, and the step from window to window.
        embargo_rows: Rows kept free before each block that is scored, at least 0.

    Raises:
        TooFewRows: Not one window fits.
        ValueError: A length is out of range.
    """
    if min(train_rows, validation_rows, test_rows) < 1 or embargo_rows < 0:
        raise ValueError("block lengths must be at least 1 and the embargo at least 0")
    length = train_rows + validation_rows + test_rows
    if rows < length:
        raise TooFewRows("walk-forward, one window", rows, length)
    for number, start in enumerate(range(0, rows - length + 1, test_rows)):
        validation_start = start + train_rows
        test_start = validation_start + validation_rows
        yield Window(
            number,
            Block(start, validation_start),
            Block(validation_start, test_start),
            Block(test_start, test_start + test_rows),
            embargo_rows,
        )


def latest(rows: int, train_rows: int, validation_rows: int, embargo_rows: int = 0) -> Window:
    """The train and validation blocks that end with the last row, and an empty test block after them.

    What the published model is fitted on: the newest rows, in the lengths that were validated.

    Raises:
        TooFewRows: The two blocks do not fit.
    """
    length = train_rows + validation_rows
    if rows < length:
        raise TooFewRows("latest train and validation blocks", rows, length)
    start = rows - length
    split = start + train_rows
    return Window(0, Block(start, split), Block(split, rows), Block(rows, rows), embargo_rows)
