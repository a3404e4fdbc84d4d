"""`tickgate risk check`: a journal's decisions under other limits, each in the book as it was."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import pytest
from tests.support.messages import features, tick
from tests.support.packages import edit_manifest, publish_logistic
from tests.support.processes import run

from tickgate.symbol_hash import worker_of
from tickgate.v1 import signal_pb2 as pb
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.journal import rotation
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.registry import load_repository
from tickgate_server.risk import data as risk_data
from tickgate_server.risk.feed import kept_path, load
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.regimes import Regime, TradingState
from tickgate_server.risk.reports import FillReport, OrderReport, OrderState, Side
from tickgate_server.rpc.answers import Answers

START_NS = 1_723_161_600_000_000_000
SECOND_NS = 1_000_000_000
PRICE = 100.0
# An order of about 41 units, 4,100 of notional, at the volatility of the ticks below.
LIMITS: dict[str, Any] = {"version": 1, "risk_budget": 20.0, "max_position_notional": 5_000.0, "max_daily_loss": 500.0}
UP, DOWN = 0.01, -0.01


class Trading:
    """An engine on a clock of its own, asked and told as a server's is."""

    def __init__(self, journal: Path, models: Path, limits: Limits, worker: int, workers: int) -> None:
        self.journal = JournalWriter(journal, segment_records=1024)
        self._sequence = self.journal.next_sequence
        self.now_ns = START_NS + self._sequence * SECOND_NS  # a later server's clock is later
        self.engine = Engine(
            EngineSettings(capacity=16, worker=worker, workers=workers, price_jump_sigmas=0.0),
            load_repository(models),
            limits=limits,
            clock_ns=lambda: self.now_ns,
            journal=self.journal,
        )
        self.desk = self.engine.desk
        self._answers = Answers(self.engine)

    def see_market(self, journal: Path, *symbols: str) -> None:
        """Risk data of some symbols that do not move together, 2 % a day each; and enough trades for a volatility."""
        known = risk_data.RiskData(
            self.now_ns,
            symbols,
            np.diag(np.full(len(symbols), 4e-4)),
            np.zeros((0, len(symbols))),
            np.full(len(symbols), Regime.NORMAL, np.int8),
        )
        path = journal / risk_data.FILE_NAME
        risk_data.write(path, known)
        found = load(path)
        shutil.copy(path, kept_path(journal, found.sha256))
        self.desk.adopt(found)
        self.desk.judge_age(vouched=True)
        for symbol in symbols:
            for number in range(30):
                self.trade(symbol, PRICE * (1.001 if number % 2 else 1.0))

    def trade(self, symbol: str, price: float) -> pb.Signal:
        self.wait(0.01)
        self._sequence += 1
        return self._ask(tick(symbol, self.now_ns, sequence=self._sequence, trade=(price, 1.0)))

    def ask(self, symbol: str, direction: float, price: float = PRICE, age_s: float = 0.0) -> pb.Signal:
        at_ns = self.now_ns - int(age_s * SECOND_NS)
        return self._ask(features(symbol, [direction, *[0.0] * 9], at_ns=at_ns, price=price))

    def _ask(self, request: pb.PredictRequest) -> pb.Signal:
        answer = self._answers.predict(request.SerializeToString(), perf_counter_ns(), 0)
        assert isinstance(answer, bytes), answer
        return pb.PredictResponse.FromString(answer).signal

    def fill(self, symbol: str, signal: pb.Signal, price: float = PRICE) -> None:
        side = Side.BUY if signal.action == pb.ACTION_BUY else Side.SELL
        self.desk.report_order(OrderReport(symbol, OrderState.ACCEPTED, signal.order_id))
        name = f"fill-{signal.order_id}"
        self.desk.report_fill(FillReport(name, symbol, side, signal.size, price, signal.order_id))

    def wait(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND_NS)
        self.desk.poll()

    def close(self) -> None:
        self.engine.close()
        self.journal.close()


