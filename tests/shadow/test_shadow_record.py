"""The file that promotion reads: it says what was written, and one that contradicts itself is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tickgate_server.models.shadow_record import (
    DIFFERENCE_BOUNDS,
    Comparison,
    Divergence,
    Missed,
    ShadowRecord,
    ShadowRecordInvalid,
    ShadowSummary,
    Signals,
    read_record,
    read_summary,
    record_path,
    shadow_folder,
    write_record,
)


def divergence(*differences: float) -> Divergence:
    """Of these differences, counted one by one."""
    counts = [0] * len(DIFFERENCE_BOUNDS)
    for difference in differences:
        counts[next(k for k, bound in enumerate(DIFFERENCE_BOUNDS) if difference <= bound)] += 1
    total = sum(differences)
    return Divergence(mean=total / len(differences), max=max(differences), sum=total, counts=tuple(counts))


def comparison(**changes: Any) -> Comparison:
    """Three decisions, two of which agree."""
    values: dict[str, Any] = {
        "alias": "production",
        "version": 1,
        "decisions": 3,
        "agreed": 2,
        "agreement_share": 2 / 3,
        "same_signals": 1,
        "signals": Signals(buy=2, sell=0, hold=1),
        "shadow_signals": Signals(buy=1, sell=1, hold=1),
        "value": divergence(0.0, 0.25, 2.0),
        "confidence": divergence(0.0, 0.125, 0.5),
        "first_clock_ns": 5,
        "last_clock_ns": 9,
    }
    return Comparison(**(values | changes))


def record(**changes: Any) -> ShadowRecord:
    values: dict[str, Any] = {
        "name": "tiny",
        "version": 2,
        "model_sha256": "0" * 64,
        "comparisons": (comparison(), comparison(alias="canary", version=3, first_clock_ns=4, last_clock_ns=6)),
        "missed": {Missed.NOT_LOADED: 7},
        "lost_records": 11,
        "load_failures": 1,
        "written_ns": 12,
    }
    return ShadowRecord(**(values | changes))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    written = record()
    assert read_record(tmp_path, "tiny", 2) is None
    path = write_record(tmp_path, written)
    assert path == record_path(tmp_path, "tiny", 2)
    assert read_record(tmp_path, "tiny", 2) == written
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


def test_a_record_adds_up_its_sides(tmp_path: Path) -> None:
    write_record(tmp_path, record())
    found = read_record(tmp_path, "tiny", 2)
    assert found is not None
    assert (found.decisions, found.agreed, found.agreement_share) == (6, 4, 4 / 6)
    assert (found.signals, found.shadow_signals) == (Signals(buy=4, hold=2), Signals(buy=2, sell=2, hold=2))
    assert (found.mean_value_difference, found.max_value_difference) == (0.75, 2.0)
    assert (found.first_clock_ns, found.last_clock_ns) == (4, 9)


def test_a_shadow_that_compared_nothing_has_no_share_and_no_mean() -> None:
    found = record(comparisons=())
    assert found.decisions == 0
    assert found.agreement_share is found.mean_value_difference is found.max_value_difference is None
    assert found.first_clock_ns is found.last_clock_ns is None


@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=40))
def test_any_differences_make_a_divergence_that_is_its_own_json(differences: list[float]) -> None:
    made = divergence(*differences)
    assert Divergence.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"agreed": 4}, "4 agreed"),
        ({"agreement_share": 0.7}, "agreement_share is 0.7, but 2 of 3 agreed"),
        ({"agreement_share": float("nan")}, "agreement_share"),
        ({"decisions": 2}, "signals are of 3 decisions, expected 2"),
        ({"decisions": 0}, "decisions"),
        ({"signals": Signals(buy=1)}, "signals are of 1 decisions"),
        ({"value": divergence(0.0)}, "value.counts are of 1 decisions"),
        ({"first_clock_ns": 10}, "first_clock_ns 10 is after"),
        ({"alias": "shadow"}, "alias"),
    ],
)
def test_a_comparison_that_contradicts_its_own_numbers_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        comparison(**changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"mean": 0.5}, "mean is 0.5"),
        ({"max": 0.7}, "max is 0.7"),
        ({"max": 3.0}, "max is 3.0"),
        ({"sum": float("inf")}, "sum"),
        ({"counts": (1,)}, "counts"),
    ],
)
def test_a_divergence_that_contradicts_its_own_numbers_is_refused(changes: dict[str, Any], why: str) -> None:
    good = divergence(0.0, 0.25, 2.0).model_dump()
    with pytest.raises(ValidationError, match=why):
        Divergence(**(good | changes))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "file: Invalid JSON"),
        ("{}", "name: Field required; version: Field required"),
        ('{"name": "tiny", "version": 2, "wrong": 1}', "wrong: Extra inputs are not permitted"),
        ('{"name": "tiny", "version": 3}', "is of tiny:3, expected tiny:2"),
    ],
)
def test_a_file_that_is_no_record_of_the_version_is_refused_by_name(tmp_path: Path, text: str, why: str) -> None:
    path = record_path(tmp_path, "tiny", 2)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ShadowRecordInvalid, match=r"record\.json") as caught:
        read_record(tmp_path, "tiny", 2)
    assert why in caught.value.why


def test_a_file_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    record_path(tmp_path, "tiny", 2).mkdir(parents=True)
    with pytest.raises(ShadowRecordInvalid, match="cannot be read"):
        read_record(tmp_path, "tiny", 2)


def test_a_record_that_was_edited_is_refused(tmp_path: Path) -> None:
    path = write_record(tmp_path, record())
    document = json.loads(path.read_text())
    document["comparisons"][0]["agreed"] = 3
    path.write_text(json.dumps(document))
    with pytest.raises(ShadowRecordInvalid, match="agreement_share is"):
        read_record(tmp_path, "tiny", 2)


def test_a_worker_finds_the_folder_of_its_server() -> None:
    assert shadow_folder(Path("journal")) == Path("journal/shadow")
    assert shadow_folder(Path("journal/worker-3"), workers=4) == Path("journal/shadow")


def test_a_promotion_sees_the_side_of_what_is_production(tmp_path: Path) -> None:
    write_record(tmp_path / "shadow", record())
    expected = ShadowSummary(
        name="tiny",
        version=2,
        against=1,
        decisions=3,
        agreement=2 / 3,
        mean_abs_divergence=0.75,
        max_abs_divergence=2.0,
        since_ns=5,
        until_ns=9,
    )
    assert read_summary(tmp_path, "tiny", 2, 1) == expected
    assert read_summary(tmp_path / "worker-1", "tiny", 2, 1) == expected
    assert read_summary(tmp_path, "tiny", 2, 3) is None  # it answered as the canary
    assert read_summary(tmp_path, "tiny", 4, 1) is None
    assert read_summary(tmp_path, "tiny", 2, None) is None
    assert read_summary(None, "tiny", 2, 1) is None


def test_a_side_may_be_there_once_and_is_never_the_shadow_itself() -> None:
    with pytest.raises(ValidationError, match="a side twice"):
        record(comparisons=(comparison(), comparison()))
    with pytest.raises(ValidationError, match="the shadow itself"):
        record(version=1)
