"""The leak check fires on each kind of leak, planted on purpose, and on nothing that is honest."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tickgate_server.features import micro10
from tickgate_server.risk.regime_rules import RegimeRules, RuleSettings, Window
from tickgate_server.ticks import volatility
from tickgate_training.data import table
from tickgate_training.data.simulator import simulate
from tickgate_training.errors import LeakFound, TooFewRows
from tickgate_training.labels import Labels, fixed_horizon, fixed_time, meta_labels, panel_labels, triple_barrier
from tickgate_training.leaks import (
    Columns,
    LeakConfig,
    SuspicionReason,
    check_features,
    check_labels,
    check_windows,
    suspicions,
)
from tickgate_training.splits import walk_forward, walk_forward_sessions
from tickgate_training.weights import WeightConfig, sample_weights

HORIZON, LAG, GAP_NS = 5, 2, 600_000_000
FRAME = simulate(400, seed=3, edge=0.2)
COLUMNS: dict[str, np.ndarray] = {name: FRAME[name].to_numpy() for name in FRAME.columns}
PRICES, STAMPS = COLUMNS["price"], COLUMNS["exchange_ts_ns"]
KNOWN = {
    "price": PRICES,
    "volatility": volatility.batch(PRICES),
    "stamps_ns": STAMPS,
    "side": np.where(np.arange(400) % 3 == 0, -1, 1).astype(np.int8),
}

HONEST_LABELS: dict[str, Callable[[Columns], Labels]] = {
    "fixed horizon": lambda c: fixed_horizon(c["price"], HORIZON, LAG, stamps_ns=c["stamps_ns"], session_gap_ns=GAP_NS),
    "fixed time": lambda c: fixed_time(c["price"], c["stamps_ns"], 300_000_000, LAG, session_gap_ns=GAP_NS),
    "triple barrier": lambda c: triple_barrier(
        c["price"], c["volatility"], HORIZON, LAG, stamps_ns=c["stamps_ns"], session_gap_ns=GAP_NS
    ),
    "triple barrier, no label at the vertical one": lambda c: triple_barrier(
        c["price"], c["volatility"], HORIZON, LAG, at_vertical="none"
    ),
    "meta": lambda c: meta_labels(
        triple_barrier(c["price"], c["volatility"], HORIZON, LAG, side=c["side"]), c["side"], 1e-4
    ),
}


def later_by_one(columns: Columns) -> Labels:
    """Declares i + lag + h, uses p[i + lag + h + 1]: the label shifted by one tick into the future."""
    honest = fixed_horizon(columns["price"], HORIZON, LAG)
    shifted = fixed_horizon(columns["price"], HORIZON + 1, LAG)
    return Labels(shifted.direction, shifted.returns, honest.interval_end)


def entered_at_the_decision(columns: Columns) -> Labels:
    """Entered at row i itself, whose price the features know."""
    prices = columns["price"]
    returns = np.full(prices.size, np.nan)
    returns[:-HORIZON] = prices[HORIZON:] / prices[:-HORIZON] - 1.0
    return Labels(
        np.where(returns > 0, 1, np.where(returns < 0, 0, -1)).astype(np.int8),
        returns,
        np.arange(prices.size) + HORIZON,
    )


def barriers_of_the_horizon_to_come(columns: Columns) -> Labels:
    """Barriers whose width is the volatility at the end of the horizon rather than at the decision."""
    ahead = np.concatenate((columns["volatility"][HORIZON + LAG + 1 :], np.full(HORIZON + LAG + 1, 1e-4)))
    return triple_barrier(columns["price"], ahead, HORIZON, LAG)


def peeks(shift: int) -> Callable[[Columns], np.ndarray]:
    """A return feature of which every row sees `shift` rows ahead."""

    def compute(columns: Columns) -> np.ndarray:
        prices = columns["price"]
        ahead = np.concatenate((prices[shift:], np.full(min(shift, prices.size), np.nan)))
        return ahead / prices - 1.0

    return compute


def features_of(columns: Columns) -> np.ndarray:
    return micro10.batch(columns["exchange_ts_ns"], columns["price"], columns["size"], 0)


def regimes_of(columns: Columns) -> np.ndarray:
    """Rules on windows of five rows, a regime a row."""
    returns = np.diff(np.log(columns["price"]), prepend=np.log(columns["price"][:1]))
    rules = RegimeRules(RuleSettings(windows_minimum=3, windows=20, dwell=2))
    found, regime = [], 0
    for row in range(returns.size):
        if row % 5 == 4:
            part = returns[row - 4 : row + 1]
            window = Window(float(part.sum()), float(np.abs(part).sum()), float(np.sqrt(np.mean(part**2))))
            regime = int(rules.update(window, math.nan))
        found.append(regime)
    return np.array(found)


@pytest.mark.parametrize("kind", HONEST_LABELS)
def test_honest_labels_of_every_kind_pass(kind: str) -> None:
    compute = HONEST_LABELS[kind]
    assert compute(KNOWN).labelled.sum() > 100
    for seed in range(4):
        check_labels(compute, KNOWN, forward=("price",), seed=seed)


def test_honest_labels_of_a_panel_pass() -> None:
    columns = {
        "price": PRICES,
        "stamps_ns": np.repeat(np.arange(200), 2),
        "symbol": np.tile([0, 1], 200),
    }

    def compute(c: Columns) -> Labels:
        return panel_labels(c["stamps_ns"], c["symbol"], lambda rows: fixed_horizon(c["price"][rows], HORIZON, LAG))

    check_labels(compute, columns, forward=("price",), keep=("stamps_ns", "symbol"), together="stamps_ns")


def test_micro10_volatility_regimes_and_past_sums_pass_as_features() -> None:
    for seed in range(4):
        check_features(features_of, COLUMNS, seed=seed)
        check_features(lambda c: volatility.batch(c["price"]), COLUMNS, seed=seed)
        check_features(lambda c: np.cumsum(c["size"]), COLUMNS, seed=seed)
        check_features(regimes_of, COLUMNS, what="regimes", seed=seed)
    assert np.unique(regimes_of(COLUMNS)).size > 2


@pytest.mark.parametrize("seed", range(5))
def test_a_label_shifted_one_tick_into_the_future_is_found(seed: int) -> None:
    with pytest.raises(LeakFound) as raised:
        check_labels(later_by_one, KNOWN, forward=("price",), seed=seed)
    leak = raised.value
    assert leak.what == "labels"
    assert leak.row + LAG + HORIZON + 1 == leak.depends_on_row
    assert str(leak) == (
        f"labels: row {leak.row} must not depend on row {leak.depends_on_row}, "
        f"yet it changed when rows from {leak.depends_on_row} on were dropped"
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_label_entered_at_its_decision_row_is_found(seed: int) -> None:
    with pytest.raises(LeakFound, match=r"up to .* were replaced") as raised:
        check_labels(entered_at_the_decision, KNOWN, forward=("price",), seed=seed)
    assert raised.value.row == raised.value.depends_on_row


def test_a_label_that_looks_back_beyond_its_decision_is_found_at_a_row_after_the_cut() -> None:
    def entered_before(columns: Columns) -> Labels:
        honest = fixed_horizon(columns["price"], HORIZON, 1)
        return Labels(*(np.roll(values, 3) for values in (honest.direction, honest.returns, honest.interval_end)))

    with pytest.raises(LeakFound, match=r"up to .* were replaced") as raised:
        check_labels(entered_before, KNOWN, forward=("price",))
    assert raised.value.row == raised.value.depends_on_row + 2


@pytest.mark.parametrize("seed", range(5))
def test_barriers_set_by_a_volatility_to_come_are_found(seed: int) -> None:
    with pytest.raises(LeakFound, match="labels: row"):
        check_labels(barriers_of_the_horizon_to_come, KNOWN, forward=("price",), seed=seed)


def test_an_interval_said_to_end_before_its_touch_is_found() -> None:
    def too_early(columns: Columns) -> Labels:
        honest = HONEST_LABELS["triple barrier"](columns)
        return Labels(honest.direction, honest.returns, honest.interval_end - 1)

    with pytest.raises(LeakFound):
        check_labels(too_early, KNOWN, forward=("price",))


@given(st.integers(1, 30), st.integers(0, 50))
@settings(max_examples=30)
def test_a_feature_that_peeks_ahead_is_found_with_its_first_row(shift: int, seed: int) -> None:
    with pytest.raises(LeakFound) as raised:
        check_features(peeks(shift), COLUMNS, what="ret_ahead", seed=seed)
    cut = raised.value.depends_on_row
    assert (raised.value.what, raised.value.row) == ("ret_ahead", max(cut - shift, 0))


def test_a_feature_scaled_by_the_whole_history_is_found() -> None:
    with pytest.raises(LeakFound):
        check_features(lambda c: (c["price"] - c["price"].mean()) / c["price"].std(), COLUMNS)


def test_one_column_of_many_that_peeks_is_found() -> None:
    def compute(columns: Columns) -> np.ndarray:
        features = features_of(columns)
        features[:, 6] = np.append(features[1:, 6], np.float32(0.0))
        return features

    with pytest.raises(LeakFound):
        check_features(compute, COLUMNS)


def test_a_feature_that_knows_the_next_trades_time_by_its_value_alone_is_found() -> None:
    # Where there is no next row it says what it would say by chance, so that only replaced rows give it away.
    gaps = np.diff(STAMPS)

    def compute(columns: Columns) -> np.ndarray:
        found = np.append(np.diff(columns["exchange_ts_ns"]), 0)
        if found.size < STAMPS.size:
            found[-1] = gaps[found.size - 1]
        return found

    with pytest.raises(LeakFound, match="were replaced"):
        check_features(compute, COLUMNS)


def test_a_direction_that_leaks_beside_an_honest_return_is_found() -> None:
    def compute(columns: Columns) -> Labels:
        honest = fixed_horizon(columns["price"], HORIZON, LAG)
        return Labels(later_by_one(columns).direction, honest.returns, honest.interval_end)

    with pytest.raises(LeakFound):
        check_labels(compute, KNOWN, forward=("price",))


@pytest.mark.parametrize("name", ["price", "exchange_ts_ns"])
def test_even_a_single_row_to_come_is_replaced_by_another_value(name: str) -> None:
    columns = {name: COLUMNS[name][:2]}

    def compute(given: Columns) -> np.ndarray:
        # Knows the next row, and says the same where it is dropped.
        return np.resize(given[name][1:] if given[name].size == 2 else columns[name][1:], given[name].size)

    with pytest.raises(
        LeakFound, match="row 0 must not depend on row 1, yet it changed when rows from 1 on were replaced"
    ):
        check_features(compute, columns)


def test_garbage_is_still_a_table_of_ticks() -> None:
    seen = []

    def compute(columns: Columns) -> np.ndarray:
        frame = table.check(pl.DataFrame(dict(columns)).with_columns(pl.col("symbol").cast(pl.String)))
        seen.append(frame["price"].to_numpy())
        return features_of(columns)

    check_features(compute, COLUMNS, cuts=3)
    assert len(seen) == 7
    assert sum(prices.size == PRICES.size and (prices != PRICES).any() for prices in seen) == 3


def test_the_columns_that_were_given_are_left_as_they_were() -> None:
    before = {name: values.copy() for name, values in COLUMNS.items()}
    check_features(features_of, COLUMNS)
    for name, values in before.items():
        np.testing.assert_array_equal(COLUMNS[name], values)


def windows_of(columns: Columns, *, weigh_with_all: bool = False) -> list[tuple[np.ndarray, ...]]:
    labels = triple_barrier(columns["price"], columns["volatility"], HORIZON, LAG)
    ends = labels.interval_end
    found = []
    for window in walk_forward(ends.size, 100, 30, 20, 5):
        rows = window.train_rows(ends)
        weights = sample_weights(rows, ends, columns["price"], WeightConfig(oldest_weight=0.5))
        if weigh_with_all:
            weights = sample_weights(np.arange(ends.size), ends, columns["price"], WeightConfig())[rows]
        found.append((rows, weights, window.validation_rows(ends)))
    return found


def test_windows_and_their_weights_pass() -> None:
    for seed in range(4):
        assert check_windows(windows_of, KNOWN, seed=seed) > 10
    sessions = KNOWN | {"session": np.arange(400) // 10}

    def by_session(columns: Columns) -> list[tuple[np.ndarray, ...]]:
        ends = fixed_horizon(columns["price"], HORIZON, LAG).interval_end
        windows = walk_forward_sessions(
            columns["session"], 8, 3, 2, stamps_ns=columns["stamps_ns"], last_session_over=False
        )
        return [(window.train_rows(ends), window.validation_rows(ends)) for window in windows]

    assert check_windows(by_session, sessions) > 10


def test_a_check_of_windows_that_had_none_to_compare_says_so() -> None:
    def one_window(columns: Columns) -> list[tuple[np.ndarray, ...]]:
        return [(np.arange(window.train.stop),) for window in walk_forward(columns["price"].size, 380, 10, 10)]

    assert check_windows(one_window, KNOWN) == 0
    with pytest.raises(TooFewRows, match="399 rows, at least 400"):
        check_windows(one_window, {name: values[:399] for name, values in KNOWN.items()})


def test_weights_made_of_more_than_the_train_set_are_found() -> None:
    with pytest.raises(LeakFound, match="weights: row 0 must not depend"):
        check_windows(lambda c: windows_of(c, weigh_with_all=True), KNOWN, what="weights")


def test_windows_laid_out_from_the_end_are_found() -> None:
    def from_the_end(columns: Columns) -> list[tuple[np.ndarray, ...]]:
        rows = columns["price"].size
        return [(np.arange(rows - 40, rows - 20), np.arange(rows - 20, rows))]

    with pytest.raises(LeakFound, match="windows: row 0"):
        check_windows(from_the_end, KNOWN)


def test_a_window_that_goes_away_when_rows_come_is_found() -> None:
    def fewer(columns: Columns) -> list[tuple[np.ndarray, ...]]:
        return [(np.arange(5),)] * (2 if columns["price"].size < 400 else 1)

    with pytest.raises(LeakFound, match="windows: row 1"):
        check_windows(fewer, KNOWN)


def test_the_same_seed_looks_at_the_same_rows() -> None:
    def found(seed: int) -> tuple[int, int]:
        with pytest.raises(LeakFound) as raised:
            check_features(peeks(1), COLUMNS, seed=seed)
        return raised.value.row, raised.value.depends_on_row

    assert found(7) == found(7)
    assert len({found(seed) for seed in range(9)}) > 1


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_cannot_be_checked(rows: int) -> None:
    columns = {"price": np.ones(rows)}
    with pytest.raises(TooFewRows, match=f"leak check: {rows} rows"):
        check_features(lambda c: c["price"], columns)
    with pytest.raises(TooFewRows, match="leak check"):
        check_labels(lambda c: fixed_horizon(c["price"], 1), columns, forward=("price",))


@pytest.mark.parametrize("result", [np.float64(1.0), np.ones(3)])
def test_a_stage_gives_one_value_a_row(result: Any) -> None:
    with pytest.raises(ValueError, match="expected one value a row"):
        check_features(lambda _: np.asarray(result), {"price": np.ones(10)})


def outcomes(returns: np.ndarray) -> Labels:
    direction = np.where(returns > 0, 1, np.where(returns < 0, 0, -1)).astype(np.int8)
    return Labels(direction, returns, np.arange(returns.size))


NOISE = np.random.default_rng(5).normal(0.0, 1.0, (2, 1_000))


def test_an_edge_that_markets_give_is_not_suspicious() -> None:
    returns = NOISE[0]
    probabilities = 1.0 / (1.0 + np.exp(-0.1 * (0.2 * returns + NOISE[1])))
    assert suspicions(probabilities, outcomes(returns)) == ()


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_foresight_is_suspicious_on_either_side(side: float) -> None:
    returns = NOISE[0]
    found = suspicions(0.5 + 0.1 * side * np.tanh(returns), outcomes(returns))
    assert [one.reason for one in found] == [
        SuspicionReason.ACCURACY_IMPLAUSIBLE,
        SuspicionReason.INFORMATION_COEFFICIENT_IMPLAUSIBLE,
    ]
    assert found[0].measured == (1.0 if side > 0 else 0.0)
    assert found[1].measured == pytest.approx(side)
    assert found[1].text == (
        f"Out-of-sample information coefficient of {side:.2f}, bound 0.50 on either side: look for a leak."
    )


def test_the_bounds_are_settings_and_hold_up_to_their_value() -> None:
    returns = np.tile([1.0, -1.0], 200)
    right = np.tile([0.6] * 9 + [0.4], 40)  # of each direction nine in ten: every tenth row is a down one foreseen
    probabilities = np.where(returns > 0, right, 1.0 - np.roll(right, 1))
    labels = outcomes(returns)
    accuracy = float(((probabilities >= 0.5) == (returns > 0)).mean())
    at = LeakConfig(accuracy_maximum=accuracy, information_coefficient_maximum=1.0)
    below = LeakConfig(accuracy_maximum=accuracy - 1e-6, information_coefficient_maximum=1.0)
    assert suspicions(probabilities, labels, at) == ()
    (found,) = suspicions(probabilities, labels, below)
    assert (found.reason, found.limit) == (SuspicionReason.ACCURACY_IMPLAUSIBLE, accuracy - 1e-6)


def test_a_market_that_mostly_rises_makes_always_up_no_suspicion() -> None:
    returns = np.where(np.arange(4_000) % 20 == 0, -1.0, 1.0) * np.abs(NOISE[0, np.arange(4_000) % 1_000])
    assert suspicions(np.full(4_000, 0.9), outcomes(returns)) == ()


def test_few_rows_and_rows_without_forecast_or_outcome_are_no_ground_for_suspicion() -> None:
    returns = NOISE[0]
    foresight = 0.5 + 0.1 * np.tanh(returns)
    assert suspicions(foresight[:99], outcomes(returns[:99])) == ()
    assert suspicions(np.full(1_000, math.nan), outcomes(returns)) == ()
    assert suspicions(foresight, outcomes(np.full(1_000, math.nan))) == ()
    assert suspicions(np.empty(0), outcomes(np.empty(0))) == ()
    with_holes = np.where(np.arange(1_000) % 2 == 0, math.nan, foresight)
    assert len(suspicions(with_holes, outcomes(returns))) == 2


def test_bounds_that_would_suspect_everything_or_nothing_are_refused() -> None:
    for bounds in ({"accuracy_maximum": 0.5}, {"information_coefficient_maximum": 1.1}, {"cuts": 0}):
        with pytest.raises(ValidationError):
            LeakConfig.model_validate(bounds)
