"""Whether the features that a version is given are still those it was fitted on; spec: model health.

Three things are looked at, of each feature, whenever a piece of the newest vectors is full (an eighth of the rows that
the manifest's `stability` counts in):
- **drifted**: the stability index (`models.stability`) of the newest hour is over LEAST and over MARGIN times the
  widest that training has seen in as many rows. An hour with fewer rows than that is made longer.
- **stuck**: every value of a piece is the same, of a feature that hardly ever repeated one in training.
- **outside**: over OUTSIDE of the newest hour's values lie beyond all that training has seen.

Time of day is exempt: it drifts all day long. A feature that was found stays found until it is not any more, so it is
told once. How soon, in rows of the version: stuck after two pieces at most; a shift by two standard deviations or a
spread of three times the usual within `rows`. How often where nothing has changed: docs/health.md.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.package import Manifest
from tickgate_server.models.stability import CLOCK_FEATURES, bins_of, index_of

LEAST = 0.2
"""An index below is no drift, however narrow training was: the usual line between a small and a large shift."""
MARGIN = 1.5
"""Training is a sample: later days are now and then wider than the widest of its stretches."""
OUTSIDE = 0.05
PIECES = 8
HOUR_NS = 3_600_000_000_000
# An hour of more pieces than this is cut to the newest ones: 64 times as many rows as training counts in.
PIECES_KEPT = 512

Kind = Literal["drifted", "stuck", "outside"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Deviation:
    """One feature that is not as it was.

    Attributes:
        feature: Its name.
        kind: In which way.
        value: The index; for `stuck` the value itself; for `outside` the share.
        limit: That it is over; NaN for `stuck`.
        so: False: it is not any more.
    """

    feature: str
    kind: Kind
    value: float
    limit: float
    so: bool = True


class FeatureDrift:
    """One version's features, as decisions bring them.

    Attributes:
        names: The features that are watched, in the manifest's order.
        limits: Of the stability index of each, float64 [watched].
        indices: The index of each over the newest hour, float64 [watched]; NaN until there are rows enough.
        found: What is not as it was, by feature and kind.

    Args:
        manifest: Of the version.

    Raises:
        ValueError: It does not say how stable its features were, or has quantiles that are none.
    """

    def __init__(self, manifest: Manifest) -> None:
        stability = manifest.stability
        if stability is None:
            raise ValueError("its manifest does not say how stable its features were in training")
        watched = [k for k, name in enumerate(manifest.features.names) if name not in CLOCK_FEATURES]
        self.names = tuple(manifest.features.names[k] for k in watched)
        trained = [manifest.feature_statistics[name] for name in self.names]
        self.limits = np.array([max(LEAST, MARGIN * stability.widest[name]) for name in self.names])
        self.indices = np.full(len(watched), np.nan)
        self.found: dict[tuple[str, Kind], Deviation] = {}
        self._columns = np.array(watched, np.int64)
        self._bins = [bins_of(one) for one in trained]
        self._range = np.array([[one.min, one.max] for one in trained], np.float64).T
        self._varies = np.array([len(set(one.quantiles)) == len(one.quantiles) > 1 for one in trained])
        self._rows = stability.rows
        self._piece = max(stability.rows // PIECES, 2)
        most = max((edges.size + 1 for edges, _ in self._bins), default=1)
        # Of each piece that is kept: when it ended, the values of each feature in each bin, those beyond the range.
        self._ended_ns = np.zeros(PIECES_KEPT, np.int64)
        self._counts = np.zeros((PIECES_KEPT, len(watched), most), np.int64)
        self._beyond = np.zeros((PIECES_KEPT, len(watched)), np.int64)
        self._pieces = 0
        self._vectors = np.zeros((self._piece, len(watched)), np.float32)
        self._filled = 0

    def update(self, vectors: NDArray[np.float32], stamps_ns: NDArray[np.int64]) -> list[Deviation]:
        """Take in vectors that were scored, in their order.

        Args:
            vectors: float32 [n, at least the manifest's width], finite.
            stamps_ns: Venue times of what they describe, int64 [n].

        Returns:
            What began or ended to be not as it was.
        """
        changes: list[Deviation] = []
        own = vectors[:, self._columns]
        at = 0
        while at < len(own):
            taken = min(self._piece - self._filled, len(own) - at)
            self._vectors[self._filled : self._filled + taken] = own[at : at + taken]
            self._filled += taken
            at += taken
            if self._filled == self._piece:
                self._keep(int(stamps_ns[at - 1]))
                changes += self._judge()
                self._filled = 0
        return changes

    def _keep(self, ended_ns: int) -> None:
        place = self._pieces % PIECES_KEPT
        self._pieces += 1
        self._ended_ns[place] = ended_ns
        self._counts[place] = 0
        wide = self._vectors.astype(np.float64)
        for k, (edges, _) in enumerate(self._bins):
            counts = np.bincount(np.searchsorted(edges, wide[:, k]), minlength=edges.size + 1)
            self._counts[place, k, : counts.size] = counts
        low, high = self._range
        self._beyond[place] = ((wide < low) | (wide > high)).sum(axis=0)

    def _judge(self) -> list[Deviation]:
        changes: list[Deviation] = []
        same = (self._vectors == self._vectors[0]).all(axis=0) & self._varies
        for k, name in enumerate(self.names):
            value = float(self._vectors[0, k])
            changes += self._tell(name, "stuck", value, float("nan"), is_so=bool(same[k]))
        places = self._newest()
        rows = places.size * self._piece
        if rows < self._rows:
            return changes
        counts = self._counts[places].sum(axis=0)
        shares = self._beyond[places].sum(axis=0) / rows
        for k, ((edges, expected), name) in enumerate(zip(self._bins, self.names, strict=True)):
            index = float(index_of(expected, counts[k, : edges.size + 1]))
            self.indices[k] = index
            limit = float(self.limits[k])
            changes += self._tell(name, "drifted", index, limit, is_so=not index <= limit)
            share = float(shares[k])
            changes += self._tell(name, "outside", share, OUTSIDE, is_so=not share <= OUTSIDE)
        return changes

    def _newest(self) -> NDArray[np.int64]:
        """Places of the pieces of the newest hour, or of the newest rows where it has fewer than training counts in."""
        kept = min(self._pieces, PIECES_KEPT)
        places = np.arange(self._pieces - 1, self._pieces - 1 - kept, -1) % PIECES_KEPT
        ended = self._ended_ns[places]
        of_the_hour = int((ended > ended[0] - HOUR_NS).sum())
        return places[: max(of_the_hour, -(-self._rows // self._piece))]

    def _tell(self, feature: str, kind: Kind, value: float, limit: float, *, is_so: bool) -> list[Deviation]:
        """The change, where it is one."""
        known = (feature, kind) in self.found
        if is_so:
            self.found[feature, kind] = Deviation(feature, kind, value, limit)
            return [] if known else [self.found[feature, kind]]
        if not known:
            return []
        del self.found[feature, kind]
        return [Deviation(feature, kind, value, limit, so=False)]
