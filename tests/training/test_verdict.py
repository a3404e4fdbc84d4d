import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from tickgate_server.models.verdict import (
    CHECKS,
    CheckName,
    Override,
    PromotionVerdict,
    check,
    failures,
    judge,
)
from tickgate_training.backtest import Backtest
from tickgate_training.baselines import Baselines, RandomTiming
from tickgate_training.errors import ArgumentInvalid, SeriesInvalid
from tickgate_training.metrics import Metrics, measure
from tickgate_training.verdict import Evidence, Parity, PromotionLimits, gather, promotion_verdict

REQUIRED = [name for name, rule in CHECKS.items() if rule.required]
GOOD_PARITY = Parity(3e-7, 1000, 1000)
FEW_BLOCKS = PromotionLimits(cross_validation_blocks=8)


def trials_with_an_edge(seed: int = 1, trials: int = 12, periods: int = 1000) -> NDArray[np.float64]:
    """Column 0 earns."""
    returns = np.random.default_rng(seed).normal(0.0, 0.01, (periods, trials))
    returns[:, 0] += 0.002
    return returns


def measured(returns: NDArray[np.float64], trips: int = 50) -> Metrics:
    held = np.ones(returns.size)
    each = np.full(trips, returns.sum() / trips) if trips else np.empty(0)
    return measure(Backtest(0, held, returns, returns, held, held, each, each), 252.0)


def evidence() -> Evidence:
    trials = trials_with_an_edge()
    return gather(trials, 0, measured(trials[:, 0]), GOOD_PARITY, limits=FEW_BLOCKS)


def named(verdict: PromotionVerdict, name: CheckName) -> Any:
    return next(check for check in verdict.checks if check.name == name)


def test_an_edge_that_all_checks_see_passes() -> None:
    verdict = promotion_verdict(evidence())
    assert verdict.passed
    assert verdict.promotable
    assert verdict.override is None
    assert verdict.trials == 12
    assert [check.name for check in verdict.checks if not check.passed] == []
    assert set(REQUIRED) <= {check.name for check in verdict.checks}


def test_the_limits_are_those_promised() -> None:
    verdict = promotion_verdict(evidence())
    assert named(verdict, CheckName.DEFLATED_SHARPE_2014).limit == 0.95
    assert named(verdict, CheckName.BACKTEST_OVERFITTING).limit == 0.5
    assert named(verdict, CheckName.PARITY_DIFFERENCE).limit == 1e-5
    assert named(verdict, CheckName.ROUND_TRIPS).limit == 30
    assert set(REQUIRED) == {
        CheckName.DEFLATED_SHARPE_2014,
        CheckName.BACKTEST_OVERFITTING,
        CheckName.PARITY_DIFFERENCE,
        CheckName.PARITY_ROWS,
        CheckName.ROUND_TRIPS,
        CheckName.TRACK_RECORD_2012,
    }


BREAKING: dict[CheckName, Callable[[Evidence], Evidence]] = {
    CheckName.DEFLATED_SHARPE_2014: lambda e: replace(e, deflated_sharpe_2014=0.9499),
    CheckName.BACKTEST_OVERFITTING: lambda e: replace(e, backtest_overfitting=0.5001),
    CheckName.PARITY_DIFFERENCE: lambda e: replace(e, parity=Parity(1.01e-5, 1000, 1000)),
    CheckName.PARITY_ROWS: lambda e: replace(e, parity=Parity(1e-7, 999, 1000)),
    CheckName.ROUND_TRIPS: lambda e: replace(e, net=replace(e.net, round_trips=29)),
    CheckName.TRACK_RECORD_2012: lambda e: replace(e, minimum_track_record_2012=e.net.periods + 0.5),
}


@pytest.mark.parametrize("name", REQUIRED)
def test_each_required_check_denies_alone(name: CheckName) -> None:
    verdict = promotion_verdict(BREAKING[name](evidence()))
    assert not verdict.passed
    assert not verdict.promotable
    assert failures(verdict.checks) == (name,)
    assert "needed" in named(verdict, name).why


def test_a_value_on_its_limit_passes() -> None:
    at_limit = replace(
        evidence(),
        deflated_sharpe_2014=0.95,
        backtest_overfitting=0.5,
        parity=Parity(1e-5, 1000, 1000),
        minimum_track_record_2012=1000.0,
    )
    at_limit = replace(at_limit, net=replace(at_limit.net, round_trips=30))
    assert promotion_verdict(at_limit).passed


NOT_A_NUMBER: dict[CheckName, Callable[[Evidence], Evidence]] = {
    CheckName.DEFLATED_SHARPE_2014: lambda e: replace(e, deflated_sharpe_2014=math.nan),
    CheckName.BACKTEST_OVERFITTING: lambda e: replace(e, backtest_overfitting=math.nan),
    CheckName.PARITY_DIFFERENCE: lambda e: replace(e, parity=Parity(math.nan, 1000, 1000)),
    CheckName.TRACK_RECORD_2012: lambda e: replace(e, minimum_track_record_2012=math.nan),
}


