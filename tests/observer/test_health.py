"""From a journal to what is degraded: latched, told once, handed back, and opened again by a person alone."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs
from tests.journal.journal_samples import VECTOR, approved, model, tick
from tests.support.packages import constant_onnx, make_manifest, publish_model

from tickgate_server.control_block import MODEL_SLOTS, ControlBlockReader, ControlBlockWriter, Slot
from tickgate_server.features.schema import micro10
from tickgate_server.journal.entries import ControlAssembler, ControlEntry
from tickgate_server.journal.layout import CONTROL, ControlKind, RecordKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.segments import Rows
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.loading import LoadedModel
from tickgate_server.models.package import Manifest, Output, Validation
from tickgate_server.observer.health import (
    LATENCY_RUNBOOK,
    RUNBOOK,
    STATE_FILE,
    HealthStateInvalid,
    ModelHealth,
    manifests_in,
)
from tickgate_server.observer.health_checks import MINIMUM_COUNT
from tickgate_server.observer.recent import RecentLatency
from tickgate_server.records import SYMBOL, stated
from tickgate_server.ticks.market import TRADE

START_NS = 1_700_000_000_000_000_000
SHA = "ab" * 32  # as the journal's samples have it
METRICS: dict[str, float | int | None] = {
    "accuracy": 0.6,
    "majority_accuracy": 0.52,
    "gross_sharpe": 0.2,
    "gross_win_rate": 0.6,
    "exposure": 1.0,
    "periods_per_year": 1.0,
}
WHO = {"name": "m", "version": 1, "reason": "it was the feed", "who": "dealer"}


def manifest_with(name: str = "m", version: int = 1, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "name": name,
        "version": version,
        "model_sha256": SHA,
        "output": Output(horizon_trades=1),
        "validation": Validation(trials=1, metrics=METRICS),
        "latency_budget_ms": 10.0,
    }
    return make_manifest(b"", micro10(), np.zeros((64, 10), np.float32), np.full(64, 0.5), **(values | changes))


def anything(name: str, version: int) -> Manifest:
    return manifest_with(name, version)


class Journal:
    """A journal that is written and fed as a tail does it: controls first, and batches of any size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer = JournalWriter(folder, segment_records=4096)
        self._time = 0
        self.price = 100.0

    def begin(self, *models: LoadedModel) -> None:
        """What a server tells when it starts."""
        instruments = [{"symbol": "BTCUSDT", "multiplier": 1.0, "padding": "x" * 2000}]  # over several records
        self.writer.append_control(ControlKind.SETTINGS, {"engine": {}, "instruments": instruments})
        for one in models:
            self.writer.add_model(one)

    def decide(self, served: LoadedModel, rises: list[bool], *, value: float = 0.3, symbol: str = "BTCUSDT") -> None:
        """One decision a trade; the price then goes up or down."""
        for up in rises:
            self._time += 60_000_000_000
            self.price += 1.0 if up else -1.0
            given = tick(
                self.writer.next_sequence, price=self.price, exchange_ts_ns=START_NS + self._time, symbol=symbol
            )
            target = math.copysign(1.5, value)
            decided = approved(model=served, value=value, confidence=0.65, target=target, symbol=symbol)
            self.writer.append_decision(given, decided, applied=True, vector=VECTOR)

    def reopen(self, **changes: Any) -> int:
        return self.writer.append_control(ControlKind.MODEL_REOPENED, WHO | changes)


def feed_all(
    health: ModelHealth, folder: Path, batch: int = 100, *, controls_first: bool = True
) -> list[dict[str, Any]]:
    """Everything in a journal that health has not had, as a tail hands it over."""
    events = []
    with JournalReader(folder, start_sequence=health._last + 1) as reader:
        assembler = ControlAssembler()
        while (rows := reader.poll(batch)).size:
            entries = controls_of(rows, assembler)
            if controls_first:
                for entry in entries:
                    health.feed_control(entry)
            events += health.feed(rows)
            if not controls_first:
                for entry in entries:
                    health.feed_control(entry)
    return events


