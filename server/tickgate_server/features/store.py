"""Level 1 of the feature store: each symbol's windows and latest vector, in process."""

import numpy as np

from tickgate_server.features import micro10
from tickgate_server.features.schema import FeatureSet

_PUSH = {"micro10": micro10.push}


class FeatureStore:
    """Windows and vectors of one feature set for up to `capacity` symbols, about 3.2 kB each once seen.

    Attributes:
        feature_set: What is computed.
        vectors: float32 [capacity, width]; each symbol's latest, all NaN unless ready.
        ready: bool [capacity].
        prices, sizes, stamps_ns: The windows, as the kernel has them.
        counts: int64 [capacity]; trades since the symbol's windows started anew.
    """

    __slots__ = ("_gap_ns", "_push", "counts", "feature_set", "prices", "ready", "sizes", "stamps_ns", "vectors")

    def __init__(self, feature_set: FeatureSet, capacity: int) -> None:
        self.feature_set = feature_set
        self._push = _PUSH[feature_set.name]
        self.vectors = np.full((capacity, feature_set.width), np.nan, np.float32)
        self.ready = np.zeros(capacity, np.bool_)
        self.counts = np.zeros(capacity, np.int64)
        self._gap_ns = feature_set.session_gap_ns
        self.prices = np.zeros((capacity, micro10.RING))
        self.sizes = np.zeros((capacity, micro10.RING))
        self.stamps_ns = np.zeros((capacity, micro10.RING), np.int64)

    def push(self, row: int, exchange_ts_ns: int, price: float, size: float) -> None:
        """Take one accepted trade into a symbol's windows, and its vector from them."""
        self.ready[row] = self._push(
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
