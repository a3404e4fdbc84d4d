"""The verb `train`, as a user types it."""

import math
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.real_data import SPOT_BTC, capture_path
from tests.training.runs import config

from tickgate_server.models.package import read_manifest
from tickgate_training.commands import train
from tickgate_training.config import load_config
from tickgate_training.errors import ConfigInvalid

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"horizon": 5}, "horizon: Extra inputs"),
        ({"label": {"horizon_trades": 0}}, "label.fixed_horizon.horizon_trades"),
        ({"learners": []}, "learners"),
        ({"learners": [{"kind": "logistic", "trees": 5}]}, "learners.0.logistic.trees"),
        ({"data": {"kind": "elsewhere"}}, "data"),
        ({"costs": {"fee_bps": math.nan}}, "costs.fee_bps"),
        ({"tuning": {"trials": 0}}, "tuning.trials"),
        ({"calibration": "beta"}, "calibration"),
    ],
)
def test_a_key_that_is_unknown_or_out_of_range_is_named(tmp_path: Path, more: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigInvalid, match=says):
        config(tmp_path, **more)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_the_example_configurations_are_valid(path: Path) -> None:
    assert load_config(path).learners


def test_data_and_places_can_be_named_from_outside(tmp_path: Path) -> None:
    daily = load_config(CONFIGS / "daily.toml", data="nasdaq:2003-2005", models=tmp_path, name="other", runs=tmp_path)
    assert daily.data.model_dump() == {"kind": "daily", "source": "nasdaq:2003-2005"}
    assert (daily.package.repository, daily.runs) == (tmp_path, tmp_path)
    assert daily.package.name == "other"


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("a = ")
    with pytest.raises(ConfigInvalid, match=r"broken\.toml"):
        load_config(path)


def places(folder: Path) -> list[str]:
    return ["--models", str(folder / "models"), "--runs", str(folder / "runs"), "--jobs", "1"]


def test_the_command_trains_on_a_real_capture_and_publishes(tmp_path: Path) -> None:
    arguments = [str(CONFIGS / "binance-spot.toml"), "--data", str(capture_path(SPOT_BTC)), *places(tmp_path)]
    outcome = CliRunner().invoke(train, arguments, env={"COLUMNS": "160"})
    assert outcome.exit_code == 0, outcome.output
    manifest = read_manifest(tmp_path / "models" / "btc-micro" / "1")
    assert manifest.promotion is not None
    assert not manifest.promotion.passed
    assert "always long" in outcome.output
    assert "BTCUSDT" in outcome.output
    (page,) = (tmp_path / "runs" / "btc-micro").glob("*/report.html")
    assert str(page) in outcome.output.replace("\n", "")


def test_the_command_without_publishing_writes_no_package(tmp_path: Path) -> None:
    arguments = [str(CONFIGS / "daily.toml"), "--data", "sp500:1999-2001", *places(tmp_path), "--no-publish"]
    outcome = CliRunner().invoke(train, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert not (tmp_path / "models").exists()


def test_the_command_reports_an_error_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text((CONFIGS / "daily.toml").read_text().replace("[label]", "[label]\nhorizont = 1"))
    outcome = CliRunner().invoke(train, [str(path)])
    assert outcome.exit_code == 1
    assert outcome.output.startswith("Error: ")
    assert "label.fixed_horizon.horizont" in outcome.output
    assert "Traceback" not in outcome.output
