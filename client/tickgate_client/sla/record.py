"""What a monitor saw, as a file: JSON, with histograms in HdrHistogram's own encoding (V2, base64).

One file holds the sliding windows and the whole run as they were when it was written. It is replaced, never appended
to: its size is bounded (about 30 kB), and a reader sees one moment.
"""

from __future__ import annotations

import binascii
import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hdrh.codec import HdrCookieException, HdrLengthException
from hdrh.histogram import HdrHistogram

from tickgate_client.errors import BadSlaFile
from tickgate_client.latency import HIGHEST_NS, SIGNIFICANT_DIGITS
from tickgate_client.sla.monitor import SlaMonitor
from tickgate_client.sla.objectives import WINDOWS_S, BurnRule, Objective, Policy
from tickgate_client.sla.windows import Slice

FORMAT = "tickgate-sla-1"

STATUS_NAMES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""gRPC's statuses by number; not from grpc, which a report need not import."""

DEADLINE_EXCEEDED = STATUS_NAMES.index("DEADLINE_EXCEEDED")


@dataclass(frozen=True, slots=True)
class Period:
    """What the calls of some time did.

    Attributes:
        span_s: The sliding window in seconds; None for the whole run.
        calls: What they did.
    """

    span_s: int | None
    calls: Slice

    @property
    def name(self) -> str:
        """For people: `1 min`, `run`."""
        return period_name(self.span_s)


@dataclass(frozen=True, slots=True)
class SlaRecord:
    """One moment of a monitor.

    Attributes:
        written_unix_ns: When.
        load: How calls were made, in words; empty if nobody said.
        expected_interval_us: The caller's fixed rate that omitted calls were counted by; None: none were.
        objectives: What is promised; the order is that of `Slice.bad`.
        in_breach: Names of the objectives in breach.
        breaches: How many breaches each objective had, by name.
        dropped: Samples that were lost for want of room.
        abandoned: Calls whose caller did not wait for the end.
        periods: The sliding windows, the shortest first, and the run.
    """

    written_unix_ns: int
    load: str
    expected_interval_us: float | None
    objectives: tuple[Objective, ...]
    in_breach: tuple[str, ...]
    breaches: Mapping[str, int]
    dropped: int
    abandoned: int
    periods: tuple[Period, ...]

    @property
    def run(self) -> Slice:
        """The whole run."""
        return self.periods[-1].calls


def period_name(span_s: int | None) -> str:
    """A sliding window for people; None is the whole run."""
    if span_s is None:
        return "run"
    return f"{span_s // 3600} h" if span_s % 3600 == 0 else f"{span_s // 60} min"


def record_of(monitor: SlaMonitor, load: str = "") -> SlaRecord:
    """What a monitor saw until now.

    Args:
        monitor: Started or not.
        load: How calls were made, in words: a latency without it says nothing.
    """
    judges = monitor.standings()
    windows = [Period(span_s, monitor.window(span_s)) for span_s in WINDOWS_S]
    return SlaRecord(
        written_unix_ns=time.time_ns(),
        load=load,
        expected_interval_us=monitor.expected_interval_us,
        objectives=monitor.objectives,
        in_breach=tuple(judge.objective.name for judge in judges if judge.breach is not None),
        breaches={judge.objective.name: judge.breaches for judge in judges},
        dropped=monitor.dropped,
        abandoned=monitor.abandoned,
        periods=(*windows, Period(None, monitor.everything())),
    )


def write_record(path: Path, record: SlaRecord) -> None:
    """Write a record and put it in the place of an older one at once; raises OSError if that fails."""
    document = {
        "format": FORMAT,
        "written_unix_ns": record.written_unix_ns,
        "load": record.load,
        "expected_interval_us": record.expected_interval_us,
        "objectives": [asdict(objective) | {"policy": objective.policy.name} for objective in record.objectives],
        "in_breach": record.in_breach,
        "breaches": dict(record.breaches),
        "dropped": record.dropped,
        "abandoned": record.abandoned,
        "periods": [{"span_s": period.span_s, **_plain(period.calls)} for period in record.periods],
    }
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.write_text(json.dumps(document, indent=1), encoding="utf-8")
    beside.replace(path)


def read_record(path: Path) -> SlaRecord:
    """Read what `write_record` wrote; raises BadSlaFile for anything else, and OSError."""
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadSlaFile(path, "", found=str(error), expected="a JSON document") from error
    form = document.get("format") if isinstance(document, dict) else None
    if form != FORMAT:
        raise BadSlaFile(path, "format", found=_shown(form), expected=FORMAT)
    top = _Fields(path, "", document)
    interval_us = document.get("expected_interval_us")
    objectives = tuple(_objective(fields) for fields in top.each("objectives"))
    periods = tuple(_period(fields, len(objectives)) for fields in top.each("periods"))
    expected = [*WINDOWS_S, None]
    if [period.span_s for period in periods] != expected:
        raise BadSlaFile(path, "periods", found=_shown([period.span_s for period in periods]), expected=f"{expected}")
    return SlaRecord(
        written_unix_ns=top.count("written_unix_ns"),
        load=top.text("load"),
        expected_interval_us=None if interval_us is None else top.number("expected_interval_us"),
        objectives=objectives,
        in_breach=tuple(top.texts("in_breach")),
        breaches=top.counts("breaches"),
        dropped=top.count("dropped"),
        abandoned=top.count("abandoned"),
        periods=periods,
    )