def controls_of(rows: Rows, assembler: ControlAssembler) -> list[ControlEntry]:
    controls = rows.view(CONTROL)
    entries = map(assembler.feed, controls[controls["kind"] == RecordKind.CONTROL])
    return [entry for entry in entries if entry is not None]


def slots(health: ModelHealth, path: Path) -> list[float]:
    """The first four models' values as the hot path reads them."""
    with ControlBlockWriter(path / "control.block") as control:
        health.hand_back(control, START_NS)
        reader = ControlBlockReader(path / "control.block")
        return [reader.read(Slot.MODEL_DEGRADED + index)[0] for index in range(4)]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(tmp_path / "journal")
    with found.writer:
        yield found


SERVED = model("m", 1)
FALLING = [False] * 60
HEALTHY = [True, True, False, True, True] * 20


def test_a_model_that_is_always_wrong_is_degraded_told_once_and_handed_back(journal: Journal, tmp_path: Path) -> None:
    health = ModelHealth(anything)
    journal.begin(SERVED)
    journal.decide(SERVED, HEALTHY)
    assert feed_all(health, journal.folder) == []
    assert slots(health, tmp_path)[:2] == [0.0, pytest.approx(math.nan, nan_ok=True)]
    journal.decide(SERVED, FALLING)
    with capture_logs() as logs:
        (event,) = feed_all(health, journal.folder)
        journal.decide(SERVED, FALLING)
        assert feed_all(health, journal.folder) == []
    (line,) = [line for line in logs if line["event"] == "model degraded"]
    assert line == {"log_level": "error", **event, "event": "model degraded"}
    assert (event["model"], event["version"], event["runbook"], event["severity"]) == ("m", 1, RUNBOOK, "critical")
    assert event["check"] == "losing_streak"
    assert event["measured"] >= event["bar"] >= 10
    assert event["p_value"] <= event["level"]
    assert slots(health, tmp_path)[0] == 1.0
    assert json.loads(json.dumps(event)) == event


@pytest.mark.parametrize("batch", [1, 7, 4096])
def test_batches_of_any_size_find_the_same_at_the_same_record(journal: Journal, batch: int) -> None:
    journal.begin(SERVED)
    journal.decide(SERVED, HEALTHY + FALLING)
    one_by_one = feed_all(ModelHealth(anything), journal.folder, 1)
    events = feed_all(ModelHealth(anything), journal.folder, batch)
    assert [event | {"sequence": 0} for event in events] == [event | {"sequence": 0} for event in one_by_one]
    assert len(events) == 1


@pytest.mark.parametrize("controls_first", [True, False])
@pytest.mark.parametrize("batch", [1, 50, 4096])
def test_only_a_person_opens_it_again_and_then_it_begins_anew(
    journal: Journal, tmp_path: Path, *, batch: int, controls_first: bool
) -> None:
    health = ModelHealth(anything)
    journal.begin(SERVED)
    journal.decide(SERVED, HEALTHY + FALLING)
    feed_all(health, journal.folder)
    journal.decide(SERVED, HEALTHY * 3)  # that outcomes are good again opens nothing
    feed_all(health, journal.folder, batch, controls_first=controls_first)
    assert slots(health, tmp_path)[0] == 1.0
    journal.reopen(version=2)  # another's
    journal.decide(SERVED, HEALTHY)
    feed_all(health, journal.folder, batch, controls_first=controls_first)
    assert slots(health, tmp_path)[0] == 1.0
    with capture_logs() as logs:
        journal.reopen()
        journal.decide(SERVED, [False] * (MINIMUM_COUNT - 1))
        assert feed_all(health, journal.folder, batch, controls_first=controls_first) == []
    (line,) = [line for line in logs if line["event"] == "model reopened"]
    assert (line["who"], line["reason"], line["was_degraded"]) == ("dealer", "it was the feed", "losing_streak")
    assert health.degraded == {}
    assert slots(health, tmp_path)[0] == 0.0
    journal.decide(SERVED, FALLING)
    assert len(feed_all(health, journal.folder, batch, controls_first=controls_first)) == 1
    assert slots(health, tmp_path)[0] == 1.0


