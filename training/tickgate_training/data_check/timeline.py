"""Counts over time in a fixed number of bins, whatever the span turns out to be."""

import numpy as np
from numpy.typing import NDArray

BINS = 512
_WIDTH_NS = 1_000_000  # at first


class Timeline:
    """How many of each kind fell into each stretch of time. Bins join in pairs as soon as the span outgrows them.

    Attributes:
        width_ns: Of a bin; it doubles.
        begin_ns: Of the first bin; a multiple of the width. None: nothing was counted.
        counts: int64 [kinds, BINS].

    Args:
        kinds: How many kinds are counted.
    """

    def __init__(self, kinds: int) -> None:
        self.width_ns = _WIDTH_NS
        self.begin_ns: int | None = None
        self.counts = np.zeros((kinds, BINS), np.int64)

    def take(self, stamps_ns: NDArray[np.int64], kinds: NDArray[np.int64]) -> None:
        """Count stamps, int64 [n], above 0, of kinds int64 [n]."""
        if not stamps_ns.size:
            return
        self._reach(int(stamps_ns.min()), int(stamps_ns.max()))
        places = (stamps_ns - (self.begin_ns or 0)) // self.width_ns
        flat = kinds * BINS + places
        self.counts += np.bincount(flat, minlength=self.counts.size).reshape(self.counts.shape)

    def used(self) -> NDArray[np.int64]:
        """The counts up to the last bin that has any, int64 [kinds, bins]."""
        filled = np.flatnonzero(self.counts.any(axis=0))
        return self.counts[:, : int(filled[-1]) + 1 if filled.size else 0]

    def _reach(self, first_ns: int, last_ns: int) -> None:
        """Have bins from the first to the last of some stamps, and of those before."""
        if self.begin_ns is None:
            self.begin_ns = first_ns // self.width_ns * self.width_ns
        filled = self.used().shape[1]
        last_ns = max(last_ns, self.begin_ns + filled * self.width_ns - 1)
        while True:
            begin_ns = min(self.begin_ns, first_ns) // self.width_ns * self.width_ns
            if (last_ns - begin_ns) // self.width_ns < BINS:
                break
            self._double()
        shift = (self.begin_ns - begin_ns) // self.width_ns
        if shift:
            self.counts = np.roll(self.counts, shift, axis=1)  # what goes round is empty: the last filled bin fits
            self.begin_ns = begin_ns

    def _double(self) -> None:
        begin_ns = self.begin_ns or 0
        wider = self.width_ns * 2
        start = begin_ns // wider * wider
        odd = (begin_ns - start) // self.width_ns
        padded = np.pad(self.counts, ((0, 0), (odd, 2 - odd)))
        joined = padded.reshape(len(self.counts), -1, 2).sum(axis=2)
        self.counts = np.zeros_like(self.counts)
        width = min(joined.shape[1], BINS)
        self.counts[:, :width] = joined[:, :width]
        self.begin_ns, self.width_ns = start, wider
