"""The arrays of one engine as the ingestion's kernel has them, by their addresses."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.arrays import ArrayTable
from tickgate_server.features.store import FeatureStore
from tickgate_server.ingest import kernel
from tickgate_server.ingest.columns import Ticks
from tickgate_server.intake import Intake
from tickgate_server.risk.book import Book


class IngestArrays:
    """What `kernel.apply_ticks` works on.

    Attributes:
        table: int64 [INGEST_ARRAYS, 3].
        facts: int64 [FACT_COUNT].
        chunk: The ticks that are applied next.
        outcomes: int64 [chunk, 2]: what became of each.
        stated: bool [capacity]: rows that the journal's segment names.
        tallies: int64 [messages, TALLY].
        done: int64 [messages]: slots of those whose ticks are all settled.
        latest: int64 [codes, LATEST_COLUMNS]; empty where nothing is conflated.

    Args:
        intake: The state that ticks change.
        book: What a trade is valued in.
        rows_of: Of `Codes`.
        chunk: Most ticks at a time.
        messages: Most of them.
        conflate: Whether `latest` is needed.
    """

    def __init__(
        self, intake: Intake, book: Book, rows_of: NDArray[np.int64], chunk: int, messages: int, *, conflate: bool
    ) -> None:
        self._intake = intake
        self._stores: list[FeatureStore] = []
        self._store_tables: list[ArrayTable] = []
        state = intake.market
        self.facts = np.zeros(kernel.FACT_COUNT, np.int64)
        self.facts[[kernel.FUTURE_LIMIT_NS, kernel.STALE_LIMIT_NS]] = intake.future_limit_ns, intake.stale_limit_ns
        self.facts[kernel.WITH_BOOK] = 1
        self.chunk = Ticks.empty(chunk)
        self.outcomes = np.zeros((chunk, 2), np.int64)
        self.stated = np.zeros(state.stamps.shape[0], np.bool_)
        self.tallies = np.zeros((messages, kernel.TALLY), np.int64)
        self.done = np.zeros(messages, np.int64)
        self.latest = np.full((rows_of.size if conflate else 0, kernel.LATEST_COLUMNS), -1, np.int64)
        arrays: dict[int, NDArray[Any]] = {
            kernel.FACTS: self.facts,
            kernel.THRESHOLDS: np.array([intake.price_jump_sigmas, intake.price_jump_least]),
            kernel.TIMESPEC: np.zeros(2, np.int64),
            kernel.TICK_INTEGERS: self.chunk.integers,
            kernel.TICK_NUMBERS: self.chunk.numbers,
            kernel.OUTCOMES: self.outcomes,
            kernel.ROWS_OF: rows_of,
            kernel.STATED: self.stated,
            kernel.TALLIES: self.tallies,
            kernel.DONE: self.done,
            kernel.LATEST: self.latest,
            kernel.QUOTES_TRADES: state.quotes_trades,
            kernel.VOLATILITIES: state.volatilities,
            kernel.STAMPS: state.stamps,
            kernel.SEQUENCES: state.sequences,
            kernel.BOOK: book.table,
            kernel.STORES: np.zeros((0, 3), np.int64),
        }
        self._table = ArrayTable(kernel.INGEST_ARRAYS)
        for number, array in arrays.items():
            self._table.put(number, array)
        self.table = self._table.table

    def follow(self) -> None:
        """Have the feature stores that there are now: with versions of models they come and go."""
        stores = self._intake.stores
        if self._stores == stores:
            return
        self._stores = list(stores)
        self._store_tables = []
        rows = np.zeros((len(stores), 3), np.int64)
        for number, store in enumerate(stores):
            table = ArrayTable(kernel.STORE_ARRAYS)
            arrays: tuple[NDArray[Any], ...] = (
                store.prices,
                store.sizes,
                store.stamps_ns,
                store.counts,
                store.vectors,
                store.ready,
                store.carried,
                store.marks,
            )
            for at, array in enumerate(arrays):
                table.put(at, array)
            self._store_tables.append(table)
            rows[number] = table.table.ctypes.data, store.feature_set.session_gap_ns, store.with_quotes
        self._table.put(kernel.STORES, rows)
