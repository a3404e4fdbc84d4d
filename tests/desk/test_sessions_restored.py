"""Sessions across a restart and in a replay: what was stated of them comes back, by calendar, to the same bits."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.desk.desk_child import close, models_of, new_engine, publish
from tests.support.messages import SECOND_NS, START_NS, tick
from tests.support.risk import EngineBench, GateBench, chosen_model, instrument

from tickgate_server.desk.ledger import Ledger
from tickgate_server.desk.pieces import PieceUnknown, pieces, take_piece
from tickgate_server.journal.entries import ControlEntry, Entry
from tickgate_server.journal.layout import ControlKind
from tickgate_server.replay import Replayer, ReplayRefused, replay
from tickgate_server.risk import portfolio, valuation
from tickgate_server.risk.book import PEAK, PNL, SESSION_END_NS
from tickgate_server.risk.reports import FillReport, Side
from tickgate_server.rpc.answers import Answers
from tickgate_server.ticks import calendars
from tickgate_server.ticks.calendars import SessionCalendar, session_calendar

HOUR_NS = 3_600_000_000_000


def traded(*, of_a: str = "24/7") -> GateBench:
    """A desk with profits, losses and peaks of three calendars, on a Friday afternoon in New York."""
    bench = GateBench(
        instrument("A", calendar=of_a), instrument("NY", calendar="XNYS"), instrument("ES", calendar="CMES")
    )
    bench.pass_time(16 * 3600.0)
    for symbol, prices in (("A", (103.0, 101.1)), ("NY", (97.7, 99.3)), ("ES", (100.7, 98.9))):
        bench.hold(symbol, 10.0)
        for price in prices:
            bench.price(symbol, price)
    return bench


def stated(ledger: Ledger) -> list[dict[str, Any]]:
    """As a checkpoint holds it."""
    return [json.loads(json.dumps(piece)) for piece in pieces(ledger)]


def restored(said: list[dict[str, Any]], like: Ledger) -> Ledger:
    found = like.twin()
    for piece in said:
        take_piece(found, piece)
    return found


def account(ledger: Ledger) -> list[float]:
    return [float(value) for value in ledger.book.account[[PNL, PEAK]]]


def ends_ns(ledger: Ledger) -> dict[str, int]:
    ends = ledger.book.session_facts[:, SESSION_END_NS].tolist()
    return {calendar.name: end_ns for calendar, end_ns in zip(ledger.book.calendars, ends, strict=True)}


def test_what_is_stated_comes_back_to_the_same_bits_and_goes_on_alike() -> None:
    desk = traded().desk
    found = restored(stated(desk), desk)
    assert np.array_equal(found.book.sessions, desk.book.sessions)
    assert (account(found), ends_ns(found)) == (account(desk), ends_ns(desk))
    now_ns = desk.now_ns()
    for hours in (5, 8, 9, 54, 71):  # past the ends of that day, the evening's open of Sunday, that of Monday
        for one in (desk, found):
            portfolio.advance(one.book.table, now_ns + hours * HOUR_NS)
            valuation.mark(one.book.table, one.symbols.row("NY"), 95.0 + hours)
        assert np.array_equal(found.book.sessions, desk.book.sessions)
        assert (account(found), ends_ns(found)) == (account(desk), ends_ns(desk))


def test_a_symbol_that_another_instrument_file_gives_a_calendar_ends_its_session_with_that() -> None:
    said = stated(traded().desk)
    account_piece = said[0]["account"]
    account_piece["sessions"] = [one for one in account_piece["sessions"] if one[0] != "XNYS"]
    desk = traded(of_a="XNYS").desk
    found = restored(said, desk)
    assert ends_ns(found) == ends_ns(desk)  # that of New York from the time that is stated
    pnl, _ = account(found)
    assert pnl == pytest.approx(11.0 - 7.0 - 11.0)
    portfolio.advance(found.book.table, desk.now_ns() + 9 * HOUR_NS)  # past midnight
    assert account(found)[0] == pytest.approx(11.0 - 7.0 - 11.0)
    portfolio.advance(found.book.table, desk.now_ns() + 70 * HOUR_NS)
    assert account(found)[0] == 0.0


def test_a_book_that_another_version_stated_is_refused_before_anything_of_it_is_taken() -> None:
    desk = traded().desk
    said = stated(desk)
    del said[0]["account"]["sessions"]
    found = desk.twin()
    with pytest.raises(PieceUnknown, match="sessions by calendar") as caught:
        take_piece(found, said[0])
    assert caught.value.piece == "account"
    assert found.now_ns() == 0


# -- replay --------------------------------------------------------------------------------------------------------


@pytest.fixture
def journaled(tmp_path: Path) -> Path:
    """The journal of a desk that holds B, of New York, and C, of Chicago, from Friday to Monday; and its models."""
    publish(tmp_path / "models")
    engine = new_engine(models_of(tmp_path / "models"), tmp_path / "journal")
    answers = Answers(engine)
    ends: set[tuple[str, int]] = set()
    for burst in range(14):
        for step in range(14):  # the windows begin anew, after hours without a trade
            for symbol in ("B", "C"):
                at_ns = START_NS + burst * 7 * HOUR_NS + step * SECOND_NS
                price = 100.0 + 0.01 * (step % 3) - 0.2 * burst
                request = tick(symbol, at_ns, trade=(price, 1.0), model="line")
                assert isinstance(answers.predict(request.SerializeToString(), time.perf_counter_ns(), 0), bytes)
        for symbol, size in (("B", 1.0), ("C", 2.0)):
            engine.desk.report_fill(FillReport(f"{symbol}-{burst}", symbol, Side.BUY, size, price + 0.5))
        ends |= ends_ns(engine.desk).items()
    answers.close()
    close(engine)
    assert Counter(name for name, _ in ends) == {"24/7": 4, "XNYS": 3, "CMES": 2}  # Thursday's, Friday's, Monday's
    return tmp_path


def test_a_journal_with_sessions_of_several_calendars_replays_bit_for_bit(journaled: Path) -> None:
    found = replay(journaled / "journal", journaled / "models", keep=3)
    assert found.differences == []
    assert found.decisions == 14 * 14 * 2


def test_a_journal_is_not_replayed_where_its_calendars_begin_at_other_times(
    journaled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SessionCalendar("XNYS", session_calendar("XNYS").begins_ns + 60_000_000_000)
    monkeypatch.setattr(
        calendars, "_of_the_library", lambda name: session_calendar("24/5") if name == "24/5" else other
    )
    with pytest.raises(ReplayRefused, match="sessions of XNYS begin at other times here"):
        replay(journaled / "journal", journaled / "models")


class OfBefore(Replayer):
    """Feeds a journal as if a version had written it that knew one session for all."""

    def feed(self, entry: Entry) -> None:
        if isinstance(entry, ControlEntry) and "account" in entry.payload:
            del entry.payload["account"]["sessions"]
        super().feed(entry)

    def decided(self, *said: Any) -> None:
        raise AssertionError(said)


def test_a_journal_that_states_no_sessions_by_calendar_is_refused_by_the_number_of_its_record(journaled: Path) -> None:
    with pytest.raises(
        ReplayRefused, match=r"record \d+: the piece 'account' of the book lacks its sessions by calendar"
    ):
        OfBefore(journaled / "journal", journaled / "models").run()


def test_the_journal_tells_each_instruments_calendar_by_name_and_each_calendars_hash(tmp_path: Path) -> None:
    symbols = (instrument("A"), instrument("NY", calendar="NYSE"), instrument("ES", calendar="CMES"))
    bench = EngineBench(chosen_model(tmp_path / "models"), *symbols, folder=tmp_path / "journal")
    bench.close()
    (said,) = bench.controls(ControlKind.SETTINGS)
    assert [one["calendar"] for one in said["instruments"]] == ["24/7", "XNYS", "CMES"]
    assert said["calendars"] == {name: session_calendar(name).sha256 for name in ("24/7", "CMES", "XNYS")}
