"""The day that a loss is counted by is the instrument's session: what denies within it, and what does not after it."""

import numpy as np
import pytest
from structlog.testing import capture_logs
from tests.support.messages import START_NS
from tests.support.risk import GateBench, instrument, limits

from tickgate_server.risk.book import PEAK, PNL, SESSION_END_NS, SESSION_PEAK, SESSION_PNL
from tickgate_server.risk.reasons import Reason
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import FillReport, Side

LOSS = 50.0
# New York's sessions begin at 14:30 UTC in winter and 13:30 in summer, Chicago's futures the evening before.
THURSDAY = "2025-03-06T15:00"


def bench_at(utc: str, **changes: float) -> GateBench:
    """A desk at a time; nobody holds B."""
    bench = GateBench(
        instrument("A"),
        instrument("B"),
        instrument("NY", calendar="XNYS"),
        instrument("ES", calendar="CMES"),
        instrument("NQ", calendar="CMES"),
        found=limits(**({"max_daily_loss": LOSS} | changes)),
    )
    pass_until(bench, utc)
    return bench


def pass_until(bench: GateBench, utc: str) -> None:
    now_ns = int(np.datetime64(utc, "ns").astype(np.int64))
    assert now_ns > bench.now_ns
    bench.pass_time((now_ns - bench.now_ns) / 1e9)


def lose(bench: GateBench, symbol: str, amount: float) -> None:
    """Hold 10 and see the price fall."""
    bench.hold(symbol, 10.0)
    bench.price(symbol, 100.0 - amount / 10.0)


def verdict(bench: GateBench) -> tuple[float, Reason]:
    """The daily loss that a new order meets, and what is said of the order."""
    found = bench.ask(1.0, "B")
    return found.value_of(Reason.LOSS_DAILY), found.reason


def test_a_loss_denies_until_the_next_open_in_new_york_whatever_the_hour_in_utc() -> None:
    bench = bench_at(THURSDAY)
    lose(bench, "NY", 60.0)
    for hour in ("2025-03-06T21:00", "2025-03-07T00:00", "2025-03-07T14:29:59"):  # the close, midnight, before the open
        pass_until(bench, hour)
        assert verdict(bench) == (60.0, Reason.LOSS_DAILY)
    pass_until(bench, "2025-03-07T14:30")
    assert verdict(bench) == (0.0, Reason.APPROVED)


def test_a_loss_of_friday_denies_all_weekend_and_until_the_open_in_summer_time() -> None:
    bench = bench_at("2025-03-07T15:00")
    lose(bench, "NY", 60.0)
    pass_until(bench, "2025-03-10T13:29:59")
    assert verdict(bench) == (60.0, Reason.LOSS_DAILY)
    pass_until(bench, "2025-03-10T13:30")
    assert verdict(bench) == (0.0, Reason.APPROVED)


def test_a_loss_denies_over_a_holiday_and_not_beyond_the_open_of_the_half_day() -> None:
    bench = bench_at("2025-11-26T15:00")
    lose(bench, "NY", 60.0)
    pass_until(bench, "2025-11-28T14:29:59")
    assert verdict(bench) == (60.0, Reason.LOSS_DAILY)
    pass_until(bench, "2025-11-28T14:30")
    assert verdict(bench) == (0.0, Reason.APPROVED)
    bench.price("NY", 88.0)  # after the early close at 18:00 it is still that session's
    pass_until(bench, "2025-11-28T19:00")
    assert verdict(bench) == (60.0, Reason.LOSS_DAILY)


def test_a_session_of_futures_goes_on_at_midnight_and_ends_with_the_evenings_open() -> None:
    bench = bench_at("2025-03-05T23:30")
    lose(bench, "ES", 60.0)
    pass_until(bench, "2025-03-06T00:00")
    assert verdict(bench) == (60.0, Reason.LOSS_DAILY)
    pass_until(bench, "2025-03-06T22:59:59")
    assert verdict(bench) == (60.0, Reason.LOSS_DAILY)
    pass_until(bench, "2025-03-06T23:00")
    assert verdict(bench) == (0.0, Reason.APPROVED)


