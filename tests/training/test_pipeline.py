"""The whole run, on the simulator and on real data, and what it publishes."""

import dataclasses
import io
import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from rich.console import Console
from tests.support.real_data import SPOT_BTC, capture_path

from tickgate_server.features.schema import micro10
from tickgate_server.models.errors import VersionExists
from tickgate_server.models.package import MODEL_FILE, Manifest, read_manifest, sha256, versions
from tickgate_training import publishing, report
from tickgate_training.backtest import Backtest
from tickgate_training.commands import train
from tickgate_training.config import TrainingConfig, load_config, parse_config
from tickgate_training.data.simulator import simulate
from tickgate_training.errors import (
    ConfigInvalid,
    FeatureUndefined,
    OneClassOnly,
    ParityBroken,
    RowInvalid,
    TooFewRows,
    TrainingError,
)
from tickgate_training.export import probabilities
from tickgate_training.metrics import Metrics, measure
from tickgate_training.pipeline import RunResult, judge, run
from tickgate_training.samples import prepare
from tickgate_training.walk import evaluate

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"
LIGHTGBM = {"kind": "lightgbm", "trees": 30, "leaves": 7}
LOGISTIC = {"kind": "logistic"}


def config(repository: Path, **more: object) -> TrainingConfig:
    document: dict[str, object] = {
        "data": {"kind": "simulated", "trades": 7000, "seed": 1, "edge": 0.3},
        "package": {"name": "sim", "repository": str(repository)},
        "learners": [LOGISTIC],
        "label": {"horizon_trades": 5},
        "walk_forward": {"train_rows": 2000, "validation_rows": 800, "test_rows": 700, "embargo_rows": 10},
        "policy": {"decide_every_rows": 5, "risk_budget": 1000.0, "round_trips_minimum": 10},
    }
    return parse_config(document | more)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run(config(tmp_path_factory.mktemp("models"), learners=[LIGHTGBM, LOGISTIC]))


def test_a_planted_edge_is_found(planted: RunResult) -> None:
    assert planted.verdict.has_edge
    assert planted.verdict.text.startswith("An edge net of costs")
    for trial in planted.trials:
        assert trial.gross.total_return_summed > trial.net.total_return_summed > 0
        assert trial.accuracy > trial.majority_accuracy + 0.05
        assert trial.fallback_windows == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_in_pure_noise_no_edge_is_found(tmp_path: Path, seed: int) -> None:
    noise = {"kind": "simulated", "trades": 7000, "seed": seed, "edge": 0.0}
    result = run(config(tmp_path, data=noise, learners=[LIGHTGBM, LOGISTIC]), publish=False)
    assert not result.verdict.has_edge
    assert result.verdict.text.startswith("No edge")
    assert abs(result.chosen.gross.t_statistic) < 3


def test_windows_tile_and_add_up_to_the_stitched_series(planted: RunResult) -> None:
    for trial in planted.trials:
        assert [window.number for window in trial.windows] == list(range(6))
        assert sum(window.net_return for window in trial.windows) == pytest.approx(trial.net.total_return_summed)
        assert sum(window.gross_return for window in trial.windows) == pytest.approx(trial.gross.total_return_summed)
        assert trial.net.periods == 6 * 700 - 2  # the last two rows have no two marks after them
        assert trial.spread.mean == pytest.approx(trial.net.total_return_summed / 6)
        assert trial.spread.worst <= trial.spread.mean <= trial.spread.best
        for before, after in zip(trial.windows, trial.windows[1:], strict=False):
            assert before.test_stop_ns < after.test_start_ns
    assert planted.baseline.round_trips == 1
    assert planted.baseline.exposure == 1.0


def test_the_learner_that_earned_most_on_validation_is_published(planted: RunResult) -> None:
    best = max(planted.trials, key=lambda trial: trial.validation_net_return)
    assert planted.chosen is best
    assert planted.published is not None
    assert planted.published.manifest.validation.trials == 2


def test_the_package_is_what_its_manifest_says(planted: RunResult) -> None:
    published = planted.published
    assert published is not None
    manifest = read_manifest(published.folder)
    assert manifest == published.manifest
    assert (manifest.name, manifest.version) == ("sim", 1)
    assert sha256(published.folder / MODEL_FILE) == manifest.model_sha256
    assert manifest.features.schema_id == micro10().schema_id
    assert manifest.output.horizon_trades == 5
    assert all(
        len(s.quantiles) == 9 and list(s.quantiles) == sorted(s.quantiles) for s in manifest.feature_statistics.values()
    )
    golden = np.array(manifest.golden.inputs, np.float32)
    assert golden.astype(np.float64).tolist() == [list(row) for row in manifest.golden.inputs]
    served = probabilities((published.folder / MODEL_FILE).read_bytes(), golden)
    np.testing.assert_allclose(served, manifest.golden.outputs, rtol=0, atol=1e-5)
    assert len(set(manifest.golden.outputs)) > 32
    assert manifest.validation.metrics["net_sharpe"] == pytest.approx(planted.chosen.net.sharpe)
    assert {"lightgbm", "onnxruntime", "numpy", "python"} <= set(manifest.libraries)


