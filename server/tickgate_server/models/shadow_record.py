"""What became of a shadow so far: `<server's journal folder>/shadow/<name>/<version>/record.json`.

The shadow scorer writes it, promotion and metrics read it. A comparison is of one decision that was answered OK: the
float32 vector that the journal recorded, scored by the shadow, beside what the answering version gave for the same
vector. A *would-be signal* is BUY or SELL, the sign of the value, where the confidence reaches that version's own
decision threshold, and HOLD elsewhere: the policy's threshold and the gate's later stages are not replayed. Two
directions *agree* where their values have the same sign; 0 agrees with 0 alone.

The file is replaced by renaming, so a reader has it whole. One that contradicts its own numbers is refused.
"""

import math
import os
import re
from bisect import bisect_left
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from tickgate_server.models.documents import read_document
from tickgate_server.models.errors import ModelError

FOLDER = "shadow"
RECORD_FILE = "record.json"
# Upper bounds of the histograms of absolute differences; a difference of two values is at most 2.
DIFFERENCE_BOUNDS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_FILE_BYTES = 1 << 24

SideAlias: TypeAlias = Literal["production", "canary"]
Count: TypeAlias = Annotated[int, Field(ge=0)]
Difference: TypeAlias = Annotated[FiniteFloat, Field(ge=0.0)]


