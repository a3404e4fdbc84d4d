"""What a paper desk runs with: a TOML file, each key of which is known and has the right kind.

    folder = "paper"                      # what the run keeps; a run that was killed goes on there

    [feed]
    source = "capture.jsonl.gz"
    format = "binance"

    [server]
    models = "models"                     # start a server on these, or name one that runs: target and service

Tables and keys are the classes below and their attributes; `[venue]` has those of `PaperTerms`, `[venue.latency]` a
`kind` (fixed, lognormal, empirical) and its arguments, `[instruments.SYMBOL]` those of `PaperInstrument`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from tickgate_client.errors import TickgateError
from tickgate_client.execution.latency import EmpiricalLatency, FixedLatency, Latency, LognormalLatency
from tickgate_client.execution.paper_terms import PaperInstrument, PaperTerms
from tickgate_client.execution.parents import Approval
from tickgate_client.execution.schedules import AlmgrenChriss, Schedule, at_once, twap, vwap
from tickgate_client.sla.objectives import MISSED_IN_A_MINUTE, Objective, Policy

Section = TypeVar("Section")


class BadPaperConfig(TickgateError, ValueError):
    """A configuration that cannot be taken as it is.

    Attributes:
        path: The file.
        where: The key at fault, or empty if the file as a whole is.
        found: What stands there.
        expected: What should.
    """

    def __init__(self, path: Path, where: str, *, found: str, expected: str) -> None:
        super().__init__(f"{path}{f', {where}' if where else ''}: found {found}, expected {expected}")
        self.path = path
        self.where = where
        self.found = found
        self.expected = expected


@dataclass(frozen=True, slots=True)
class Feed:
    """Where ticks come from.

    Attributes:
        source: A file, or what its reader takes for one.
        format: Name of the reader, as `replay-ticks --format` has it.
        limit: Ticks at most; 0: all.
    """

    source: str
    format: str = "csv"
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Server:
    """Who is asked: a server that is started, or one that runs.

    Attributes:
        models: Folder of model packages of a server to start; its journal is kept in the run's folder.
        settings: Its settings, a TOML file; its clock is the ticks' own all the same.
        target: Data listener of a server that runs, with its clock in replay mode.
        service: Its service listener.
        wait_s: How long one that is gone is waited for.
    """

    models: str = ""
    settings: str = ""
    target: str = ""
    service: str = ""
    wait_s: float = 60.0

    def __post_init__(self) -> None:
        if bool(self.models) == bool(self.target):
            raise ValueError("models (of a server to start) or target (of one that runs), one of them")
        if bool(self.target) != bool(self.service):
            raise ValueError("target and service go together")


@dataclass(frozen=True, slots=True)
class Calls:
    """How it is asked.

    Attributes:
        deadline_ms: gRPC deadline of a call.
        budget_us: What the server may take; 0: as long as the deadline.
        model: Empty: the server's default.
    """

    deadline_ms: float = 1000.0
    budget_us: int = 0
    model: str = ""


@dataclass(frozen=True, slots=True)
class Sla:
    """What is promised of the calls; see `sla.Objective`.

    Attributes:
        limit_us: Longest round trip of a good call.
        target: Share of calls that must be good.
        stall_us: A single call that takes longer is a breach.
        policy: CONTINUE, HOLD or FLATTEN.
        clean_s: How long everything must be well before a breach ends.
    """

    limit_us: float = 50_000.0
    target: float = 0.99
    stall_us: float = 500_000.0
    policy: str = "HOLD"
    clean_s: float = 1.0

    def __post_init__(self) -> None:
        self.objective()

    def objective(self) -> Objective:
        """As the monitor takes it."""
        if self.policy not in Policy.__members__:
            raise ValueError(f"policy is {self.policy!r}, must be one of {', '.join(Policy.__members__)}")
        return Objective(
            "round trip",
            self.limit_us,
            self.target,
            stall_us=self.stall_us,
            policy=Policy[self.policy],
            burn_rules=(MISSED_IN_A_MINUTE,),
            clean_s=self.clean_s,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """How an approval is spread over its validity.

    Attributes:
        kind: at_once, twap, vwap or almgren_chriss.
        share: Of the validity that is used, above 0 and below 1: the last part needs time to fill.
        slices: Parts of twap and almgren_chriss.
        profile: Volume expected in each part of vwap.
        lot: Sizes of parts are multiples of it.
        volatility: Of almgren_chriss: price per square root of a second.
        permanent_impact: Price per unit.
        temporary_impact: Price per unit a second.
        fixed_cost: Price.
        risk_aversion: 1 / money.
    """

    kind: str = "at_once"
    share: float = 0.8
    slices: int = 4
    profile: tuple[float, ...] = ()
    lot: float = 1e-8
    volatility: float = 0.0
    permanent_impact: float = 0.0
    temporary_impact: float = 0.0
    fixed_cost: float = 0.0
    risk_aversion: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"share is {self.share}, must be above 0 and below 1")
        if self.kind not in ("at_once", "twap", "vwap", "almgren_chriss"):
            raise ValueError(f"kind is {self.kind!r}, must be at_once, twap, vwap or almgren_chriss")
        self.schedule(1.0, 10**9)  # its other arguments are looked at now, not with the first order

    def schedule(self, size: float, valid_ns: int) -> Schedule:
        """The parts of an order of that size and validity."""
        span_ns = int(valid_ns * self.share)
        if self.kind == "twap":
            return twap(size, span_ns, self.slices, lot=self.lot)
        if self.kind == "vwap":
            return vwap(size, span_ns, self.profile, lot=self.lot)
        if self.kind == "almgren_chriss":
            model = AlmgrenChriss(
                self.volatility, self.permanent_impact, self.temporary_impact, self.fixed_cost, self.risk_aversion
            )
            return model.schedule(size, span_ns / 1e9, span_ns, self.slices, lot=self.lot)
        return at_once(size)

    def of(self, approval: Approval) -> Schedule:
        """As a gateway asks for it."""
        return self.schedule(approval.size, approval.expires_ns - approval.approved_ns)


@dataclass(frozen=True, slots=True)
class PaperConfig:
    """The whole file.

    Attributes:
        path: The file.
        folder: What the run keeps.
        feed: Where ticks come from.
        server: Who is asked.
        calls: How it is asked.
        sla: What is promised.
        venue: How orders are treated.
        instruments: What the venue knows of symbols.
        plan: How orders are spread.
        reconcile_every_s: How often positions are compared, in the ticks' time.
    """

    path: Path
    folder: Path
    feed: Feed
    server: Server
    calls: Calls = field(default_factory=Calls)
    sla: Sla = field(default_factory=Sla)
    venue: PaperTerms = field(default_factory=PaperTerms)
    instruments: dict[str, PaperInstrument] = field(default_factory=dict)
    plan: Plan = field(default_factory=Plan)
    reconcile_every_s: float = 60.0


_LATENCIES: dict[str, Callable[..., Latency]] = {
    "fixed": FixedLatency,
    "lognormal": LognormalLatency,
    "empirical": EmpiricalLatency,
}


def read_config(path: Path) -> PaperConfig:
    """Read a configuration; paths in it are relative to the file. Raises BadPaperConfig, or OSError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadPaperConfig(path, "", found=str(error), expected="TOML") from error
    venue = dict(_table(path, "venue", document.pop("venue", {})))
    if "latency" in venue:
        venue["latency"] = _latency(path, venue["latency"])
    instruments = _table(path, "instruments", document.pop("instruments", {}))
    sections = {
        name: _section(path, name, kind, document.pop(name, {}))
        for name, kind in (("feed", Feed), ("server", Server), ("calls", Calls), ("sla", Sla), ("plan", Plan))
    }
    top = _section(path, "", _Top, document)
    here = path.parent
    feed, server = sections["feed"], sections["server"]
    return PaperConfig(
        path=path,
        folder=here / top.folder,
        feed=Feed(str(here / feed.source) if (here / feed.source).exists() else feed.source, feed.format, feed.limit),
        server=Server(
            models=str(here / server.models) if server.models else "",
            settings=str(here / server.settings) if server.settings else "",
            target=server.target,
            service=server.service,
            wait_s=server.wait_s,
        ),
        calls=sections["calls"],
        sla=sections["sla"],
        venue=_section(path, "venue", PaperTerms, venue),
        instruments={
            symbol: _section(path, f"instruments.{symbol}", PaperInstrument, said)
            for symbol, said in instruments.items()
        },
        plan=sections["plan"],
        reconcile_every_s=top.reconcile_every_s,
    )