def test_what_is_undefined_is_null_in_the_manifest(tmp_path: Path) -> None:
    dear = {"fee_bps": 0.0, "half_spread_bps": 0.0}
    flat = config(tmp_path, costs=dear, policy={"decide_every_rows": 5, "risk_budget": 1e-9, "lot": 1.0})
    result = run(flat)
    assert result.verdict.text == "No edge: the model never traded."
    assert result.published is not None
    metrics = read_manifest(result.published.folder).validation.metrics
    assert metrics["net_sharpe"] is None
    assert metrics["net_win_rate"] is None
    assert metrics["round_trips"] == 0


def test_each_run_publishes_the_next_version_and_runs_repeat(tmp_path: Path) -> None:
    first, second = run(config(tmp_path)), run(config(tmp_path))
    assert versions(tmp_path, "sim") == [1, 2]
    one, two = first.published, second.published
    assert one is not None
    assert two is not None
    assert one.manifest.model_sha256 == two.manifest.model_sha256
    assert one.manifest.data_fingerprint == two.manifest.data_fingerprint
    assert first.chosen.windows == second.chosen.windows
    assert first.chosen.result.net.tobytes() == second.chosen.result.net.tobytes()


def test_appended_rows_change_no_earlier_window(tmp_path: Path) -> None:
    settings = config(tmp_path)
    frame = simulate(8000, seed=4, edge=0.3)
    (learner,) = settings.learners
    short = evaluate(prepare(frame.head(5000), settings), settings, learner)
    long = evaluate(prepare(frame, settings), settings, learner)
    known = short.windows[:-1]  # the last one's final position is closed in the shorter series
    assert long.windows[: len(known)] == known
    assert len(long.windows) > len(short.windows)


def test_a_version_taken_in_between_is_stepped_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = publishing.versions
    answers = iter([[]])
    run(config(tmp_path))
    monkeypatch.setattr(publishing, "versions", lambda *place: next(answers, None) or listed(*place))
    result = run(config(tmp_path))
    assert result.published is not None
    assert result.published.manifest.version == 2


def test_a_version_that_is_always_taken_ends_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(config(tmp_path))
    monkeypatch.setattr(publishing, "versions", lambda *_: [])
    with pytest.raises(VersionExists):
        run(config(tmp_path))
    assert versions(tmp_path, "sim") == [1]


def test_a_graph_that_is_not_the_model_is_never_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = publishing.export
    monkeypatch.setattr(
        publishing, "export", lambda model, platt: right(model, type(platt)(platt.slope, platt.intercept + 1e-3))
    )
    with pytest.raises(ParityBroken):
        run(config(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fails_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        run(config(tmp_path))
    assert not list((tmp_path / "sim").iterdir())


def constant(rows: int, price: float = 100.0) -> pl.DataFrame:
    return simulate(rows, seed=1).with_columns(
        price=pl.lit(price),
        bid=pl.lit(math.nan),
        ask=pl.lit(math.nan),
        bid_size=pl.lit(math.nan),
        ask_size=pl.lit(math.nan),
    )


@pytest.mark.parametrize(
    ("frame", "error", "says"),
    [
        (simulate(3000, seed=1), TooFewRows, "3000 rows, at least 3500"),
        (simulate(10, seed=1), FeatureUndefined, "'ret_1' is not finite in every row"),
        (constant(4000).with_columns(price=100.0 + pl.int_range(pl.len()) * 0.01), OneClassOnly, "labels are 1"),
        (constant(4000), TooFewRows, "fit: 0 rows"),
        (pl.concat([simulate(4000, seed=1), simulate(4000, seed=1, symbol="B")]), RowInvalid, "row 4000.*one symbol"),
        (simulate(4000, seed=1).reverse(), RowInvalid, "row 1.*do not decrease"),
    ],
    ids=["short", "not ready", "one class", "no label", "two symbols", "unsorted"],
)
def test_bad_data_end_in_an_error_that_names_them_and_write_nothing(
    tmp_path: Path, frame: pl.DataFrame, error: type[TrainingError], says: str
) -> None:
    with pytest.raises(error, match=says):
        run(config(tmp_path), frame=frame)
    assert not list(tmp_path.iterdir())


def measured(returns: list[float]) -> Metrics:
    r = np.array(returns)
    return measure(Backtest(0, np.ones_like(r), r, r, r, r, r, r), 1.0)


def test_the_bar_for_an_edge_rises_with_the_trials() -> None:
    net, baseline = measured([0.01, 0.02] * 5 + [-0.03, 0.0]), measured([-0.1, 0.05])
    assert net.t_statistic == pytest.approx(2.1, abs=0.5)
    few, many = judge(net, baseline, 1), judge(net, baseline, 100_000)
    assert few.has_edge
    assert not many.has_edge
    assert "No edge that these data can show" in many.text


def test_a_better_baseline_is_admitted() -> None:
    verdict = judge(measured([0.01, 0.02, 0.015] * 9), measured([0.1, 0.1001, 0.1]), 1)
    assert verdict.has_edge
    assert verdict.text.endswith("Yet always long had the better Sharpe ratio.")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"horizon": 5}, "horizon: Extra inputs"),
        ({"label": {"horizon_trades": 0}}, "label.horizon_trades"),
        ({"learners": []}, "learners"),
        ({"learners": [{"kind": "logistic", "trees": 5}]}, "learners.0.logistic.trees"),
        ({"data": {"kind": "elsewhere"}}, "data"),
        ({"costs": {"fee_bps": math.nan}}, "costs.fee_bps"),
    ],
)
def test_a_key_that_is_unknown_or_out_of_range_is_named(tmp_path: Path, more: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigInvalid, match=says):
        config(tmp_path, **more)


