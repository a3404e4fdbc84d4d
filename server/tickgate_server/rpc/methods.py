"""What a listener serves beside Predict: a table of methods from bytes to bytes, the same for every transport.

Every function here is called on the thread that answers. None of them raises: what goes wrong is a `Status`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from tickgate_server.errors import FieldInvalid
from tickgate_server.rpc.status import Status, status_of

Answer: TypeAlias = bytes | Status
Handler: TypeAlias = Callable[[bytes], Answer]
Begin: TypeAlias = Callable[[bytes, int, Callable[[Answer], None]], Answer | Callable[[], None]]

_Request = TypeVar("_Request", bound=Message)
_Value = TypeVar("_Value")


class Subscription(Protocol):
    """What one caller watches."""

    def current(self) -> Answer | None:
        """What to tell the caller now; None where it was told that already, a status to end with."""

    def close(self) -> None:
        """The caller is gone."""


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """One message is answered with one."""

    path: str
    answer: Handler


@dataclass(frozen=True, slots=True)
class LaterMethod:
    """One message is answered with one, once work that other threads do for it is done.

    Attributes:
        path: `/package.Service/Method`.
        begin: Takes the message, what the caller's gRPC deadline leaves in nanoseconds (0: it has none), and what to
            call with the answer: once, from any thread. Returns the answer, where there is no work; or what to call
            when the caller has gone. Work that is to be given up then must tell nothing after that; what is finished
            all the same may tell its answer, on the thread that answers, and nobody hears it.
    """

    path: str
    begin: Begin


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """Each message of a stream is answered with one, in order; a status ends the stream."""

    path: str
    answer: Handler


class Conversation(Protocol):
    """One stream whose messages are answered later, in order. Everything happens on the thread that answers.

    Attributes:
        wants_more: Whether the stream's next message is to be read.
        idle: Every message was answered.
    """

    @property
    def wants_more(self) -> bool:
        """See above."""

    @property
    def idle(self) -> bool:
        """See above."""

    def take(self, data: bytes) -> None:
        """Take the stream's next message."""

    def next_answer(self) -> Answer | None:
        """The answer to the oldest message that has not been answered, if it is there; a status ends the stream."""

    def close(self) -> None:
        """The stream is over."""


@dataclass(frozen=True, slots=True)
class LaterStreamMethod:
    """Each message of a stream is answered with one, in order, and later; more may be taken meanwhile.

    Attributes:
        path: `/package.Service/Method`.
        open: Takes what to call when there may be an answer, or when more is wanted again.
    """

    path: str
    open: Callable[[Callable[[], None]], Conversation]


@dataclass(frozen=True, slots=True)
class WatchMethod:
    """One message is answered with what there is, and again whenever it has changed, until the server drains.

    Attributes:
        path: `/package.Service/Method`.
        open: Takes the message, and what to call when there may be news; calling it is cheap, and `current` is asked
            later.
        every_s: The least time between two messages to a caller.
    """

    path: str
    open: Callable[[bytes, Callable[[], None]], Subscription | Status]
    every_s: float = 0.0


Method: TypeAlias = UnaryMethod | LaterMethod | StreamMethod | LaterStreamMethod | WatchMethod


class Watched(Generic[_Value]):
    """A `Subscription` to a value that is compared with what was told last.

    Args:
        read: The value, cheap to read.
        encode: Its message.
        close: Called once the caller is gone.
    """

    def __init__(
        self, read: Callable[[], _Value], encode: Callable[[_Value], Message | bytes], close: Callable[[], None]
    ) -> None:
        self._read = read
        self._encode = encode
        self.close = close
        self._told: _Value | None = None

    def current(self) -> Answer | None:
        """See `Subscription`."""
        try:
            value = self._read()
            if value == self._told:
                return None
            found = self._encode(value)
        except Exception as error:  # noqa: BLE001 - the boundary: every error becomes a status, none is lost
            return status_of(error)
        self._told = value
        return found if isinstance(found, bytes) else found.SerializeToString()


def parse(message: type[_Request], data: bytes) -> _Request | Status:
    """A request; INVALID_ARGUMENT for bytes that are none."""
    try:
        return message.FromString(data)
    except DecodeError as error:
        return Status(grpc.StatusCode.INVALID_ARGUMENT, f"request: {error}")


def handler(message: type[_Request], respond: Callable[[_Request], Message]) -> Handler:
    """From a function of messages to one of bytes, errors to statuses."""

    def answer(data: bytes) -> Answer:
        request = parse(message, data)
        if isinstance(request, Status):
            return request
        try:
            return respond(request).SerializeToString()
        except Exception as error:  # noqa: BLE001 - as above
            return status_of(error)

    return answer


def later_handler(
    message: type[_Request], begin: Callable[[_Request, Callable[[Message | Exception], None]], None]
) -> Begin:
    """The same for a `LaterMethod` whose work is finished though its caller has gone.

    Args:
        message: The request's.
        begin: Takes the request, and what to call with the response or with what went wrong: once, on the thread that
            answers, at once or later.
    """

    def started(data: bytes, left_ns: int, done: Callable[[Answer], None]) -> Answer | Callable[[], None]:
        del left_ns  # it is finished all the same
        request = parse(message, data)
        if isinstance(request, Status):
            return request

        def finish(found: Message | Exception) -> None:
            done(status_of(found) if isinstance(found, Exception) else found.SerializeToString())

        try:
            begin(request, finish)
        except Exception as error:  # noqa: BLE001 - as above
            return status_of(error)
        return lambda: None

    return started


def enum_member(field: str, found: int, twin: Any, names: Any) -> Any:
    """The engine's twin of a number of the contract.

    Raises:
        FieldInvalid: It is unspecified, or none that is known.
    """
    try:
        return twin(found)
    except ValueError:
        known = ", ".join(name for name in names.keys() if names.Value(name))  # noqa: SIM118 - protobuf's, no mapping
        raise FieldInvalid(field, f"one of {known}", found) from None
