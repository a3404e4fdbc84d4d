"""When a breach begins, what it keeps back, and when it ends, on a clock that the tests move."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from tests.client.sla_clock import MS, SECOND, Desk, objective

from tickgate_client import TradingHeld
from tickgate_client.sla import FAST_BURN, MISSED_IN_A_MINUTE, Breach, BurnRule, Policy, SlaMonitor

DEADLINE_EXCEEDED, INVALID_ARGUMENT, UNAVAILABLE = 4, 3, 14


def test_a_healthy_server_lets_orders_pass() -> None:
    desk = Desk(objective())
    desk.look()
    desk.calls(2_000)
    desk.call(ms=10.0)  # one in two thousand over the limit is within 99.9 %
    desk.look(5)
    desk.monitor.before_order()
    assert desk.monitor.may_add_risk


def test_no_order_passes_before_the_first_look_nor_after_a_look_that_is_too_old() -> None:
    desk = Desk(objective(), late_after_s=1.0)
    assert desk.causes() == ["MONITOR_LATE"]
    desk.look()
    desk.clock.advance(SECOND)
    desk.monitor.before_order()
    desk.clock.advance(1)
    with pytest.raises(TradingHeld, match=r"HOLD: objective 'signals' is in breach \(MONITOR_LATE\)"):
        desk.monitor.before_order()
    desk.look()
    desk.monitor.before_order()


def test_a_call_outstanding_for_longer_than_the_stall_holds_at_once_without_any_look() -> None:
    desk = Desk(objective(stall_us=50_000), late_after_s=100.0)
    desk.look()
    number = desk.monitor.begin()
    desk.clock.advance(50 * MS)
    desk.monitor.before_order()
    desk.clock.advance(1)
    with pytest.raises(TradingHeld) as caught:
        desk.monitor.before_order()
    assert (caught.value.objective, caught.value.policy) == ("signals", "HOLD")
    assert caught.value.causes == ("LATENCY_STALL",)
    desk.monitor.end(number)  # the answer changes nothing: it was late
    assert desk.causes() == ["LATENCY_STALL"]


def test_a_call_that_ended_late_holds_at_once_though_nobody_saw_it_outstanding() -> None:
    desk = Desk(objective(), late_after_s=100.0)
    desk.look()
    desk.call(ms=51.0)
    assert desk.causes() == ["LATENCY_STALL"]


def test_a_call_abandoned_late_holds_as_one_that_ended_late() -> None:
    desk = Desk(objective(), late_after_s=100.0)
    desk.look()
    number = desk.monitor.begin()
    desk.clock.advance(51 * MS)
    desk.monitor.abandon(number)
    assert desk.causes() == ["LATENCY_STALL"]


def test_of_several_calls_in_flight_the_oldest_counts() -> None:
    desk = Desk(objective(), late_after_s=100.0)
    desk.look()
    desk.monitor.begin()
    desk.clock.advance(40 * MS)
    desk.monitor.begin()
    desk.clock.advance(11 * MS)
    assert desk.causes() == ["LATENCY_STALL"]


def test_deadlines_shorter_than_the_stall_do_not_hide_a_server_that_answers_nothing() -> None:
    desk = Desk(objective(stall_us=50_000), late_after_s=100.0)
    desk.look()
    desk.call(ms=20.0, status=DEADLINE_EXCEEDED)
    desk.call(ms=20.0, status=DEADLINE_EXCEEDED)
    assert desk.causes() == []
    desk.call(ms=20.0, status=DEADLINE_EXCEEDED)
    assert desk.causes() == ["LATENCY_STALL"]


@pytest.mark.parametrize("status", [0, INVALID_ARGUMENT])
def test_an_answer_between_deadline_misses_shows_that_the_server_lives(status: int) -> None:
    desk = Desk(objective(stall_us=50_000), late_after_s=100.0)
    desk.look()
    for _ in range(4):
        desk.call(ms=20.0, status=DEADLINE_EXCEEDED)
        desk.call(ms=1.0, status=status)
    assert desk.causes() == []


def test_a_lost_server_holds_at_once_and_until_it_answered_well_for_the_clean_time() -> None:
    desk = Desk(objective(clean_s=5.0), late_after_s=100.0)
    desk.look()
    desk.call(status=UNAVAILABLE)
    assert desk.causes() == ["SERVER_LOST"]
    desk.look()
    desk.clock.advance(4 * SECOND)
    desk.call()
    desk.look()
    assert not desk.monitor.may_add_risk
    desk.clock.advance(2 * SECOND)
    desk.look()
    assert desk.monitor.may_add_risk


def test_a_server_that_others_find_lost_stays_lost_until_it_is_found() -> None:
    desk = Desk(objective(clean_s=5.0), late_after_s=1e6)
    desk.look()
    desk.monitor.server_lost("the watch of the trading state broke")
    for _ in range(3):
        desk.calls(10)
        desk.clock.advance(60 * SECOND)
        desk.look()
        assert desk.causes() == ["SERVER_LOST"]
    desk.monitor.server_found()
    assert desk.causes() == ["SERVER_LOST"], "it was lost until now"
    desk.call()
    desk.clock.advance(5 * SECOND)
    desk.look()
    assert desk.monitor.may_add_risk


def test_a_breach_begins_after_so_many_looks_in_a_row_that_find_the_budget_burn() -> None:
    entered: list[Breach] = []
    desk = Desk(objective(enter_looks=3), on_enter=entered.append)
    desk.look()
    desk.calls(100)
    desk.calls(3, ms=10.0)
    desk.look(2)
    assert (entered, desk.monitor.may_add_risk) == ([], True)
    desk.look()
    assert [(breach.objective, breach.causes, breach.ended_ns) for breach in entered] == [
        ("signals", ("BUDGET_BURN",), None)
    ]
    assert desk.causes() == ["BUDGET_BURN"]
    desk.look(5)
    assert len(entered) == 1


def test_looks_that_find_the_budget_burn_must_follow_each_other() -> None:
    rule = BurnRule(60, 60, 1.0)
    desk = Desk(objective(enter_looks=3, burn_rules=(rule,)), late_after_s=1e6)
    desk.look()
    for _ in range(3):
        desk.calls(3, ms=10.0)
        desk.look(2)
        desk.clock.advance(120 * SECOND)  # they have left the window
        desk.look()
    assert desk.monitor.may_add_risk


def test_fewer_bad_calls_than_a_rule_wants_are_no_rate() -> None:
    desk = Desk(objective(enter_looks=1))
    desk.look()
    desk.call()
    desk.calls(2, ms=10.0)
    desk.look()
    assert desk.monitor.may_add_risk
    desk.call(ms=10.0)
    desk.look()
    assert desk.causes() == ["BUDGET_BURN"]


def test_failed_calls_are_bad_however_fast() -> None:
    desk = Desk(objective(enter_looks=1))
    desk.look()
    desk.calls(100)
    desk.calls(3, status=INVALID_ARGUMENT)
    desk.look()
    assert desk.causes() == ["BUDGET_BURN"]


@pytest.mark.parametrize(("bad", "breach"), [(14, False), (15, True)])
def test_the_fast_burn_rule_wants_14_4_times_the_budget(bad: int, breach: bool) -> None:  # noqa: FBT001 - a case
    # 1,000 calls in the last hour and five minutes, 0.1 % may be bad: 14.4 of them burn at 14.4.
    desk = Desk(objective(enter_looks=1, burn_rules=(FAST_BURN,)))
    desk.look()
    desk.calls(1_000 - bad)
    desk.calls(bad, ms=10.0)
    desk.look()
    assert desk.monitor.may_add_risk is not breach


def test_a_burn_that_the_short_window_does_not_see_any_more_is_over() -> None:
    desk = Desk(objective(enter_looks=1, clean_s=1.0, burn_rules=(FAST_BURN,)), late_after_s=1e6)
    desk.look()
    desk.calls(100, ms=10.0)
    desk.look()
    assert desk.causes() == ["BUDGET_BURN"]
    desk.clock.advance(400 * SECOND)
    desk.call()
    desk.look()  # the hour still burns at 990, five minutes at 0
    desk.clock.advance(SECOND)
    desk.call()
    desk.look()
    assert desk.monitor.may_add_risk


def test_a_breach_ends_after_the_clean_time_and_not_before() -> None:
    told: list[Breach] = []
    desk = Desk(objective(clean_s=5.0, burn_rules=()), on_enter=told.append, on_leave=told.append)
    desk.look()
    desk.call(ms=60.0)
    desk.look()
    began_ns = desk.clock.now_ns
    for _ in range(49):
        desk.clock.advance(99 * MS)
        desk.call()
        desk.look()
        assert not desk.monitor.may_add_risk
    desk.clock.advance(100 * MS)
    desk.look()
    assert desk.monitor.may_add_risk
    entered, left = told
    assert (entered.ended_ns, entered.causes, entered.began_ns) == (None, ("LATENCY_STALL",), began_ns)
    assert (left.ended_ns, left.began_ns) == (began_ns + 5 * SECOND, began_ns)


def test_the_clean_time_begins_when_the_budget_stops_burning() -> None:
    left: list[Breach] = []
    desk = Desk(objective(clean_s=5.0, enter_looks=1, burn_rules=(MISSED_IN_A_MINUTE,)), on_leave=left.append)
    desk.look()
    desk.calls(3, ms=10.0)
    desk.look()
    began_ns = desk.clock.now_ns
    while not left:
        desk.clock.advance(SECOND // 2)
        desk.call()
        desk.look()
        if desk.clock.now_ns < began_ns + 60 * SECOND:
            assert desk.causes() == ["BUDGET_BURN"]
    # The minute holds them for 60 to 65 s, and a look that found none was at most half a second and a call later.
    lasted_ns = desk.clock.now_ns - began_ns
    assert 65 * SECOND <= lasted_ns <= 71 * SECOND


def test_silence_is_not_clean() -> None:
    desk = Desk(objective(clean_s=5.0, clean_calls=2), late_after_s=1e6)
    desk.look()
    desk.call(ms=60.0)
    desk.look()
    desk.clock.advance(600 * SECOND)
    desk.look()
    with pytest.raises(TradingHeld, match="not clean for long enough yet"):
        desk.monitor.before_order()
    desk.call()
    desk.call(ms=10.0)
    desk.look()
    assert not desk.monitor.may_add_risk, "one good call of two"
    desk.call()
    desk.look()
    assert desk.monitor.may_add_risk


def test_good_calls_from_before_a_stall_do_not_end_its_breach_however_late_they_are_folded() -> None:
    desk = Desk(objective(clean_s=5.0, burn_rules=()), late_after_s=1e6)
    desk.look()
    desk.calls(3)
    number = desk.monitor.begin()
    desk.clock.advance(60 * MS)
    desk.monitor._judge()  # the thread, having folded before those three calls ended
    desk.monitor.end(number)
    for _ in range(3):
        desk.clock.advance(5 * SECOND)
        desk.look()
        assert not desk.monitor.may_add_risk
    desk.call()
    desk.look()
    assert desk.monitor.may_add_risk


def test_each_trouble_in_the_clean_time_begins_it_anew() -> None:
    desk = Desk(objective(clean_s=5.0, burn_rules=()), late_after_s=1e6)
    desk.look()
    desk.call(ms=60.0)
    desk.look()
    for _ in range(3):
        desk.clock.advance(4 * SECOND)
        desk.calls(2)
        desk.look()
        desk.call(ms=60.0)
        desk.look()
        assert not desk.monitor.may_add_risk
    desk.call()
    desk.clock.advance(5 * SECOND)
    desk.look()
    assert desk.monitor.may_add_risk
    (judge,) = desk.monitor.standings()
    assert judge.breaches == 1


def test_continue_calls_back_and_keeps_no_order() -> None:
    entered: list[Breach] = []
    desk = Desk(objective(policy=Policy.CONTINUE), on_enter=entered.append)
    desk.monitor.before_order()
    desk.look()
    desk.call(ms=60.0)
    desk.look()
    desk.monitor.before_order()
    assert [breach.policy for breach in entered] == [Policy.CONTINUE]


def test_flatten_is_called_once_a_breach_before_the_callback_and_keeps_orders() -> None:
    told: list[str] = []
    desk = Desk(
        objective(policy=Policy.FLATTEN),
        flatten=lambda breach: told.append(f"flatten {breach.objective}"),
        on_enter=lambda breach: told.append(f"enter {breach.objective}"),
    )
    desk.look()
    desk.call(ms=60.0)
    desk.look(3)
    assert told == ["flatten signals", "enter signals"]
    with pytest.raises(TradingHeld, match="FLATTEN"):
        desk.monitor.before_order()


def test_the_strictest_policy_of_the_objectives_in_breach_is_in_force() -> None:
    flattened: list[Breach] = []
    desk = Desk(
        objective(name="signals", stall_us=50_000),
        objective(name="lifeline", stall_us=1_000_000, policy=Policy.FLATTEN),
        flatten=flattened.append,
        late_after_s=100.0,
    )
    desk.look()
    desk.call(ms=60.0)
    desk.look()
    alarm = desk.monitor.alarm()
    assert alarm is not None
    assert (alarm.objective.name, flattened) == ("signals", [])
    desk.call(ms=1_001.0)
    alarm = desk.monitor.alarm()
    assert alarm is not None
    assert (alarm.objective.name, flattened) == ("lifeline", [])
    desk.look()
    assert [breach.objective for breach in flattened] == ["lifeline"]


def test_a_callback_that_fails_is_counted_and_logged_and_the_breach_stands(caplog: pytest.LogCaptureFixture) -> None:
    def fail(breach: Breach) -> None:
        raise RuntimeError(f"no desk for {breach.objective}")

    desk = Desk(objective(), on_enter=fail)
    desk.look()
    desk.call(ms=60.0)
    desk.look()
    assert desk.monitor.callback_errors == 1
    assert "no desk for signals" in caplog.text
    assert not desk.monitor.may_add_risk


def test_a_callback_may_read_the_monitor() -> None:
    counted: list[int] = []
    desk = Desk(objective(), on_enter=lambda _: counted.append(desk.monitor.window(60).calls))
    desk.look()
    desk.call(ms=60.0)
    desk.look()
    assert counted == [1]


def test_the_burn_rate_is_the_bad_share_over_the_budget() -> None:
    promised = objective(target=0.99)
    assert promised.burn_rate(bad=5, calls=100) == pytest.approx(5.0)  # 5 % bad where 1 % may be
    assert promised.burn_rate(bad=0, calls=100) == 0.0
    assert math.isnan(promised.burn_rate(bad=0, calls=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "empty name"),
        ({"limit_us": 0}, "limit_us is 0"),
        ({"limit_us": math.nan}, "limit_us is nan"),
        ({"target": 1.0}, "target is 1.0"),
        ({"target": math.nan}, "target is nan"),
        ({"stall_us": 4_999}, "stall_us is 4999, must be at least limit_us"),
        ({"stall_us": math.inf}, "stall_us is inf"),
        ({"clean_s": 0.0}, "clean_s is 0"),
        ({"enter_looks": 0}, "enter_looks is 0"),
        ({"clean_calls": 0}, "clean_calls is 0"),
        ({"target": 0.9}, "burn rate of 14.4 is out of reach, must be below 10"),
    ],
)
def test_an_objective_that_could_never_be_kept_or_broken_is_refused(
    changes: dict[str, float | str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        objective(**changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BurnRule(120, 60, 1.0), "long_s is 120 s, must be one of 60, 300, 3600"),
        (lambda: BurnRule(60, 300, 1.0), "short_s is 300 s, must be at most"),
        (lambda: BurnRule(60, 60, math.nan), "rate is nan"),
        (lambda: BurnRule(60, 60, 1.0, 0), "least_bad is 0"),
        (lambda: SlaMonitor([objective(), objective()]), "must differ"),
        (lambda: SlaMonitor([objective(policy=Policy.FLATTEN)]), "`flatten` is not given"),
    ],
)
def test_rules_and_monitors_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_default_rules_are_a_missed_minute_and_the_workbooks_first_page() -> None:
    assert objective().burn_rules == (MISSED_IN_A_MINUTE, FAST_BURN)
    assert (FAST_BURN.long_s, FAST_BURN.short_s, FAST_BURN.rate) == (3600, 300, pytest.approx(0.02 * 30 * 24 / 1))


def test_a_monitor_starts_once_and_grows_late_after_its_end() -> None:
    desk = Desk(objective(), late_after_s=1.0)
    with desk.monitor as monitor:
        with pytest.raises(ValueError, match="started before"):
            monitor.start()
        monitor.before_order()
    desk.clock.advance(2 * SECOND)
    assert desk.causes() == ["MONITOR_LATE"]


def test_the_next_look_comes_when_the_oldest_call_would_become_a_stall() -> None:
    desk = Desk(objective(stall_us=50_000))
    assert desk.monitor._stall_in_s() == math.inf
    number = desk.monitor.begin()
    desk.clock.advance(20 * MS)
    desk.monitor.begin()
    assert desk.monitor._stall_in_s() == pytest.approx(0.030, abs=0.001)
    desk.monitor.end(number)
    assert desk.monitor._stall_in_s() == pytest.approx(0.050, abs=0.001)
    desk.clock.advance(51 * MS)
    assert desk.monitor._stall_in_s() == math.inf, "it is one already, and was judged"
