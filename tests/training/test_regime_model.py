"""The regime model: what it is fitted on, planted regimes that it must find, its states' names, and what it refuses."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pydantic import ValidationError
from tests.training.regime_markets import MINUTES, Planted, chain, planted, trades

from tickgate_server.risk.bars import Bars
from tickgate_server.risk.estimates import RiskEstimates
from tickgate_server.risk.hidden_markov import HiddenMarkovFilter, HiddenMarkovParameters
from tickgate_server.risk.regimes import Regime
from tickgate_training.data import table
from tickgate_training.data.daily import read_bars
from tickgate_training.errors import FeatureConstant, FeatureUndefined, NotConverged, RowInvalid, TooFewRows
from tickgate_training.regime_file import filtered
from tickgate_training.regime_model import WINDOWS_A_STATE, RegimeConfig, RegimeModel, fit
from tickgate_training.regime_states import describe, name_states, stationary, trend_strength
from tickgate_training.regime_windows import observe_windows, sequences_of
from tickgate_training.risk_data import DAILY

BOTH = ("log_return", "log_realised_volatility")


def fitted(market: pl.DataFrame, **changes: object) -> RegimeModel:
    config = RegimeConfig.model_validate({"restarts": 2} | changes)
    return fit(observe_windows(market, MINUTES, config.features), config, MINUTES)


def walk(bars: int, seed: int = 1, volatility: float = 1e-3) -> NDArray[np.float64]:
    return np.asarray(100.0 * np.exp(np.random.default_rng(seed).normal(0.0, volatility, bars).cumsum()))


@pytest.fixture(scope="module")
def two_states() -> Planted:
    return planted([5e-4, 2e-3], [0.0, 0.0], windows=900)


@pytest.fixture(scope="module")
def of_two_states(two_states: Planted) -> RegimeModel:
    """Fitted on the first half."""
    return fitted(two_states.frame[:4500], states=2)


# What it is fitted on


def test_an_observation_is_a_windows_summed_log_return_and_the_log_of_its_root_mean_square() -> None:
    prices = walk(45)
    found = observe_windows(trades(prices), MINUTES, BOTH)["SIM"]
    moves = np.diff(np.log(prices))
    windows = [
        moves[:9],
        moves[9:19],
        moves[19:29],
        moves[29:39],
    ]  # the first bar has no return; the last window is open
    expected = [[one.sum(), math.log(math.sqrt((one * one).mean()))] for one in windows]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_array_equal(observe_windows(trades(prices), MINUTES, BOTH[::-1])["SIM"], found[:, ::-1])


def test_the_servers_own_filter_is_given_just_these_observations_missing_ones_too(
    of_two_states: RegimeModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two symbols, one of which has no trade for an hour while the other goes on."""
    path = tmp_path_factory.mktemp("regimes") / "hmm.json"
    path.write_text(of_two_states.parameters.model_dump_json())
    at_once = MINUTES.rules.model_copy(update={"dwell": 1})
    values = MINUTES.model_copy(update={"hmm_file": path, "regime_source": "hmm", "rules": at_once})
    halted = np.r_[0:100, 165:400]
    market = pl.concat([trades(walk(400, 3), symbol="A"), trades(walk(400, 4, 3e-3)[halted], halted, symbol="B")])
    observed = observe_windows(market, values, BOTH)
    missing = np.isnan(observed["B"])
    assert missing.all(axis=1).any()  # too few bars
    assert (missing.any(axis=1) & ~missing.all(axis=1)).any()  # no move
    assert not np.isnan(observed["A"]).any()

    bars, estimates = Bars(values.bar_s, values.carry_age_s), RiskEstimates(values)
    stream = market.sort("exchange_ts_ns", maintain_order=True)
    seen: dict[str, list[Regime]] = {"A": [], "B": []}
    symbols = np.array([symbol.encode() for symbol in stream["symbol"]])
    closed = bars.add(symbols, table.values(stream, "exchange_ts_ns"), table.values(stream, "price"))
    for number, bar in enumerate(closed, 1):
        estimates.update(bar, bars.symbols)
        if number % values.window_bars == 0:
            for symbol, regimes in seen.items():
                regimes.append(estimates.regimes[symbol].by_model)
    for symbol, windows in observed.items():
        state = HiddenMarkovFilter(of_two_states.parameters)
        expected = []
        for window in windows:
            state.update(window)
            # Of bars without a move the return is known, 0, and the prediction stands.
            expected.append(Regime.UNKNOWN if np.isnan(window).all() else state.regime)
        assert seen[symbol] == expected[: len(seen[symbol])]  # the newest bar closes here alone
        assert len(seen[symbol]) >= len(expected) - 1
    assert set(seen["A"]) | set(seen["B"]) == {Regime.UNKNOWN, Regime.NORMAL, Regime.HIGH_VOLATILITY}


