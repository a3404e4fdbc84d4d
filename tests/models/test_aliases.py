"""The file of a model's aliases: compare-and-swap, history, and what is refused."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickgate_server.errors import FieldInvalid
from tickgate_server.models.aliases import (
    ALIASES_FILE,
    CHANGES_KEPT,
    Aliases,
    AliasName,
    Canary,
    change_alias,
    read_aliases,
    roll_back,
)
from tickgate_server.models.errors import (
    AliasConflict,
    AliasesInvalid,
    NothingBefore,
    RepositoryReadOnly,
    VersionMissing,
)

BY = {"reason": "a test", "who": "tester"}
# A racer of its own process: it reads production, moves it on by one, and says which versions it put there itself.
RACER = """
import sys
from pathlib import Path
from tickgate_server.models.aliases import change_alias, read_aliases
from tickgate_server.models.errors import AliasConflict
folder, who = Path(sys.argv[1]), sys.argv[2]
sys.stdin.readline()
while True:
    found = read_aliases(folder)
    current = found.production
    if current == 40:
        break
    try:
        change_alias(folder, "production", current + 1, expected=current, reason="race", who=who)
    except AliasConflict as conflict:
        assert conflict.current > current
        continue
    print(current + 1)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_with(tmp_path / "tiny", 5)


def model_with(folder: Path, versions: int) -> Path:
    for version in range(1, versions + 1):
        (folder / str(version)).mkdir(parents=True)
    return folder


def test_a_model_without_a_file_has_no_aliases(folder: Path) -> None:
    assert read_aliases(folder) is None


def test_what_was_changed_is_what_is_read_with_who_when_and_why(folder: Path) -> None:
    before_ns = time.time_ns()
    change_alias(folder, "production", 1, expected=None, reason="first", who="ann")
    change_alias(folder, "canary", 2, expected=None, share_percent=12.5, **BY)
    changed = change_alias(folder, "production", 2, expected=1, reason="better", who="bob", override="in a hurry")
    assert read_aliases(folder) == changed
    assert (changed.production, changed.previous, changed.shadow) == (2, 1, None)
    assert changed.canary == Canary(version=2, share_percent=12.5)
    assert changed.revision == 3
    last = changed.changes[-1]
    assert (last.revision, last.alias, last.before, last.after) == (3, "production", 1, 2)
    assert (last.who, last.reason, last.override) == ("bob", "better", "in a hurry")
    assert before_ns <= last.at_ns <= time.time_ns()
    assert changed.changes[1].share_percent == 12.5


def test_of_two_processes_that_change_an_alias_exactly_one_wins_each_revision(tmp_path: Path) -> None:
    folder = model_with(tmp_path / "tiny", 40)
    change_alias(folder, "production", 1, expected=None, **BY)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(folder), who], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for who in ("one", "other")
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = {who: racer.communicate()[0].split() for who, racer in zip(("one", "other"), racers, strict=True)}
    assert [racer.returncode for racer in racers] == [0, 0]
    assert sorted(map(int, won["one"] + won["other"])) == list(range(2, 41))
    found = read_aliases(folder)
    assert found is not None
    assert found.revision == 40
    assert [change.revision for change in found.changes] == list(range(1, 41))
    assert [(change.before, change.after) for change in found.changes[1:]] == [(v, v + 1) for v in range(1, 40)]
    for change in found.changes[1:]:
        assert str(change.after) in won[change.who]


