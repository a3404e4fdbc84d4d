"""The newest data and the blocks that a round works on.

Files first, journals behind them: of a symbol each source counts from behind the last stamp of those before, so that
what was captured and journaled both counts once. Features of the journal's rows are those that were served.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_server.features.schema import feature_set
from tickgate_training.config import TrainingConfig
from tickgate_training.data import loading, table
from tickgate_training.data.config import DataConfig
from tickgate_training.errors import SourceUnreadable, TooFewRows
from tickgate_training.labels import Labels
from tickgate_training.labels.labels import UNLABELLED
from tickgate_training.retraining.config import RetrainConfig
from tickgate_training.retraining.errors import NothingNew
from tickgate_training.retraining.journal_ticks import JournalTicks, read_journals
from tickgate_training.samples import Samples, prepare
from tickgate_training.splits import Block, Window
from tickgate_training.splits.config import RowWindowsConfig

_WILD = "*?["


@dataclass(frozen=True, slots=True)
class Newest:
    """What a round reads.

    Attributes:
        frame: The canonical table.
        samples: Made of it; features of the journal's rows as they were served.
        lost_records: Of the journals.
    """

    frame: pl.DataFrame
    samples: Samples
    lost_records: int


def read_newest(config: RetrainConfig) -> Newest:
    """Read all sources as they are now.

    Raises:
        DataError: A source cannot be read, or has something that it must not have.
        JournalError: A journal cannot be read.
        TooFewRows: There is no row.
    """
    section, training = config.retrain, config.training
    sources = section.sources
    if not sources and section.journal is None:
        sources = (training.data,)
    limit = section.rows_maximum
    frame = pl.DataFrame(schema=table.SCHEMA)
    for source in sources:
        frame = pl.concat([frame, _behind(frame, loading.load(_looked_up(source)))]).tail(limit)
    if section.journal is None:
        return Newest(frame, prepare(frame, training), 0)
    schema = feature_set(training.features.feature_set, training.features.session_gap_ns)
    ticks = read_journals(section.journal.folders, section.journal.symbols, schema, limit)
    return _with_journal(frame, ticks, config)


def _with_journal(frame: pl.DataFrame, ticks: JournalTicks, config: RetrainConfig) -> Newest:
    place = pl.Series("place", np.arange(ticks.frame.height))
    behind = _behind(frame, ticks.frame.with_columns(place))
    kept = behind["place"].to_numpy()
    both = pl.concat([frame, behind.drop("place")])
    # Where each row of both came from: -1 a file.
    origin = np.concatenate((np.full(frame.height, -1), kept))
    stamps, symbols = both["exchange_ts_ns"].to_numpy(), both["symbol"].rank("dense").to_numpy()
    order = np.lexsort((np.arange(both.height), symbols, stamps))[-config.retrain.rows_maximum :]
    both, origin = both[order], origin[order]
    if both.height == 0:
        raise TooFewRows("newest data", 0, 1)
    samples = prepare(both, config.training)
    served = origin >= 0
    features = samples.features.copy()
    features[served] = ticks.features[origin[served]]
    # The files are one part, before those of the journals.
    part = np.where(served, ticks.part[np.maximum(origin, 0)] + 1 if ticks.part.size else 0, 0)
    samples = dataclasses.replace(
        samples,
        features=features,
        ready=np.asarray(np.isfinite(features).all(axis=1)),
        labels=within_parts(samples, part),
    )
    return Newest(both, samples, ticks.lost)


def within_parts(samples: Samples, part: NDArray[np.int64]) -> Labels:
    """The labels, without those that look from one part into another: between them trades are missing.

    Args:
        samples: Whose labels they are.
        part: Of each row, int64 [n].
    """
    labels = samples.labels
    direction = labels.direction.copy()
    for book in samples.books:
        rows = book.rows
        last = np.searchsorted(rows, labels.interval_end[rows], side="right") - 1
        direction[rows[part[rows] != part[rows[last]]]] = UNLABELLED
    return Labels(direction, labels.returns, labels.interval_end)


def blocks(samples: Samples, config: RetrainConfig, evaluated_until_ns: int) -> Window:
    """The rolled window, and as its test block the newest one, that nothing was evaluated on yet.

    Args:
        samples: Of the newest data.
        config: Lengths, in the unit of the training configuration's walk-forward.
        evaluated_until_ns: Venue's time of the last row that an earlier round evaluated; 0: none did.

    Raises:
        NothingNew: Fewer units than the evaluation block has begin after that time.
        TooFewRows: Window and block do not fit into the data.
    """
    given, section = config.training.walk_forward, config.retrain
    in_rows = isinstance(given, RowWindowsConfig)
    unit = "rows" if in_rows else "sessions"
    lengths = {"train": section.train_length, "validation": section.validation_length}
    changed = {f"{name}_{unit}": length for name, length in lengths.items() if length is not None}
    rolled = given.model_copy(update=changed)
    needed = section.evaluation_length or getattr(given, f"test_{unit}")
    begins = _begins(samples, given)
    if begins.size <= needed:
        raise TooFewRows("evaluation block", max(begins.size - 1, 0), needed, unit)
    newer = int((samples.stamps_ns[begins[:-1]] > evaluated_until_ns).sum())
    if newer < needed:
        raise NothingNew(newer, needed, unit)
    cut, stop = int(begins[-1 - needed]), int(begins[-1])
    if not in_rows:  # the sessions before the block are over
        rolled = rolled.model_copy(update={"last_session_over": True})
    window = rolled.latest(samples.sessions[:cut], samples.stamps_ns[:cut])
    return dataclasses.replace(window, test=Block(cut, stop))


def _begins(samples: Samples, given: object) -> NDArray[np.int64]:
    """Rows that units begin with, and the row after the last unit that is over."""
    if isinstance(given, RowWindowsConfig):
        return np.arange(samples.rows + 1)
    begins = np.flatnonzero(np.diff(samples.sessions, prepend=-1))
    edges = np.append(begins, samples.rows)
    return edges if getattr(given, "last_session_over", True) else edges[:-1]


def shortened(window: Window, samples: Samples, training: TrainingConfig, length: int | None) -> Window:
    """The window with the newest part of its train block, in the walk-forward's unit; None: all of it."""
    if length is None:
        return window
    train = window.train
    begins = _begins(samples, training.walk_forward)
    inside = begins[(begins >= train.start) & (begins < train.stop)]
    return dataclasses.replace(window, train=Block(int(inside[-min(length, inside.size)]), train.stop))


def _behind(frame: pl.DataFrame, newer: pl.DataFrame) -> pl.DataFrame:
    """Rows of `newer` that come after the last stamp of their symbol in `frame`."""
    if frame.height == 0:
        return newer
    last = frame.group_by("symbol").agg(pl.col("exchange_ts_ns").max().alias("until"))
    joined = newer.join(last, on="symbol", how="left", maintain_order="left")
    behind = pl.col("until").is_null() | (pl.col("exchange_ts_ns") > pl.col("until"))
    return joined.filter(behind).drop("until")


def _looked_up(source: DataConfig) -> DataConfig:
    """The source with the files that its patterns name now, by name."""
    paths = getattr(source, "paths", None)
    if paths is None:
        return source
    found = [name for path in paths for name in _matches(path)]
    return source.model_copy(update={"paths": tuple(found)})


def _matches(path: Path) -> list[Path]:
    if not any(character in str(path) for character in _WILD):
        return [path]
    root = Path(path.anchor) if path.is_absolute() else Path()
    found = sorted(root.glob(str(path.relative_to(path.anchor)) if path.is_absolute() else str(path)))
    if not found:
        raise SourceUnreadable(str(path), "no file is named so")
    return found
