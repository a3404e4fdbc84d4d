"""What the monitor's windows hold, against raw samples kept beside them."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.client.sla_clock import MS, SECOND, Desk, objective

from tickgate_client.latency import HIGHEST_NS, LOWEST_NS
from tickgate_client.sla import WINDOWS_S, SlaMonitor
from tickgate_client.sla.judgement import bad_calls, curve
from tickgate_client.sla.windows import SLICE_S, STEPS, Slice, Windows

LIMIT_NS = 5 * MS


def nearest_rank(samples: list[int], share: float) -> int:
    """The ceil(share x n)-th smallest, the slow way."""
    ordered = sorted(samples)
    return ordered[max(math.ceil(round(share * len(ordered), 9)), 1) - 1]


def draw(kind: str, seed: int, count: int) -> list[int]:
    rng = np.random.default_rng(seed)
    drawn = {
        "lognormal": lambda: rng.lognormal(math.log(200_000), 0.8, count),
        "exponential": lambda: rng.exponential(150_000, count),
        "uniform": lambda: rng.uniform(2_000, 90_000_000, count),
        "pareto": lambda: 100_000 * (1 + rng.pareto(1.1, count)),
        "stalls": lambda: np.where(rng.random(count) < 0.004, 50e6, 180_000) * rng.uniform(0.9, 1.1, count),
        "one value": lambda: np.full(count, rng.integers(LOWEST_NS, HIGHEST_NS)),
    }[kind]()
    return [int(value) for value in np.clip(drawn, LOWEST_NS, HIGHEST_NS)]


@settings(max_examples=30)
@given(
    kind=st.sampled_from(["lognormal", "exponential", "uniform", "pareto", "stalls", "one value"]),
    seed=st.integers(0, 2**32 - 1),
    count=st.one_of(st.integers(1, 300), st.integers(1_000, 6_000)),
)
def test_percentiles_are_within_1_percent_of_the_raw_samples_for_any_distribution(
    kind: str, seed: int, count: int
) -> None:
    samples = draw(kind, seed, count)
    desk = Desk()
    for sample in samples:
        desk.monitor.record(sample)
    for found in (desk.monitor.percentiles(), desk.monitor.window(60).latency().round_trip):
        assert found.count == count
        for value_us, share in ((found.p50_us, 0.5), (found.p99_us, 0.99), (found.p999_us, 0.999)):
            assert value_us * 1e3 == pytest.approx(nearest_rank(samples, share), rel=0.01)
        assert found.max_us * 1e3 == pytest.approx(max(samples))


@dataclass(frozen=True)
class Call:
    gap_ns: int
    took_ns: int
    status: int


calls = st.lists(
    st.builds(
        Call,
        gap_ns=st.one_of(st.integers(0, 3 * SECOND), st.integers(0, 2_000 * SECOND)),
        took_ns=st.integers(LOWEST_NS, 20 * MS),
        status=st.sampled_from([0, 0, 0, 4, 14]),
    ),
    max_size=60,
)


@settings(max_examples=50)
@given(made=calls, idle_ns=st.integers(0, 4_000 * SECOND))
def test_a_window_holds_its_span_and_at_most_a_step_more(made: list[Call], idle_ns: int) -> None:
    windows = Windows(1)
    now_ns = 0
    ended: list[tuple[int, Call]] = []
    for call in made:
        now_ns += call.gap_ns
        windows.at(now_ns).add(call.took_ns, None, call.status, interval_ns=0, limits_ns=[LIMIT_NS])
        ended.append((now_ns, call))
    now_ns += idle_ns
    windows.turn(now_ns)
    for span_s in WINDOWS_S:
        span_ns, step_ns = span_s * SECOND, span_s * SECOND // STEPS
        surely = [call for at_ns, call in ended if at_ns > now_ns - span_ns]
        perhaps = [call for at_ns, call in ended if at_ns > now_ns - span_ns - step_ns - SLICE_S * SECOND]
        held = windows.window(span_s)
        count, (bad,) = windows.counts(span_s)
        assert len(surely) <= held.calls == count <= len(perhaps)
        # They leave in order: what is held is the last of what was made.
        kept = [call for _, call in ended][len(ended) - count :]
        assert held.by_status == Counter(call.status for call in kept)
        assert held.bad == [bad] == [sum(call.status != 0 or call.took_ns > LIMIT_NS for call in kept)]
        assert held.sum_ns == sum(call.took_ns for call in kept)
        failed = 0 if held.failed is None else held.failed.get_total_count()
        assert failed == sum(call.status != 0 for call in kept)
    everything = windows.everything()
    assert everything.calls == len(made)
    assert everything.by_status == Counter(call.status for call in made)


def omitted_by(took_ns: int, interval_ns: int) -> list[int]:
    """What the calls that were due during one would have waited for, the slow way."""
    values = []
    value_ns = took_ns - interval_ns
    while value_ns >= interval_ns:
        values.append(value_ns)
        value_ns -= interval_ns
    return values


@settings(max_examples=100)
@given(
    took_ns=st.integers(LOWEST_NS, 200 * MS),
    interval_ns=st.integers(100_000, 300 * MS),
    limit_ns=st.integers(LOWEST_NS, 200 * MS),
    status=st.sampled_from([0, 4]),
)
def test_calls_omitted_at_a_fixed_rate_are_counted_as_one_by_one(
    took_ns: int, interval_ns: int, limit_ns: int, status: int
) -> None:
    calls = Slice(1)
    calls.add(took_ns, 1_000, status, interval_ns=interval_ns, limits_ns=[limit_ns])
    values = [took_ns, *omitted_by(took_ns, interval_ns)]
    reference = Slice(0)
    for value_ns in values:
        reference.round_trip.record_value(value_ns)
    assert calls.round_trip.counts[:] == reference.round_trip.counts[:]
    assert (calls.calls, calls.omitted, calls.sum_ns) == (len(values), len(values) - 1, sum(values))
    assert calls.bad == [len(values) if status else sum(value_ns > limit_ns for value_ns in values)]
    assert (calls.server.get_total_count(), calls.by_status.total()) == (1, 1)


def test_a_stall_of_50_ms_at_one_call_a_10_ms_stands_for_the_four_that_were_due_in_it() -> None:
    desk = Desk(objective(), expected_interval_us=10_000)
    desk.calls(95, ms=1.0)
    desk.call(ms=50.0)
    seen = desk.monitor.everything()
    # 50 ms itself, then 40, 30, 20 and 10 for the calls that were due 10, 20, 30 and 40 ms later: all over 5 ms.
    assert (seen.calls, seen.omitted, seen.bad) == (100, 4, [5])
    assert desk.monitor.percentiles().p99_us == pytest.approx(40_000, rel=0.001)
    without = Desk(objective())
    without.calls(95, ms=1.0)
    without.call(ms=50.0)
    assert without.monitor.everything().bad == [1]


def test_network_is_the_difference_of_each_call_and_never_negative() -> None:
    desk = Desk()
    desk.call(ms=3.0, server_ms=1.0)
    desk.call(ms=3.0, server_ms=3.1)
    desk.call(ms=3.0)
    found = desk.monitor.summary()
    assert (found.round_trip.count, found.server.count, found.network.count) == (3, 2, 2)
    assert found.network.max_us == pytest.approx(2_000, rel=0.001)
    assert found.network.p50_us == pytest.approx(LOWEST_NS / 1e3, rel=0.001)


def test_samples_without_room_are_dropped_and_counted_and_their_stall_is_noticed() -> None:
    desk = Desk(objective(), capacity=3, late_after_s=100.0)
    desk.look()
    desk.calls(3)
    assert (desk.monitor.dropped, desk.causes()) == (0, [])
    desk.call(ms=60.0)
    assert (desk.monitor.dropped, desk.causes()) == (1, ["LATENCY_STALL"])
    assert desk.monitor.everything().calls == 3
    desk.call()
    assert (desk.monitor.dropped, desk.monitor.everything().calls) == (1, 4)


def test_reset_forgets_samples_and_no_standing() -> None:
    desk = Desk(objective())
    desk.look()
    desk.call(ms=60.0)
    desk.look()
    desk.monitor.reset()
    assert desk.monitor.everything().calls == 0
    assert math.isnan(desk.monitor.percentiles().p50_us)
    assert desk.causes() == ["LATENCY_STALL"]


def test_no_call_of_several_threads_is_lost_while_another_folds() -> None:
    ready = threading.Barrier(4)
    with SlaMonitor(look_every_s=0.001) as monitor:

        def ask() -> None:
            ready.wait()
            for _ in range(2_000):
                monitor.end(monitor.begin(), 0, 1_000)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (monitor.everything().calls, monitor.dropped, monitor.in_flight) == (8_000, 0, 0)


def test_a_call_ends_once() -> None:
    desk = Desk()
    number = desk.monitor.begin()
    desk.monitor.end(number)
    for again in (desk.monitor.end, desk.monitor.abandon):
        with pytest.raises(ValueError, match=f"call {number} is not in flight"):
            again(number)
    assert desk.monitor.everything().calls == 1


def test_an_abandoned_call_is_no_sample() -> None:
    desk = Desk()
    desk.monitor.abandon(desk.monitor.begin())
    assert (desk.monitor.abandoned, desk.monitor.in_flight, desk.monitor.everything().calls) == (1, 0, 0)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"capacity": 0}, "capacity is 0"),
        ({"look_every_s": 0.0}, "look_every_s is 0"),
        ({"look_every_s": 2.0}, "below late_after_s"),
        ({"expected_interval_us": 0.5}, "expected_interval_us is 0.5"),
        ({"expected_interval_us": math.nan}, "expected_interval_us is nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings_: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SlaMonitor(**settings_)  # type: ignore[arg-type]


@settings(max_examples=50)
@given(
    took=st.lists(st.tuples(st.integers(LOWEST_NS, 100 * MS), st.booleans()), max_size=50),
    limit_ns=st.integers(LOWEST_NS, 100 * MS),
)
def test_bad_calls_from_histograms_are_those_of_the_calls_to_a_thousandth_of_the_limit(
    took: list[tuple[int, bool]], limit_ns: int
) -> None:
    calls = Slice(0)
    for took_ns, failed in took:
        calls.add(took_ns, None, 4 if failed else 0, interval_ns=0, limits_ns=[])
    found = bad_calls(calls, limit_ns)
    least = sum(failed or took_ns > limit_ns * 1.001 for took_ns, failed in took)
    most = sum(failed or took_ns > limit_ns for took_ns, failed in took)
    assert least <= found <= most


def test_the_percentile_curve_rises_from_the_least_to_the_largest_call() -> None:
    calls = Slice(0)
    for took_ms in range(1, 1001):
        calls.add(took_ms * MS, None, 0, interval_ns=0, limits_ns=[])
    points = curve(calls.round_trip)
    assert points[0] == (1.0, pytest.approx(1_000, rel=0.001))
    assert points[-1] == (1_000.0, 1_000_000.0)
    assert points == sorted(points)
    at_90 = min(points, key=lambda point: abs(point[0] - 10))
    assert at_90[1] == pytest.approx(900_000, rel=0.01)
    assert curve(Slice(0).round_trip) == []


def test_slices_that_fall_out_are_freed_without_garbage_collection() -> None:
    desk = Desk(late_after_s=1e6)
    gc.disable()
    try:
        desk.call(status=4)
        before = weakref.ref(desk.monitor._windows.at(desk.clock.now_ns).round_trip)
        copy = weakref.ref(desk.monitor.everything().round_trip)
        desk.clock.advance(4_000 * SECOND)
        desk.look()
        assert (before(), copy()) == (None, None)
    finally:
        gc.enable()
    assert desk.monitor.everything().calls == 1