def test_versions_are_judged_by_themselves(journal: Journal, tmp_path: Path) -> None:
    other = model("m", 2)
    health = ModelHealth(anything)
    journal.begin(SERVED, other)
    for _ in range(60):
        journal.decide(SERVED, [False], symbol="A")
        journal.decide(other, [False], symbol="B", value=-0.3)  # foresees that it falls
    events = feed_all(health, journal.folder)
    assert [(event["model"], event["version"]) for event in events] == [("m", 1)]
    assert slots(health, tmp_path)[:2] == [1.0, 0.0]


def test_what_is_degraded_outlives_the_observer_and_is_not_told_again(journal: Journal, tmp_path: Path) -> None:
    journal.begin(SERVED)
    journal.decide(SERVED, HEALTHY + FALLING)
    assert len(feed_all(ModelHealth(anything, folder=journal.folder), journal.folder)) == 1
    with capture_logs() as logs:
        later = ModelHealth(anything, folder=journal.folder)
        assert feed_all(later, journal.folder) == []
    assert logs == []
    assert slots(later, tmp_path)[0] == 1.0
    # Nothing of the journal is left.
    forgetful = ModelHealth(anything, folder=journal.folder)
    assert list(forgetful.degraded) == [("m", 1)]


def test_what_was_opened_again_stays_open_for_the_next_observer(journal: Journal, tmp_path: Path) -> None:
    journal.begin(SERVED)
    journal.decide(SERVED, HEALTHY + FALLING)
    first = ModelHealth(anything, folder=journal.folder)
    feed_all(first, journal.folder)
    journal.reopen()
    journal.decide(SERVED, [True] * 40)
    feed_all(first, journal.folder)
    later = ModelHealth(anything, folder=journal.folder)
    with capture_logs() as logs:
        assert feed_all(later, journal.folder) == []
        assert logs == []
        journal.decide(SERVED, FALLING)
        assert len(feed_all(later, journal.folder)) == 1
    assert slots(later, tmp_path)[0] == 1.0


def test_what_an_observer_had_judged_is_not_judged_a_second_time(journal: Journal) -> None:
    """Read again, the same records only fill the statistics."""
    journal.begin(SERVED)
    journal.decide(SERVED, HEALTHY + FALLING)
    lenient = ModelHealth(anything, folder=journal.folder, false_alarms_a_day=1e-30)
    feed_all(lenient, journal.folder)
    lenient.hand_back(None, START_NS)
    later = ModelHealth(anything, folder=journal.folder)
    assert feed_all(later, journal.folder) == []
    journal.decide(SERVED, FALLING)
    assert len(feed_all(later, journal.folder)) == 1


def test_another_journal_in_the_folder_is_judged_and_what_was_degraded_stays_so(tmp_path: Path) -> None:
    state = {"told": 10**9, "degraded": [{"model": "old", "version": 3, "check": "sharpe"}]}
    (tmp_path / STATE_FILE).write_text(json.dumps(state))
    found = Journal(tmp_path)
    with found.writer:
        found.begin(SERVED)
        found.decide(SERVED, HEALTHY + FALLING)
        health = ModelHealth(anything, folder=tmp_path)
        assert len(feed_all(health, tmp_path)) == 1
    assert set(health.degraded) == {("old", 3), ("m", 1)}


@pytest.mark.parametrize("text", ["", "{}", '{"told": 1, "degraded": [3]}', "[1]"])
def test_a_state_that_cannot_be_read_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE_FILE).write_text(text)
    with pytest.raises(HealthStateInvalid, match=STATE_FILE):
        ModelHealth(anything, folder=tmp_path)


