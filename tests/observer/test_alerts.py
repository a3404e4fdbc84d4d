"""Alerts: what the journal says is wrong reaches a real Alertmanager and a real HTTP server, and is taken back."""

import json
import queue
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.journal.journal_samples import append
from tests.observer.scraping import scrape, value
from tests.support.prometheus import Alertmanager, free_port, until

from tickgate_server.alert_settings import AlertSettings
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.observer.alerting.board import MAX_ALERTS, RESOLVED_NS, Board
from tickgate_server.observer.alerting.kinds import HALTED, KINDS, MODEL_DEGRADED, REDUCING, Alert
from tickgate_server.observer.alerting.receivers import stamp
from tickgate_server.observer.service import Observer, ObserverThread
from tickgate_server.risk.regimes import TradingState

RUNBOOKS = Path(__file__).resolve().parents[2] / "docs" / "runbooks.md"
SOON_S = 5.0


@contextmanager
def alerting(journal: Path, **settings: Any) -> Iterator[str]:
    """Address of the metrics of an observer that tells of what is wrong."""
    observer = ObserverThread(Observer([journal], [None], "127.0.0.1:0", alerts=AlertSettings(**settings)))
    try:
        yield str(observer.ready())
    finally:
        observer.close()


def set_state(writer: JournalWriter, state: TradingState, reason: str = "test", who: str = "a person") -> None:
    payload = {"state": int(state), "reason": reason, "who": who}
    writer.append_control(ControlKind.TRADING_STATE, payload, clock_ns=1_700_000_000_000_000_000)