@settings(max_examples=40)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=80), st.integers(1, 40), st.integers(0, 100))
def test_appended_trades_change_no_window_that_had_ended(waits: list[int], later: int, seed: int) -> None:
    bars = np.cumsum(waits)
    prices = walk(len(bars) + later, seed)
    behind = bars[-1] + 1 + np.arange(later)
    alone = observe_windows(trades(prices[: len(bars)], bars), MINUTES, BOTH)["SIM"]
    both = observe_windows(trades(prices, np.concatenate((bars, behind))), MINUTES, BOTH)["SIM"]
    np.testing.assert_array_equal(both[: len(alone)], alone)


def test_a_window_without_a_value_ends_a_sequence() -> None:
    nothing = [math.nan, 1.0]
    observed = {"A": np.array([nothing, [1, 1], [2, 2], nothing, nothing, [3, 3]]), "B": np.array([[4, 4]])}
    found = [sequence.tolist() for sequence in sequences_of(observed)]
    assert found == [[[1, 1], [2, 2]], [[3, 3]], [[4, 4]]]
    assert sequences_of({"A": np.empty((0, 2))}) == []


# What it finds


def accuracy(model: RegimeModel, market: Planted) -> float:
    """How often the most probable state is the true one, on windows that it was not fitted on."""
    windows = observe_windows(market.frame, MINUTES, model.parameters.features)["SIM"][450:]
    states = filtered(model.parameters, windows).argmax(axis=1)
    return float((states == market.states[450:]).mean())


def test_two_planted_states_are_found_with_their_volatility_dwell_and_share(
    two_states: Planted, of_two_states: RegimeModel
) -> None:
    calm, wild = describe(of_two_states.parameters)
    assert (calm.regime, wild.regime) == ("normal", "high_volatility")
    # The median window's root mean square of ten normal moves is 0.966 times their deviation.
    assert calm.volatility == pytest.approx(0.966 * 5e-4, rel=0.05)
    assert wild.volatility == pytest.approx(0.966 * 2e-3, rel=0.05)
    assert calm.dwell_bars == pytest.approx(200.0, rel=0.5)
    truth = two_states.states[:450]
    assert calm.share == pytest.approx((truth == 0).mean(), abs=0.15)
    assert calm.share + wild.share == pytest.approx(1.0)
    assert accuracy(of_two_states, two_states) > 0.97  # chance: 0.5


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_three_planted_states_are_found(covariance_type: str) -> None:
    market = planted([4e-4, 1e-3, 3e-3], [0.0, 0.0, 0.0], windows=900)
    model = fitted(market.frame[:4500], states=3, covariance_type=covariance_type)
    assert accuracy(model, market) > 0.93  # chance: a third
    assert model.parameters.regimes[2] == "high_volatility"


@pytest.mark.parametrize("feature", BOTH)
def test_one_feature_alone_tells_states_of_different_volatility_apart(feature: str, two_states: Planted) -> None:
    model = fitted(two_states.frame[:4500], states=2, features=(feature,))
    assert model.parameters.regimes == ("normal", "high_volatility")
    assert [state.volatility for state in describe(model.parameters)] == pytest.approx([5e-4, 2e-3], rel=0.2)
    assert accuracy(model, two_states) > 0.8


