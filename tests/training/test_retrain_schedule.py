"""When rounds begin: by schedule, by what the journal says, by drift; and how the command ends."""

import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from tests.training.turning_market import EVALUATED, arrive, files, first_champion, one_round, settings, turning

from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models import aliases
from tickgate_server.models.package import read_manifest, versions
from tickgate_training.errors import ConfigInvalid
from tickgate_training.retraining.commands import retrain
from tickgate_training.retraining.config import RetrainConfig, ScheduleConfig
from tickgate_training.retraining.rounds import RoundLine, held
from tickgate_training.retraining.schedule import Scheduler, due_ns
from tickgate_training.retraining.triggers import Triggers

_PATIENCE_S = 120.0
SECOND = 1_000_000_000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


def test_rounds_are_due_every_so_often_or_at_times_of_the_day() -> None:
    often = ScheduleConfig(every_s=60.0)
    assert due_ns(often, 0, 500 * SECOND) == 500 * SECOND  # at once
    assert due_ns(often, 100 * SECOND, 500 * SECOND) == 160 * SECOND  # missed: at once as well
    assert due_ns(often, 480 * SECOND, 500 * SECOND) == 540 * SECOND
    daily = ScheduleConfig.model_validate({"at": ["22:30", "06:00"]})
    assert due_ns(daily, 0, at("2026-03-01T05:00")) == at("2026-03-01T06:00")
    assert due_ns(daily, 0, at("2026-03-01T06:00")) == at("2026-03-01T22:30")
    assert due_ns(daily, at("2026-03-01T22:30"), 0) == at("2026-03-02T06:00")
    assert due_ns(daily, at("2026-02-28T23:00"), at("2026-03-05T23:00")) == at("2026-03-01T06:00")  # missed, once


@pytest.fixture
def market(tmp_path: Path) -> Path:
    """A champion, and as much newer data as a round needs."""
    frame = turning(6000, 3, turns=False)
    first_champion(settings(tmp_path), frame[:3500])
    arrive(tmp_path, frame, 0, 3500 + EVALUATED)
    return tmp_path


@pytest.fixture
def journal(market: Path) -> Any:
    """A journal that the test writes."""
    with JournalWriter(market / "journal", segment_records=64) as writer:
        yield writer


def watched(market: Path, **more: Any) -> RetrainConfig:
    return settings(market, journal={"folders": [str(market / "journal")]}, **more)


def degraded(journal: JournalWriter, version: int, name: str = "sim") -> None:
    journal.append_control(ControlKind.MODEL_DEGRADED, {"name": name, "version": version})


def test_a_degraded_champion_begins_a_round_once(market: Path, journal: JournalWriter) -> None:
    config = watched(market)
    clock = [0]
    with held(config.retrain.state) as rounds:
        triggers = Triggers(config, rounds, clock_ns=lambda: clock[0])
        assert triggers.look() is None
        degraded(journal, 9)  # another version
        degraded(journal, 1, "other")
        assert triggers.look() is None
        degraded(journal, 1)
        found = triggers.look()
        assert found is not None
        assert (found.kind, found.detail, found.sequence) == ("degraded", "sim:1 is degraded", 3)
        assert triggers.look() is None  # it is being followed
        clock[0] = int(config.retrain.triggers.again_s * 1e9)
        assert triggers.look() == found  # no round came of it
        triggers.close()
    line = one_round(config, trigger=found)
    assert line.trigger == found
    with held(config.retrain.state) as rounds:
        triggers = Triggers(config, rounds)  # a new process
        assert triggers.look() is None
        triggers.close()


def test_a_champion_that_a_person_reopened_begins_none(market: Path, journal: JournalWriter) -> None:
    degraded(journal, 1)
    journal.append_control(
        ControlKind.MODEL_REOPENED, {"name": "sim", "version": 1, "reason": "looked at", "who": "a person"}
    )
    config = watched(market)
    with held(config.retrain.state) as rounds:
        triggers = Triggers(config, rounds)
        assert triggers.look() is None
        triggers.close()


def test_features_that_drifted_begin_a_round_and_others_do_not(market: Path) -> None:
    # Returns come in ticks: where the price has moved on, their shares between two deciles jump.
    config = settings(market, triggers={"on_drift": True, "again_s": 1.0, "drift_least": 1.5})
    line = one_round(config)
    assert line.published == 2
    assert set(line.drift_null) == set(line_features(config))
    aliases.change_alias(config.model_folder, "production", 2, expected=1, reason="a test", who="hand")
    frame = turning(6000, 3, turns=False)
    stop = 3500 + EVALUATED
    arrive(market, frame, stop, stop + 1200)  # more of the same
    clock = [0]
    with held(config.retrain.state) as rounds:
        triggers = Triggers(config, rounds, clock_ns=lambda: clock[0])
        assert triggers.look() is None
        last = int(frame["exchange_ts_ns"][stop + 1199])
        slower = frame[:2500].with_columns(  # trades come at other times
            exchange_ts_ns=pl.Series(last + np.cumsum(np.full(2500, 5 * SECOND))),
            sequence=pl.Series(np.arange(100_000, 102_500, dtype=np.uint64)),
        )
        slower.write_parquet(market / "ticks" / "99999999.parquet")
        assert triggers.look() is None  # not yet time
        clock[0] = 2 * SECOND
        found = triggers.look()
        assert found is not None
        assert found.kind == "drift"
        assert "gap_s" in found.detail
        assert "tick_sign" not in found.detail
        triggers.close()


def line_features(config: RetrainConfig) -> tuple[str, ...]:
    return read_manifest(config.model_folder / "1").features.names


