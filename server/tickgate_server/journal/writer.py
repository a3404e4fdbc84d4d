"""The journal's one writer: exactly one append a request, no system call and no lock on its way.

How a record is made and why so (nanoseconds on one core of a virtual AMD EPYC at 2.6 GHz, caches hot, CPython 3.11).
The whole call takes 1,760 in a loop: 330 to look at the request, 870 to pack 48 fields into the slot, 440 for the
checksum, 120 for the rest.
- `Struct.pack_into` takes 8 to 18 a number; a field assigned through numpy 60 to 90, so 3 us and more in all. Arrays
  reach the Struct as bytes.
- The checksum, a numba kernel over 64-bit words, takes 260 by itself. `zlib.crc32` of the same bytes takes 280 and
  a view of them to be made; from a scratch record that is then copied into its slot, the call took 200 longer.

Publication. A slot is zero before. All of a record is written but its sequence, which is stored last, as one aligned
64-bit word. Under x86's total store order another core that sees the sequence sees all stores before it; the same holds
for what a killed process leaves in the page cache. On a weaker memory model a reader might see the sequence first: the
checksum then does not fit, and it reads again. The records of one control are published from the last to the first, so
it becomes visible at once.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.journal.checksum import seal
from tickgate_server.journal.errors import ControlTooLarge, ModelTableFull
from tickgate_server.journal.fitting import fit
from tickgate_server.journal.layout import (
    CHECKS_WIDTH,
    DECISION,
    HEADER_BYTES,
    MODEL_ASKED_BYTES,
    PAYLOAD_BYTES,
    PUBLISHED,
    RECORD_BYTES,
    REQUEST_ID_BYTES,
    SYMBOL_BYTES,
    TICKS,
    TICKS_WIDTH,
    VECTOR_WIDTH,
    ControlKind,
    RecordKind,
    packer,
)
from tickgate_server.journal.rotation import SegmentedFolder
from tickgate_server.models.loading import LoadedModel
from tickgate_server.records import FEATURES, TICK, Decision, Request, Stage
from tickgate_server.ticks.market import QUOTE, TRADE

# A control takes at most so many records: 3.0 MB of JSON.
MAX_PARTS = 4096
# Versions whose index is known though they are not loaded: of one more the oldest gets a new one when it comes back.
INDICES_KEPT = 4096
# Plain ints beside the enums, and functions by themselves: each look-up on the way is time.
_DECISION_KIND = int(RecordKind.DECISION)
_ENCODING = int(Stage.ENCODING)
# In two, because CPython passes more than 30 arguments through a list and a tuple, which takes 240 ns.
_HEAD, _HEAD_AT = packer(DECISION, "kind", "waiting_ns")
_BODY, _BODY_AT = packer(DECISION, "waiting_ns")
_PACK_HEAD, _PACK_BODY = _HEAD.pack_into, _BODY.pack_into
_TICKS_KIND = int(RecordKind.TICKS)
_TICKS_STRUCT, _TICKS_AT = packer(TICKS, "kind", "reserved_end")
_PACK_TICKS = _TICKS_STRUCT.pack_into
# By their number.
_PACK_CHECKS = tuple(struct.Struct(f"@{count}d").pack for count in range(CHECKS_WIDTH + 1))
_BLANK = Decision(action=0)


class _Unfit(Exception):
    """Text or a sequence is longer than its field."""


class JournalWriter(SegmentedFolder):
    """Appends to the journal in a folder; one thread at a time.

    Opening is recovery: the last segment's torn tail is cut, and the journal goes on in a new segment with the next
    sequence. A segment's worth of disk is allocated before it is needed, so a full disk is an error at the turn to a
    new segment and never a signal: a server must then refuse, as no decision may go out unjournaled.

    The worst append is not the writer's but the file system's: on ext4 a page that was written back takes a fault
    when it is stored to again. A folder on tmpfs has no such thing, and survives the process, not the host.

    Attributes:
        recovery: What was found in the folder.
        next_sequence: Of the next record.
        segment: Path of the segment that is being filled.

    Args:
        folder: Made if need be; one writer at a time.
        segment_records: Slots of a segment, 768 bytes each.
        retained_segments: The oldest segments go when those behind them hold so many segments' worth of records (the
            one that is being filled counts as full), and in any case beyond 16 times so many files.
        accept_damage: See `recovery.recover`.

    Raises:
        FolderLocked: Another writer has the folder.
        NoSegment: The first segment cannot be had.
        Damaged: See `recovery.recover`.
        ValueError: A bound below 2 records or 1 segment.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_records: int = 65_536,
        retained_segments: int = 16,
        accept_damage: bool = False,
    ) -> None:
        super().__init__(folder, segment_records, retained_segments, accept_damage=accept_damage)
        self._models: dict[LoadedModel | None, int] = {None: -1}
        # Index of each version that was ever stated, by name, version and sha256, oldest first.
        self._indices: dict[tuple[str, int, str], int] = {}
        self._next_index = 0
        self._aliases: dict[tuple[str, str], int] = {}  # numbers of those that are restated
        self._refused: dict[tuple[str, int], int] = {}  # numbers of those that are restated, or were
        self._refusals = 0
        self._flags = 0  # of the decision at hand: set only while one that did not fit is appended

    def append_decision(  # noqa: C901, PLR0915 - one pass over the fields, inlined: a call costs 60 ns
        self,
        request: Request,
        decision: Decision,
        *,
        request_id: str = "",
        status: int = 0,
        stage: int = _ENCODING,
        applied: bool = False,
        clock_ns: int = 0,
        vector: NDArray[np.float32] | None = None,
        flags: int = 0,
    ) -> int:
        """Append what became of one request.

        Of the request, only what its `input` and `kind` say is there is read: with input 0 that is the model and the
        budget. Of the decision nothing is read at stage NONE, `total_ns` only at ENCODING, checks only if judged: what
        is left in them from the request before does not matter.

        Args:
            request: As decoded.
            decision: As decided, whether it was answered or not.
            request_id: The caller's; up to 36 bytes.
            status: gRPC status code; 0: answered.
            stage: The last that the request entered.
            applied: Whether its tick changed state.
            clock_ns: Wall clock that was read for it; 0 in replay mode.
            vector: float32 [width], contiguous: what was scored. Without one, the values that came with a request of
                features are taken.
            flags: `Flags.REPEATED` or `Flags.HELD_BACK`, where one is true of it.

        Returns:
            Its sequence: it is in the journal, and stays there if the process dies.

        Raises:
            NoSegment: It is not in the journal, and no answer may leave.
            JournalClosed: As above.
        """
        # A decision that was not begun still holds what the request before left in it.
        decided = decision if stage else _BLANK
        try:
            model_index = self._models[decided.model]
        except KeyError:
            model_index = self.add_model(decided.model)  # type: ignore[arg-type]  # None is always there
        slot = self._slot
        if slot >= self._mark:
            self._turn()
            slot = self._slot
        offset = HEADER_BYTES + slot * RECORD_BYTES

        given = request.input
        tick_kind = tick_sequence = exchange_ts_ns = width = 0
        price = size = bid = ask = bid_size = ask_size = reference_price = 0.0
        if given == TICK:
            exchange_ts_ns = request.exchange_ts_ns
            tick_sequence = request.sequence
            tick_kind = request.kind
            if tick_kind & TRADE:
                price = request.price
                size = request.size
            if tick_kind & QUOTE:
                bid = request.bid
                ask = request.ask
                bid_size = request.bid_size
                ask_size = request.ask_size
        elif given == FEATURES:
            exchange_ts_ns = request.exchange_ts_ns
            reference_price = request.reference_price
            if vector is None:
                vector = _as_vector(request.values)
        values = b""
        if vector is not None:
            values = vector.tobytes()
            width = len(values) >> 2
        try:
            symbol = request.symbol.encode() if given else b""
            identity = request_id.encode()
            asked = request.model.encode()
            checks = decided.check_values if decided.judged else ()
            count = len(checks)
            symbol_bytes = len(symbol)
            identity_bytes = len(identity)
            asked_bytes = len(asked)
            if (
                symbol_bytes > SYMBOL_BYTES
                or identity_bytes > REQUEST_ID_BYTES
                or asked_bytes > MODEL_ASKED_BYTES
                or width > VECTOR_WIDTH
                or count > CHECKS_WIDTH
            ):
                raise _Unfit  # noqa: TRY301 - as the errors of encode and pack below
            # One line for each field of layout.DECISION, in its order.
            _PACK_HEAD(
                self._view,
                offset + _HEAD_AT,
                _DECISION_KIND,
                given,
                self._flags | flags,
                tick_kind,
                status,
                stage,
                applied,
                decided.ready,
                decided.scored,
                decided.judged,
                decided.action,
                decided.reason,
                symbol_bytes,
                identity_bytes,
                asked_bytes,
                count,
                decided.ticket,
                model_index,
                decided.trades_in_window,
                width,
                clock_ns,
                exchange_ts_ns,
                tick_sequence,
                request.budget_ns,
                decided.budget_ns,
                decided.valid_for_us,
                decided.features_ts_ns,
            )
            _PACK_BODY(
                self._view,
                offset + _BODY_AT,
                decided.waiting_ns,
                decided.features_ns,
                decided.inference_ns,
                decided.risk_ns,
                decided.total_ns if stage == _ENCODING else 0,
                price,
                size,
                bid,
                ask,
                bid_size,
                ask_size,
                reference_price,
                decided.size,
                decided.limit_price,
                decided.target,
                decided.value,
                decided.confidence,
                symbol,
                identity,
                asked,
                values,
                _PACK_CHECKS[count](*checks),
            )
        except (_Unfit, UnicodeEncodeError, struct.error, OverflowError):
            if self._flags:
                raise
            return self._append_fitted(
                request, decided, request_id, status, stage, applied, clock_ns, vector, flags=flags
            )

        sequence = self.next_sequence
        seal(self._array, offset >> 3, sequence)
        self._words[offset >> 3] = sequence
        self._slot = slot + 1
        self.next_sequence = sequence + 1
        return sequence

    def place(self) -> tuple[NDArray[np.uint64], int, int]:
        """Where the next record goes, for a kernel that writes, seals and publishes it.

        Words of the segment, the record's first among them, and its sequence. If the kernel did, `placed` is to be
        called before anything else is appended.

        Raises:
            NoSegment: As `append_decision`.
            JournalClosed: As `append_decision`.
        """
        if self._slot >= self._mark:
            self._turn()
        return self._array, (HEADER_BYTES + self._slot * RECORD_BYTES) >> 3, self.next_sequence

    def placed(self) -> None:
        """The record at `place` was published."""
        self._slot += 1
        self.next_sequence += 1

    def places(self) -> tuple[NDArray[np.uint64], int, int, int]:
        """As `place`, for several records in a row; and for how many there is room, at least one."""
        if self._slot >= self._mark:
            self._turn()
        at = (HEADER_BYTES + self._slot * RECORD_BYTES) >> 3
        return self._array, at, self.next_sequence, self._mark - self._slot

    def took(self, records: int) -> None:
        """So many records at `places` were published."""
        self._slot += records
        self.next_sequence += records

    def append_ticks(self, ticks: NDArray[np.void], *, clock_ns: int = 0) -> int:
        """Append published ticks in the order applied, with what became of each, as one record.

        The segment must name the rows among them: see `ControlKind.SYMBOLS`.

        Args:
            ticks: `layout.PUBLISHED` [n], 1 to TICKS_WIDTH.
            clock_ns: Wall clock that was read for them; 0 in replay mode.

        Raises:
            ValueError: There are none, or too many.
            NoSegment: As `append_decision`.
            JournalClosed: As `append_decision`.
        """
        if ticks.dtype != PUBLISHED or not 0 < ticks.size <= TICKS_WIDTH:
            raise ValueError(f"expected 1 to {TICKS_WIDTH} published ticks, got {ticks.size} of {ticks.dtype}")
        if self._slot >= self._mark:
            self._turn()
        offset = HEADER_BYTES + self._slot * RECORD_BYTES
        _PACK_TICKS(self._view, offset + _TICKS_AT, _TICKS_KIND, ticks.size, self._flags, clock_ns, ticks.tobytes())
        sequence = self.next_sequence
        seal(self._array, offset >> 3, sequence)
        self._words[offset >> 3] = sequence
        self.took(1)
        return sequence

    def append_control(self, kind: ControlKind, payload: Mapping[str, Any], *, clock_ns: int = 0) -> int:
        """Append any other input that changes state, over as many records as its JSON takes.

        Args:
            kind: What it is.
            payload: As JSON can hold it; NaN and infinities are kept.
            clock_ns: Wall clock that was read for it; 0 in replay mode.

        Returns:
            Sequence of its first record.

        Raises:
            ControlTooLarge: It does not fit a segment, or takes more than MAX_PARTS records.
            NoSegment: As `append_decision`.
            JournalClosed: As `append_decision`.
            TypeError: JSON cannot hold the payload.
        """
        data = json.dumps(payload, separators=(",", ":")).encode()
        parts = -(-len(data) // PAYLOAD_BYTES)
        limit = min(self._capacity - len(self._statements), MAX_PARTS)
        if parts > limit:
            raise ControlTooLarge(kind.name, len(data), limit * PAYLOAD_BYTES)
        if self._slot >= self._mark:
            self._turn()
        if self._slot + parts > self._capacity:
            self._rotate()
        return self._put_control(kind, data, parts, clock_ns, 0)

    def add_model(self, model: LoadedModel, *, clock_ns: int = 0) -> int:
        """Give a model its index, with a MODEL record; best when it is loaded, at its first decision otherwise.

        Each segment begins with the MODEL records in force, so every segment can be read by itself. A version that
        comes back with the same hash gets the index that it had; of the last 4,096 that is known.

        Returns:
            The index, which no other model gets until the journal is opened again.

        Raises:
            ModelTableFull: They would fill more than half a segment.
            ControlTooLarge: Its names do not fit one record.
            NoSegment: As `append_decision`.
            JournalClosed: As `append_decision`.
        """
        if model in self._models:
            return self._models[model]
        if sum(kind is ControlKind.MODEL for kind, _ in self._statements) >= self._capacity // 2:
            raise ModelTableFull(self._capacity // 2)
        identity = (model.name, model.version, model.manifest.model_sha256)
        index = self._indices.get(identity, self._next_index)
        payload = {
            "index": index,
            "name": model.name,
            "version": model.version,
            "schema_id": model.schema_id,
            "sha256": model.manifest.model_sha256,
            "engine": "onnxruntime" if model.not_compiled else "compiled_forest",
        }
        self._state(ControlKind.MODEL, index, payload, clock_ns)
        self._next_index = max(self._next_index, index + 1)
        self._models[model] = self._indices[identity] = index
        refused = self._refused.get((model.name[:48], model.version))
        if refused is not None:  # that is no news any more
            self._statements.pop((ControlKind.MODEL_REFUSED, refused), None)
        if len(self._indices) > INDICES_KEPT:
            del self._indices[next(iter(self._indices))]
        return index

    def point_alias(
        self, name: str, alias: str, version: int | None, share_percent: float = 0.0, *, clock_ns: int = 0
    ) -> None:
        """Tell what an alias means from here on, with an ALIAS record; restated as models are.

        What would fill more than an eighth of a segment is told once, and not restated.

        Args:
            name: Of the model.
            alias: Which.
            version: None: none.
            share_percent: Of the symbols that a canary answers for.
            clock_ns: Wall clock that was read for it; 0 in replay mode.

        Raises:
            NoSegment: As `append_decision`.
            JournalClosed: As `append_decision`.
        """
        payload = {"name": name, "alias": alias, "version": version, "share_percent": share_percent}
        known = len(self._aliases)
        number = self._aliases.get((name, alias), known)
        if number == known and known >= self._capacity // 8:
            self.append_control(ControlKind.ALIAS, payload, clock_ns=clock_ns)
            return
        self._state(ControlKind.ALIAS, number, payload, clock_ns)
        self._aliases[name, alias] = number

    def add_refused(self, name: str, version: int, check: str, *, clock_ns: int = 0) -> None:
        """Tell of a version that did not pass its checks, with a MODEL_REFUSED record; restated as models are.

        A repository full of broken versions keeps no fit one out: what would fill more than a quarter of a segment is
        not told.

        Args:
            name: Of the model; cut to 48 characters.
            version: Of the model.
            check: Which it did not pass.
            clock_ns: Wall clock that was read for it; 0 in replay mode.

        Raises:
            NoSegment: As `append_decision`.
            JournalClosed: As `append_decision`.
        """
        # A folder's name may be no Unicode.
        readable = name.encode(errors="backslashreplace").decode()[:48]
        number = self._refused.get((readable, version), self._refusals)
        if number >= self._capacity // 4:
            return
        payload = {"name": readable, "version": version, "check": check}
        self._state(ControlKind.MODEL_REFUSED, number, payload, clock_ns)
        self._refused[readable, version] = number
        self._refusals = max(self._refusals, number + 1)

    def unload_model(self, model: LoadedModel, *, clock_ns: int = 0) -> None:
        """Tell that nothing answers with a version any more, with a MODEL_UNLOADED record; see `remove_model`.

        Raises:
            NoSegment: As `append_decision`.
            JournalClosed: As `append_decision`.
        """
        index = self._models[model]
        payload = {"index": index, "name": model.name, "version": model.version}
        self.append_control(ControlKind.MODEL_UNLOADED, payload, clock_ns=clock_ns)

    def remove_model(self, model: LoadedModel, successor: LoadedModel | None = None) -> None:
        """Forget a model that was unloaded and answers nobody any more: later segments do not state it.

        Args:
            model: It.
            successor: What stands for it in answers that are given again; it has the same index, stated or not.
        """
        index = self._models.pop(model, None)
        if index is None:
            return
        if index not in self._models.values():  # it was not loaded again meanwhile
            self._statements.pop((ControlKind.MODEL, index), None)
        if successor is not None:
            self._models[successor] = index

    def _state(self, kind: ControlKind, index: int, payload: Mapping[str, Any], clock_ns: int) -> None:
        """Append a control of one record that each later segment begins with."""
        data = json.dumps(payload, separators=(",", ":")).encode()
        if len(data) > PAYLOAD_BYTES:
            raise ControlTooLarge(kind.name, len(data), PAYLOAD_BYTES)
        if self._slot >= self._mark:
            self._turn()
        self._put_control(kind, data, 1, clock_ns, 0)
        self._statements[kind, index] = data

    def _append_fitted(
        self,
        request: Request,
        decision: Decision,
        request_id: str,
        status: int,
        stage: int,
        applied: bool,  # noqa: FBT001 - handed through
        clock_ns: int,
        vector: NDArray[np.float32] | None,
        *,
        flags: int,
    ) -> int:
        """Append what does not fit a record as it is; anything but too long or too large is the caller's error."""
        fitted = fit(request, decision, request_id, status, clock_ns, vector)
        if not fitted.flags:
            raise TypeError(f"expected numbers and text, found {request!r}, {decision!r}")
        self._flags = fitted.flags
        try:
            return self.append_decision(
                fitted.request,
                fitted.decision,
                request_id=fitted.request_id,
                status=fitted.status,
                stage=stage,
                applied=applied,
                clock_ns=fitted.clock_ns,
                vector=fitted.vector,
                flags=flags,
            )
        finally:
            self._flags = 0


def _as_vector(values: Sequence[float]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 cannot hold is an infinity in it
        return np.array(values, np.float32)
