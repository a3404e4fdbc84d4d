"""Session calendars against dates that exchanges have published, and against a plain search."""

import os
import subprocess
import sys
from bisect import bisect_right

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_server.ticks.calendars import (
    DAY_NS,
    CalendarInvalid,
    SessionCalendar,
    round_the_clock,
    session_calendar,
)

NAMES = ("24/7", "XNYS", "CMES")


def at_ns(utc: str) -> int:
    return int(np.datetime64(utc, "ns").astype(np.int64))


def next_begin(name: str, utc: str) -> str:
    found = session_calendar(name).next_begin_ns(at_ns(utc))
    return str(np.datetime64(found, "ns").astype("M8[m]"))


@pytest.mark.parametrize(
    ("name", "now", "begin"),
    [
        # New York opens at 09:30, winter time until 9 March 2025.
        ("XNYS", "2025-03-06T14:29:59", "2025-03-06T14:30"),
        ("XNYS", "2025-03-06T14:30:00", "2025-03-07T14:30"),  # a begin at that very time has been
        ("XNYS", "2025-03-07T21:00:00", "2025-03-10T13:30"),  # over the weekend, in summer time then
        ("XNYS", "2025-10-31T13:30:00", "2025-11-03T14:30"),  # and back
        ("XNYS", "2025-11-26T14:30:00", "2025-11-28T14:30"),  # Thanksgiving
        ("XNYS", "2025-11-28T18:00:00", "2025-12-01T14:30"),  # closed at 13:00: the half day lasts until the next open
        ("XNYS", "2025-12-31T21:00:00", "2026-01-02T14:30"),
        # Chicago's futures open at 17:00 of the evening before.
        ("CMES", "2025-03-06T22:59:59", "2025-03-06T23:00"),
        ("CMES", "2025-03-06T23:00:00", "2025-03-09T22:00"),  # the session of Friday 7, then that of Monday 10
        ("CMES", "2025-10-30T22:00:00", "2025-11-02T23:00"),
        ("CMES", "2025-12-23T23:00:00", "2025-12-25T23:00"),  # Christmas
        ("24/7", "2025-03-07T23:59:59", "2025-03-08T00:00"),
        ("24/7", "1969-12-31T12:00:00", "1970-01-01T00:00"),
    ],
)
def test_the_next_begin_is_the_exchanges_next_open(name: str, now: str, begin: str) -> None:
    assert next_begin(name, now) == begin


def test_the_day_of_24_7_begins_at_the_roll_over() -> None:
    calendar = round_the_clock(3600)
    assert calendar.next_begin_ns(at_ns("2025-03-07T00:59:59")) == at_ns("2025-03-07T01:00")
    assert calendar.next_begin_ns(at_ns("2025-03-07T01:00")) == at_ns("2025-03-08T01:00")


def test_beyond_what_is_known_sessions_are_days_from_the_last_and_the_first_begin() -> None:
    assert next_begin("XNYS", "2039-12-30T14:30") == "2039-12-31T14:30"  # a Saturday
    assert next_begin("XNYS", "2040-07-04T14:29:59") == "2040-07-04T14:30"
    assert next_begin("XNYS", "1989-06-01T14:30") == "1989-06-02T14:30"
    assert next_begin("XNYS", "1990-01-02T14:29:59") == "1990-01-02T14:30"


def test_only_24_7_is_known_for_ever() -> None:
    assert session_calendar("24/7").last_known_ns is None
    assert session_calendar("XNYS").last_known_ns == at_ns("2039-12-30T14:30")
    # The library knows holidays that are announced, and says so.
    last_ns = session_calendar("XSHG").last_known_ns
    assert last_ns is not None
    assert last_ns < at_ns("2039-12-01")


def test_an_alias_is_the_calendar_it_is_for() -> None:
    assert session_calendar("CME") is session_calendar("CMES")
    assert session_calendar("NYSE").name == "XNYS"


