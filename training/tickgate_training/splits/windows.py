"""Purged walk-forward windows: train, validation and test blocks of rows in time order.

Blocks are half-open and adjacent: [t, t + train), [.., + validation), [.., + test); the next window starts one test
block later, so that test blocks tile without a gap or an overlap. The train block rolls along, or, anchored, always
begins with the first row and grows. One row of daily bars is one session; `splits.sessions` counts sessions of many
rows.

Purging and embargo (López de Prado, "Advances in Financial Machine Learning", 2018, 7.4.1-7.4.2): a train row is
dropped if its label interval, widened by the embargo, meets the validation block after it; a validation row likewise
before the test block. In a walk-forward nothing is fitted on rows after a test block, so the embargo is a distance kept
before each block that is scored. A last block that would be cut short is not made.
"""

from collections.abc import Iterator, Sequence
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
        train_limit: Label intervals of train rows that are kept end before this row: the start of validation less the
            embargo.
        validation_limit: Likewise of validation rows: the start of test less the embargo.
    """

    number: int
    train: Block
    validation: Block
    test: Block
    train_limit: int
    validation_limit: int

    def train_rows(self, interval_end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers of the train block that survive purging and embargo, ascending."""
        return _purged(self.train, self.train_limit, interval_end)

    def validation_rows(self, interval_end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers of the validation block that survive purging and embargo, ascending."""
        return _purged(self.validation, self.validation_limit, interval_end)


def _purged(block: Block, limit: int, interval_end: NDArray[np.int64]) -> NDArray[np.int64]:
    rows = np.arange(block.start, block.stop)
    # Both ends of an interval belong to it: one that ends on the next block's first row meets it.
    return rows[interval_end[block.rows] < limit]


def walk_forward(
    rows: int,
    train_rows: int,
    validation_rows: int,
    test_rows: int,
    embargo_rows: int = 0,
    *,
    anchored: bool = False,
) -> Iterator[Window]:
    """Windows over `rows` rows in time order; appended rows add windows and change none.

    Args:
        rows: Rows there are.
        train_rows: Length of the train block, at least 1; likewise the next two. Anchored: of the first one.
        validation_rows: Length of the validation block.
        test_rows: Length of the test block, and the step from window to window.
        embargo_rows: Rows kept free before each block that is scored, at least 0.
        anchored: Whether the train block always begins with row 0.

    Raises:
        TooFewRows: Not one window fits.
        ValueError: A length is out of range.
    """
    check_lengths(train_rows, validation_rows, test_rows, embargo_rows)
    edges = range(rows + 1)
    for number, (train, validation, test) in enumerate(
        tile(edges, train_rows, validation_rows, test_rows, "rows", anchored=anchored)
    ):
        yield Window(number, train, validation, test, validation.start - embargo_rows, test.start - embargo_rows)


def latest(
    rows: int, train_rows: int, validation_rows: int, embargo_rows: int = 0, *, anchored: bool = False
) -> Window:
    """The train and validation blocks that end with the last row, and an empty test block after them.

    What the published model is fitted on: the newest rows, in the lengths that were validated; anchored, all of them.

    Raises:
        TooFewRows: The two blocks do not fit.
        ValueError: A length is out of range.
    """
    check_lengths(train_rows, validation_rows, 1, embargo_rows)
    train, validation, test = newest(range(rows + 1), train_rows, validation_rows, "rows", anchored=anchored)
    return Window(0, train, validation, test, validation.start - embargo_rows, test.start - embargo_rows)


def check_lengths(train: int, validation: int, test: int, *embargoes: int) -> None:
    """Raise ValueError unless blocks are at least 1 long and embargoes at least 0."""
    if min(train, validation, test) < 1 or min(embargoes) < 0:
        raise ValueError("block lengths must be at least 1 and the embargo at least 0")


def tile(
    edges: Sequence[int] | NDArray[np.int64], train: int, validation: int, test: int, unit: str, *, anchored: bool
) -> Iterator[tuple[Block, Block, Block]]:
    """Train, validation and test blocks, window after window.

    Args:
        edges: Rows at which units (rows or sessions) begin, ascending, and the row after the last unit.
        train: Length in units; likewise the next two.
        validation: See `train`.
        test: See `train`.
        unit: What they are, for the error.
        anchored: Whether each train block begins with the first unit.

    Raises:
        TooFewRows: Not one window fits.
    """
    units, length = max(len(edges) - 1, 0), train + validation + test
    if units < length:
        raise TooFewRows("walk-forward, one window", units, length, unit)
    for start in range(0, units - length + 1, test):
        split, score = start + train, start + train + validation
        yield (
            Block(int(edges[0 if anchored else start]), int(edges[split])),
            Block(int(edges[split]), int(edges[score])),
            Block(int(edges[score]), int(edges[score + test])),
        )


def newest(
    edges: Sequence[int] | NDArray[np.int64], train: int, validation: int, unit: str, *, anchored: bool
) -> tuple[Block, Block, Block]:
    """The last train and validation blocks and the empty one after them; arguments and errors as in `tile`."""
    units, length = max(len(edges) - 1, 0), train + validation
    if units < length:
        raise TooFewRows("latest train and validation blocks", units, length, unit)
    start, split, stop = (
        int(edges[0 if anchored else units - length]),
        int(edges[units - validation]),
        int(edges[units]),
    )
    return Block(start, split), Block(split, stop), Block(stop, stop)
