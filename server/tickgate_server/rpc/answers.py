"""From a request's message to its answer's: what every transport of the data listener does between read and write."""

from collections.abc import Callable, Generator, Sequence
from functools import partial
from time import perf_counter_ns
from typing import TypeAlias

from google.protobuf.message import DecodeError

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.budgets import check_budget
from tickgate_server.engine import Engine
from tickgate_server.errors import BudgetSpent, FieldInvalid
from tickgate_server.journal.errors import JournalError
from tickgate_server.models.offload import Run
from tickgate_server.records import Decision, Request
from tickgate_server.rpc.codec import STREAM_ITEMS, Encoder, budget_ns, decode
from tickgate_server.rpc.lane import FastLane
from tickgate_server.rpc.status import CANCELLED, DRAINING, Status, status_of

# Items of one stream message answered before other calls get a turn.
TURN_ITEMS = 32
# gRPC gives a call without a deadline one that lies decades ahead.
_LONGEST_S = 86_400.0


_NEVER_NS = 1 << 62

# Has a function called on the thread that answers; may be called from any thread.
Post: TypeAlias = Callable[[Callable[[], None]], object]


def remaining_ns(remaining_s: float | None) -> int:
    """What a caller's gRPC deadline leaves, in nanoseconds; 0 where there is none, 1 where it has passed."""
    if remaining_s is None or remaining_s > _LONGEST_S:
        return 0
    return max(int(remaining_s * 1e9), 1)


class Pending:
    """A request whose model runs on a thread of its own; touched by the answering thread alone.

    Attributes:
        request, decision: Its own until it is settled.
        request_id: The caller's.
        run: Once it was started.
        result: What to fill once it is settled, for an item of a stream message.
        answer: What to send once it is settled, for a request by itself.
        sequence: In the journal, of an answer that is OK; 0 otherwise.
        reserved: As `Answers.reserved`, of its answer.
        on_settled: Called when the answer is there.
    """

    __slots__ = (
        "answer",
        "decision",
        "on_settled",
        "request",
        "request_id",
        "reserved",
        "result",
        "run",
        "sequence",
    )

    def __init__(self, request: Request, decision: Decision, request_id: str) -> None:
        self.request = request
        self.decision = decision
        self.request_id = request_id
        self.run: Run | None = None
        self.result: pb.PredictStreamResult | None = None
        self.answer: bytes | Status = b""
        self.sequence = 0
        self.reserved: tuple[int, ...] = ()
        self.on_settled: Callable[[], None] = lambda: None


