"""An observer in a thread, over journals that the test writes."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.journal.journal_samples import VECTOR, append, approved, model, overwrite, slot_at, tick
from tests.observer.scraping import OPENMETRICS, Samples, fetch, scrape, total, value

from tickgate_server.control_block import FILE_NAME, ControlBlockReader, Slot
from tickgate_server.journal.errors import JournalMissing
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.segments import last_sequence, segment_numbers, segment_path
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.observer.address import MetricsAddressTaken
from tickgate_server.observer.service import Observer, ObserverThread

REQUESTS, LATENCY = "tickgate_requests_total", "tickgate_stage_latency_seconds"


@contextmanager
def observed(*journals: Path) -> Iterator[str]:
    """Address of the metrics of an observer in a thread."""
    observer = ObserverThread(Observer(journals, [folder / FILE_NAME for folder in journals], "127.0.0.1:0"))
    try:
        yield str(observer.ready())
    finally:
        observer.close()


def spent(writer: JournalWriter, count: int) -> None:
    for _ in range(count):
        writer.append_decision(tick(), approved(), status=4, stage=2)


def test_a_scrape_has_all_that_was_journaled_before_it_in_both_formats(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=64) as writer, observed(tmp_path) as address:
        served = model("m", 3)
        for rounds in range(1, 6):
            for _ in range(50):
                writer.append_decision(tick(), approved(model=served), applied=True, vector=VECTOR)
            spent(writer, 7)
            text, open_text = scrape(address), scrape(address, OPENMETRICS)
            for samples in (text, open_text):
                assert value(samples, REQUESTS, code="OK") == 50 * rounds
                assert value(samples, REQUESTS, code="DEADLINE_EXCEEDED") == 7 * rounds
                assert value(samples, "tickgate_deadline_exceeded_total", stage="features") == 7 * rounds
                assert value(samples, "tickgate_signals_generated_total", action="BUY") == 50 * rounds
                assert value(samples, "tickgate_decisions_total", reason="APPROVED") == 50 * rounds
                assert value(samples, "tickgate_journal_lag_records") == 0
                assert value(samples, "tickgate_journal_lag_seconds") == 0
                labels = {"stage": "total", "model": "m", "version": "3"}
                assert value(samples, f"{LATENCY}_count", **labels) == 50 * rounds
                assert value(samples, f"{LATENCY}_sum", **labels) == pytest.approx(50 * rounds * 15e-6, rel=1e-12)
                assert value(samples, f"{LATENCY}_bucket", le="1e-05", **labels) == 0
                assert value(samples, f"{LATENCY}_bucket", le="2e-05", **labels) == 50 * rounds
            assert text.keys() == open_text.keys()


def test_the_endpoint_speaks_openmetrics_to_those_who_ask(tmp_path: Path) -> None:
    with observed(tmp_path) as address:
        kind, text = fetch(address, OPENMETRICS)
        assert kind.startswith("application/openmetrics-text")
        assert text.endswith("# EOF\n")
        assert fetch(address)[0].startswith("text/plain")


def test_a_new_observer_has_what_one_before_it_had(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=32) as writer:
        append(writer, 100)
        with observed(tmp_path) as address:
            first = scrape(address)
        append(writer, 11)
    with observed(tmp_path) as address:
        second = scrape(address)
    assert value(first, REQUESTS, code="OK") == 100
    assert value(second, REQUESTS, code="OK") == 111


def test_several_journals_are_one_endpoint(tmp_path: Path) -> None:
    folders = [tmp_path / "0", tmp_path / "1"]
    with JournalWriter(folders[0]) as one, JournalWriter(folders[1]) as other, observed(*folders) as address:
        one.add_model(model("m", 1))
        other.add_model(model("m", 1))
        append(one, 3)
        append(other, 4)
        samples = scrape(address)
    assert value(samples, REQUESTS, code="OK") == 7
    assert total(samples, "tickgate_model_loaded") == 1


def test_the_models_are_those_of_the_last_start_after_retention_too(tmp_path: Path) -> None:
    def loaded(samples: Samples) -> dict[tuple[str, str, str], float]:
        return {
            (dict(labels)["model"], dict(labels)["version"], dict(labels)["engine"]): number
            for (name, labels), number in samples.items()
            if name == "tickgate_model_loaded"
        }

    with observed(tmp_path) as address:
        with JournalWriter(tmp_path, segment_records=16, retained_segments=2) as writer:
            writer.append_control(ControlKind.SETTINGS, {"settings": "x" * 2000})
            writer.add_model(model("gone", 1))
        with JournalWriter(tmp_path, segment_records=16, retained_segments=2) as writer:
            writer.append_control(ControlKind.SETTINGS, {})
            writer.add_model(model("m", 2))
            writer.add_refused("m", 3, "HashMismatch")
            writer.add_refused("\udcff" + "n" * 300, 1, "HashMismatch")
            expected = {
                ("m", "2", "compiled_forest"): 1,
                ("m", "3", ""): 0,
                (("\\udcff" + "n" * 300)[:48], "1", ""): 0,
            }
            assert loaded(scrape(address)) == expected
            append(writer, 100)
            writer.settle()
            assert loaded(scrape(address)) == expected
    with observed(tmp_path) as address:  # the start itself is no longer there
        assert loaded(scrape(address)) == expected


def test_versions_come_and_go_while_a_server_serves(tmp_path: Path) -> None:
    def loaded(samples: Samples) -> dict[str, float]:
        return {dict(labels)["version"]: v for (name, labels), v in samples.items() if name == "tickgate_model_loaded"}

    with observed(tmp_path) as address, JournalWriter(tmp_path, segment_records=16, retained_segments=2) as writer:
        writer.append_control(ControlKind.SETTINGS, {})
        writer.add_model(first := model("m", 1))
        writer.add_refused("m", 2, "HashMismatch")
        assert loaded(scrape(address)) == {"1": 1, "2": 0}
        writer.add_model(model("m", 2))
        assert loaded(scrape(address)) == {"1": 1, "2": 1}
        writer.unload_model(first)
        writer.remove_model(first)
        assert loaded(scrape(address)) == {"2": 1}
        append(writer, 40)
        writer.settle()
        assert loaded(scrape(address)) == {"2": 1}
        writer.add_model(model("m", 1))
        assert loaded(scrape(address)) == {"1": 1, "2": 1}


def test_an_answer_found_late_as_it_left_is_not_counted_as_answered(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer, observed(tmp_path) as address:
        append(writer, 5)
        late = [2, 4]
        writer.append_control(ControlKind.UNSENT, {"sequences": late, "status": 4})
        samples = scrape(address)
        assert value(samples, REQUESTS, code="OK") == 3
        assert value(samples, REQUESTS, code="DEADLINE_EXCEEDED") == 2
        assert value(samples, "tickgate_decisions_total", reason="APPROVED") == 3
        append(writer)
        assert value(scrape(address), REQUESTS, code="OK") == 4
        append(writer)
        shown = value(scrape(address), REQUESTS, code="OK")
        writer.append_control(ControlKind.UNSENT, {"sequences": [writer.next_sequence - 1], "status": 4})
        assert value(scrape(address), REQUESTS, code="OK") == shown == 5  # a counter never goes back


def test_requests_that_wait_for_a_slow_model_are_those_begun_and_not_decided(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer, observed(tmp_path) as address:

        def depth() -> float:
            return value(scrape(address), "tickgate_model_queue_depth", worker="")

        for ticket in (1, 2, 3):
            writer.append_control(ControlKind.STARTED, {"ticket": ticket, "request": {"long": "x" * 1000}})
        assert depth() == 3
        writer.append_decision(tick(), approved(ticket=2))
        assert depth() == 2
        append(writer, 5)  # decided at once
        assert depth() == 2
        writer.append_control(ControlKind.SETTINGS, {})  # of those nobody is waiting any more
        writer.append_control(ControlKind.STARTED, {"ticket": 1, "request": {}})
        assert depth() == 1


def test_each_change_of_a_version_is_counted_once_whatever_later_segments_say_again(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=16) as writer, observed(tmp_path) as address:
        writer.append_control(ControlKind.SETTINGS, {})
        writer.add_model(first := model("m", 1))
        writer.add_model(model("m", 2))
        writer.add_refused("m", 3, "HashMismatch")
        writer.append_control(ControlKind.MODEL_DEGRADED, {"name": "m", "version": 1})
        writer.append_control(
            ControlKind.MODEL_REOPENED, {"name": "m", "version": 1, "reason": "seen", "who": "a person"}
        )
        writer.unload_model(first)
        writer.remove_model(first)
        append(writer, 40)
        samples = scrape(address)
        changes = {"loaded": 2, "unloaded": 1, "refused": 1, "degraded": 1, "reopened": 1}
        for change, count in changes.items():
            assert value(samples, "tickgate_model_changes_total", change=change) == count
        info = {"model": "m", "version": "2", "schema_id": "micro10/0123456789abcdef", "sha256": "ab" * 32}
        assert value(samples, "tickgate_model_info", **info) == 1
        assert total(samples, "tickgate_model_info") == 1
        assert value(samples, "tickgate_journal_segments", worker="") == len(segment_numbers(tmp_path)) > 2
        kinds = ("decision", "control", "ticks")
        read = [value(samples, "tickgate_journal_records_total", worker="", kind=kind) for kind in kinds]
        assert (read[0], sum(read)) == (40, writer.next_sequence - 1)


def test_portfolio_and_state_are_each_workers_own(tmp_path: Path) -> None:
    folders = [tmp_path / "worker-0", tmp_path / "worker-1"]
    with JournalWriter(folders[0]) as one, JournalWriter(folders[1]) as other, observed(*folders) as address:
        for number, writer in enumerate((one, other)):
            writer.append_control(ControlKind.SETTINGS, {})
            writer.append_control(ControlKind.LIMITS, {"max_var": 25_000.0, "max_drawdown": "off"})
            account = {"state": 1 + number, "reason": "start", "who": "tickgate", "since_ns": 5}
            writer.append_control(ControlKind.WARM_START, {"account": account})
            writer.append_decision(tick(), approved(), clock_ns=time.time_ns())
        samples = scrape(address)
    assert value(samples, "tickgate_trading_state", worker="worker-0", state="ACTIVE") == 1
    assert value(samples, "tickgate_trading_state", worker="worker-1", state="ACTIVE") == 0
    assert value(samples, "tickgate_trading_state", worker="worker-1", state="REDUCING") == 1
    assert value(samples, "tickgate_portfolio_gross_exposure", worker="worker-1") == 152.0
    assert value(samples, "tickgate_portfolio_value_at_risk", worker="worker-0") == 31.0
    assert value(samples, "tickgate_portfolio_positions", worker="worker-0") == 0
    assert 0.0 <= value(samples, "tickgate_portfolio_age_seconds", worker="worker-0") < 600.0
    assert value(samples, "tickgate_risk_limit", limit="max_var") == 25_000.0
    assert total(samples, "tickgate_risk_limit") == 25_000.0
    assert value(samples, "tickgate_risk_data_fresh", worker="worker-0") == 0


def test_records_that_retention_removed_are_counted_as_lost(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=16, retained_segments=1) as writer:
        observer = Observer([tmp_path], [None], "127.0.0.1:0")  # nothing but scrapes reads the journal
        try:
            append(writer, 8)
            assert observer.address is not None
            assert value(scrape(observer.address), REQUESTS, code="OK") == 8
            append(writer, 100)
            writer.settle()
            with capture_logs() as logs:
                samples = scrape(observer.address)
        finally:
            observer.close()
    lost = value(samples, "tickgate_observer_lost_records_total")
    assert lost > 0
    assert lost + value(samples, REQUESTS, code="OK") == 108
    assert [(line["event"], line["records"]) for line in logs] == [("records lost", lost)]


def test_damaged_records_are_counted_as_lost_and_those_behind_them_are_read(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, segment_records=64) as writer:
        append(writer, 10)
        overwrite(segment_path(tmp_path, 1), slot_at(3, 100), b"\xff" * 8)
        with capture_logs() as logs, observed(tmp_path) as address:
            samples = scrape(address)
    assert value(samples, "tickgate_observer_lost_records_total") == 1
    assert value(samples, REQUESTS, code="OK") == 9
    assert [line["event"] for line in logs] == ["records lost"]


def test_a_journal_that_cannot_be_read_is_said_once_and_its_lag_grows(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer:
        append(writer, 3)
        overwrite(segment_path(tmp_path, 1), 0, b"????")
        with capture_logs() as logs, observed(tmp_path) as address:
            lags = [value(scrape(address), "tickgate_observer_lag_seconds") for _ in range(3)]
    assert lags[0] < lags[1] < lags[2]
    assert [line["event"] for line in logs] == ["journal unreadable"]


def test_the_control_block_says_how_far_it_is_and_nothing_once_it_ended(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer:
        index = writer.add_model(slow := model())
        observer = ObserverThread(Observer([tmp_path], [tmp_path / FILE_NAME], "127.0.0.1:0"))
        control = ControlBlockReader(tmp_path / FILE_NAME)
        while control.read(Slot.HEARTBEAT)[0] != 1.0:
            pass
        while math.isnan(lag := control.read(Slot.OBSERVER_LAG_S)[0]):  # written next
            pass
        assert lag >= 0.0
        for _ in range(10):
            writer.append_decision(tick(), approved(model=slow), clock_ns=time.time_ns())
        while math.isnan(latency := control.read(Slot.MODEL_LATENCY_US_P99 + index)[0]):
            pass
        assert 10.0 <= latency <= 20.0
        observer.close()
        assert math.isnan(control.read(Slot.HEARTBEAT)[0])


def test_what_cannot_be_observed_is_said(tmp_path: Path) -> None:
    with pytest.raises(JournalMissing):
        Observer([tmp_path / "none"], [None])
    assert not (tmp_path / "none").exists()
    first = Observer([tmp_path], [None], "127.0.0.1:0")
    try:
        with pytest.raises(MetricsAddressTaken, match=f"server.metrics_listen: cannot listen on {first.address}"):
            Observer([tmp_path], [None], str(first.address))
    finally:
        first.close()


@pytest.mark.parametrize("records", [0, 1, 15, 16, 17, 40])
def test_the_newest_record_is_found(tmp_path: Path, records: int) -> None:
    with JournalWriter(tmp_path, segment_records=16) as writer:
        append(writer, records)
        assert last_sequence(tmp_path) == records
    assert last_sequence(tmp_path) == records