@pytest.mark.parametrize("name", NOT_A_NUMBER)
def test_what_is_no_number_denies(name: CheckName) -> None:
    verdict = promotion_verdict(NOT_A_NUMBER[name](evidence()))
    assert failures(verdict.checks) == (name,)
    assert None in (named(verdict, name).value, named(verdict, name).limit)


def test_parity_that_was_not_looked_at_or_of_no_rows_denies() -> None:
    missing = promotion_verdict(replace(evidence(), parity=None))
    assert failures(missing.checks) == (CheckName.PARITY_DIFFERENCE, CheckName.PARITY_ROWS)
    assert "not compared" in named(missing, CheckName.PARITY_ROWS).why
    empty = promotion_verdict(replace(evidence(), parity=Parity(0.0, 0, 0)))
    assert failures(empty.checks) == (CheckName.PARITY_ROWS,)


def test_what_is_for_information_never_decides() -> None:
    sound = evidence()
    poor = Baselines(replace(sound.net, sharpe=99.0), sound.net, RandomTiming(np.zeros(1), (), 0.9))
    verdict = promotion_verdict(replace(sound, deflated_sharpe_2025=0.1, baselines=poor))
    assert not named(verdict, CheckName.DEFLATED_SHARPE_2025).passed
    assert not named(verdict, CheckName.SHARPE_AGAINST_ALWAYS_LONG).passed
    assert named(verdict, CheckName.SHARPE_AGAINST_ALWAYS_LONG).limit == 99.0
    assert not named(verdict, CheckName.RANDOM_P_VALUE).passed
    assert verdict.passed


def test_an_override_promotes_and_is_recorded_without_changing_the_verdict() -> None:
    denied = promotion_verdict(replace(evidence(), parity=None))
    verdict = denied.overridden("risk@desk", "converted by hand, compared elsewhere")
    assert verdict.promotable
    assert not verdict.passed
    assert verdict.override == Override(reason="converted by hand, compared elsewhere", who="risk@desk")
    assert verdict.checks == denied.checks
    assert promotion_verdict(replace(evidence(), parity=None), override=verdict.override) == verdict
    assert PromotionVerdict.model_validate_json(verdict.model_dump_json()) == verdict
    for who, reason in (("", "because"), ("me", " ")):
        with pytest.raises(ValidationError):
            denied.overridden(who, reason)


numbers = st.one_of(st.floats(), st.floats(0.0, 2.0))


@given(st.lists(st.tuples(st.sampled_from(list(CheckName)), numbers, numbers), unique_by=lambda item: item[0]))
def test_a_verdict_passes_just_where_every_required_check_is_there_and_holds(
    items: list[tuple[CheckName, float, float]],
) -> None:
    verdict = judge(tuple(check(name, value, limit) for name, value, limit in items), 3)
    right = {
        name
        for name, value, limit in items
        if math.isfinite(value)
        and math.isfinite(limit)
        and (value >= limit if CHECKS[name].at_least else value <= limit)
    }
    assert {check.name for check in verdict.checks if check.passed} == right
    assert verdict.passed == (set(REQUIRED) <= right)
    assert PromotionVerdict.model_validate_json(verdict.model_dump_json()) == verdict
    assert all(check.why for check in verdict.checks)


def document() -> dict[str, Any]:
    found = json.loads(promotion_verdict(evidence()).model_dump_json())
    assert isinstance(found, dict)
    return found


def without_a_required_check(found: dict[str, Any]) -> None:
    found["checks"] = [entry for entry in found["checks"] if entry["name"] != "backtest_overfitting"]


def with_a_check_twice(found: dict[str, Any]) -> None:
    found["checks"] = [*found["checks"], found["checks"][0]]


def with_a_failed_value_called_passed(found: dict[str, Any]) -> None:
    found["checks"][0]["value"] = 0.5


def with_a_null_called_passed(found: dict[str, Any]) -> None:
    found["checks"][0]["value"] = None


def with_an_unknown_check(found: dict[str, Any]) -> None:
    found["checks"][0]["name"] = "sharpe"


def with_an_unknown_key(found: dict[str, Any]) -> None:
    found["approved"] = True


def with_another_format(found: dict[str, Any]) -> None:
    found["format_version"] = 2


@pytest.mark.parametrize(
    "tamper",
    [
        without_a_required_check,
        with_a_check_twice,
        with_a_failed_value_called_passed,
        with_a_null_called_passed,
        with_an_unknown_check,
        with_an_unknown_key,
        with_another_format,
    ],
)
def test_a_document_that_contradicts_itself_is_refused(tamper: Callable[[dict[str, Any]], None]) -> None:
    found = document()
    assert PromotionVerdict.model_validate_json(json.dumps(found)).passed
    tamper(found)
    with pytest.raises(ValidationError):
        PromotionVerdict.model_validate_json(json.dumps(found))


def test_a_failed_document_cannot_be_called_passed_nor_the_other_way_round() -> None:
    for verdict in (promotion_verdict(evidence()), promotion_verdict(replace(evidence(), parity=None))):
        found = json.loads(verdict.model_dump_json())
        found["passed"] = not found["passed"]
        with pytest.raises(ValidationError, match="passed is"):
            PromotionVerdict.model_validate_json(json.dumps(found))


