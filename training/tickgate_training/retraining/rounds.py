"""What came of each round: one line of JSON in `rounds.jsonl`, and what is under way beside it, in `round.json`.

A line is appended and flushed to the disk when its round is over. What a round is about to do stands in `round.json`
before it looks at the evaluation block, so that one that was killed is a line too, as `interrupted`: it counts as a
try, but what it evaluated may be evaluated again, for nothing came of it. A torn last line, left by a death in the
middle of an append, is cut off: `round.json` still says what it was about.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import structlog
from pydantic import Field, FiniteFloat, ValidationError

from tickgate_server.models.verdict import PromotionVerdict
from tickgate_training.errors import RunInUse
from tickgate_training.retraining.errors import StateInvalid
from tickgate_training.strict import Strict

ROUNDS_FILE = "rounds.jsonl"
UNDER_WAY_FILE = "round.json"

Outcome = Literal["promoted", "shadow", "rejected", "conflict", "nothing_new", "failed", "stopped", "interrupted"]
Figures = dict[str, FiniteFloat | int | None]
_LOG = structlog.get_logger()


class TriggerSaid(Strict):
    """What began a round.

    Attributes:
        kind: `due` where the schedule did, or a person.
        detail: Of a degradation or a drift: which.
        journal: Folder of the journal that said so; `sequence` is the record's there.
        sequence: See `journal`; 0: none.
    """

    kind: Literal["due", "degraded", "drift"] = "due"
    detail: str = ""
    journal: str = ""
    sequence: int = Field(default=0, ge=0)


class DataSaid(Strict):
    """The data of a round: SHA-256 of the canonical table, its size, and records that a journal had lost."""

    fingerprint: str
    rows: int
    symbols: tuple[str, ...]
    first_ns: int
    last_ns: int
    lost_records: int = 0


class BlockSaid(Strict):
    """A block of rows: the venue's times of its first and last, and how many."""

    first_ns: int
    last_ns: int
    rows: int


class WindowSaid(Strict):
    """The rolled window and the block that neither model was fitted on."""

    train: BlockSaid
    validation: BlockSaid
    evaluation: BlockSaid


class ScoredSaid(Strict):
    """A model on the evaluation block, scored through its ONNX graph; `metrics` as in a manifest."""

    version: int | None
    threshold: float
    metrics: Figures


class TriedSaid(Strict):
    """One challenger.

    Attributes:
        kind: As configured.
        learner: Kind of its learner.
        validation_net_return: Sum of net returns on validation, which chooses among challengers; None: unknown.
        stored: Name of its source in the state's `sources`; empty: it cannot go on learning.
        fitted_until_ns: Venue's time of the last row that it was fitted on.
    """

    kind: str
    learner: str
    validation_net_return: FiniteFloat | None
    stored: str = ""
    fitted_until_ns: int = 0


class TestSaid(Strict):
    """The paired test; see `retraining.paired`."""

    blocks: int
    block_periods: int
    mean_difference: FiniteFloat | None
    sharpe_challenger: FiniteFloat | None
    sharpe_champion: FiniteFloat | None
    statistic: FiniteFloat | None
    p_value: FiniteFloat | None
    why: str = ""


class RoundLine(Strict):
    """One round.

    Attributes:
        round: Its number, from 1.
        began_ns: Wall clock; `ended_ns` likewise.
        ended_ns: See `began_ns`.
        trigger: What began it.
        decision: What became of it.
        reason: Why, in words.
        champion_version: That was compared with; None: it did not come to that.
        tries: Challengers that were fitted, or were to be.
        trials: Those of all rounds against this champion, which the deflated Sharpe ratios stand for.
        data, window, champion, challenger, challengers, skipped, test, verdict: See there; None and empty where the
            round did not come to them. `challengers` are those fitted, `challenger` is the chosen one, `skipped` says
            why others were not fitted.
        chosen: Place of the chosen one among `challengers`.
        published: Version that was published; None: none.
        configuration: The challenger's learner with its values, as JSON has it.
        drift_null: What each feature's stability index stays below without a drift, from its train rows; empty unless
            drift is a trigger.
    """

    round: int = Field(ge=1)
    began_ns: int
    ended_ns: int
    trigger: TriggerSaid
    decision: Outcome
    reason: str
    champion_version: int | None = None
    tries: int = 0
    trials: int = 0
    data: DataSaid | None = None
    window: WindowSaid | None = None
    champion: ScoredSaid | None = None
    challenger: ScoredSaid | None = None
    challengers: tuple[TriedSaid, ...] = ()
    skipped: tuple[str, ...] = ()
    test: TestSaid | None = None
    verdict: PromotionVerdict | None = None
    chosen: int | None = None
    published: int | None = None
    configuration: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    drift_null: dict[str, FiniteFloat] = Field(default_factory=dict)


