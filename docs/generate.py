"""Generate `docs/reasons.md` and `docs/metrics.md`.

The one is made from the contract's comments, the gate's checks, and what a person does about each reason; the other
from the observer's catalogue.

    python docs/generate.py [OUT]

OUT is the folder that receives them; by default the one of this file, which is what is committed. Tests generate into
an empty folder and compare.
"""

import math
import re
import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from tickgate_server.observer.catalogue import GROUPS as METRIC_GROUPS
from tickgate_server.observer.catalogue import Described
from tickgate_server.risk.checks import CHECKS, Check
from tickgate_server.risk.limits import Limits, SymbolLimits
from tickgate_server.risk.reasons import Reason

HERE = Path(__file__).resolve().parent
CONTRACT = HERE.parent / "proto" / "tickgate" / "v1" / "signal.proto"
FILE_NAME = "reasons.md"
METRICS_FILE_NAME = "metrics.md"
_PREFIX = "REASON_"
_MEMBER = re.compile(rf"  {_PREFIX}(?P<name>\w+) = (?P<number>\d+);")
_COMMENT = re.compile(r"  // ?(?P<text>.*)")
_STAGE = re.compile(r"Stage (?P<number>\d): ")

# What a reason's group is, by its first member: where in the path from a tick to an order it arises.
GROUPS = {
    Reason.APPROVED: "Approved",
    Reason.MODEL_INVALID_OUTPUT: "Model output",
    Reason.FEATURES_NOT_READY: "Features",
    Reason.TICK_UNKNOWN_SYMBOL: "Tick validation",
    Reason.SIZING_BELOW_MINIMUM: "Sizing",
    Reason.CONFIDENCE_BELOW_THRESHOLD: "Stage 1: confidence",
    Reason.POSITION_ORDER_SIZE: "Stage 2: position",
    Reason.TRADING_STATE_HALTED: "Desk control: trading state and restricted list",
    Reason.VAR_PORTFOLIO: "Stage 3: portfolio value at risk",
    Reason.CORRELATION_PORTFOLIO: "Stage 4: correlation",
    Reason.REGIME_NOT_ALLOWED: "Stage 5: regime",
    Reason.MODEL_DEGRADED: "Stage 6: model health",
    Reason.PRICE_COLLAR: "Desk control: price, repeats, rates",
    Reason.EXPOSURE_GROSS: "Desk control: exposure",
    Reason.LOSS_DAILY: "Desk control: losses",
    Reason.REQUEST_EXPIRED: "Request ids",
    Reason.PORTFOLIO_ORDERS_FULL: "Capacity",
}
# Key of the limits file that a check's limit is; none where the limit is fixed.
KEYS = {
    Reason.CONFIDENCE_BELOW_THRESHOLD: "confidence_threshold",
    Reason.POSITION_ORDER_SIZE: "max_order_size",
    Reason.POSITION_ORDER_NOTIONAL: "max_order_notional",
    Reason.POSITION_SIZE: "max_position_size",
    Reason.POSITION_NOTIONAL: "max_position_notional",
    Reason.RESTRICTED_SYMBOL: "symbols.<symbol>.restricted",
    Reason.VAR_PORTFOLIO: "max_var",
    Reason.CORRELATION_PORTFOLIO: "max_correlation",
    Reason.REGIME_NOT_ALLOWED: "allowed_regimes",
    Reason.PRICE_COLLAR: "max_price_deviation",
    Reason.ORDER_SELF_TRADE: "max_open_opposite",
    Reason.SIGNAL_REPEATED: "max_repeats",
    Reason.RATE_SYMBOL: "max_orders_per_s_symbol",
    Reason.RATE_TOTAL: "max_orders_per_s",
    Reason.EXPOSURE_GROSS: "max_gross_exposure",
    Reason.EXPOSURE_NET: "max_net_exposure",
    Reason.LOSS_DAILY: "max_daily_loss",
    Reason.LOSS_DRAWDOWN: "max_drawdown",
}
# What a check measures, where the contract's comment does not say it as `Value: ...; limit: ...`.
MEASURED = {
    Reason.CONFIDENCE_BELOW_THRESHOLD: "P of the predicted direction; the limit is the larger of the key and the"
    " model's own `decision_threshold`",
    Reason.POSITION_ORDER_SIZE: "units",
    Reason.POSITION_ORDER_NOTIONAL: "units x reference price x multiplier, in the base currency",
    Reason.POSITION_SIZE: "units, the larger of abs(filled + open buys) and abs(filled - open sells), with the order",
    Reason.POSITION_NOTIONAL: "that position at the last trade price, in the base currency",
    Reason.TRADING_STATE_HALTED: "1 ACTIVE, 2 REDUCING, 3 HALTED; the limit is 2",
    Reason.TRADING_STATE_REDUCING: "1 ACTIVE, 2 REDUCING, 3 HALTED; the limit is 1",
    Reason.RESTRICTED_SYMBOL: "1 if it is; the limit is 0",
    Reason.VAR_PORTFOLIO: "base currency, one day, at `var_confidence`; NaN while the risk data are stale or lack the"
    " symbol or one that is held",
    Reason.CORRELATION_PORTFOLIO: "-1 to 1; 0 where nothing else is held or open; NaN as above",
    Reason.REGIME_NOT_ALLOWED: "1 if so; the limit is 0. Stale or missing data: `unknown`",
    Reason.MODEL_DEGRADED: "1 if so; the limit is 0",
    Reason.PRICE_COLLAR: "fraction: the larger distance of the limit price and of the reference price",
    Reason.ORDER_SELF_TRADE: "units open on the other side",
    Reason.SIGNAL_REPEATED: "times, this one included; a fill of the symbol or another size begins anew",
    Reason.RATE_SYMBOL: "what the bucket lacks to one order, 0 if nothing; the limit is 0. It fills at the key's rate"
    " up to a second's worth, at least to one",
    Reason.RATE_TOTAL: "as of the symbol",
    Reason.EXPOSURE_GROSS: "base currency",
    Reason.EXPOSURE_NET: "base currency",
    Reason.LOSS_DAILY: "base currency; a profit is negative",
    Reason.LOSS_DRAWDOWN: "base currency",
}
# What a person, or the program that asked, does about it.
ADVICE = {
    Reason.APPROVED: "Execute the order, at the limit price or better, within `valid_for_us` of the send stamp, and"
    " report what became of it under its `order_id`.",
    Reason.MODEL_INVALID_OUTPUT: "Take the version out of service and look at its inputs in the journal: it gave NaN,"
    " or a probability outside 0 to 1.",
    Reason.FEATURES_NOT_READY: "Wait: 11 trades fill the windows, and a gap longer than the feature set's session gap"
    " begins them anew.",
    Reason.TICK_UNKNOWN_SYMBOL: "Add the symbol to the instrument file, or open the universe (`instruments.closed`).",
    Reason.TICK_SYMBOL_TABLE_FULL: "Raise `instruments.capacity` and restart, or send fewer symbols.",
    Reason.TICK_DUPLICATE: "Nothing, if a gateway repeats its ticks; else look for two feeds with one numbering.",
    Reason.TICK_OUT_OF_ORDER: "Look for two unordered senders of one symbol, or a venue clock that went back.",
    Reason.TICK_FROM_FUTURE: "Compare the clocks of venue, feed and server; the limit is `clock.future_limit_s`.",
    Reason.TICK_STALE: "Look for delay between venue and server; the limit is `clock.stale_limit_s`.",
    Reason.TICK_CROSSED_QUOTE: "Nothing for single ones; many mean that a feed mixes two books.",
    Reason.TICK_PRICE_JUMP: "Nothing for single ones: the next trade confirms or drops it. Many on a sound feed: raise"
    " `ticks.price_jump_sigmas` or `ticks.price_jump_least`, for training as well.",
    Reason.TICK_INVALID_VALUE: "Look at what the feed sends: such a tick is passed over and counted, others of its"
    " message are not held up by it.",
    Reason.SIZING_BELOW_MINIMUM: "Nothing: the position is what the model asks for, or the wish is too small. If it"
    " never trades: raise `risk_budget`, or see whether open orders fill.",
    Reason.SIZING_NO_VOLATILITY: "Wait for 20 returns of the symbol. If it stays: its currency lacks a rate in"
    " `currencies`.",
    Reason.SIZING_PRICE_BELOW_TICK: "Correct the instrument's tick size.",
    Reason.CONFIDENCE_BELOW_THRESHOLD: "Nothing: the model has no clear view.",
    Reason.POSITION_ORDER_SIZE: "Lower `risk_budget`, or raise the limit: orders are not cut to size.",
    Reason.POSITION_ORDER_NOTIONAL: "As for the order's size.",
    Reason.POSITION_SIZE: "See whether stale open orders use up the room; else as for the order's size.",
    Reason.POSITION_NOTIONAL: "As for the position's size.",
    Reason.TRADING_STATE_HALTED: "See who halted and why with `tickgate risk show`; remove the kill file if it is there"
    " and then `tickgate resume --reason`.",
    Reason.TRADING_STATE_REDUCING: "See who reduced and why with `tickgate risk show`; `tickgate resume --reason` once"
    " that is dealt with. Where a loss limit is still passed the desk reduces again with the next price.",
    Reason.RESTRICTED_SYMBOL: "Nothing while it is restricted, in the instrument file or in the limits.",
    Reason.VAR_PORTFOLIO: "If the value is NaN, see why the risk data are stale (`tickgate risk show`, the observer's"
    " log) or lack a symbol; else the portfolio is at its limit.",
    Reason.CORRELATION_PORTFOLIO: "Nothing: the order adds to what is held. NaN as for VaR.",
    Reason.REGIME_NOT_ALLOWED: "Nothing in that regime. `unknown` means that the observer has no regime of the symbol.",
    Reason.MODEL_DEGRADED: "Look at the version's health alerts, then retrain, or reopen it over the admin listener"
    " (`ReopenModel`) with a reason.",
    Reason.PRICE_COLLAR: "Compare the caller's reference price with the market; a feed may be late. Also NaN before a"
    " first trade was seen.",
    Reason.ORDER_SELF_TRADE: "Cancel the open order of the other side, or wait for its end, and report it.",
    Reason.SIGNAL_REPEATED: "See why nothing fills: orders not sent, not reported, or priced away from the market.",
    Reason.RATE_SYMBOL: "See what asks so often; the next order passes within a moment.",
    Reason.RATE_TOTAL: "As for the symbol's rate.",
    Reason.EXPOSURE_GROSS: "Reduce elsewhere, or see whether stale open orders use up the room.",
    Reason.EXPOSURE_NET: "As for gross exposure.",
    Reason.LOSS_DAILY: "Find out why. The desk is REDUCING until `tickgate resume --reason`, and then again unless the"
    " loss is under the limit by now, a new session has begun, or the limit was raised.",
    Reason.LOSS_DRAWDOWN: "As for the daily loss.",
    Reason.REQUEST_EXPIRED: "Ask again under a new id: a repeat came later than the first answer was valid.",
    Reason.REQUEST_ID_REUSED: "Correct the caller: an id names one request, with one payload.",
    Reason.PORTFOLIO_ORDERS_FULL: "Report the ends of orders: 16,384 are open at once only where reports are missing.",
}
_FACED, _PASSED_BY = "face it", "pass"


