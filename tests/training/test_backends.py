"""Windows run elsewhere: in processes here, on a cluster of Ray or of Dask; the same to the bit wherever they ran."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from distributed import Client, LocalCluster
from tests.training.runs import UNPUBLISHED, same_series

from tickgate_training import report
from tickgate_training.commands import train
from tickgate_training.config import TrainingConfig, parse_config
from tickgate_training.errors import BackendUnavailable
from tickgate_training.parallel import Backend
from tickgate_training.pipeline import Options, run
from tickgate_training.results import RunResult

CONFIG = """
[data]
kind = "simulated"
trades = 4900
seed = 1
edge = 0.3
[package]
name = "sim"
[label]
horizon_trades = 5
[walk_forward]
train_rows = 2000
validation_rows = 800
test_rows = 700
embargo_rows = 10
[combinatorial]
groups = 4
embargo_rows = 10
[policy]
decide_every_rows = 5
risk_budget = 1000.0
round_trips_minimum = 10
[[learners]]
kind = "lightgbm"
trees = 20
leaves = 7
[[learners]]
kind = "logistic"
"""
_PATIENCE_S = 120.0
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module", autouse=True)
def token() -> Iterator[None]:
    """Of Ray, which keeps the first that it sees as long as the process lives."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_AUTH_MODE", "token")
        patched.setenv("RAY_AUTH_TOKEN", "5a" * 32)
        yield


def configured(folder: Path) -> TrainingConfig:
    return parse_config(tomllib.loads(CONFIG) | {"runs": str(folder / "runs")})


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run(configured(tmp_path_factory.mktemp("serial")), UNPUBLISHED)


def same(one: RunResult, other: RunResult) -> bool:
    """To the bit, down the walk and down every path."""
    assert one.paths is not None
    assert other.paths is not None
    return same_series(one, other) and one.paths.net_returns.tobytes() == other.paths.net_returns.tobytes()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def begun(command: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A program in a session of its own, ended with all that it began."""
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
        with suppress(ProcessLookupError):  # nobody is left
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def server(command: list[str], port: int, log: Path) -> Iterator[None]:
    """A program that listens on a port of this machine."""
    with begun(command, log) as process:
        until = time.monotonic() + _PATIENCE_S
        while not answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield


@pytest.mark.parametrize("backend", ["local", "ray", "dask"])
def test_it_is_the_same_to_the_bit_wherever_it_runs(tmp_path: Path, serial: RunResult, backend: Backend) -> None:
    options = Options(backend, None, 2, publish=False)
    assert same(serial, run(configured(tmp_path), options))


def trained(folder: Path, backend: Backend, address: str) -> Path:
    """What `tickgate train` leaves of a run on a cluster that is there."""
    config = folder / "config.toml"
    config.write_text(CONFIG)
    arguments = [str(config), "--backend", backend, "--address", address, "--no-publish"]
    outcome = CliRunner().invoke(train, [*arguments, "--runs", str(folder / "runs")])
    assert outcome.exit_code == 0, outcome.output
    (found,) = (folder / "runs" / "sim").iterdir()
    return found


def same_files(found: Path, serial: RunResult) -> bool:
    expected = report.write(serial, serial.folder)
    assert expected.paths is not None
    documents = [json.loads((folder / expected.document.name).read_bytes()) for folder in (found, serial.folder)]
    for document in documents:
        del document["configuration"]  # which names the folder of runs
    return documents[0] == documents[1] and all(
        (found / path.name).read_bytes() == path.read_bytes() for path in (expected.returns, expected.paths)
    )


def test_a_train_on_a_ray_cluster_that_is_there_is_the_same_and_leaves_the_cluster_be(
    tmp_path: Path, serial: RunResult
) -> None:
    place = Path(tempfile.mkdtemp(prefix="ray-"))  # a socket's path must be short
    port = free_port()
    command = [str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}"]
    command += ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={place}"]
    command += [f"--ray-client-server-port={free_port()}"]
    try:
        with server(command, port, tmp_path / "ray.log"):
            assert same_files(trained(tmp_path, "ray", f"127.0.0.1:{port}"), serial)
            assert answers(port)
    finally:
        shutil.rmtree(place, ignore_errors=True)  # what is being ended may still write there


def test_a_train_on_dasks_scheduler_and_workers_that_are_there_is_the_same_and_leaves_them_be(
    tmp_path: Path, serial: RunResult
) -> None:
    port = free_port()
    scheduler = [str(BIN / "dask"), "scheduler", "--host=127.0.0.1", f"--port={port}", "--no-dashboard"]
    worker = [str(BIN / "dask"), "worker", f"tcp://127.0.0.1:{port}", "--nthreads=1", "--nworkers=2", "--no-dashboard"]
    worker += [f"--local-directory={tmp_path}", "--host=127.0.0.1"]
    with server(scheduler, port, tmp_path / "scheduler.log"), begun(worker, tmp_path / "worker.log") as process:
        with Client(f"tcp://127.0.0.1:{port}") as client:
            client.wait_for_workers(2, timeout=_PATIENCE_S)
        assert same_files(trained(tmp_path, "dask", f"tcp://127.0.0.1:{port}"), serial)
        assert process.poll() is None
        assert answers(port)


def test_a_scheduler_without_workers_is_an_error_that_says_so(tmp_path: Path) -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as cluster,
        pytest.raises(BackendUnavailable, match="has no worker"),
    ):
        run(configured(tmp_path), Options("dask", cluster.scheduler_address, publish=False))


@pytest.mark.parametrize(
    ("backend", "address"), [("dask", "tcp://127.0.0.1:9"), ("ray", "127.0.0.1:9"), ("ray", "ray://127.0.0.1:9")]
)
def test_a_cluster_that_is_not_there_is_an_error_that_names_it(tmp_path: Path, backend: Backend, address: str) -> None:
    with pytest.raises(BackendUnavailable, match=address):
        run(configured(tmp_path), Options(backend, address, publish=False))