def test_a_planted_trend_is_named_one() -> None:
    market = planted([5e-4, 5e-4], [0.0, 7e-4], windows=900)
    model = fitted(market.frame[:4500], states=2)
    assert sorted(model.parameters.regimes) == ["normal", "trending"]
    assert accuracy(model, market) > 0.97  # the trend's root mean square is the larger


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_information_criterion_finds_the_number_of_planted_states(k: int) -> None:
    """Of observations that are normal in each state, as the model has it."""
    rng = np.random.default_rng(k)
    states = chain(np.full((k, k), 0.1) + np.eye(k) * (1.0 - 0.1 * k), 500, rng)
    observed = rng.normal(np.array([[0.0, -7.0], [0.0, -6.0], [0.01, -5.0]])[states], [0.01, 0.25])
    config = RegimeConfig(restarts=2, states_maximum=3)
    model = fit({"A": observed}, config, MINUTES)
    assert model.chosen.states == k
    assert [one.states for one in model.candidates] == [1, 2, 3]
    assert model.chosen.bic == min(one.bic for one in model.candidates)


def test_states_that_the_criterion_adds_make_no_other_regime(two_states: Planted) -> None:
    model = fitted(two_states.frame[:4500], states_maximum=3)
    assert model.chosen.states >= 2  # volatilities of ten bars are no quite normal numbers
    windows = observe_windows(two_states.frame, MINUTES, BOTH)["SIM"][450:]
    wild = np.array([name == "high_volatility" for name in model.parameters.regimes])
    found = filtered(model.parameters, windows)[:, wild].sum(axis=1) > 0.5
    assert (found == (two_states.states[450:] == 1)).mean() > 0.97


@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_changes_no_state_is_of_high_volatility(seed: int) -> None:
    assert "high_volatility" not in fitted(trades(walk(3000, seed)), states_maximum=3).parameters.regimes


def test_the_criterion_is_hmmlearns_less_the_start_which_is_not_estimated(of_two_states: RegimeModel) -> None:
    frame = planted([5e-4, 2e-3], [0.0, 0.0], windows=900).frame[:4500]
    windows = observe_windows(frame, MINUTES, BOTH)["SIM"]
    theirs = of_two_states.source.bic((windows - of_two_states.shift) / of_two_states.scale)
    scaling = 2.0 * len(windows) * np.log(of_two_states.scale).sum()  # densities over observations as they are
    assert of_two_states.chosen.bic == pytest.approx(theirs + scaling - math.log(len(windows)), rel=1e-9)


def test_more_starts_are_never_less_likely_and_the_same_ones_give_the_same_bytes() -> None:
    frame = planted([4e-4, 1e-3, 3e-3], [0.0, 0.0, 0.0], windows=300).frame
    one, many, again = (fitted(frame, states=3, restarts=count) for count in (1, 4, 4))
    assert many.chosen.log_likelihood >= one.chosen.log_likelihood
    assert many.parameters.model_dump_json() == again.parameters.model_dump_json()


def test_symbols_share_a_model_and_a_start_is_the_chains_stationary_distribution() -> None:
    one, other = (planted([5e-4, 2e-3], [0.0, 0.0], windows=200, seed=seed).frame for seed in (1, 2))
    model = fitted(pl.concat([one, other.with_columns(symbol=pl.lit("B"))]), states=2)
    assert (model.windows, model.sequences) == (400, 2)
    start, transition = np.array(model.parameters.start), np.array(model.parameters.transition)
    np.testing.assert_allclose(start @ transition, start, atol=1e-12)
    assert (start > 0.0).all()
    assert (transition > 0.0).all()


