"""Each thing that is wrong is seen in what a journal, its folder or a status file says, and is over when it is over."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from types import SimpleNamespace

import pytest
from tests.journal.journal_samples import append, approved, model, overwrite, tick

from tickgate_server.alert_settings import AlertSettings
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.segments import segment_path
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.observer.alerting.conditions import DOWN_NS, EVENT_NS, LOST_NS, STALE_NS, Conditions
from tickgate_server.observer.alerting.kinds import Alert
from tickgate_server.observer.counters import Counters
from tickgate_server.observer.health import STATE_FILE, ModelHealth
from tickgate_server.observer.store_view import StoreView
from tickgate_server.observer.tail import Tail
from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.reasons import Action, Reason
from tickgate_server.risk.regimes import TradingState
from tickgate_server.store_status import FRESH_S, StoreStatus, write_status

NOW_NS = time.time_ns()


class Watched:
    """A journal, a tail that is told to read it, and what is wrong then."""

    def __init__(self, folder: Path, writer: JournalWriter, **settings: float) -> None:
        health = partial(ModelHealth, lambda *_: None, folder=folder)
        self.writer = writer
        self.store = StoreView(folder)
        self.tail = Tail(folder, Counters(), Lock(), None, None, lambda latency: health(latency=latency))
        self._conditions = Conditions(AlertSettings(**settings), self.store)

    def look(self, later_ns: int = 0) -> dict[str, Alert]:
        """By name, all that was journaled read."""
        self.tail.catch_up()
        return self.look_without_reading(later_ns)

    def look_without_reading(self, later_ns: int = 0) -> dict[str, Alert]:
        found = self._conditions.look({"": self.tail}, NOW_NS + later_ns)
        return {alert.kind.name: alert for alert in found}

    def set_state(self, state: TradingState, who: str) -> None:
        payload = {"state": int(state), "reason": "because", "who": who}
        self.writer.append_control(ControlKind.TRADING_STATE, payload, clock_ns=NOW_NS)


@contextmanager
def watched(folder: Path, *, segment_records: int = 64, **settings: float) -> Iterator[Watched]:
    with JournalWriter(folder, segment_records=segment_records) as writer:
        append(writer)
        found = Watched(folder, writer, **settings)
        try:
            yield found
        finally:
            found.tail.close()


def test_nothing_is_wrong_with_a_journal_of_approvals(tmp_path: Path) -> None:
    with watched(tmp_path) as journal:
        assert journal.look() == {}


@pytest.mark.parametrize(
    ("state", "who", "name"),
    [
        (TradingState.HALTED, "a person", "TickgateHalted"),
        (TradingState.HALTED, "loss limit", "TickgateHalted"),
        (TradingState.REDUCING, "restart", "TickgateReducing"),
        (TradingState.REDUCING, "loss limit", "TickgateLossLimit"),
    ],
)
def test_a_trading_state_is_one_alert_as_long_as_it_stands(
    tmp_path: Path, state: TradingState, who: str, name: str
) -> None:
    with watched(tmp_path) as journal:
        journal.set_state(state, who)
        found = journal.look()
        assert found.keys() == {name}
        assert found[name].since_ns == NOW_NS
        assert found[name].description == f"because (by {who})"
        journal.set_state(TradingState.ACTIVE, "a person")
        assert journal.look() == {}


def test_what_a_loss_limit_calls_itself_is_what_the_desk_says() -> None:
    source = Path(__file__).resolve().parents[2] / "server/tickgate_server/desk/__init__.py"
    assert 'who="loss limit"' in source.read_text()


def refused_by_var(value: float, clock_ns: int) -> dict[str, object]:
    checks = [0.0] * len(CHECKS)
    checks[[check.reason for check in CHECKS].index(Reason.VAR_PORTFOLIO)] = value
    decision = approved(reason=Reason.VAR_PORTFOLIO, action=Action.HOLD, check_values=checks)
    return {"decision": decision, "clock_ns": clock_ns}


def test_a_refusal_by_value_at_risk_is_wrong_for_a_minute_and_one_for_want_of_it_is_not(tmp_path: Path) -> None:
    with watched(tmp_path) as journal:
        journal.writer.append_decision(tick(), **refused_by_var(float("nan"), NOW_NS))  # type: ignore[arg-type]
        assert journal.look() == {}
        journal.writer.append_decision(tick(), **refused_by_var(30_000.0, NOW_NS))  # type: ignore[arg-type]
        assert journal.look().keys() == {"TickgateVarLimit"}
        assert journal.look(EVENT_NS) == {}


def test_risk_data_that_stay_stale_are_wrong_unless_nothing_needs_them(tmp_path: Path) -> None:
    with watched(tmp_path) as journal:
        journal.writer.append_control(ControlKind.LIMITS, {"max_var": 25_000.0})
        journal.writer.append_control(ControlKind.CONTROL_BLOCK, {"fresh": 0})
        assert journal.look() == {}  # they come a moment after the server
        assert journal.look(STALE_NS).keys() == {"TickgateRiskDataStale"}
        journal.writer.append_control(ControlKind.CONTROL_BLOCK, {"fresh": 1})
        assert journal.look(STALE_NS) == {}
        journal.writer.append_control(ControlKind.CONTROL_BLOCK, {"fresh": 0})
        journal.writer.append_control(ControlKind.LIMITS, {"max_var": "off"})
        journal.look(STALE_NS)
        assert journal.look(3 * STALE_NS) == {}


def test_a_degraded_version_is_wrong_while_it_is_loaded(tmp_path: Path) -> None:
    event = {"model": "m", "version": 1, "check": "sharpe", "measured": 0.01, "bar": 0.05}
    (tmp_path / STATE_FILE).write_text(json.dumps({"told": 0, "degraded": [event]}))
    with watched(tmp_path) as journal:
        assert journal.look() == {}
        journal.writer.add_model(served := model("m", 1))
        (found,) = journal.look().values()
        assert (found.kind.name, dict(found.where)) == ("TickgateModelDegraded", {"model": "m", "version": "1"})
        assert found.description == "check sharpe: measured 0.01, bar 0.05"
        journal.writer.unload_model(served)
        assert journal.look() == {}


def test_an_observer_that_does_not_read_is_late(tmp_path: Path) -> None:
    with watched(tmp_path, observer_lag_s=1e-9) as journal:
        append(journal.writer)
        assert journal.look_without_reading().keys() == {"TickgateObserverLag"}


def test_a_journal_that_cannot_be_read_is_wrong(tmp_path: Path) -> None:
    with watched(tmp_path) as journal:
        overwrite(segment_path(tmp_path, 1), 0, b"????")
        assert "TickgateJournalUnreadable" in journal.look()


def test_records_that_were_lost_are_wrong_for_ten_minutes(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=16, retained_segments=1) as writer:
        append(writer)
        journal = Watched(tmp_path, writer)
        assert journal.look() == {}
        append(writer, 100)
        writer.settle()
        assert journal.look().keys() == {"TickgateRecordsLost"}
        assert journal.look(LOST_NS) == {}
        journal.tail.close()


def test_little_room_for_segments_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(tmp_path, journal_free_segments=3) as journal:
        segment = segment_path(tmp_path, 1).stat().st_size
        free = SimpleNamespace(f_bavail=3 * segment, f_frsize=1)
        monkeypatch.setattr(os, "statvfs", lambda _: free)
        assert journal.look() == {}
        free.f_bavail -= 1
        assert journal.look().keys() == {"TickgateJournalSpace"}


def status(clock_ns: int, *, connected: bool, since_ns: int) -> StoreStatus:
    return StoreStatus(
        clock_ns=clock_ns,
        started_ns=NOW_NS,
        pid=1,
        where="redis:6379",
        connected=connected,
        since_ns=since_ns,
        why="" if connected else "refused",
        queue=3,
        dirty=4,
        written_vectors=5,
        written_states=6,
        written_bytes=700,
        dropped=8,
        conflated=9,
        last_write_ns=0,
        errors={"unreachable": 2},
    )


def test_a_store_is_down_once_redis_is_gone_for_a_while_or_its_process_is_silent(tmp_path: Path) -> None:
    with watched(tmp_path) as journal:
        assert journal.look() == {}
        later_ns = time.time_ns() - NOW_NS
        clock_ns = NOW_NS + later_ns
        write_status(tmp_path, status(clock_ns, connected=True, since_ns=clock_ns))
        assert journal.look(later_ns) == {}
        write_status(tmp_path, status(clock_ns, connected=False, since_ns=clock_ns))
        assert journal.look(later_ns + DOWN_NS - 1) == {}
        (found,) = journal.look(later_ns + DOWN_NS).values()
        assert (found.kind.name, found.description) == ("TickgateStoreDown", "redis:6379: refused")
        write_status(tmp_path, status(clock_ns, connected=True, since_ns=clock_ns))
        assert journal.look(later_ns + int((FRESH_S + 1) * 1e9)).keys() == {"TickgateStoreDown"}
        samples = {
            (sample.name, *sample.labels.values()): sample.value
            for family in journal.store.collect({})
            for sample in family.samples
        }
        assert samples["tickgate_store_connected",] == 1
        assert samples["tickgate_store_queue_depth", "states"] == 4
        assert samples["tickgate_store_errors_total", "unreachable"] == 2
        assert samples["tickgate_store_written_bytes_total",] == 700


def test_a_status_that_a_server_before_left_behind_is_no_store(tmp_path: Path) -> None:
    write_status(tmp_path, status(NOW_NS - 10**12, connected=False, since_ns=NOW_NS - 10**12))
    with watched(tmp_path) as journal:
        assert journal.look() == {}
        assert not any(family.samples for family in journal.store.collect({}))