def test_drift_of_a_champion_whose_null_is_not_known_cannot_be_told_and_is_said(
    market: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(market, triggers={"on_drift": True})
    with held(config.retrain.state) as rounds:
        triggers = Triggers(config, rounds, clock_ns=lambda: 0)
        assert triggers.look() is None
        triggers.close()
    assert "drift cannot be told" in capsys.readouterr().out


def test_a_schedule_runs_rounds_as_they_are_due_and_ends_when_it_is_told(market: Path) -> None:
    config = settings(market, schedule={"every_s": 3600.0}, triggers={"poll_s": 0.01})
    told: list[RoundLine] = []
    stop, hours = threading.Event(), [0]

    def listen(line: RoundLine) -> None:
        told.append(line)
        hours[0] += 1  # an hour passes
        if len(told) == 3:
            stop.set()

    with held(config.retrain.state) as rounds:
        start = time.time_ns()
        Scheduler(config, rounds, stop, listen, clock_ns=lambda: start + hours[0] * 3601 * SECOND).run()
    assert [line.decision for line in told] == ["shadow", "nothing_new", "nothing_new"]
    assert [line.round for line in told] == [1, 2, 3]


def test_a_schedule_goes_on_after_a_round_that_failed(market: Path) -> None:
    (market / "ticks" / "broken.parquet").write_bytes(b"no parquet")
    config = settings(market, schedule={"every_s": 3600.0})
    stop, told = threading.Event(), []

    def listen(line: RoundLine) -> None:
        told.append(line.decision)
        if len(told) == 2:
            stop.set()
        (market / "ticks" / "broken.parquet").unlink(missing_ok=True)

    with held(config.retrain.state) as rounds:
        start = time.time_ns()
        Scheduler(config, rounds, stop, listen, clock_ns=lambda: start + len(told) * 3601 * SECOND).run()
    assert told == ["failed", "shadow"]


def test_a_schedule_without_a_time_or_a_trigger_is_refused(market: Path) -> None:
    config = settings(market)
    with held(config.retrain.state) as rounds, pytest.raises(ConfigInvalid, match="neither it nor a trigger"):
        Scheduler(config, rounds, threading.Event())


CONFIG = """
training = "train.toml"
[retrain]
state = "{folder}/state"
promotion = "rule"
{more}
[[retrain.sources]]
kind = "file"
paths = ["{folder}/ticks/*.parquet"]
symbol = {{ name = "symbol" }}
[retrain.sources.columns]
stamp = {{ name = "exchange_ts_ns", unit = "ns" }}
price = "price"
size = "size"
sequence = "sequence"
aggressor = {{ form = "sign", name = "aggressor" }}
quote = {{ bid = "bid", ask = "ask", bid_size = "bid_size", ask_size = "ask_size" }}
"""
TRAIN = """
runs = "{folder}/runs"
[data]
kind = "simulated"
[package]
name = "sim"
repository = "{folder}/models"
[label]
horizon_trades = 5
[walk_forward]
train_rows = 1500
validation_rows = 500
test_rows = 1000
embargo_rows = 10
[policy]
decide_every_rows = 5
risk_budget = 1000.0
round_trips_minimum = 10
[[learners]]
kind = "logistic"
"""


def written(market: Path, more: str = "") -> str:
    (market / "train.toml").write_text(TRAIN.format(folder=market))
    path = market / "retrain.toml"
    path.write_text(CONFIG.format(folder=market, more=more))
    return str(path)


def test_the_command_says_what_it_would_do_and_then_does_it(market: Path) -> None:
    path = written(market)
    before = sorted(str(one) for one in market.rglob("*"))
    planned = CliRunner().invoke(retrain, [path, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert "Champion: sim:1, the highest version" in planned.output
    assert f"evaluation: {EVALUATED:,} rows" in planned.output
    assert sorted(str(one) for one in market.rglob("*")) == before
    done = CliRunner().invoke(retrain, [path])
    assert done.exit_code == 0, done.output
    assert "Round 1 against version 1: shadow, version 2." in done.output
    again = CliRunner().invoke(retrain, [path, "--json"])
    assert again.exit_code == 0
    assert '"decision":"nothing_new"' in again.output
    assert "No round would compare anything" in CliRunner().invoke(retrain, [path, "--dry-run"]).output


def test_a_round_that_failed_and_a_bad_file_exit_with_one(market: Path) -> None:
    path = written(market)
    for one in (market / "ticks").iterdir():
        one.unlink()
    failed = CliRunner().invoke(retrain, [path])
    assert failed.exit_code == 1
    assert "no file is named so" in failed.output
    bad = CliRunner().invoke(retrain, [written(market, "colour = 1")])
    assert bad.exit_code == 1
    assert "retrain.colour" in bad.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_schedule_cleanly(market: Path, number: signal.Signals) -> None:
    path = written(market, "[retrain.schedule]\nevery_s = 3600.0")
    code = "from tickgate_training.retraining.commands import retrain; retrain()"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code, path, "--schedule", "--json"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = next(text for text in process.stdout if text.startswith("{"))
        assert RoundLine.model_validate_json(line).decision == "shadow"
        process.send_signal(number)
        assert process.wait(_PATIENCE_S) == 0
    assert versions(market / "models", "sim") == [1, 2]


def test_files_and_patterns_are_taken_by_name(market: Path) -> None:
    assert files(market)[0]["paths"] == [str(market / "ticks" / "*.parquet")]
    config = settings(market)
    one_round(config)
    frame = turning(6000, 3, turns=False)
    arrive(market, frame, 3500 + EVALUATED, 3500 + 2 * EVALUATED)
    line = one_round(config)
    assert line.data is not None
    assert line.data.rows == 3500 + 2 * EVALUATED