def test_a_session_that_begins_forgets_its_own_calendars_losses_alone() -> None:
    bench = bench_at(THURSDAY)
    for symbol, amount in (("A", 10.0), ("NY", 20.0), ("ES", 30.0), ("NQ", 5.0)):
        lose(bench, symbol, amount)
    assert verdict(bench) == (65.0, Reason.LOSS_DAILY)
    pass_until(bench, "2025-03-06T23:00")
    assert verdict(bench) == (30.0, Reason.APPROVED)  # of A and NY
    pass_until(bench, "2025-03-07T00:00")
    assert verdict(bench) == (20.0, Reason.APPROVED)
    bench.price("ES", 93.0)  # the new session's loss counts beside the old one's
    assert verdict(bench) == (60.0, Reason.LOSS_DAILY)
    pass_until(bench, "2025-03-07T14:30")
    assert verdict(bench) == (40.0, Reason.APPROVED)


def test_a_position_carried_over_an_open_counts_with_its_change_since_then() -> None:
    bench = bench_at(THURSDAY)
    lose(bench, "NY", 40.0)
    pass_until(bench, "2025-03-07T14:30")
    bench.price("NY", 91.0)
    assert verdict(bench) == (50.0, Reason.APPROVED)  # of 90 since the position began
    bench.price("NY", 90.9)
    assert verdict(bench) == (pytest.approx(51.0), Reason.LOSS_DAILY)


def fill(bench: GateBench, name: str, side: Side, price: float) -> None:
    bench.desk.report_fill(FillReport(name, "NY", side, 10.0, price, fee=1.0))


def test_what_was_realised_yesterday_is_no_loss_of_today() -> None:
    bench = bench_at(THURSDAY)
    fill(bench, "in", Side.BUY, 100.0)
    fill(bench, "out", Side.SELL, 96.0)
    assert verdict(bench) == (42.0, Reason.APPROVED)  # two fees in it
    pass_until(bench, "2025-03-07T14:30")
    fill(bench, "in again", Side.BUY, 96.0)
    fill(bench, "out again", Side.SELL, 93.0)
    assert verdict(bench) == (32.0, Reason.APPROVED)
    assert bench.desk.portfolio().realised == -32.0


def test_the_drawdown_is_the_sum_of_the_calendars_drawdowns_and_no_less_than_the_accounts_own() -> None:
    bench = bench_at(THURSDAY, max_daily_loss=1e9, max_drawdown=55.0)
    bench.hold("NY", 10.0)
    bench.hold("ES", 10.0)
    bench.price("NY", 105.0)  # 50 above, then
    bench.price("NY", 102.0)  # 30 below that
    assert bench.desk.portfolio().drawdown == 30.0
    bench.price("ES", 103.0)  # the account is at its own peak of 50 again
    assert bench.desk.portfolio().drawdown == 30.0
    bench.price("ES", 100.5)
    found = bench.ask(1.0, "B")
    assert found.value_of(Reason.LOSS_DRAWDOWN) == 55.0
    assert found.reason is Reason.APPROVED
    bench.price("ES", 100.4)
    assert bench.ask(1.0, "B").reason is Reason.LOSS_DRAWDOWN
    pass_until(bench, "2025-03-06T23:00")  # the futures' peak begins anew
    assert bench.desk.portfolio().drawdown == 30.0
    assert bench.ask(1.0, "B").reason is Reason.APPROVED


def test_a_loss_beyond_its_limit_reduces_the_desk_and_the_next_session_does_not_set_it_back() -> None:
    bench = bench_at(THURSDAY)
    lose(bench, "NY", 60.0)
    bench.desk.poll()
    assert bench.desk.state.state is TradingState.REDUCING
    pass_until(bench, "2025-03-07T14:30")
    bench.desk.poll()
    assert bench.desk.state.state is TradingState.REDUCING
    bench.desk.set_state(TradingState.ACTIVE, reason="a new session", who="tester")
    bench.price("NY", 93.9)
    bench.desk.poll()
    assert bench.desk.state.state is TradingState.ACTIVE


def test_a_position_that_a_person_states_is_no_profit_of_its_calendar() -> None:
    bench = bench_at(THURSDAY)
    lose(bench, "NY", 20.0)
    bench.hold("NY", 40.0, 90.0)  # which is 320 above its cost
    account, sessions = bench.book.account, bench.book.sessions
    assert (account[PNL], account[PEAK]) == (-20.0, 0.0)
    assert sorted(sessions[:, SESSION_PNL]) == [-20.0, 0.0, 0.0]
    assert not sessions[:, SESSION_PEAK].any()


