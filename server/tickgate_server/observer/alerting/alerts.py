"""Conditions to board to receivers, and what of that is shown as metrics."""

import time
from collections import Counter
from collections.abc import Iterator

import structlog
from prometheus_client.metrics_core import Metric

from tickgate_server.alert_settings import AlertSettings
from tickgate_server.observer.alerting.board import Board, Standing
from tickgate_server.observer.alerting.conditions import Conditions
from tickgate_server.observer.alerting.receivers import OUTCOMES, Alertmanager, Receiver, Webhook
from tickgate_server.observer.catalogue import counter, gauge
from tickgate_server.observer.desk_metrics import Workers
from tickgate_server.observer.store_view import StoreView

LOOK_EVERY_NS = 500_000_000

_LOG = structlog.get_logger()


class Alerts:
    """The alerts of one observer.

    Args:
        settings: Who receives them; nothing is sent before `start`.
        store: How the store fares.
    """

    def __init__(self, settings: AlertSettings, store: StoreView) -> None:
        self._board = Board()
        self._conditions = Conditions(settings, store)
        self._webhook = Webhook(settings.webhook, self._board, settings) if settings.webhook else None
        self._receivers: list[Receiver] = [
            Alertmanager(url, self._board, settings) for url in dict.fromkeys(settings.alertmanagers)
        ]
        if self._webhook is not None:
            self._receivers.append(self._webhook)
        self._looked_ns = -LOOK_EVERY_NS

    def start(self) -> None:
        """Begin to tell receivers."""
        for receiver in self._receivers:
            receiver.start()

    def look(self, workers: Workers) -> None:
        """See what is wrong, at most once in LOOK_EVERY_NS; the tails' lock is held, and nobody is waited for."""
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_ns < LOOK_EVERY_NS:
            return
        self._looked_ns = now_ns
        wall_ns = time.time_ns()
        news = self._board.update(self._conditions.look(workers, wall_ns), wall_ns)
        for standing in news:
            _tell_log(standing)
        if news and self._webhook is not None:
            self._webhook.put(news)

    def close(self) -> None:
        """End the receivers' threads: what fires goes on to fire where it was told, until it is told otherwise."""
        for receiver in self._receivers:
            receiver.close()

    def collect(self, _workers: Workers) -> Iterator[Metric]:
        """What fires, and what became of notifications."""
        firing = gauge("tickgate_alerts_firing")
        with self._board.changed:
            kinds = Counter(standing.alert.kind for standing in self._board.firing.values())
        for kind, count in kinds.items():
            firing.add_metric([kind.name, kind.severity], count)
        yield firing
        told = counter("tickgate_alert_notifications")
        for name in sorted({receiver.name for receiver in self._receivers}):
            for outcome in OUTCOMES:
                counts = (receiver.counts[outcome] for receiver in self._receivers if receiver.name == name)
                told.add_metric([name, outcome], sum(counts))
        yield told


def _tell_log(standing: Standing) -> None:
    kind = standing.alert.kind
    tell = _LOG.info if standing.resolved_ns else _LOG.error if kind.severity == "critical" else _LOG.warning
    said = "alert resolved" if standing.resolved_ns else "alert"
    tell(said, alert=kind.name, severity=kind.severity, **standing.alert.where, description=standing.alert.description)
