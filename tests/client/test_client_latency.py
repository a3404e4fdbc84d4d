from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from tickgate_client import LatencyRecorder, Percentiles
from tickgate_client.latency import HIGHEST_NS, LOWEST_NS


def percentiles_of(samples_ns: np.ndarray) -> list[float]:
    at = np.percentile(samples_ns, [50, 90, 99, 99.9, 100])
    return list(at / 1e3)


def as_list(percentiles: Percentiles) -> list[float]:
    return [percentiles.p50_us, percentiles.p90_us, percentiles.p99_us, percentiles.p999_us, percentiles.max_us]


@pytest.mark.parametrize("capacity", [1, 777, 4096, 100_000])
def test_percentiles_agree_with_the_raw_samples_whatever_the_buffer_holds(capacity: int) -> None:
    rng = np.random.default_rng(7)
    # Tails in which neighbours at p99.9 lie closer than the 1 % that is asked of the recorder.
    server_ns = rng.lognormal(np.log(8_000), 0.2, 20_000).astype(np.int64)
    network_ns = rng.lognormal(np.log(150_000), 0.25, 20_000).astype(np.int64)
    recorder = LatencyRecorder(capacity)
    for server, network in zip(server_ns.tolist(), network_ns.tolist(), strict=True):
        recorder.record(server + network, server)
    summary = recorder.summary()
    assert as_list(summary.round_trip) == pytest.approx(percentiles_of(server_ns + network_ns), rel=0.01)
    assert as_list(summary.server) == pytest.approx(percentiles_of(server_ns), rel=0.01)
    assert as_list(summary.network) == pytest.approx(percentiles_of(network_ns), rel=0.01)
    assert summary.round_trip.count == summary.server.count == summary.network.count == 20_000


@pytest.mark.parametrize("time_ns", [1_000, 1_003, 999_999, 1_234_567, 59_999_999_999])
def test_three_digits_hold_over_the_whole_range(time_ns: int) -> None:
    recorder = LatencyRecorder()
    for _ in range(3):
        recorder.record(time_ns)
    recorder.record(HIGHEST_NS)
    assert recorder.percentiles().p50_us == pytest.approx(time_ns / 1e3, rel=1e-3)


def test_times_out_of_range_count_at_its_ends() -> None:
    recorder = LatencyRecorder()
    recorder.record(HIGHEST_NS * 5)
    recorder.record(3, 1)
    percentiles = recorder.percentiles()
    assert (percentiles.count, percentiles.max_us) == (2, HIGHEST_NS / 1e3)
    assert recorder.summary().server.max_us == LOWEST_NS / 1e3


def test_a_server_that_says_longer_than_the_round_trip_leaves_no_network() -> None:
    recorder = LatencyRecorder()
    recorder.record(100_000, 100_050)
    assert recorder.summary().network.max_us == LOWEST_NS / 1e3


def test_a_call_without_server_time_counts_as_a_round_trip_alone() -> None:
    recorder = LatencyRecorder()
    recorder.record(100_000)
    summary = recorder.summary()
    assert (summary.round_trip.count, summary.server.count, summary.network.count) == (1, 0, 0)


def test_nothing_recorded_is_not_a_latency_of_zero() -> None:
    percentiles = LatencyRecorder().percentiles()
    assert percentiles.count == 0
    assert all(math.isnan(time_us) for time_us in as_list(percentiles))


def test_reset_forgets_folded_and_buffered_samples() -> None:
    recorder = LatencyRecorder(capacity=2)
    for _ in range(3):
        recorder.record(9_000_000, 5_000_000)
    recorder.reset()
    recorder.record(2_000_000, 1_000_000)
    summary = recorder.summary()
    assert [part.count for part in (summary.round_trip, summary.server, summary.network)] == [1, 1, 1]
    assert summary.round_trip.max_us == summary.round_trip.p50_us == 2_000.0


def test_no_sample_is_lost_between_threads() -> None:
    recorder = LatencyRecorder(capacity=64)
    start = threading.Barrier(4)

    def record() -> None:
        start.wait()
        for _ in range(5_000):
            recorder.record(100_000, 10_000)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.summary().server.count == 20_000


def test_a_buffer_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 sample"):
        LatencyRecorder(0)
