"""The rules of promotion: what a package's verdict and a shadow's record must show, and what goes past them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.packages import publish_logistic

from tickgate_server.models.package import Manifest, read_manifest
from tickgate_server.models.promotion import (
    PromotionLimits,
    PromotionRefused,
    RuleResult,
    failures,
    judge,
    judge_promotion,
)
from tickgate_server.models.shadow_record import (
    ShadowRecord,
    ShadowRecordInvalid,
    read_shadow_record,
    read_shadow_records,
    write_shadow_records,
)
from tickgate_server.models.verdict import CHECKS, Check, CheckName, PromotionVerdict, check
from tickgate_server.models.verdict import judge as verdict_of

ASKED = PromotionLimits(shadow_decisions=100, shadow_agreement=0.9, shadow_divergence=0.1)
# Each check on the right side of its limit, whichever way it compares.
PASSING = tuple(check(name, 1.0, 1.0) for name in CHECKS)


def record(**changes: float | str) -> ShadowRecord:
    values = {
        "name": "tiny",
        "version": 2,
        "against": 1,
        "decisions": 100,
        "agreement": 0.9,
        "mean_abs_divergence": 0.1,
        "max_abs_divergence": 0.5,
        "since_ns": 1,
        "until_ns": 2,
    }
    return ShadowRecord(**(values | changes))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(publish_logistic(tmp_path, version=2, promotion=verdict_of(PASSING, trials=3)))


def named(results: tuple[RuleResult, ...]) -> list[str]:
    return [one.name for one in failures(results)]


def with_verdict(manifest: Manifest, verdict: PromotionVerdict | None) -> Manifest:
    return manifest.model_copy(update={"promotion": verdict})


def test_a_version_that_passed_everything_is_promoted(manifest: Manifest) -> None:
    assert named(judge(manifest, record(), ASKED)) == []
    assert named(judge(manifest, None, PromotionLimits())) == []


def test_a_package_without_a_verdict_is_refused(manifest: Manifest) -> None:
    assert named(judge(with_verdict(manifest, None), record(), ASKED)) == ["verdict"]


@pytest.mark.parametrize("name", list(CHECKS))
def test_each_check_that_promotion_needs_refuses_alone_and_the_others_never(
    manifest: Manifest, name: CheckName
) -> None:
    wrong = 0.5 if CHECKS[name].at_least else 1.5
    for replaced in ((check(name, wrong, 1.0),), (check(name, float("nan"), 1.0),), ()):
        checks: tuple[Check, ...] = (*(one for one in PASSING if one.name != name), *replaced)
        results = judge(with_verdict(manifest, verdict_of(checks, trials=3)), record(), ASKED)
        assert named(results) == ([name.value] if CHECKS[name].required else [])


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"decisions": 99}, "shadow_decisions"),
        ({"agreement": 0.8999}, "shadow_agreement"),
        ({"mean_abs_divergence": 0.1001}, "shadow_divergence"),
    ],
)
def test_each_limit_of_a_shadow_refuses_alone(manifest: Manifest, changes: dict[str, float], rule: str) -> None:
    assert named(judge(manifest, record(**changes), ASKED)) == [rule]
    assert named(judge(manifest, record(**changes), ASKED.model_copy(update={"shadow_decisions": 0}))) == []


def test_a_shadows_record_that_is_absent_is_said_and_needed_only_where_a_minimum_is_asked_for(
    manifest: Manifest,
) -> None:
    (told,) = (one for one in judge(manifest, None, PromotionLimits()) if one.name == "shadow_record")
    assert (told.passed, told.required) == (False, False)
    assert told.why == "it has no record as the shadow of what is production now, and none is asked for"
    assert named(judge(manifest, None, ASKED)) == ["shadow_record"]


def test_an_override_of_training_waives_its_checks_and_not_the_shadows(manifest: Manifest) -> None:
    verdict = verdict_of(PASSING[1:], trials=3).overridden("ann", "the data are short")
    results = judge(with_verdict(manifest, verdict), None, ASKED)
    assert named(results) == ["shadow_record"]
    assert "overridden in training by ann: the data are short" in {one.why for one in results}


def test_a_refusal_names_every_rule_and_its_figure(manifest: Manifest, tmp_path: Path) -> None:
    name = CheckName.DEFLATED_SHARPE_2014
    verdict = verdict_of((check(name, 0.7, 0.95), *(one for one in PASSING if one.name != name)), trials=3)
    write_shadow_records(tmp_path, [record(agreement=0.25)])
    with pytest.raises(PromotionRefused) as caught:
        judge_promotion(with_verdict(manifest, verdict), tmp_path, 1, ASKED)
    assert [one.name for one in caught.value.failures] == [name, "shadow_agreement"]
    assert str(caught.value).startswith("tiny:2 is not promoted without an override: deflated_sharpe_2014 0.7 against")
    assert "shadow_agreement 0.25 against 0.9" in str(caught.value)
    assert len(failures(judge_promotion(with_verdict(manifest, verdict), tmp_path, 1, ASKED, "known"))) == 2


@pytest.mark.parametrize("override", ["", " "])
def test_a_blank_override_is_none(manifest: Manifest, override: str) -> None:
    with pytest.raises(PromotionRefused):
        judge_promotion(with_verdict(manifest, None), None, 1, ASKED, override)


def test_a_record_beside_another_production_version_counts_as_none(manifest: Manifest, tmp_path: Path) -> None:
    write_shadow_records(tmp_path, [record(against=7)])
    with pytest.raises(PromotionRefused, match="shadow_record missing against 100"):
        judge_promotion(manifest, tmp_path, 1, ASKED)
    assert read_shadow_record(tmp_path, "tiny", 2, None) is None


def test_a_record_that_cannot_be_read_refuses_where_one_is_needed(manifest: Manifest, tmp_path: Path) -> None:
    write_shadow_records(tmp_path, [record()])
    (tmp_path / "shadow" / "record.json").write_text("{")
    with pytest.raises(PromotionRefused, match=r"record\.json"):
        judge_promotion(manifest, tmp_path, 1, ASKED)
    assert failures(judge_promotion(manifest, tmp_path, 1, PromotionLimits())) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"agreement": None},
        {"agreement": 1.5},
        {"decisions": 0},
        {"until_ns": 0},
        {"more": 1},
        {"mean_abs_divergence": "NaN"},
    ],
)
def test_a_record_that_is_none_is_named_with_its_file(tmp_path: Path, change: dict[str, object]) -> None:
    write_shadow_records(tmp_path, [record()])
    path = tmp_path / "shadow" / "record.json"
    document = json.loads(path.read_text())
    document["records"][0] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(ShadowRecordInvalid, match=f"{path}: "):
        read_shadow_records(tmp_path)


_COUNTS = st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 1000)), min_size=1, max_size=4)


@given(workers=_COUNTS)
def test_records_of_several_workers_come_to_that_of_all_their_decisions(
    workers: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    journal = tmp_path_factory.mktemp("journal")
    for index, (decisions, same) in enumerate(workers):
        (journal / f"worker-{index}").mkdir()
        one = record(decisions=decisions, agreement=min(same, decisions) / decisions, mean_abs_divergence=0.0)
        write_shadow_records(journal / f"worker-{index}", [one])
    found = read_shadow_record(journal, "tiny", 2, 1)
    assert found is not None
    assert found.decisions == sum(decisions for decisions, _ in workers)
    agreed = sum(min(same, decisions) for decisions, same in workers)
    assert found.agreement == pytest.approx(agreed / found.decisions)
