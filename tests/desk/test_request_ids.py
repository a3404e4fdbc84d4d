"""Request ids: which are known, with what; and one hash of a payload wherever it is computed."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.desk.desk_child import close, models_of, new_engine, publish
from tests.support.messages import START_NS, features, tick

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.engine import Engine
from tickgate_server.models.registry import ModelRegistry
from tickgate_server.payload import payload_of
from tickgate_server.records import Request
from tickgate_server.risk import request_ids
from tickgate_server.risk.request_ids import KEPT, RequestIds
from tickgate_server.rpc.answers import Answers
from tickgate_server.rpc.codec import decode


class SlowIds:
    """Two generations of ids in dicts: the newer is full at `KEPT`, and then the older is forgotten."""

    def __init__(self) -> None:
        self.newer: dict[bytes, tuple[int, int]] = {}  # payload and sequence
        self.older: dict[bytes, tuple[int, int]] = {}
        self.count = 0  # of the newer, those among it that were forgotten too

    def keep(self, identity: bytes, payload: int, sequence: int) -> None:
        if self.count == KEPT:
            self.newer, self.older, self.count = {}, self.newer, 0
        self.newer[identity] = payload, sequence
        self.count += 1

    def find(self, identity: bytes) -> tuple[int, int] | None:
        return self.newer.get(identity, self.older.get(identity))

    def forget(self, sequence: int) -> None:
        for generation in (self.newer, self.older):
            for identity in [one for one, (_, of) in generation.items() if of == sequence]:
                del generation[identity]

    def __len__(self) -> int:
        return len(self.newer) + len(self.older)


def keep(ids: RequestIds, identity: bytes, payload: int, sequence: int) -> None:
    entry = ids.keep(identity, payload)
    ids.facts[entry, request_ids.SEQUENCE] = sequence


def found(ids: RequestIds, identity: bytes) -> tuple[bool, int | None]:
    entry = ids.find(identity)
    return entry >= 0, int(ids.facts[entry, request_ids.SEQUENCE]) if entry >= 0 else None


def assert_knows(ids: RequestIds, slow: SlowIds, identity: bytes) -> None:
    expected = slow.find(identity)
    entry = ids.find(identity)
    assert (entry >= 0) == (expected is not None), identity
    if expected is not None:
        payload, sequence = expected
        assert ids.facts[entry, request_ids.SEQUENCE] == sequence
        assert ids.same_payload(entry, payload)
        assert not ids.same_payload(entry, payload ^ 1)


class Ids(RuleBasedStateMachine):
    """Many ids at once, so that the generations turn, and single ones of every length."""

    @initialize()
    def begin(self) -> None:
        self.ids, self.slow = RequestIds(), SlowIds()
        self.sequences = itertools.count(1)
        self.seen: list[bytes] = []

    def _keep(self, identity: bytes, payload: int) -> None:
        sequence = next(self.sequences)
        keep(self.ids, identity, payload, sequence)
        self.slow.keep(identity, payload, sequence)

    @rule(count=st.sampled_from([1, 1_000, KEPT - 1_000, KEPT - 1, KEPT]))
    def keep_many(self, count: int) -> None:
        first = next(self.sequences)
        for number in range(first, first + count):
            self._keep(b"many-%d" % number, number)
        self.seen += [b"many-%d" % first, b"many-%d" % (first + count - 1)]

    @rule(identity=st.binary(min_size=1, max_size=request_ids.ID_BYTES), payload=st.integers(0, 2**64 - 1))
    def keep_one(self, identity: bytes, payload: int) -> None:
        if self.slow.find(identity) is None:
            self._keep(identity, payload)
            self.seen.append(identity)

    @rule(back=st.integers(0, 300) | st.integers(0, 3 * KEPT))
    def forget(self, back: int) -> None:
        sequence = max(next(self.sequences) - 1 - back, 1)
        self.ids.forget(sequence)
        self.slow.forget(sequence)

    @rule(back=st.integers(0, 5))
    def keep_again_what_was_forgotten(self, back: int) -> None:
        identity = self.seen[-1 - back] if back < len(self.seen) else b"none"
        expected = self.slow.find(identity)
        if expected is not None:
            self.ids.forget(expected[1])
            self.slow.forget(expected[1])
            self._keep(identity, 7)

    @invariant()
    def both_know_the_same(self) -> None:
        for identity in self.seen[-200:]:
            assert_knows(self.ids, self.slow, identity)
            assert_knows(self.ids, self.slow, identity + b"x")
            assert_knows(self.ids, self.slow, identity[:-1] + b"\xff")


TestIds = Ids.TestCase
TestIds.settings = settings(max_examples=12, stateful_step_count=12, deadline=None, report_multiple_bugs=False)


def test_the_last_65536_ids_are_known_however_many_came() -> None:
    ids, slow = RequestIds(), SlowIds()
    count = 2 * KEPT + 1_000
    for number in range(count):
        identity = b"id-%d" % number
        assert ids.find(identity) < 0
        keep(ids, identity, number, number + 1)
        slow.keep(identity, number, number + 1)
    assert KEPT <= len(slow) <= 2 * KEPT
    for number in range(count):
        assert_knows(ids, slow, b"id-%d" % number)
    assert all(ids.find(b"id-%d" % number) >= 0 for number in range(count - KEPT, count))
    assert ids.find(b"id-0") < 0


def test_ids_that_begin_alike_are_different() -> None:
    ids = RequestIds()
    same = [b"a" * length for length in range(1, request_ids.ID_BYTES + 1)] + [b"\0", b"\0\0", b"a\0"]
    for number, identity in enumerate(same, 1):
        assert found(ids, identity) == (False, None)
        keep(ids, identity, number, number)
    assert [found(ids, identity)[1] for identity in same] == list(range(1, len(same) + 1))


# -- one hash ----------------------------------------------------------------------------------------------------------

positive = st.sampled_from([1.0, 0.1, 5e-324, 1e308]) | st.floats(1e-6, 1e6)
sizes = st.sampled_from([0.0, -0.0]) | positive
names = st.sampled_from(["A", "B"])
ticks = st.builds(
    tick,
    names,
    st.integers(1, 2**62),
    sequence=st.sampled_from([0, 1, 2**63, 2**64 - 1]),
    trade=st.none() | st.tuples(positive, sizes),
    quote=st.none() | st.tuples(positive, positive, sizes, sizes),
).filter(lambda request: request.tick.HasField("trade") or request.tick.HasField("quote"))
vectors = st.builds(
    features,
    names,
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=10, max_size=10),
    at_ns=st.integers(1, 2**62),
    price=positive,
)
by_symbol = names.map(lambda name: pb.PredictRequest(symbol=name))
requests = st.builds(
    lambda request, model: pb.PredictRequest(**{**_fields(request), "model": model}),
    ticks | vectors | by_symbol,
    st.sampled_from(["", "forest", "forest:1", "line"]),
)


def _fields(request: pb.PredictRequest) -> dict[str, Any]:
    name = request.WhichOneof("input")
    return {name: getattr(request, name)}


def payload(message: pb.PredictRequest) -> int:
    request = Request()
    decode(message, request)
    return payload_of(request)


def kept_payload(engine: Engine, identity: str) -> int:
    ids = engine.desk.ids
    entry = ids.find(identity.encode())
    assert entry >= 0
    return int(ids._words[entry, 0])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    folder = tmp_path_factory.mktemp("models")
    publish(folder)
    return models_of(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for each example."""
    base = tmp_path_factory.mktemp("journals")
    return (base / str(number) for number in itertools.count())


