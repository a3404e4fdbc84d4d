"""Every layout of the journal: the segment's header, the three kinds of record, their flags and codes. Little-endian.

A segment is a file of one header page and `capacity` slots of `RECORD_BYTES`. Slots are filled in order; sequence
numbers start at 1 and go on from segment to segment. A slot whose sequence is 0 holds no record.

The checksum of a record covers all its bytes, and its sequence too (`checksum`): a record that is copied to another
place, or whose sequence is changed, is not whole either.
"""

import struct
import sys
from enum import IntEnum, IntFlag

import numpy as np

if sys.byteorder != "little":
    raise ImportError("the journal's files are little-endian, and written without conversion")

MAGIC = b"TICKGATE"
FORMAT_VERSION = 3
HEADER_BYTES = 4096
RECORD_BYTES = 768  # twelve cache lines

SYMBOL_BYTES = 32
REQUEST_ID_BYTES = 36
MODEL_ASKED_BYTES = 76
VECTOR_WIDTH = 48  # micro32 with its most fundamentals
CHECKS_WIDTH = 24
PAYLOAD_BYTES = 728


class RecordKind(IntEnum):
    """What a record is."""

    DECISION = 1  # one for each request that reached the handler, whatever became of it
    CONTROL = 2  # any other input that changes state
    TICKS = 3  # ticks that were published, with what became of each


class ControlKind(IntEnum):
    """What a control record tells."""

    MODEL = 1  # a model got its index: index, name, version, schema_id, sha256, engine
    ALIAS = 2  # what an alias means to requests from here on: name, alias, version (null: none), share_percent
    LIMITS = 3  # limits in force
    SETTINGS = 4  # the engine's settings
    WARM_START = 5  # state that was not computed from this journal's ticks
    TICK = 6  # a tick applied that no decision brings: one held back as a price jump, before what confirmed it
    ORDER = 7
    FILL = 8
    TRADING_STATE = 9
    CONTROL_BLOCK = 10  # values that the observer handed back
    MODEL_REFUSED = 11  # a version did not pass its checks, and serves nobody: name, version, check
    # Answers of decisions recorded as OK that were found late as they left: sequences, and status, the code instead.
    UNSENT = 12
    # A request's input was applied and read, and its model runs on a thread of its own: ticket, request. Its DECISION
    # record follows when that ends, with what was decided from the state then.
    STARTED = 13
    POSITIONS = 14  # positions as a person states them: positions, reason, who
    TIME = 15  # reservations ended, with nothing else to journal: only the clock counts
    MODEL_DEGRADED = 16  # the observer found a version degraded: name, version
    MODEL_REOPENED = 17  # a person opened it again: name, version, reason, who
    MODEL_UNLOADED = 18  # a version was let go of, nothing answers with it any more: index, name, version
    ALIAS_CHANGED = 19  # who changed an alias and why: name, then a change of `models.aliases`; decides nothing
    FUNDAMENTALS = 20  # another table of fundamentals came into force: sha256 of its file, kept beside the segments
    # Symbols of rows, before the first TICKS record of a segment that has them: rows, symbols.
    SYMBOLS = 21
    # Market state and features that were taken from a store, not computed from this journal's ticks: sha256 of their
    # file, kept beside the segments.
    STATES = 22


class TickOutcome(IntEnum):
    """What became of a published tick."""

    ACCEPTED = 0
    CONFIRMED = 1  # accepted, and right before it the one that was held back as a price jump
    AGAIN = 2  # the symbol's latest once more; changed nothing
    HELD_BACK = 3  # rejected as a price jump; the next one may confirm it: that is state too
    REJECTED = 4  # changed nothing
    CONFLATED = 5  # superseded by a later one of its symbol while it waited; changed nothing


class Flags(IntFlag):
    """What a record could not say as it was given, and what else is to know of it."""

    SYMBOL_CUT = 1  # longer than SYMBOL_BYTES; cut between characters
    REQUEST_ID_CUT = 2  # longer than REQUEST_ID_BYTES
    MODEL_ASKED_CUT = 4  # longer than MODEL_ASKED_BYTES
    VECTOR_CUT = 8  # wider than VECTOR_WIDTH
    CHECKS_CUT = 16  # more than CHECKS_WIDTH
    NUMBER_CLAMPED = 32  # a number outside its field's range became the nearest inside
    TEXT_REPLACED = 64  # text that is no Unicode: what cannot be encoded became '?'
    # A MODEL, MODEL_REFUSED or ALIAS record that an earlier segment has already: not news, changes nothing.
    RESTATED = 128
    REPEATED = 256  # a decision about a request id that was answered before: nothing was applied, scored or reserved
    HELD_BACK = 512  # its tick was rejected as a price jump, and the next one may confirm it: that is state too