class ShadowRecordInvalid(ModelError):
    """The record of a shadow cannot be read, or is not what it should be.

    Attributes:
        path: The file.
        why: What was found and what was expected.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class Missed(StrEnum):
    """Why a decision that a shadow should have scored was not compared."""

    NOT_LOADED = "not_loaded"  # the shadow did not pass its checks
    OTHER_FEATURES = "other_features"  # the vector is of another schema id than the shadow's
    VECTOR_CUT = "vector_cut"  # wider than the journal records
    INVALID_OUTPUT = "invalid_output"  # the shadow gave no probability
    ANSWER_INVALID = "answer_invalid"  # the version that answered gave none
    MANIFEST_GONE = "manifest_gone"  # of the version that answered: its threshold is not known


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Signals(_Strict):
    """How many would-be signals of each action."""

    buy: Count = 0
    sell: Count = 0
    hold: Count = 0

    @property
    def total(self) -> int:
        """Of all actions."""
        return self.buy + self.sell + self.hold

    def __add__(self, other: "Signals") -> "Signals":
        return Signals(buy=self.buy + other.buy, sell=self.sell + other.sell, hold=self.hold + other.hold)


class Divergence(_Strict):
    """Absolute differences, shadow to answer.

    Attributes:
        mean: Over all decisions compared.
        max: The largest.
        sum: What the mean is of.
        counts: How many are within each of `DIFFERENCE_BOUNDS` and above the bound before, not cumulative.
    """

    mean: Difference
    max: Difference
    sum: Difference
    counts: Annotated[tuple[Count, ...], Field(min_length=len(DIFFERENCE_BOUNDS), max_length=len(DIFFERENCE_BOUNDS))]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Divergence":
        decisions = sum(self.counts)
        if not decisions or not math.isclose(self.mean, self.sum / decisions, rel_tol=1e-9, abs_tol=1e-300):
            raise ValueError(f"mean is {self.mean}, but sum {self.sum} over {decisions} decisions")
        if self.max > DIFFERENCE_BOUNDS[-1] or not self.counts[bisect_left(DIFFERENCE_BOUNDS, self.max)]:
            raise ValueError(f"max is {self.max}, but no decision counted has such a difference")
        return self


class Comparison(_Strict):
    """The shadow beside one version that answered, under one alias.

    Attributes:
        alias: That the version answered by.
        version: That answered.
        decisions: Compared.
        agreed: Of these, those with the same direction.
        agreement_share: `agreed` / `decisions`.
        same_signals: Of these, those with the same would-be signal.
        signals: Would-be signals of the version that answered.
        shadow_signals: Would-be signals of the shadow.
        value: Differences of `value`, in 0 to 2.
        confidence: Differences of `confidence`, in 0 to 0.5.
        first_clock_ns: The server's wall clock at the first decision; 0 where the server's clock is the ticks' own.
        last_clock_ns: At the last.
    """

    alias: SideAlias
    version: int = Field(ge=1)
    decisions: int = Field(ge=1)
    agreed: Count
    agreement_share: Annotated[float, Field(ge=0.0, le=1.0)]
    same_signals: Count
    signals: Signals
    shadow_signals: Signals
    value: Divergence
    confidence: Divergence
    first_clock_ns: Count
    last_clock_ns: Count

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Comparison":
        counted = {
            "signals": self.signals.total,
            "shadow_signals": self.shadow_signals.total,
            "value.counts": sum(self.value.counts),
            "confidence.counts": sum(self.confidence.counts),
        }
        for name, count in counted.items():
            if count != self.decisions:
                raise ValueError(f"{name} are of {count} decisions, expected {self.decisions}")
        if max(self.agreed, self.same_signals) > self.decisions:
            raise ValueError(f"{self.agreed} agreed, {self.same_signals} same signals, of {self.decisions} decisions")
        if self.agreement_share != self.agreed / self.decisions:
            raise ValueError(f"agreement_share is {self.agreement_share}, but {self.agreed} of {self.decisions} agreed")
        if self.first_clock_ns > self.last_clock_ns:
            raise ValueError(f"first_clock_ns {self.first_clock_ns} is after last_clock_ns {self.last_clock_ns}")
        return self


class ShadowRecord(_Strict):
    """What became of one version as a shadow, over all workers of a server, restarts of it among them.

    Attributes:
        format_version: Of this document.
        name: Of the model.
        version: That is or was the shadow.
        model_sha256: Hash of its graph, as its manifest says; empty until it was loaded.
        comparisons: One for each version that answered, by alias and version.
        missed: Decisions that it should have scored, and that could not be compared, by why.
        lost_records: Journal records, decisions or not, that retention removed before they were read while this
            version was the shadow: what is compared is not all there was.
        load_failures: How often it did not pass its checks.
        load_check: Error class of the last failure; empty where it is loaded.
        load_why: What that said.
        positions: Sequence of the journal record that comes next, by worker; the one process of a server is "".
        stored: Comparisons in the files beside this one that count; what is behind them is of a commit that was not.
        ended: It was the shadow, and everything until it no longer was is in here.
        written_ns: Wall clock.
    """

    format_version: Literal[1] = 1
    name: str
    version: int = Field(ge=1)
    model_sha256: str = ""
    comparisons: tuple[Comparison, ...] = ()
    missed: dict[Missed, Count] = {}
    lost_records: Count = 0
    load_failures: Count = 0
    load_check: str = ""
    load_why: str = ""
    positions: dict[str, Annotated[int, Field(ge=1)]] = {}
    stored: Count = 0
    ended: bool = False
    written_ns: Count = 0

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "ShadowRecord":
        sides = [(comparison.alias, comparison.version) for comparison in self.comparisons]
        if len(set(sides)) < len(sides):
            raise ValueError(f"comparisons has a side twice: {sides}")
        if any(version == self.version for _, version in sides):
            raise ValueError(f"comparisons has version {self.version}, the shadow itself")
        return self

    @property
    def decisions(self) -> int:
        """Compared, over all sides."""
        return sum(comparison.decisions for comparison in self.comparisons)

    @property
    def agreed(self) -> int:
        """Of these, those with the same direction."""
        return sum(comparison.agreed for comparison in self.comparisons)

    @property
    def agreement_share(self) -> float | None:
        """Share of them with the same direction; None where nothing was compared."""
        return self.agreed / self.decisions if self.comparisons else None

    @property
    def signals(self) -> Signals:
        """Would-be signals of what answered."""
        return _sum(comparison.signals for comparison in self.comparisons)

    @property
    def shadow_signals(self) -> Signals:
        """Would-be signals of the shadow."""
        return _sum(comparison.shadow_signals for comparison in self.comparisons)

    @property
    def mean_value_difference(self) -> float | None:
        """Mean absolute difference of the values; None where nothing was compared."""
        total = sum(comparison.value.sum for comparison in self.comparisons)
        return total / self.decisions if self.comparisons else None

    @property
    def max_value_difference(self) -> float | None:
        """Largest absolute difference of the values; None where nothing was compared."""
        return max((comparison.value.max for comparison in self.comparisons), default=None)

    @property
    def first_clock_ns(self) -> int | None:
        """The server's wall clock at the first decision compared; None where nothing was."""
        return min((comparison.first_clock_ns for comparison in self.comparisons), default=None)

    @property
    def last_clock_ns(self) -> int | None:
        """At the last."""
        return max((comparison.last_clock_ns for comparison in self.comparisons), default=None)


