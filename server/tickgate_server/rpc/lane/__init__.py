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
from tickgate_server.features.store import FeatureStore
from tickgate_server.journal.layout import VECTOR_WIDTH
from tickgate_server.models.forest import CompiledForest
from tickgate_server.models.loading import LoadedModel
from tickgate_server.rpc.lane.facts import (
    BUDGET_NS,
    FACTS,
    FUTURE_LIMIT_NS,
    GAP_NS,
    HORIZON,
    LANE_ARRAYS,
    LATENCY_BUDGET_NS,
    MODEL_ARRAYS,
    MODEL_INDEX,
    MODEL_NUMBER,
    REPLAY,
    SETTINGS,
    SLOT,
    STALE_LIMIT_NS,
    STORE,
    WITH_QUOTES,
)
from tickgate_server.rpc.lane.kernel import GENERAL, LATE, answer
from tickgate_server.rpc.lane.references import Meant, References
from tickgate_server.rpc.status import Status
from tickgate_server.rpc.wire import ID_AT, ID_LENGTH, NUMBERS, SPANS

OUT_BYTES = 2048
_LATE = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "budget spent before sending")
_NO_WORDS = np.zeros(0, np.uint64)
_REQUESTS_TAG = 1 << 3 | 2


class _Model:
    """One compiled forest, as the lane's kernel has it.

    Attributes:
        address: Of its arrays' table.
    """

    __slots__ = ("_table", "address")

    def __init__(self, engine: Engine, model: LoadedModel, forest: CompiledForest) -> None:
        settings = np.zeros(SETTINGS, np.int64)
        settings[FUTURE_LIMIT_NS] = engine.settings.future_limit_ns
        settings[STALE_LIMIT_NS] = engine.settings.stale_limit_ns
        settings[REPLAY] = engine.settings.replay
        settings[HORIZON] = model.horizon_trades
        settings[LATENCY_BUDGET_NS] = model.latency_budget_ns
        settings[MODEL_INDEX] = -1 if engine.journal is None else engine.journal.add_model(model)
        settings[MODEL_NUMBER] = engine.number_of(model)
        settings[GAP_NS] = model.features.session_gap_ns
        settings[WITH_QUOTES] = engine.feature_stores[0].with_quotes
        field = pb.PredictResponse(
            model=pb.ModelVersion(name=model.name, version=model.version, schema_id=model.schema_id)
        ).SerializeToString()
        arrays: tuple[NDArray[Any], ...] = (
            settings,
            np.array([model.threshold, engine.settings.price_jump_sigmas, engine.settings.price_jump_least]),
            np.frombuffer(field, np.uint8).copy(),
            forest.nodes,
            forest.roots,
            forest.keys,
            forest.program,
            forest.registers,
        )
        self._table = ArrayTable(MODEL_ARRAYS)
        for number, array in enumerate(arrays):
            self._table.put(number, array)
        self.address = int(self._table.table.ctypes.data)


class FastLane:
    """The fast lane of one engine to those of its models that are compiled forests; one thread at a time, the engine's.

    Which of them a request means is found by the bytes of its reference: many models cost what one does.

    Attributes:
        open: Whether any request may take it.
        reserved: As `Answers.reserved`, of the answer given last.
    """

    __slots__ = (
        "_desk",
        "_engine",
        "_facts",
        "_journal",
        "_models",
        "_out",
        "_references",
        "_spans",
        "_state",
        "_store",
        "_table",
        "open",
        "reserved",
    )

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._journal = engine.journal
        self._desk = engine.desk
        self.reserved: tuple[int, ...] = ()
        self._facts = np.zeros(FACTS, np.int64)
        bits = np.zeros(NUMBERS, np.uint64)
        market, index = engine.market, engine.symbols.index
        self._out = np.zeros(OUT_BYTES, np.uint8)
        self._spans = np.zeros(SPANS, np.int64)
        arrays: tuple[NDArray[Any], ...] = (
            self._spans,
            bits,
            bits.view(np.float64),
            self._facts,
            np.zeros(2, np.int64),
            self._out,
            index.slots,
            index.names,
            index.lengths,
            market.quotes_trades,
            market.volatilities,
            market.stamps,
            market.sequences,
            engine.desk.book.table,
            engine.desk.ids.table,
        )
        self._table = ArrayTable(LANE_ARRAYS)
        for number, array in enumerate(arrays):
            self._table.put(number, array)
        self._state = self._table.table
        self._references = References(self._table)
        self._store: FeatureStore | None = None
        self._models: dict[LoadedModel, _Model] = {}
        self.open = False
        self.follow()

    def follow(self) -> None:
        """Versions came or went, or references mean others: between two requests.

        The lane is open where the models take one feature set, for a tick changes the state of every one that is kept,
        and the kernel has one at hand. Nor does it write a vector wider than the journal's record has room for.
        """
        engine = self._engine
        stores = engine.feature_stores
        if len(stores) != 1 or stores[0].feature_set.width > VECTOR_WIDTH:
            self.open = False
            self._references.point({})
            self._models = {}
            return
        if stores[0] is not self._store:
            self._take(stores[0])
        registry, known = engine.registry, self._models
        self._models = {
            model: known.get(model) or _Model(engine, model, model.scorer)
            for model in registry.models
            if isinstance(model.scorer, CompiledForest)
        }
        addresses = {model: found.address for model, found in self._models.items()}
        wanted = {
            reference: Meant(addresses.get(model, 0))
            for reference, model in registry.references.items()
            if model in addresses or reference in registry.canaries
        }
        for reference, choice in registry.canaries.items():
            canary = addresses.get(choice.model, 0)
            wanted[reference] = Meant(wanted[reference].model, canary, choice.share_percent)
        self._references.point(wanted)
        self.open = bool(self._models)

    def _take(self, store: FeatureStore) -> None:
        self._store = store
        arrays: tuple[NDArray[Any], ...] = (
            store.prices,
            store.sizes,
            store.stamps_ns,
            store.counts,
            store.vectors,
            store.ready,
            store.carried,
            store.marks,
            store.known,
        )
        for number, array in enumerate(arrays, STORE):
            self._table.put(number, array)
        self._models = {}  # each says of its feature set whether it takes quotes

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
        if not self.open:
            return None
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
            self._engine.recorder.unsent([sequence], _LATE.number)
            self.reserved = ()
            return _LATE
        return answer_bytes
