"""The report as plain numbers, for JSON and for what shows it; times in nanoseconds, absent numbers null."""

import math
from typing import Any

import numpy as np

from tickgate_training.data_check import tally as columns
from tickgate_training.data_check.recording import Recording
from tickgate_training.data_check.screening import CLOCK_REASONS, Reason, Screening
from tickgate_training.data_check.sketch import RELATIVE_ERROR, Sketch
from tickgate_training.data_check.tally import OfSymbol, Tally

_FIRST = len(Reason)
_SHARES = {"p01": 0.01, "p50": 0.5, "p90": 0.9, "p99": 0.99}
FORMAT_VERSION = 1


def document(
    recording: Recording, kind: str, screening: Screening, tally: Tally, session_gap_ns: int
) -> dict[str, Any]:
    """All that was found, once every piece was taken."""
    total = tally.counts.sum(axis=0)
    checked = tally.timed > 0
    return {
        "format_version": FORMAT_VERSION,
        "source": recording.source,
        "format": kind,
        "rows": int(total[:_FIRST].sum()) + tally.bad_rows,
        "unreadable": {"rows": tally.bad_rows, "first": [{"line": row.line, "why": row.why} for row in tally.bad]},
        "passed_over": dict(recording.passed_over),
        "clock": {
            "checked": checked,
            "timed_rows": tally.timed,
            "offset_ms": None if screening.offset_ns is None else screening.offset_ns / 1e6,
            "delay_ms": _quantiles(tally.delays),
        },
        "reasons": {
            reason.name: {
                "rows": _rejected(total, reason),
                "checked": checked or reason not in CLOCK_REASONS,
                "examples": [
                    {"line": found.line, "symbol": found.symbol, "why": found.why} for found in tally.examples[reason]
                ],
            }
            for reason in Reason
            if reason
        },
        **_measures(total, tally.steps, tally.spreads),
        "session_gap_s": session_gap_ns / 1e9,
        "quantile_error": RELATIVE_ERROR,
        "longest_silences": [
            {"line": one.line, "symbol": one.symbol, "begin_ns": one.begin_ns, "end_ns": one.end_ns}
            for one in tally.silences.items()
        ],
        "largest_jumps": [
            {
                "line": one.line,
                "symbol": one.symbol,
                "stamp_ns": one.stamp_ns,
                "log_return": one.log_return,
                "confirmed": one.confirmed,
            }
            for one in tally.jumps.items()
        ],
        "largest_sequence_gaps": [
            {"line": one.line, "symbol": one.symbol, "sequence": one.sequence, "missing": one.missing}
            for one in tally.skips.items()
        ],
        "symbols": _symbols(screening, tally),
        "over_time": {
            "begin_ns": tally.over_time.begin_ns,
            "width_ns": tally.over_time.width_ns,
            "accepted": tally.over_time.used()[0].tolist(),
            "rejected": tally.over_time.used()[1].tolist(),
        },
    }


def _symbols(screening: Screening, tally: Tally) -> list[dict[str, Any]]:
    """A symbol each, most rows first; what is counted together last."""
    found = []
    for place, name in enumerate(tally.names):
        counts, kept = tally.counts[place], tally.of_symbol[place]
        rows = int(counts[:_FIRST].sum())
        if not rows:
            continue
        reasons = {reason.name: _rejected(counts, reason) for reason in Reason if reason}
        found.append(
            {
                "symbol": name or None,
                "rows": rows,
                "first_ns": kept.first_ns or None,
                "last_ns": kept.last_ns or None,
                "longest_silence_ns": None if kept.longest_ns < 0 else kept.longest_ns,
                "reasons": {reason: amount for reason, amount in reasons.items() if amount},
                "jump_waits": bool(name) and screening.waits(name),
                **_measures(counts, kept.steps, kept.spreads),
                "sessions": _sessions(kept),
            }
        )
    return sorted(found, key=lambda one: (one["symbol"] is None, -one["rows"], one["symbol"]))


def _rejected(counts: np.ndarray[Any, np.dtype[np.int64]], reason: Reason) -> int:
    """Rows that a reason kept out for good: a trade held back and confirmed was let in."""
    confirmed = counts[_FIRST + columns.CONFIRMATIONS] if reason == Reason.PRICE_JUMP else 0
    return int(counts[reason] - confirmed)


def _measures(counts: np.ndarray[Any, np.dtype[np.int64]], steps: Sketch, spreads: Sketch) -> dict[str, Any]:
    def of(column: int) -> int:
        return int(counts[_FIRST + column])

    return {
        "accepted": int(counts[Reason.ACCEPTED]) + of(columns.CONFIRMATIONS),
        "trades": of(columns.TRADES) + of(columns.CONFIRMATIONS),
        "quotes": of(columns.QUOTES),
        "gaps_over_session_gap": of(columns.GAPS),
        "jumps": {"held_back": int(counts[Reason.PRICE_JUMP]), "confirmed": of(columns.CONFIRMATIONS)},
        "spread_bps": _quantiles(spreads),
        "locked": of(columns.LOCKED),
        "crossed": int(counts[Reason.CROSSED_QUOTE]),
        "zero_size": {"trades": of(columns.NO_TRADE_SIZE), "quotes": of(columns.NO_QUOTE_SIZE)},
        "duplicates": {"rows": int(counts[Reason.DUPLICATE]), "latest_again": of(columns.AGAIN)},
        "out_of_order_ms": _quantiles(steps),
        "sequence_gaps": {
            "gaps": of(columns.SKIPS),
            "skipped": of(columns.SKIPPED_NUMBERS),
            "came_late": of(columns.CAME_LATE),
            "missing": max(of(columns.SKIPPED_NUMBERS) - of(columns.CAME_LATE), 0),
        },
    }


def _quantiles(sketch: Sketch) -> dict[str, float | int | None]:
    found: dict[str, float | int | None] = {"count": sketch.total, "least": _plain(sketch.least)}
    found |= {name: _plain(sketch.quantile(share)) for name, share in _SHARES.items()}
    return found | {"greatest": _plain(sketch.greatest)}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _sessions(kept: OfSymbol) -> dict[str, Any] | None:
    sessions = kept.sessions
    if sessions is None:
        return None
    spanned = sessions.last - sessions.first + 1 if sessions.seen else 0
    return {
        "calendar": sessions.calendar.name,
        "with_ticks": sessions.seen,
        "without_ticks": spanned - sessions.seen,
        "gaps_within_sessions": sessions.silences,
    }
