"""A file checked from its first row to its last."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tickgate_server.features.schema import TICK_SESSION_GAP_NS
from tickgate_server.ticks.calendars import ROUND_THE_CLOCK, session_calendar
from tickgate_server.ticks.instruments import Universe
from tickgate_training.data.rule_loop import Limits
from tickgate_training.data_check.bars import DailyBars
from tickgate_training.data_check.canonical import CanonicalFile
from tickgate_training.data_check.capture import CaptureFile
from tickgate_training.data_check.document import document
from tickgate_training.data_check.recording import Recording
from tickgate_training.data_check.screening import Screening
from tickgate_training.data_check.tally import Tally

FORMATS: dict[str, Callable[[str], Recording]] = {
    "csv": lambda source: CanonicalFile(Path(source)),
    "binance": lambda source: CaptureFile(Path(source)),
    "daily": DailyBars,
}
DAILY = "daily"
CAPACITY = 4096


@dataclass(frozen=True, slots=True)
class Terms:
    """What a file is held to; the server's defaults.

    Attributes:
        universe: The instruments, with their calendars, and whether others are let in.
        capacity: Most symbols.
        limits: Of the rules.
        session_gap_ns: Silence that counts as a gap; None: 5 minutes, and none for daily bars. 0: none.
        offset_ns: What arrival stamps are moved by; None: see `screening`.
    """

    universe: Universe = field(default_factory=lambda: Universe({}, closed=False))
    capacity: int = CAPACITY
    limits: Limits = field(default_factory=Limits)
    session_gap_ns: int | None = None
    offset_ns: int | None = None


def check(source: str, kind: str, terms: Terms | None = None) -> dict[str, Any]:
    """The report's document of one file; see `document`.

    Args:
        source: A path; of `daily` the name of a set.
        kind: One of `FORMATS`.
        terms: What it is held to.

    Raises:
        SourceUnreadable: It is absent, is not of this format, or cannot be read to its end.
    """
    terms = terms or Terms()
    gap_ns = terms.session_gap_ns
    if gap_ns is None:
        gap_ns = 0 if kind == DAILY else TICK_SESSION_GAP_NS
    calendars = {
        symbol: session_calendar(instrument.calendar)
        for symbol, instrument in terms.universe.instruments.items()
        if instrument.calendar != ROUND_THE_CLOCK
    }
    recording = FORMATS[kind](source)
    screening = Screening(terms.universe, terms.capacity, terms.limits, terms.offset_ns)
    tally = Tally(terms.capacity, gap_ns, calendars)
    for piece in recording.pieces():
        tally.take(screening.judge(piece))
    return document(recording, kind, screening, tally, gap_ns)