@pytest.mark.parametrize("name", ["", "CMEX", "xnys", "24/6"])
def test_an_unknown_name_says_what_is_known(name: str) -> None:
    with pytest.raises(CalendarInvalid) as caught:
        session_calendar(name)
    assert caught.value.name == name
    assert {"24/7", "XNYS", "CMES"} <= set(caught.value.why.removesuffix(", or an alias").replace(",", "").split())


def test_a_calendar_that_the_library_cannot_make_is_refused_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    import exchange_calendars  # noqa: PLC0415 - as the module under test does

    def fails(name: str) -> object:
        raise ValueError(f"no holidays for {name}")

    monkeypatch.setattr(exchange_calendars, "get_calendar", fails)
    with pytest.raises(CalendarInvalid, match=r"'XPAR': exchange_calendars .* cannot make it .*no holidays for XPAR"):
        session_calendar("XPAR")


def test_begins_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        session_calendar("XNYS").begins_ns[0] = 0


def test_calendars_that_begin_otherwise_have_another_hash() -> None:
    hashes = {session_calendar(name).sha256 for name in NAMES}
    assert len(hashes) == len(NAMES)
    assert session_calendar("XNAS").sha256 == session_calendar("XNYS").sha256  # the same days under another name


def slow_session(calendar: SessionCalendar, stamp_ns: int) -> int:
    known = calendar.begins_ns.tolist()
    number = bisect_right(known, stamp_ns) - 1
    if number < 0:
        begin_ns = known[0]
        while begin_ns > stamp_ns:
            begin_ns, number = begin_ns - DAY_NS, number - (begin_ns != known[0])
        return number
    begin_ns = known[number]
    while number >= len(known) - 1 and begin_ns + DAY_NS <= stamp_ns:
        begin_ns, number = begin_ns + DAY_NS, number + 1
    return number


# Around the ends of what is known, and anywhere; in seconds, so that begins are hit.
_ENDS_S = [at_ns(day) // 10**9 for day in ("1990-01-02T14:30", "2039-12-30T14:30", "2025-03-10T13:30")]
stamps_s = st.integers(at_ns("1985-01-01") // 10**9, at_ns("2044-01-01") // 10**9) | st.builds(
    lambda end_s, days, off_s: end_s + days * 86_400 + off_s,
    st.sampled_from(_ENDS_S),
    st.integers(-9, 9),
    st.integers(-1, 1),
)


@given(name=st.sampled_from(NAMES[1:]), stamps=st.lists(stamps_s, max_size=20))
def test_stamps_are_in_the_session_that_a_plain_search_finds(name: str, stamps: list[int]) -> None:
    calendar = session_calendar(name)
    stamps_ns = np.array(stamps, np.int64) * 10**9
    found = calendar.session_of(stamps_ns)
    assert found.dtype == np.int64
    assert found.tolist() == [slow_session(calendar, stamp_ns) for stamp_ns in stamps_ns.tolist()]


@given(name=st.sampled_from(NAMES), stamp_s=stamps_s)
def test_the_next_begin_is_the_first_stamp_of_the_next_session(name: str, stamp_s: int) -> None:
    calendar = session_calendar(name)
    begin_ns = calendar.next_begin_ns(stamp_s * 10**9)
    now, last, first = calendar.session_of(np.array([stamp_s * 10**9, begin_ns - 1, begin_ns])).tolist()
    assert begin_ns > stamp_s * 10**9
    assert (last, first) == (now, now + 1)


def test_the_session_of_24_7_is_the_day_since_the_epoch() -> None:
    stamps_ns = np.array([0, DAY_NS - 1, DAY_NS, -1, at_ns("2025-03-07T12:00")])
    assert session_calendar("24/7").session_of(stamps_ns).tolist() == [0, 0, 1, -1, 20_154]


def test_who_names_no_calendar_does_not_load_pandas() -> None:
    code = (
        "import sys; from tickgate_server.ticks.instruments import Instrument, Universe;"
        "assert Universe({'A': Instrument(symbol='A')}, closed=True).calendars[0].name == '24/7';"
        "assert not {'pandas', 'exchange_calendars'} & set(sys.modules);"
        "Instrument(symbol='B', calendar='24/5'); assert 'pandas' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, timeout=120)
