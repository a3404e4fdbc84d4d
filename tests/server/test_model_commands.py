"""`tickgate models` on a running server, of one process and of two workers."""

import json
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.support.messages import tick
from tests.support.packages import publish_logistic
from tests.support.processes import CALL_S, TICKGATE, Served, run, served
from tests.support.promotion import verdict

from tickgate_server import model_commands
from tickgate_server.models.aliases import change_alias, read_aliases
from tickgate_server.models.package import MODEL_FILE

PATIENT_MS = 60_000.0
LOST = 3
WHY = ("--reason", "a test")


def published(folder: Path) -> Path:
    """`tiny` 1 to 5: 3 has not passed training's checks, 4 is damaged; production is 1."""
    for version in (1, 2, 5):
        publish_logistic(folder, version=version, promotion=verdict(), latency_budget_ms=PATIENT_MS)
    publish_logistic(folder, version=3, promotion=verdict(deflated_sharpe_2014=0.5), latency_budget_ms=PATIENT_MS)
    (publish_logistic(folder, version=4, promotion=verdict()) / MODEL_FILE).write_bytes(b"other")
    change_alias(folder / "tiny", "production", 1, expected=None, reason="a beginning", who="tester")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def one(folder: Path) -> Iterator[Served]:
    with served(folder, "--clock", "replay") as server:
        yield server


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = published(tmp_path_factory.mktemp("models"))
    with served(models, "--clock", "replay", "--workers", "2", ready="workers serving") as server:
        yield server


def models(server: Served, *arguments: str) -> Result:
    """The verb, in this process: one of its own takes a second to load what it stands on."""
    own = [*arguments, "--journal", str(server.process.journal), "--timeout-s", str(CALL_S)]
    return CliRunner().invoke(model_commands.models, own, env={"COLUMNS": "600"})


def told(server: Served, *arguments: str) -> str:
    """What a verb printed that went well."""
    ended = models(server, *arguments)
    assert (ended.exit_code, ended.stderr) == (0, "")
    return ended.stdout


def listed(server: Served) -> list[dict[str, Any]]:
    """What each worker knows."""
    return list(json.loads(told(server, "list", "tiny", "--json"))["workers"])


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]


def production(server: Served) -> int:
    return int(listed(server)[0]["aliases"][0]["production"])


@pytest.fixture
def beginning(one: Served) -> Served:
    """The server with 1 as production, whatever was before."""
    if (now := production(one)) != 1:
        told(one, "promote", "tiny", "1", "--expected", str(now), *WHY)
    return one


def test_versions_are_listed_with_state_aliases_engine_and_verdict(beginning: Served) -> None:
    table = {row[1]: row for row in rows(told(beginning, "list"))}
    assert table["1"][:5] == ["tiny", "1", "READY", "production", "onnxruntime"]
    assert table["1"][6] == "passed"
    assert table["3"][6] == "fails deflated_sharpe_2014"
    assert table["4"][2] == "FAILED"
    assert table["4"][8].startswith("sha256 is")
    assert models(beginning, "list", "nobody").exit_code == 1


def test_a_promotion_takes_effect_and_goes_back(beginning: Served) -> None:
    said = told(beginning, "promote", "tiny", "2", *WHY)
    assert said.startswith("tiny: production 1 -> 2 at 2")
    assert "shadow_record" in said
    request = tick("A", 1, trade=(1.0, 1.0), model="tiny")
    assert beginning.predict(request).model.version == 2
    assert told(beginning, "rollback", "tiny", *WHY).startswith("tiny: production 2 -> 1 at 2")
    assert beginning.predict(request).model.version == 1


def test_a_promotion_against_the_rules_wants_an_override(beginning: Served, folder: Path) -> None:
    ended = models(beginning, "promote", "tiny", "3", *WHY)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "FAILED_PRECONDITION: tiny:3 is not promoted without an override: deflated_sharpe_2014 0.5" in ended.stderr
    found = json.loads(told(beginning, "promote", "tiny", "3", "--override", "seen", "--json", *WHY))
    assert (found["aliases"]["production"], found["aliases"]["changes"][-1]["override"]) == (3, "seen")
    assert {rule["name"]: rule["passed"] for rule in found["rules"]}["deflated_sharpe_2014"] is False
    aliases = read_aliases(folder / "tiny")
    assert aliases is not None
    assert aliases.changes[-1].override == "seen"


def test_a_promotion_that_another_came_before_ends_with_a_status_of_its_own(beginning: Served) -> None:
    ended = models(beginning, "promote", "tiny", "2", "--expected", "5", *WHY)
    assert ended.exit_code == LOST
    assert ended.stderr.endswith("ABORTED: tiny@production: expected version 5, it is 1\n")
    assert production(beginning) == 1


