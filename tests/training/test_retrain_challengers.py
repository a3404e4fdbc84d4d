"""What challengers are fitted on and go on from."""

import shutil
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import polars as pl
import pytest
from tests.training.turning_market import (
    EVALUATED,
    arrive,
    first_champion,
    one_round,
    plain,
    settings,
    turning,
)

from tickgate_server.models import aliases
from tickgate_server.models.package import MODEL_FILE
from tickgate_training.calibration import Uncalibrated
from tickgate_training.errors import ConfigInvalid
from tickgate_training.export import export, probabilities
from tickgate_training.learners import LightGBMConfig, LogisticConfig, Model, SgdLogisticConfig
from tickgate_training.retraining.challengers import Challengers, best
from tickgate_training.retraining.errors import NothingNew, StateInvalid
from tickgate_training.retraining.newest import blocks, read_newest, shortened
from tickgate_training.retraining.rounds import held
from tickgate_training.retraining.sources import Sources
from tickgate_training.samples import prepare

BOOSTED = {"kind": "lightgbm", "trees": 30, "leaves": 7}
TRAINING = {"learners": [BOOSTED]}
ADAPTIVE = [
    {"kind": "refit"},
    {"kind": "continued", "learner": {"trees": 5, "leaves": 7, "leaf_rows_minimum": 20}},
    {"kind": "partial_fit", "learner": {"averaged": False}},
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of a market that stays the same."""
    folder = tmp_path_factory.mktemp("rows")
    samples = prepare(turning(3000, 4, turns=False), plain(folder))
    return samples.features[samples.fit_rows], samples.labels.direction[samples.fit_rows]


def fitted(rows: tuple[np.ndarray, np.ndarray], learner: Any) -> Model:
    return learner.fit(rows[0][:1500], rows[1][:1500], 1)


def test_a_continued_lightgbm_keeps_its_trees_and_adds_some(rows: tuple[np.ndarray, np.ndarray]) -> None:
    learner = LightGBMConfig(trees=20, leaves=7)
    before = learner.fit(rows[0][:1500], rows[1][:1500], 1)
    text = before.booster.model_to_string()
    after = LightGBMConfig(trees=10, leaves=7).continued(before, rows[0][1500:], rows[1][1500:], 1)
    assert before.booster.model_to_string() == text
    assert (before.booster.num_trees(), after.booster.num_trees()) == (20, 30)
    first = np.asarray(after.booster.predict(rows[0], raw_score=True, num_iteration=20))
    # The leaves of all are rounded anew, so that float32 adds them as float64 does.
    assert np.abs(first - before.raw_scores(rows[0])).max() < 1e-5
    newer = slice(1500, None)

    def loss(model: Model) -> float:
        return float(np.logaddexp(0.0, -(2.0 * rows[1][newer] - 1.0) * model.raw_scores(rows[0][newer])).mean())

    assert loss(after) < loss(before)


@pytest.mark.parametrize(
    "learner", [LightGBMConfig(trees=20, leaves=7), SgdLogisticConfig(averaged=False)], ids=["lightgbm", "sgd_logistic"]
)
def test_a_source_that_was_kept_goes_on_as_the_model_itself_would_bit_for_bit(
    rows: tuple[np.ndarray, np.ndarray], learner: Any, tmp_path: Path
) -> None:
    model, sources = fitted(rows, learner), Sources(tmp_path)
    name = sources.keep(model)
    assert sources.keep(model) == name
    newer = rows[0][1500:], rows[1][1500:]
    if isinstance(learner, LightGBMConfig):
        again: Any = sources.booster(name)
        pair = [learner.continued(one, *newer, 1) for one in (model, again)]  # type: ignore[arg-type]
    else:
        again = sources.linear(name)
        pair = [one.updated(*newer) for one in (model, again)]  # type: ignore[attr-defined]
    for one, other in ((model, again), pair):
        assert one.raw_scores(rows[0]).tobytes() == other.raw_scores(rows[0]).tobytes()
    graphs = [export(one, Uncalibrated("none")) for one in pair]
    assert graphs[0] == graphs[1]


def test_what_cannot_go_on_is_not_kept_and_what_was_changed_is_not_taken(
    rows: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    sources = Sources(tmp_path)
    assert sources.keep(fitted(rows, LogisticConfig())) == ""
    name = sources.keep(fitted(rows, SgdLogisticConfig(averaged=False)))
    path = tmp_path / "sources" / name
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(StateInvalid, match="its hash is"):
        sources.linear(name)
    with pytest.raises(StateInvalid, match="cannot be read"):
        sources.booster("0" * 64 + ".txt")


def test_the_block_that_is_evaluated_is_the_newest_and_nothing_is_fitted_on_it(tmp_path: Path) -> None:
    config = settings(tmp_path)
    arrive(tmp_path, turning(6000, 1), 0, 5000)
    samples = read_newest(config).samples
    window = blocks(samples, config, 0)
    assert (window.test.start, window.test.stop) == (5000 - EVALUATED, 5000)
    assert (window.validation.stop, window.train.stop) == (window.test.start, window.validation.start)
    assert (window.train.stop - window.train.start, window.validation.stop - window.validation.start) == (1500, 500)
    ends = samples.labels.interval_end
    assert ends[window.validation_rows(ends)].max() < window.test.start - 9  # the embargo
    half = shortened(window, samples, config.training, 700)
    assert (half.train.start, half.train.stop) == (window.train.stop - 700, window.train.stop)


def test_blocks_of_sessions_leave_the_one_out_that_is_not_over(tmp_path: Path) -> None:
    lengths = {"kind": "sessions", "train_sessions": 3, "validation_sessions": 1, "test_sessions": 1}
    config = settings(tmp_path, evaluation_length=2, training={"walk_forward": lengths | {"last_session_over": False}})
    frame = turning(1600, 1)
    day = np.arange(1600) // 200  # eight sessions of 200 rows
    stamps = 1_700_006_400_000_000_000 + day * 86_400_000_000_000 + np.arange(1600) % 200 * 1_000_000_000
    (tmp_path / "ticks").mkdir()
    frame.with_columns(exchange_ts_ns=pl.Series(stamps)).write_parquet(tmp_path / "ticks" / "a.parquet")
    samples = read_newest(config).samples
    window = blocks(samples, config, 0)
    assert (window.train.start, window.validation.start) == (200, 800)
    assert (window.test.start, window.test.stop) == (1000, 1400)  # sessions 6 and 7 of eight
    assert blocks(samples, config, int(stamps[999])).test == window.test
    with pytest.raises(NothingNew, match="1 sessions are newer"):
        blocks(samples, config, int(stamps[1199]))


def test_rounds_go_on_from_each_other(tmp_path: Path) -> None:
    """By hand the champion stays: its trees are continued once it is one that a round published."""
    config = settings(tmp_path, challengers=ADAPTIVE, promotion="hand", training=TRAINING)
    frame = turning(9000, 3, turns=False)
    first_champion(config, frame[:3500])
    arrive(tmp_path, frame, 0, 4500)
    first = one_round(config)
    assert first.published == 2, first.reason
    assert [tried.kind for tried in first.challengers] == ["refit", "partial_fit"]
    assert first.skipped == ("continued: the source of champion 1 is not kept, or is no LightGBM",)
    # A hand promotes the refit, whatever was chosen: its source is kept.
    with held(config.retrain.state) as rounds:
        line = rounds.lines[-1]
        kept = next(place for place, tried in enumerate(line.challengers) if tried.kind == "refit")
        rounds.lines[-1] = line.model_copy(update={"chosen": kept})
        aliases.change_alias(config.model_folder, "production", 2, expected=1, reason="a test", who="hand")
        arrive(tmp_path, frame, 4500, 5500)
        samples = read_newest(config).samples
        window = blocks(samples, config, rounds.evaluated_until_ns)
        fitter = Challengers(samples, config, window, rounds, Sources(rounds.folder), 2)
        found, skipped = fitter.fit()
        assert skipped == []
        refit, continued, updated = found
        assert [one.kind for one in found] == ["refit", "continued", "partial_fit"]
        trees = continued.fitted.model.booster.num_trees()  # type: ignore[attr-defined]
        assert trees == BOOSTED["trees"] + 5
        newest = max(tried.fitted_until_ns for tried in line.challengers)
        for one in (continued, updated):  # on rows alone that are newer than what the one before was fitted on
            assert int(samples.stamps_ns[one.fitted.train_rows[0]]) > newest
        assert int(samples.stamps_ns[refit.fitted.train_rows[0]]) <= newest
        earned = [one.validation_net_return for one in found]
        assert best(found) == int(np.argmax(earned))


def test_a_champion_with_all_its_trees_is_left_out(tmp_path: Path) -> None:
    challengers = [{"kind": "refit"}, {"kind": "continued", "trees_maximum": 10}]
    config = settings(tmp_path, challengers=challengers, training=TRAINING, promotion="hand")
    frame = turning(7000, 3, turns=False)
    first_champion(config, frame[:3500])
    arrive(tmp_path, frame, 0, 4500)
    line = one_round(config)
    aliases.change_alias(config.model_folder, "production", line.published, expected=1, reason="a test", who="hand")
    arrive(tmp_path, frame, 4500, 6000)
    assert one_round(config).skipped == ("continued: the champion has 30 trees of 10",)


def test_what_is_published_is_what_was_compared(tmp_path: Path) -> None:
    """The challenger's kept source, calibrated, is the package's graph."""
    config = settings(tmp_path, training=TRAINING)
    frame = turning(5000, 3, turns=False)
    first_champion(config, frame[:3500])
    arrive(tmp_path, frame, 0, 4500)
    line = one_round(config)
    assert line.chosen is not None
    booster = Sources(config.retrain.state).booster(line.challengers[line.chosen].stored)
    samples = read_newest(config).samples
    ready = samples.features[samples.ready]
    graph = (config.model_folder / str(line.published) / MODEL_FILE).read_bytes()
    p, raw = probabilities(graph, ready), booster.raw_scores(ready)
    order = np.argsort(raw, kind="stable")
    assert (np.diff(p[order]) >= 0.0).all()  # calibration keeps the order
    assert isinstance(booster.booster, lightgbm.Booster)
    assert np.unique(p).size > 50


def test_bad_configurations_name_each_key_at_fault(tmp_path: Path) -> None:
    for more, said in (
        ({"unknown": 1}, "retrain.unknown"),
        ({"challengers": [{"kind": "partial_fit", "learner": {"averaged": True}}]}, "averaged must be false"),
        ({"challengers": []}, "retrain.challengers"),
        ({"schedule": {}}, "give either every_s or at"),
        ({"schedule": {"every_s": 5.0, "at": ["10:00"]}}, "give either every_s or at"),
        ({"rule": {"margin": 1.0}}, "retrain.rule.margin"),
        ({"promotion": "always"}, "retrain.promotion"),
    ):
        with pytest.raises(ConfigInvalid, match=said):
            settings(tmp_path, **more)


def test_copies_are_made_of_nothing_but_the_state(tmp_path: Path) -> None:
    """A dry copy of the state goes on as the original does: rounds keep no other memory."""
    config = settings(tmp_path / "one")
    frame = turning(8000, 0)
    (tmp_path / "one").mkdir()
    first_champion(config, frame[:3500])
    arrive(tmp_path / "one", frame, 0, 6000)
    one_round(config)
    arrive(tmp_path / "one", frame, 6000, 8000)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, other = one_round(config), one_round(settings(tmp_path / "two"))
    untimed = {"began_ns": 0, "ended_ns": 0}
    assert one.model_copy(update=untimed) == other.model_copy(update=untimed)