def test_infinity_in_a_document_is_refused() -> None:
    text = promotion_verdict(evidence()).model_dump_json()
    value = json.loads(text)["checks"][0]["value"]
    with pytest.raises(ValidationError):
        PromotionVerdict.model_validate_json(text.replace(str(value), "Infinity"))


# Evidence


def test_noise_is_denied_and_says_by_what() -> None:
    promoted = 0
    for seed in range(20):
        trials = np.random.default_rng(seed).normal(0.0, 0.01, (600, 16))
        best = int(np.argmax(trials.mean(axis=0) / trials.std(axis=0)))
        found = gather(trials, best, measured(trials[:, best]), GOOD_PARITY, limits=FEW_BLOCKS)
        promoted += promotion_verdict(found).passed
    assert promoted <= 1


def test_a_loser_needs_an_endless_track_record() -> None:
    trials = -trials_with_an_edge()
    verdict = promotion_verdict(gather(trials, 0, measured(trials[:, 0]), GOOD_PARITY, limits=FEW_BLOCKS))
    track = named(verdict, CheckName.TRACK_RECORD_2012)
    assert track.limit is None
    assert "no number of returns is enough" in track.why
    assert CheckName.TRACK_RECORD_2012 in failures(verdict.checks)


def test_a_return_that_is_no_number_in_any_trial_denies_and_is_named() -> None:
    trials = trials_with_an_edge()
    net = measured(trials[:, 0])
    trials[17, 5] = -math.inf
    verdict = promotion_verdict(gather(trials, 0, net, GOOD_PARITY))
    for name in (CheckName.DEFLATED_SHARPE_2014, CheckName.BACKTEST_OVERFITTING, CheckName.TRACK_RECORD_2012):
        assert name in failures(verdict.checks)
        assert named(verdict, name).why == "return 17 of trial 5 is -inf"


def test_a_model_that_never_traded_is_denied() -> None:
    trials = trials_with_an_edge()
    trials[:, 3] = 0.0
    found = gather(trials, 3, measured(trials[:, 3], trips=0), GOOD_PARITY, limits=FEW_BLOCKS)
    verdict = promotion_verdict(found)
    assert "do not vary" in named(verdict, CheckName.DEFLATED_SHARPE_2014).why
    assert {CheckName.DEFLATED_SHARPE_2014, CheckName.ROUND_TRIPS, CheckName.TRACK_RECORD_2012} <= set(
        failures(verdict.checks)
    )


def test_a_trial_without_a_sharpe_ratio_denies_the_choice_among_them() -> None:
    trials = trials_with_an_edge()
    trials[:, 3] = 0.001
    verdict = promotion_verdict(gather(trials, 0, measured(trials[:, 0]), GOOD_PARITY, limits=FEW_BLOCKS))
    assert "Sharpe ratio of trial 3 is undefined" in named(verdict, CheckName.DEFLATED_SHARPE_2014).why
    assert CheckName.DEFLATED_SHARPE_2014 in failures(verdict.checks)
    assert CheckName.TRACK_RECORD_2012 not in failures(verdict.checks)


def test_a_single_trial_and_too_few_rows_deny_with_their_reason() -> None:
    alone = trials_with_an_edge(trials=1)
    verdict = promotion_verdict(gather(alone, 0, measured(alone[:, 0]), GOOD_PARITY))
    assert failures(verdict.checks) == (CheckName.BACKTEST_OVERFITTING,)
    assert named(verdict, CheckName.BACKTEST_OVERFITTING).why == "a single trial leaves nothing to choose"
    short = trials_with_an_edge(periods=20)
    verdict = promotion_verdict(gather(short, 0, measured(short[:, 0]), GOOD_PARITY))
    assert "20 rows, at least 32 needed" in named(verdict, CheckName.BACKTEST_OVERFITTING).why


def test_metrics_of_another_series_are_refused() -> None:
    trials = trials_with_an_edge()
    with pytest.raises(ArgumentInvalid, match=r"net\.total_return_summed"):
        gather(trials, 1, measured(trials[:, 0]))
    with pytest.raises(ArgumentInvalid, match=r"net\.periods"):
        gather(trials, 0, measured(trials[:-1, 0]))
    for chosen in (-1, 12):
        with pytest.raises(ArgumentInvalid, match="chosen"):
            gather(trials, chosen, measured(trials[:, 0]))
    with pytest.raises(SeriesInvalid, match="shape"):
        gather(trials[:, 0], 0, measured(trials[:, 0]))


@pytest.mark.parametrize(
    "limits",
    [
        {"cross_validation_blocks": 7},
        {"cross_validation_blocks": 40},
        {"deflated_sharpe": 1.0},
        {"backtest_overfitting": 1.0},
        {"parity_difference": -1.0},
        {"parity_difference": math.nan},
        {"round_trips": 0},
        {"sharpe": 1.0},
    ],
)
def test_limits_that_cannot_be_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        PromotionLimits.model_validate(limits)
