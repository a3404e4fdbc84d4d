"""The scorer's process and who keeps it, without a server: a journal, a repository, and children that die."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.journal.journal_samples import append
from tests.shadow.shadowing import publish_both, record_of, set_shadow, wait_until

from tickgate_server import beside
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.aliases import ALIASES_FILE
from tickgate_server.models.shadow_record import ShadowRecord, record_path, write_record
from tickgate_server.shadow import process
from tickgate_server.shadow.process import ShadowProcess
from tickgate_server.shadow.service import LOCK_FILE


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return publish_both(tmp_path / "models")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Path]:
    with JournalWriter(tmp_path / "journal") as writer:
        append(writer, 3)
        yield tmp_path / "journal"


def events(logs: list[dict[str, object]]) -> list[object]:
    return [line["event"] for line in logs]


def test_a_scorer_gives_way_keeps_others_out_and_ends_with_its_input(repository: Path, journal: Path) -> None:
    set_shadow(repository, 1)
    command = [sys.executable, "-m", "tickgate_server.shadow", "--journal", str(journal), "--models", str(repository)]
    command += ["--retained", "1", "--log-format", "json"]
    idle = subprocess.Popen([*command, "--give-way"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_until(lambda: os.sched_getscheduler(idle.pid) == os.SCHED_IDLE, "the policy")
    idle.kill()
    idle.communicate()
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: record_path(journal / "shadow", "tiny", 1).exists(), "a record")
    for number in (signal.SIGTERM, signal.SIGINT):  # what is sent to the server's group is not for it
        first.send_signal(number)
    second = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert second.stderr is not None
    waiting = json.loads(second.stderr.readline())
    assert waiting["event"] == "another shadow scorer is still at work"
    assert second.communicate("")[1] == ""
    said = [json.loads(line)["event"] for line in first.communicate("")[1].splitlines()]
    assert said == ["shadow followed", "shadow loaded"]
    assert (first.returncode, second.returncode) == (0, 0)
    assert (journal / "shadow" / LOCK_FILE).exists()


def test_a_scorer_that_cannot_have_its_folder_says_so(repository: Path, journal: Path) -> None:
    (journal / "shadow").touch()
    command = [sys.executable, "-m", "tickgate_server.shadow", "--journal", str(journal), "--models", str(repository)]
    ended = subprocess.run([*command, "--retained", "1"], capture_output=True, text=True, check=False, input="")
    assert ended.returncode == 1
    assert json.loads(ended.stderr)["event"] == "shadow scorer ended"


def test_a_record_that_cannot_be_gone_on_with_is_said_and_the_others_are_scored(
    repository: Path, journal: Path
) -> None:
    set_shadow(repository, 1)
    other = repository / "other"
    other.mkdir()
    (other / ALIASES_FILE).write_text('{"shadow": 3}')
    path = record_path(journal / "shadow", "other", 3)
    path.parent.mkdir(parents=True)
    path.write_text("half")
    command = [sys.executable, "-m", "tickgate_server.shadow", "--journal", str(journal), "--models", str(repository)]
    ended = subprocess.run([*command, "--retained", "1"], capture_output=True, text=True, check=False, input="")
    assert ended.returncode == 0
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert {line["model"] for line in lines if line["event"] == "shadow not scored"} == {"other"}
    assert record_of(journal / "shadow").positions == {"": 4}
    assert path.read_text() == "half"


def test_without_a_shadow_there_is_no_process(repository: Path, journal: Path) -> None:
    with capture_logs() as logs:
        ShadowProcess(repository, [journal], retained=1).close()
    assert events(logs) == []
    assert not (journal / "shadow").exists()


def test_a_scorer_that_does_not_stay_is_given_up_until_the_aliases_change(
    repository: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "RESTARTS", 2)
    monkeypatch.setattr(beside, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(process, "WATCH_S", 0.01)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    set_shadow(repository, 1)
    with capture_logs() as logs:
        kept = ShadowProcess(repository, [journal], retained=1)
        wait_until(lambda: "shadow scorer given up" in events(logs), "given up")
        set_shadow(repository, 2, expected=1)
        wait_until(lambda: events(logs).count("shadow scorer given up") == 2, "given up again")
        kept.close()
    row = [*["shadow scorer started", "shadow scorer ended"] * 2, "shadow scorer started", "shadow scorer given up"]
    assert events(logs) == row * 2


def test_a_scorer_that_cannot_be_started_is_said(
    repository: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(journal / "nothing"))
    set_shadow(repository, 1)
    with capture_logs() as logs:
        kept = ShadowProcess(repository, [journal], retained=1)
        wait_until(lambda: "shadow scorer not started" in events(logs), "said")
        kept.close()


def test_a_scorer_that_is_too_slow_to_end_is_killed(
    repository: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "DRAIN_S", 0.1)
    set_shadow(repository, 1)
    with capture_logs() as logs:
        kept = ShadowProcess(repository, [journal], retained=1, idle=False)
        wait_until(lambda: "shadow scorer started" in events(logs), "started")
        assert kept._child is not None
        kept._child.send_signal(signal.SIGSTOP)
        kept.close()
    assert events(logs)[-1] == "shadow scorer goes on at the next start"


def test_what_a_shadow_of_the_last_server_left_is_scored_though_it_is_none_any_more(
    repository: Path, journal: Path
) -> None:
    write_record(journal / "shadow", ShadowRecord(name="tiny", version=1, positions={"": 2}))
    with capture_logs() as logs:
        kept = ShadowProcess(repository, [journal], retained=1, idle=False)
        wait_until(lambda: record_of(journal / "shadow").ended, "an end")
        wait_until(lambda: "shadow scorer stopped" in events(logs), "stopped")
        kept.close()
    assert record_of(journal / "shadow").positions == {"": 4}
    assert events(logs) == ["shadow scorer started", "shadow scorer stopped"]
