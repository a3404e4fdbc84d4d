"""Trading sessions: what walk-forward windows are counted in.

Session k of a calendar reaches from its open up to the next session's open, so that sessions tile time and every stamp
has one: what trades after a close, in the evening, over a weekend or a holiday belongs to the session before. A daily
close stamped at or after the close (16:00 in New York on a day that ended at 13:00) belongs to its own day. No stamp
needs a session after it to be numbered. The one consequence to know: trades before the open belong to yesterday.

`24/7` counts days in UTC. Other names are those of `exchange_calendars` (XNYS, CMES, XLON, ...).
"""

import warnings
from datetime import UTC, datetime, timedelta

import exchange_calendars
import numpy as np
from exchange_calendars.errors import CalendarError
from numpy.typing import NDArray

from tickgate_training.errors import CalendarInvalid

ALWAYS_OPEN = "24/7"
_NS_PER_DAY = 86_400_000_000_000
_NS_PER_S = 1_000_000_000
# Longer than any exchange of the library has been closed since 1990 (Athens in 2015: five weeks).
_DAYS_BEFORE = timedelta(days=60)
# A session may open on the evening before its day, on Sunday for Monday.
_DAYS_AFTER = timedelta(days=3)


def session_numbers(stamps_ns: NDArray[np.int64], calendar: str) -> NDArray[np.int64]:
    """The session of each stamp, counted from the earliest stamp's.

    Sessions of the calendar without a stamp count too: a hole in the data is a jump of the numbers. Later stamps change
    no earlier number.

    Args:
        stamps_ns: Nanoseconds since the epoch, int64 [n], in any order: those of several symbols are numbered alike if
            they are given at once.
        calendar: `24/7`, or a name of `exchange_calendars`.

    Returns:
        int64 [n], 0 for the earliest stamp; it ascends with the stamps.

    Raises:
        CalendarInvalid: There is no such calendar, or its record does not reach over the stamps and two months before.
        ValueError: A stamp is not above 0, or the array is not int64 [n].
    """
    if stamps_ns.dtype != np.int64 or stamps_ns.ndim != 1:
        raise ValueError(f"stamps_ns must be int64 [n], got {stamps_ns.dtype} {list(stamps_ns.shape)}")
    if stamps_ns.size == 0:
        return np.zeros(0, np.int64)
    if stamps_ns.min() <= 0:
        raise ValueError(f"stamps_ns must be above 0, got {stamps_ns.min()} in row {stamps_ns.argmin()}")
    if calendar == ALWAYS_OPEN:
        numbers = stamps_ns // _NS_PER_DAY
    else:
        opens_ns = _opens_ns(calendar, int(stamps_ns.min()), int(stamps_ns.max()))
        numbers = np.searchsorted(opens_ns, stamps_ns, side="right")
        if numbers.min() == 0:
            raise CalendarInvalid(calendar, f"its first session opens after the earliest stamp, {stamps_ns.min()}")
    return np.asarray(numbers - numbers.min(), np.int64)


def _opens_ns(calendar: str, first_ns: int, last_ns: int) -> NDArray[np.int64]:
    """Opens of the sessions around a span of time, int64, ascending."""
    start, end = _day(first_ns) - _DAYS_BEFORE, _day(last_ns) + _DAYS_AFTER
    try:
        with warnings.catch_warnings():
            # The library uses what pandas 3.1 will drop; nothing that a caller could change.
            warnings.simplefilter("ignore", DeprecationWarning)
            opens = exchange_calendars.get_calendar(calendar, start=f"{start:%F}", end=f"{end:%F}").opens
    except (CalendarError, ValueError) as error:
        raise CalendarInvalid(calendar, f"has no sessions for {start:%F} to {end:%F} ({error})") from error
    return np.asarray(opens.dt.as_unit("ns").astype("int64").to_numpy())


def _day(stamp_ns: int) -> datetime:
    return datetime.fromtimestamp(stamp_ns // _NS_PER_S, UTC)
