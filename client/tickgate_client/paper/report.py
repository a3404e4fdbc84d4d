"""What a paper run came to: figures once, then as tables, JSON or a page.

P&L is from nothing held: cash plus what is held at the last trade's price. Net is that; gross is net plus fees plus
slippage, the money that fills cost against the middle of the quote, or the last price, when each order was asked for.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tickgate_client.execution.account import Account
from tickgate_client.paper.run import PaperResult
from tickgate_client.sla.judgement import judge_record

_PERCENTILES = ("p50_us", "p90_us", "p99_us", "p999_us", "max_us")
_MONEY = ("gross", "slippage", "fees", "net")


@dataclass(frozen=True, slots=True)
class SymbolResult:
    """One symbol; money in its currency.

    Attributes:
        symbol: Its name.
        position: Signed units at the end.
        price: That it is valued at: the last trade's.
        fills: How many.
        bought: Units.
        sold: Units.
        fees: Money.
        slippage: Money, against arrival prices.
        slippage_bps: The same of the money traded at them; NaN where nothing was.
        net: P&L.
        gross: P&L without fees and slippage.
    """

    symbol: str
    position: float
    price: float
    fills: int
    bought: float
    sold: float
    fees: float
    slippage: float
    slippage_bps: float
    net: float
    gross: float


def symbols_of(account: Account, prices: dict[str, float]) -> list[SymbolResult]:
    """The figures of each symbol, in alphabetical order."""
    found = []
    for symbol, held in account:
        price = prices.get(symbol, math.nan)
        net = account.equity(symbol, price) if held.position else held.cash
        found.append(
            SymbolResult(
                symbol=symbol,
                position=held.position,
                price=price,
                fills=held.fills,
                bought=held.bought,
                sold=held.sold,
                fees=held.fees,
                slippage=held.slippage,
                slippage_bps=held.slippage / held.arrived * 1e4 if held.arrived else math.nan,
                net=net,
                gross=net + held.fees + held.slippage,
            )
        )
    return found


def document_of(result: PaperResult) -> dict[str, Any]:
    """The report as JSON has it; a number that is not known is null."""
    progress, latency = result.progress, result.sla.run.latency()
    return {
        "run": progress.run,
        "starts": progress.starts,
        "ticks": progress.asked,
        "last_exchange_ts_ns": progress.last_ns,
        "statuses": dict(progress.statuses),
        "reasons": dict(progress.reasons),
        "refusals": dict(progress.refusals),
        "orders": dict(progress.ends),
        "reports_refused": result.refused_reports,
        "positions_agree": result.reconciliation.agrees,
        "differences": [
            {"symbol": row.symbol, "server": row.server, "recorded": row.recorded, "venue": row.venue}
            for row in result.reconciliation.differences
        ],
        "symbols": [
            {name: _plain(getattr(row, name)) for name in SymbolResult.__slots__}
            for row in symbols_of(result.account, progress.prices)
        ],
        "sla": {
            part: {
                "count": times.count,
                **{name: _plain(getattr(times, name)) for name in _PERCENTILES},
            }
            for part, times in (("round_trip", latency.round_trip), ("server", latency.server))
        },
        "objectives": [
            {
                "name": one.objective.name,
                "target": one.objective.target,
                "limit_us": one.objective.limit_us,
                "good_share": _plain(one.good_share),
                "met": one.met,
                "breaches": result.sla.breaches.get(one.objective.name, 0),
            }
            for one in judge_record(result.sla)
            if one.period == "run"
        ],
    }


@dataclass(frozen=True, slots=True)
class _Sheet:
    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def _sheets(document: dict[str, Any]) -> list[_Sheet]:
    symbols = document["symbols"]
    total = {name: sum(row[name] or 0.0 for row in symbols) for name in _MONEY}
    money = [
        (row["symbol"], _number(row["slippage_bps"], ".3f"), *(_number(row[name], ",.4f") for name in _MONEY))
        for row in symbols
    ]
    if len(symbols) > 1:
        money.append(("all, in one currency", "", *(_number(total[name], ",.4f") for name in _MONEY)))
    traded = [
        (row["symbol"], f"{row['fills']:,}", *(f"{row[name]:.8g}" for name in ("bought", "sold", "position")))
        for row in symbols
    ]
    latency = [
        (
            part.replace("_", " "),
            *(_number(times[name], ",.0f") for name in ("p50_us", "p90_us", "p99_us", "p999_us", "max_us")),
            f"{times['count']:,}",
        )
        for part, times in document["sla"].items()
    ]
    promises = [
        (
            one["name"],
            f"{100 * one['target']:g} % in {one['limit_us']:,.0f} µs",
            "-" if one["good_share"] is None else f"{100 * one['good_share']:.4f} %",
            f"{one['breaches']:,}",
            "met" if one["met"] else "MISSED",
        )
        for one in document["objectives"]
    ]
    differing = [
        (row["symbol"], *(f"{row[name]:.10g}" for name in ("server", "recorded", "venue")))
        for row in document["differences"]
    ]
    sheets = [
        _Sheet("Profit and loss", ("symbol", "slippage, bps", "gross", "slippage", "fees", "P&L net"), money),
        _Sheet("Fills", ("symbol", "fills", "bought", "sold", "position"), traded),
        _Sheet("Orders", ("became", "count"), _counted(document["orders"])),
        _Sheet("Signals", ("the server's reason", "count"), _counted(document["reasons"])),
        _Sheet("Approved and not executed", ("why", "count"), _counted(document["refusals"])),
        _Sheet("Calls", ("status", "count"), _counted(document["statuses"])),
        _Sheet("Latency since the last start, µs", ("", "p50", "p90", "p99", "p99.9", "max", "count"), latency),
        _Sheet("Objectives", ("objective", "promise", "good", "breaches", ""), promises),
        _Sheet("Positions that differ", ("symbol", "server", "recorded", "venue"), differing),
    ]
    return [sheet for sheet in sheets if sheet.rows]


def headline(document: dict[str, Any]) -> str:
    """The run in a line."""
    agree = "positions agree" if document["positions_agree"] else "POSITIONS DIFFER OR ARE UNKNOWN"
    starts = f", {document['starts']} starts" if document["starts"] > 1 else ""
    return f"Paper run {document['run']}: {document['ticks']:,} ticks{starts}; {agree}"


def show(console: Console, document: dict[str, Any]) -> None:
    """The report as tables."""
    console.print(Text(headline(document)))
    for sheet in _sheets(document):
        table = Table(title=sheet.title)
        for at, heading in enumerate(sheet.headings):
            table.add_column(heading, justify="left" if at == 0 else "right")
        for row in sheet.rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)


def page(document: dict[str, Any]) -> str:
    """The report as one HTML page without scripts."""
    parts = [_HEAD, f"<h1>{escape(headline(document))}</h1>"]
    for sheet in _sheets(document):
        head = "".join(f"<th>{escape(heading)}</th>" for heading in sheet.headings)
        rows = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in sheet.rows)
        parts.append(f"<h2>{escape(sheet.title)}</h2><table><tr>{head}</tr>{''.join(rows)}</table>")
    return "\n".join([*parts, "</body></html>\n"])


def write(folder: Path, document: dict[str, Any]) -> None:
    """Write `report.json` and `report.html`; raises OSError."""
    (folder / "report.json").write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page(document), encoding="utf-8")


def _counted(counts: dict[str, int]) -> list[tuple[str, str]]:
    return [(name, f"{count:,}") for name, count in Counter(counts).most_common()]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Paper run</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c1c1c; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
</style></head><body>"""