@settings(max_examples=12, deadline=None)
@given(
    wishes=st.lists(
        st.tuples(st.sampled_from(["production", "shadow", "canary"]), st.none() | st.integers(1, 5)),
        min_size=2,
        max_size=6,
    )
)
def test_of_changes_at_once_from_one_state_one_a_revision_wins_and_the_others_learn_what_is(
    tmp_path_factory: pytest.TempPathFactory, wishes: list[tuple[AliasName, int | None]]
) -> None:
    folder = model_with(tmp_path_factory.mktemp("race") / "tiny", 5)
    results: list[Aliases | AliasConflict] = []

    def attempt(alias: AliasName, version: int | None) -> None:
        share = 10.0 if alias == "canary" and version else 0.0
        try:
            results.append(change_alias(folder, alias, version, expected=None, share_percent=share, **BY))
        except AliasConflict as conflict:
            results.append(conflict)

    threads = [threading.Thread(target=attempt, args=wish) for wish in wishes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == len(wishes)
    found = read_aliases(folder) or Aliases()
    # Each alias was changed at most once from nothing, and by a wish for a version of it.
    for alias in ("production", "shadow", "canary"):
        wanted = [version for name, version in wishes if name == alias and version is not None]
        changes = [change for change in found.changes if change.alias == alias]
        assert len(changes) == bool(wanted)
        assert all(change.after in wanted for change in changes)
        lost = [r for r in results if isinstance(r, AliasConflict) and r.alias == alias]
        assert all((r.expected, r.current) == (None, found.version_of(alias)) for r in lost)
    assert found.revision == len(found.changes)
    assert [change.revision for change in found.changes] == list(range(1, found.revision + 1))


def test_a_change_that_expects_another_version_says_what_is_there_and_changes_nothing(folder: Path) -> None:
    change_alias(folder, "production", 2, expected=None, **BY)
    before = (folder / ALIASES_FILE).read_bytes()
    with pytest.raises(AliasConflict, match="tiny@production: expected version 1, it is 2") as caught:
        change_alias(folder, "production", 3, expected=1, **BY)
    assert (caught.value.expected, caught.value.current) == (1, 2)
    with pytest.raises(AliasConflict):
        roll_back(folder, expected=3, **BY)
    assert (folder / ALIASES_FILE).read_bytes() == before


def test_what_production_means_without_being_named_counts_as_what_it_points_at(folder: Path) -> None:
    with pytest.raises(AliasConflict):
        change_alias(folder, "production", 2, expected=None, implied=1, **BY)
    changed = change_alias(folder, "production", 2, expected=1, implied=1, **BY)
    assert changed.previous == 1
    assert roll_back(folder, expected=2, **BY).production == 1


def test_a_roll_back_goes_to_the_version_before_and_twice_is_there_and_back(folder: Path) -> None:
    change_alias(folder, "production", 1, expected=None, **BY)
    with pytest.raises(NothingBefore):
        roll_back(folder, expected=1, **BY)
    change_alias(folder, "production", 4, expected=1, **BY)
    change_alias(folder, "shadow", 5, expected=None, **BY)  # has nothing to do with it
    assert roll_back(folder, expected=4, **BY).production == 1
    again = roll_back(folder, expected=1, **BY)
    assert (again.production, again.previous, again.shadow) == (4, 1, 5)


def test_a_roll_back_to_a_version_that_is_gone_is_refused(folder: Path) -> None:
    change_alias(folder, "production", 1, expected=None, **BY)
    change_alias(folder, "production", 2, expected=1, **BY)
    (folder / "1").rmdir()
    with pytest.raises(VersionMissing):
        roll_back(folder, expected=2, **BY)


def test_a_change_that_changes_nothing_writes_nothing(folder: Path) -> None:
    change_alias(folder, "canary", 2, expected=None, share_percent=5.0, **BY)
    before = (folder / ALIASES_FILE).stat().st_mtime_ns
    assert change_alias(folder, "canary", 2, expected=2, share_percent=5.0, **BY).revision == 1
    assert (folder / ALIASES_FILE).stat().st_mtime_ns == before
    more = change_alias(folder, "canary", 2, expected=2, share_percent=50.0, **BY)
    assert (more.revision, more.canary) == (2, Canary(version=2, share_percent=50.0))
    gone = change_alias(folder, "canary", None, expected=2, **BY)
    assert (gone.canary, gone.changes[-1].before, gone.changes[-1].after) == (None, 2, None)


def test_the_last_hundred_changes_are_kept(folder: Path) -> None:
    current = None
    for turn in range(CHANGES_KEPT + 3):
        version = 1 + turn % 2
        change_alias(folder, "shadow", version, expected=current, **BY)
        current = version
    found = read_aliases(folder)
    assert found is not None
    assert [change.revision for change in found.changes] == list(range(4, CHANGES_KEPT + 4))


@pytest.mark.parametrize("version", [6, 999])
def test_an_alias_never_points_at_a_version_that_is_not_there(folder: Path, version: int) -> None:
    with pytest.raises(VersionMissing, match=f"tiny has no version {version}"):
        change_alias(folder, "production", version, expected=None, **BY)
    assert read_aliases(folder) is None


@pytest.mark.parametrize(
    ("alias", "change", "field"),
    [
        ("production", {"version": 0}, "version"),
        ("production", {"version": -1}, "version"),
        ("canary", {"share_percent": 0.0}, "share_percent"),
        ("canary", {"share_percent": 100.1}, "share_percent"),
        ("canary", {"share_percent": float("nan")}, "share_percent"),
        ("shadow", {"share_percent": 1.0}, "share_percent"),
        ("canary", {"version": None, "share_percent": 1.0}, "share_percent"),
        ("shadow", {"reason": " "}, "reason"),
        ("shadow", {"reason": "é" * 101}, "reason"),
        ("shadow", {"who": ""}, "who"),
        ("shadow", {"override": "x" * 201}, "override"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_by_its_field(
    folder: Path, alias: AliasName, change: dict[str, object], field: str
) -> None:
    asked: dict[str, object] = {"version": 1, "expected": None, **BY, **change}
    with pytest.raises(FieldInvalid) as caught:
        change_alias(folder, alias, **asked)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert read_aliases(folder) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"production": 0}',
        b'{"production": "1"}',
        b'{"canary": {"version": 1, "share_percent": 0}}',
        b'{"canary": {"version": 1, "share_percent": 1e999}}',
        b'{"what": 1}',
        b'{"format_version": 2}',
        b" " * (1 << 20) + b"{}",
    ],
)
def test_a_file_that_is_none_is_said_to_be_and_never_written_over(folder: Path, text: bytes) -> None:
    (folder / ALIASES_FILE).write_bytes(text)
    with pytest.raises(AliasesInvalid, match=ALIASES_FILE):
        read_aliases(folder)
    with pytest.raises(AliasesInvalid):
        change_alias(folder, "production", 1, expected=None, **BY)
    assert (folder / ALIASES_FILE).read_bytes() == text


def test_a_folder_that_cannot_be_written_is_named() -> None:
    folder = Path("/sys/kernel")  # where nobody makes a file
    with pytest.raises(RepositoryReadOnly, match=r"/sys/kernel.*cannot be written"):
        change_alias(folder, "production", 1, expected=None, **BY)


def test_a_model_that_is_not_there_has_no_aliases_to_change(tmp_path: Path) -> None:
    with pytest.raises(AliasesInvalid, match="expected the folder of a model"):
        change_alias(tmp_path / "nobody", "production", 1, expected=None, **BY)
    assert not (tmp_path / "nobody").exists()


def test_nothing_but_the_file_and_its_lock_is_left_behind_and_both_are_no_versions(folder: Path) -> None:
    change_alias(folder, "production", 1, expected=None, **BY)
    assert {path.name for path in folder.iterdir() if path.is_file()} == {ALIASES_FILE, ".aliases.lock"}
    assert json.loads((folder / ALIASES_FILE).read_text())["production"] == 1
