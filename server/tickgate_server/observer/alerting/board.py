"""What fires, since when, and what did until lately: what every receiver is told from."""

from collections.abc import Iterable
from dataclasses import dataclass
from threading import Condition
from typing import Any

from tickgate_server.alert_settings import AlertSettings
from tickgate_server.observer.alerting.kinds import Alert

# A receiver that is gone for longer is not told of what was resolved meanwhile: Prometheus keeps it as long.
RESOLVED_NS = 900_000_000_000
MAX_ALERTS = 1024
"""Alerts at once; what is beyond is left out, and logged by who puts them up."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One alert with its times on the wall clock; `resolved_ns` is 0 while it fires."""

    alert: Alert
    started_ns: int
    resolved_ns: int = 0


class Board:
    """The alerts there are. One thread updates it; any may read, and wait for a change.

    Attributes:
        changed: Notified with each change; to be held while anything here is read.
        revision: Grows with each change.
        firing: By fingerprint.
        resolved: Those that fired and no longer do, by fingerprint, for RESOLVED_NS.
    """

    def __init__(self) -> None:
        self.changed = Condition()
        self.revision = 0
        self.firing: dict[str, Standing] = {}
        self.resolved: dict[str, Standing] = {}

    def update(self, alerts: Iterable[Alert], now_ns: int) -> list[Standing]:
        """Have these alerts fire, and no others.

        An alert is the same as before where its labels are, whatever its description says by now.

        Args:
            alerts: All there are, at most MAX_ALERTS of them.
            now_ns: Wall clock.

        Returns:
            Those that began or ended with it.
        """
        wanted = {alert.fingerprint: alert for alert in alerts}
        news: list[Standing] = []
        with self.changed:
            for fingerprint in [known for known in self.firing if known not in wanted]:
                before = self.firing.pop(fingerprint)
                ended = Standing(before.alert, before.started_ns, max(now_ns, before.started_ns + 1))
                self.resolved[fingerprint] = ended
                news.append(ended)
            for fingerprint, alert in wanted.items():
                known = self.firing.get(fingerprint)
                if known is None and len(self.firing) < MAX_ALERTS:
                    begun = Standing(alert, min(alert.since_ns or now_ns, now_ns))
                    self.firing[fingerprint] = begun
                    self.resolved.pop(fingerprint, None)
                    news.append(begun)
                elif known is not None:
                    self.firing[fingerprint] = Standing(alert, known.started_ns)
            for fingerprint in [f for f, s in self.resolved.items() if now_ns - s.resolved_ns > RESOLVED_NS]:
                del self.resolved[fingerprint]
            if news:
                self.revision += 1
                self.changed.notify_all()
        return news


def labels_of(alert: Alert, settings: AlertSettings) -> dict[str, str]:
    """An alert's labels with those that the settings give to all."""
    return settings.label_pairs | alert.labels


def annotations_of(alert: Alert, settings: AlertSettings) -> dict[str, Any]:
    """What is said of an alert: summary, description, what to do first, and where the rest is written."""
    return {
        "summary": alert.kind.summary,
        "description": alert.description,
        "runbook": alert.kind.first_step,
        "runbook_url": f"{settings.runbooks}#{alert.kind.anchor}",
    }