class UnderWay(Strict):
    """What a round is about to do; see the module."""

    round: int
    began_ns: int
    trigger: TriggerSaid
    champion_version: int
    tries: int


class Rounds:
    """The rounds of one state folder, held by this process alone; see `held`.

    Attributes:
        folder: Of the state.
        lines: Of all rounds so far, oldest first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / ROUNDS_FILE
        self._under_way = folder / UNDER_WAY_FILE
        self.lines, torn_at = read_lines(self._path)
        if torn_at is not None:
            _LOG.warning("torn line cut off", path=str(self._path), at=torn_at)
            os.truncate(self._path, torn_at)
        self._settle()

    @property
    def next_number(self) -> int:
        """Of the round that comes next."""
        return self.lines[-1].round + 1 if self.lines else 1

    @property
    def evaluated_until_ns(self) -> int:
        """Venue's time of the last row that a finished round evaluated; 0: none did."""
        return evaluated_until_ns(self.lines)

    def tries_against(self, version: int) -> int:
        """Challengers that were held against a champion, over all rounds."""
        return sum(line.tries for line in self.lines if line.champion_version == version)

    def published(self, version: int) -> RoundLine | None:
        """The round that published a version; None: none did."""
        return next((line for line in reversed(self.lines) if line.published == version), None)

    def newest(self, kind: str) -> TriedSaid | None:
        """The last challenger of a kind whose source is kept; None: there is none."""
        for line in reversed(self.lines):
            for tried in line.challengers:
                if tried.kind == kind and tried.stored:
                    return tried
        return None

    def answered(self, journal: str, sequence: int) -> bool:
        """Whether a round that a record of a journal began came as far as to compare."""
        return any(
            (line.trigger.journal, line.trigger.sequence) == (journal, sequence) and line.test is not None
            for line in self.lines
        )

    def begin(self, under_way: UnderWay) -> None:
        """Say what is about to be done, durably."""
        beside = self._under_way.with_name(f"{UNDER_WAY_FILE}.unfinished")
        _write(beside, under_way.model_dump_json().encode(), os.O_TRUNC)
        beside.rename(self._under_way)
        _sync(self.folder)

    def end(self, line: RoundLine) -> None:
        """Append the round's line, durably; nothing is under way then."""
        new = not self._path.exists()
        _write(self._path, line.model_dump_json().encode() + b"\n", os.O_APPEND)
        if new:
            _sync(self.folder)
        self.lines.append(line)
        self._under_way.unlink(missing_ok=True)

    def _settle(self) -> None:
        """A round that ended without a line gets one."""
        try:
            text = self._under_way.read_bytes()
        except FileNotFoundError:
            return
        try:
            found = UnderWay.model_validate_json(text)
        except ValidationError as error:  # written beside and renamed: never half there
            raise StateInvalid(self._under_way, f"is no round ({error.errors()[0]['msg']})") from error
        if self.lines and self.lines[-1].round >= found.round:  # it has its line
            self._under_way.unlink()
            return
        _LOG.warning("round interrupted", round=found.round)
        self.end(
            RoundLine(
                round=found.round,
                began_ns=found.began_ns,
                ended_ns=found.began_ns,
                trigger=found.trigger,
                decision="interrupted",
                reason="the process ended in the middle of it",
                champion_version=found.champion_version,
                tries=found.tries,
            )
        )


def read_lines(path: Path) -> tuple[list[RoundLine], int | None]:
    """The lines of a file of rounds, none where there is no file; and where a torn last line begins, None without one.

    Raises:
        StateInvalid: A whole line is no round.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], None
    whole = data.rfind(b"\n") + 1
    lines = []
    for number, text in enumerate(data[:whole].splitlines(), start=1):
        try:
            lines.append(RoundLine.model_validate_json(text))
        except ValidationError as error:
            raise StateInvalid(path, f"line {number} is no round ({error.errors()[0]['msg']})") from error
    return lines, whole if whole < len(data) else None


def evaluated_until_ns(lines: Sequence[RoundLine]) -> int:
    """As `Rounds.evaluated_until_ns`, of these lines."""
    ends = [line.window.evaluation.last_ns for line in lines if line.window and line.test is not None]
    return max(ends, default=0)


@contextmanager
def held(folder: Path) -> Iterator[Rounds]:
    """The rounds of a state folder, made if it is not there; another process that wants it meanwhile is refused.

    Raises:
        RunInUse: Another process retrains with it.
        StateInvalid: Its files cannot be read.
        OSError: It cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunInUse(folder) from error
        yield Rounds(folder)
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes, how: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o644)
    try:
        written = os.write(descriptor, data)
        if written < len(data):
            raise OSError(f"{path}: wrote {written} of {len(data)} bytes")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