SEGMENT = np.dtype(
    [
        ("magic", "S8"),  # MAGIC
        ("format_version", "<u4"),  # FORMAT_VERSION
        ("record_size", "<u4"),  # RECORD_BYTES
        ("number", "<u8"),  # of the segment, as in the file's name; from 1
        ("capacity", "<u8"),  # slots
        ("created_ns", "<i8"),  # wall clock when it was prepared
        ("first_sequence", "<u8"),  # sequence of its first slot; 0: prepared, not in use yet
        ("first_sequence_inverted", "<u8"),  # all bits of it inverted, written before it
        ("environment_bytes", "<u4"),  # length of the JSON below
        ("checksum", "<u4"),  # crc32 of the page with these zero: first_sequence, its inverse, checksum
        ("environment", "V4032"),  # JSON: versions, CPU, hash of the kernels' sources, names of the checks
    ]
)

DECISION = np.dtype(
    [
        ("sequence", "<u8"),  # written last; 0: no record
        ("checksum", "<u8"),  # see above
        ("kind", "u1"),  # RecordKind.DECISION
        ("input", "u1"),  # what the request gave: records.TICK, FEATURES, SYMBOL; 0: nothing that could be decoded
        ("flags", "<u2"),  # Flags
        ("tick_kind", "u1"),  # bits ticks.market.TRADE, QUOTE; 0 unless a tick was given
        ("status", "u1"),  # gRPC status code; 0: answered
        ("stage", "u1"),  # Stage
        ("applied", "?"),  # whether the tick changed state
        ("ready", "?"),  # whether the features were complete
        ("scored", "?"),  # whether the model ran and gave a usable output
        ("judged", "?"),  # whether the gate was reached
        ("action", "u1"),  # risk.reasons.Action; 0 before the decision was begun
        ("reason", "<u2"),  # risk.reasons.Reason; 0: none
        ("symbol_bytes", "u1"),  # bytes of `symbol` in use
        ("request_id_bytes", "u1"),  # bytes of `request_id` in use
        ("model_asked_bytes", "u1"),  # bytes of `model_asked` in use
        ("check_count", "u1"),  # entries of `checks` in use; 0 unless judged
        ("ticket", "<u2"),  # of the STARTED control that went before; 0: none did, all happened at once
        ("model_index", "<i4"),  # into the MODEL records of this segment; -1: none was resolved
        ("trades_in_window", "<u4"),
        ("vector_width", "<u4"),  # entries of `vector` in use
        ("clock_ns", "<i8"),  # wall clock that was read for it; 0 in replay mode
        ("exchange_ts_ns", "<i8"),  # venue's time of the tick or the features; 0 for a symbol alone
        ("tick_sequence", "<u8"),  # the feed's number; 0: none
        ("asked_budget_ns", "<i8"),  # from the request and its deadline; 0: none
        ("budget_ns", "<i8"),  # in force: the lesser of that and the model's
        ("valid_for_us", "<i8"),
        ("features_ts_ns", "<i8"),  # venue's time of what the features were last computed from
        ("waiting_ns", "<i8"),  # arrival to engine
        ("features_ns", "<i8"),
        ("inference_ns", "<i8"),
        ("risk_ns", "<i8"),
        ("total_ns", "<i8"),  # arrival to encoding; 0 unless the stage is ENCODING
        ("price", "<f8"),  # of the trade; 0 without one
        ("size", "<f8"),  # of the trade
        ("bid", "<f8"),  # of the quote; 0 without one
        ("ask", "<f8"),
        ("bid_size", "<f8"),
        ("ask_size", "<f8"),
        ("reference_price", "<f8"),  # that came with features; 0 otherwise
        ("order_size", "<f8"),  # of the signal, unsigned; 0: none
        ("limit_price", "<f8"),
        ("target", "<f8"),  # signed position
        ("value", "<f8"),  # 2 P(up) - 1; NaN unless scored
        ("confidence", "<f8"),  # NaN unless scored
        ("symbol", f"S{SYMBOL_BYTES}"),  # UTF-8
        ("request_id", f"S{REQUEST_ID_BYTES}"),  # UTF-8
        ("model_asked", f"S{MODEL_ASKED_BYTES}"),  # UTF-8: the model as the request names it
        ("vector", "<f4", (VECTOR_WIDTH,)),  # that was scored, or that came with the request
        ("checks", "<f8", (CHECKS_WIDTH,)),  # measured values in the order of the header's `checks`
    ]
)

