"""Calls to the admin listeners of a server's workers: what the verbs of the command line stand on."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import grpc
from google.protobuf.message import Message

_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]

_Response = TypeVar("_Response", bound=Message)


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker's admin listener.

    Attributes:
        index: Its own; 0 in a server of one process.
        address: `unix:/path` or `host:port`.
    """

    index: int
    address: str


@dataclass(frozen=True, slots=True)
class Outcome(Generic[_Response]):
    """What one worker answered.

    Attributes:
        worker: Which.
        response: None where it failed.
        error: Why it failed; empty for an answer.
        code: Status that it failed with; None for an answer, and where a watch has ended.
    """

    worker: Worker
    response: _Response | None
    error: str
    code: grpc.StatusCode | None = None


class AdminClient:
    """Asks several workers at once; a context manager.

    Args:
        workers: Whom.
        credentials: For TCP addresses; a Unix socket is spoken to in plain text.
        timeout_s: Longest wait for an answer.
    """

    def __init__(
        self, workers: Sequence[Worker], credentials: grpc.ChannelCredentials | None = None, timeout_s: float = 5.0
    ) -> None:
        self._timeout_s = timeout_s
        self._channels = {
            worker: grpc.insecure_channel(worker.address, options=_OPTIONS)
            if credentials is None or worker.address.startswith("unix:")
            else grpc.secure_channel(worker.address, credentials, options=_OPTIONS)
            for worker in workers
        }

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Close the connections."""
        for channel in self._channels.values():
            channel.close()

    def _ask(
        self, method: Callable[[grpc.Channel], Any], request: Message, *, only: Worker | None = None
    ) -> list[Outcome[Any]]:
        channels = {worker: channel for worker, channel in self._channels.items() if only in {None, worker}}
        calls = {
            worker: method(channel).future(request, timeout=self._timeout_s) for worker, channel in channels.items()
        }
        outcomes = []
        for worker, call in calls.items():
            try:
                outcomes.append(Outcome(worker, call.result(), ""))
            except grpc.RpcError as error:
                outcomes.append(_failed(worker, error))
        return outcomes

    def _follow(self, method: Callable[[grpc.Channel], Any], request: Message) -> Iterator[Outcome[Any]]:
        """What each worker's watch tells; an error is the last of its worker."""
        found: queue.SimpleQueue[Outcome[Any]] = queue.SimpleQueue()
        for worker, channel in self._channels.items():
            threading.Thread(target=_watch, args=[worker, method(channel), request, found.put], daemon=True).start()
        watched = len(self._channels)
        while watched:
            outcome = found.get()
            watched -= bool(outcome.error)
            yield outcome


def _watch(worker: Worker, method: Any, request: Message, put: Callable[[Outcome[Any]], None]) -> None:
    last: Outcome[Any] = Outcome(worker, None, "the server has ended the watch: it drains")
    try:
        for response in method(request):
            put(Outcome(worker, response, ""))
    except grpc.RpcError as raised:
        last = _failed(worker, raised)
    put(last)


def _failed(worker: Worker, error: grpc.RpcError) -> Outcome[Any]:
    code, details = error.code(), error.details() or ""
    why = f"{code.name}: {details}"
    if code is grpc.StatusCode.UNAVAILABLE and worker.address.startswith("unix:") and "connect" in details:
        why = f"no server listens there ({details.rpartition(': ')[2]})"
    return Outcome(worker, None, why, code)
