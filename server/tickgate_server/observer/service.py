"""The observer: follows journals, counts what is in them, serves the metrics, hands values back to the hot path.

The same class runs in a process of its own (`observer.process`) and, in tests and where a server is embedded, in a
thread (`ObserverThread`).
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import Metric

from tickgate_server.alert_settings import AlertSettings
from tickgate_server.control_block import ControlBlockLocked, ControlBlockWriter, Slot
from tickgate_server.journal.segments import segment_numbers
from tickgate_server.models.shadow_record import shadow_folder
from tickgate_server.observer.counters import Counters
from tickgate_server.observer.desk_metrics import Workers, workers_of
from tickgate_server.observer.feature_watch import FeatureWatch
from tickgate_server.observer.health import ModelHealth, manifests_in
from tickgate_server.observer.health_checks import FALSE_ALARMS_A_DAY
from tickgate_server.observer.metrics import JournalCollector, MetricsEndpoint
from tickgate_server.observer.recent import RecentLatency
from tickgate_server.observer.risk_values import RiskValues
from tickgate_server.observer.shadows import ShadowMetrics
from tickgate_server.observer.starved import LATE_S, Starved
from tickgate_server.observer.store_view import StoreView
from tickgate_server.observer.tail import Tail
from tickgate_server.risk.estimates import RiskValueSettings
from tickgate_server.scheduling import be_nicer, give_way

if TYPE_CHECKING:
    from tickgate_server.observer.alerting.alerts import Alerts

# A wake-up costs half a millisecond of a core that answers may want, and a batch hardly more than one record. Nothing
# needs a record sooner: a scrape reads what is new by itself, and the control block's values age in seconds.
PAUSE_S = 0.1
# How long one journal may keep the others of a server waiting.
_TURN_S = 0.02
# Between turns that are taken though answers leave no core, where there is more to read.
_BETWEEN_TURNS_S = 0.05
# A scrape waits so long for what was journaled before it; what is missing then is in the lag.
SCRAPE_S = 0.05
_RETRY_S = 0.05
_NICEST = 19


class Observer:
    """Follows one journal or several: those of one server's workers.

    Attributes:
        address: `host:port` of the metrics endpoint; None without one.

    Args:
        journals: Folders, which must exist.
        controls: A control block for each, None for none.
        metrics_listen: `host:port`, port 0 takes a free one; empty: no endpoint.
        patience_s: How long an observer before this one may take to let go of port and control block.
        risk: How risk data are made, a file for each journal that has a control block; None: they are not.
        models: The repository, whose manifests say what is expected of a version; None: neither health nor features
            are watched.
        alerts: Who is told of what is wrong; None: nobody.

    Raises:
        JournalMissing: A folder is not there.
        HiddenMarkovInvalid: A file that `risk` names cannot be used.
        HealthStateInvalid: What models were degraded cannot be told.
        ControlBlockLocked: Another observer writes a control block.
        MetricsAddressTaken: The endpoint's address cannot be had.
        ValueError: It is no `host:port`.
        OSError: A control block cannot be made.
    """

    def __init__(
        self,
        journals: Sequence[Path],
        controls: Sequence[Path | None],
        metrics_listen: str = "",
        patience_s: float = 0.0,
        risk: RiskValueSettings | None = None,
        models: Path | None = None,
        alerts: AlertSettings | None = None,
    ) -> None:
        self._lock = Lock()
        self._stack = contextlib.ExitStack()
        self._endpoint: MetricsEndpoint | None = None
        self._tails: list[Tail] = []
        self._stepped = time.monotonic()
        self._starved = Starved()
        counters = Counters()
        self._store = StoreView(journals[0] if len(journals) == 1 else journals[0].parent)
        self._alerts = _alerts_of(alerts, self._store) if alerts is not None and alerts.wanted else None
        with contextlib.ExitStack() as stack:
            if self._alerts is not None:
                stack.callback(self._alerts.close)
            for journal, control in zip(journals, controls, strict=True):
                segment_numbers(journal)  # a folder that is not there is said before anything is made in it
                writer = _control_writer(control, patience_s) if control else None
                if writer is not None:
                    stack.callback(writer.close)
                values = RiskValues(journal, risk) if risk is not None and writer is not None else None
                health = partial(_health_of, journal, models, len(journals)) if models is not None else None
                features = FeatureWatch(manifests_in(models)) if models is not None else None
                tail = Tail(journal, counters, self._lock, writer, values, health, features)
                stack.callback(tail.close)
                self._tails.append(tail)
            self._workers = workers_of(self._tails)
            if metrics_listen:
                shadows = ShadowMetrics(shadow_folder(journals[0], len(journals)))
                others: list[Callable[[Workers], Iterable[Metric]]] = [
                    partial(_shadow_metrics, shadows),
                    self._store.collect,
                ]
                if self._alerts is not None:
                    others.append(self._alerts.collect)
                collector = JournalCollector(self._workers, counters, self._lock, self._catch_up_for_scrape, others)
                self._endpoint = MetricsEndpoint(metrics_listen, collector, patience_s)
            self._stack = stack.pop_all()

    @property
    def address(self) -> str | None:
        """`host:port` that metrics are served on; None without an endpoint."""
        return self._endpoint.address if self._endpoint else None

    def run(self, end: Event, *, behind: bool = False) -> None:
        """Observe until `end` is set, then take in what is left, and let go of everything.

        Args:
            end: Set from another thread.
            behind: Give way to every other process: a thread that wakes up on a busy core otherwise holds an answer up
                for a whole time slice, some milliseconds. Not for a thread of a server's: it would starve with the
                interpreter's lock in its hands.
        """
        try:
            if self._alerts is not None:
                self._alerts.start()
            if self._endpoint is not None:
                self._endpoint.start_sampling()
            if behind:
                self._run_behind(end)
            else:
                self._follow(end)
            # Port and control block are free for the next server while the rest is read.
            self._close_endpoint()
            for tail in self._tails:
                tail.stop_handing_back()
            for tail in self._tails:
                tail.catch_up()
        finally:
            self.close()

    def _run_behind(self, end: Event) -> None:
        follower = Thread(target=self._follow, args=[end], name="follower", daemon=True)
        follower.start()
        give_way(follower)
        if self._endpoint is not None:
            self._endpoint.give_way(self._starved)
        be_nicer(_NICEST)
        # Behind answers, the observer runs only where they leave a core idle. Where they leave none for so long, it
        # takes its turn all the same, if a small one: the values it hands back must not grow old.
        took_turn, pause_s = False, LATE_S
        while not end.wait(pause_s):
            if not took_turn:  # the follower had all of the pause for a step
                self._starved.took(time.monotonic() - self._stepped)
            took_turn, pause_s = self._starved.now, LATE_S
            if took_turn and self._step(end):
                pause_s = _BETWEEN_TURNS_S
        follower.join()

    def _follow(self, end: Event) -> None:
        pause_s = PAUSE_S
        while not end.wait(pause_s):
            pause_s = PAUSE_S if self._starved.now or not self._step(end) else 0.0

    def _step(self, end: Event) -> bool:
        """Take in what is new, and hand back; whether there is more already."""
        for tail in self._tails:
            tail.catch_up(_TURN_S)
            with self._lock:
                tail.hand_back()
            if end.is_set():
                break
        if self._alerts is not None:
            with self._lock:
                self._alerts.look(self._workers)
        self._stepped = time.monotonic()
        return any(tail.lag_records for tail in self._tails)

    def close(self) -> None:
        """Let go of journals, control blocks and the endpoint."""
        self._close_endpoint()
        self._stack.close()

    def _close_endpoint(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.close()

    def _catch_up_for_scrape(self) -> None:
        end = time.monotonic() + SCRAPE_S
        for tail in self._tails:
            tail.catch_up(max(end - time.monotonic(), 0.0))


class ObserverThread:
    """An observer in a thread of this process.

    Attributes:
        address: `host:port` of the metrics endpoint; None without one.
    """

    def __init__(self, observer: Observer) -> None:
        self.address = observer.address
        self._end = Event()
        self._thread = Thread(target=observer.run, args=[self._end], name="observer", daemon=True)
        self._thread.start()

    def ready(self) -> str | None:
        """`address`: it is there from the beginning."""
        return self.address

    def close(self) -> None:
        """Take in what is left in the journals, and end."""
        self._end.set()
        self._thread.join()


def _health_of(journal: Path, models: Path, journals: int, latency: RecentLatency) -> ModelHealth:
    """What watches the models of a journal, with its share of the false alarms that a day may have."""
    return ModelHealth(
        manifests_in(models),
        folder=journal,
        latency=latency,
        slot=int(Slot.MODEL_DEGRADED),
        false_alarms_a_day=FALSE_ALARMS_A_DAY / journals,
    )


def _alerts_of(settings: AlertSettings, store: StoreView) -> "Alerts":
    # Imported here: an observer that tells nobody needs no HTTP client.
    from tickgate_server.observer.alerting.alerts import Alerts  # noqa: PLC0415

    return Alerts(settings, store)


def _shadow_metrics(shadows: ShadowMetrics, workers: Workers) -> Iterable[Metric]:
    return shadows.collect({worker: tail.next_sequence for worker, tail in workers.items()})


def _control_writer(path: Path, patience_s: float) -> ControlBlockWriter:
    give_up = time.monotonic() + patience_s
    while True:
        try:
            return ControlBlockWriter(path)
        except ControlBlockLocked:
            if time.monotonic() >= give_up:
                raise
        time.sleep(_RETRY_S)
