"""Switches under traffic in the journal: a replay makes the same choices, bit for bit."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from tests.support.operated import Operated, copied
from tests.support.packages import publish_forest, publish_logistic

from tickgate_server.features.schema import micro32
from tickgate_server.journal.entries import ControlEntry, DecisionEntry
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.models.states import VersionStatus
from tickgate_server.replay import replay
from tickgate_server.risk.limits import Limits
from tickgate_server.risk_check import check_limits


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tree` 1 to 3, of which 3 takes other features, and `line` 1."""
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2):
        publish_forest(folder, name="tree", version=version, seed=version, latency_budget_ms=60_000.0)
    publish_forest(folder, name="tree", version=3, features=micro32(), latency_budget_ms=60_000.0)
    publish_logistic(folder, name="line", latency_budget_ms=60_000.0)
    return folder


def traffic(served: Operated, rounds: int) -> None:
    """Ticks of some symbols for some references; those that mean nothing now are refused."""
    for turn in range(rounds):
        for symbol in "ABCDEF":
            served.ask(("", "tree", "tree@production", "tree:1", "line", "tree:3")[turn % 6], symbol)


def swaps(served: Operated) -> None:
    """Every kind of change there is, each with traffic behind it."""
    traffic(served, 12)
    served.load("tree", 2)
    traffic(served, 6)
    served.point("tree", 1, expected=served.models.in_force("tree").production)
    traffic(served, 6)
    served.point("tree", 2, expected=None, alias="canary", share_percent=50.0)
    traffic(served, 6)
    served.load("tree", 3)  # a second set of features: its windows begin here
    traffic(served, 18)
    served.point("tree", None, expected=2, alias="canary")
    served.point("tree", 2, expected=1)
    served.unload("tree", 3)
    traffic(served, 6)
    served.roll_back("tree", expected=2)
    served.load("tree", 3)
    for turn in range(120):  # as many as its windows take, and then it answers
        served.ask(("tree:3", "tree")[turn % 2], "A")
    served.unload("tree", 2)
    served.point("tree", None, expected=1)
    traffic(served, 6)


def controls(folder: Path, *kinds: ControlKind) -> list[ControlEntry]:
    with JournalReader(folder) as reader:
        return [entry for entry in reader if isinstance(entry, ControlEntry) and entry.code in kinds]


def test_a_journal_with_swaps_and_a_restart_replays_bit_for_bit(models: Path, tmp_path: Path) -> None:
    repository = Path(shutil.copytree(models, tmp_path / "models"))
    journal = tmp_path / "journal"
    for lanes in (True, False):
        for hidden in ("2", "3"):
            (repository / "tree" / hidden).rename(tmp_path / hidden)
        served = Operated(journal, repository, default="tree", lanes=lanes, segment_records=256)
        for hidden in ("2", "3"):
            (tmp_path / hidden).rename(repository / "tree" / hidden)
        swaps(served)
        served.close()
        (repository / "tree" / "aliases.json").unlink()
    found = replay(journal, repository, keep=5)
    assert found.differences == []
    assert found.starts == 2
    assert found.decisions > 500
    with JournalReader(journal) as reader:
        answered = Counter(
            (entry.model.name, entry.model.version)
            for entry in reader
            if isinstance(entry, DecisionEntry) and entry.model is not None and entry.row["scored"]
        )
    assert {("tree", 1), ("tree", 2), ("tree", 3), ("line", 1)} == set(answered)
    assert min(answered.values()) > 10
    unchanged = check_limits(
        Limits(version=1, max_var="off", max_correlation="off", max_repeats="off"), [journal], repository
    )
    assert (unchanged.decisions, unchanged.changed) == (found.decisions, 0)


def test_a_version_is_stated_before_its_first_decision_and_segments_restate_what_is_in_force(
    models: Path, tmp_path: Path
) -> None:
    repository = Path(shutil.copytree(models, tmp_path / "models"))
    served = Operated(tmp_path / "journal", repository, default="tree", segment_records=64)
    served.point("tree", 1, expected=3)
    served.unload("tree", 2)
    traffic(served, 20)
    served.load("tree", 2)
    served.point("tree", 2, expected=1)
    traffic(served, 20)
    served.close()
    kinds = (ControlKind.MODEL, ControlKind.ALIAS, ControlKind.MODEL_UNLOADED)
    news = [
        (ControlKind(entry.code).name, *(entry.payload[key] for key in ("name", "version")))
        for entry in controls(tmp_path / "journal", *kinds)
        if not entry.restated
    ]
    assert news == [
        ("MODEL", "line", 1),
        ("MODEL", "tree", 1),
        ("MODEL", "tree", 2),
        ("MODEL", "tree", 3),
        ("ALIAS", "line", 1),
        ("ALIAS", "tree", 3),
        ("ALIAS", "tree", 1),
        ("MODEL_UNLOADED", "tree", 2),
        ("MODEL", "tree", 2),
        ("ALIAS", "tree", 2),
    ]
    indices = {
        entry.payload["version"]: entry.payload["index"]
        for entry in controls(tmp_path / "journal", ControlKind.MODEL)
        if entry.payload["name"] == "tree"
    }
    assert indices == {1: 1, 2: 2, 3: 3}
    with JournalReader(tmp_path / "journal") as reader:
        seen_segments = []
        while (rows := reader.poll(64)).size:
            decided = rows[(rows["kind"] == 1) & (rows["model_index"] >= 0)]
            assert set(decided["model_index"].tolist()) <= set(reader.models)
            seen_segments.append(reader.models)
    restated = [e for e in controls(tmp_path / "journal", ControlKind.ALIAS) if e.restated]
    last = {e.payload["name"]: e.payload["version"] for e in restated}
    assert last == {"line": 1, "tree": 2}


def test_a_restart_serves_what_the_file_says(models: Path, tmp_path: Path) -> None:
    repository = Path(shutil.copytree(models, tmp_path / "models"))
    served = Operated(tmp_path / "journal", repository, default="tree")
    served.point("tree", 1, expected=3)
    served.point("tree", 2, expected=1)
    served.close()
    served = Operated(tmp_path / "journal", repository, default="tree")
    assert served.version() == 2
    back = served.roll_back("tree", expected=2)
    assert not isinstance(back, Exception)
    assert served.version() == 1
    copied(repository / "tree" / "1", 7)
    loaded = served.load("tree", 7)
    assert isinstance(loaded, VersionStatus)
    assert served.version() == 1
    served.close()
