"""What is wrong now, out of what tails know."""

import os
from collections.abc import Iterator, Mapping

from tickgate_server.alert_settings import AlertSettings
from tickgate_server.journal.errors import JournalError
from tickgate_server.journal.segments import segment_numbers, segment_path
from tickgate_server.observer.alerting.kinds import (
    FEATURE_DRIFT,
    HALTED,
    JOURNAL_SPACE,
    JOURNAL_UNREADABLE,
    LOSS_LIMIT,
    MODEL_DEGRADED,
    MODEL_SLOW,
    OBSERVER_LAG,
    RECORDS_LOST,
    REDUCING,
    RISK_DATA_STALE,
    STORE_DOWN,
    VAR_LIMIT,
    Alert,
)
from tickgate_server.observer.store_view import StoreView
from tickgate_server.observer.tail import Tail
from tickgate_server.risk.regimes import TradingState

# As desk.Desk says it is, where a loss limit reduced the desk.
LOSS_LIMIT_SET_IT = "loss limit"
# How long something that happens and is over, a refusal say, is said to be wrong.
EVENT_NS = 60_000_000_000
LOST_NS = 600_000_000_000
# A connection that is made again at once is no outage.
DOWN_NS = 2_000_000_000
# Risk data are not there when a server starts, and then come.
STALE_NS = 3_000_000_000


class Conditions:
    """Looks at tails again and again; remembers only what it needs to tell an event from what was so before.

    What a journal's older records say was over long ago, so a tail's desk counts once it has been read to the end.

    Args:
        settings: The limits.
        store: How the store fares.
    """

    def __init__(self, settings: AlertSettings, store: StoreView) -> None:
        self._settings = settings
        self._store = store
        self._read: set[str] = set()  # workers whose journal was read to its end once
        self._lost: dict[str, tuple[int, int]] = {}  # records lost, and when that was seen
        self._stale: dict[str, int] = {}  # since when

    def look(self, workers: Mapping[str, Tail], now_ns: int) -> Iterator[Alert]:
        """What is wrong; the tails' lock is held.

        Args:
            workers: Tails by the label of their worker.
            now_ns: Wall clock.
        """
        for worker, tail in workers.items():
            if tail.readable and not tail.lag_records:
                self._read.add(worker)
            where = {"worker": worker}
            yield from self._journal(tail, where, now_ns)
            if worker in self._read:
                yield from self._desk(tail, where, now_ns)
                yield from _models(tail)
                yield from _features(tail)
        yield from self._of_store(now_ns)

    def _journal(self, tail: Tail, where: Mapping[str, str], now_ns: int) -> Iterator[Alert]:
        if not tail.readable:
            yield Alert(JOURNAL_UNREADABLE, where, f"{tail.folder}: the observer's log says why")
        lag_s = tail.lag_ns / 1e9
        if lag_s > self._settings.observer_lag_s:
            said = f"it last had read everything {lag_s:.0f} s ago; {tail.lag_records} records wait"
            yield Alert(OBSERVER_LAG, where, said)
        worker = where["worker"]
        lost, _ = self._lost.get(worker, (0, 0))
        if tail.lost > lost:
            self._lost[worker] = (tail.lost, now_ns)
        lost, seen_ns = self._lost.get(worker, (0, 0))
        if lost and now_ns - seen_ns < LOST_NS:
            yield Alert(RECORDS_LOST, where, f"{lost} records since the observer started")
        yield from self._space(tail, where)

    def _of_store(self, now_ns: int) -> Iterator[Alert]:
        status = self._store.read()
        if status is None:
            return
        gone_ns = now_ns - status.since_ns
        if not status.fresh(now_ns):
            yield Alert(STORE_DOWN, description=status.text(now_ns), since_ns=status.clock_ns)
        elif not status.connected and gone_ns >= DOWN_NS:
            yield Alert(STORE_DOWN, description=f"{status.where}: {status.why}", since_ns=status.since_ns)

    def _space(self, tail: Tail, where: Mapping[str, str]) -> Iterator[Alert]:
        try:
            numbers = segment_numbers(tail.folder)
            if not numbers:
                return
            segment = segment_path(tail.folder, numbers[-1]).stat().st_size
            status = os.statvfs(tail.folder)
        except FileNotFoundError:  # retention is at work: the next look sees the next one
            return
        except (JournalError, OSError) as error:
            yield Alert(JOURNAL_UNREADABLE, where, str(error))
            return
        free = status.f_bavail * status.f_frsize
        if free < segment * self._settings.journal_free_segments:
            yield Alert(JOURNAL_SPACE, where, f"{tail.folder}: {free} bytes are free, a segment takes {segment}")

    def _desk(self, tail: Tail, where: Mapping[str, str], now_ns: int) -> Iterator[Alert]:
        desk = tail.desk
        state = desk.state
        if state is not None and state.state is not TradingState.ACTIVE:
            kind = HALTED if state.state is TradingState.HALTED else REDUCING
            if kind is REDUCING and state.who == LOSS_LIMIT_SET_IT:
                kind = LOSS_LIMIT
            yield Alert(kind, where, f"{state.reason} (by {state.who or 'an unknown'})", state.since_ns)
        if desk.var_refused_ns and now_ns - desk.var_refused_ns < EVENT_NS:
            limit = desk.limits.get("max_var")
            yield Alert(VAR_LIMIT, where, f"an order was refused within the last minute; max_var is {limit}")
        worker = where["worker"]
        if desk.fresh is False and desk.limits.get("max_var") is not None:
            since_ns = self._stale.setdefault(worker, now_ns)
            if now_ns - since_ns >= STALE_NS:
                yield Alert(RISK_DATA_STALE, where, "as the engine said when it last looked", since_ns)
        else:
            self._stale.pop(worker, None)


def _features(tail: Tail) -> Iterator[Alert]:
    """What is not as in training, without the worker as well."""
    for (name, number), drift in (tail.features.watched if tail.features is not None else {}).items():
        for deviation in drift.found.values():
            where = {"model": name, "version": str(number), "feature": deviation.feature, "kind": deviation.kind}
            said = f"{deviation.kind}: {deviation.value:.4g}"
            yield Alert(
                FEATURE_DRIFT, where, said if deviation.kind == "stuck" else f"{said}, over {deviation.limit:.4g}"
            )


def _models(tail: Tail) -> Iterator[Alert]:
    """A version is degraded in one journal, and is said to be so wherever it is: without the worker."""
    health = tail.health
    if health is None:
        return
    for name, number in health.monitored & health.degraded.keys():
        event = health.degraded[name, number]
        where = {"model": name, "version": str(number)}
        said = f"check {event['check']}: measured {event['measured']:.4g}, bar {event['bar']:.4g}"
        yield Alert(MODEL_DEGRADED, where, said)
    for (name, number), us_p99 in health.slow.items():
        where = {"model": name, "version": str(number)}
        yield Alert(MODEL_SLOW, where, f"p99 is {us_p99:.0f} us")
