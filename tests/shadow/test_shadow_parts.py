"""The parts of the scorer, each beside a slow reference: aliases over time, sums, the files of comparisons."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.shadow.shadowing import set_shadow

from tickgate_server.models.aliases import ALIASES_FILE, AliasChange, Aliases, Canary
from tickgate_server.models.shadow_record import DIFFERENCE_BOUNDS, ShadowRecord, Signals
from tickgate_server.risk.reasons import Action
from tickgate_server.shadow.comparing import signals
from tickgate_server.shadow.store import (
    ALIASES,
    COMPARISON,
    HEADER_BYTES,
    Comparisons,
    ComparisonStore,
    StoreInvalid,
    numbers,
    path_of,
    read_comparisons,
)
from tickgate_server.shadow.tally import Tally
from tickgate_server.shadow.watching import NO_VERSION, AliasFiles, Timeline


def comparisons(count: int, seed: int = 1) -> Comparisons:
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, COMPARISON)
    rows["journal_sequence"] = np.arange(count)
    rows["clock_ns"] = rng.integers(0, 1000, count)
    rows["version"] = rng.integers(2, 4, count)
    rows["alias"] = rng.integers(0, 2, count)
    for side in ("signal", "shadow_signal"):
        rows[side] = rng.integers(1, 4, count)
    rows["agreed"] = rng.random(count) < 0.5
    for side in ("value", "shadow_value"):
        rows[side] = rng.choice([-1.0, 0.0, 1e-6, 0.5, 1.0], count)
    for side in ("confidence", "shadow_confidence"):
        rows[side] = rng.choice([0.5, 0.6, 1.0], count)
    return rows


# Aliases over time.


def aliases_of(changes: list[tuple[int, int | None, int | None]], now: int | None) -> Aliases:
    made = tuple(
        AliasChange(revision=at + 1, at_ns=at_ns, alias="shadow", before=before, after=after, who="t", reason="t")
        for at, (at_ns, before, after) in enumerate(changes)
    )
    return Aliases(revision=len(made), shadow=now, changes=made)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.none() | st.integers(1, 3)), max_size=8),
    st.none() | st.integers(1, 3),
    st.lists(st.integers(0, 60), min_size=1, max_size=20),
)
def test_a_timeline_is_what_walking_through_the_changes_gives(
    moves: list[tuple[int, int | None]], first: int | None, clocks: list[int]
) -> None:
    moves.sort(key=lambda move: move[0])
    versions = [first, *(after for _, after in moves)]
    changes = [(at_ns, versions[place], after) for place, (at_ns, after) in enumerate(moves)]
    timeline = Timeline(aliases_of(changes, versions[-1]), "shadow")
    for clock in clocks:
        expected = first
        for at_ns, after in moves:
            if at_ns <= clock:
                expected = after
        if clock == 0:  # the ticks' own clock: what it means now
            expected = versions[-1]
        assert timeline.at(np.array([clock]))[0] == (expected or NO_VERSION)


def test_an_alias_without_changes_has_always_meant_what_it_means() -> None:
    aliases = Aliases(shadow=3, canary=Canary(version=4, share_percent=1.0))
    clocks = np.array([0, 1, 10**18])
    assert Timeline(aliases, "shadow").at(clocks).tolist() == [3, 3, 3]
    assert Timeline(aliases, "canary").at(clocks).tolist() == [4, 4, 4]
    assert Timeline(aliases, "production").at(clocks).tolist() == [NO_VERSION] * 3
    assert Timeline(aliases, "shadow").first_ns(3) == 0


def test_a_timeline_knows_when_a_version_came() -> None:
    timeline = Timeline(aliases_of([(100, None, 1), (200, 1, 2), (300, 2, 1)], 1), "shadow")
    assert (timeline.first_ns(1), timeline.first_ns(2), timeline.first_ns(9)) == (100, 200, 0)


def test_a_wall_clock_that_went_back_does_not_bring_back_what_was_replaced() -> None:
    timeline = Timeline(aliases_of([(100, None, 1), (90, 1, 2)], 2), "shadow")
    assert timeline.at(np.array([80, 95, 100])).tolist() == [NO_VERSION, NO_VERSION, 2]


# Alias files.


def test_alias_files_are_followed_and_a_broken_one_leaves_what_was_in_force(tmp_path: Path) -> None:
    for version in (1, 2):
        (tmp_path / "tiny" / str(version)).mkdir(parents=True)
    (tmp_path / "plain" / "1").mkdir(parents=True)
    (tmp_path / "a file").touch()
    files = AliasFiles(tmp_path)
    assert not files.poll()
    set_shadow(tmp_path, 1)
    assert files.poll()
    assert not files.poll()
    assert dict(files.shadows) == {"tiny": 1}
    path = tmp_path / "tiny" / ALIASES_FILE
    right = path.read_text()
    path.write_text("{")
    with capture_logs() as logs:
        assert files.poll()
        assert not files.poll()
    assert [(line["event"], line["in_force"]) for line in logs] == [("aliases unreadable", True)]
    assert dict(files.shadows) == {"tiny": 1}
    path.write_text(right.replace('"shadow": 1', '"shadow": null'))
    files.poll()
    assert dict(files.shadows) == {}
    path.write_text(right)
    files.poll()
    path.unlink()
    assert files.poll()
    assert (dict(files.shadows), files.aliases) == ({}, {})


def test_a_file_that_was_never_right_makes_its_model_unknown_until_it_is(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    path = tmp_path / "tiny" / ALIASES_FILE
    path.write_text("[]")
    files = AliasFiles(tmp_path)
    files.poll()
    assert files.unknown == {"tiny"}
    path.write_text('{"shadow": 1}')
    files.poll()
    assert (files.unknown, dict(files.shadows)) == (set(), {"tiny": 1})


def test_without_a_repository_there_are_no_shadows(tmp_path: Path) -> None:
    files = AliasFiles(tmp_path / "none")
    assert not files.poll()
    assert dict(files.shadows) == {}


# Would-be signals.


@pytest.mark.parametrize(
    ("value", "confidence", "threshold", "action"),
    [
        (0.2, 0.6, 0.6, Action.BUY),
        (-0.2, 0.6, 0.6, Action.SELL),
        (0.2, 0.59, 0.6, Action.HOLD),
        (0.0, 0.5, 0.5, Action.HOLD),
        (0.2, float("nan"), 0.5, Action.HOLD),
    ],
)
def test_a_would_be_signal_needs_its_own_threshold(
    value: float, confidence: float, threshold: float, action: Action
) -> None:
    assert signals(np.array([value]), np.array([confidence]), threshold).tolist() == [action]


# Sums.


@given(st.integers(1, 60), st.integers(0, 10_000), st.lists(st.integers(0, 60), max_size=5))
def test_a_tally_of_any_pieces_is_what_adding_one_by_one_gives(count: int, seed: int, cuts: list[int]) -> None:
    rows = comparisons(count, seed)
    tally = Tally(ShadowRecord(name="tiny", version=1))
    for piece in np.split(rows, sorted(cut for cut in cuts if cut <= count)):
        if piece.size:
            tally.add(piece)
            # As after a restart: from the record's own JSON.
            said = ShadowRecord(name="tiny", version=1, comparisons=tally.comparisons).model_dump_json()
            tally = Tally(ShadowRecord.model_validate_json(said))
    assert {(side.alias, side.version) for side in tally.comparisons} == {
        (ALIASES[row["alias"]], int(row["version"])) for row in rows
    }
    for side in tally.comparisons:
        own = [row for row in rows if (ALIASES[row["alias"]], row["version"]) == (side.alias, side.version)]
        assert side.decisions == len(own)
        assert side.agreed == sum(bool(row["agreed"]) for row in own)
        assert side.same_signals == sum(row["signal"] == row["shadow_signal"] for row in own)
        assert side.signals == by_hand(row["signal"] for row in own)
        assert side.shadow_signals == by_hand(row["shadow_signal"] for row in own)
        differences = [abs(float(row["shadow_value"]) - float(row["value"])) for row in own]
        assert side.value.max == max(differences)
        assert side.value.mean == pytest.approx(sum(differences) / len(own))
        counts = [0] * len(DIFFERENCE_BOUNDS)
        for difference in differences:
            counts[next(k for k, bound in enumerate(DIFFERENCE_BOUNDS) if difference <= bound)] += 1
        assert list(side.value.counts) == counts
        assert side.first_clock_ns == min(row["clock_ns"] for row in own)
        assert side.last_clock_ns == max(row["clock_ns"] for row in own)


def by_hand(actions: Any) -> Signals:
    found = {"buy": 0, "sell": 0, "hold": 0}
    for action in actions:
        found[Action(int(action)).name.lower()] += 1
    return Signals(**found)


# Files of comparisons.


def kept(folder: Path, stored: int) -> list[int]:
    found = np.concatenate([np.empty(0, COMPARISON), *read_comparisons(folder, stored)])
    assert found["sequence"].tolist() == sorted(found["sequence"].tolist())
    return [int(one) for one in found["journal_sequence"]]


@settings(max_examples=30)  # each is some dozens of files
@given(st.integers(0, 2**32), st.integers(1, 7))
def test_whatever_was_appended_and_not_committed_is_cut_and_can_be_written_again(
    tmp_path_factory: pytest.TempPathFactory, seed: int, capacity: int
) -> None:
    folder = tmp_path_factory.mktemp("comparisons")
    chance = random.Random(seed)
    rows = comparisons(60)
    committed = 0
    while committed < 40:
        store = ComparisonStore(folder, committed, retained=1000, capacity=capacity)
        assert kept(folder, committed) == list(range(committed))
        for _ in range(chance.randint(1, 3)):
            count = chance.randint(1, 9)
            store.append(rows[store.stored : store.stored + count].copy())
            if chance.random() < 0.5:
                committed = store.stored
    assert kept(folder, committed) == list(range(committed))


def test_the_oldest_files_go(tmp_path: Path) -> None:
    store = ComparisonStore(tmp_path, 0, retained=20, capacity=10)
    store.append(comparisons(45))
    assert numbers(tmp_path) == [1, 2, 3, 4, 5]
    store.prune()
    assert numbers(tmp_path) == [4, 5]
    assert kept(tmp_path, 45) == list(range(30, 45))


def test_a_damaged_comparison_is_left_out(tmp_path: Path) -> None:
    ComparisonStore(tmp_path, 0, retained=100, capacity=10).append(comparisons(5))
    path = path_of(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 2 * COMPARISON.itemsize + 50] ^= 1
    path.write_bytes(data)
    assert kept(tmp_path, 5) == [0, 1, 3, 4]


@pytest.mark.parametrize(
    "spoil", [lambda data: b"x" + data[1:], lambda data: data[:30], lambda data: b"\0" * len(data)]
)
def test_a_file_that_is_none_of_comparisons_is_refused(tmp_path: Path, spoil: Any) -> None:
    ComparisonStore(tmp_path, 0, retained=100, capacity=10).append(comparisons(5))
    path = path_of(tmp_path, 1)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(StoreInvalid, match="header"):
        ComparisonStore(tmp_path, 5, retained=100, capacity=10)
    with pytest.raises(StoreInvalid, match="header"):
        kept(tmp_path, 5)


def test_a_file_with_room_for_another_number_is_refused(tmp_path: Path) -> None:
    ComparisonStore(tmp_path, 0, retained=100, capacity=10).append(comparisons(5))
    with pytest.raises(StoreInvalid, match="room for 10 records, expected 20"):
        ComparisonStore(tmp_path, 5, retained=100, capacity=20)


def test_comparisons_that_the_disk_lost_are_said(tmp_path: Path) -> None:
    ComparisonStore(tmp_path, 0, retained=100, capacity=10).append(comparisons(5))
    with capture_logs() as logs:
        store = ComparisonStore(tmp_path, 7, retained=100, capacity=10)
    assert [(line["event"], line["bytes"]) for line in logs] == [("comparisons missing", 2 * COMPARISON.itemsize)]
    store.append(comparisons(8)[7:])
    assert kept(tmp_path, 8) == [0, 1, 2, 3, 4, 7]


def test_a_file_that_went_with_the_disk_is_begun_again(tmp_path: Path) -> None:
    ComparisonStore(tmp_path, 0, retained=100, capacity=10).append(comparisons(15))
    path_of(tmp_path, 2).unlink()
    with capture_logs() as logs:
        store = ComparisonStore(tmp_path, 15, retained=100, capacity=10)
    assert [line["bytes"] for line in logs] == [5 * COMPARISON.itemsize]
    store.append(comparisons(16)[15:])
    assert kept(tmp_path, 16) == [*range(10), 15]
