"""The whole run, on the simulator and on real data, and what it publishes."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.training.runs import HERE, LIGHTGBM, LOGISTIC, UNPUBLISHED, config, panel, same_series, short_run

from tickgate_server.features.schema import micro10
from tickgate_server.models.errors import VersionExists
from tickgate_server.models.package import MODEL_FILE, read_manifest, sha256, versions
from tickgate_server.models.verdict import CheckName
from tickgate_training import folds, publishing
from tickgate_training.calibration import Platt
from tickgate_training.data.simulator import simulate
from tickgate_training.errors import (
    ColumnInvalid,
    FeatureUndefined,
    OneClassOnly,
    ParityBroken,
    RowInvalid,
    RunInUse,
    TooFewRows,
    TrainingError,
)
from tickgate_training.export import probabilities
from tickgate_training.pipeline import run
from tickgate_training.results import RunResult
from tickgate_training.run_folder import held
from tickgate_training.samples import prepare


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return short_run(tmp_path_factory.mktemp("planted"), learners=[LIGHTGBM, LOGISTIC])


def test_a_planted_edge_is_found(planted: RunResult) -> None:
    checks = {check.name: check for check in planted.verdict.checks}
    for name in (CheckName.DEFLATED_SHARPE_2014, CheckName.DEFLATED_SHARPE_2025, CheckName.TRACK_RECORD_2012):
        assert checks[name].passed, checks[name]
    for series in (planted.selected, *(trial.series for trial in planted.trials)):
        assert series.gross.total_return_summed > series.net.total_return_summed > 0
        assert series.accuracy > series.majority_accuracy + 0.05
    assert not any(window.threshold_fallback for window in planted.windows)
    assert planted.suspicions == ()


def test_windows_tile_and_add_up_to_the_stitched_series(planted: RunResult) -> None:
    windows, net = planted.windows, planted.selected.net
    assert [window.number for window in windows] == list(range(6))
    assert sum(window.net_return for window in windows) == pytest.approx(net.total_return_summed)
    gross = planted.selected.gross.total_return_summed
    assert sum(window.gross_return for window in windows) == pytest.approx(gross)
    assert net.periods == 6 * 700 - 2  # the last two rows have no two marks after them
    spread = planted.selected.spread
    assert spread.mean == pytest.approx(net.total_return_summed / 6)
    assert spread.worst <= spread.mean <= spread.best
    for before, after in itertools.pairwise(windows):
        assert before.test_stop_ns < after.test_start_ns
    long = planted.baselines[0]
    assert (long.name, long.net.round_trips, long.net.exposure) == ("always long", 1, 1.0)


def test_each_window_takes_what_earned_most_on_its_own_validation(planted: RunResult) -> None:
    assert sum(trial.chosen_windows for trial in planted.trials) == len(planted.windows)
    files = sorted((planted.folder / "folds").glob("*.npz"))
    for window, path in zip(planted.windows, files, strict=True):
        fold = folds.read_fold(path)
        earned = [tried.validation_net_return for tried in fold.tried]
        assert earned[window.configuration] == max(earned) == window.validation_net_return
        assert window.parity_difference <= 1e-5
        assert window.parity_rows == 700


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
    assert manifest.validation.metrics["net_sharpe"] == pytest.approx(planted.selected.net.sharpe)
    assert manifest.validation.trials == 2
    assert manifest.promotion == planted.verdict
    assert {"lightgbm", "onnxruntime", "numpy", "python"} <= set(manifest.libraries)


def test_what_is_undefined_is_null_in_the_manifest(tmp_path: Path) -> None:
    dear = {"fee_bps": 0.0, "half_spread_bps": 0.0}
    result = short_run(tmp_path, costs=dear, policy={"decide_every_rows": 5, "risk_budget": 1e-9, "lot": 1.0})
    assert not result.verdict.passed
    assert result.published is not None
    metrics = read_manifest(result.published.folder).validation.metrics
    assert metrics["net_sharpe"] is None
    assert metrics["net_win_rate"] is None
    assert metrics["round_trips"] == 0


def test_a_run_from_nothing_gives_the_same_bytes_again(tmp_path: Path) -> None:
    both = [short_run(tmp_path / name, learners=[LIGHTGBM, LOGISTIC], tuning={"trials": 2}) for name in ("a", "b")]
    one, two = both
    assert one.published is not None
    assert two.published is not None
    assert one.published.manifest.model_sha256 == two.published.manifest.model_sha256
    assert one.published.manifest.validation == two.published.manifest.validation
    assert one.fingerprint == two.fingerprint
    assert same_series(one, two)


def test_a_second_run_goes_by_the_folds_of_the_first_and_publishes_the_next_version(tmp_path: Path) -> None:
    first = short_run(tmp_path)
    stamps = [path.stat().st_mtime_ns for path in sorted((first.folder / "folds").iterdir())]
    second = short_run(tmp_path)
    assert versions(tmp_path / "models", "sim") == [1, 2]
    assert [path.stat().st_mtime_ns for path in sorted((second.folder / "folds").iterdir())] == stamps
    assert same_series(first, second)
    fresh = short_run(tmp_path, replace(HERE, fresh=True))
    assert [path.stat().st_mtime_ns for path in sorted((fresh.folder / "folds").iterdir())] != stamps
    assert same_series(first, fresh)


def test_a_fold_that_cannot_be_read_is_run_again(tmp_path: Path) -> None:
    first = short_run(tmp_path, UNPUBLISHED)
    (first.folder / "folds" / "000002.npz").write_bytes(b"half of a fo")
    (first.folder / "folds" / "000003.npz").unlink()
    assert same_series(first, short_run(tmp_path, UNPUBLISHED))


def test_what_a_run_depends_on_has_a_folder_of_its_own(tmp_path: Path) -> None:
    one = short_run(tmp_path, UNPUBLISHED)
    assert short_run(tmp_path, UNPUBLISHED, package={"name": "sim", "repository": "other"}).folder == one.folder
    assert short_run(tmp_path, UNPUBLISHED, seed=2).folder != one.folder
    other = {"kind": "simulated", "trades": 7000, "seed": 2, "edge": 0.3}
    assert short_run(tmp_path, UNPUBLISHED, data=other).folder != one.folder


def test_a_run_that_another_process_works_on_is_refused(tmp_path: Path) -> None:
    settings = config(tmp_path)
    with (
        held(settings.runs, settings, prepare(simulate(7000, 1, 0.3), settings).fingerprint),
        pytest.raises(RunInUse, match="another process"),
    ):
        run(settings, UNPUBLISHED)


def test_appended_rows_change_no_earlier_window(tmp_path: Path) -> None:
    settings = config(tmp_path, tuning={"trials": 2, "sampler": "tpe", "batch": 1})
    frame = simulate(8000, seed=4, edge=0.3)
    short = run(settings, UNPUBLISHED, frame=frame.head(5000))
    long = run(settings, UNPUBLISHED, frame=frame)
    known = short.windows[:-1]  # the last one's final position is closed in the shorter series
    assert long.windows[: len(known)] == known
    assert len(long.windows) > len(short.windows)
    assert [trial.configuration for trial in long.trials] == [trial.configuration for trial in short.trials]


@pytest.mark.parametrize("label", ["fixed_horizon", "triple_barrier"])
def test_a_panel_is_walked_symbol_by_symbol_on_one_capital(tmp_path: Path, label: str) -> None:
    lengths = {"train_rows": 1500, "validation_rows": 600, "test_rows": 500}
    settings = config(
        tmp_path,
        walk_forward=lengths,
        label={"kind": label, "horizon_trades": 5},
        weights={"basis": "uniqueness"},
        calibration="isotonic",
    )
    frame = panel()
    result = run(settings, HERE, frame=frame)
    assert result.symbols == ("A", "B", "C")
    assert result.rows == frame.height
    assert sum(window.net_return for window in result.windows) == pytest.approx(
        result.selected.net.total_return_summed, abs=1e-12
    )
    assert result.selected.accuracy > result.selected.majority_accuracy
    assert (np.diff(result.selected.stamps_ns) > 0).all()
    assert {baseline.name for baseline in result.baselines} == {"always long", "last sign", "random timing"}
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1).sort("exchange_ts_ns", "sequence")
    again = run(config(tmp_path / "again", **_document(settings)), UNPUBLISHED, frame=shuffled)
    assert same_series(result, again)  # in whatever order the symbols came


def _document(settings: object) -> dict[str, object]:
    found = settings.model_dump(mode="json", include={"walk_forward", "label", "weights", "calibration"})  # type: ignore[attr-defined]
    return dict(found)


def test_sessions_are_counted_by_the_calendar(tmp_path: Path) -> None:
    data = {"kind": "daily", "source": "sp500:1999-2002"}
    sessions = {"kind": "sessions", "train_sessions": 252, "validation_sessions": 63, "test_sessions": 21}
    more = {"data": data, "calendar": "XNYS", "features": {"session_gap_ns": 0}, "label": {"horizon_trades": 1}}
    policy = {"risk_budget": 50_000.0, "volatility_floor": 0.002}
    by_session = short_run(tmp_path, UNPUBLISHED, walk_forward=sessions, policy=policy, **more)
    rows = {"train_rows": 252, "validation_rows": 63, "test_rows": 21}
    by_row = short_run(tmp_path / "rows", UNPUBLISHED, walk_forward=rows, policy=policy, **more)
    assert len(by_session.windows) > 20
    assert same_series(by_session, by_row)  # a daily bar is a session


def test_a_version_taken_in_between_is_stepped_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = publishing.versions
    answers = iter([[]])
    short_run(tmp_path)
    monkeypatch.setattr(publishing, "versions", lambda *place: next(answers, None) or listed(*place))
    result = short_run(tmp_path)
    assert result.published is not None
    assert result.published.manifest.version == 2


def test_a_version_that_is_always_taken_ends_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_run(tmp_path)
    monkeypatch.setattr(publishing, "versions", lambda *_: [])
    with pytest.raises(VersionExists):
        short_run(tmp_path)
    assert versions(tmp_path / "models", "sim") == [1]


def test_a_graph_that_is_not_the_model_is_never_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = publishing.export
    monkeypatch.setattr(
        publishing,
        "export",
        lambda model, found, primary: right(model, Platt(found.slope, found.intercept + 1e-3), primary),
    )
    with pytest.raises(ParityBroken):
        short_run(tmp_path)
    assert not (tmp_path / "models").exists()


def test_a_disk_that_fails_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        short_run(tmp_path)
    assert not list((tmp_path / "models" / "sim").iterdir())


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
        (simulate(10, seed=1), FeatureUndefined, "'ret_1 of .*' is not finite in every row"),
        (constant(4000).with_columns(price=100.0 + pl.int_range(pl.len()) * 0.01), OneClassOnly, "labels are 1"),
        (constant(4000), TooFewRows, "fit: 0 rows"),
        (simulate(4000, seed=1).reverse(), RowInvalid, "row 1.*do not decrease"),
    ],
    ids=["short", "not ready", "one class", "no label", "unsorted"],
)
def test_bad_data_end_in_an_error_that_names_them_and_write_nothing(
    tmp_path: Path, frame: pl.DataFrame, error: type[TrainingError], says: str
) -> None:
    with pytest.raises(error, match=says):
        run(config(tmp_path), HERE, frame=frame)
    assert not (tmp_path / "models").exists()


def test_micro32_is_trained_on_the_same_ticks_and_refuses_a_feed_without_quotes(tmp_path: Path) -> None:
    wide = {"feature_set": "micro32", "session_gap_ns": 0}
    result = short_run(tmp_path, features=wide)
    assert len(result.feature_names) == 32
    assert result.published is not None
    assert result.published.manifest.features.feature_set == "micro32"
    assert result.selected.accuracy > result.selected.majority_accuracy + 0.01
    unquoted = constant(4000).with_columns(price=100.0 + pl.int_range(pl.len()) % 7)
    with pytest.raises(ColumnInvalid, match="'bid': found no quote in any row of SIM"):
        run(config(tmp_path, features=wide), HERE, frame=unquoted)


def test_a_manifest_is_plain_json(planted: RunResult) -> None:
    assert planted.published is not None
    document = json.loads((planted.published.folder / "manifest.json").read_text())
    assert document["decision_threshold"] == planted.published.manifest.decision_threshold
    assert document["promotion"]["passed"] == planted.verdict.passed