def test_a_loss_that_is_not_known_denies_until_it_is() -> None:
    bench = bench_at(THURSDAY)
    bench.hold("NY", 10.0)
    bench.price("NY", float("nan"))
    bench.hold("ES", 10.0)
    bench.price("ES", 99.0)
    assert not bench.ask(1.0, "B").passes(Reason.LOSS_DAILY)
    pass_until(bench, "2025-03-06T23:00")  # another calendar's session makes it no better known
    bench.price("ES", 98.0)
    assert not bench.ask(1.0, "B").passes(Reason.LOSS_DAILY)
    assert not bench.ask(1.0, "B").passes(Reason.LOSS_DRAWDOWN)
    bench.price("NY", 99.0)
    assert verdict(bench) == (20.0, Reason.APPROVED)


def test_the_roll_over_of_the_limits_moves_the_day_of_24_7_alone() -> None:
    bench = bench_at(THURSDAY, session_rollover_utc_s=7200)
    lose(bench, "A", 60.0)
    lose(bench, "NY", 70.0)
    pass_until(bench, "2025-03-07T01:59:59")
    assert verdict(bench)[0] == 130.0
    pass_until(bench, "2025-03-07T02:00")
    assert verdict(bench)[0] == 70.0


def test_a_roll_over_that_changes_holds_from_the_next_day_on() -> None:
    bench = bench_at(THURSDAY)
    bench.set_limits(max_daily_loss=LOSS, session_rollover_utc_s=57_600)
    lose(bench, "A", 60.0)
    pass_until(bench, "2025-03-06T16:00")
    assert verdict(bench) == (60.0, Reason.LOSS_DAILY)
    pass_until(bench, "2025-03-07T00:00")
    assert verdict(bench) == (0.0, Reason.APPROVED)
    lose(bench, "A", 60.0)
    pass_until(bench, "2025-03-07T16:00")
    assert verdict(bench) == (0.0, Reason.APPROVED)


def test_the_first_time_that_is_read_ends_no_session() -> None:
    bench = GateBench(instrument("NY", calendar="XNYS"))
    ends_ns = dict(
        zip([one.name for one in bench.book.calendars], bench.book.session_facts[:, SESSION_END_NS], strict=True)
    )
    assert ends_ns["24/7"] == START_NS + 86_400_000_000_000
    assert ends_ns["XNYS"] == START_NS + 48_600_000_000_000  # 13:30 of that Friday in summer


def test_time_that_skips_sessions_ends_them_once() -> None:
    bench = bench_at(THURSDAY)
    lose(bench, "NY", 60.0)
    pass_until(bench, "2025-06-02T20:00")
    assert verdict(bench) == (0.0, Reason.APPROVED)
    bench.price("NY", 88.0)
    pass_until(bench, "2025-06-03T13:29:59")
    assert verdict(bench) == (60.0, Reason.LOSS_DAILY)
    pass_until(bench, "2025-06-03T13:30")
    assert verdict(bench) == (0.0, Reason.APPROVED)


def test_beyond_a_calendars_end_losses_are_of_24_hours_and_the_log_says_so() -> None:
    bench = bench_at("2039-11-29T15:00")
    with capture_logs() as logs:
        bench.desk.poll()
    assert logs == []
    pass_until(bench, "2039-12-15T15:00")
    with capture_logs() as logs:
        bench.desk.poll()
        bench.desk.poll()
    assert {(line["log_level"], line["calendar"]) for line in logs} == {("warning", "CMES"), ("warning", "XNYS")}
    assert len(logs) == 2
    pass_until(bench, "2039-12-30T14:30")
    with capture_logs() as logs:
        bench.desk.poll()
        bench.desk.poll()
    assert [(line["log_level"], line["calendar"], line["last_known"]) for line in logs] == [
        ("error", "CMES", "2039-12-29T23:00:00Z"),
        ("error", "XNYS", "2039-12-30T14:30:00Z"),
    ]
    lose(bench, "NY", 60.0)
    pass_until(bench, "2039-12-31T14:29:59")
    assert verdict(bench) == (60.0, Reason.LOSS_DAILY)
    pass_until(bench, "2039-12-31T14:30")
    assert verdict(bench) == (0.0, Reason.APPROVED)