class Answers:
    """Answers to `Predict` and `PredictStream` over one engine, from bytes to bytes; one thread at a time.

    Each request that arrives here is journaled once, with what became of it, before its answer leaves. An answer that
    is found late after that leaves as DEADLINE_EXCEEDED, and the journal is told so.

    Attributes:
        reserved: Order ids that the answer returned last approves; should it not leave, tell `not_sent` of them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._request = Request()
        self._decision = Decision()
        self._encoder = Encoder(engine.registry.models)
        self._sequence = 0  # in the journal, of the answer at hand if it is OK
        self._pending: set[Pending] = set()  # as many as the models' queues hold
        self._abandoned = False
        self._lane = FastLane(engine)
        self.reserved: tuple[int, ...] = ()
        engine.roster.watch(self._models_changed)

    def _models_changed(self) -> None:
        """Versions came or went, or an alias means another one: between two requests."""
        self._encoder.keep(self._engine.roster.kept)
        self._lane.follow()
        if self._decision.model not in self._engine.roster.numbers:  # it is let go of, and freed by another thread
            self._decision.model = None

    @property
    def waiting(self) -> bool:
        """Whether requests wait for a model that has a thread of its own."""
        return bool(self._pending)

    def predict(self, data: bytes, arrival_ns: int, deadline_ns: int) -> bytes | Status | Pending:
        """The answer to one `PredictRequest`, serialized; the status where it fails.

        Args:
            data: The request, serialized.
            arrival_ns: When it arrived, on `perf_counter_ns`'s clock.
            deadline_ns: What its gRPC deadline left then; 0: none.

        Returns:
            `Pending` where the model has a thread of its own: `start` it before anything else.
        """
        fast = self._lane.predict(data, arrival_ns, deadline_ns)
        if fast is not None:
            self.reserved = self._lane.reserved
            return fast
        self.reserved = ()
        try:
            message = pb.PredictRequest.FromString(data)
        except DecodeError as error:
            return self._unreadable(FieldInvalid("request", "a tickgate.v1.PredictRequest", str(error)))
        answer = self._answer(message, arrival_ns, deadline_ns)
        if isinstance(answer, pb.PredictResponse):
            return self._in_time(answer, arrival_ns, self._decision.budget_ns)
        return answer

    def predict_stream(
        self, data: bytes, arrival_ns: int, deadline_ns: int
    ) -> bytes | Generator[Pending | None, None, bytes | Status]:
        """The answer to one `PredictStreamRequest`, or how to come to it; as `predict` otherwise.

        The generator pauses after each turn for other calls, and at each item whose model has a thread of its own with
        its `Pending`: `start` that before anything else, and go on once it is settled. A failed item carries its own
        status in the answer. The status comes back only for a message that is none, or that has more items than one may
        have: the stream ends with it. The answers of a message leave together, and each that is late by then says so.
        """
        fast = self._lane.predict_one(data, arrival_ns, deadline_ns)
        if fast is not None:
            self.reserved = self._lane.reserved
            return fast
        return self._stream_message(data, arrival_ns, deadline_ns)

    def _stream_message(
        self, data: bytes, arrival_ns: int, deadline_ns: int
    ) -> Generator[Pending | None, None, bytes | Status]:
        try:
            message = pb.PredictStreamRequest.FromString(data)
        except DecodeError as error:
            return self._unreadable(FieldInvalid("request", "a tickgate.v1.PredictStreamRequest", str(error)))
        if len(message.requests) > STREAM_ITEMS:
            return self._unreadable(
                FieldInvalid("requests", f"at most {STREAM_ITEMS} a message", len(message.requests))
            )
        answers = pb.PredictStreamResponse()
        sequences: list[int] = []
        least_budget_ns = _NEVER_NS
        try:
            for index, request in enumerate(message.requests):
                if index and index % TURN_ITEMS == 0:
                    yield None
                result = answers.results.add(request_id=request.request_id)
                answer = self._answer(request, arrival_ns, deadline_ns)
                if isinstance(answer, Pending):
                    answer.result = result
                    yield answer
                    sequences.append(answer.sequence)
                    least_budget_ns = min(least_budget_ns, answer.decision.budget_ns)
                else:
                    _put(answer, result)
                    sequences.append(self._sequence)
                    least_budget_ns = min(least_budget_ns, self._decision.budget_ns)
        except GeneratorExit:  # the caller went away: none of it leaves
            self.not_sent(_approved(answers))
            raise
        spent_ns = perf_counter_ns() - arrival_ns
        if spent_ns >= least_budget_ns:
            self._drop_late(answers, sequences, spent_ns)
        self.reserved = tuple(_approved(answers))
        return answers.SerializeToString()

    def not_sent(self, order_ids: Sequence[int]) -> None:
        """The caller went away before an answer that approved these orders had left: their reservations end."""
        if not order_ids:
            return
        try:
            self._engine.recorder.unsent(list(order_ids), CANCELLED.number)
        except JournalError as error:
            status_of(error)  # says so in the log; the reservations end in time

    # -- requests whose model has a thread of its own --------------------------------------------------------------

    def start(self, pending: Pending, post: Post, on_settled: Callable[[], None]) -> None:
        """Run the model of a request.

        Args:
            pending: As it was returned.
            post: How its thread reaches this one.
            on_settled: Called on this thread when the answer is there; not called once it was cancelled.
        """
        pending.on_settled = on_settled
        self._pending.add(pending)
        pending.run = self._engine.run(pending.request, pending.decision, lambda: post(partial(self._settle, pending)))

    def cancel(self, pending: Pending) -> None:
        """The caller went away: journal that, and drop what the model gives. Nothing is left to do if it is settled."""
        if self._give_up(pending):
            decision = pending.decision
            spent_ns = perf_counter_ns() - pending.request.arrival_ns
            late = spent_ns >= decision.budget_ns  # a caller whose deadline is over goes away as well
            status = status_of(BudgetSpent("risk", decision.budget_ns, spent_ns)) if late else CANCELLED
            self._refused(status, pending.request, decision, pending.request_id)

    def abandon(self) -> None:
        """Answer all that still wait for a model UNAVAILABLE, and whoever comes after."""
        self._abandoned = True
        for pending in list(self._pending):
            if self._give_up(pending):
                self._deliver(pending, self._refused(DRAINING, pending.request, pending.decision, pending.request_id))

    def close(self) -> None:
        """End the models' threads; `post` is not called any more."""
        self.abandon()
        self._engine.close()

    def _hand_over(self, request_id: str) -> Pending | Status:
        """What `decide` left, with records of its own."""
        request, decision = self._request, self._decision
        if self._abandoned:
            return self._refused(DRAINING, request, decision, request_id)
        self._request, self._decision = Request(), Decision()
        return Pending(request, decision, request_id)

    def _settle(self, pending: Pending) -> None:
        if pending not in self._pending or pending.run is None:  # given up while this was on its way
            return
        self._pending.discard(pending)
        request, decision, request_id = pending.request, pending.decision, pending.request_id
        try:
            self._engine.finish(request, decision, pending.run)
        except Exception as error:  # noqa: BLE001 - as in `_answer`
            answer: pb.PredictResponse | Status = self._refused(status_of(error), request, decision, request_id)
        else:
            answer = self._concluded(request, decision, request_id)
        self._deliver(pending, answer)

    def _give_up(self, pending: Pending) -> bool:
        if pending not in self._pending or pending.run is None:
            return False
        self._pending.discard(pending)
        self._engine.give_up(pending.decision, pending.run)
        return True

    def _deliver(self, pending: Pending, answer: pb.PredictResponse | Status) -> None:
        pending.sequence = self._sequence
        if pending.result is not None:
            _put(answer, pending.result)
        elif isinstance(answer, Status):
            pending.answer = answer
        else:
            pending.answer = self._in_time(answer, pending.request.arrival_ns, pending.decision.budget_ns)
            pending.reserved = self.reserved if isinstance(pending.answer, bytes) else ()
        pending.on_settled()

    # -- one request -----------------------------------------------------------------------------------------------

    def _answer(
        self, message: pb.PredictRequest, arrival_ns: int, deadline_ns: int
    ) -> pb.PredictResponse | Status | Pending:
        """The response, good until the next call, or the status, journaled; or what is to come."""
        request = self._request
        decision = self._decision
        decision.stage = 0
        request.arrival_ns = arrival_ns
        request.budget_ns = budget_ns(message.budget_us, deadline_ns)
        try:
            decode(message, request)
            decided = self._engine.decide(request, decision)
        except Exception as error:  # noqa: BLE001 - the boundary: every error becomes a status, none is lost
            return self._refused(status_of(error), request, decision, message.request_id)
        if not decided:
            return self._hand_over(message.request_id)
        return self._concluded(request, decision, message.request_id)

    def _concluded(self, request: Request, decision: Decision, request_id: str) -> pb.PredictResponse | Status:
        """The response to a request that was decided, or the status; journaled."""
        try:
            response = self._encoder.encode(decision, request_id)
            check_budget(request, decision)
        except Exception as error:  # noqa: BLE001 - as above
            return self._refused(status_of(error), request, decision, request_id)
        try:
            self._sequence = self._engine.recorder.record(request, decision, request_id=request_id, status=0)
        except JournalError as error:  # what cannot be journaled is not answered
            self._sequence = 0
            return status_of(error)
        self.reserved = (decision.order_id,) if decision.order_id and not decision.repeated else ()
        return response

    def _in_time(self, response: pb.PredictResponse, arrival_ns: int, budget_ns: int) -> bytes | Status:
        """A response as it leaves; appending to the journal may have taken long."""
        data = response.SerializeToString()
        spent_ns = perf_counter_ns() - arrival_ns
        if spent_ns < budget_ns:
            return data
        return self._late([self._sequence], budget_ns, spent_ns)

    def _drop_late(self, answers: pb.PredictStreamResponse, sequences: list[int], spent_ns: int) -> None:
        for result, sequence in zip(answers.results, sequences, strict=True):
            if result.HasField("response") and spent_ns >= result.response.timing.budget_ns:
                late = self._late([sequence], result.response.timing.budget_ns, spent_ns)
                result.ClearField("response")
                _put(late, result)

    def _late(self, sequences: list[int], budget_ns: int, spent_ns: int) -> Status:
        """The status of answers that are in the journal as OK and must not leave so."""
        self.reserved = ()
        status = status_of(BudgetSpent("sending", budget_ns, spent_ns))
        try:
            self._engine.recorder.unsent(sequences, status.number)
        except JournalError as error:
            return status_of(error)
        return status

    def _unreadable(self, error: FieldInvalid) -> Status:
        """The status of a message in which no request was found."""
        self._request.input = 0
        self._request.request_id = b""
        self._request.model = self._request.symbol = ""
        self._request.budget_ns = 0
        self._decision.stage = 0
        return self._refused(status_of(error), self._request, self._decision, "")

    def _refused(self, status: Status, request: Request, decision: Decision, request_id: str) -> Status:
        """A status as it leaves: journaled."""
        self._sequence = 0
        try:
            self._engine.recorder.record(request, decision, request_id=request_id, status=status.number)
        except JournalError as unwritten:
            return status_of(unwritten)
        return status


def _approved(answers: pb.PredictStreamResponse) -> list[int]:
    """Order ids that a message approves."""
    signals = [result.response.signal for result in answers.results if not result.response.repeated]
    return [signal.order_id for signal in signals if signal.order_id]


def _put(answer: pb.PredictResponse | Status, result: pb.PredictStreamResult) -> None:
    if isinstance(answer, Status):
        result.code = answer.number
        result.message = answer.message
    else:
        result.response.CopyFrom(answer)