def _plain(calls: Slice) -> dict[str, Any]:
    return {
        "by_status": {STATUS_NAMES[status]: count for status, count in sorted(calls.by_status.items())},
        "omitted": calls.omitted,
        "sum_ns": calls.sum_ns,
        "bad": calls.bad,
        "round_trip": _encoded(calls.round_trip),
        "server": _encoded(calls.server),
        "network": _encoded(calls.network),
        "failed": None if calls.failed is None else _encoded(calls.failed),
    }


def _encoded(histogram: HdrHistogram) -> str:
    encoded: bytes = histogram.encode()
    return encoded.decode("ascii")


def _period(fields: _Fields, objectives: int) -> Period:
    calls = Slice(objectives)
    calls.round_trip = fields.histogram("round_trip")
    calls.server = fields.histogram("server")
    calls.network = fields.histogram("network")
    calls.failed = None if fields.document.get("failed") is None else fields.histogram("failed")
    calls.omitted = fields.count("omitted")
    calls.sum_ns = fields.count("sum_ns")
    by_name = fields.counts("by_status")
    unknown = [name for name in by_name if name not in STATUS_NAMES]
    if unknown:
        raise fields.bad("by_status", unknown[0], "names of gRPC statuses")
    calls.by_status = Counter({STATUS_NAMES.index(name): count for name, count in by_name.items()})
    if calls.by_status.total() + calls.omitted != calls.calls:
        raise fields.bad("by_status", calls.by_status.total(), f"{calls.calls - calls.omitted} calls")
    bad = fields.document.get("bad")
    if not (isinstance(bad, list) and len(bad) == objectives and all(_is_count(count, calls.calls) for count in bad)):
        raise fields.bad("bad", bad, f"{objectives} counts of at most {calls.calls} calls")
    calls.bad = bad
    span_s = fields.document.get("span_s")
    return Period(None if span_s is None else fields.count("span_s"), calls)


def _objective(fields: _Fields) -> Objective:
    policy = fields.text("policy")
    if policy not in Policy.__members__:
        raise fields.bad("policy", policy, f"one of {', '.join(Policy.__members__)}")
    try:
        rules = tuple(
            BurnRule(rule.count("long_s"), rule.count("short_s"), rule.number("rate"), rule.count("least_bad"))
            for rule in fields.each("burn_rules")
        )
        return Objective(
            name=fields.text("name"),
            limit_us=fields.number("limit_us"),
            target=fields.number("target"),
            stall_us=fields.number("stall_us"),
            policy=Policy[policy],
            burn_rules=rules,
            enter_looks=fields.count("enter_looks"),
            clean_s=fields.number("clean_s"),
            clean_calls=fields.count("clean_calls"),
        )
    except BadSlaFile:
        raise
    except ValueError as error:
        raise fields.bad("", str(error), "an objective") from error


@dataclass(frozen=True, slots=True)
class _Fields:
    """One object of the file: fields come out with the type that is asked for, or BadSlaFile names them."""

    path: Path
    where: str
    document: Mapping[str, Any]

    def bad(self, field: str, found: object, expected: str) -> BadSlaFile:
        return BadSlaFile(self.path, self._at(field), found=_shown(found), expected=expected)

    def text(self, field: str) -> str:
        found = self.document.get(field)
        if not isinstance(found, str):
            raise self.bad(field, found, "a text")
        return found

    def count(self, field: str) -> int:
        found = self.document.get(field)
        if not _is_count(found, 1 << 63):
            raise self.bad(field, found, "a count")
        return int(found)  # type: ignore[arg-type]  # _is_count has looked

    def number(self, field: str) -> float:
        found = self.document.get(field)
        if not isinstance(found, int | float) or isinstance(found, bool):
            raise self.bad(field, found, "a number")
        return float(found)

    def texts(self, field: str) -> list[str]:
        found = self.document.get(field)
        if not (isinstance(found, list) and all(isinstance(item, str) for item in found)):
            raise self.bad(field, found, "a list of texts")
        return found

    def counts(self, field: str) -> dict[str, int]:
        found = self.document.get(field)
        if not (isinstance(found, dict) and all(_is_count(count, 1 << 63) for count in found.values())):
            raise self.bad(field, found, "counts by name")
        return found

    def each(self, field: str) -> list[_Fields]:
        found = self.document.get(field)
        if not (isinstance(found, list) and all(isinstance(item, dict) for item in found)):
            raise self.bad(field, found, "a list of objects")
        return [_Fields(self.path, f"{self._at(field)}[{at}]", item) for at, item in enumerate(found)]

    def histogram(self, field: str) -> HdrHistogram:
        try:
            histogram = HdrHistogram.decode(self.text(field))
        except (HdrCookieException, HdrLengthException, zlib.error, binascii.Error, IndexError, TypeError) as error:
            raise self.bad(field, f"{type(error).__name__} {error}".strip(), "an encoded HdrHistogram") from error
        shape = (histogram.lowest_trackable_value, histogram.highest_trackable_value, histogram.significant_figures)
        if shape != (1, HIGHEST_NS, SIGNIFICANT_DIGITS):
            raise self.bad(field, f"a histogram of {shape}", f"one of {(1, HIGHEST_NS, SIGNIFICANT_DIGITS)}")
        return histogram

    def _at(self, field: str) -> str:
        return ".".join(part for part in (self.where, field) if part)


def _is_count(found: object, most: int) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= most


def _shown(found: object) -> str:
    text = json.dumps(found, default=str) if not isinstance(found, str) else found
    return text if len(text) <= 60 else text[:57] + "..."
