"""From a request's message to its answer's: what every transport of the data listener does between read and write."""

from collections.abc import Generator

from google.protobuf.message import DecodeError

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.engine import Engine
from tickgate_server.errors import FieldInvalid
from tickgate_server.journal.errors import JournalError
from tickgate_server.records import Decision, Request
from tickgate_server.rpc.codec import STREAM_ITEMS, Encoder, budget_ns, decode
from tickgate_server.rpc.lane import lanes_of
from tickgate_server.rpc.status import Status, status_of

# Items of one stream message answered before other calls get a turn.
TURN_ITEMS = 32
# gRPC gives a call without a deadline one that lies decades ahead.
_LONGEST_S = 86_400.0


def remaining_ns(remaining_s: float | None) -> int:
    """What a caller's gRPC deadline leaves, in nanoseconds; 0 where there is none, 1 where it has passed."""
    if remaining_s is None or remaining_s > _LONGEST_S:
        return 0
    return max(int(remaining_s * 1e9), 1)


class Answers:
    """Answers to `Predict` and `PredictStream` over one engine, from bytes to bytes; one thread at a time.

    Each request that arrives here is journaled once, with what became of it, before its answer leaves.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._statuses = engine.telemetry.statuses
        self._request = Request()
        self._decision = Decision()
        self._encoder = Encoder(engine.registry.models)
        self._lanes = lanes_of(engine)

    def predict(self, data: bytes, arrival_ns: int, deadline_ns: int) -> bytes | Status:
        """The answer to one `PredictRequest`, serialized; the status where it fails.

        Args:
            data: The request, serialized.
            arrival_ns: When it arrived, on `perf_counter_ns`'s clock.
            deadline_ns: What its gRPC deadline left then; 0: none.
        """
        for lane in self._lanes:
            fast = lane.predict(data, arrival_ns, deadline_ns)
            if fast is not None:
                return fast
        try:
            message = pb.PredictRequest.FromString(data)
        except DecodeError as error:
            return self._unreadable(FieldInvalid("request", "a tickgate.v1.PredictRequest", str(error)))
        answer = self._answer(message, arrival_ns, deadline_ns)
        return answer if isinstance(answer, Status) else answer.SerializeToString()

    def predict_stream(self, data: bytes, arrival_ns: int, deadline_ns: int) -> Generator[None, None, bytes | Status]:
        """The answer to one `PredictStreamRequest`, pausing after each turn for other calls; as `predict` otherwise.

        A failed item carries its own status in the answer. The status comes back only for a message that is none, or
        that has more items than one may have: the stream ends with it.
        """
        for lane in self._lanes:
            fast = lane.predict_one(data, arrival_ns, deadline_ns)
            if fast is not None:
                return fast
        try:
            message = pb.PredictStreamRequest.FromString(data)
        except DecodeError as error:
            return self._unreadable(FieldInvalid("request", "a tickgate.v1.PredictStreamRequest", str(error)))
        if len(message.requests) > STREAM_ITEMS:
            return self._unreadable(
                FieldInvalid("requests", f"at most {STREAM_ITEMS} a message", len(message.requests))
            )
        answer = pb.PredictStreamResponse()
        for index, request in enumerate(message.requests):
            if index and index % TURN_ITEMS == 0:
                yield
            result = answer.results.add(request_id=request.request_id)
            response = self._answer(request, arrival_ns, deadline_ns)
            if isinstance(response, Status):
                result.code = response.number
                result.message = response.message
            else:
                result.response.CopyFrom(response)
        return answer.SerializeToString()

    def _answer(self, message: pb.PredictRequest, arrival_ns: int, deadline_ns: int) -> pb.PredictResponse | Status:
        """The response, good until the next call, or the status; journaled."""
        request = self._request
        decision = self._decision
        decision.stage = 0
        request.arrival_ns = arrival_ns
        request.budget_ns = budget_ns(message.budget_us, deadline_ns)
        try:
            decode(message, request)
            self._engine.decide(request, decision)
            response = self._encoder.encode(decision, message.request_id)
            self._engine.check_budget(request, decision)
        except Exception as error:  # noqa: BLE001 - the boundary: every error becomes a status, none is lost
            return self._failed(error, message.request_id)
        try:
            self._engine.record(request, decision, request_id=message.request_id, status=0)
        except JournalError as error:  # what cannot be journaled is not answered
            return self._counted(status_of(error))
        self._statuses[0] += 1
        return response

    def _unreadable(self, error: FieldInvalid) -> Status:
        """The status of a message in which no request was found."""
        self._request.input = 0
        self._request.model = ""
        self._request.budget_ns = 0
        self._decision.stage = 0
        return self._failed(error, "")

    def _failed(self, error: Exception, request_id: str) -> Status:
        failed = status_of(error)
        try:
            self._engine.record(self._request, self._decision, request_id=request_id, status=failed.number)
        except JournalError as unwritten:
            failed = status_of(unwritten)
        return self._counted(failed)

    def _counted(self, status: Status) -> Status:
        self._statuses[status.number] += 1
        return status