class TextMissing(Exception):
    """A reason lacks what the document must say of it; nothing was written."""


@dataclass(frozen=True, slots=True)
class _Said:
    number: int
    text: str


def contract_comments(proto: str) -> dict[str, _Said]:
    """Number and comment of each member of the contract's enum `Reason`, by its name without the prefix."""
    _, _, after = proto.partition("\nenum Reason {\n")
    found: dict[str, _Said] = {}
    comment: list[str] = []
    for line in takewhile(lambda line: line != "}", after.splitlines()):
        said, member = _COMMENT.fullmatch(line), _MEMBER.fullmatch(line)
        if said:
            comment.append(said["text"])
            continue
        if member:
            found[member["name"]] = _Said(int(member["number"]), " ".join(comment))
        comment = []
    return found


def reasons(proto: str) -> str:
    """The document.

    Raises:
        TextMissing: Names the reason, and what it lacks.
    """
    said = contract_comments(proto)
    _require_whole(said)
    checks = {check.reason: check for check in CHECKS}
    lines = [_HEAD, "| # | reason | limit | default | reducing orders |", "|---|---|---|---|---|"]
    lines += [_summary(place, check) for place, check in enumerate(CHECKS, 1)]
    for reason in Reason:
        if reason in GROUPS:
            lines += ["", f"## {GROUPS[reason]}"]
        lines += ["", f"### {reason.name} ({reason.value})", "", _sentence(said[reason.name].text), ""]
        check = checks.get(reason)
        if check is not None:
            lines += [f"- **Value and limit**: {_measured(check)}", f"- **Reducing orders**: {_reducing(check)}."]
        elif reason is not Reason.APPROVED:
            lines.append(f"- **Reducing orders**: {_FACED}.")
        lines.append(f"- **What to do**: {ADVICE[reason]}")
    return "\n".join(lines) + "\n"


