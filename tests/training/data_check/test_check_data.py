"""`tickgate check-data`: the report of a file, as a document, as tables and as a page."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tests.support.real_data import SPOT_ETH, USDM_BTC, capture, capture_path
from tests.training.data_check.files import SECOND_NS, START_NS, line, quiet, write

from tickgate_server.errors import FieldInvalid
from tickgate_server.intake import Intake
from tickgate_server.records import TICK, Decision, Request
from tickgate_server.risk.reasons import Reason as Answered
from tickgate_server.ticks import market
from tickgate_server.ticks.instruments import Instrument, Universe
from tickgate_server.ticks.symbols import SymbolTable
from tickgate_training.data.rule_loop import Limits
from tickgate_training.data_check.check import Terms, check
from tickgate_training.data_check.commands import check_data
from tickgate_training.data_check.recording import PieceBuilder
from tickgate_training.data_check.screening import Reason, Screening
from tickgate_training.data_check.tally import EXAMPLES, LARGEST

OPEN = Universe({}, closed=False)


def rows_of(document: dict[str, Any]) -> dict[str, int]:
    return {reason: found["rows"] for reason, found in document["reasons"].items() if found["rows"]}


# -- the rules ------------------------------------------------------------------------------------------------------

LIMITS = Limits(future_ns=2, stale_ns=3)
drawn_ticks = st.lists(
    st.tuples(
        st.sampled_from(["A", "B", "C", "D"]),
        st.sampled_from([0, 1, 1, 2, 3]),  # kind
        st.integers(0, 9),  # stamp
        st.integers(0, 4),  # sequence
        st.sampled_from([9.0, 9.0, 9.5, 0.0]),  # price
        st.sampled_from([(9.0, 10.0), (9.0, 9.0), (10.0, 9.0)]),
        st.integers(1, 9),  # clock
    ),
    max_size=40,
)


@given(drawn=drawn_ticks, closed=st.booleans())
def test_every_row_gets_the_reason_that_the_servers_intake_gives(drawn: list[Any], *, closed: bool) -> None:
    universe = Universe({name: Instrument(symbol=name) for name in ("A", "C")} if closed else {}, closed=closed)
    builder = PieceBuilder()
    clock = [0]
    server = Intake(
        SymbolTable(universe, 2),
        2,
        [],
        lambda: clock[0],
        future_limit_ns=2,
        stale_limit_ns=3,
        feature_age_limit_ns=0,
        price_jump_sigmas=market.JUMP_SIGMAS,
        price_jump_least=market.JUMP_LEAST,
    )
    expected = []
    for number, (symbol, kind, stamp, sequence, price, (bid, ask), now) in enumerate(drawn):
        clock[0] = now
        builder.add(number + 1, symbol, kind, stamp, sequence, (price, 1.0, bid, ask, 1.0, 0.0), now)
        request = Request(
            input=TICK, symbol=symbol, kind=kind, exchange_ts_ns=stamp, sequence=sequence, price=price, size=1.0,
            bid=bid, ask=ask, bid_size=1.0, ask_size=0.0,
        )  # fmt: skip
        expected.append(server_says(server, request))
    found = Screening(universe, 2, LIMITS, offset_ns=0).judge(builder.take())
    assert [Reason(reason).name for reason in found.reasons.tolist()] == expected


def server_says(server: Intake, request: Request) -> str:
    decision = Decision()
    try:
        row, reason = server._apply(request, decision)
    except FieldInvalid:
        return "INVALID_VALUE"
    if row >= 0 and not reason and not decision.applied:
        return "DUPLICATE"  # asked about again, and not applied
    return Answered(reason).name.removeprefix("TICK_") if reason else "ACCEPTED"


def test_each_reason_is_counted_and_shown_by_its_line(tmp_path: Path) -> None:
    lines = [
        *quiet(30),
        line(31, 31, ("nan", 1)),  # 32
        line(31, 31, (100, 1), symbol=""),
        line(31, 30, (100, 1)),  # 34: another tick with the number of the last
        line(29, 31, (100, 1)),
        line(31, 31, quote=(101, 100, 1, 1)),
        line(31, 31, (100, 1), symbol="B"),  # 37: not listed
        line(32, 32, (150, 1)),  # held back
        line(33, 33, (100, 1)),  # 39: and not confirmed
        line(34, 34, (160, 1)),
        line(35, 35, (161, 1)),  # 41: confirmed
        "not a row",
    ]
    listed = {"A": Instrument(symbol="A")}
    found = check(str(write(tmp_path / "t.csv", *lines)), "csv", Terms(universe=Universe(listed, closed=True)))
    assert rows_of(found) == {
        "INVALID_VALUE": 2, "UNKNOWN_SYMBOL": 1, "DUPLICATE": 1, "OUT_OF_ORDER": 1, "CROSSED_QUOTE": 1, "PRICE_JUMP": 1,
    }  # fmt: skip
    examples = {
        reason: [(one["line"], one["why"]) for one in of["examples"]] for reason, of in found["reasons"].items()
    }
    assert examples["INVALID_VALUE"] == [
        (32, "price: found nan, but a price is finite and above 0"),
        (33, "symbol: found '', but a symbol has 1 to 32 bytes"),
    ]
    assert examples["DUPLICATE"] == [(34, "sequence 30")]
    assert examples["OUT_OF_ORDER"] == [(35, "1000 ms before the symbol's last")]
    assert examples["CROSSED_QUOTE"] == [(36, "bid 101 above ask 100")]
    assert examples["UNKNOWN_SYMBOL"] == [(37, "not among the instruments")]
    assert [at for at, _ in examples["PRICE_JUMP"]] == [38, 40]
    assert found["unreadable"] == {"rows": 1, "first": [{"line": 42, "why": "1 cells; expected 10"}]}
    assert found["rows"] == len(lines) == found["accepted"] + sum(rows_of(found).values()) + 1
    assert found["jumps"] == {"held_back": 2, "confirmed": 1}
    assert [(one["line"], one["confirmed"]) for one in found["largest_jumps"]] == [(40, True), (38, False)]


def test_a_jump_that_is_confirmed_by_no_row_of_the_file_waits(tmp_path: Path) -> None:
    found = check(str(write(tmp_path / "t.csv", *quiet(30), line(31, 31, (150, 1)))), "csv")
    (one,) = found["symbols"]
    assert one["jump_waits"]
    assert rows_of(found) == {"PRICE_JUMP": 1}


# -- what is measured -----------------------------------------------------------------------------------------------


def test_silences_sizes_spreads_and_numbers_are_those_counted_by_hand(tmp_path: Path) -> None:
    lines = [
        line(0, 1, (100, 0)),
        line(1, 2, quote=(99, 101, 1, 1)),  # 200 bps
        line(1, 2, quote=(99, 101, 1, 1)),  # the latest again
        line(302, 5, quote=(100, 100, 0, 1)),  # locked, after 301 s; 3 and 4 skipped
        line(303, 4, (100, 1)),  # late
        line(303.5, 6, (100, 1)),
        line(303.25, 9, (100, 1)),  # 250 ms back, 7 and 8 skipped
        line(5, 1, (7, 1), symbol="B"),
    ]
    found = check(str(write(tmp_path / "t.csv", *lines)), "csv")
    first, second = found["symbols"]
    assert (first["symbol"], first["rows"], first["accepted"], first["trades"], first["quotes"]) == ("A", 7, 5, 3, 2)
    assert (first["gaps_over_session_gap"], first["longest_silence_ns"]) == (1, 301 * SECOND_NS)
    assert first["zero_size"] == {"trades": 1, "quotes": 1}
    assert (first["locked"], first["crossed"]) == (1, 0)
    assert first["spread_bps"]["count"] == 2
    assert first["spread_bps"]["greatest"] == pytest.approx(200.0)
    assert first["spread_bps"]["least"] == 0.0
    assert first["duplicates"] == {"rows": 1, "latest_again": 1}
    assert first["out_of_order_ms"]["greatest"] == 250.0
    assert first["sequence_gaps"] == {"gaps": 2, "skipped": 4, "came_late": 1, "missing": 3}
    assert (first["first_ns"], first["last_ns"]) == (START_NS, START_NS + round(303.5 * SECOND_NS))
    assert (second["symbol"], second["rows"], second["longest_silence_ns"]) == ("B", 1, None)
    assert found["longest_silences"][0] == {
        "line": 5, "symbol": "A", "begin_ns": START_NS + SECOND_NS, "end_ns": START_NS + 302 * SECOND_NS,
    }  # fmt: skip
    assert [(one["line"], one["sequence"], one["missing"]) for one in found["largest_sequence_gaps"]] == [
        (5, 5, 2),
        (8, 9, 2),
    ]
    assert sum(found["over_time"]["accepted"]) == 6
    assert sum(found["over_time"]["rejected"]) == 2


def test_another_session_gap_counts_other_silences(tmp_path: Path) -> None:
    path = str(write(tmp_path / "t.csv", line(0, 1, (9, 1)), line(10, 2, (9, 1)), line(30, 3, (9, 1))))
    counted = [
        check(path, "csv", Terms(session_gap_ns=seconds * SECOND_NS))["gaps_over_session_gap"]
        for seconds in (0, 9, 10, 20)
    ]
    assert counted == [0, 2, 1, 0]


def test_sessions_are_counted_where_an_instrument_names_a_calendar(tmp_path: Path) -> None:
    day = 86_400
    monday = 1_704_723_600 - START_NS // SECOND_NS  # 2024-01-08 14:20 UTC: New York opens ten minutes later
    open_s = [monday + 600, monday + 7200, monday + 1000 + 2 * day]  # Monday twice, and Wednesday
    lines = [line(at, k + 1, (9, 1)) for k, at in enumerate(open_s)]
    lines.append(line(open_s[0], 1, (9, 1), symbol="B"))
    universe = Universe({"A": Instrument(symbol="A", calendar="XNYS")}, closed=False)
    found = check(str(write(tmp_path / "t.csv", *lines)), "csv", Terms(universe=universe))
    first, second = found["symbols"]
    assert first["sessions"] == {
        "calendar": "XNYS", "with_ticks": 2, "without_ticks": 1, "gaps_within_sessions": 1,
    }  # fmt: skip
    assert first["gaps_over_session_gap"] == 2
    assert second["sessions"] is None


def test_pieces_give_the_report_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [*quiet(40), line(41, 60, (150, 1)), line(42, 61, (151, 1)), "x", *quiet(20, 50), *quiet(5, 900)]
    path = str(write(tmp_path / "t.csv", *lines))
    whole = check(path, "csv")
    monkeypatch.setattr("tickgate_training.data_check.recording.PIECE_ROWS", 7)
    assert check(path, "csv") == whole


def test_what_is_kept_of_a_bad_and_wide_file_is_bounded(tmp_path: Path) -> None:
    lines = [
        row for k in range(60) for row in (line(k, 2 * k + 1, (9, 1), symbol=f"S{k}"), "x", line(0, 1, ("nan", 1)))
    ]
    lines += [line(100 + 400 * k, 1000 + 2 * k, (9, 1), symbol="S0") for k in range(40)]
    found = check(str(write(tmp_path / "t.csv", *lines)), "csv", Terms(capacity=5))
    assert rows_of(found) == {"INVALID_VALUE": 60, "SYMBOL_TABLE_FULL": 55}
    assert found["unreadable"]["rows"] == 60
    assert len(found["unreadable"]["first"]) == 20
    assert all(len(of["examples"]) <= EXAMPLES for of in found["reasons"].values())
    assert len(found["longest_silences"]) == len(found["largest_sequence_gaps"]) == LARGEST
    assert len(found["symbols"]) == 6
    assert found["symbols"][-1]["symbol"] is None
    assert sum(one["rows"] for one in found["symbols"]) == found["rows"] - 60


# -- clocks ---------------------------------------------------------------------------------------------------------


def test_without_arrival_stamps_the_clock_rules_are_said_to_be_not_checked(tmp_path: Path) -> None:
    found = check(str(write(tmp_path / "t.csv", *quiet(2))), "csv")
    assert not found["clock"]["checked"]
    unchecked = [reason for reason, of in found["reasons"].items() if not of["checked"]]
    assert unchecked == ["FROM_FUTURE", "STALE"]


def arrivals(path: Path, *delays_ms: float) -> str:
    rows = (
        f'{START_NS + k * SECOND_NS + round(delay * 1e6)} {{"stream":"a@trade","data":{{"s":"A","t":{k + 1},'
        f'"p":"9","q":"1","T":{START_NS // 1_000_000 + 1000 * k},"m":true}}}}'
        for k, delay in enumerate(delays_ms)
    )
    path.write_text("\n".join(rows))
    return str(path)


def test_arrival_stamps_stand_for_the_servers_clock(tmp_path: Path) -> None:
    path = arrivals(tmp_path / "c", 0.5, 5000.0, 5000.001, 2.0)
    found = check(path, "binance")
    assert rows_of(found) == {"STALE": 1}
    assert found["clock"] | {"delay_ms": {}} == {"checked": True, "timed_rows": 4, "offset_ms": 0.0, "delay_ms": {}}
    assert found["reasons"]["STALE"]["examples"] == [{"line": 3, "symbol": "A", "why": "5000 ms before its arrival"}]


def test_a_clock_that_runs_behind_is_moved_by_the_least_that_makes_sense_and_the_report_says_by_how_much(
    tmp_path: Path,
) -> None:
    path = arrivals(tmp_path / "c", -1270.0, -1300.5, -1200.0)
    found = check(path, "binance")
    assert rows_of(found) == {}
    assert found["clock"]["offset_ms"] == 1300.5
    assert found["clock"]["delay_ms"]["greatest"] == pytest.approx(100.5)
    assert rows_of(check(path, "binance", Terms(offset_ns=0))) == {"FROM_FUTURE": 3}


@pytest.mark.parametrize("name", [SPOT_ETH, USDM_BTC])
def test_a_real_capture_in_the_order_of_arrival(name: str) -> None:
    found = check(str(capture_path(name)), "binance")
    (one,) = found["symbols"]
    assert set(rows_of(found)) <= {"OUT_OF_ORDER"}
    # The streams of futures overtake each other, by up to what a reorder window would have to be.
    assert (found["out_of_order_ms"]["greatest"] or 0.0) == (110.0 if name == USDM_BTC else 0.0)
    assert one["sequence_gaps"]["missing"] == 0
    assert found["rows"] <= capture(name).frame.height + capture(name).quotes
    assert 1200.0 < found["clock"]["offset_ms"] < 1350.0


# -- the command ----------------------------------------------------------------------------------------------------


def run(*arguments: object) -> Any:
    return CliRunner().invoke(check_data, [str(one) for one in arguments])


def test_the_command_prints_tables_and_the_same_as_json(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", *quiet(30), "bad row", line(40, 5, (9, 1)))
    shown = run(path)
    assert shown.exit_code == 0
    assert "32 rows: 30 accepted, 1 rejected, 1 not readable." in shown.output
    assert re.search(r"DUPLICATE\s+│\s+1 ", shown.output)
    assert re.search(r"Rejected\s+rows\s+by\s+symbol", shown.output)
    assert re.search(r"FROM_FUTURE\s+│\s+not checked", shown.output)
    printed = run(path, "--json")
    assert json.loads(printed.output) == json.loads(json.dumps(check(str(path), "csv")))


def test_the_page_needs_nothing_else_and_shows_symbols_as_they_are_written(tmp_path: Path) -> None:
    evil = "<script>x</script>"
    path = write(tmp_path / "t.csv", line(1, 1, (9, 1), symbol=evil), line(2, 2, quote=(9, 10, 1, 1), symbol="$a_b$"))
    page = tmp_path / "report.html"
    assert run(path, "--html", page).exit_code == 0
    html = page.read_text()
    assert evil not in html
    assert "&lt;script&gt;x&lt;/script&gt;" in html
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", html)
    assert html.count("data:image/png;base64,") == 2
    assert [left for left in tmp_path.iterdir() if "unfinished" in left.name] == []


def test_a_page_of_nothing_but_bad_rows_can_be_made(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert run(write(tmp_path / "t.csv", "x"), "--html", page).exit_code == 0
    assert "1 row: 0 accepted, 0 rejected, 1 not readable." in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("absent.csv",), "absent.csv: cannot be read"),
        (("sp600", "--format", "daily"), "no data set 'sp600'"),
        (("t.csv", "--instruments", "none.toml"), "none.toml: cannot be read"),
    ],
)
def test_what_cannot_be_read_ends_the_command_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", *quiet(1))
    result = run(*arguments)
    assert result.exit_code == 1
    assert said in result.output


def test_instruments_close_the_universe_only_if_asked_to(tmp_path: Path) -> None:
    instruments = tmp_path / "i.toml"
    instruments.write_text('[[instrument]]\nsymbol = "B"\n')
    path = write(tmp_path / "t.csv", *quiet(3))
    opened = json.loads(run(path, "--instruments", instruments, "--json").output)
    closed = json.loads(run(path, "--instruments", instruments, "--closed", "--json").output)
    assert rows_of(opened) == {}
    assert rows_of(closed) == {"UNKNOWN_SYMBOL": 3}


def test_daily_bars_have_no_gaps_between_sessions() -> None:
    found = json.loads(run("sp500:2017-2018", "--format", "daily", "--json").output)
    assert found["gaps_over_session_gap"] == 0
    assert found["accepted"] == found["rows"] > 400
    assert np.isclose(found["session_gap_s"], 0.0)
