"""A recorded day as feeds deliver it: doubled, delayed, with garbage in it. What is accepted is the clean day.

Real trades (see `support.real_data`) under an injected clock, which is each message's arrival. Two symbols of one feed;
sequences are spaced out so that what is injected has numbers of its own.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.ingest.ingesting import Clock, Publishing, Tick, state_of
from tests.support import real_data
from tests.support.packages import publish_forest

from tickgate_server.engine import EngineSettings
from tickgate_server.features.schema import micro32
from tickgate_server.ingest.ingestion import Counts, IngestSettings
from tickgate_server.journal.published import published_of
from tickgate_server.journal.reader import JournalReader
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.risk.reasons import Reason

MS = 1_000_000
NETWORK_NS = 5 * MS
WINDOW_NS = 50 * MS
SPACING = 10  # between the sequences of the day's own ticks
TICKS = 8_000
NAN = float("nan")

Delivered = list[tuple[int, Tick]]
"""When each tick arrives, and it."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    folder = tmp_path_factory.mktemp("models")
    publish_forest(folder, name="forest", features=micro32(), latency_budget_ms=60_000.0)
    return load_repository(folder)


@pytest.fixture(scope="module")
def day() -> list[Tick]:
    """The clean day, in the order of the venue."""
    found = []
    for name, symbol in ((real_data.SPOT_BTC, "BTCUSDT"), (real_data.SPOT_ETH, "ETHUSDT")):
        frame = real_data.ticks(name).head(TICKS)
        for number, (stamp_ns, price, size, *quote) in enumerate(
            frame.select("exchange_ts_ns", "price", "size", "bid", "ask", "bid_size", "ask_size").iter_rows()
        ):
            whole = tuple(map(float, quote)) if all(map(math.isfinite, quote)) else None
            found.append(
                Tick(symbol, stamp_ns, (number + 1) * SPACING, (price, size), whole)  # type: ignore[arg-type]  # four
            )
    return sorted(found, key=lambda tick: (tick.exchange_ts_ns, tick.sequence))