@pytest.mark.parametrize("name", ["daily.toml", "binance-spot.toml"])
def test_the_example_configurations_are_valid(name: str) -> None:
    assert load_config(CONFIGS / name).learners


def test_data_and_repository_can_be_named_from_outside(tmp_path: Path) -> None:
    daily = load_config(CONFIGS / "daily.toml", data="nasdaq:2003-2005", models=tmp_path, name="other")
    assert daily.data.model_dump() == {"kind": "daily", "source": "nasdaq:2003-2005"}
    assert daily.package.repository == tmp_path
    assert daily.package.name == "other"


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("a = ")
    with pytest.raises(ConfigInvalid, match=r"broken\.toml"):
        load_config(path)


def test_the_command_trains_on_a_real_capture_and_publishes(tmp_path: Path) -> None:
    arguments = [str(CONFIGS / "binance-spot.toml"), "--data", str(capture_path(SPOT_BTC)), "--models", str(tmp_path)]
    outcome = CliRunner().invoke(train, arguments, env={"COLUMNS": "160"})
    assert outcome.exit_code == 0, outcome.output
    manifest = read_manifest(tmp_path / "btc-micro" / "1")
    assert isinstance(manifest, Manifest)
    assert "always long" in outcome.output
    assert "BTCUSDT" in outcome.output
    assert ("No edge" in outcome.output) != ("An edge" in outcome.output)


def test_the_command_without_publishing_writes_nothing(tmp_path: Path) -> None:
    arguments = [str(CONFIGS / "daily.toml"), "--data", "sp500:1999-2001", "--models", str(tmp_path), "--no-publish"]
    outcome = CliRunner().invoke(train, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert not list(tmp_path.iterdir())


def test_the_command_reports_an_error_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text((CONFIGS / "daily.toml").read_text().replace("[label]", "[label]\nhorizont = 1"))
    outcome = CliRunner().invoke(train, [str(path)])
    assert outcome.exit_code == 1
    assert outcome.output.startswith("Error: ")
    assert "label.horizont" in outcome.output
    assert "Traceback" not in outcome.output


def test_the_report_states_the_verdict(planted: RunResult) -> None:
    console = Console(record=True, width=160, file=io.StringIO())
    report.show(planted, console)
    text = console.export_text()
    assert planted.verdict.text in text
    assert ("undefined" in text) == bool(planted.baseline.undefined)


def test_the_report_admits_what_is_undefined(planted: RunResult) -> None:
    unknown = dataclasses.replace(planted.baseline, sharpe=math.nan, undefined={"sharpe": "the returns do not vary"})
    console = Console(record=True, width=160, file=io.StringIO())
    report.show(dataclasses.replace(planted, baseline=unknown), console)
    assert "undefined" in console.export_text()


def test_a_manifest_is_plain_json(planted: RunResult) -> None:
    assert planted.published is not None
    document = json.loads((planted.published.folder / "manifest.json").read_text())
    assert document["decision_threshold"] == planted.published.manifest.decision_threshold
