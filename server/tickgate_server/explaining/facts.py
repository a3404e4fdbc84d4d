"""An explanation as named texts, for the terminal and for the page: one wording for both."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime

from tickgate_server.explaining.explanation import Explanation
from tickgate_server.models.package import Manifest

_STAGES = ("waiting", "features", "inference", "risk")


def number(value: float | None) -> str:
    """A number for people; `-` where there is none, `not known` for NaN, `unlimited` for an infinite limit."""
    if value is None:
        return "-"
    if math.isnan(value):
        return "not known"
    if math.isinf(value):
        return "unlimited"
    if value == round(value) and abs(value) < 1e15:
        return f"{round(value):,}"
    return f"{value:,.6g}"


def instant(nanoseconds: int | None) -> str:
    """A time in UTC, to the nanosecond."""
    if not nanoseconds:
        return "-"
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:09d} UTC"


def outcome(found: Explanation) -> Iterator[tuple[str, str]]:
    """What was answered."""
    row = found.decision
    yield "request id", row["request_id"]
    yield "record", f"{row['sequence']} of {row['worker'] or 'the journal'}"
    yield "decided", instant(row["clock_ns"]) if row["clock_ns"] else f"{row['time'].isoformat(' ')} UTC, by the ticks"
    unsent = row["status"] != row["journaled_status"]
    late = f" (journaled as {row['journaled_status']}, and not sent as that)" if unsent else ""
    yield "status", f"{row['status']}{late}, came to {row['stage']}"
    if row["action"]:
        order = f" {number(row['order_size'])} at {number(row['limit_price'])} or better" if row["order_size"] else ""
        yield "signal", f"{row['action']}{order}"
        yield "reason", row["reason"] or "-"
        yield "target position", number(row["target"])
    if row["repeated"]:
        yield "repeated", "its id was answered before: this is that answer again, or why it is not"
    if found.repeats:
        yield "answered again", f"{found.repeats} times under the same id"


def given(found: Explanation) -> Iterator[tuple[str, str]]:
    """What the request gave."""
    row = found.decision
    yield "symbol", row["symbol"] or "-"
    yield "input", row["input"] or "could not be decoded"
    yield "exchange time", instant(row["exchange_ts_ns"])
    if row["tick_sequence"] is not None:
        yield "sequence", str(row["tick_sequence"])
    if row["price"] is not None:
        yield "trade", f"{number(row['size'])} at {number(row['price'])}"
    if row["bid"] is not None:
        bid, ask = (
            f"{number(row['bid_size'])} at {number(row['bid'])}",
            f"{number(row['ask_size'])} at {number(row['ask'])}",
        )
        yield "quote", f"bid {bid}, ask {ask}"
    if row["reference_price"] is not None:
        yield "reference price", number(row["reference_price"])
    yield "applied", "yes" if row["applied"] else "no: it changed no state"
    yield "trades in window", number(row["trades_in_window"])


def prediction(found: Explanation) -> Iterator[tuple[str, str]]:
    """What the model said, and which it was."""
    row = found.decision
    yield "model", f"{row['model']}:{row['model_version']}" if row["model"] else "none was found"
    yield "asked for", row["model_asked"] or "the default model"
    if row["model_sha256"]:
        yield "sha256", row["model_sha256"]
    if row["schema_id"]:
        yield "feature schema", row["schema_id"]
    if row["scored"]:
        yield "P(up) - P(down)", number(row["value"])
        yield "confidence", number(row["confidence"])
    else:
        yield "prediction", "none: the features were not ready" if not row["ready"] else "none"
    if found.manifest is not None:
        yield from _of_manifest(found.manifest)


def _of_manifest(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield "created", f"{manifest.created:%Y-%m-%d %H:%M} UTC"
    yield "horizon", f"{manifest.output.horizon_trades} trades"
    yield "decision threshold", number(manifest.decision_threshold)


def timings(found: Explanation) -> list[tuple[str, float]]:
    """Stage and microseconds, those that the request came to; the last is what is left of the total."""
    row = found.decision
    stages = [(name, row[f"{name}_ns"] / 1e3) for name in _STAGES if row[f"{name}_ns"]]
    if row["total_ns"]:
        stages.append(("between and encoding", max(0.0, row["total_ns"] / 1e3 - sum(us for _, us in stages))))
    return stages


def method(found: Explanation) -> str:
    """What the contributions are, in a sentence; empty without them."""
    if found.contributions is None:
        return ""
    of, log_odds = found.contributions.attribution, found.contributions.log_odds
    units = "log-odds before calibration" if log_odds else "units of the trees' sum"
    return (
        f"Contributions are exact Shapley values (interventional TreeSHAP, Lundberg et al. 2020) against the"
        f" {of.background} golden rows of the package, in {units}: they add up to {number(of.margin)} (this vector)"
        f" less {number(of.base)} (the mean of those rows)."
    )


def percent(share: float | None, *, outside: bool = False) -> str:
    """A percentile of the training rows."""
    if share is None:
        return "-"
    if math.isnan(share):
        return "not known"
    if outside:
        return "below all" if share == 0.0 else "above all"
    return f"{100.0 * share:.0f}"
