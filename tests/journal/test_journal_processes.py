"""Real processes: writers that are killed, readers that follow from elsewhere, the command."""

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.journal.journal_samples import VECTOR, append, approved, model, overwrite, slot_at, tick

from tickgate_server.journal.commands import journal
from tickgate_server.journal.entries import ControlEntry, DecisionEntry
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.segments import segment_path
from tickgate_server.journal.verify import verify
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.records import Stage

_ROOT = Path(__file__).parents[2]
_CHILD = ("-m", "tests.journal.journal_child")
_WAIT_S = 120


@contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed if it still runs in the end, or after a while."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    guard = threading.Timer(_WAIT_S, process.kill)
    guard.start()
    try:
        with process:
            yield process
            process.kill()
    finally:
        guard.cancel()


def check_after_kill(folder: Path, acknowledged: int) -> None:
    """Every acknowledged record is there, whole, in order; at most one append more."""
    with JournalWriter(folder, segment_records=64, retained_segments=1000) as writer:
        recovery = writer.recovery
        assert acknowledged < recovery.next_sequence <= acknowledged + 4
        with JournalReader(folder) as reader:
            entries = list(reader)
        append(writer)
    for entry in entries:
        if isinstance(entry, DecisionEntry):
            assert entry.row["tick_sequence"] == entry.sequence
        else:
            assert isinstance(entry, ControlEntry)
            assert entry.payload == {"text": "x" * 1500}
    found = verify(folder)
    assert (found.faults, found.torn, found.records) == ((), None, recovery.next_sequence)


@pytest.mark.parametrize("seed", range(4))
def test_a_writer_killed_from_outside_loses_nothing_it_acknowledged(tmp_path: Path, seed: int) -> None:
    with child(*_CHILD, "write", str(tmp_path), "0") as process:
        assert process.stdout is not None
        acknowledged = 0
        for _ in range(random.Random(seed).randrange(1, 2000)):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, process.stdout.read().splitlines())])
    check_after_kill(tmp_path, acknowledged)


@pytest.mark.parametrize("seed", range(8))
def test_a_writer_killed_inside_an_append_loses_nothing_it_acknowledged(tmp_path: Path, seed: int) -> None:
    dies_at = random.Random(seed).randrange(1, 20_000)
    with child(*_CHILD, "write", str(tmp_path), str(dies_at)) as process:
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
    check_after_kill(tmp_path, max([0, *map(int, output.splitlines())]))


def test_a_reader_in_another_process_sees_each_record_once_and_in_order(tmp_path: Path) -> None:
    total = 20_000
    with (
        JournalWriter(tmp_path, segment_records=512, retained_segments=100) as writer,
        child(*_CHILD, "read", str(tmp_path), str(total)) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == '"ready"\n'
        append(writer, total)
        output, _ = process.communicate()
        assert process.returncode == 0
        batches = [json.loads(batch) for batch in output.splitlines()]
    assert [sequence for batch in batches for sequence in batch] == list(range(1, total + 1))


def test_a_full_disk_is_an_error_and_never_a_signal(tmp_path: Path) -> None:
    with child(*_CHILD, "fill", str(tmp_path), "0") as process:
        output, _ = process.communicate()
        assert process.returncode == 0
    assert [json.loads(said) for said in output.splitlines()] == [[65, 53_248], "full", "full", "full", 75]
    assert verify(tmp_path).records == 74


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three decisions, of which one failed, and a control."""
    with JournalWriter(tmp_path) as writer:
        clock_ns = 1_700_000_000_123_456_000
        writer.append_control(ControlKind.LIMITS, {"max_order_size": float("inf")}, clock_ns=clock_ns)
        writer.append_decision(tick(1), approved(model=model()), applied=True, clock_ns=clock_ns, vector=VECTOR)
        writer.append_decision(tick(2, model="other"), approved(), status=5, stage=Stage.NONE)
        append(writer)
    return tmp_path


def test_cat_prints_a_line_an_entry(folder: Path) -> None:
    result = CliRunner().invoke(journal, ["cat", str(folder)])
    assert result.exit_code == 0
    stated = {"index": 0, "name": "m", "version": 1, "schema_id": "micro10/0123456789abcdef", "sha256": "ab" * 32}
    stated["engine"] = "compiled_forest"
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert lines == [
        '1 2023-11-14T22:13:20.123456Z LIMITS {"max_order_size": "Infinity"}',
        "2 - MODEL " + json.dumps(stated),
        "3 2023-11-14T22:13:20.123456Z BTCUSDT tick m:1 OK ENCODING BUY APPROVED confidence 0.65 size 1.5 15.0 us",
        "4 - BTCUSDT tick other NOT_FOUND NONE",
        "5 - BTCUSDT tick - OK ENCODING BUY APPROVED confidence 0.65 size 1.5 15.0 us",
    ]


def test_cat_takes_a_range_as_json(folder: Path) -> None:
    result = CliRunner().invoke(journal, ["cat", str(folder), "--from", "3", "--limit", "2", "--json"])
    assert result.exit_code == 0
    first, second = map(json.loads, result.output.splitlines())
    assert (first["sequence"], first["model"]["name"], first["status"]) == (3, "m", "OK")
    assert (second["sequence"], second["status"], "action" in second) == (4, "NOT_FOUND", False)


def test_cat_follows_a_journal(folder: Path) -> None:
    program = "from tickgate_server.journal.commands import journal; journal()"
    with child("-c", program, "cat", str(folder), "--follow", "--json", "--limit", "6") as process:
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline())["sequence"] for _ in range(5)]
        with JournalWriter(folder) as writer:
            append(writer)
            seen.append(json.loads(process.stdout.readline())["sequence"])
        assert process.wait() == 0
    assert seen == [1, 2, 3, 4, 5, 6]


def test_cat_says_what_is_lost(folder: Path) -> None:
    overwrite(segment_path(folder, 1), slot_at(2, 60), b"\xff\xff")
    result = CliRunner().invoke(journal, ["cat", str(folder), "--json"])
    assert result.exit_code == 1
    assert "lost: " in result.stderr
    assert [json.loads(line)["sequence"] for line in result.stdout.splitlines()] == [1, 2, 4, 5]


def test_verify_says_what_there_is(folder: Path) -> None:
    result = CliRunner().invoke(journal, ["verify", str(folder)])
    assert result.exit_code == 0
    assert "1 segments, 5 records, 0 prepared" in result.output


def test_verify_takes_a_torn_tail_and_nothing_else(folder: Path) -> None:
    path = segment_path(folder, 1)
    path.write_bytes(path.read_bytes() + b"\x00\x01" * 200)
    result = CliRunner().invoke(journal, ["verify", str(folder)])
    assert (result.exit_code, "torn tail: segment 1, record 6" in result.output) == (0, True)
    overwrite(path, slot_at(2, 60), b"\xff\xff")
    result = CliRunner().invoke(journal, ["verify", str(folder)])
    assert result.exit_code == 1
    assert "found record 3 with checksum" in result.stderr


def test_both_verbs_say_that_there_is_no_folder(tmp_path: Path) -> None:
    for verb in ("cat", "verify"):
        result = CliRunner().invoke(journal, [verb, str(tmp_path / "none")])
        assert (result.exit_code, "no such journal folder" in result.output) == (1, True)
