"""Combinatorial purged cross-validation as a part of a run: what is fitted, what is kept, what the paths say."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from tests.training.runs import HERE, LIGHTGBM, LOGISTIC, UNPUBLISHED, config, panel, same_series, short_run

from tickgate_training import report
from tickgate_training.data.simulator import simulate
from tickgate_training.errors import ConfigInvalid, TooFewRows
from tickgate_training.folds import Folder
from tickgate_training.metrics import measure
from tickgate_training.paths import read_path_fold, splits_of
from tickgate_training.pipeline import Options, run
from tickgate_training.report.paths_section import paths_section
from tickgate_training.results import RunResult
from tickgate_training.samples import prepare
from tickgate_training.splits.combinatorial import CombinatorialConfig, combinatorial, with_validation
from tickgate_training.trading import Trader
from tickgate_training.tuning import Configuration

GROUPS = {"groups": 4, "test_groups": 2, "embargo_rows": 20}
SPLITS, PATHS = 6, 3


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("planted")
    return short_run(folder, UNPUBLISHED, learners=[LIGHTGBM, LOGISTIC], combinatorial=GROUPS)


def same_paths(one: RunResult, other: RunResult) -> bool:
    assert one.paths is not None
    assert other.paths is not None
    return (
        one.paths.net_returns.tobytes() == other.paths.net_returns.tobytes()
        and one.paths.selected == other.paths.selected
        and one.paths.trials == other.paths.trials
    )


@given(
    lengths=st.lists(st.integers(0, 12), min_size=12, max_size=80),
    groups=st.integers(4, 6),
    embargo=st.integers(0, 5),
)
def test_nothing_that_is_fitted_or_chosen_on_meets_what_is_tested(
    lengths: list[int], groups: int, embargo: int
) -> None:
    rows = len(lengths)
    ends = np.arange(rows) + np.array(lengths)
    looked_at = [set(range(row, end + 1)) for row, end in enumerate(ends.tolist())]
    for split in with_validation(combinatorial(rows, groups, 2, embargo)):
        tests = [set(range(test.start, test.stop)) for test in split.split.tests]
        validation = set(range(split.validation.start, split.validation.stop))
        train, chosen_on = split.train_rows(ends).tolist(), split.validation_rows(ends).tolist()
        assert validation.isdisjoint(set().union(*tests))
        assert set(chosen_on) <= validation
        assert set(train).isdisjoint(validation.union(*tests))
        for row, others in [(row, [*tests, validation]) for row in train] + [(row, tests) for row in chosen_on]:
            for block in others:
                spans = [looked_at[other] for other in block if ends[other] < rows]
                last = max(block.union(*spans))
                assert looked_at[row].isdisjoint(block.union(*spans))
                assert row < min(block) or row > last + embargo


def test_every_group_has_its_turn_at_being_validated_on() -> None:
    splits = with_validation(combinatorial(60, 6, 2))
    turns = [split.validation.start // 10 for split in splits]
    assert len(turns) == 15
    assert {turns.count(group) for group in range(6)} == {2, 3}
    with pytest.raises(ValueError, match="leaves 1 group"):
        with_validation(combinatorial(60, 3, 2))


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"groups": 4, "test_groups": 3}, "at most 2 of 4, got 3"),
        ({"groups": 3}, "greater than or equal to 4"),
        ({"groups": 30, "test_groups": 15}, "155,117,520 splits, at most 10,000"),
        ({"embargo_rows": -1}, "greater than or equal to 0"),
        ({"unit": "days"}, "'rows' or 'sessions'"),
    ],
)
def test_a_section_that_cannot_be_run_is_refused_with_the_reason(
    tmp_path: Path, section: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigInvalid, match=says):
        config(tmp_path, combinatorial=section)
    with pytest.raises(ValidationError, match=says):
        CombinatorialConfig.model_validate(section)


def test_a_planted_edge_is_found_down_every_path(planted: RunResult) -> None:
    paths = planted.paths
    assert paths is not None
    assert (paths.splits, len(paths.selected)) == (SPLITS, PATHS)
    assert paths.net_returns.shape == (PATHS, 7000 - 2)  # the last two rows have no two marks after them
    assert min(metrics.sharpe for metrics in paths.selected) > 0.0
    assert min(metrics.total_return_summed for metrics in paths.selected) > 0.0
    assert len({metrics.sharpe for metrics in paths.selected}) == PATHS  # the test groups are fitted differently
    assert [len(trial.net) for trial in paths.trials] == [PATHS, PATHS]
    assert sum(trial.chosen_splits for trial in paths.trials) == SPLITS
    # Each group is tested in 3 of the 6 splits; the first 10 rows of all have no features yet.
    assert paths.parity_rows == 3 * (7000 - 10)
    assert paths.parity_difference <= 1e-5


def test_a_path_is_traded_in_one_piece_from_its_splits_positions(planted: RunResult) -> None:
    settings = config(planted.folder, learners=[LIGHTGBM, LOGISTIC], combinatorial=GROUPS)
    samples = prepare(simulate(7000, 1, 0.3), settings)
    files = sorted((planted.folder / "path_folds").glob("*.npz"))
    folds = [read_path_fold(path) for path in files]
    # By hand: of 4 groups of 1,750 rows, a path takes each group from the first split left that tests it.
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    taken: dict[int, list[NDArray[np.float64]]] = {group: [] for group in range(4)}
    for fold, pair in zip(folds, pairs, strict=True):
        for place, group in enumerate(pair):
            taken[group].append(fold.positions[fold.chosen][place * 1750 : (place + 1) * 1750])
    trader = Trader(samples.books, samples.stamps_ns, settings)
    by_hand = [trader.run(np.concatenate([taken[group][path] for group in range(4)]), 0) for path in range(PATHS)]
    assert planted.paths is not None
    found = {net.tobytes() for net in planted.paths.net_returns}
    assert found == {path.result.net.tobytes() for path in by_hand}
    sharpes = sorted(measure(path.result, settings.periods_per_year).sharpe for path in by_hand)
    assert sorted(metrics.sharpe for metrics in planted.paths.selected) == sharpes


def test_a_row_purged_between_two_that_are_validated_on_is_not_traded(tmp_path: Path) -> None:
    settings = config(tmp_path)
    samples = prepare(simulate(4000, 1, 0.3), settings)

    class Holed:
        number = 0

        def train_rows(self, interval_end: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.arange(interval_end.size)[:2000]

        def validation_rows(self, interval_end: NDArray[np.int64]) -> NDArray[np.int64]:
            rows = np.arange(interval_end.size)[2500:3500]
            return rows[(rows - 2500) % 100 >= 10]

    fitted = Folder(samples, settings, ()).fit(Configuration(0, settings.learners[0]), Holed())
    scores = fitted.score(samples, np.arange(2510, 3500))
    scores[(np.arange(2510, 3500) - 2500) % 100 < 10] = np.nan
    trader = Trader(samples.books, samples.stamps_ns, settings)
    last = int(samples.labels.interval_end[3499])
    traded = trader.run(trader.decide(scores, fitted.choice.threshold, 2510), 2510, last + 1)
    assert fitted.choice.validation_round_trips == traded.result.trip_net.size > 10
    assert fitted.choice.validation_net_return == traded.result.net.sum()


def test_the_walk_forward_is_the_same_with_and_without_paths(tmp_path: Path, planted: RunResult) -> None:
    alone = short_run(tmp_path, UNPUBLISHED, learners=[LIGHTGBM, LOGISTIC])
    assert alone.paths is None
    assert same_series(planted, alone)


def test_paths_are_the_same_to_the_bit_from_nothing_and_in_two_processes(tmp_path: Path, planted: RunResult) -> None:
    more = {"learners": [LIGHTGBM, LOGISTIC], "combinatorial": GROUPS}
    assert same_paths(planted, run(config(tmp_path, **more), Options(jobs=2, publish=False)))


def test_finished_splits_are_not_run_again_and_lost_ones_are(tmp_path: Path) -> None:
    first = short_run(tmp_path, UNPUBLISHED, combinatorial=GROUPS)
    files = sorted((first.folder / "path_folds").iterdir())
    assert len(files) == SPLITS
    files[1].write_bytes(b"half of a fo")
    files[4].unlink()
    stamps = {path.name: path.stat().st_mtime_ns for path in files if path.exists()}
    again = short_run(tmp_path, UNPUBLISHED, combinatorial=GROUPS)
    after = {path.name: path.stat().st_mtime_ns for path in sorted((again.folder / "path_folds").iterdir())}
    assert len(after) == SPLITS
    assert {name for name in stamps if after[name] != stamps[name]} == {files[1].name}
    assert same_paths(first, again)
    fresh = short_run(tmp_path, replace(UNPUBLISHED, fresh=True), combinatorial=GROUPS)
    assert not {path.stat().st_mtime_ns for path in (fresh.folder / "path_folds").iterdir()} & set(after.values())
    assert same_paths(first, fresh)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        (
            GROUPS | {"embargo_rows": 4000},
            r"split \d, (train|validation) after purging and embargo: 0 rows, at least 2",
        ),
        (GROUPS | {"unit": "sessions"}, r"one for each group: \d sessions, at least 4 needed"),
    ],
    ids=["nothing left", "fewer sessions than groups"],
)
def test_data_too_short_are_refused_before_anything_is_run(
    tmp_path: Path, section: dict[str, object], says: str
) -> None:
    with pytest.raises(TooFewRows, match=says):
        short_run(tmp_path, HERE, combinatorial=section)
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "runs").exists()


def test_a_panels_paths_hold_every_symbol_on_one_capital(tmp_path: Path) -> None:
    lengths = {"train_rows": 1500, "validation_rows": 600, "test_rows": 500}
    found = run(config(tmp_path, walk_forward=lengths, combinatorial=GROUPS), UNPUBLISHED, frame=panel())
    assert found.paths is not None
    assert found.paths.net_returns.shape == (PATHS, found.paths.stamps_ns.size)
    assert (np.diff(found.paths.stamps_ns) > 0).all()
    assert min(metrics.total_return_summed for metrics in found.paths.selected) > 0.0


def test_groups_of_sessions_are_cut_between_sessions(tmp_path: Path) -> None:
    stamps = 1_700_000_000_000_000_000 + np.arange(7000) * 60_000_000_000  # a row a minute: 1,440 a day
    frame = simulate(7000, 1, 0.3).with_columns(exchange_ts_ns=pl.Series(stamps))
    samples = prepare(frame, config(tmp_path))
    splits = splits_of(samples, CombinatorialConfig(groups=4, test_groups=2, unit="sessions"))
    edges = {test.start for split in splits for test in split.split.tests} - {0}
    assert len(edges) == 3
    assert all(samples.sessions[edge] != samples.sessions[edge - 1] for edge in edges)


def test_the_report_tells_the_paths_and_how_far_they_lie_apart(planted: RunResult, tmp_path: Path) -> None:
    files = report.write(planted, tmp_path)
    assert planted.paths is not None
    found = json.loads(files.document.read_bytes())["paths"]
    sharpes = sorted(metrics.sharpe for metrics in planted.paths.selected)
    assert (found["splits"], found["paths"]) == (SPLITS, PATHS)
    assert sorted(metrics["sharpe"] for metrics in found["by_path"]) == sharpes
    told = found["selected"]["sharpe"]
    assert (told["least"], told["median"], told["greatest"]) == tuple(sharpes)
    assert told["lower"] == pytest.approx((sharpes[0] + sharpes[1]) / 2)
    assert told["std"] == pytest.approx(math.sqrt(sum((one - sum(sharpes) / 3) ** 2 for one in sharpes) / 2))
    assert (told["defined_paths"], told["positive_share"]) == (3, 1.0)
    page = files.page.read_text(encoding="utf-8")
    assert '<section id="paths">' in page
    assert files.plots[-1].name == "paths.png"
    assert files.paths is not None
    frame = pl.read_parquet(files.paths)
    assert frame.columns == ["stamps_ns", "path_1", "path_2", "path_3"]
    assert frame["path_2"].to_numpy().tobytes() == planted.paths.net_returns[1].tobytes()


def test_a_report_without_paths_has_no_word_of_them(planted: RunResult, tmp_path: Path) -> None:
    files = report.write(replace(planted, paths=None), tmp_path)
    assert files.paths is None
    assert "paths" not in json.loads(files.document.read_bytes())
    assert "Combinatorial purged" not in files.page.read_text(encoding="utf-8")


def test_paths_that_never_trade_have_no_sharpe_ratio_and_say_so(tmp_path: Path) -> None:
    policy = {"decide_every_rows": 5, "risk_budget": 1e-9, "lot": 1.0}
    found = short_run(tmp_path, UNPUBLISHED, policy=policy, combinatorial=GROUPS)
    assert found.paths is not None
    told = paths_section(found.paths)
    assert told["selected"]["sharpe"]["defined_paths"] == 0
    assert told["selected"]["sharpe"]["median"] is None
    assert told["selected"]["sharpe"]["undefined"]["median"] == "it is defined on no path"
    assert told["by_path"][0]["undefined"]["sharpe"]
    page = report.write(found, tmp_path).page.read_text(encoding="utf-8")
    assert "it is defined on no path" in page