class Hook:
    """A real HTTP server; answers with `status`, keeps what it took, and its headers."""

    def __init__(self, port: int = 0) -> None:
        self.taken: queue.Queue[dict[str, Any]] = queue.Queue()
        self.headers: dict[str, str] = {}
        self.status = 204
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if hook.status == 204:
                    hook.headers = dict(self.headers)
                    hook.taken.put(json.loads(body))
                self.send_response(hook.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    @contextmanager
    def up(self) -> Iterator[None]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


def test_an_alertmanager_is_told_what_fires_and_what_is_resolved(tmp_path: Path) -> None:
    manager = Alertmanager(tmp_path)
    with manager.up(), JournalWriter(tmp_path / "journal") as writer:
        append(writer)
        settings = {"alertmanagers": (manager.url,), "labels": ("env=test",), "runbooks": "https://wiki/runbooks"}
        with alerting(tmp_path / "journal", **settings) as metrics:
            set_state(writer, TradingState.HALTED, "somebody pulled the plug", "kill file")
            found = until(manager.alerts, SOON_S)["TickgateHalted"]
            assert found["labels"]["severity"] == "critical"
            assert found["labels"]["env"] == "test"
            assert found["annotations"]["description"] == "somebody pulled the plug (by kill file)"
            assert found["annotations"]["runbook_url"] == "https://wiki/runbooks#tickgatehalted"
            assert found["startsAt"].startswith("2023-11-14T22:13:20")
            firing = {"alertname": "TickgateHalted", "severity": "critical"}
            assert value(scrape(metrics), "tickgate_alerts_firing", **firing) == 1
            set_state(writer, TradingState.ACTIVE)
            until(lambda: not manager.alerts(), SOON_S)
            told = value(
                scrape(metrics), "tickgate_alert_notifications_total", receiver="alertmanager", outcome="delivered"
            )
            assert told >= 2


def test_an_alertmanager_that_was_gone_is_told_when_it_is_back_and_delays_nobody(tmp_path: Path) -> None:
    manager = Alertmanager(tmp_path)
    with JournalWriter(tmp_path / "journal") as writer:
        append(writer)
        with alerting(tmp_path / "journal", alertmanagers=(manager.url,)) as metrics:
            with manager.up():
                set_state(writer, TradingState.HALTED)
                until(manager.alerts, SOON_S)
            set_state(writer, TradingState.REDUCING, "session P&L", "loss limit")
            failed = {"receiver": "alertmanager", "outcome": "failed"}
            until(lambda: value(scrape(metrics), "tickgate_alert_notifications_total", **failed) >= 1)
            append(writer, 100)
            samples = scrape(metrics)
            assert value(samples, "tickgate_requests_total", code="OK") == 101
            assert value(samples, "tickgate_journal_lag_records") == 0
            with manager.up():
                until(lambda: manager.alerts().keys() == {"TickgateLossLimit"}, 2 * SOON_S)


def test_a_webhook_gets_each_change_once_in_order_through_refusals_to_connect(tmp_path: Path) -> None:
    port = free_port()
    authorization = tmp_path / "authorization"
    authorization.write_text("Bearer abc\n")
    settings = {"webhook": f"http://127.0.0.1:{port}/hook", "webhook_authorization_file": authorization}
    with JournalWriter(tmp_path / "journal") as writer:
        append(writer)
        with alerting(tmp_path / "journal", **settings) as metrics:
            set_state(writer, TradingState.HALTED)
            failed = {"receiver": "webhook", "outcome": "failed"}
            until(lambda: value(scrape(metrics), "tickgate_alert_notifications_total", **failed) >= 1)
            hook = Hook(port)
            with hook.up():
                first = hook.taken.get(timeout=2 * SOON_S)
                assert hook.headers["Authorization"] == "Bearer abc"
                set_state(writer, TradingState.ACTIVE)
                second = hook.taken.get(timeout=SOON_S)
            assert (first["status"], second["status"]) == ("firing", "resolved")
            assert first["fingerprint"] == second["fingerprint"] == Alert(HALTED).fingerprint
            assert first["labels"] == Alert(HALTED).labels
            assert first["endsAt"] is None
            assert second["endsAt"] > second["startsAt"] == first["startsAt"] == stamp(1_700_000_000_000_000_000)
            assert hook.taken.empty()


def test_a_webhook_that_refuses_for_good_is_not_asked_again_and_a_full_queue_drops_the_oldest(tmp_path: Path) -> None:
    hook = Hook()
    hook.status = 400
    name = "tickgate_alert_notifications_total"
    with JournalWriter(tmp_path / "journal") as writer, hook.up():
        append(writer)
        with alerting(tmp_path / "journal", webhook=hook.url, queue_limit=1) as metrics:
            set_state(writer, TradingState.HALTED)
            until(lambda: value(scrape(metrics), name, receiver="webhook", outcome="refused") == 1)
            hook.status = 503
            set_state(writer, TradingState.REDUCING)  # one is resolved, one fires
            until(lambda: value(scrape(metrics), name, receiver="webhook", outcome="dropped") == 1)
            hook.status = 204
            assert hook.taken.get(timeout=2 * SOON_S)["labels"]["alertname"] == "TickgateReducing"
            samples = scrape(metrics)
            assert value(samples, name, receiver="webhook", outcome="refused") == 1


def test_what_older_records_say_and_is_over_fires_nothing(tmp_path: Path) -> None:
    hook = Hook()
    with JournalWriter(tmp_path / "journal") as writer, hook.up():
        set_state(writer, TradingState.HALTED)
        append(writer, 10)
        set_state(writer, TradingState.ACTIVE)
        with alerting(tmp_path / "journal", webhook=hook.url):
            set_state(writer, TradingState.REDUCING)
            assert hook.taken.get(timeout=SOON_S)["labels"]["alertname"] == "TickgateReducing"
            assert hook.taken.empty()


def test_the_same_alert_is_put_up_once_whatever_its_description_says() -> None:
    board = Board()
    assert [one.started_ns for one in board.update([Alert(HALTED, description="a")], 10)] == [10]
    assert board.update([Alert(HALTED, description="b")], 20) == []
    assert board.firing[Alert(HALTED).fingerprint].alert.description == "b"
    assert [(one.started_ns, one.resolved_ns) for one in board.update([], 30)] == [(10, 30)]
    assert board.update([], 40 + RESOLVED_NS) == []
    assert board.resolved == {}


def test_labels_tell_alerts_apart_and_empty_ones_are_none() -> None:
    versions = [Alert(MODEL_DEGRADED, {"model": "m", "version": str(number)}) for number in range(3)]
    assert len({alert.fingerprint for alert in versions}) == 3
    assert Alert(HALTED, {"worker": ""}).labels == Alert(HALTED).labels
    assert Alert(HALTED).fingerprint != Alert(REDUCING).fingerprint


def test_there_are_at_most_so_many_alerts() -> None:
    board = Board()
    board.update([Alert(MODEL_DEGRADED, {"version": str(number)}) for number in range(MAX_ALERTS + 5)], 1)
    assert len(board.firing) == MAX_ALERTS


def test_every_kind_of_alert_has_its_runbook() -> None:
    anchors = [heading.lower() for heading in re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), re.MULTILINE)]
    assert len(anchors) == len(set(anchors))
    assert [kind.name for kind in KINDS if kind.anchor not in anchors] == []


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"alertmanagers": ("localhost:9093",)}, "expected http://host:port"),
        ({"webhook": "http://user:secret@host/"}, "expected no password in a URL"),
        ({"labels": ("env",)}, "expected name=value, got 'env'"),
        ({"labels": ("severity=none",)}, "got 'severity'"),
        ({"queue_limit": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_would_tell_nobody_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        AlertSettings(**settings)
