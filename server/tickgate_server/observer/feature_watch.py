"""The features of one journal's versions, held to what their manifests say of training; see `drift`."""

from collections.abc import Callable

import numpy as np
import structlog

from tickgate_server.control_block import MODEL_SLOTS
from tickgate_server.journal.entries import Model
from tickgate_server.journal.layout import Flags
from tickgate_server.journal.segments import Rows
from tickgate_server.models.package import Manifest
from tickgate_server.observer.drift import Deviation, FeatureDrift
from tickgate_server.records import FEATURES

RUNBOOK = "docs/runbooks.md#tickgatefeaturedrift"
_REPEATED = int(Flags.REPEATED)
_LOG = structlog.get_logger()


class FeatureWatch:
    """Follows the vectors that versions scored, each version's own.

    A vector counts once: with the tick that was applied to make it, or as the caller's own. Of a version that is
    unloaded everything is forgotten. Versions whose index is MODEL_SLOTS or more are not watched.

    Attributes:
        watched: The loaded versions that are watched, by name and number.

    Args:
        manifest_of: A version's manifest; None: it cannot be had, and the version is not watched.
    """

    def __init__(self, manifest_of: Callable[[str, int], Manifest | None]) -> None:
        self.watched: dict[tuple[str, int], FeatureDrift] = {}
        self._manifest_of = manifest_of
        self._by_index: dict[int, tuple[str, int]] = {}

    def load(self, model: Model) -> None:
        """A version is there from here on."""
        if model.index >= MODEL_SLOTS:
            return
        self.unload(model.index)
        version = (model.name, model.version)
        manifest = self._manifest_of(*version)
        why = "its manifest cannot be read"
        if manifest is not None and manifest.model_sha256 == model.sha256:
            try:
                self.watched[version] = FeatureDrift(manifest)
            except ValueError as error:
                why = str(error)
            else:
                self._by_index[model.index] = version
                return
        _LOG.info("features not watched", model=model.name, version=model.version, why=why)

    def unload(self, index: int) -> None:
        """A version is not there any more."""
        version = self._by_index.pop(index, None)
        if version is not None:
            self.watched.pop(version, None)

    def forget(self) -> None:
        """A server starts anew: its models follow."""
        self.watched.clear()
        self._by_index.clear()

    def add(self, decisions: Rows) -> None:
        """Take in records of `layout.DECISION`, in their order; log what begins or ends to be not as it was."""
        if not self._by_index or not decisions.size:
            return
        counts = decisions["scored"] & (decisions["flags"] & _REPEATED == 0)
        counts &= decisions["applied"] | (decisions["input"] == FEATURES)
        for index, version in self._by_index.items():
            own = decisions[counts & (decisions["model_index"] == index)]
            if own.size:
                stamps_ns = np.maximum(own["features_ts_ns"], own["exchange_ts_ns"])
                for change in self.watched[version].update(own["vector"], stamps_ns):
                    _tell(version, change)


def _tell(version: tuple[str, int], change: Deviation) -> None:
    said = {"model": version[0], "version": version[1], "feature": change.feature, "kind": change.kind}
    if change.so:
        _LOG.warning("feature not as in training", **said, value=change.value, limit=change.limit, runbook=RUNBOOK)
    else:
        _LOG.info("feature as in training again", **said)
