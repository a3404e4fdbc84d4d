"""A record for people: tables on the terminal, and one HTML page with the same tables and the percentile plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tickgate_client.latency import Percentiles
from tickgate_client.sla.judgement import Judgement
from tickgate_client.sla.plot import Plot, svg, time_text
from tickgate_client.sla.record import DEADLINE_EXCEEDED, STATUS_NAMES, SlaRecord


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table.

    Attributes:
        title: Of the table.
        headings: Of its columns.
        rows: Cells as text.
    """

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


def sheets(record: SlaRecord, judged: Sequence[Judgement]) -> list[Sheet]:
    """The tables: objectives against what was, percentiles, and how calls ended."""
    return [_objectives(record, judged), _percentiles(record), _endings(record)]


def headline(record: SlaRecord) -> str:
    """When, how calls were made, and what the numbers lack, in a line."""
    written = datetime.fromtimestamp(record.written_unix_ns / 1e9, UTC)
    parts = [f"written {written:%Y-%m-%d %H:%M:%S} UTC"]
    if record.load:
        parts.append(record.load)
    if record.expected_interval_us is None:
        parts.append("no fixed rate: calls that stalls kept from being made are not counted")
    else:
        parts.append(f"corrected for coordinated omission at one call in {time_text(record.expected_interval_us)}")
    if record.dropped:
        parts.append(f"{record.dropped:,} samples were dropped")
    if record.abandoned:
        parts.append(f"{record.abandoned:,} calls were abandoned")
    if record.in_breach:
        parts.append(f"in breach: {', '.join(record.in_breach)}")
    return "; ".join(parts)


def show(console: Console, record: SlaRecord, judged: Sequence[Judgement]) -> None:
    """On the terminal."""
    # As Text: a name from elsewhere may look like rich's markup.
    console.print(Text(headline(record)))
    for sheet in sheets(record, judged):
        table = Table(title=sheet.title)
        for at, heading in enumerate(sheet.headings):
            table.add_column(heading, justify="left" if at < 2 else "right")
        for row in sheet.rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)


def page(record: SlaRecord, judged: Sequence[Judgement], plot: Plot) -> str:
    """The HTML page: complete in itself, without scripts."""
    parts = [_HEAD, "<h1>SLA report</h1>", f"<p>{escape(headline(record))}</p>"]
    plain = sheets(record, judged)
    parts += [_table(plain[0]), "<h2>Latency by percentile, whole run</h2>", svg(plot)]
    parts += [_table(sheet) for sheet in plain[1:]]
    return "\n".join([*parts, "</body></html>", ""])


def _objectives(record: SlaRecord, judged: Sequence[Judgement]) -> Sheet:
    rows: list[tuple[str, ...]] = []
    for one in judged:
        objective = one.objective
        verdict = "met" if one.met else "MISSED" if one.calls else "no calls"
        rows.append(
            (
                objective.name,
                one.period,
                f"{100 * objective.target:.6g} % in {time_text(objective.limit_us)}",
                time_text(one.at_target_us),
                "-" if math.isnan(one.good_share) else f"{100 * one.good_share:.4f} %",
                f"{one.calls:,}",
                f"{one.bad:,}",
                "-" if math.isnan(one.burn_rate) else f"{one.burn_rate:.2f}",
                verdict,
            )
        )
    breaches = ", ".join(f"{name} {count:,}" for name, count in record.breaches.items())
    title = f"Objectives (breaches: {breaches})" if breaches else "Objectives"
    headings = ("objective", "period", "promise", "at target", "good", "calls", "bad", "burn rate", "")
    return Sheet(title, headings, rows)


def _percentiles(record: SlaRecord) -> Sheet:
    rows = []
    for period in record.periods:
        found = period.calls.latency()
        for part, times in (("round trip", found.round_trip), ("server", found.server), ("network", found.network)):
            rows.append((period.name, part, *_times(times), f"{times.count:,}"))
    return Sheet("Latency", ("period", "part", "p50", "p90", "p99", "p99.9", "max", "count"), rows)


def _endings(record: SlaRecord) -> Sheet:
    rows = []
    for period in record.periods:
        statuses = period.calls.by_status
        failed = [status for status in sorted(statuses) if status]
        names = ", ".join(f"{STATUS_NAMES[status]} {statuses[status]:,}" for status in failed)
        errors = sum(statuses[status] for status in failed)
        missed = statuses[DEADLINE_EXCEEDED]
        counts = (statuses[0], errors, missed, period.calls.omitted)
        rows.append((period.name, names or "-", *(f"{count:,}" for count in counts)))
    headings = ("period", "not OK", "OK", "errors", "of them deadline misses", "not made, in stalls")
    return Sheet("How calls ended", headings, rows)


def _times(times: Percentiles) -> tuple[str, ...]:
    values = (times.p50_us, times.p90_us, times.p99_us, times.p999_us, times.max_us)
    return tuple(time_text(value_us) for value_us in values)


def _table(sheet: Sheet) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in sheet.headings)
    body = "\n".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in sheet.rows)
    return f"<h2>{escape(sheet.title)}</h2>\n<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _cell(cell: str) -> str:
    mark = {"MISSED": ' class="missed"', "met": ' class="met"'}.get(cell, "")
    return f"<td{mark}>{escape(cell)}</td>"


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>SLA report</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c1c1c; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
td.missed { color: #b3261e; font-weight: 600; } td.met { color: #33691e; }
svg { width: 100%; height: auto; }
</style></head><body>"""