@settings(max_examples=25)
@given(st.lists(requests, min_size=1, max_size=12))
def test_a_payload_has_one_hash_on_both_ways_and_from_the_journal(
    registry: ModelRegistry, folders: Iterator[Path], asked: list[pb.PredictRequest]
) -> None:
    folder = next(folders)
    folder.mkdir()
    engine = new_engine(registry, folder)
    answers = Answers(engine)
    kept: dict[str, int] = {}
    for lanes in (True, False):
        assert answers._lane.open
        answers._lane.open = lanes
        for name in ("A", "B"):  # a row, so that the lane may take the rest
            answers.predict(tick(name, 1, trade=(1.0, 1.0)).SerializeToString(), time.perf_counter_ns(), 0)
        for number, request in enumerate(asked):
            request.request_id = f"{number}-{int(lanes)}"
            answer = answers.predict(request.SerializeToString(), time.perf_counter_ns(), 0)
            if isinstance(answer, bytes):
                kept[request.request_id] = payload(request)
                assert kept_payload(engine, request.request_id) == kept[request.request_id]
    close(engine)
    engine = new_engine(registry, folder)
    assert {identity: kept_payload(engine, identity) for identity in kept} == kept
    close(engine)


@given(requests, requests)
def test_two_payloads_have_two_hashes(one: pb.PredictRequest, other: pb.PredictRequest) -> None:
    assert (payload(one) == payload(other)) == (one.SerializeToString() == other.SerializeToString())  # -0.0 is not 0.0


def test_what_is_not_asked_does_not_count() -> None:
    request = tick("A", START_NS, trade=(1.0, 1.0), request_id="one")
    again = tick("A", START_NS, trade=(1.0, 1.0), request_id="other", budget_us=5_000)
    assert payload(request) == payload(again)
    kept = Request(input=3, symbol="A", price=7.0, values=np.ones(10).tolist())  # what another request left in it
    assert payload_of(kept) == payload(pb.PredictRequest(symbol="A"))
