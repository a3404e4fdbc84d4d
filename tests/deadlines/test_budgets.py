"""Budgets bind: what is late is not OK, and what would be is refused, and the service goes on."""

import time
from collections.abc import Iterable

import grpc
import pytest
from tests.deadlines.conftest import Journaled, ask
from tests.support.messages import tick, untimed, zigzag
from tests.support.processes import CALL_S

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.journal.entries import ControlEntry, DecisionEntry
from tickgate_server.journal.layout import ControlKind, text
from tickgate_server.records import Stage

OK, CANCELLED, LATE, EXHAUSTED = 0, 1, 4, 8


def call(journaled: Journaled, request: pb.PredictRequest) -> grpc.Future:
    return journaled.server.stub.Predict.future(request, timeout=CALL_S)


def code(made: grpc.Future) -> int:
    number: int = made.code().value[0]
    return number


def stages(decisions: Iterable[DecisionEntry]) -> list[tuple[int, int]]:
    """Status and stage of each."""
    return [(int(entry.row["status"]), int(entry.row["stage"])) for entry in decisions]


def test_no_answer_of_a_slow_model_is_ok_after_its_budget(shared: Journaled) -> None:
    shared.server.predict(ask("slow"))
    requests = [ask("slow", budget_us=budget, name="b") for budget in (5_000, 25_000, 50_000, 1_000_000) * 5]
    codes = []
    for request in requests:
        made = call(shared, request)
        codes.append(code(made))
        if codes[-1] == OK:
            timing = made.result().timing
            assert timing.total_ns < timing.budget_ns == request.budget_us * 1_000
    assert set(codes) <= {OK, LATE}
    assert codes[::4] == [LATE] * 5
    assert codes[3::4] == [OK] * 5
    decisions = shared.decisions(*(request.request_id for request in requests))
    assert [text(entry.row, "request_id") for entry in decisions] == [request.request_id for request in requests]
    assert [entry.row["status"] for entry in decisions] == codes


def test_what_is_stopped_in_its_run_is_journaled_so_and_the_next_answer_is_right(shared: Journaled) -> None:
    before = shared.server.predict(ask("slow"))
    time.sleep(0.15)  # without a completed run for 100 ms, so that one is let through
    stopped = ask("slow", budget_us=5_000, name="stopped")
    assert shared.server.refusal(stopped)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    after = shared.server.predict(ask("slow"))
    assert untimed(after).prediction == untimed(before).prediction
    assert after.prediction.confidence == 0.5
    assert stages(shared.decisions(stopped.request_id)) == [(LATE, Stage.INFERENCE)]


def test_a_budget_too_short_for_the_model_is_refused_before_its_tick_is_applied_and_service_resumes(
    shared: Journaled,
) -> None:
    *earlier, last = zigzag("REFUSED", 12)
    for request in earlier:
        shared.server.predict(request)
    refused = []
    for number in range(3):  # one of them may come 100 ms after the last completed run
        shared.server.predict(ask("slow"))
        short = tick("REFUSED", last.tick.exchange_ts_ns + number, trade=(100.0, 1.0), model="slow", budget_us=5_000)
        short.request_id = f"short-{number}"
        assert shared.server.refusal(short)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        (entry,) = shared.decisions(short.request_id)
        if entry.row["stage"] == Stage.WAITING:
            refused.append(bool(entry.row["applied"]))
    assert refused
    assert not any(refused)
    assert shared.server.predict(pb.PredictRequest(symbol="REFUSED")).features.trades_in_window <= 14 - len(refused)
    sane = ask("slow", budget_us=20_000_000)
    assert shared.server.predict(sane).request_id == sane.request_id


def test_refusals_do_not_outlast_their_cause(shared: Journaled) -> None:
    """Budgets that are too short for what is known of the model, and long enough for what it takes."""
    for _ in range(50):
        shared.server.predict(ask("fast"))
    requests = [ask("fast", budget_us=50, name="tiny") for _ in range(200)]
    for request in requests:
        made = call(shared, request)
        assert code(made) in {OK, LATE}
        if code(made) == OK:
            assert made.result().timing.total_ns < 50_000
    sane = [call(shared, ask("fast", budget_us=20_000_000)) for _ in range(20)]
    assert [code(made) for made in sane] == [OK] * 20
    assert len(shared.decisions(*(request.request_id for request in requests))) == 200


def test_a_fast_model_answers_while_a_slow_one_runs(shared: Journaled) -> None:
    slow = call(shared, ask("slow"))
    stamps = []
    while not slow.done():
        stamps.append(shared.server.predict(ask("fast")).timing.server_send_ts_ns)
    assert sum(stamp < slow.result().timing.server_send_ts_ns for stamp in stamps) > 3


def test_more_than_may_wait_is_refused_at_once_and_the_rest_is_answered(shared: Journaled) -> None:
    requests = [ask("slow", name="burst") for _ in range(12)]
    made = [call(shared, request) for request in requests]
    codes = [code(one) for one in made]
    assert set(codes) == {OK, EXHAUSTED}
    assert codes.count(OK) >= 2  # those that may wait, whether or not the first of them runs by then
    refused = made[codes.index(EXHAUSTED)]
    assert refused.details() == "model slow:1 is busy: 2 requests wait for it, and no more may"
    ids = [request.request_id for request in requests]
    by_id = {text(entry.row, "request_id"): entry for entry in shared.decisions(*ids)}
    assert [int(by_id[name].row["status"]) for name in ids] == codes
    assert {stage for status, stage in stages(by_id.values()) if status == EXHAUSTED} == {Stage.WAITING}
    under_way: set[int] = set()
    for entry in shared.entries():
        if isinstance(entry, DecisionEntry):
            under_way.discard(int(entry.row["ticket"]))
            if text(entry.row, "request_id") in ids and int(entry.row["status"]) == EXHAUSTED:
                assert len(under_way) >= 2  # refused only where two wait
        elif entry.code == ControlKind.STARTED:
            under_way.add(int(entry.payload["ticket"]))


