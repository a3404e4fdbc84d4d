"""Session calendars: when the day of an instrument begins, by whose clock its P&L is counted.

A session begins at its open and lasts until the next session's: what happens after a close, over a weekend or on a
holiday belongs to the session that ended. `24/7` begins every day at one time of day, UTC; every other name is one of
`exchange_calendars`, which knows exchanges' hours, time zones, holidays and late opens.

How far a calendar reaches does not depend on the day it is asked on: from 1990 to 2039, or as far as the library has
facts. So a replay sees next year what the server saw. Beyond both ends, sessions are days of 24 hours from the last
known begin (before the first one likewise): losses are neither kept for ever nor forgotten within the day.

`exchange_calendars` brings pandas, which takes half a second and 40 MB: it is imported only where a calendar is named.

The tree of errors:

    ValueError
    └── CalendarInvalid(name, why)
"""

import functools
import hashlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.kernels import kernel

ROUND_THE_CLOCK = "24/7"
FIRST_DAY, LAST_DAY = "1990-01-01", "2039-12-31"
"""What is asked of the library. Beyond what exchanges have announced these are its rules, going on."""
_SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * _SECOND_NS


class CalendarInvalid(ValueError):
    """A session calendar cannot be used. A ValueError, so that a field that names it is refused with these words.

    Attributes:
        name: As it was asked for.
        why: What was expected.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"session calendar {name!r}: {why}")
        self.name = name
        self.why = why


@dataclass(frozen=True, slots=True, eq=False)
class SessionCalendar:
    """When sessions begin.

    Attributes:
        name: `24/7`, or the library's own name, never an alias.
        begins_ns: int64 [known sessions]: their begins, ascending, at least one; beyond them every 24 hours.
    """

    name: str
    begins_ns: NDArray[np.int64]

    @property
    def last_known_ns(self) -> int | None:
        """The last begin that is known; None: all are."""
        return None if self.name == ROUND_THE_CLOCK else int(self.begins_ns[-1])

    @property
    def sha256(self) -> str:
        """Of the begins: calendars that say the same have the same."""
        return hashlib.sha256(self.begins_ns.tobytes()).hexdigest()

    def next_begin_ns(self, now_ns: int) -> int:
        """The first begin after a time, and so the end of the session that it is in."""
        return int(next_begin(self.begins_ns, now_ns))

    def session_of(self, stamps_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """The session of each stamp.

        Args:
            stamps_ns: int64 [n], in any order.

        Returns:
            int64 [n]: its number, one more with each session; 0 is the first known one, what is before is negative.
            Of `24/7` at midnight it is the day since the epoch.
        """
        begins_ns = self.begins_ns
        last = begins_ns.size - 1
        found = np.searchsorted(begins_ns, stamps_ns, side="right").astype(np.int64) - 1
        found = np.where(found == last, last + (stamps_ns - begins_ns[last]) // DAY_NS, found)
        return np.where(stamps_ns < begins_ns[0], (stamps_ns - begins_ns[0]) // DAY_NS, found)


@kernel(
    [
        types.int64(types.int64[::1], types.int64),
        types.int64(types.Array(types.int64, 1, "C", readonly=True), types.int64),
    ]
)
def next_begin(begins_ns: NDArray[np.int64], now_ns: int) -> int:
    """The first begin after a time; O(log sessions).

    Args:
        begins_ns: int64 [known sessions], ascending, at least one; beyond them every 24 hours.
        now_ns: The time; a begin at that very time has been.
    """
    low, high = 0, begins_ns.size - 1
    if now_ns < begins_ns[low] or now_ns >= begins_ns[high]:
        known_ns = int(begins_ns[low] if now_ns < begins_ns[low] else begins_ns[high])
        return known_ns + ((now_ns - known_ns) // DAY_NS + 1) * DAY_NS
    while high - low > 1:  # begins_ns[low] <= now_ns < begins_ns[high]
        middle = (low + high) // 2
        if begins_ns[middle] <= now_ns:
            low = middle
        else:
            high = middle
    return int(begins_ns[high])


def round_the_clock(rollover_utc_s: int = 0) -> SessionCalendar:
    """`24/7`: every day begins so many seconds after midnight UTC."""
    return _calendar(ROUND_THE_CLOCK, np.array([rollover_utc_s * _SECOND_NS], np.int64))


def session_calendar(name: str) -> SessionCalendar:
    """A calendar by its name or alias; `24/7` begins at midnight UTC.

    Raises:
        CalendarInvalid: There is none of that name, or the library cannot make it.
    """
    return round_the_clock() if name == ROUND_THE_CLOCK else _of_the_library(name)


@functools.cache
def _of_the_library(name: str) -> SessionCalendar:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library's use of pandas deprecates is no word to our users
        import exchange_calendars  # noqa: PLC0415 - see above

        canonical = exchange_calendars.aliases_to_names().get(name, name)
        known = exchange_calendars.get_calendar_names(include_aliases=False)
        if canonical not in known:
            raise CalendarInvalid(name, f"expected one of {', '.join(sorted(known))}, or an alias")
        if canonical != name:
            return _of_the_library(canonical)
        try:
            begins_ns = _begins_ns(name)
        # What pandas raises where a calendar's rules and this version of it do not fit: never passed on bare.
        except (ValueError, TypeError, NotImplementedError, exchange_calendars.errors.CalendarError) as error:
            version = exchange_calendars.__version__
            why = f"exchange_calendars {version} cannot make it here ({type(error).__name__}: {str(error)[:200]})"
            raise CalendarInvalid(name, why) from error
    if begins_ns.size == 0 or (np.diff(begins_ns) <= 0).any():
        raise CalendarInvalid(name, "expected sessions that begin one after the other")
    return _calendar(name, begins_ns)


def _begins_ns(name: str) -> NDArray[np.int64]:
    """Every open that the library can tell of."""
    import exchange_calendars  # noqa: PLC0415 - see above

    kind: Any = type(exchange_calendars.get_calendar(name))
    bounds = (kind.bound_min(), kind.bound_max())
    first, last = (None if bound is None else bound.strftime("%Y-%m-%d") for bound in bounds)
    found = kind(start=max(FIRST_DAY, first or FIRST_DAY), end=min(LAST_DAY, last or LAST_DAY))
    opens: NDArray[np.int64] = found.opens.to_numpy("datetime64[ns]").view(np.int64)  # in UTC
    return opens


def _calendar(name: str, begins_ns: NDArray[np.int64]) -> SessionCalendar:
    begins_ns = np.ascontiguousarray(begins_ns)
    begins_ns.setflags(write=False)
    return SessionCalendar(name, begins_ns)
