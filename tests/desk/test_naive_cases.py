"""The cases that naive gates get wrong, through the engine and its answers as a client has them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.risk import EngineBench, chosen_model, limits

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.models.registry import ModelRegistry
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import OrderState

_CANCELLED = 1  # google.rpc.Code
Make = Callable[..., EngineBench]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    """A model whose output the test chooses."""
    return chosen_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(params=["journal", "no journal"])
def make(models: ModelRegistry, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes a desk with these limits."""
    made = []

    def start(**changes: Any) -> EngineBench:
        folder = tmp_path / "journal" if request.param == "journal" else None
        made.append(EngineBench(models, folder=folder, found=limits(**changes)))
        return made[-1]

    yield start
    for bench in made:
        bench.close()


# -- open orders on both sides -------------------------------------------------------------------------------------


def test_long_10_with_an_open_sell_of_10_a_buy_of_10_counts_as_20(make: Make) -> None:
    bench = make(max_position_size=19.0)
    bench.hold(10.0)
    assert bench.ask(0.0).action == pb.ACTION_SELL
    assert bench.sizes() == (10.0, 0.0, 10.0)
    signal = bench.ask(10.0)  # net of the sell it would be 10
    assert (signal.action, signal.reason) == (pb.ACTION_HOLD, pb.REASON_POSITION_SIZE)
    (size,) = (check.value for check in signal.checks if check.reason == pb.REASON_POSITION_SIZE)
    assert size == 20.0
    assert bench.sizes() == (10.0, 0.0, 10.0)


def test_a_buy_against_an_open_sell_of_our_own_is_self_trade(make: Make) -> None:
    bench = make(max_open_opposite=0.0)
    bench.hold(10.0)
    sold = bench.ask(0.0)
    assert bench.ask(10.0).reason == pb.REASON_ORDER_SELF_TRADE
    bench.order(sold.order_id, OrderState.CANCELLED)
    bench.hold(0.0)
    assert bench.ask(10.0).approved


def test_of_two_sells_of_10_against_a_long_of_10_the_second_does_not_reduce(make: Make) -> None:
    bench = make()
    bench.hold(10.0)
    bench.desk.set_state(TradingState.REDUCING, reason="a test", who="tester")
    first = bench.ask(0.0)
    assert (first.action, first.size, first.reducing) == (pb.ACTION_SELL, 10.0, True)
    second = bench.ask(-10.0)
    assert (second.action, second.reason, second.reducing) == (
        pb.ACTION_HOLD,
        pb.REASON_TRADING_STATE_REDUCING,
        False,
    )
    assert bench.ask(0.0).reason == pb.REASON_SIZING_BELOW_MINIMUM
    assert bench.sizes() == (10.0, 0.0, 10.0)


def test_a_second_exit_is_what_the_first_left_of_the_position(make: Make) -> None:
    bench = make()
    bench.hold(10.0)
    bench.desk.set_state(TradingState.REDUCING, reason="a test", who="tester")
    assert bench.ask(4.0).size == 6.0
    second = bench.ask(-3.0)
    assert (second.size, second.reducing, second.remaining_size) == (4.0, True, -3.0)
    assert bench.sizes() == (10.0, 0.0, 10.0)


def test_buys_at_work_count_before_they_fill(make: Make) -> None:
    bench = make(max_position_size=10.0)
    assert bench.ask(10.0).approved
    assert bench.ask(11.0).reason == pb.REASON_POSITION_SIZE
    assert bench.sizes() == (0.0, 10.0, 0.0)


# -- from long to short --------------------------------------------------------------------------------------------


def test_a_flip_from_long_to_short_is_the_exit_now_and_the_entry_with_the_next_request(make: Make) -> None:
    bench = make(max_position_size=10.0)
    bench.hold(10.0)
    out = bench.ask(-10.0)
    assert (out.action, out.size, out.remaining_size, out.reducing) == (pb.ACTION_SELL, 10.0, -10.0, True)
    assert bench.sizes() == (10.0, 0.0, 10.0)
    bench.fill(-10.0, order_id=out.order_id)
    assert bench.sizes() == (0.0, 0.0, 0.0)
    entry = bench.ask(-10.0)
    assert (entry.action, entry.size, entry.remaining_size, entry.reducing) == (pb.ACTION_SELL, 10.0, 0.0, False)
    bench.fill(-10.0, order_id=entry.order_id)
    assert bench.sizes() == (-10.0, 0.0, 0.0)


def test_the_entry_of_a_flip_faces_every_check_though_its_exit_passes(make: Make) -> None:
    bench = make(max_position_size=10.0)
    bench.hold(10.0)
    bench.desk.set_state(TradingState.REDUCING, reason="a test", who="tester")
    out = bench.ask(-10.0)
    assert out.approved
    bench.fill(-10.0, order_id=out.order_id)
    assert bench.ask(-10.0).reason == pb.REASON_TRADING_STATE_REDUCING


# -- the same request again ----------------------------------------------------------------------------------------


