"""Windows run elsewhere: in processes here, on a cluster of Ray or of Dask; the same to the bit wherever they ran."""

from pathlib import Path

import pytest
from distributed import LocalCluster
from tests.training.runs import LIGHTGBM, LOGISTIC, UNPUBLISHED, config, same_series, short_run

from tickgate_training.errors import BackendUnavailable
from tickgate_training.parallel import Backend
from tickgate_training.pipeline import Options, run
from tickgate_training.results import RunResult

MORE = {"learners": [LIGHTGBM, LOGISTIC], "tuning": {"trials": 2}}


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return short_run(tmp_path_factory.mktemp("serial"), UNPUBLISHED, **MORE)


@pytest.mark.parametrize("backend", ["local", "ray", "dask"])
def test_it_is_the_same_to_the_bit_wherever_it_runs(tmp_path: Path, serial: RunResult, backend: Backend) -> None:
    options = Options(backend, None, 2, publish=False)
    assert same_series(serial, run(config(tmp_path, **MORE), options))


def test_it_runs_on_a_dask_cluster_that_is_there(tmp_path: Path, serial: RunResult) -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        options = Options("dask", cluster.scheduler_address, None, publish=False)
        assert same_series(serial, run(config(tmp_path, **MORE), options))


@pytest.mark.parametrize(("backend", "address"), [("dask", "tcp://127.0.0.1:9"), ("ray", "127.0.0.1:9")])
def test_a_cluster_that_is_not_there_is_an_error_that_names_it(tmp_path: Path, backend: Backend, address: str) -> None:
    with pytest.raises(BackendUnavailable, match=address):
        run(config(tmp_path), Options(backend, address, publish=False))