@dataclass(frozen=True, slots=True)
class _Top:
    folder: str
    reconcile_every_s: float = 60.0


def _latency(path: Path, said: Any) -> Latency:
    arguments = dict(_table(path, "venue.latency", said))
    kind = arguments.pop("kind", None)
    if kind not in _LATENCIES:
        raise BadPaperConfig(path, "venue.latency.kind", found=repr(kind), expected=f"one of {', '.join(_LATENCIES)}")
    try:
        return _LATENCIES[kind](**arguments)
    except (TypeError, ValueError) as error:
        raise BadPaperConfig(path, "venue.latency", found=str(error), expected=f"arguments of {kind}") from error


def _section(path: Path, where: str, kind: Callable[..., Section], said: Any) -> Any:
    """One table as its class; every key known and of its type, what has no default there."""
    table = dict(_table(path, where, said))
    hints = get_type_hints(kind)
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]  # a dataclass, each of them
    for key, value in table.items():
        at = f"{where}.{key}" if where else key
        if key not in known:
            raise BadPaperConfig(path, at, found="a key that is not known", expected=f"one of {', '.join(known)}")
        table[key] = _value(path, at, hints[key], value)
    try:
        return kind(**table)
    except (TypeError, ValueError) as error:
        raise BadPaperConfig(path, where, found=str(error), expected="what was said") from error


def _value(path: Path, at: str, hint: Any, value: Any) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint == tuple[float, ...] and isinstance(value, list) and all(type(one) in (int, float) for one in value):
        return tuple(float(one) for one in value)
    if isinstance(hint, type) and isinstance(value, hint) and not isinstance(value, bool):
        return value
    name = "a list of numbers" if hint == tuple[float, ...] else getattr(hint, "__name__", str(hint))
    raise BadPaperConfig(path, at, found=repr(value), expected=name)


def _table(path: Path, where: str, said: Any) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise BadPaperConfig(path, where, found=repr(said), expected="a table")
    return said