def test_of_two_promotions_by_people_at_once_exactly_one_wins(beginning: Served) -> None:
    own = ("--expected", "1", *WHY, "--journal", str(beginning.process.journal), "--timeout-s", str(CALL_S))
    racers = [
        subprocess.Popen(
            [TICKGATE, "models", "promote", "tiny", version, *own],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for version in ("2", "5")
    ]
    errors = [racer.communicate(timeout=60)[1] for racer in racers]
    statuses = [racer.returncode for racer in racers]
    assert sorted(statuses) == [0, LOST]
    winner = (2, 5)[statuses.index(0)]
    assert production(beginning) == winner
    assert f"ABORTED: tiny@production: expected version 1, it is {winner}" in errors[statuses.index(LOST)]


def test_a_version_is_unloaded_and_loaded_again(beginning: Served) -> None:
    assert told(beginning, "unload", "tiny", "2", *WHY) == "tiny:2 is unloaded\n"
    assert told(beginning, "load", "tiny", "2", *WHY).startswith("tiny:2 is READY, warm-up p99 ")
    ended = models(beginning, "unload", "tiny", "1", *WHY)
    assert (ended.exit_code, "FAILED_PRECONDITION" in ended.stderr) == (1, True)
    ended = models(beginning, "load", "tiny", "4", *WHY)
    assert (ended.exit_code, "sha256 is" in ended.stderr) == (1, True)


def test_shadow_and_canary_are_named_and_taken_away(beginning: Served) -> None:
    assert "shadow none -> 2" in told(beginning, "shadow", "tiny", "2", *WHY)
    assert "shadow 2 -> none" in told(beginning, "shadow", "tiny", "none", *WHY)
    said = told(beginning, "canary", "tiny", "2", "--share-percent", "12.5", *WHY)
    assert "canary none -> 2 for 12.5 %" in said
    assert {row[1]: row[3] for row in rows(told(beginning, "list", "tiny"))}["2"] == "canary 12.5 %"
    assert "canary 2 -> none" in told(beginning, "canary", "tiny", "none", *WHY)
    assert models(beginning, "canary", "tiny", "2", *WHY).exit_code == 1  # a share is wanted
    assert models(beginning, "canary", "tiny", "zero", *WHY).exit_code == 2


class Watching:
    """A running `tickgate models watch`."""

    def __init__(self, server: Served, *arguments: str) -> None:
        command = [TICKGATE, "models", "watch", *arguments, "--journal", str(server.process.journal)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self._lines.put(line)

    def until(self, said: str) -> list[str]:
        """The lines up to one that says this."""
        found = [self._lines.get(timeout=CALL_S)]
        while said not in found[-1]:
            found.append(self._lines.get(timeout=CALL_S))
        return found

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, error = self.process.wait(CALL_S), self.process.stderr
        self._reader.join(CALL_S)
        assert error is not None
        with error:
            return self.process.returncode, error.read()


def test_a_watcher_sees_states_and_aliases_until_it_is_interrupted(beginning: Served) -> None:
    watcher = Watching(beginning, "tiny")
    try:
        assert any("tiny:4  FAILED  sha256 is" in line for line in watcher.until("tiny  production 1"))
        told(beginning, "unload", "tiny", "5", *WHY)
        watcher.until("tiny:5  UNLOADED")
        told(beginning, "promote", "tiny", "5", *WHY)
        seen = watcher.until("production 5")
        states = [line.split("tiny:5  ")[1].strip() for line in seen if "tiny:5" in line]
        assert states == ["START", "LOADING", "READY"]
        assert watcher.end() == (0, "")
    finally:
        watcher.process.kill()


# -- two workers -------------------------------------------------------------------------------------------------------


def test_all_workers_follow_a_promotion_before_the_command_ends(two: Served) -> None:
    assert told(two, "promote", "tiny", "2", *WHY).startswith("tiny: production 1 -> 2")
    assert [worker["aliases"][0]["serving"] for worker in listed(two)] == [2, 2]
    told(two, "rollback", "tiny", *WHY)
    assert [worker["aliases"][0]["serving"] for worker in listed(two)] == [1, 1]


def test_versions_are_loaded_and_unloaded_at_every_worker(two: Served) -> None:
    assert told(two, "unload", "tiny", "5", *WHY) == "worker 0: tiny:5 is unloaded\nworker 1: tiny:5 is unloaded\n"
    assert [[one["version"] for one in worker["versions"]] for worker in listed(two)] == [[1, 2, 3, 4]] * 2
    table = rows(told(two, "list", "tiny"))
    assert [row[-1] for row in table if row[1] == "1"] == ["0", "1"]
    assert told(two, "load", "tiny", "5", *WHY).count("is READY") == 2


def test_a_version_that_fails_at_the_workers_is_not_promoted(two: Served) -> None:
    ended = models(two, "promote", "tiny", "4", *WHY)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.count("sha256 is") == 2
    assert [worker["aliases"][0]["production"] for worker in listed(two)] == [1, 1]


# -- no server ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verb",
    [
        ("list",),
        ("watch",),
        ("load", "tiny", "1", *WHY),
        ("promote", "tiny", "1", *WHY),
        ("shadow", "tiny", "1", *WHY),
    ],
    ids=lambda verb: verb[0],
)
def test_a_server_that_is_not_there_is_an_error_in_one_line(tmp_path: Path, verb: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(model_commands.models, [*verb, "--journal", str(tmp_path)])
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert (
        ended.stderr == f"Error: unix:{tmp_path / 'admin.sock'}: no server listens there (No such file or directory)\n"
    )


def test_help_of_the_verbs_needs_no_server() -> None:
    ended = run("models", "promote", "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "--override" in ended.stdout
