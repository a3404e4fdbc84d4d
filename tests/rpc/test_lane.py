"""The fast lane and the general path give the same answers, the same journal and the same state, whatever comes."""

import math
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.messages import START_NS, tick, untimed
from tests.support.packages import publish_forest, publish_logistic
from tests.support.risk import risk_data

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.features.schema import micro32
from tickgate_server.journal.entries import ControlEntry
from tickgate_server.journal.layout import DECISION, ControlKind, RecordKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.aliases import change_alias
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.risk.limits import Limits
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import FillReport, OrderReport, OrderState, PositionSet, ReportRefused
from tickgate_server.risk.reports import Side as OrderSide
from tickgate_server.rpc.answers import Answers
from tickgate_server.rpc.status import Status
from tickgate_server.ticks.instruments import Instrument, Universe

TIMES = {"sequence", "checksum", "waiting_ns", "features_ns", "inference_ns", "risk_ns", "total_ns"}
UNTIMED = [name for name in DECISION.names or () if name not in TIMES]
LIMITS = Limits(
    confidence_threshold=0.51,
    max_order_notional=60_000.0,
    max_position_size=2_000.0,
    max_orders_per_s_symbol=4.0,
    max_repeats=2.0,
    max_daily_loss=50_000.0,
    valid_for_us=300_000,
)
UNIVERSE = Universe({"LOTS": Instrument(symbol="LOTS", lot=5.0, minimum_size=20.0, tick_size=0.25)}, closed=False)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    """A forest that is the default, and a logistic regression that has no lane."""
    folder = tmp_path_factory.mktemp("models")
    publish_forest(folder, name="forest", latency_budget_ms=60_000.0)
    publish_logistic(folder, name="line", latency_budget_ms=60_000.0)
    return load_repository(folder, "forest")


