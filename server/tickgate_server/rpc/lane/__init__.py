"""The fast lane: from a request's bytes to its answer's and its journal record in one kernel.

Behind a gRPC call the caches are cold: what takes 15 us in a loop of Python takes 60 between two calls, and what costs
is how much code and memory a request touches. So the plain case (one tick of a known symbol that passes every rule, a
model that is a compiled forest, a budget that does not pinch) runs here, composed of the very kernels that the general
path calls: `ticks.market.apply`, `features.micro10.push` or `features.micro32.take`, `features.fundamentals.append`,
`models.forest.score`, `risk.gate.judge`. Everything else is left to the general path before anything has changed, and
so is every request where the models take more than one feature set. A test holds both to the same answers and the same
journal.
"""

from time import perf_counter_ns
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.arrays import ArrayTable
from tickgate_server.engine import Engine
from tickgate_server.journal.layout import VECTOR_WIDTH
from tickgate_server.models.forest import CompiledForest
from tickgate_server.models.loading import LoadedModel
from tickgate_server.rpc.lane.facts import (
    BUDGET_NS,
    FACTS,
    FUTURE_LIMIT_NS,
    GAP_NS,
    HORIZON,
    LATENCY_BUDGET_NS,
    MODEL_INDEX,
    MODEL_NUMBER,
    REPLAY,
    SETTINGS,
    SLOT,
    STALE_LIMIT_NS,
    WITH_QUOTES,
)
from tickgate_server.rpc.lane.kernel import GENERAL, LATE, answer
from tickgate_server.rpc.status import Status
from tickgate_server.rpc.wire import ID_AT, ID_LENGTH, NUMBERS, SPANS

OUT_BYTES = 2048
_REFERENCE_BYTES = 76
_LATE = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "budget spent before sending")
_NO_WORDS = np.zeros(0, np.uint64)
_REQUESTS_TAG = 1 << 3 | 2


