"""Features that are not as they were in training are told once, within stated rows; a usual day tells nothing."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.packages import logistic_onnx, make_manifest

from tickgate_server.features.schema import micro10
from tickgate_server.models.package import Manifest, Stability
from tickgate_server.models.stability import stability_index
from tickgate_server.observer.drift import HOUR_NS, LEAST, MARGIN, PIECES, PIECES_KEPT, Deviation, FeatureDrift
from tickgate_training.publishing import feature_statistics, stability_of

NAMES = micro10().features
WIDTH = len(NAMES)
AN_HOUR = 600  # rows
STEP_NS = HOUR_NS // AN_HOUR
DAY = 24 * AN_HOUR


def days(seed: int, count: int) -> NDArray[np.float32]:
    """Features that remember, each with a level and a spread that follow the time of day; the last one in steps."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count * DAY, WIDTH))
    for row in range(1, len(noise)):
        noise[row] += 0.6 * noise[row - 1]
    hour = 2.0 * np.pi * np.arange(count * DAY)[:, None] / DAY
    rows = noise * (1.0 + 0.3 * np.sin(hour)) + 0.5 * np.cos(hour)
    rows[:, -1] = np.round(rows[:, -1])
    return rows.astype(np.float32)


def stamps(count: int, begin: int = 0) -> NDArray[np.int64]:
    return (np.arange(begin, begin + count) * STEP_NS).astype(np.int64)


@pytest.fixture(scope="module")
def trained() -> Manifest:
    rows = days(1, 10)
    statistics = feature_statistics(NAMES, rows)
    found = stability_of(statistics, rows, stamps(len(rows)))
    return manifest(feature_statistics=statistics, stability=found)


def manifest(**changes: object) -> Manifest:
    weights = np.zeros(WIDTH, np.float32)
    golden = np.random.default_rng(7).normal(0.0, 1.0, (64, WIDTH)).astype(np.float32)
    return make_manifest(logistic_onnx(weights, 0.0), micro10(), golden, np.full(64, 0.5), **changes)


def test_training_counts_in_as_many_rows_as_an_hour_has(trained: Manifest) -> None:
    assert trained.stability is not None
    assert trained.stability.rows == AN_HOUR
    assert all(0.0 < widest < 1.0 for widest in trained.stability.widest.values())


def test_twenty_usual_days_tell_no_more_than_the_budget_of_one(trained: Manifest) -> None:
    watch = FeatureDrift(trained)
    told = watch.update(days(2, 20), stamps(20 * DAY))
    assert sum(change.so for change in told) <= 1, told


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda column: column + 2.0 * column.std(), "drifted"),
        (lambda column: column * 3.0, "drifted"),
        (lambda column: np.full_like(column, column[0]), "stuck"),
        (lambda column: column + 100.0, "outside"),
    ],
)
def test_a_shift_a_spread_and_a_stuck_feature_are_told_within_the_rows_of_an_hour(
    trained: Manifest, change: object, kind: str
) -> None:
    watch = FeatureDrift(trained)
    usual = days(3, 2)
    watch.update(usual[:DAY], stamps(DAY))
    assert not watch.found
    later = usual[DAY : DAY + AN_HOUR].copy()
    later[:, 3] = change(later[:, 3])  # type: ignore[operator]  # one of the functions above
    told = watch.update(later, stamps(AN_HOUR, DAY))
    assert (NAMES[3], kind) in {(one.feature, one.kind) for one in told if one.so}
    assert {one.feature for one in told if one.so} == {NAMES[3]}


