"""The hidden Markov filter against a slow forward recursion; causality; outliers; the file of its parameters."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tickgate_server.risk.hidden_markov import (
    HiddenMarkovFilter,
    HiddenMarkovInvalid,
    HiddenMarkovParameters,
    load,
    observe,
)
from tickgate_server.risk.regime_rules import Window
from tickgate_server.risk.regimes import Regime

PARAMETERS: dict[str, Any] = {
    "bar_s": 60.0,
    "window_bars": 15,
    "features": ["log_return", "log_realised_volatility"],
    "regimes": ["normal", "high_volatility", "normal"],
    "start": [0.7, 0.0, 0.3],
    "transition": [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.05, 0.15, 0.8]],
    "means": [[0.0, -7.0], [-0.001, -5.0], [0.002, -7.5]],
    "covariance_type": "full",
    "covariances": [
        [[1e-4, 1e-4], [1e-4, 0.25]],
        [[4e-4, -1e-3], [-1e-3, 0.5]],
        [[1e-4, 0.0], [0.0, 0.1]],
    ],
}
DIAGONAL = PARAMETERS | {
    "covariance_type": "diag",
    "covariances": [[[1e-4, 0.25]], [[4e-4, 0.5]], [[1e-4, 0.1]]],
}
KINDS = {"full": HiddenMarkovParameters(**PARAMETERS), "diag": HiddenMarkovParameters(**DIAGONAL)}

OBSERVATIONS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(0, 20), st.just(2)),
    elements=st.floats(-8.0, 1.0) | st.sampled_from([math.nan, math.inf, -1e3, 1e200, -1e308, 0.0]),
)


def filtered(parameters: HiddenMarkovParameters, observations: NDArray[np.float64]) -> NDArray[np.float64]:
    model = HiddenMarkovFilter(parameters)
    return np.array([model.update(one) for one in observations])


def density(parameters: HiddenMarkovParameters, state: int, x: NDArray[np.float64]) -> float:
    matrix = np.array(parameters.covariances[state])
    if parameters.covariance_type == "diag":
        matrix = np.diag(matrix[0])
    far = x - np.array(parameters.means[state])
    exponent = -0.5 * far @ np.linalg.solve(matrix, far)
    return float(np.exp(exponent) / math.sqrt((2 * math.pi) ** len(x) * np.linalg.det(matrix)))


def slow_forward(parameters: HiddenMarkovParameters, observations: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(state | all observations so far) as a sum over paths, in plain numbers."""
    states = range(len(parameters.start))
    before = list(parameters.start)
    found = []
    for x in observations:
        joint = [before[k] * density(parameters, k, x) for k in states]
        now = [value / sum(joint) for value in joint]
        found.append(now)
        before = [sum(now[i] * parameters.transition[i][j] for i in states) for j in states]
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_the_filter_is_the_slow_forward_recursion(kind: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    observations = random.normal((0.0, -6.3), (0.02, 1.0), (300, 2))
    expected = slow_forward(KINDS[kind], observations)
    np.testing.assert_allclose(filtered(KINDS[kind], observations), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@given(observations=OBSERVATIONS, later=OBSERVATIONS)
def test_what_is_observed_later_changes_nothing_before(
    kind: str, observations: NDArray[np.float64], later: NDArray[np.float64]
) -> None:
    alone = filtered(KINDS[kind], observations)
    both = filtered(KINDS[kind], np.concatenate((observations, later)))
    np.testing.assert_array_equal(both[: len(observations)].reshape(alone.shape), alone)


@pytest.mark.parametrize("kind", KINDS)
@given(observations=OBSERVATIONS)
def test_whatever_is_observed_the_probabilities_are_some(kind: str, observations: NDArray[np.float64]) -> None:
    model = HiddenMarkovFilter(KINDS[kind])
    for one in observations:
        found = model.update(one)
        assert np.isfinite(found).all()
        assert (found >= 0.0).all()
        assert found.sum() == pytest.approx(1.0)
        assert model.regime in {Regime.NORMAL, Regime.HIGH_VOLATILITY}
    found = model.update(np.array([0.0, -5.0]))  # and it recovers
    assert np.isfinite(found).all()


@pytest.mark.parametrize("missing", [[math.nan, -7.0], [math.inf, 0.0], [1e308, 1e308]])
def test_what_is_missing_or_beyond_any_number_leaves_the_prediction(missing: list[float]) -> None:
    model = HiddenMarkovFilter(KINDS["full"])
    before = model.update(np.array([0.0, -7.0]))
    np.testing.assert_allclose(model.update(np.array(missing)), before @ np.array(PARAMETERS["transition"]))


def test_an_outlier_whose_densities_underflow_still_tells_states_apart() -> None:
    model = HiddenMarkovFilter(KINDS["diag"])
    far = np.array([0.0, 300.0])  # densities of e^-180000 and less: zeros as plain numbers
    assert [density(KINDS["diag"], k, far) for k in range(3)] == [0.0] * 3
    model.update(np.array([0.0, -7.0]))
    assert model.update(far)[1] == pytest.approx(1.0)


def test_a_state_that_cannot_be_is_never_found_and_nothing_observed_is_the_start() -> None:
    model = HiddenMarkovFilter(KINDS["full"])
    np.testing.assert_allclose(model.probabilities, PARAMETERS["start"])
    assert model.regime == Regime.NORMAL
    assert model.update(np.array([-0.001, -5.0]))[1] == 0.0
    assert model.update(np.array([-0.001, -5.0]))[1] > 0.5
    assert model.regime == Regime.HIGH_VOLATILITY


def test_states_of_one_regime_count_together_and_of_equals_the_one_that_outranks() -> None:
    same = PARAMETERS | {"start": [0.3, 0.4, 0.3]}
    assert HiddenMarkovFilter(HiddenMarkovParameters(**same)).regime == Regime.NORMAL
    half = PARAMETERS | {"start": [0.25, 0.5, 0.25]}
    assert HiddenMarkovFilter(HiddenMarkovParameters(**half)).regime == Regime.HIGH_VOLATILITY


def test_an_observation_is_the_windows_features_in_order() -> None:
    window = Window(0.01, 0.05, 0.002)
    np.testing.assert_array_equal(observe(("log_realised_volatility", "log_return"), window), [math.log(0.002), 0.01])
    assert np.isnan(observe(("log_realised_volatility",), Window(0.0, 0.0, 0.0))[0])


def test_parameters_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "hmm.json"
    path.write_text(KINDS["full"].model_dump_json())
    assert load(path) == KINDS["full"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"start": [0.7, 0.3]}, r"start: expected shape \(3,\), found \(2,\)"),
        ({"start": [0.7, 0.2, 0.2]}, "expected a sum of 1"),
        ({"transition": [[0.9, 0.1], [0.5, 0.5, 0.0], [0, 0, 1]]}, "rows of several lengths"),
        ({"means": [[0.0], [0.0], [0.0]]}, r"means: expected shape \(3, 2\)"),
        ({"covariances": [[[1.0, 2.0], [2.0, 1.0]]] * 3}, "covariances of state 0: .* positive definite"),
        ({"covariances": [[[1.0, 0.5], [0.0, 1.0]]] * 3}, "symmetric"),
        ({"covariances": [[[1.0, 0.5]]] * 3}, "covariances: expected shape"),
        ({"covariance_type": "tied"}, "covariance_type"),
        ({"features": ["log_return", "log_return"]}, "features: each may be there once"),
        ({"features": ["volume"]}, "features.0"),
        ({"regimes": ["calm", "normal", "normal"]}, "regimes.0"),
        ({"start": [1.7, -0.7, 0.0]}, "start.0"),
        ({"window_bars": 1}, "window_bars"),
        ({"smoothing": True}, "smoothing"),
        ({"format_version": 2}, "format_version"),
    ],
)
def test_parameters_that_are_none_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    path = tmp_path / "hmm.json"
    path.write_text(json.dumps(PARAMETERS | changes))
    with pytest.raises(HiddenMarkovInvalid, match=why) as caught:
        load(path)
    assert caught.value.path == path


@pytest.mark.parametrize("text", ["", "{", "[]", '{"bar_s": NaN}'])
def test_a_file_that_is_no_json_of_parameters_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hmm.json"
    with pytest.raises(HiddenMarkovInvalid, match="cannot be read"):
        load(path)
    path.write_text(text)
    with pytest.raises(HiddenMarkovInvalid, match="no parameters of a hidden Markov model"):
        load(path)
