"""A run that is stopped, by a person or by force, goes on where it was, and finds what it would have found."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.training.runs import LIGHTGBM

from tickgate_server.models.package import versions
from tickgate_training.run_folder import RunFolder

CONFIG = """
seed = 1
[data]
kind = "simulated"
trades = 10000
edge = 0.3
[package]
name = "sim"
[label]
horizon_trades = 5
[walk_forward]
train_rows = 2000
validation_rows = 800
test_rows = 700
[policy]
decide_every_rows = 5
risk_budget = 1000.0
[[learners]]
kind = "lightgbm"
"""
WINDOWS = 10
_PATIENCE_S = 120.0


def training(folder: Path) -> "subprocess.Popen[str]":
    config = folder / "config.toml"
    config.write_text(CONFIG + f"trees = {5 * LIGHTGBM['trees']}\n")
    command = [str(Path(sys.executable).with_name("tickgate")), "train", str(config), "--jobs", "1"]
    command += ["--models", str(folder / "models"), "--runs", str(folder / "runs")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def folds(folder: Path) -> list[Path]:
    return sorted(folder.glob("runs/sim/*/folds/*.npz"))


def finish(folder: Path) -> None:
    with training(folder) as process:
        _, said = process.communicate(timeout=_PATIENCE_S)
        assert process.returncode == 0, said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    finish(folder)
    return folder


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, whole: Path, how: signal.Signals) -> None:
    stopped = tmp_path
    with training(stopped) as process:
        until = time.monotonic() + _PATIENCE_S
        while not folds(stopped):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(how)
        _, said = process.communicate(timeout=_PATIENCE_S)
    kept = {path.name: path.stat().st_mtime_ns for path in folds(stopped)}
    assert 0 < len(kept) < WINDOWS
    assert not (stopped / "models").exists()
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on" in said
        assert "Traceback" not in said

    finish(stopped)
    again = {path.name: path.stat().st_mtime_ns for path in folds(stopped)}
    assert {name: again[name] for name in kept} == kept
    assert len(again) == WINDOWS
    assert versions(stopped / "models", "sim") == [1]
    name = "models/sim/1/model.onnx"
    assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    one, other = (RunFolder(path.parents[1]).finished() for path in (folds(stopped)[0], folds(whole)[0]))
    for number in range(WINDOWS):
        assert one[number].probabilities.tobytes() == other[number].probabilities.tobytes()
        assert one[number].tried == other[number].tried