def test_requests_that_wait_are_answered_when_their_budget_is_spent(shared: Journaled) -> None:
    time.sleep(0.15)
    requests = [ask("slow", budget_us=0), ask("slow", budget_us=90_000_000), ask("slow", budget_us=10_000, name="late")]
    made = [call(shared, request) for request in requests]
    codes = [code(one) for one in made]
    assert codes[:2] == [OK, OK]
    assert codes[2] in {LATE, EXHAUSTED}
    (entry,) = shared.decisions(requests[2].request_id)
    assert int(entry.row["status"]) == codes[2]
    assert int(entry.row["stage"]) <= Stage.FEATURES


def test_a_stream_is_answered_in_order_whatever_runs_its_models_and_holds_up_no_other(shared: Journaled) -> None:
    models = ["fast", "slow", "fast", "slow", "slow", "fast"]
    requests = [ask(model, name="mixed") for model in models]
    answers = shared.server.stream([requests[:4], requests[4:]])
    beside = shared.server.predict(ask("fast"))
    results = [result for answer in answers for result in answer.results]
    assert [(result.code, result.message) for result in results] == [(OK, "")] * 6
    assert [result.request_id for result in results] == [request.request_id for request in requests]
    assert [result.response.model.name for result in results] == models
    assert beside.timing.server_send_ts_ns < results[-1].response.timing.server_send_ts_ns
    decisions = shared.decisions(*(request.request_id for request in requests))
    assert [text(entry.row, "request_id") for entry in decisions] == [request.request_id for request in requests]


def test_ticks_of_a_slow_model_are_applied_as_they_come(shared: Journaled) -> None:
    requests = zigzag("APPLIED", 14)
    for request in requests[:11]:
        shared.server.predict(request)
    slow = requests[11]
    slow.model = "slow"
    made = call(shared, slow)
    shared.wait_for(lambda: started(shared, "APPLIED") == 1)
    assert shared.server.predict(requests[12]).features.trades_in_window == 13
    assert made.result().features.trades_in_window == 12
    assert shared.server.predict(requests[13]).features.trades_in_window == 14


def test_an_answer_that_its_streams_other_items_made_late_is_not_sent_as_ok(shared: Journaled) -> None:
    requests = [ask("fast", budget_us=30_000, name="first"), ask("slow", name="then"), ask("fast", name="last")]
    (answer,) = shared.server.stream([requests])
    assert [result.code for result in answer.results] == [LATE, OK, OK]
    assert "sending" in answer.results[0].message
    assert not answer.results[0].HasField("response")
    (first,) = shared.decisions(requests[0].request_id)
    unsent = [
        entry.payload
        for entry in shared.entries()
        if isinstance(entry, ControlEntry) and entry.code == ControlKind.UNSENT
    ]
    assert first.row["status"] == OK
    assert {"sequences": [first.sequence], "status": LATE} in unsent


def started(journaled: Journaled, symbol: str) -> int:
    """Requests of a symbol that a model's thread was given."""
    return sum(
        isinstance(entry, ControlEntry)
        and entry.code == ControlKind.STARTED
        and entry.payload["request"]["symbol"] == symbol
        for entry in journaled.entries()
    )


@pytest.mark.parametrize("stream", [False, True])
def test_what_its_caller_cancelled_is_journaled_so_and_the_server_goes_on(
    shared: Journaled, transport: str, *, stream: bool
) -> None:
    # A model's run may end before the caller's word arrives: then the caller tries with the next symbol.
    for attempt in range(20):
        symbol = f"CANCELLED-{transport}-{stream}-{attempt}"
        status, stage = cancel_one(shared, symbol, stream=stream)
        if status == CANCELLED:
            break
    assert status == CANCELLED
    assert stage in {Stage.FEATURES, Stage.INFERENCE}


def cancel_one(shared: Journaled, symbol: str, *, stream: bool) -> tuple[int, int]:
    """Status and stage of a request that its caller cancels once its model's thread was given it."""
    for request in zigzag(symbol, 12):
        shared.server.predict(request)
    blocker = call(shared, ask("slow"))
    request = pb.PredictRequest(symbol=symbol, model="slow", request_id=symbol)
    if stream:
        messages = iter([pb.PredictStreamRequest(requests=[request])])
        made = shared.server.stub.PredictStream(messages, timeout=CALL_S)
    else:
        made = call(shared, request)
    shared.wait_for(lambda: started(shared, symbol) == 1)
    made.cancel()
    shared.wait_for(lambda: len(shared.decisions(symbol)) == 1)
    assert blocker.result().prediction.confidence == 0.5
    assert shared.server.predict(ask("slow")).prediction.confidence == 0.5
    ((status, stage),) = stages(shared.decisions(symbol))
    return status, stage


def test_the_grpc_deadline_stops_a_slow_model_too(shared: Journaled) -> None:
    time.sleep(0.15)
    request = ask("slow", name="deadline")
    with pytest.raises(grpc.RpcError) as caught:
        shared.server.stub.Predict(request, timeout=0.02)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    shared.wait_for(lambda: len(shared.decisions(request.request_id)) == 1)
    assert stages(shared.decisions(request.request_id))[0][0] == LATE
