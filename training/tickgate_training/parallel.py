"""Where folds run: processes of this machine, or an existing cluster of Ray or Dask, all through joblib.

The work is cut the same way and gives the same results wherever it runs, on CPUs of one type: nothing depends on how
many jobs there are, or on which of them is done first.
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import joblib

from tickgate_training.errors import BackendUnavailable

Backend = Literal["local", "ray", "dask"]
BATCHES_A_JOB = 2
"""Tasks a job between two looks at the results: what is lost when a run is stopped."""

_CONNECT_S = 10.0

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class Pool:
    """Runs tasks a batch at a time; made by `pool`."""

    def __init__(self, parallel: joblib.Parallel, jobs: int) -> None:
        self._parallel = parallel
        self._batch = jobs * BATCHES_A_JOB

    def map(self, function: Callable[[_Task], _Result], tasks: Sequence[_Task]) -> Iterator[list[_Result]]:
        """Results in the order of the tasks, a batch as it is done."""
        for start in range(0, len(tasks), self._batch):
            batch = tasks[start : start + self._batch]
            yield list(self._parallel(joblib.delayed(function)(task) for task in batch))


@contextmanager
def pool(backend: Backend = "local", address: str | None = None, jobs: int | None = None) -> Iterator[Pool]:
    """A pool on a backend, closed on the way out; the cluster is left as it was.

    Args:
        backend: `local`: processes of this machine; `ray`, `dask`: a cluster.
        address: Of the cluster: `ray://host:10001` or `host:6379`, `tcp://host:8786`. None: one on this machine, for
            the time of the run.
        jobs: How many at once; None: as many as there are CPUs (cluster-wide on a cluster).

    Raises:
        BackendUnavailable: Its package is missing, or nobody answers at the address.
    """
    with ExitStack() as stack:
        if backend == "local":
            count = jobs or joblib.cpu_count()
            name = "loky" if count > 1 else "sequential"
        elif backend == "ray":
            name, count = "ray", _ray(stack, address, jobs)
        else:
            name, count = "dask", _dask(stack, address, jobs)
        limits: dict[str, Any] = {"inner_max_num_threads": 1} if name == "loky" else {}
        stack.enter_context(joblib.parallel_config(backend=name, n_jobs=count, **limits))
        yield Pool(stack.enter_context(joblib.Parallel(n_jobs=count)), count)


def _ray(stack: ExitStack, address: str | None, jobs: int | None) -> int:
    ray: Any = _module("ray")
    _module("ray.util.joblib").register_ray()
    if address is not None:
        _require_somebody("ray", address)
    begun_here = not ray.is_initialized()
    if begun_here:
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BackendUnavailable("ray", f"no cluster at {address}: {error}") from error
        stack.callback(ray.shutdown)
    cpus = int(ray.cluster_resources().get("CPU", 1))
    return min(jobs or cpus, cpus)  # more would wait for a CPU for ever


def _dask(stack: ExitStack, address: str | None, jobs: int | None) -> int:
    distributed: Any = _module("distributed")
    if address is not None:
        _require_somebody("dask", address)
    try:
        if address is None:
            cluster = distributed.LocalCluster(
                n_workers=jobs or joblib.cpu_count(), threads_per_worker=1, dashboard_address=None
            )
            client = distributed.Client(stack.enter_context(cluster))
        else:
            client = distributed.Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise BackendUnavailable("dask", f"no scheduler at {address}: {error}") from error
    stack.enter_context(client)
    threads = sum(client.nthreads().values())
    if not threads:
        raise BackendUnavailable("dask", f"the scheduler at {address} has no worker")
    return min(jobs or int(threads), int(threads))


def _require_somebody(backend: str, address: str) -> None:
    """Raise where nobody listens: the clusters' own clients try for minutes."""
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        if place.hostname is None or place.port is None:
            raise BackendUnavailable(backend, f"the address {address!r} is not host:port, or scheme://host:port")
        socket.create_connection((place.hostname, place.port), timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise BackendUnavailable(backend, f"nobody listens at {address}: {error}") from error


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        extra = "dask" if package == "distributed" else package
        raise BackendUnavailable(extra, f"{error}; pip install 'tickgate[{extra}]'") from error