class ShadowSummary(_Strict):
    """One shadow version beside one production version, as a promotion looks at it.

    Attributes:
        name: Of the model.
        version: Of the shadow.
        against: Version that answered as production.
        decisions: Of these that the shadow scored too.
        agreement: Share of them whose direction was the same.
        mean_abs_divergence: Mean of abs(value of the shadow - value of production), in 0 to 2.
        max_abs_divergence: The largest.
        since_ns: Clock of the first decision; 0 where the server's clock is the ticks' own.
        until_ns: Of the last one.
    """

    name: str
    version: int = Field(ge=1)
    against: int = Field(ge=1)
    decisions: int = Field(ge=1)
    agreement: Annotated[float, Field(ge=0.0, le=1.0)]
    mean_abs_divergence: Difference
    max_abs_divergence: Difference
    since_ns: Count
    until_ns: Count


def read_summary(journal: Path | None, name: str, version: int, against: int | None) -> ShadowSummary | None:
    """What a version has shown as the shadow of what is production; None: nothing.

    Args:
        journal: Folder of the server's journal, or of one of several workers'; None: it keeps none.
        name: Of the model.
        version: Of the shadow.
        against: Production's version; None: there is none.

    Raises:
        ShadowRecordInvalid: As `read_record`.
    """
    if journal is None or against is None:
        return None
    of_worker = re.fullmatch(r"worker-\d+", journal.name) and not (journal / FOLDER).is_dir()
    record = read_record((journal.parent if of_worker else journal) / FOLDER, name, version)
    if record is None:
        return None
    for side in record.comparisons:
        if (side.alias, side.version) == ("production", against):
            return ShadowSummary(
                name=name,
                version=version,
                against=against,
                decisions=side.decisions,
                agreement=side.agreement_share,
                mean_abs_divergence=side.value.mean,
                max_abs_divergence=side.value.max,
                since_ns=side.first_clock_ns,
                until_ns=side.last_clock_ns,
            )
    return None


def shadow_folder(journal: Path, workers: int = 1) -> Path:
    """Where a server keeps what it knows of its shadows.

    Args:
        journal: `journal.folder` of the process that asks: the server's, or a worker's own.
        workers: `worker.count` of that process; a worker's folder lies in the server's.
    """
    return (journal if workers == 1 else journal.parent) / FOLDER


def record_path(folder: Path, name: str, version: int) -> Path:
    """Where a version's record lies, given `shadow_folder`."""
    return folder / name / str(version) / RECORD_FILE


def read_record(folder: Path, name: str, version: int) -> ShadowRecord | None:
    """What became of a version as a shadow; None: it never was one here.

    Args:
        folder: As `shadow_folder` gives it.
        name: Of the model.
        version: Of the model.

    Raises:
        ShadowRecordInvalid: The file cannot be read, is not what `ShadowRecord` describes, or is of another version.
    """
    path = record_path(folder, name, version)
    record = read_document(path, ShadowRecord, _FILE_BYTES, ShadowRecordInvalid)
    if record is None:
        return None
    if (record.name, record.version) != (name, version):
        raise ShadowRecordInvalid(path, f"is of {record.name}:{record.version}, expected {name}:{version}")
    return record


def write_record(folder: Path, record: ShadowRecord) -> Path:
    """Write a record beside its place and rename it into it; returns its path.

    It survives the death of the process, not that of the host: the scorer can write it again.

    Args:
        folder: As `shadow_folder` gives it.
        record: What is to be there.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    path = record_path(folder, record.name, record.version)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{RECORD_FILE}.{os.getpid()}.unfinished")
    try:
        beside.write_bytes(record.model_dump_json(indent=1).encode() + b"\n")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _sum(found: Iterable[Signals]) -> Signals:
    return sum(found, Signals())
