"""Level 1 of the feature store: each symbol's windows and latest vector, in process."""

import numpy as np

from tickgate_server.features import micro10, micro32
from tickgate_server.features.fundamentals import KnownFundamentals, append
from tickgate_server.features.micro32 import TRADE
from tickgate_server.features.schema import FeatureSet


class FeatureStore:
    """Windows and vectors of one feature set for up to `capacity` symbols.

    About 3.2 kB each once seen with `micro10`, 7.3 kB with `micro32`.

    Attributes:
        feature_set: What is computed.
        with_quotes: Whether it is `micro32`, which takes quotes in too.
        known: The fundamentals in force for it, see `features.fundamentals`; of no array where the set has none.
        vectors: float32 [capacity, width]; each symbol's latest: of ticks, all NaN unless ready; behind these, its
            fundamentals as `complete` found them last.
        ready: bool [capacity]; of ticks.
        prices, sizes, stamps_ns: The windows, as the kernel has them.
        counts: int64 [capacity]; trades since the symbol's windows started anew.
        carried, marks: As `micro32` has them; [1, 0] where the set has none.

    Args:
        feature_set: What is computed.
        capacity: Most symbols.
        fundamentals: In force; needed by a set that has some.

    Raises:
        ValueError: The set has fundamentals, and they are left out.
    """

    __slots__ = (
        "_gap_ns",
        "carried",
        "counts",
        "feature_set",
        "known",
        "marks",
        "prices",
        "ready",
        "sizes",
        "stamps_ns",
        "vectors",
        "with_quotes",
    )

    def __init__(self, feature_set: FeatureSet, capacity: int, fundamentals: KnownFundamentals | None = None) -> None:
        self.feature_set = feature_set
        self.with_quotes = feature_set.of_ticks.name == "micro32"
        self.known = np.zeros((0, 3), np.int64)
        if feature_set.fundamentals:
            if fundamentals is None:
                raise ValueError(f"{feature_set.name} is served with fundamentals: they are left out")
            self.known = fundamentals.of(feature_set)
        self.vectors = np.full((capacity, feature_set.width), np.nan, np.float32)
        self.ready = np.zeros(capacity, np.bool_)
        self.counts = np.zeros(capacity, np.int64)
        self._gap_ns = feature_set.session_gap_ns
        self.prices = np.zeros((capacity, micro10.RING))
        self.sizes = np.zeros((capacity, micro10.RING))
        self.stamps_ns = np.zeros((capacity, micro10.RING), np.int64)
        self.carried = np.zeros((capacity, micro32.CARRIED) if self.with_quotes else (1, 0))
        self.marks = np.zeros((capacity, micro32.MARKS) if self.with_quotes else (1, 0), np.int64)

    def take(
        self,
        row: int,
        kind: int,
        exchange_ts_ns: int,
        price: float,
        size: float,
        bid: float,
        ask: float,
        bid_size: float,
        ask_size: float,
    ) -> None:
        """Take one accepted tick into a symbol's state, and where it has a trade, its vector from that."""
        if self.with_quotes:
            self.ready[row] = micro32.take(
                self.prices,
                self.sizes,
                self.stamps_ns,
                self.counts,
                self.carried,
                self.marks,
                row,
                self._gap_ns,
                kind,
                exchange_ts_ns,
                price,
                size,
                bid,
                ask,
                bid_size,
                ask_size,
                self.vectors[row],
                bool(self.ready[row]),
            )
        elif kind & TRADE:
            self.ready[row] = micro10.push(
                self.prices,
                self.sizes,
                self.stamps_ns,
                self.counts,
                row,
                self._gap_ns,
                exchange_ts_ns,
                price,
                size,
                self.vectors[row],
            )

    def complete(self, row: int, stamp_ns: int) -> bool:
        """Write a symbol's fundamentals behind the features of its ticks, where the set has any.

        Args:
            row: The symbol's.
            stamp_ns: Its latest tick's time.

        Returns:
            Whether the whole vector is ready.
        """
        if not self.ready[row]:
            return False
        return not self.known.size or bool(append(self.known, row, stamp_ns, self.vectors[row]))