def test_a_repeated_request_gets_the_first_answer_again_and_reserves_once(make: Make) -> None:
    bench = make(max_position_size=10.0)
    request = bench.request(10.0, request_id="one")
    first = bench.send(request)
    assert first.signal.approved
    assert not first.repeated
    again = bench.send(request)
    assert again.repeated
    for name in ("action", "reason", "size", "limit_price", "order_id", "valid_for_us", "target_position", "approved"):
        assert getattr(again.signal, name) == getattr(first.signal, name), name
    assert again.prediction == first.prediction
    assert bench.sizes() == (0.0, 10.0, 0.0)
    assert len(bench.desk.portfolio().orders) == 1


def test_a_repeated_request_gets_the_first_answer_though_its_order_was_filled(make: Make) -> None:
    bench = make()
    request = bench.request(10.0, request_id="one")
    first = bench.send(request)
    bench.fill(10.0, order_id=first.signal.order_id)
    assert bench.send(request).signal.order_id == first.signal.order_id
    assert bench.sizes() == (10.0, 0.0, 0.0)


def test_a_repeated_hold_is_a_hold_again_though_it_would_pass_now(make: Make) -> None:
    bench = make(max_position_size=9.0)
    request = bench.request(10.0, request_id="one")
    assert bench.send(request).signal.reason == pb.REASON_POSITION_SIZE
    bench.desk.change_limits(limits(version=1), reason="a test", who="tester")
    again = bench.send(request)
    assert (again.signal.reason, again.repeated) == (pb.REASON_POSITION_SIZE, True)
    assert bench.sizes() == (0.0, 0.0, 0.0)


def test_the_same_id_with_another_payload_is_refused_and_changes_nothing(make: Make) -> None:
    bench = make()
    first = bench.send(bench.request(10.0, request_id="one"))
    for other in (
        bench.request(11.0, request_id="one"),
        bench.request(10.0, "B", request_id="one"),
        bench.request(10.0, request_id="one", price=100.01),
    ):
        answer = bench.send(other)
        assert (answer.signal.action, answer.signal.reason) == (pb.ACTION_HOLD, pb.REASON_REQUEST_ID_REUSED)
        assert (answer.signal.size, answer.signal.order_id, answer.signal.approved) == (0.0, 0, False)
    assert bench.sizes() == (0.0, 10.0, 0.0)
    assert len(bench.desk.portfolio().orders) == 1
    assert first.signal.approved


def test_a_repeated_request_after_its_answers_validity_is_expired(make: Make) -> None:
    bench = make(valid_for_us=2_000_000)
    request = bench.request(10.0, request_id="one")
    assert bench.send(request).signal.approved
    bench.pass_time(1.999_999)
    assert bench.send(request).signal.approved
    bench.pass_time(0.000_001)
    late = bench.send(request)
    assert (late.signal.action, late.signal.reason) == (pb.ACTION_HOLD, pb.REASON_REQUEST_EXPIRED)
    assert bench.sizes() == (0.0, 0.0, 0.0)
    assert bench.send(bench.request(10.0, request_id="two")).signal.approved


@pytest.mark.parametrize("state", [TradingState.REDUCING, TradingState.HALTED])
def test_an_approval_is_not_given_again_by_a_desk_that_would_not_give_it_now(make: Make, state: TradingState) -> None:
    bench = make()
    request = bench.request(10.0, request_id="one")
    assert bench.send(request).signal.approved
    bench.desk.set_state(state, reason="a test", who="tester")
    again = bench.send(request)
    assert (again.signal.action, again.signal.approved) == (pb.ACTION_HOLD, False)
    assert again.signal.reason == pb.Reason.Value(f"REASON_TRADING_STATE_{state.name}")


def test_requests_without_an_id_are_never_the_same(make: Make) -> None:
    bench = make()
    request = bench.request(10.0)
    assert bench.send(request).signal.approved
    assert bench.send(request).signal.reason == pb.REASON_SIZING_BELOW_MINIMUM  # 10 are on their way


# -- late reports ----------------------------------------------------------------------------------------------------


def test_a_fill_after_expiry_is_booked(make: Make) -> None:
    bench = make()
    signal = bench.ask(10.0)
    bench.pass_time(5.0)
    assert bench.sizes() == (0.0, 0.0, 0.0)
    answer = bench.fill(10.0, order_id=signal.order_id)
    assert (answer.booked, answer.position, answer.remaining) == (True, 10.0, 0.0)
    assert bench.sizes() == (10.0, 0.0, 0.0)
    assert bench.desk.state.state is TradingState.ACTIVE


def test_a_fill_after_expiry_that_is_over_a_limit_makes_the_desk_reduce(make: Make) -> None:
    bench = make(max_position_size=10.0)
    first = bench.ask(10.0)
    bench.pass_time(5.0)
    second = bench.ask(10.0)
    assert second.approved
    bench.fill(10.0, order_id=second.order_id)
    assert bench.desk.state.state is TradingState.ACTIVE
    bench.fill(10.0, order_id=first.order_id)
    assert bench.sizes() == (20.0, 0.0, 0.0)
    state = bench.desk.state
    assert (state.state, state.who) == (TradingState.REDUCING, "limit")
    assert "POSITION_SIZE" in state.reason
    assert bench.ask(21.0).reason == pb.REASON_TRADING_STATE_REDUCING
    assert bench.ask(10.0).approved  # back to what is allowed


