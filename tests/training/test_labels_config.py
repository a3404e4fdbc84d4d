"""The configured labels and windows: what old files say still means the same, and each kind makes what it names."""

import numpy as np
import pytest
from pydantic import Field, ValidationError

from tickgate_training.labels import FixedHorizonConfig, LabelConfig, TripleBarrierConfig, fixed_horizon, triple_barrier
from tickgate_training.splits import (
    Embargo,
    RowWindowsConfig,
    SessionWindowsConfig,
    WalkForwardConfig,
    latest,
    latest_sessions,
    walk_forward,
    walk_forward_sessions,
)
from tickgate_training.strict import Strict
from tickgate_training.weights import WeightConfig


class Sections(Strict):
    label: LabelConfig = FixedHorizonConfig()
    walk_forward: WalkForwardConfig = RowWindowsConfig()
    weights: WeightConfig = Field(default=WeightConfig())


PRICES = np.array([100.0, 101.0, 99.0, 102.0, 103.0, 98.0, 97.0, 105.0])
VOLATILITIES = np.full(8, 0.01)
STAMPS = np.array([0, 10, 20, 30, 40, 500, 510, 520])
SESSIONS = np.repeat(np.arange(20), 3)


def test_sections_without_a_kind_mean_what_they_always_did() -> None:
    sections = Sections.model_validate(
        {
            "label": {"horizon_trades": 5, "lag_trades": 2, "price": "mid"},
            "walk_forward": {"train_rows": 40, "validation_rows": 10, "test_rows": 5, "embargo_rows": 3},
        }
    )
    assert sections.label == FixedHorizonConfig(horizon_trades=5, lag_trades=2, price="mid")
    assert sections.walk_forward == RowWindowsConfig(train_rows=40, validation_rows=10, test_rows=5, embargo_rows=3)
    assert Sections.model_validate(sections.model_dump()) == sections
    assert Sections.model_validate(Sections()) == Sections()


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"label": {"horizont": 1}}, ("label", "fixed_horizon", "horizont")),
        (
            {"label": {"kind": "triple_barrier", "volatility_floor": 0.0}},
            ("label", "triple_barrier", "volatility_floor"),
        ),
        ({"label": {"kind": "oracle"}}, ("label",)),
        ({"label": 5}, ("label",)),
        ({"walk_forward": {"train_sessions": 5}}, ("walk_forward", "rows", "train_sessions")),
        ({"walk_forward": {"kind": "sessions", "test_sessions": 0}}, ("walk_forward", "sessions", "test_sessions")),
        ({"weights": {"oldest_weight": -1.0}}, ("weights", "oldest_weight")),
    ],
)
def test_a_key_at_fault_is_named_with_its_kind(section: dict[str, object], key: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as raised:
        Sections.model_validate(section)
    assert raised.value.errors()[0]["loc"] == key


def test_each_kind_of_label_is_the_function_of_its_name() -> None:
    fixed = FixedHorizonConfig(horizon_trades=2).apply(PRICES, VOLATILITIES, STAMPS, 100)
    np.testing.assert_array_equal(
        fixed.direction, fixed_horizon(PRICES, 2, stamps_ns=STAMPS, session_gap_ns=100).direction
    )
    settings = {"upper_multiple": 2.0, "lower_multiple": 0.5, "volatility_floor": 0.02, "at_vertical": "none"}
    config = TripleBarrierConfig.model_validate(
        {"kind": "triple_barrier", "horizon_trades": 3, "lag_trades": 2} | settings
    )
    expected = triple_barrier(PRICES, VOLATILITIES, 3, 2, stamps_ns=STAMPS, session_gap_ns=100, **settings)  # type: ignore[arg-type]
    made = config.apply(PRICES, VOLATILITIES, STAMPS, 100)
    np.testing.assert_array_equal(made.direction, expected.direction)
    np.testing.assert_array_equal(made.interval_end, expected.interval_end)


def test_each_kind_of_window_is_the_function_of_its_name() -> None:
    stamps = np.arange(60) * 10
    rows = RowWindowsConfig(train_rows=20, validation_rows=9, test_rows=6, embargo_rows=2, anchored=True)
    assert rows.windows(SESSIONS, stamps) == list(walk_forward(60, 20, 9, 6, 2, anchored=True))
    assert rows.latest(SESSIONS, stamps) == latest(60, 20, 9, 2, anchored=True)
    lengths = {"train_sessions": 6, "validation_sessions": 3, "test_sessions": 2}
    embargo = {"embargo_sessions": 1, "embargo_rows": 4, "embargo_ns": 35}
    config = SessionWindowsConfig.model_validate(lengths | embargo | {"anchored": True, "last_session_over": False})
    same = {"embargo": Embargo(4, 1, 35), "stamps_ns": stamps, "anchored": True, "last_session_over": False}
    assert config.windows(SESSIONS, stamps) == list(walk_forward_sessions(SESSIONS, 6, 3, 2, **same))  # type: ignore[arg-type]
    assert config.latest(SESSIONS, stamps) == latest_sessions(SESSIONS, 6, 3, **same)  # type: ignore[arg-type]


def test_sessions_default_to_a_year_a_quarter_and_a_month() -> None:
    config = SessionWindowsConfig()
    assert (config.train_sessions, config.validation_sessions, config.test_sessions) == (252, 63, 21)