def metrics() -> str:
    """The document of the metrics."""
    lines = [_METRICS_HEAD]
    for heading, group in METRIC_GROUPS.items():
        lines += [f"## {heading}", "", "| name | kind | labels | what it says |", "|---|---|---|---|"]
        lines += [_metric(described) for described in group]
        lines.append("")
    return "\n".join(lines)


def generate(out: Path) -> None:
    """Write the documents into a folder; raises `TextMissing`."""
    text = reasons(CONTRACT.read_text(encoding="utf-8"))
    (out / FILE_NAME).write_text(text, encoding="utf-8")
    (out / METRICS_FILE_NAME).write_text(metrics(), encoding="utf-8")


def _metric(described: Described) -> str:
    labels = ", ".join(f"`{label}`" for label in described.labels)
    about = f"{described.about} {described.note}".rstrip()
    return f"| `{described.exposed}` | {described.kind} | {labels} | {about} |"


def _require_whole(said: dict[str, _Said]) -> None:
    limits = set(Limits.model_fields) | {f"symbols.<symbol>.{name}" for name in SymbolLimits.model_fields}
    for reason in Reason:
        if not (reason.name in said and said[reason.name].text):
            raise TextMissing(f"{reason.name}: expected a comment in {CONTRACT.name} that says when, found none")
        if said[reason.name].number != reason.value:
            raise TextMissing(f"{reason.name}: the contract has number {said[reason.name].number}, not {reason.value}")
        if not ADVICE.get(reason):
            raise TextMissing(f"{reason.name}: expected what to do in ADVICE, found nothing")
        if KEYS.get(reason, "version") not in limits:
            raise TextMissing(f"{reason.name}: {KEYS[reason]} is no key of the limits file")
    for check in CHECKS:
        if check.reason not in MEASURED:
            raise TextMissing(f"{check.reason.name}: expected what its check measures in MEASURED, found nothing")