def test_what_fills_partly_after_expiry_is_at_work_with_the_rest(make: Make) -> None:
    bench = make(max_position_size=10.0)
    signal = bench.ask(10.0)
    bench.pass_time(5.0)
    assert bench.fill(4.0, order_id=signal.order_id).remaining == 6.0
    assert bench.sizes() == (4.0, 6.0, 0.0)
    assert bench.ask(11.0).reason == pb.REASON_POSITION_SIZE


def test_an_order_that_was_reported_does_not_expire(make: Make) -> None:
    bench = make(max_position_size=10.0)
    signal = bench.ask(10.0)
    bench.order(signal.order_id, OrderState.ACCEPTED)
    bench.pass_time(3600.0)
    assert bench.sizes() == (0.0, 10.0, 0.0)
    bench.trade("A", 100.0)
    assert bench.ask(11.0).reason == pb.REASON_POSITION_SIZE
    bench.order(signal.order_id, OrderState.CANCELLED)
    assert bench.sizes() == (0.0, 0.0, 0.0)


def test_an_order_that_is_accepted_after_its_expiry_counts_again(make: Make) -> None:
    bench = make(max_position_size=10.0)
    signal = bench.ask(10.0)
    bench.pass_time(5.0)
    assert bench.sizes() == (0.0, 0.0, 0.0)
    bench.order(signal.order_id, OrderState.ACCEPTED)
    assert bench.sizes() == (0.0, 10.0, 0.0)
    assert bench.ask(11.0).reason == pb.REASON_POSITION_SIZE


def test_a_sell_after_a_buy_was_filled_whole_counts_in_full(make: Make) -> None:
    bench = make(max_position_size=10.0)
    bought = bench.ask(10.0)
    bench.fill(10.0, order_id=bought.order_id)
    sold = bench.ask(4.0)
    assert bench.sizes() == (10.0, 0.0, 6.0)
    bench.fill(-6.0, order_id=sold.order_id)
    assert bench.sizes() == (4.0, 0.0, 0.0)


# -- answers that did not leave -------------------------------------------------------------------------------------


def test_an_answer_whose_client_had_gone_releases_its_reservation_and_its_id(make: Make) -> None:
    bench = make(max_position_size=10.0)
    request = bench.request(10.0, request_id="one")
    first = bench.send(request)
    assert bench.sizes() == (0.0, 10.0, 0.0)
    bench.engine.recorder.unsent([first.signal.order_id], _CANCELLED)
    assert bench.sizes() == (0.0, 0.0, 0.0)
    again = bench.send(request)
    assert (again.signal.approved, again.repeated) == (True, False)
    assert again.signal.order_id != first.signal.order_id
    assert bench.sizes() == (0.0, 10.0, 0.0)


def test_an_answer_that_did_not_leave_releases_nothing_of_others(make: Make) -> None:
    bench = make()
    first, second = bench.send(bench.request(10.0, request_id="one")), bench.send(bench.request(7.0, "B"))
    bench.engine.recorder.unsent([second.signal.order_id], _CANCELLED)
    assert bench.sizes("A") == (0.0, 10.0, 0.0)
    assert bench.sizes("B") == (0.0, 0.0, 0.0)
    assert bench.send(bench.request(10.0, request_id="one")).signal.order_id == first.signal.order_id


def test_an_order_that_was_reported_on_is_not_released_by_a_late_unsent(make: Make) -> None:
    bench = make()
    signal = bench.ask(10.0)
    bench.order(signal.order_id, OrderState.ACCEPTED)
    bench.engine.recorder.unsent([signal.order_id], _CANCELLED)
    assert bench.sizes() == (0.0, 10.0, 0.0)


def test_a_hold_that_did_not_leave_is_decided_anew(make: Make) -> None:
    bench = make(max_position_size=9.0)
    request = bench.request(10.0, request_id="one")
    bench.send(request)
    bench.engine.recorder.unsent([int(bench.desk.ids.facts[0, 0])], _CANCELLED)
    bench.desk.change_limits(limits(version=1), reason="a test", who="tester")
    assert bench.send(request).signal.approved


# -- order ids ---------------------------------------------------------------------------------------------------------


def test_order_ids_grow_and_name_the_record_of_their_decision(models: ModelRegistry, tmp_path: Path) -> None:
    bench = EngineBench(models, folder=tmp_path, segment_records=64)
    ids = []
    for number in range(200):
        signal = bench.ask(number + 1.0, "AB"[number % 2], request_id=f"r{number}")
        assert signal.approved
        ids.append(signal.order_id)
        assert bench.desk.ids.facts[number, 0] == signal.order_id
    assert ids == sorted(set(ids))
    bench.close()
