"""From errors to gRPC status codes: one table. What is not in it is INTERNAL, with an id; its text goes to the log."""

import uuid
from typing import NamedTuple

import grpc
import structlog

from tickgate_server.errors import BudgetSpent, FieldInvalid, IngestFull, SymbolElsewhere
from tickgate_server.journal.errors import JournalError
from tickgate_server.models.errors import (
    AliasConflict,
    AliasesInvalid,
    LoadsFull,
    ModelBusy,
    ModelNotFound,
    ModelNotLoaded,
    NothingBefore,
    PackageError,
    RepositoryReadOnly,
    VersionInUse,
    VersionMissing,
)
from tickgate_server.models.promotion import PromotionRefused
from tickgate_server.risk.limits import LimitsFileInvalid
from tickgate_server.risk.reports import FillReused, OrderUnknown, TableFull

_LOG = structlog.get_logger()

_CODES: dict[type[Exception], grpc.StatusCode] = {
    FieldInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    ModelNotLoaded: grpc.StatusCode.FAILED_PRECONDITION,
    # Not UNAVAILABLE: asking this worker again will not help, and nothing was applied. The caller's topology is old.
    SymbolElsewhere: grpc.StatusCode.FAILED_PRECONDITION,
    ModelBusy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    BudgetSpent: grpc.StatusCode.DEADLINE_EXCEEDED,
    IngestFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    LoadsFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    VersionMissing: grpc.StatusCode.NOT_FOUND,
    VersionInUse: grpc.StatusCode.FAILED_PRECONDITION,
    AliasConflict: grpc.StatusCode.ABORTED,
    AliasesInvalid: grpc.StatusCode.FAILED_PRECONDITION,
    NothingBefore: grpc.StatusCode.FAILED_PRECONDITION,
    RepositoryReadOnly: grpc.StatusCode.FAILED_PRECONDITION,
    PromotionRefused: grpc.StatusCode.FAILED_PRECONDITION,
    LimitsFileInvalid: grpc.StatusCode.FAILED_PRECONDITION,
    OrderUnknown: grpc.StatusCode.NOT_FOUND,
    FillReused: grpc.StatusCode.ALREADY_EXISTS,
    TableFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


# Groups of errors that share a code.
_CODES_OF_ROOTS: dict[type[Exception], grpc.StatusCode] = {JournalError: grpc.StatusCode.UNAVAILABLE}


class Status(NamedTuple):
    """What a failed request is answered with."""

    code: grpc.StatusCode
    message: str

    @property
    def number(self) -> int:
        """The code as google.rpc.Code has it."""
        number: int = self.code.value[0]
        return number


CANCELLED = Status(grpc.StatusCode.CANCELLED, "the caller went away")
DRAINING = Status(grpc.StatusCode.UNAVAILABLE, "the server is draining")


def status_of(error: Exception) -> Status:
    """The status for an error that a request ended in."""
    code = _CODES.get(type(error))
    if code is not None:
        return Status(code, str(error))
    if isinstance(error, PackageError):  # of a version that a person wants loaded: the check that failed, and its file
        return Status(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    for root, shared in _CODES_OF_ROOTS.items():
        if isinstance(error, root):
            _LOG.error("request refused", why=str(error))
            return Status(shared, "the journal cannot be written, and nothing is answered unjournaled")
    fault = uuid.uuid4().hex[:12]
    _LOG.error("request failed", fault=fault, exc_info=error)
    return Status(grpc.StatusCode.INTERNAL, f"internal error {fault}; the server's log has it under this id")
