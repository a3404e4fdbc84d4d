"""What a caller of the protocol is told: codes as Triton has them, and its wording where clients look at it.

InferenceFault              the request cannot be answered
├── RequestInvalid          INVALID_ARGUMENT: names the tensor or parameter
├── NotServed               UNIMPLEMENTED: a part of the protocol that is not here
├── AnswerTooLarge          RESOURCE_EXHAUSTED
├── TimeoutExpired          DEADLINE_EXCEEDED
└── RunFailed               INTERNAL: the graph raised as it ran
"""

import grpc

from tickgate_server.models.plain_errors import (
    InferenceBusy,
    PlainNotFound,
    PlainNotLoaded,
    PlainNotReady,
    RepositoryBusy,
)
from tickgate_server.rpc.status import Status, status_of


class InferenceFault(Exception):
    """Root of this tree."""


class RequestInvalid(InferenceFault):
    """A field, tensor or parameter is not what the model or the contract asks for."""


class NotServed(InferenceFault):
    """A part of the protocol that is not served here."""


class AnswerTooLarge(InferenceFault):
    """The outputs are larger than an answer may be.

    Attributes:
        size: Of the outputs, in bytes.
        limit: What they may have.
    """

    def __init__(self, model: str, size: int, limit: int) -> None:
        super().__init__(f"outputs of model '{model}' have {size} bytes, an answer may have {limit}")
        self.size = size
        self.limit = limit


class TimeoutExpired(InferenceFault):
    """The request's time was up.

    Attributes:
        allowed_ns: From arrival.
        ran: It did; else it waited.
    """

    def __init__(self, allowed_ns: int, *, ran: bool, callers: bool) -> None:
        """With `callers` it was the gRPC deadline, which the caller's own gRPC may notice first, in these words."""
        what = "Deadline Exceeded" if callers else "Request timeout expired"
        super().__init__(f"{what}: {allowed_ns / 1e3:.0f} us since arrival, while it {'ran' if ran else 'waited'}")
        self.allowed_ns = allowed_ns
        self.ran = ran


class RunFailed(InferenceFault):
    """The graph raised as it ran.

    Attributes:
        why: What ONNX Runtime says.
    """

    def __init__(self, model: str, version: int, why: str) -> None:
        super().__init__(f"model '{model}' version {version} failed as it ran: {why}")
        self.why = why


_CODES: dict[type[Exception], grpc.StatusCode] = {
    PlainNotFound: grpc.StatusCode.NOT_FOUND,
    PlainNotReady: grpc.StatusCode.UNAVAILABLE,
    PlainNotLoaded: grpc.StatusCode.INTERNAL,
    InferenceBusy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RepositoryBusy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RequestInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    NotServed: grpc.StatusCode.UNIMPLEMENTED,
    AnswerTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TimeoutExpired: grpc.StatusCode.DEADLINE_EXCEEDED,
    RunFailed: grpc.StatusCode.INTERNAL,
}


def inference_status(error: Exception) -> Status:
    """The status for an error; one that is not known is INTERNAL with an id, as everywhere."""
    code = _CODES.get(type(error))
    return status_of(error) if code is None else Status(code, str(error))
