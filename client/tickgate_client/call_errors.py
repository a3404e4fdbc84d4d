"""Calls that got no signal: one error for each gRPC status. The tree is drawn in `tickgate_client.errors`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import grpc

from tickgate.v1 import signal_pb2
from tickgate_client.errors import TickgateError

# The server names a field first: `tick.trade.price: must be > 0`.
_FIELD_FIRST = re.compile(r"([a-z][a-z0-9_]*(?:\.[a-z0-9_]+|\[\d+\])*):\s")

# What the contract has a FAILED_PRECONDITION begin with that is about the symbol and not the model.
_WRONG_WORKER = re.compile(r"symbol: expected worker (\d+) of (\d+)")


class CallError(TickgateError):
    """A call, or one item of a stream, that got no signal.

    Attributes:
        status_code: gRPC's status.
        message: What the server wrote, or gRPC where the call never reached it.
        request_id: As in the request; empty if the caller gave none, or if a whole stream ended.
        model: The model that the request asked for; empty for the server's default.
    """

    def __init__(self, message: str, *, status_code: grpc.StatusCode, request_id: str = "", model: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.request_id = request_id
        self.model = model

    def __str__(self) -> str:
        """One line: status, text, and the request's id if it has one."""
        suffix = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status_code.name}: {' '.join(self.message.split())}{suffix}"


class InvalidRequest(CallError):
    """The request breaks the contract.

    Attributes:
        field: Path of the field at fault (`tick.trade.price`), or None if the server's text names none.
    """

    def __init__(self, message: str, *, status_code: grpc.StatusCode, request_id: str = "", model: str = "") -> None:
        super().__init__(message, status_code=status_code, request_id=request_id, model=model)
        named = _FIELD_FIRST.match(message)
        self.field = named.group(1) if named else None


class ModelNotFound(CallError):
    """The server has no such model, alias or version; `model` is what was asked for."""


class ModelNotLoaded(CallError):
    """The model exists and is not loaded; `model` is what was asked for."""


class WrongWorker(CallError):
    """Another worker of the server has the symbol, and nothing was applied: the caller's topology is out of date.

    Attributes:
        worker: Index of the worker that has it.
        workers: How many the server has.
    """

    def __init__(self, message: str, *, status_code: grpc.StatusCode, request_id: str = "", model: str = "") -> None:
        super().__init__(message, status_code=status_code, request_id=request_id, model=model)
        named = _WRONG_WORKER.match(message)
        self.worker, self.workers = (int(named.group(1)), int(named.group(2))) if named else (-1, 0)


class DeadlineExceeded(CallError):
    """No answer inside the deadline or the budget. The server may have applied the tick."""


class Overloaded(CallError):
    """The server's queue is full, or the message is over a size limit."""


class ServerUnavailable(CallError):
    """No connection, or a server that is draining."""


class UpdateConflict(CallError):
    """Somebody else changed it first."""


class PermissionDenied(CallError):
    """The caller is known and may not do this."""


class Unauthenticated(CallError):
    """The caller's credentials are missing or not accepted."""


class CallCancelled(CallError):
    """The call was cancelled, here or by the server."""


class NotSupported(CallError):
    """The server does not know this method."""


class ServerFault(CallError):
    """The server failed; its text carries the id under which its log has the cause."""


ERROR_OF_STATUS: Mapping[grpc.StatusCode, type[CallError]] = MappingProxyType(
    {
        grpc.StatusCode.CANCELLED: CallCancelled,
        grpc.StatusCode.UNKNOWN: ServerFault,
        grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
        grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
        grpc.StatusCode.NOT_FOUND: ModelNotFound,
        grpc.StatusCode.ALREADY_EXISTS: UpdateConflict,
        grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
        grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
        grpc.StatusCode.FAILED_PRECONDITION: ModelNotLoaded,
        grpc.StatusCode.ABORTED: UpdateConflict,
        grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
        grpc.StatusCode.UNIMPLEMENTED: NotSupported,
        grpc.StatusCode.INTERNAL: ServerFault,
        grpc.StatusCode.UNAVAILABLE: ServerUnavailable,
        grpc.StatusCode.DATA_LOSS: ServerFault,
    }
)
"""The one table from gRPC status to error; every status but OK is in it. `WrongWorker` is told by its text besides."""

_STATUS_OF_NUMBER: Mapping[int, grpc.StatusCode] = MappingProxyType(
    {status.value[0]: status for status in grpc.StatusCode}
)


def status_of(number: int) -> grpc.StatusCode:
    """The status of a google.rpc.Code, as in `PredictStreamResult.code`; UNKNOWN for a number that gRPC has not."""
    return _STATUS_OF_NUMBER.get(number, grpc.StatusCode.UNKNOWN)


def number_of(error: grpc.RpcError) -> int:
    """The number of the status that gRPC ended a call with, as google.rpc.Code has it."""
    number: int = error.code().value[0]
    return number


def error_of_status(status_code: grpc.StatusCode, message: str, *, request_id: str = "", model: str = "") -> CallError:
    """The error for a status other than OK (KeyError for OK)."""
    if status_code is grpc.StatusCode.FAILED_PRECONDITION and _WRONG_WORKER.match(message):
        return WrongWorker(message, status_code=status_code, request_id=request_id, model=model)
    return ERROR_OF_STATUS[status_code](message, status_code=status_code, request_id=request_id, model=model)


def error_of_call(error: grpc.RpcError, request: signal_pb2.PredictRequest | None = None) -> CallError:
    """The error for a call that gRPC ended badly.

    Args:
        error: What grpc or grpc.aio raised.
        request: What was asked; None for a stream as a whole, or for another method.
    """
    message = error.details() or "the call ended without a text"
    if request is None:
        return error_of_status(error.code(), message)
    return error_of_status(error.code(), message, request_id=request.request_id, model=request.model)


def error_of_result(result: signal_pb2.PredictStreamResult, model: str = "") -> CallError | None:
    """The error that an item of a stream stands for, to raise or to count; None if it is OK.

    Args:
        result: As `predict_stream` yields it.
        model: What the item's request asked for, if the caller wants it in the error.
    """
    if result.code == 0:
        return None
    return error_of_status(status_of(result.code), result.message, request_id=result.request_id, model=model)