class Desk:
    """A folder with models, and journals beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        publish_logistic(self.models, weight=100.0, latency_budget_ms=60_000.0)

    @contextmanager
    def trading(
        self, name: str = "journal", *symbols: str, worker: int = 0, workers: int = 1, **limits: Any
    ) -> Iterator[Trading]:
        found = Trading(self.folder / name, self.models, Limits(**LIMITS | limits), worker, workers)
        try:
            found.see_market(self.folder / name, *(symbols or ("ONE", "TWO")))
            yield found
        finally:
            found.close()

    def limits(self, changes: Mapping[str, Any]) -> str:
        path = self.folder / "limits.toml"
        values = LIMITS | {"version": 2} | changes
        own = values.pop("symbols", {})
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        for symbol, limits in own.items():
            lines += [f"[symbols.{symbol}]", *(f"{key} = {json.dumps(value)}" for key, value in limits.items())]
        path.write_text("\n".join(lines))
        return str(path)

    def check(self, changes: Mapping[str, Any], *more: str, journal: str = "journal") -> dict[str, Any]:
        arguments = ("--journal", str(self.folder / journal), "--models", str(self.models), "--json", *more)
        done = run("risk", "check", self.limits(changes), *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def changed(found: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(row["then"], row["now"]): row["decisions"] for row in found["counts"] if row["then"] != row["now"]}


def reason(signal: pb.Signal) -> str:
    return pb.Reason.Name(signal.reason).removeprefix("REASON_")


def test_the_limits_that_were_in_force_change_nothing_of_an_eventful_day(desk: Desk) -> None:
    said = []
    with desk.trading(max_orders_per_s_symbol=2.0, max_repeats=3.0) as day:
        day.desk.report_fill(FillReport("from elsewhere", "TWO", Side.BUY, 60.0, PRICE))
        assert day.desk.state.who == "limit"
        said.append(day.ask("ONE", UP))
        day.desk.report_fill(FillReport("and back", "TWO", Side.SELL, 60.0, PRICE))
        day.desk.set_state(TradingState.ACTIVE, reason="a mistake", who="tester")
        entry = day.ask("ONE", UP)
        said.append(entry)
        day.fill("ONE", entry)
        said += [day.ask("TWO", UP) for _ in range(3)]  # at work: nothing is left to ask for
        day.wait(6.0)
        for _ in range(5):  # expired, and asked for again, until it is a repeat
            said.append(day.ask("TWO", UP))
            day.wait(6.0)
        said += [day.ask("ONE", DOWN), day.ask("ONE", DOWN, price=120.0), day.ask("ONE", UP, age_s=60.0)]
        day.desk.set_state(TradingState.HALTED, reason="lunch", who="tester")
        said.append(day.ask("TWO", DOWN))
        day.desk.set_state(TradingState.ACTIVE, reason="after lunch", who="tester")
        day.wait(6.0)
        said.append(day.trade("ONE", 80.0))  # 20 lost on each unit
        said += [day.ask("TWO", UP), day.ask("ONE", DOWN, price=80.0)]
        day.wait(1.0)
        assert day.desk.state.who == "loss limit"
        said.append(day.ask("TWO", UP))
        day.desk.set_state(TradingState.ACTIVE, reason="seen", who="tester")
        said.append(day.ask("TWO", UP))
    with desk.trading() as day:
        said.append(day.ask("TWO", UP))
    assert len({reason(signal) for signal in said}) >= 7, {reason(signal) for signal in said}
    found = desk.check({"max_orders_per_s_symbol": 2.0, "max_repeats": 3.0})
    assert found["limits"] == ["version: 1 -> 2", "max_repeats: 20.0 -> 3.0", "max_orders_per_s_symbol: 100.0 -> 2.0"]
    assert (found["changed"], found["repriced"], found["changes"], found["trips"]) == (0, 0, [], [])
    assert found["approved"]["then"] == found["approved"]["now"] > 0
    assert found["approved_notional"]["then"] == found["approved_notional"]["now"] > 0.0
    assert found["decisions"] == len(said) + 4 * 30
    assert [note.partition(": ")[2] for note in found["notes"]] == [
        "the limits in force changed once; the new ones hold from the beginning"
    ]


def test_a_tighter_limit_denies_what_was_approved_and_says_by_how_much(desk: Desk) -> None:
    with desk.trading() as day:
        order = day.ask("ONE", UP)
        assert order.approved
    found = desk.check({"max_order_notional": 3_000.0})
    assert changed(found) == {("APPROVED", "POSITION_ORDER_NOTIONAL"): 1}
    assert (found["approved"], found["approved_notional"]["now"]) == ({"then": 1, "now": 0}, 0.0)
    (change,) = found["changes"]
    assert change["then"] == {
        "action": "BUY",
        "size": order.size,
        "reason": "APPROVED",
        "notional": pytest.approx(order.size * PRICE),
    }
    assert change["now"] == {"action": "HOLD", "size": 0.0, "reason": "POSITION_ORDER_NOTIONAL", "notional": 0.0}
    assert (change["symbol"], change["value"], change["limit"]) == ("ONE", change["then"]["notional"], 3_000.0)
    assert found["limits"] == ["version: 1 -> 2", "max_order_notional: 100000.0 -> 3000.0"]


def test_each_decision_is_judged_in_the_book_as_it_was(desk: Desk) -> None:
    with desk.trading() as day:
        entry = day.ask("ONE", UP)
        day.fill("ONE", entry)
        leave = day.ask("ONE", DOWN)
        assert (leave.approved, leave.reducing) == (True, True)
    # The entry would not have been; what takes it off again is judged with the position there, and is as it was.
    assert changed(desk.check({"max_order_size": 1.0})) == {("APPROVED", "POSITION_ORDER_SIZE"): 1}


def test_a_looser_limit_approves_what_was_denied_each_time_it_was_asked_for(desk: Desk) -> None:
    with desk.trading(max_position_notional=1_000.0) as day:
        denied = [day.ask("ONE", UP) for _ in range(3)]
        assert {reason(signal) for signal in denied} == {"POSITION_NOTIONAL"}
    found = desk.check({"max_position_notional": 5_000.0})
    assert changed(found) == {("POSITION_NOTIONAL", "APPROVED"): 3}
    assert (found["approved"], found["approved_notional"]["then"]) == ({"then": 0, "now": 3}, 0.0)
    assert found["changes"][0]["value"] < found["changes"][0]["limit"] == 5_000.0


def test_another_risk_budget_asks_for_other_sizes(desk: Desk) -> None:
    with desk.trading() as day:
        order = day.ask("ONE", UP)
    found = desk.check({"risk_budget": 10.0})
    assert (found["changed"], changed(found)) == (1, {})
    assert found["changes"][0]["now"]["size"] == pytest.approx(order.size / 2)
    assert found["approved_notional"]["now"] == pytest.approx(found["approved_notional"]["then"] / 2)


def test_another_price_or_validity_alone_is_counted_beside(desk: Desk) -> None:
    with desk.trading() as day:
        day.ask("ONE", UP)
    found = desk.check({"valid_for_us": 1_000_000})
    assert (found["changed"], found["repriced"]) == (0, 1)


def test_a_tighter_rate_lets_so_many_orders_through_as_it_would_have(desk: Desk) -> None:
    with desk.trading() as day:
        for _ in range(10):  # two orders a second, each cancelled at once
            for symbol in ("ONE", "TWO"):
                order = day.ask(symbol, UP)
                day.desk.report_order(OrderReport(symbol, OrderState.CANCELLED, order.order_id))
            day.wait(1.0)
    assert changed(desk.check({"max_orders_per_s": 1.0})) == {("APPROVED", "RATE_TOTAL"): 10}


def test_fewer_repeats_of_a_signal_pass_until_a_fill(desk: Desk) -> None:
    with desk.trading() as day:
        for _ in range(6):
            order = day.ask("ONE", UP)
            day.desk.report_order(OrderReport("ONE", OrderState.CANCELLED, order.order_id))
        day.fill("ONE", order)
        day.ask("ONE", DOWN)
    assert changed(desk.check({"max_repeats": 4.0})) == {("APPROVED", "SIGNAL_REPEATED"): 2}


def test_a_tighter_loss_limit_reduces_the_desk_until_a_person_resumed_it(desk: Desk) -> None:
    with desk.trading() as day:
        day.fill("ONE", day.ask("ONE", UP))
        day.trade("ONE", 96.0)  # 4 lost on each unit
        day.wait(1.0)
        day.trade("ONE", 100.0)
        assert day.ask("TWO", UP).approved
        day.wait(6.0)
        day.desk.set_state(TradingState.ACTIVE, reason="a look around", who="tester")
        assert day.ask("TWO", UP).approved
    found = desk.check({"max_daily_loss": 100.0})
    assert changed(found)["APPROVED", "TRADING_STATE_REDUCING"] == 1
    assert {now for _, now in changed(found)} == {"TRADING_STATE_REDUCING"}
    (trip,) = found["trips"]
    assert (trip["reduced"], "over a loss limit" in trip["why"]) == (True, True)


def test_a_looser_loss_limit_does_not_reduce_the_desk(desk: Desk) -> None:
    with desk.trading() as day:
        day.fill("ONE", day.ask("ONE", UP))
        day.trade("ONE", 80.0)
        day.wait(1.0)
        assert day.desk.state.state is TradingState.REDUCING
        assert reason(day.ask("TWO", UP)) == "TRADING_STATE_REDUCING"
    with desk.trading("journal") as day:  # it is reduced after a restart too
        assert reason(day.ask("TWO", DOWN)) == "TRADING_STATE_REDUCING"
    found = desk.check({"max_daily_loss": 5_000.0, "max_drawdown": 5_000.0})
    assert changed(found) == {("TRADING_STATE_REDUCING", "APPROVED"): 2}
    (trip,) = found["trips"]
    assert (trip["reduced"], "over a loss limit" in trip["why"]) == (False, True)


def test_a_fill_that_was_over_a_limit_does_not_reduce_the_desk_under_a_looser_one(desk: Desk) -> None:
    with desk.trading() as day:
        day.desk.report_fill(FillReport("from elsewhere", "ONE", Side.BUY, 60.0, PRICE))
        assert reason(day.ask("TWO", UP)) == "TRADING_STATE_REDUCING"
    found = desk.check({"max_position_notional": 7_000.0})
    assert changed(found) == {("TRADING_STATE_REDUCING", "APPROVED"): 1}
    (trip,) = found["trips"]
    assert (trip["reduced"], "POSITION_NOTIONAL" in trip["why"]) == (False, True)


def test_a_fill_that_a_tighter_limit_might_have_prevented_does_not_reduce_the_desk(desk: Desk) -> None:
    with desk.trading() as day:
        day.fill("ONE", day.ask("ONE", UP))
        assert day.ask("TWO", UP).approved
    found = desk.check({"symbols": {"ONE": {"max_position_notional": 4_000.0}}})
    assert changed(found) == {("APPROVED", "POSITION_NOTIONAL"): 1}
    assert found["trips"] == []


def test_workers_are_judged_under_their_slices_in_the_order_of_time(desk: Desk) -> None:
    names = [next(name for name in ("A", "B", "C", "D", "E") if worker_of(name, 2) == worker) for worker in (0, 1)]
    for worker, name in enumerate(names):
        with desk.trading(f"journal/worker-{worker}", name, worker=worker, workers=2) as day:
            day.wait(float(1 - worker))
            assert day.ask(name, UP).approved
    found = desk.check({"max_gross_exposure": 6_000.0})  # 3,000 each
    assert changed(found) == {("APPROVED", "EXPOSURE_GROSS"): 2}
    assert [(change["symbol"], change["limit"]) for change in found["changes"]] == [(names[1], 3e3), (names[0], 3e3)]
    alone = desk.check({"max_gross_exposure": 6_000.0}, journal="journal/worker-1")
    assert (alone["changed"], len(alone["journals"])) == (1, 1)
    first = desk.check({"max_gross_exposure": 6_000.0}, "--show", "1")
    assert [change["symbol"] for change in first["changes"]] == [names[1]]


def test_the_tables_say_what_changed(desk: Desk) -> None:
    with desk.trading() as day:
        order = day.ask("ONE", UP)
    arguments = ("--journal", str(desk.folder / "journal"), "--models", str(desk.models))
    done = run("risk", "check", desk.limits({"max_var": 50.0}), *arguments)
    assert done.returncode == 0, done.stderr
    assert "max_var: 25000.0 -> 50.0" in done.stdout
    assert "61 decisions judged, 1 would have come out otherwise." in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if "HOLD VAR_PORTFOLIO" in line)
    assert f"BUY {order.size:,.8g}" in line
    assert " 50 " in line
    same = run("risk", "check", desk.limits({"version": 1}), *arguments)
    assert "The file has the limits that were in force." in same.stdout


def test_a_version_that_a_server_would_refuse_is_noted(desk: Desk) -> None:
    with desk.trading() as day:
        day.ask("ONE", UP)
    found = desk.check({"version": 1, "max_risk_data_age_s": 9.0})
    assert [note.partition(": ")[2] for note in found["notes"]] == [
        "max_risk_data_age_s cannot be tried: risk data are fresh and stale as recorded",
        "a server refuses these limits: version is 1, expected more than 1, which is in force",
    ]


def test_a_journal_of_another_environment_is_tried_with_a_note(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    here = rotation.environment()
    monkeypatch.setattr(rotation, "environment", lambda: here | {"cpu": "another"})
    with desk.trading() as day:
        day.ask("ONE", UP)
    found = desk.check({"max_order_size": 1.0})
    assert changed(found) == {("APPROVED", "POSITION_ORDER_SIZE"): 1}
    assert "written with another environment (cpu)" in found["notes"][0]


def test_decisions_that_differ_before_the_gate_are_noted(desk: Desk) -> None:
    with desk.trading() as day:
        assert day.ask("ONE", UP).approved
    versions = desk.models / "tiny" / "1"

    def threshold(manifest: dict[str, Any]) -> None:
        manifest["decision_threshold"] = 0.99  # the gate's business: not noted

    edit_manifest(versions, threshold)
    found = desk.check({})
    assert changed(found) == {("APPROVED", "CONFIDENCE_BELOW_THRESHOLD"): 1}
    assert found["notes"] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_var": -1.0}, "max_var"),
        ({"max_vor": 1.0}, "max_vor"),
        ({"var_method": "monte_carlo"}, "var_method"),
    ],
)
def test_a_file_that_is_not_valid_is_refused_by_its_key(desk: Desk, changes: dict[str, Any], said: str) -> None:
    done = run("risk", "check", desk.limits(changes), "--journal", str(desk.folder), "--models", str(desk.models))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"limits.toml: {said}" in done.stderr


def test_what_cannot_be_replayed_is_refused(desk: Desk) -> None:
    with desk.trading() as day:
        day.ask("ONE", UP)
    missing = run(
        "risk", "check", desk.limits({}), "--journal", str(desk.folder / "none"), "--models", str(desk.models)
    )
    assert missing.returncode == 1
    assert "none" in missing.stderr
    shutil.rmtree(desk.models / "tiny")
    publish_logistic(desk.models, name="other")
    arguments = ("--journal", str(desk.folder / "journal"), "--models", str(desk.models))
    lacking = run("risk", "check", desk.limits({}), *arguments)
    assert (lacking.returncode, "lacks tiny:1, which decided" in lacking.stderr) == (1, True)
    assert run("risk", "check").returncode == 2
