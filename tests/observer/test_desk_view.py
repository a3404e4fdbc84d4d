"""The desk as an observer sees it in the journal: states, what the gate measured, positions, aliases, ticks."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_server.journal.entries import ControlEntry
from tickgate_server.journal.layout import DECISION, TICKS, TICKS_WIDTH, ControlKind, Flags, RecordKind, TickOutcome
from tickgate_server.journal.segments import Rows
from tickgate_server.observer.desk_view import DeskView
from tickgate_server.observer.tick_counts import Source, TickCounts
from tickgate_server.records import SYMBOL, TICK
from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.reasons import Reason
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import Side

NAMES = tuple(check.reason.name for check in CHECKS)


def control(code: ControlKind, payload: dict[str, Any], *, restated: bool = False) -> ControlEntry:
    return ControlEntry(1, int(code), 7, payload, restated)


def judged(*rows: tuple[Reason, dict[Reason, float]]) -> Rows:
    found = np.zeros(len(rows), DECISION)
    found["judged"], found["check_count"] = True, len(NAMES)
    found["clock_ns"] = np.arange(1, len(rows) + 1)
    for row, (reason, values) in zip(found, rows, strict=True):
        row["reason"] = reason
        for measured, value in values.items():
            row["checks"][NAMES.index(measured.name)] = value
    return found


def test_exposures_are_those_of_the_last_decision_whose_order_is_in_the_portfolio() -> None:
    view = DeskView()
    approved = {Reason.EXPOSURE_GROSS: 100.0, Reason.EXPOSURE_NET: 90.0, Reason.VAR_PORTFOLIO: 5.0}
    refused = {Reason.EXPOSURE_GROSS: 900.0, Reason.LOSS_DAILY: 12.0, Reason.LOSS_DRAWDOWN: 20.0}
    view.add(judged((Reason.APPROVED, approved), (Reason.EXPOSURE_GROSS, refused)), NAMES)
    found = view.measured
    assert found is not None
    assert (found.gross, found.net, found.value_at_risk) == (100.0, 90.0, 5.0)
    assert (found.profit, found.drawdown, found.clock_ns) == (-12.0, 20.0, 2)


def test_an_answer_given_again_measures_nothing_and_a_lacking_check_is_nan() -> None:
    view = DeskView()
    rows = judged((Reason.APPROVED, {}))
    rows["flags"] = Flags.REPEATED
    view.add(rows, NAMES)
    assert view.measured is None
    view.add(judged((Reason.APPROVED, {})), NAMES[:3])
    assert view.measured is not None
    assert math.isnan(view.measured.gross)


def test_the_state_is_what_was_set_and_without_that_what_the_gate_measured() -> None:
    view = DeskView()
    assert view.state is None
    view.add(judged((Reason.TRADING_STATE_HALTED, {Reason.TRADING_STATE_HALTED: 3.0})), NAMES)
    assert view.state is not None
    assert view.state.state is TradingState.HALTED
    view.feed(control(ControlKind.TRADING_STATE, {"state": 1, "reason": "over", "who": "me"}))
    view.add(judged((Reason.APPROVED, {Reason.TRADING_STATE_HALTED: 3.0})), NAMES)
    assert (view.state.state, view.state.who) == (TradingState.ACTIVE, "me")


def fill(symbol: str, side: Side, size: float) -> ControlEntry:
    return control(ControlKind.FILL, {"symbol": symbol, "side": int(side), "size": size})


MOVES = st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(Side), st.integers(1, 3)), max_size=40)


@given(MOVES)
def test_positions_are_the_symbols_whose_fills_do_not_add_up_to_nothing(moves: list[tuple[str, Side, int]]) -> None:
    view = DeskView()
    view.feed(control(ControlKind.SETTINGS, {"instruments": [{"symbol": name, "lot": 0.1} for name in "ABC"]}))
    held: dict[str, int] = {}
    for symbol, side, size in moves:
        view.feed(fill(symbol, side, size * 0.1))
        held[symbol] = held.get(symbol, 0) + (size if side is Side.BUY else -size)
    assert view.positions == sum(size != 0 for size in held.values())


def test_positions_begin_with_what_a_start_states_and_are_unknown_without_it() -> None:
    view = DeskView()
    view.feed(fill("A", Side.BUY, 1.0))
    assert view.positions is None
    view.feed(control(ControlKind.SETTINGS, {}))
    assert view.positions == 0
    view.feed(control(ControlKind.WARM_START, {"rows": [["A", 2.0, 1.0], ["B", 0.0, 1.0]]}))
    assert view.positions == 1
    view.feed(
        control(ControlKind.POSITIONS, {"positions": [{"symbol": "C", "size": -1.0}, {"symbol": "A", "size": 0}]})
    )
    assert view.positions == 1


def test_limits_that_are_off_are_none() -> None:
    view = DeskView()
    view.feed(control(ControlKind.LIMITS, {"max_var": 25.0, "max_drawdown": "off", "version": 3}))
    assert view.limits == {"max_var": 25.0}


def test_an_alias_changes_when_it_means_another_version_and_not_when_that_is_said_again() -> None:
    view = DeskView()

    def point(version: int | None, *, restated: bool = False) -> None:
        payload = {"name": "m", "alias": "production", "version": version, "share_percent": 0.0}
        view.feed(control(ControlKind.ALIAS, payload, restated=restated))

    point(1)
    point(1, restated=True)
    assert view.alias_changes.total() == 0
    point(2)
    point(None)
    point(3)
    assert view.alias_changes == {"production": 3}
    assert view.aliases == {("m", "production"): 3}


def test_ticks_of_requests_are_told_by_what_became_of_them() -> None:
    rows = np.zeros(9, DECISION)
    rows["input"] = TICK
    rows["applied"][:2] = True
    rows["flags"][2] = Flags.HELD_BACK
    rows["reason"][2:5] = [Reason.TICK_PRICE_JUMP, Reason.TICK_STALE, Reason.TICK_STALE]
    rows["reason"][5] = Reason.CONFIDENCE_BELOW_THRESHOLD  # asked again
    rows["reason"][6] = Reason.REQUEST_ID_REUSED  # not looked at
    rows["flags"][7] = Flags.REPEATED
    rows["input"][8] = SYMBOL
    counts = TickCounts()
    counts.add_decisions(rows)
    own = counts.outcomes[Source.PREDICT]
    assert {TickOutcome(k).name: int(own[k]) for k in np.flatnonzero(own)} == {
        "ACCEPTED": 2,
        "HELD_BACK": 1,
        "REJECTED": 2,
        "AGAIN": 1,
    }
    assert counts.reasons[Source.PREDICT, Reason.TICK_STALE] == 2
    assert counts.reasons[Source.PREDICT].sum() == 3


@pytest.mark.parametrize("used", [(10, 3), (1, 0)])
def test_published_ticks_are_those_that_a_record_has_in_use(used: tuple[int, int]) -> None:
    rows = np.zeros(3, TICKS)
    rows["kind"][:2] = RecordKind.TICKS
    rows["kind"][2] = RecordKind.CONTROL
    rows["tick_count"][:2] = used
    random = np.random.default_rng(1)
    rows["ticks"]["outcome"] = random.integers(0, len(TickOutcome), (3, TICKS_WIDTH))
    rows["ticks"]["reason"] = Reason.TICK_DUPLICATE
    counts = TickCounts()
    counts.add_published(rows.view(DECISION))
    expected = [int(rows["ticks"][k, n]["outcome"]) for k in range(2) for n in range(used[k])]
    assert counts.outcomes[Source.PUBLISHED].sum() == sum(used)
    for outcome in TickOutcome:
        assert counts.outcomes[Source.PUBLISHED, outcome] == expected.count(outcome)
    refused = expected.count(TickOutcome.REJECTED) + expected.count(TickOutcome.HELD_BACK)
    assert counts.reasons[Source.PUBLISHED, Reason.TICK_DUPLICATE] == counts.reasons.sum() == refused
