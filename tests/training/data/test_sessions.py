"""Stamps to sessions, against calendars known by heart."""

import warnings
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import exchange_calendars
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tickgate_training.data.sessions import session_numbers
from tickgate_training.errors import CalendarInvalid

NEW_YORK, CHICAGO = ZoneInfo("America/New_York"), ZoneInfo("America/Chicago")
DAY_NS = 86_400_000_000_000


def at(text: str, zone: ZoneInfo | None = None) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone or UTC).timestamp()) * 1_000_000_000


def stamps(zone: ZoneInfo, *texts: str) -> NDArray[np.int64]:
    return np.array([at(text, zone) for text in texts], np.int64)


def test_a_session_reaches_from_its_open_to_the_next() -> None:
    thanksgiving = stamps(
        NEW_YORK,
        "2024-11-27T09:29:59",  # still Tuesday's
        "2024-11-27T09:30:00",
        "2024-11-27T16:00:00",
        "2024-11-28T12:00:00",  # a holiday belongs to the session before
        "2024-11-29T09:30:00",
        "2024-11-29T13:00:00",  # closed early
        "2024-11-29T16:00:00",
        "2024-12-01T12:00:00",  # a Sunday
        "2024-12-02T09:30:00",
    )
    assert session_numbers(thanksgiving, "XNYS").tolist() == [0, 1, 1, 1, 2, 2, 2, 2, 3]


def test_a_session_may_open_on_the_evening_before() -> None:
    weekend = stamps(
        CHICAGO, "2024-08-09T12:00", "2024-08-11T16:59", "2024-08-11T17:00", "2024-08-12T16:59", "2024-08-12T17:00"
    )
    assert session_numbers(weekend, "CMES").tolist() == [0, 0, 1, 1, 2]


def test_days_of_an_open_market_turn_at_midnight_utc() -> None:
    found = session_numbers(np.array([5 * DAY_NS - 1, 5 * DAY_NS, 6 * DAY_NS - 1, 9 * DAY_NS], np.int64), "24/7")
    assert found.tolist() == [0, 1, 1, 5]


def test_sessions_without_a_stamp_count() -> None:
    assert session_numbers(stamps(NEW_YORK, "2001-09-10T10:00", "2001-09-17T10:00"), "XNYS").tolist() == [0, 1]
    assert session_numbers(stamps(NEW_YORK, "2001-09-17T10:00", "2001-09-21T10:00"), "XNYS").tolist() == [0, 4]


def test_calendars_reach_back_to_1990_and_numbers_are_counted_over_all_years() -> None:
    years = stamps(NEW_YORK, "1990-01-02T16:00", "1990-12-31T16:00", "2022-12-28T16:00")
    # 253 sessions in 1990; the panel of skfolio has 8,313 up to 28 December 2022.
    assert session_numbers(years, "XNYS").tolist() == [0, 252, 8312]


def test_no_stamps_have_no_sessions() -> None:
    for calendar in ("24/7", "XNYS"):
        assert session_numbers(np.zeros(0, np.int64), calendar).size == 0


BASE = at("2024-07-01T00:00")
moments = st.lists(st.integers(BASE, BASE + 40 * DAY_NS), min_size=1, max_size=30)


@cache
def opens(calendar: str) -> list[int]:
    if calendar == "24/7":
        return [BASE + k * DAY_NS for k in range(-5, 45)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        known = exchange_calendars.get_calendar(calendar, start="2024-05-01", end="2024-09-30")
    return [int(known.session_open(session).timestamp()) * 1_000_000_000 for session in known.sessions]


CALENDARS = st.sampled_from(["24/7", "XNYS", "CMES"])


@settings(max_examples=30, deadline=None)
@given(moments, CALENDARS)
def test_numbers_are_those_of_a_search_through_all_sessions(drawn: list[int], calendar: str) -> None:
    def slow(stamp: int) -> int:
        return next(k for k, (first, after) in enumerate(pairwise(opens(calendar))) if first <= stamp < after)

    expected = np.array([slow(stamp) for stamp in drawn])
    found = session_numbers(np.array(drawn, np.int64), calendar)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected - expected.min())


@settings(max_examples=30, deadline=None)
@given(moments, st.lists(st.integers(1, 30 * DAY_NS), max_size=5), CALENDARS)
def test_later_stamps_change_no_earlier_number(drawn: list[int], steps: list[int], calendar: str) -> None:
    later = [max(drawn) + step for step in steps]
    both = session_numbers(np.array(drawn + later, np.int64), calendar)
    np.testing.assert_array_equal(both[: len(drawn)], session_numbers(np.array(drawn, np.int64), calendar))


@pytest.mark.parametrize(
    ("calendar", "year", "why"),
    [("NOPE", 2024, "does not exist"), ("XSHG", 1985, "1991"), ("XKRX", 2055, "2050")],
)
def test_a_calendar_that_is_unknown_or_too_short_is_named(calendar: str, year: int, why: str) -> None:
    with pytest.raises(CalendarInvalid, match=why) as caught:
        session_numbers(np.array([at(f"{year}-06-03T12:00")], np.int64), calendar)
    assert caught.value.calendar == calendar


@pytest.mark.parametrize(
    "given_stamps", [np.array([1.0]), np.array([[1]]), np.array([5, 0]), np.array([-1]), np.array([1], np.int32)]
)
def test_what_are_no_stamps_is_refused(given_stamps: NDArray[np.int64]) -> None:
    with pytest.raises(ValueError, match="stamps_ns must be"):
        session_numbers(given_stamps, "24/7")