class Faulty:
    """The day as it is delivered.

    Attributes:
        delivered: In the order of arrival.
        delayed: Symbol and sequence of each tick that is held up.
        injected: How many of each fault.
    """

    def __init__(self, day: list[Tick]) -> None:
        rng = np.random.default_rng(11)
        count = len(day)
        self.injected = {name: max(count // 1000, 1) for name in ("nan", "future", "stale", "spike")}
        self.injected["duplicate"] = count // 100
        delays_ns = np.zeros(count, np.int64)
        chosen = rng.choice(count, count // 100, replace=False)
        delays_ns[chosen] = rng.integers(1, WINDOW_NS, chosen.size)
        self.delayed = {(day[at].symbol, day[at].sequence) for at in chosen.tolist()}
        found: Delivered = [
            (tick.exchange_ts_ns + NETWORK_NS + int(delay), tick) for tick, delay in zip(day, delays_ns, strict=True)
        ]
        for at in rng.choice(count, self.injected["duplicate"], replace=False).tolist():
            found.append((found[at][0] + int(rng.integers(1, 4 * WINDOW_NS)), day[at]))
        warm = np.arange(4000, count)  # the volatility that a spike is measured by is known
        for name in ("nan", "future", "stale", "spike"):
            places = rng.choice(warm, self.injected[name], replace=False)
            if name == "spike":  # isolated: far enough from each other that none confirms another
                places = warm[:: warm.size // self.injected[name]][: self.injected[name]]
            for number, at in enumerate(places.tolist()):
                found.append((day[at].exchange_ts_ns + NETWORK_NS, self._fault(name, number, day[at])))
        self.delivered = sorted(found, key=lambda one: one[0])

    @staticmethod
    def _fault(name: str, number: int, near: Tick) -> Tick:
        assert near.trade is not None
        price, size = near.trade
        own = replace(near, sequence=near.sequence + 1 + number % (SPACING - 1))
        if name == "nan":
            return replace(own, trade=(NAN, size))
        if name == "future":
            return replace(own, exchange_ts_ns=near.exchange_ts_ns + 60_000 * MS)
        if (
            name == "stale"
        ):  # of a symbol that is silent: of another it would be out of order, which is looked at before
            return replace(own, symbol="SILENT", exchange_ts_ns=near.exchange_ts_ns - 60_000 * MS)
        return replace(own, trade=(price * 1.08, size), quote=None)


def deliver(side: Publishing, clock: Clock, delivered: Delivered, feed: str, together: int = 8) -> Counts:
    """Publish each tick as it arrives, apply a few at a time; what became of all of them."""
    for at in range(0, len(delivered), together):
        piece = delivered[at : at + together]
        for arrival_ns, tick in piece:
            clock.now_ns = max(clock.now_ns, arrival_ns)
            side.ingestion.poll()
            side.publish([tick], feed)
        side.settle()
    side.ingestion.flush()
    side.settle()
    return total(side.told)


def total(told: list[Counts | Exception]) -> Counts:
    found = [counts for counts in told if isinstance(counts, Counts)]
    assert len(found) == len(told)
    reasons = {reason for counts in found for reason in counts.rejected}
    return Counts(
        sum(counts.accepted for counts in found),
        sum(counts.repeated_latest for counts in found),
        sum(counts.conflated for counts in found),
        {reason: sum(counts.rejected.get(reason, 0) for counts in found) for reason in reasons},
    )


def accepted_in(folder: Path) -> list[tuple[bytes, int]]:
    """Symbol and sequence of what was applied, in order."""
    found: list[tuple[bytes, int]] = []
    with JournalReader(folder) as reader:
        while (rows := reader.poll(1024)).size:
            applied = published_of(rows, reader.symbols).applied()
            found += zip(applied.symbols.tolist(), applied.ticks["tick_sequence"].tolist(), strict=True)
    return found


def ingest(registry: ModelRegistry, folder: Path, delivered: Delivered, feed: str) -> tuple[Publishing, Counts]:
    clock = Clock(delivered[0][0])
    settings = IngestSettings(windows_ns={"venue": WINDOW_NS})
    side = Publishing(
        registry, clock, folder, settings=EngineSettings(capacity=8), ingest=settings, segment_records=65_536
    )
    counts = deliver(side, clock, delivered, feed)
    return side, counts


@pytest.fixture(scope="module")
def clean(
    registry: ModelRegistry, day: list[Tick], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], list[tuple[bytes, int]], Counts]:
    folder = tmp_path_factory.mktemp("clean")
    side, counts = ingest(registry, folder, [(tick.exchange_ts_ns + NETWORK_NS, tick) for tick in day], "")
    side.close()
    return state_of(side.engine), accepted_in(folder), counts


@pytest.fixture(scope="module")
def faulty(day: list[Tick]) -> Faulty:
    return Faulty(day)


FEATURES = ("vectors", "ready", "counts", "prices", "sizes", "stamps_ns", "carried", "marks")


def test_with_the_window_the_accepted_ticks_and_features_are_those_of_the_clean_day(
    registry: ModelRegistry,
    day: list[Tick],
    clean: tuple[dict[str, bytes], list[tuple[bytes, int]], Counts],
    faulty: Faulty,
    tmp_path: Path,
) -> None:
    state, accepted, clean_counts = clean
    assert clean_counts == Counts(accepted=len(day))
    side, counts = ingest(registry, tmp_path, faulty.delivered, "venue")
    side.close()
    found = accepted_in(tmp_path)
    for symbol in (b"BTCUSDT", b"ETHUSDT"):
        mine = [sequence for name, sequence in found if name == symbol]
        assert mine == [sequence for name, sequence in accepted if name == symbol]
    assert len(found) == len(day)
    mine_state = state_of(side.engine)
    for name in FEATURES:
        assert mine_state[f"0.{name}"] == state[f"0.{name}"], name
    assert mine_state["volatilities"] == state["volatilities"]
    injected = faulty.injected
    assert counts.accepted == len(day)
    assert counts.repeated_latest + counts.rejected.get(Reason.TICK_DUPLICATE, 0) == injected["duplicate"]
    assert {reason: ticks for reason, ticks in counts.rejected.items() if reason != Reason.TICK_DUPLICATE} == {
        Reason.TICK_INVALID_VALUE: injected["nan"],
        Reason.TICK_FROM_FUTURE: injected["future"],
        Reason.TICK_STALE: injected["stale"],
        Reason.TICK_PRICE_JUMP: injected["spike"],
    }


def test_without_the_window_only_delayed_ticks_are_missing(
    registry: ModelRegistry, day: list[Tick], faulty: Faulty, tmp_path: Path
) -> None:
    side, counts = ingest(registry, tmp_path, faulty.delivered, "")
    side.close()
    found = {(symbol.decode(), sequence) for symbol, sequence in accepted_in(tmp_path)}
    missing = {(tick.symbol, tick.sequence) for tick in day} - found
    assert missing
    assert missing <= faulty.delayed
    assert found <= {(tick.symbol, tick.sequence) for tick in day}
    rejected, injected = counts.rejected, faulty.injected
    assert rejected[Reason.TICK_INVALID_VALUE] == injected["nan"]
    assert rejected[Reason.TICK_FROM_FUTURE] == injected["future"]
    assert rejected[Reason.TICK_STALE] == injected["stale"]
    assert rejected[Reason.TICK_OUT_OF_ORDER] >= len(missing)
    assert sum(rejected.values()) + counts.repeated_latest == sum(injected.values()) + len(missing)