def test_in_real_data_the_crisis_of_2008_is_of_high_volatility_and_2017_is_not() -> None:
    config = RegimeConfig(states=2, restarts=3)
    observed = observe_windows(read_bars("sp500"), DAILY, BOTH)
    model = fit(observed, config, DAILY)
    states = filtered(model.parameters, observed["SPX"]).argmax(axis=1)
    years = read_bars("sp500")["exchange_ts_ns"].cast(pl.Datetime("ns")).dt.year().to_numpy()[4::5]
    months = read_bars("sp500")["exchange_ts_ns"].cast(pl.Datetime("ns")).dt.month().to_numpy()[4::5]
    assert len(states) == len(years)
    crisis = (years == 2008) & (months >= 10)
    assert states[crisis].all()
    assert states[years == 2017].mean() < 0.1
    assert model.parameters.regimes == ("normal", "high_volatility")


# Names and figures of states


def parameters_of(volatilities: list[float], means: list[float], stay: float = 0.9) -> HiddenMarkovParameters:
    k = len(volatilities)
    transition = np.full((k, k), (1.0 - stay) / max(k - 1, 1))
    np.fill_diagonal(transition, stay if k > 1 else 1.0)
    return HiddenMarkovParameters(
        bar_s=60.0,
        window_bars=10,
        features=BOTH,  # type: ignore[arg-type]
        regimes=("unknown",) * k,  # type: ignore[arg-type]
        start=(1.0 / k,) * k,
        transition=transition.tolist(),
        means=[[mean, math.log(volatility)] for mean, volatility in zip(means, volatilities, strict=True)],  # type: ignore[arg-type]
        covariance_type="diag",
        covariances=[[[1e-6, 0.1]]] * k,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("volatilities", "means", "names"),
    [
        ([0.01], [0.0], ["normal"]),
        ([0.01, 0.03], [0.0, 0.0], ["normal", "high_volatility"]),  # usual: 0.0173, 1.73 times as much
        ([0.01, 0.019], [0.0, 0.0], ["normal", "normal"]),  # 1.38 times
        ([0.01, 0.02, 0.06], [0.0, 0.0, 0.0], ["normal", "normal", "high_volatility"]),
        ([0.001, 0.04, 0.05], [0.0, 0.0, 0.0], ["normal", "high_volatility", "high_volatility"]),
        ([0.01, 0.01], [0.09, -0.09], ["trending", "trending"]),  # nearly each bar the same move
        ([0.01, 0.03], [0.01, -0.27], ["normal", "high_volatility"]),  # a crash outranks its trend
    ],
)
def test_states_are_named_by_the_rule(volatilities: list[float], means: list[float], names: list[str]) -> None:
    assert list(name_states(parameters_of(volatilities, means), 1.4, 0.7)) == names


def test_names_may_be_given_in_order_of_volatility(two_states: Planted) -> None:
    model = fitted(two_states.frame[:4500], states=2, regimes=("trending", "risk_off"))
    assert model.parameters.regimes == ("trending", "risk_off")
    calm, wild = describe(model.parameters)
    assert calm.volatility < wild.volatility


def test_one_state_lasts_for_ever_and_has_all_the_time() -> None:
    (state,) = describe(parameters_of([0.01], [0.002]))
    assert (state.mean_log_return, state.dwell_bars, state.share) == (0.002, math.inf, 1.0)


def test_dwell_and_share_are_those_of_the_chain_by_hand() -> None:
    transition = np.array([[0.8, 0.2], [0.6, 0.4]])
    np.testing.assert_allclose(stationary(transition), [0.75, 0.25])
    states = describe(parameters_of([0.01, 0.02], [0.0, 0.0]).model_copy(update={"transition": transition.tolist()}))
    assert [state.dwell_bars for state in states] == pytest.approx([50.0, 10.0 / 0.6])
    assert [state.share for state in states] == pytest.approx([0.75, 0.25])


@given(hnp.arrays(np.float64, st.integers(1, 6).map(lambda k: (k, k)), elements=st.floats(0.01, 1.0)))
def test_the_stationary_distribution_is_one_and_stays(weights: NDArray[np.float64]) -> None:
    transition = weights / weights.sum(axis=1, keepdims=True)
    found = stationary(transition)
    assert found.sum() == pytest.approx(1.0)
    assert (found > 0.0).all()
    np.testing.assert_allclose(found @ transition, found, atol=1e-9)


