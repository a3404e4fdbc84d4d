"""Rounds: what each leaves behind, whatever happens in the middle of it, and who wins where two promote at once."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.training.turning_market import EVALUATED, arrive, first_champion, net_of, one_round, settings, turning

from tickgate_server.models import aliases
from tickgate_server.models.loading import load
from tickgate_server.models.package import MANIFEST_FILE, MODEL_FILE, read_manifest, versions
from tickgate_training.errors import RunInUse
from tickgate_training.retraining.config import RetrainConfig
from tickgate_training.retraining.errors import RetrainStopped, StateInvalid
from tickgate_training.retraining.newest import read_newest
from tickgate_training.retraining.round import Stage, serving
from tickgate_training.retraining.rounds import ROUNDS_FILE, UNDER_WAY_FILE, RoundLine, held

BEGIN, TURN, ROWS = 3500, 4000, 8000


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A champion of the time before the turn, and all data that a challenger of the time after it needs."""
    folder = tmp_path_factory.mktemp("market")
    frame = turning(ROWS, 0)
    first_champion(settings(folder), frame[:BEGIN])
    arrive(folder, frame, 0, ROWS)
    return folder


@pytest.fixture
def place(market: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    shutil.copytree(market, tmp_path, dirs_exist_ok=True)
    return tmp_path


def repository_of(config: RetrainConfig) -> dict[str, bytes]:
    """Every byte of every version, and what the aliases say; locks and what is half there left out."""
    folder = config.model_folder
    files = [folder / str(number) / name for number in versions(folder.parent, folder.name)
             for name in (MANIFEST_FILE, MODEL_FILE)]  # fmt: skip
    files += [folder / aliases.ALIASES_FILE] if (folder / aliases.ALIASES_FILE).exists() else []
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_round_leaves_a_version_with_its_verdict_the_aliases_and_a_line(place: Path) -> None:
    config = settings(place)
    line = one_round(config)
    assert (line.decision, line.champion_version, line.published) == ("promoted", 1, 2), line.reason
    package = config.model_folder / "2"
    manifest = read_manifest(package)
    assert manifest.promotion == line.verdict
    assert manifest.data_fingerprint == (line.data and line.data.fingerprint)
    assert manifest.validation.trials == line.trials == 1
    load(package)  # all checks of the server
    found = aliases.read_aliases(config.model_folder)
    assert found is not None
    assert (found.production, found.shadow, found.previous) == (2, None, 1)
    assert [(change.alias, change.before, change.after) for change in found.changes] == [
        ("production", 1, 1),
        ("shadow", None, 2),
        ("production", 1, 2),
        ("shadow", 2, None),
    ]
    (text,) = (place / "state" / ROUNDS_FILE).read_text().splitlines()
    kept = json.loads(text)
    assert RoundLine.model_validate(kept) == line
    assert kept["window"]["evaluation"]["rows"] == EVALUATED
    assert kept["window"]["evaluation"]["last_ns"] == kept["data"]["last_ns"]
    assert kept["window"]["validation"]["last_ns"] < kept["window"]["evaluation"]["first_ns"]
    assert kept["test"]["p_value"] <= config.retrain.rule.p_value
    assert kept["champion"]["metrics"]["net_sharpe"] < 0.0 < kept["challenger"]["metrics"]["net_sharpe"]


def test_both_are_scored_as_their_packages_say_and_traded_as_the_backtest_trades(place: Path) -> None:
    config = settings(place)
    line = one_round(config)
    samples = read_newest(config).samples
    for version, said in ((1, line.champion), (line.published, line.challenger)):
        assert said is not None
        assert version is not None
        net = net_of(config, samples, [(ROWS - EVALUATED, version)], ROWS - EVALUATED, ROWS)
        assert said.version == version
        assert said.metrics["net_total_return_summed"] == pytest.approx(float(net.sum()), rel=1e-12)
        assert said.metrics["periods"] == net.size


def test_several_symbols_are_one_model(tmp_path: Path) -> None:
    config = settings(tmp_path)
    frames = [turning(3500, seed).with_columns(symbol=pl.lit(name)) for seed, name in enumerate("AB")]
    frame = pl.concat(frames).sort("exchange_ts_ns", "symbol", maintain_order=True)
    first_champion(config, frame[:3500])
    arrive(tmp_path, frame, 0, 7000)
    line = one_round(config)
    assert line.decision in ("shadow", "promoted"), line.reason
    assert line.data is not None
    assert line.data.symbols == ("A", "B")
    assert line.test is not None
    assert line.test.block_periods == 2 * (5 + 1)  # a label's reach, in each of both
    load(config.model_folder / "2")


def test_the_same_data_are_evaluated_once(place: Path) -> None:
    config = settings(place)
    one_round(config)
    before = repository_of(config)
    line = one_round(config)
    assert line.decision == "nothing_new"
    assert "0 rows are newer" in line.reason
    assert repository_of(config) == before


def test_by_hand_the_challenger_is_a_shadow_and_waits(place: Path) -> None:
    config = settings(place, promotion="hand")
    line = one_round(config)
    assert line.decision == "shadow"
    assert "waits for a hand" in line.reason
    found = aliases.read_aliases(config.model_folder)
    assert found is not None
    assert (found.production, found.shadow) == (1, 2)


def test_a_challenger_that_is_no_better_is_a_shadow_or_where_asked_not_published(market: Path, tmp_path: Path) -> None:
    for name, decision, count in (("always", "shadow", 2), ("when_better", "rejected", 1)):
        place = tmp_path / name
        shutil.copytree(market, place, ignore=shutil.ignore_patterns("ticks"))
        arrive(place, turning(ROWS, 0), 0, BEGIN + EVALUATED)  # fitted on what the champion was
        config = settings(place, publish=name)
        line = one_round(config)
        assert line.decision == decision, line.reason
        assert len(versions(config.model_folder.parent, "sim")) == count
        assert serving(config).champion == 1


@pytest.mark.parametrize("stage", list(Stage))
def test_a_round_killed_before_any_step_leaves_what_serves_and_the_next_goes_on(place: Path, stage: Stage) -> None:
    config = settings(place)
    before = repository_of(config)
    command = [sys.executable, "-m", "tests.training.retrain_child", str(place), stage.value]
    assert subprocess.run(command, check=False, timeout=120).returncode == -9
    after = repository_of(config)
    # Whole or not at all: what was there is there, what is new can be loaded.
    assert {name: after[name] for name in before} == before
    for number in versions(config.model_folder.parent, "sim"):
        load(config.model_folder / str(number))
    champion = serving(config).champion
    assert champion == (2 if stage is Stage.RECORD else 1)
    steps = list(Stage)
    if steps.index(stage) <= steps.index(Stage.NAME):
        assert after == before
    with held(config.retrain.state) as rounds:
        known = stage in (Stage.READ, Stage.FIT)  # what was not begun leaves no line
        assert [line.decision for line in rounds.lines] == ([] if known else ["interrupted"])
    line = one_round(config)
    if champion == 1:
        assert line.decision == "promoted", line.reason
        assert line.trials == (1 if known else 2)  # what was interrupted was tried
        assert serving(config).champion == line.published == max(versions(config.model_folder.parent, "sim"))
    else:  # it serves, and on these rows it cannot be told from itself
        assert line.decision == "shadow", line.reason
        assert serving(config).champion == 2


@pytest.mark.parametrize("stage", [Stage.READ, Stage.COMPARE, Stage.PUBLISH])
def test_a_process_that_is_told_to_end_does_so_between_two_steps(place: Path, stage: Stage) -> None:
    config = settings(place)
    reached: list[Stage] = []
    line = one_round(config, on_stage=reached.append, stop=lambda: reached[-1] == stage)
    assert line.decision == "stopped"
    assert line.reason == str(RetrainStopped(stage))
    assert versions(config.model_folder.parent, "sim") == [1]
    assert serving(config).champion == 1
    assert one_round(config).decision == ("nothing_new" if stage is Stage.PUBLISH else "promoted")


def promoted_by_another(config: RetrainConfig) -> None:
    """Somebody puts another version into production."""
    folder = config.model_folder
    other = folder / "7"
    shutil.copytree(folder / "1", other)
    text = (other / MANIFEST_FILE).read_text()
    (other / MANIFEST_FILE).write_text(text.replace('"version": 1', '"version": 7'))
    implied = None if aliases.read_aliases(folder) else 1
    aliases.change_alias(folder, "production", 7, expected=1, implied=implied, reason="a test", who="somebody")


@pytest.mark.parametrize("stage", [Stage.FIT, Stage.PROMOTE])
def test_of_two_promotions_at_once_the_other_wins_and_is_not_undone(place: Path, stage: Stage) -> None:
    config = settings(place)

    def meanwhile(reached: Stage) -> None:
        if reached == stage:
            promoted_by_another(config)

    line = one_round(config, on_stage=meanwhile)
    assert line.decision == "conflict"
    assert "7" in line.reason
    found = aliases.read_aliases(config.model_folder)
    assert found is not None
    assert (found.production, found.previous) == (7, 1)
    if stage is Stage.FIT:  # it was seen before anything was published
        assert versions(config.model_folder.parent, "sim") == [1, 7]
        assert found.shadow is None


def broken(config: RetrainConfig, how: str) -> None:
    folder = config.model_folder / "1"
    if how == "graph":
        (folder / MODEL_FILE).write_bytes(b"other bytes")
    elif how == "manifest":
        (folder / MANIFEST_FILE).unlink()
    elif how == "aliases":
        (config.model_folder / aliases.ALIASES_FILE).write_text("{")
    else:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("graph", "champion sim:1: its hash is"),
        ("manifest", "champion sim:1:"),
        ("aliases", "AliasesInvalid"),
        ("none", "no version of 'sim'"),
    ],
)
def test_without_a_champion_to_compare_with_a_round_fails_and_changes_nothing(place: Path, how: str, said: str) -> None:
    config = settings(place)
    broken(config, how)
    before = sorted(path.name for path in config.model_folder.iterdir())
    line = one_round(config)
    assert line.decision == "failed"
    assert said in line.reason
    assert sorted(path.name for path in config.model_folder.iterdir()) == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"training": {"label": {"horizon_trades": 6}}}, "its horizon in trades is 5, expected 6"),
        ({"training": {"features": {"session_gap_ns": 10**9}}}, "its schema id is"),
        ({"evaluation_length": 9000}, "evaluation block"),
        ({"train_length": 9000}, "TooFewRows"),
        ({"sources": [{"kind": "binance", "path": "nowhere.gz"}]}, "nowhere.gz"),
        (
            {"challengers": [{"kind": "continued"}]},
            "continued: the source of champion 1",
        ),
    ],
)
def test_what_cannot_be_compared_or_read_is_the_rounds_reason(place: Path, more: dict[str, Any], said: str) -> None:
    config = settings(place, **more)
    before = repository_of(config)
    line = one_round(config)
    assert line.decision == "failed"
    assert said in line.reason
    assert repository_of(config) == before


def test_a_torn_last_line_is_cut_off_and_the_round_is_told_as_interrupted(place: Path) -> None:
    config = settings(place)
    first = one_round(config)
    path = place / "state" / ROUNDS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"round":2,"beg')
    (place / "state" / UNDER_WAY_FILE).write_text(
        json.dumps({"round": 2, "began_ns": 5, "trigger": {}, "champion_version": 2, "tries": 3})
    )
    with held(config.retrain.state) as rounds:
        assert rounds.lines[0] == first
        assert (rounds.lines[1].decision, rounds.lines[1].round) == ("interrupted", 2)
        assert rounds.tries_against(2) == 3
        assert rounds.next_number == 3
    assert path.read_bytes().startswith(whole)
    assert not (place / "state" / UNDER_WAY_FILE).exists()


def test_a_line_that_is_no_round_is_named_and_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ROUNDS_FILE).write_text('{"round": 1}\n')
    with pytest.raises(StateInvalid, match="line 1 is no round"), held(tmp_path):
        pass
    assert (tmp_path / ROUNDS_FILE).read_text() == '{"round": 1}\n'


def test_a_state_has_one_process_at_a_time(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(RunInUse), held(tmp_path):
        pass