class FastLane:
    """The fast lane of one engine to one of its models; one thread at a time, the engine's.

    Attributes:
        reserved: As `Answers.reserved`, of the answer given last.
    """

    __slots__ = ("_desk", "_engine", "_facts", "_journal", "_out", "_spans", "_state", "_table", "reserved")

    def __init__(self, engine: Engine, model: LoadedModel, forest: CompiledForest) -> None:
        self._engine = engine
        self._journal = engine.journal
        self._desk = engine.desk
        self.reserved: tuple[int, ...] = ()
        self._facts = np.zeros(FACTS, np.int64)
        parts = engine.parts
        bits = np.zeros(NUMBERS, np.uint64)
        settings = np.zeros(SETTINGS, np.int64)
        settings[FUTURE_LIMIT_NS] = engine.settings.future_limit_ns
        settings[STALE_LIMIT_NS] = engine.settings.stale_limit_ns
        settings[REPLAY] = engine.settings.replay
        settings[HORIZON] = model.horizon_trades
        settings[LATENCY_BUDGET_NS] = model.latency_budget_ns
        settings[MODEL_INDEX] = -1 if self._journal is None else self._journal.add_model(model)
        settings[MODEL_NUMBER] = engine.number_of(model)
        settings[GAP_NS] = model.features.session_gap_ns
        settings[WITH_QUOTES] = parts.store.with_quotes
        references = [reference.encode() for reference in engine.registry.references_of(model)]
        table = np.zeros((len(references), _REFERENCE_BYTES), np.uint8)
        for row, reference in enumerate(references):
            table[row, : len(reference)] = np.frombuffer(reference, np.uint8)
        field = pb.PredictResponse(
            model=pb.ModelVersion(name=model.name, version=model.version, schema_id=model.schema_id)
        ).SerializeToString()
        store, state, index = parts.store, parts.market, engine.symbols.index
        self._out = np.zeros(OUT_BYTES, np.uint8)
        self._spans = np.zeros(SPANS, np.int64)
        arrays: tuple[NDArray[Any], ...] = (
            self._spans,
            bits,
            bits.view(np.float64),
            self._facts,
            np.zeros(2, np.int64),
            self._out,
            settings,
            np.array([model.threshold, engine.settings.price_jump_sigmas, engine.settings.price_jump_least]),
            table,
            np.array([len(reference) for reference in references], np.int64),
            np.frombuffer(field, np.uint8).copy(),
            index.slots,
            index.names,
            index.lengths,
            state.quotes_trades,
            state.volatilities,
            state.stamps,
            state.sequences,
            store.prices,
            store.sizes,
            store.stamps_ns,
            store.counts,
            store.vectors,
            store.ready,
            forest.nodes,
            forest.roots,
            forest.keys,
            forest.program,
            forest.registers,
            parts.desk.book.table,
            parts.desk.ids.table,
            store.carried,
            store.marks,
            store.known,
        )
        self._table = ArrayTable(len(arrays))
        for number, array in enumerate(arrays):
            self._table.put(number, array)
        self._state = self._table.table

    def predict(self, data: bytes, arrival_ns: int, deadline_ns: int) -> bytes | Status | None:
        """As `Answers.predict`; None where the request is the general path's, and nothing has changed."""
        return self._answer(data, arrival_ns, deadline_ns, 0)

    def predict_one(self, data: bytes, arrival_ns: int, deadline_ns: int) -> bytes | None:
        """The same for a `PredictStreamRequest` of one request: the `PredictStreamResponse`, or None."""
        if len(data) < 2 or data[0] != _REQUESTS_TAG:  # field 1
            return None
        length, begin = data[1], 2
        if length >= 0x80:
            if len(data) < 3 or data[2] >= 0x80:
                return None
            length, begin = length & 0x7F | data[2] << 7, 3
        if begin + length != len(data):
            return None
        request = data[begin:]
        found = self._answer(request, arrival_ns, deadline_ns, 1)
        if not isinstance(found, Status):
            return found
        at, size = self._spans[ID_AT], self._spans[ID_LENGTH]
        identity = request[at : at + size].decode("ascii")
        result = pb.PredictStreamResult(code=found.number, message=found.message, request_id=identity)
        return bytes(pb.PredictStreamResponse(results=[result]).SerializeToString())

    def _answer(self, data: bytes, arrival_ns: int, deadline_ns: int, framed: int) -> bytes | Status | None:
        journal = self._journal
        if journal is None:
            sequence = self._desk.next_order_id()
            begin = answer(data, arrival_ns, deadline_ns, framed, _NO_WORDS, -1, sequence, self._state)
            if begin == GENERAL:
                return None
            self._desk.expect(sequence + 1)
        else:
            words, at, sequence = journal.place()
            begin = answer(data, arrival_ns, deadline_ns, framed, words, at, sequence, self._state)
            if begin == GENERAL:
                return None
            journal.placed()
        self.reserved = ()
        if begin == LATE:
            return _LATE
        slot = self._facts[SLOT]
        if slot >= 0:
            self._desk.took_slot(int(slot), sequence)
            self.reserved = (sequence,)
        answer_bytes = self._out[begin:].tobytes()
        if perf_counter_ns() - arrival_ns >= self._facts[BUDGET_NS]:  # the thread was held up since
            self._engine.unsent([sequence], _LATE.number)
            self.reserved = ()
            return _LATE
        return answer_bytes


def lanes_of(engine: Engine) -> list[FastLane]:
    """A lane for each model that may have one: a compiled forest, on the engine's only feature set.

    A tick changes the state of every feature set that is kept, and the lane's kernel has one at hand. Nor does it write
    a vector wider than the journal's record has room for.
    """
    stores = engine.feature_stores
    if len(stores) != 1 or stores[0].feature_set.width > VECTOR_WIDTH:
        return []
    return [
        FastLane(engine, model, model.scorer)
        for model in engine.registry.models
        if isinstance(model.scorer, CompiledForest)
    ]
