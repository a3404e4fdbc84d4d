"""Each record is in the log exactly once: whatever died when, whatever was merged, whatever became of the journal."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from tests.archive.archiving import (
    DAY_NS,
    NOON_NS,
    SMALL,
    Deaths,
    Killed,
    append,
    archive,
    archived,
    controls_in,
    decisions_in,
    rows,
    writing,
)
from tests.journal.journal_samples import overwrite, slot_at

from tickgate_server.archive import compaction
from tickgate_server.archive.errors import ArchiveBusy, ArchiveInvalid
from tickgate_server.archive.how import ArchiverSettings
from tickgate_server.archive.manifest import MANIFEST_FILE, read_manifest
from tickgate_server.archive.query import DecisionLog
from tickgate_server.archive.service import Archiver
from tickgate_server.archive.status import read_status
from tickgate_server.archive.store import ArchiveStore
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.segments import segment_path

MERGING = replace(SMALL, merge=True)
SMALLEST = replace(MERGING, flush_rows=128)
IDENTITY = "sequence, request_id, symbol, model, CAST(time AS VARCHAR)"


def expected(journal: Path) -> list[tuple[int, str]]:
    return [(entry.sequence, entry.as_dict()["request_id"]) for entry in decisions_in(journal)]


def fill(journal: Path) -> None:
    """Two days, two models, events, over three segments."""
    with writing(journal) as writer:
        for day in range(2):
            append(writer, 900, clock_ns=NOON_NS + day * DAY_NS)
            writer.append_control(ControlKind.TRADING_STATE, {"state": 1, "reason": "r", "who": "w"})
        append(writer, 600, clock_ns=NOON_NS + DAY_NS + 10**12)


def merge_all(folder: Path) -> None:
    store = ArchiveStore(folder)
    try:
        while files := compaction.choose(store.manifest, 10_000, newest_too=True):
            compaction.merge(store, files)
    finally:
        store.close()


def test_a_process_that_dies_at_any_step_of_commits_and_merges_neither_loses_nor_doubles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(tmp_path / "journal") as writer:
        for day in range(2):
            append(writer, 150, clock_ns=NOON_NS + day * DAY_NS)
    deaths = Deaths(monkeypatch)
    whole = expected(tmp_path / "journal")
    events = len(controls_in(tmp_path / "journal"))
    deaths.after(None)
    archive(tmp_path / "whole", tmp_path / "journal", SMALLEST)
    merge_all(tmp_path / "whole")
    steps = deaths.steps
    died = 0
    for step in range(1, steps, steps // 9):
        log = tmp_path / f"log{step}"
        deaths.after(step)
        try:
            archive(log, tmp_path / "journal", SMALLEST)
            merge_all(log)
        except Killed:
            died += 1
        deaths.after(None)
        archive(log, tmp_path / "journal", SMALLEST)
        assert archived(log, "sequence, request_id") == whole, f"died after {step} steps of {steps}"
        assert len(archived(log, table="events")) == events
        there = {str(path.relative_to(log)) for path in log.rglob("*.parquet*")}
        assert there == {file.path for file in read_manifest(log).files}
        shutil.rmtree(log)
    assert died > 6


def test_merged_files_hold_the_same_rows_in_the_order_that_queries_by_symbol_want(tmp_path: Path) -> None:
    fill(tmp_path / "journal")
    log = tmp_path / "log"
    archive(log, tmp_path / "journal")
    before = archived(log, "*")
    files = len(read_manifest(log).files)
    merge_all(log)
    manifest = read_manifest(log)
    assert archived(log, "*") == before
    assert len(manifest.files) < files
    assert Counter(file.partition for file in manifest.files).most_common(1)[0][1] == 1
    for file in manifest.files:
        if file.table == "decisions":
            path = log / file.path
            found = rows(DecisionLog(log, {}), f"SELECT symbol, time, sequence FROM read_parquet('{path}')")
            assert found == sorted(found)


def test_days_that_are_over_are_merged_and_the_newest_only_in_large_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "FAN_IN", 4)
    with writing(tmp_path / "journal") as writer:
        for number in range(2 * compaction.FAN_IN):
            append(writer, 10, clock_ns=NOON_NS + (number % 2) * DAY_NS + number)
            archive(tmp_path / "log", tmp_path / "journal")
            chosen = compaction.choose(read_manifest(tmp_path / "log"), 10_000)
            of_newest = [file for file in chosen if file.table == "decisions" and file.date == "2023-11-16"]
            assert not of_newest
    store = ArchiveStore(tmp_path / "log")
    while files := compaction.choose(store.manifest, 10_000):
        compaction.merge(store, files)
    store.close()
    assert [file.level for file in store.manifest.files if file.partition == ("decisions", "2023-11-15", "m")] == [1]
    assert [file.level for file in store.manifest.files if file.partition == ("decisions", "2023-11-16", "m")] == [1]
    assert len(archived(tmp_path / "log")) == 20 * compaction.FAN_IN


def test_reading_and_archiving_at_once_shows_no_row_twice_and_none_too_few(tmp_path: Path) -> None:
    journal, log = tmp_path / "journal", tmp_path / "log"
    whole: list[int] = []
    with writing(journal, retained_segments=64) as writer:
        for number in range(6):
            whole += append(writer, 300, clock_ns=NOON_NS + number)
            if number % 2:
                archive(log, journal, MERGING)
            found = rows(DecisionLog(log, {"": journal}), "SELECT sequence FROM decisions ORDER BY sequence")
            assert [sequence for (sequence,) in found] == whole


def test_a_journal_made_anew_is_another_one_and_its_equal_sequences_count(tmp_path: Path) -> None:
    journal, log = tmp_path / "journal", tmp_path / "log"
    both: list[tuple[int, str]] = []
    for life in range(2):
        with writing(journal) as writer:
            append(writer, 1500 - 700 * life, clock_ns=NOON_NS + life)
        archive(log, journal)
        both += expected(journal)
        shutil.rmtree(journal)
    assert archived(log, "sequence, request_id") == both
    assert len(set(archived(log, "journal_ns"))) == 2
    assert read_manifest(log).positions[""].lost == 0


def test_a_server_that_starts_again_goes_on_in_the_same_journal(tmp_path: Path) -> None:
    journal, log = tmp_path / "journal", tmp_path / "log"
    for start in range(3):
        with writing(journal) as writer:
            append(writer, 200, clock_ns=NOON_NS + start)
        archive(log, journal)
    assert archived(log, "sequence, request_id") == expected(journal)
    assert len(set(archived(log, "journal_ns"))) == 1


def test_records_that_retention_took_first_are_counted_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, log = tmp_path / "journal", tmp_path / "log"
    with writing(journal, retained_segments=1) as writer:
        append(writer, 500)
        archive(log, journal)
        last = append(writer, 5000, clock_ns=NOON_NS + 1)[-1]
        writer.settle()
    archive(log, journal)
    there = [sequence for (sequence,) in archived(log)]
    assert there[-1] == last
    assert len(there) == len(set(there))
    lost = read_manifest(log).positions[""].lost
    status = read_status(tmp_path)
    assert status is not None
    assert lost == status.workers[""].lost
    records = len(there) + len(archived(log, table="events"))
    assert records + lost == last
    assert lost > 0
    assert "records lost" in capsys.readouterr().out


def test_what_was_cut_off_as_damaged_after_it_was_archived_stays_and_the_new_records_with_its_numbers_join_it(
    tmp_path: Path,
) -> None:
    journal, log = tmp_path / "journal", tmp_path / "log"
    with writing(journal) as writer:
        append(writer, 50)
    archive(log, journal)
    first = expected(journal)
    overwrite(segment_path(journal, 1), slot_at(40, 100), b"\xff" * 9)
    with writing(journal, accept_damage=True) as writer:
        append(writer, 20, clock_ns=NOON_NS + 1)
    archive(log, journal)
    again = [found for found in expected(journal) if found[1].startswith(str(NOON_NS + 1))]
    assert len(again) == 20
    assert sorted(archived(log, "sequence, request_id")) == sorted(first + again)
    assert len(set(archived(log, "journal_ns"))) == 2


def test_workers_with_equal_sequences_are_kept_apart(tmp_path: Path) -> None:
    journals = {f"worker-{index}": tmp_path / "journal" / f"worker-{index}" for index in range(2)}
    for index, journal in enumerate(journals.values()):
        with writing(journal) as writer:
            append(writer, 30, clock_ns=NOON_NS + index)
    archive(tmp_path / "log", journals)
    found = rows(
        DecisionLog(tmp_path / "log", journals), "SELECT worker, count(*) FROM decisions GROUP BY ALL ORDER BY 1"
    )
    assert found == [("worker-0", 30), ("worker-1", 30)]


def test_days_beyond_retention_go_counted_from_the_newest(tmp_path: Path) -> None:
    with writing(tmp_path / "journal") as writer:
        for day in range(4):
            append(writer, 10, clock_ns=NOON_NS + day * DAY_NS)
    archive(tmp_path / "log", tmp_path / "journal")
    store = ArchiveStore(tmp_path / "log")
    assert store.retain(1) >= 20  # what models there are is an event of a day too
    assert store.retain(1) == 0
    store.close()
    days = {str(date) for (date,) in archived(tmp_path / "log", "date")}
    assert days == {"2023-11-17", "2023-11-18"}
    left = {path.name for path in (tmp_path / "log" / "decisions").iterdir()}
    assert left == {"date=2023-11-17", "date=2023-11-18"}


def test_files_without_their_manifest_are_refused_and_not_taken_for_left_overs(tmp_path: Path) -> None:
    fill(tmp_path / "journal")
    archive(tmp_path / "log", tmp_path / "journal")
    there = sorted((tmp_path / "log").rglob("*.parquet"))
    (tmp_path / "log" / MANIFEST_FILE).unlink()
    with pytest.raises(ArchiveInvalid, match="expected a manifest"):
        ArchiveStore(tmp_path / "log")
    assert sorted((tmp_path / "log").rglob("*.parquet")) == there


@pytest.mark.parametrize("text", ["", "{", '{"format_version": 2}', '{"files": [{"path": "x"}]}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(text)
    with pytest.raises(ArchiveInvalid):
        ArchiveStore(tmp_path)


def test_one_process_writes_an_archive(tmp_path: Path) -> None:
    store = ArchiveStore(tmp_path)
    with pytest.raises(ArchiveBusy):
        ArchiveStore(tmp_path)
    store.close()
    ArchiveStore(tmp_path).close()


def test_a_disk_without_room_costs_time_and_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "journal")
    end = Event()
    archiver = Archiver(tmp_path / "log", {"": tmp_path / "journal"}, tmp_path, replace(SMALL, flush_rows=1024))
    failures = iter([True, True])
    really = ArchiveStore.append

    def append_or_not(store: ArchiveStore, *arguments: object) -> None:
        if next(failures, False):
            raise OSError(28, "No space left on device")
        really(store, *arguments)  # type: ignore[arg-type]
        if store.manifest.positions[""].next_sequence > expected(tmp_path / "journal")[-1][0]:
            end.set()

    monkeypatch.setattr(ArchiveStore, "append", append_or_not)
    monkeypatch.setattr("tickgate_server.archive.service.RETRY_S", 0.01)
    archiver.run(end)
    assert archived(tmp_path / "log", "sequence, request_id") == expected(tmp_path / "journal")
    status = read_status(tmp_path)
    assert status is not None
    assert status.failures == 2
    assert "No space left" in status.last_failure
    assert json.loads((tmp_path / "archive-status.json").read_text())["rows"]["decisions"] == 2400


def test_published_ticks_are_left_out_where_the_settings_say_so(tmp_path: Path) -> None:
    assert ArchiverSettings().with_ticks
    fill(tmp_path / "journal")
    archive(tmp_path / "log", tmp_path / "journal", replace(SMALL, with_ticks=False))
    assert len(archived(tmp_path / "log")) == 2400
