"""What a journal says was served: ticks as they were applied, and the vectors that were scored from them, in order."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.journal.entries import ControlAssembler, ControlEntry
from tickgate_server.journal.errors import RecordDamaged, RecordsRemoved
from tickgate_server.journal.layout import CONTROL, NO_ROW, TICKS, ControlKind, Flags, RecordKind, TickOutcome, text
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.segments import Rows, last_sequence
from tickgate_server.records import FEATURES, TICK, Stage
from tickgate_server.risk.reasons import Reason

_BATCH = 4096
_WANTED = [ControlKind.SETTINGS, ControlKind.TICK, ControlKind.STARTED, ControlKind.SYMBOLS]
_APPLIED = (TickOutcome.ACCEPTED, TickOutcome.CONFIRMED)


class Why(StrEnum):
    """Why a decision has no vector, or no row to compare it with."""

    WARM_UP = "the windows were warming up"
    REJECTED = "its tick was rejected"
    REFUSED = "the request was refused, or its id was answered before"
    UNSCORED = "it ended before a vector was scored"
    OWN_FEATURES = "the caller sent the features"
    ABSENT = "its tick is not in the file"
    REJECTED_IN_FILE = "the rules reject its tick in the file"
    NO_TICK = "no tick of the symbol was applied before"
    OTHER_FEATURES = "its feature set is not known: name the model repository with --models"
    NO_FUNDAMENTALS = "its feature set has fundamentals: name their file with --fundamentals"


@dataclass(frozen=True, slots=True)
class Began:
    """A server began: its windows were empty, unless it took states from a store."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A tick that changed state.

    Attributes:
        symbol: Its symbol.
        stamp_ns: Venue time.
        number: The feed's; 0: none.
        ticket: Of the decision that will come of it; 0: that comes at once, or none does.
    """

    symbol: str
    stamp_ns: int
    number: int
    ticket: int = 0


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision.

    Attributes:
        sequence: Of its record.
        symbol: Asked about.
        of_tick: It brought a tick, whose stamp, number, price and size follow; else the latest was asked for.
        has_trade: The tick has price and size.
        ticket: Of the request whose tick was applied before; 0: none.
        why: Why it has no vector; None: it has one.
        schema_id: Of the vector; empty: not known.
        trades: In the windows.
        vector: float32 [width].
    """

    sequence: int
    symbol: str
    of_tick: bool
    stamp_ns: int
    number: int
    has_trade: bool
    price: float
    size: float
    ticket: int
    why: Why | None
    schema_id: str
    trades: int
    vector: NDArray[np.float32]


Event = Began | Applied | Decided


def journals_in(folder: Path) -> list[Path]:
    """The folder itself, or those of its workers, `worker-0` and so on."""
    workers = [found for found in folder.glob("worker-*") if found.name.removeprefix("worker-").isdecimal()]
    return sorted(workers, key=lambda found: int(found.name.removeprefix("worker-"))) or [folder]


class ServedJournal:
    """Reads one journal from its oldest record to what is its newest now.

    Attributes:
        lost: Records that retention removed or damage took.

    Args:
        folder: Of the journal.
    """

    def __init__(self, folder: Path) -> None:
        self.lost = 0
        self._folder = folder
        self._assembler = ControlAssembler()
        self._symbols: dict[int, str] = {}

    def events(self) -> Iterator[Event]:
        """What happened, in order.

        Raises:
            JournalError: The journal is not there, or a segment is none.
        """
        newest = last_sequence(self._folder)
        with JournalReader(self._folder) as reader:
            while newest and reader.next_sequence <= newest:
                try:
                    rows = reader.poll(_BATCH)
                except (RecordsRemoved, RecordDamaged) as error:
                    self.lost += error.last - error.first + 1
                    continue
                if not rows.size:
                    break
                schemas = {index: model.schema_id for index, model in reader.models.items()}
                yield from self._of(rows, schemas)

    def _of(self, rows: Rows, schemas: dict[int, str]) -> Iterator[Event]:
        kinds = rows["kind"]
        controls, published = rows.view(CONTROL), rows.view(TICKS)
        wanted = (kinds == RecordKind.CONTROL) & np.isin(controls["code"], _WANTED)
        for at in np.flatnonzero((kinds != RecordKind.CONTROL) | wanted).tolist():
            if kinds[at] == RecordKind.DECISION:
                yield from _decision(rows[at], schemas)
            elif kinds[at] == RecordKind.TICKS:
                yield from self._published(published[at])
            elif (entry := self._assembler.feed(controls[at])) is not None and not entry.restated:
                yield from self._control(entry)
            elif entry is not None and entry.code == ControlKind.SYMBOLS:
                self._learn(entry)

    def _control(self, entry: ControlEntry) -> Iterator[Event]:
        if entry.code == ControlKind.SETTINGS:
            self._symbols.clear()
            yield Began()
        elif entry.code == ControlKind.SYMBOLS:
            self._learn(entry)
        else:
            started = entry.code == ControlKind.STARTED
            said = entry.payload["request"] if started else entry.payload
            if started and said["input"] != TICK:
                return
            ticket = int(entry.payload["ticket"]) if started else 0
            yield Applied(str(said["symbol"]), int(said["exchange_ts_ns"]), int(said.get("sequence", 0)), ticket)

    def _learn(self, entry: ControlEntry) -> None:
        self._symbols |= dict(zip(entry.payload["rows"], entry.payload["symbols"], strict=True))

    def _published(self, record: np.void) -> Iterator[Event]:
        for tick in record["ticks"][: int(record["tick_count"])]:
            if tick["outcome"] in _APPLIED and tick["row"] != NO_ROW:
                symbol = self._symbols.get(int(tick["row"]), "")
                yield Applied(symbol, int(tick["exchange_ts_ns"]), int(tick["tick_sequence"]))


def _decision(row: np.void, schemas: dict[int, str]) -> Iterator[Event]:
    symbol, of_tick = text(row, "symbol"), bool(row["input"] == TICK)
    stamp_ns, number, ticket = int(row["exchange_ts_ns"]), int(row["tick_sequence"]), int(row["ticket"])
    if of_tick and row["applied"] and not ticket:
        yield Applied(symbol, stamp_ns, number)
    yield Decided(
        sequence=int(row["sequence"]),
        symbol=symbol,
        of_tick=of_tick,
        stamp_ns=stamp_ns,
        number=number,
        has_trade=bool(row["tick_kind"] & 1),
        price=float(row["price"]),
        size=float(row["size"]),
        ticket=ticket,
        why=_why_without(row),
        schema_id=schemas.get(int(row["model_index"]), ""),
        trades=int(row["trades_in_window"]),
        vector=row["vector"][: int(row["vector_width"])].copy(),
    )


def _why_without(row: Any) -> Why | None:
    """Why a decision has no vector of the server's; None: it has one."""
    reason = int(row["reason"])
    cases = (
        (row["stage"] == Stage.NONE or bool(row["flags"] & Flags.REPEATED), Why.REFUSED),
        (row["input"] == FEATURES, Why.OWN_FEATURES),
        (reason in range(Reason.TICK_UNKNOWN_SYMBOL, Reason.TICK_PRICE_JUMP + 1), Why.REJECTED),
        (reason == Reason.FEATURES_NOT_READY, Why.WARM_UP),
        (row["vector_width"] == 0 or not row["ready"], Why.UNSCORED),
    )
    return next((why for holds, why in cases if holds), None)