@pytest.mark.parametrize("drift", [0.0, 0.3, 1.0, 3.0, -1.0])
def test_trend_strength_is_the_mean_move_over_the_mean_path_of_simulated_bars(drift: float) -> None:
    moves = np.random.default_rng(1).normal(drift * 1e-3, 1e-3, (20_000, 10))
    expected = abs(moves.sum(axis=1).mean()) / np.abs(moves).sum(axis=1).mean()
    found = trend_strength(float(moves.sum(axis=1).mean()), math.sqrt((moves**2).mean()), 10)
    assert found == pytest.approx(expected, abs=0.002)


@given(st.floats(-1.0, 1.0), st.floats(1e-8, 1.0), st.integers(2, 500))
def test_trend_strength_lies_between_none_and_one(mean: float, volatility: float, bars: int) -> None:
    assert 0.0 <= trend_strength(mean, volatility, bars) <= 1.0 + 1e-9


# What it refuses


def test_prices_that_never_move_have_no_volatility_to_take_the_logarithm_of() -> None:
    with pytest.raises(FeatureUndefined) as caught:
        fitted(trades(np.full(4000, 100.0)))
    assert (caught.value.feature, caught.value.row) == ("log_realised_volatility", None)


def test_a_feature_that_never_changes_is_refused_by_name_and_value() -> None:
    with pytest.raises(FeatureConstant, match="'log_return' is 0 in all 400 rows") as caught:
        fitted(trades(np.full(4000, 100.0)), features=("log_return",))
    assert (caught.value.feature, caught.value.value, caught.value.rows) == ("log_return", 0.0, 400)


@pytest.mark.parametrize(("bars", "states"), [(5, None), (299, None), (599, 2), (899, 3)])
def test_too_few_bars_are_refused_with_how_many_windows_it_takes(bars: int, states: int | None) -> None:
    with pytest.raises(TooFewRows, match="windows to fit a hidden Markov model") as caught:
        fitted(trades(walk(bars)), states=states)
    assert (caught.value.found, caught.value.needed) == (bars // 10, WINDOWS_A_STATE * (states or 1))


def test_just_enough_bars_are_fitted_and_no_more_states_tried_than_they_allow() -> None:
    assert [one.states for one in fitted(trades(walk(890))).candidates] == [1, 2]


def test_windows_that_are_missing_do_not_count() -> None:
    prices = walk(600)
    prices[300:] = prices[299]  # no volatility
    with pytest.raises(TooFewRows) as caught:
        fitted(trades(prices), states=2)
    assert caught.value.found == 30


@pytest.mark.parametrize("price", [math.nan, math.inf, 0.0, -1.0])
def test_a_price_that_is_none_is_refused_with_its_row(price: float) -> None:
    frame = trades(walk(600)).with_columns(
        price=pl.when(pl.int_range(pl.len()) == 17).then(price).otherwise(pl.col("price"))
    )
    with pytest.raises(RowInvalid, match="column 'price', row 17") as caught:
        observe_windows(frame, MINUTES, BOTH)
    assert caught.value.row == 17


def test_more_states_than_the_data_fill_are_no_regimes() -> None:
    prices = walk(2400)
    prices[1200:] *= 3.0  # one window that is unlike all others: an outlier, not a regime
    with pytest.raises(NotConverged, match=r"none of 2 starts with 8 states .* 5 windows in each state"):
        fitted(trades(prices), states=8, restarts=2)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"features": ()}, "at least 1 item"),
        ({"features": ("log_return", "log_return")}, "each may be there once"),
        ({"features": ("volume",)}, "features.0"),
        ({"states": 0}, "states"),
        ({"states": 9}, "states"),
        ({"regimes": ("normal",)}, "1 names need as many states, found states = None"),
        ({"states": 2, "regimes": ("calm", "wild")}, "regimes.0"),
        ({"high_volatility_ratio": 0.9}, "high_volatility_ratio"),
        ({"smoothing": True}, "smoothing"),
    ],
)
def test_settings_that_are_none_are_refused_by_name(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        RegimeConfig.model_validate(changes)
