"""What the page shows: the view now, and ten minutes of it, from a reading every two seconds."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from threading import Lock

from prometheus_client.metrics_core import Metric

from tickgate_server.observer.live.reading import Reading
from tickgate_server.observer.live.view import View, view

SAMPLE_S = 2.0
"""Between two readings."""
WINDOW_S = 10.0
"""What rates and latencies of the view are over: a p99.9 of less is noise."""
KEPT_S = 600.0
POINTS = int(KEPT_S / SAMPLE_S)
"""How many points are kept; the oldest goes."""


class Window:
    """Readings of the last ten seconds, and the view from the oldest to the newest."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque()

    @property
    def latest(self) -> Reading | None:
        """The newest reading."""
        return self._readings[-1] if self._readings else None

    def add(self, reading: Reading) -> View:
        """Take a reading in, and say what it shows."""
        self._readings.append(reading)
        while len(self._readings) > 2 and self._readings[1].at_s <= reading.at_s - WINDOW_S:
            self._readings.popleft()
        return view(reading, self._readings[0])


class History:
    """Takes readings, and tells them as JSON. Safe to be called by several threads.

    Args:
        collect: The metrics as they are now.
    """

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect
        self._lock = Lock()
        self._window = Window()
        self._points: deque[dict[str, float | None]] = deque(maxlen=POINTS)
        self._taken_s = 0.0
        self._view: View | None = None

    def sample(self) -> None:
        """Take a reading; its point in the charts is what changed since the one before."""
        reading = Reading(self._collect(), time.monotonic())
        with self._lock:
            before = self._window.latest
            self._view = self._window.add(reading)
            self._taken_s = time.time()
            self._points.append(_point(view(reading, before), self._taken_s))

    def as_json(self) -> bytes:
        """The newest view (null before the first reading), how old it is, and the points, oldest first."""
        with self._lock:
            points, shown = list(self._points), self._view
            age_s = time.time() - self._taken_s if shown is not None else None
        said = {"age_s": age_s, "sample_s": SAMPLE_S, "view": shown and shown.as_dict(), "points": points}
        return json.dumps(said, allow_nan=False, separators=(",", ":")).encode()


def _point(found: View, at_s: float) -> dict[str, float | None]:
    total = found.stages[-1]
    used = {figure.name: figure.used for figure in found.desk.figures}
    return {
        "at_s": at_s,
        "rate": found.rate,
        "rejected": found.rejected,
        "p50_s": total.p50_s,
        "p99_s": total.p99_s,
        "p999_s": total.p999_s,
        "gross": used["gross"],
        "net": used["net"],
        "loss": used["P&L"],
        "drawdown": used["drawdown"],
        "var": used["VaR"],
    }