def test_a_state_that_cannot_be_kept_is_said_and_the_version_is_closed_all_the_same(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.begin(SERVED)
    journal.decide(SERVED, HEALTHY + FALLING)
    health = ModelHealth(anything, folder=journal.folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with capture_logs() as logs:
        assert len(feed_all(health, journal.folder)) == 1
    assert "model health not kept" in [line["event"] for line in logs]
    assert slots(health, tmp_path)[0] == 1.0


def test_a_version_that_is_degraded_is_closed_wherever_it_is_loaded_next(journal: Journal, tmp_path: Path) -> None:
    journal.begin(SERVED)
    journal.decide(SERVED, FALLING)
    health = ModelHealth(anything, folder=journal.folder)
    feed_all(health, journal.folder)
    journal.writer.close()
    again = Journal(journal.folder)
    with again.writer:
        again.begin(model("other", 7), model("m", 1))
        feed_all(health, journal.folder)
        assert slots(health, tmp_path)[:3] == [0.0, 1.0, pytest.approx(math.nan, nan_ok=True)]
        # Known to be degraded, though its manifest is gone.
        later = ModelHealth(lambda *_: None, folder=journal.folder)
        feed_all(later, journal.folder)
        assert slots(later, tmp_path)[:2] == [pytest.approx(math.nan, nan_ok=True), 1.0]


def test_the_slots_of_a_server_before_are_emptied(journal: Journal, tmp_path: Path) -> None:
    health = ModelHealth(anything)
    journal.begin(SERVED, model("m", 2))
    feed_all(health, journal.folder)
    with ControlBlockWriter(tmp_path / "control.block") as control:
        health.hand_back(control, START_NS)
        journal.writer.close()
        again = Journal(journal.folder)
        with again.writer:
            again.begin(SERVED)
            feed_all(health, journal.folder)
            health.hand_back(control, START_NS)
            reader = ControlBlockReader(tmp_path / "control.block")
            found = [reader.read(Slot.MODEL_DEGRADED + index)[0] for index in range(2)]
    assert found[0] == 0.0
    assert math.isnan(found[1])


@pytest.mark.parametrize(
    ("manifest_of", "why"),
    [
        (lambda *_: None, "its manifest cannot be read"),
        (lambda name, version: manifest_with(name, version, model_sha256="cd" * 32), "the manifest is of another file"),
    ],
)
def test_a_version_without_a_manifest_is_not_monitored_and_it_is_said_once(
    journal: Journal, tmp_path: Path, manifest_of: Callable[[str, int], Manifest | None], why: str
) -> None:
    health = ModelHealth(manifest_of)
    with capture_logs() as logs:
        for _ in range(2):
            journal.begin(SERVED)
            journal.decide(SERVED, FALLING)
            assert feed_all(health, journal.folder) == []
    assert [(line["event"], line["why"]) for line in logs] == [("model not monitored", why)]
    assert health.unmonitored == {("m", 1): why}
    assert math.isnan(slots(health, tmp_path)[0])


def test_a_check_whose_metric_is_missing_is_off_and_it_is_said_once(journal: Journal) -> None:
    metrics = METRICS | {"gross_win_rate": None, "accuracy": None, "gross_sharpe": None}
    health = ModelHealth(lambda *_: manifest_with(validation=Validation(trials=1, metrics=metrics)))
    with capture_logs() as logs:
        for _ in range(2):
            journal.begin(SERVED)
            journal.decide(SERVED, FALLING)
            feed_all(health, journal.folder)
    assert sorted(line["check"] for line in logs) == ["accuracy", "losing_streak", "sharpe", "win_rate"]
    assert {line["event"] for line in logs} == {"check off"}


def test_models_beyond_the_slots_are_not_monitored(tmp_path: Path) -> None:
    found = Journal(tmp_path)
    served = [model("m", number) for number in range(1, MODEL_SLOTS + 2)]
    with found.writer:
        found.begin(*served)
        found.decide(served[-1], FALLING)
        health = ModelHealth(anything)
        assert feed_all(health, tmp_path) == []
    assert list(health.unmonitored) == [("m", MODEL_SLOTS + 1)]
    assert "index is 64" in health.unmonitored["m", MODEL_SLOTS + 1]


def test_versions_that_are_no_longer_loaded_give_way(tmp_path: Path) -> None:
    health = ModelHealth(anything)
    for run in range(3):
        found = Journal(tmp_path)
        served = [model("m", run * MODEL_SLOTS + number) for number in range(1, MODEL_SLOTS + 1)]
        with found.writer:
            found.begin(*served)
            found.decide(served[5], FALLING)
            assert len(feed_all(health, tmp_path)) == 1
    assert health.unmonitored == {}
    assert len(health.degraded) == 3


def test_lost_records_leave_statistics_and_end_what_is_pending(journal: Journal) -> None:
    health = ModelHealth(anything)
    journal.begin(SERVED)
    journal.decide(SERVED, [True] * 40)
    feed_all(health, journal.folder)
    checks = health._watched["m", 1].checks
    assert checks.trades == 38
    journal.decide(SERVED, [True] * 5)
    health._last -= 1  # as if one were missing
    with JournalReader(journal.folder, start_sequence=health._last + 2) as reader:
        health.feed(reader.poll())
    assert checks.trades == 38 + 3


def test_a_decision_that_ends_after_later_ticks_has_its_own_trades_outcome(journal: Journal) -> None:
    """STARTED, two other ticks, then the decision: entry and exit are the ticks in between."""
    health = ModelHealth(anything)
    journal.begin(SERVED)
    asked = tick(5, price=100.0, kind=TRADE, exchange_ts_ns=START_NS)
    journal.writer.append_control(ControlKind.STARTED, {"ticket": 9, "request": stated(asked, SERVED)})
    for price in (101.0, 99.0):
        payload = {"symbol": "BTCUSDT", "exchange_ts_ns": START_NS, "sequence": 0, "kind": TRADE, "price": price}
        journal.writer.append_control(ControlKind.TICK, payload)
    decided = approved(model=SERVED, ticket=9, target=2.0)
    journal.writer.append_decision(asked, decided, applied=True, vector=VECTOR)
    feed_all(health, journal.folder)
    assert health._watched["m", 1].checks._window.get().tolist() == [-4.0]


def test_a_slow_model_that_was_asked_without_a_tick_brings_no_trade(journal: Journal) -> None:
    health = ModelHealth(anything)
    journal.begin(SERVED)
    journal.decide(SERVED, [True])
    asked = tick(5, input=SYMBOL, price=7.0)  # what the request before left in the fields of its tick
    journal.writer.append_control(ControlKind.STARTED, {"ticket": 9, "request": stated(asked, SERVED)})
    journal.writer.append_decision(asked, approved(model=SERVED, ticket=9), vector=VECTOR)
    journal.decide(SERVED, [True] * 2)
    feed_all(health, journal.folder)
    assert health._watched["m", 1].checks._window.get().tolist() == [1.5]


def test_latency_over_the_budget_is_told_once_while_it_lasts(journal: Journal) -> None:
    latency = RecentLatency()
    health = ModelHealth(anything, latency=latency)
    journal.begin(SERVED)
    journal.decide(SERVED, [True])
    feed_all(health, journal.folder)
    now_ns = START_NS
    with capture_logs() as logs:
        for milliseconds in (5, 15, 15, 5, 15):
            with JournalReader(journal.folder) as reader:
                rows = reader.poll()
            decisions = rows[rows["kind"] == RecordKind.DECISION]
            decisions["clock_ns"], decisions["total_ns"] = now_ns, milliseconds * 1_000_000
            latency.clear()
            latency.add(decisions, now_ns)
            for _ in range(20):
                now_ns += 1_000_000_000
                health.hand_back(None, now_ns)
    told = [line for line in logs if line["event"] == "model latency over budget"]
    assert [(line["model"], line["budget_us"], line["runbook"]) for line in told] == [
        ("m", 10_000.0, LATENCY_RUNBOOK)
    ] * 2
    assert all(10_000.0 < line["latency_us_p99"] <= 20_000.0 for line in told)
    assert health.degraded == {}


def test_manifests_come_from_the_repository_where_they_are_whole(tmp_path: Path) -> None:
    publish_model(tmp_path, constant_onnx(), name="m", version=2)
    manifest_of = manifests_in(tmp_path)
    found = manifest_of("m", 2)
    assert found is not None
    assert (found.name, found.version) == ("m", 2)
    assert manifest_of("m", 1) is None
    (tmp_path / "m" / "2" / "manifest.json").write_text("{}")
    assert manifest_of("m", 2) is None


def test_the_runbook_has_what_events_point_at() -> None:
    root = Path(__file__).parents[2]
    for address in (RUNBOOK, LATENCY_RUNBOOK):
        page, anchor = address.split("#")
        assert f"## {anchor}" in (root / page).read_text().lower()