def _summary(place: int, check: Check) -> str:
    key = KEYS.get(check.reason)
    name = f"[{check.reason.name}](#{_anchor(check.reason)})"
    return f"| {place} | {name} | {f'`{key}`' if key else 'fixed'} | {_default(key)} | {_reducing(check)} |"


def _default(key: str | None) -> str:
    if key is None:
        return ""
    if key not in Limits.model_fields:
        return "as the instrument file says"
    value = Limits.model_fields[key].default
    if isinstance(value, tuple):
        return "all" if len(value) == len(Limits().allowed_regimes) else ", ".join(value)
    return "none" if math.isinf(value) else f"{value:,.10g}"


def _measured(check: Check) -> str:
    key = KEYS.get(check.reason)
    passes = "passes if value >= limit" if check.at_least else "passes if value <= limit"
    limit = f"; `{key}`" if key else ""
    own = f", of one symbol `symbols.<symbol>.{key}`" if key in SymbolLimits.model_fields else ""
    off = ', may be `"off"`' if key and _may_be_off(key) else ""
    return f"{MEASURED[check.reason]}; {passes}{limit}{own}{off}."


def _may_be_off(key: str) -> bool:
    return key in Limits.model_fields and "'off'" in str(Limits.model_fields[key].annotation)


def _reducing(check: Check) -> str:
    return _FACED if check.always else _PASSED_BY


def _sentence(comment: str) -> str:
    """The contract's comment without the stage, which the heading has."""
    text = _STAGE.sub("", comment)
    return text[0].upper() + text[1:]


def _anchor(reason: Reason) -> str:
    return f"{reason.name.lower()}-{reason.value}"


_HEAD = """\
<!-- Made by `make docs` from proto/tickgate/v1/signal.proto and docs/generate.py: edit those. -->
# Reasons

Every answer that is not an order has one reason, and an approved order has `APPROVED`. The numbers are those of
`tickgate.v1.Reason`, whose names begin with `REASON_`; they never change.

**Which one, where several hold.** The path of a request is: id, tick, features, model output, gate. It ends at the
first reason, but for the gate, which measures every check and gives all values with their limits in the answer. Its
reason is the first check in the table that fails; only, where neither HALTED nor the confidence fails, a size that
cannot be computed or is too small (`SIZING_*`) comes before all other checks, and a full table of orders after them.

**A check passes** only if its value is finite and the comparison is true: NaN and infinity deny. One that is waived, as
the limit is `"off"` or the order reducing, is measured and shown all the same, and does not deny.

**Reducing orders**, which only take off what is held and what no open order takes off already, face HALTED and the
price collar alone of the checks; and what is no check, as no order can be made then: the tick's validity, the sizing,
the request id.

## The gate's checks, in their order
"""

_METRICS_HEAD = """\
<!-- Made by `make docs` from server/tickgate_server/observer/catalogue.py: edit that. -->
# Metrics

The observer serves them at `http://<server.metrics_listen>/metrics`: as OpenMetrics with exemplars to those who ask
for it, as Prometheus does, else in the text format, which has no exemplars. It counts from the journal, in a process of
its own: nothing here costs an answer anything. `deploy/prometheus` has the scrape configuration, recording rules and
alerts over them, `deploy/grafana` a dashboard.

- **Counters** begin with the oldest record that the journal retains, those of earlier servers among them. A restarted
  observer's are lower by what retention has removed, which Prometheus takes for a reset.
- **Histograms** are in seconds and have `_bucket`, `_sum` and `_count`. 99 % of total latency:
  `histogram_quantile(0.99, sum by (le) (rate(tickgate_stage_latency_seconds_bucket{stage="total"}[5m])))`.
- **`worker`** is the name of the worker's journal, `worker-0` and so on; with one worker it is empty, which to
  Prometheus is no label.
- **Not here**, because neither journal nor status files say it: the time that encoding takes, the length of the queue
  of published ticks, requests refused while the journal could not be written (they are in the log), refusals by gRPC's
  core.
"""


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
