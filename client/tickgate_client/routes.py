"""Which worker a symbol's requests go to, and what both routed clients do alike: split, and put back in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import grpc

from tickgate.symbol_hash import cached_worker_of
from tickgate.v1 import signal_pb2, topology_pb2
from tickgate_client.call_errors import CallError, DeadlineExceeded, NotSupported, WrongWorker, error_of_result
from tickgate_client.errors import ContractBroken

REFRESH_AFTER_LOSS_S = 1.0
"""The topology is asked for again after a lost worker at most this often, in seconds."""


@dataclass(frozen=True, slots=True)
class Routes:
    """One topology of a server.

    Attributes:
        epoch: Its name.
        targets: What channels are made to, by worker.
        owner: Index of the worker that a symbol belongs to.
    """

    epoch: str
    targets: tuple[str, ...]
    owner: Callable[[str], int]


def read_routes(response: topology_pb2.GetTopologyResponse, asked: str, *, service: bool = False) -> Routes:
    """The routes that a server's answer gives.

    Args:
        response: To GetTopology.
        asked: The target that answered: its host stands in where the server names none.
        service: To the workers' service listeners instead of their data listeners.

    Raises ContractBroken for a hash that this version does not know, or workers that are not numbered from 0;
    NotSupported where a service listener is asked for and a worker has none.
    """
    if response.symbol_hash != topology_pb2.SYMBOL_HASH_FNV1A64_JUMP:
        raise ContractBroken(expected="symbol hash FNV1A64_JUMP", found=f"number {response.symbol_hash}")
    indexes = [worker.index for worker in response.workers]
    if not indexes or indexes != list(range(len(indexes))):
        raise ContractBroken(expected="workers numbered from 0", found=f"indexes {indexes}")
    addresses = [worker.service_address if service else worker.address for worker in response.workers]
    if service and not all(addresses):
        without = addresses.index("")
        raise NotSupported(
            f"worker {without} of {len(addresses)} has no service listener", status_code=grpc.StatusCode.UNIMPLEMENTED
        )
    targets = tuple(_target(address, asked) for address in addresses)
    return Routes(response.epoch, targets, cached_worker_of(len(targets)))


def _target(address: str, asked: str) -> str:
    if not address.startswith(":"):
        return address
    host, colon, port = asked.rpartition(":")
    if not (colon and port.isdecimal()):
        raise ContractBroken(expected="a worker's address with a host", found=f"{address!r} from {asked!r}")
    return f"{host}{address}"


def symbol_of(request: signal_pb2.PredictRequest) -> str:
    """The symbol that a request is about; empty where it has no input, which every worker refuses alike."""
    given = request.WhichOneof("input")
    if given == "tick":
        return request.tick.symbol
    return request.features.symbol if given == "features" else request.symbol


def split(
    requests: Sequence[signal_pb2.PredictRequest], routes: Routes
) -> tuple[list[int], dict[int, list[signal_pb2.PredictRequest]]]:
    """The worker of each request, and each worker's requests in their order."""
    owners = [routes.owner(symbol_of(request)) for request in requests]
    by_worker: dict[int, list[signal_pb2.PredictRequest]] = {}
    for owner, request in zip(owners, requests, strict=True):
        by_worker.setdefault(owner, []).append(request)
    return owners, by_worker


def in_order(
    owners: Iterable[int], results: Mapping[int, Iterable[signal_pb2.PredictStreamResult]]
) -> Iterator[signal_pb2.PredictStreamResult]:
    """The workers' results in the order of the requests that were split."""
    streams = {worker: iter(of_worker) for worker, of_worker in results.items()}
    for owner in owners:
        yield next(streams[owner])


def failed(request: signal_pb2.PredictRequest, error: CallError) -> signal_pb2.PredictStreamResult:
    """The result that stands for an error of one request."""
    number: int = error.status_code.value[0]
    return signal_pb2.PredictStreamResult(code=number, message=error.message, request_id=request.request_id)


def answered(
    request: signal_pb2.PredictRequest, response: signal_pb2.PredictResponse
) -> signal_pb2.PredictStreamResult:
    """The result that stands for an answer to one request."""
    return signal_pb2.PredictStreamResult(response=response, request_id=request.request_id)


def went_astray(result: signal_pb2.PredictStreamResult) -> bool:
    """Whether a result says that another worker has the symbol, so that nothing was applied."""
    return isinstance(error_of_result(result), WrongWorker)


def left(due: float) -> float:
    """Seconds until then, on the monotonic clock; raises DeadlineExceeded if there are none."""
    left_s = due - time.monotonic()
    if left_s <= 0:
        raise DeadlineExceeded(
            "the deadline passed while the topology was asked for", status_code=grpc.StatusCode.DEADLINE_EXCEEDED
        )
    return left_s
