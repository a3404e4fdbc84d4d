"""What a desk holds its traders by: trading state, kill file, losses, rates, limits, positions that a person states."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.risk import BUDGET, EngineBench, chosen_model, instrument, limits, universe

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.desk import Desk
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.errors import FieldInvalid
from tickgate_server.journal.errors import JournalError
from tickgate_server.journal.layout import ControlKind
from tickgate_server.models.registry import ModelRegistry
from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.limits import Limits, LimitsFileInvalid, read_limits
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import OrderReport, OrderState, PositionSet, Side

ACTIVE, REDUCING, HALTED = TradingState
WHY = {"reason": "a test", "who": "tester"}
DAY_S = 86_400.0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    """A model whose output the test chooses, with a threshold of its own."""
    return chosen_model(tmp_path_factory.mktemp("models"), decision_threshold=0.5015)


@pytest.fixture
def bench(models: ModelRegistry, tmp_path: Path) -> Iterator[EngineBench]:
    """A desk with a journal and a kill file that is not there."""
    made = EngineBench(models, folder=tmp_path / "journal", kill_file=tmp_path / "halt")
    yield made
    made.close()


def set_limits(bench: EngineBench, **changes: Any) -> None:
    bench.desk.change_limits(limits(**changes, version=bench.desk.whole.version + 1), **WHY)


def reasons(signal: pb.Signal) -> dict[str, pb.RiskCheck]:
    return {pb.Reason.Name(check.reason).removeprefix("REASON_"): check for check in signal.checks}


# -- the answer says what was measured ---------------------------------------------------------------------------


def test_every_measured_value_stands_beside_its_limit_in_the_answer(bench: EngineBench) -> None:
    set_limits(bench, max_position_size=30.0, max_gross_exposure=5000.0, max_var=77.0, max_correlation="off")
    bench.hold(-4.0, "B")
    signal = bench.ask(12.0)
    assert [check.reason for check in signal.checks] == [check.reason for check in CHECKS]
    found = {name: (check.value, check.limit) for name, check in reasons(signal).items()}
    deviation = math.sqrt((1200.0 * 0.01) ** 2 + (400.0 * 0.01) ** 2)
    assert found == {
        "TRADING_STATE_HALTED": (1.0, 2.0),
        "CONFIDENCE_BELOW_THRESHOLD": (pytest.approx(0.5 + 12.5 / BUDGET / 2.0, abs=1e-6), 0.5015),
        "TRADING_STATE_REDUCING": (1.0, 1.0),
        "RESTRICTED_SYMBOL": (0.0, 0.0),
        "POSITION_ORDER_SIZE": (12.0, math.inf),
        "POSITION_ORDER_NOTIONAL": (1200.0, math.inf),
        "POSITION_SIZE": (12.0, 30.0),
        "POSITION_NOTIONAL": (1200.0, math.inf),
        "VAR_PORTFOLIO": (pytest.approx(2.3263478740408408 * deviation), 77.0),
        "CORRELATION_PORTFOLIO": (0.0, math.inf),
        "REGIME_NOT_ALLOWED": (0.0, 0.0),
        "MODEL_DEGRADED": (0.0, 0.0),
        "PRICE_COLLAR": (0.0, 0.05),
        "ORDER_SELF_TRADE": (0.0, math.inf),
        "SIGNAL_REPEATED": (1.0, math.inf),
        "RATE_SYMBOL": (0.0, 0.0),
        "RATE_TOTAL": (0.0, 0.0),
        "EXPOSURE_GROSS": (1600.0, 5000.0),
        "EXPOSURE_NET": (800.0, math.inf),
        "LOSS_DAILY": (0.0, math.inf),
        "LOSS_DRAWDOWN": (0.0, math.inf),
    }
    assert [name for name, check in reasons(signal).items() if check.waived] == ["CORRELATION_PORTFOLIO"]
    assert [name for name, check in reasons(signal).items() if check.at_least] == ["CONFIDENCE_BELOW_THRESHOLD"]
    assert signal.regime == pb.REGIME_NORMAL
    assert signal.trading_state == pb.TRADING_STATE_ACTIVE


def test_a_hold_shows_the_checks_behind_the_one_that_failed_too(bench: EngineBench) -> None:
    set_limits(bench, max_position_size=5.0, max_gross_exposure=100.0)
    signal = bench.ask(12.0)
    assert signal.reason == pb.REASON_POSITION_SIZE
    failed = [name for name, check in reasons(signal).items() if not check.passed]
    assert failed == ["POSITION_SIZE", "EXPOSURE_GROSS"]
    assert (signal.size, signal.limit_price, signal.valid_for_us, signal.order_id) == (0.0, 0.0, 0, 0)


def test_an_exit_shows_what_it_was_spared_as_waived(bench: EngineBench) -> None:
    bench.hold(10.0)
    set_limits(bench, max_position_size=1.0)
    bench.desk.set_state(REDUCING, **WHY)
    signal = bench.ask(5.0)
    assert (signal.approved, signal.reducing) == (True, True)
    found = reasons(signal)
    assert [name for name, check in found.items() if not check.waived] == ["TRADING_STATE_HALTED", "PRICE_COLLAR"]
    assert not found["POSITION_SIZE"].passed
    assert not found["TRADING_STATE_REDUCING"].passed


@pytest.mark.parametrize(("policy", "threshold"), [(0.5, 0.5015), (0.52, 0.52)])
def test_the_larger_threshold_of_policy_and_model_holds(bench: EngineBench, policy: float, threshold: float) -> None:
    set_limits(bench, confidence_threshold=policy)
    signal = bench.ask(2.0)
    assert signal.reason == pb.REASON_CONFIDENCE_BELOW_THRESHOLD
    assert reasons(signal)["CONFIDENCE_BELOW_THRESHOLD"].limit == threshold


def test_without_risk_data_default_limits_approve_nothing_but_exits(models: ModelRegistry) -> None:
    bench = EngineBench(models, found=Limits(confidence_threshold=0.5, volatility_floor=0.01))
    assert bench.ask(12.0).approved
    bench.desk.judge_age(vouched=False)
    bench.pass_time(6.0)
    bench.trade("A", 100.0)
    assert bench.ask(13.0).reason == pb.REASON_VAR_PORTFOLIO
    bench.hold(13.0)
    assert bench.ask(5.0).approved
    bench.close()


# -- trading state -------------------------------------------------------------------------------------------------


def test_a_halted_desk_rejects_all(bench: EngineBench) -> None:
    bench.hold(10.0)
    bench.desk.set_state(HALTED, **WHY)
    for target in (20.0, 5.0, 0.0, -10.0, 10.0):
        signal = bench.ask(target)
        assert (signal.action, signal.reason) == (pb.ACTION_HOLD, pb.REASON_TRADING_STATE_HALTED)
        assert signal.trading_state == pb.TRADING_STATE_HALTED
    assert bench.desk.portfolio().orders == ()


def test_a_reducing_desk_lets_exits_through_alone(bench: EngineBench) -> None:
    bench.hold(10.0)
    bench.desk.set_state(REDUCING, **WHY)
    assert bench.ask(11.0).reason == pb.REASON_TRADING_STATE_REDUCING
    assert bench.ask(6.0, "B").reason == pb.REASON_TRADING_STATE_REDUCING
    assert bench.ask(4.0).approved


def test_a_person_sets_the_desk_back_and_nothing_else_does(bench: EngineBench) -> None:
    bench.desk.set_state(HALTED, **WHY)
    set_limits(bench, max_position_size=1e6)
    bench.pass_time(2 * DAY_S)
    bench.fill(1.0)
    assert bench.desk.state.state is HALTED
    bench.desk.set_state(ACTIVE, reason="it was a test", who="ann")
    found = bench.desk.state
    assert (found.state, found.reason, found.who, found.since_ns) == (ACTIVE, "it was a test", "ann", bench.now_ns)
    bench.trade("A", 100.0)
    assert bench.ask(10.0).approved


@pytest.mark.parametrize("state", list(TradingState))
@pytest.mark.parametrize(("reason", "who"), [("", "ann"), ("  ", "ann"), ("why", ""), ("why", "x" * 201)])
def test_a_state_without_a_reason_or_a_name_is_refused(
    bench: EngineBench, state: TradingState, reason: str, who: str
) -> None:
    before = bench.desk.state
    with pytest.raises(FieldInvalid, match=r"reason|who"):
        bench.desk.set_state(state, reason=reason, who=who)
    assert bench.desk.state == before
    assert bench.controls(ControlKind.TRADING_STATE) == []


def test_changes_of_state_are_in_the_journal_with_who_and_why(bench: EngineBench) -> None:
    bench.desk.set_state(HALTED, reason="fat finger", who="ann")
    bench.desk.set_state(ACTIVE, reason="found it", who="bob")
    assert bench.controls(ControlKind.TRADING_STATE) == [
        {"state": 3, "reason": "fat finger", "who": "ann"},
        {"state": 1, "reason": "found it", "who": "bob"},
    ]


def test_who_watches_is_told_of_a_halt_within_the_call(bench: EngineBench) -> None:
    told: list[TradingState] = []
    stop = bench.desk.watch(lambda: told.append(bench.desk.state.state))
    revision = bench.desk.revision
    bench.desk.set_state(HALTED, **WHY)
    assert HALTED in told
    assert bench.desk.revision > revision
    stop()
    told.clear()
    bench.desk.set_state(ACTIVE, **WHY)
    assert told == []


def test_a_halt_holds_and_is_told_though_the_journal_cannot_be_written(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[TradingState] = []
    bench.desk.watch(lambda: told.append(bench.desk.state.state))
    assert bench.journal is not None

    class Full(JournalError):
        pass

    def full(*_: Any, **__: Any) -> int:
        raise Full("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(bench.journal, "append_control", full)
        with pytest.raises(Full):
            bench.desk.set_state(HALTED, **WHY)
        assert told == [HALTED]
        with pytest.raises(Full):
            bench.desk.set_state(ACTIVE, **WHY)
    assert bench.desk.state.state is HALTED
    assert bench.ask(10.0).reason == pb.REASON_TRADING_STATE_HALTED


def test_the_kill_file_halts_at_the_next_look(bench: EngineBench, tmp_path: Path) -> None:
    bench.desk.poll()
    assert bench.desk.state.state is ACTIVE
    (tmp_path / "halt").touch()
    bench.desk.poll()
    assert (bench.desk.state.state, bench.desk.state.who) == (HALTED, "kill file")
    assert bench.ask(10.0).reason == pb.REASON_TRADING_STATE_HALTED
    assert bench.controls(ControlKind.TRADING_STATE)[-1]["who"] == "kill file"


def test_while_the_kill_file_is_there_nobody_resumes_and_after_it_a_person_must(
    bench: EngineBench, tmp_path: Path
) -> None:
    (tmp_path / "halt").touch()
    bench.desk.poll()
    bench.desk.set_state(ACTIVE, **WHY)
    bench.desk.poll()
    assert bench.desk.state.state is HALTED
    (tmp_path / "halt").unlink()
    bench.desk.poll()
    assert bench.desk.state.state is HALTED
    bench.desk.set_state(ACTIVE, **WHY)
    bench.desk.poll()
    assert bench.desk.state.state is ACTIVE


# -- losses, and the session ---------------------------------------------------------------------------------------


def lose(bench: EngineBench, amount: float) -> None:
    """Hold 10 and see the price fall."""
    bench.fill(10.0)
    bench.trade("A", 100.0 - amount / 10.0)
    bench.desk.poll()


@pytest.mark.parametrize("name", ["max_daily_loss", "max_drawdown"])
def test_a_loss_beyond_its_limit_makes_the_desk_reduce_until_a_person_sets_it_back(
    bench: EngineBench, name: str
) -> None:
    set_limits(bench, **{name: 20.0})
    lose(bench, 20.0)
    assert bench.desk.state.state is ACTIVE
    bench.trade("A", 97.9)
    bench.desk.poll()
    assert (bench.desk.state.state, bench.desk.state.who) == (REDUCING, "loss limit")
    bench.trade("A", 100.0)
    bench.desk.poll()
    assert bench.desk.state.state is REDUCING  # though the loss is gone
    bench.pass_time(DAY_S)
    assert bench.desk.state.state is REDUCING
    bench.desk.set_state(ACTIVE, **WHY)
    bench.trade("A", 100.0)
    bench.desk.poll()
    assert bench.desk.state.state is ACTIVE


def test_a_loss_beyond_its_limit_denies_before_the_desk_reduces(bench: EngineBench) -> None:
    set_limits(bench, max_daily_loss=20.0)
    bench.fill(10.0)
    bench.trade("A", 97.0)
    assert bench.desk.state.state is ACTIVE  # nobody looked yet
    assert bench.ask(50.0, "B").reason == pb.REASON_LOSS_DAILY
    assert bench.ask(0.0, price=97.0).approved


def test_realised_losses_and_fees_count(bench: EngineBench) -> None:
    set_limits(bench, max_daily_loss=20.0)
    bench.fill(10.0)
    bench.fill(-10.0, price=98.0)
    assert bench.desk.state.state is ACTIVE
    assert bench.desk.portfolio().realised == -20.0
    bench.fill(1.0)
    bench.fill(-1.0, price=99.99)
    assert bench.desk.state.state is REDUCING


def test_a_drawdown_is_from_the_highest_of_the_session(bench: EngineBench) -> None:
    set_limits(bench, max_drawdown=20.0)
    bench.fill(10.0)
    bench.trade("A", 105.0)
    bench.trade("A", 103.0)
    bench.desk.poll()
    assert bench.desk.portfolio().drawdown == pytest.approx(20.0)
    assert bench.desk.state.state is ACTIVE
    bench.trade("A", 102.9)
    bench.desk.poll()
    assert bench.desk.state.state is REDUCING
    assert bench.desk.portfolio().unrealised == pytest.approx(29.0)


def test_with_the_session_profit_and_loss_begin_anew(bench: EngineBench) -> None:
    bench.fill(10.0)
    bench.fill(-4.0, price=101.0)
    bench.trade("A", 98.0)
    view = bench.desk.portfolio()
    assert (view.realised, view.unrealised, view.drawdown) == (4.0, -12.0, 12.0)
    bench.pass_time(DAY_S)
    bench.trade("A", 98.0)
    view = bench.desk.portfolio()
    assert (view.realised, view.unrealised, view.drawdown) == (0.0, 0.0, 0.0)
    bench.trade("A", 97.0)
    assert bench.desk.portfolio().unrealised == -6.0
    bench.fill(-6.0, price=97.0)
    view = bench.desk.portfolio()
    assert view.realised + view.unrealised == -6.0  # of this session, not of the position


def test_the_session_ends_at_its_time_of_day_and_not_before(models: ModelRegistry) -> None:
    # The bench begins at midnight UTC.
    bench = EngineBench(models, found=limits(session_rollover_utc_s=3600))
    bench.fill(10.0)
    bench.pass_time(3599.0)
    bench.trade("A", 99.0)
    assert bench.desk.portfolio().unrealised == -10.0
    bench.pass_time(1.0)
    bench.trade("A", 99.0)
    assert bench.desk.portfolio().unrealised == 0.0
    bench.trade("A", 98.0)
    bench.pass_time(DAY_S - 2.0)
    bench.trade("A", 98.0)
    assert bench.desk.portfolio().unrealised == -10.0
    bench.close()


# -- rates, repeats ---------------------------------------------------------------------------------------------------


def approved(bench: EngineBench, count: int, symbol: str, seconds: float = 0.0) -> list[str]:
    """Orders one after the other, each for ten lots more; what was said to each."""
    found = []
    for _ in range(count):
        _, buys, _ = bench.sizes(symbol)
        found.append(pb.Reason.Name(bench.ask(buys + 10.0, symbol).reason).removeprefix("REASON_"))
        bench.pass_time(seconds)
    return found


def test_a_symbols_bucket_holds_a_seconds_worth_and_refills_by_the_clock(bench: EngineBench) -> None:
    set_limits(bench, max_orders_per_s_symbol=4.0)
    assert approved(bench, 6, "A") == ["APPROVED"] * 4 + ["RATE_SYMBOL"] * 2
    assert approved(bench, 1, "B") == ["APPROVED"]
    bench.pass_time(0.25)
    assert approved(bench, 2, "A") == ["APPROVED", "RATE_SYMBOL"]
    bench.pass_time(0.2)
    assert approved(bench, 1, "A") == ["RATE_SYMBOL"]
    bench.pass_time(0.05)
    assert approved(bench, 1, "A") == ["APPROVED"]
    bench.pass_time(3.0)
    assert approved(bench, 6, "A") == ["APPROVED"] * 4 + ["RATE_SYMBOL"] * 2


def test_the_bucket_of_all_counts_every_symbol(bench: EngineBench) -> None:
    set_limits(bench, max_orders_per_s=3.0)
    assert approved(bench, 2, "A") + approved(bench, 2, "B") == ["APPROVED"] * 3 + ["RATE_TOTAL"]
    bench.pass_time(1.0 / 3.0 + 1e-6)
    assert approved(bench, 2, "B") == ["APPROVED", "RATE_TOTAL"]


def test_a_rate_below_one_a_second_still_lets_one_through(bench: EngineBench) -> None:
    set_limits(bench, max_orders_per_s_symbol=0.5)
    assert approved(bench, 2, "A") == ["APPROVED", "RATE_SYMBOL"]
    bench.pass_time(1.999)
    assert approved(bench, 1, "A") == ["RATE_SYMBOL"]
    bench.pass_time(0.001)
    assert approved(bench, 1, "A") == ["APPROVED"]


def test_what_is_held_takes_no_token(bench: EngineBench) -> None:
    set_limits(bench, max_orders_per_s_symbol=1.0, max_position_size=5.0)
    assert bench.ask(10.0).reason == pb.REASON_POSITION_SIZE
    assert bench.ask(5.0).approved


def repeat(bench: EngineBench, target: float = 10.0) -> pb.Signal:
    """Ask, and let the reservation end unused."""
    signal = bench.ask(target)
    bench.pass_time(5.0)
    bench.trade("A", 100.0)
    bench.trade("B", 100.0)
    return signal


def test_the_same_signal_again_and_again_without_a_fill_is_held(bench: EngineBench) -> None:
    set_limits(bench, max_repeats=3.0)
    assert [repeat(bench).approved for _ in range(5)] == [True, True, True, False, False]
    signal = bench.ask(10.0)
    assert signal.reason == pb.REASON_SIGNAL_REPEATED
    assert reasons(signal)["SIGNAL_REPEATED"].value == 4.0
    assert repeat(bench, 11.0).approved  # another one


def test_a_fill_begins_the_count_of_repeats_anew(bench: EngineBench) -> None:
    set_limits(bench, max_repeats=2.0)
    assert [repeat(bench).approved for _ in range(3)] == [True, True, False]
    bench.fill(1.0)
    bench.fill(-1.0)
    assert [repeat(bench).approved for _ in range(3)] == [True, True, False]


# -- limits -------------------------------------------------------------------------------------------------------


def test_a_limits_file_that_is_invalid_changes_nothing(bench: EngineBench, tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    before = bench.desk.limits
    path.write_text("version = 9\nmax_position_size = 1.0\nmax_var = nan\n")
    with pytest.raises(LimitsFileInvalid, match="max_var"):
        bench.desk.change_limits(read_limits(path), **WHY)
    assert bench.desk.limits == before
    assert bench.ask(10.0).approved
    assert bench.controls(ControlKind.LIMITS)[1:] == []


def test_a_change_of_limits_is_in_the_journal_whole_with_who_and_why(bench: EngineBench) -> None:
    wanted = limits(version=3, max_position_size=7.0, symbols={"A": {"restricted": True}})
    bench.desk.change_limits(wanted, reason="less risk", who="ann")
    found = bench.controls(ControlKind.LIMITS)[-1]
    assert (found.pop("reason"), found.pop("who")) == ("less risk", "ann")
    assert Limits.model_validate(found) == wanted


def test_the_engines_of_all_workers_hold_slices_that_add_up(models: ModelRegistry) -> None:
    whole = limits(max_gross_exposure=8000.0, max_orders_per_s=40.0, max_position_size=7.0)
    engines = [Engine(EngineSettings(worker=k, workers=4), models, universe(), whole) for k in range(4)]
    mine = [engine.desk.limits for engine in engines]
    assert sum(float(one.max_gross_exposure) for one in mine) == 8000.0
    assert sum(float(one.max_orders_per_s) for one in mine) == 40.0
    assert {one.max_position_size for one in mine} == {7.0}  # a symbol is one worker's alone
    assert all(engine.desk.whole == whole for engine in engines)
    for engine in engines:
        engine.desk.change_limits(limits(version=1, max_gross_exposure=400.0), **WHY)
        assert engine.desk.limits.max_gross_exposure == 100.0
        engine.close()


# -- models -------------------------------------------------------------------------------------------------------


def degrade(desk: Desk) -> None:
    desk.apply(ControlKind.MODEL_DEGRADED, {"name": "tiny", "version": 1}, 0, 0)


def test_a_degraded_model_is_held_until_a_person_reopens_it(bench: EngineBench) -> None:
    degrade(bench.desk)
    assert bench.ask(10.0).reason == pb.REASON_MODEL_DEGRADED
    assert bench.desk.portfolio().degraded == ("tiny:1",)
    bench.pass_time(10.0)
    bench.trade("A", 100.0)
    assert bench.ask(10.0).reason == pb.REASON_MODEL_DEGRADED
    bench.desk.reopen_model("tiny", 1, reason="the feed was broken", who="ann")
    assert bench.ask(10.0).approved
    assert bench.desk.portfolio().degraded == ()
    assert bench.controls(ControlKind.MODEL_REOPENED) == [
        {"name": "tiny", "version": 1, "reason": "the feed was broken", "who": "ann"}
    ]


@pytest.mark.parametrize(("name", "version"), [("tiny", 2), ("other", 1)])
def test_a_version_that_is_not_loaded_cannot_be_reopened(bench: EngineBench, name: str, version: int) -> None:
    with pytest.raises(FieldInvalid, match="loaded"):
        bench.desk.reopen_model(name, version, **WHY)


def test_reopening_a_model_needs_a_reason(bench: EngineBench) -> None:
    degrade(bench.desk)
    with pytest.raises(FieldInvalid, match="reason"):
        bench.desk.reopen_model("tiny", 1, reason="", who="ann")
    assert bench.ask(10.0).reason == pb.REASON_MODEL_DEGRADED


# -- positions as a person states them ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "field"),
    [
        (PositionSet("A", math.nan, 100.0), "size"),
        (PositionSet("A", math.inf, 100.0), "size"),
        (PositionSet("A", 1.0, 0.0), "average_cost"),
        (PositionSet("A", 1.0, -1.0), "average_cost"),
        (PositionSet("A", 1.0, math.nan), "average_cost"),
        (PositionSet("A", 1.0, math.inf), "average_cost"),
        (PositionSet("", 1.0, 100.0), "symbol"),
        (PositionSet("x" * 33, 1.0, 100.0), "symbol"),
        (PositionSet("NONE", 1.0, 100.0), "symbol"),
    ],
)
def test_positions_that_cannot_be_are_refused_whole(bench: EngineBench, position: PositionSet, field: str) -> None:
    with pytest.raises(FieldInvalid, match=field):
        bench.desk.set_positions([PositionSet("B", 5.0, 100.0), position], **WHY)
    assert bench.desk.portfolio().positions == ()
    assert bench.controls(ControlKind.POSITIONS) == []


@pytest.mark.parametrize(("reason", "who"), [("", "ann"), ("why", " ")])
def test_positions_need_a_reason_and_a_name(bench: EngineBench, reason: str, who: str) -> None:
    with pytest.raises(FieldInvalid, match=r"reason|who"):
        bench.desk.set_positions([PositionSet("A", 5.0, 100.0)], reason=reason, who=who)
    with pytest.raises(FieldInvalid, match="positions"):
        bench.desk.set_positions([], **WHY)
    assert bench.desk.portfolio().positions == ()


def test_stated_positions_replace_what_was_filled_and_leave_open_orders(bench: EngineBench) -> None:
    bench.fill(3.0)
    assert bench.ask(8.0).approved
    bench.desk.set_positions([PositionSet("A", -2.0, 101.0), PositionSet("B", 0.0, 0.0)], reason="as told", who="ann")
    assert bench.sizes() == (-2.0, 5.0, 0.0)
    (found,) = bench.desk.portfolio(["A"]).positions
    assert (found.average_cost, found.mark) == (101.0, 100.0)
    payload = bench.controls(ControlKind.POSITIONS)[-1]
    assert (payload["reason"], payload["who"]) == ("as told", "ann")
    assert payload["positions"][0] == {"symbol": "A", "size": -2.0, "average_cost": 101.0}


def test_stated_positions_over_a_limit_make_the_desk_reduce(bench: EngineBench) -> None:
    set_limits(bench, max_position_size=5.0)
    bench.hold(5.0)
    assert bench.desk.state.state is ACTIVE
    bench.hold(6.0)
    assert bench.desk.state.state is REDUCING


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_position_size": 5.0}, "POSITION_SIZE"),
        ({"max_position_notional": 500.0}, "POSITION_NOTIONAL"),
        ({"max_gross_exposure": 500.0}, "EXPOSURE_GROSS"),
        ({"max_net_exposure": 500.0}, "EXPOSURE_NET"),
    ],
)
def test_an_order_of_somebody_else_over_a_limit_makes_the_desk_reduce(
    bench: EngineBench, changes: dict[str, float], reason: str
) -> None:
    set_limits(bench, **changes)
    bench.desk.report_order(OrderReport("A", OrderState.ACCEPTED, side=Side.BUY, size=5.0))
    assert bench.desk.state.state is ACTIVE
    bench.desk.report_order(OrderReport("A", OrderState.ACCEPTED, side=Side.BUY, size=0.5))
    assert bench.desk.state.state is REDUCING
    assert reason in bench.desk.state.reason


def test_an_order_of_a_symbol_without_a_price_denies_what_cannot_be_measured_until_it_has_one(
    models: ModelRegistry,
) -> None:
    bench = EngineBench(models, "A", "B", instrument("C"))
    row = bench.engine.symbols.row("C")
    bench.desk.book.rows[row, 7] = math.nan  # as if nothing had traded yet
    bench.desk.report_order(OrderReport("C", OrderState.ACCEPTED, side=Side.BUY, size=5.0))
    assert bench.desk.state.state is REDUCING
    bench.desk.set_state(ACTIVE, **WHY)
    assert not bench.ask(10.0).approved
    bench.trade("C", 100.0)
    assert bench.ask(10.0).approved
    bench.close()
