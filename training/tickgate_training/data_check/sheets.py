"""The report's tables as plain cells, made of its document: for a terminal and for the page alike."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tickgate_training.report.sheets import Cell, Sheet, Tone
from tickgate_training.report.wording import UNDEFINED, count, number, plural

Document = Mapping[str, Any]
SYMBOLS_SHOWN = 20
_MEANINGS = {
    "INVALID_VALUE": "a number not finite or out of range, a symbol that is none, neither trade nor quote",
    "UNKNOWN_SYMBOL": "not among the instruments",
    "SYMBOL_TABLE_FULL": "no room for another symbol",
    "DUPLICATE": "a sequence among the symbol's last accepted ones",
    "OUT_OF_ORDER": "a stamp below the symbol's last",
    "FROM_FUTURE": "ahead of its arrival",
    "STALE": "behind its arrival",
    "CROSSED_QUOTE": "a bid above its ask",
    "PRICE_JUMP": "too far from the last trade, and not confirmed by the next",
}
_NOT_CHECKED = "not checked"
_FACTS = frozenset({0, 1})


def headline(document: Document) -> str:
    """What was found, in a line."""
    rows, accepted = document["rows"], document["accepted"]
    unreadable = document["unreadable"]["rows"]
    rejected = rows - accepted - unreadable
    said = f"{plural(rows, 'row')}: {count(accepted)} accepted, {count(rejected)} rejected"
    return f"{said}, {count(unreadable)} not readable."


def clean(document: Document) -> bool:
    """Whether the server would take every row."""
    return bool(document["rows"] == document["accepted"])


def facts(document: Document) -> Sheet:
    """The file and its clock."""
    told = [one for one in document["symbols"] if one["symbol"] is not None]
    first = min((one["first_ns"] for one in told if one["first_ns"]), default=None)
    last = max((one["last_ns"] for one in told if one["last_ns"]), default=None)
    lines = {
        "file": f"{document['source']} ({document['format']})",
        "symbols": count(len(told)),
        "accepted ticks": f"{count(document['trades'])} with a trade, {count(document['quotes'])} with a quote",
        "first tick": _moment(first),
        "last tick": _moment(last),
        "clock": clock(document),
        **{f"passed over: {what}": count(amount) for what, amount in document["passed_over"].items()},
    }
    return Sheet("The file", ("", ""), tuple((Cell(name), Cell(text)) for name, text in lines.items()), _FACTS)


def clock(document: Document) -> str:
    """What the clock rules were asked of."""
    found = document["clock"]
    if not found["checked"]:
        return "the file has no arrival stamps: FROM_FUTURE and STALE were not checked"
    delays = found["delay_ms"]
    said = f"{plural(found['timed_rows'], 'row')} with an arrival stamp"
    if found["offset_ms"]:
        said += f", moved by {number(found['offset_ms'])} ms as its clock ran behind the exchange's"
    least = " beyond the least" if found["offset_ms"] else ""
    return f"{said}; delay{least} {number(delays['p50'])} ms at the median, {number(delays['p99'])} ms at 99 %"


def reasons(document: Document) -> Sheet:
    """Rows by reason, in the order in which the rules are asked."""
    total = max(document["rows"], 1)
    rows: list[tuple[Cell, ...]] = [
        (Cell("accepted"), Cell(count(document["accepted"])), Cell(_share(document["accepted"], total)), Cell(""))
    ]
    for reason, found in document["reasons"].items():
        amount = Cell(_NOT_CHECKED, tone="faint") if not found["checked"] else _bad(found["rows"])
        share = _share(found["rows"], total) if found["checked"] else ""
        rows.append((Cell(reason), amount, Cell(share), Cell(_MEANINGS[reason], tone="faint")))
    unreadable = document["unreadable"]["rows"]
    rows.append(
        (Cell("not readable"), _bad(unreadable), Cell(_share(unreadable, total)), Cell("no tick at all", tone="faint"))
    )
    return Sheet("Rows by reason", ("reason", "rows", "share", "what it means"), tuple(rows), frozenset({0, 3}))


def examples(document: Document) -> Sheet | None:
    """Where the first rejected rows are; None where there is none."""
    rows = [
        (Cell(count(found["line"])), Cell(reason), Cell(found["symbol"]), Cell(found["why"]))
        for reason, of_reason in document["reasons"].items()
        for found in of_reason["examples"]
    ]
    rows += [
        (Cell(count(found["line"])), Cell("not readable"), Cell(""), Cell(found["why"]))
        for found in document["unreadable"]["first"]
    ]
    if not rows:
        return None
    return Sheet(
        "First rows of each reason", ("line", "reason", "symbol", "what is wrong"), tuple(rows), frozenset({1, 2, 3})
    )


def quality(document: Document) -> Sheet:
    """What else is to know of the ticks, in all."""
    return Sheet("Ticks", ("", ""), tuple((Cell(name), cell) for name, cell in _quality(document)), _FACTS)


def _quality(document: Document) -> list[tuple[str, Cell]]:
    jumps, zeros, again = document["jumps"], document["zero_size"], document["duplicates"]
    spread, steps, numbers = document["spread_bps"], document["out_of_order_ms"], document["sequence_gaps"]
    waiting = sum(one["jump_waits"] for one in document["symbols"])
    dropped = jumps["held_back"] - jumps["confirmed"] - waiting
    gap_s = document["session_gap_s"]
    silences = (
        f"{count(document['gaps_over_session_gap'])} over {gap_s:g} s" if gap_s else "not counted: no session gap"
    )
    return [
        ("silences", Cell(silences)),
        (
            "price jumps",
            Cell(
                f"{count(jumps['held_back'])} held back: {count(jumps['confirmed'])} confirmed by the next trade,"
                f" {count(dropped)} dropped, {count(waiting)} waiting at the end"
            ),
        ),
        ("spread, basis points", Cell(_spread(spread))),
        ("locked quotes", Cell(count(document["locked"]))),
        ("crossed quotes", _bad(document["crossed"])),
        ("of size zero", Cell(f"{plural(zeros['trades'], 'trade')}, {plural(zeros['quotes'], 'quote')}")),
        (
            "duplicates",
            Cell(f"{count(again['rows'])}, of these {count(again['latest_again'])} the latest tick word for word"),
        ),
        ("out of order", Cell(_steps(steps))),
        (
            "sequence",
            Cell(
                f"{plural(numbers['missing'], 'number')} missing; {count(numbers['skipped'])} skipped in"
                f" {plural(numbers['gaps'], 'place')}, {count(numbers['came_late'])} came late"
            ),
        ),
    ]


def _spread(spread: Mapping[str, Any]) -> str:
    if not spread["count"]:
        return "no quotes"
    return (
        f"median {number(spread['p50'])}, 90 % {number(spread['p90'])}, 99 % {number(spread['p99'])},"
        f" widest {number(spread['greatest'])}"
    )


def _steps(steps: Mapping[str, Any]) -> str:
    if not steps["count"]:
        return "none"
    return (
        f"{count(steps['count'])}, by {number(steps['p50'])} ms at the median, {number(steps['p99'])} ms at 99 %,"
        f" {number(steps['greatest'])} ms at most"
    )


def few(document: Document, limit: int) -> Sheet:
    """A line for each symbol with what fits a terminal."""
    whole = symbols(document, limit)
    chosen = [0, 1, 3, 6, 7, 8, 9, 11]
    rows = tuple(tuple(Cell(row[k].text, tone=row[k].tone) for k in chosen) for row in whole.rows)
    return Sheet(whole.title, tuple(whole.headings[k] for k in chosen), rows)


def symbols(document: Document, limit: int | None = None) -> Sheet:
    """A line for each symbol, most rows first."""
    listed = document["symbols"][:limit]
    headings = (
        "symbol", "rows", "accepted", "rejected", "first tick", "last tick", "longest silence", "gaps", "jumps",
        "spread, bps: median, 99 %", "locked", "numbers missing",
    )  # fmt: skip
    title = f"Symbols: {count(len(document['symbols']))}"
    return Sheet(title, headings, tuple(map(_symbol, listed)), frozenset({0, 4, 5}))


def _symbol(one: Mapping[str, Any]) -> tuple[Cell, ...]:
    silent_ns, spread = one["longest_silence_ns"], one["spread_bps"]
    return (
        Cell(_name(one)),
        Cell(count(one["rows"])),
        Cell(count(one["accepted"])),
        _bad(one["rows"] - one["accepted"]),
        Cell(_moment(one["first_ns"])),
        Cell(_moment(one["last_ns"])),
        Cell("" if silent_ns is None else _duration(silent_ns)),
        Cell(count(one["gaps_over_session_gap"])),
        Cell(count(one["jumps"]["held_back"])),
        Cell(f"{number(spread['p50'])}, {number(spread['p99'])}" if spread["count"] else ""),
        Cell(count(one["locked"])),
        Cell(count(one["sequence_gaps"]["missing"])),
    )


def reasons_of_symbols(document: Document, limit: int | None = None) -> Sheet | None:
    """Rejected rows of each symbol by reason; None where none was rejected."""
    listed = [one for one in document["symbols"] if one["reasons"]][:limit]
    found = [reason for reason in document["reasons"] if any(reason in one["reasons"] for one in listed)]
    rows = tuple((Cell(_name(one)), *(_some(one["reasons"].get(reason, 0)) for reason in found)) for one in listed)
    return Sheet("Rejected rows by symbol", ("symbol", *found), rows) if rows else None


def sessions(document: Document) -> Sheet | None:
    """Sessions of the symbols whose instrument names a calendar; None where none does."""
    rows = tuple(
        (
            Cell(one["symbol"]),
            Cell(found["calendar"]),
            Cell(count(found["with_ticks"])),
            _bad(found["without_ticks"]),
            Cell(count(found["gaps_within_sessions"])),
        )
        for one in document["symbols"]
        if (found := one["sessions"]) is not None
    )
    headings = ("symbol", "calendar", "sessions with ticks", "without", "gaps within sessions")
    return Sheet("Sessions", headings, rows, frozenset({0, 1})) if rows else None


def silences(document: Document) -> Sheet | None:
    """The longest silences; None where there is none."""
    rows = tuple(
        (
            Cell(one["symbol"]),
            Cell(_duration(one["end_ns"] - one["begin_ns"])),
            Cell(_moment(one["begin_ns"])),
            Cell(_moment(one["end_ns"])),
            Cell(count(one["line"])),
        )
        for one in document["longest_silences"]
    )
    headings = ("symbol", "silent for", "from", "to", "line")
    return Sheet("Longest silences", headings, rows, frozenset({0, 2, 3})) if rows else None


def jumps(document: Document) -> Sheet | None:
    """The largest price jumps; None where there is none."""
    rows = tuple(
        (
            Cell(one["symbol"]),
            Cell(f"{100.0 * one['log_return']:+.3f} %"),
            Cell("confirmed" if one["confirmed"] else "not confirmed"),
            Cell(_moment(one["stamp_ns"])),
            Cell(count(one["line"])),
        )
        for one in document["largest_jumps"]
    )
    headings = ("symbol", "log return", "by the next trade", "at", "line")
    return Sheet("Largest price jumps", headings, rows, frozenset({0, 2, 3})) if rows else None


def number_gaps(document: Document) -> Sheet | None:
    """The largest gaps of the feed's numbers; None where there is none."""
    rows = tuple(
        (Cell(one["symbol"]), Cell(count(one["missing"])), Cell(str(one["sequence"])), Cell(count(one["line"])))
        for one in document["largest_sequence_gaps"]
    )
    headings = ("symbol", "numbers skipped", "before number", "line")
    return Sheet("Largest sequence gaps", headings, rows) if rows else None


def _name(one: Mapping[str, Any]) -> str:
    return "(others, and no symbols)" if one["symbol"] is None else str(one["symbol"])


def _some(amount: int) -> Cell:
    return Cell(count(amount)) if amount else Cell("")


def _bad(amount: int) -> Cell:
    tone: Tone = "bad" if amount else ""
    return Cell(count(amount), tone=tone)


def _share(amount: int, total: int) -> str:
    if not amount:
        return ""
    return f"{100.0 * amount / total:.3g} %" if amount >= total / 1e4 else "< 0.01 %"


def _moment(stamp_ns: int | None) -> str:
    if stamp_ns is None:
        return UNDEFINED
    moment = datetime.fromtimestamp(stamp_ns // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{stamp_ns // 1_000_000 % 1000:03d}"


def _duration(silent_ns: int) -> str:
    seconds = silent_ns / 1e9
    if seconds < 1.0:
        return f"{1e3 * seconds:.3g} ms"
    if seconds < 120.0:
        return f"{seconds:.3g} s"
    minutes = seconds / 60.0
    return f"{minutes:.3g} min" if minutes < 120.0 else f"{minutes / 60.0:,.1f} h"
