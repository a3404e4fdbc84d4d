"""`MarketDataService`: ticks that are published without a question, over one engine's ingestion."""

from collections import deque
from collections.abc import Callable
from functools import partial

import grpc

from tickgate.v1 import market_data_pb2 as pb
from tickgate.v1 import signal_pb2
from tickgate_server.errors import FieldInvalid, IngestFull
from tickgate_server.ingest.ingestion import Counts, Ingestion
from tickgate_server.rpc.methods import Answer, LaterMethod, LaterStreamMethod, Method
from tickgate_server.rpc.status import Status, status_of
from tickgate_server.rpc.tick_messages import DecodeError, Read, TickReader

MARKET_DATA_NAME: str = pb.DESCRIPTOR.services_by_name["MarketDataService"].full_name

# Messages of a stream that were taken in and not answered.
STREAM_MESSAGES = 1024


class MarketData:
    """The service's methods."""

    def __init__(self, ingestion: Ingestion) -> None:
        self._ingestion = ingestion
        self._reader = TickReader()

    def methods(self) -> tuple[Method, ...]:
        """What the service listener has of it."""
        return (
            LaterMethod(f"/{MARKET_DATA_NAME}/PublishBatch", self._publish_batch),
            LaterStreamMethod(f"/{MARKET_DATA_NAME}/PublishTicks", self._publish_ticks),
        )

    def _publish_batch(self, data: bytes, left_ns: int, done: Callable[[Answer], None]) -> Answer | Callable[[], None]:
        del left_ns  # what was taken in is applied, whoever waits for it

        def settled(found: Counts | Exception) -> None:
            if isinstance(found, Exception):
                done(status_of(found))
            else:
                done(pb.PublishBatchResponse(counts=counts_message(found)).SerializeToString())

        refused = _attempt(lambda: _take_in(self._ingestion, self._reader.batch(data), "ticks.symbols[{}]", settled))
        return (lambda: None) if refused is None else refused

    def _publish_ticks(self, changed: Callable[[], None]) -> "Publisher":
        return Publisher(self._ingestion, self._reader, changed)


class _Message:
    """One message of a stream; its answer, once there is one."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: Counts | Status | None = None


class Publisher:
    """One PublishTicks stream: see `rpc.methods.Conversation`."""

    def __init__(self, ingestion: Ingestion, reader: TickReader, changed: Callable[[], None]) -> None:
        self._ingestion = ingestion
        self._reader = reader
        self._changed = changed
        self._messages: deque[_Message] = deque()
        self._answered = 0
        self._feed: str | None = None
        self._kept: Read | None = None  # for which there was no room
        self._over = False

    @property
    def wants_more(self) -> bool:
        """See `Conversation`."""
        return not self._over and self._kept is None and len(self._messages) < STREAM_MESSAGES

    @property
    def idle(self) -> bool:
        """See `Conversation`."""
        return not self._messages

    def take(self, data: bytes) -> None:
        """See `Conversation`."""
        message = _Message()
        self._messages.append(message)
        refused = _attempt(lambda: self._read(data, message))
        if refused is not None:
            message.answer = refused
            self._over = True

    def next_answer(self) -> Answer | None:
        """See `Conversation`."""
        if not self._messages or self._messages[0].answer is None:
            return None
        answer = self._messages.popleft().answer
        if not isinstance(answer, Counts):
            return answer
        self._answered += 1
        return pb.PublishTicksResponse(messages=self._answered, counts=counts_message(answer)).SerializeToString()

    def close(self) -> None:
        """See `Conversation`."""
        self._over = True
        self._kept = None
        self._messages.clear()

    def _read(self, data: bytes, message: _Message) -> None:
        read = self._reader.ticks(data)
        if self._feed is not None and read.feed != self._feed:
            raise FieldInvalid("feed", f"{self._feed!r}, as before in this stream", read.feed)
        self._feed = read.feed
        try:
            self._take_in(read, message)
        except IngestFull:
            self._kept = read
            self._ingestion.on_room(partial(self._again, message))

    def _take_in(self, read: Read, message: _Message) -> None:
        _take_in(self._ingestion, read, "ticks[{}].symbol", partial(self._settled, message))

    def _again(self, message: _Message) -> bool:
        """There may be room by now; False where there is none."""
        read = self._kept
        if read is None:  # the caller went away
            return True
        try:
            self._take_in(read, message)
        except IngestFull:
            return False
        except Exception as error:  # noqa: BLE001 - the boundary: every error becomes a status, none is lost
            message.answer = status_of(error)
            self._over = True
        self._kept = None
        self._changed()
        return True

    def _settled(self, message: _Message, found: Counts | Exception) -> None:
        if isinstance(found, Exception):
            message.answer = status_of(found)
            self._over = True
        else:
            message.answer = found
        if self._messages and self._messages[0] is message:
            self._changed()


def counts_message(counts: Counts) -> pb.TickCounts:
    """What became of a message's ticks, as the contract has it."""
    return pb.TickCounts(
        accepted=counts.accepted,
        repeated_latest=counts.repeated_latest,
        conflated=counts.conflated,
        rejected=[
            pb.RejectedTicks(reason=signal_pb2.Reason.ValueType(reason), ticks=ticks)
            for reason, ticks in counts.rejected.items()
        ],
    )


def _take_in(ingestion: Ingestion, read: Read, where: str, settled: Callable[[Counts | Exception], None]) -> None:
    ingestion.take_in(read.feed, read.data, read.spans, read.columns, settled, where=where)


def _attempt(work: Callable[[], None]) -> Status | None:
    """Do something; the status of what went wrong."""
    try:
        work()
    except DecodeError as error:
        return Status(grpc.StatusCode.INVALID_ARGUMENT, f"request: {error}")
    except Exception as error:  # noqa: BLE001 - the boundary: every error becomes a status, none is lost
        return status_of(error)
    return None