CONTROL = np.dtype(
    [
        ("sequence", "<u8"),  # as above
        ("checksum", "<u8"),  # as above
        ("kind", "u1"),  # RecordKind.CONTROL
        ("padding", "V1"),
        ("flags", "<u2"),  # Flags
        ("code", "<u2"),  # ControlKind
        ("part", "<u2"),  # of `parts` records in a row that hold one JSON text, from 0
        ("parts", "<u2"),
        ("payload_bytes", "<u2"),  # bytes of `payload` in use
        ("reserved", "V4"),
        ("clock_ns", "<i8"),  # wall clock that was read for it; 0 in replay mode
        ("payload", f"V{PAYLOAD_BYTES}"),  # UTF-8 JSON as Python writes it: NaN and Infinity are literals
    ]
)

PUBLISHED = np.dtype(
    [
        ("row", "<u4"),  # of the symbol, see ControlKind.SYMBOLS; NO_ROW: it has none
        ("kind", "u1"),  # bits ticks.market.TRADE, QUOTE
        ("outcome", "u1"),  # TickOutcome
        ("reason", "<u2"),  # risk.reasons.Reason of one that was rejected or held back; 0: none
        ("exchange_ts_ns", "<i8"),
        ("tick_sequence", "<u8"),  # the feed's number; 0: none
        ("price", "<f8"),  # of the trade; 0 without one
        ("size", "<f8"),
        ("bid", "<f8"),  # of the quote; 0 without one
        ("ask", "<f8"),
        ("bid_size", "<f8"),
        ("ask_size", "<f8"),
    ]
)
NO_ROW = 0xFFFFFFFF
TICKS_WIDTH = 10

TICKS = np.dtype(
    [
        ("sequence", "<u8"),  # as above
        ("checksum", "<u8"),  # as above
        ("kind", "u1"),  # RecordKind.TICKS
        ("tick_count", "u1"),  # entries of `ticks` in use
        ("flags", "<u2"),  # Flags
        ("reserved", "V4"),
        ("clock_ns", "<i8"),  # wall clock that was read for all of them; 0 in replay mode
        ("ticks", PUBLISHED, (TICKS_WIDTH,)),  # in the order applied
        ("reserved_end", "V16"),
    ]
)

_CODES = {"u1": "B", "u2": "H", "u4": "I", "u8": "Q", "i4": "i", "i8": "q", "f8": "d", "b1": "?"}


def packer(record: np.dtype[np.void], first: str, end: str = "") -> tuple[struct.Struct, int]:
    """A Struct for fields of a record from `first` to before `end`, arrays as bytes; and where they begin in it.

    Native packing, whose alignment must be the layout's own, copies a double as it is; "<" takes each apart.
    """
    names = list(record.names or ())
    begin, stop = names.index(first), names.index(end) if end else len(names)
    found = struct.Struct("@" + "".join(_code(name, record[name]) for name in names[begin:stop]))
    at = _offset(record, first)
    if at % 8 or at + found.size != (_offset(record, end) if end else record.itemsize):
        raise ValueError(f"{record}: expected {first} to {end} in natural alignment, found padding")
    return found, at


def _offset(record: np.dtype[np.void], name: str) -> int:
    return int(record.fields[name][1]) if record.fields else 0


def _code(name: str, field: np.dtype[np.generic]) -> str:
    if name in {"reserved", "padding"}:
        return f"{field.itemsize}x"
    if field.subdtype is not None:
        return f"{field.itemsize}s"
    return _CODES.get(field.str[1:], f"{field.itemsize}s")


def text(row: np.void, name: str) -> str:
    """One text field of a DECISION record; numpy drops NUL characters at the end, the length beside it does not."""
    length = int(row[f"{name}_bytes"])
    return bytes(row[name]).ljust(length, b"\0")[:length].decode()
