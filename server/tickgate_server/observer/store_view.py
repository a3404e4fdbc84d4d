"""The store (L2) as its process last said it fares: metrics, and what alerts look at."""

import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import Metric

from tickgate_server.observer.catalogue import counter, gauge
from tickgate_server.observer.desk_metrics import Workers
from tickgate_server.store_status import StoreStatus, read_status


class StoreView:
    """Reads the status file of a server's store.

    A file that nobody has written since this began is that of a server before, which may have had a store where this
    one has none: there is no store then.

    Args:
        folder: Of the journal; of several workers the one that holds theirs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._since_ns = time.time_ns()

    def read(self) -> StoreStatus | None:
        """The status; None where there is no store."""
        found = read_status(self._folder)
        return found if found is not None and found.clock_ns >= self._since_ns else None

    def collect(self, _workers: Workers) -> Iterator[Metric]:
        """Every metric as it is now."""
        status = self.read()
        up, connected = gauge("tickgate_store_up"), gauge("tickgate_store_connected")
        waiting, written = gauge("tickgate_store_queue_depth"), counter("tickgate_store_written")
        size = counter("tickgate_store_written_bytes")
        dropped, conflated = counter("tickgate_store_dropped"), counter("tickgate_store_conflated")
        errors, refused = counter("tickgate_store_errors"), gauge("tickgate_store_refused")
        behind, lag = gauge("tickgate_store_lag_records"), gauge("tickgate_store_lag_seconds")
        if status is not None:
            up.add_metric([], status.fresh(time.time_ns()))
            connected.add_metric([], status.connected)
            for kind, depth in (("vectors", status.queue), ("states", status.dirty)):
                waiting.add_metric([kind], depth)
            for kind, count in (("vectors", status.written_vectors), ("states", status.written_states)):
                written.add_metric([kind], count)
            size.add_metric([], status.written_bytes)
            dropped.add_metric([], status.dropped)
            conflated.add_metric([], status.conflated)
            for error, count in sorted(status.errors.items()):
                errors.add_metric([error], count)
            for reason, count in sorted(status.refused.items()):
                refused.add_metric([reason], count)
            for folder, position in sorted(status.positions.items()):
                worker = folder if len(status.positions) > 1 else ""
                behind.add_metric([worker], position.behind_records)
                lag.add_metric([worker], position.lag_s)
        yield from (up, connected, waiting, written, size, dropped, conflated, errors, refused, behind, lag)
