"""The archiver beside real servers under load, killed again and again; and the commands."""

import csv
import io
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import TypeAlias

import pyarrow.parquet as pq
import pytest
from tests.archive.archiving import archive, archived, commanded, decisions_in
from tests.support.messages import tick, zigzag
from tests.support.packages import publish_logistic
from tests.support.processes import Served, served

from tickgate_server.archive.manifest import read_manifest
from tickgate_server.journal.entries import DecisionEntry

Log: TypeAlias = tuple[Path, list[DecisionEntry], Path]
KILLS = 5
# Small files, small segments that stay, and an archiver that need not wait for an idle core.
SETTINGS = {
    "TICKGATE_ARCHIVE__FLUSH_S": "0.05",
    "TICKGATE_ARCHIVE__FLUSH_ROWS": "1024",
    "TICKGATE_ARCHIVE__SCHEDULING": "normal",
    "TICKGATE_JOURNAL__SEGMENT_RECORDS": "1024",
    "TICKGATE_JOURNAL__RETAINED_SEGMENTS": "1024",
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """Archive, decisions, and the journal that has them, of a server whose archiver was killed five times."""
    folder = tmp_path_factory.mktemp("archived")
    models = folder / "models"
    publish_logistic(models)
    environment = {**SETTINGS, "TICKGATE_ARCHIVE__FOLDER": str(folder / "log")}
    with served(models, "--clock", "replay", "--journal", str(folder / "journal"), environment=environment) as running:
        stop = threading.Event()
        load = threading.Thread(target=ask, args=[running, stop])
        load.start()
        try:
            for kill in range(KILLS):
                started = [] if kill else running.process.logged("archiver started")
                pid = int((started or [running.process.wait_for("archiver started")])[-1]["pid"])
                until_archived(folder / "log", 50 * kill)
                os.kill(pid, signal.SIGKILL)
        finally:
            stop.set()
            load.join()
        running.process.wait_for("archiver started")
        until_archived(folder / "log", 50 * KILLS)
        assert running.process.stop() == 0
        ended = running.process.logged("archiver ended")
        assert [line["status"] for line in ended] == [-signal.SIGKILL] * KILLS
    archive(folder / "log", folder / "journal")  # what the server's end left no time for
    return folder / "log", decisions_in(folder / "journal"), folder / "journal"


def ask(running: Served, stop: threading.Event) -> None:
    """Streams and single requests: approved, refused, undecodable, repeated, for no model, out of time."""
    number = 0
    while not stop.wait(0.03):  # the archiver is to be killed at work, and to get somewhere
        batch = zigzag(f"S{number % 7}", 40)
        for place, request in enumerate(batch):
            request.request_id = f"{number}-{place}"
        batch[3].tick.trade.price = float("nan")
        batch[5].model = "nobody"
        batch[7].request_id = batch[6].request_id
        batch[9].budget_us = 1
        batch[11].tick.symbol = ""
        list(running.stream([batch[:20], batch[20:]]))
        running.refusal(tick("", 1, trade=(1.0, 1.0), request_id=f"refused-{number}"))
        number += 1


def until_archived(folder: Path, decisions: int) -> None:
    """Wait until so many more rows than before are in the archive, whose first commit may not have come."""
    give_up = time.monotonic() + 60.0
    wanted = decisions + 1
    while True:
        try:
            if read_manifest(folder).rows_of("decisions") >= wanted:
                return
        except Exception:  # noqa: BLE001, S110 - it is not there yet
            pass
        assert time.monotonic() < give_up, f"expected {wanted} rows"
        time.sleep(0.01)  # a test that spins would take the core that the archiver is to have


def test_every_request_that_reached_the_handler_is_in_the_log_exactly_once_after_five_kills(
    log: Log,
) -> None:
    folder, decisions, _ = log
    wanted = [(entry.sequence, entry.as_dict()["request_id"], entry.as_dict()["status"]) for entry in decisions]
    assert archived(folder, "sequence, request_id, journaled_status") == wanted
    statuses = {status for _, _, status in wanted}
    assert statuses >= {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert any(entry.as_dict()["flags"] == ["REPEATED"] for entry in decisions)
    assert read_manifest(folder).positions[""].lost == 0


def test_the_commands_show_the_log_in_every_form(log: Log, tmp_path: Path) -> None:
    folder, decisions, journal = log
    where = ("--archive", str(folder), "--journal", str(journal))
    sql = "SELECT request_id, symbol, features, price, time FROM decisions WHERE ready ORDER BY sequence"
    ready = [entry.as_dict() for entry in decisions if entry.row["ready"]]
    found = [json.loads(line) for line in commanded("query", sql, "--format", "json", *where).stdout.splitlines()]
    assert [(row["request_id"], row["features"]) for row in found] == [
        (entry["request_id"], entry["vector"]) for entry in ready
    ]
    assert found[0]["time"].startswith("2024-08-0")
    table = list(csv.DictReader(io.StringIO(commanded("query", sql, "--format", "csv", *where).stdout)))
    assert [float(row["price"]) for row in table] == [entry["trade"]["price"] for entry in ready]
    output = tmp_path / "found.parquet"
    commanded("query", sql, "--format", "parquet", "--output", str(output), *where)
    assert pq.read_table(output).num_rows == len(ready)
    drawn = commanded("query", "SELECT count(*) AS there FROM decisions", *where).stdout
    assert "there" in drawn
    assert str(len(decisions)) in drawn


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DROP VIEW decisions", "expected one SELECT statement, found DROP"),
        ("SELECT nothing FROM decisions", "nothing"),
        ("SELECT * FROM read_csv('/etc/passwd')", "Permission Error"),
    ],
)
def test_what_is_no_question_about_the_log_is_refused(log: Log, sql: str, said: str) -> None:
    found = commanded("query", sql, "--archive", str(log[0]), "--journal", "none")
    assert found.exit_code == 1
    assert said in found.stderr


def test_the_archive_is_asked_by_hand_how_it_is_and_brought_up_to_date(log: Log, tmp_path: Path) -> None:
    _, decisions, journal = log
    by_hand = ("--archive", str(tmp_path / "log"), "--journal", str(journal))
    assert f"{len(decisions):,} decisions" in commanded("archive", "run", *by_hand).stdout
    assert f"{len(decisions):,} decisions" in commanded("archive", "run", *by_hand).stdout
    status = commanded("archive", "status", *by_hand)
    assert f"{len(decisions):,}" in status.stdout
    assert "0 lost" in status.stdout
    missing = commanded("archive", "status", "--archive", str(tmp_path / "nowhere"))
    assert missing.exit_code == 1
    assert "no archive" in missing.stderr