def test_a_stuck_feature_is_told_after_two_pieces_at_most_and_one_in_steps_is_not(trained: Manifest) -> None:
    watch = FeatureDrift(trained)
    rows = days(4, 1)
    piece = AN_HOUR // PIECES
    rows[piece // 2 :, [0, WIDTH - 1]] = rows[piece // 2, [0, WIDTH - 1]]
    told = watch.update(rows[: 2 * piece], stamps(2 * piece))
    assert [(one.feature, one.kind) for one in told] == [(NAMES[0], "stuck")]


def test_what_was_found_is_told_once_and_once_more_when_it_is_over(trained: Manifest) -> None:
    watch = FeatureDrift(trained)
    rows = days(5, 1)
    shifted = rows[: 3 * AN_HOUR].copy()
    shifted[AN_HOUR : 2 * AN_HOUR, 0] = 100.0 + np.arange(AN_HOUR)
    told = watch.update(shifted, stamps(len(shifted)))
    drifts = [one.so for one in told if (one.feature, one.kind) == (NAMES[0], "drifted")]
    assert drifts == [True, False]
    assert not watch.found


def test_the_index_is_that_of_the_rows_of_the_newest_hour(trained: Manifest) -> None:
    watch = FeatureDrift(trained)
    rows = days(6, 1)[: 5 * AN_HOUR]
    watch.update(rows, stamps(len(rows)))
    by_hand = [stability_index(trained.feature_statistics[name], rows[-AN_HOUR:, k]) for k, name in enumerate(NAMES)]
    assert watch.indices.tolist() == pytest.approx(by_hand)


def test_an_hour_with_few_rows_is_made_longer_and_one_with_many_cut(trained: Manifest) -> None:
    rows = days(7, 1)
    slow, fast = FeatureDrift(trained), FeatureDrift(trained)
    slow.update(rows[: AN_HOUR - 1], stamps(AN_HOUR - 1) * 1000)
    assert np.isnan(slow.indices).all()
    slow.update(rows[AN_HOUR - 1 : AN_HOUR], stamps(1) + 10**15)
    assert np.isfinite(slow.indices).all()
    many = PIECES_KEPT * (AN_HOUR // PIECES)
    repeated = np.tile(rows, (-(-2 * many // len(rows)), 1))[: 2 * many]
    fast.update(repeated, np.zeros(2 * many, np.int64))
    by_hand = stability_index(trained.feature_statistics[NAMES[0]], repeated[-many:, 0])
    assert fast.indices[0] == pytest.approx(by_hand)


@given(cuts=st.lists(st.integers(0, 2 * AN_HOUR), max_size=8))
@settings(max_examples=20, deadline=None)
def test_the_pieces_in_which_vectors_come_make_no_difference(cuts: list[int]) -> None:
    statistics = feature_statistics(NAMES, days(1, 1))
    known = manifest(
        feature_statistics=statistics, stability=Stability(rows=AN_HOUR, widest=dict.fromkeys(NAMES, 0.01))
    )
    rows = days(8, 1)[: 2 * AN_HOUR]
    whole, pieces = FeatureDrift(known), FeatureDrift(known)
    told = whole.update(rows, stamps(len(rows)))
    edges = [0, *sorted(cuts), len(rows)]
    in_pieces: list[Deviation] = []
    for begin, end in pairwise(edges):
        in_pieces += pieces.update(rows[begin:end], stamps(end - begin, begin))
    assert repr(in_pieces) == repr(told)  # a limit may be NaN
    assert pieces.indices.tolist() == whole.indices.tolist()


def test_time_of_day_is_exempt_and_limits_are_the_larger_ones() -> None:
    from tickgate_server.features.schema import micro32  # noqa: PLC0415 - of this test alone

    features = micro32()
    golden = np.zeros((64, features.width), np.float32)
    widest = {name: 0.5 if name == "ret_1" else 0.01 for name in features.features}
    model = logistic_onnx(np.zeros(features.width, np.float32), 0.0)
    found = FeatureDrift(
        make_manifest(model, features, golden, np.full(64, 0.5), stability=Stability(rows=100, widest=widest))
    )
    assert set(features.features) - set(found.names) == {"day_sin", "day_cos"}
    limits = dict(zip(found.names, found.limits.tolist(), strict=True))
    assert limits["ret_1"] == MARGIN * 0.5
    assert limits["ret_5"] == LEAST


def test_a_manifest_that_does_not_say_how_stable_its_features_were_is_refused() -> None:
    with pytest.raises(ValueError, match="how stable"):
        FeatureDrift(manifest())
