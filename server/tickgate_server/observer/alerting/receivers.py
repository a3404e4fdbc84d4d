"""Who is told: Alertmanagers of what fires now, a webhook of each change. Each has a thread that may wait for it.

Alertmanager is told a state, again and again, as Prometheus does it: after an outage the next telling has everything
that still counts, and nothing needs a queue. A webhook is told events, which wait for it in a bounded queue, in order;
each may come twice, and has its alert's fingerprint.
"""

import random
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any

import httpx
import structlog

from tickgate_server.alert_settings import AlertSettings
from tickgate_server.observer.alerting.board import Board, Standing, annotations_of, labels_of
from tickgate_server.scheduling import be_nicer

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 4.0  # a receiver that is back is told within the five seconds
SILENCES = 4  # of `resend_s`, after which an Alertmanager is to take an alert for resolved: as many as Prometheus'
OUTCOMES = ("delivered", "failed", "refused", "dropped")
_NICER = 19
_PASSING = {408, 425, 429}  # of the 4xx, those that another attempt may not meet

_LOG = structlog.get_logger()


class Receiver(ABC):
    """A thread that tells one receiver what is on the board.

    Attributes:
        name: Of its kind, for metrics.
        counts: Notifications by what became of them, one of OUTCOMES.

    Args:
        url: What is posted to.
        board: The alerts.
        settings: The terms.
    """

    name = ""

    def __init__(self, url: str, board: Board, settings: AlertSettings) -> None:
        self.counts: Counter[str] = Counter()
        self._url = url
        self._board = board
        self._settings = settings
        self._end = Event()
        self._reachable = True
        self._thread = Thread(target=self._run, name=f"alerts-{self.name}", daemon=True)
        self._client = httpx.Client(timeout=settings.timeout_s)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def close(self) -> None:
        """End, at once but for an attempt that is under way."""
        self._end.set()
        with self._board.changed:
            self._board.changed.notify_all()
        self._thread.join(self._settings.timeout_s + 1.0)
        self._client.close()

    def _run(self) -> None:
        be_nicer(_NICER)
        pause_s = FIRST_PAUSE_S
        while not self._end.is_set():
            if self._tell():
                pause_s = FIRST_PAUSE_S
            else:
                self._end.wait(pause_s * random.uniform(0.75, 1.0))
                pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)

    @abstractmethod
    def _tell(self) -> bool:
        """Wait until there is something to tell, and try once; whether there is no need to try again."""

    def _post(self, content: Any, count: int) -> bool:
        """Whether the receiver took it, or refused it for good."""
        try:
            headers = self._headers()
            answer = self._client.post(self._url, json=content, headers=headers)
        except (httpx.HTTPError, OSError) as error:
            self._failed(repr(error), count)
            return False
        if answer.is_success:
            self.counts["delivered"] += count
            if not self._reachable:
                self._reachable = True
                _LOG.info("alerts delivered again", receiver=self.name, url=self._url)
            return True
        said = f"status {answer.status_code}: {answer.text[:200]}"
        if answer.is_client_error and answer.status_code not in _PASSING:
            self.counts["refused"] += count
            _LOG.error("alerts refused", receiver=self.name, url=self._url, why=said)
            return True
        self._failed(said, count)
        return False

    def _headers(self) -> dict[str, str]:
        return {}

    def _failed(self, why: str, count: int) -> None:
        """Say it once until it works again."""
        self.counts["failed"] += count
        if self._reachable:
            self._reachable = False
            _LOG.error("alerts not delivered", receiver=self.name, url=self._url, why=why)


class Alertmanager(Receiver):
    """One Alertmanager, by its API v2 (`POST /api/v2/alerts`); `url` is its base."""

    name = "alertmanager"

    def __init__(self, url: str, board: Board, settings: AlertSettings) -> None:
        super().__init__(f"{url.rstrip('/')}/api/v2/alerts", board, settings)
        self._told = 0  # the board's revision
        self._due = 0.0
        self._resolved: set[tuple[str, int]] = set()  # that were delivered: fingerprint and when

    def _tell(self) -> bool:
        board = self._board
        with board.changed:
            while board.revision == self._told and time.monotonic() < self._due and not self._end.is_set():
                board.changed.wait(self._due - time.monotonic())
            revision = board.revision
            firing = list(board.firing.values())
            resolved = {(key, standing.resolved_ns): standing for key, standing in board.resolved.items()}
        self._resolved &= resolved.keys()
        news = [standing for key, standing in resolved.items() if key not in self._resolved]
        if self._end.is_set():
            return True
        if firing or news:
            ends_ns = time.time_ns() + int(SILENCES * self._settings.resend_s * 1e9)
            content = [self._content(standing, ends_ns) for standing in (*firing, *news)]
            if not self._post(content, len(content)):
                return False
        self._told = revision
        self._resolved |= resolved.keys()
        self._due = time.monotonic() + self._settings.resend_s
        return True

    def _content(self, standing: Standing, ends_ns: int) -> dict[str, Any]:
        return {
            "labels": labels_of(standing.alert, self._settings),
            "annotations": annotations_of(standing.alert, self._settings),
            "startsAt": stamp(standing.started_ns),
            "endsAt": stamp(standing.resolved_ns or ends_ns),
        }


class Webhook(Receiver):
    """Any HTTP server: a POST of JSON for each alert that fires or is resolved."""

    name = "webhook"

    def __init__(self, url: str, board: Board, settings: AlertSettings) -> None:
        super().__init__(url, board, settings)
        self._queue: deque[Standing] = deque()

    def put(self, news: Iterable[Standing]) -> None:
        """Have these told; where the queue is full the oldest is dropped."""
        with self._board.changed:
            for standing in news:
                if len(self._queue) == self._settings.queue_limit:
                    gone = self._queue.popleft()
                    self.counts["dropped"] += 1
                    _LOG.error("alert dropped", receiver=self.name, alert=gone.alert.labels)
                self._queue.append(standing)
            self._board.changed.notify_all()

    def _tell(self) -> bool:
        with self._board.changed:
            while not self._queue and not self._end.is_set():
                self._board.changed.wait()
            if self._end.is_set():
                return True
            standing = self._queue[0]
        if not self._post(self._content(standing), 1):
            return False
        with self._board.changed:
            if self._queue and self._queue[0] is standing:  # not dropped meanwhile
                self._queue.popleft()
        return True

    def _headers(self) -> dict[str, str]:
        file = self._settings.webhook_authorization_file
        return {} if file is None else {"Authorization": file.read_text(encoding="utf-8").strip()}

    def _content(self, standing: Standing) -> dict[str, Any]:
        resolved = bool(standing.resolved_ns)
        return {
            "status": "resolved" if resolved else "firing",
            "fingerprint": standing.alert.fingerprint,
            "labels": labels_of(standing.alert, self._settings),
            "annotations": annotations_of(standing.alert, self._settings),
            "startsAt": stamp(standing.started_ns),
            "endsAt": stamp(standing.resolved_ns) if resolved else None,
        }


def stamp(clock_ns: int) -> str:
    """A wall clock as RFC 3339 has it, in UTC, to the microsecond."""
    seconds, rest_ns = divmod(clock_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
