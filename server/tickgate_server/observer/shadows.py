"""Metrics of shadows: what their records say, and how far behind the journals these are.

The shadow scorer writes the records; a scrape reads those that were replaced since the one before. Counters are a
version's since it first was a shadow here, restarts of server and scorer among it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import structlog
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from tickgate_server.models.shadow_record import (
    DIFFERENCE_BOUNDS,
    RECORD_FILE,
    Comparison,
    Missed,
    ShadowRecord,
    ShadowRecordInvalid,
    read_record,
)
from tickgate_server.observer.catalogue import counter, gauge, histogram

# Versions that are shown, those written last; one a retraining would else add up over the years.
MAX_RECORDS = 64
# The largest difference there can be is the last bound: nothing is above.
_BOUNDS = [*map(floatToGoString, DIFFERENCE_BOUNDS), "+Inf"]

_LOG = structlog.get_logger()


class ShadowMetrics:
    """Reads the records of a server's shadows.

    Args:
        folder: `models.shadow_record.shadow_folder`; where it is not there, metrics have no samples.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._records: dict[Path, tuple[tuple[int, int], ShadowRecord | None]] = {}

    def collect(self, journaled: Mapping[str, int]) -> Iterator[Metric]:
        """Every metric as it is now.

        Args:
            journaled: Sequence that comes next in each journal, by worker, as `ShadowRecord.positions` has them.
        """
        records = self._read()
        yield from _compared(records)
        yield _signals(records)
        yield from _troubles(records)
        yield from _now(records, journaled)

    def _read(self) -> Sequence[ShadowRecord]:
        """The records there are; of one that cannot be used the log tells once."""
        known, self._records = self._records, {}
        for path in self._folder.glob(f"*/*/{RECORD_FILE}"):
            name, version = path.parts[-3:-1]
            try:
                status = path.stat()
            except OSError:  # removed since it was listed
                continue
            signature = (status.st_mtime_ns, status.st_ino)
            before = known.get(path)
            if before is None or before[0] != signature:
                before = (signature, self._one(path, name, version))
            self._records[path] = before
        found = [record for _, record in self._records.values() if record is not None]
        newest = sorted(found, key=lambda record: record.written_ns)[-MAX_RECORDS:]
        return sorted(newest, key=lambda record: (record.name, record.version))

    def _one(self, path: Path, name: str, version: str) -> ShadowRecord | None:
        try:
            return read_record(self._folder, name, int(version))
        except (ShadowRecordInvalid, ValueError) as error:
            _LOG.error("shadow record unreadable", path=str(path), why=str(error))
            return None


def _labels(record: ShadowRecord, side: Comparison) -> list[str]:
    return [record.name, str(record.version), side.alias, str(side.version)]


def _compared(records: Sequence[ShadowRecord]) -> Iterator[Metric]:
    compared = counter("tickgate_shadow_compared_decisions")
    agreed = counter("tickgate_shadow_agreements")
    same = counter("tickgate_shadow_same_signals")
    value = histogram("tickgate_shadow_value_difference")
    confidence = histogram("tickgate_shadow_confidence_difference")
    for record in records:
        for side in record.comparisons:
            labels = _labels(record, side)
            compared.add_metric(labels, side.decisions)
            agreed.add_metric(labels, side.agreed)
            same.add_metric(labels, side.same_signals)
            for family, found in ((value, side.value), (confidence, side.confidence)):
                cumulative = np.cumsum(found.counts).astype(float).tolist()
                buckets = list(zip(_BOUNDS, [*cumulative, cumulative[-1]], strict=True))
                family.add_metric(labels, buckets, found.sum)
    yield from (compared, agreed, same, value, confidence)


def _signals(records: Sequence[ShadowRecord]) -> Metric:
    family = counter("tickgate_shadow_signals")
    for record in records:
        for side in record.comparisons:
            for whose, signals in (("answer", side.signals), ("shadow", side.shadow_signals)):
                for action, count in (("BUY", signals.buy), ("SELL", signals.sell), ("HOLD", signals.hold)):
                    family.add_metric([*_labels(record, side), whose, action], count)
    return family


def _troubles(records: Sequence[ShadowRecord]) -> Iterator[Metric]:
    missed = counter("tickgate_shadow_missed_decisions")
    lost = counter("tickgate_shadow_lost_records")
    failures = counter("tickgate_shadow_load_failures")
    for record in records:
        labels = [record.name, str(record.version)]
        for reason in Missed:
            missed.add_metric([*labels, reason.value], record.missed.get(reason, 0))
        lost.add_metric(labels, record.lost_records)
        failures.add_metric(labels, record.load_failures)
    yield from (missed, lost, failures)


def _now(records: Sequence[ShadowRecord], journaled: Mapping[str, int]) -> Iterator[Metric]:
    loaded = gauge("tickgate_shadow_loaded")
    lag = gauge("tickgate_shadow_lag_records")
    for record in records:
        if record.ended:
            continue
        labels = [record.name, str(record.version)]
        loaded.add_metric(labels, 1 if record.model_sha256 and not record.load_check else 0)
        behind = (following - record.positions.get(worker, 1) for worker, following in journaled.items())
        lag.add_metric(labels, sum(max(one, 0) for one in behind))
    yield from (loaded, lag)