@pytest.fixture(scope="module")
def quoting(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    """A forest on `micro32`."""
    folder = tmp_path_factory.mktemp("models32")
    publish_forest(folder, name="forest", features=micro32(), latency_budget_ms=60_000.0)
    return load_repository(folder)


@pytest.fixture(scope="module")
def choosing(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    """A forest whose canary answers for two fifths of the symbols; one of them also has no lane."""
    folder = tmp_path_factory.mktemp("models")
    publish_forest(folder, name="forest", seed=1, latency_budget_ms=60_000.0)
    publish_forest(folder, name="forest", version=2, seed=2, latency_budget_ms=60_000.0)
    publish_logistic(folder, name="line", latency_budget_ms=60_000.0)
    publish_forest(folder, name="line", version=2, latency_budget_ms=60_000.0)
    for name in ("forest", "line"):
        change_alias(folder / name, "production", 1, expected=None, reason="a test", who="tester")
        change_alias(folder / name, "canary", 2, expected=None, share_percent=40.0, reason="a test", who="tester")
    return load_repository(folder, "forest")


class Side:
    """An engine with a journal, with or without lanes."""

    def __init__(self, registry: ModelRegistry, folder: Path, *, lanes: bool) -> None:
        self.folder = folder
        self.journal = JournalWriter(folder, segment_records=256)
        engine_settings = EngineSettings(capacity=6, replay=True, price_jump_sigmas=1.0)
        self.engine = Engine(engine_settings, registry, UNIVERSE, LIMITS, journal=self.journal)
        self.desk = self.engine.desk
        self.desk.apply_risk_data(risk_data(["A", "LOTS", "G"], correlation=0.4, deviation=0.03))
        self.desk.judge_age(vouched=True)
        self.order_id = 0  # of the latest approval
        self.answers = Answers(self.engine)
        assert self.answers._lane.open
        if not lanes:
            self.answers._lane.open = False

    def predict(self, data: bytes) -> str | Status:
        """The answer as text: NaN is NaN there."""
        found = self.answers.predict(data, time.perf_counter_ns(), 0)
        if isinstance(found, Status):
            return found
        answer = untimed(pb.PredictResponse.FromString(found))
        self.order_id = answer.signal.order_id or self.order_id
        return str(answer)

    def stream(self, data: bytes) -> Any:
        answer = self.answers.predict_stream(data, time.perf_counter_ns(), 0)
        while isinstance(answer, Generator):
            try:
                next(answer)
            except StopIteration as finished:
                answer = finished.value
        if isinstance(answer, Status):
            return answer
        results = pb.PredictStreamResponse.FromString(answer).results
        for result in results:
            result.response.ClearField("timing")
        return list(map(str, results))

    def rows(self) -> list[dict[str, bytes]]:
        """What the journal holds of decisions, without times."""
        self.answers.close()
        self.journal.close()
        with JournalReader(self.folder) as reader:
            found = []
            while (batch := reader.poll(256)).size:
                chosen = batch[batch["kind"] == RecordKind.DECISION]
                found += [{name: row[name].tobytes() for name in UNTIMED} for row in chosen]
        return found

    def controls(self) -> list[tuple[int, int, Any]]:
        """What it holds of the desk, by sequence."""
        with JournalReader(self.folder) as reader:
            return [
                (entry.sequence, int(entry.code), entry.payload) for entry in reader if isinstance(entry, ControlEntry)
            ]


def assert_same_desk(fast: Side, slow: Side) -> None:
    assert repr(fast.desk.portfolio()) == repr(slow.desk.portfolio())  # NaN is NaN there
    mine, others = fast.desk.book, slow.desk.book
    for name in ("rows", "facts", "account", "orders", "order_facts", "models"):
        assert getattr(mine, name).tobytes() == getattr(others, name).tobytes(), name
    assert mine.exposures.sigma_w.tobytes() == others.exposures.sigma_w.tobytes()


def assert_same_journal(fast: Side, slow: Side) -> None:
    mine, others = fast.rows(), slow.rows()
    assert len(mine) == len(others)
    for index, (row, other) in enumerate(zip(mine, others, strict=True)):
        assert {name: (row[name], other[name]) for name in row if row[name] != other[name]} == {}, index
    assert list(map(repr, fast.controls())) == list(map(repr, slow.controls()))


numbers = st.sampled_from([1.0, 99.5, 100.0, 100.25, 101.0, 250.0]) | st.floats(0.01, 1e4)
odd = st.sampled_from([0.0, -1.0, math.nan, math.inf, -math.inf, 1e308])
ticks = st.builds(
    tick,
    st.sampled_from(["A", "LOTS", "SYM-2", "é", "x" * 32, "x" * 33, "", "G", "H", "I"]),
    st.sampled_from([START_NS, START_NS + 1, START_NS + 10**9]) | st.integers(-5, 2**62),
    sequence=st.sampled_from([0, 1, 2, 3, 2**63, 2**64 - 1]) | st.integers(0, 50),
    trade=st.none() | st.tuples(numbers | odd, numbers | odd),
    quote=st.none() | st.tuples(numbers | odd, numbers, numbers, numbers | odd),
    request_id=st.sampled_from(["", "id", "y" * 36, "y" * 37, "ü"]),
    model=st.sampled_from(["", "forest", "forest@production", "forest:1", "line", "none"]),
    budget_us=st.sampled_from([0, 50_000_000, 2**50, 2**63]),
)
# A walk that fills the windows, so that the model and the gate are reached.
walks = st.lists(st.tuples(st.sampled_from([99.0, 100.0, 100.5, 101.0]), st.floats(0.1, 9.0)), max_size=45)


@settings(max_examples=60)
@given(walks, st.lists(ticks, max_size=12), st.booleans(), st.randoms())
def test_both_ways_give_the_same_answers_and_journal(
    registry: ModelRegistry,
    tmp_path_factory: pytest.TempPathFactory,
    walk: list[tuple[float, float]],
    others: list[pb.PredictRequest],
    quoted: bool,  # noqa: FBT001 - hypothesis
    random: Any,
) -> None:
    requests = [
        tick(
            "A" if index % 3 else "LOTS",
            START_NS + index * 10**8,
            sequence=index + 1,
            trade=trade,
            quote=(trade[0] - 0.5, trade[0] + 0.5, 1.0, 2.0) if quoted else None,
            request_id=f"walk-{index}",
        )
        for index, trade in enumerate(walk)
    ]
    for other in others:
        requests.insert(random.randint(0, len(requests)), other)
    folder = tmp_path_factory.mktemp("journals")
    fast = Side(registry, folder / "fast", lanes=True)
    slow = Side(registry, folder / "slow", lanes=False)
    for request in requests:
        data = request.SerializeToString()
        assert fast.predict(data) == slow.predict(data)
        message = pb.PredictStreamRequest(requests=[request]).SerializeToString()
        assert fast.stream(message) == slow.stream(message)
    assert_same_journal(fast, slow)


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_both_ways_give_the_same_with_features_of_quotes(
    quoting: ModelRegistry, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Ticks by a seed, as these windows take more of them than can be drawn one by one."""
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("journals")
    fast, slow = Side(quoting, folder / "fast", lanes=True), Side(quoting, folder / "slow", lanes=False)
    at_ns, number = START_NS, 0
    # At least so many, and until the windows are full: by some seeds most ticks have one time.
    while number < 160 or not slow.engine.feature_stores[0].ready[slow.engine.symbols.row("A")]:
        at_ns += int(rng.choice([0, 1, 10**8]))
        price = 100.0 + 0.25 * int(rng.integers(0, 5))
        trade = (price, float(rng.choice([0.0, 1.0, 2.5])))
        quote = (price - 0.25 * int(rng.integers(0, 2)), price + 0.25, 2.0, float(rng.integers(0, 3)))
        kind = 3 if number == 0 else int(rng.choice([1, 2, 3, 3]))
        data = tick(
            "A", at_ns, sequence=number + 1, trade=trade if kind & 1 else None, quote=quote if kind & 2 else None
        ).SerializeToString()
        assert fast.predict(data) == slow.predict(data)
        number += 1
        assert number < 2000
    mine, others = (side.engine.feature_stores[0] for side in (fast, slow))
    for name in ("vectors", "ready", "prices", "carried", "marks"):
        assert getattr(mine, name).tobytes() == getattr(others, name).tobytes(), name
    assert mine.ready[fast.engine.symbols.row("A")]
    assert_same_journal(fast, slow)


# What happens to a desk between two requests; each takes a side, and gives what both must say.
def filled(symbol: str, side: OrderSide, size: float, number: int, *, of_order: bool) -> Any:
    def happen(one: Side) -> Any:
        order_id = one.order_id if of_order else 0
        return one.desk.report_fill(FillReport(f"f{number}", symbol, side, size, 100.0, order_id=order_id))

    return happen


def reported(symbol: str, state: OrderState) -> Any:
    return lambda one: one.desk.report_order(OrderReport(symbol, state, one.order_id or 1))


def foreign(symbol: str, side: OrderSide, size: float) -> Any:
    return lambda one: one.desk.report_order(OrderReport(symbol, OrderState.ACCEPTED, side=side, size=size))


def put_state(state: TradingState) -> Any:
    return lambda one: one.desk.set_state(state, reason="a test", who="tester").state


def put_limits(name: str, value: Any) -> Any:
    def happen(one: Side) -> Any:
        whole = one.desk.whole
        changed = whole.model_copy(update={name: value, "version": whole.version + 1})
        return one.desk.change_limits(changed, reason="a test", who="tester")

    return happen


def put_position(symbol: str, size: float) -> Any:
    return lambda one: one.desk.set_positions([PositionSet(symbol, size, 99.0)], reason="a test", who="tester")


def put_degraded(kind: ControlKind) -> Any:
    return lambda one: one.desk.apply(kind, {"name": "forest", "version": 1}, 0, 0)


places = st.sampled_from(["A", "LOTS", "G"])
sides = st.sampled_from(OrderSide)
units = st.sampled_from([5.0, 20.0, 45.0, 300.0, 1500.0])
events = st.one_of(
    st.builds(filled, places, sides, units, st.integers(0, 9), of_order=st.booleans()),
    st.builds(reported, places, st.sampled_from([OrderState.ACCEPTED, OrderState.CANCELLED, OrderState.REJECTED])),
    st.builds(foreign, places, sides, units),
    st.builds(put_position, places, units | units.map(lambda size: -size) | st.just(0.0)),
    st.builds(put_state, st.sampled_from(TradingState)),
    st.builds(put_limits, st.just("max_var"), st.sampled_from(["off", 10.0, 1e3, 1e5])),
    st.builds(put_limits, st.just("max_correlation"), st.sampled_from(["off", 0.3, 0.8])),
    st.builds(put_limits, st.just("max_gross_exposure"), st.sampled_from(["off", 50_000.0, 1e6])),
    st.builds(put_limits, st.just("confidence_threshold"), st.sampled_from([0.5, 0.52])),
    st.builds(put_limits, st.just("allowed_regimes"), st.sampled_from([("normal",), ("trending",)])),
    st.builds(put_degraded, st.sampled_from([ControlKind.MODEL_DEGRADED, ControlKind.MODEL_REOPENED])),
    st.sampled_from(
        [
            lambda one: one.desk.judge_age(vouched=False),
            lambda one: one.desk.judge_age(vouched=True),
            lambda one: one.desk.poll(),
            lambda one: one.engine.recorder.unsent([one.order_id], 1),
        ]
    ),
)


def outcome(event: Any, side: Side) -> str:
    try:
        return repr(event(side))
    except ReportRefused as refused:
        return repr(refused)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            places,
            st.sampled_from([99.0, 99.9, 100.0, 100.1, 101.0]),
            st.sampled_from([0, 10**7, 10**8, 4 * 10**8]),
            st.none() | events,
            st.sampled_from(["", "", "a", "b"]),
        ),
        min_size=20,
        max_size=60,
    )
)
def test_both_ways_stay_the_same_whatever_happens_to_the_desk_between_requests(
    registry: ModelRegistry,
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, float, int, Any, str]],
) -> None:
    folder = tmp_path_factory.mktemp("journals")
    fast = Side(registry, folder / "fast", lanes=True)
    slow = Side(registry, folder / "slow", lanes=False)
    at_ns = START_NS
    for number in range(25):  # until windows and volatility are known
        for symbol in ("A", "LOTS", "G"):
            data = tick(symbol, at_ns + number, trade=(100.0 + number % 3 * 0.1, 1.0)).SerializeToString()
            assert fast.predict(data) == slow.predict(data)
    for number, (symbol, price, step_ns, event, request_id) in enumerate(steps):
        at_ns += step_ns + 100
        data = tick(
            symbol, at_ns, sequence=number + 1, trade=(price, 1.0 + number % 4), request_id=request_id
        ).SerializeToString()
        assert fast.predict(data) == slow.predict(data)
        if event is not None:
            assert outcome(event, fast) == outcome(event, slow)
    assert_same_desk(fast, slow)
    assert_same_journal(fast, slow)


def tag(field: int, wire: int) -> bytes:
    return bytes((field << 3 | wire,))


GOOD = tick("A", START_NS, sequence=9, trade=(100.0, 1.0), request_id="r").SerializeToString()
ODD_BYTES = {
    "nothing": b"",
    "a field that is not known": GOOD + tag(9, 0) + b"\x05",
    "the budget twice": GOOD + tag(3, 0) + b"\x90\xa1\x0f" + tag(3, 0) + b"\x91\xa1\x0f",
    "the tick twice, which merges": GOOD + tick("A", START_NS + 5, quote=(1.0, 2.0, 3.0, 4.0)).SerializeToString(),
    "a tick and then a symbol": GOOD + tag(6, 2) + b"\x01A",
    "a longer varint than needed": GOOD + tag(3, 0) + b"\x90\xa1\x8f\x80\x00",
    "a varint of eleven bytes": GOOD + tag(3, 0) + b"\xff" * 10 + b"\x01",
    "a varint beyond 64 bits": GOOD + tag(3, 0) + b"\xff" * 9 + b"\x7f",
    "a length beyond the end": GOOD[:-1],
    "text that is no UTF-8": GOOD + tag(2, 2) + b"\x02\xff\xfe",
    "a group": GOOD + tag(3, 3),
    "a double where a varint belongs": GOOD + tag(3, 1) + b"\0" * 8,
    "bytes that are no message": b"\xff\xff\xff",
    "the aggressor": tick("A", START_NS, trade=(1.0, 1.0)).SerializeToString(),
}


@pytest.mark.parametrize("data", ODD_BYTES.values(), ids=ODD_BYTES)
def test_odd_bytes_are_read_as_protobuf_reads_them(registry: ModelRegistry, tmp_path: Path, data: bytes) -> None:
    fast = Side(registry, tmp_path / "fast", lanes=True)
    slow = Side(registry, tmp_path / "slow", lanes=False)
    for side in (fast, slow):
        side.predict(tick("A", START_NS - 1, trade=(99.0, 1.0)).SerializeToString())
    for _ in range(2):
        assert fast.predict(data) == slow.predict(data)
    assert_same_journal(fast, slow)


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_read_as_protobuf_reads_them(
    registry: ModelRegistry, tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("journals")
    fast, slow = Side(registry, folder / "fast", lanes=True), Side(registry, folder / "slow", lanes=False)
    assert fast.predict(data) == slow.predict(data)
    assert fast.stream(data) == slow.stream(data)
    assert_same_journal(fast, slow)


@settings(max_examples=10)
@given(walks, st.data())
def test_a_canary_is_chosen_alike_on_both_ways(
    choosing: ModelRegistry, tmp_path_factory: pytest.TempPathFactory, walk: list[tuple[float, float]], data: Any
) -> None:
    folder = tmp_path_factory.mktemp("journals")
    fast = Side(choosing, folder / "fast", lanes=True)
    slow = Side(choosing, folder / "slow", lanes=False)
    references = st.sampled_from(["", "forest", "forest@production", "forest@canary", "forest:1", "line", "line:2"])
    for index, trade in enumerate(walk):
        for symbol in ("A", "G", "LOTS", "H"):
            request = tick(
                symbol, START_NS + index * 10**8, sequence=index + 1, trade=trade, model=data.draw(references)
            ).SerializeToString()
            assert fast.predict(request) == slow.predict(request)
    assert_same_journal(fast, slow)


def test_the_plain_case_takes_the_lane_and_all_else_does_not(registry: ModelRegistry, tmp_path: Path) -> None:
    side = Side(registry, tmp_path, lanes=True)
    lane = side.answers._lane
    now = time.perf_counter_ns

    def taken(request: pb.PredictRequest) -> bool:
        return lane.predict(request.SerializeToString(), now(), 0) is not None

    first = tick("A", START_NS, trade=(100.0, 1.0))
    assert not taken(first)  # a new symbol gets its row on the general path
    side.predict(first.SerializeToString())
    assert taken(tick("A", START_NS + 1, trade=(100.0, 1.0)))
    assert taken(tick("A", START_NS + 2, quote=(1.0, 2.0, 3.0, 4.0), model="forest:1", budget_us=10_000))
    assert not taken(tick("A", START_NS + 3, trade=(100.0, 1.0), model="line"))
    assert not taken(tick("A", START_NS + 3, trade=(100.0, 1.0), budget_us=1_999))
    assert not taken(tick("A", START_NS, trade=(100.0, 1.0)))  # out of order: refused, and nothing changed
    assert not taken(pb.PredictRequest(symbol="A"))
